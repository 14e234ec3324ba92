"""Tells an alert to any receiver of JSON: an event of the gateway's own shape, signed as it signs.

`X-Infery-Signature` is the hexadecimal HMAC-SHA256 of the raw body, so that who verifies the
gateway's events verifies these (facts of the gateway: docs, "notifications"). The event's id, which
is its `Idempotency-Key` too, follows from what is told: a receiver that remembers ids drops
repetitions by itself.
"""

import hashlib
import hmac
import json
from decimal import Decimal
from typing import Any

from exports.alerts import Alert, Answer
from exports.alerts.posting import post
from exports.alerts.words import advice, headline
from pipelines.settings import WebhookSink

TYPES = {"budget": "budget.threshold_reached", "exhaustion": "budget.exhaustion_projected"}


def send(alert: Alert, settings: WebhookSink) -> Answer:
    """Posts the event and says what was answered."""
    told = event(alert)
    body = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    headers = {
        "X-Infery-Signature": signature(body, settings.secret.get_secret_value()),
        "Idempotency-Key": told["id"],
        "User-Agent": "Meterhouse",
    }
    if alert.may_repeat:
        headers["X-Meterhouse-May-Repeat"] = "yes"
    return post(settings.url, body, headers)


def signature(body: bytes, secret: str) -> str:
    """The hexadecimal HMAC-SHA256 of a body."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def event(alert: Alert) -> dict[str, Any]:
    """The event. Credits are text, to the last decimal; but for the three fields of the gateway's
    own event, which are numbers there.
    """
    if alert.kind == "digest":
        data: dict[str, Any] = {
            "digest_id": alert.alert_id,
            "headline": headline(alert),
            "message": alert.message,
            "may_repeat": alert.may_repeat,
            "alerts": [_told(one) for one in alert.members],
        }
    else:
        data = _told(alert)
    return {
        "id": _event_id(alert),
        "type": _type(alert),
        "workspace_id": alert.workspace_id,
        "created_at": _instant(max(one.happened_at for one in alert.members or (alert,))),
        "data": data,
    }


def _type(alert: Alert) -> str:
    if alert.kind == "digest":
        return "alerts.digest"
    return TYPES.get(alert.kind, f"spend.{alert.kind}_{alert.transition}")


def _event_id(alert: Alert) -> str:
    place = f"{alert.alert_id}.{alert.step}"
    return "evt_" + hashlib.sha256(place.encode()).hexdigest()[:26]


def _told(alert: Alert) -> dict[str, Any]:
    told = {
        "alert_id": alert.alert_id,
        "event_id": _event_id(alert),
        "type": _type(alert),
        "transition": alert.transition,
        "level": alert.level,
        "kind": alert.kind,
        "scope": alert.scope,
        "subject_id": alert.subject_id,
        "subject_name": alert.subject_name,
        "workspace_id": alert.workspace_id,
        "workspace_name": alert.workspace_name,
        "usage_date": str(alert.usage_date),
        "last_date": str(alert.last_date),
        "credits": _text(alert.credits),
        "highest_credits": _text(alert.highest_credits),
        "expected": _text(alert.expected),
        "upper_limit": _text(alert.upper_limit),
        "ratio": _text(alert.ratio),
        "credits_per_hour": _text(alert.credits_per_hour),
        "since_at": _instant(alert.since_at or alert.opened_at),
        "opened_at": _instant(alert.opened_at),
        "escalated_at": _instant(alert.escalated_at) if alert.escalated_at else None,
        "closed_at": _instant(alert.closed_at) if alert.closed_at else None,
        "cause": alert.cause,
        "headline": headline(alert),
        "message": alert.message,
        "told_by_alert_id": alert.told_by_alert_id,
        "also": alert.also.split("\n") if alert.also else [],
        "advice": advice(alert),
        "may_repeat": alert.may_repeat,
        "contributors": [
            {
                "api_key_id": one.api_key_id,
                "model": one.model,
                "hour_at": _instant(one.hour_at) if one.hour_at else None,
                "request_count": one.request_count,
                "credits": _text(one.credits),
                "share": one.share,
            }
            for one in alert.contributors
        ],
    }
    if alert.is_budget:
        told |= {
            "threshold_pct": _number(alert.threshold_percent),
            "credits_used": _number(alert.credits),
            "monthly_allowance": _number(alert.allowance_credits),
            "cycle_start_date": str(alert.cycle_start_date) if alert.cycle_start_date else None,
            "cycle_end_date": str(alert.cycle_end_date) if alert.cycle_end_date else None,
            "exhausted_on": str(alert.exhausted_on) if alert.exhausted_on else None,
        }
    return told


def _text(value: Decimal | None) -> str | None:
    return None if value is None else f"{value:f}"


def _number(value: Decimal | None) -> int | float | None:
    if value is None:
        return None
    return int(value) if value == int(value) else float(value)


def _instant(at: Any) -> str:
    return f"{at.isoformat()}Z"

"""The Slack and the webhook sink, against a real HTTP receiver that answers as it is told to."""

import hashlib
import hmac
import json
import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import SecretStr

from exports.alerts import Alert, Answer, Contributor, Day, posting, slack, webhook
from pipelines.calendar import utc_now
from pipelines.settings import SlackSink, WebhookSink
from tests.receivers import Fault, HttpReceiver

Rows = Callable[..., dict[str, Any]]
SECRET = "whsec_canary"
EVENING = datetime(2026, 11, 19)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpReceiver]:
    monkeypatch.setattr(posting, "ANSWER_SECONDS", 0.3)
    with HttpReceiver().running() as running:
        assert isinstance(running, HttpReceiver)
        yield running


@pytest.fixture
def leak(alert_row: Rows) -> Alert:
    """A leaked key, with its last weeks and who spent most."""
    first = datetime(2026, 10, 22).date()
    days = [
        Day(first + timedelta(days=number), Decimal(240 + number % 7), Decimal(247), Decimal(480))
        for number in range(27)
    ]
    days.append(Day(datetime(2026, 11, 18).date(), Decimal("1234.5"), Decimal(247), Decimal(480)))
    part = Contributor(
        Decimal("310.25"), "key_1", "Billing bot", "gpt-5", datetime(2026, 11, 18, 8), 240,
        0.31,
    )  # fmt: skip
    row = alert_row(credits_per_hour=Decimal("102.875"), also="Model gpt-5: 2,300.00 credits")
    return Alert.of(row, "opened", days=days, contributors=[part])


def to_webhook(receiver: HttpReceiver, alert: Alert) -> Answer:
    return webhook.send(alert, WebhookSink(url=receiver.url, secret=SecretStr(SECRET)))


def to_slack(receiver: HttpReceiver, alert: Alert) -> Answer:
    return slack.send(alert, SlackSink(url=SecretStr(receiver.url)))


def digest(alert_row: Rows, count: int = 25) -> Alert:
    return Alert.digest(
        [
            Alert.of(
                alert_row(alert_id=f"alert_{number}", highest_credits=Decimal(1000 + number)),
                "opened",
                may_repeat=number == 3,
            )
            for number in range(count)
        ]
    )


# ---- the webhook --------------------------------------------------------------------------------


def test_an_event_arrives_signed_in_the_gateways_own_shape(
    receiver: HttpReceiver, leak: Alert
) -> None:
    assert to_webhook(receiver, leak) == Answer("sent", "200 ok")

    [request] = receiver.taken
    signed = hmac.new(SECRET.encode(), request.body, hashlib.sha256).hexdigest()
    assert request.headers["X-Infery-Signature"] == signed
    assert request.headers["Content-Type"] == "application/json"
    event = json.loads(request.body)
    assert list(event) == ["id", "type", "workspace_id", "created_at", "data"]
    assert event["id"].startswith("evt_")
    assert request.headers["Idempotency-Key"] == event["id"]
    assert (event["type"], event["workspace_id"]) == ("spend.anomaly_opened", "ws_1")
    assert event["created_at"] == "2026-11-18T09:15:00Z"
    data = event["data"]
    assert (data["alert_id"], data["credits"]) == (leak.alert_id, "1234.500000000")
    assert data["contributors"][0] == {
        "api_key_id": "key_1", "model": "gpt-5", "hour_at": "2026-11-18T08:00:00Z",
        "request_count": 240, "credits": "310.25", "share": 0.31,
    }  # fmt: skip


def test_a_budgets_event_is_the_one_the_gateway_sends(
    receiver: HttpReceiver, alert_row: Rows
) -> None:
    row = alert_row(
        kind="budget", credits=Decimal("7500.000000000"), threshold_percent=Decimal("75.000"),
        allowance_credits=Decimal("10000.000000000"),
    )  # fmt: skip

    to_webhook(receiver, Alert.of(row, "opened"))

    event = json.loads(receiver.taken[0].body)
    assert event["type"] == "budget.threshold_reached"
    wanted = {"threshold_pct": 75, "credits_used": 7500, "monthly_allowance": 10000}
    assert wanted.items() <= event["data"].items()


def test_an_event_has_the_same_id_each_time_and_every_transition_another(alert_row: Rows) -> None:
    row = alert_row(level=2, escalated_at=EVENING, closed_at=EVENING)
    events = [webhook.event(Alert.of(row, step)) for step in ("opened", "escalated", "closed")]  # type: ignore[arg-type]
    again = webhook.event(Alert.of(row, "opened", may_repeat=True))

    assert len({event["id"] for event in events}) == 3
    assert again["id"] == events[0]["id"]
    assert again["data"]["may_repeat"] is True
    assert webhook.event(Alert.of(row | {"level": 1}, "escalated"))["id"] != events[1]["id"]


def test_a_digests_event_holds_every_alert(receiver: HttpReceiver, alert_row: Rows) -> None:
    to_webhook(receiver, digest(alert_row))

    [request] = receiver.taken
    event = json.loads(request.body)
    assert event["type"] == "alerts.digest"
    assert len({one["event_id"] for one in event["data"]["alerts"]}) == 25
    assert [one["alert_id"] for one in event["data"]["alerts"] if one["may_repeat"]] == ["alert_3"]
    assert request.headers["X-Meterhouse-May-Repeat"] == "yes"


# ---- Slack --------------------------------------------------------------------------------------


def test_a_slack_message_says_what_happened_who_did_it_and_what_to_do(
    receiver: HttpReceiver, leak: Alert
) -> None:
    assert to_slack(receiver, leak).outcome == "sent"

    message = json.loads(receiver.taken[0].body)
    text = json.dumps(message, ensure_ascii=False)
    for part in (
        "1,234.50 credits", "up to 480.00", "5.0 times", "2026-11-18 09:15", "102.88 credits an",
        "Billing bot on gpt-5, 18 Nov 08:00 UTC: 310.25 credits (31%)", "revoke it now",
        "Model gpt-5: 2,300.00", "▂▂▂", "█", f"meterhouse alerts ack {leak.alert_id}",
    ):  # fmt: skip
        assert part in text, part
    [attachment] = message["attachments"]
    assert {block["type"] for block in attachment["blocks"]} <= {"header", "section", "context"}


def test_a_slack_message_never_exceeds_what_slack_takes(alert_row: Rows) -> None:
    row = alert_row(subject_name="x" * 5000, cause="c" * 5000, message="m" * 5000)
    for alert in (Alert.of(row, "opened"), digest(alert_row, 10_000)):
        message = slack.payload(alert)
        [attachment] = message["attachments"]
        assert len(attachment["blocks"]) <= 50
        for block in attachment["blocks"]:
            text = block.get("text", {"text": ""})["text"]
            assert len(text) <= (150 if block["type"] == "header" else 3000)


def test_a_name_is_never_markup_in_slack(alert_row: Rows) -> None:
    name = "<!channel> *bold* <https://thief.example|look> & `code`"

    text = json.dumps(slack.payload(Alert.of(alert_row(message=name), "opened")))

    assert "<!channel>" not in text
    assert "&lt;!channel&gt;" in text
    assert "<https" not in text
    assert " *bold* " not in text


# ---- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("send", [to_webhook, to_slack])
@pytest.mark.parametrize(
    ("fault", "outcome", "taken"),
    [
        (Fault("answer", 204, takes=True), "sent", 1),
        (Fault("answer", 429), "failed", 0),
        (Fault("answer", 500), "failed", 0),
        (Fault("answer", 503), "failed", 0),
        (Fault("answer", 400), "refused", 0),
        (Fault("answer", 404), "refused", 0),
        (Fault("answer", 301), "refused", 0),
        (Fault("answer", 502, takes=True), "unknown", 1),
        (Fault("answer", 504), "unknown", 0),
        (Fault("answer"), "unknown", 1),
        (Fault("answer", is_silent=True), "unknown", 1),
        (Fault("connect"), None, 0),
        (Fault("body"), None, 0),
    ],
)
def test_the_answer_of_the_receiver_decides(
    receiver: HttpReceiver,
    leak: Alert,
    send: Callable[[HttpReceiver, Alert], Answer],
    fault: Fault,
    outcome: str | None,
    taken: int,
) -> None:
    receiver.plan.append(fault)

    answer = send(receiver, leak)

    # what is small may have left this machine before the cut was seen
    assert answer.outcome in ({outcome} if outcome else {"failed", "unknown"})
    assert len(receiver.taken) == taken
    assert "canary" not in answer.detail or send is to_webhook
    assert SECRET not in answer.detail


def test_a_body_that_did_not_leave_whole_was_not_received(
    leak: Alert, receiver: HttpReceiver
) -> None:
    receiver.plan.append(Fault("body"))

    answer = posting.post(receiver.url, b"x" * 50_000_000, {})

    assert answer.outcome == "failed"
    assert receiver.taken == []


@pytest.mark.parametrize("send", [to_webhook, to_slack])
def test_nobody_there_is_a_failure(
    leak: Alert, send: Callable[[HttpReceiver, Alert], Answer]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    answer = send(HttpReceiver(port=port), leak)

    assert (answer.outcome, answer.is_down) == ("failed", True)
    assert send is to_webhook or "canary" not in answer.detail


@pytest.mark.parametrize(
    ("stated", "seconds"),
    [
        ("17", 17.0),
        ("in 90 seconds", 90.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("soon", None),
        ("", None),
    ],
)
def test_how_long_a_receiver_wants_to_be_left_alone(
    receiver: HttpReceiver, leak: Alert, stated: str, seconds: float | None
) -> None:
    if stated == "in 90 seconds":
        stated = format_datetime(utc_now() + timedelta(seconds=90))
    receiver.plan.append(Fault("answer", 429, retry_after=stated))

    answer = to_slack(receiver, leak)

    assert answer.retry_after == (None if seconds is None else pytest.approx(seconds, abs=5))

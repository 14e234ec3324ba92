"""Tells an alert in Slack, by an incoming webhook: blocks, and a line of text for notifications.

Slack takes no key that would make a repetition harmless: what is said of `unknown` in `posting.py`
and `outbox.py` is all there is, and a message that may repeat an earlier one says so.
"""

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from exports.alerts import Alert, Answer, Day
from exports.alerts.posting import post
from exports.alerts.words import (
    MOST_MEMBERS,
    advice,
    contribution,
    headline,
    numbers,
    repetition,
    title,
)
from pipelines.settings import SlackSink

COLOURS = {"opened": "#b42318", "escalated": "#7a0916", "closed": "#067647"}
MARKUP = re.compile(r"[*~`]|(?<!\w)_|_(?!\w)")
BARS = "▁▂▃▄▅▆▇█"
DAYS = 28
# Slack refuses a message with more
HEADER_LENGTH, FIELD_LENGTH, TEXT_LENGTH, MOST_FIELDS = 150, 2000, 3000, 10


def send(alert: Alert, settings: SlackSink) -> Answer:
    """Posts the message and says what Slack answered."""
    url = settings.url.get_secret_value()
    return post(url, json.dumps(payload(alert)).encode(), {}, secret=url)


def payload(alert: Alert) -> dict[str, Any]:
    """The message as Slack takes it. Names are text, never markup."""
    said = headline(alert)
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": said[:HEADER_LENGTH]}}
    ]
    if alert.may_repeat:
        blocks.append(_section(f":repeat: *{_plain(repetition(alert))}*"))
    blocks.append(_section(_plain(alert.message)))
    if alert.kind == "digest":
        blocks.append(_section("\n".join(_member(one) for one in alert.members[:MOST_MEMBERS])))
        more = len(alert.members) - MOST_MEMBERS
        if more > 0:
            blocks.append(_section(f"… and {more:,} more."))
    else:
        fields = [f"*{_plain(name)}*\n{_plain(text)}" for name, text in numbers(alert)]
        blocks.append({"type": "section", "fields": _fields(fields)})
        if len(alert.days) > 1 and not alert.is_budget:
            days = alert.days[-DAYS:]
            blocks.append(
                _section(
                    f"`{sparkline(days)}`\n{days[0].usage_date:%-d %b} to "
                    f"{days[-1].usage_date:%-d %b}, credits a day"
                )
            )
        blocks.append(_section(f"*Why*\n{_plain(alert.cause)}"))
        if alert.contributors:
            lines = [
                f"• {_plain(contribution(one))}: {one.credits:,.2f} credits"
                + (f" ({100 * one.share:.0f}%)" if one.share is not None else "")
                for one in alert.contributors
            ]
            blocks.append(_section("*The largest parts of the excess*\n" + "\n".join(lines)))
        if alert.also:
            blocks.append(_section(f"*It lifted with it*\n{_plain(alert.also)}"))
    steps = "\n".join(f"• {_plain(step)}" for step in advice(alert))
    blocks.append(_section(f"*What to do*\n{steps}"))
    foot = f"Meterhouse · {title(alert)} · {alert.alert_id}"
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _plain(foot)}]})
    flag = "[may repeat] " if alert.may_repeat else ""
    return {
        "text": _plain(flag + said),
        "attachments": [{"color": COLOURS[alert.transition], "blocks": blocks}],
    }


def sparkline(days: Sequence[Day]) -> str:
    """A bar of text for each day, the highest for the most credits."""
    most = max(day.credits for day in days)
    if not most:
        return BARS[0] * len(days)
    return "".join(BARS[min(7, int(8 * max(day.credits, Decimal(0)) / most))] for day in days)


def _member(alert: Alert) -> str:
    repeats = " (may repeat)" if alert.may_repeat else ""
    limit = ""
    if alert.upper_limit is not None:
        limit = f", {'budget' if alert.is_budget else 'normal to'} {alert.upper_limit:,.2f}"
    said = f"{alert.highest_credits:,.2f} credits{limit}, {title(alert).lower()}{repeats}"
    return f"• *{_plain(alert.subject)[:80]}*: {said}"


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:TEXT_LENGTH]}}


def _fields(texts: Sequence[str]) -> list[dict[str, str]]:
    return [{"type": "mrkdwn", "text": text[:FIELD_LENGTH]} for text in texts[:MOST_FIELDS]]


def _plain(text: str) -> str:
    """Slack's three signs escaped, and no sign that could begin its markup of bold or code. An
    underscore within a word is none: ids stay as they are, to be copied.
    """
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, name)
    return MARKUP.sub("\u2060\\g<0>", text)

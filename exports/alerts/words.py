"""How a person is told an alert, whatever the sink: what it is, the numbers, and what to do."""

from datetime import datetime, timedelta
from decimal import Decimal

from exports.alerts import Alert, Contributor

KINDS = {
    "anomaly": "Spend out of range",
    "drift": "Drifting upwards",
    "woke": "Woke up",
    "budget": "Budget reached",
    "exhaustion": "Allowance running out",
    "digest": "Many alerts at once",
}
STEPS = {"opened": "", "escalated": "escalated", "closed": "closed"}
MOST_CONTRIBUTORS = 5
MOST_MEMBERS = 20  # of a digest; the command line shows the rest


def title(alert: Alert) -> str:
    """The kind and the transition: `Spend out of range, escalated`."""
    step = STEPS[alert.transition]
    return KINDS.get(alert.kind, alert.kind) + (f", {step}" if step else "")


def headline(alert: Alert) -> str:
    """The alert's headline, as a sentence begins."""
    return alert.headline[:1].upper() + alert.headline[1:]


def numbers(alert: Alert) -> list[tuple[str, str]]:
    """What happened in numbers: a name and a text each, the most urgent first."""
    found: list[tuple[str, str]] = []
    day = alert.latest
    if alert.kind == "digest":
        return [("Alerts", f"{len(alert.members):,}"), ("Of them", alert.cause)]
    if alert.is_budget:
        found.append(("Spent", f"{credits(alert.credits)} in this cycle"))
        if alert.upper_limit is not None:
            name = "Budget" if alert.kind == "budget" else "Allowance"
            found.append((name, credits(alert.upper_limit)))
        if alert.cycle_start_date is not None and alert.cycle_end_date is not None:
            last = alert.cycle_end_date - timedelta(days=1)
            found.append(("Cycle", f"{alert.cycle_start_date} to {last}"))
        if alert.exhausted_on is not None:
            found.append(("Runs out", f"on {alert.exhausted_on}"))
    else:
        found.append((f"{day.usage_date:%-d %b}", credits(day.credits)))
        if day.upper_limit is not None:
            usual = f", usually {day.expected:,.2f}" if day.expected else ""
            found.append(("Normal", f"up to {day.upper_limit:,.2f}{usual}"))
        if day.expected:
            found.append(("Ratio", f"{day.credits / day.expected:,.1f} times the usual"))
        if alert.highest_credits > day.credits:
            found.append(("Highest day", credits(alert.highest_credits)))
    found.append(("Since", instant(alert.since_at or alert.opened_at)))
    if alert.closed_at is not None:
        found.append(("Until", instant(alert.closed_at)))
    elif alert.credits_per_hour is not None:
        a_day = f", {alert.credits_per_hour * 24:,.2f} a day" if alert.credits_per_hour else ""
        found.append(("At this rate", f"{credits(alert.credits_per_hour)} an hour{a_day}"))
    return found


def contribution(one: Contributor) -> str:
    """Who, on what and when: `Billing bot on gpt-5, 18 Nov 09:00`."""
    who = one.key_name or one.api_key_id or "without a key"
    what = f" on {one.model}" if one.model else ""
    when = f", {one.hour_at:%-d %b %H:%M} UTC" if one.hour_at else ""
    return f"{who}{what}{when}"


def advice(alert: Alert) -> list[str]:
    """What to do about it, most urgent first."""
    where = f" --workspace {alert.workspace_id}" if alert.workspace_id else ""
    if alert.kind == "digest":
        return [
            "Look for what they have in common: a price, a model, a deployment, a leak.",
            f"See them all: meterhouse alerts --open{where}",
        ]
    if alert.transition == "closed":
        return ["Nothing: this message only ends the story."]
    look = f"See who spent it: meterhouse usage --group-by key{where} --last 7d"
    heard = f"Say that you look at it: meterhouse alerts ack {alert.alert_id}"
    if alert.is_budget:
        return [look, "Raise the budget or the plan, or slow down whoever spends it.", heard]
    first = {
        "key": "If you do not know what this key is doing, revoke it now: it may have leaked.",
        "member": "Ask the member: a playground session may have been left running.",
        "model": "Find out who has moved to this model, and whether they meant to.",
        "workspace": "Look for a new job, a retry loop, or many keys growing at once.",
    }[alert.scope]
    if alert.scope == "key":
        look = f"See what it was spent on: meterhouse usage --group-by model{where} --last 7d"
    planned = f"If it was planned, say so: meterhouse alerts expected {alert.alert_id}"
    return [first, look, heard, planned]


def repetition(alert: Alert) -> str:
    """What is said of a message that may have been received before; nothing of another."""
    if not alert.may_repeat:
        return ""
    doubtful = sum(one.may_repeat for one in alert.members)
    if doubtful and doubtful < len(alert.members):
        return (
            f"{doubtful:,} of these alerts, marked below, may repeat an earlier message: the answer"
            " to it was lost."
        )
    return "This message may repeat an earlier one: the answer to it was lost."


def credits(value: Decimal) -> str:
    return f"{value:,.2f} credits"


def instant(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"

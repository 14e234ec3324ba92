"""The alert sinks: a file with `send(alert)` or `send(alert, settings)` is one, by its name.

What every sink speaks of stands here. When a sink is told, and how often, is the business of
`outbox.py`; whether something is an alert at all, that of `sql/marts/budget_alerts.sql`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, Self

Transition = Literal["opened", "escalated", "closed"]
Outcome = Literal["sent", "sent_in_part", "failed", "refused", "unknown"]


@dataclass(frozen=True)
class Alert:
    """One transition of one alert: a row of `marts.budget_alerts`, and what of it is to be told.

    Credits are exact; instants are UTC without a zone. `recipients`: a budget's own, as the
    directory writes them, to be told besides the settings'. `may_repeat`: an earlier attempt may
    have been received.
    """

    alert_id: str
    transition: Transition
    kind: str
    scope: str
    subject_id: str
    usage_date: date
    last_date: date
    credits: Decimal
    highest_credits: Decimal
    opened_at: datetime
    cause: str
    message: str
    workspace_id: str | None = None
    workspace_name: str | None = None
    subject_name: str | None = None
    expected: Decimal | None = None
    upper_limit: Decimal | None = None
    ratio: Decimal | None = None
    escalated_at: datetime | None = None
    closed_at: datetime | None = None
    recipients: str | None = None
    may_repeat: bool = False

    @classmethod
    def of(cls, row: Mapping[str, Any], transition: Transition, may_repeat: bool = False) -> Self:
        """The alert of a row of `marts.budget_alerts`; columns nobody tells are left out."""
        told = {field.name for field in fields(cls)} - {"transition", "may_repeat"}
        values = {name: value for name, value in row.items() if name in told}
        return cls(transition=transition, may_repeat=may_repeat, **values)

    @property
    def subject(self) -> str:
        """What it is about, as people call it: `key "Billing bot"`."""
        return f'{self.scope} "{self.subject_name}"' if self.subject_name else self.identity

    @property
    def identity(self) -> str:
        """What it is about, as machines call it: `key inf_01`."""
        return f"{self.scope} {self.subject_id}"

    @property
    def workspace(self) -> str | None:
        """The workspace, as people call it; None where the source names none."""
        return self.workspace_name or self.workspace_id

    @property
    def headline(self) -> str:
        """What a person reads first, in one line."""
        place = f" in {self.workspace}" if self.workspace and self.scope != "workspace" else ""
        who = f"{self.subject}{place}"
        if self.transition == "closed":
            return f"{who} is back to normal"
        if self.transition == "escalated":
            return f"Escalated: {who} now at {self.highest_credits:,.2f} credits a day"
        if self.kind == "budget":
            return f"{who} has reached its budget of {self.upper_limit:,.2f} credits"
        if self.kind == "woke":
            return f"{who} woke up and spent {self.credits:,.2f} credits"
        if self.kind == "drift":
            return f"{who} is drifting upwards, {self.credits:,.2f} credits a day"
        times = f", {self.ratio:,.1f} times the expected" if self.ratio is not None else ""
        return f"{who} spent {self.credits:,.2f} credits{times}"


@dataclass(frozen=True)
class Answer:
    """What became of one attempt to tell a sink.

    `failed`: not received, worth another try soon. `refused`: not received, and asking again
    tonight is of no use. `unknown`: sent, but the answer was never seen. `is_down`: nothing else
    will get through tonight either. A sink may also raise: that is `failed`, with the error's text.
    """

    outcome: Outcome
    detail: str
    is_down: bool = False

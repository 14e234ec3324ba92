"""The alert sinks: a file with `send(alert)` or `send(alert, settings)` is one, by its name.

What every sink speaks of stands here, and in `words.py` how a person is told it. When a sink is
told, and how often, is the business of `outbox.py`; whether something is an alert at all, that of
`sql/marts/budget_alerts.sql`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, Self

Transition = Literal["opened", "escalated", "closed"]
Outcome = Literal["sent", "sent_in_part", "failed", "refused", "unknown"]


@dataclass(frozen=True)
class Day:
    """What the alert's subject spent on a UTC day, and what was normal for it: a row of
    `marts.spend_ranges`. `upper_limit`: None while the subject was too young to have one.
    """

    usage_date: date
    credits: Decimal
    expected: Decimal | None = None
    upper_limit: Decimal | None = None


@dataclass(frozen=True)
class Contributor:
    """A key on a model in an hour, and its share (0 to 1) of what was spent beyond the usual."""

    credits: Decimal
    api_key_id: str | None = None
    key_name: str | None = None
    model: str | None = None
    hour_at: datetime | None = None
    request_count: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class Alert:
    """One transition of one alert: a row of `marts.budget_alerts`, or of `marts.alert_lines`, and
    what of it is to be told.

    Credits are exact; instants are UTC without a zone. `recipients`: a budget's own, as the
    directory writes them, to be told besides the settings'. `level`: how often it has doubled.
    `told_by_alert_id`: the alert that has told of it since it was told.
    `may_repeat`: an earlier attempt may have been received. `days`: the last weeks, oldest first.
    `members`: of a digest (kind `digest`), the alerts that it tells.
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
    level: int = 0
    since_at: datetime | None = None
    credits_per_hour: Decimal | None = None
    also: str | None = None
    escalated_at: datetime | None = None
    closed_at: datetime | None = None
    threshold_percent: Decimal | None = None
    allowance_credits: Decimal | None = None
    cycle_start_date: date | None = None
    cycle_end_date: date | None = None
    exhausted_on: date | None = None
    recipients: str | None = None
    told_by_alert_id: str | None = None
    may_repeat: bool = False
    days: tuple[Day, ...] = ()
    contributors: tuple[Contributor, ...] = ()
    members: tuple["Alert", ...] = ()

    @classmethod
    def of(
        cls,
        row: Mapping[str, Any],
        transition: Transition,
        may_repeat: bool = False,
        days: Sequence[Day] = (),
        contributors: Sequence[Contributor] = (),
    ) -> Self:
        """The alert of such a row; columns nobody tells are left out."""
        told = {field.name for field in fields(cls)}
        told -= {"transition", "may_repeat", "days", "contributors", "members"}
        values = {name: value for name, value in row.items() if name in told}
        return cls(
            transition=transition,
            may_repeat=may_repeat,
            days=tuple(days),
            contributors=tuple(contributors),
            **values,
        )

    @classmethod
    def digest(cls, members: Sequence["Alert"]) -> Self:
        """Many alerts of one workspace as one message, the most credits first.

        Its id follows from what it tells: a repetition of the same digest can be known for one.
        """
        ordered = sorted(members, key=lambda one: (-one.highest_credits, one.alert_id, one.step))
        places = sorted(f"{one.alert_id}.{one.step}" for one in members)
        first = ordered[0]
        place = f" of {first.workspace}" if first.workspace else ""
        steps = {"opened": "opened", "escalated": "escalated", "closed": "are back to normal"}
        counts = [
            f"{sum(one.transition == step for one in members):,} {said}"
            for step, said in steps.items()
            if any(one.transition == step for one in members)
        ]
        return cls(
            alert_id="digest_" + hashlib.sha256("\n".join(places).encode()).hexdigest()[:16],
            transition="opened",
            kind="digest",
            scope="workspace",
            subject_id=first.workspace_id or "unassigned",
            subject_name=first.workspace_name,
            workspace_id=first.workspace_id,
            workspace_name=first.workspace_name,
            usage_date=min(one.usage_date for one in members),
            last_date=max(one.last_date for one in members),
            credits=sum((one.credits for one in members), Decimal(0)),
            highest_credits=first.highest_credits,
            opened_at=min(one.opened_at for one in members),
            cause=", ".join(counts),
            message=f"{len(members):,} alerts{place} at once: {', '.join(counts)}.",
            recipients=first.recipients,
            may_repeat=any(one.may_repeat for one in members),
            members=tuple(ordered),
        )

    @property
    def step(self) -> str:
        """The transition, by the name that the journal has for it: each doubling is its own."""
        return step_of(self.transition, self.level)

    @property
    def happened_at(self) -> datetime:
        """When it opened, escalated or closed."""
        at = {"escalated": self.escalated_at, "closed": self.closed_at}.get(self.transition)
        return at or self.opened_at

    @property
    def latest(self) -> Day:
        """Its last day out of range, as far as is known here."""
        known = {day.usage_date: day for day in self.days}
        opening = Day(self.usage_date, self.credits, self.expected, self.upper_limit)
        return opening if self.is_budget else known.get(self.last_date, opening)

    @property
    def is_budget(self) -> bool:
        """Whether it is about what somebody set, not about what is normal."""
        return self.kind in ("budget", "exhaustion")

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
        if self.kind == "digest":
            return f"{len(self.members):,} alerts in {self.workspace or 'unassigned usage'}"
        if self.transition == "closed":
            return f"{who} is back to normal"
        if self.transition == "escalated":
            return f"Escalated: {who} now at {self.highest_credits:,.2f} credits a day"
        if self.kind == "budget":
            said = f"{who} has reached its budget of {self.upper_limit:,.2f} credits"
            percent = self.threshold_percent
            return said if percent is None else f"{said}, {percent.normalize():f}% of its allowance"
        if self.kind == "exhaustion":
            return f"{who} will run out of its allowance on {self.exhausted_on}"
        if self.kind == "woke":
            return f"{who} woke up and spent {self.credits:,.2f} credits"
        if self.kind == "drift":
            return f"{who} is drifting upwards, {self.credits:,.2f} credits a day"
        times = f", {self.ratio:,.1f} times the expected" if self.ratio is not None else ""
        return f"{who} spent {self.credits:,.2f} credits{times}"


def step_of(transition: Transition, level: int) -> str:
    """`opened`, `escalated`, `escalated_2` for the second doubling, …, `closed`."""
    return f"{transition}_{level}" if transition == "escalated" and level > 1 else transition


@dataclass(frozen=True)
class Answer:
    """What became of one attempt to tell a sink.

    `failed`: not received, worth another try soon. `refused`: not received, and asking again
    tonight is of no use. `unknown`: sent, but the answer was never seen. `is_down`: nothing else
    will get through tonight either. `retry_after`: how many seconds the sink asks to be left alone.
    A sink may also raise: that is `failed`, with the error's text.
    """

    outcome: Outcome
    detail: str
    is_down: bool = False
    retry_after: float | None = None

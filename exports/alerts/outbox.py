"""Tells every sink every transition of every alert once, however often or brokenly nights are run.

Exactly once cannot be had of a mail server that dies before it answers. What can be had: nothing
is lost, and nothing is sent twice unless the first answer was never seen, and then the message says
so. A line goes into the journal `raw.deliveries` before each attempt and another after it; a line
without its second is an attempt whose end nobody knows.

What a person said of an alert counts: of what was expected nothing more is told, of what is snoozed
nothing until the snooze ends.

What is told must be public first: call this after publishing. A sink's failure never unpublishes
anything; it is written down, said aloud, and tried again next night.
"""

import inspect
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any, Protocol

import pyarrow.parquet as pq
import tenacity

from exports.alerts import Alert, Answer, Transition
from pipelines.calendar import DAY, Clock, utc_now
from pipelines.settings import Settings, SettingsError
from pipelines.store import RawTable, Store

TOLD_WITHIN = timedelta(hours=48)  # contract, "The clock"
RETRIED_FOR = timedelta(days=7)  # after a week of failing nights a person must look
TRIES_A_NIGHT = 3
LONGEST_DETAIL = 500

INTENDED = "intended"
RECEIVED = {"sent", "sent_in_part"}
DROPPED = {"not_sent_too_old", "not_sent_never_opened", "gave_up"}

TABLES = {
    "raw.deliveries": RawTable(
        "A line of the outbox: what is about to be sent to a sink, then what the sink answered.",
        {
            "alert_id": ("varchar", "as in marts.budget_alerts"),
            "sink": ("varchar", "the file in exports/alerts/"),
            "transition": ("varchar", "opened, escalated or closed"),
            "attempted_at": ("timestamp", "wall clock, UTC; the two lines of an attempt share it"),
            "outcome": ("varchar", "intended, then what became of it"),
            "detail": ("varchar", "what the sink said"),
        },
    )
}

Send = Callable[[Alert], Answer]
Place = tuple[str, str, Transition]  # alert_id, sink, transition
Line = dict[str, Any]


class Journal(Protocol):
    """What is needed of `store.journal(…)`: an appended line is durable when `append` returns."""

    def append(self, entry: Mapping[str, Any]) -> None: ...

    def entries(self) -> list[dict[str, Any]]: ...


@dataclass
class Report:
    """What one night told and could not tell: the place, and what the sink said."""

    sent: list[tuple[Place, str]] = field(default_factory=list)
    repeated: list[tuple[Place, str]] = field(default_factory=list)
    too_old: list[tuple[Place, str]] = field(default_factory=list)
    troubled: list[tuple[Place, str]] = field(default_factory=list)

    def sentences(self) -> Iterator[tuple[str, bool]]:
        """What a person should read of it, each with whether it is a failure."""
        for sink in sorted({place[1] for place, _ in self.sent}):
            count = sum(place[1] == sink for place, _ in self.sent)
            yield f"{sink}: told {_count(count, 'message')}.", False
        if self.repeated:
            yield f"{_count(len(self.repeated), 'message')} may repeat an earlier one.", False
        if self.too_old:
            alerts = len({place[0] for place, _ in self.too_old})
            yield f"{_count(alerts, 'alert')} of past days written down, not sent.", False
        for sink in sorted({place[1] for place, _ in self.troubled}):
            troubles = {place: said for place, said in self.troubled if place[1] == sink}
            yield (
                f"{sink}: {_count(len(troubles), 'message')} not delivered whole "
                f"({next(iter(troubles.values()))}); what failed is tried again next night, "
                "see ops.alert_deliveries.",
                True,
            )


def deliver(
    store: Store, settings: Settings, clock: Clock, modules: Mapping[str, ModuleType]
) -> Iterator[tuple[str, bool]]:
    """Tells the sinks what is published; yields sentences, each with whether it is a failure."""
    sinks = arm(modules, settings.alerts.sinks)
    journal = store.journal("raw.deliveries")
    yield from tell(published_alerts(store), sinks, journal, clock.as_of).sentences()


def published_alerts(store: Store) -> list[dict[str, Any]]:
    """The rows of `marts.budget_alerts` in the snapshot."""
    snapshot = store.snapshot()
    partitions = snapshot.tables.get("marts.budget_alerts", {}) if snapshot else {}
    files = store.local([item for part in partitions.values() for item in part.objects])
    return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


def arm(modules: Mapping[str, ModuleType], sections: Mapping[str, Any]) -> dict[str, Send]:
    """The sinks that are switched on, each bound to its settings.

    `send(alert)` needs no settings and is always on; `send(alert, settings)` is on where
    `[alerts.<name>]` is written, which is read by the sink's own pydantic model `Settings` where it
    has one. Raises SettingsError for a section that is no sink's.
    """
    for name in sections:
        if name not in modules:
            known = ", ".join(sorted(modules))
            raise SettingsError(f"[alerts.{name}]: there is no such sink; known are {known}.")
    return {
        name: _bound(module, sections.get(name))
        for name, module in sorted(modules.items())
        if name in sections or not _takes_settings(module)
    }


def tell(
    rows: Iterable[Mapping[str, Any]],
    sinks: Mapping[str, Send],
    journal: Journal,
    as_of: datetime,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Tells `sinks` what they do not yet know of `rows` (marts.budget_alerts), oldest first.

    What ended 48 hours or more before `as_of` is written down as not sent. Raises nothing that a
    sink does: that is in the report, and in the journal.
    """
    evening = _Evening(sinks, journal, as_of, sleep)
    for row in sorted(rows, key=lambda row: (row["opened_at"], row["alert_id"])):
        for sink in sinks:
            evening.tell(row, sink)
    return evening.report


class _Evening:
    """One night's telling: what the journal knew before, and what has gone wrong since."""

    def __init__(
        self,
        sinks: Mapping[str, Send],
        journal: Journal,
        as_of: datetime,
        sleep: Callable[[float], None],
    ) -> None:
        self.sinks = sinks
        self.journal = journal
        self.as_of = as_of
        self.sleep = sleep
        self.report = Report()
        self.down: dict[str, str] = {}
        self.past: dict[Place, dict[datetime, Line]] = defaultdict(dict)
        for line in journal.entries():
            self._remember((line["alert_id"], line["sink"], line["transition"]), line)

    def tell(self, row: Mapping[str, Any], sink: str) -> None:
        """All that is due of one alert on one sink, in order; nothing is told past a failure."""
        trouble = ""
        for transition, ended_at in _due(row, self.as_of):
            place: Place = (row["alert_id"], sink, transition)
            attempts = list(self.past[place].values())
            trouble = trouble or self.down.get(sink, "")
            if any(line["outcome"] in RECEIVED | DROPPED for line in attempts):
                continue
            if not attempts and self.as_of - ended_at >= TOLD_WITHIN:
                said = f"ended {ended_at:%Y-%m-%d %H:%M} UTC"
                self._settle(place, "not_sent_too_old", said)
                self.report.too_old.append((place, said))
            elif not attempts and transition == "closed" and not self._may_know(row, sink):
                self._settle(place, "not_sent_never_opened", "its opening was not sent either")
            elif attempts and self.as_of - _instant(attempts[0]["as_of"]) >= RETRIED_FOR:
                said = f"given up after {RETRIED_FOR.days} days"
                self._settle(place, "gave_up", said)
                self.report.troubled.append((place, said))
            elif trouble:
                # still written down: what was once due stays due, however old it becomes
                self._settle(place, "failed", f"not tried: {trouble}")
                self.report.troubled.append((place, trouble))
            else:
                trouble = self._send(row, place)

    def _send(self, row: Mapping[str, Any], place: Place) -> str:
        """Up to three attempts; returns why it could not be told, or nothing."""
        _, sink, transition = place
        lines = self.past[place].values()
        is_doubtful = any(line["outcome"] in {INTENDED, "unknown"} for line in lines)
        alert = Alert.of(row, transition, may_repeat=is_doubtful)

        def attempt() -> tuple[Answer, Alert]:
            nonlocal alert
            tried = alert
            answer = self._attempt(tried, place)
            if answer.outcome == "unknown":
                alert = replace(alert, may_repeat=True)
            return answer, tried

        def deserves_another(result: tuple[Answer, Alert]) -> bool:
            answer, tried = result
            # an unseen answer earns one flagged repetition, not a row of them
            return answer.outcome == "failed" or (
                answer.outcome == "unknown" and not tried.may_repeat
            )

        answer, tried = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(TRIES_A_NIGHT),
            wait=tenacity.wait_exponential(multiplier=1, max=10),
            retry=tenacity.retry_if_result(deserves_another),
            retry_error_callback=_last_result,
            sleep=self.sleep,
        )(attempt)
        if answer.outcome in RECEIVED:
            self.report.sent.append((place, answer.detail))
            if tried.may_repeat:
                self.report.repeated.append((place, answer.detail))
        if answer.outcome != "sent":
            self.report.troubled.append((place, answer.detail))
        if answer.is_down:
            self.down[sink] = answer.detail
        return "" if answer.outcome in RECEIVED else answer.detail

    def _attempt(self, alert: Alert, place: Place) -> Answer:
        """One intent, one send, one answer."""
        intent = self._line(place, INTENDED, "as a possible repetition" if alert.may_repeat else "")
        self._write(place, intent)
        try:
            answer = self.sinks[place[1]](alert)
        except Exception as error:  # noqa: BLE001  (whatever a sink may raise, the night goes on)
            answer = Answer("failed", f"{type(error).__name__}: {error}")
        answer = replace(answer, detail=answer.detail[:LONGEST_DETAIL])
        self._write(place, intent | {"outcome": answer.outcome, "detail": answer.detail})
        return answer

    def _settle(self, place: Place, outcome: str, detail: str) -> None:
        """Writes down what is not tried (tonight)."""
        self._write(place, self._line(place, outcome, detail))

    def _line(self, place: Place, outcome: str, detail: str) -> Line:
        alert_id, sink, transition = place
        return {
            "alert_id": alert_id,
            "sink": sink,
            "transition": transition,
            "attempted_at": utc_now(),
            "outcome": outcome,
            "detail": detail,
            "as_of": self.as_of,
        }

    def _write(self, place: Place, line: Line) -> None:
        self.journal.append(line)
        self._remember(place, line)

    def _remember(self, place: Place, line: Line) -> None:
        """The answer, written later, takes the place of the intent."""
        self.past[place][_instant(line["attempted_at"])] = line

    def _may_know(self, row: Mapping[str, Any], sink: str) -> bool:
        """Whether the sink has heard of the alert, or is still to hear of it."""
        earlier: tuple[Transition, Transition] = ("opened", "escalated")
        return any(
            line["outcome"] not in DROPPED
            for transition in earlier
            for line in self.past[row["alert_id"], sink, transition].values()
        )


def _due(row: Mapping[str, Any], as_of: datetime) -> Iterator[tuple[Transition, datetime]]:
    """What is to be told of an alert by now, and when what it speaks of ended."""
    resumes_at = row["snoozed_until"] or datetime.min
    if row["decision"] == "expected" or as_of < resumes_at:
        return
    # what a snooze held back becomes news when it ends, however old it is by then
    opened_at = datetime.combine(row["usage_date"] + DAY, datetime.min.time())
    yield "opened", max(opened_at, resumes_at)
    # … but for an escalation that is over by then
    is_over = row["decision"] == "snoozed" and row["closed_at"] is not None
    if row["escalated_at"] is not None and not is_over:
        yield "escalated", max(row["escalated_at"], resumes_at)
    # that a budget's cycle is over is the calendar's doing, and no news
    if row["closed_at"] is not None and row["kind"] != "budget":
        yield "closed", max(row["closed_at"], resumes_at)


def _takes_settings(module: ModuleType) -> bool:
    return len(inspect.signature(module.send).parameters) > 1


def _bound(module: ModuleType, section: Any) -> Send:
    """A sink's `send`, with its settings in it."""
    if not _takes_settings(module):
        send: Send = module.send
        return send
    if isinstance(section, Mapping) and hasattr(module, "Settings"):
        section = module.Settings.model_validate(section)
    return lambda alert: module.send(alert, section)


def _instant(value: datetime | str) -> datetime:
    """A journal gives instants back as it keeps them: as they were, or as text."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def _last_result(state: tenacity.RetryCallState) -> tuple[Answer, Alert]:
    assert state.outcome is not None
    result: tuple[Answer, Alert] = state.outcome.result()
    return result


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"

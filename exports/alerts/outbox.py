"""Tells every sink every transition of every alert once, however often or brokenly nights are run.

Exactly once cannot be had of a mail server that dies before it answers. What can be had: nothing
is lost, and nothing is sent twice unless the first answer was never seen, and then the message says
so. A line goes into the journal `raw.deliveries` before each attempt and another after it; a line
without its second is an attempt whose end nobody knows.

A storm is told as a digest: a workspace's first few messages of an hour come by themselves, then
one more tells all the rest, and what comes after it waits for the next hour. Each alert in a digest
has its own two lines, so that all of the above holds for it as for a message of its own.

What a person said of an alert counts: of what was expected nothing more is told, of what is snoozed
nothing until the snooze ends, of what was acknowledged only what came after.

What is told must be public first: call this after publishing. A sink's failure never unpublishes
anything; it is written down, said aloud, and tried again next night.
"""

import inspect
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any, Protocol

import pyarrow.parquet as pq
import tenacity

from exports.alerts import Alert, Answer, Transition, step_of
from exports.alerts.evidence import Details, details_of
from pipelines.calendar import DAY, Clock, utc_now
from pipelines.settings import Settings, SettingsError
from pipelines.store import RawTable, Store

TOLD_WITHIN = timedelta(hours=48)  # contract, "The clock"
RETRIED_FOR = timedelta(days=7)  # after a week of failing nights a person must look
TRIES_A_NIGHT = 3
LONGEST_WAIT = 60.0  # seconds; a sink that asks for more is left alone for the night
LONGEST_DETAIL = 500
BY_THEMSELVES = 3  # messages an hour to a workspace, before the rest of the hour is one digest
STORM = timedelta(hours=1)  # faults.md, row 17; by the nights' clock

INTENDED = "intended"
HELD = "held"
RECEIVED = {"sent", "sent_in_part"}
DROPPED = {"not_sent_too_old", "not_sent_never_opened", "gave_up"}

TABLES = {
    "raw.deliveries": RawTable(
        "A line of the outbox: what is about to be sent to a sink, then what the sink answered.",
        {
            "alert_id": ("varchar", "as in marts.budget_alerts"),
            "sink": ("varchar", "the file in exports/alerts/"),
            "transition": ("varchar", "opened, escalated, escalated_2 …, or closed"),
            "attempted_at": ("timestamp", "wall clock, UTC; the two lines of an attempt share it"),
            "outcome": ("varchar", "intended, then what became of it"),
            "detail": ("varchar", "what the sink said"),
            "digest_id": ("varchar", "the digest that told it; null: a message of its own"),
        },
    )
}

Send = Callable[[Alert], Answer]
Place = tuple[str, str, str]  # alert_id, sink, transition as the journal names it
Line = dict[str, Any]


class Journal(Protocol):
    """What is needed of `store.journal(…)`: lines are durable, all or none, when `append`
    returns.
    """

    def append(self, *entries: Mapping[str, Any]) -> None: ...

    def entries(self) -> list[dict[str, Any]]: ...


@dataclass
class Report:
    """What one night told and could not tell: the place, and what the sink said."""

    sent: list[tuple[Place, str]] = field(default_factory=list)
    repeated: list[tuple[Place, str]] = field(default_factory=list)
    too_old: list[tuple[Place, str]] = field(default_factory=list)
    held: list[tuple[Place, str]] = field(default_factory=list)
    troubled: list[tuple[Place, str]] = field(default_factory=list)
    digests: list[tuple[Place, str]] = field(default_factory=list)

    def sentences(self) -> Iterator[tuple[str, bool]]:
        """What a person should read of it, each with whether it is a failure."""
        for sink in sorted({place[1] for place, _ in self.sent}):
            count = sum(place[1] == sink for place, _ in self.sent)
            digests = len({said for place, said in self.digests if place[1] == sink})
            inside = sum(place[1] == sink for place, _ in self.digests)
            much = f", {inside:,} of them in {_count(digests, 'digest')}" if digests else ""
            yield f"{sink}: told {_count(count, 'message')}{much}.", False
        if self.repeated:
            yield f"{_count(len(self.repeated), 'message')} may repeat an earlier one.", False
        if self.too_old:
            alerts = len({place[0] for place, _ in self.too_old})
            yield f"{_count(alerts, 'alert')} of past days written down, not sent.", False
        for sink in sorted({place[1] for place, _ in self.held}):
            held = [said for place, said in self.held if place[1] == sink]
            yield f"{sink}: {_count(len(held), 'message')} held back ({held[0]}).", False
        for sink in sorted({place[1] for place, _ in self.troubled}):
            troubles = {place: said for place, said in self.troubled if place[1] == sink}
            yield (
                f"{sink}: {_count(len(troubles), 'message')} not delivered whole "
                f"({next(iter(troubles.values()))}); what failed is tried again next night, "
                "see ops.alert_deliveries.",
                True,
            )

    def states(self) -> dict[str, dict[str, int | str]]:
        """How each sink that had anything to do stands after the night."""
        kinds = ("sent", "repeated", "too_old", "held", "troubled")
        found: dict[str, dict[str, int | str]] = {}
        for kind in kinds:
            for place, said in getattr(self, kind):
                state = found.setdefault(place[1], {**dict.fromkeys(kinds, 0), "last_answer": ""})
                state[kind] = int(state[kind]) + 1
                if kind in ("sent", "troubled"):
                    state["last_answer"] = said
        return found


def deliver(
    store: Store, settings: Settings, clock: Clock, modules: Mapping[str, ModuleType]
) -> Report:
    """Tells the sinks what is published."""
    sinks = arm(modules, settings.alerts.sinks)
    journal = store.journal("raw.deliveries")
    rows = published_alerts(store) + published_alerts(store, "marts.alert_lines")
    return tell(rows, sinks, journal, clock.as_of, details=details_of(store, clock.as_of))


def published_alerts(store: Store, table: str = "marts.budget_alerts") -> list[dict[str, Any]]:
    """The rows of the alerts, or of `marts.alert_lines`, in the snapshot."""
    snapshot = store.snapshot()
    partitions = snapshot.tables.get(table, {}) if snapshot else {}
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
    details: Details = lambda _: {},
) -> Report:
    """Tells `sinks` what they do not yet know of `rows` (marts.budget_alerts, marts.alert_lines),
    oldest first.

    What ended 48 hours or more before `as_of` is written down as not sent. `details` gives what is
    to be told of an alert besides its row. Raises nothing that a sink does: that is in the report,
    and in the journal.
    """
    evening = _Evening(sinks, journal, as_of, sleep)
    ordered = sorted(rows, key=lambda row: (row["opened_at"], row["alert_id"]))
    batches = [batch for sink in sinks for batch in evening.plan(ordered, sink)]
    singles = {batch[0].row["alert_id"]: batch[0].row for batch in batches if len(batch) == 1}
    evening.details = details(list(singles.values())) if singles else {}
    for batch in batches:
        evening.tell(batch)
    evening.write_down()
    return evening.report


@dataclass(frozen=True)
class _Due:
    """A transition that a sink is to be told. `digest_id`: set on what takes the hour's digest."""

    row: Mapping[str, Any]
    place: Place
    transition: Transition
    digest_id: str | None = None


Batch = list[_Due]  # told in one message


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
        self.details: Mapping[str, Mapping[str, Any]] = {}
        self.report = Report()
        self.down: dict[str, str] = {}
        self.untold: dict[tuple[str, str], str] = {}  # (alert_id, sink) that failed tonight → why
        self.unwritten: list[Line] = []  # lines that no send waits for
        self.past: dict[Place, dict[datetime, Line]] = defaultdict(dict)
        self.steps: dict[tuple[str, str], set[str]] = defaultdict(set)  # of an alert, on a sink
        for line in journal.entries():
            self._remember((line["alert_id"], line["sink"], line["transition"]), line)

    # ---- what there is to tell --------------------------------------------------------------

    def plan(self, rows: Sequence[Mapping[str, Any]], sink: str) -> Iterator[Batch]:
        """What a sink is to be told, message by message; what it is not told is written down.

        A group is what may share a digest: a workspace's alerts, but that a budget's own recipients
        are told of nothing else.

        Of what another alert tells, only who knows it by its own id is told anything: that it
        closed.
        """
        groups: dict[tuple[str | None, str | None], Batch] = defaultdict(list)
        recent: dict[tuple[str | None, str | None], set[tuple[str, bool]]] = defaultdict(set)
        for row in rows:
            if row.get("told_by_alert_id") and not self._may_know(row, sink):
                continue
            group = (row.get("workspace_id"), row.get("recipients"))
            recent[group] |= self._recent(row["alert_id"], sink)
            groups[group] += self._due(row, sink)
        for group, due in groups.items():
            if due:
                yield from self._batches(due, recent[group])

    def _due(self, row: Mapping[str, Any], sink: str) -> Batch:
        """All that is due of one alert on one sink, in order."""
        found: Batch = []
        for transition, ended_at in _transitions(row, self.as_of):
            place: Place = (row["alert_id"], sink, step_of(transition, row.get("level") or 0))
            attempts = list(self.past[place].values())
            if any(line["outcome"] in RECEIVED | DROPPED for line in attempts):
                continue
            if not attempts and self.as_of - ended_at >= TOLD_WITHIN:
                said = f"ended {ended_at:%Y-%m-%d %H:%M} UTC"
                self._settle(place, "not_sent_too_old", said)
                self.report.too_old.append((place, said))
            elif (
                not attempts
                and transition == "closed"
                and not found
                and not self._may_know(row, sink)
            ):
                self._settle(place, "not_sent_never_opened", "its opening was not sent either")
            elif attempts and self.as_of - _instant(attempts[0]["as_of"]) >= RETRIED_FOR:
                said = f"given up after {RETRIED_FOR.days} days"
                self._settle(place, "gave_up", said)
                self.report.troubled.append((place, said))
            else:
                found.append(_Due(row, place, transition))
        return found

    def _batches(self, due: Batch, recent: set[tuple[str, bool]]) -> Iterator[Batch]:
        """A group's messages: a few by themselves, or one for all, or none before the hour ends."""
        if len(recent) + len(due) <= BY_THEMSELVES:
            yield from ([one] for one in due)
        elif any(is_digest for _, is_digest in recent):
            said = "an hour has one digest; they are in the next"
            for one in due:
                if not any(line["outcome"] == HELD for line in self.past[one.place].values()):
                    self._settle(one.place, HELD, said)
                self.report.held.append((one.place, said))
        else:
            digest_id = self._alert(due).alert_id
            yield [replace(one, digest_id=digest_id) for one in due]

    def _recent(self, alert_id: str, sink: str) -> set[tuple[str, bool]]:
        """The messages of the last hour that told this alert, each with whether it was a digest;
        what is still due takes its place again.
        """
        return {
            (line.get("digest_id") or f"{alert_id} {step}", bool(line.get("digest_id")))
            for step in self.steps[alert_id, sink]
            for line in self.past[alert_id, sink, step].values()
            if line["outcome"] in RECEIVED and abs(self.as_of - _instant(line["as_of"])) < STORM
        }

    def _may_know(self, row: Mapping[str, Any], sink: str) -> bool:
        """Whether the sink has heard, or may have heard, of the alert."""
        return any(
            line["outcome"] in RECEIVED | {INTENDED, "unknown"}
            for step in self.steps[row["alert_id"], sink]
            for line in self.past[row["alert_id"], sink, step].values()
        )

    # ---- telling ----------------------------------------------------------------------------

    def tell(self, batch: Batch) -> None:
        """One message, if nothing stands in its way; of an alert nothing is told past a failure."""
        sink = batch[0].place[1]
        ways = {self.untold.get((one.place[0], sink), "") for one in batch} - {""}
        trouble = self.down.get(sink, "") or (ways.pop() if len(batch) == 1 and ways else "")
        if trouble:
            # still written down: what was once due stays due, however old it becomes
            for one in batch:
                self._settle(one.place, "failed", f"not tried: {trouble}")
                self.report.troubled.append((one.place, trouble))
            return
        trouble = self._send(batch)
        if trouble:
            self.untold |= {(one.place[0], sink): trouble for one in batch}

    def _send(self, batch: Batch) -> str:
        """Up to three attempts; returns why it could not be told, or nothing."""
        sink = batch[0].place[1]
        doubtful = {
            one.place
            for one in batch
            if any(x["outcome"] in {INTENDED, "unknown"} for x in self.past[one.place].values())
        }

        def attempt() -> tuple[Answer, set[Place]]:
            nonlocal doubtful
            flagged = doubtful
            answer = self._attempt(batch, flagged)
            if answer.outcome == "unknown":
                doubtful = {one.place for one in batch}
            return answer, flagged

        def deserves_another(result: tuple[Answer, set[Place]]) -> bool:
            answer, flagged = result
            if (answer.retry_after or 0) > LONGEST_WAIT:
                return False
            # an unseen answer earns one flagged repetition, not a row of them
            return answer.outcome == "failed" or (
                answer.outcome == "unknown" and len(flagged) < len(batch)
            )

        answer, flagged = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(TRIES_A_NIGHT),
            wait=_wait,
            retry=tenacity.retry_if_result(deserves_another),
            retry_error_callback=_last_result,
            sleep=self.sleep,
        )(attempt)
        for one in batch:
            if answer.outcome in RECEIVED:
                self.report.sent.append((one.place, answer.detail))
                if len(batch) > 1:
                    self.report.digests.append((one.place, str(one.digest_id)))
                if one.place in flagged:
                    self.report.repeated.append((one.place, answer.detail))
            if answer.outcome != "sent":
                self.report.troubled.append((one.place, answer.detail))
        if answer.is_down or (answer.retry_after or 0) > LONGEST_WAIT:
            self.down[sink] = answer.detail
        return "" if answer.outcome in RECEIVED else answer.detail

    def _attempt(self, batch: Batch, doubtful: set[Place]) -> Answer:
        """The intents, one send, the answers."""
        alert = self._alert(batch, doubtful)
        at = utc_now()
        intents = [
            self._line(one, INTENDED, "as a possible repetition" if one.place in doubtful else "")
            | {"attempted_at": at}
            for one in batch
        ]
        self._write(intents)
        try:
            answer = self.sinks[batch[0].place[1]](alert)
        except Exception as error:  # noqa: BLE001  (whatever a sink may raise, the night goes on)
            answer = Answer("failed", f"{type(error).__name__}: {error}")
        answer = replace(answer, detail=answer.detail[:LONGEST_DETAIL])
        told = {"outcome": answer.outcome, "detail": answer.detail}
        self._write([intent | told for intent in intents])
        return answer

    def _alert(self, batch: Batch, doubtful: Set[Place] = frozenset()) -> Alert:
        """What the sink is given: the alert, or a digest of all."""
        alerts = [
            Alert.of(
                one.row,
                one.transition,
                may_repeat=one.place in doubtful,
                **(self.details.get(one.place[0], {}) if len(batch) == 1 else {}),
            )
            for one in batch
        ]
        return alerts[0] if len(alerts) == 1 else Alert.digest(alerts)

    # ---- the journal ------------------------------------------------------------------------

    def write_down(self) -> None:
        """The lines that no send waits for, at once: each would be found again by the next night
        if this one died before.
        """
        lines, self.unwritten = self.unwritten, []
        if lines:
            self.journal.append(*lines)

    def _settle(self, place: Place, outcome: str, detail: str) -> None:
        """Writes down what is not tried (tonight)."""
        one = _Due({}, place, "opened")
        line = self._line(one, outcome, detail)
        self.unwritten.append(line)
        self._remember(place, line)

    def _line(self, one: _Due, outcome: str, detail: str) -> Line:
        alert_id, sink, step = one.place
        return {
            "alert_id": alert_id,
            "sink": sink,
            "transition": step,
            "attempted_at": utc_now(),
            "outcome": outcome,
            "detail": detail,
            "digest_id": one.digest_id,
            "as_of": self.as_of,
        }

    def _write(self, lines: Sequence[Line]) -> None:
        settled, self.unwritten = self.unwritten, []
        self.journal.append(*settled, *lines)
        for line in lines:
            self._remember((line["alert_id"], line["sink"], line["transition"]), line)

    def _remember(self, place: Place, line: Line) -> None:
        """The answer, written later, takes the place of the intent."""
        self.past[place][_instant(line["attempted_at"])] = line
        self.steps[place[0], place[1]].add(place[2])


def _transitions(row: Mapping[str, Any], as_of: datetime) -> Iterator[tuple[Transition, datetime]]:
    """What is to be told of an alert by now, and when what it speaks of ended."""
    resumes_at = row["snoozed_until"] or datetime.min
    if row["decision"] == "expected" or as_of < resumes_at:
        return
    # of what another alert tells by now, only the end
    is_told_elsewhere = bool(row.get("told_by_alert_id"))
    # of what was acknowledged only what nobody knew by then is news
    known_date = row.get("said_of_date") if row["decision"] == "acknowledged" else None
    # what a snooze held back becomes news when it ends, however old it is by then
    opened_at = datetime.combine(row["usage_date"] + DAY, datetime.min.time())
    if known_date is None and not is_told_elsewhere:
        yield "opened", max(opened_at, resumes_at)
    # … but for an escalation that is over by then
    is_over = row["decision"] == "snoozed" and row["closed_at"] is not None
    is_known = known_date is not None and row.get("escalated_date") is not None
    is_known = is_known and row["escalated_date"] <= known_date
    is_known = is_known or is_told_elsewhere
    if row["escalated_at"] is not None and not is_over and not is_known:
        yield "escalated", max(row["escalated_at"], resumes_at)
    # that a budget's cycle is over is the calendar's doing, and no news
    if row["closed_at"] is not None and row["kind"] not in ("budget", "exhaustion"):
        yield "closed", max(row["closed_at"], resumes_at)


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds before the next attempt: 1, 2, …, or as long as the sink asked for."""
    assert state.outcome is not None
    answer: Answer = state.outcome.result()[0]
    return max(float(2 ** (state.attempt_number - 1)), answer.retry_after or 0.0)


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


def _last_result(state: tenacity.RetryCallState) -> tuple[Answer, set[Place]]:
    assert state.outcome is not None
    result: tuple[Answer, set[Place]] = state.outcome.result()
    return result


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"

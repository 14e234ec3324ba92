"""What a night does, in order: land, model, export, audit, publish, tell. Safe to run twice, or
from two places.

Knows nothing of Dagster or of a terminal: it yields what happened, and they show it.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from types import ModuleType
from typing import Any

import pyarrow as pa

from assets import decisions, erasure, playground
from exports import files as export_files
from exports.alerts import outbox
from pipelines import packs, restatements, warehouse
from pipelines.bucket_store import open_store
from pipelines.calendar import Clock, utc_now
from pipelines.models import Built, Checked, Models, Step
from pipelines.settings import Settings
from pipelines.store import (
    Draft,
    RawTable,
    Snapshot,
    Store,
    Workbench,
    arrow_table,
)


class NightFailed(RuntimeError):
    """The night stopped before publishing; the text says what broke, and that the previous snapshot
    stays.
    """


@dataclass(frozen=True)
class Started:
    """A step of the night begins."""

    step: str


@dataclass(frozen=True)
class Published:
    """A snapshot replaced the one before."""

    snapshot: Snapshot


@dataclass(frozen=True)
class Delivered:
    """How a sink stands after the night: messages sent, held back, in trouble, its last answer."""

    sink: str
    state: Mapping[str, int | str]


@dataclass(frozen=True)
class Told:
    """A sink answered, or something should be said in the summary."""

    sentence: str
    is_failure: bool = False


Event = Started | Built | Checked | Published | Delivered | Told


@dataclass
class Night:
    """One night over one root.

    `forced`: days that are built again though nothing they stand on changed (backfill);
    `everything`: all below raw (rebuild). `lands`: whether it takes what has arrived; `retries`:
    and reads again what was set aside.
    """

    settings: Settings
    clock: Clock
    models: Models
    sources: tuple[ModuleType, ...]
    sinks: Mapping[str, ModuleType]
    forced: Callable[[date | None], bool] = lambda _: False
    everything: bool = False
    lands: bool = True
    retries: bool = False
    wait_seconds: float = 60
    started_by: str = "meterhouse"
    _erasures: list[erasure.Erasure] = field(default_factory=list)
    _broken: list[Checked] = field(default_factory=list)

    def run(self) -> Iterator[Event]:
        """Runs the night, yielding what happens. Raises NightFailed, StoreError, SettingsError."""
        store = open_store(self.settings)
        with ExitStack() as stack:
            stack.enter_context(store.lock(self.wait_seconds))
            journal = NightJournal(store)
            journal.begin(self.clock, self.started_by)
            try:
                snapshot = store.snapshot()
                store.sweep(snapshot)
                packs.sweep(store, snapshot)
                spool = stack.enter_context(store.spool())
                draft = Draft(store, spool, self.models.bind, snapshot)
                stack.callback(draft.close)
                yield from self._work(store, draft, journal)
            except BaseException as error:
                journal.end("failed", str(error) or type(error).__name__)
                raise
            journal.end("published" if journal.snapshot_id else "nothing new", "")

    def _work(self, store: Store, draft: Draft, journal: "NightJournal") -> Iterator[Event]:
        # a mistaken sink is said before the work
        outbox.arm(self.sinks, self.settings.alerts.sinks)
        self._erasures = erasure.under_way(store)
        stones = erasure.tombstones(store, self.settings)
        if self._erasures:
            yield Started("erase")
            places = erasure.rewrite(draft, self._erasures)
            if places and self.lands:  # the command has said so itself
                draft.remark(
                    f"Members were erased; files that were landed name them still, delete them: "
                    f"{', '.join(places)}."
                )
        yield Started("land")
        earlier = set(draft.pending)
        yield from self._land(draft)
        yield from self._keep_history(draft, draft.pending.keys() - earlier, stones)
        if stones is not None:
            erasure.hide_arrivals(draft, stones)
        yield Started("model")
        adopt_journals(draft)
        yield from self._model(draft)
        yield from self._restate(draft)
        yield Started("audit")
        yield from self._audit(draft)
        is_news = draft.is_changed
        if is_news:
            yield Started("publish")
            yield Published(self._publish(draft, journal))
        yield from self._derive(draft, is_news=is_news)
        yield Started("alert")
        before = len(store.journal("raw.deliveries").entries())
        report = outbox.deliver(store, self.settings, self.clock, self.sinks)
        for sink, state in report.states().items():
            yield Delivered(sink, state)
        for sentence, is_failure in report.sentences():
            yield Told(sentence, is_failure)
        if len(store.journal("raw.deliveries").entries()) != before:
            adopt_journals(draft, outbox.TABLES)  # what was decided meanwhile is for the next night
            yield from self._model(draft)
            is_news = draft.is_changed
            if is_news:
                yield from self._audit(draft)
                yield Published(self._publish(draft, journal))
            yield from self._derive(draft, is_news=is_news)
        if self._erasures:
            yield Started("forget")
            for sentence in erasure.finish(store, self.settings, self._erasures):
                yield Told(sentence, is_failure=True)
        for remark in draft.remarks:
            yield Told(remark)

    # ---- steps ------------------------------------------------------------------------------

    def _land(self, draft: Draft) -> Iterator[Event]:
        if not self.lands:
            return
        for module in self.sources:
            before = {name: dict(draft.partitions(name)) for name in module.TABLES}
            began = time.monotonic()
            if self.everything and hasattr(module, "rebuild"):
                module.rebuild(draft)
            module.land(draft, self.settings, self.clock)
            if self.retries and hasattr(module, "retry"):
                module.retry(draft, self.settings, self.clock)
            seconds = time.monotonic() - began
            for name in module.TABLES:
                for key, partition in sorted(draft.partitions(name).items()):
                    if before[name].get(key) != partition:
                        day = date.fromisoformat(key) if key else None
                        yield Built(name, day, partition.rows, _credits(partition.objects), seconds)

    def _keep_history(
        self, draft: Draft, landed: Set[str], stones: erasure.Tombstones | None
    ) -> Iterator[Event]:
        """What was said in the Playground, where the settings ask for it."""
        before = dict(draft.partitions(playground.TABLE))
        began = time.monotonic()

        def is_erased(member_id: str) -> bool:
            return stones is not None and bool(stones.match([member_id]))

        playground.keep(draft, self.settings, self.clock, landed, is_erased)
        seconds = time.monotonic() - began
        for key, partition in sorted(draft.partitions(playground.TABLE).items()):
            if before.get(key) != partition:
                day = date.fromisoformat(key)
                yield Built(playground.TABLE, day, partition.rows, None, seconds)

    def _model(self, draft: Draft) -> Iterator[Event]:
        for table in set(draft.tables) - self.models.models.keys() - self.models.raw.keys():
            if table.startswith(("staging.", "marts.", "ops.")):
                del draft.tables[table]  # of a model that is gone
        exported = {export.table for export in export_files.EXPORTS.values()}
        for event in self.models.build(
            draft,
            self.clock,
            self.settings.parameters(),
            force=(lambda _: True) if self.everything else self.forced,
            steps={
                "ops.export_manifest": Step(
                    exported & self.models.models.keys(), lambda bench: self._export(draft, bench)
                )
            },
            told_apart={
                view: told
                for module in self.sources
                for view, told in getattr(module, "TOLD_APART", {}).items()
            },
        ):
            yield event
            if isinstance(event, Checked) and not event.passed:
                self._broken.append(event)

    def _export(self, draft: Draft, bench: Workbench) -> list[Built]:
        contents = {}
        for export in export_files.EXPORTS.values():
            for day in self.models.days(draft, export.table):
                contents[export.table, day] = self.models.content(draft, export.table, day)
        built = []
        began = time.monotonic()
        for name, day, rows, credits in export_files.nightly(draft, bench, self.settings, contents):
            built.append(Built(f"exports.{name}", day, rows, credits, time.monotonic() - began))
            began = time.monotonic()
        return built

    def _restate(self, draft: Draft) -> Iterator[Event]:
        """Remembers which published days this night changes, for those who took them as settled."""
        began = time.monotonic()
        restated = restatements.record(draft, self.models, self.clock)
        for change in restated:
            [item] = draft.partitions(restatements.TABLE)[str(change.usage_date)].objects
            seconds = time.monotonic() - began
            yield Built(restatements.TABLE, change.usage_date, item.rows, None, seconds)
        if restated:
            draft.remark(restatements.sentence(restated))

    def _audit(self, draft: Draft) -> Iterator[Event]:
        """Everything the night would publish, at once: the grains that were found broken as tables
        were written, and every claim whose tables changed.
        """
        broken, self._broken = self._broken, []
        for checked in self._claims(draft):
            yield checked
            if not checked.passed and not checked.is_warning:
                broken.append(checked)
        if broken:
            standing = (
                f"the snapshot of {draft.published.as_of:%Y-%m-%d %H:%M} UTC stays as it was"
                if draft.published
                else "there is no snapshot before it"
            )
            more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
            raise NightFailed(
                f"Nothing was published, {standing}: {broken[0].found}{more} [{broken[0].claim}]"
            )

    def _claims(self, draft: Draft) -> Iterator[Checked]:
        values = self.settings.parameters()
        for name, claim in self.models.claims.items():
            table = claim_table(self.models, name)
            if table in self.models.raw and not draft.partitions(table):
                # nothing was stated that could be wrong; what it is held against may be long
                yield Checked(table, name, True, claim.is_warning, is_news=False)
                continue
            known = draft.checks.get(name, "")
            days = None
            if claim.each_day:
                marks = self.models.fingerprint(
                    draft, claim, None, values, self.clock, of_days=False
                )
                days = self.models.changed_days(draft, claim) if known == marks else None
                is_known = days == []
            else:
                clocked = values | self.clock.parameters()
                marks = self.models.fingerprint(draft, claim, None, clocked, self.clock)
                is_known = known.partition(" ")[0] == marks
            if is_known:  # nothing it reads has changed since it was checked
                yield Checked(
                    table,
                    name,
                    known == marks,
                    claim.is_warning,
                    known.partition(" ")[2],
                    is_news=False,
                )
                continue
            rows = self.models.query(draft, claim, self.clock, values, days)
            passed = not rows
            found = "" if passed else _broken(rows[0])
            if passed or claim.is_warning:
                draft.checks[name] = marks if passed else f"{marks} {found}"
            yield Checked(table, name, passed, claim.is_warning, found)

    def _publish(self, draft: Draft, journal: "NightJournal") -> Snapshot:
        journal.now("published")
        draft.replace("ops.nights", journal.table())
        snapshot = draft.publish(self.clock.as_of, forgets=bool(self._erasures))
        journal.snapshot_id = snapshot.snapshot_id
        return snapshot

    def _derive(self, draft: Draft, *, is_news: bool) -> Iterator[Event]:
        """What is made from the snapshot alone: after a kill between the two, the next night makes
        it. `is_news`: the snapshot has just been published.
        """
        store, snapshot = draft.store, draft.published
        if snapshot is None:
            return
        is_due = is_news or bool(self._erasures)
        if is_due or warehouse.published_id(store, draft.connection) != snapshot.snapshot_id:
            yield Started("warehouse")
            # a copy of the old file, mended, would still hold what was taken out of it
            is_anew = bool(self._erasures)
            warehouse.build(store, snapshot, self.models, draft.connection, anew=is_anew)
        export_files.deliver(store, snapshot, self.settings.place(self.settings.exports.location))


def claim_table(models: Models, name: str) -> str:
    """The table a claim is about, by its file's name `<mart>__<claim>`."""
    table = name.partition("__")[0]
    for layer in ("marts", "ops", "staging", "raw"):
        if f"{layer}.{table}" in models.models or f"{layer}.{table}" in models.raw:
            return f"{layer}.{table}"
    return models.claims[name].inputs[0]


def _broken(row: Mapping[str, Any]) -> str:
    """A claim's first row as a sentence: the day, the table and the two numbers."""
    day = row.get("usage_date")
    return (
        f"{'on ' + str(day) if day else 'over all days'}, {row['table_name']}: {row['claim']}; "
        f"expected {row['expected']}, found {row['found']}"
    )


def _credits(objects: tuple[Any, ...]) -> str | None:
    stated = [Decimal(item.credits) for item in objects if item.credits is not None]
    return str(sum(stated, Decimal(0))) if stated else None


# ---- journals -------------------------------------------------------------------------------


JOURNALS = outbox.TABLES | decisions.TABLES
# what a journal keeps as text
TEXTS: Mapping[str, Callable[[str], Any]] = {
    "timestamp": datetime.fromisoformat,
    "date": date.fromisoformat,
    "decimal": Decimal,
}


def adopt_journals(draft: Draft, journals: Mapping[str, RawTable] = JOURNALS) -> None:
    """Brings journals, whose lines are durable by themselves, into what the night stands on."""
    for table, shape in journals.items():
        entries = draft.store.journal(table).entries()
        read = {
            name: TEXTS[kind.partition("(")[0]]
            for name, (kind, _) in shape.columns.items()
            if kind.partition("(")[0] in TEXTS
        }
        rows = [
            entry | {name: read[name](entry[name]) for name in read if entry.get(name) is not None}
            for entry in entries
        ]
        if rows:
            draft.replace(table, arrow_table(shape, rows))


TABLES = {
    "ops.nights": RawTable(
        "A night, up to the one that published this snapshot.",
        {
            "night_id": ("varchar", "When it began, and its process"),
            "as_of": ("timestamp", "Its clock: exclusive end of what it knew, UTC"),
            "started_at": ("timestamp", "Wall clock, UTC"),
            "seconds": ("double", "How long it took; null while it runs or where it was killed"),
            "outcome": ("varchar", "published, nothing new, failed or killed"),
            "started_by": ("varchar", "meterhouse, schedule or dagster"),
            "message": ("varchar", "Why it failed"),
        },
    )
}


NIGHTS = "ops/nights"


class NightJournal:
    """`ops/nights/`: one small file a night, written when it begins and when it ends."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.snapshot_id: str | None = None
        self.entry: dict[str, Any] = {}
        self._began = 0.0

    def begin(self, clock: Clock, started_by: str) -> None:
        for name, text in self.store.texts(NIGHTS).items():
            entry = json.loads(text)
            if entry["outcome"] == "running" and self.store.is_over(entry):
                entry |= {"outcome": "killed", "message": "The process ended without a word."}
                self.store.write(f"{NIGHTS}/{name}", json.dumps(entry))
        now = utc_now()
        self._began = time.monotonic()
        self.entry = {
            "night_id": f"{now:%Y%m%dT%H%M%S%f}-{os.getpid()}",
            "as_of": clock.as_of.isoformat(),
            "started_at": now.isoformat(),
            "seconds": None,
            "outcome": "running",
            "started_by": started_by,
            "message": "",
            "machine": platform.node(),
        }
        self._write()

    def now(self, outcome: str) -> None:
        """States the outcome as it is when the snapshot is about to be replaced."""
        self.entry |= {"outcome": outcome, "seconds": round(time.monotonic() - self._began, 3)}

    def end(self, outcome: str, message: str) -> None:
        self.now(outcome)
        self.entry["message"] = message
        self._write()

    def _write(self) -> None:
        self.store.write(f"{NIGHTS}/{self.entry['night_id']}.json", json.dumps(self.entry))

    def table(self) -> pa.Table:
        """Every night up to this one."""
        entries = [json.loads(text) for text in self.store.texts(NIGHTS).values()]
        entries = [entry for entry in entries if entry["night_id"] != self.entry["night_id"]]
        instants = ("as_of", "started_at")
        rows = [
            entry | {name: datetime.fromisoformat(entry[name]) for name in instants}
            for entry in [*entries, self.entry]
        ]
        return arrow_table(TABLES["ops.nights"], rows)

"""What a night does, in order: land, model, export, audit, publish, tell. Safe to run twice, or
from two places.

Knows nothing of Dagster or of a terminal: it yields what happened, and they show it.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa

from assets import decisions
from exports import files as export_files
from exports.alerts import outbox
from pipelines import warehouse
from pipelines.calendar import Clock, utc_now
from pipelines.models import Built, Models, Statement, Step
from pipelines.settings import Settings
from pipelines.store import (
    Draft,
    RawTable,
    Snapshot,
    Store,
    arrow_table,
    digest,
    write_whole,
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
class Checked:
    """A claim about a table was checked; `found` says what broke it. Not news: nothing it reads has
    changed since.
    """

    table: str
    claim: str
    passed: bool
    is_warning: bool
    found: str = ""
    is_news: bool = True


@dataclass(frozen=True)
class Published:
    """A snapshot replaced the one before."""

    snapshot: Snapshot


@dataclass(frozen=True)
class Told:
    """A sink answered, or something should be said in the summary."""

    sentence: str
    is_failure: bool = False


Event = Started | Built | Checked | Published | Told


@dataclass
class Night:
    """One night over one root.

    `forced`: days that are built again though nothing they stand on changed (backfill);
    `everything`: all below raw (rebuild).
    """

    settings: Settings
    clock: Clock
    models: Models
    sources: tuple[ModuleType, ...]
    sinks: Mapping[str, ModuleType]
    forced: Callable[[date | None], bool] = lambda _: False
    everything: bool = False
    lands: bool = True
    wait_seconds: float = 60
    started_by: str = "meterhouse"
    record: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Iterator[Event]:
        """Runs the night, yielding what happens. Raises NightFailed, StoreError, SettingsError."""
        store = Store(self.settings.root)
        with ExitStack() as stack:
            stack.enter_context(store.lock(self.wait_seconds))
            journal = NightJournal(store.root)
            journal.begin(self.clock, self.started_by)
            try:
                store.sweep(store.snapshot())
                spool = stack.enter_context(store.spool())
                draft = Draft(store, spool, self.models.bind)
                stack.callback(draft.close)
                yield from self._work(store, draft, journal)
            except BaseException as error:
                journal.end("failed", str(error) or type(error).__name__)
                raise
            journal.end("published" if journal.snapshot_id else "nothing new", "")

    def _work(self, store: Store, draft: Draft, journal: "NightJournal") -> Iterator[Event]:
        # a mistaken sink is said before the work
        outbox.arm(self.sinks, self.settings.alerts.sinks)
        yield Started("land")
        yield from self._land(draft)
        yield Started("model")
        adopt_journals(draft)
        yield from self._model(draft)
        yield Started("audit")
        yield from self._audit(draft)
        if draft.is_changed:
            yield Started("publish")
            yield Published(self._publish(draft, journal))
        yield from self._derive(store)
        yield Started("alert")
        before = len(store.journal("raw.deliveries").entries())
        for sentence, is_failure in outbox.deliver(store, self.settings, self.clock, self.sinks):
            yield Told(sentence, is_failure)
        if len(store.journal("raw.deliveries").entries()) != before:
            adopt_journals(draft, outbox.TABLES)  # what was decided meanwhile is for the next night
            yield from self._model(draft)
            if draft.is_changed:
                yield from self._audit(draft)
                yield Published(self._publish(draft, journal))
            yield from self._derive(store)
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
            seconds = time.monotonic() - began
            for name in module.TABLES:
                for key, partition in sorted(draft.partitions(name).items()):
                    if before[name].get(key) != partition:
                        day = date.fromisoformat(key) if key else None
                        yield Built(name, day, partition.rows, _credits(partition.objects), seconds)

    def _model(self, draft: Draft) -> Iterator[Event]:
        for table in set(draft.tables) - self.models.models.keys() - self.models.raw.keys():
            if table.startswith(("staging.", "marts.", "ops.")):
                del draft.tables[table]  # of a model that is gone
        exported = {export.table for export in export_files.EXPORTS.values()}
        yield from self.models.build(
            draft,
            self.clock,
            self.settings.parameters(),
            force=(lambda _: True) if self.everything else self.forced,
            steps={
                "ops.export_manifest": Step(
                    exported & self.models.models.keys(), lambda: self._export(draft)
                )
            },
        )

    def _export(self, draft: Draft) -> Iterator[Built]:
        contents = {}
        for export in export_files.EXPORTS.values():
            for day in self.models.days(draft, export.table):
                contents[export.table, day] = self.models.content(draft, export.table, day)
        began = time.monotonic()
        for name, day, rows, credits in export_files.nightly(draft, self.settings, contents):
            yield Built(f"exports.{name}", day, rows, credits, time.monotonic() - began)
            began = time.monotonic()

    def _audit(self, draft: Draft) -> Iterator[Event]:
        """Everything the night would publish, at once: grains of what changed, then every claim
        whose tables changed.
        """
        broken: list[Checked] = []
        for checked in (*self._grains(draft), *self._claims(draft)):
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

    def _grains(self, draft: Draft) -> Iterator[Checked]:
        published = draft.published.tables if draft.published else {}
        for model in self.models.order:
            bases = self.models.stored_inputs(model.name)
            changed = {
                key
                for base in bases
                for key, partition in draft.partitions(base).items()
                if published.get(base, {}).get(key) != partition
            }
            if model.is_view and model.name != "staging.requests":
                continue
            # A view has no object that changes when its SQL does: every day of it is audited again.
            logic = digest([self.models.view_logic(model.name)]) if model.is_view else ""
            is_new_view = model.is_view and draft.checks.get(f"{model.name}__grain") != logic
            if not changed and not is_new_view:  # audited by the night that published it
                yield Checked(model.name, "grain", True, False, is_news=False)
                continue
            days = None
            if self.models.is_by_day(model.name) and not is_new_view:
                days = sorted(date.fromisoformat(key) for key in changed if key)
            checked = self._grain(draft, model, days)
            if model.is_view and checked.passed:
                draft.checks[f"{model.name}__grain"] = logic
            yield checked

    def _grain(self, draft: Draft, model: Statement, days: list[date] | None) -> Checked:
        self.models.bind(draft, model.name, days)
        grain = ", ".join(model.grain)
        nulls = " or ".join(f"{name} is null" for name in model.grain if name not in model.nullable)
        day = "min(usage_date)" if "usage_date" in model.columns else "null"
        # Many rows: their hash first, so that the check of a clean day keeps eight bytes a row.
        [(count, distinct, has_null)] = draft.connection.execute(
            f"select count(*), count(distinct hash({grain})), bool_or({nulls or 'false'}) "
            f"from {model.name}"
        ).fetchall()
        suspects = has_null or distinct < count
        rows: list[tuple[Any, ...]] = []
        if suspects:
            rows = draft.connection.execute(
                f"select {day}, count(*), {grain} from {model.name} group by {grain} having "
                f"count(*) > 1 "
                f"order by {grain} limit 1"
            ).fetchall()
        if suspects and nulls and not rows:
            rows = draft.connection.execute(
                f"select {day}, 0, {grain} from {model.name} where {nulls} group by {grain} limit 1"
            ).fetchall()
        if not rows:
            return Checked(model.name, "grain", True, False)
        when, count, *key = rows[0]
        shown = ", ".join(f"{name} {value}" for name, value in zip(model.grain, key, strict=True))
        what = f"expected 1 row, found {count}" if count else "expected no null, found one"
        return Checked(
            model.name,
            "grain",
            False,
            False,
            f"on {when or 'no one day'}, {model.name} is not one row for each {grain}: {what}, "
            f"for {shown}",
        )

    def _claims(self, draft: Draft) -> Iterator[Checked]:
        values = self.settings.parameters()
        for name, claim in self.models.claims.items():
            table = claim_table(self.models, name)
            marks = self.models.fingerprint(
                draft, claim, None, values | self.clock.parameters(), self.clock
            )
            known = draft.checks.get(name, "")
            # nothing it reads has changed since it was checked
            if known.partition(" ")[0] == marks:
                yield Checked(
                    table,
                    name,
                    known == marks,
                    claim.is_warning,
                    known.partition(" ")[2],
                    is_news=False,
                )
                continue
            rows = self.models.query(draft, claim, self.clock, values, None)
            passed = not rows
            found = "" if passed else _broken(rows[0])
            if passed or claim.is_warning:
                draft.checks[name] = marks if passed else f"{marks} {found}"
            yield Checked(table, name, passed, claim.is_warning, found)

    def _publish(self, draft: Draft, journal: "NightJournal") -> Snapshot:
        journal.now("published")
        draft.replace("ops.nights", journal.table())
        snapshot = draft.publish(self.clock.as_of)
        journal.snapshot_id = snapshot.snapshot_id
        return snapshot

    def _derive(self, store: Store) -> Iterator[Event]:
        """What is made from the snapshot alone: after a kill between the two, the next night makes
        it.
        """
        snapshot = store.snapshot()
        if snapshot is None:
            return
        if warehouse.published_id(store.root) != snapshot.snapshot_id:
            yield Started("warehouse")
            warehouse.build(store, snapshot, self.models)
        export_files.deliver(
            store.root, snapshot, self.settings.path(self.settings.exports.location)
        )


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


def adopt_journals(draft: Draft, journals: Mapping[str, RawTable] = JOURNALS) -> None:
    """Brings journals, whose lines are durable by themselves, into what the night stands on."""
    for table, shape in journals.items():
        entries = draft.store.journal(table).entries()
        instants = [name for name, (kind, _) in shape.columns.items() if kind == "timestamp"]
        rows = [
            entry | {name: datetime.fromisoformat(entry[name]) for name in instants if entry[name]}
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


class NightJournal:
    """`ops/nights/`: one small file a night, written when it begins and when it ends."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "ops" / "nights"
        self.snapshot_id: str | None = None
        self.entry: dict[str, Any] = {}
        self._began = 0.0

    def begin(self, clock: Clock, started_by: str) -> None:
        for path in sorted(self.folder.glob("[0-9]*.json")):
            entry = json.loads(path.read_text(encoding="utf-8"))
            if entry["outcome"] == "running":  # we hold the lock: that process is no more
                entry |= {"outcome": "killed", "message": "The process ended without a word."}
                write_whole(path, json.dumps(entry))
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
        write_whole(self.folder / f"{self.entry['night_id']}.json", json.dumps(self.entry))

    def table(self) -> pa.Table:
        """Every night up to this one."""
        entries = [
            json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(self.folder.glob("[0-9]*.json"))
        ]
        entries = [entry for entry in entries if entry["night_id"] != self.entry["night_id"]]
        instants = ("as_of", "started_at")
        rows = [
            entry | {name: datetime.fromisoformat(entry[name]) for name in instants}
            for entry in [*entries, self.entry]
        ]
        return arrow_table(TABLES["ops.nights"], rows)

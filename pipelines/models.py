"""How an SQL file becomes a table or a claim: what it depends on, its grain, its days, its
documentation; and how it is built.

Everything is read out of the file (house, "How a SQL file speaks"): nobody types dependencies
twice.
"""

import functools
import json
import math
import os
import queue
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc

from pipelines import packs
from pipelines.calendar import Clock
from pipelines.store import (
    CORES,
    MACROS,
    OWN_FILES,
    WHOLE,
    Draft,
    RawTable,
    Workbench,
    copy_parquet,
    digest,
    in_order,
    parquet_list,
    parsed_once,
    quote,
    write_parquet,
    write_whole,
)

SQL = Path(__file__).parents[1] / "sql"
LAYERS = ("raw", "staging", "marts", "ops")
DAY_PARAMETERS = {"day", "is_complete", "history_until", "is_tomorrow"}
ALL_DAYS = -1
KEPT_OF_NOTHING = 5_000  # files of some kilobytes
SLICE = 3_000_000  # rows looked back on, worked on at once: up to a gigabyte of medians
HALF = 32  # hexadecimal digits of a fingerprint's half

# What a partition's objects hold, as the store measured it when they were written: a row an object.
MANIFESTS = {"raw.request_manifest": "raw.requests", "ops.export_manifest": "exports.usage_by_key"}
MANIFEST_COLUMNS = {
    "usage_date": "date",
    "object": "varchar",
    "kind": "varchar",
    "row_count": "bigint",
    "credits": "decimal(38, 9)",
}

HEADER = re.compile(r"^--\s*(grain|sorted by|kind|looks back|also for|severity|each):\s*(.+?)\s*$")
WORDS = {"kind": "view", "also for": "tomorrow", "severity": "warning", "each": "day"}
MACRO = re.compile(rf"\b(?:{'|'.join(re.findall(r'macro ([a-z_]+)', MACROS))})\(")
DOCUMENTED = re.compile(r"([a-z_][a-z0-9_]*)\s*,?\s*--\s*(\S.*?)\s*$")


class ModelError(ValueError):
    """An SQL file that the house can't use; the text names the file and what to mend."""


@dataclass(frozen=True)
class Statement:
    """One SQL file: a model's select, or a claim's."""

    name: str
    sql: str
    description: str
    inputs: tuple[str, ...]
    parameters: frozenset[str]
    look_back: Mapping[str, int]
    columns: tuple[str, ...]
    documentation: Mapping[str, str]
    grain: tuple[str, ...] = ()
    nullable: frozenset[str] = frozenset()
    order: tuple[str, ...] = ()  # of the stored rows: what the file says, then the grain
    is_view: bool = False
    for_tomorrow: bool = False
    is_warning: bool = False
    each_day: bool = False
    logic: str = ""

    @property
    def uses_day(self) -> bool:
        return bool(self.parameters & DAY_PARAMETERS)


@dataclass(frozen=True)
class Parsed:
    """What a parser is needed for: the tables that a text names with their layer, those it names
    without one that are no CTE of it, and the columns that its select gives.
    """

    inputs: tuple[str, ...]
    astray: tuple[str, ...]
    columns: tuple[str, ...]


@functools.cache
def parse(text: str) -> Parsed:
    """Parses one select. Raises ValueError with what is wrong."""
    import sqlglot  # here, because it takes a while, and most processes read what is kept
    from sqlglot import exp

    try:
        [tree] = [part for part in sqlglot.parse(text, dialect="duckdb") if part is not None]
    except (sqlglot.errors.SqlglotError, ValueError) as error:
        raise ValueError(f"not one readable select: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, exp.Query):
        raise ValueError("a model is one select.")
    ctes = {cte.alias for cte in tree.find_all(exp.CTE)}
    tables = list(tree.find_all(exp.Table))
    return Parsed(
        inputs=tuple(sorted({f"{table.db}.{table.name}" for table in tables if table.db})),
        astray=tuple(table.name for table in tables if not table.db and table.name not in ctes),
        columns=tuple(tree.named_selects),
    )


def read_statement(path: Path, name: str, parsed: Parsed | None = None) -> Statement:
    """Reads one SQL file, `parsed` already or not. Raises ModelError with the file's name and what
    is wrong.
    """
    text = path.read_text(encoding="utf-8")
    try:
        parsed = parsed or parse(text)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from None
    header: dict[str, str] = {}
    prose: list[str] = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        if found := HEADER.match(line):
            header[found[1]] = found[2]
            if (word := WORDS.get(found[1], found[2])) != found[2]:
                raise ModelError(f"{path}: '{found[1]}: {found[2]}' is not known; say '{word}'.")
        else:
            prose.append(line.removeprefix("--").strip())
    for table in filter(None, parsed.astray):
        raise ModelError(f"{path}: '{table}' is no CTE; write a table with its layer.")
    for named in parsed.inputs:
        if named.split(".")[0] not in LAYERS:
            raise ModelError(
                f"{path}: '{named}' is in no layer of the house ({', '.join(LAYERS)})."
            )
    columns = parsed.columns
    documentation = {}
    for line in text.splitlines():
        if not line.startswith("--") and (found := DOCUMENTED.search(line)) and found[1] in columns:
            documentation[found[1]] = found[2]
    grain, before = (
        [part.strip() for part in header.get(word, "").split(",") if part.strip()]
        for word in ("grain", "sorted by")
    )
    for part in grain:
        if part.rstrip("?") not in columns:
            raise ModelError(f"{path}: the grain names '{part}', which the select does not give.")
    for part in before:
        if part not in columns:
            raise ModelError(f"{path}: is sorted by '{part}', which the select does not give.")
    return Statement(
        name=name,
        sql=text,
        description=" ".join(" ".join(prose).split()),
        inputs=parsed.inputs,
        parameters=frozenset(re.findall(r"\$([a-z_]+)", re.sub(r"--.*", "", text))),
        look_back=dict(_look_back(path, header.get("looks back", ""))),
        columns=columns,
        documentation=documentation,
        grain=tuple(part.rstrip("?") for part in grain),
        order=(*before, *(part.rstrip("?") for part in grain)),
        nullable=frozenset(part.rstrip("?") for part in grain if part.endswith("?")),
        is_view="kind" in header,
        for_tomorrow="also for" in header,
        is_warning="severity" in header,
        each_day="each" in header,
        logic=re.sub(r"\s+", " ", re.sub(r"--.*", "", text)).strip(),
    )


def kept_parses(paths: Sequence[Path]) -> dict[Path, Parsed]:
    """What the parser says of the house's own files, as another process has found it: the parser
    takes each command most of a second, its own import included. A cache, safe to lose. Nothing
    where a file can't be parsed: whoever reads it says so.
    """
    texts = [path.read_text(encoding="utf-8") for path in paths]
    told_by = [version("sqlglot"), Path(__file__).read_bytes()]
    file = cached(f"statements-{digest([*told_by, *texts])[:16]}.json")
    kept = recalled(file)
    if len(kept) == len(paths):
        with suppress(TypeError, KeyError):  # broken: made again
            return {
                path: Parsed(**{part: tuple(words) for part, words in kept[str(at)].items()})
                for at, path in enumerate(paths)
            }
    try:
        found = [parse(text) for text in texts]
    except ValueError:
        return {}
    remember(file, {str(at): asdict(one) for at, one in enumerate(found)})
    return dict(zip(paths, found, strict=True))


def cached(name: str) -> Path | None:
    """A file of the user's cache folder; None where nobody's home, as in some containers."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        return None
    return folder / "meterhouse" / name


def recalled(file: Path | None) -> dict[str, Any]:
    """What a file of the cache holds: nothing where there is none yet, or it is broken."""
    if file is not None:
        with suppress(OSError, ValueError):
            found = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(found, dict):
                return found
    return {}


def remember(file: Path | None, what: Mapping[str, Any]) -> None:
    """Keeps it for the next process; a place that can't be written stops no night."""
    if file is not None:
        with suppress(OSError):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(file, json.dumps(what))


def _look_back(path: Path, text: str) -> Iterator[tuple[str, int]]:
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"([a-z_]+\.[a-z_]+) (?:(\d+)|all) days?", part)
        if not found:
            raise ModelError(f"{path}: '{part}' should read 'layer.table N days' or '… all days'.")
        yield found[1], int(found[2]) if found[2] else ALL_DAYS


@dataclass(frozen=True)
class Built:
    """One partition of a table was written: day None is the whole table; credits as exact text."""

    table: str
    day: date | None
    rows: int
    credits: str | None
    seconds: float


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
class Step:
    """Something that is no model, but is made of tables and read by models: done on some bench."""

    inputs: Collection[str]
    run: Callable[[Workbench], list[Built]]


# Whether each row of a view is told from all others, of some days that changed: what says so on a
# bench, on which the view stands; None where only the rows themselves can tell.
ToldApart = Callable[[Draft, Sequence[date]], Callable[[Workbench], bool] | None]


@dataclass(frozen=True)
class Task:
    """A partition that is out of date: all that its writing needs to know. `is_of_nothing`: no
    table that it reads has a row.
    """

    model: Statement
    day: date | None
    fingerprint: str
    parameters: Mapping[str, object]
    sources: Mapping[str, str]
    is_of_nothing: bool


class Models:
    """Every model and claim of a folder of SQL, and the raw tables under them, as one graph."""

    def __init__(self, raw: Mapping[str, RawTable], folder: Path = SQL) -> None:
        self.raw = dict(raw)
        self.folder = folder
        self._has_asked = False  # what another process has found of the types
        self._types: dict[str, dict[str, str]] = {}
        self._scratch: duckdb.DuckDBPyConnection | None = None
        self._standing: set[str] = set()  # views of the scratch
        self._scratching = threading.RLock()
        self.models: dict[str, Statement] = {}
        self.claims: dict[str, Statement] = {}
        paths = sorted(folder.glob("*/*.sql"))
        parsed = kept_parses(paths) if folder == SQL else {}
        for path in paths:
            layer = path.parent.name
            if layer == "checks":
                self.claims[path.stem] = read_statement(path, path.stem, parsed.get(path))
            else:
                name = f"{layer}.{path.stem}"
                self.models[name] = read_statement(path, name, parsed.get(path))
                if not self.models[name].grain:
                    raise ModelError(f"{path}: says no grain ('-- grain: a, b').")
        for statement in (*self.models.values(), *self.claims.values()):
            for table in statement.inputs:
                if table not in self.models and table not in self.raw and table not in MANIFESTS:
                    raise ModelError(f"{statement.name}: reads {table}, which nothing makes.")
        graph = {
            name: [table for table in model.inputs if table in self.models and table != name]
            for name, model in self.models.items()
        }
        try:
            self.order = [self.models[name] for name in TopologicalSorter(graph).static_order()]
        except CycleError as error:
            raise ModelError(f"models depend on each other in a circle: {error.args[1]}") from None

    @functools.cache  # noqa: B019  (one graph lives as long as the process)
    def is_by_day(self, table: str) -> bool:
        """Whether the table has one partition per UTC day (a view has its inputs' days)."""
        if table in MANIFESTS or table in MANIFESTS.values():
            return True
        if table in self.raw:
            return self.raw[table].by_day
        model = self.models[table]
        if model.is_view:
            return any(self.is_by_day(name) for name in model.inputs)
        return model.uses_day

    @functools.cache  # noqa: B019
    def stored_inputs(self, table: str) -> tuple[str, ...]:
        """What a table stands on, views looked through."""
        if table in MANIFESTS:
            return (MANIFESTS[table],)
        if table in self.models and self.models[table].is_view:
            return tuple(
                sorted(
                    {
                        base
                        for name in self.models[table].inputs
                        for base in self.stored_inputs(name)
                    }
                )
            )
        return (table,)

    # ---- which days -------------------------------------------------------------------------

    def days(self, draft: Draft, table: str) -> list[date]:
        """The days a table has now, ascending; a view's are those of what it stands on."""
        bases = self.stored_inputs(table)
        if len(bases) == 1:
            return draft.days(bases[0])
        return sorted({day for base in bases for day in draft.days(base)})

    def wanted_days(self, draft: Draft, model: Statement, clock: Clock) -> list[date]:
        """The days a `$day` model should have: its inputs' days, and tomorrow where it says so."""
        days = {
            day
            for name in model.inputs
            if name != model.name and self.is_by_day(name)
            for day in self.days(draft, name)
        }
        if model.for_tomorrow:
            days.add(clock.tomorrow)
        return sorted(days)

    def window(
        self, draft: Draft, statement: Statement, table: str, day: date | None, clock: Clock
    ) -> list[date] | None:
        """The days of an input that a statement sees; None: all of it."""
        if not self.is_by_day(table):
            return None
        back = statement.look_back.get(table, 0 if day is not None else ALL_DAYS)
        if day is not None and back == 0 and table != statement.name:
            return [day] if self._has_day(draft, table, day) else []
        known = self.days(draft, table)
        last = (day or max([clock.today, *known])).toordinal()
        first = 0 if back == ALL_DAYS else (day or clock.today).toordinal() - back
        if table == statement.name:
            last -= 1
        return [one for one in known if first <= one.toordinal() <= last]

    def _has_day(self, draft: Draft, table: str, day: date) -> bool:
        key = str(day)
        return any(key in draft.partitions(base) for base in self.stored_inputs(table))

    def content(self, draft: Draft, table: str, day: date) -> str:
        """A hash of what a table holds of a day."""
        parts: list[object] = (
            [self.view_logic(table)] if table in self.models and self.models[table].is_view else []
        )
        for base in self.stored_inputs(table):
            partitions = draft.partitions(base)
            keys = [str(day)] if self.is_by_day(base) else sorted(partitions)
            parts += [f"{base}:{partitions[key].content}" for key in keys if key in partitions]
        return digest(parts)

    # ---- fingerprints -----------------------------------------------------------------------

    def fingerprint(
        self,
        draft: Draft,
        statement: Statement,
        day: date | None,
        values: Mapping[str, object],
        clock: Clock,
        *,
        of_days: bool = True,
    ) -> str:
        """What a result depends on: the statement with the values it names, and the content of all
        it reads, a hash each; `of_days`: also of what has days.
        """
        said = self._said(statement, values)
        return said + self._content_read(draft, statement, day, clock, of_days=of_days)

    def _said(self, statement: Statement, values: Mapping[str, object]) -> str:
        """The first half of a fingerprint."""
        named = sorted(statement.parameters & values.keys())
        parts = [f"{name}={values[name]}" for name in named]
        return digest([self._words(statement.name), *parts])[:HALF]

    @functools.cache  # noqa: B019
    def _words(self, name: str) -> str:
        """A hash of a statement, and of the views it reads."""
        statement = self.models.get(name) or self.claims[name]
        inputs = [self.models[table] for table in statement.inputs if table in self.models]
        views = [self.view_logic(model.name) for model in inputs if model.is_view]
        parts: list[object] = [
            duckdb.__version__,
            statement.logic,
            dict(statement.look_back),
            *views,
        ]
        if MACRO.search(statement.logic):
            parts.append(MACROS)
        return digest(parts)

    def _content_read(
        self, draft: Draft, statement: Statement, day: date | None, clock: Clock, *, of_days: bool
    ) -> str:
        """The second half of a fingerprint."""
        parts: list[object] = []
        for table in statement.inputs:
            window = self.window(draft, statement, table, day, clock) if of_days else []
            parts.append(table)
            for base in self.stored_inputs(table):
                partitions = draft.partitions(base)
                keys = (
                    [str(known) for known in window]
                    if window is not None and self.is_by_day(base)
                    else sorted(partitions)
                )
                parts += [f"{key}:{partitions[key].content}" for key in keys if key in partitions]
        return digest(parts)[:HALF]

    def _unchanged(self, draft: Draft, statement: Statement) -> Callable[[date], bool]:
        """Tells of a day whether all that a statement reads for it is as it was published: then the
        second half of its fingerprint is, too, and a year of days need not be hashed again. (Not of
        what is written after the models: `marts.restatements`, `ops.nights`; no day reads these.)
        """
        spans: list[tuple[float, set[int]]] = []  # days looked back on, and those that changed
        for table in statement.inputs:
            back: float = statement.look_back.get(table, 0)
            for base in self.stored_inputs(table):
                changed = draft.changed(base)
                if not changed:
                    continue
                if not (self.is_by_day(table) and self.is_by_day(base)):
                    return lambda _: False
                ordinals = {date.fromisoformat(key).toordinal() for key in changed if key}
                spans.append((math.inf if back == ALL_DAYS else back, ordinals))

        def is_as_published(day: date) -> bool:
            at = day.toordinal()
            return not any(at - back <= one <= at for back, changed in spans for one in changed)

        return is_as_published

    @functools.cache  # noqa: B019
    def view_logic(self, table: str) -> str:
        """What a view says, with the views it reads: it has no object whose hash could tell."""
        model = self.models[table]
        return model.logic + "".join(
            self.view_logic(name)
            for name in model.inputs
            if name in self.models and self.models[name].is_view
        )

    # ---- binding ----------------------------------------------------------------------------

    def bind(
        self,
        draft: Draft,
        table: str,
        days: Iterable[date] | None = None,
        bench: Workbench | None = None,
    ) -> None:
        """Makes `table` readable by its name on a bench (the draft's own), narrowed to `days`."""
        (bench or draft.bench).bind(self.sources(draft, table, days))

    def sources(
        self, draft: Draft, table: str, days: Iterable[date] | None = None
    ) -> Mapping[str, str]:
        """The select that `table` stands for now, narrowed to `days`; a view's after those of what
        it reads. An object without a row is not opened: of a night's few lines most are such.
        """
        if table in self.models and self.models[table].is_view:
            model = self.models[table]
            sources: dict[str, str] = {}
            for name in model.inputs:
                sources |= self.sources(draft, name, days if self.is_by_day(name) else None)
            return sources | {table: model.sql}
        if table in MANIFESTS:
            return {table: self._manifest(draft, MANIFESTS[table], days)}
        if table in self.models and self.is_by_day(table):
            known = draft.days(table) if days is None else list(days)
            files = packs.files(draft, table, known, ", ".join(self.models[table].order))
        else:
            asked = days if self.is_by_day(table) else None
            files = draft.files(table, asked, filled=True)
        return {table: self.rows_of(table, files) if files else self.empty(table)}

    def rows_of(self, table: str, files: Sequence[Path | str], *, by_path: bool = False) -> str:
        """The select that reads a stored table out of its files."""
        shape = self.raw.get(table) or RawTable("", {})
        return shape.rows_of(files, by_path=by_path)

    def _manifest(self, draft: Draft, base: str, days: Iterable[date] | None) -> str:
        wanted = None if days is None else {str(day) for day in days}
        rows = [
            {
                "usage_date": key,
                "object": item.path,
                "kind": item.path.rpartition(".")[2],
                "row_count": item.rows,
                "credits": item.credits or "0",
            }
            for key, partition in sorted(draft.partitions(base).items())
            if wanted is None or key in wanted
            for item in partition.objects
            if item.path.endswith((".parquet", ".csv"))
        ]
        if not rows:
            return empty_select(MANIFEST_COLUMNS)
        # one text: of thousands of values each would be parsed and bound, which takes a second
        names = json.dumps([dict.fromkeys(MANIFEST_COLUMNS, "varchar")])
        typed = ", ".join(f"{name}::{kind} as {name}" for name, kind in MANIFEST_COLUMNS.items())
        return (
            f"select {typed} from (select unnest(from_json({quote(json.dumps(rows))}, "
            f"{quote(names)}), recursive := true))"
        )

    def empty(self, table: str) -> str:
        """A select of the table's columns and no row, for a table that has no object yet."""
        if table in self.raw:
            return empty_select({name: kind for name, (kind, _) in self.raw[table].columns.items()})
        return empty_select(self.types(table))

    def types(self, table: str) -> dict[str, str]:
        """The DuckDB type of each column of a table, from its shape alone."""
        if table in MANIFESTS:
            return dict(MANIFEST_COLUMNS)
        if table in self.raw:
            return {name: kind for name, (kind, _) in self.raw[table].columns.items()}
        with self._scratching:
            if self.folder == SQL and not self._has_asked:
                self._has_asked = True
                self._types = self._kept_types()
            return self._describe(table)

    def _kept_types(self) -> dict[str, dict[str, str]]:
        """The types of every model of the house itself, as another process has found them: to ask
        the engine takes each night half a second. A cache, safe to lose.
        """
        told_by = [duckdb.__version__, Path(__file__).read_bytes(), MANIFEST_COLUMNS, MACROS]
        shapes = [(name, shape.columns) for name, shape in self.raw.items()]
        logic = [(name, model.logic) for name, model in self.models.items()]
        file = cached(f"types-{digest([told_by, shapes, logic])[:16]}.json")
        kept: dict[str, dict[str, str]] = recalled(file)
        if kept.keys() == self.models.keys():
            return kept
        found = {name: self._describe(name) for name in self.models}
        remember(file, found)
        return found

    def _describe(self, table: str) -> dict[str, str]:
        if table in self._types:
            return self._types[table]
        model = self.models[table]
        if self._scratch is None:
            self._scratch = duckdb.connect()
            for layer in LAYERS:
                self._scratch.execute(f"create schema {layer}")
            self._scratch.execute(MACROS)
        try:
            for name in model.inputs:
                kinds = (
                    dict.fromkeys(model.columns, '"NULL"')
                    if name == model.name
                    else self.types(name)
                )
                if name not in self._standing:
                    self._scratch.execute(f"create or replace view {name} as {empty_select(kinds)}")
                if name != model.name:  # whose own types are known only now
                    self._standing.add(name)
            text = re.sub(r"\$([a-z_]+)", _typed_null, re.sub(r"--.*", "", model.sql))
            described = self._scratch.sql(f"describe {text}").fetchall()
        except duckdb.Error as error:
            raise ModelError(f"{model.name}: {error}") from None
        self._types[table] = {row[0]: row[1] for row in described}
        return self._types[table]

    # ---- building ---------------------------------------------------------------------------

    def build(
        self,
        draft: Draft,
        clock: Clock,
        settings: Mapping[str, object],
        *,
        force: Callable[[date | None], bool] = lambda _: False,
        steps: Mapping[str, Step] | None = None,
        told_apart: Mapping[str, ToldApart] | None = None,
    ) -> Iterator[Built | Checked]:
        """Builds what is out of date, a model once all it reads is there, as many side by side as
        there are cores, and checks the grain of what changed; yields what was written and checked.
        `steps`: what else has its place among them. `told_apart`: views whose rows an index knows.
        """
        steps = steps or {}
        graph = {
            name: [
                table
                for table in model.inputs
                if table != name and (table in self.models or table in steps)
            ]
            for name, model in self.models.items()
        } | {name: list(step.inputs) for name, step in steps.items()}
        sorter = TopologicalSorter(graph)
        sorter.prepare()
        tasks: dict[str, Iterator[Task]] = {}
        building: defaultdict[str, deque[tuple[Task, Path]]] = defaultdict(deque)
        measured: dict[Path, tuple[int, str | None, float]] = {}
        jobs: dict[Future[Any], Callable[[Any], Iterator[Built | Checked]]] = {}
        grains: deque[Callable[[], None]] = deque()  # nothing waits for them: they fill the gaps
        idle: queue.SimpleQueue[Workbench] = queue.SimpleQueue()
        idle.put(draft.bench)

        def submit(
            work: Callable[[Workbench], Any], finish: Callable[[Any], Iterator[Built | Checked]]
        ) -> None:
            """Has work done on whichever bench is idle, and then what follows from its result."""

            def on_a_bench() -> Any:
                try:
                    bench = idle.get_nowait()
                except queue.Empty:  # never more benches than threads
                    bench = draft.new_bench()
                try:
                    return work(bench)
                finally:
                    idle.put(bench)

            jobs[pool.submit(on_a_bench)] = finish

        def start(model: Statement) -> None:
            """Starts what may start of a model: all its days, or the next where a day stands on
            the day before.
            """
            is_chain = model.name in model.inputs
            for task in islice(tasks[model.name], 1 if is_chain else None):
                file = draft.new_file("parquet")
                building[model.name].append((task, file))
                submit(partial(_write, task, file), partial(written, model, file))

        def written(
            model: Statement, file: Path, result: tuple[int, str | None, float]
        ) -> Iterator[Built | Checked]:
            """Takes in a day, once those before it are in: people read them in that order."""
            measured[file] = result
            days = building[model.name]
            while days and days[0][1] in measured:
                task, file = days.popleft()
                rows, credits, seconds = measured.pop(file)
                draft.put(model.name, file, task.day, (rows, credits), fingerprint=task.fingerprint)
                yield Built(model.name, task.day, rows, credits, seconds)
            if not days:
                start(model)  # the next day of a chain
            if not days:
                yield from finished(model)

        def finished(model: Statement) -> Iterator[Checked]:
            sorter.done(model.name)
            if model.is_view and model.name != "staging.requests":
                return
            grain = self._grain(draft, model, (told_apart or {}).get(model.name))
            if grain is None:  # audited by the night that published it
                yield Checked(model.name, "grain", True, False, is_news=False)
            elif grain is _holds_for_none:
                yield from audited(model, "")
            else:
                grains.append(partial(submit, grain, partial(audited, model)))

        def audited(model: Statement, found: str) -> Iterator[Checked]:
            if model.is_view and not found:
                draft.checks[f"{model.name}__grain"] = digest([self.view_logic(model.name)])
            yield Checked(model.name, "grain", not found, False, found)

        def stepped(name: str, built: list[Built]) -> Iterator[Built]:
            yield from built
            sorter.done(name)

        with ThreadPoolExecutor(CORES) as pool:
            while sorter.is_active() or jobs or grains:
                while ready := sorted(sorter.get_ready()):
                    for name in ready:
                        if name in steps:
                            submit(steps[name].run, partial(stepped, name))
                            continue
                        model = self.models[name]
                        if not model.is_view:
                            tasks[name] = self._tasks(draft, model, clock, settings, force)
                            start(model)
                        if not building[name]:
                            yield from finished(model)
                while grains and len(jobs) < CORES:
                    grains.popleft()()
                done, _ = wait(jobs, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from jobs.pop(future)(future.result())

    def _tasks(
        self,
        draft: Draft,
        model: Statement,
        clock: Clock,
        settings: Mapping[str, object],
        force: Callable[[date | None], bool],
    ) -> Iterator["Task"]:
        """What is out of date of a model: its days in order, each looked at when asked for."""
        wanted: list[date | None] = (
            list(self.wanted_days(draft, model, clock)) if model.uses_day else [None]
        )
        for key in set(draft.partitions(model.name)) - {
            WHOLE if day is None else str(day) for day in wanted
        }:
            draft.drop(model.name, date.fromisoformat(key) if key else None)
        self._check_parameters(model, dict(settings) | clock.parameters(clock.today))
        is_unchanged = self._unchanged(draft, model)
        published = draft.published.tables.get(model.name, {}) if draft.published else {}
        is_apart = model.name not in model.inputs
        has_begun = False  # to write: what reads its own days before reads what is new
        for day in wanted:
            values = dict(settings) | clock.parameters(day)
            key = WHOLE if day is None else str(day)
            known = draft.partitions(model.name).get(key)
            said = self._said(model, values)
            is_known = known is not None and known.fingerprint.startswith(said) and not force(day)
            if (
                is_known
                and day is not None
                and published.get(key) == known
                and (is_apart or not has_begun)
                and is_unchanged(day)
            ):
                continue
            mark = said + self._content_read(draft, model, day, clock, of_days=True)
            if is_known and known is not None and known.fingerprint == mark:
                continue
            has_begun = True
            sources: dict[str, str] = {}
            for table in model.inputs:
                window = self.window(draft, model, table, day, clock)
                sources |= self.sources(draft, table, window)
            parameters = {name: values[name] for name in model.parameters}
            is_of_nothing = all(
                select == self.empty(table)
                for table, select in sources.items()
                if not (table in self.models and self.models[table].is_view)
            )
            yield Task(model, day, mark, parameters, sources, is_of_nothing)

    def _grain(
        self, draft: Draft, model: Statement, told_apart: ToldApart | None
    ) -> Callable[[Workbench], str] | None:
        """What says whether a table's grain is broken, and how, over the days that changed since it
        was published; None where nothing did. A view whose SQL was audited row by row, the night it
        changed, may be told by an index from then on.
        """
        published = draft.published.tables if draft.published else {}
        changed = {
            key
            for base in self.stored_inputs(model.name)
            for key, partition in draft.partitions(base).items()
            if published.get(base, {}).get(key) != partition
        }
        # A view has no object that changes when its SQL does: every day of it is audited again.
        is_new_view = model.is_view and draft.checks.get(f"{model.name}__grain") != digest(
            [self.view_logic(model.name)]
        )
        if not changed and not is_new_view:
            return None
        days = None
        if self.is_by_day(model.name) and not is_new_view:
            days = sorted(date.fromisoformat(key) for key in changed if key)
        sources = self.sources(draft, model.name, days)
        if not model.is_view and sources[model.name] == self.empty(model.name):
            return _holds_for_none
        is_told_apart = told_apart(draft, days) if told_apart and days is not None else None
        return partial(_broken_grain, model, sources, is_told_apart)

    def _check_parameters(self, statement: Statement, values: Mapping[str, object]) -> None:
        for name in statement.parameters - values.keys():
            raise ModelError(
                f"{statement.name}: there is no parameter ${name}; known are "
                f"{', '.join('$' + known for known in sorted(values))}."
            )

    def changed_days(self, draft: Draft, statement: Statement) -> list[date]:
        """The days of what a statement reads that are not as they were published, and those from
        the published clock's own day on, about which the clock decides.
        """
        published = draft.published
        before = published.tables if published else {}
        since = str(published.as_of.date()) if published else ""
        keys = {
            key
            for table in statement.inputs
            for base in self.stored_inputs(table)
            if self.is_by_day(base)
            for key in {*draft.partitions(base), *before.get(base, {})}
            if key >= since or draft.partitions(base).get(key) != before.get(base, {}).get(key)
        }
        return sorted(date.fromisoformat(key) for key in keys)

    def query(
        self,
        draft: Draft,
        statement: Statement,
        clock: Clock,
        settings: Mapping[str, object],
        days: Collection[date] | None = None,
    ) -> list[dict[str, object]]:
        """The rows a claim gives now; narrowed to some days of what has days."""
        values = dict(settings) | clock.parameters()
        self._check_parameters(statement, values)
        for table in statement.inputs:
            window = self.window(draft, statement, table, None, clock) if days is None else days
            self.bind(draft, table, window if self.is_by_day(table) else None)
        relation = draft.connection.execute(
            parsed_once(draft.connection, statement.sql),
            {name: values[name] for name in statement.parameters},
        )
        names = [column[0] for column in relation.description or []]
        return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]


# What statements made of nothing but empty tables, in this process: content, rows, credits. Half
# of a small house is such (no Stripe, no budgets), and each takes 10 ms of a core to plan.
_OF_NOTHING: dict[str, tuple[bytes, int, str | None]] = {}


def _write(task: Task, file: Path, bench: Workbench) -> tuple[int, str | None, float]:
    """Writes a partition: its rows, credits, and the seconds it took."""
    began = time.monotonic()
    key = ""
    if task.is_of_nothing:
        key = repr((task.model.name, task.model.sql, task.sources, task.parameters))
    if key in _OF_NOTHING:
        content, rows, credits = _OF_NOTHING[key]
        file.write_bytes(content)
    else:
        bench.bind(task.sources)
        rows, credits = write_model(bench.connection, task.model, file, task.parameters)
        if key and len(_OF_NOTHING) < KEPT_OF_NOTHING:
            _OF_NOTHING[key] = (file.read_bytes(), rows, credits)
    return rows, credits, time.monotonic() - began


def write_model(
    connection: duckdb.DuckDBPyConnection,
    model: Statement,
    file: Path,
    parameters: Mapping[str, object],
) -> tuple[int, str | None]:
    """Writes a model's rows, whose inputs stand on the connection: how many, and their credits.

    One that names `$slice` is made in as many turns as its memory asks for, by the rows that it
    looks back on; the file is the same, however many they were.
    """
    order, has_credits = ", ".join(model.order), "credits" in model.columns
    sql = f"select * from ({model.sql}\n) order by {order}"
    count = 1
    if "slice" in model.parameters:
        looked_back_on = [
            table
            for table, days in model.look_back.items()
            if days != ALL_DAYS and table != model.name
        ]
        counts = " + ".join(f"(select count(*) from {table})" for table in looked_back_on)
        [(rows,)] = connection.execute(f"select {counts}").fetchall()
        count = max(1, math.ceil(rows / SLICE))
    options = OWN_FILES if model.name.startswith("staging.") else ""
    if count == 1:
        return write_parquet(connection, sql, file, parameters, has_credits, options, is_kept=True)
    parts = [file.with_name(f"{file.stem}-{number}{file.suffix}") for number in range(count)]
    try:
        for number, part in enumerate(parts):
            sliced = dict(parameters) | {"slice": number, "slice_count": count}
            copy_parquet(connection, sql, part, sliced, options)
        whole = f"from {parquet_list(parts)} order by {order}"
        return write_parquet(connection, whole, file, None, has_credits, options)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _broken_grain(
    model: Statement,
    sources: Mapping[str, str],
    is_told_apart: Callable[[Workbench], bool] | None,
    bench: Workbench,
) -> str:
    """How the grain of a table is broken, as a sentence; nothing where it holds."""
    bench.bind(sources)
    if is_told_apart and is_told_apart(bench):
        return ""
    grain = ", ".join(model.grain)
    nulls = " or ".join(f"{name} is null" for name in model.grain if name not in model.nullable)
    day = "min(usage_date)" if "usage_date" in model.columns else "null"
    # Many rows: their hashes first, in order, so that equal ones are neighbours. To count distinct
    # ones costs ten times as much, of five million.
    hashes = in_order(
        bench.connection.sql(
            f"select case when not ({nulls or 'false'}) then hash({grain}) end as hash "
            f"from {model.name}"
        ).to_arrow_table()["hash"]
    )
    is_twice = pc.any(pc.equal(hashes[1:], hashes[:-1])).as_py()
    has_null = hashes.null_count > 0
    rows: list[tuple[Any, ...]] = []
    if is_twice:
        rows = bench.connection.execute(
            f"select {day}, count(*), {grain} from {model.name} group by {grain} "
            f"having count(*) > 1 order by {grain} limit 1"
        ).fetchall()
    if has_null and not rows:
        rows = bench.connection.execute(
            f"select {day}, 0, {grain} from {model.name} where {nulls} group by {grain} limit 1"
        ).fetchall()
    if not rows:
        return ""
    when, count, *key = rows[0]
    shown = ", ".join(f"{name} {value}" for name, value in zip(model.grain, key, strict=True))
    what = f"expected 1 row, found {count}" if count else "expected no null, found one"
    return (
        f"on {when or 'no one day'}, {model.name} is not one row for each {grain}: {what}, "
        f"for {shown}"
    )


def _holds_for_none(bench: Workbench) -> str:  # noqa: ARG001
    """The same of a table without a row: there is nothing to ask."""
    return ""


def empty_select(types: Mapping[str, str]) -> str:
    columns = ", ".join(f"null::{kind} as {name}" for name, kind in types.items())
    return f"select {columns} where false"


def _typed_null(found: re.Match[str]) -> str:
    """A stand-in for a parameter where only types matter."""
    name = found[1]
    kind = {
        "day": "date",
        "today": "date",
        "history_until": "date",
        "as_of": "timestamp",
        "is_complete": "boolean",
        "is_tomorrow": "boolean",
        "stripe_livemode": "boolean",
        "alerts_sensitivity": "varchar",
        "alerts_budget_percents": "integer[]",
        "requests_sources": "varchar[]",
    }.get(name, "double" if name.startswith("alerts_") else "integer")
    return f"(null::{kind})"

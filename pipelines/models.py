"""How an SQL file becomes a table or a claim: what it depends on, its grain, its days, its
documentation; and how it is built.

Everything is read out of the file (house, "How a SQL file speaks"): nobody types dependencies
twice.
"""

import functools
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import duckdb
import sqlglot
from sqlglot import exp

from pipelines.calendar import Clock
from pipelines.store import WHOLE, Draft, RawTable, digest, quote, write_parquet

SQL = Path(__file__).parents[1] / "sql"
LAYERS = ("raw", "staging", "marts", "ops")
DAY_PARAMETERS = {"day", "is_complete", "history_until", "is_tomorrow"}
ALL_DAYS = -1
SIDE_BY_SIDE = 4  # from so many days on, each core builds a day of its own

# What a partition's objects hold, as the store measured it when they were written: a row an object.
MANIFESTS = {"raw.request_manifest": "raw.requests", "ops.export_manifest": "exports.usage_by_key"}
MANIFEST_COLUMNS = {
    "usage_date": "date",
    "object": "varchar",
    "kind": "varchar",
    "row_count": "bigint",
    "credits": "decimal(38, 9)",
}

HEADER = re.compile(r"^--\s*(grain|kind|looks back|also for|severity):\s*(.+?)\s*$")
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
    is_view: bool = False
    for_tomorrow: bool = False
    is_warning: bool = False
    logic: str = ""

    @property
    def uses_day(self) -> bool:
        return bool(self.parameters & DAY_PARAMETERS)


def read_statement(path: Path, name: str) -> Statement:
    """Parses one SQL file. Raises ModelError with the file's name and what is wrong."""
    text = path.read_text(encoding="utf-8")
    try:
        [tree] = [part for part in sqlglot.parse(text, dialect="duckdb") if part is not None]
    except (sqlglot.errors.SqlglotError, ValueError) as error:
        raise ModelError(f"{path}: not one readable select: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, exp.Query):
        raise ModelError(f"{path}: a model is one select.")
    header: dict[str, str] = {}
    prose: list[str] = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        if found := HEADER.match(line):
            header[found[1]] = found[2]
        else:
            prose.append(line.removeprefix("--").strip())
    ctes = {cte.alias for cte in tree.find_all(exp.CTE)}
    inputs = sorted({f"{table.db}.{table.name}" for table in tree.find_all(exp.Table) if table.db})
    for table in tree.find_all(exp.Table):
        if not table.db and table.name and table.name not in ctes:
            raise ModelError(f"{path}: '{table.name}' is no CTE; write a table with its layer.")
    for named in inputs:
        if named.split(".")[0] not in LAYERS:
            raise ModelError(
                f"{path}: '{named}' is in no layer of the house ({', '.join(LAYERS)})."
            )
    columns = tuple(tree.named_selects)
    documentation = {}
    for line in text.splitlines():
        if not line.startswith("--") and (found := DOCUMENTED.search(line)) and found[1] in columns:
            documentation[found[1]] = found[2]
    grain = [part.strip() for part in header.get("grain", "").split(",") if part.strip()]
    for part in grain:
        if part.rstrip("?") not in columns:
            raise ModelError(f"{path}: the grain names '{part}', which the select does not give.")
    return Statement(
        name=name,
        sql=text,
        description=" ".join(" ".join(prose).split()),
        inputs=tuple(inputs),
        parameters=frozenset(re.findall(r"\$([a-z_]+)", re.sub(r"--.*", "", text))),
        look_back=dict(_look_back(path, header.get("looks back", ""))),
        columns=columns,
        documentation=documentation,
        grain=tuple(part.rstrip("?") for part in grain),
        nullable=frozenset(part.rstrip("?") for part in grain if part.endswith("?")),
        is_view=header.get("kind") == "view",
        for_tomorrow=header.get("also for") == "tomorrow",
        is_warning=header.get("severity") == "warning",
        logic=re.sub(r"\s+", " ", re.sub(r"--.*", "", text)).strip(),
    )


def _look_back(path: Path, text: str) -> Iterator[tuple[str, int]]:
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"([a-z_]+\.[a-z_]+) (?:(\d+)|all) days?", part)
        if not found:
            raise ModelError(f"{path}: '{part}' should read 'layer.table N days' or '… all days'.")
        yield found[1], int(found[2]) if found[2] else ALL_DAYS


class Models:
    """Every model and claim of a folder of SQL, and the raw tables under them, as one graph."""

    def __init__(self, raw: Mapping[str, RawTable], folder: Path = SQL) -> None:
        self.raw = dict(raw)
        self._types: dict[str, dict[str, str]] = {}
        self._scratch: duckdb.DuckDBPyConnection | None = None
        self._scratching = threading.RLock()
        self.models: dict[str, Statement] = {}
        self.claims: dict[str, Statement] = {}
        for path in sorted(folder.glob("*/*.sql")):
            layer = path.parent.name
            if layer == "checks":
                self.claims[path.stem] = read_statement(path, path.stem)
            else:
                name = f"{layer}.{path.stem}"
                self.models[name] = read_statement(path, name)
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
        return sorted({day for base in self.stored_inputs(table) for day in draft.days(base)})

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
        known = self.days(draft, table)
        last = (day or max([clock.today, *known])).toordinal()
        first = 0 if back == ALL_DAYS else (day or clock.today).toordinal() - back
        if table == statement.name:
            last -= 1
        return [one for one in known if first <= one.toordinal() <= last]

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
    ) -> str:
        """What a result depends on: the statement, the values it names, the content of all it
        reads.
        """
        parts: list[object] = [duckdb.__version__, statement.logic]
        parts += [f"{name}={values[name]}" for name in sorted(statement.parameters)]
        for table in statement.inputs:
            window = self.window(draft, statement, table, day, clock)
            parts.append(table)
            if table in self.models and self.models[table].is_view:
                parts.append(self.view_logic(table))
            for base in self.stored_inputs(table):
                partitions = draft.partitions(base)
                keys = (
                    [str(known) for known in window]
                    if window is not None and self.is_by_day(base)
                    else sorted(partitions)
                )
                parts += [f"{key}:{partitions[key].content}" for key in keys if key in partitions]
        return digest(parts)

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
        connection: duckdb.DuckDBPyConnection | None = None,
    ) -> None:
        """Makes `table` readable by its name on a connection (default: the draft's), narrowed to
        `days`.
        """
        if table in self.models and self.models[table].is_view:
            model = self.models[table]
            for name in model.inputs:
                self.bind(draft, name, days if self.is_by_day(name) else None, connection)
            source = model.sql
        elif table in MANIFESTS:
            source = self._manifest(draft, MANIFESTS[table], days)
        else:
            files = draft.files(table, days if self.is_by_day(table) else None)
            source = self.rows_of(table, files) if files else self.empty(table)
        (connection or draft.connection).execute(f"create or replace view {table} as {source}")

    def rows_of(self, table: str, files: Sequence[Path], *, by_path: bool = False) -> str:
        """The select that reads a stored table out of its files."""
        shape = self.raw.get(table) or RawTable("", {})
        return shape.rows_of(files, by_path=by_path)

    def _manifest(self, draft: Draft, base: str, days: Iterable[date] | None) -> str:
        wanted = None if days is None else {str(day) for day in days}
        rows = [
            f"(date {quote(key)}, {quote(item.path)}, {quote(item.path.rpartition('.')[2])}, "
            f"{item.rows}, {quote(item.credits or '0')}::decimal(38, 9))"
            for key, partition in sorted(draft.partitions(base).items())
            if wanted is None or key in wanted
            for item in partition.objects
            if item.path.endswith((".parquet", ".csv"))
        ]
        if not rows:
            return empty_select(MANIFEST_COLUMNS)
        return (
            f"select * from (values {', '.join(rows)}) as manifest ({', '.join(MANIFEST_COLUMNS)})"
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
            return self._describe(table)

    def _describe(self, table: str) -> dict[str, str]:
        if table in self._types:
            return self._types[table]
        model = self.models[table]
        if self._scratch is None:
            self._scratch = duckdb.connect()
            for layer in LAYERS:
                self._scratch.execute(f"create schema {layer}")
        try:
            for name in model.inputs:
                kinds = (
                    dict.fromkeys(model.columns, '"NULL"')
                    if name == model.name
                    else self.types(name)
                )
                self._scratch.execute(f"create or replace view {name} as {empty_select(kinds)}")
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
        model: Statement,
        clock: Clock,
        settings: Mapping[str, object],
        *,
        force: Callable[[date | None], bool] = lambda _: False,
    ) -> Iterator[tuple[date | None, int, str | None]]:
        """Builds what is out of date of one model; yields (day or None, rows, credits) for each
        object written.
        """
        if model.is_view:
            return
        wanted: list[date | None] = (
            list(self.wanted_days(draft, model, clock)) if model.uses_day else [None]
        )
        for key in set(draft.partitions(model.name)) - {
            WHOLE if day is None else str(day) for day in wanted
        }:
            draft.drop(model.name, date.fromisoformat(key) if key else None)
        stale = []
        for day in wanted:
            values = dict(settings) | clock.parameters(day)
            self._check_parameters(model, values)
            if model.name in model.inputs:
                stale.append((day, "", values))  # its fingerprint depends on the day before it
                continue
            mark = self.fingerprint(draft, model, day, values, clock)
            if not self._is_fresh(draft, model, day, mark) or force(day):
                stale.append((day, mark, values))
        if len(stale) < SIDE_BY_SIDE or model.name in model.inputs:
            for day, mark, values in stale:
                mark = mark or self.fingerprint(draft, model, day, values, clock)
                if (
                    model.name in model.inputs
                    and self._is_fresh(draft, model, day, mark)
                    and not force(day)
                ):
                    continue
                for table in model.inputs:
                    self.bind(draft, table, self.window(draft, model, table, day, clock))
                item = draft.replace(
                    model.name,
                    self._ordered(model),
                    day,
                    fingerprint=mark,
                    parameters={name: values[name] for name in model.parameters},
                    has_credits="credits" in model.columns,
                )
                yield day, item.rows, item.credits
            return
        yield from self._build_side_by_side(draft, model, clock, stale)

    def _is_fresh(self, draft: Draft, model: Statement, day: date | None, mark: str) -> bool:
        known = draft.partitions(model.name).get(WHOLE if day is None else str(day))
        return known is not None and known.fingerprint == mark

    def _ordered(self, model: Statement) -> str:
        return f"select * from ({model.sql}\n) order by {', '.join(model.grain)}"

    def _build_side_by_side(
        self,
        draft: Draft,
        model: Statement,
        clock: Clock,
        stale: list[tuple[date | None, str, dict[str, object]]],
    ) -> Iterator[tuple[date | None, int, str | None]]:
        """Many days of one model: each core takes the next day; results are taken in in the order
        of the days.
        """

        def write(
            place: tuple[date | None, str, dict[str, object]], target: Path
        ) -> tuple[int, str | None]:
            day, _, values = place
            connection = idle.get()
            try:
                for table in model.inputs:
                    window = self.window(draft, model, table, day, clock)
                    self.bind(draft, table, window, connection)
                parameters = {name: values[name] for name in model.parameters}
                has_credits = "credits" in model.columns
                return write_parquet(
                    connection, self._ordered(model), target, parameters, has_credits
                )
            finally:
                idle.put(connection)

        idle: queue.SimpleQueue[duckdb.DuckDBPyConnection] = queue.SimpleQueue()
        with draft.workers() as connections, ThreadPoolExecutor(len(connections)) as pool:
            for connection in connections:
                idle.put(connection)
            targets = [draft.new_file("parquet") for _ in stale]
            for (day, mark, _), target, measured in zip(
                stale, targets, pool.map(write, stale, targets), strict=True
            ):
                assert day is not None
                item = draft.put(model.name, target, day, measured, fingerprint=mark)
                yield day, item.rows, item.credits

    def _check_parameters(self, statement: Statement, values: Mapping[str, object]) -> None:
        for name in statement.parameters - values.keys():
            raise ModelError(
                f"{statement.name}: there is no parameter ${name}; known are "
                f"{', '.join('$' + known for known in sorted(values))}."
            )

    def query(
        self,
        draft: Draft,
        statement: Statement,
        clock: Clock,
        settings: Mapping[str, object],
        day: date | None,
    ) -> list[dict[str, object]]:
        """The rows a statement gives now, of one day or of the whole (claims)."""
        values = dict(settings) | clock.parameters(day)
        self._check_parameters(statement, values)
        for table in statement.inputs:
            self.bind(draft, table, self.window(draft, statement, table, day, clock))
        relation = draft.connection.execute(
            statement.sql, {name: values[name] for name in statement.parameters}
        )
        names = [column[0] for column in relation.description or []]
        return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]


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
    }.get(name, "double" if name.startswith("alerts_") else "integer")
    return f"(null::{kind})"

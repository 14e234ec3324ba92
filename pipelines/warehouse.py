"""`warehouse.duckdb`: what is published, as one file that any DuckDB from 1.4 on opens; derived
from a snapshot, swapped in by rename.

Nobody who queries it blocks the night or is blocked by it: a reader keeps the file it opened
(contract, "Tables").
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from pipelines.models import Models
from pipelines.store import OBJECT_PATH, Snapshot, Store, digest, quote, sync

# the oldest engine that must open it; files of 2.0's own storage can't be read by 1.x
STORAGE = "v1.4.0"
NAME = "warehouse.duckdb"
# Tables with days that are read out of their objects: the file is copied each night, and these,
# long and seldom asked for, would be most of it.
IN_OBJECTS = {
    "marts.spend_habits",
    "marts.spend_mixes",
    "marts.spend_paces",
    "marts.spend_peaks",
    "marts.usage_quarter_hourly",
    "staging.request_losers",
    "staging.request_winners",
    "staging.workspace_quarters",
}

MACROS = {
    "usage": (
        """(start_date, end_date, group_by := 'model', time_zone :=
        'UTC') as table
        select
            case group_by
                when 'model' then model
                when 'key' then api_key_id
                when 'member' then member_id
                when 'workspace' then workspace_id
                when 'day' then strftime((quarter_at at time zone 'UTC' at time zone
                time_zone)::date, '%Y-%m-%d')
                else error('group_by is model, key, member, workspace or day')
            end as subject,
            sum(request_count)::bigint as request_count,
            sum(error_count)::bigint as error_count,
            sum(fallback_count)::bigint as fallback_count,
            least(sum(prompt_tokens), 9223372036854775807)::bigint as prompt_tokens,
            least(sum(completion_tokens), 9223372036854775807)::bigint as completion_tokens,
            least(sum(total_tokens), 9223372036854775807)::bigint as total_tokens,
            sum(credits)::decimal(38, 9) as credits
        from marts.usage_quarter_hourly
        where
            usage_date between start_date::date - 1 and end_date::date + 1
            and (quarter_at at time zone 'UTC' at time zone time_zone)::date between
            start_date::date and end_date::date
        group by 1
        order by credits desc, subject""",
        "Usage of local days, first and last included: usage(start_date, end_date, group_by := "
        "'model'|'key'|'member'|'workspace'|'day', time_zone := 'Europe/London'); credits are "
        "exact. Say 'use' for this file first where it is attached under another name.",
    ),
    "keys_at": (
        """(instant) as table
        select api_key_id, workspace_id, name as key_name, created_at, revoked_at,
            replaces_api_key_id, stated_at, superseded_at
        from staging.key_history
        where (version_number = 1 or stated_at <= instant::timestamp)
            and (superseded_at is null or superseded_at > instant::timestamp)
        order by api_key_id""",
        "Every API key as the directory stated it at an instant (UTC): keys_at('2026-11-01'); what "
        "it stated first speaks for all that was before.",
    ),
}


@contextmanager
def _session(engine: duckdb.DuckDBPyConnection | None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A session of an engine that runs (to begin one takes 30 ms), or of one of its own; what it
    has attached is let go of.
    """
    if engine is None:
        with closing(duckdb.connect()) as connection:
            yield connection
        return
    connection = engine.cursor()
    try:
        yield connection
    finally:
        connection.close()
        for name in ("before", "warehouse"):
            engine.execute(f"detach database if exists {name}")


def published_id(store: Store, engine: duckdb.DuckDBPyConnection | None = None) -> str | None:
    """The id of the snapshot that `warehouse.duckdb` was made from; None where there is no such
    file.
    """
    path = bring(store)
    if not path.exists():
        return None
    with _session(engine) as connection:
        try:
            connection.execute(f"attach {quote(str(path))} as warehouse (read_only)")
            found = connection.execute("select snapshot_id from warehouse.ops.snapshot").fetchall()
        except duckdb.Error:
            return None  # unreadable: it is derived, so it is made again
    [(known,)] = found
    return str(known)


@dataclass(frozen=True)
class Entry:
    """A table, view or macro of the file.

    `whole`: the select that its rows come from, naming exact objects. `parts`: the same for each
    day, of a table that has days. `comments`: what is commented → the text. `types`: of its
    columns. `count`: the rows of a table, where the snapshot states them.
    """

    kind: str
    name: str
    whole: str
    parts: Mapping[str, str]
    comments: Mapping[str, str]
    types: Mapping[str, str]
    count: int | None = None

    @property
    def shape(self) -> str:
        """A hash of all that a change of rows leaves as it is."""
        return digest([self.kind, *self.types.items(), *self.comments.items()])

    @property
    def contents(self) -> dict[str, str]:
        """Partition → a hash of what it is made from."""
        parts = self.parts or {"": self.whole}
        return {key: digest([select]) for key, select in parts.items()} | {SHAPE: self.shape}


SHAPE = "shape"
CONTENTS = "ops.warehouse_contents"
Known = dict[str, dict[str, str]]  # entry → partition → hash


def build(
    store: Store,
    snapshot: Snapshot,
    models: Models,
    engine: duckdb.DuckDBPyConnection | None = None,
    *,
    anew: bool = False,
) -> Path:
    """Makes the file beside the old one, and swaps it in; returns its path.

    What the snapshot left as it was is taken over from the old file, so that a night costs what
    changed and not what history there is; `anew`: nothing is.
    """
    target = store.root / NAME if anew else bring(store)
    draft = store.root / f".{NAME}.{os.getpid()}.tmp"
    entries = list(_entries(store, snapshot, models))
    is_made = True
    with _session(engine) as connection:
        connection.execute("set TimeZone = 'UTC'")
        known = {} if anew else _known(connection, target)
        draft.unlink(missing_ok=True)
        try:
            if known:
                shutil.copyfile(target, draft)
            _write(connection, draft, entries, known, snapshot, store)
        except duckdb.Error:
            if not known:
                raise
            is_made = False
    if not is_made:  # the old file is broken: it is derived, so it is made again
        return build(store, snapshot, models, engine, anew=True)
    sync(draft)
    os.replace(draft, target)
    sync(store.root)
    store.hand_on(NAME, snapshot)
    return target


def bring(store: Store) -> Path:
    """The file as it is published, on this machine. Where it was made on another, its views are
    turned to the objects' places on this one.
    """
    return store.bring(NAME, lambda file: _turn_views(file, store))


STORED = re.compile(rf"'[^']*?/({OBJECT_PATH.pattern})'")


def _turn_views(file: Path, store: Store) -> None:
    root = store.root.resolve()
    with closing(duckdb.connect()) as connection:
        connection.execute(f"attach {quote(str(file))} as warehouse")
        connection.execute("use warehouse")
        views = connection.execute(
            "select schema_name || '.' || view_name, sql, comment from duckdb_views() "
            "where database_name = 'warehouse' and not internal"
        ).fetchall()
        for name, sql, comment in views:
            text = STORED.sub(lambda found: quote(f"{root}/{found[1]}"), sql)
            if text == sql:
                continue
            comments = connection.execute(
                "select column_name, comment from duckdb_columns() where database_name = "
                "'warehouse' and schema_name || '.' || table_name = ? and comment is not null",
                [name],
            ).fetchall()
            _reach(connection, store, text, whole=False)
            connection.execute(re.sub("(?i)^create view", "create or replace view", text))
            _comment(connection, f"view {name}", comment or "")
            for column, said in comments:
                _comment(connection, f"column {name}.{column}", said)


def objects_read(
    connection: duckdb.DuckDBPyConnection, sql: str, *, whole: bool = True
) -> set[str]:
    """The stored objects, by path, that a select reads on an attached `warehouse.duckdb`: those it
    names, and those of the views under it. Not `whole`: the first of each, which tells the columns.
    """
    views = dict(
        connection.execute(
            "select schema_name || '.' || view_name, sql from duckdb_views() where not internal"
        ).fetchall()
    )
    found: set[str] = set()
    waiting, seen = [sql], set()
    while waiting:
        text = waiting.pop()
        stored = [path[1] for path in STORED.finditer(text)]
        found.update(stored if whole else stored[:1])
        for name in re.findall(r"\b(?:raw|staging|marts|ops)\.[a-z_]+", text):
            if name in views and name not in seen:
                seen.add(name)
                waiting.append(views[name])
    return found


def _known(connection: duckdb.DuckDBPyConnection, target: Path) -> Known:
    """What the file of the night before was made from; nothing where it can't be said."""
    known: Known = {}
    try:
        connection.execute(f"attach {quote(str(target))} as before (read_only)")
        for name, partition, content in connection.execute(
            f"select entry, partition, content from before.{CONTENTS}"
        ).fetchall():
            known.setdefault(name, {})[partition] = content
        connection.execute("detach before")
    except duckdb.Error:
        return {}
    return known


def _write(
    connection: duckdb.DuckDBPyConnection,
    draft: Path,
    entries: list[Entry],
    known: Known,
    snapshot: Snapshot,
    store: Store,
) -> None:
    """Brings the file at `draft`, which holds what is `known`, to what `entries` say."""
    option = "" if known else f" (storage_version '{STORAGE}')"
    connection.execute(f"attach {quote(str(draft))} as warehouse{option}")
    connection.execute("use warehouse")
    # one commit: a thousand comments are not a thousand transactions
    connection.execute("begin")
    if not known:
        for layer in ("raw", "staging", "marts", "ops"):
            connection.execute(f"create schema {layer}")
        connection.execute(
            f"create table {CONTENTS} (entry varchar, partition varchar, content varchar)"
        )
        _comment(connection, f"table {CONTENTS}", "What each table of this file is made from.")
    gone = sorted(known.keys() - {entry.name for entry in entries})
    for name in gone:
        kinds = connection.execute(
            "select table_type from information_schema.tables "
            "where table_schema || '.' || table_name = ?",
            [name],
        ).fetchall()
        kind = {"VIEW": "view", "BASE TABLE": "table"}[kinds[0][0]] if kinds else "macro table"
        connection.execute(f"drop {kind} {name}")
    changed = [entry for entry in entries if known.get(entry.name) != entry.contents]
    for entry in changed:
        _put(connection, entry, known.get(entry.name, {}), store)
    names = [*gone, *(entry.name for entry in changed)]
    connection.execute(f"delete from {CONTENTS} where entry in (select unnest(?))", [names])
    rows = [(entry.name, *content) for entry in changed for content in entry.contents.items()]
    connection.execute(
        f"insert into {CONTENTS} select unnest(?), unnest(?), unnest(?)",
        [list(column) for column in zip(*rows, strict=True)] or [[], [], []],
    )
    connection.execute(
        "create or replace table ops.snapshot as select ?::varchar as snapshot_id, "
        "?::timestamp as as_of, ?::timestamp as published_at",
        [snapshot.snapshot_id, snapshot.as_of, snapshot.published_at],
    )
    _comment(connection, "table ops.snapshot", "The snapshot this file was made from.")
    connection.execute("commit")
    connection.execute("use memory")
    connection.execute("detach warehouse")


def _put(
    connection: duckdb.DuckDBPyConnection, entry: Entry, known: Mapping[str, str], store: Store
) -> None:
    """Makes an entry anew, or brings a table's changed partitions up to date."""
    contents = entry.contents
    is_mended = False
    if entry.kind == "table" and known.get(SHAPE) == entry.shape:
        changed = [""]
        where = ""
        if entry.parts and "" not in known:
            changed = [key for key in entry.parts if known.get(key) != contents[key]]
            days = ", ".join(map(quote, {*changed, *(known.keys() - contents.keys())}))
            where = f" where usage_date in ({days})"
        connection.execute(f"delete from {entry.name}{where}")
        count = 0
        for key in changed:
            select = entry.parts.get(key, entry.whole)
            _reach(connection, store, select)
            [(rows,)] = connection.execute(f"insert into {entry.name} by name {select}").fetchall()
            count += rows
        if where:
            [(count,)] = connection.execute(f"select count(*) from {entry.name}").fetchall()
        is_mended = entry.count in (None, count)
    if not is_mended:
        _reach(connection, store, entry.whole, whole=entry.kind == "table")
        text = entry.whole if entry.kind == "macro" else f" as {entry.whole}"
        connection.execute(f"create or replace {entry.kind} {entry.name}{text}")
        for what, text in entry.comments.items():
            _comment(connection, what, text)


def _reach(
    connection: duckdb.DuckDBPyConnection, store: Store, select: str, *, whole: bool = True
) -> None:
    """Sees to it that what a select reads is on this machine; not `whole`: that a view can be made
    of it.
    """
    if not store.reads_in_place:
        store.stand_in(objects_read(connection, select))
        store.reach(objects_read(connection, select, whole=whole))


def _entries(store: Store, snapshot: Snapshot, models: Models) -> Iterator[Entry]:
    """All that the file should hold, in the order in which it can be made."""
    for table, shape in models.raw.items():
        kind = "table" if table.startswith(("ops.", "marts.")) else "view"
        columns = {name: text for name, (_, text) in shape.columns.items()}
        by_path = table in ("raw.requests", "staging.request_ids")
        whole, parts = _rows(store, snapshot, models, table, by_path=by_path)
        if kind == "view" or not shape.by_day:
            parts = {}
        comments = _comments(kind, table, shape.description, columns)
        yield Entry(kind, table, whole, parts, comments, models.types(table))
    for model in models.order:
        # A contest's file lies under the day of the contest, its records under their own.
        by_path = model.name in IN_OBJECTS
        kind = "view" if model.is_view or by_path else "table"
        columns = {
            name: model.documentation[name] for name in model.columns if name in model.documentation
        }
        comments = _comments(kind, model.name, model.description, columns)
        types = models.types(model.name)
        if model.is_view:
            yield Entry(kind, model.name, model.logic, {}, comments, types)
            continue
        whole, parts = _rows(store, snapshot, models, model.name, by_path=by_path)
        stored = snapshot.tables.get(model.name, {})
        if kind == "view" or "" in stored or "usage_date" not in model.columns:
            parts = {}
        count = sum(partition.rows for partition in stored.values())
        yield Entry(kind, model.name, whole, parts, comments, types, count)
    for name, (sql, documentation) in MACROS.items():
        if not set(re.findall(r"\b(?:staging|marts)\.[a-z_]+", sql)) <= models.models.keys():
            continue  # in a house of fewer models
        place = f"marts.{name}"
        yield Entry("macro", place, sql, {}, {f"macro table {place}": documentation}, {})


def _rows(
    store: Store, snapshot: Snapshot, models: Models, table: str, *, by_path: bool
) -> tuple[str, Mapping[str, str]]:
    """The select of a stored table, and one for each of its partitions."""
    root = store.root.resolve()
    files = {
        key: [f"{root}/{item.path}" for item in partition.objects if item.rows]
        for key, partition in sorted(snapshot.tables.get(table, {}).items())
        if partition.rows
    }
    if not files:
        return models.empty(table), {}
    together = [file for some in files.values() for file in some]
    return models.rows_of(table, together, by_path=by_path), {
        key: models.rows_of(table, some) for key, some in files.items()
    }


def _comments(
    kind: str, name: str, description: str, columns: Mapping[str, str]
) -> Mapping[str, str]:
    return {f"{kind} {name}": description} | {
        f"column {name}.{column}": text for column, text in columns.items()
    }


def _comment(connection: duckdb.DuckDBPyConnection, what: str, text: str) -> None:
    connection.execute(f"comment on {what} is {quote(text)}")

"""`warehouse.duckdb`: what is published, as one file that any DuckDB from 1.4 on opens; derived
from a snapshot, swapped in by rename.

Nobody who queries it blocks the night or is blocked by it: a reader keeps the file it opened
(contract, "Tables").
"""

import os
from pathlib import Path

import duckdb

from pipelines.models import Models, Statement
from pipelines.store import Snapshot, Store, quote, sync

# the oldest engine that must open it; files of 2.0's own storage can't be read by 1.x
STORAGE = "v1.4.0"
NAME = "warehouse.duckdb"
HIDDEN = ("raw.", "exports.")

MACROS = {
    "usage": (
        """macro warehouse.marts.usage(start_date, end_date, group_by := 'model', time_zone :=
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
}


def published_id(root: Path) -> str | None:
    """The id of the snapshot that `warehouse.duckdb` was made from; None where there is no such
    file.
    """
    path = root / NAME
    if not path.exists():
        return None
    connection = duckdb.connect()
    try:
        connection.execute(f"attach {quote(str(path))} as warehouse (read_only)")
        [(known,)] = connection.execute("select snapshot_id from warehouse.ops.snapshot").fetchall()
        return str(known)
    except duckdb.Error:
        return None  # unreadable: it is derived, so it is made again
    finally:
        connection.close()


def build(store: Store, snapshot: Snapshot, models: Models) -> Path:
    """Makes the file anew beside the old one, and swaps it in. Returns its path."""
    target = store.root / NAME
    draft = store.root / f".{NAME}.{os.getpid()}.tmp"
    draft.unlink(missing_ok=True)
    connection = duckdb.connect()
    try:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"attach {quote(str(draft))} as warehouse (storage_version '{STORAGE}')")
        connection.execute("use warehouse")
        # one commit: a thousand comments are not a thousand transactions
        connection.execute("begin")
        for layer in ("raw", "staging", "marts", "ops"):
            connection.execute(f"create schema {layer}")
        _raw(connection, store, snapshot, models)
        for model in models.order:
            _model(connection, store, snapshot, models, model)
        connection.execute(
            "create table ops.snapshot as select ?::varchar as snapshot_id, ?::timestamp as "
            "as_of, ?::timestamp as published_at",
            [snapshot.snapshot_id, snapshot.as_of, snapshot.published_at],
        )
        _comment(connection, "table ops.snapshot", "The snapshot this file was made from.")
        for name, (sql, documentation) in MACROS.items():
            connection.execute(f"create {sql}")
            _comment(connection, f"macro table marts.{name}", documentation)
        connection.execute("commit")
        connection.execute("use memory")
        connection.execute("detach warehouse")
    finally:
        connection.close()
    sync(draft)
    os.replace(draft, target)
    sync(store.root)
    return target


def _files(store: Store, snapshot: Snapshot, table: str) -> list[Path]:
    return [
        (store.root / item.path).resolve()
        for _, partition in sorted(snapshot.tables.get(table, {}).items())
        for item in partition.objects
    ]


def _raw(
    connection: duckdb.DuckDBPyConnection, store: Store, snapshot: Snapshot, models: Models
) -> None:
    """The raw tables and indexes, as views over their exact objects."""
    for table, shape in models.raw.items():
        files = _files(store, snapshot, table)
        # A contest's file lies under the day of the contest, its records under their own.
        by_path = table == "raw.requests"
        source = models.rows_of(table, files, by_path=by_path) if files else models.empty(table)
        kind = "table" if table.startswith("ops.") else "view"
        connection.execute(f"create {kind} {table} as {source}")
        _comment(connection, f"{kind} {table}", shape.description)
        for column, (_, documentation) in shape.columns.items():
            _comment(connection, f"column {table}.{column}", documentation)


def _model(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    snapshot: Snapshot,
    models: Models,
    model: Statement,
) -> None:
    files = _files(store, snapshot, model.name)
    kind = "table"
    if model.is_view:
        kind, source = "view", model.logic
    elif not files:
        source = models.empty(model.name)
    else:
        by_path = model.name == "marts.usage_quarter_hourly"
        kind = "view" if by_path else "table"
        source = models.rows_of(model.name, files, by_path=by_path)
    connection.execute(f"create {kind} {model.name} as {source}")
    _comment(connection, f"{kind} {model.name}", model.description)
    for column in model.columns:
        if column in model.documentation:
            _comment(connection, f"column {model.name}.{column}", model.documentation[column])


def _comment(connection: duckdb.DuckDBPyConnection, what: str, text: str) -> None:
    connection.execute(f"comment on {what} is {quote(text)}")

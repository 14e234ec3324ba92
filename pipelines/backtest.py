"""The detector walked forward over past days, so that people set their X by looking.

Each day is judged by the models of the warehouse themselves, one day after the other, on what was
known before it: there is no second detector that could say something else. Two pasts can be walked:
a table of daily credits from anywhere (`walk`), and what a warehouse has published (`look_back`).
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from pipelines.calendar import DAY, Clock
from pipelines.models import LAYERS, Models
from pipelines.reader import Reader
from pipelines.settings import Settings
from pipelines.store import connect, quote

NEEDED = ("api_key_id", "usage_date", "credits")
MEMORY = 365 * DAY  # how far back the habits of a day reach
NOT_OF_A_TABLE = ("staging.alert_settings", "marts.expected_days")  # what people say of subjects
ALERTING = "verdict in ('high', 'drift', 'woke')"
X_VALUES = (25, 50, 100, 200)  # percent, each tried on one's own warehouse

OnDay = Callable[[int, int], None]


class BacktestError(ValueError):
    """What was asked for can't be walked; the text says why, in a sentence."""


@dataclass(frozen=True)
class Strictness:
    """How far beyond its habits a key may go: what `[alerts]` says, or somebody tries."""

    sensitivity: str
    exceed_percent: float
    floor_credits: float

    @classmethod
    def of(cls, settings: Settings) -> "Strictness":
        alerts = settings.alerts
        return cls(alerts.sensitivity, alerts.exceed_percent, alerts.floor_credits)

    def parameters(self) -> dict[str, object]:
        return {
            "alerts_sensitivity": self.sensitivity,
            "alerts_exceed_percent": self.exceed_percent,
            "alerts_floor_credits": self.floor_credits,
        }


@dataclass(frozen=True)
class Walked:
    """What a walk over a table came to."""

    first: date
    last: date
    key_count: int
    key_day_count: int
    alert_count: int
    episode_count: int


# ---- a table from anywhere ----------------------------------------------------------------------


def walk(
    table: Path,
    models: Models,
    strictness: Strictness,
    alerts: Path,
    ranges: Path | None = None,
    first: date | None = None,
    last: date | None = None,
    last_days: int | None = None,
    on_day: OnDay = lambda _done, _all: None,
) -> Walked:
    """Judges every key on every day from `first` to `last` (default: all there is), and writes to
    `alerts` each `api_key_id, usage_date` over its limit; to `ranges` every key-day with its range.

    Days before `first` are learned from, a year of them. Memory is bounded: what does not fit is
    spilled beside the system's temporary files. Raises BacktestError.
    """
    with (
        tempfile.TemporaryDirectory(prefix="meterhouse-") as spool,
        closing(connect(Path(spool))) as connection,
    ):
        known_first, known_last = _load(connection, table)
        last = min(last or known_last, known_last)
        if last_days is not None:
            first = last - (last_days - 1) * DAY
        first = max(first or known_first, known_first)
        if first > last:
            raise BacktestError(f"{table} has no spend in the days asked for.")
        # The first day on which a key ever spent, as marts.first_spends keeps it, all at once.
        connection.execute(
            "create table marts.first_spends as "
            "select min(usage_date) as usage_date, workspace_id, scope, subject_id "
            "from marts.daily_spend group by 2, 3, 4"
        )
        for name in (*NOT_OF_A_TABLE, "marts.spend_habits", "marts.spend_ranges"):
            connection.execute(f"create table {name} as {models.empty(name)}")
        learned = max(first - MEMORY, known_first)
        days = [learned + number * DAY for number in range((last - learned).days + 1)]
        for number, day in enumerate(days):
            _append(connection, models, "marts.spend_habits", day, {})
            if day >= first:
                _append(connection, models, "marts.spend_ranges", day, strictness.parameters())
            on_day(number + 1, len(days))
        _write(
            connection,
            "select distinct subject_id as api_key_id, usage_date from marts.spend_ranges "
            f"where {ALERTING} order by 1, 2",
            alerts,
        )
        if ranges is not None:
            _write(
                connection,
                "select subject_id as api_key_id, usage_date, workspace_id, "
                "* exclude (scope, subject_id, usage_date, workspace_id) "
                "from marts.spend_ranges order by 1, 2, 3",
                ranges,
            )
        return Walked(first, last, *_fetch_one(connection, COUNTS))


COUNTS = f"""
    with alerts as (
        select *, lag(usage_date) over (partition by workspace_id, subject_id order by usage_date)
            as previous_date
        from marts.spend_ranges
        where {ALERTING}
    )

    select
        (select count(distinct subject_id) from marts.spend_ranges),
        (select count(*) from marts.spend_ranges),
        count(*),
        count(*) filter (previous_date is null or usage_date - previous_date > 3),
    from alerts
"""


def _load(connection: duckdb.DuckDBPyConnection, table: Path) -> tuple[date, date]:
    """Makes marts.daily_spend of the table, a row for each key and day that spent; the first and
    the last day.
    """
    if not table.is_file():
        raise BacktestError(f"There is no file {table}.")
    source = f"read_parquet({quote(str(table))})"
    try:
        columns = {row[0] for row in connection.execute(f"describe from {source}").fetchall()}
    except duckdb.Error:
        raise BacktestError(f"{table} is no Parquet file that can be read.") from None
    for name in NEEDED:
        if name not in columns:
            raise BacktestError(
                f"{table} has no column {name}; needed are {', '.join(NEEDED)}, "
                "and workspace_id, model and request_count are used where they are there."
            )
    workspace = "cast(workspace_id as varchar)" if "workspace_id" in columns else "null::varchar"
    requests = "cast(sum(request_count) as bigint)" if "request_count" in columns else "null"
    try:
        odd = _fetch_one(
            connection,
            "select count(*) filter (usage_date is null or credits is null), "
            "count(*) filter (credits < 0 or not isfinite(cast(credits as double))) "
            f"from {source}",
        )
        if odd[0]:
            raise BacktestError(f"{table}: {odd[0]} rows have no usage_date or no credits.")
        if odd[1]:
            raise BacktestError(f"{table}: {odd[1]} rows have credits that no day can have spent.")
        connection.execute(
            f"""
            create table marts.daily_spend as
            select
                cast(usage_date as date) as usage_date,
                {workspace} as workspace_id,
                'key' as scope,
                cast(api_key_id as varchar) as subject_id,
                cast({requests} as bigint) as request_count,
                cast(sum(cast(credits as decimal(38, 9))) as decimal(38, 9)) as credits,
            from {source}
            where api_key_id is not null
            group by 1, 2, 3, 4
            having sum(cast(credits as decimal(38, 9))) > 0
            order by 1
            """
        )
    except duckdb.Error as error:
        raise BacktestError(f"{table}: {str(error).splitlines()[0]}") from None
    first, last = _fetch_one(
        connection, "select min(usage_date), max(usage_date) from marts.daily_spend"
    )
    if first is None:
        raise BacktestError(f"{table} has no row with a key and credits above zero.")
    return first, last


def _append(
    connection: duckdb.DuckDBPyConnection,
    models: Models,
    name: str,
    day: date,
    values: Mapping[str, object],
) -> None:
    """A day of a model, added to its table."""
    model = models.models[name]
    known = dict(values) | Clock.at(day=day).parameters(day)
    connection.execute(
        f"insert into {name} by name select * from ({model.sql}\n)",
        {parameter: known[parameter] for parameter in model.parameters},
    )


def _write(connection: duckdb.DuckDBPyConnection, select: str, file: Path) -> None:
    """A select as a Parquet file that is there whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    try:
        connection.execute(f"copy ({select}) to {quote(str(part))} (format parquet)")
        part.replace(file)
    except (duckdb.IOException, OSError):
        raise BacktestError(f"{file} can't be written: is its folder there?") from None
    finally:
        part.unlink(missing_ok=True)


def _fetch_one(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    [row] = connection.execute(sql).fetchall()
    return tuple(row)


# ---- one's own warehouse ------------------------------------------------------------------------

# Who is judged, who explains whom, and which days are one incident, as a night decides it.
OF_A_DAY = ("marts.spend_ranges", "marts.spend_anomalies")
OF_ALL_DAYS = ("marts.alert_days", "marts.alert_episodes")
DECIDED_BY = OF_A_DAY + OF_ALL_DAYS


@dataclass(frozen=True)
class Sent:
    """What one strictness would have sent: a row for each episode, the newest first."""

    strictness: Strictness
    episodes: list[dict[str, Any]]


def tried(asked: Strictness) -> list[Strictness]:
    """What is asked for first, then each other sensitivity, then other values of X."""
    others = [
        *(replace(asked, sensitivity=name) for name in ("low", "normal", "high")),
        *(replace(asked, exceed_percent=float(x)) for x in X_VALUES),
    ]
    return list(dict.fromkeys([asked, *others]))


def look_back(
    reader: Reader,
    models: Models,
    settings: Settings,
    day_count: int,
    strictnesses: Sequence[Strictness],
    on_day: OnDay = lambda _done, _all: None,
) -> list[Sent]:
    """What each strictness would have sent in the last complete days that are published.

    What was learned of each day is published already, so only the judging is done again. What the
    directory says of single keys and workspaces still goes before the strictness that is tried.
    """
    snapshot = reader.store.snapshot()
    assert snapshot is not None  # something is published: the reader stands on it
    last = snapshot.as_of.date() - DAY
    days = [last - number * DAY for number in reversed(range(day_count))]
    connection = reader.connection
    _stand_on(reader, models, days)
    found = []
    for tried_number, strictness in enumerate(strictnesses):
        values = settings.parameters() | strictness.parameters()
        for table in DECIDED_BY:
            connection.execute(f"create or replace table {table} as {models.empty(table)}")
        for number, day in enumerate(days):
            for table in OF_A_DAY:
                _append(connection, models, table, day, values)
            connection.execute("truncate marts.spend_ranges")  # each day is judged by itself
            on_day(tried_number * len(days) + number + 1, len(strictnesses) * len(days))
        for table in OF_ALL_DAYS:
            _append(connection, models, table, last, values)
        relation = connection.execute(EPISODES)
        names = [column[0] for column in relation.description or []]
        rows = [dict(zip(names, row, strict=True)) for row in relation.fetchall()]
        found.append(Sent(strictness, rows))
    return found


def _stand_on(reader: Reader, models: Models, days: Sequence[date]) -> None:
    """Makes what is published readable by the models' names, beside tables of one's own."""
    connection = reader.connection
    there = {
        f"{schema}.{name}"
        for schema, name in connection.execute(
            "select table_schema, table_name from information_schema.tables "
            "where table_catalog = 'warehouse'"
        ).fetchall()
    }
    read = {table for name in DECIDED_BY for table in models.models[name].inputs}
    stood_on = sorted(read - set(DECIDED_BY))
    for table in stood_on:
        if table in there:
            if missing := sorted(models.types(table).keys() - _columns(connection, table)):
                raise BacktestError(
                    f"What is published is of an earlier release ({table} has no {missing[0]}): "
                    "run 'meterhouse nightly' first."
                )
            span = f" where usage_date between date '{days[0]}' and date '{days[-1]}'"
            reader.reach(f"select * from {table}{span if models.is_by_day(table) else ''}")
    connection.execute("use memory")
    for layer in LAYERS:
        connection.execute(f"create schema if not exists {layer}")
    for table in stood_on:
        rows = f"from warehouse.{table}" if table in there else models.empty(table)
        connection.execute(f"create view {table} as {rows}")


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> set[str]:
    return {row[0] for row in connection.execute(f"describe {table}").fetchall()}


EPISODES = """
    select
        first_date,
        last_date,
        episode.workspace_id,
        episode.scope,
        episode.subject_id,
        kind,
        credits,
        expected,
        upper_limit,
        ratio,
        anomaly_day_count,
    from marts.alert_episodes as episode
    join marts.spend_anomalies as anomaly
        on anomaly.usage_date = first_date
        and anomaly.workspace_id is not distinct from episode.workspace_id
        and anomaly.scope = episode.scope
        and anomaly.subject_id = episode.subject_id
    order by first_date desc, episode.workspace_id, episode.scope, episode.subject_id
"""

"""Worlds of many keys walked through day by day by the house's own models, and what came of it:
which incidents were found, how soon, and whether their cause was named.

The models run on tables in memory, one day after the other, as the nights would; nothing here knows
how they judge.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

import duckdb

from pipelines import contents
from pipelines.calendar import Clock
from pipelines.models import Models, empty_select
from pipelines.settings import Settings
from pipelines.simulator import worlds
from pipelines.store import parsed_once
from tests.houses import rolled_back

LAST_DAY = date(2026, 11, 20)
DAY = timedelta(days=1)

ROLLED_UP = (
    "marts.usage_by_key_and_model",
    "marts.usage_by_key",
    "marts.usage_by_model",
    "marts.usage_by_member",
    "marts.daily_spend",
    "marts.spend_peaks",
)
JUDGED = (
    "marts.spend_habits",
    "marts.spend_ranges",
    "marts.spend_mixes",
    "marts.spend_paces",
    "marts.spend_anomalies",
    "marts.spend_causes",
    "marts.spend_contributors",
)
SAID = (
    "staging.alert_settings",
    "marts.expected_days",
    "staging.keys",
    "staging.key_lineages",
    "staging.members",
)


@cache
def house() -> Models:
    return contents.models()


@dataclass(frozen=True)
class World:
    """A world after its walk: `marts.*` are tables of `connection`, `world_truth` says what was
    planted.
    """

    connection: duckdb.DuckDBPyConnection
    seed: int
    days: Sequence[date]

    def rows(self, sql: str) -> list[dict[str, Any]]:
        result = self.connection.execute(sql)
        names = [column[0] for column in result.description or []]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


@contextmanager
def walked(
    seed: int, *, evaluated_days: int = worlds.EVALUATED_DAYS, **options: Any
) -> Iterator[World]:
    """A world of that seed, its last days judged one after the other; options are those of
    `worlds.make`.
    """
    with rolled_back() as connection:
        worlds.make(connection, seed, LAST_DAY, evaluated_days=evaluated_days, **options)
        types = house().types("marts.usage_quarter_hourly")
        for table in (*SAID, *ROLLED_UP, "marts.first_spends", *JUDGED):
            connection.execute(f"create table {table} as {empty_select(house().types(table))}")
        given = [
            "quarter_at",
            "usage_date",
            "workspace_id",
            "api_key_id",
            "member_id",
            "requested_model",
            "model",
            "request_count",
            "credits",
        ]
        columns = ", ".join(
            f"{name if name in given else 0}::{kind} as {name}" for name, kind in types.items()
        )
        connection.execute(
            f"create table marts.usage_quarter_hourly as select {columns} from world_hours "
            "order by usage_date"
        )
        roll_up(connection)
        judged = [LAST_DAY - DAY * ago for ago in reversed(range(evaluated_days))]
        for day in judged:
            run(connection, JUDGED, day)
        yield World(connection, seed, judged)
        for name in ("world_keys", "world_models", "world_hours", "world_truth"):
            connection.execute(f"drop table if exists {name}")


def roll_up(connection: duckdb.DuckDBPyConnection) -> None:
    """All of history at once: a roll-up of a day is one of any, and a hundred days by themselves
    take a minute.
    """
    for table in ROLLED_UP:
        sql = house().models[table].sql.replace("usage_date = $day", "usage_date <= $day")
        connection.execute(f"insert into {table} {sql}", {"day": LAST_DAY})
    connection.execute(
        "insert into marts.first_spends by name select min(usage_date) as usage_date, "
        "workspace_id, scope, subject_id from marts.daily_spend group by all"
    )


def run(connection: duckdb.DuckDBPyConnection, tables: Sequence[str], day: date) -> None:
    """Adds a whole day to tables, each made of those before it."""
    end = datetime.combine(day + DAY, datetime.min.time())
    values = Settings().parameters() | Clock(as_of=end, arrived_at=end).parameters(day)
    for table in tables:
        model = house().models[table]
        connection.execute(
            parsed_once(connection, f"insert into {table} {model.sql}"),
            {name: values[name] for name in model.parameters},
        )


# ---- what came of it ------------------------------------------------------------------------

# Each planted incident with the first day that told of its key, and the hour in which the running
# total of a day passed the limit that the night before had stored, or an hour that of an hour, or
# six hours theirs.
FOUND = """
    create or replace temp table world_found as
    with hours as (
        select
            api_key_id,
            usage_date,
            quarter_at,
            sum(credits) as credits,
            sum(sum(credits)) over (
                partition by api_key_id, usage_date
                order by quarter_at
                range between interval 5 hours preceding and current row
            ) as credits_of_six,
        from marts.usage_quarter_hourly
        where usage_date >= $first
        group by 1, 2, 3
    ),

    running as (
        select
            api_key_id,
            usage_date,
            quarter_at,
            sum(credits) over of_day as credits_so_far,
            max(credits) over of_day as biggest_hour_so_far,
            max(credits_of_six) over of_day as biggest_six_so_far,
        from hours
        window of_day as (partition by api_key_id, usage_date order by quarter_at)
    ),

    crossings as (
        select
            api_key_id,
            running.usage_date,
            min(quarter_at) + interval 1 hour as crossed_at,
        from running
        join marts.spend_ranges as ranges
            on ranges.usage_date = running.usage_date
            and ranges.scope = 'key'
            and ranges.subject_id = api_key_id
        join marts.spend_paces as pace
            on pace.usage_date = running.usage_date
            and pace.scope = 'key'
            and pace.subject_id = api_key_id
        where credits_so_far > upper_limit
            or (
                (
                    biggest_hour_so_far > hour_limit and 3 * biggest_hour_so_far > expected
                    or biggest_six_so_far > six_hours_limit and biggest_six_so_far > expected
                )
                and credits_so_far > expected * (1 + exceed_percent / 100)
                and credits_so_far > expected + floor_credits
                and expected > 0
            )
        group by 1, 2
    ),

    told as (
        select
            truth.api_key_id,
            min(anomaly.usage_date) as found_date,
            arg_min(reason, anomaly.usage_date) as reason,
            arg_min(told.cause, anomaly.usage_date) as told_cause,
            arg_min(since_at, anomaly.usage_date) as since_at,
        from world_truth as truth
        join marts.spend_anomalies as anomaly
            on scope = 'key'
            and subject_id = truth.api_key_id
            and usage_date between onset_date and hit_until
        join marts.spend_causes as told
            on told.usage_date = anomaly.usage_date
            and told.scope = 'key'
            and told.subject_id = truth.api_key_id
        group by 1
    ),

    crossed as (
        select api_key_id, min(crossed_at) as crossed_at
        from world_truth
        join crossings using (api_key_id)
        where crossed_at > onset_at
            and usage_date between onset_date and hit_until
        group by 1
    )

    select
        *,
        least(crossed_at, cast(found_date + 1 as timestamp)) as alerted_at,
        ceil(epoch(alerted_at - onset_at) / 3600)::integer as hours_to_alert,
        ceil(epoch(cast(found_date + 1 as timestamp) - onset_at) / 3600)::integer
            as hours_to_night,
    from world_truth
    left join told using (api_key_id)
    left join crossed using (api_key_id)
    where cause is not null
"""

# Days on which a key was told of though nothing was planted then; days 3 apart are one episode.
FALSE = """
    with told as (
        select
            subject_id,
            usage_date,
            reason,
            lag(usage_date) over (partition by subject_id order by usage_date) as before,
        from marts.spend_anomalies
        where scope = 'key'
    )

    select kind, reason not in ('range', 'drift') as is_second_channel
    from told
    join world_truth on api_key_id = subject_id
    where (before is null or usage_date - before > 3)
        and (
            cause is null
            or usage_date < onset_date
            or usage_date > greatest(hit_until, onset_date + 14)
        )
"""


@dataclass
class Tally:
    """What several worlds came to: a row an incident, and the false alarms."""

    seeds: list[int]
    incidents: list[dict[str, Any]]
    false: list[dict[str, Any]]
    key_days: int = 0
    hourly_only_count: int = 0  # days that passed a limit in an hour, and were not told of at night

    def add(self, world: World) -> None:
        world.connection.execute(FOUND, {"first": world.days[0]})
        self.seeds.append(world.seed)
        self.incidents += world.rows("select * from world_found")
        self.false += world.rows(FALSE)
        [counts] = world.rows(
            """select
                (select count(*) from world_truth) * $days as key_days,
                (
                    select count(*)
                    from (
                        select api_key_id, (crossed_at - interval 1 hour)::date as crossed_date
                        from world_found
                        where crossed_at is not null
                    )
                    anti join marts.spend_anomalies
                        on subject_id = api_key_id and usage_date = crossed_date
                ) as hourly_only""".replace("$days", str(len(world.days)))
        )
        self.key_days += counts["key_days"]
        self.hourly_only_count += counts["hourly_only"]

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [row for row in self.incidents if row["kind"] in kinds]


def is_found(row: dict[str, Any]) -> bool:
    return row["found_date"] is not None


def is_same_day(row: dict[str, Any]) -> bool:
    return bool(row["found_date"] == row["onset_date"])


def is_right(row: dict[str, Any]) -> bool:
    return bool(row["told_cause"] == row["cause"])


def share(rows: Sequence[dict[str, Any]], holds: Callable[[dict[str, Any]], bool]) -> float:
    return sum(map(holds, rows)) / max(1, len(rows))


def hours_within(rows: Sequence[dict[str, Any]], part: float, name: str) -> float:
    """The hours within which so large a part of all incidents was alerted, missed ones as never."""
    hours = sorted(row[name] if row[name] is not None else float("inf") for row in rows)
    return hours[max(0, math.ceil(part * len(hours)) - 1)] if hours else float("nan")


def walk(seeds: Iterable[int], **options: Any) -> Tally:
    """Walks through a world of each seed."""
    tally = Tally([], [], [])
    for seed in seeds:
        with walked(seed, **options) as world:
            tally.add(world)
    return tally

"""Days of every time zone: exact sums of quarters of an hour, whatever the clocks do.

Held against Python's own `zoneinfo`, by arithmetic on whole quarters, over all the transitions of
three years. Zones whose clocks go alike (a *law*) are measured through one of them; every zone is
held against its law, near each transition anybody has. The rows are asked for as users ask: by the
macro `usage(…)`, by what `meterhouse usage` reads with, and by the command itself.
"""

import json
import zoneinfo
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.reader import Reader, local_days
from pipelines.store import Store, quote
from pipelines.warehouse import MACROS
from tests.houses import House, request, request_models

FIRST, LAST = date(2025, 1, 1), date(2027, 12, 31)
QUARTER = timedelta(minutes=15)
DAY = 96  # quarters
START = datetime(2024, 12, 29)  # the quarter 0; days of every zone's 2025 begin after it
QUARTERS = (datetime(2028, 1, 3) - START) // QUARTER
# Where the engine's zones are a release older than the pinned tzdata: Cuba keeps its summer time in
# the winter of 2026. Its days are sums of whole quarters all the same.
BEHIND = {"America/Havana", "Cuba"}

Law = tuple[tuple[int, int], ...]  # (quarter, offset in quarters from it on)
DayOf = dict[date, tuple[int, Decimal]]  # local day → requests, credits


def credits_of(quarter: int) -> int:
    """Thousand-millionths that a quarter spent: of two quarters never the same."""
    return quarter * 1_000_003 + 7


SPENT = [0]
for _number in range(QUARTERS):
    SPENT.append(SPENT[-1] + credits_of(_number))  # before quarter n


# ---- the oracle: zoneinfo and whole numbers -------------------------------------------------


def offset_at(place: ZoneInfo, quarter: int) -> int:
    """How many quarters the clocks there are ahead of UTC."""
    offset = (START + quarter * QUARTER).replace(tzinfo=UTC).astimezone(place).utcoffset()
    assert offset is not None
    quarters, rest = divmod(offset, QUARTER)
    assert not rest, f"{place} is not a whole number of quarters from UTC"
    return quarters


def law_of(zone: str) -> Law:
    """Every change of the clocks there, to the quarter."""
    place = ZoneInfo(zone)
    changes = [(0, offset_at(place, 0))]
    for after in range(DAY, QUARTERS + 1, DAY):
        if offset_at(place, after) == changes[-1][1]:
            continue
        same, other = after - DAY, after
        while other - same > 1:
            middle = (same + other) // 2
            is_same = offset_at(place, middle) == changes[-1][1]
            same, other = (middle, other) if is_same else (same, middle)
        changes.append((other, offset_at(place, other)))
    return tuple(changes)


def days_of(law: Law) -> DayOf:
    """What each local day from FIRST to LAST must sum to."""
    found: dict[date, tuple[int, int]] = defaultdict(lambda: (0, 0))
    ends = [begins for begins, _ in law[1:]] + [QUARTERS]
    for (begins, offset), ends_at in zip(law, ends, strict=True):
        quarter = begins
        while quarter < ends_at:
            day, into = divmod(quarter + offset, DAY)
            until = min(ends_at, quarter + DAY - into)
            local = START.date() + timedelta(days=day)
            count, credits = found[local]
            found[local] = count + until - quarter, credits + SPENT[until] - SPENT[quarter]
            quarter = until
    return {
        day: (count, Decimal(credits).scaleb(-9))
        for day, (count, credits) in found.items()
        if FIRST <= day <= LAST
    }


ZONES = sorted(zoneinfo.available_timezones())


@pytest.fixture(scope="module")
def laws() -> Mapping[Law, list[str]]:
    """Every way in which clocks go, and the zones where they go so."""
    found: dict[Law, list[str]] = defaultdict(list)
    for zone in ZONES:
        found[law_of(zone)].append(zone)
    return found


# ---- the house ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quarters() -> Iterator[duckdb.DuckDBPyConnection]:
    """Three years of one request a quarter, under the macro that `warehouse.duckdb` holds."""
    with closing(duckdb.connect()) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("create schema marts")
        connection.execute(
            f"""create table marts.usage_quarter_hourly as
            select
                timestamp '{START}' + n * interval '15 minutes' as quarter_at,
                quarter_at::date as usage_date,
                'ws_1' as workspace_id, 'key_1' as api_key_id, null::varchar as member_id,
                'gpt-5' as requested_model, 'gpt-5' as model, 1::bigint as request_count,
                0::bigint as error_count, 0::bigint as fallback_count, 1::bigint as prompt_tokens,
                1::bigint as completion_tokens, 2::bigint as total_tokens,
                ((n * 1000003 + 7)::decimal(18, 0) * 0.000000001)::decimal(38, 9) as credits,
            from range({QUARTERS}) as numbers(n)"""
        )
        connection.execute(f"create macro marts.usage{MACROS['usage'][0]}")
        yield connection


def by_macro(connection: duckdb.DuckDBPyConnection, zone: str) -> DayOf:
    rows = connection.execute(
        "select subject, request_count, credits from marts.usage(?::date, ?::date, "
        "group_by := 'day', time_zone := ?)",
        [FIRST, LAST, zone],
    ).fetchall()
    return {date.fromisoformat(day): (count, credits) for day, count, credits in rows}


def by_reader(connection: duckdb.DuckDBPyConnection, zone: str) -> DayOf:
    start, end = local_days(FIRST, LAST, zone)
    rows = Reader(connection, Store(Path())).usage("day", start, end, zone)
    return {row["usage_date"]: (row["request_count"], row["credits"]) for row in rows}


def test_the_engine_knows_every_zone(quarters: duckdb.DuckDBPyConnection) -> None:
    known = {
        zone for (zone,) in quarters.execute("select name from pg_timezone_names()").fetchall()
    }

    assert len(ZONES) > 590
    assert set(ZONES) - known == set()


def test_every_day_of_three_years_is_the_sum_of_its_quarters(
    quarters: duckdb.DuckDBPyConnection, laws: Mapping[Law, list[str]]
) -> None:
    """No quarter lost, none counted twice, by either way of asking."""
    assert sum(len(law) > 1 for law in laws) > 20  # clocks that change at all
    for law, zones in laws.items():
        found = by_reader(quarters, zones[0])
        assert found == by_macro(quarters, zones[0]), zones
        assert len(found) == (LAST - FIRST).days + 1  # nobody jumps the date line these years
        if zones[0] not in BEHIND:
            assert found == days_of(law), zones


@pytest.mark.parametrize("zone", ["UTC", *sorted(BEHIND), "Australia/Lord_Howe", "Asia/Kathmandu"])
def test_days_asked_for_one_by_one_hold_every_quarter_once(
    quarters: duckdb.DuckDBPyConnection, zone: str
) -> None:
    count, credits, last = 0, Decimal(0), None
    for number in range(40):
        day = date(2026, 10, 1) + timedelta(days=number)
        start, end = local_days(day, day, zone)
        assert last in (None, start)
        last = end
        [row] = Reader(quarters, Store(Path())).usage("day", start, end, zone)
        assert row["usage_date"] == day
        count, credits = count + row["request_count"], credits + row["credits"]
    first, _ = local_days(date(2026, 10, 1), date(2026, 10, 1), zone)
    assert last is not None
    begins, ends = (first - START) // QUARTER, (last - START) // QUARTER
    assert (count, credits) == (ends - begins, Decimal(SPENT[ends] - SPENT[begins]).scaleb(-9))


def test_every_zone_keeps_the_law_of_its_clocks(
    quarters: duckdb.DuckDBPyConnection, laws: Mapping[Law, list[str]]
) -> None:
    """At each quarter within two hours of any transition anywhere, and at each noon; but for those
    of which the engine has not heard yet.
    """
    changes = {change for law in laws for change, _ in law[1:]}
    near = {change + step for change in changes for step in range(-8, 9)}
    moments = sorted(n for n in near | set(range(DAY // 2, QUARTERS, DAY)) if n < QUARTERS)
    quarters.execute("create or replace temp table moments as select unnest(?) as n", [moments])
    wrong = set()
    for law, zones in laws.items():
        offsets = ", ".join(f"({begins}, {offset})" for begins, offset in law)
        differs = " union all ".join(
            f"select {quote(zone)} as zone from expected where instant at time zone 'UTC' "
            f"at time zone {quote(zone)} <> local"
            for zone in zones
        )
        wrong |= set(
            quarters.execute(
                f"""with expected as materialized (
                    select
                        timestamp '{START}' + n * interval '15 minutes' as instant,
                        instant + quarters * interval '15 minutes' as local,
                    from moments
                    asof join (values {offsets}) as law(begins, quarters) on n >= begins
                )
                {differs}"""
            ).fetchall()
        )
    assert {zone for (zone,) in wrong} == BEHIND


LENGTHS = {
    ("Europe/London", "2026-03-29"): 23 * 4,
    ("Europe/London", "2026-10-25"): 25 * 4,
    ("America/New_York", "2026-11-01"): 25 * 4,
    ("Australia/Lord_Howe", "2026-04-05"): 24 * 4 + 2,
    ("Australia/Lord_Howe", "2026-10-04"): 24 * 4 - 2,
    ("Pacific/Chatham", "2026-04-05"): 25 * 4,
    ("Pacific/Chatham", "2026-09-27"): 23 * 4,
    ("Asia/Kathmandu", "2026-03-29"): 24 * 4,
    ("America/Havana", "2025-03-09"): 23 * 4,  # at midnight: a day without a 00:00
    ("America/Havana", "2025-11-02"): 25 * 4,  # and one with two
    ("Antarctica/Troll", "2026-03-29"): 22 * 4,
    ("Antarctica/Troll", "2026-10-25"): 26 * 4,
    ("Africa/Casablanca", "2026-02-15"): 25 * 4,
}


@pytest.mark.parametrize(("zone", "day"), LENGTHS)
def test_a_day_is_as_long_as_its_clocks_make_it(
    quarters: duckdb.DuckDBPyConnection, zone: str, day: str
) -> None:
    local = date.fromisoformat(day)
    start, end = local_days(local, local, zone)

    assert (end - start) // QUARTER == LENGTHS[zone, day]
    assert by_macro(quarters, zone)[local][0] == LENGTHS[zone, day]


# ---- a real night, and the real command -----------------------------------------------------

# A request in the first and the last microsecond of hours around a change of the clocks; Samoa has
# no 30 December 2011 at all, and Kwajalein no 21 August 1993.
TRIED = {
    "UTC": "2026-03-29",
    "Europe/London": "2026-03-29",
    "Australia/Lord_Howe": "2026-04-05",
    "Pacific/Chatham": "2026-09-27",
    "Asia/Kathmandu": "2026-11-20",
    "America/Havana": "2025-11-02",
    "Pacific/Apia": "2011-12-30",
    "Pacific/Kwajalein": "1993-08-21",
}


def test_the_command_and_the_macro_give_the_same_days_of_a_real_night(tmp_path: Path) -> None:
    house = House(tmp_path / "house", request_models(tmp_path / "sql"))
    instants = []
    for day in TRIED.values():
        noon = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC)
        for quarter in range(-3 * DAY, 3 * DAY, 2):
            instants += [noon + quarter * QUARTER, noon + (quarter + 1) * QUARTER]
            instants[-1] -= timedelta(microseconds=1)
    lines = [
        request(f"req_{n}", at.isoformat(), credits_used=f"{n % 900}.{n:09}")
        for n, at in enumerate(instants)
    ]
    house.put("requests/a.jsonl", lines)
    house.night()
    for zone, day in TRIED.items():
        days: dict[str, tuple[int, Decimal]] = defaultdict(lambda: (0, Decimal(0)))
        for line, at in zip(lines, instants, strict=True):
            local = at.astimezone(ZoneInfo(zone)).date()
            if abs((local - date.fromisoformat(day)).days) <= 2:
                count, credits = days[str(local)]
                days[str(local)] = count + 1, credits + Decimal(line["credits_used"])
        first = str(date.fromisoformat(day) - timedelta(days=2))
        last = str(date.fromisoformat(day) + timedelta(days=2))

        words = ("--group-by", "day", "--from", first, "--to", last, "--tz", zone)
        said = CliRunner().invoke(
            main, ["--config", str(house.config), "usage", *words, "--format", "json"]
        )
        asked = house.rows(
            f"select subject, request_count, credits from marts.usage('{first}', '{last}', "
            f"group_by := 'day', time_zone := '{zone}')"
        )

        found = {
            row["usage_date"]: (row["request_count"], Decimal(row["credits"]))
            for row in json.loads(said.stdout)
        }
        assert found == days, zone
        assert {row["subject"]: (row["request_count"], row["credits"]) for row in asked} == days
    assert "2011-12-30" not in {row["subject"] for row in asked}

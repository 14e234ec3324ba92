"""Holes in the logs: told of while they can be filled; quiet nights and new sources are none."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.houses import House, failed_claims, models_for, request

Run = Callable[..., list[dict[str, Any]]]
AS_OF = datetime(2026, 11, 21)  # a Saturday
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
Habit = Callable[[datetime], int]


def always(count: int) -> Habit:
    return lambda _: count


STEADY = always(20)


def office(hour_at: datetime) -> int:
    """Busy on weekdays from eight to eighteen, and silent else."""
    return 60 if hour_at.weekday() < 5 and 8 <= hour_at.hour < 18 else 0


def log(
    days: float,
    habit: Habit = STEADY,
    *,
    without: tuple[str, str] | None = None,
    left: int = 0,
    source_name: str = "gateway",
    until: datetime = AS_OF,
) -> list[dict[str, Any]]:
    """Rows of staging.request_hours: the last `days`, but for the hours from … to …, which have
    `left` requests.
    """
    start, end = map(datetime.fromisoformat, without or ("2000-01-01", "2000-01-01"))
    rows = []
    for number in range(int(days * 24), 0, -1):
        hour_at = until - HOUR * number
        count = left if start <= hour_at < end else habit(hour_at)
        if count:
            rows.append(
                {
                    "usage_date": hour_at.date(),
                    "hour_at": hour_at,
                    "gateway": "infery",
                    "source_name": source_name,
                    "request_count": count,
                }
            )
    return rows


@pytest.fixture
def gaps(run_model: Run) -> Callable[..., list[dict[str, Any]]]:
    def find(
        *logs: list[dict[str, Any]],
        as_of: datetime = AS_OF,
        sources: tuple[str, ...] = ("gateway", "export"),
    ) -> list[dict[str, Any]]:
        return run_model(
            "marts.log_gaps",
            {"staging.request_hours": [row for rows in logs for row in rows]},
            as_of=as_of,
            requests_sources=list(sources),
        )

    return find


Find = Callable[..., list[dict[str, Any]]]


def test_hours_that_usually_have_requests_and_now_have_none_are_a_gap(gaps: Find) -> None:
    [gap] = gaps(log(35, without=("2026-11-18T04:00", "2026-11-18T07:00")))

    assert (gap["started_at"], gap["ended_at"]) == (
        datetime(2026, 11, 18, 4), datetime(2026, 11, 18, 7),
    )  # fmt: skip
    assert (gap["source_name"], gap["hour_count"]) == ("gateway", 3)
    assert (gap["usual_count"], gap["request_count"], gap["is_silent"]) == (60, 0, False)


def test_a_gap_says_until_when_the_gateway_holds_what_is_missing(gaps: Find) -> None:
    [gap] = gaps(log(35, without=("2026-11-18T04:00", "2026-11-18T07:00")))

    assert gap["recoverable_until"] == datetime(2026, 12, 18, 4)
    assert gap["days_left"] == 27


def test_what_the_gateway_has_deleted_is_told_of_no_more(gaps: Find) -> None:
    hole = log(58, without=("2026-10-21T20:00", "2026-10-22T06:00"))

    [gap] = gaps(hole)

    assert gap["started_at"] == datetime(2026, 10, 22)
    assert gap["days_left"] == 0
    assert gaps(hole, as_of=AS_OF + timedelta(hours=6)) == []


def test_abnormally_few_are_a_gap_and_half_of_the_usual_is_none(gaps: Find) -> None:
    when = ("2026-11-18T04:00", "2026-11-18T05:00")

    [gap] = gaps(log(35, always(100), without=when, left=9))

    assert (gap["request_count"], gap["usual_count"]) == (9, 100)
    assert gaps(log(35, always(100), without=when, left=50)) == []


def test_quiet_nights_and_weekends_are_no_gap(gaps: Find) -> None:
    assert gaps(log(35, office)) == []


def test_a_day_off_is_a_gap_and_the_nights_around_it_are_not_counted(gaps: Find) -> None:
    [gap] = gaps(log(35, office, without=("2026-11-18", "2026-11-19")))

    assert (gap["started_at"], gap["ended_at"]) == (
        datetime(2026, 11, 18, 9), datetime(2026, 11, 18, 17),
    )  # fmt: skip
    assert gap["hour_count"] == 8


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_clock_that_is_changed_is_no_gap(gaps: Find, shift: int) -> None:
    def habit(hour_at: datetime) -> int:
        return office(hour_at + shift * HOUR if hour_at >= datetime(2026, 11, 9) else hour_at)

    assert gaps(log(40, habit)) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_source_of_few_requests_by_chance_has_no_gaps(gaps: Find, seed: int) -> None:
    rng = random.Random(seed)

    assert gaps(log(35, lambda _: sum(rng.random() < 0.05 for _ in range(40)))) == []


def test_many_hours_of_few_requests_are_a_gap_together(gaps: Find) -> None:
    [gap] = gaps(log(35, always(1), without=("2026-11-18", "2026-11-19")))

    assert (gap["hour_count"], gap["usual_count"]) == (24, 24)


@pytest.mark.parametrize(("days", "found"), [(3, 0), (7, 0), (9, 1), (15, 1)])
def test_a_new_source_is_held_against_nothing_until_it_has_a_week(
    gaps: Find, days: int, found: int
) -> None:
    assert len(gaps(log(days, without=("2026-11-20T10:00", "2026-11-20T12:00")))) == found


def test_a_young_source_that_rests_on_weekends_is_let_rest(gaps: Find) -> None:
    assert gaps(log(13, office, until=datetime(2026, 11, 23)), as_of=datetime(2026, 11, 23)) == []


@pytest.mark.parametrize(("silent_hours", "found"), [(1, 0), (23, 0), (24, 1), (30, 1)])
def test_silence_is_a_gap_once_it_has_lasted_a_day(
    gaps: Find, silent_hours: int, found: int
) -> None:
    rows = gaps(log(35, until=AS_OF - HOUR * silent_hours))

    assert len(rows) == found
    for gap in rows:
        assert gap["is_silent"]
        assert gap["last_hour_at"] == AS_OF - HOUR * (silent_hours + 1)
        assert gap["hour_count"] == silent_hours


def test_an_hour_that_has_not_ended_is_waited_for(gaps: Find) -> None:
    rows = log(35, without=("2026-11-20T23:00", "2026-11-21"))

    assert gaps(rows, as_of=AS_OF - timedelta(minutes=1)) == []


def test_a_source_that_the_settings_no_longer_name_is_not_expected(gaps: Find) -> None:
    rows = log(35, until=AS_OF - 3 * DAY)

    assert len(gaps(rows)) == 1
    assert gaps(rows, sources=("export",)) == []


def test_another_source_of_the_gateway_fills_a_gap(gaps: Find) -> None:
    when = ("2026-11-18T04:00", "2026-11-18T07:00")
    hole = log(35, without=when)
    filled = [row | {"source_name": "export"} for row in log(35) if row not in hole]

    assert gaps(hole, filled) == []


def test_another_source_that_goes_on_as_ever_fills_nothing(gaps: Find) -> None:
    hole = log(35, without=("2026-11-18T04:00", "2026-11-18T07:00"))

    [gap] = gaps(hole, log(35, always(500), source_name="export"))

    assert gap["source_name"] == "gateway"


def test_a_hole_of_the_week_before_hides_none_of_this_week(gaps: Find) -> None:
    rows = [
        row
        for row in log(35, without=("2026-11-18T04:00", "2026-11-18T07:00"))
        if not datetime(2026, 11, 11, 4) <= row["hour_at"] < datetime(2026, 11, 11, 7)
    ]

    assert [gap["started_at"] for gap in gaps(rows)] == [
        datetime(2026, 11, 11, 4), datetime(2026, 11, 18, 4),
    ]  # fmt: skip


def test_a_night_tells_of_a_gap_until_late_logs_fill_it(tmp_path: Path) -> None:
    house = House(tmp_path / "house", models_for("marts.log_gaps"))
    records = [
        request(f"{hour_at:%d-%H}-{number}", f"{hour_at:%Y-%m-%dT%H}:30:00Z")
        for hour_at in (AS_OF - HOUR * n for n in range(9 * 24, 0, -1))
        for number in range(12)
    ]
    late = [record for record in records if record["timestamp"][:13] == "2026-11-19T05"]
    house.put("requests/a.jsonl", [record for record in records if record not in late])
    found = failed_claims(house.night())
    again = failed_claims(house.night())
    status = house.rows("select source_name, days_left from marts.log_gaps")
    house.put("requests/late.jsonl", late)

    filled = failed_claims(house.night())

    name = "log_gaps__every_usual_hour_is_told_of"
    assert found[name] == again[name]
    assert found[name] == (
        "on 2026-11-19, marts.log_gaps: source gateway tells of the 1 hour from 2026-11-19 05:00 to"
        " 2026-11-19 06:00 UTC, which the gateway deletes from 2026-12-19 on (28 days left); "
        "expected some 12 requests or more, found 0"
    )
    assert status == [{"source_name": "gateway", "days_left": 28}]
    assert name not in filled
    assert house.value("select count(*) from marts.log_gaps") == 0

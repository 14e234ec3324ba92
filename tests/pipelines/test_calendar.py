"""The clock: as-of is an exclusive end, and today holds the microsecond before it."""

from datetime import date, datetime

import pytest

from pipelines.calendar import Clock, parse_day, parse_instant

MIDNIGHT = datetime(2026, 11, 21)


def clock(as_of: datetime) -> Clock:
    return Clock(as_of=as_of, arrived_at=as_of)


def test_a_date_means_that_day_whole() -> None:
    assert Clock.at(day=date(2026, 11, 20)).as_of == MIDNIGHT


@pytest.mark.parametrize(
    ("as_of", "today", "is_complete", "learned_until"),
    [
        (MIDNIGHT, date(2026, 11, 20), True, date(2026, 11, 20)),
        (datetime(2026, 11, 21, 0, 0, 0, 1), date(2026, 11, 21), False, date(2026, 11, 20)),
        (datetime(2026, 11, 20, 23, 59, 59), date(2026, 11, 20), False, date(2026, 11, 19)),
    ],
)
def test_today_is_complete_only_when_it_ended(
    as_of: datetime, today: date, is_complete: bool, learned_until: date
) -> None:
    night = clock(as_of)

    assert night.today == today
    assert night.is_complete(today) is is_complete
    assert night.history_until(night.tomorrow) == learned_until


def test_a_past_days_parameters_do_not_change_with_the_clock() -> None:
    day = date(2026, 11, 1)
    before, after = clock(MIDNIGHT).parameters(day), clock(datetime(2027, 1, 1)).parameters(day)

    for name in ("day", "is_complete", "history_until", "is_tomorrow"):
        assert before[name] == after[name]


def test_only_the_day_after_the_nights_date_is_tomorrow() -> None:
    night = clock(datetime(2026, 11, 21, 6))

    days = [date(2026, 11, day) for day in (20, 21, 22, 23)]
    assert [night.parameters(day)["is_tomorrow"] for day in days] == [False, False, True, False]


def test_an_instant_with_an_offset_is_told_in_utc() -> None:
    assert parse_instant("2026-11-21T01:00:00+01:00") == MIDNIGHT
    assert parse_instant("2026-11-21") == MIDNIGHT


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "20.11.2026"])
def test_what_is_no_date_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        parse_day(text)

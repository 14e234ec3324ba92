"""Windows of time in local days: exact, also where a day has 23 or 25 hours."""

from datetime import date, datetime, timedelta

import pytest

from pipelines.reader import last_window, local_days


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        (date(2026, 3, 29), "Europe/London", 23),
        (date(2026, 10, 25), "Europe/London", 25),
        (date(2026, 6, 1), "Asia/Kathmandu", 24),
        (date(2026, 10, 4), "Australia/Lord_Howe", 23.5),
    ],
)
def test_a_local_day_has_the_hours_it_has(day: date, zone: str, hours: float) -> None:
    start, end = local_days(day, day, zone)

    assert end - start == timedelta(hours=hours)


def test_the_last_24_hours_are_the_96_quarters_that_end_with_the_one_before_as_of() -> None:
    assert last_window("24h", datetime(2026, 11, 20, 12, 7), "UTC") == (
        datetime(2026, 11, 19, 12, 15),
        datetime(2026, 11, 20, 12, 15),
    )
    assert last_window("24h", datetime(2026, 11, 20, 12), "UTC")[1] == datetime(2026, 11, 20, 12)


def test_the_last_7_days_are_local_days_and_hold_today() -> None:
    start, end = last_window("7d", datetime(2026, 11, 20, 2), "America/New_York")

    # at 02:00 UTC it is still the 19th in New York
    assert (start, end) == (datetime(2026, 11, 13, 5), datetime(2026, 11, 20, 5))

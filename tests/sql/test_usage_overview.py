"""The overview: local days, ISO weeks, calendar months, billing cycles, and the day the allowance
runs out.
"""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

Run = Callable[..., list[dict[str, Any]]]
AS_OF = datetime(2026, 11, 20, 12)  # a Friday


def workspace(**stated: Any) -> dict[str, Any]:
    return {
        "workspace_id": "ws_1",
        "name": "One",
        "time_zone": "UTC",
        "plan": "Pro",
        "monthly_allowance_credits": Decimal(9000),
        "cycle_anchor_date": date(2026, 1, 5),
    } | stated


def quarter(at: datetime, credits: int, workspace_id: str | None = "ws_1") -> dict[str, Any]:
    return {
        "usage_date": at.date(),
        "workspace_id": workspace_id,
        "quarter_at": at,
        "credits": Decimal(credits),
    }


def overview(
    run_model: Run, usage: dict[datetime, int], as_of: datetime = AS_OF, **stated: Any
) -> dict[str, Any]:
    rows = [quarter(at, credits) for at, credits in usage.items()]
    inputs = {"staging.workspace_quarters": rows, "staging.workspaces": [workspace(**stated)]}
    [row] = run_model("marts.usage_overview", inputs, as_of=as_of)
    return row


def test_today_is_the_local_day_that_holds_the_microsecond_before_as_of(run_model: Run) -> None:
    usage = {
        datetime(2026, 11, 19, 23, 45): 1,
        datetime(2026, 11, 20, 0): 10,
        datetime(2026, 11, 20, 5): 100,
    }

    assert overview(run_model, usage)["credits_today"] == 110
    # in New York the 20th begins at 05:00 UTC
    assert overview(run_model, usage, time_zone="America/New_York")["credits_today"] == 100
    # as-of is exclusive: at midnight, today is still the day that ended
    assert overview(run_model, usage, as_of=datetime(2026, 11, 20))["credits_today"] == 1


def test_weeks_are_iso_months_calendar_and_cycles_the_anchors(run_model: Run) -> None:
    usage = {
        datetime(2026, 11, 16): 1,  # Monday of this week
        datetime(2026, 11, 15): 10,  # Sunday before
        datetime(2026, 11, 5): 100,  # the cycle's first day
        datetime(2026, 11, 4): 1000,
        datetime(2026, 10, 31): 10000,
    }

    row = overview(run_model, usage)

    assert row["credits_this_week"] == 1
    assert row["credits_this_month"] == 1111
    assert row["credits_this_cycle"] == 111
    assert row["cycle_start_date"] == date(2026, 11, 5)


@pytest.mark.parametrize(
    ("anchor", "today", "start"),
    [
        (date(2026, 1, 31), date(2026, 2, 28), date(2026, 2, 28)),
        (date(2026, 1, 31), date(2026, 3, 1), date(2026, 2, 28)),
        (date(2026, 1, 31), date(2026, 3, 31), date(2026, 3, 31)),
        (date(2026, 1, 15), date(2026, 1, 14), date(2025, 12, 15)),
        (None, date(2026, 3, 20), date(2026, 3, 1)),
    ],
)
def test_a_cycle_begins_on_the_anchors_day_or_the_last_of_a_shorter_month(
    run_model: Run, anchor: date | None, today: date, start: date
) -> None:
    as_of = datetime.combine(today, datetime.min.time()) + timedelta(hours=1)

    assert (
        overview(run_model, {}, as_of=as_of, cycle_anchor_date=anchor)["cycle_start_date"] == start
    )


def test_the_allowance_runs_out_at_the_mean_of_the_last_seven_complete_days(run_model: Run) -> None:
    usage = {datetime(2026, 11, day): 100 for day in range(13, 20)}

    row = overview(run_model, usage, monthly_allowance_credits=Decimal(1000))

    assert row["share_used"] == Decimal("0.7")
    assert row["exhausted_on"] == date(2026, 11, 23)  # 300 credits left, 100 a day


def test_an_allowance_that_is_used_up_ran_out_today_and_none_never_does(run_model: Run) -> None:
    usage = {datetime(2026, 11, 19): 100}

    assert overview(run_model, usage, monthly_allowance_credits=Decimal(100))[
        "exhausted_on"
    ] == date(2026, 11, 20)
    assert overview(run_model, usage, monthly_allowance_credits=None)["exhausted_on"] is None
    assert overview(run_model, {})["exhausted_on"] is None


def test_usage_of_no_workspace_has_its_own_row(run_model: Run) -> None:
    rows = run_model(
        "marts.usage_overview",
        {"staging.workspace_quarters": [quarter(datetime(2026, 11, 20), 5, workspace_id=None)]},
        as_of=AS_OF,
    )

    assert [(row["workspace_id"], row["credits_today"]) for row in rows] == [(None, Decimal(5))]

"""The busiest hours of a day and what they are held against; two weeks of requests and theirs; and
the anomalies, causes and alerts that come of them.
"""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.sql.makers import judged

TODAY = date(2026, 11, 18)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
NOON = datetime.combine(TODAY, datetime.min.time()) + 12 * HOUR
KEY = {"workspace_id": "ws_1", "scope": "key", "subject_id": "key_1"}

Row = dict[str, Any]
Rows = list[Row]
RunModel = Callable[..., Rows]


def quarter(at: datetime, credits: object, requests: int = 1, **columns: object) -> Row:
    return {
        "quarter_at": at,
        "usage_date": at.date(),
        "workspace_id": "ws_1",
        "api_key_id": "key_1",
        "member_id": None,
        "model": "gpt-5",
        "request_count": requests,
        "credits": Decimal(str(credits)),
    } | columns


def peak(day: date, credits: object, requests: int = 10, **columns: object) -> Row:
    return {
        "usage_date": day,
        "peak_hour_at": datetime.combine(day, datetime.min.time()) + 12 * HOUR,
        "peak_request_count": requests,
        "peak_credits": Decimal(str(credits)),
        "six_hours_at": datetime.combine(day, datetime.min.time()) + 12 * HOUR,
        "six_hours_credits": Decimal(str(credits)),
    } | KEY | columns  # fmt: skip


def spent(day: date, requests: int, credits: object) -> Row:
    return {"usage_date": day, "request_count": requests, "credits": Decimal(str(credits))} | KEY


# ---- the busiest hour of a day ----------------------------------------------------------------


def test_a_day_keeps_its_busiest_hour(run_model: RunModel) -> None:
    quarters = [
        quarter(NOON, 3, 5),
        quarter(NOON + timedelta(minutes=45), 4, 6, model="sonnet-5"),
        quarter(NOON + HOUR, 6, 100),
        quarter(NOON + 2 * HOUR, 7, 1),  # as much as at noon, and later
    ]

    [row] = run_model("marts.spend_peaks", {"marts.usage_quarter_hourly": quarters}, day=TODAY)

    assert (row["peak_hour_at"], row["peak_request_count"], row["peak_credits"]) == (
        NOON,
        11,
        Decimal(7),
    )


def test_a_member_has_one_too_and_nobody_has_none(run_model: RunModel) -> None:
    quarters = [
        quarter(NOON, 3, api_key_id=None, member_id="mem_1"),
        quarter(NOON, 9, api_key_id=None),
        quarter(NOON, 0),
    ]

    [row] = run_model("marts.spend_peaks", {"marts.usage_quarter_hourly": quarters}, day=TODAY)

    assert (row["scope"], row["subject_id"]) == ("member", "mem_1")


def test_a_day_keeps_its_busiest_six_hours_in_a_row(run_model: RunModel) -> None:
    quarters = [
        quarter(NOON - 9 * HOUR, 5),
        quarter(NOON, 1),
        quarter(NOON + 5 * HOUR + timedelta(minutes=45), 3),
        quarter(NOON + 6 * HOUR, 3),
        quarter(NOON + 11 * HOUR, 2),
    ]

    [row] = run_model("marts.spend_peaks", {"marts.usage_quarter_hourly": quarters}, day=TODAY)

    # from 17:00 on there are 3, 3 and 2, but seven hours long
    assert (row["six_hours_at"], row["six_hours_credits"]) == (NOON + 5 * HOUR, Decimal(6))


def test_six_hours_do_not_reach_into_the_next_day(run_model: RunModel) -> None:
    quarters = [
        quarter(NOON + 11 * HOUR, 3),
        quarter(NOON + 13 * HOUR, 9),
    ]

    [row] = run_model("marts.spend_peaks", {"marts.usage_quarter_hourly": quarters}, day=TODAY)

    assert (row["six_hours_at"], row["six_hours_credits"]) == (NOON + 11 * HOUR, Decimal(3))


# ---- bursts -------------------------------------------------------------------------------------


def called_out(run_model: RunModel, paces: Rows, quarters: Rows, **columns: object) -> Rows:
    """The anomalies of a day of these quarters, within its range of credits but for `columns`."""
    credits = sum(row["credits"] for row in quarters)
    return run_model(
        "marts.spend_anomalies",
        {
            "marts.spend_ranges": [judged(credits, **columns)],
            "marts.spend_paces": paces,
            "marts.usage_quarter_hourly": quarters,
        },
        day=TODAY,
    )


@pytest.fixture
def raised(run_model: RunModel) -> Callable[..., Rows]:
    """`raised(credits of the busiest hour, credits of the day, …)`: the anomalies of a key whose
    busiest hour of eight weeks took 20 credits.
    """

    def run(hour: object, credits: object, days: int = 56, **columns: object) -> Rows:
        before = [peak(TODAY - DAY * ago, 20 if ago == 9 else 8) for ago in range(1, days + 1)]
        paces = run_model(
            "marts.spend_paces", {"marts.spend_peaks": [*before, peak(TODAY, hour)]}, day=TODAY
        )
        quarters = [
            quarter(NOON - 6 * HOUR, Decimal(str(credits)) - Decimal(str(hour))),
            quarter(NOON, Decimal(str(hour)) / 2),
            quarter(NOON + timedelta(minutes=30), Decimal(str(hour)) / 2),
        ]
        return called_out(run_model, paces, quarters, **columns)

    return run


def test_an_hour_three_times_the_biggest_of_eight_weeks_is_a_burst(raised: Any) -> None:
    [row] = raised(61, 160)

    assert (row["kind"], row["reason"]) == ("anomaly", "burst")
    assert (row["hour_limit"], row["upper_limit"]) == (Decimal(60), Decimal(150))
    assert row["crossed_at"] == NOON + timedelta(minutes=45)
    assert raised(60, 160) == []


def test_a_burst_is_told_while_the_day_goes_on_and_is_the_same_at_its_end(raised: Any) -> None:
    [so_far] = raised(61, 160, is_complete=False, verdict="incomplete")
    [drifting] = raised(61, 160, verdict="drift")

    assert so_far["reason"] == drifting["reason"] == "burst"
    assert (so_far["kind"], so_far["crossed_at"]) == (drifting["kind"], drifting["crossed_at"])


def test_a_day_out_of_range_began_with_its_burst(raised: Any) -> None:
    [row] = raised(300, 401, verdict="high")

    assert (row["reason"], row["crossed_at"]) == ("range", NOON + timedelta(minutes=15))


def test_a_burst_in_a_day_like_any_other_wakes_nobody(raised: Any) -> None:
    assert raised(70, 149) == []


def test_a_burst_that_is_small_beside_the_whole_day_wakes_nobody(raised: Any) -> None:
    assert raised(61, 400, expected=Decimal(200)) == []


def test_a_young_key_has_no_usual_hour(raised: Any) -> None:
    assert raised(99, 160, days=13) == []


@pytest.fixture
def told(run_model: RunModel) -> Callable[[Row], tuple[str, str]]:
    """`told(anomaly)`: the cause that is named, and the alert's message, of an anomaly of 1,300
    requests.
    """

    def run(anomaly: Row) -> tuple[str, str]:
        anomaly = anomaly | {
            "request_count": 1300,
            "usual_request_count": 900,
            "usual_credits_per_request": 0.1,
        }
        pace = {
            "usage_date": TODAY,
            "peak_credits": Decimal(61),
            "peak_request_count": 600,
            "biggest_hour_request_count": 190,
        } | KEY
        episode = {
            "first_date": TODAY,
            "last_date": TODAY,
            "anomaly_day_count": 1,
            "highest_credits": anomaly["credits"],
            "level": 0,
        } | KEY
        [cause] = run_model(
            "marts.spend_causes",
            {"marts.spend_anomalies": [anomaly], "marts.spend_paces": [pace]},
            day=TODAY,
        )
        [alert] = run_model(
            "marts.budget_alerts",
            {
                "marts.spend_anomalies": [anomaly],
                "marts.spend_causes": [cause],
                "marts.alert_episodes": [episode],
            },
            as_of=datetime(2026, 11, 19),
        )
        assert cause["cause"] == "more_requests"
        return cause["cause_text"], alert["message"]

    return run


def test_a_burst_says_its_hour_in_numbers(told: Any, raised: Any) -> None:
    [anomaly] = raised(61, 160)

    cause, message = told(anomaly)

    assert cause == (
        "600 requests in the hour from 12:00 UTC against 190 in the busiest of eight weeks, "
        "at 0.1017 credits each against 0.1000"
    )
    assert message == (
        "Key key_1 of ws_1 spent 160.00 credits on 2026-11-18, 1.6 times the expected 100.00 "
        "(61.00 of them in the hour from 12:00 UTC, where up to 60.00 are normal)."
    )


# ---- surges -------------------------------------------------------------------------------------


@pytest.fixture
def surged(run_model: RunModel) -> Callable[..., Rows]:
    """`surged(credits of hours, by their number in the day, …)`: the anomalies of a key whose
    busiest hour of eight weeks took 40 credits, and its busiest six 60.
    """

    def run(hours: dict[int, object], days: int = 56, **columns: object) -> Rows:
        midnight = datetime.combine(TODAY, datetime.min.time())
        quarters = [
            quarter(midnight + hour * HOUR + timedelta(minutes=late), Decimal(str(credits)) / 2)
            for hour, credits in hours.items()
            for late in (0, 30)
        ]
        today = run_model("marts.spend_peaks", {"marts.usage_quarter_hourly": quarters}, day=TODAY)
        before = [
            peak(TODAY - DAY * ago, 40 if ago == 9 else 8, six_hours_credits=Decimal(sum_of_six))
            for ago in range(1, days + 1)
            for sum_of_six in [60 if ago == 20 else 30]
        ]
        paces = run_model("marts.spend_paces", {"marts.spend_peaks": [*before, *today]}, day=TODAY)
        return called_out(run_model, paces, quarters, **columns)

    return run


SIX = dict.fromkeys(range(3, 9), 20)
SEVEN = dict.fromkeys(range(3, 10), 25)


def test_six_hours_twice_the_biggest_six_of_eight_weeks_are_a_surge(surged: Any) -> None:
    [row] = surged(SIX | {0: 20, 12: 20, 8: 21})

    assert (row["kind"], row["reason"]) == ("anomaly", "surge")
    assert (row["six_hours_limit"], row["upper_limit"]) == (Decimal(120), Decimal(150))
    assert (row["six_hours_at"], row["six_hours_credits"]) == (datetime(2026, 11, 18, 3), 121)
    # the six are full at half past eight, and the day is above the expected by X since noon
    assert row["crossed_at"] == NOON + timedelta(minutes=15)
    assert surged(SIX | {0: 20, 12: 20}) == []


def test_a_surge_is_told_in_the_quarter_in_which_its_six_hours_passed_their_limit(
    surged: Any,
) -> None:
    # the first hours are no part of the six that end in the afternoon
    [row] = surged({0: 40, 1: 40, 11: 25, 12: 25, 13: 25, 14: 25, 15: 20, 16: 12})

    assert (row["reason"], row["six_hours_at"]) == ("surge", NOON - HOUR)
    assert row["crossed_at"] == NOON + 4 * HOUR + timedelta(minutes=15)


def test_a_surge_is_told_while_the_day_goes_on_and_is_the_same_at_its_end(surged: Any) -> None:
    [so_far] = surged(SEVEN, is_complete=False, verdict="incomplete")
    [at_the_end] = surged(SEVEN | {20: 10, 23: 30})
    [drifting] = surged(SEVEN | {20: 10, 23: 30}, verdict="drift")

    told = [(row["reason"], row["kind"], row["crossed_at"]) for row in (so_far, at_the_end)]
    assert told[0] == told[1] == (drifting["reason"], drifting["kind"], drifting["crossed_at"])
    assert told[0] == ("surge", "anomaly", datetime(2026, 11, 18, 9, 15))


def test_what_one_hour_tells_is_a_burst(surged: Any) -> None:
    [row] = surged({12: 121, 13: 40})

    assert row["reason"] == "burst"


def test_six_hours_below_a_usual_day_wake_nobody(surged: Any) -> None:
    assert surged(SIX | {8: 25, 20: 60, 21: 60}, expected=Decimal(126)) == []
    assert surged(SIX | {8: 25, 20: 60, 21: 60}, expected=Decimal(124)) != []


def test_a_surge_in_a_day_like_any_other_wakes_nobody(surged: Any) -> None:
    assert surged(SIX | {8: 21}) == []


def test_a_young_key_has_no_usual_six_hours(surged: Any) -> None:
    assert surged(SEVEN, days=13) == []


def test_a_surge_says_its_six_hours_in_numbers(told: Any, surged: Any) -> None:
    [anomaly] = surged(SEVEN)

    cause, message = told(anomaly)

    assert (
        cause == "1,300 requests against 900 on a usual day, at 0.1346 credits each against 0.1000"
    )
    assert message == (
        "Key key_1 of ws_1 spent 175.00 credits on 2026-11-18, 1.8 times the expected 100.00 "
        "(150.00 of them in the six hours from 03:00 UTC, where up to 120.00 are normal)."
    )


# ---- climbs -------------------------------------------------------------------------------------


@pytest.fixture
def climbed(run_model: RunModel) -> Callable[..., Rows]:
    """`climbed(requests by days ago)`: the anomalies of a key, at a tenth of a credit a request."""

    def run(requests: Callable[[int], float], price: float = 0.1, **columns: object) -> Rows:
        spend = [
            spent(TODAY - DAY * ago, round(requests(ago)), round(requests(ago)) * price)
            for ago in range(84)
            if requests(ago)
        ]
        paces = run_model(
            "marts.spend_paces",
            {"marts.spend_peaks": [peak(TODAY, 8)], "marts.daily_spend": spend},
            day=TODAY,
        )
        return run_model(
            "marts.spend_anomalies",
            {"marts.spend_ranges": [judged(120, **columns)], "marts.spend_paces": paces},
            day=TODAY,
        )

    return run


def growing(ago: int) -> float:
    """Five percent more each day, for 28 days."""
    return float(1000 * 1.05 ** max(28 - ago, 0))


def test_five_percent_more_each_day_are_told_of_within_a_month(climbed: Any) -> None:
    [row] = climbed(growing)

    assert (row["kind"], row["reason"], row["crossed_at"]) == ("drift", "climb", None)
    assert row["upper_limit"] == Decimal(400)


def test_one_percent_more_each_day_is_growth(climbed: Any) -> None:
    assert climbed(lambda ago: 1000 * 1.01 ** (84 - ago)) == []


def test_a_step_that_is_a_month_old_is_told_no_more(climbed: Any) -> None:
    assert climbed(lambda ago: 1000 if ago > 20 else 4000) != []
    assert climbed(lambda ago: 1000 if ago > 27 else 4000) == []


def test_a_burst_of_days_is_no_climb(climbed: Any) -> None:
    assert climbed(lambda ago: 9000 if 6 < ago < 12 else 1000) == []


def test_trifles_may_climb(climbed: Any) -> None:
    assert climbed(growing, price=0.001) == []


def test_a_climb_is_not_told_before_the_day_has_ended(climbed: Any) -> None:
    assert climbed(growing, is_complete=False, verdict="incomplete") == []


def test_a_key_is_held_against_weeks_that_it_has_lived_through(climbed: Any) -> None:
    assert climbed(lambda ago: growing(ago) if ago <= 41 else 0) != []
    assert climbed(lambda ago: growing(ago) if ago <= 40 else 0) == []

"""The second channel, the causes, the contributors, budgets of the settings and the exhaustion."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipelines.simulator import worlds as simulated
from tests import worlds
from tests.sql.makers import judged
from tests.worlds import is_found, is_right, is_same_day, share

TODAY = date(2026, 11, 18)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
KEY = {"workspace_id": "ws_1", "scope": "key", "subject_id": "key_1"}

Row = dict[str, Any]
Rows = list[Row]
RunModel = Callable[..., Rows]


def spent(day: date, requests: int, credits: object, **columns: object) -> Row:
    return (
        {"usage_date": day, "request_count": requests, "credits": Decimal(str(credits))}
        | KEY
        | columns
    )


def used(day: date, model: str, requests: int, credits: object) -> Row:
    """A day of the key on a model."""
    return {
        "usage_date": day,
        "workspace_id": "ws_1",
        "api_key_id": "key_1",
        "model": model,
        "request_count": requests,
        "credits": Decimal(str(credits)),
    }


MONTH = [TODAY - DAY * ago for ago in range(1, 29)]


@pytest.fixture
def raised(run_model: RunModel) -> Callable[..., Rows]:
    """`raised(models of today, range=…)`: the anomalies of a key that made 1,000 requests a day on
    one model before, for 100 credits.
    """

    def run(today: Rows, **columns: object) -> Rows:
        credits = sum(row["credits"] for row in today)
        requests = sum(row["request_count"] for row in today)
        spend = [spent(day, 1000, 100) for day in MONTH] + [spent(TODAY, requests, credits)]
        before = [used(day, "old", 1000, 100) for day in MONTH]
        mixes = run_model(
            "marts.spend_mixes",
            {"marts.daily_spend": spend, "marts.usage_by_key_and_model": before + today},
            day=TODAY,
        )
        return run_model(
            "marts.spend_anomalies",
            {"marts.spend_ranges": [judged(credits, **columns)], "marts.spend_mixes": mixes},
            day=TODAY,
        )

    return run


# ---- the second channel -------------------------------------------------------------------------


def test_requests_three_times_as_dear_are_an_anomaly_within_the_range(raised: Any) -> None:
    [row] = raised([used(TODAY, "old", 1000, 300)])

    assert (row["kind"], row["reason"]) == ("anomaly", "dearer_requests")
    assert row["upper_limit"] == Decimal(250) < row["credits"]  # 2.5 times the middle price
    assert row["crossed_at"] is None


def test_more_requests_at_the_old_price_are_none(raised: Any) -> None:
    assert raised([used(TODAY, "old", 3900, 390)]) == []


def test_a_new_dear_model_in_the_afternoon_is_one(raised: Any) -> None:
    [row] = raised([used(TODAY, "old", 700, 70), used(TODAY, "new", 300, 150)])

    assert (row["reason"], row["upper_limit"]) == ("another_model", Decimal(150))


def test_a_new_model_at_the_old_price_is_none(raised: Any) -> None:
    assert raised([used(TODAY, "new", 2000, 200)]) == []


def test_few_dear_requests_wake_nobody(raised: Any) -> None:
    assert raised([used(TODAY, "old", 100, 90)]) == []


def test_an_unfinished_day_is_not_judged_by_its_prices(raised: Any) -> None:
    today = [used(TODAY, "old", 1000, 300)]

    assert raised(today, is_complete=False, verdict="incomplete") == []


def test_a_young_key_has_no_price_yet(run_model: RunModel) -> None:
    spend = [spent(day, 1000, 100) for day in MONTH[:6]] + [spent(TODAY, 1000, 900)]

    [row] = run_model("marts.spend_mixes", {"marts.daily_spend": spend}, day=TODAY)

    assert (row["dearest_credits"], row["new_model_excess_credits"]) == (None, None)


def test_the_claim_asks_for_an_alert_of_what_the_second_channel_raised(
    run_model: RunModel, raised: Any
) -> None:
    anomalies = raised([used(TODAY, "old", 1000, 300)])

    [broken] = run_model(
        "budget_alerts__cover_every_anomaly",
        {"marts.spend_ranges": [judged(300)], "marts.spend_anomalies": anomalies},
        as_of=datetime(2026, 11, 19),
    )

    assert (broken["subject_id"], broken["found"]) == ("key_1", "0")


# ---- causes and contributors --------------------------------------------------------------------


def hour(at: datetime, requests: int, credits: object, **columns: object) -> Row:
    return used(at.date(), "old", requests, credits) | {"quarter_at": at} | columns


def test_the_cause_says_both_numbers_and_since_when(run_model: RunModel) -> None:
    midnight = datetime.combine(TODAY, datetime.min.time())
    flat = [hour(midnight + HOUR * at, 10, 1) for at in range(-8 * 24, 24)]
    leak = [hour(midnight + HOUR * at, 200, 20, requested_model="x") for at in range(-1, 24)]
    anomaly = judged(504, verdict="high") | {"kind": "anomaly", "reason": "range"}
    anomaly = {
        name: anomaly[name]
        for name in ("usage_date", *KEY, "kind", "reason", "credits", "expected")
    } | {"request_count": 5040, "usual_request_count": 240.0, "usual_credits_per_request": 0.1}
    habit = {"usage_date": TODAY, "first_date": TODAY - DAY * 100} | KEY
    month = [used(day, "old", 240, 24) for day in MONTH] + [used(TODAY, "old", 5040, 504)]

    [cause] = run_model(
        "marts.spend_causes",
        {
            "marts.spend_anomalies": [anomaly | {"expected": Decimal(24)}],
            "marts.spend_habits": [habit],
            "marts.usage_quarter_hourly": flat + leak,
            "marts.usage_by_key_and_model": month,
        },
        day=TODAY,
    )
    parts = run_model(
        "marts.spend_contributors",
        {"marts.spend_anomalies": [anomaly], "marts.usage_quarter_hourly": flat + leak},
        day=TODAY,
    )

    assert cause["cause"] == "more_requests"
    assert cause["cause_text"] == (
        "5,040 requests against 240 on a usual day, at 0.1000 credits each against 0.1000"
    )
    assert cause["since_at"] == midnight - HOUR  # of the evening before
    assert cause["credits_per_hour"] == Decimal(21)
    assert [row["position"] for row in parts] == [1, 2, 3, 4, 5]
    assert {row["credits"] for row in parts} == {Decimal(21)}
    assert sum(row["excess_share"] for row in parts) == pytest.approx(5 / 24, abs=1e-6)


# ---- a world ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tally() -> worlds.Tally:
    """A world of 8 keys of each kind: a few percent of what `make proof` walks through."""
    kinds = tuple(kind for kind in simulated.CAUSES if kind != "creep")  # which takes weeks
    return worlds.walk([2], keys_of_each=8, kinds=(*kinds, "none"), evaluated_days=15)


def test_a_model_five_times_as_dear_is_told_of_on_its_first_day(tally: worlds.Tally) -> None:
    assert share(tally.of("model_switch"), is_same_day) >= 0.95


def test_what_is_found_has_its_cause_named(tally: worlds.Tally) -> None:
    found = [row for row in tally.incidents if is_found(row)]

    assert share(tally.incidents, is_found) >= 0.9
    assert share(found, is_right) >= 0.95


def test_a_leak_is_told_of_within_hours_and_no_hour_says_what_no_night_would(
    tally: worlds.Tally,
) -> None:
    loud = [row for row in tally.of("leak", "runaway") if is_found(row)]

    assert worlds.hours_within(loud, 0.5, "hours_to_alert") <= 4
    assert tally.hourly_only_count == 0


def test_the_same_seed_makes_the_same_world() -> None:
    def sums(seed: int) -> Rows:
        with worlds.rolled_back() as connection:
            simulated.make(connection, seed, TODAY, keys_of_each=1, kinds=("leak", "none"))
            result = connection.sql("select sum(credits), sum(hash(world_hours)) from world_hours")
            return [dict(enumerate(row)) for row in result.fetchall()]

    assert sums(1) == sums(1) != sums(2)


# ---- budgets ------------------------------------------------------------------------------------


def workspace(**columns: object) -> Row:
    return {
        "workspace_id": "ws_1",
        "monthly_allowance_credits": Decimal(1000),
        "cycle_anchor_date": date(2025, 1, 31),
    } | columns


def daily(first: date, *amounts: object) -> Rows:
    """Days of the workspace."""
    return [
        spent(first + DAY * at, 1, amount, scope="workspace", subject_id="ws_1")
        for at, amount in enumerate(amounts)
        if amount
    ]


def crossings(run_model: RunModel, spend: Rows, budgets: Rows, percents: list[int]) -> Rows:
    return run_model(
        "marts.budget_crossings",
        {
            "marts.daily_spend": spend,
            "staging.budgets": budgets,
            "staging.workspaces": [workspace()],
        },
        alerts_budget_percents=percents,
    )


def test_nobody_is_told_of_an_allowance_unless_somebody_asked(run_model: RunModel) -> None:
    assert crossings(run_model, daily(TODAY, 2000), [], []) == []


def test_the_settings_thresholds_hold_where_nobody_set_one(run_model: RunModel) -> None:
    rows = crossings(run_model, daily(date(2026, 2, 10), 510, 100, 200, 100), [], [50, 75, 90])

    assert [(row["budget_id"], row["usage_date"]) for row in rows] == [
        ("allowance:ws_1:50%", date(2026, 2, 10)),
        ("allowance:ws_1:75%", date(2026, 2, 12)),
        ("allowance:ws_1:90%", date(2026, 2, 13)),
    ]
    # the 31st, in the shortest month: on its last day
    assert {(row["cycle_start_date"], row["cycle_end_date"]) for row in rows} == {
        (date(2026, 1, 31), date(2026, 2, 28))
    }


def test_of_several_reached_on_one_day_the_highest_is_told(run_model: RunModel) -> None:
    rows = crossings(run_model, daily(TODAY, 950), [], [50, 75, 90, 100])

    assert [row["threshold_percent"] for row in rows] == [90]


def test_a_budget_of_the_directory_takes_their_place(run_model: RunModel) -> None:
    own = {
        "budget_id": "b_1",
        "workspace_id": "ws_1",
        "scope": "workspace",
        "threshold_percent": Decimal(60),
    }

    rows = crossings(run_model, daily(TODAY, 950), [own], [50, 75, 90, 100])

    assert [row["budget_id"] for row in rows] == ["b_1"]


def exhaustion(run_model: RunModel, spend: Rows, as_of: datetime) -> Rows:
    return run_model(
        "marts.budget_exhaustion",
        {"marts.daily_spend": spend, "staging.workspaces": [workspace()]},
        as_of=as_of,
    )


def test_an_allowance_that_will_not_last_is_told_of_before_it_ends(run_model: RunModel) -> None:
    spend = daily(date(2026, 2, 28), *[20] * 10, *[60] * 7)

    assert exhaustion(run_model, spend[:10], datetime(2026, 3, 10)) == []
    [row] = exhaustion(run_model, spend, datetime(2026, 3, 17))

    assert (row["cycle_start_date"], row["cycle_end_date"]) == (
        date(2026, 2, 28),
        date(2026, 3, 31),
    )
    assert row["credits_per_day"] == Decimal(60)
    assert row["credits"] == Decimal(620)
    # 380 left at 60 a day: on the seventh day from the 16th
    assert row["exhausted_on"] == date(2026, 3, 23)
    assert row["first_projected_on"] == date(2026, 3, 12) < row["first_exhausted_on"]
    assert not row["is_exhausted"]


def test_a_rate_that_falls_again_takes_the_day_away_and_not_the_row(run_model: RunModel) -> None:
    spend = daily(date(2026, 2, 28), *[20] * 10, *[60] * 5, *[1] * 8)

    [row] = exhaustion(run_model, spend, datetime(2026, 3, 23))

    assert (row["exhausted_on"], row["first_projected_on"]) == (None, date(2026, 3, 12))


def test_today_counts_for_what_is_reached_and_not_for_the_rate(run_model: RunModel) -> None:
    spend = daily(date(2026, 3, 1), 10, 10, 990)

    [row] = exhaustion(run_model, spend, datetime(2026, 3, 3, 12))

    assert (row["exhausted_on"], row["is_exhausted"]) == (date(2026, 3, 3), True)
    assert row["credits_per_day"] == Decimal("2.857142857")

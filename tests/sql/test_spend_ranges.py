"""Daily spend, births, habits and ranges: what the detector learns, and how it judges."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.calendar import Clock
from pipelines.models import Models, write_model
from pipelines.store import connect

TODAY = date(2026, 11, 18)  # a Wednesday, far from both ends of the month
DAY = timedelta(days=1)
NIGHT = {
    "alerts_exceed_percent": 50.0,
    "alerts_floor_credits": 10.0,
    "alerts_sensitivity": "normal",
}
BIRTH = ("usage_date", "workspace_id", "scope", "subject_id")
Rows = list[dict[str, Any]]
Given = Sequence[Mapping[str, Any]]
Judge = Callable[..., Rows]


def spend(day: date, credits: object, **columns: object) -> dict[str, Any]:
    """A day of one key's spend."""
    return {
        "usage_date": day,
        "workspace_id": "ws_1",
        "scope": "key",
        "subject_id": "key_1",
        "request_count": 10,
        "credits": Decimal(str(credits)),
    } | columns


def days(amounts: Sequence[object], last: date, **columns: object) -> Rows:
    """A run of days that ends with `last`; 0 is a day without spend."""
    first = last - DAY * (len(amounts) - 1)
    return [
        spend(first + DAY * number, amount, **columns)
        for number, amount in enumerate(amounts)
        if amount
    ]


def steady(count: int, amount: float = 100, wobble: float = 0.1) -> list[float]:
    """Days that differ a little, in a pattern of five."""
    return [amount * (1 + wobble * ((number % 5) - 2) / 2) for number in range(count)]


@pytest.fixture
def learn(run_model: Callable[..., Rows]) -> Judge:
    """`learn(rows of daily spend, day=…, past=rows of habits)` gives the day's habits."""

    def run(
        rows: Sequence[Mapping[str, Any]],
        day: date = TODAY,
        past: Given = (),
        runs: Given | None = None,
        **night: Any,
    ) -> Rows:
        births: dict[tuple[object, ...], dict[str, Any]] = {}
        for row in sorted(rows, key=lambda row: row["usage_date"]):
            birth = {name: row[name] for name in BIRTH}
            births.setdefault(tuple(birth.values())[1:], birth)
        return run_model(
            "marts.spend_habits",
            {
                "marts.daily_spend": rows,
                "marts.first_spends": list(births.values()),
                "marts.spend_habits": [*past, *(in_runs(past, day) if runs is None else runs)],
            },
            day=day,
            **night,
        )

    return run


@pytest.fixture
def judge(run_model: Callable[..., Rows], learn: Judge) -> Judge:
    """`judge(rows of daily spend, day=…, past=…, watched=rows of alert settings, called=rows of
    expected_days)` gives the day's ranges, learned from those rows.
    """

    def run(
        rows: Sequence[Mapping[str, Any]],
        day: date = TODAY,
        past: Given = (),
        watched: Given = (),
        runs: Given | None = None,
        called: Given = (),
        **night: Any,
    ) -> Rows:
        habits = learn(rows, day, past, runs, **night)
        return run_model(
            "marts.spend_ranges",
            {
                "marts.spend_habits": habits,
                "staging.alert_settings": watched,
                "marts.expected_days": called,
            },
            day=day,
            **night,
        )

    return run


def known(day: date, **columns: object) -> dict[str, Any]:
    """What stands in the habits of a past day of the same key, as far as a later day reads it."""
    return {
        "usage_date": day,
        "workspace_id": "ws_1",
        "scope": "key",
        "subject_id": "key_1",
        "credits": Decimal(100),
        "burst": 1.0,
        "surprise": 0.8,
    } | columns


def in_runs(past: Given, before: date) -> Rows:
    """The rows of the runs of sixteen days that have ended before a day, as that table has them on
    the day after each.
    """
    runs: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in past:
        end = row["usage_date"] + DAY * (15 - row["usage_date"].toordinal() % 16)
        if end < before:
            names = (row["workspace_id"], f"{row['scope']}_run", row["subject_id"])
            runs.setdefault((end, *names), []).append(row)
    return [
        dict(zip(BIRTH, (end + DAY, *names), strict=True))
        | {
            "run_end_date": end,
            "biggest_day": float(max(row["credits"] for row in rows)),
            "burst": max(row["burst"] for row in rows),
            "surprise": max(row["surprise"] for row in rows),
            "judged_day_count": len(rows),
        }
        for (end, *names), rows in runs.items()
    ]


def all_along(**on_days: dict[str, object]) -> Rows:
    """Half a year of unremarkable days, but for some: `all_along(d20={"surprise": 3.0})`."""
    return [known(TODAY - DAY * back, **on_days.get(f"d{back}", {})) for back in range(180, 0, -1)]


# ---- daily spend and births ---------------------------------------------------------------------


def test_a_request_without_a_key_counts_in_its_workspace_only(
    run_model: Callable[..., Rows],
) -> None:
    by_key: Rows = [
        {"api_key_id": "key_1", "credits": Decimal(3)},
        {"api_key_id": None, "credits": Decimal(4)},
    ]
    usage = [
        row | {"usage_date": TODAY, "workspace_id": "ws_1", "request_count": 1} for row in by_key
    ]

    rows = run_model("marts.daily_spend", {"marts.usage_by_key": usage}, day=TODAY)

    assert [(row["scope"], row["subject_id"], row["credits"]) for row in rows] == [
        ("key", "key_1", Decimal(3)),
        ("workspace", "ws_1", Decimal(7)),
    ]


def test_what_spends_nothing_is_no_subject(run_model: Callable[..., Rows]) -> None:
    usage = [
        {
            "usage_date": TODAY,
            "workspace_id": "ws_1",
            "model": "free",
            "request_count": 9,
            "credits": 0,
        }
    ]

    assert run_model("marts.daily_spend", {"marts.usage_by_model": usage}, day=TODAY) == []


@pytest.mark.parametrize("workspace", ["ws_1", None])
def test_a_subject_is_born_once(run_model: Callable[..., Rows], workspace: str | None) -> None:
    known = {"workspace_id": workspace, "scope": "key", "subject_id": "key_1"}
    earlier = [{"usage_date": TODAY - DAY * 400} | known]
    today = [spend(TODAY, 1) | known, spend(TODAY, 1, subject_id="key_2")]

    rows = run_model(
        "marts.first_spends",
        {"marts.daily_spend": today, "marts.first_spends": earlier},
        day=TODAY,
    )

    assert [row["subject_id"] for row in rows] == ["key_2"]


@pytest.mark.parametrize(("oldest", "spread"), [(21, 0), (90, None)])
def test_a_subject_without_months_has_no_spread_of_them(
    run_model: Callable[..., Rows], oldest: int, spread: int | None
) -> None:
    rows = [spend(TODAY - DAY * back, 1 + back % 3) for back in range(oldest + 1)]
    births = [{name: rows[-1][name] for name in BIRTH}]

    [habits] = run_model(
        "marts.spend_habits",
        {"marts.daily_spend": rows, "marts.first_spends": births},
        day=TODAY,
    )

    if spread is None:
        assert habits["earlier_spread"] > 0
    else:
        assert habits["earlier_spread"] == spread


# ---- the rules ----------------------------------------------------------------------------------


def test_an_ordinary_day_is_normal(judge: Judge) -> None:
    [row] = judge(days([*steady(60), 110], TODAY))

    assert row["verdict"] == "normal"
    assert Decimal(90) < row["expected"] < Decimal(110)
    assert row["expected"] < row["range_high"] <= row["upper_limit"]


def test_a_leaked_key_is_high_on_its_first_day(judge: Judge) -> None:
    [row] = judge(days([*steady(60), 900], TODAY))

    assert row["verdict"] == "high"
    assert row["ratio"] == round(row["credits"] / row["expected"], 9)


def test_a_quiet_saturday_is_judged_as_a_saturday(judge: Judge) -> None:
    saturday = TODAY + DAY * 3
    weeks = [5 if (saturday - DAY * n).isoweekday() >= 6 else 400 for n in range(70, 0, -1)]

    [row] = judge(days([*weeks, 6], saturday), day=saturday)

    assert row["expected"] < 30


def test_two_high_days_running_need_less_than_one(judge: Judge) -> None:
    [alone] = judge(days([*steady(60), 210], TODAY))
    [after_another] = judge(days([*steady(59), 210, 210], TODAY))

    assert alone["verdict"] == "normal"
    assert after_another["verdict"] == "high"


# ---- the past year -------------------------------------------------------------------------------


def test_a_day_remembers_what_it_was_beside_what_was_known(learn: Judge) -> None:
    [row] = learn(days([*steady(60), 300], TODAY))

    assert row["burst"] == pytest.approx(3, rel=0.1)
    assert 1 < row["surprise"] < row["burst"]


def test_a_young_day_and_tomorrow_have_nothing_to_remember(learn: Judge) -> None:
    [young] = learn(days(steady(14), TODAY))
    [ahead] = learn(days(steady(60), TODAY), TODAY + DAY, [known(TODAY)], **tomorrow(TODAY))

    assert (young["burst"], young["surprise"]) == (None, None)
    assert (ahead["burst"], ahead["surprise"]) == (None, None)


def test_a_burst_of_a_smaller_time_counts_as_what_it_would_be_today(judge: Judge) -> None:
    rows = days([*steady(60), 500], TODAY)

    [without] = judge(rows, past=all_along())
    [recent] = judge(rows, past=all_along(d40={"burst": 8.0, "credits": Decimal(80)}))
    [old] = judge(rows, past=all_along(d150={"burst": 8.0, "credits": Decimal(80)}))

    assert without["verdict"] == "high"
    assert recent["range_high"] > without["range_high"]
    assert old["range_high"] > without["range_high"]


def test_who_surprised_before_may_do_so_again(judge: Judge) -> None:
    rows = days([*steady(60), 300], TODAY)

    [never] = judge(rows, past=all_along())
    [once] = judge(rows, past=all_along(d110={"surprise": 3.0}))

    assert (never["verdict"], once["verdict"]) == ("high", "normal")


def test_what_an_old_leak_excuses_is_bounded(judge: Judge) -> None:
    rows = days([*steady(60), 300], TODAY)

    [odd] = judge(rows, past=all_along(d110={"surprise": 30.0}))
    [absurd] = judge(rows, past=all_along(d110={"surprise": 3000.0}))

    assert odd["range_high"] == absurd["range_high"]


def test_what_the_last_week_did_excuses_nothing(judge: Judge) -> None:
    rows = days([*steady(60), 300], TODAY)

    [calm] = judge(rows, past=all_along())
    [leaking] = judge(rows, past=all_along(d5={"surprise": 30.0}))

    assert leaking["range_high"] == calm["range_high"]


def test_few_judged_days_say_little_of_surprises(judge: Judge) -> None:
    rows = days([*steady(60), 300], TODAY)

    [few] = judge(rows, past=all_along()[-20:])
    [many] = judge(rows, past=all_along())

    assert few["range_high"] > many["range_high"]


@pytest.mark.parametrize("later", range(0, 16, 3))
def test_the_year_in_runs_is_the_year_day_by_day(learn: Judge, later: int) -> None:
    day = TODAY + DAY * later
    past = [
        known(
            day - DAY * back, burst=1 + back * 7919 % 1000 / 100, surprise=back * 104729 % 997 / 9
        )
        for back in range(380, 0, -1)
        if back % 5 and not 200 < back < 240
    ]

    [row] = learn([spend(day - DAY, 1), spend(day, 1)], day, past)

    year = [one for one in past if day - DAY * 365 <= one["usage_date"] < day - DAY * 7]
    assert row["biggest_burst_of_year"] == max(one["burst"] for one in year)
    assert row["biggest_surprise"] == max(one["surprise"] for one in year)
    assert row["judged_day_count"] == len(year)
    assert row["biggest_day_of_year"] == 100


@pytest.mark.parametrize("gap", [0, 40])
def test_the_first_day_after_a_run_says_once_what_was_biggest_in_it(learn: Judge, gap: int) -> None:
    end = date.fromordinal(TODAY.toordinal() // 16 * 16 - 1)
    first = end + DAY * (1 + gap)
    past = [known(end - DAY * back, burst=float(back)) for back in range(20)]
    runs = in_runs(past, end)  # the one that ends with `end` is not there yet

    [day, run] = learn([spend(end, 1), spend(first, 1)], first, past, runs)
    rest = learn([spend(end, 1), spend(first + DAY, 1)], first + DAY, past)

    assert (day["scope"], day["run_end_date"]) == ("key", None)
    assert (run["scope"], run["run_end_date"]) == ("key_run", end)
    assert (run["burst"], run["judged_day_count"], run["credits"]) == (15.0, 16, None)
    assert [row["scope"] for row in rest] == ["key"]


def test_a_run_is_judged_by_nobody(judge: Judge) -> None:
    end = date.fromordinal(TODAY.toordinal() // 16 * 16 - 1)

    ranges = judge(days([100, 100], end + DAY), end + DAY, [known(end)], runs=[])

    assert [row["scope"] for row in ranges] == ["key"]


# ---- too young, asleep, climbing -----------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_days_are_too_young_to_judge(judge: Judge, count: int) -> None:
    [row] = judge(days([*steady(count), 5000], TODAY))

    assert row["verdict"] == "too_young"
    assert row["range_high"] is None
    assert row["upper_limit"] is None


def test_a_new_key_is_judged_from_its_fourth_day(judge: Judge) -> None:
    [row] = judge(days([20, 25, 22, 900], TODAY))

    assert row["verdict"] == "high"


def test_a_sleeper_wakes_at_the_floor(judge: Judge) -> None:
    slept = [*steady(20), *[0] * 40]

    [small] = judge(days([*slept, 9], TODAY))
    [large] = judge(days([*slept, 11], TODAY))

    assert (small["verdict"], large["verdict"]) == ("normal", "woke")
    assert large["expected"] == 0
    assert large["ratio"] is None
    assert large["upper_limit"] == 10


def test_a_small_first_call_does_not_disarm_the_waking(judge: Judge) -> None:
    [row] = judge(days([*steady(20), *[0] * 40, 1, 80], TODAY))

    assert row["verdict"] == "woke"


def test_a_slow_climb_is_drift(judge: Judge) -> None:
    climb = [100 * 1.05**number for number in range(21)]

    [row] = judge(days([*steady(70), *climb], TODAY))

    assert row["verdict"] == "drift"
    assert row["credits"] <= row["upper_limit"]


def test_a_lasting_step_of_a_third_is_no_drift(judge: Judge) -> None:
    [row] = judge(days([*steady(70), *steady(21, 130)], TODAY))

    assert row["verdict"] == "normal"


# ---- settings and numbers -----------------------------------------------------------------------


def test_the_upper_limit_is_the_largest_of_its_three_published_parts(judge: Judge) -> None:
    histories = [days([*steady(60, amount), amount], TODAY) for amount in (0.001, 3.3, 777.7)]
    for rows in histories:
        for percent, floor in ((0, 0), (50, 10), (33.3333, 0.5), (900, 0), (0, 100000)):
            [row] = judge(rows, alerts_exceed_percent=percent, alerts_floor_credits=floor)
            share = row["expected"] * (1 + Decimal(str(percent)) / 100)
            parts = (row["range_high"], round(share, 9), row["expected"] + Decimal(str(floor)))
            assert abs(row["upper_limit"] - max(parts)) <= Decimal("1e-9")
            assert row["upper_limit"] >= max(parts[0], parts[2])


def test_the_more_sensitive_the_lower_the_limit(judge: Judge) -> None:
    rows = days([*steady(60), 200], TODAY)

    limits = [
        judge(rows, alerts_sensitivity=name)[0]["upper_limit"] for name in ("low", "normal", "high")
    ]

    assert limits == sorted(limits, reverse=True)
    assert len(set(limits)) == 3


def watched(scope: str, subject_id: str, **said: object) -> dict[str, Any]:
    return {"workspace_id": "ws_1", "scope": scope, "subject_id": subject_id} | said


def test_the_subject_speaks_before_its_workspace_and_that_before_the_settings(
    judge: Judge,
) -> None:
    rows = days([*steady(60), 200], TODAY)
    workspace = watched(
        "workspace", "ws_1", exceed_percent=Decimal(400), sensitivity="low", floor_credits=None
    )
    own = watched("key", "key_1", exceed_percent=Decimal(300))
    other = watched("key", "key_2", exceed_percent=Decimal(900), sensitivity="high")

    [plain] = judge(rows, watched=[other])
    [by_workspace] = judge(rows, watched=[workspace, other])
    [by_key] = judge(rows, watched=[workspace, own, other])

    assert applied(plain) == (Decimal(50), Decimal(10), "normal")
    assert applied(by_workspace) == (Decimal(400), Decimal(10), "low")
    assert applied(by_key) == (Decimal(300), Decimal(10), "low")
    assert by_workspace["upper_limit"] == by_workspace["expected"] * 5
    assert by_key["upper_limit"] == by_key["expected"] * 4


def applied(row: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return row["exceed_percent"], row["floor_credits"], row["sensitivity"]


def test_a_floor_of_its_own_is_what_a_sleeper_wakes_at(judge: Judge) -> None:
    rows = days([*steady(20), *[0] * 40, 30], TODAY)

    [row] = judge(rows, watched=[watched("key", "key_1", floor_credits=Decimal(50))])

    assert (row["verdict"], row["upper_limit"]) == ("normal", 50)


def test_of_several_budgets_the_most_watchful_speaks(run_model: Callable[..., Rows]) -> None:
    budget = {"workspace_id": "ws_1", "scope": "key", "subject_id": "key_1"}
    rows = run_model(
        "staging.alert_settings",
        {
            "staging.budgets": [
                budget | {"budget_id": "b1", "exceed_percent": Decimal(80), "sensitivity": "low"},
                budget | {"budget_id": "b2", "exceed_percent": Decimal(20)},
                budget | {"budget_id": "b3", "sensitivity": "high"},
                {"budget_id": "b4", "workspace_id": "ws_1", "scope": "workspace"}
                | {"floor_credits": Decimal(5)},
                budget | {"budget_id": "b5", "subject_id": "key_2"},
            ]
        },
    )

    assert [(row["subject_id"], *applied(row)) for row in rows] == [
        ("key_1", Decimal(20), None, "high"),
        ("ws_1", None, Decimal(5), None),
    ]


def test_an_absurd_history_does_not_fail_the_night(judge: Judge) -> None:
    amounts = ["0.000000001", "99999999999999999999"] * 30

    [row] = judge(days([*amounts, "99999999999999999999"], TODAY))

    assert row["upper_limit"] is not None


# ---- days that are not over ---------------------------------------------------------------------


def test_an_unfinished_day_is_incomplete_until_it_is_over_its_limit(judge: Judge) -> None:
    history = days(steady(60), TODAY - DAY)

    [below] = judge([*history, spend(TODAY, 100)], is_complete=False)
    [above] = judge([*history, spend(TODAY, 900)], is_complete=False)

    assert (below["verdict"], above["verdict"]) == ("incomplete", "high")


def test_tomorrow_has_a_row_for_every_subject_of_the_year(judge: Judge) -> None:
    rows = [
        *days(steady(60), TODAY),
        spend(TODAY - DAY * 300, 50, subject_id="key_2"),
        spend(TODAY - DAY * 400, 50, subject_id="key_3"),
        spend(TODAY - DAY, 50, workspace_id=None, subject_id="key_4"),
    ]

    past = [
        known(row["usage_date"], **{name: row[name] for name in BIRTH})
        for row in rows
        if row["usage_date"] > TODAY - DAY * 365
    ]

    ranges = judge(
        rows,
        day=TODAY + DAY,
        past=[row for row in past if row["usage_date"] > TODAY - DAY * 365],
        **tomorrow(TODAY),
    )

    assert [(row["subject_id"], row["verdict"]) for row in ranges] == [
        ("key_1", "incomplete"),
        ("key_2", "incomplete"),
        ("key_4", "too_young"),
    ]
    assert {row["credits"] for row in ranges} == {None}


def test_tomorrow_does_not_learn_from_an_unfinished_today(judge: Judge) -> None:
    history = days(steady(60), TODAY - DAY)
    night = {"day": TODAY + DAY} | tomorrow(TODAY - DAY)

    assert judge([*history, spend(TODAY, 5000)], **night) == judge(
        [*history, spend(TODAY, 1)], **night
    )


def test_what_has_landed_of_tomorrow_changes_no_row_of_tomorrow(judge: Judge) -> None:
    night = {"day": TODAY + DAY} | tomorrow(TODAY)
    spent = [*days(steady(60), TODAY), *days(steady(60), TODAY, subject_id="key_2")]
    past = [known(TODAY), known(TODAY, subject_id="key_2")]

    without = judge(spent, past=past, **night)
    with_some = judge([*spent, spend(TODAY + DAY, 7)], past=past, **night)

    assert [row["subject_id"] for row in with_some] == ["key_1", "key_2"]
    assert with_some == without
    assert {row["credits"] for row in with_some} == {None}


def test_who_spends_tomorrow_for_the_first_time_has_its_row_too(judge: Judge) -> None:
    [row] = judge([spend(TODAY + DAY, 7)], day=TODAY + DAY, **tomorrow(TODAY))

    assert (row["verdict"], row["credits"]) == ("too_young", None)


def test_the_claim_asks_no_credits_of_tomorrow(run_model: Callable[..., Rows]) -> None:
    def broken(day: date) -> Rows:
        usage = {"usage_date": day, "model": "m", "credits": Decimal(7)}
        return run_model("spend_ranges__add_up_to_usage", {"marts.usage_by_model": [usage]})

    assert broken(date(2026, 11, 21)) == []  # the night's date is the 20th
    assert len(broken(date(2026, 11, 20))) == len(broken(date(2026, 11, 22))) == 1


def tomorrow(history_until: date) -> dict[str, Any]:
    """What a night says of the day after its own."""
    return {"is_complete": False, "is_tomorrow": True, "history_until": history_until}


# ---- what somebody has called expected ----------------------------------------------------------


def called(is_expected: bool, **columns: object) -> dict[str, Any]:
    """A row of expected_days: of the key's level of 800 credits."""
    return {
        "usage_date": TODAY,
        "workspace_id": "ws_1",
        "scope": "key",
        "subject_id": "key_1",
        "era": 1,
        "expected_credits": Decimal(800),
        "is_expected": is_expected,
    } | columns


CLIMB = [*steady(70), *(100 * 1.05**number for number in range(21))]


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (days([*steady(40), 900], TODAY), "high"),
        (days([*steady(20), *[0] * 40, 11], TODAY), "woke"),
        (days(CLIMB, TODAY), "drift"),
    ],
)
def test_a_day_beyond_its_range_that_was_called_expected_is_expected(
    judge: Judge, rows: Rows, verdict: str
) -> None:
    [before] = judge(rows)
    [day] = judge(rows, called=[called(is_expected=True)])
    [above] = judge(rows, called=[called(is_expected=False)])

    assert (before["verdict"], before["overruled_verdict"]) == (verdict, None)
    assert (day["verdict"], day["overruled_verdict"]) == ("expected", verdict)
    assert (above["verdict"], above["overruled_verdict"]) == (verdict, None)
    assert before["expected_credits"] is None
    said = {"verdict", "overruled_verdict", "expected_credits"}
    for other in (day, above):
        assert other["expected_credits"] == 800
        assert {name for name in before if before[name] != other[name]} <= said


@pytest.mark.parametrize(
    ("rows", "night", "verdict"),
    [
        (days(steady(41), TODAY), {}, "normal"),
        (days([100], TODAY), {}, "too_young"),
        (days(steady(41), TODAY), {"is_complete": False}, "incomplete"),
    ],
)
def test_a_day_within_its_range_is_what_it_is_whatever_was_called_expected(
    judge: Judge, rows: Rows, night: dict[str, Any], verdict: str
) -> None:
    [day] = judge(rows, called=[called(is_expected=True)], **night)

    assert (day["verdict"], day["overruled_verdict"]) == (verdict, None)


def test_of_another_subject_nothing_is_expected(judge: Judge) -> None:
    rows = days([*steady(40), 900], TODAY)
    others = [{"scope": "model"}, {"subject_id": "key_2"}, {"workspace_id": None}]

    [day] = judge(rows, called=[called(is_expected=True, **other) for other in others])

    assert day["verdict"] == "high"


# ---- the whole of it ----------------------------------------------------------------------------


def test_neither_threads_nor_the_order_of_rows_leave_a_trace(
    models: Models, tmp_path: Path
) -> None:
    written = set()
    for threads, order in ((1, "asc"), (2, "desc"), (4, "asc")):
        connection = connect()
        connection.execute(f"set threads = {threads}")
        connection.execute(
            f"""
            create table marts.daily_spend as
            select
                date '2026-11-18' - cast(day as integer) as usage_date,
                if(number % 9 = 0, null, 'ws_' || number % 7) as workspace_id,
                'key' as scope,
                'key_' || number as subject_id,
                1 + hash(number, day) % 50 as request_count,
                cast(1 + hash(day, number) % 100000 / 997 as decimal(38, 9)) as credits,
            from range(400) as keys (number), range(120) as days (day)
            where hash(number, day) % 10 < 8
            order by usage_date {order}, subject_id {order}
            """
        )
        _births(connection)
        file = tmp_path / f"{threads}{order}.parquet"
        _judge(connection, models, TODAY, "normal")
        connection.execute(
            f"copy (from marts.spend_ranges order by workspace_id, subject_id) to '{file}'"
        )
        written.add(file.read_bytes())
        connection.close()

    assert len(written) == 1


def _births(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "create table marts.first_spends as "
        "select min(usage_date) as usage_date, workspace_id, scope, subject_id "
        "from marts.daily_spend group by 2, 3, 4"
    )


def _judge(
    connection: duckdb.DuckDBPyConnection, models: Models, day: date, sensitivity: str
) -> None:
    """The habits of ten days, each learning from those before, and the ranges of the last."""
    said = ("staging.alert_settings", "marts.expected_days")
    for name in (*said, "marts.spend_habits", "marts.spend_ranges"):
        connection.execute(f"create table {name} as {models.empty(name)}")
    for back in range(9, -1, -1):
        values: dict[str, object] = NIGHT | {
            "day": day - DAY * back,
            "is_complete": True,
            "is_tomorrow": False,
            "slice": 0,
            "slice_count": 1,
            "history_until": day - DAY * (back + 1),
            "alerts_sensitivity": sensitivity,
        }
        for name in ("marts.spend_habits", "marts.spend_ranges")[: 1 if back else 2]:
            model = models.models[name]
            connection.execute(
                f"insert into {name} {model.sql}",
                {parameter: values[parameter] for parameter in model.parameters},
            )


def test_a_day_made_in_turns_is_the_same_file(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(connect()) as connection:
        connection.execute(
            f"""
            create table marts.daily_spend as
            select
                date '{TODAY}' - cast(day as integer) as usage_date,
                if(number % 9 = 0, null, 'ws_' || number % 7) as workspace_id,
                'key' as scope,
                'key_' || number as subject_id,
                1 as request_count,
                cast(1 + hash(day, number) % 1000 / 97 as decimal(38, 9)) as credits,
            from range(50) as keys (number), range(30) as days (day)
            """
        )
        _births(connection)
        connection.execute(
            f"create table marts.spend_habits as {models.empty('marts.spend_habits')}"
        )
        model = models.models["marts.spend_habits"]
        clock = Clock.at(day=TODAY).parameters(TODAY)
        values = {name: clock[name] for name in model.parameters}
        written = []
        for rows in (2_500_000, 400):
            monkeypatch.setattr("pipelines.models.SLICE", rows)
            file = tmp_path / f"{rows}.parquet"
            assert write_model(connection, model, file, values)[0] == 50
            written.append(file.read_bytes())

    assert written[0] == written[1]
    assert len(list(tmp_path.iterdir())) == 2

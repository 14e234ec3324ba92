"""Daily spend, births, habits and ranges: what the detector learns, and how it judges."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.models import Models
from pipelines.store import connect

TODAY = date(2026, 11, 18)  # a Wednesday, far from both ends of the month
DAY = timedelta(days=1)
NIGHT = {
    "alerts_exceed_percent": 50.0,
    "alerts_floor_credits": 10.0,
    "alerts_sensitivity": "normal",
}
BIRTH = ("usage_date", "workspace_id", "scope", "subject_id")
PRESET_NAMES = ("k1", "k2", "yk", "y2", "mg", "d0", "d1", "dq", "dprev")  # facts/detection.md
PRESETS = {
    "low": (3.0, 2.0, 2.6, 2.8, 2.5, 2.0, 0.6, 1.35, 1.25),
    "normal": (2.4, 1.45, 2.04, 2.3, 2.5, 1.9, 0.5, 1.1, 1.2),
    "high": (1.75, 1.35, 1.8, 2.1, 2.0, 1.75, 0.5, 1.0, 1.15),
}

Rows = list[dict[str, Any]]
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
def judge(run_model: Callable[..., Rows]) -> Judge:
    """`judge(rows of daily spend, day=…)` gives the day's ranges, learned from those rows."""

    def run(rows: Sequence[Mapping[str, Any]], day: date = TODAY, **night: Any) -> Rows:
        births: dict[tuple[object, ...], dict[str, Any]] = {}
        for row in sorted(rows, key=lambda row: row["usage_date"]):
            birth = {name: row[name] for name in BIRTH}
            births.setdefault(tuple(birth.values())[1:], birth)
        habits = run_model(
            "marts.spend_habits",
            {"marts.daily_spend": rows, "marts.first_spends": list(births.values())},
            day=day,
            **night,
        )
        return run_model("marts.spend_ranges", {"marts.spend_habits": habits}, day=day, **night)

    return run


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
    [alone] = judge(days([*steady(60), 240], TODAY))
    [after_another] = judge(days([*steady(59), 240, 240], TODAY))

    assert alone["verdict"] == "normal"
    assert after_another["verdict"] == "high"


def test_a_month_end_batch_seen_before_is_normal(judge: Judge) -> None:
    last = date(2026, 11, 30)
    batch = {date(2026, 10, 31), date(2026, 9, 30), date(2026, 8, 31)}
    rows = [row for row in days([*steady(100), 600], last) if row["usage_date"] not in batch]

    [with_batches] = judge([*rows, *(spend(day, 500) for day in batch)], day=last)
    [without] = judge(days([*steady(100), 600], last), day=last)

    assert with_batches["verdict"] == "normal"
    assert without["verdict"] == "high"


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

    ranges = judge(rows, day=TODAY + DAY, **tomorrow(TODAY))

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
    known = [*days(steady(60), TODAY), *days(steady(60), TODAY, subject_id="key_2")]

    without = judge(known, **night)
    with_some = judge([*known, spend(TODAY + DAY, 7)], **night)

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


@pytest.fixture
def spendbench(shared: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """SpendBench's dev split as daily spend."""
    connection = connect()
    file = shared / "spendbench/dev/daily_credits.parquet"
    connection.execute(
        f"""
        create table marts.daily_spend as
        select
            usage_date, 'ws_1' as workspace_id, 'key' as scope, api_key_id as subject_id,
            1 as request_count, cast(credits as decimal(38, 9)) as credits
        from '{file}'
        """
    )
    _births(connection)
    connection.execute(
        "create view daily as "
        "select subject_id as key_id, usage_date as day, credits from marts.daily_spend"
    )
    connection.execute(
        "create view first_seen as "
        "select subject_id as key_id, usage_date as born from marts.first_spends"
    )
    yield connection
    connection.close()


@pytest.mark.parametrize("sensitivity", ["low", "normal", "high"])
def test_the_ranges_agree_with_the_reference_detector(
    spendbench: duckdb.DuckDBPyConnection, models: Models, shared: Path, sensitivity: str
) -> None:
    alerts = "select key_id, y credits, expected, upper_limit, y / nullif(expected, 0) ratio,"
    everything = "select key_id, expected, upper_limit, y > upper_limit as is_over, drift, wake,"
    reference = (shared / "spendbench/detector.sql").read_text()
    assert alerts in reference
    reference = reference.replace(alerts, everything).replace("from z where y >", "from z -- ")
    compared = 0
    for day in (date(2025, 5, 3), date(2025, 5, 31), date(2025, 6, 2), date(2025, 6, 30)):
        _judge(spendbench, models, day, sensitivity)
        ours = {
            key: found
            for key, *found in spendbench.execute(
                "select subject_id, expected, upper_limit, verdict from marts.spend_ranges"
            ).fetchall()
        }
        theirs = spendbench.execute(
            reference,
            {"t": day, "x": 0.5, "floor": 10.0}
            | dict(zip(PRESET_NAMES, PRESETS[sensitivity], strict=True)),
        ).fetchall()
        assert len(theirs) == len(ours)
        for key, expected, limit, is_over, is_drifting, is_waking, _ in theirs:
            verdict = (
                ("woke" if is_waking else "high")
                if is_over
                else "too_young"
                if limit == float("inf")
                else "drift"
                if is_drifting
                else "normal"
            )
            assert ours[key][2] == verdict, (key, day)
            assert float(ours[key][0]) == pytest.approx(expected, abs=1e-8, rel=1e-12)
            if verdict != "too_young":
                assert float(ours[key][1]) == pytest.approx(limit, abs=1e-8, rel=1e-12)
            compared += 1
    assert compared > 1500


def _births(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "create table marts.first_spends as "
        "select min(usage_date) as usage_date, workspace_id, scope, subject_id "
        "from marts.daily_spend group by 2, 3, 4"
    )


def _judge(
    connection: duckdb.DuckDBPyConnection, models: Models, day: date, sensitivity: str
) -> None:
    """The two models, one after the other, on what stands in the connection."""
    values: dict[str, object] = NIGHT | {
        "day": day,
        "is_complete": True,
        "is_tomorrow": False,
        "history_until": day - DAY,
        "alerts_sensitivity": sensitivity,
    }
    for name in ("marts.spend_habits", "marts.spend_ranges"):
        model = models.models[name]
        connection.execute(
            f"create or replace table {name} as {model.sql}",
            {parameter: values[parameter] for parameter in model.parameters},
        )

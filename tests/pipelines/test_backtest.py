"""`meterhouse backtest`: over a table from anywhere, and over what a warehouse has published."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from pipelines.backtest import BacktestError, Strictness, walk
from pipelines.models import Models
from tests.houses import House, engine, furnish

LEAK = date(2026, 3, 20)
NORMAL = Strictness("normal", 50.0, 10.0)
Table = Callable[[str], Path]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """`table(select)` is a Parquet file of the select."""

    def write(select: str) -> Path:
        file = tmp_path / "daily.parquet"
        with engine() as connection:
            connection.execute(f"copy ({select}) to '{file}' (format parquet)")
        return file

    return write


def month(columns: str = "") -> str:
    """Three weeks of two keys, the second of which leaks on the last day but one."""
    return f"""
        select
            'key_' || number as api_key_id,
            date '2026-03-01' + cast(day as integer) as usage_date,
            cast(if(number = 2 and day = 19, 900, 100 + day % 3) as double) as credits{columns}
        from range(1, 3) as keys (number), range(21) as days (day)
    """


def rows(file: Path, select: str = "*", where: str = "true") -> list[tuple[object, ...]]:
    with engine() as connection:
        return connection.execute(f"select {select} from '{file}' where {where}").fetchall()


def test_it_writes_each_key_and_day_over_its_limit(
    table: Table, models: Models, tmp_path: Path
) -> None:
    alerts, ranges, seen = tmp_path / "alerts.parquet", tmp_path / "ranges.parquet", []

    walked = walk(
        table(month()), models, NORMAL, alerts, ranges, on_day=lambda *days: seen.append(days)
    )

    assert rows(alerts) == [("key_2", LEAK)]
    assert rows(ranges, "count(*), count(distinct usage_date), sum(credits)")[0][:2] == (42, 21)
    assert rows(ranges, "verdict, range_high is null")[0] == ("too_young", True)
    assert (walked.key_count, walked.alert_count, walked.episode_count) == (2, 1, 1)
    assert (walked.first, walked.last) == (date(2026, 3, 1), date(2026, 3, 21))
    assert seen[-1] == (21, 21)


def test_what_comes_after_a_day_changes_nothing_of_it(
    table: Table, models: Models, tmp_path: Path
) -> None:
    ranges = tmp_path / "ranges.parquet"
    kept = []
    for wild in (1, 50):
        daily = table(
            f"select * replace (if(usage_date > date '2026-03-18', {wild}, 1) * credits as credits)"
            f" from ({month()})"
        )
        walk(daily, models, NORMAL, tmp_path / "a.parquet", ranges, date(2026, 3, 15))
        kept.append(rows(ranges, where="usage_date <= '2026-03-18'"))

    assert kept[0] == kept[1]
    assert len(kept[0]) == 8


def test_days_before_the_first_judged_are_learned_from(
    table: Table, models: Models, tmp_path: Path
) -> None:
    whole, few = tmp_path / "whole.parquet", tmp_path / "few.parquet"
    daily = table(month())

    walk(daily, models, NORMAL, tmp_path / "a.parquet", whole)
    walked = walk(daily, models, NORMAL, tmp_path / "a.parquet", few, last_days=2)

    assert walked.first == LEAK
    assert rows(few) == rows(whole, where=f"usage_date >= '{LEAK}'")


def test_rows_of_several_models_are_one_day_of_their_key(
    table: Table, models: Models, tmp_path: Path
) -> None:
    each = table(month(", 'ws_1' as workspace_id, 'm' as model, 2 as request_count"))
    halves = (
        f"from (select * replace (credits / 2 as credits) from '{each}') as one "
        f"union all select * replace (credits / 2 as credits, 'n' as model) from '{each}'"
    )
    file = tmp_path / "halves.parquet"
    with engine() as connection:
        connection.execute(f"copy ({halves}) to '{file}' (format parquet)")

    walked = walk(file, models, NORMAL, tmp_path / "alerts.parquet")

    assert rows(tmp_path / "alerts.parquet") == [("key_2", LEAK)]
    assert walked.key_day_count == 42


@pytest.mark.parametrize(
    ("select", "sentence"),
    [
        ("select 'k' as api_key_id, date '2026-03-01' as usage_date", "has no column credits"),
        ("select 'k' as api_key_id, 'soon' as usage_date, 1 as credits", "soon"),
        ("select 'k' as api_key_id, date '2026-03-01' as usage_date, -1 as credits", "1 rows"),
        ("select 'k' as api_key_id, null::date as usage_date, 1 as credits", "no usage_date"),
        ("select 'k' as api_key_id, date '2026-03-01' as usage_date, 0 as credits", "no row with"),
    ],
)
def test_a_table_that_can_not_be_walked_is_refused_in_a_sentence(
    table: Table, models: Models, tmp_path: Path, select: str, sentence: str
) -> None:
    with pytest.raises(BacktestError, match=sentence) as refused:
        walk(table(select), models, NORMAL, tmp_path / "alerts.parquet")

    assert "\n" not in str(refused.value)
    assert not (tmp_path / "alerts.parquet").exists()


def test_what_is_no_parquet_file_or_none_at_all_is_said(models: Models, tmp_path: Path) -> None:
    (tmp_path / "notes.parquet").write_text("hello")

    with pytest.raises(BacktestError, match="no Parquet file"):
        walk(tmp_path / "notes.parquet", models, NORMAL, tmp_path / "alerts.parquet")
    with pytest.raises(BacktestError, match="There is no file"):
        walk(tmp_path / "absent.parquet", models, NORMAL, tmp_path / "alerts.parquet")


# ---- one's own warehouse ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("backtest") / "house")
    furnish(house)
    house.night()
    return house


def test_one_s_own_past_says_what_was_sent(house: House) -> None:
    told = house.ask("backtest", "--last", "5d", "--format", "json")

    assert told.returncode == 0, told.stderr
    found = {
        (row["first_date"], row["scope"], row["subject_id"]) for row in json.loads(told.stdout)
    }
    sent = house.rows("select first_date, scope, subject_id from marts.alert_episodes")
    assert found == {(str(row["first_date"]), row["scope"], row["subject_id"]) for row in sent}
    assert found


def test_one_s_own_past_is_counted_by_strictness(house: House) -> None:
    told = house.ask("backtest", "--last", "5d", "--exceed-percent", "9999")

    assert told.returncode == 0, told.stderr
    assert "as asked" in told.stdout
    assert [word for word in ("low", "normal", "high", "200 %") if word not in told.stdout] == []


@pytest.mark.parametrize(
    "words",
    [
        ("backtest", "x.parquet"),
        ("backtest", "--out", "a.parquet"),
        ("backtest", "--last", "36h"),
        ("backtest", "x.parquet", "--out", "a", "--last", "9d", "--from", "2026-01-01"),
    ],
)
def test_wrong_usage_exits_2(house: House, words: tuple[str, ...]) -> None:
    assert house.ask(*words).returncode == 2


def test_a_table_needs_no_house(house: House, table: Table, tmp_path: Path) -> None:
    told = house.ask("backtest", str(table(month())), "--out", str(tmp_path / "alerts.parquet"))

    assert told.returncode == 0, told.stderr
    assert "1 day over the limit in 1 episode" in told.stdout
    assert rows(tmp_path / "alerts.parquet") == [("key_2", LEAK)]


def test_what_was_not_sent_is_found_where_it_is_asked_for(house: House) -> None:
    settings = house.folder / "meterhouse.toml"
    settings.write_text(
        f"{settings.read_text()}\n[alerts]\nexceed_percent = 9999\nfloor_credits = 1e9\n"
    )
    house.night()
    words = ("--exceed-percent", "50", "--floor", "10", "--format", "json")

    told = house.ask("backtest", "--last", "5d", *words)

    assert told.returncode == 0, told.stderr
    assert house.value("select count(*) from marts.alert_episodes") == 0
    assert [row["subject_id"] for row in json.loads(told.stdout)] == ["key_1"]

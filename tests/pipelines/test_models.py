"""How an SQL file speaks: what is read out of it, and what is refused with its name."""

import random
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.calendar import Clock
from pipelines.contents import raw_tables
from pipelines.models import _OF_NOTHING, ALL_DAYS, Built, ModelError, Models, read_statement
from pipelines.store import Draft, RawTable, Store

RAW = {
    "raw.events": RawTable(
        "An event.",
        {"usage_date": ("date", ""), "name": ("varchar", ""), "credits": ("decimal(18,9)", "")},
        by_day=True,
    )
}
DAILY = """-- What a name spent in a day.
--
-- Second paragraph.
-- grain: usage_date, name?
select
    usage_date,
    name,  -- who
    sum(credits) as credits,  -- exact
from raw.events
where usage_date = $day
group by 1, 2
"""
RUNNING = """-- The most a name ever spent before.
-- grain: usage_date, name
-- looks back: marts.daily all days, marts.running 7 days
select $day::date as usage_date, name, max(credits) as credits
from marts.daily
where usage_date < $day and name not in (select name from marts.running where credits < 0)
group by 2
"""
TOTAL = """-- A name's total.
-- grain: name
select name, sum(credits) as credits
from marts.daily
group by 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes SQL files given as layer__name=text; returns their folder."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            layer, _, table = name.partition("__")
            path = tmp_path / "sql" / layer / f"{table}.sql"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "sql"

    return write


def test_everything_is_read_out_of_the_file(folder: Callable[..., Path]) -> None:
    models = Models(RAW, folder(marts__daily=DAILY, marts__running=RUNNING))
    daily, running = models.models["marts.daily"], models.models["marts.running"]

    assert daily.description == "What a name spent in a day. Second paragraph."
    assert daily.inputs == ("raw.events",)
    assert daily.parameters == {"day"}
    assert (daily.grain, daily.nullable) == (("usage_date", "name"), {"name"})
    assert daily.documentation == {"name": "who", "credits": "exact"}
    assert running.look_back == {"marts.daily": ALL_DAYS, "marts.running": 7}
    assert [model.name for model in models.order] == ["marts.daily", "marts.running"]
    assert models.types("marts.running")["credits"] == "DECIMAL(38,9)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("select 1 as a", "says no grain"),
        ("-- x\n-- grain: b\nselect 1 as a", "'b', which the select does not give"),
        ("-- x\n-- grain: a\n-- sorted by: b\nselect 1 as a", "is sorted by 'b', which"),
        ("-- x\n-- grain: a\nselect 1 as a from nowhere", "'nowhere' is no CTE"),
        ("-- x\n-- grain: a\nselect 1 as a from lake.b", "'lake.b' is in no layer"),
        ("-- x\n-- grain: a\nselect 1 as a from raw.nothing", "which nothing makes"),
        ("-- x\n-- grain: a\nselect from from", "not one readable select"),
        ("-- x\n-- grain: a\n-- looks back: marts.y a week\nselect 1 as a", "should read"),
        ("-- x\n-- grain: a\n-- each: hour\nselect 1 as a", "'each: hour' is not known; say 'day'"),
        ("-- x\n-- grain: a\n-- kind: table\nselect 1 as a", "'kind: table' is not known"),
    ],
)
def test_a_file_the_house_can_not_use_is_named_with_the_reason(
    folder: Callable[..., Path], text: str, said: str
) -> None:
    with pytest.raises(ModelError, match=said) as error:
        Models(RAW, folder(marts__wrong=text))

    assert "wrong" in str(error.value)


def test_models_in_a_circle_are_refused(folder: Callable[..., Path]) -> None:
    one = "-- x\n-- grain: a\nselect a from marts.two"
    two = "-- x\n-- grain: a\nselect a from marts.one"

    with pytest.raises(ModelError, match="circle"):
        Models(RAW, folder(marts__one=one, marts__two=two))


class House:
    """A store with events, and the models over it."""

    def __init__(self, tmp_path: Path, folder: Path) -> None:
        self.models = Models(RAW, folder)
        self.store = Store(tmp_path / "root")
        self.store.root.mkdir()
        self.spool = tmp_path

    def draft(self) -> Draft:
        return Draft(self.store, self.spool, self.models.bind)

    def build(
        self, draft: Draft, as_of: datetime = datetime(2026, 11, 23)
    ) -> dict[str, list[date | None]]:
        """Builds what is stale; the days built of each model."""
        clock = Clock(as_of=as_of, arrived_at=as_of)
        days: dict[str, list[date | None]] = {model.name: [] for model in self.models.order}
        for built in self.models.build(draft, clock, {}):
            if isinstance(built, Built):
                days[built.table].append(built.day)
        return days


def event(day: int, name: str, credits: int) -> str:
    return (
        f"select date '2026-11-{day}' as usage_date, '{name}' as name, "
        f"{credits}::decimal(18,9) as credits"
    )


@pytest.fixture
def house(tmp_path: Path, folder: Callable[..., Path]) -> House:
    return House(tmp_path, folder(marts__daily=DAILY, marts__running=RUNNING, marts__total=TOTAL))


def test_only_days_whose_inputs_changed_are_built_again(house: House) -> None:
    draft = house.draft()
    days = [date(2026, 11, day) for day in range(10, 20)]
    for day in days:
        draft.append("raw.events", event(day.day, "a", 1), day)
    assert house.build(draft) == {"marts.daily": days, "marts.running": days, "marts.total": [None]}
    assert house.build(draft) == {"marts.daily": [], "marts.running": [], "marts.total": []}

    draft.append("raw.events", event(15, "b", 1), days[5])

    again = house.build(draft)
    assert again["marts.daily"] == [days[5]]
    assert again["marts.running"][0] == days[5]  # and those after it that see it


@pytest.mark.parametrize(
    ("header", "stored"),
    [("", ["a", "b", "c"]), ("-- sorted by: credits\n", ["c", "a", "b"])],
)
def test_rows_are_stored_by_what_the_file_says_then_by_their_grain(
    tmp_path: Path, folder: Callable[..., Path], header: str, stored: list[str]
) -> None:
    sums = f"-- x\n-- grain: name\n{header}select name, credits from raw.events"
    house = House(tmp_path, folder(marts__sums=sums))
    draft = house.draft()
    spent = {"b": 5, "c": 1, "a": 5}
    events = " union all ".join(event(10, name, credits) for name, credits in spent.items())
    draft.append("raw.events", events, date(2026, 11, 10))

    house.build(draft)

    [file] = draft.files("marts.sums")
    rows = draft.connection.execute(f"select name from '{file}'").fetchall()
    assert [name for (name,) in rows] == stored


@pytest.mark.parametrize("seed", range(6))
def test_what_is_passed_over_is_what_would_not_be_built(house: House, seed: int) -> None:
    rng = random.Random(seed)
    as_of = datetime(2026, 11, 23)
    clock = Clock(as_of=as_of, arrived_at=as_of)
    draft = house.draft()
    for _ in range(12):
        for _ in range(rng.randint(0, 2)):
            day = date(2026, 11, rng.randint(10, 22))
            if rng.random() < 0.2:
                draft.drop("raw.events", day)
            else:
                draft.append("raw.events", event(day.day, "a", rng.randint(1, 5)), day)
        house.build(draft, as_of)
        for model in house.models.order:
            for key, partition in draft.partitions(model.name).items():
                one = date.fromisoformat(key) if key else None
                values = clock.parameters(one)
                assert partition.fingerprint == house.models.fingerprint(
                    draft, model, one, values, clock
                ), f"{model.name} of {key}"
        if rng.random() < 0.6:
            draft.publish(as_of)


def test_a_longer_look_back_is_other_logic(
    tmp_path: Path, house: House, folder: Callable[..., Path]
) -> None:
    draft = house.draft()
    days = [date(2026, 11, day) for day in range(10, 14)]
    for day in days:
        draft.append("raw.events", event(day.day, "a", 1), day)
    house.build(draft)
    draft.publish(datetime(2026, 11, 23))

    longer = RUNNING.replace("marts.running 7 days", "marts.running 8 days")
    logic = {"marts__daily": DAILY, "marts__running": longer, "marts__total": TOTAL}
    house.models = Models(RAW, folder(**logic))

    assert house.build(draft)["marts.running"] == days


def test_a_claim_about_each_day_looks_at_the_days_that_changed(
    tmp_path: Path, folder: Callable[..., Path]
) -> None:
    claim = (
        "-- Nobody earns.\n--\n-- each: day\nselect usage_date from marts.daily where credits < 0"
    )
    house = House(tmp_path, folder(marts__daily=DAILY, checks__daily__cost=claim))
    draft = house.draft()
    days = [date(2026, 11, day) for day in range(10, 16)]
    for day in days:
        draft.append("raw.events", event(day.day, "a", -1), day)
    house.build(draft)
    statement = house.models.claims["daily__cost"]
    assert statement.each_day
    assert house.models.changed_days(draft, statement) == days

    draft.publish(datetime(2026, 11, 15, 0, 5))
    draft.append("raw.events", event(12, "b", -1), days[2])
    house.build(draft)

    changed = house.models.changed_days(draft, statement)
    assert changed == [days[2], days[5]]  # and the day of the clock, about which the clock decides
    clock = Clock(as_of=datetime(2026, 11, 23), arrived_at=datetime(2026, 11, 23))
    found = house.models.query(draft, statement, clock, {}, changed)
    assert sorted(row["usage_date"] for row in found) == [days[2], days[2], days[5]]


def test_an_unchanged_result_stops_what_stands_on_it(house: House) -> None:
    draft = house.draft()
    day = date(2026, 11, 10)
    draft.append("raw.events", event(10, "a", 1), day)
    house.build(draft)

    draft.append("raw.events", event(10, "a", 0) + " where false", day)

    assert house.build(draft) == {"marts.daily": [day], "marts.running": [], "marts.total": []}


def test_days_side_by_side_are_the_bytes_of_days_one_by_one(house: House) -> None:
    draft, one_by_one = house.draft(), house.draft()
    for day in range(10, 20):
        draft.append("raw.events", event(day, "a", day), date(2026, 11, day))
    house.build(draft)
    for day in range(10, 20):
        one_by_one.append("raw.events", event(day, "a", day), date(2026, 11, day))
        house.build(one_by_one)

    assert draft.tables["marts.daily"] == one_by_one.tables["marts.daily"]


def test_what_stands_on_nothing_is_made_once_for_each_of_its_parameters(
    tmp_path: Path, folder: Callable[..., Path]
) -> None:
    count = "-- x\n-- grain: today\nselect $today as today, count(*) as events from raw.events"
    house = House(tmp_path, folder(marts__counts=count))

    def counted(draft: Draft, day: int) -> tuple[list[tuple[Any, ...]], bytes]:
        house.build(draft, datetime(2026, 11, day))
        [file] = draft.files("marts.counts")
        rows = draft.connection.execute(f"from '{file}'").fetchall()
        return rows, Path(file).read_bytes()

    first, _ = counted(house.draft(), 23)
    other, _ = counted(house.draft(), 24)
    again, kept = counted(house.draft(), 23)
    _OF_NOTHING.clear()
    anew, made = counted(house.draft(), 23)
    [(content, rows, _)] = _OF_NOTHING.values()
    filled = house.draft()
    filled.append("raw.events", event(10, "a", 1), date(2026, 11, 10))

    assert first == again == anew == [(date(2026, 11, 22), 0)]  # what is as of midnight: the day's
    assert other == [(date(2026, 11, 23), 0)]
    assert kept == made == content
    assert rows == 1
    assert counted(filled, 23)[0] == [(date(2026, 11, 22), 1)]


def test_a_day_that_lost_its_input_loses_its_partition(house: House) -> None:
    draft = house.draft()
    draft.append("raw.events", event(10, "a", 1), date(2026, 11, 10))
    house.build(draft)
    draft.drop("raw.events", date(2026, 11, 10))

    house.build(draft)

    assert draft.days("marts.daily") == []


def test_a_comment_is_not_logic(tmp_path: Path) -> None:
    plain, commented = tmp_path / "a.sql", tmp_path / "b.sql"
    plain.write_text(DAILY)
    commented.write_text(DAILY.replace("-- who", "-- whoever it was"))

    assert read_statement(plain, "a").logic == read_statement(commented, "a").logic


def test_types_are_kept_for_the_next_process_and_made_again_where_they_are_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = "marts.daily_spend"
    types = Models(raw_tables()).types(table)
    [file] = (tmp_path / "meterhouse").glob("types-*")
    whole = file.read_text()

    file.write_text(whole.replace("DECIMAL(38,9)", "VARCHAR"))
    assert Models(raw_tables()).types(table)["credits"] == "VARCHAR"  # it is what is read
    file.write_text(whole[:-9])
    assert Models(raw_tables()).types(table) == types
    assert file.read_text() == whole


@pytest.mark.parametrize("broken", ["", "{}", "[]", '{"0": 1}'])
def test_what_the_parser_says_is_kept_for_the_next_process_and_made_again_where_it_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = "marts.daily_spend"
    statement = Models(raw_tables()).models[table]
    [file] = tmp_path.glob("meterhouse/statements-*")
    whole = file.read_text()

    file.write_text(whole.replace('"staging.requests"', '"staging.keys"'))
    assert "staging.keys" in Models(raw_tables()).models["marts.requests"].inputs  # it is read
    file.write_text(broken or whole.replace('"inputs"', '"outputs"'))
    assert Models(raw_tables()).models[table] == statement
    assert file.read_text() == whole


@pytest.mark.parametrize("place", ["~nobody-of-that-name/cache", "/proc/none"])
def test_a_place_where_types_can_not_be_kept_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", place)

    assert Models(raw_tables()).types("marts.daily_spend")["credits"] == "DECIMAL(38,9)"

"""Sixteen days of a table in one file: the same rows, made again where a day changes, gone where
nothing is published that they hold.
"""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines import packs
from pipelines.store import Draft, Store, parquet_list
from tests.houses import House, furnish, request, request_models

TABLE = "marts.daily"
FIRST = date(2026, 9, 1)


@pytest.fixture
def draft(tmp_path: Path) -> Iterator[Draft]:
    """A published table of sixty days, two rows each."""
    draft = Draft(Store(tmp_path / "root"), tmp_path, lambda *_: None)
    for number in range(60):
        write(draft, number, [number, number + 1000])
    draft.publish(datetime(2026, 11, 1))
    yield draft
    draft.close()


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def write(draft: Draft, number: int, values: list[int]) -> None:
    rows = pa.table({"usage_date": [day(number)] * len(values), "value": values})
    draft.replace(TABLE, rows, day(number))


def asked(draft: Draft, first: int, last: int) -> tuple[list[Path], list[int]]:
    """The files of some days, and the values in them."""
    days = [day(number) for number in range(first, last)]
    files = packs.files(draft, TABLE, days, "usage_date, value")
    found = draft.connection.execute(f"select value from {parquet_list(files)}").fetchall()
    return files, sorted(value for (value,) in found)


def kept(draft: Draft) -> set[Path]:
    return set((draft.store.root / packs.FOLDER / TABLE).iterdir())


@pytest.mark.parametrize(("first", "last"), [(0, 60), (3, 59), (20, 60), (0, 17), (30, 40)])
def test_days_hold_the_same_rows_packed_or_not(draft: Draft, first: int, last: int) -> None:
    _, values = asked(draft, first, last)

    assert values == [*range(first, last), *range(first + 1000, last + 1000)]


def test_many_days_are_few_files_and_the_newest_are_their_own(draft: Draft) -> None:
    files, _ = asked(draft, 0, 60)
    newest = [path for path in files if packs.FOLDER not in path.parts]

    assert len(files) < 25
    assert draft.files(TABLE, [day(59)])[0] in newest
    assert kept(draft) == set(files) - set(newest)


def test_sixteen_days_that_are_not_asked_for_whole_come_singly(draft: Draft) -> None:
    whole, _ = asked(draft, 0, 60)
    some, _ = asked(draft, 10, 60)

    assert {path for path in some if packs.FOLDER in path.parts} < set(whole)


def test_long_days_come_singly(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "SMALL", 100)

    files, _ = asked(draft, 0, 60)

    assert len(files) == 60


def test_a_day_that_changes_or_goes_makes_its_pack_anew_and_the_old_one_goes(draft: Draft) -> None:
    before, _ = asked(draft, 0, 60)
    write(draft, 20, [7])
    draft.drop(TABLE, day(21))
    after, values = asked(draft, 0, 60)

    assert 7 in values
    assert not {20, 21, 1020, 1021} & set(values)
    old, new = set(before) - set(after), set(after) - set(before)
    assert len(old) == len(new) == 1
    packs.sweep(draft.store, draft.published)  # nothing of it is published: what was is still so
    assert kept(draft) & old
    assert not kept(draft) & new
    asked(draft, 0, 60)
    packs.sweep(draft.store, draft.publish(datetime(2026, 11, 2)))
    assert kept(draft) & new
    assert not kept(draft) & old


def test_a_table_of_a_view_that_has_no_day_at_all_is_no_hindrance(tmp_path: Path) -> None:
    """No request has two records, so that nobody has won."""
    house = House(tmp_path / "house", request_models(tmp_path / "sql"))
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    later = [request(f"r{n}", f"2026-10-{n:02}T10:00:00Z") for n in range(1, 19)]
    house.put("requests/b.jsonl", later)

    house.night()

    assert house.value("select count(*) from marts.requests") == 19


def test_a_house_answers_the_same_in_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, packed = House(tmp_path / "plain"), House(tmp_path / "packed")
    furnish(plain, first_day=18)
    plain.night()
    monkeypatch.setattr(packs, "DAYS", 2)
    furnish(packed, first_day=18)
    packed.night()

    made = {path.parent.name for path in (packed.root / packs.FOLDER).glob("*/*")}
    assert {"marts.daily_spend", "marts.first_spends"} <= made
    assert packed.answers() == plain.answers()

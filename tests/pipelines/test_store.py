"""The store: objects named by their content, one snapshot replaced whole, one writer at a time."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines import contents
from pipelines.calendar import utc_now
from pipelines.store import Draft, Store, StoreError, in_order, places_among

AS_OF = datetime(2026, 11, 21)
ROWS = "select range as number, (range * 1.5)::decimal(38, 9) as credits from range({0})"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "data").mkdir()
    return Store(tmp_path / "data")


def draft_of(store: Store) -> Draft:
    spool = store.root.parent / "spool"
    spool.mkdir(exist_ok=True)
    return Draft(store, spool, contents.models().bind)


def publish(store: Store, count: int) -> Any:
    draft = draft_of(store)
    draft.replace("marts.numbers", ROWS.format(count))
    snapshot = draft.publish(AS_OF)
    draft.connection.close()
    return snapshot


def test_an_object_is_named_by_its_content_and_knows_its_rows_and_credits(store: Store) -> None:
    [item] = publish(store, 3).objects()

    assert (item.rows, item.credits) == (3, "4.500000000")
    assert Path(item.path).stem == item.sha256[:32]
    assert (store.root / item.path).stat().st_size == item.bytes


def test_nothing_is_visible_before_the_snapshot_is_replaced(store: Store) -> None:
    publish(store, 3)
    before = store.snapshot()
    draft = draft_of(store)

    draft.replace("marts.numbers", ROWS.format(5))

    assert store.snapshot() == before
    draft.connection.close()


def test_equal_rows_are_the_same_object_whoever_writes_them(store: Store) -> None:
    first, second = publish(store, 3), publish(store, 3)

    assert first.tables == second.tables
    assert first.snapshot_id == second.snapshot_id


def test_a_superseded_object_lives_seven_days(store: Store) -> None:
    [old] = publish(store, 3).objects()
    publish(store, 4)
    snapshot = store.snapshot()
    assert snapshot is not None
    assert list(snapshot.superseded) == [old.path]

    assert store.sweep(snapshot) == 0
    since = (utc_now() - timedelta(days=7, seconds=1)).isoformat()
    snapshot.superseded[old.path] = since

    assert store.sweep(snapshot) == 1
    assert not (store.root / old.path).exists()


def test_what_a_killed_night_left_is_swept(store: Store) -> None:
    snapshot = publish(store, 3)
    left = [
        ".drafts/7.parquet",
        ".snapshot.json.77.tmp",
        ".warehouse.duckdb.77.tmp",
        ".warehouse.duckdb.77.tmp.wal",
        f"marts/numbers/{'0' * 32}.parquet",
        "raw/deliveries/.00000001.json.77.tmp",
    ]
    for name in left:
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).write_text("half")

    store.sweep(snapshot)

    assert not [name for name in left if (store.root / name).exists()]
    assert all((store.root / item.path).exists() for item in snapshot.objects())


def test_only_files_named_as_the_store_names_them_are_swept(store: Store) -> None:
    snapshot = publish(store, 3)
    note = store.root / "marts" / "numbers" / "note.parquet"
    note.write_text("somebody's own")

    store.sweep(snapshot)

    assert note.exists()


def test_without_a_snapshot_no_object_is_removed(store: Store) -> None:
    [item] = publish(store, 3).objects()

    assert store.sweep(None) == 0
    assert (store.root / item.path).exists()


def test_a_lost_snapshot_says_where_its_copy_lies(store: Store) -> None:
    publish(store, 3)
    lost = store.root / "snapshot.json"
    whole = lost.read_bytes()
    lost.unlink()

    with pytest.raises(StoreError, match="is gone") as sentence:
        store.snapshot()

    [copy] = (store.root / "ops" / "nights").glob("snapshot-*.json")
    assert str(copy) in str(sentence.value)
    assert copy.read_bytes() == whole


@pytest.mark.parametrize("content", ["{", "", '{"format_version": 1', "\x00\x00"])
def test_an_unreadable_snapshot_is_a_sentence(store: Store, content: str) -> None:
    (store.root / "snapshot.json").write_text(content)

    with pytest.raises(StoreError, match="can't be read"):
        store.snapshot()


def test_a_snapshot_of_another_release_says_what_to_do(store: Store) -> None:
    publish(store, 3)
    path = store.root / "snapshot.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))

    with pytest.raises(StoreError, match="of format 99"):
        store.snapshot()


def test_a_second_writer_is_told_who_is_at_work(store: Store) -> None:
    with (
        store.lock(),
        pytest.raises(StoreError, match=r"process \d+"),
        Store(store.root).lock(0.05),
    ):
        pass

    with store.lock(0.05):
        pass


def test_the_spool_is_private_and_emptied_before_and_after(store: Store) -> None:
    with store.spool() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert store.root not in folder.parents
        (folder / "prompt.jsonl").write_text("secret")

    assert not folder.exists()


def test_a_journal_keeps_its_lines_in_order_each_durable_by_itself(store: Store) -> None:
    journal = store.journal("raw.deliveries")
    for number in range(12):
        journal.append({"number": number, "at": AS_OF})

    assert [entry["number"] for entry in store.journal("raw.deliveries").entries()] == [*range(12)]
    assert journal.entries()[0]["at"] == str(AS_OF)


def test_what_another_process_publishes_or_appends_is_read_at_once(store: Store) -> None:
    other = Store(store.root)
    for count in (3, 5, 3):
        published = publish(other, count)
        other.journal("raw.deliveries").append({"number": count})

        assert store.snapshot() == published
        assert store.journal("raw.deliveries").entries()[-1] == {"number": count}

    assert [entry["number"] for entry in other.journal("raw.deliveries").entries()] == [3, 5, 3]


@pytest.mark.parametrize("count", [0, 9, 200_000])
def test_numbers_are_put_in_order_whether_few_or_many_nulls_last(count: int) -> None:
    numbers = [(number * 2**61 + 7919 * number) % 2**64 for number in range(count)]
    halves = pa.chunked_array([numbers[::2], [None, *numbers[1::2]]], pa.uint64())

    assert in_order(halves).to_pylist() == [*sorted(numbers), None]


@pytest.mark.parametrize("count", [0, 9, 200_000])
def test_numbers_are_found_among_others_where_they_stand_whether_few_or_many(count: int) -> None:
    numbers = pa.chunked_array([[*range(count)], [5, None, 2**64 - 1, 5]], pa.uint64())
    others = pa.array([2**64 - 1, 5, 10**9], pa.uint64())

    places = places_among(numbers, others).to_pylist()

    assert places == [*([5] if count > 5 else []), count, count + 2, count + 3]

"""A root in an object store: the same answers as on a disk, one winner of two writers, and nothing
lost or doubled whatever goes wrong on the way.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines import bucket_store
from pipelines.bucket_store import BucketStore, Lease
from pipelines.calendar import utc_now
from pipelines.models import Models
from pipelines.night import Published
from pipelines.object_store import Bucket
from pipelines.reader import published
from pipelines.store import StoreError
from tests import buckets, faults
from tests.buckets import Asked, Fault, Proxy
from tests.faults import Tally
from tests.houses import (
    ROLL_UPS,
    SETTINGS,
    House,
    furnish,
    request,
    request_models,
    until_failure,
)

REMOTE = SETTINGS.replace('root = "data"', 'root = "s3://bucket/house"').replace(
    'location = "out"', 'location = "s3://bucket/out"'
)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return request_models(tmp_path_factory.mktemp("sql"))


@pytest.fixture
def house(tmp_path: Path, few: Models, proxy: Proxy) -> House:
    """A small house whose root is in an object store; its logs are files."""
    return House(tmp_path / "house", few, REMOTE)


def neighbour(house: House, name: str = "neighbour") -> House:
    """The same house on another machine: its own folder and cache, the same bucket."""
    other = House(house.folder.parent / name, house.models, REMOTE)
    shutil.copytree(house.folder / "landing", other.folder / "landing", dirs_exist_ok=True)
    return other


def ids(house: House) -> list[str]:
    """What is published, as a machine reads it that has read nothing before."""
    fresh = House(house.folder.parent / f"fresh{time.monotonic_ns()}", house.models, REMOTE)
    return read_ids(fresh)


def read_ids(house: House) -> list[str]:
    with published(house.store) as reader:
        rows = reader.rows("select request_id from marts.requests order by 1")
    return [row["request_id"] for row in rows]


def check_bucket(house: House, proxy: Proxy) -> None:
    """Asserts that every object the snapshot names is in the bucket, and is what it says."""
    snapshot = house.store.snapshot()
    assert snapshot is not None
    there = buckets.contents(proxy, "s3://bucket/house")
    for item in snapshot.objects():
        assert hashlib.sha256(there[item.path]).hexdigest() == item.sha256


# ---- as on a disk ---------------------------------------------------------------------------


def test_a_root_in_an_object_store_gives_the_answers_of_one_on_a_disk(
    tmp_path: Path, proxy: Proxy
) -> None:
    models = request_models(tmp_path / "sql", *ROLL_UPS)
    local = House(tmp_path / "local", models)
    remote = House(tmp_path / "remote", models, REMOTE)
    for house in (local, remote):
        furnish(house, first_day=20)
        house.night()
    for house in (local, remote):
        house.put("requests/late.jsonl", [request("late", "2026-11-19T10:00:00Z")])
        house.night()

    assert remote.answers() == local.answers()
    check_bucket(remote, proxy)
    manifest = json.loads(buckets.contents(proxy, "s3://bucket/out")["manifest.json"])
    assert (
        manifest["files"] == json.loads((local.folder / "out/manifest.json").read_text())["files"]
    )
    stated = {file["path"] for file in manifest["files"]}
    assert stated <= set(buckets.contents(proxy, "s3://bucket/out"))
    # nothing but the cache lies on this machine, for nobody else to read
    assert {path.name for path in remote.folder.iterdir()} == {
        "cache",
        "landing",
        "meterhouse.toml",
    }
    assert (remote.root.stat().st_mode & 0o777) == 0o700


def test_a_night_with_nothing_new_publishes_nothing(house: House, proxy: Proxy) -> None:
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    before = buckets.contents(proxy, "s3://bucket/house")

    events = house.night()

    after = buckets.contents(proxy, "s3://bucket/house")
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert not [event for event in events if isinstance(event, Published)]
    assert all(name.startswith("ops/nights/2") for name in changed)
    assert len(changed) == 1


def test_another_machine_reads_and_goes_on(house: House, proxy: Proxy) -> None:
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    other = neighbour(house)

    assert read_ids(other) == ["a"]
    other.put("requests/b.jsonl", [request("b")])
    other.night()

    assert read_ids(house) == read_ids(other) == ids(house) == ["a", "b"]
    nights = json.dumps(house.rows("select outcome from ops.nights"))
    assert nights.count("published") == 2


def test_a_cache_may_be_lost_at_any_time(house: House, proxy: Proxy) -> None:
    house.put("requests/a.jsonl", [request("a"), request("b")])
    house.night()
    shutil.rmtree(house.folder / "cache")
    house.put("requests/b.jsonl", [request("b"), request("c")])

    house.night()

    assert ids(house) == read_ids(house) == ["a", "b", "c"]


def test_a_damaged_copy_in_the_cache_is_fetched_again(house: House, proxy: Proxy) -> None:
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    [stored] = (house.root / "raw" / "requests").rglob("*.parquet")
    stored.write_bytes(stored.read_bytes()[:100])

    house.put("requests/b.jsonl", [request("a", credits_used="7")])
    house.night()

    assert ids(house) == ["a"]
    assert house.value("select credits from marts.requests") == 7


def test_the_cache_is_bounded_and_what_was_read_last_stays(
    house: House, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    stored = sorted((house.root / "raw").rglob("*.parquet"))
    for number, file in enumerate(stored):
        os.utime(file, (0, number))
    store = house.store
    assert isinstance(store, BucketStore)
    kept = sum(file.stat().st_size for file in house.root.rglob("*.parquet"))

    store.cache_bytes = kept - 1
    store.tidy()
    assert [file for file in stored if file.stat().st_size] == stored[1:]

    store.cache_bytes = 0
    store.tidy()  # what was read within the hour stays all the same
    assert not [file for file in stored if file.stat().st_size]
    assert all(file.stat().st_size for file in (house.root / "marts").rglob("*.parquet"))
    assert read_ids(house) == ["a"]


def test_only_what_a_query_reads_is_fetched(house: House, proxy: Proxy) -> None:
    for day in range(10, 13):
        house.put(f"requests/{day}.jsonl", [request(f"r{day}", f"2026-11-{day}T10:00:00Z")])
    house.night()
    other = neighbour(house)

    with published(other.store) as reader:
        assert reader.rows("select sum(request_count) as n from marts.usage_quarter_hourly")
        stored = (other.root / "raw" / "requests").rglob("*.parquet")
        requests = sum(1 for file in stored if file.stat().st_size)
        found = reader.rows("select request_id from marts.requests order by 1")

    assert requests <= 1  # which tells the columns
    assert [row["request_id"] for row in found] == [f"r{day}" for day in range(10, 13)]


def test_of_one_request_only_its_day_is_fetched(house: House, proxy: Proxy) -> None:
    for day in range(10, 14):
        house.put(f"requests/{day}.jsonl", [request(f"r{day}", f"2026-11-{day}T10:00:00Z")])
    house.night()
    other = neighbour(house)

    with published(other.store) as reader:
        [row] = reader.request("r12")
        stored = (other.root / "raw" / "requests").rglob("*.parquet")
        fetched = {file.parent.name for file in stored if file.stat().st_size}
        nothing = reader.request("r14")

    assert row["request_id"] == "r12"
    assert fetched == {"usage_date=2026-11-10", "usage_date=2026-11-12"}  # one tells the columns
    assert nothing == []


# ---- what is left behind --------------------------------------------------------------------


def age(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """Lets time pass for the store."""
    later = utc_now() + timedelta(days=days)
    monkeypatch.setattr(bucket_store, "utc_now", lambda: later)
    monkeypatch.setattr("pipelines.store.utc_now", lambda: later)


def test_what_another_night_may_be_about_to_publish_is_not_swept(
    house: House, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    orphan = f"marts/numbers/{'0' * 32}.parquet"
    note = "marts/numbers/note.parquet"
    for name in (orphan, note):
        buckets.put(proxy, f"s3://bucket/house/{name}", b"x")
    store = house.store

    assert store.sweep(store.snapshot()) == 0
    age(monkeypatch, 1.1)
    assert store.sweep(store.snapshot()) == 1

    there = buckets.contents(proxy, "s3://bucket/house")
    assert (orphan in there, note in there) == (False, True)
    check_bucket(house, proxy)


def test_a_superseded_object_lives_seven_days(
    house: House, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    before = house.store.snapshot()
    house.put("requests/b.jsonl", [request("b")])
    house.night()
    after = house.store.snapshot()
    assert before is not None
    assert after is not None
    old = {item.path for item in before.objects()} - {item.path for item in after.objects()}
    assert old == set(after.superseded)

    age(monkeypatch, 6.9)
    assert house.store.sweep(after) == 0
    age(monkeypatch, 7.1)
    assert house.store.sweep(after) == len(old)
    check_bucket(house, proxy)


def test_an_upload_nobody_completed_is_let_go(
    house: House, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    bucket = Bucket("s3://bucket/house")
    bucket._call("create_multipart_upload", "warehouse.duckdb")
    age(monkeypatch, 1.1)

    store = house.store
    store.sweep(store.snapshot())

    assert not bucket._call("list_multipart_uploads").get("Uploads")


# ---- two writers ----------------------------------------------------------------------------


def test_of_two_nights_that_began_alike_one_wins(house: House, proxy: Proxy) -> None:
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    other = neighbour(house)
    house.put("requests/b.jsonl", [request("b")])
    other.put("requests/c.jsonl", [request("c")])
    slow = house.events()
    for event in slow:
        if getattr(event, "step", "") == "audit":
            break

    fast = other.night()
    _, failure = until_failure(slow)

    assert [event for event in fast if isinstance(event, Published)]
    assert isinstance(failure, StoreError)
    assert "Another night has published under s3://bucket/house" in str(failure)
    assert ids(house) == ["a", "c"]
    house.night()
    assert ids(house) == read_ids(house) == ["a", "b", "c"]
    check_bucket(house, proxy)
    outcomes = {row["outcome"] for row in house.rows("select outcome from ops.nights")}
    assert outcomes == {"published", "failed"}


def test_of_two_first_nights_one_wins(house: House, proxy: Proxy) -> None:
    other = neighbour_of_nothing(house)
    house.put("requests/b.jsonl", [request("b")])
    other.put("requests/c.jsonl", [request("c")])
    slow = house.events()
    for event in slow:
        if getattr(event, "step", "") == "audit":
            break

    other.night()
    _, failure = until_failure(slow)

    assert isinstance(failure, StoreError)
    assert ids(house) == ["c"]


def neighbour_of_nothing(house: House) -> House:
    return House(house.folder.parent / "neighbour", house.models, REMOTE)


def test_a_night_on_another_machine_waits_and_says_who_is_at_work(
    house: House, proxy: Proxy
) -> None:
    buckets.put(
        proxy,
        f"s3://bucket/house/{Lease.KEY}",
        json.dumps({"machine": "elsewhere", "process": 7, "since": "00:30:00"}).encode(),
    )

    _, failure = until_failure(house.events(wait_seconds=0))

    assert "at work on s3://bucket/house (process 7 on elsewhere" in str(failure)


def test_a_machine_that_is_no_more_holds_up_nobody_for_long(
    house: House, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    buckets.put(
        proxy,
        f"s3://bucket/house/{Lease.KEY}",
        json.dumps({"machine": "elsewhere", "process": 7, "since": "00:30:00"}).encode(),
    )
    monkeypatch.setattr(bucket_store, "LEASE_SECONDS", 0.0)
    house.put("requests/a.jsonl", [request("a")])

    house.night(wait_seconds=0)

    assert ids(house) == ["a"]
    assert Lease.KEY not in buckets.contents(proxy, "s3://bucket/house")


def test_a_night_killed_on_this_machine_holds_up_nobody(house: House, proxy: Proxy) -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    holder = {"machine": platform.node(), "process": done.pid, "since": "00:30:00"}
    buckets.put(proxy, f"s3://bucket/house/{Lease.KEY}", json.dumps(holder).encode())
    house.put("requests/a.jsonl", [request("a")])

    house.night(wait_seconds=0)

    assert ids(house) == ["a"]


def test_a_night_that_works_is_heard_of(
    house: House, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_store, "LEASE_SECONDS", 0.2)
    with house.store.lock():
        time.sleep(0.4)
    assert proxy.count("PUT", "lease") >= 3


# ---- journals -------------------------------------------------------------------------------


def test_two_who_write_down_at_once_have_two_lines(house: House, proxy: Proxy) -> None:
    one, two = (h.store.journal("raw.decisions") for h in (house, neighbour_of_nothing(house)))
    for number in range(3):
        one.append({"number": number, "by": "one"})
        two.append({"number": number, "by": "two"})

    lines = house.store.journal("raw.decisions").entries()

    assert lines == two.entries()
    assert [(line["number"], line["by"]) for line in lines] == [
        (number, by) for number in range(3) for by in ("one", "two")
    ]


@pytest.mark.parametrize("fault", ["unanswered", "503", "reset"])
def test_a_line_is_written_once_whatever_goes_wrong(
    house: House, proxy: Proxy, fault: Fault
) -> None:
    journal = house.store.journal("raw.decisions")
    proxy.choose = lambda asked: fault if asked.number % 2 else ""
    for number in range(4):
        journal.append({"number": number})
    proxy.choose = lambda _: ""

    assert [line["number"] for line in journal.entries()] == [0, 1, 2, 3]


# ---- faults ---------------------------------------------------------------------------------


def on_snapshot(fault: Fault) -> Callable[[Asked], Fault]:
    """The fault, for every attempt to replace the snapshot."""
    return lambda asked: (
        fault if asked.method == "PUT" and asked.path.endswith("/snapshot.json") else ""
    )


@pytest.mark.parametrize("is_late", [False, True], ids=["unanswered", "late"])
def test_a_snapshot_whose_answer_was_never_seen_is_published(
    house: House, proxy: Proxy, is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_late:
        buckets.give_up_on(monkeypatch, "snapshot.json")
    house.put("requests/a.jsonl", [request("a")])
    proxy.choose = on_snapshot("unanswered")

    house.night()

    assert proxy.seen["unanswered"]
    assert ids(house) == ["a"]


@pytest.mark.parametrize("fault", ["reset", "503"])
def test_a_snapshot_that_was_never_heard_leaves_the_old_one(
    house: House, proxy: Proxy, fault: Fault
) -> None:
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    house.put("requests/b.jsonl", [request("b")])
    proxy.choose = on_snapshot(fault)

    _, failure = until_failure(house.events())

    assert "Whether the snapshot was published is not known" in str(failure)
    proxy.choose = lambda _: ""
    assert ids(house) == ["a"]
    house.night()
    assert ids(house) == ["a", "b"]


@pytest.mark.parametrize("seed", range(12))
def test_two_writers_lose_and_double_nothing_whatever_goes_wrong(
    seed: int, proxy: Proxy, tmp_path: Path
) -> None:
    faults.run_writers(seed, tmp_path / "machines", proxy, Tally())


@pytest.mark.parametrize("seed", range(2))
def test_nights_of_two_machines_lose_and_double_nothing_whatever_goes_wrong(
    seed: int, proxy: Proxy, tmp_path: Path, few: Models
) -> None:
    faults.run_nights(seed, tmp_path / "machines", proxy, few, Tally())

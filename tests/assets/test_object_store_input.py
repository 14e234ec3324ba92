"""What arrives in an object store lands as what arrives in a folder."""

import random
from pathlib import Path

import pytest

from assets import requests as landing
from pipelines.models import Models
from pipelines.night import Told
from pipelines.store import Store
from tests import buckets
from tests.buckets import FAULTS, Asked, Fault, Proxy
from tests.houses import (
    ROLL_UPS,
    SETTINGS,
    House,
    csv,
    furnish,
    jsonl,
    packed,
    request,
    request_models,
    traffic,
    until_failure,
)

REMOTE = SETTINGS.replace('"landing/requests"', '"s3://bucket/logs"').replace(
    '"landing/proxy"', '"s3://bucket/proxy"'
)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return request_models(tmp_path_factory.mktemp("sql"))


@pytest.fixture
def house(tmp_path: Path, few: Models, proxy: Proxy) -> House:
    """A house whose request logs lie in an object store."""
    return House(tmp_path / "house", few, REMOTE)


def remarks(house: House) -> list[str]:
    return [event.sentence for event in house.night() if isinstance(event, Told)]


@pytest.mark.parametrize("long", [landing.LONG, 0], ids=["short", "long"])
def test_what_lies_in_an_object_store_lands_as_from_a_folder(
    house: House,
    proxy: Proxy,
    tmp_path: Path,
    few: Models,
    monkeypatch: pytest.MonkeyPatch,
    long: int,
) -> None:
    monkeypatch.setattr(landing, "LONG", long)
    local = House(tmp_path / "local", few)
    logs = {
        "a.jsonl": jsonl(traffic(20)),
        "deep/b.jsonl.gz": jsonl(traffic(19)),
        "deep/c.jsonl.zst": jsonl(traffic(18)),
        "d.csv": csv([request("csv_1"), request("csv_2")]),
        "odd [1]*.jsonl": jsonl([request("odd"), "no record", request("odd", credits_used="7")]),
        "again.jsonl.gz": jsonl(traffic(20)),
        "cut.jsonl.gz": "",
    }
    for name, text in logs.items():
        content = packed(Path(name).suffix, text)
        content = content[:-3] if name.startswith("cut") else content
        local.put(f"requests/{name}", content)
        buckets.put(proxy, f"s3://bucket/logs/{name}", content)
    local.night()

    said = remarks(house)

    assert [sentence for sentence in said if "bucket/proxy" not in sentence] == []
    for table, but in (("marts.requests", "status"), ("ops.quarantine", "location, arrived_at")):
        select = f"select * exclude ({but}) from {table} order by all"
        assert house.rows(select) == local.rows(select)
    places = {row["location"] for row in house.rows("select location from ops.source_objects")}
    assert "s3://bucket/logs/deep/b.jsonl.gz" in places


def test_an_unchanged_object_is_not_fetched_again(house: House, proxy: Proxy) -> None:
    buckets.put(proxy, "s3://bucket/logs/a.jsonl", jsonl([request("req_1")]).encode())
    house.night()
    before = proxy.count("GET", "a.jsonl")

    house.night()
    buckets.put(proxy, "s3://bucket/logs/a.jsonl", jsonl([request("req_2")]).encode())
    house.night()

    assert (before, proxy.count("GET", "a.jsonl")) == (1, 2)
    assert house.value("select count(*) from marts.requests") == 2


@pytest.mark.parametrize("long", [landing.LONG, 0], ids=["short", "long"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_object_replaced_since_it_was_listed_is_left_for_the_next_night(
    house: House, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, long: int, suffix: str
) -> None:
    monkeypatch.setattr(landing, "LONG", long)

    def put(name: str, request_id: str) -> None:
        content = packed(suffix, jsonl([request(request_id)]))
        buckets.put(proxy, f"s3://bucket/logs/{name}.jsonl{suffix}", content)

    put("a", "old")
    put("b", "other")

    def replace(asked: Asked) -> Fault:
        if asked.method == "GET" and "a.jsonl" in asked.path:
            put("a", "newer")
            proxy.choose = lambda _: ""
        return ""

    proxy.choose = replace
    first = remarks(house)
    ids = "select request_id from marts.requests order by 1"
    landed = [row["request_id"] for row in house.rows(ids)]
    second = remarks(house)

    assert f"s3://bucket/logs/a.jsonl{suffix} changed while it was read" in " ".join(first)
    assert landed == ["other"]
    assert "changed" not in " ".join(second)
    assert [row["request_id"] for row in house.rows(ids)] == ["newer", "other"]


def test_an_object_that_cannot_be_had_holds_up_no_other(house: House, proxy: Proxy) -> None:
    for name in ("a", "b"):
        buckets.put(proxy, f"s3://bucket/logs/{name}.jsonl", jsonl([request(name)]).encode())
    proxy.choose = lambda asked: "503" if "a.jsonl" in asked.path else ""

    said = remarks(house)
    proxy.choose = lambda _: ""

    assert any("a.jsonl: the object store answers SlowDown" in sentence for sentence in said)
    assert house.value("select count(*) from marts.requests") == 1
    house.night()
    assert house.value("select count(*) from marts.requests") == 2


def test_many_small_objects_come_side_by_side(house: House, proxy: Proxy) -> None:
    for number in range(40):
        content = jsonl([request(f"req_{number}")]).encode()
        buckets.put(proxy, f"s3://bucket/logs/{number}.jsonl", content)
    most = [0]

    def look(asked: Asked) -> Fault:
        most[0] = max(most[0], proxy.at_once)
        return ""

    proxy.choose = look

    house.night()

    assert house.value("select count(*) from marts.requests") == 40
    assert 2 < most[0] <= 8


def test_nothing_of_what_was_fetched_stays(house: House, proxy: Proxy) -> None:
    canary = "canary-of-a-prompt"
    for name in ("a.jsonl", "b.jsonl.gz"):
        content = packed(Path(name).suffix, jsonl([request(name) | {"prompt": canary}]))
        buckets.put(proxy, f"s3://bucket/logs/{name}", content)
    with Store(house.root).spool() as spool:
        place = spool

    house.night()

    assert not place.exists()
    assert house.value("select count(*) from marts.requests") == 2
    canaries = (canary, buckets.environment(proxy)["AWS_SECRET_ACCESS_KEY"])
    for path in house.folder.rglob("*"):
        if path.is_file():
            assert not any(word.encode() in path.read_bytes() for word in canaries), path


@pytest.mark.parametrize("seed", range(6))
def test_whatever_goes_wrong_on_the_way_nothing_is_lost_or_doubled(
    house: House, proxy: Proxy, seed: int
) -> None:
    rng = random.Random(seed)
    for number in range(8):
        content = packed([".jsonl", ".gz"][number % 2], jsonl(traffic(20, 12, f"req{number % 6}")))
        suffix = [".jsonl", ".jsonl.gz"][number % 2]
        buckets.put(proxy, f"s3://bucket/logs/{number}{suffix}", content)
    rate = rng.choice([0.1, 0.3, 0.6])
    proxy.choose = lambda _: rng.choice(FAULTS) if rng.random() < rate else ""

    for _ in range(10):
        _, failure = until_failure(house.events())
        if failure is None:
            break
    proxy.choose = lambda _: ""
    house.night()

    distinct = {line["request_id"] for n in range(6) for line in traffic(20, 12, f"req{n}")}
    rows = house.rows("select request_id from marts.requests")
    assert sorted(row["request_id"] for row in rows) == sorted(distinct)


def test_directory_invoices_and_stripe_exports_may_lie_there_too(
    tmp_path: Path, proxy: Proxy
) -> None:
    local = House(tmp_path / "local")
    furnish(local, first_day=20)
    local.night()
    for path in (local.folder / "landing").rglob("*"):
        if path.is_file():
            name = path.relative_to(local.folder / "landing")
            buckets.put(proxy, f"s3://bucket/landing/{name}", path.read_bytes())
    settings = SETTINGS.replace('"landing/', '"s3://bucket/landing/') + "".join(
        f'\n[{section}]\n{name} = "s3://bucket/landing/{folder}"\n'
        for section, name, folder in (
            ("directory", "location", "directory"),
            ("invoices", "location", "invoices"),
            ("stripe", "exports", "stripe"),
        )
    )
    house = House(tmp_path / "house", settings=settings)

    house.night()

    assert house.answers() == local.answers()
    select = "select location from raw.files order by 1"
    found = [row["location"] for row in house.rows(select)]
    assert "s3://bucket/landing/directory/keys.csv" in found
    assert len(found) == len(local.rows(select))


def test_doctor_says_what_to_mend(house: House, proxy: Proxy) -> None:
    house.environment |= buckets.environment(proxy) | {
        "METERHOUSE_REQUESTS_GATEWAY_LOCATION": "s3://no-such-bucket/logs"
    }

    done = house.ask("doctor")

    assert done.returncode == 1
    assert "There is no bucket 'no-such-bucket'" in done.stdout
    assert "source proxy: nothing lies at s3://bucket/proxy" in done.stdout


def test_what_was_said_in_the_playground_is_kept_of_objects_there(
    tmp_path: Path, proxy: Proxy
) -> None:
    asking = REMOTE.replace(
        'location = "s3://bucket/logs"',
        'location = "s3://bucket/logs"\nplayground_history_days = 3',
    )
    folder = tmp_path / "sql"
    models = request_models(folder, *ROLL_UPS, "marts/playground_history")
    house = House(tmp_path / "house", models, asking)
    words = {"source": "playground", "member_id": "mem_1", "response": "the heron stands"}
    at = "2026-11-20T10:00:00Z"
    for name in ("odd [1]*.jsonl", "odd [1]*.jsonl.gz"):
        lines = jsonl([request(name, at) | words, request(f"api/{name}", at)])
        buckets.put(proxy, f"s3://bucket/logs/{name}", packed(Path(name).suffix, lines))

    house.night()

    assert house.rows(
        "select request_id, response from marts.playground_history order by request_id"
    ) == [
        {"request_id": name, "response": "the heron stands"}
        for name in ("odd [1]*.jsonl", "odd [1]*.jsonl.gz")
    ]

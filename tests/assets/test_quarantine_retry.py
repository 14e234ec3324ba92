"""`meterhouse quarantine retry`: what was set aside is read again, and nothing else twice."""

from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.calendar import utc_now
from pipelines.night import Told
from tests.houses import SETTINGS, House, csv, jsonl, packed, request, request_models

ACCOUNT = "select read_count, accepted_count, quarantined_count from ops.source_objects"


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, request_models(tmp_path))


def ids(house: House) -> list[tuple[str, int]]:
    rows = house.rows("select request_id, source_line from raw.requests order by 1")
    return [(row["request_id"], row["source_line"]) for row in rows]


def in_days(days: int) -> str:
    return f"{utc_now() + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv"])
def test_a_record_from_the_future_lands_once_its_time_has_come(house: House, name: str) -> None:
    lines = [request("now"), request("far", in_days(90)), request("soon", in_days(2))]
    text = csv(lines) if name.endswith(".csv") else jsonl(lines)
    house.put(f"requests/{name}", packed(".gz", text) if name.endswith(".gz") else text)
    first = 2 if name.endswith(".csv") else 1

    house.night(utc_now())
    assert ids(house) == [("now", first)]
    house.night(utc_now() + timedelta(days=3))
    assert ids(house) == [("now", first)]
    house.night(utc_now() + timedelta(days=3), retries=True)

    assert ids(house) == [("now", first), ("soon", first + 2)]
    assert house.rows(ACCOUNT) == [{"read_count": 3, "accepted_count": 2, "quarantined_count": 1}]
    assert house.value("select line_number from ops.quarantine") == first + 1
    house.check_whole()


def test_other_settings_make_sense_of_what_was_set_aside(house: House) -> None:
    house.put("requests/a.jsonl", [request("utc"), request("local", "2026-11-20T10:00:00")])
    house.night()
    stated = SETTINGS.replace('"canonical"\n', '"canonical"\ntime_zone = "Asia/Tokyo"\n', 1)
    house.config.write_text(stated, encoding="utf-8")

    house.night(retries=True)

    assert ids(house) == [("local", 2), ("utc", 1)]
    assert house.value("select count(*) from ops.quarantine") == 0
    house.check_whole()


def test_what_still_cannot_be_read_changes_nothing(house: House) -> None:
    house.put("requests/a.jsonl", [request(), "not json"])
    house.night()
    before = house.tables()

    told = [event.sentence for event in house.night(retries=True) if isinstance(event, Told)]

    assert house.tables() == before
    assert "Source 'gateway': of 1 records set aside 0 could be read." in told


@pytest.mark.parametrize("fate", ["gone", "changed"])
def test_an_object_that_lies_there_no_more_is_told_of(house: House, fate: str) -> None:
    path = house.put("requests/a.jsonl", [request(), request("far", in_days(2))])
    house.night(utc_now())
    if fate == "gone":
        path.unlink()
    else:
        house.put("requests/a.jsonl", [request()])

    events = house.night(utc_now() + timedelta(days=3), retries=True)

    told = [event.sentence for event in events if isinstance(event, Told)]
    assert any("lies there no more as it was landed" in sentence for sentence in told)
    assert ids(house)[0] == ("req_1", 1)
    assert house.value("select count(*) from ops.quarantine") == 1


def test_a_renamed_object_is_found_by_what_is_in_it(house: House) -> None:
    path = house.put("requests/a.jsonl", [request(), request("far", in_days(2))])
    house.night(utc_now())
    path.rename(path.with_name("b.jsonl"))

    house.night(utc_now() + timedelta(days=3), retries=True)

    assert [name for name, _ in ids(house)] == ["far", "req_1"]


def test_limits_are_settings_and_a_wider_one_takes_what_was_too_long(house: House) -> None:
    long = request("long", note="x" * 3000)
    house.put("requests/a.jsonl", [request("short"), long])
    house.put("requests/b.jsonl.zst", packed(".zst", jsonl([request("b")]) + " " * 2**21))
    narrow = "\n[limits]\nline_bytes = 2048\nunpacked_gib = 0.001\n"
    house.config.write_text(SETTINGS + narrow, encoding="utf-8")
    house.night()
    assert sorted(row["reason"] for row in house.rows("from ops.quarantine")) == [
        "longer than 2048 bytes",
        house.value("select reason from ops.quarantine where line_number is null"),
    ]

    wide = "\n[limits]\nline_bytes = 100000000\nunpacked_ratio = 100000\n"
    house.config.write_text(SETTINGS + wide, encoding="utf-8")
    house.night(retries=True)

    assert [name for name, _ in ids(house)] == ["b", "long", "short"]
    assert house.value("select count(*) from ops.quarantine") == 0
    house.check_whole()

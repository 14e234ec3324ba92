"""Restatements: a published day that changes is told of, with its reasons; nothing else is."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.models import Built, Models
from pipelines.night import Event, Told
from tests.houses import AS_OF, House, request, request_models, spend_log

FRIDAY, THURSDAY = date(2026, 11, 20), date(2026, 11, 19)
LATER = AS_OF + timedelta(days=1)


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return request_models(tmp_path_factory.mktemp("sql"))


@pytest.fixture
def house(tmp_path: Path, part: Models) -> House:
    """A house whose Friday is published: two requests of 2.5 credits."""
    house = House(tmp_path / "house", part)
    house.put("requests/a.jsonl", [request("req_1"), request("req_2")])
    house.night()
    return house


def restatements(house: House) -> list[dict[str, Any]]:
    return house.rows("from marts.restatements order by usage_date, restatement_number")


def objects(house: House, *names: str) -> list[str]:
    """The sha256 of landed files, sorted."""
    rows = house.rows("select object_sha256, location from ops.source_objects order by all")
    return [row["object_sha256"] for row in rows if row["location"].endswith(names)]


def said(happened: list[Event]) -> Iterator[str]:
    for event in happened:
        if isinstance(event, Told) and "restated" in event.sentence:
            yield event.sentence


def test_a_late_request_restates_the_day_it_belongs_to(house: House) -> None:
    house.put("requests/late.jsonl", [request("late", credits_used="0.000000001")])

    happened = house.night(LATER)

    assert restatements(house) == [
        {
            "usage_date": FRIDAY,
            "restatement_number": 1,
            "changed_at": LATER,
            "request_count_before": 2,
            "request_count_after": 3,
            "credits_before": Decimal(5),
            "credits_after": Decimal("5.000000001"),
            "source_objects": objects(house, "late.jsonl"),
        }
    ]
    assert list(said(happened)) == [
        "1 published day was restated: 2026-11-20 (+1 request, +0.000000001 credits); "
        "see marts.restatements."
    ]


def test_a_day_first_published_is_no_restatement_however_old(house: House) -> None:
    house.put("requests/old.jsonl", [request("old", "2026-10-01T10:00:00Z")])

    assert list(said(house.night(LATER))) == []
    assert restatements(house) == []


def test_a_day_that_had_not_ended_grows_and_is_not_restated(house: House) -> None:
    house.put("requests/morning.jsonl", [request("m", "2026-11-21T08:00:00Z")])
    house.night(datetime(2026, 11, 21, 12))
    house.put("requests/evening.jsonl", [request("e", "2026-11-21T20:00:00Z")])
    house.night(datetime(2026, 11, 22, 0, 30))
    grown = restatements(house)
    house.put("requests/late.jsonl", [request("l", "2026-11-21T21:00:00Z")])

    house.night(datetime(2026, 11, 23, 0, 30))

    assert grown == []
    assert [(row["usage_date"], row["request_count_after"]) for row in restatements(house)] == [
        (date(2026, 11, 21), 3)
    ]


def test_each_change_of_a_day_goes_on_from_the_one_before(house: House) -> None:
    for number in (1, 2):
        house.put(f"requests/{number}.jsonl", [request(f"late_{number}", credits_used="1")])
        house.night()  # by the same clock: a night run again because more has arrived

    rows = restatements(house)

    assert [row["restatement_number"] for row in rows] == [1, 2]
    assert [(row["credits_before"], row["credits_after"]) for row in rows] == [(5, 6), (6, 7)]


def test_what_is_delivered_twice_restates_nothing(house: House) -> None:
    house.put("requests/again.jsonl", [request("req_2"), request("req_1")])

    house.night(LATER)

    assert house.value("select sum(duplicate_count)::bigint from ops.source_objects") == 2
    assert restatements(house) == []


def test_another_winner_of_the_same_credits_is_a_restatement(house: House) -> None:
    house.put("requests/again.jsonl", [request("req_1", latency_ms=7, completion_tokens=6)])
    house.put("requests/slow.jsonl", [request("req_2", "2026-11-20T10:00:01Z")])

    happened = house.night(LATER)

    [row] = restatements(house)
    assert (row["request_count_before"], row["credits_before"]) == (2, 5)
    assert (row["request_count_after"], row["credits_after"]) == (2, 5)
    assert set(row["source_objects"]) == set(objects(house, "again.jsonl", "slow.jsonl"))
    assert "2026-11-20 (the same sums, by other records)" in " ".join(said(happened))


def test_another_winner_that_no_roll_up_shows_is_a_restatement_too(house: House) -> None:
    house.put("requests/slow.jsonl", [request("req_2", "2026-11-20T10:00:01Z", latency_ms=9)])

    house.night(LATER)

    [row] = restatements(house)
    assert row["source_objects"] == objects(house, "slow.jsonl")


def test_a_request_that_moves_to_another_day_restates_both_and_names_its_object(
    house: House,
) -> None:
    house.put("requests/thursday.jsonl", [request("req_0", "2026-11-19T10:00:00Z")])
    house.night()
    house.put("requests/moved.jsonl", [request("req_0", "2026-11-20T00:00:00Z")])

    house.night(LATER)

    rows = restatements(house)
    assert [(row["usage_date"], row["request_count_after"]) for row in rows] == [
        (THURSDAY, 0),
        (FRIDAY, 3),
    ]
    assert {name for row in rows for name in row["source_objects"]} == set(
        objects(house, "moved.jsonl")
    )


def test_a_loser_of_a_lower_format_is_no_reason(house: House) -> None:
    house.put("proxy/a.jsonl", [spend_log("req_1", 9.5), spend_log("llm_1")])

    house.night(LATER)

    [row] = restatements(house)
    assert row["request_count_after"] == 3
    assert row["source_objects"] == objects(house, "proxy/a.jsonl")


def test_a_key_that_the_directory_moves_restates_its_days_without_an_object(house: House) -> None:
    house.put("requests/unnamed.jsonl", [request("u", workspace_id=None, api_key_id="key_9")])
    house.night()
    before = len(restatements(house))
    house.put("directory/keys.csv", "api_key_id,workspace_id,name\nkey_9,ws_9,Batch\n")

    house.night(LATER)

    row = restatements(house)[-1]
    assert before == 1
    assert (row["credits_before"], row["credits_after"]) == (Decimal("7.5"), Decimal("7.5"))
    assert row["source_objects"] == []


def test_a_night_that_changes_nothing_and_a_rebuild_keep_the_history(house: House) -> None:
    house.put("requests/late.jsonl", [request("late")])
    house.night()
    known = restatements(house)
    files = house.tables()["marts.restatements"]

    house.night(LATER)
    happened = house.night(LATER, everything=True)

    assert len(known) == 1
    assert restatements(house) == known
    assert house.tables()["marts.restatements"] == files
    assert not [e for e in happened if isinstance(e, Built) and e.table == "marts.restatements"]


def test_a_night_that_fails_before_publishing_leaves_it_to_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.put("requests/late.jsonl", [request("late")])
    with monkeypatch.context() as broken:
        broken.setattr("pipelines.store.Draft.publish", lambda *_, **_options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            house.night(LATER)
    nothing = restatements(house)

    house.night(LATER)

    assert nothing == []
    assert [row["restatement_number"] for row in restatements(house)] == [1]

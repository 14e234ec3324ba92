"""What was said in the Playground: only there, only where asked for, and only for so long."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.models import Models
from pipelines.night import Built, Event, Told
from pipelines.settings import SettingsError
from tests.assets.test_erasure import erase, where_named
from tests.houses import (
    AS_OF,
    ROLL_UPS,
    SETTINGS,
    House,
    Line,
    jsonl,
    request,
    request_models,
    until_failure,
)

CANARY = "the heron stands in the reeds"
ANSWER = "and waits for a fish"
ASKING = SETTINGS.replace(
    'location = "landing/requests"', 'location = "landing/requests"\nplayground_history_days = 3'
)


def said(request_id: str, at: str = "2026-11-20T10:00:00Z", **stated: Any) -> Line:
    """A Playground request with its words."""
    return (
        request(request_id, at, source="playground", member_id="mem_1")
        | {
            "messages": [{"role": "user", "content": CANARY}],
            "response": ANSWER,
        }
        | stated
    )


@pytest.fixture
def asking(tmp_path: Path) -> House:
    return House(tmp_path / "house", some_models(tmp_path), ASKING)


def some_models(folder: Path) -> Models:
    return request_models(folder / "sql", *ROLL_UPS, "marts/playground_history")


def history(house: House) -> list[dict[str, Any]]:
    return house.rows("select * from marts.playground_history order by request_id")


def history_files(house: House) -> list[Path]:
    return list((house.root / "raw" / "playground_history").rglob("*.parquet"))


def test_nothing_that_was_said_reaches_the_disk_unless_asked_for(tmp_path: Path) -> None:
    house = House(tmp_path / "house", some_models(tmp_path))
    house.put("requests/a.jsonl", [said("req_1")])
    house.night()

    assert history(house) == []
    assert where_named(house, CANARY, ANSWER) == []
    assert "raw.playground_history" not in house.tables()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv"])
def test_an_accepted_playground_request_keeps_its_words_and_no_other(
    asking: House, name: str
) -> None:
    if name.endswith("csv"):
        words = f'"{CANARY}"'
        rows = [("req_1", "playground", CANARY), ("req_2", "api", "api words")]
        text = (
            "request_id,timestamp,source,member_id,credits_used,prompt,output\n"
            + "".join(
                f"{one},2026-11-20T10:00:00Z,{source},mem_1,1,{words},{ANSWER}\n"
                for one, source, words in rows
            )
            + "req_3,no time,playground,mem_1,1,put away,\n"
        )
        asking.put(f"requests/{name}", text)
    else:
        lines: list[Line] = [
            said("req_1"),
            said("req_2", source="api", member_id=None, response="api words"),
            said("req_3", timestamp="no time", response="put away"),
            request("req_4", source="playground"),
        ]
        words = '[{"role": "user", "content": "' + CANARY + '"}]'
        asking.put(f"requests/{name}", jsonl(lines))

    happened = asking.night()

    [row] = history(asking)
    expected = CANARY if name.endswith("csv") else words
    assert (row["request_id"], row["messages"], row["response"]) == ("req_1", expected, ANSWER)
    assert row["member_id"] == "mem_1"
    assert where_named(asking, "api words", "put away") == []
    assert [
        event.rows
        for event in happened
        if isinstance(event, Built) and event.table == "raw.playground_history"
    ] == [1]
    for path in (asking.folder / "out").rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes()
    assert CANARY.encode() not in (asking.root / "warehouse.duckdb").read_bytes()


def test_an_odd_text_is_kept_as_text(asking: House) -> None:
    odd = '"\\ud800 \\u0000 x"'
    line = jsonl([said("req_1", response="ANSWER", prompt="p")]).replace('"ANSWER"', odd)
    line = line.replace('"messages": [{', '"huge": ' + "9" * 5000 + ', "messages": [{')
    asking.put("requests/a.jsonl", line)
    asking.night()

    [row] = history(asking)
    assert row["response"] == "? \ufffd x"


def test_a_replay_says_nothing_twice_and_the_winner_s_words_stand(asking: House) -> None:
    asking.put("requests/a.jsonl", [said("req_1", response="first")])
    asking.night()
    asking.put(
        "requests/b.jsonl",
        [said("req_1", response="first"), said("req_1", credits_used="9", response="dearer")],
    )
    asking.night()

    assert [row["response"] for row in history(asking)] == ["dearer"]


def test_a_day_past_its_retention_is_gone_with_its_bytes_that_night(asking: House) -> None:
    for day in (17, 18, 19, 20):
        asking.put(f"requests/{day}.jsonl", [said(f"req_{day}", f"2026-11-{day}T10:00:00Z")])
    asking.night()

    assert [row["request_id"] for row in history(asking)] == ["req_18", "req_19", "req_20"]
    assert len(history_files(asking)) == 3  # the 17th was too old to be kept at all
    [past] = [path for path in history_files(asking) if "usage_date=2026-11-18" in str(path)]
    words = past.read_bytes()

    asking.night(AS_OF + timedelta(days=1))

    assert [row["request_id"] for row in history(asking)] == ["req_19", "req_20"]
    assert len(history_files(asking)) == 2
    assert asking.value("select count(*) from marts.requests") == 4
    asking.check_whole()

    before = asking.bytes()
    past.write_bytes(words)  # as a kill would leave it, between the snapshot and the removal
    asking.night(AS_OF + timedelta(days=1))
    assert asking.bytes() == before


def test_a_source_that_asks_no_more_keeps_nothing(asking: House) -> None:
    asking.put("requests/a.jsonl", [said("req_1")])
    asking.night()
    asking.config.write_text(SETTINGS)

    asking.night()

    assert history(asking) == []
    assert where_named(asking, CANARY) == []


def test_erasing_a_member_takes_all_that_the_member_said(asking: House) -> None:
    asking.put("requests/a.jsonl", [said("req_1"), said("req_2", member_id="mem_2", prompt="p")])
    asking.put(
        "requests/b.jsonl", [said("req_3", "2026-11-19T10:00:00Z", response="quite-alone-7")]
    )
    other = said("req_4", member_id="mem_2", messages="ask mem_1 of mem_10", response=None)
    asking.put("requests/c.jsonl", [other])
    asking.night()

    name = erase(asking, "mem_1", ())
    asking.night(lands=False)

    assert [row["request_id"] for row in history(asking)] == ["req_2", "req_4"]
    assert history(asking)[1]["messages"] == f"ask {name} of mem_10"
    assert asking.value("select count(*) from raw.playground_history") == 2
    assert where_named(asking, "quite-alone-7") == []

    asking.put("requests/again.jsonl", [said("req_1"), said("req_5", "2026-11-20T11:00:00Z")])
    asking.night()
    assert {row["member_id"] for row in history(asking)} == {"mem_2"}
    assert asking.value("select count(*) from marts.requests where member_id = 'mem_1'") == 0


def test_a_format_that_carries_none_cannot_be_asked(tmp_path: Path) -> None:
    settings = ASKING.replace('format = "canonical"', 'format = "usage_csv"')
    house = House(tmp_path / "house", settings=settings)

    _, error = until_failure(house.events())

    assert isinstance(error, SettingsError)
    assert "'gateway'" in str(error)


def test_a_file_that_is_gone_when_its_words_are_read_is_said(asking: House) -> None:
    path = asking.put("requests/a.jsonl", [said("req_1")])
    events = asking.events()
    happened: list[Event] = []
    for event in events:
        happened.append(event)
        if isinstance(event, Built) and event.table == "raw.requests":
            path.write_text(path.read_text().replace("heron", "crane"))

    assert history(asking) == []
    assert any("changed since" in one.sentence for one in happened if isinstance(one, Told))
    assert asking.value("select count(*) from marts.requests") == 1

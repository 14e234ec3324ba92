"""A file is read by its place alone: nothing in its name is a pattern, a partition or a reason to
stop.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.models import Models
from pipelines.night import Told
from tests.houses import House, csv, jsonl, models_for, request

MARKED = ["a[1].jsonl", "a?.jsonl", "a*.jsonl", "[a]/b.jsonl", "a[1].csv", "a[1].jsonl.gz"]
NO_TEXT = os.fsdecode(b"\xff.jsonl")


@pytest.fixture
def house(tmp_path: Path, some_models: Models) -> House:
    return House(tmp_path / "house", some_models)


def ids(house: House) -> list[str]:
    rows = house.rows("select request_id from marts.requests order by 1")
    return [row["request_id"] for row in rows]


def content(name: str, *lines: dict[str, Any]) -> str:
    return csv(lines) if name.endswith(".csv") else jsonl(lines)


@pytest.mark.parametrize("name", MARKED)
def test_a_name_with_the_marks_of_a_pattern_is_that_file_and_no_other(
    house: House, name: str
) -> None:
    """`a1` is what `a[1]`, `a?` and `a*` would find as patterns."""
    house.put(f"requests/{name}", content(name, request("marked"), request("more")))
    for plain in ("a1.jsonl", "a2.jsonl", "a/b.jsonl", "a1.csv"):
        house.put(f"requests/{plain}", content(plain, request(plain)))

    house.night()

    assert ids(house) == ["a/b.jsonl", "a1.csv", "a1.jsonl", "a2.jsonl", "marked", "more"]
    places = [row["location"] for row in house.rows("select location from ops.source_objects")]
    assert sum(place.endswith(f"/{name}") for place in places) == 1
    assert house.rows("from ops.quarantine") == []


def test_a_marked_name_with_a_bad_line_loses_no_good_one(house: House) -> None:
    house.put("requests/a[1].jsonl", [request("a"), "{", request("b")])
    house.put("requests/a1.jsonl", [request("c")])

    house.night()

    assert ids(house) == ["a", "b", "c"]
    assert house.value("select location from ops.quarantine").endswith("/a[1].jsonl")


@pytest.mark.parametrize("name", ["a [1]", "a*", "{a}", "it's"])
def test_a_house_may_stand_in_a_folder_with_the_marks_of_a_pattern(
    tmp_path: Path, some_models: Models, name: str
) -> None:
    (tmp_path / "a1").mkdir()
    house = House(tmp_path / name, some_models)
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    house.put("requests/b.jsonl", [request("b"), request("a", credits_used="7")])
    house.night()

    assert ids(house) == ["a", "b"]


def test_a_name_that_is_no_text_is_read_and_shown_with_a_stand_in(house: House) -> None:
    house.put(f"requests/{NO_TEXT}", [request("a"), "{"])
    house.put(f"requests/{NO_TEXT}.gz", jsonl([request("b")]))
    house.put("requests/plain.jsonl", [request("c")])
    house.put(os.fsdecode(b"requests/\xfe.txt"), "no log")

    happened = house.night()

    assert ids(house) == ["a", "b", "c"]
    places = house.rows("select location from ops.source_objects order by 1 desc limit 2")
    assert [row["location"].rpartition("/")[2] for row in places] == [
        "\ufffd.jsonl.gz",
        "\ufffd.jsonl",
    ]
    said = [event.sentence for event in happened if isinstance(event, Told)]
    assert any("\ufffd.txt" in sentence for sentence in said)
    assert not [event for event in house.night() if type(event).__name__ == "Published"]


def test_a_directory_file_whose_name_is_no_text_is_landed(tmp_path: Path) -> None:
    house = House(tmp_path / "house", models_for("marts.usage_overview"))
    name = os.fsdecode(b"directory/workspaces-\xff.csv")
    house.put(name, "workspace_id,name\nws_1,Acme\nws_2,Beta,\n")
    house.put(os.fsdecode(b"directory/\xff.csv"), "x\n")

    house.night()

    assert house.value("select workspace_name from marts.usage_overview") == "Acme"
    assert house.value("select location from ops.quarantine").endswith("workspaces-\ufffd.csv")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_folder_named_like_a_partition_states_nothing_about_its_records(
    house: House, name: str
) -> None:
    lines = [request("a", workspace_id="ws_own"), request("b", workspace_id="ws_own")]
    folder = "requests/model=evil/workspace_id=wsX/credits_used=0/request_id=x"
    house.put(f"{folder}/{name}", content(name, *lines))

    house.night()

    rows = house.rows("select * from marts.requests order by request_id")
    assert [(row["request_id"], row["workspace_id"], row["model"]) for row in rows] == [
        ("a", "ws_own", "gpt-5"),
        ("b", "ws_own", "gpt-5"),
    ]
    assert {str(row["credits"]) for row in rows} == {"2.500000000"}


# ---- headers --------------------------------------------------------------------------------

ROW = "2026-11-20T10:00:00Z,1.5"
HEAD = "timestamp,credits_used"


def test_names_that_differ_in_case_alone_are_two_columns(house: House) -> None:
    house.put("requests/a.csv", f"REQUEST_ID,request_id,{HEAD}\nwrong,right,{ROW}\n")

    house.night()

    assert ids(house) == ["right"]


def test_a_column_given_twice_is_not_chosen_from(house: House) -> None:
    house.put("requests/a.csv", f"request_id,request_id,{HEAD}\nfirst,second,{ROW}\n")

    house.night()

    assert house.value("select reason from ops.quarantine") == "a column is given twice"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_a_header_that_cannot_be_read_sets_its_rows_aside_and_the_night_goes_on(
    house: House, encoding: str
) -> None:
    text = f"request_id,{HEAD},note é\na,{ROW},\nb,{ROW},\n"
    house.put("requests/bad.csv", text.encode(encoding))
    house.put("requests/good.csv", f"request_id,{HEAD}\nc,{ROW}\n")

    house.night()

    assert ids(house) == ["c"]
    lines = {row["line_number"] for row in house.rows("from ops.quarantine")}
    assert lines >= {2, 3}
    assert not [event for event in house.night() if type(event).__name__ == "Published"]


def test_a_header_with_an_unclosed_quote_is_no_empty_file(house: House) -> None:
    house.put("requests/a.csv", f'"request_id,{HEAD}\na,{ROW}\n')

    house.night()

    [aside] = house.rows("from ops.quarantine")
    assert (aside["line_number"], aside["reason"]) == (
        1,
        "the header can't be read: an unclosed quote",
    )

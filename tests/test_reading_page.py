"""Reading, line by line of its page (facts/reading.md): each odd record, and what becomes of it.

Each record lands twice: alone in its object, which the engine takes if it dares, and among others
that only the careful path can read. Whatever is said of it holds both times, and what is set aside
is set aside by its line, its byte offset, its length and its hash. `TESTS` says where each line of
the page is tried; where the page lies beside the checkout, a line that is tried nowhere fails.
"""

import csv as comma
import hashlib
import io
import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from assets.requests import formats
from pipelines.calendar import utc_now
from pipelines.models import Models
from pipelines.reading import COMPLETED, CREDITS, FLOAT_MONEY, IDENTIFIER
from pipelines.settings import Limits
from tests.houses import House, Line, csv, jsonl, models_for, packed, request, request_models

SOURCE = '[[requests]]\nname = "{0}"\nformat = "{1}"\nlocation = "landing/{0}"\n'
TWO_WAYS = SOURCE.format("alone", "canonical"), SOURCE.format("among", "canonical")

# Where each line of the page is tried, by how the line begins.
TESTS = {
    # identity
    "request_id missing, null, empty": [
        "test_reading_page.py::test_an_id_that_is_missing_or_a_number_is_set_aside",
    ],
    "ids with blanks, other Unicode": [
        "test_reading_page.py::test_an_id_is_kept_as_it_is_written",
        "test_reading_page.py::test_three_requests_that_share_the_id_none_are_one_and_two_listed",
    ],
    "the same id in two workspaces": [
        "test_reading_page.py::test_an_id_is_one_request_in_two_workspaces_and_a_year_apart",
    ],
    "a record equal field by field": [
        "test_reading_page.py::test_a_record_written_otherwise_is_a_duplicate",
        "assets/test_requests.py::test_a_record_written_otherwise_is_a_duplicate_and_no_conflict",
    ],
    "the same id, other credits": [
        "test_reading_page.py::test_a_record_that_states_otherwise_is_listed_with_both_versions",
    ],
    "a record of a lower source": [
        "assets/test_usage_csv.py::"
        "test_beside_the_canonical_log_it_corroborates_and_fills_what_is_missing",
        "assets/test_requests.py::test_a_lower_format_corroborates_and_fills_what_is_missing",
    ],
    # who and what
    "workspace_id null, absent or empty": [
        "test_reading_page.py::test_a_workspace_comes_from_the_directory_then_from_the_source",
    ],
    "api_key_id, model, status null": [
        "test_reading_page.py::test_a_key_model_or_status_that_is_missing_is_null",
        "test_reading_page.py::test_what_is_missing_is_shown_as_unassigned",
    ],
    "a key or workspace that the directory": [
        "test_reading_page.py::test_what_the_directory_does_not_know_is_accepted_in_utc",
    ],
    "source absent": ["test_reading_page.py::test_a_source_is_absent_or_one_of_two_words"],
    "member_id on an API call": [
        "test_reading_page.py::test_a_call_by_key_belongs_to_no_member",
    ],
    "fallback": ["test_reading_page.py::test_a_fallback_fired_where_either_field_says_so"],
    # credits
    "absent, null, empty text, true/false": [
        "test_reading_page.py::test_credits_that_are_missing_or_no_amount_are_set_aside",
    ],
    "text that is not a plain JSON number": [
        "test_reading_page.py::test_credits_that_are_no_plain_number_are_set_aside",
    ],
    "an exponent": ["test_reading_page.py::test_credits_written_oddly_are_taken_exactly"],
    "more than nine significant places": [
        "test_reading_page.py::test_credits_finer_than_nine_places_or_a_billion_are_set_aside",
        "assets/test_litellm_spendlogs.py::"
        "test_money_beyond_nine_places_goes_to_the_even_neighbour",
        "assets/test_litellm_spendlogs.py::test_the_night_reports_how_many_rows_were_rounded",
    ],
    # tokens, status
    "absent or null": ["test_reading_page.py::test_tokens_that_are_missing_stay_null"],
    "text of digits": ["test_reading_page.py::test_counts_may_be_digits_or_end_in_a_nought"],
    "negative, fractional": [
        "test_reading_page.py::test_counts_that_are_no_whole_number_are_set_aside",
    ],
    # time
    "timestamp missing": ["test_reading_page.py::test_a_time_that_is_no_instant_is_set_aside"],
    "lower-case t/z": ["test_reading_page.py::test_an_instant_written_otherwise_is_taken"],
    "later by more than 5 minutes": [
        "test_reading_page.py::test_the_future_is_later_than_as_of_and_the_wall_clock",
    ],
    "long ago": ["test_reading_page.py::test_late_is_late"],
    "a zone-less local time": [
        "test_reading_page.py::test_a_time_without_zone_is_the_sources",
        "test_reading_page.py::test_a_time_without_zone_is_set_aside_where_the_source_has_none",
    ],
    "the four instants": ["test_reading_page.py::test_the_four_instants_are_taken_as_stated"],
    # text of a line
    "malformed JSON": [
        "test_reading_page.py::test_a_line_that_is_no_record_is_set_aside_by_place",
        "test_reading_page.py::test_a_nul_in_a_cell_that_is_kept_is_set_aside",
    ],
    "unknown fields": ["test_reading_page.py::test_what_is_not_kept_may_be_anything"],
    "a line over the limit": ["test_reading_page.py::test_a_line_is_a_mebibyte_at_most"],
    "blank lines": ["test_reading_page.py::test_blank_lines_a_bom_and_crlf_are_no_records"],
    "CSV": [
        "assets/test_requests.py::test_a_csv_is_read_by_its_header_in_any_order",
        "assets/test_requests.py::test_a_csv_without_a_needed_column_is_set_aside_row_by_row",
        "assets/test_requests.py::test_an_unclosed_quote_is_one_record_to_the_end",
        "test_reading_page.py::test_the_records_of_a_csv_stand_at_their_lines",
    ],
    # objects
    "truncated gzip": [
        "assets/test_requests.py::test_an_object_whose_bytes_cannot_be_trusted_is_refused_whole",
        "assets/test_requests.py::"
        "test_members_and_zero_padding_of_gzip_and_frames_of_zstd_are_fine",
    ],
    "decompressed beyond a limit": [
        "test_reading_page.py::test_an_object_that_unpacks_without_end_is_refused_whole",
    ],
    "empty": ["assets/test_requests.py::test_an_empty_object_has_no_record"],
    "grown": [
        "assets/test_requests.py::test_a_grown_file_adds_its_new_lines_and_a_vanished_one_takes_nothing",
        "test_reading_page.py::test_what_was_read_of_a_replaced_object_stays",
    ],
    ".tmp, .part": [
        "assets/test_requests.py::test_what_is_no_object_is_passed_over_and_an_unknown_suffix_is_named",
    ],
}


def test_every_line_of_the_page_is_tried(shared: Path) -> None:
    page = (shared / "facts" / "reading.md").read_text(encoding="utf-8").splitlines()
    cells = [re.sub("[`*]", "", line).strip("| ").split(" | ") for line in page if "| " in line]
    lines = [cell[0] for cell in cells[2:] if len(cell) > 1 and cell[1].strip(" |")]
    assert len(lines) > 30

    untried = [line for line in lines if not any(line.startswith(name) for name in TESTS)]
    gone = [name for name in TESTS if not any(line.startswith(name) for line in lines)]

    assert (untried, gone) == ([], [])


def test_the_tests_that_are_named_here_are_there() -> None:
    for name in (name for names in TESTS.values() for name in names):
        file, _, test = name.partition("::")
        assert f"\ndef {test}(" in (Path(__file__).parent / file).read_text(encoding="utf-8"), name


# ---- two ways -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return request_models(tmp_path_factory.mktemp("sql"))


@pytest.fixture
def house(tmp_path: Path, some_models: Models) -> House:
    return House(tmp_path / "house", some_models, "".join(TWO_WAYS))


def text_of(line: Line | str | bytes) -> bytes:
    """A line without its end."""
    if isinstance(line, bytes):
        return line
    return (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)).encode()


def read(house: House, odd: Sequence[Line | str | bytes]) -> list[Line | str]:
    """What becomes of each line, by one night: its row, or the reason for which it is set aside.

    Asserts that it becomes the same alone and among others, and that its place is right.
    """
    texts = [text_of(line) for line in odd]
    good = [text_of(request("good")), text_of(request("careful", credits_used="2.5E0"))]
    for number, text in enumerate(texts):
        house.put(f"alone/{number:03}.jsonl", text + b"\n")
    among = [good[0], *texts, good[1]]
    house.put("among/a.jsonl", b"\n".join(among) + b"\n")

    house.night()

    rows = house.rows(
        "select requests.* exclude (source_object, arrived_at), location "
        "from raw.requests as requests "
        "join ops.source_objects on object_sha256 = source_object "
        "and source_objects.source = source_name "
        "order by location, source_line"
    )
    aside = house.rows("from ops.quarantine select * exclude (arrived_at)")
    found: dict[tuple[str, int], Line | str] = {}
    for row in rows:
        name = Path(row.pop("location")).name
        found[name, row.pop("source_line")] = row
    for line in aside:
        name, number = Path(line["location"]).name, line["line_number"]
        text = among[number - 1] if name == "a.jsonl" else texts[int(name[:3])]
        offset = sum(len(text) + 1 for text in among[: number - 1]) if name == "a.jsonl" else 0
        assert line["byte_offset"] == offset
        assert line["byte_length"] == len(text)
        assert line["line_sha256"] == hashlib.sha256(text).hexdigest()
        found[name, number] = line["reason"]
    [(read_count, counted)] = [
        tuple(row.values())
        for row in house.rows(
            "select sum(read_count)::bigint, sum(accepted_count + folded_count + "
            "corroborating_count + duplicate_count + quarantined_count)::bigint "
            "from ops.source_objects"
        )
    ]
    assert read_count == counted == len(rows) + len(aside)
    outcomes = []
    for number in range(len(texts)):
        alone, together = found[f"{number:03}.jsonl", 1], found["a.jsonl", number + 2]
        for outcome in (alone, together):
            if isinstance(outcome, dict):
                del outcome["gateway"], outcome["source_name"]
        assert alone == together, texts[number][:200]
        outcomes.append(alone)
    return outcomes


def accepted(house: House, odd: Sequence[Line | str | bytes]) -> list[Line]:
    """The rows of lines that are all accepted."""
    outcomes = read(house, odd)
    assert not [pair for pair in zip(odd, outcomes, strict=True) if isinstance(pair[1], str)]
    return [row for row in outcomes if isinstance(row, dict)]


def refused(house: House, odd: Sequence[Line | str | bytes]) -> list[str]:
    """The reasons of lines that are all set aside."""
    outcomes = read(house, odd)
    assert not [pair for pair in zip(odd, outcomes, strict=True) if isinstance(pair[1], dict)]
    return [reason for reason in outcomes if isinstance(reason, str)]


def stating(name: str, *values: str) -> list[str]:
    """Records whose field holds each of these values, written as they are; `-`: it is absent."""
    lines = []
    for number, value in enumerate(values):
        line = request(f"req_{number}") | {name: "@"}
        if value == "-":
            del line[name]
        lines.append(json.dumps(line).replace('"@"', value))
    return lines


NOTHING = ("-", "null", '""')


# ---- identity -------------------------------------------------------------------------------


def test_an_id_that_is_missing_or_a_number_is_set_aside(house: House) -> None:
    reasons = refused(house, stating("request_id", *NOTHING, "7", "1.5e3"))

    assert reasons == ["request_id is missing"] * 3 + ["request_id is not text"] * 2


def test_an_id_is_kept_as_it_is_written(house: House) -> None:
    ids = [" a", "a", "a ", "A", "é", "e\u0301", "None", "null", "\u00a0a", "a\tb", "ﬁ", "fi"]

    rows = accepted(house, [request(name) for name in ids])

    assert [row["request_id"] for row in rows] == ids
    assert house.value("select count(*) from marts.requests where gateway = 'alone'") == len(ids)


def test_three_requests_that_share_the_id_none_are_one_and_two_listed(house: House) -> None:
    """Of the same time and credits, but for the tokens they state."""
    house.put("alone/a.jsonl", [request("None", prompt_tokens=tokens) for tokens in (1, 2, 3)])

    house.night()

    assert house.value("select count(*) from marts.requests") == 1
    assert house.value("select count(*) from ops.conflicts") == 2
    assert house.value("select duplicate_count from ops.source_objects") == 2


def test_an_id_is_one_request_in_two_workspaces_and_a_year_apart(house: House) -> None:
    house.put("alone/a.jsonl", [request("a", "2025-11-20T10:00:00Z", workspace_id="ws_1")])
    house.night()
    house.put("alone/b.jsonl", [request("a", "2026-11-20T10:00:00Z", workspace_id="ws_2")])

    house.night()

    [row] = house.rows("from marts.requests")
    assert (row["workspace_id"], row["completed_at"].year) == ("ws_2", 2026)
    counts = house.rows("select accepted_count, duplicate_count from ops.source_objects order by 1")
    assert [tuple(count.values()) for count in counts] == [(0, 1), (1, 0)]


def test_a_record_written_otherwise_is_a_duplicate(house: House) -> None:
    plain = request("a", credits_used=2.5, gateway_in_at="2026-11-20T09:59:59.5Z")
    ways: list[Line | str] = [
        plain | {"credits_used": "2.50"},
        plain | {"timestamp": "2026-11-20T10:00:00+00:00"},
        plain | {"timestamp": "2026-11-20t15:30:00.0000009+05:30", "gateway_in_at": None} | plain,
        dict(reversed(plain.items())),
        plain | {"prompt": "dropped", "seen": [1, {"more": None}]},
        plain | {"prompt_tokens": "10", "status": 200.0, "stream": None, "error_code": ""},
        json.dumps(plain).replace('"a"', '"\\u0061"').replace(": ", " :\t"),
    ]
    house.put("alone/a.jsonl", [plain, *ways])

    house.night()

    assert house.value("select count(*) from marts.requests") == 1
    assert house.value("select source_line from marts.requests") == 1
    assert house.value("select duplicate_count from ops.source_objects") == len(ways)
    assert house.rows("from ops.conflicts") == []


def test_a_record_that_states_otherwise_is_listed_with_both_versions(house: House) -> None:
    winner = request("a", credits_used="9.000000001", total_tokens=15)
    others = {
        "credits": {"credits_used": "9"},
        "prompt_tokens": {"prompt_tokens": 11},
        "completion_tokens": {"completion_tokens": 6},
        "total_tokens": {"total_tokens": 16},
        "api_key_id": {"api_key_id": "key_2"},
        "model": {"model": "small"},
        "": {"requested_model": "other"},  # duplicate, and nobody's money is in doubt
    }
    earlier = {"timestamp": "2026-11-20T09:00:00Z"}
    house.put("alone/a.jsonl", [winner, *(winner | earlier | other for other in others.values())])

    house.night()

    assert house.value("select duplicate_count from ops.source_objects") == len(others)
    [counts] = house.rows("select credits, api_key_id, model from marts.requests")
    assert counts == {"credits": Decimal("9.000000001"), "api_key_id": "key_1", "model": "gpt-5"}
    listed = house.rows(
        "select differs_in, conflicts.credits, winner_credits, loser.prompt_tokens, loser.model "
        "from ops.conflicts join raw.requests as loser using (source_object, source_line) "
        "order by source_line"
    )
    assert [row["differs_in"] for row in listed] == [name for name in others if name]
    assert {row["winner_credits"] for row in listed} == {Decimal("9.000000001")}
    assert [row["credits"] for row in listed][:2] == [Decimal(9), Decimal("9.000000001")]
    assert (listed[1]["prompt_tokens"], listed[5]["model"]) == (11, "small")


# ---- who and what ---------------------------------------------------------------------------

# A value of each kind of field that a format needs, as JSON and CSV state it.
NEEDED = {
    IDENTIFIER: "req_1",
    COMPLETED: "2026-11-20T10:00:00Z",
    CREDITS: "2.5",
    FLOAT_MONEY: "0.025",
}


@pytest.mark.parametrize(
    "name",  # those with a field for the id and the key; the others' own tests say where they stand
    sorted(
        name
        for name, known in formats().items()
        if known.fields.get(known.request["request_id"]) is IDENTIFIER
        and known.request.get("api_key_id") in known.fields
        and not known.fetch
    ),
)
def test_a_workspace_comes_from_the_directory_then_from_the_source(
    tmp_path: Path, some_models: Models, name: str
) -> None:
    known = formats()[name]
    source = SOURCE.format("set", name) + 'workspace_id = "ws_set"\n' + SOURCE.format("bare", name)
    house = House(tmp_path / "house", some_models, source)
    house.put("directory/keys.csv", "api_key_id,workspace_id,name\nkey_known,ws_known,Bot\n")
    needed = {field: NEEDED[kind] for field, kind in known.fields.items() if kind.needed}
    stated = known.request.get("workspace_id", "")
    nothing = [{}, {stated: None}, {stated: ""}] if stated in known.fields else [{}]
    lines = [
        needed | empty | {known.request["request_id"]: key, known.request["api_key_id"]: key}
        for key in ("key_known", "key_unknown")
        for empty in nothing
    ]
    for number, line in enumerate(lines):
        line[known.request["request_id"]] += str(number)
    for folder in ("set", "bare"):
        house.put(f"{folder}/a.jsonl", lines)

    house.night()

    found = house.rows("select gateway, api_key_id, workspace_id from marts.requests group by all")
    assert {(row["gateway"], row["api_key_id"]): row["workspace_id"] for row in found} == {
        ("set", "key_known"): "ws_known",
        ("set", "key_unknown"): "ws_set",
        ("bare", "key_known"): "ws_known",
        ("bare", "key_unknown"): None,
    }
    assert house.value("select count(*) from marts.requests") == 2 * len(lines)


@pytest.mark.parametrize("name", ["api_key_id", "model", "status"])
def test_a_key_model_or_status_that_is_missing_is_null(house: House, name: str) -> None:
    rows = accepted(house, stating(name, *NOTHING))

    assert [row[name] for row in rows] == [None] * 3


def test_what_is_missing_is_shown_as_unassigned(tmp_path: Path) -> None:
    named = ("staging.keys", "staging.workspaces")
    house = House(tmp_path / "house", models_for("marts.usage_by_key", *named))
    house.put("requests/a.jsonl", [request("a", workspace_id="", api_key_id=None, model=None)])
    house.night()

    for group in ("model", "key", "workspace"):
        days = ("--from", "2026-11-20", "--to", "2026-11-20")
        shown = house.ask("usage", "--group-by", group, *days, check=True).stdout
        assert "unassigned" in shown, shown
    assert house.ask("request", "a", check=True).stdout.count("unassigned") == 2


def test_what_the_directory_does_not_know_is_accepted_in_utc(tmp_path: Path) -> None:
    house = House(tmp_path / "house", models_for("marts.usage_by_key", "staging.workspaces"))
    house.put(
        "directory/workspaces.csv",
        "workspace_id,name,time_zone,plan,monthly_allowance_credits,cycle_anchor_date,billing_email\n"
        "ws_known,Acme,Asia/Kolkata,scale,500,2026-11-16,a@acme.example\n",
    )
    for workspace in ("ws_known", "ws_unknown"):
        line = request(workspace, "2026-11-19T20:00:00Z", workspace_id=workspace, api_key_id="k")
        house.put(f"requests/{workspace}.jsonl", [line])
    house.night()

    days = []
    for workspace in ("ws_known", "ws_unknown"):
        words = ("--group-by", "day", "--workspace", workspace, "--last", "7d", "--format", "json")
        [row] = json.loads(house.ask("usage", *words, check=True).stdout)
        days.append(row["usage_date"])
    assert days == ["2026-11-20", "2026-11-19"]


def test_a_source_is_absent_or_one_of_two_words(house: House) -> None:
    values = (*NOTHING, '"api"', '"playground"', '"API"', '"batch"', '"api "', "7", "true")
    lines = [line[:-1] + ', "member_id": "m"}' for line in stating("source", *values)]

    outcomes = read(house, lines)

    taken = [(row["source"], row["member_id"]) for row in outcomes if isinstance(row, dict)]
    assert taken == [(None, None)] * 3 + [("api", None), ("playground", "m")]
    assert [reason for reason in outcomes if isinstance(reason, str)] == [
        *["source is none of api, playground"] * 3,
        *["source is not text"] * 2,
    ]


def test_a_call_by_key_belongs_to_no_member(house: House) -> None:
    [row] = accepted(house, [request("a", source="api", member_id="mem_1")])

    assert row["member_id"] is None


def test_a_fallback_fired_where_either_field_says_so(house: House) -> None:
    stated = [
        {"fallback_from": "opus"},
        {"fallback_depth": 1},
        {"fallback_from": "opus", "fallback_depth": 0},
        {"fallback_from": "", "fallback_depth": 0},
        {},
    ]
    lines = [request(f"r_{n}", model=f"m_{n}", **fields) for n, fields in enumerate(stated)]

    accepted(house, lines)

    fired = house.rows(
        "select distinct model, fallback_count from marts.usage_quarter_hourly "
        "where model like 'm_%' order by 1"
    )
    assert [row["fallback_count"] for row in fired] == [2, 2, 2, 0, 0]  # each landed twice


# ---- credits --------------------------------------------------------------------------------


def test_credits_that_are_missing_or_no_amount_are_set_aside(house: House) -> None:
    values = (*NOTHING, "true", "false", "-1", '"-0.000000001"', "NaN", "Infinity", "-Infinity")
    written = ('"NaN"', '"Infinity"', '"inf"', "{}", "[2.5]")

    refused(house, stating("credits_used", *values, *written))


def test_credits_that_are_no_plain_number_are_set_aside(house: House) -> None:
    texts = (" 2.5", "2.5 ", "+2.5", "1_000", "1,000.5", ".5", "5.", "0x10", "２.５", "02.5", "2,5")
    bare = ("+2.5", ".5", "5.", "0x10", "02.5", "1_000")

    refused(house, stating("credits_used", *(f'"{text}"' for text in texts), *bare))


def test_credits_written_oddly_are_taken_exactly(house: House) -> None:
    values = {
        "2.5E1": "25",
        '"2.5e1"': "25",
        "25e-1": "2.5",
        "1E-9": "0.000000001",
        "-0": "0",
        '"-0.0"': "0",
        "2.500000000000000": "2.5",
        '"0.12345678900000000000"': "0.123456789",
        "123456789.123456789": "123456789.123456789",
        "8947030.44518": "8947030.44518",
        "999999999.999999999": "999999999.999999999",
        "0.1": "0.1",
    }

    rows = accepted(house, stating("credits_used", *values))

    assert [row["credits"] for row in rows] == [Decimal(exact) for exact in values.values()]


def test_credits_finer_than_nine_places_or_a_billion_are_set_aside(house: House) -> None:
    values = ("0.0000000001", '"1.0000000001"', "1e-10", "1000000000", "1e9", '"12345678901"')

    refused(house, stating("credits_used", *values))


# ---- tokens, status -------------------------------------------------------------------------


def test_tokens_that_are_missing_stay_null(house: House) -> None:
    stated = [
        {"prompt_tokens": None, "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 99},
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 7},
        {"prompt_tokens": 0, "completion_tokens": 0},
    ]
    lines = [request(f"r_{n}", model="m", **fields) for n, fields in enumerate(stated)]
    del lines[0]["prompt_tokens"]

    rows = accepted(house, lines)

    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (None, 5, None),
        (10, 5, 15),
        (10, 5, 99),
        (None, None, 7),
        (0, 0, 0),
    ]
    [sums] = house.rows(
        f"select distinct {', '.join(names)} from marts.usage_quarter_hourly where model = 'm'"
    )
    assert tuple(sums.values()) == (2 * 20, 2 * 15, 2 * 121)  # each landed twice


@pytest.mark.parametrize("name", ["prompt_tokens", "total_tokens", "status", "latency_ms"])
def test_counts_may_be_digits_or_end_in_a_nought(house: House, name: str) -> None:
    rows = accepted(house, stating(name, '"12"', "12.0", '"12.0"', "1.2e1", "12", '"012"'))

    assert [row[name] for row in rows] == [12] * 6


@pytest.mark.parametrize("name", ["completion_tokens", "status"])
def test_counts_that_are_no_whole_number_are_set_aside(house: House, name: str) -> None:
    values = ("-1", '"-1"', "1.5", "9223372036854775808", "1e30", "true", '"ten"', '" 1"', "{}")

    refused(house, stating(name, *values, "NaN", "[1]", '"1,000"'))


# ---- time -----------------------------------------------------------------------------------


def test_a_time_that_is_no_instant_is_set_aside(house: House) -> None:
    """Though another field says when it was: the time is never taken from elsewhere."""
    values = (
        *NOTHING,
        '"2026-11-20"',
        "1763632800",
        "1763632800000",
        '"1763632800"',
        "1763632800.5",
        '"2026-11-20T10:00:60Z"',
        '"2026-11-20T24:00:00Z"',
        '"2026-02-30T10:00:00Z"',
        '"20/11/2026 10:00"',
        '"yesterday"',
        '"10000-01-01T00:00:00Z"',
        '"0000-01-01T00:00:00Z"',
        '"0001-01-01T00:00:00+05:30"',
        "true",
    )
    lines = [
        line[:-1] + ', "gateway_out_at": "2026-11-20T10:00:00Z"}'
        for line in stating("timestamp", *values)
    ]

    refused(house, lines)


def test_an_instant_written_otherwise_is_taken(house: House) -> None:
    ten = datetime(2026, 11, 20, 10)
    values = {
        '"2026-11-20t10:00:00z"': ten,
        '"2026-11-20 10:00:00Z"': ten,
        '"2026-11-20T10:00:00-00:00"': ten,
        '"2026-11-20T15:30:00+05:30"': ten,
        '"2026-11-19T22:00:00-12:00"': ten,
        '"2026-11-20T10:00:00.5Z"': ten.replace(microsecond=500_000),
        '"2026-11-20T10:00:00.123456Z"': ten.replace(microsecond=123_456),
        '"2026-11-20T10:00:00.1234569Z"': ten.replace(microsecond=123_456),
        '"2026-11-20T10:00:00.999999999999Z"': ten.replace(microsecond=999_999),
    }

    rows = accepted(house, stating("timestamp", *values))

    assert [row["completed_at"] for row in rows] == list(values.values())


def test_the_future_is_later_than_as_of_and_the_wall_clock(house: House) -> None:
    """Both: a night of last year takes today's lines, and one of next year its own."""
    now = utc_now()
    soon, later = (f"{now + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}" for minutes in (4, 9))

    house.put("alone/a.jsonl", [request("soon", soon), request("later", later)])
    house.night(now - timedelta(days=365))

    [aside] = house.rows("select line_number, byte_offset, reason from ops.quarantine")
    assert (aside["line_number"], aside["reason"]) == (2, "timestamp is in the future")
    house.put("alone/b.jsonl", [request("next", later)])
    house.night(now + timedelta(days=365))
    found = house.rows("select request_id from marts.requests order by 1")
    assert [row["request_id"] for row in found] == ["next", "soon"]


def test_late_is_late(house: House) -> None:
    instants = ("2020-02-29T12:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z")

    rows = accepted(house, [request(at, at) for at in instants])

    assert [row["completed_at"].year for row in rows] == [2020, 1970, 1]


def test_a_time_without_zone_is_the_sources(tmp_path: Path, some_models: Models) -> None:
    source = "".join(way + 'time_zone = "America/New_York"\n' for way in TWO_WAYS)
    house = House(tmp_path / "house", some_models, source)
    values = {
        '"2026-07-01T12:00:00"': datetime(2026, 7, 1, 16),
        '"2026-07-01 12:00:00.25"': datetime(2026, 7, 1, 16, microsecond=250_000),
        '"2026-11-01T01:30:00"': datetime(2026, 11, 1, 5, 30),  # twice: the first
        '"2026-07-01T12:00:00Z"': datetime(2026, 7, 1, 12),
        '"2026-03-08T02:30:00"': "timestamp is a local time that never happens",
    }

    outcomes = read(house, stating("timestamp", *values))

    found = [row if isinstance(row, str) else row["completed_at"] for row in outcomes]
    assert found == list(values.values())


def test_a_time_without_zone_is_set_aside_where_the_source_has_none(house: House) -> None:
    [reason] = refused(house, stating("timestamp", '"2026-07-01T12:00:00"'))

    assert reason == "timestamp has no zone, and the source has no time_zone"


def test_the_four_instants_are_taken_as_stated(house: House) -> None:
    instants = ("gateway_in_at", "provider_in_at", "provider_out_at", "gateway_out_at")
    backwards: dict[str, Any] = {
        name: f"2026-11-20T10:00:0{9 - number}Z" for number, name in enumerate(instants)
    }
    half = {"gateway_out_at": "2026-11-20T10:00:09Z", "latency_ms": 7}
    unreadable = [request(f"bad {name}", **{name: "soon"}) for name in instants]

    latencies = [request("none"), request("back", latency_ms=7, **backwards)]

    outcomes = read(house, [*latencies, request("half", **half), *unreadable])

    none, back, some = (row for row in outcomes if isinstance(row, dict))
    assert [none[name] for name in instants] == [None] * 4
    assert [back[name].second for name in instants] == [9, 8, 7, 6]
    assert (back["latency_ms"], some["latency_ms"]) == (-3000, 7)
    assert outcomes[3:] == [f"{name} is not an RFC 3339 instant" for name in instants]


# ---- text of a line -------------------------------------------------------------------------


def test_a_line_that_is_no_record_is_set_aside_by_place(house: House) -> None:
    good = text_of(request("odd"))
    kept = b'"workspace_id": "ws_1"'
    assert kept in good
    nested = b', "x": ' + b"[" * 512 + b"1" + b"]" * 512 + b"}"

    refused(
        house,
        [
            b'{"request_id": "odd", ',
            b"not json",
            b"[" + good + b"]",
            b"null",
            good + b" " + good,
            good + good,
            b"{",  # the first line of pretty-printed JSON
            b'    "request_id": "odd",',
            b"}",
            good.replace(b", ", b",\r", 1),
            good + b"\r" + text_of(request("second")),
            good.replace(b"ws_1", b"ws_\xff"),
            good.replace(b"ws_1", b"ws_\xed\xa0\x80"),
            good[:-1] + b', "dropped": "\xff"}',
            good.decode().encode("utf-16"),
            good.decode().encode("utf-16-be"),
            good.replace(b"ws_1", b"ws_\\ud800"),
            good.replace(b"ws_1", b"ws_\\u0000"),
            good.replace(b"ws_1", b"ws_\x00"),
            good.replace(kept, kept + b", " + kept),
            good.replace(kept, kept + b', "workspace\\u005fid": "ws_2"'),
            good[:-1] + nested,
        ],
    )


def test_a_nul_in_a_cell_that_is_kept_is_set_aside(house: House) -> None:
    rows = [request("a", note="\x00"), request("\x00b"), request("c", model="gpt\x00")]
    house.put("alone/a.csv", csv([row | {"note": row.get("note", "")} for row in rows]))

    house.night()

    assert house.value("select request_id from marts.requests") == "a"
    aside = house.rows("select line_number, reason from ops.quarantine order by 1")
    assert [tuple(row.values()) for row in aside] == [
        (3, "request_id holds a NUL"),
        (4, "model holds a NUL"),
    ]


def test_what_is_not_kept_may_be_anything(house: House) -> None:
    good = json.dumps(request("odd"))[:-1]
    tails = (
        ', "prompt": "a secret", "messages": [{"role": "user", "content": "a secret"}]}',
        ', "x": {"a": 1, "a": 2}, "x": 3}',
        ', "x": "\\u0000 \\ud800", "y": 1e999, "z": -0.0}',
        ', "x": ' + "[" * 511 + "]" * 511 + "}",
        ', "": null, "request_id ": 7, "REQUEST_ID": 8}',
    )

    rows = accepted(house, [good.replace("odd", str(n)) + tail for n, tail in enumerate(tails)])

    assert [row["request_id"] for row in rows] == list("01234")
    written = [path.read_bytes() for path in house.root.rglob("*") if path.is_file()]
    assert not any(b"a secret" in content for content in written)


def test_a_line_is_a_mebibyte_at_most(house: House) -> None:
    def as_long_as(length: int) -> str:
        line = json.dumps(request(f"r_{length}", note="@"))
        return line.replace("@", "x" * (length - len(line) + 1))

    outcomes = read(house, [as_long_as(Limits().line_bytes + more) for more in (-1, 0, 1, 2**20)])

    assert [isinstance(row, dict) for row in outcomes] == [True, True, False, False]
    assert outcomes[2] == outcomes[3] == "longer than 1048576 bytes"


@pytest.mark.parametrize("bad", ["", "{bad"], ids=["clean", "careful"])
def test_blank_lines_a_bom_and_crlf_are_no_records(house: House, bad: str) -> None:
    lines = ["", json.dumps(request("a")), " \t ", "", json.dumps(request("b")), bad, ""]
    text = "\ufeff" + "\r\n".join(lines)
    house.put("alone/a.jsonl", text)

    house.night()

    rows = house.rows("select request_id, source_line from marts.requests order by 2")
    assert [tuple(row.values()) for row in rows] == [("a", 2), ("b", 5)]
    aside = house.rows("select line_number, byte_offset, byte_length from ops.quarantine")
    place = text.encode().index(b"{bad") if bad else 0
    assert [tuple(row.values()) for row in aside] == ([(6, place, 4)] if bad else [])
    assert house.value("select read_count from ops.source_objects") == 2 + bool(bad)


def test_the_records_of_a_csv_stand_at_their_lines(house: House) -> None:
    """A quoted line break belongs to its record; a bad one is set aside whole."""
    names = ["api_key_id", "credits_used", "timestamp", "note", "request_id"]
    written = io.StringIO()
    writer = comma.DictWriter(written, names, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    writer.writerow(request("a", note="one\r\ntwo\nthree"))
    writer.writerow(request("b", note='"so" \n, he said', credits_used="-1"))
    writer.writerow(request("c", api_key_id=""))
    text = written.getvalue() + 'key_1,1,2026-11-20T10:00:00Z,"never closed,d\r\nkey,1,x,,e\r\n'
    house.put("alone/a.csv", "\ufeff" + text)

    house.night()

    rows = house.rows("select request_id, api_key_id, source_line from marts.requests order by 3")
    assert [tuple(row.values()) for row in rows] == [("a", "key_1", 2), ("c", None, 7)]
    aside = house.rows(
        "select line_number, byte_offset, byte_length, line_sha256, reason from ops.quarantine "
        "order by 1"
    )
    whole = ("\ufeff" + text).encode()
    for row, begins, ends, reason in zip(
        aside,
        (b'key_1,-1,2026-11-20T10:00:00Z,"""so', b'key_1,1,2026-11-20T10:00:00Z,"never'),
        (b'said",b', b"x,,e"),
        ("credits_used is negative", "an unclosed quote"),
        strict=True,
    ):
        start, end = whole.index(begins), whole.index(ends) + len(ends)
        assert (row["byte_offset"], row["byte_length"]) == (start, end - start)
        assert row["line_sha256"] == hashlib.sha256(whole[start:end]).hexdigest()
        assert row["reason"] == reason
    assert [row["line_number"] for row in aside] == [5, 8]


# ---- objects --------------------------------------------------------------------------------


def test_an_object_that_unpacks_without_end_is_refused_whole(house: House) -> None:
    """Eighty mebibytes of blanks in three kilobytes; what is unpacked of it is gone again."""
    bomb = packed(".zst", jsonl([request("never")]) + " " * (80 * 2**20))
    assert len(bomb) < 16 * 2**10
    house.put("alone/bomb.jsonl.zst", bomb)
    house.put("alone/good.jsonl", [request("good")])

    house.night()

    assert house.value("select request_id from marts.requests") == "good"
    [aside] = house.rows("from ops.quarantine")
    assert aside["line_number"] is None
    assert aside["object_sha256"] == hashlib.sha256(bomb).hexdigest()
    assert re.fullmatch(r"unpacks to more than \d+ bytes", aside["reason"])
    assert int(aside["reason"].split()[-2]) < 80 * 2**20


def test_what_was_read_of_a_replaced_object_stays(house: House) -> None:
    house.put("alone/a.jsonl", [request("a")])
    house.night()
    house.put("alone/a.jsonl", [request("b"), request("c")])

    house.night()

    found = house.rows("select request_id from marts.requests order by 1")
    assert [row["request_id"] for row in found] == ["a", "b", "c"]
    counts = house.rows("select read_count from ops.source_objects order by 1")
    assert [row["read_count"] for row in counts] == [1, 2]

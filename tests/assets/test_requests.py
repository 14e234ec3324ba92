"""Request logs: every record accounted for, one winner for each request, whatever the order of
arrival.
"""

import csv
import hashlib
import io
import itertools
import json
import random
import threading
from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets import requests as landing
from pipelines.calendar import utc_now
from pipelines.models import Models
from pipelines.night import NightFailed, Told
from pipelines.reading import FIRST_BYTES
from pipelines.store import Draft, Workbench, connect
from tests.houses import House, jsonl, packed, request, spend_log

FACTS = "request_id, completed_at, workspace_id, api_key_id, model, total_tokens, credits"


@pytest.fixture
def house(tmp_path: Path, some_models: Models) -> House:
    return House(tmp_path / "house", some_models)


def requests(house: House) -> list[dict[str, Any]]:
    return house.rows("select * from marts.requests order by request_id")


def accounts(house: House) -> list[dict[str, int]]:
    """What became of the records of each object, in the order they were landed."""
    rows = house.rows("select * from ops.source_objects order by arrived_at, location")
    names = ("read", "accepted", "folded", "corroborating", "duplicate", "quarantined")
    for row in rows:
        parts = [row[f"{name}_count"] for name in names[1:]]
        assert row["read_count"] == sum(parts)
    return [{name: row[f"{name}_count"] for name in names if row[f"{name}_count"]} for row in rows]


def reasons(house: House) -> list[str]:
    rows = house.rows("select reason from ops.quarantine order by location, line_number")
    return [row["reason"] for row in rows]


# ---- one request, one winner ----------------------------------------------------------------


def test_a_record_written_otherwise_is_a_duplicate_and_no_conflict(house: House) -> None:
    plain = request("a", "2026-11-20T10:00:00Z", credits_used="2.5")
    other = request("a", "2026-11-20T12:00:00+02:00", credits_used=2.50, extra=1)
    house.put("requests/a.jsonl", [plain, dict(reversed(other.items()))])

    house.night()

    assert accounts(house) == [{"read": 2, "accepted": 1, "duplicate": 1}]
    assert house.rows("select * from ops.conflicts") == []
    [row] = requests(house)
    assert row["source_line"] == 1


def test_the_latest_record_wins_then_the_dearest_and_the_others_are_listed(house: House) -> None:
    house.put(
        "requests/a.jsonl",
        [
            request("a", "2026-11-20T10:00:00Z", credits_used="9"),
            request("a", "2026-11-20T11:00:00Z", credits_used="1", model="small"),
            request("a", "2026-11-20T11:00:00Z", credits_used="2"),
        ],
    )

    house.night()

    [row] = requests(house)
    assert (row["credits"], row["source_line"]) == (Decimal(2), 3)
    conflicts = house.rows("select * from ops.conflicts order by source_line")
    assert [(row["source_line"], row["differs_in"]) for row in conflicts] == [
        (1, "credits"),
        (2, "credits, model"),
    ]
    assert {row["winner_credits"] for row in conflicts} == {Decimal(2)}


def test_a_lower_format_corroborates_and_fills_what_is_missing(house: House) -> None:
    house.put("proxy/a.jsonl", [spend_log("a", 0.07, request_duration_ms=321, team_id="ws_llm")])
    house.put("requests/a.jsonl", [request("a", credits_used="2.5", workspace_id=None)])

    house.night()

    [row] = requests(house)
    assert (row["credits"], row["latency_ms"], row["workspace_id"]) == (
        Decimal("2.5"),
        321,
        "ws_llm",
    )
    assert row["completed_at"] == datetime(2026, 11, 20, 10)
    assert sorted(accounts(house), key=str) == [
        {"read": 1, "accepted": 1},
        {"read": 1, "corroborating": 1},
    ]


def test_a_request_counts_on_the_day_of_its_winner_only(house: House) -> None:
    house.put("requests/a.jsonl", [request("a", "2026-11-19T10:00:00Z", credits_used="4")])
    house.night()
    house.put("requests/b.jsonl", [request("a", "2026-11-20T10:00:00Z", credits_used="3")])

    house.night()

    sums = house.rows("select usage_date, credits from marts.usage_quarter_hourly")
    assert [(str(row["usage_date"]), row["credits"]) for row in sums] == [
        ("2026-11-20", Decimal(3))
    ]


def test_from_its_second_night_on_the_index_tells_requests_apart(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def are_apart(index: list[Path], bench: Workbench) -> bool:
        asked.append(told(index, bench))
        return asked[-1]

    told = landing._are_apart
    monkeypatch.setattr(landing, "_are_apart", are_apart)
    house.put("requests/a.jsonl", [request("a"), request("b")])
    house.night()  # the view is new: each row of it is looked at
    assert asked == []

    house.put("requests/b.jsonl", [request("b", credits_used="9"), request("c"), request("c")])
    house.night()
    assert asked == [True]
    assert [row["request_id"] for row in requests(house)] == ["a", "b", "c"]


@pytest.mark.parametrize("missing", ["the contest", "the index"])
def test_a_request_that_would_count_twice_stops_the_night(
    house: House, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    house.put("requests/a.jsonl", [request("a")])
    house.night()
    if missing == "the contest":
        monkeypatch.setattr(landing, "_touched", lambda *_: (False, False))
    else:
        monkeypatch.setattr(landing.Landing, "_index", lambda *_: [])
    house.put("requests/b.jsonl", [request("b"), request("b")])

    with pytest.raises(
        NightFailed, match=r"expected 1 row, found 2, for gateway \w+, request_id b"
    ):
        house.night()


@given(
    records=st.lists(st.integers(0, 5), max_size=6),
    contested=st.sets(st.integers(0, 5)),
    missed=st.sampled_from(["", "a contested record", "a winner", "a second winner", "an id"]),
)
@settings(max_examples=60)
def test_the_index_tells_what_the_rows_would(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[int],
    contested: set[int],
    missed: str,
) -> None:
    taken_out = [one for one in records if one in contested]
    won = sorted(set(taken_out))
    if missed == "a contested record":
        taken_out = taken_out[1:]
    elif missed == "a winner":
        won = won[1:]
    elif missed == "a second winner":
        won += won[:1]
    file = tmp_path_factory.mktemp("index") / "ids.parquet"
    connection = connect()
    for table, ids in (
        ("raw.requests", [*map(str, records), *([None] if missed == "an id" else [])]),
        ("staging.request_contests", list(map(str, taken_out))),
        ("staging.request_winners", list(map(str, won))),
    ):
        day = "date '2026-11-20'"
        connection.execute(
            f"create table {table} as select 'here' as gateway, unnest($ids::varchar[]) as "
            f"request_id, {day} as usage_date, {day} as contest_date",
            {"ids": ids},
        )
    connection.execute(
        f"copy (select {landing.IDENTITY} as id_hash from raw.requests order by 1) to '{file}'"
    )
    rows = Counter(records)
    rows.subtract(taken_out)
    rows.update(won)

    answer = landing._are_apart([file], Workbench(connection))

    assert answer == (missed != "an id" and set(rows.values()) <= {0, 1})
    connection.close()


def test_the_order_of_arrival_leaves_no_trace(tmp_path: Path, some_models: Models) -> None:
    arrivals = {
        "requests/a.jsonl": [request("a", credits_used="1"), request("b", credits_used="5")],
        "requests/b.jsonl": [request("a", "2026-11-20T09:00:00Z", credits_used="7")],
        "requests/c.jsonl": [
            request("b", credits_used="5.5"),
            request("c", "2026-11-18T00:00:00Z"),
        ],
        "proxy/d.jsonl": [spend_log("a", 0.5), spend_log("c", 0.25), spend_log("d")],
    }
    facts = "select * exclude (gateway) from marts.requests order by request_id"
    found = []
    for number, order in enumerate(itertools.permutations(arrivals)):
        if number % 11:
            continue
        house = House(tmp_path / f"house_{number}", some_models)
        for name in order:
            house.put(name, arrivals[name])
            house.night()
        counts = "select count(*), sum(duplicate_count)::bigint as d from ops.source_objects"
        found.append((house.rows(facts), house.rows(counts), house.rows("from ops.conflicts")))

    assert all(other == found[0] for other in found)


def test_sources_of_other_gateways_have_ids_of_their_own(
    tmp_path: Path, some_models: Models
) -> None:
    block = '[[requests]]\nname = "{0}"\nformat = "canonical"\nlocation = "landing/{0}"\n'
    settings = "".join(block.format(name) for name in ("one", "two"))
    house = House(tmp_path / "house", some_models, settings)
    house.put("one/a.jsonl", [request("a")])
    house.put("two/a.jsonl", [request("a")])

    house.night()

    assert house.value("select count(*) from marts.requests") == 2


# ---- objects --------------------------------------------------------------------------------


def test_the_same_object_under_any_name_or_packing_changes_nothing(house: House) -> None:
    text = jsonl([request("a"), request("b")])
    house.put("requests/a.jsonl", text)
    house.night()
    before = house.bytes()
    house.put("requests/deep/copy.jsonl", text)
    house.put("requests/packed.jsonl.gz", text)
    house.put("requests/packed.ndjson.zst", text)

    house.night()

    assert house.bytes() == before


def test_a_grown_file_adds_its_new_lines_and_a_vanished_one_takes_nothing(house: House) -> None:
    path = house.put("requests/a.jsonl", [request("a")])
    house.night()
    house.put("requests/a.jsonl", [request("a"), request("b")])
    house.night()
    path.unlink()

    house.night()

    assert [row["request_id"] for row in requests(house)] == ["a", "b"]
    assert accounts(house) == [
        {"read": 1, "accepted": 1},
        {"read": 2, "accepted": 1, "duplicate": 1},
    ]


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        *((".gz", damage) for damage in ("truncated", "flipped", "garbage", "plain", "cut")),
        # A flipped bit shows only in a frame that carries a checksum.
        *((".zst", damage) for damage in ("truncated", "garbage", "plain", "cut", "gzip")),
    ],
)
@pytest.mark.parametrize("long", [landing.LONG, 0], ids=["short", "long"])
def test_an_object_whose_bytes_cannot_be_trusted_is_refused_whole(
    house: House, monkeypatch: pytest.MonkeyPatch, suffix: str, damage: str, long: int
) -> None:
    monkeypatch.setattr(landing, "LONG", long)
    text = jsonl([request(f"req_{n}") for n in range(500)])
    whole = packed(suffix, text)
    middle = len(whole) // 2
    damaged = {
        "truncated": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :],
        "garbage": whole + b"garbage",
        "plain": text.encode(),
        "cut": whole[:-4],
        "gzip": packed(".gz", text),
    }[damage]
    house.put(f"requests/bad.jsonl{suffix}", damaged)
    house.put(f"requests/good.jsonl{suffix}", jsonl([request("good")]))

    house.night()

    assert [row["request_id"] for row in requests(house)] == ["good"]
    [aside] = house.rows("select * from ops.quarantine")
    assert aside["line_number"] is None
    assert aside["object_sha256"] == hashlib.sha256(damaged).hexdigest()
    assert sorted(accounts(house), key=str) == [
        {"read": 1, "accepted": 1},
        {"read": 1, "quarantined": 1},
    ]


def test_members_and_zero_padding_of_gzip_and_frames_of_zstd_are_fine(house: House) -> None:
    for suffix, padding, names in ((".gz", bytes(512), "ab"), (".zst", b"", "cd")):
        parts = [packed(suffix, jsonl([request(name)])) for name in names]
        house.put(f"requests/a.jsonl{suffix}", b"".join(parts) + padding)

    house.night()

    assert [row["request_id"] for row in requests(house)] == ["a", "b", "c", "d"]


def test_many_small_objects_land_together(house: House) -> None:
    for number in range(40):
        house.put(f"requests/{number}.jsonl", [request(f"{number}a"), request(f"{number}b")])

    house.night()

    assert len(requests(house)) == 80
    assert {row["source_line"] for row in house.rows("select * from raw.requests")} == {1, 2}
    [partition] = house.store.snapshot().tables["raw.requests"].values()
    assert len(partition.objects) == 1


def test_a_long_object_lands_whatever_is_found_late_in_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "LONG", 1 << 20)
    good = [json.dumps(request(f"{number}", note="x" * 300)) for number in range(5_000)]
    late = {"odd": request("late", credits_used="1.5"), "bad": {"request_id": "late"}, "fine": {}}
    for name, line in late.items():
        lines = [text.replace('"request_id": "', f'"request_id": "{name}/') for text in good]
        lines.insert(4_990, json.dumps(line) if line else lines.pop())
        house.put(f"requests/{name}.jsonl", "\n".join(lines) + "\n")
    house.put("requests/small.jsonl", [request("small")])
    house.put("requests/again.jsonl", (house.folder / "landing/requests/fine.jsonl").read_text())

    house.night()

    assert (
        house.value("select count(*) from marts.requests") == 15_000 + 2
    )  # the odd one and the small one
    assert [row["line_number"] for row in house.rows("from ops.quarantine")] == [4_991]
    assert "late" in {row["request_id"] for row in requests(house)}
    accounts(house)


@pytest.mark.parametrize("line", ["", "not json"], ids=["clean", "careful"])
@pytest.mark.parametrize("moment", ["hashed", "read"])
@pytest.mark.parametrize("fate", ["grows", "vanishes"])
@pytest.mark.parametrize(
    ("long", "suffix"),
    [(landing.LONG, ".jsonl"), (0, ".jsonl"), (landing.LONG, ".jsonl.gz"), (0, ".jsonl.gz")],
    ids=["short", "long", "short packed", "long packed"],
)
def test_an_object_that_changes_while_it_is_read_is_left_for_the_next_night(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    moment: str,
    fate: str,
    long: int,
    suffix: str,
) -> None:
    """Nothing is kept of it: what would be kept is not what was hashed."""
    monkeypatch.setattr(landing, "LONG", long)
    lines = [request("a"), *([line] if line else [])]
    path = house.put(f"requests/a{suffix}", lines)
    house.put("requests/b.jsonl", [request("b")])

    alone = threading.Lock()  # the next object is hashed while one lands
    size = path.stat().st_size

    def change() -> None:
        with alone:
            if path.exists() and path.stat().st_size == size:
                grown = jsonl([*lines, request("c", note="x" * 1000)])
                path.unlink() if fate == "vanishes" else house.put(f"requests/a{suffix}", grown)

    hashes, copies = landing.read_through, Draft.copy

    def read_through(*arguments: Any, **named: Any) -> None:
        hashes(*arguments, **named)
        if moment == "hashed":
            change()

    def copy(*arguments: Any, **named: Any) -> None:
        copies(*arguments, **named)
        change()

    monkeypatch.setattr(landing, "read_through", read_through)
    if moment == "read":
        monkeypatch.setattr(Draft, "copy", copy)
    told = [event.sentence for event in house.night() if isinstance(event, Told)]
    monkeypatch.undo()

    assert any(f"a{suffix} changed while it was read" in sentence for sentence in told)
    assert [row["request_id"] for row in requests(house)] == ["b"]
    assert house.value("select count(*) from ops.quarantine") == 0

    house.night()

    expected = ["a", "b", "c"] if fate == "grows" else ["b"]
    assert [row["request_id"] for row in requests(house)] == expected


@pytest.mark.parametrize(
    ("long", "suffix", "torn", "first"),
    [
        (landing.LONG, ".jsonl", "", "gpt-5"),
        (landing.LONG, ".jsonl.gz", "{torn", "gpt-5"),
        (landing.LONG, ".jsonl.gz", "", "12"),
        (0, ".jsonl", "", "gpt-5"),
        (0, ".jsonl", "{torn", "gpt-5"),
        (0, ".jsonl", "{torn", "12"),
        (0, ".jsonl.gz", "", "gpt-5"),
        (0, ".jsonl.zst", "{torn", "12"),
    ],
)
def test_texts_like_numbers_land_and_numbers_in_their_place_do_not(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    long: int,
    suffix: str,
    torn: str,
    first: str,
) -> None:
    """Whether the object looks so from its beginning, or only behind what is looked at first."""
    monkeypatch.setattr(landing, "LONG", long)
    by_line: list[Any] = []
    monkeypatch.setattr(
        landing, "careful_rows", lambda *arguments: by_line.append(arguments) or iter(())
    )
    usual = [request(f"usual/{number}", model=first, credits_used=1.5) for number in range(400)]
    texts = ["12", "-1.5", "true", "[1]", "{}", "e", "null", "gpt-5", "inf", "-nan", "NaN"]
    odd = ["12", "-1.5", "true", "[1]", "{}", "false", "nan", "-Inf", "INFINITY", "NaN"]
    lines = [
        *usual,
        *(request(f"text/{text}", model=text, credits_used=1.5) for text in texts),
    ]
    bare = [
        json.dumps(request(f"odd/{value}", model="@", credits_used=1.5)).replace('"@"', value)
        for value in odd
    ]
    assert len(jsonl(usual)) > FIRST_BYTES
    house.put(f"requests/a{suffix}", jsonl([*lines, *bare, *filter(None, [torn])]))

    house.night()

    landed = {row["request_id"]: row["model"] for row in requests(house)}
    assert landed == {line["request_id"]: line["model"] for line in lines}
    aside = house.rows("select line_number, reason from ops.quarantine order by 1")
    assert [row["line_number"] for row in aside] == [
        len(usual) + len(texts) + 1 + number for number in range(len(odd) + bool(torn))
    ]
    assert {row["reason"] for row in aside[:6]} == {"model is not text"}
    assert not by_line  # the engine read all lines but those


@pytest.mark.parametrize("seed", range(6))
def test_every_record_stands_at_its_line_whatever_lies_beside_it(
    house: House, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Objects of one batch share statements: plain ones, odd ones, such as only the careful path
    reads, of several days, with blank lines, a BOM, CRLF, no last line end, or nothing at all.
    """
    choice = random.Random(seed)
    if seed % 2:  # each by itself, as a long one is
        monkeypatch.setattr(landing, "LONG", 0)
    expected = {}
    kinds = ("plain", "blank", "crlf", "bom", "odd", "bad", "days", "no end")
    for number in range(8):
        kind = choice.choice(kinds)
        name = f"{number}.jsonl{choice.choice(('', '', '.gz', '.zst'))}"
        lines = []
        for index in range(choice.randrange(1 if kind == "bom" else 0, 30)):
            day = choice.choice(("18", "19", "20")) if kind == "days" else "20"
            credits = "1.5" if kind == "odd" else 1.5
            line = request(f"{number}/{index}", f"2026-11-{day}T10:00:00Z", credits_used=credits)
            if kind in ("blank", "bad") and choice.random() < 0.2:
                lines.append("" if kind == "blank" else "{bad")
            lines.append(json.dumps(line))
            expected[line["request_id"]] = (name, len(lines))
        end = "\r\n" if kind == "crlf" else "\n"
        text = end.join(lines) + (end if lines and kind != "no end" else "")
        house.put(f"requests/{name}", ("\ufeff" if kind == "bom" else "") + text)

    house.night()

    rows = house.rows(
        "select request_id, source_line, location from marts.requests "
        "join ops.source_objects on object_sha256 = source_object"
    )
    found = {row["request_id"]: (Path(row["location"]).name, row["source_line"]) for row in rows}
    assert found == expected
    accounts(house)


def test_an_empty_object_has_no_record(house: House) -> None:
    house.put("requests/empty.jsonl", "")
    house.put("requests/packed.jsonl.gz", "\n")

    house.night()

    assert accounts(house) == [{}, {}]


def test_what_is_no_object_is_passed_over_and_an_unknown_suffix_is_named(house: House) -> None:
    for name in (".hidden.jsonl", "_draft.jsonl", "a.jsonl.tmp", "a.part", "_sub/a.jsonl"):
        house.put(f"requests/{name}", [request("never")])
    house.put("requests/readme.txt", "hello")
    house.put("requests/a.jsonl", [request("a")])

    happened = house.night()

    said = [event.sentence for event in happened if isinstance(event, Told)]
    assert [row["request_id"] for row in requests(house)] == ["a"]
    assert any("readme.txt" in sentence for sentence in said)
    assert not any("hidden" in sentence or "draft" in sentence for sentence in said)


# ---- lines ----------------------------------------------------------------------------------


def test_a_request_knows_the_line_it_was_read_from(house: House) -> None:
    lines = [json.dumps(request(f"line_{number}")) for number in (2, 3, 6)]
    text = "\ufeff\r\n" + lines[0] + "\r\n" + lines[1] + "\n\n  \n" + lines[2]
    house.put("requests/a.jsonl", text)

    house.night()

    found = {row["request_id"]: row["source_line"] for row in requests(house)}
    assert found == {"line_2": 2, "line_3": 3, "line_6": 6}
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert {row["source_object"] for row in requests(house)} == {digest}


def test_lines_are_right_in_each_of_many_objects_read_together(house: House) -> None:
    for number in range(12):
        lines = [request(f"{number}/{line}") for line in range(1, 2 + number * 7)]
        house.put(f"requests/{number}.jsonl", lines)

    house.night()

    assert all(
        row["request_id"].split("/")[1] == str(row["source_line"]) for row in requests(house)
    )
    digests = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.stem
        for path in (house.folder / "landing" / "requests").iterdir()
    }
    assert all(
        row["request_id"].split("/")[0] == digests[row["source_object"]] for row in requests(house)
    )


def test_a_csv_is_read_by_its_header_in_any_order(house: House) -> None:
    rows = [request("a"), request("b", workspace_id='ws "1", or\nso'), request("c", model="")]
    text = io.StringIO()
    names = [*reversed(rows[0]), "more"]
    writer = csv.DictWriter(text, names, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    house.put("requests/a.csv", text.getvalue())

    house.night()

    found = requests(house)
    assert [row["request_id"] for row in found] == ["a", "b", "c"]
    assert [row["workspace_id"] for row in found] == ["ws_1", 'ws "1", or\nso', "ws_1"]
    assert [row["model"] for row in found] == ["gpt-5", "gpt-5", None]
    assert [row["source_line"] for row in found] == [2, 3, 5]


def test_a_csv_without_a_needed_column_is_set_aside_row_by_row(house: House) -> None:
    house.put("requests/a.csv", "request_id,timestamp\na,2026-11-20T10:00:00Z\nb,x\n")

    house.night()

    assert accounts(house) == [{"read": 2, "quarantined": 2}]
    assert reasons(house) == ["the header has no column credits_used"] * 2


def test_an_unclosed_quote_is_one_record_to_the_end(house: House) -> None:
    head = "request_id,timestamp,credits_used\n"
    house.put(
        "requests/a.csv", f'{head}a,2026-11-20T10:00:00Z,1\n"b,2026-11-20T10:00:00Z,1\nc,x,1\n'
    )

    house.night()

    assert [row["request_id"] for row in requests(house)] == ["a"]
    assert accounts(house) == [{"read": 2, "accepted": 1, "quarantined": 1}]


def test_a_bad_line_is_remembered_by_place_and_hash_never_by_its_text(house: House) -> None:
    good = json.dumps(request("good"))
    bad = '{"request_id": "x", "prompt": "a secret nobody should keep", "credits_used": "-1"}'
    house.put("requests/a.jsonl", f"{good}\n{bad}\n{good.replace('good', 'also')}\n")

    house.night()

    [aside] = house.rows("select * from ops.quarantine")
    assert aside["line_number"] == 2
    assert aside["byte_offset"] == len(good) + 1
    assert aside["byte_length"] == len(bad)
    assert aside["line_sha256"] == hashlib.sha256(bad.encode()).hexdigest()
    assert "a secret nobody" not in str(house.rows("from raw.quarantine"))
    assert not any(
        b"a secret nobody" in p.read_bytes() for p in house.root.rglob("*") if p.is_file()
    )
    assert [row["request_id"] for row in requests(house)] == ["also", "good"]


@pytest.mark.parametrize(
    "spoilt",
    [
        {"request_id": None},
        {"gateway_in_at": "at noon"},
        {"request_id": None, "gateway_in_at": "at noon", "source": "nobody"},
    ],
)
def test_the_engine_reads_all_lines_but_those_of_which_a_field_is_in_doubt(
    house: House, monkeypatch: pytest.MonkeyPatch, spoilt: dict[str, str | None]
) -> None:
    def line_by_line(*_: Any) -> None:
        raise AssertionError("the whole object was read line by line")

    monkeypatch.setattr(landing.Landing, "_land_careful", line_by_line)
    wrong = [request(field) | {field: value} for field, value in spoilt.items()]
    house.put("requests/a.jsonl", [request("first"), *wrong, request("last")])

    house.night()

    assert accounts(house) == [{"read": 2 + len(spoilt), "accepted": 2, "quarantined": len(spoilt)}]
    assert [row["line_number"] for row in house.rows("from ops.quarantine")] == list(
        range(2, 2 + len(spoilt))
    )
    assert {row["request_id"]: row["source_line"] for row in house.rows("from raw.requests")} == {
        "first": 1,
        "last": 2 + len(spoilt),
    }


def test_a_value_that_no_column_holds_sets_aside_its_line_alone(house: House) -> None:
    house.put(
        "requests/a.jsonl",
        [
            request("a"),
            request("status", status=3_000_000_000),
            request("sum", prompt_tokens=2**63 - 1, completion_tokens=1),
            request("depth", fallback_depth=2**40),
            request("b", credits_used="2.5E1"),
        ],
    )

    house.night()

    assert [row["request_id"] for row in requests(house)] == ["a", "b"]
    assert reasons(house) == ["a value is out of range"] * 3


def test_a_request_from_the_future_waits_in_quarantine(house: House) -> None:
    soon = (utc_now() + timedelta(minutes=3)).isoformat() + "Z"
    later = (utc_now() + timedelta(minutes=9)).isoformat() + "Z"
    house.put("requests/a.jsonl", [request("soon", soon), request("later", later)])

    house.night()

    assert [row["request_id"] for row in requests(house)] == ["soon"]
    assert reasons(house) == ["timestamp is in the future"]


def test_a_zoneless_time_is_read_in_the_sources_zone(tmp_path: Path, some_models: Models) -> None:
    settings = (
        '[[requests]]\nname = "gateway"\nformat = "canonical"\nlocation = "landing/requests"\n'
        'time_zone = "Europe/London"\n'
    )
    house = House(tmp_path / "house", some_models, settings)
    house.put(
        "requests/a.jsonl",
        [
            request("summer", "2026-07-01T12:00:00"),
            request("twice", "2026-10-25T01:30:00"),
            request("never", "2026-03-29T01:30:00"),
        ],
    )

    house.night()

    assert {row["request_id"]: row["completed_at"] for row in requests(house)} == {
        "summer": datetime(2026, 7, 1, 11),
        "twice": datetime(2026, 10, 25, 0, 30),
    }
    assert reasons(house) == ["timestamp is a local time that never happens"]


def test_a_call_by_key_belongs_to_no_member_and_instants_override_a_latency(house: House) -> None:
    stated: dict[str, Any] = {
        "gateway_in_at": "2026-11-20T10:00:00.000Z",
        "gateway_out_at": "2026-11-20T10:00:01.234567Z",
        "latency_ms": 7,
        "member_id": "mem_1",
    }
    house.put(
        "requests/a.jsonl", [request("api", **stated), request("p", source="playground", **stated)]
    )

    house.night()

    assert [(row["member_id"], row["latency_ms"]) for row in requests(house)] == [
        (None, 1234),
        ("mem_1", 1234),
    ]

"""Whichever way an object is read, clean or careful, the same lines are accepted, and exactly.

Each odd line stands once among lines that the engine reads by itself, once among lines that only
the careful path can, so that either path has its say.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from assets.canonical import FORMAT as CANONICAL
from assets.litellm_spendlogs import FORMAT as SPEND_LOGS
from pipelines.reading import (
    NESTING_LIMIT,
    RecordRefused,
    Scan,
    SpooledObject,
    _csv_records,
    read_through,
    scanned,
)
from pipelines.settings import Limits, SettingsError, load
from pipelines.tabular import nine_places
from tests.houses import House, jsonl, request, request_models, spend_log

# An exponent is a number that the engine is not trusted with.
CAREFUL = json.dumps(request("careful", credits_used="2.5E0"))


@pytest.fixture(scope="module")
def house_of(tmp_path_factory: pytest.TempPathFactory) -> House:
    models = request_models(tmp_path_factory.mktemp("sql"))
    return House(tmp_path_factory.mktemp("strict") / "house", models)


Read = tuple[dict[str, Decimal], dict[int, str]]


def read(house: House, objects: Mapping[str, Sequence[str]]) -> dict[str, Read]:
    """What one night makes of each object's lines: the credits of the ids accepted, and the reasons
    of the lines set aside.
    """
    for number, lines in enumerate(objects.values()):
        house.put(f"requests/{number}.jsonl", "".join(f"{line}\n" for line in lines))
    house.night()
    found: list[Read] = [({}, {}) for _ in objects]
    for row in house.rows(
        "select location, request_id, requests.credits from raw.requests "
        "join ops.source_objects on object_sha256 = source_object"
    ):
        found[int(Path(row["location"]).stem)][0][row["request_id"]] = row["credits"]
    for row in house.rows("from ops.quarantine"):
        found[int(Path(row["location"]).stem)][1][row["line_number"]] = row["reason"]
    return dict(zip(objects, found, strict=True))


def record(tail: str, request_id: str = "odd") -> str:
    """A good record with something more in its object, as text."""
    return json.dumps(request(request_id))[:-1] + tail + "}"


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    """A value so deep that the record it stands in is `depth` deep."""
    return opening * (depth - 1) + "1" + closing * (depth - 1)


REFUSED = {
    "a trailing comma": (record(","), "malformed JSON"),
    "a trailing comma and a blank": (record(" , "), "malformed JSON"),
    "a trailing comma and a tab": (record(",\t"), "malformed JSON"),
    "a trailing comma in what is dropped": (record(', "x": [1, {"y": 2,}]'), "malformed JSON"),
    "a trailing comma in a list": (record(', "x": [1,]'), "malformed JSON"),
    "NaN": (record(', "x": NaN'), "NaN is no JSON number"),
    "NaN in a list": (record(', "x": [NaN , 1]'), "NaN is no JSON number"),
    "NaN as a text": (record(', "fallback_from": NaN'), "NaN is no JSON number"),
    "Infinity": (record(', "x": {"y": Infinity}'), "Infinity is no JSON number"),
    "-Infinity": (record(', "x": -Infinity'), "-Infinity is no JSON number"),
    "lists too deep": (record(f', "x": {nested(513)}'), "nested deeper than 512"),
    "objects too deep": (record(', "x": ' + nested(600, '{"k":', "}")), "nested deeper than 512"),
}
ACCEPTED = {
    "commas and braces in a text": record(', "x": "{1, 2, } and [3,]"'),
    "NaN in a text": record(', "x": "is NaN, or Infinity}"'),
    "many brackets in a text": record(', "x": "' + "[" * 2000 + '"'),
    "many brackets side by side": record(', "x": [' + ",".join(["[]"] * 700) + "]"),
    "as deep as it may be": record(f', "x": {nested(NESTING_LIMIT)}'),
}


GOOD = json.dumps(request("good"))


@pytest.fixture(scope="module")
def outcomes(house_of: House) -> dict[str, Read]:
    """What became of each odd line, among lines of either path; an object each."""
    objects: dict[str, list[str]] = {}
    for beside in ("", CAREFUL):
        for odd, (line, _) in REFUSED.items():
            objects[odd + beside] = [line, GOOD, *filter(None, [beside])]
        for odd, line in ACCEPTED.items():
            objects[odd + beside] = [line, *filter(None, [beside])]
    return read(house_of, objects)


@pytest.mark.parametrize("beside", ["", CAREFUL], ids=["clean", "careful"])
@pytest.mark.parametrize("odd", REFUSED)
def test_what_is_no_json_is_set_aside_on_either_path(
    outcomes: Mapping[str, Read], odd: str, beside: str
) -> None:
    accepted, aside = outcomes[odd + beside]

    assert set(accepted) == ({"good", "careful"} if beside else {"good"})
    assert aside == {1: REFUSED[odd][1]}


@pytest.mark.parametrize("beside", ["", CAREFUL], ids=["clean", "careful"])
@pytest.mark.parametrize("odd", ACCEPTED)
def test_what_only_looks_odd_is_accepted_on_either_path(
    outcomes: Mapping[str, Read], odd: str, beside: str
) -> None:
    accepted, aside = outcomes[odd + beside]

    assert "odd" in accepted
    assert aside == {}


# ---- what makes an object suspect -----------------------------------------------------------

SCAN = Scan(CANONICAL)


@pytest.fixture(scope="module")
def scanners() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def passed(chunks: list[bytes], scanners: Executor, *, is_searched: bool = False) -> SpooledObject:
    """An object whose bytes have passed in these chunks."""
    item = SpooledObject("a.jsonl", 0, 0, "json", Path("a.jsonl"), "", is_searched=is_searched)
    assert list(scanned(chunks, SCAN, item, scanners)) == chunks
    return item


@pytest.mark.parametrize("odd", ACCEPTED)
def test_what_only_looks_odd_keeps_an_object_on_the_clean_path(
    odd: str, scanners: Executor
) -> None:
    item = passed([ACCEPTED[odd].encode() + b"\n"], scanners)

    assert (item.line_count, item.doubtful) == (1, [])


@pytest.mark.parametrize(
    "line",
    [
        *(line for line, _ in REFUSED.values()),
        '{"a": 1, "credits_used": 1.00000000000000001}',
        '{ "credits_used" : 1.00000000000000001}',
        '{"a": "\\u0041"}',
        '{"a": "' + "x" * Limits().line_bytes + '"}',
    ],
)
def test_a_line_is_suspect_wherever_it_is_cut(line: str, scanners: Executor) -> None:
    """Chunks end anywhere; with and without a line's end at the end of the object."""
    before, after = b'{"a": 1}\n' * 3, b'{"a": 1}\n'
    text = line.encode()
    step = max(1, len(text) // 40)
    for cut in range(0, len(text), step):
        for end in (b"", b"\n", b"\r\n" + after):
            whole = before + text + end
            place = len(before) + cut
            item = passed([whole[:place], whole[place:]], scanners)
            assert item.doubtful == [4]
            assert item.line_count == whole.count(b"\n") + (not end)


def test_lines_are_counted_however_they_are_cut(scanners: Executor) -> None:
    text = b'{"a": 1}\n\n{"a": 2}\r\n{"a": "\xc3\xa9"}'
    for size in range(1, len(text) + 1):
        chunks = [text[start : start + size] for start in range(0, len(text), size)]
        item = passed(chunks, scanners)
        assert (item.line_count, item.doubtful) == (4, [])


PLAIN_VALUES = {
    "credits_used": ["0", "1.5", "12345.123456789", "0.000000001", "null"],
    "prompt_tokens": ["0", "12", "922337203685477580", "null"],
    "model": ['"12"', '""', "null", '"\\"\\u00e9"'],
    "unknown": ["true", '"1"', "1.5", "-7", '{"b": true}'],
    "stream": ["true", "false"],
}
ODD_VALUES = {
    "credits_used": ['"1.5"', "1234567", "0.0000000001", "1e3", "1.5E1", "-0", "true", "[1]"],
    "model": ["12", "true", "[1]"],
    "stream": ['"true"', "1"],
    "prompt_tokens": [
        "9223372036854775807",
        '"12"',
        "12.0",
        "1e3",
        "-1",
        "true",
        "false",
        "[1]",
        "{}",
    ],
}


@pytest.mark.parametrize("opening", ['{"', '{"a": "x","', '{"a": "x" ,\t "', '{ "'])
@pytest.mark.parametrize("colon", ['":', '": ', '" : '])
def test_an_object_is_plain_where_the_engines_own_typing_reads_every_value_of_it(
    opening: str, colon: str, scanners: Executor
) -> None:
    """Wherever in its line the value stands, and wherever a chunk ends."""
    for values, is_plain in ((PLAIN_VALUES, True), (ODD_VALUES, False)):
        for name, texts in values.items():
            for text in texts:
                line = f'{{"a": 1}}\n{opening}{name}{colon}{text}}}\n{{"a": 1}}'.encode()
                for cut in (0, 9, len(line) // 3, len(line) // 2, len(line) - 9):
                    chunks = [line[:cut], line[cut:]] if cut else [line]
                    item = passed(chunks, scanners, is_searched=True)
                    assert (item.is_plain and not item.doubtful) == is_plain, line
                    if name != "model":  # a number there shows in what the engine types
                        item = passed(chunks, scanners)
                        assert (item.is_plain and not item.doubtful) == is_plain, line


@pytest.mark.parametrize("text", ['"12"', '"-1.5e3"', '"true"', '"[x"', '"{}"'])
def test_an_object_that_begins_with_texts_like_numbers_is_searched_for_numbers_like_texts(
    text: str, scanners: Executor
) -> None:
    """Else every such text would raise where the engine types it."""
    begins = b'{"a": 1,"workspace_id" : %s}\n' % text.encode()

    assert passed([begins, b'{"model": "x"}\n'], scanners).is_searched
    assert not passed([b'{"model": "12x", "status": 12}\n', begins], scanners).is_searched


def test_credits_typed_by_the_engine_are_exact(tmp_path: Path, house_of: House) -> None:
    """Up to six digits before the point; from seven on the bytes send them another way."""
    choice = random.Random(7)
    written = []
    for _ in range(5000):
        digits, places = choice.randint(1, 9), choice.randint(0, 9)
        whole = str(choice.randrange(10**digits))
        fraction = f".{choice.randrange(10**places):0{places}}" if places else ""
        written.append(whole + fraction)
    for name, longest in (("plain", 6), ("long", 9)):
        house = House(tmp_path / name, house_of.models)
        numbers = [text for text in written if len(text.partition(".")[0]) <= longest]
        lines = [
            json.dumps(request(f"req_{number}", credits_used="@")).replace('"@"', text)
            for number, text in enumerate(numbers)
        ]
        house.put("requests/a.jsonl", lines)

        house.night()

        found = house.rows("select request_id, credits from marts.requests")
        assert {row["request_id"]: row["credits"] for row in found} == {
            f"req_{number}": Decimal(text) for number, text in enumerate(numbers)
        }


def test_a_format_without_exact_numbers_is_searched_too(tmp_path: Path, house_of: House) -> None:
    """LiteLLM's money is a float: it has no long numbers, but it has letters and commas."""
    assert not any(kind.long_number for kind in SPEND_LOGS.fields.values())
    house = House(tmp_path / "house", house_of.models)
    lines = [json.dumps(spend_log(name)) for name in ("a", "b", "c")]
    lines[1] = lines[1].replace('"gpt-5"', '"gpt\\u0000"')
    lines[2] = lines[2][:-1] + ",}"
    house.put("proxy/a.jsonl", jsonl(lines))

    house.night()

    assert house.value("select request_id from marts.requests") == "a"
    assert house.value("select count(*) from ops.quarantine") == 2


def test_a_plain_day_is_not_suspect(tmp_path: Path, scanners: Executor) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl(request(f"req_{number}") for number in range(5000)))
    item = SpooledObject(str(path), path.stat().st_size, 0, "json", path, "")

    read_through(item, SCAN, tmp_path, scanners)

    assert (item.line_count, item.doubtful, item.refused) == (5000, [], "")


# ---- numbers --------------------------------------------------------------------------------

FINE = [
    ("1.0000000000000000000000000000000001", None),
    ("0.000000001000000000000000000000000000000001", None),
    ("999999999.9999999990000000000000000000001", None),
    ("0.0000000000000000000000000000000000000001", None),
    ("1.000000000" + "0" * 60, Decimal("1.000000000")),
    ("999999999.999999999", Decimal("999999999.999999999")),
    ("-0.0", Decimal("0E-9")),
]


def test_credits_are_exact_or_set_aside(tmp_path: Path, house_of: House) -> None:
    """Each alone in its object, as a text and as a number."""
    expected = {
        value: exact for written, exact in FINE for value in (written, f'"{written}"')
    }  # fmt: skip
    objects = {
        value: [json.dumps(request("odd", credits_used="@")).replace('"@"', value)]
        for value in expected
    }

    found = read(House(tmp_path / "house", house_of.models), objects)

    for value, exact in expected.items():
        accepted, aside = found[value]
        assert accepted == ({} if exact is None else {"odd": exact}), value
        assert len(aside) == (exact is None), value


def test_small_files_take_nine_places_as_exactly() -> None:
    assert nine_places("1.5" + "0" * 29, "credits") == Decimal("1.500000000")
    assert nine_places(999_999_999, "credits") == Decimal("999999999.000000000")
    for written in ("1." + "0" * 29 + "1", "0.0000000001", "1e-99", "1e9", "9" * 30, "-1e-99"):
        with pytest.raises(RecordRefused):
            nine_places(written, "credits")


@pytest.mark.parametrize("beside", ["", CAREFUL], ids=["clean", "careful"])
def test_a_text_of_digits_may_begin_with_noughts(
    tmp_path: Path, house_of: House, beside: str
) -> None:
    house = House(tmp_path / "house", house_of.models)
    odd = [request("a", prompt_tokens="007"), request("b", prompt_tokens="0" * 5000 + "7")]
    bad = [request("c", prompt_tokens="07.0"), request("d", prompt_tokens="9" * 5000)]
    house.put("requests/a.jsonl", [*odd, *bad, *filter(None, [beside])])

    house.night()

    where = "where request_id <> 'careful' order by 1"
    rows = house.rows(f"select request_id, prompt_tokens from marts.requests {where}")
    assert [(row["request_id"], row["prompt_tokens"]) for row in rows] == [("a", 7), ("b", 7)]


def test_an_unclosed_quote_over_a_million_lines_is_one_record_and_takes_a_second(
    tmp_path: Path,
) -> None:
    """Each further line is looked at once; looking at all of them again each time took hours."""
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"x' + ",y\n" * 1_000_000)

    with path.open("rb") as file:
        [(number, offset, text, _)] = _csv_records(file, SPEND_LOGS, Limits())

    assert (number, offset, len(text)) == (2, 4, 3_000_001)


# ---- settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "hint"),
    [("Europe/Lundon", "Did you mean 'Europe/London'?"), ("../../etc/passwd", ""), ("Europe", "")],
)
def test_a_time_zone_that_is_none_names_its_source(tmp_path: Path, zone: str, hint: str) -> None:
    file = tmp_path / "meterhouse.toml"
    file.write_text(
        '[[requests]]\nname = "export"\nformat = "canonical"\nlocation = "x"\n'
        f'time_zone = "{zone}"\n'
    )

    with pytest.raises(SettingsError) as refused:
        load(file, {})

    sentence = str(refused.value)
    assert f"the time_zone of [[requests]] source 'export' is '{zone}'" in sentence
    assert hint in sentence

"""Reading: what each odd record becomes, held against a second reader (`tests/slow_reader.py`).

Whatever way a line goes in the house, clean or careful, alone or among others, both must accept the
same records, with the same values.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.reading import IDENTIFIER, RequestFormat
from tests.landings import Landings

# ---- what lines are made of: the text of a JSON value ---------------------------------------

TEXTS = ['"x"', '""', "null", "7", "true", '"7"', '{"a": 1}', '["a"]', '" x"', '"é"', '"\\u0000"']
IDS = [*TEXTS, '"None"', '"e\\u0301"', '"\\ud800"', '"true"', '"[x"', '"1e5"', "1.5", '"a,b"']
INSTANTS = [
    '"2026-11-20T10:00:00Z"',
    '"2026-11-20t10:00:00z"',
    '"2026-11-20 10:00:00+05:30"',
    '"2026-11-20T10:00:00-00:00"',
    '"2026-11-20T10:00:00.1234567899Z"',
    '"2026-11-20T23:59:59.9999999-23:59"',
    '"0001-01-01T00:00:00Z"',
    '"1969-12-31T23:59:59Z"',
    '"0001-01-01T00:00:00+05:30"',
    '"9999-12-31T23:59:59Z"',
    '"2026-11-20T10:00:00"',
    '"2026-11-20"',
    '"2026-11-20T10:00Z"',
    '"2026-11-20T10:00:60Z"',
    '"2026-11-20T24:00:00Z"',
    '"2026-02-30T10:00:00Z"',
    '"2026-1-2T1:2:3Z"',
    '"2026-11-20T10:00:00.Z"',
    '"2026-11-20T10:00:00,5Z"',
    '"2026-11-20T10:00:00+0530"',
    '"2026-11-20T10:00:00+05"',
    '"2026-11-20T10:00:00+24:00"',
    '"2026-11-20T10:00:00+05:60"',
    '"2026-11-20T10:00:00 Z"',
    '" 2026-11-20T10:00:00Z"',
    '"2026-11-20T10:00:00Z "',
    '"2026-11-20  10:00:00Z"',
    '"2026/11/20T10:00:00Z"',
    '"20261120T100000Z"',
    '"+2026-11-20T10:00:00Z"',
    '"12026-11-20T10:00:00Z"',
    '"2026-11-20T10:00:00 (BC)+00:00"',
    '"2026-11-20T10:00:00 BC+00:00"',
    '"2026-11-20T10:00:00\\n+00:00"',
    '"２０２６-11-20T10:00:00Z"',
    '"infinity"',
    '"epoch"',
    '"now"',
    '"1763632800"',
    '""',
    "1763632800",
    "null",
    "true",
    "{}",
]
NUMBERS = [
    "0", "2.5", '"2.5"', "-0", "-0.0", '"-0"', "2.5E1", '"2.5e-1"', "1e-9", "1e-10", "1E+3", "0e5",
    "0.1234567890", "0.1234567891", '"0.12345678900"', '"0.0000000001"', "999999999.999999999",
    "1000000000", "1e9", "123456789.123456789", "0.30000000000000001", "99999999.1000000001",
    "12.00000000000000001", "0.99999999999999999", "1e-400", '"1e-400"', "1e400", "4.9e-324",
    "0.000000000000000000000000000001", "1.0000000000", "12", '"12"', "12.0", '"12.0"', "1.2e1",
    "-1", '"-1"', "0.5", "9007199254740993", '"9007199254740993"', "9223372036854775807",
    "9223372036854775808", '"9223372036854775807"', "8999999999999999.5", "2147483648", "null",
    '""', "true", "false", "NaN", '"NaN"', "Infinity", '"Infinity"', '"inf"', '"+1"', '"1_000"',
    '" 1"', '"1 "', '".5"', '"1."', "01", '"01"', '"0x10"', '"１２"', '"1,5"', "[1]", '"1\\n"',
    "{}",
]  # fmt: skip
FLAGS = ["true", "false", "null", '""', '"true"', '"TRUE"', '"t"', "1", "0", '"1"', '"yes"']
SOURCES = ['"api"', '"playground"', "null", '""', '"API"', '"batch"', "7", '"api "']

# A fraction finer than a double is lost by DuckDB's JSON reader before anything of ours sees it.
# In credits the bytes are searched for such numbers; in counts they are not, and
# 12.00000000000000001 tokens are 12.
LOST = {"12.00000000000000001", "0.99999999999999999", "999999999.999999999", "1e-400"}
COUNTS = [number for number in NUMBERS if number not in LOST]

POOLS = {
    "request_id": IDS,
    "timestamp": INSTANTS,
    "workspace_id": TEXTS,
    "api_key_id": TEXTS,
    "model": TEXTS,
    "source": SOURCES,
    "status": COUNTS,
    "stream": FLAGS,
    "prompt_tokens": COUNTS,
    "total_tokens": COUNTS,
    "credits_used": NUMBERS,
    "gateway_in_at": INSTANTS,
}
ONE_OF_EACH_KIND = (
    "request_id",
    "timestamp",
    "workspace_id",
    "source",
    "stream",
    "prompt_tokens",
    "credits_used",
    "gateway_in_at",
)
PLAIN = {
    "request_id": '"req_1"',
    "timestamp": '"2026-11-20T10:00:00Z"',
    "credits_used": '"1.5"',
    "model": '"gpt-5"',
    "prompt_tokens": "3",
}
WHOLE_LINES = [
    "{", "[]", "null", "7", '"x"', "{}", "not json", "  ", '{"a": 1} {"b": 2}', "{,}", "\x00",
]  # fmt: skip


def object_text(fields: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in fields) + "}"


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A line: mostly a plain record with a few fields odd, seldom no record at all."""
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return draw(st.sampled_from(WHOLE_LINES))
    fields = dict(PLAIN)
    for name in draw(st.lists(st.sampled_from(sorted(POOLS)), max_size=3, unique=True)):
        fields[name] = draw(st.sampled_from(POOLS[name]))
    listed = list(fields.items())
    if kind == 1:
        listed.append(draw(st.sampled_from(listed)))
    if kind == 2:
        listed.append(("unknown", draw(st.sampled_from(['{"a": {"a": 1}}', "[[]]", '"\\ud800"']))))
    if kind == 3:
        listed.pop(draw(st.integers(0, len(listed) - 1)))
    return object_text(listed) + (draw(st.sampled_from(["", "", "x", ","])) if kind == 4 else "")


# ---- the house and the second reader --------------------------------------------------------


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Landings:
    return Landings(tmp_path_factory.mktemp("reading"))


def check(reading: Landings, written: list[str]) -> None:
    """Asserts that the house and the second reader agree on every line."""
    content = "".join(f"{line}\n" for line in written).encode("utf-8", "surrogatepass")

    found = reading.land({"a.jsonl": content})

    assert found == {"a.jsonl": reading.expected("a.jsonl", content)}


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_every_odd_value_alone_in_its_object_is_read_as_the_facts_say(
    reading: Landings, name: str
) -> None:
    """Alone, so that the clean path may take it if it dares."""
    objects = {
        f"{number:03}.jsonl": object_text(list((PLAIN | {name: value}).items())).encode()
        for number, value in enumerate(POOLS[name])
    }

    found = reading.land(objects)

    wrong = [
        f"{content.decode()}: {found[file]}"
        for file, content in objects.items()
        if found[file] != reading.expected(file, content)
    ]
    assert not wrong, "\n".join(wrong)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(written=st.lists(lines(), min_size=1, max_size=16))
def test_both_readers_accept_the_same_records(reading: Landings, written: list[str]) -> None:
    check(reading, written)


def test_a_field_that_no_column_is_made_of_is_a_mistake_of_the_format() -> None:
    with pytest.raises(ValueError, match="nothing is made of the field 'colour'"):
        RequestFormat("log", {"id": IDENTIFIER, "colour": IDENTIFIER}, {"request_id": "id"})

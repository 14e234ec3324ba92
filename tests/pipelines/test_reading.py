"""Reading: what each odd record becomes, held against a second reader written from
facts/reading.md.

The second reader knows nothing of the house: it takes a line apart by itself, slowly. Whatever way
a line goes in the house, clean or careful, alone or among others, both must accept the same
records.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.requests import Landing, formats
from pipelines import contents
from pipelines.calendar import Clock, utc_now
from pipelines.settings import RequestSource, Settings
from pipelines.store import Draft, Store

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


# ---- the second reader ----------------------------------------------------------------------

JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]+)?"
    r"(?:[Zz]|([-+])([0-9]{2}):([0-9]{2}))"
)


class Refused(Exception):
    """The line is not accepted."""


@dataclass
class Bare:
    """A JSON number, as it was written."""

    text: str


def refuse(_: str) -> None:
    raise Refused


def read(line: str) -> dict[str, Any]:
    """One line as the facts say. Raises Refused."""
    seen: list[list[str]] = []

    def named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen.append([name for name, _ in pairs])
        return dict(pairs)

    try:
        record = json.loads(
            line,
            parse_float=Bare,
            parse_int=Bare,
            parse_constant=refuse,
            object_pairs_hook=named,
        )
    except ValueError:
        raise Refused from None
    if not isinstance(record, dict):
        raise Refused
    if any(seen[-1].count(name) > 1 for name in POOLS):
        raise Refused
    return typed(record)


def typed(record: dict[str, Any]) -> dict[str, Any]:
    completed_at = instant(record.get("timestamp"))
    prompt = count(record.get("prompt_tokens"))
    total = count(record.get("total_tokens"))
    row = {
        "request_id": text(record.get("request_id")),
        "completed_at": completed_at,
        "workspace_id": text(record.get("workspace_id")),
        "api_key_id": text(record.get("api_key_id")),
        "model": text(record.get("model")),
        "source": text(record.get("source")),
        "status": count(record.get("status"), 2**31 - 1),
        "is_streamed": flag(record.get("stream")),
        "prompt_tokens": prompt,
        "total_tokens": total,
        "credits": credits(record.get("credits_used")),
        "gateway_in_at": instant(record.get("gateway_in_at")),
    }
    if row["request_id"] is None or completed_at is None:
        raise Refused
    if row["source"] not in (None, "api", "playground"):
        raise Refused
    if completed_at > utc_now() + timedelta(minutes=5):
        raise Refused
    return row


def text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or "\x00" in value:
        raise Refused
    if any(0xD800 <= ord(letter) < 0xE000 for letter in value):
        raise Refused
    return value


def number(value: Any) -> Decimal | None:
    if value is None or value == "":
        return None
    written = value.text if isinstance(value, Bare) else value
    if not isinstance(written, str) or not JSON_NUMBER.fullmatch(written):
        raise Refused
    return Decimal(written)


def count(value: Any, most: int = 2**63 - 1) -> int | None:
    is_text_of_digits = isinstance(value, str) and re.fullmatch("[0-9]+", value)
    stated = Decimal(str(value)) if is_text_of_digits else number(value)
    if stated is None:
        return None
    if stated < 0 or stated > most or stated != int(stated):
        raise Refused
    return int(stated)


def credits(value: Any) -> Decimal:
    stated = number(value)
    if stated is None or stated < 0 or stated >= 10**9:
        raise Refused
    if stated and stated.adjusted() < -9:
        raise Refused
    nine = abs(stated).quantize(Decimal("1E-9"))
    if nine != stated:
        raise Refused
    return nine


def flag(value: Any) -> bool | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise Refused


def instant(value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    found = RFC_3339.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise Refused
    day, clock, fraction, sign, hours, minutes = found.groups()
    try:
        stated = datetime.strptime(f"{day}T{clock}", "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        stated += timedelta(microseconds=int((fraction or ".0")[1:7].ljust(6, "0")))
        if sign:
            if int(hours) > 23 or int(minutes) > 59:
                raise Refused
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            stated += offset if sign == "-" else -offset
    except (ValueError, OverflowError):
        raise Refused from None
    return stated.replace(tzinfo=None)


# ---- the house ------------------------------------------------------------------------------

COLUMNS = tuple(
    typed({"request_id": "a", "timestamp": "2026-01-01T00:00:00Z", "credits_used": "1"})
)


class Reading:
    """The house's landing alone: one object in, its rows and quarantined lines out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.landing = folder / "landing"
        self.landing.mkdir(parents=True)
        self.spool = folder / "spool"
        self.spool.mkdir()
        (folder / "data").mkdir()
        self.models = contents.models()
        self.settings = Settings(folder=folder)
        self.source = RequestSource(
            name="gateway", gateway="infery", format="canonical", location="landing"
        )
        self.count = 0

    def land(self, name: str, content: bytes) -> tuple[dict[int, dict[str, Any]], set[int]]:
        """line → row, and the lines set aside; nothing is published."""
        for old in self.landing.iterdir():
            old.unlink()
        (self.landing / name).write_bytes(content)
        draft = Draft(Store(self.folder / "data"), self.spool, self.models.bind)
        seen = SimpleNamespace(objects=set(), knows=lambda *_: False, add=lambda *_: None)
        now = utc_now()
        landing = Landing(
            draft,
            self.source,
            formats()["canonical"],
            self.settings,
            Clock(as_of=now, arrived_at=now),
            seen,  # type: ignore[arg-type]
        )
        landing.run()
        columns = ", ".join(COLUMNS)
        rows = draft.query(f"select source_line, {columns} from raw.requests").to_pylist()
        aside = draft.query("select line_number from raw.quarantine").to_pylist()
        draft.connection.close()
        return {row.pop("source_line"): row for row in rows}, {row["line_number"] for row in aside}


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    return Reading(tmp_path_factory.mktemp("reading"))


def expected_of(records: Iterator[tuple[int, Any]]) -> tuple[dict[int, dict[str, Any]], set[int]]:
    """line → row, and the lines refused, by the second reader."""
    rows, refused = {}, set()
    for place, take in records:
        try:
            row = take()
        except Refused:
            refused.add(place)
            continue
        rows[place] = row
    return rows, refused


def check(reading: Reading, written: list[str]) -> None:
    """Asserts that the house and the second reader agree on every line."""
    content = "".join(f"{line}\n" for line in written).encode("utf-8", "surrogatepass")
    records = (
        (number, lambda line=line: read(line))
        for number, line in enumerate(written, start=1)
        if line.strip(" \t\r")
    )

    found = reading.land("a.jsonl", content)

    assert found == expected_of(records)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_every_odd_value_alone_in_its_object_is_read_as_the_facts_say(
    reading: Reading, name: str
) -> None:
    """Alone, so that the clean path may take it if it dares."""
    wrong = []
    for value in POOLS[name]:
        try:
            check(reading, [object_text(list((PLAIN | {name: value}).items()))])
        except AssertionError as error:
            wrong.append(f"{value}: {str(error).splitlines()[0]}")

    assert not wrong, "\n".join(wrong)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(written=st.lists(lines(), min_size=1, max_size=8))
def test_both_readers_accept_the_same_records(reading: Reading, written: list[str]) -> None:
    check(reading, written)

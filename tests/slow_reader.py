"""A second reader of request logs, written from facts/reading.md and the contract: one object's
bytes in, the typed row of each record or its refusal out.

It knows nothing of the house: no engine, no fast path, a line at a time. What the house lands is
held against it, line by line and value by value.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any

LINE_LIMIT = 1_048_576
DEEPEST = 512
MOST = 2**63 - 1
EXACT = Context(prec=900, Emax=10**9, Emin=-(10**9))
NINE = Decimal("1E-9")

JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]+)?"
    r"(?:[Zz]|([-+])([0-9]{2}):([0-9]{2}))"
)


class Refused(Exception):
    """The record is not accepted."""


class Anything:
    """A value that the facts leave open."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Bare:
    """A JSON number, as it was written."""

    text: str


Row = dict[str, Any]
Read = Callable[[Any], Any]


@dataclass
class Verdicts:
    """What becomes of an object's records: line → row; line → (byte offset, byte length) of those
    that are set aside.
    """

    rows: dict[int, Row] = field(default_factory=dict)
    aside: dict[int, tuple[int, int]] = field(default_factory=dict)


# ---- values ---------------------------------------------------------------------------------


def text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or "\x00" in value:
        raise Refused
    if any(0xD800 <= ord(letter) < 0xE000 for letter in value):
        raise Refused
    return value


def needed(read: Read) -> Read:
    def stated(value: Any) -> Any:
        found = read(value)
        if found is None:
            raise Refused
        return found

    return stated


def word(*words: str) -> Read:
    def one(value: Any) -> str | None:
        found = text(value)
        if found not in (None, *words):
            raise Refused
        return found

    return one


def number(value: Any) -> Decimal | None:
    if value is None or value == "":
        return None
    written = value.text if isinstance(value, Bare) else value
    if not isinstance(written, str) or not JSON_NUMBER.fullmatch(written):
        raise Refused
    try:
        stated = Decimal(written)
    except InvalidOperation:
        raise Refused from None
    if stated and not -400 < stated.adjusted() < 400:
        raise Refused
    return stated


def count(most: int = MOST) -> Read:
    def whole(value: Any) -> int | None:
        if isinstance(value, str) and re.fullmatch("[0-9]+", value):
            value = value.lstrip("0") or "0"  # a text of digits
        stated = number(value)
        if stated is None:
            return None
        if stated < 0 or stated > most or stated != int(stated):
            raise Refused
        return int(stated)

    return whole


def credits(value: Any) -> Decimal:
    stated = number(value)
    if stated is None or stated < 0 or stated >= 10**9:
        raise Refused
    nine = abs(stated).quantize(NINE, context=EXACT)
    if nine != stated:
        raise Refused
    return nine


def dollars(value: Any) -> Decimal:
    stated = number(value)
    if stated is None or stated < 0 or stated >= 10**7:
        raise Refused
    return stated


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


def anything(value: Any) -> Any:
    """A document, of which what can be read is read."""
    if isinstance(value, str) and any(0xD800 <= ord(letter) < 0xE000 for letter in value):
        raise Refused
    return value


# ---- formats --------------------------------------------------------------------------------

SMALL = count(2**31 - 1)
CANONICAL: dict[str, Read] = {
    "request_id": needed(text),
    "timestamp": needed(instant),
    "workspace_id": text,
    "api_key_id": text,
    "member_id": text,
    "source": word("api", "playground"),
    "requested_model": text,
    "model": text,
    "fallback_from": text,
    "fallback_depth": SMALL,
    "status": SMALL,
    "error_code": text,
    "stream": flag,
    "prompt_tokens": count(),
    "completion_tokens": count(),
    "total_tokens": count(),
    "credits_used": credits,
    "latency_ms": count(),
    "gateway_in_at": instant,
    "provider_in_at": instant,
    "provider_out_at": instant,
    "gateway_out_at": instant,
}
USAGE_CSV = {
    name: CANONICAL[name]
    for name in (
        "timestamp", "model", "api_key_id", "prompt_tokens", "completion_tokens", "credits_used",
        "request_id", "latency_ms", "fallback_depth",
    )
}  # fmt: skip
SPEND_LOGS: dict[str, Read] = {
    "request_id": needed(text),
    "endTime": needed(instant),
    "api_key": text,
    "team_id": text,
    "model": text,
    "model_id": text,
    "model_group": text,
    "status": word("success", "failure"),
    "prompt_tokens": count(),
    "completion_tokens": count(),
    "total_tokens": count(),
    "spend": dollars,
    "request_duration_ms": count(),
    "metadata": anything,
}
OPENROUTER: dict[str, Read] = {
    "generation_id": needed(text),
    "created_at": needed(instant),
    "cost_total": dollars,
    "tokens_prompt": count(),
    "tokens_completion": count(),
    "model_permaslug": text,
    "cancelled": flag,
    "streamed": flag,
    "finish_reason_normalized": text,
    "generation_time_ms": count(),
}


def total(values: Row) -> int | None:
    if values.get("total_tokens") is not None:
        stated: int = values["total_tokens"]
        return stated
    parts = (values.get("prompt_tokens"), values.get("completion_tokens"))
    if None in parts:
        return None
    whole = sum(part for part in parts if part is not None)
    if whole > MOST:
        raise Refused
    return whole


def as_canonical(values: Row) -> Row:
    row = {name: values.get(name) for name in CANONICAL if name not in ("timestamp", "stream")}
    row["completed_at"] = values["timestamp"]
    row["is_streamed"] = values.get("stream")
    row["credits"] = row.pop("credits_used")
    row["member_id"] = values.get("member_id") if values.get("source") == "playground" else None
    row["total_tokens"] = total(values)
    came, went = row["gateway_in_at"], row["gateway_out_at"]
    if came is not None and went is not None:
        micro = (went - came) // timedelta(microseconds=1)
        row["latency_ms"] = micro // 1000 if micro >= 0 else -(-micro // 1000)
    return row


def in_credits(spent: Decimal) -> Decimal:
    """100 credits to the dollar."""
    exact = EXACT.multiply(spent, Decimal(100))
    found = exact.quantize(NINE, rounding=ROUND_HALF_EVEN, context=EXACT)
    if found >= 10**9:
        raise Refused
    return found


def as_routed(values: Row) -> Row:
    """OpenRouter's activity."""
    stated = {
        "prompt_tokens": values["tokens_prompt"],
        "completion_tokens": values["tokens_completion"],
    }
    is_error = values["finish_reason_normalized"] == "error"
    return dict.fromkeys(COLUMNS) | stated | {
        "request_id": values["generation_id"],
        "completed_at": values["created_at"],
        "source": "api",
        "model": values["model_permaslug"],
        "error_code": "cancelled" if values["cancelled"] else "error" if is_error else None,
        "is_streamed": values["streamed"],
        "total_tokens": total(stated),
        "credits": in_credits(values["cost_total"]),
        "latency_ms": values["generation_time_ms"],
    }  # fmt: skip


def as_spent(values: Row) -> Row:
    """As the contract reads LiteLLM."""
    row: Row = dict.fromkeys(COLUMNS)
    row["credits"] = in_credits(values["spend"])
    document = values["metadata"]
    is_open = False  # whether what is read of it is open: the text of no JSON
    if isinstance(document, str):
        try:
            document = json.loads(document, parse_constant=refuse)
        except (ValueError, RecursionError, Refused):
            is_open = document != ""
    document = document if isinstance(document, dict) else {}
    error = document.get("error_information")
    error = error if isinstance(error, dict) else {}
    depth = whole(document.get("attempted_fallbacks"))
    fell = isinstance(depth, int) and depth > 0
    is_failure = values["status"] == "failure"
    row |= {
        "request_id": values["request_id"],
        "completed_at": values["endTime"],
        "workspace_id": values["team_id"],
        "api_key_id": values["api_key"],
        "source": "api",
        "requested_model": values["model_group"]
        or (values["model"] if values["model"] != "unknown-model" else None),
        "model": values["model"] if values["model_id"] is not None else None,
        "fallback_depth": depth,
        "fallback_from": word_of(document.get("original_model_group")) if fell else None,
        "status": 200 if values["status"] == "success" else None,
        "prompt_tokens": values["prompt_tokens"],
        "completion_tokens": values["completion_tokens"],
        "total_tokens": total(values),
        "latency_ms": values["request_duration_ms"],
    }
    if isinstance(depth, Anything):
        row["fallback_from"] = Anything()
    if is_failure:
        row |= {
            "status": whole(error.get("error_code")),
            "error_code": word_of(error.get("error_class")),
        }
    if is_open:
        row |= dict.fromkeys(("fallback_depth", "fallback_from"), Anything())
        row |= dict.fromkeys(("status", "error_code"), Anything()) if is_failure else {}
    return row


def whole(value: Any) -> Any:
    """A small whole number in a document; a text of one too."""
    value = value.text if isinstance(value, Bare) else value
    if isinstance(value, bool):
        return Anything()
    if isinstance(value, int | str) and re.fullmatch(r"-?[0-9]{1,9}", str(value)):
        return int(value)
    if value is None or value == "":
        return None
    return Anything()


def word_of(value: Any) -> Any:
    return (value or None) if isinstance(value, str) or value is None else Anything()


FORMATS: Mapping[str, tuple[Mapping[str, Read], Callable[[Row], Row]]] = {
    "canonical": (CANONICAL, as_canonical),
    "usage_csv": (USAGE_CSV, as_canonical),
    "litellm_spendlogs": (SPEND_LOGS, as_spent),
    "openrouter_csv": (OPENROUTER, as_routed),
}
COLUMNS = tuple(as_canonical({"timestamp": None, "credits_used": None}))


def typed(record: Mapping[str, Any], format_name: str, latest: datetime) -> Row:
    """The row of a record. Raises Refused."""
    fields, as_row = FORMATS[format_name]
    row = as_row({name: read(record.get(name)) for name, read in fields.items()})
    if row["completed_at"] > latest:
        raise Refused
    return row


# ---- lines and records ----------------------------------------------------------------------


def expected(content: bytes, shape: str, format_name: str, latest: datetime) -> Verdicts:
    """What must become of an object's records."""
    fields, _ = FORMATS[format_name]
    records = json_records(content, fields) if shape == "json" else csv_records(content, fields)
    verdicts = Verdicts()
    for line, offset, length, take in records:
        try:
            if length > LINE_LIMIT:
                raise Refused
            verdicts.rows[line] = typed(take(), format_name, latest)
        except Refused:
            verdicts.aside[line] = (offset, length)
    return verdicts


Taken = tuple[int, int, int, Callable[[], Mapping[str, Any]]]


def physical_lines(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(number from 1, byte offset, bytes with their end); a BOM at the start is passed over."""
    offset = 0
    for number, piece in enumerate(content.split(b"\n"), start=1):
        ends = offset + len(piece) < len(content)
        line = piece + b"\n" if ends else piece
        skipped = 3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0
        if line:
            yield number, offset + skipped, line[skipped:]
        offset += len(line)


def without_end(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def json_records(content: bytes, fields: Mapping[str, Read]) -> Iterator[Taken]:
    for number, offset, line in physical_lines(content):
        stated = without_end(line)
        if stated.strip(b" \t\r"):
            yield number, offset, len(stated), lambda stated=stated: json_record(stated, fields)


def refuse(_: str) -> Any:
    raise Refused


def json_record(line: bytes, fields: Mapping[str, Read]) -> Mapping[str, Any]:
    if b"\r" in line.rstrip(b"\r") or deeper_than(line, DEEPEST):
        raise Refused
    seen: list[list[str]] = []

    def named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen.append([name for name, _ in pairs])
        return dict(pairs)

    try:
        record = json.loads(
            line.decode("utf-8"),
            parse_float=Bare,
            parse_int=Bare,
            parse_constant=refuse,
            object_pairs_hook=named,
        )
    except (ValueError, RecursionError):
        raise Refused from None
    if not isinstance(record, dict):
        raise Refused
    if any(seen[-1].count(name) > 1 for name in fields):
        raise Refused
    return record


def deeper_than(line: bytes, most: int) -> bool:
    if line.count(b"[") + line.count(b"{") <= most:
        return False
    depth, is_text, is_escaped = 0, False, False
    for letter in line:
        if is_text:
            is_text = is_escaped or letter != 0x22
            is_escaped = not is_escaped and letter == 0x5C
        elif letter == 0x22:
            is_text = True
        elif letter in b"[{":
            depth += 1
            if depth > most:
                return True
        elif letter in b"]}":
            depth -= 1
    return False


def csv_records(content: bytes, fields: Mapping[str, Read]) -> Iterator[Taken]:
    """A record goes on over the line's end while its quotes are odd in number."""
    heading: list[str] | None = None
    is_readable = True
    lines = physical_lines(content)
    for first, offset, line in lines:
        parts = [line]
        quotes = line.count(b'"')
        while quotes % 2:
            _, _, more = next(lines, (0, 0, b""))
            if not more:
                break
            parts.append(more)
            quotes += more.count(b'"')
        record = without_end(b"".join(parts))
        if not record.strip(b" \t"):
            continue
        if heading is not None or not is_readable:
            names = heading or []
            yield (
                first,
                offset,
                len(record),
                lambda record=record, names=names: csv_record(record, names, fields),
            )
            continue
        try:
            heading = [name.strip() for name in cells(record)]
        except Refused:
            is_readable = False
            yield first, offset, len(record), lambda: refuse("")


def csv_record(record: bytes, names: list[str], fields: Mapping[str, Read]) -> Mapping[str, Any]:
    stated = cells(record)
    if len(stated) != len(names):
        raise Refused
    if any(names.count(name) > 1 for name in fields):
        raise Refused
    return dict(zip(names, stated, strict=True))


def cells(record: bytes) -> list[str]:
    """The cells of a record: quoted ones with their quotes undone, others as they are."""
    try:
        stated = record.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused from None
    found: list[str] = []
    place = 0
    while True:
        if stated.startswith('"', place):
            end = place + 1
            while True:
                end = stated.find('"', end)
                if end < 0:
                    raise Refused
                if not stated.startswith('"', end + 1):
                    break
                end += 2
            found.append(stated[place + 1 : end].replace('""', '"'))
            place = end + 1
            if place < len(stated) and stated[place] != ",":
                raise Refused
        else:
            end = stated.find(",", place)
            end = len(stated) if end < 0 else end
            if set(stated[place:end]) & set("\r\n"):
                raise Refused
            found.append(stated[place:end])
            place = end
        if place >= len(stated):
            return found
        place += 1

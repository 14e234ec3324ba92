"""Small files become records: CSV, JSON, JSON lines and Parquet, read whole, one record at a time,
every bad one accounted for.

Directories, invoices and CSV exports are thousands of rows, so plain Python per record is fine
here; request logs are read by `pipelines.reading`. What a record means does not belong here: the
sources say it with typed columns.
"""

import csv
import gzip
import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import object_store
from pipelines.calendar import Clock
from pipelines.reading import (
    MOMENT,
    Number,
    ObjectRefused,
    RecordRefused,
    shown,
    to_nine_places,
)
from pipelines.store import ARROW_TYPES, Draft, RawTable, sha256_of

log = logging.getLogger(__name__)

BYTES_LIMIT = (
    256 * 2**20
)  # a file is read whole; a larger one is no directory and no list of invoices
LINE_LIMIT = 1_048_576  # bytes of one record
SUFFIXES = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
SPACE = b" \t\r\n"

FILES = RawTable(
    "A small file that was landed, by the hash of its content, so that it is never landed twice.",
    {
        "object_sha256": ("varchar", "sha256 of the unpacked bytes"),
        "source": ("varchar", "invoices | directory | stripe_csv"),
        "location": ("varchar", "where it was first found"),
        "read_count": ("bigint", "records in it"),
        "accepted_count": ("bigint", "records that became rows"),
        "duplicate_count": ("bigint", "records that said what raw held already"),
        "quarantined_count": ("bigint", "records set aside"),
        "arrived_at": (
            "timestamp",
            "UTC; files of one night follow each other in the order of their names",
        ),
    },
)

QUARANTINE_TYPES = {
    "object_sha256": "varchar",
    "location": "varchar",
    "line_number": "bigint",
    "byte_offset": "bigint",
    "byte_length": "bigint",
    "line_sha256": "varchar",
    "reason": "varchar",
    "source": "varchar",
    "arrived_at": "timestamp",
}


# ---- files ----------------------------------------------------------------------------------


def find_files(location: Path) -> tuple[list[Path], list[Path]]:
    """The objects at a location (a folder with its subfolders, a file, or a glob), in the order of
    their names, and what has an unknown suffix. Names that begin with a dot or an underscore,
    `*.tmp` and `*.part` are not objects.
    """
    if location.is_file():
        found: Iterable[Path] = [location]
    elif location.is_dir():
        found = (path for path in location.rglob("*") if path.is_file())
    elif any(mark in str(location) for mark in "*?["):
        parts = location.parts
        first = next(i for i, part in enumerate(parts) if any(mark in part for mark in "*?["))
        base = Path(*parts[:first])
        found = (path for path in base.glob(str(Path(*parts[first:]))) if path.is_file())
        location = base
    else:
        return [], []
    files, unknown = [], []
    for path in sorted(found):
        inside = path.relative_to(location).parts if path != location else (path.name,)
        if any(part[0] in "._" for part in inside) or path.suffix in (".tmp", ".part"):
            continue
        if shape_of(path) is None:
            unknown.append(path)
            continue
        files.append(path)
    return files, unknown


def fetch_files(location: str, spool: Path) -> tuple[dict[Path, str], list[str], list[str]]:
    """The same in an object store: each object, brought into the spool under its own name, and
    where it lies; what has an unknown suffix; what changed since it was listed.
    """
    found = sorted(object_store.objects_at(location), key=lambda item: item.key.split("/"))
    wanted = {}
    unknown = []
    for item in found:
        if shape_of(Path(item.name)) is None:
            unknown.append(item.location)
            continue
        folder = spool / hashlib.sha256(item.location.encode()).hexdigest()[:24]
        folder.mkdir(exist_ok=True)
        wanted[folder / item.name] = item

    def fetch(path: Path) -> bool:
        try:
            wanted[path].fetch(path)
        except object_store.Changed:
            return False
        return True

    came = dict(zip(wanted, object_store.in_parallel(fetch, wanted), strict=True))
    places = {path: item.location for path, item in wanted.items() if came[path]}
    return places, unknown, [item.location for path, item in wanted.items() if not came[path]]


def shape_of(path: Path) -> str | None:
    """`csv`, `json`, `jsonl` or `parquet` by the suffix, looking through `.gz`; None when
    unknown.
    """
    name = path.name.lower()
    return SUFFIXES.get(Path(name.removesuffix(".gz")).suffix)


def plain_bytes(path: Path) -> bytes:
    """The file's content, unpacked. Raises ObjectRefused when it can't be trusted."""
    if path.stat().st_size > BYTES_LIMIT:
        raise ObjectRefused(f"larger than {BYTES_LIMIT} bytes")
    content = path.read_bytes()
    if path.suffix.lower() != ".gz":
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            content = stream.read(BYTES_LIMIT + 1)
    except (OSError, EOFError, ValueError) as error:
        raise ObjectRefused(f"not readable as gzip: {error}") from None
    if len(content) > BYTES_LIMIT:
        raise ObjectRefused(f"unpacks to more than {BYTES_LIMIT} bytes")
    return content


# ---- records --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """One record and its place. `names` are the columns of its file, as written; `problem` says why
    it has no fields.
    """

    line_number: int
    byte_offset: int | None
    content: bytes
    fields: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    problem: str = ""


def records(content: bytes, shape: str) -> Iterator[Record]:
    """The records of a file. Raises ObjectRefused when the file as a whole can't be read."""
    if shape == "csv":
        return _csv_records(content)
    if shape == "jsonl":
        return _json_lines(content)
    if shape == "json":
        return _json_array(content)
    return _parquet_rows(content)


def _physical_lines(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(number from 1, byte offset, line with its end), the byte order mark left out."""
    offset = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    for number, line in enumerate(io.BytesIO(content[offset:]), start=1):
        yield number, offset, line
        offset += len(line)


def _csv_records(content: bytes) -> Iterator[Record]:
    """By header name; the line is where the record begins, a quoted line break belongs to its
    record.
    """
    csv.field_size_limit(BYTES_LIMIT)
    header: tuple[str, ...] | None = None
    lines = _physical_lines(content)
    for number, offset, line in lines:
        parts, quotes = [line], line.count(b'"')
        while quotes % 2:
            _, _, more = next(lines, (0, 0, b""))
            if not more:
                break
            parts.append(more)
            quotes += more.count(b'"')
        text = b"".join(parts)
        text = text.removesuffix(b"\n").removesuffix(b"\r")
        if not text.strip(SPACE):
            continue
        try:
            cells = _cells(text)
            if header is None:
                header = tuple(cell.strip() for cell in cells)
                continue
            if len(cells) != len(header):
                raise RecordRefused(f"{len(cells)} cells under {len(header)} names")
        except RecordRefused as error:
            if header is None:
                raise ObjectRefused(f"the header can't be read: {error}") from None
            yield Record(number, offset, text, names=header, problem=str(error))
            continue
        yield Record(number, offset, text, dict(zip(header, cells, strict=True)), header)


def _cells(text: bytes) -> list[str]:
    if len(text) > LINE_LIMIT:
        raise RecordRefused(f"longer than {LINE_LIMIT} bytes")
    if text.count(b'"') % 2:
        raise RecordRefused("an unclosed quote")
    try:
        cells = next(csv.reader(io.StringIO(text.decode("utf-8"), newline=""), strict=True))
    except UnicodeDecodeError:
        raise RecordRefused("invalid UTF-8") from None
    except (csv.Error, StopIteration):
        raise RecordRefused("malformed CSV") from None
    if "\x00" in "".join(cells):
        raise RecordRefused("holds a NUL")
    return cells


def _refuse_constant(name: str) -> Any:
    raise RecordRefused(f"{name} is no JSON number")


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in items]
    if len(names) != len(set(names)):
        raise RecordRefused("a field is given twice")
    return dict(items)


DECODER = json.JSONDecoder(
    parse_float=Number,
    parse_int=Number,
    parse_constant=_refuse_constant,
    object_pairs_hook=_pairs,
)


def _as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecordRefused("not a JSON object")
    if any(isinstance(v, str) and re.search("[\x00\ud800-\udfff]", v) for v in value.values()):
        raise RecordRefused("a field holds a character that no text may hold")
    return value


def _json_lines(content: bytes) -> Iterator[Record]:
    for number, offset, line in _physical_lines(content):
        text = line.removesuffix(b"\n").removesuffix(b"\r")
        if not text.strip(SPACE):
            continue
        try:
            if len(text) > LINE_LIMIT:
                raise RecordRefused(f"longer than {LINE_LIMIT} bytes")
            decoded = text.decode("utf-8").strip()
            value, end = DECODER.raw_decode(decoded)
            if end != len(decoded):
                raise RecordRefused("more than one JSON value on the line")
            fields = _as_object(value)
        except UnicodeDecodeError:
            yield Record(number, offset, text, problem="invalid UTF-8")
        except RecordRefused as error:
            yield Record(number, offset, text, problem=str(error))
        except (ValueError, RecursionError):
            yield Record(number, offset, text, problem="malformed JSON")
        else:
            yield Record(number, offset, text, fields, tuple(fields))


def _json_array(content: bytes) -> Iterator[Record]:
    """The objects of one array, or one object alone. Their number in the array stands for the line:
    a whole array may stand on one line, and a record's place must be its own.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ObjectRefused("invalid UTF-8") from None
    if not text.strip():
        return
    place = len(text) - len(text.lstrip())
    is_array = text[place] == "["
    place += is_array
    number = 0
    while True:
        place += len(text[place:]) - len(text[place:].lstrip(" \t\r\n"))
        if is_array and text[place : place + 1] == "]":
            break
        number += 1
        problem, fields = "", {}
        try:
            value, end = DECODER.raw_decode(text, place)
            fields = _as_object(value)
        except RecordRefused as error:
            problem = str(error)
            try:
                _, end = json.JSONDecoder().raw_decode(text, place)
            except ValueError:
                raise ObjectRefused(f"malformed JSON in record {number}") from None
        except (ValueError, RecursionError):
            raise ObjectRefused(f"malformed JSON in record {number}") from None
        yield Record(number, None, text[place:end].encode(), fields, tuple(fields), problem)
        place = end
        place += len(text[place:]) - len(text[place:].lstrip(" \t\r\n"))
        if is_array and text[place : place + 1] == ",":
            place += 1
        elif not (is_array and text[place : place + 1] == "]"):
            break
    if text[place + is_array :].strip():
        raise ObjectRefused(f"malformed JSON after record {number}")


def _parquet_rows(content: bytes) -> Iterator[Record]:
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise ObjectRefused(f"not readable as Parquet: {str(error).splitlines()[0]}") from None
    names = tuple(table.column_names)
    for number, row in enumerate(table.to_pylist(), start=1):
        yield Record(number, None, json.dumps(row, default=str).encode(), row, names)


# ---- typed values ---------------------------------------------------------------------------
# Each takes a value as a file states it and its column's name; None: absent.
# RecordRefused: the value can't be read without guessing. Its reason stays on disk, so it names the
# column and never quotes the record.

Reader = Callable[[Any, str], Any]


def text(value: Any, name: str) -> str | None:
    """A text, the blanks around it taken off: files like these are kept by hand."""
    if value is None:
        return None
    if isinstance(value, Number) or not isinstance(value, str):
        raise RecordRefused(f"{name} is not text")
    return value.strip() or None


def needed(read: Reader) -> Reader:
    """The same value, but it must be there."""

    def reader(value: Any, name: str) -> Any:
        typed = read(value, name)
        if typed is None:
            raise RecordRefused(f"{name} is missing")
        return typed

    return reader


def word(*words: str) -> Reader:
    """One of a few words, in any case; given in lower case."""

    def reader(value: Any, name: str) -> str | None:
        stated = text(value, name)
        if stated is not None and stated.lower() not in words:
            raise RecordRefused(f"{name} is none of {', '.join(words)}")
        return stated.lower() if stated is not None else None

    return reader


def currency(value: Any, name: str) -> str | None:
    """An ISO code, in lower case."""
    stated = text(value, name)
    if stated is not None and not re.fullmatch("[A-Za-z]{3}", stated):
        raise RecordRefused(f"{name} is no currency code")
    return stated.lower() if stated is not None else None


def number(value: Any, name: str) -> Decimal | None:
    """A plain number, exactly as stated; never through binary floats."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool | float):
        raise RecordRefused(f"{name} is not an exact number")
    stated = value.strip() if isinstance(value, str) else str(value)
    if not re.fullmatch(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", stated, re.ASCII):
        raise RecordRefused(f"{name} is not a plain number")
    try:
        return Decimal(stated)
    except InvalidOperation:
        raise RecordRefused(f"{name} is out of range") from None


def integer(value: Any, name: str) -> int | None:
    """A whole number; `12.0` is one."""
    stated = number(value, name)
    if stated is None:
        return None
    if stated != stated.to_integral_value():
        raise RecordRefused(f"{name} is not a whole number")
    if abs(stated) > 2**63 - 1:
        raise RecordRefused(f"{name} is out of range")
    return int(stated)


def nine_places(value: Any, name: str) -> Decimal | None:
    """A decimal(18,9) that is not negative; more places are refused, not rounded."""
    stated = number(value, name)
    return None if stated is None else to_nine_places(stated, name)


def instant(value: Any, name: str) -> datetime | None:
    """An RFC 3339 instant with its offset; from Parquet a timestamp, UTC where it says no zone."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    stated = value.strip() if isinstance(value, str) and not isinstance(value, Number) else value
    typed: datetime | None = MOMENT.careful(stated, name, None)
    return typed


def day(value: Any, name: str) -> date | None:
    """`YYYY-MM-DD`, or a Parquet date."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    stated = text(value, name)
    if stated is None:
        return None
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", stated, re.ASCII):
        raise RecordRefused(f"{name} is not a date like 2026-11-22")
    try:
        return date.fromisoformat(stated)
    except ValueError:
        raise RecordRefused(f"{name} is no date there is") from None


@dataclass(frozen=True)
class Column:
    """One typed column of a raw table: its DuckDB type, its documentation, and how a file's value
    is read.
    """

    type: str
    documentation: str
    read: Reader


PLACE = {
    "source_object": ("varchar", "sha256 of the file it came from"),
    "source_line": (
        "bigint",
        "physical line in it, from 1; the record, in JSON arrays and Parquet",
    ),
    "arrived_at": ("timestamp", "UTC, wall clock at landing"),
}


def raw_table(description: str, columns: Mapping[str, Column]) -> RawTable:
    """The shape of a raw table whose rows are records of small files."""
    return RawTable(
        description,
        {name: (column.type, column.documentation) for name, column in columns.items()} | PLACE,
    )


def typed(record: Record, columns: Mapping[str, Column]) -> dict[str, Any]:
    """A record's fields by column name (any case) as typed values. Raises RecordRefused with the
    reason.
    """
    if record.problem:
        raise RecordRefused(record.problem)
    by_name: dict[str, Any] = {}
    for name, value in record.fields.items():
        folded = name.strip().lower()
        if folded in by_name and folded in columns:
            raise RecordRefused(f"the column {folded} is given twice")
        by_name[folded] = value
    return {name: column.read(by_name.get(name), name) for name, column in columns.items()}


def arrow(rows: list[dict[str, Any]], types: Mapping[str, str]) -> pa.Table:
    """Typed rows as an Arrow table of exactly these columns."""
    return pa.table(
        {
            name: pa.array([row.get(name) for row in rows], ARROW_TYPES[kind])
            for name, kind in types.items()
        }
    )


# ---- landing --------------------------------------------------------------------------------


@dataclass
class Arrival:
    """A file whose content is new, and the account of its records."""

    path: Path
    location: str  # where it was found, as text that may be stored
    sha256: str
    arrived_at: datetime
    records: Iterable[Record] = ()
    read_count: int = 0
    accepted_count: int = 0
    duplicate_count: int = 0
    is_kept: bool = True  # False: the file belongs to a later release, and is not remembered
    quarantined: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, record: Record | None, reason: str) -> None:
        """Sets a record aside, or the whole file: by place, length, hash and reason, never by its
        text.
        """
        self.quarantined.append(
            {
                "object_sha256": self.sha256,
                "location": self.location,
                "line_number": record.line_number if record else None,
                "byte_offset": record.byte_offset if record else None,
                "byte_length": len(record.content) if record else None,
                "line_sha256": hashlib.sha256(record.content).hexdigest()
                if record
                else self.sha256,
                "reason": reason,
                "arrived_at": self.arrived_at,
            }
        )


def arrivals(
    draft: Draft,
    clock: Clock,
    location: Path | str,
    source: str,
    is_wanted: Callable[[Path, str], bool] = lambda _path, _location: True,
) -> Iterator[Arrival]:
    """Each file at `location` whose content this source has not landed before; the caller fills its
    account.

    When the caller asks for the next one, the account of the last is written to raw.files and
    raw.quarantine. Files of one night arrive a microsecond apart, in the order of their names, so
    that the newest delivery is a fact of raw.
    """
    known = {
        row["object_sha256"]
        for row in draft.query(
            "select object_sha256 from raw.files where source = $source", source=source
        ).to_pylist()
    }
    landed: list[Arrival] = []
    if isinstance(location, str):
        places, unknown, changed = fetch_files(location, draft.spool)
    else:
        files, others = find_files(location)
        places, unknown = {path: shown(path) for path in files}, [shown(path) for path in others]
        changed = []
    for place in unknown:
        known_suffixes = ", ".join(SUFFIXES)
        draft.remark(f"{place} was not read: its suffix is none of {known_suffixes} (.gz).")
    for place in changed:
        draft.remark(f"{place} changed while it was read: it is left for the next night.")
    for path, place in places.items():
        if not is_wanted(path, place):
            continue
        refused = ""
        try:
            content = plain_bytes(path)
        except ObjectRefused as error:
            content, refused = b"", str(error)
            sha256 = sha256_of(path)
        else:
            sha256 = hashlib.sha256(content).hexdigest()
        if isinstance(location, str):
            path.unlink()
        if sha256 in known:
            continue
        known.add(sha256)
        arrival = Arrival(
            path, place, sha256, clock.arrived_at + timedelta(microseconds=len(landed))
        )
        shape = shape_of(path)
        if not refused and shape is not None:
            try:
                arrival.records = list(records(content, shape))
            except ObjectRefused as error:
                refused = str(error)
        if refused:
            arrival.refuse(None, refused)
        arrival.read_count = len(list(arrival.records)) or len(arrival.quarantined)
        yield arrival
        if arrival.is_kept:
            landed.append(arrival)
    quarantined = [{**row, "source": source} for arrival in landed for row in arrival.quarantined]
    if quarantined:
        draft.append("raw.quarantine", arrow(quarantined, QUARANTINE_TYPES))
        log.warning("%d records of %s were set aside.", len(quarantined), source)
    if landed:
        accounts = [
            {
                "object_sha256": arrival.sha256,
                "source": source,
                "location": arrival.location,
                "read_count": arrival.read_count,
                "accepted_count": arrival.accepted_count,
                "duplicate_count": arrival.duplicate_count,
                "quarantined_count": len(arrival.quarantined),
                "arrived_at": arrival.arrived_at,
            }
            for arrival in landed
        ]
        draft.append(
            "raw.files", arrow(accounts, {name: kind for name, (kind, _) in FILES.columns.items()})
        )


def land_rows(
    arrival: Arrival, columns: Mapping[str, Column], check: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """The good records of a file as rows with their place; the bad ones go to its account.

    `check` sees each typed row and raises RecordRefused when it contradicts itself.
    """
    rows = []
    for record in arrival.records:
        try:
            row = typed(record, columns)
            check(row)
        except RecordRefused as error:
            arrival.refuse(record, str(error))
            continue
        rows.append(
            row
            | {
                "source_object": arrival.sha256,
                "source_line": record.line_number,
                "arrived_at": arrival.arrived_at,
            }
        )
    arrival.accepted_count = len(rows)
    return rows

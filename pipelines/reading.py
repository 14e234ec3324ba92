"""One object's bytes become typed rows and an account of every line: facts/reading.md, what each
odd record becomes.

First the bytes pass once: hashed, their lines counted, searched for what DuckDB reads otherwise
than it should. Then one of two ways, with one outcome. The clean path: DuckDB reads the object
whole and strictly typed; it stands only when nothing raised and every line became a row. Otherwise
the careful path: each line by itself, in Python, good ones kept, bad ones set aside with their
place and reason. What a field *is* is said once, by its kind.
"""

import csv
import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from pathlib import Path
from typing import Any, BinaryIO, Literal
from zoneinfo import ZoneInfo

import pyarrow as pa
import re2

from pipelines.object_store import Changed, ObjectStoreError, RemoteObject, in_parallel
from pipelines.store import sha256_of

LINE_LIMIT = 1_048_576  # bytes of a line without its end; longer ones are quarantined
INFLATED_LIMIT = 64 * 2**30  # bytes an object may unpack to
RATIO_LIMIT = 1_000  # and how many times its packed size, beyond the first 64 MiB
CHUNK = 4 * 2**20
PENDING_CHUNKS = 4
NESTING_LIMIT = 512
SUFFIXES = {".jsonl": "json", ".ndjson": "json", ".csv": "csv"}
PACKINGS = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}  # suffix → how such bytes begin
FUTURE_SECONDS = 300


class ObjectRefused(ValueError):
    """The object's bytes can't be trusted; nothing of it is published. The text is the reason."""


class RecordRefused(ValueError):
    """One record can't be read without guessing. The text is the reason."""


class Number(str):
    """The text of a JSON number, exactly as the line states it."""


# ---- kinds of field -------------------------------------------------------------------------

PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
DIGITS = re.compile(r"[0-9]+", re.ASCII)
INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:[0-5]\d)?", re.ASCII
)


@dataclass(frozen=True)
class Plain:
    """How the engine's own typing reads a field, where the bytes show no odd value of it: a text
    for each number, checked and cast again, costs a third of a landing.

    `column`: the type `read_json` is told. `sql`: over `{0}`, the typed value. `odd`: how a value
    begins (RE2) that this typing would read otherwise than the careful path does.
    """

    column: str
    sql: str
    odd: str


@dataclass(frozen=True)
class Kind:
    """What a field may hold: how DuckDB reads it strictly (`clean`), and how the careful path does
    (`careful`).

    `column`: the type `read_json` is told. `clean`: SQL over `{0}` giving the typed value, calling
    error() on anything the careful path must see. `type`: the DuckDB type of the typed value.
    """

    column: str
    clean: str
    type: str
    careful: Callable[[Any, str, "Zone"], Any]
    arrow: pa.DataType
    needed: bool = False
    long_number: bool = False
    plain: Plain | None = None


Zone = ZoneInfo | None


def _text(value: Any, name: str, zone: Zone) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, Number) or not isinstance(value, str):
        raise RecordRefused(f"{name} is not text")
    if "\x00" in value:
        raise RecordRefused(f"{name} holds a NUL")
    return value


def _identifier(value: Any, name: str, zone: Zone) -> str:
    text = _text(value, name, zone)
    if text is None:
        raise RecordRefused(f"{name} is missing")
    return text


def _choice(*words: str) -> Callable[[Any, str, Zone], str | None]:
    def choose(value: Any, name: str, zone: Zone) -> str | None:
        text = _text(value, name, zone)
        if text is not None and text not in words:
            raise RecordRefused(f"{name} is none of {', '.join(words)}")
        return text

    return choose


def _number(value: Any, name: str) -> Decimal | None:
    """A plain JSON number, or the text of one; None when absent."""
    if value is None or (value == "" and not isinstance(value, Number)):
        return None
    if not isinstance(value, str) or not PLAIN_NUMBER.fullmatch(value):
        raise RecordRefused(f"{name} is not a plain number")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise RecordRefused(f"{name} is out of range") from None
    if number and not -400 < number.adjusted() < 400:
        raise RecordRefused(f"{name} is out of range")
    return number


NINE_PLACES = Decimal("1E-9")
EXACTLY = Context(prec=38, traps=[Inexact, InvalidOperation])


def to_nine_places(number: Decimal, name: str) -> Decimal:
    """A number as decimal(18, 9), not negative. Raises RecordRefused rather than round, however far
    off the digit stands.
    """
    if number < 0:
        raise RecordRefused(f"{name} is negative")
    if number >= 1_000_000_000:
        raise RecordRefused(f"{name} is 10^9 or more")
    try:
        return number.copy_abs().quantize(NINE_PLACES, context=EXACTLY)
    except (Inexact, InvalidOperation):
        raise RecordRefused(f"{name} has more than nine places") from None


def _credits(value: Any, name: str, zone: Zone) -> Decimal:
    number = _number(value, name)
    if number is None:
        raise RecordRefused(f"{name} is missing")
    return to_nine_places(number, name)


def _float_money(value: Any, name: str, zone: Zone) -> str:
    number = _number(value, name)
    if number is None:
        raise RecordRefused(f"{name} is missing")
    if number < 0:
        raise RecordRefused(f"{name} is negative")
    if number >= 10_000_000:
        raise RecordRefused(f"{name} is 10^7 or more")
    return str(value)


def _count(value: Any, name: str, zone: Zone) -> int | None:
    if isinstance(value, str) and DIGITS.fullmatch(value):
        # a text of digits may begin with noughts; a JSON number can't
        value = value.lstrip("0") or "0"
    number = _number(value, name)
    if number is None:
        return None
    if number < 0:
        raise RecordRefused(f"{name} is negative")
    if number != number.to_integral_value():
        raise RecordRefused(f"{name} is not a whole number")
    if number > 2**63 - 1:
        raise RecordRefused(f"{name} is over 2^63-1")
    return int(number)


def _flag(value: Any, name: str, zone: Zone) -> bool | None:
    if value is None or value == "":
        return None
    if value is True or value is False:
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise RecordRefused(f"{name} is neither true nor false")


def _instant(value: Any, name: str, zone: Zone) -> datetime | None:
    if value is None or value == "":
        return None
    found = None if isinstance(value, Number) else INSTANT.fullmatch(str(value))
    if not isinstance(value, str) or not found:
        raise RecordRefused(f"{name} is not an RFC 3339 instant")
    day, clock, fraction, offset = found.groups()
    micro = (fraction or "")[:7]  # digits beyond microseconds are cut off
    try:
        if offset:
            offset = "+00:00" if offset in "Zz" or offset == "-00:00" else offset
            stated = datetime.fromisoformat(f"{day}T{clock}{micro}{offset}")
            return stated.astimezone(UTC).replace(tzinfo=None)
        if zone is None:
            raise RecordRefused(f"{name} has no zone, and the source has no time_zone")
        local = datetime.fromisoformat(f"{day}T{clock}{micro}").replace(tzinfo=zone)
        stated = local.astimezone(UTC)
        if stated.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
            raise RecordRefused(f"{name} is a local time that never happens")
        return stated.replace(tzinfo=None)
    except RecordRefused:
        raise
    except (ValueError, OverflowError):
        raise RecordRefused(f"{name} is no instant there is") from None


def _completed(value: Any, name: str, zone: Zone) -> datetime:
    instant = _instant(value, name, zone)
    if instant is None:
        raise RecordRefused(f"{name} is missing")
    return instant


def _document(value: Any, name: str, zone: Zone) -> str | None:
    """A JSON document carried as text (LiteLLM's metadata); read with try(): refuses nothing."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value)


MICROSECONDS = pa.timestamp("us")
# A text that might have been a JSON number, true, an object: only the careful path can tell. Its
# first letter decides nearly always, and comparing costs a tenth of matching.
SURELY_TEXT = (
    "({0} >= 'g' and {0} < 't') or ({0} >= 'u' and {0} < '{{') or ({0} >= 'a' and {0} < 'e') "
    "or ({0} >= 'A' and {0} < 'E') or ({0} >= 'F' and {0} < '[')"
)
NOT_SURELY_TEXT = r"regexp_full_match({0}, '[-+0-9.eE]+|true|false|[\[{{](?s:.)*')"
# The usual spelling has 27 bytes, so every field of it has all its digits. Any other goes by the
# pattern: the cast alone takes blanks, one-digit months, 24:00 and bare minutes, which the careful
# path refuses.
CLEAN_INSTANT = (
    "coalesce("
    "case when strlen({0}) = 27 and {0} >= '1' and {0} < '3' "
    "then try_strptime({0}, '%Y-%m-%dT%H:%M:%S.%fZ') end, "
    "case when regexp_full_match({0}, '[12][0-9]{{3}}-[0-9]{{2}}-[0-9]{{2}}[T ]"
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,9}})?"
    r"(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])') "
    "then {0}::timestamptz::timestamp else error('instant') end)"
)
# As text: read as a number, true is 1, " 1" is 1 and 0.5 is a whole one.
CLEAN_COUNT = (
    r"case when regexp_full_match({0}, '(0|[1-9][0-9]{{0,14}})(\.0)?') then {0}::bigint else "
    r"error('count') end"
)
CLEAN_CREDITS = r"regexp_full_match({0}, '(0|[1-9][0-9]{{0,8}})(\.[0-9]{{1,9}})?')"


def _absent(sql: str) -> str:
    return f"case when {{0}} is null or {{0}} = '' then null else {sql} end"


TEXT = Kind(
    "varchar",
    f"case when {SURELY_TEXT} then {{0}} when {{0}} is null or {{0}} = '' then null "
    f"when {NOT_SURELY_TEXT} then error('text') else {{0}} end",
    "varchar",
    _text,
    pa.string(),
)
IDENTIFIER = Kind(
    "varchar",
    f"case when {SURELY_TEXT} then {{0}} when {{0}} is null or {{0}} = '' or {NOT_SURELY_TEXT} "
    "then error('identifier') else {0} end",
    "varchar",
    _identifier,
    pa.string(),
    needed=True,
)
DOCUMENT = Kind("varchar", "{0}", "varchar", _document, pa.string())
CREDITS = Kind(
    "varchar",
    f"case when {CLEAN_CREDITS} then {{0}}::decimal(18, 9) else error('credits') end",
    "decimal(18, 9)",
    _credits,
    pa.decimal128(18, 9),
    needed=True,
    long_number=True,
    plain=Plain(
        "decimal(18, 9)",
        "case when {0} is null then error('credits') else {0} end",
        # The engine multiplies a double by 10^9: exact up to six digits before the point and nine
        # behind it, wrong from seven on (8947030.44518 becomes …5180001).
        r"[^0-9n\s]|[0-9]{7}|[0-9]+(?:[eE]|\.(?:[0-9]{10}|[0-9]*[eE]))",
    ),
)
FLOAT_MONEY = Kind(
    "varchar",
    r"case when regexp_full_match({0}, '[0-9]{{1,7}}(\.[0-9]{{1,25}})?([eE]-?[0-9]{{1,2}})?') "
    r"then {0} else error('money') end",
    "varchar",
    _float_money,
    pa.string(),
    needed=True,
)
COUNT = Kind(
    "varchar",
    f"case when {{0}} is null then null else {CLEAN_COUNT} end",
    "bigint",
    _count,
    pa.int64(),
    # Typed, true is 1, " 1" is 1 and 1.5 is 2.
    plain=Plain("bigint", "{0}", r"[^0-9n\s]|[0-9]+[.eE]"),
)
FLAG = Kind(
    "varchar",
    "case when {0} is null then null when {0} = 'true' then true when {0} = 'false' then false "
    "else error('flag') end",
    "boolean",
    _flag,
    pa.bool_(),
)
MOMENT = Kind("varchar", _absent(CLEAN_INSTANT), "timestamp", _instant, MICROSECONDS)
COMPLETED = Kind(
    "varchar",
    f"case when {{0}} is null then error('instant') else {CLEAN_INSTANT} end",
    "timestamp",
    _completed,
    MICROSECONDS,
    needed=True,
)


def choice(*words: str) -> Kind:
    """A field that holds one of a few words, or nothing."""
    listed = ", ".join(f"'{word}'" for word in words)
    return Kind(
        "varchar",
        _absent(f"case when {{0}} in ({listed}) then {{0}} else error('choice') end"),
        "varchar",
        _choice(*words),
        pa.string(),
    )


@dataclass(frozen=True)
class RequestFormat:
    """How one gateway's log becomes our request: its fields and their kinds, and our columns as SQL
    over them.

    `fields`: name in the log → kind. What is not named here never reaches the disk (house,
    invariant 8). `request`: our column → an SQL expression over the typed fields and
    `$credits_per_usd`; columns left out are null. `rounded`: SQL that is true for a record whose
    money had to be rounded to nine places; the rows are counted.
    """

    name: str
    fields: Mapping[str, Kind]
    request: Mapping[str, str]
    rounded: str = "false"


# ---- objects --------------------------------------------------------------------------------


@dataclass
class SpooledObject:
    """An object on its way: where its plain bytes are, and what reading them through told."""

    location: str
    size: int
    modified_ns: int
    shape: Literal["json", "csv"]
    path: Path
    packing: str  # .gz, .zst, or nothing
    sha256: str = ""
    line_count: int = 0
    suspicion: str = ""  # why the clean path may not be trusted with it
    is_plain: bool = False  # whether the engine's own typing reads it as it stands (Plain)
    refused: str = ""  # why nothing of it may be published
    quarantine: list["Quarantined"] = field(default_factory=list)
    read_count: int = 0
    remote: RemoteObject | None = None  # where it lies in an object store
    trouble: str = ""  # why its bytes could not be had

    @property
    def mark(self) -> list[int | str]:
        """What tells, without reading it, that it is the object that lay there before."""
        known: list[int | str] = [self.size, self.modified_ns]
        return [*known, self.remote.etag] if self.remote else known

    def fetch(self, spool: Path) -> None:
        """Brings its bytes into the spool where they lie in an object store: those that were
        listed, or none.
        """
        if self.remote is None:
            return
        self.path = self.place_in(spool).with_suffix(".fetched")
        try:
            self.remote.fetch(self.path)
        except Changed:
            pass
        except ObjectStoreError as error:
            self.trouble = str(error)

    def place_in(self, spool: Path) -> Path:
        """Where its bytes may lie while they pass through: a name without meaning to the engine."""
        return spool / hashlib.sha256(os.fsencode(self.location)).hexdigest()[:24]

    @property
    def is_still(self) -> bool:
        """Whether it lies there as it was found: not one that is being written, nor one gone."""
        if self.remote is not None:
            return self.path.exists()  # what was fetched changes no more
        try:
            stat = Path(self.location).stat()
        except FileNotFoundError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.modified_ns)

    def learn(self, scanned: "Scanned") -> None:
        """Takes in what was found in a part of it."""
        self.line_count += scanned.line_count
        self.suspicion = self.suspicion or scanned.suspicion
        self.is_plain = self.is_plain and not scanned.is_odd

    def set_aside(self, number: int, offset: int, text: bytes, reason: str) -> None:
        """Remembers a line that does not land: by place, length and hash."""
        sha256 = hashlib.sha256(text).hexdigest()
        self.quarantine.append(Quarantined(number, offset, len(text), sha256, reason))


@dataclass(frozen=True)
class Quarantined:
    """A line set aside: remembered by place, length, hash and reason, never by its text (house,
    invariant 8).
    """

    line_number: int | None
    byte_offset: int | None
    byte_length: int | None
    line_sha256: str
    reason: str


def shown(place: Path | str) -> str:
    """A path as text that may be stored: what is no UTF-8 in a name is shown as U+FFFD."""
    return os.fsencode(place).decode("utf-8", errors="replace")


def shape_of(name: str) -> tuple[Literal["json", "csv"], str] | None:
    """(shape, packing) by the suffixes of a name; None for a suffix the house doesn't know."""
    last = Path(name).suffix
    packing = last if last in PACKINGS else ""
    shape = SUFFIXES.get(Path(name.removesuffix(packing)).suffix)
    return (shape, packing) if shape else None  # type: ignore[return-value]


def fetch_all(objects: Iterable[SpooledObject], spool: Path) -> None:
    """Brings the bytes of those that lie in an object store, several at a time."""
    remote = [item for item in objects if item.remote is not None]
    if remote:
        in_parallel(lambda item: item.fetch(spool), remote)


def read_through(spooled: SpooledObject, scan: "Scan", spool: Path, scanners: Executor) -> None:
    """One pass over the object's bytes: unpacks (with CRC) and hashes, while `scanners` count lines
    and look for what DuckDB reads wrongly.

    DuckDB checks no gzip CRC and passes JSON numbers through double (facts/landing.md), so both are
    seen to here. Sets `refused` where the bytes can't be trusted; the hash is then of the raw
    bytes.
    """
    hasher = hashlib.sha256()
    target = None
    source = spooled.path
    if spooled.packing:
        target = spooled.place_in(spool).open("wb")
    inflated = 0
    try:
        for chunk in scanned(_chunks(source, spooled.packing), scan, spooled, scanners):
            inflated += len(chunk)
            if spooled.packing and (
                inflated > INFLATED_LIMIT
                or inflated > 64 * 2**20 + RATIO_LIMIT * max(1, spooled.size)
            ):
                raise ObjectRefused(f"unpacks to more than {inflated} bytes")
            hasher.update(chunk)
            if target is not None:
                target.write(chunk)
    except (ObjectRefused, EOFError, zlib.error, gzip.BadGzipFile) as error:
        spooled.refused = str(error) or f"truncated {spooled.packing}"
        spooled.sha256 = sha256_of(source)
        return
    finally:
        if target is not None:
            target.close()
    if target is not None:
        if spooled.remote is not None:
            source.unlink()
        spooled.path = Path(target.name)
    spooled.sha256 = hasher.hexdigest()


def scanned(
    chunks: Iterable[bytes], scan: "Scan", spooled: SpooledObject, scanners: Executor
) -> Iterator[bytes]:
    """Passes the bytes of an object on, while `scanners` look at them; what they saw is known to it
    once the last has passed.
    """
    spooled.is_plain = spooled.shape == "json"
    rest = b""  # the beginning of a line that goes on in the next chunk
    pending: deque[Future[Scanned]] = deque()
    for chunk in chunks:
        pending.append(scanners.submit(scan, chunk, rest, spooled))
        yield chunk
        end = chunk.rfind(b"\n") + 1
        rest = chunk[end:] if end else (rest + chunk)[: LINE_LIMIT + 1]
        while len(pending) > PENDING_CHUNKS:
            spooled.learn(pending.popleft().result())
    for seen in pending:
        spooled.learn(seen.result())
    if rest:
        spooled.learn(scan(b"", rest, spooled))


def _chunks(path: Path, packing: str) -> Iterator[bytes]:
    with path.open("rb") as raw:
        begins = raw.read(4)
        raw.seek(0)
        found = next((one for one, magic in PACKINGS.items() if begins.startswith(magic)), "")
        if found != packing:
            if packing and not begins:
                return
            raise ObjectRefused(
                f"name and content disagree about {packing or found}, by how it begins"
            )
        if packing == ".zst":
            yield from _unpacked_zstd(raw)
            return
        with gzip.GzipFile(fileobj=raw) if packing else nullcontext(raw) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk


def _unpacked_zstd(raw: BinaryIO) -> Iterator[bytes]:
    """Arrow's decoder sees truncation, corruption and what is no frame behind the last."""
    stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    while True:
        try:
            chunk = stream.read(CHUNK)
        except OSError as error:
            if error.errno is not None:  # the disk's word, not the decoder's
                raise
            raise ObjectRefused(str(error)) from None
        if not chunk:
            return
        yield chunk


# ---- the careful path -----------------------------------------------------------------------


# What DuckDB's JSON reader takes though it is no JSON, even in fields that nobody asked for. Each
# pattern begins with a letter or two that RE2 looks for many bytes at a time; all of them in one
# would cost ten times as much.
NO_JSON = (r",\s*[}\]]", *(rf"{word}\s*[,}}\]]" for word in ("NaN", "Infinity")))
LOOKS_ODD = re.compile("|".join(NO_JSON).encode())
# A JSON number too long to pass through double unharmed, as the value of a field that is exact.
LONG_NUMBER = r"[-+0-9.eE]{16}|[-+0-9.]+[eE]"


@dataclass(frozen=True)
class Scanned:
    """What a part of an object showed: lines that end in it, why the clean path may not be trusted
    with the object, whether a value is odd (Plain).
    """

    line_count: int
    suspicion: str = ""
    is_odd: bool = False


class Scan:
    """Counts lines as bytes pass, and says whether the clean path may be trusted with them.

    A line that looks odd is held against the careful path's JSON before it counts: a text may hold
    `, }` or many brackets. Not looked for: NaN and Infinity in another spelling than Python's
    (DuckDB takes `nan`, `NAN`, `inf` too) as the value of a text or of a field that is not kept; to
    search in any case costs nearly what hashing does.
    """

    def __init__(self, known: RequestFormat) -> None:
        long = {LONG_NUMBER: [name for name, kind in known.fields.items() if kind.long_number]}
        odd: dict[str, list[str]] = {}
        for name, kind in known.fields.items():
            if kind.plain:
                odd.setdefault(kind.plain.odd, []).append(name)
        self._long = _compiled(_after_a_mark(long))
        self._odd = _compiled(_after_a_mark(odd))
        self._plain_patterns = _compiled(_beside_commas(_values(long | odd)))
        self._patterns = _compiled(_beside_commas(_values(long)))

    def __call__(self, chunk: bytes, rest: bytes, spooled: SpooledObject) -> Scanned:
        """Looks at the next bytes of an object, of which `rest` began the first line; no bytes: at
        the last line, which has no end.
        """
        if not chunk:
            return self._look(Scanned(1), rest, b"", len(rest), spooled, is_open=False)
        lengths = list(map(len, io.BytesIO(chunk)))
        is_open = not chunk.endswith(b"\n")
        counted = Scanned(len(lengths) - is_open)
        longest = max(len(rest) + lengths[0], max(lengths))
        first = rest + chunk[: lengths[0]] if rest else b""
        return self._look(counted, chunk, first, longest, spooled, is_open=is_open)

    def _look(
        self,
        counted: Scanned,
        chunk: bytes,
        first: bytes,
        longest: int,
        spooled: SpooledObject,
        *,
        is_open: bool,
    ) -> Scanned:
        """`first` is the chunk's first line where that began before it; `is_open`: its last line
        goes on behind it.
        """
        lines = counted.line_count
        if spooled.suspicion:
            return counted
        if longest > LINE_LIMIT:
            return Scanned(lines, "a long line")
        if spooled.shape != "json":
            return counted
        texts = (chunk, first) if first else (chunk,)
        patterns = self._plain_patterns if spooled.is_plain else self._patterns
        found = _match_any(patterns, texts)
        is_odd = found and spooled.is_plain and _match_any(self._odd, texts)
        if found and _match_any(self._long, texts):
            return Scanned(lines, "a long number", is_odd)
        if (b"\\" in chunk or b"\\" in first) and _match_any(ESCAPED_LETTER, texts):
            suspicion = "a letter written as its number, which may hide a name, or a NUL"
            return Scanned(lines, suspicion, is_odd)
        if not found and longest <= 2 * NESTING_LIMIT:
            return counted
        within = io.BytesIO(chunk).readlines()
        within[0] = first or within[0]
        for line in within[:-1] if is_open else within:
            brackets = line.count(b"[") + line.count(b"{") if len(line) > 2 * NESTING_LIMIT else 0
            if brackets > NESTING_LIMIT or (found and LOOKS_ODD.search(line)):
                try:
                    _decode(line, {})
                except RecordRefused as error:
                    return Scanned(lines, str(error), is_odd)
        return Scanned(lines, "", is_odd)


def _values(of: Mapping[str, list[str]]) -> str:
    """Finds a field, by its name, with a value that begins like the pattern over it."""
    return "|".join(
        rf'"(?:{"|".join(map(re.escape, names))})"\s*:\s*(?:{value})'
        for value, names in of.items()
        if names
    )


def _after_a_mark(of: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Finds such a field where one may stand: behind a comma or a brace."""
    values = _values(of)
    return (rf",\s*(?:{values})", rf"\{{\s*(?:{values})") if values else ()


def _beside_commas(values: str) -> tuple[str, ...]:
    """NO_JSON, and such fields in the same search: behind commas the bytes are looked at anyhow."""
    if not values:
        return NO_JSON
    return (rf",\s*(?:[}}\]]|{values})", rf"\{{\s*(?:{values})", *NO_JSON[1:])


def _compiled(patterns: Iterable[str]) -> Sequence[Any]:
    """Patterns over bytes, as RE2's automata: several times faster than Python's own, and other
    threads go on.
    """
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    return [re2.compile(pattern.encode(), options) for pattern in patterns]


def _match_any(patterns: Sequence[Any], texts: Sequence[bytes]) -> bool:
    return any(pattern.search(text) for pattern in patterns for text in texts)


ESCAPED_LETTER = _compiled([r"\\u00(?:[4-7]|00)"])


def careful_rows(
    spooled: SpooledObject, known: RequestFormat, zone: Zone, latest: datetime
) -> Iterator[dict[str, Any]]:
    """The good records of an object as typed fields with their `_line`; the bad ones go to
    `spooled.quarantine`.

    `latest`: an instant after which a completed request is from the future. A row's `_place` is
    where
    it stands (line, byte offset, byte length), should our columns turn out not to hold it.
    """
    records = _json_records if spooled.shape == "json" else _csv_records
    spooled.read_count = 0
    for number, offset, text, parse in records(spooled.path, known):
        spooled.read_count += 1
        try:
            if len(text) > LINE_LIMIT:
                raise RecordRefused(f"longer than {LINE_LIMIT} bytes")
            record = parse(text)
            row: dict[str, Any] = {"_line": number, "_place": (number, offset, len(text))}
            for name, kind in known.fields.items():
                row[name] = kind.careful(record.get(name), name, zone)
                if kind is COMPLETED and row[name] > latest:
                    raise RecordRefused(f"{name} is in the future")
        except RecordRefused as error:
            spooled.set_aside(number, offset, text, str(error))
            continue
        yield row


Parsed = tuple[int, int, bytes, Callable[[bytes], Mapping[str, Any]]]


def _json_records(path: Path, known: RequestFormat) -> Iterator[Parsed]:
    """Physical lines from 1, with their byte offsets; blank lines are not records."""

    def parse(text: bytes) -> Mapping[str, Any]:
        return _decode(text, known.fields)

    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(_bounded_lines(file), start=1):
            start = offset
            offset += len(line)
            if number == 1 and line.startswith(b"\xef\xbb\xbf"):
                line = line[3:]
                start += 3
            text = line.rstrip(b"\n")
            text = text.removesuffix(b"\r")
            if text.strip(b" \t\r"):
                yield number, start, text, parse


def _bounded_lines(file: io.BufferedReader) -> Iterator[bytes]:
    yield from iter(file.readline, b"")


def _decode(text: bytes, fields: Mapping[str, Kind]) -> Mapping[str, Any]:
    """A strict JSON object: UTF-8, no NaN, no kept field twice, no lone surrogate, not too deep."""
    try:
        line = text.decode("utf-8")
    except UnicodeDecodeError:
        raise RecordRefused("invalid UTF-8") from None
    if text.count(b"[") + text.count(b"{") > NESTING_LIMIT and _depth(line) > NESTING_LIMIT:
        raise RecordRefused(f"nested deeper than {NESTING_LIMIT}")

    objects: list[list[tuple[str, Any]]] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        objects.append(items)
        return dict(items)

    try:
        record = json.loads(
            line,
            parse_float=Number,
            parse_int=Number,
            parse_constant=_refuse_constant,
            object_pairs_hook=pairs,
        )
    except RecordRefused:
        raise
    except (ValueError, RecursionError):
        raise RecordRefused("malformed JSON") from None
    if not isinstance(record, dict):
        raise RecordRefused("not a JSON object")
    names = [name for name, _ in objects[-1] if name in fields]
    if len(names) != len(set(names)):
        raise RecordRefused("a field is given twice")
    for name in fields:
        value = record.get(name)
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise RecordRefused(f"{name} holds an unpaired surrogate")
    return record


def _refuse_constant(name: str) -> Any:
    raise RecordRefused(f"{name} is no JSON number")


TEXT_IN_JSON = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')


def _depth(line: str) -> int:
    depth = deepest = 0
    for letter in TEXT_IN_JSON.sub("", line):
        if letter in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "]}":
            depth -= 1
    return deepest


def _csv_records(path: Path, known: RequestFormat) -> Iterator[Parsed]:
    """CSV records by header name; the line is where the record begins, a quoted line break belongs
    to its record.
    """
    csv.field_size_limit(LINE_LIMIT)
    header: list[str] | None = None
    unreadable = ""
    offset = number = 0
    with path.open("rb") as file:
        lines = iter(file.readline, b"")
        for line in lines:
            number += 1
            start, first = offset, number
            if number == 1 and line.startswith(b"\xef\xbb\xbf"):
                line = line[3:]
                start += 3
                offset += 3
            parts, length, quotes = [line], len(line), line.count(b'"')
            while quotes % 2 and length <= 64 * LINE_LIMIT:
                more = next(lines, b"")
                if not more:
                    break
                number += 1
                parts.append(more)
                length += len(more)
                quotes += more.count(b'"')
            text = b"".join(parts)
            offset += length
            text = text.removesuffix(b"\n").removesuffix(b"\r")
            if not text.strip(b" \t"):
                continue
            if unreadable:
                yield first, start, text, _refuser(unreadable)
            elif header is not None:
                yield first, start, text, _csv_parser(header, known)
            else:
                try:
                    header = [name.strip() for name in _csv_cells(text)]
                except RecordRefused as error:
                    # It is set aside like a record, lest a header that runs to the end is passed
                    # over in silence.
                    unreadable = f"the header can't be read: {error}"
                    yield first, start, text, _refuser(unreadable)


def _csv_cells(text: bytes) -> list[str]:
    if text.count(b'"') % 2:
        raise RecordRefused("an unclosed quote")
    try:
        return next(csv.reader([text.decode("utf-8")], strict=True))
    except UnicodeDecodeError:
        raise RecordRefused("invalid UTF-8") from None
    except (csv.Error, StopIteration):
        raise RecordRefused("malformed CSV") from None


def _refuser(reason: str) -> Callable[[bytes], Mapping[str, Any]]:
    def refuse(_: bytes) -> Mapping[str, Any]:
        raise RecordRefused(reason)

    return refuse


def _csv_parser(header: list[str], known: RequestFormat) -> Callable[[bytes], Mapping[str, Any]]:
    needed = [name for name, kind in known.fields.items() if kind.needed and name not in header]

    def parse(text: bytes) -> Mapping[str, Any]:
        if needed:
            raise RecordRefused(f"the header has no column {needed[0]}")
        cells = _csv_cells(text)
        if len(cells) != len(header):
            raise RecordRefused(f"{len(cells)} cells under {len(header)} names")
        if any(header.count(name) > 1 for name in known.fields if name in header):
            raise RecordRefused("a column is given twice")
        return dict(zip(header, cells, strict=True))

    return parse


def arrow_rows(rows: list[dict[str, Any]], known: RequestFormat) -> pa.Table:
    """Typed records as an Arrow table with `_line`, in the order given."""
    columns: dict[str, pa.Array] = {"_line": pa.array([row["_line"] for row in rows], pa.int64())}
    for name, kind in known.fields.items():
        columns[name] = pa.array([row[name] for row in rows], kind.arrow)
    return pa.table(columns)

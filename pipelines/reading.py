"""One object's bytes become typed rows and an account of every line: facts/reading.md, what each
odd record becomes.

First the bytes pass once: hashed, their lines counted, searched for what DuckDB reads otherwise
than it should. Then one of three ways, with one outcome. The clean path: DuckDB reads the object
whole and strictly typed; it stands only when nothing raised and every line became a row. Where some
lines are in doubt they are sifted out, and the rest is read so. The careful path, for those lines
or for all: each by itself, in Python, good ones kept, bad ones set aside with their place and
reason. What a field *is* is said once, by its kind.
"""

import csv
import hashlib
import io
import json
import os
import re
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_05UP, ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import re2
from isal import igzip, isal_zlib

from pipelines.object_store import Changed, ObjectStoreError, RemoteObject, in_parallel
from pipelines.settings import Limits
from pipelines.store import connect, sha256_of

CHUNK = 2**20  # of what is hashed and searched at once: less, and handing it over costs more
PENDING_CHUNKS = 2  # so many wait for who searches them; then who brings them takes a turn
FIRST_BYTES = 2**16  # of an object, from which is guessed what the rest is like
NESTING_LIMIT = 512
PARQUET = ".parquet"
SUFFIXES = {".jsonl": "json", ".ndjson": "json", ".csv": "csv"}
# suffix → how such bytes begin
PACKINGS = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd", PARQUET: b"PAR1"}
NO_DEFLATE = cast(type[Exception], isal_zlib.error)  # the library's stubs name it as an instance
PARQUET_ROWS = 20_000  # that are turned into lines at once
FUTURE_SECONDS = 300
SOME_LINES = 10_000  # so many lines are read by themselves before anybody asks what share they are


class ObjectRefused(ValueError):
    """The object's bytes can't be trusted; nothing of it is published. The text is the reason."""


UNREADABLE = (ObjectRefused, EOFError, igzip.BadGzipFile, NO_DEFLATE)  # what unpacking raises


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
    begins (RE2) that this typing would read otherwise than the careful path does. `shows`: whether
    such a value can be told by what was typed, so that `clean` may be asked instead of the bytes:
    it raises UNSURE on one that might have been a text all the same.
    """

    column: str
    sql: str
    odd: str
    shows: bool = False


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
    within: Mapping[str, "Kind"] = field(
        default_factory=dict, hash=False
    )  # of a nested object (`nested`)

    def typed(self, cell: str, *, is_plain: bool, is_searched: bool = True) -> str:
        """The typed value of a field, as SQL. `is_searched`: whether the bytes were searched for
        odd values that show.
        """
        plain = self.plain if is_plain else None
        if plain is None or (plain.shows and not is_searched):
            return self.clean.format(cell)
        return plain.sql.format(cell)

    def in_doubt(self, cell: str, *, is_plain: bool, latest: str = "") -> str:
        """Whether the typed value can't be had, or is an instant after `latest`, as SQL that raises
        nothing. A field that the engine types was judged by its bytes.
        """
        if is_plain and self.plain and not self.needed:
            return "false"
        typed = re.sub(r"error\('[a-z]+'\)", "null", self.typed(cell, is_plain=is_plain))
        if latest:
            return f"not coalesce(try({typed}) <= {latest}, false)"
        given = "" if self.needed else f" and {cell} <> ''"
        return f"(try({typed}) is null{given})"


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
TWENTY_FIVE_PLACES = Decimal("1E-25")
# What is cut off leaves a trace, so that rounding what is left goes the way of the whole.
ONCE = Context(prec=38, rounding=ROUND_05UP)
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


def _amount(value: Any, name: str, zone: Zone) -> Decimal | None:
    number = _number(value, name)
    return None if number is None else to_nine_places(number, name)


def _credits(value: Any, name: str, zone: Zone) -> Decimal:
    amount = _amount(value, name, zone)
    if amount is None:
        raise RecordRefused(f"{name} is missing")
    return amount


def _float_money(value: Any, name: str, zone: Zone) -> str:
    number = _number(value, name)
    if number is None:
        raise RecordRefused(f"{name} is missing")
    if number < 0:
        raise RecordRefused(f"{name} is negative")
    if number >= 10_000_000:
        raise RecordRefused(f"{name} is 10^7 or more")
    return format(number.quantize(TWENTY_FIVE_PLACES, context=ONCE), "f")


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


EPOCH_SECONDS = re.compile(r"[0-9]{9,10}(?:\.[0-9]+)?", re.ASCII)


def _epoch(value: Any, name: str, zone: Zone) -> datetime:
    """Seconds since 1970 as a binary float: what lies beyond the microsecond is not in it."""
    if value is None or value == "":
        raise RecordRefused(f"{name} is missing")
    if not isinstance(value, str) or not EPOCH_SECONDS.fullmatch(value):
        raise RecordRefused(f"{name} is not seconds since 1970")
    seconds = Decimal(repr(float(value))).quantize(Decimal("1E-6"), rounding=ROUND_HALF_UP)
    return datetime(1970, 1, 1) + timedelta(microseconds=int(seconds * 1_000_000))


def _document(value: Any, name: str, zone: Zone) -> str | None:
    """A JSON document, in the line or carried as text (LiteLLM's metadata); read with try():
    refuses nothing.
    """
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value)


MICROSECONDS = pa.timestamp("us")
# A text that might have been a JSON number, true, an object, or a number that only DuckDB takes for
# one (nan, Inf): nothing but the bytes can tell. Its first letter decides nearly always, and
# comparing costs a tenth of matching.
# Ranges of first letters, the commonest first: false, inf, nan, true and exponents begin otherwise.
SURE_LETTERS = (
    *(("j", "n"), ("o", "t"), ("g", "i"), ("u", "{{"), ("a", "e")),
    *(("A", "E"), ("F", "I"), ("J", "N"), ("O", "[")),
)
SURELY_TEXT = " ".join(
    f"when {{0}} >= '{first}' and {{0}} < '{after}' then {{0}}" for first, after in SURE_LETTERS
)
NOT_SURELY_TEXT = (
    r"regexp_full_match({0}, '[-+0-9.eE]+|true|false|-?(?i:nan|inf|infinity)|[\[{{](?s:.)*')"
)
# The usual spelling has 27 bytes, so every field of it has all its digits; only where it isn't that
# one is anything else asked. Any other goes by the pattern: the cast alone takes blanks, one-digit
# months, 24:00 and bare minutes, which the careful path refuses.
USUAL_INSTANT = (
    "case when strlen({0}) = 27 and {0} >= '1' and {0} < '3' "
    "then try_strptime({0}, '%Y-%m-%dT%H:%M:%S.%fZ') end"
)
OTHER_INSTANT = (
    "when regexp_full_match({0}, '[12][0-9]{{3}}-[0-9]{{2}}-[0-9]{{2}}[T ]"
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,9}})?"
    r"(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])') "
    "then {0}::timestamptz::timestamp else error('instant') end"
)
# As text: read as a number, true is 1, " 1" is 1 and 0.5 is a whole one.
CLEAN_COUNT = (
    r"case when regexp_full_match({0}, '(0|[1-9][0-9]{{0,14}})(\.0)?') then {0}::bigint else "
    r"error('count') end"
)
CLEAN_CREDITS = r"regexp_full_match({0}, '(0|[1-9][0-9]{{0,8}})(\.[0-9]{{1,9}})?')"


def _absent(sql: str) -> str:
    return f"case when {{0}} is null or {{0}} = '' then null else {sql} end"


UNSURE = "unsure"  # whether a text is one: 12 may have been a number
# How a text begins, with its quote, that NOT_SURELY_TEXT takes for something else.
DOUBTED = r'"(?:(?:[-+0-9.eE]+|true|false|-?(?i:nan|inf|infinity))"|[\[{])'
NO_TEXT = r"[^\"n\s]|n[^u]"  # how a value begins that is neither a text nor null
TEXT = Kind(
    "varchar",
    # nulls first: a column of them would be held against every range
    f"case when {{0}} is null then null {SURELY_TEXT} when {{0}} = '' then null "
    f"when {NOT_SURELY_TEXT} then error('{UNSURE}') else {{0}} end",
    "varchar",
    _text,
    pa.string(),
    plain=Plain("varchar", "nullif({0}, '')", NO_TEXT, shows=True),
)
IDENTIFIER = Kind(
    "varchar",
    f"case {SURELY_TEXT} when {{0}} is null or {{0}} = '' or {NOT_SURELY_TEXT} "
    "then error('identifier') else {0} end",
    "varchar",
    _identifier,
    pa.string(),
    needed=True,
    plain=Plain(
        "varchar",
        "case when {0} is null or {0} = '' then error('identifier') else {0} end",
        NO_TEXT,
    ),
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
# Credits that a record may state here, or elsewhere, or nowhere: its format says which will do.
AMOUNT = replace(
    CREDITS,
    clean=f"case when {{0}} is null then null else {CREDITS.clean} end",
    careful=_amount,
    needed=False,
    plain=Plain("decimal(18, 9)", "{0}", CREDITS.plain.odd if CREDITS.plain else ""),
)
# At most 25 places, which is what the formats' SQL multiplies: more would be rounded twice.
FLOAT_MONEY = Kind(
    "varchar",
    r"case when regexp_full_match({0}, '[0-9]{{1,7}}(\.[0-9]{{1,25}})?"
    r"|[0-9](\.[0-9]{{1,16}})?[eE]-?0?[0-9]|[0-9](\.[0-9]{{1,9}})?[eE]-1[0-6]') "
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
    plain=Plain("bigint", "{0}", r"[^0-9n\s]|[0-9]{19}|[0-9]+[.eE]"),
)
FLAG = Kind(
    "varchar",
    "case when {0} is null then null when {0} = 'true' then true when {0} = 'false' then false "
    "else error('flag') end",
    "boolean",
    _flag,
    pa.bool_(),
    plain=Plain("boolean", "{0}", r"[^tfn\s]"),
)
MOMENT = Kind(
    "varchar",
    f"coalesce({USUAL_INSTANT}, case when {{0}} is null or {{0}} = '' then null {OTHER_INSTANT})",
    "timestamp",
    _instant,
    MICROSECONDS,
)
COMPLETED = Kind(
    "varchar",
    f"coalesce({USUAL_INSTANT}, case {OTHER_INSTANT})",
    "timestamp",
    _completed,
    MICROSECONDS,
    needed=True,
)

# A double's own text has at most seventeen digits, so seven behind the point.
EPOCH = Kind(
    "varchar",
    r"case when regexp_full_match({0}, '[0-9]{{9,10}}(\.[0-9]{{1,9}})?') "
    "then make_timestamp(({0}::decimal(20, 6) * 1000000)::bigint) else error('epoch') end",
    "timestamp",
    _epoch,
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


def nested(fields: Mapping[str, Kind], *, any_case: bool = False) -> Kind:
    """A field that holds an object, of which these fields are kept: a struct of their typed values,
    or null.

    `any_case`: their names are written in any case, as those of HTTP headers are; they are named
    here in lower case.
    """
    names = ", ".join(f"'{name}'" for name in fields)
    odd = [
        "json_type({0}) <> 'OBJECT'",
        "len(list_distinct(json_keys({0}))) < json_keys({0}).len()",
    ]
    if any_case:
        keys = f"list_filter(json_keys({{0}}), lambda key: lower(key) in ({names}))"
        odd.append(f"not list_has_all([{names}], {keys})")
    typed = ", ".join(f'"{name}" := {_inside(kind, name)}' for name, kind in fields.items())
    types = ", ".join(f'"{name}" {kind.type}' for name, kind in fields.items())

    def careful(value: Any, name: str, zone: Zone) -> dict[str, Any] | None:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise RecordRefused(f"{name} is not an object")
        items = value.items_read if isinstance(value, Repeating) else value.items()
        stated: dict[str, Any] = {}
        for key, inner in items:
            known = key.lower() if any_case else key
            if known in stated:
                raise RecordRefused(f"{known} is given twice in {name}")
            if known in fields:
                stated[known] = inner
        _refuse_surrogates(stated, fields)
        return {
            known: kind.careful(stated.get(known), f"{known} in {name}", zone)
            for known, kind in fields.items()
        }

    return Kind(
        "json",
        "case when {0} is null or json_type({0}) = 'NULL' then null "
        f"when {' or '.join(odd)} then error('nested') "
        f"else struct_pack({typed}) end",
        f"struct({types})",
        careful,
        pa.struct([(name, kind.arrow) for name, kind in fields.items()]),
        within=fields,
    )


def _inside(kind: Kind, name: str) -> str:
    """The clean reading of a field within a nested one, over that one's `{0}`."""
    arrow = "->" if kind.within else "->>"
    here = "\x00"  # stands for the field while braces are doubled for the next format()
    sql = kind.clean.format(here).replace("{", "{{").replace("}", "}}")
    return sql.replace(here, f"({{0}} {arrow} '$.\"{name}\"')")


@dataclass(frozen=True)
class RequestFormat:
    """How one gateway's log becomes our request: its fields and their kinds, and our columns as SQL
    over them.

    `fields`: name in the log → kind. What is not named here never reaches the disk (house,
    invariant 8). `request`: our column → an SQL expression over the typed fields and
    `$credits_per_usd`; columns left out are null. `rounded`: SQL that is true for a record whose
    money had to be rounded to nine places; the rows are counted. `history`: a text column of
    `raw.playground_history` → the fields that may hold it, read of Playground requests alone, and
    only where the source's settings ask for it.
    `refused`: SQL that says why a record can't be read without guessing although each field of it
    can; null for a good one.
    """

    name: str
    fields: Mapping[str, Kind]
    request: Mapping[str, str]
    rounded: str = "false"
    history: Mapping[str, Sequence[str]] = field(default_factory=dict)
    refused: str = ""
    # (draft, source, clock) → objects in the spool, where the source is no folder
    fetch: "Callable[..., Iterator[SpooledObject]] | None" = None

    def __post_init__(self) -> None:
        """Raises ValueError for a field that no column is made of: the engine would not read it,
        the careful path would, and of a bad one they would think differently.
        """
        sql = " ".join([*self.request.values(), self.rounded, self.refused])
        for name in self.fields:
            if not re.search(rf"\b{re.escape(name)}\b", sql):
                raise ValueError(f"format {self.name}: nothing is made of the field '{name}'")


# ---- objects --------------------------------------------------------------------------------


@dataclass
class SpooledObject:
    """An object on its way: where its plain bytes are, and what reading them through told."""

    location: str
    size: int
    modified_ns: int
    shape: Literal["json", "csv"]
    path: Path
    packing: str  # .gz, .zst, .parquet, or nothing
    sha256: str = ""
    line_count: int = 0
    plain_size: int = 0  # bytes, once unpacked
    # Lines, from 1, that the engine may not be trusted with, and such that its own typing (Plain)
    # reads otherwise; where these are many, it is not used.
    doubtful: list[int] = field(default_factory=list)
    odd: list[int] = field(default_factory=list)
    is_plain: bool = False
    # Whether its bytes were searched for odd values that show (Plain), too; and whether the engine
    # met one that might be such, where they were not.
    is_searched: bool = False
    is_unsure: bool = False
    is_hopeless: bool = False  # so many are doubtful that each line is read by itself
    refused: str = ""  # why nothing of it may be published
    quarantine: list["Quarantined"] = field(default_factory=list)
    read_count: int = 0
    is_fetched: bool = False  # lies in the spool only; its location is no path
    remote: RemoteObject | None = None  # where it lies in an object store
    limits: Limits = field(default_factory=Limits)
    read_as: str = ""  # where the engine finds it, unless by its path
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
        if self.is_fetched:
            return True
        if self.remote is not None:
            return self.path.exists()  # what was fetched changes no more
        try:
            stat = Path(self.location).stat()
        except FileNotFoundError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.modified_ns)

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found in it, so far, that keeps the engine from reading all of it."""
        return not (self.doubtful or self.odd or self.refused) and self.is_plain

    def learn(self, scanned: "Scanned") -> None:
        """Takes in what was found in a part of it."""
        for lines, found in ((self.doubtful, scanned.doubtful), (self.odd, scanned.odd)):
            for index in found:
                number = self.line_count + 1 + index
                if not lines or lines[-1] != number:  # a long line comes in several parts
                    lines.append(number)
        self.line_count += scanned.line_count
        self.is_hopeless = len(self.doubtful) > max(SOME_LINES, self.line_count // 2)
        if len(self.odd) > max(SOME_LINES, self.line_count // 20):
            self.is_plain = False
            self.odd.clear()

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
    if last == PARQUET:  # its rows are read as lines of JSON
        return "json", PARQUET
    packing = last if last in PACKINGS else ""
    shape = SUFFIXES.get(Path(name.removesuffix(packing)).suffix)
    return (shape, packing) if shape else None  # type: ignore[return-value]


def fetch_all(objects: Iterable[SpooledObject], spool: Path) -> None:
    """Brings the bytes of those that lie in an object store, several at a time."""
    remote = [item for item in objects if item.remote is not None]
    if remote:
        in_parallel(lambda item: item.fetch(spool), remote)


def read_through(
    spooled: SpooledObject,
    scan: "Scan",
    spool: Path | None,
    scanners: Executor,
) -> None:
    """One pass over the object's bytes: unpacks (with CRC) and hashes, while `scanners` count lines
    and look for what DuckDB reads wrongly.

    DuckDB checks no gzip CRC and passes JSON numbers through double (facts/landing.md), so both are
    seen to here. Sets `refused` where the bytes can't be trusted; the hash is then of the raw
    bytes. What was unpacked is written to the `spool`, if there is one.
    """
    hasher = hashlib.sha256()
    target = None
    source = spooled.path
    if spooled.packing and spool:
        target = spooled.place_in(spool).open("wb")
    spooled.plain_size = 0
    try:
        for chunk in scanned(plain_chunks(source, spooled.packing), scan, spooled, scanners):
            spooled.plain_size += len(chunk)
            if spooled.packing and not spooled.limits.allow(spooled.plain_size, spooled.size):
                raise ObjectRefused(f"unpacks to more than {spooled.plain_size} bytes")
            hasher.update(chunk)
            if target is not None:
                target.write(chunk)
    except UNREADABLE as error:
        spooled.refused = str(error) or f"truncated {spooled.packing}"
        spooled.sha256 = sha256_of(source)
        return
    finally:
        if target is not None:
            target.close()
    if target is not None:
        spooled.path = Path(target.name)
    # What rows look like as lines is ours: a Parquet file is known by its own bytes.
    if spooled.packing == PARQUET:
        spooled.sha256 = sha256_of(source)
    else:
        spooled.sha256 = hasher.hexdigest()
    if target is not None and spooled.remote is not None:
        source.unlink()


def scanned(
    chunks: Iterable[bytes], scan: "Scan", spooled: SpooledObject, scanners: Executor
) -> Iterator[bytes]:
    """Passes the bytes of an object on, while `scanners` look at them, and with them when they lag
    behind; what was seen is known to it once the last has passed.
    """
    spooled.is_plain = spooled.shape == "json"
    rest = b""  # the beginning of a line that goes on in the next chunk
    pending: deque[Future[Scanned]] = deque()
    for number, chunk in enumerate(chunks):
        if not number and spooled.shape == "json" and scan.would_doubt(chunk):
            spooled.is_searched = True
        if len(pending) < PENDING_CHUNKS:
            pending.append(scanners.submit(scan, chunk, rest, spooled))
        else:  # they lag behind: who brings the bytes takes a turn
            taken: Future[Scanned] = Future()
            taken.set_result(scan(chunk, rest, spooled))
            pending.append(taken)
        yield chunk
        end = chunk.rfind(b"\n") + 1
        rest = chunk[end:] if end else (rest + chunk)[: spooled.limits.line_bytes + 1]
        while pending and (pending[0].done() or len(pending) >= 2 * PENDING_CHUNKS):
            spooled.learn(pending.popleft().result())
    for seen in pending:
        spooled.learn(seen.result())
    if rest:
        spooled.learn(scan(b"", rest, spooled))
    if len(spooled.odd) > spooled.line_count // 20:  # then text is quicker than line by line
        spooled.is_plain = False
        spooled.odd.clear()


def search(spooled: SpooledObject, scan: "Scan", scanners: Executor) -> None:
    """Another pass over the plain bytes of an object: this time they are searched for odd values
    that show, too.
    """
    spooled.doubtful.clear()
    spooled.odd.clear()
    spooled.line_count = 0
    spooled.is_searched, spooled.is_unsure = True, False
    for _ in scanned(plain_chunks(spooled.path, ""), scan, spooled, scanners):
        pass


def plain_chunks(path: Path, packing: str) -> Iterator[bytes]:
    """The plain bytes of an object as it lies there. Raises one of UNREADABLE where they can't be
    trusted.
    """
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
        if packing == PARQUET:
            yield from _rows_as_lines(raw)
            return
        stream = igzip.GzipFile(fileobj=raw) if packing else raw  # type: ignore[no-untyped-call]
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


# How a value is written, that JSON has no word for: decimals with all their digits, instants as
# RFC 3339 has them, with a zone where the column says that it is UTC.
AS_JSON = {
    "TIMESTAMP WITH TIME ZONE": "strftime({0}, '%Y-%m-%dT%H:%M:%S.%fZ')",
    "TIMESTAMP": "strftime({0}::timestamp, '%Y-%m-%dT%H:%M:%S.%f')",  # of any precision
    "DECIMAL": "{0}::varchar",
}


def _rows_as_lines(raw: BinaryIO) -> Iterator[bytes]:
    """The rows of a Parquet file, each as a line of JSON: its line number is its place."""
    connection = connect(memory_limit="500MB")
    try:
        for batch in pq.ParquetFile(raw).iter_batches(PARQUET_ROWS):
            columns = {
                name: column.cast(pa.string()) if pa.types.is_binary(column.type) else column
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
            connection.register("rows", pa.table(columns))
            fields = []
            for name, kind, *_ in connection.execute("describe rows").fetchall():
                written = next(
                    (sql for word, sql in AS_JSON.items() if kind.startswith(word)), "{0}"
                )
                column = '"' + name.replace('"', '""') + '"'
                fields.append(f"{column} := {written.format(column)}")
            lines = connection.sql(
                f"select to_json(struct_pack({', '.join(fields)}))::varchar as line from rows"
            ).to_arrow_table()["line"]
            yield "".join(f"{line}\n" for line in lines.to_pylist()).encode()
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's word
            raise
        # what broke may be told with the values that broke it
        raise ObjectRefused("can't be read as Parquet") from None
    finally:
        connection.close()


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
    """What a part of an object showed: lines that end in it; and by their place among these, from
    0, such as the engine may not be trusted with, or its own typing (Plain).
    """

    line_count: int
    doubtful: Sequence[int] = ()
    odd: Sequence[int] = ()


class Scan:
    """Counts lines as bytes pass, and finds those that the clean path may not be trusted with.

    A line that looks odd is held against the careful path's JSON before it counts: a text may hold
    `, }` or many brackets. Not looked for: NaN and Infinity in another spelling than Python's
    (DuckDB takes `nan`, `NAN`, `inf` too) as the value of a field that is not kept; to search in
    any case costs nearly what hashing does.
    """

    def __init__(self, known: RequestFormat) -> None:
        every = list(_with_nested(known.fields))
        long = {LONG_NUMBER: [name for name, kind in every if kind.long_number]}
        odd: dict[str, list[str]] = {}
        hidden: dict[str, list[str]] = {}
        showing = []
        for name, kind in known.fields.items():
            if kind.plain:
                odd.setdefault(kind.plain.odd, []).append(name)
                if kind.plain.shows:
                    showing.append(name)
                else:
                    hidden.setdefault(kind.plain.odd, []).append(name)
        # Only the careful path tells an object in a cell from any other text.
        self._csv_suspicion = "nested fields" if len(every) > len(known.fields) else ""
        self._long = _compiled(_after_a_mark(long))
        self._odd = _compiled(_after_a_mark(odd))
        self._plain_patterns = _compiled(_beside_commas(_values(long | hidden)))
        self._searching_patterns = _compiled(_beside_commas(_values(long | odd)))
        self._doubted = _compiled(_after_a_mark({DOUBTED: showing}))
        self._patterns = _compiled(_beside_commas(_values(long)))

    def would_doubt(self, chunk: bytes) -> bool:
        """Whether the engine would be unsure (UNSURE) of a text in these bytes: whoever calls a key
        12 once does so again, so that the bytes are best searched from the beginning.
        """
        return _match_any(self._doubted, chunk[:FIRST_BYTES])

    def __call__(self, chunk: bytes, rest: bytes, spooled: SpooledObject) -> Scanned:
        """Looks at the next bytes of an object, of which `rest` began the first line; no bytes: at
        the last line, which has no end.
        """
        if not chunk:
            chunk, rest = rest, b""
            lengths, is_open = [len(chunk)], False
        else:
            lengths = list(map(len, io.BytesIO(chunk)))
            is_open = not chunk.endswith(b"\n")
        count = len(lengths) - is_open
        lengths[0] += len(rest)
        longest, limit = max(lengths), spooled.limits.line_bytes
        if spooled.is_hopeless:
            return Scanned(count)
        long = (
            [index for index, length in enumerate(lengths) if length > limit]
            if longest > limit
            else []
        )
        if spooled.shape != "json":
            is_whole = self._csv_suspicion or b"\x00" in chunk or b"\x00" in rest
            whole = [0] if is_whole and count else []
            return Scanned(count, long or whole)
        lines = self._conspicuous(chunk, rest, spooled, is_open=is_open)
        if longest > 2 * NESTING_LIMIT:
            ends = list(accumulate(lengths))
            for index, length in enumerate(lengths[:count]):
                if 2 * NESTING_LIMIT < length <= limit and index not in lines:
                    line = (rest + chunk)[ends[index] - length : ends[index]]
                    if line.count(b"[") + line.count(b"{") > NESTING_LIMIT:
                        lines[index] = line
        doubtful = {index for index, line in lines.items() if self._is_doubtful(line)}
        odd = [
            index
            for index, line in lines.items()
            if spooled.is_plain and index not in doubtful and _match_any(self._odd, line)
        ]
        return Scanned(count, sorted(doubtful.union(long)), sorted(odd))

    def _conspicuous(
        self, chunk: bytes, rest: bytes, spooled: SpooledObject, *, is_open: bool
    ) -> dict[int, bytes]:
        """The lines in which a pattern is found, by their place; an open last one comes again."""
        searched = self._searching_patterns if spooled.is_searched else self._plain_patterns
        patterns = list(searched if spooled.is_plain else self._patterns)
        if b"\\" in chunk or b"\\" in rest:
            patterns += ESCAPED_LETTER
        if b"\r" in chunk or b"\r" in rest:
            patterns += LONE_CR
        found: dict[int, bytes] = {}
        if rest:
            end = chunk.find(b"\n") + 1
            first = rest + (chunk[:end] if end else chunk)
            if (end or not is_open) and _match_any(patterns, first):
                found[0] = first
        for pattern in patterns:
            index = start = 0
            while match := pattern.search(chunk, start):
                begin = chunk.rfind(b"\n", start, match.start()) + 1 or start
                index += chunk.count(b"\n", start, begin)
                start = chunk.find(b"\n", begin) + 1
                if not start:
                    if not is_open and index not in found:
                        found[index] = chunk[begin:]
                    break
                if index not in found:
                    found[index] = chunk[begin:start]
                index += 1
        return found

    def _is_doubtful(self, line: bytes) -> bool:
        """Whether the engine may read the line otherwise than the careful path does."""
        if _match_any(self._long, line) or (b"\\" in line and _match_any(ESCAPED_LETTER, line)):
            return True
        if b"\r" in line and _match_any(LONE_CR, line):
            return True
        if LOOKS_ODD.search(line) or line.count(b"[") + line.count(b"{") > NESTING_LIMIT:
            try:
                _decode(line, {})
            except RecordRefused:
                return True
        return False


def _with_nested(fields: Mapping[str, Kind]) -> Iterator[tuple[str, Kind]]:
    """Every field by its name, those within nested ones too."""
    for name, kind in fields.items():
        yield name, kind
        yield from _with_nested(kind.within)


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


def _match_any(patterns: Sequence[Any], text: bytes) -> bool:
    return any(pattern.search(text) for pattern in patterns)


ESCAPED_LETTER = _compiled([r"\\u00(?:[4-7]|00)"])
LONE_CR = _compiled([r"\r[^\n]"])


def careful_rows(
    spooled: SpooledObject,
    known: RequestFormat,
    zone: Zone,
    latest: datetime,
    only: Container[int] | None = None,
) -> Iterator[dict[str, Any]]:
    """The good records of an object, or `only` those on some lines, as typed fields with their
    `_line`; the bad ones go to `spooled.quarantine`.

    `latest`: an instant after which a completed request is from the future. A row's `_place` is
    where it stands (line, byte offset, byte length), should our columns turn out not to hold it.
    """
    records = _json_records if spooled.shape == "json" else _csv_records
    spooled.read_count = 0
    spooled.quarantine.clear()
    with spooled.path.open("rb") as file:
        wanted = (
            record
            for record in records(file, known, spooled.limits)
            if only is None or record[0] in only
        )
        yield from _judged(wanted, spooled, known, zone, latest)


def careful_lines(
    lines: Iterable["Line"],
    spooled: SpooledObject,
    known: RequestFormat,
    zone: Zone,
    latest: datetime,
) -> Iterator[dict[str, Any]]:
    """The same of some lines of a JSON object."""
    yield from _judged(_records_of(lines, known), spooled, known, zone, latest)


def _judged(
    records: Iterable["Parsed"],
    spooled: SpooledObject,
    known: RequestFormat,
    zone: Zone,
    latest: datetime,
) -> Iterator[dict[str, Any]]:
    for number, offset, text, parse in records:
        spooled.read_count += 1
        try:
            if len(text) > spooled.limits.line_bytes:
                raise RecordRefused(f"longer than {spooled.limits.line_bytes} bytes")
            record = parse(text)
            row: dict[str, Any] = {"_line": number, "_place": (number, offset, len(text))}
            for name, kind in known.fields.items():
                row[name] = kind.careful(record.get(name), name, zone)
                if name == known.request["completed_at"] and row[name] > latest:
                    raise RecordRefused(f"{name} is in the future")
        except RecordRefused as error:
            spooled.set_aside(number, offset, text, str(error))
            continue
        yield row


Line = tuple[int, int, bytes]  # its number from 1, byte offset, bytes with their end
Parsed = tuple[int, int, bytes, Callable[[bytes], Mapping[str, Any]]]


def _json_records(file: BinaryIO, known: RequestFormat, _: Limits) -> Iterator[Parsed]:
    """Physical lines from 1, with their byte offsets."""

    def lines() -> Iterator[Line]:
        offset = 0
        for number, line in enumerate(iter(file.readline, b""), start=1):
            yield number, offset, line
            offset += len(line)

    yield from _records_of(lines(), known)


def _records_of(lines: Iterable[Line], known: RequestFormat) -> Iterator[Parsed]:
    """What stands on lines, without their ends; blank lines are not records."""

    def parse(text: bytes) -> Mapping[str, Any]:
        return _decode(text, known.fields)

    for number, start, line in lines:
        if number == 1 and line.startswith(b"\xef\xbb\xbf"):
            line = line[3:]
            start += 3
        text = line.rstrip(b"\n")
        text = text.removesuffix(b"\r")
        if text.strip(b" \t\r"):
            yield number, start, text, parse


def _decode(text: bytes, fields: Mapping[str, Kind]) -> Mapping[str, Any]:
    """A strict JSON object: UTF-8, no NaN, no kept field twice, no lone surrogate, not too deep."""
    if b"\r" in text.rstrip(b"\r\n"):
        raise RecordRefused("a carriage return inside the line")
    try:
        line = text.decode("utf-8")
    except UnicodeDecodeError:
        raise RecordRefused("invalid UTF-8") from None
    if text.count(b"[") + text.count(b"{") > NESTING_LIMIT and _depth(line) > NESTING_LIMIT:
        raise RecordRefused(f"nested deeper than {NESTING_LIMIT}")

    objects: list[list[tuple[str, Any]]] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        objects.append(items)
        read = dict(reversed(items))  # of a name given twice, the engine too takes the first
        return read if len(read) == len(items) else Repeating(items)

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
    _refuse_surrogates(record, fields)
    return record


class Repeating(dict[str, Any]):
    """A JSON object that gives a field twice, and all that it gives."""

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        super().__init__(reversed(items))  # the engine too takes the first
        self.items_read = items


def _refuse_surrogates(record: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        value = record.get(name)
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise RecordRefused(f"{name} holds an unpaired surrogate")


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


def _csv_records(file: BinaryIO, known: RequestFormat, limits: Limits) -> Iterator[Parsed]:
    """CSV records by header name; the line is where the record begins, a quoted line break belongs
    to its record.
    """
    csv.field_size_limit(limits.line_bytes)
    header: list[str] | None = None
    unreadable = ""
    offset = number = 0
    lines = iter(file.readline, b"")
    for line in lines:
        number += 1
        start, first = offset, number
        if number == 1 and line.startswith(b"\xef\xbb\xbf"):
            line = line[3:]
            start += 3
            offset += 3
        parts, length, quotes = [line], len(line), line.count(b'"')
        while quotes % 2 and length <= 64 * limits.line_bytes:
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


def unpack(source: Path, packing: str, target: Path) -> str:
    """Writes the plain bytes of an object to `target`; returns what it is known by. Raises as
    reading it through does.
    """
    hasher = hashlib.sha256()
    with target.open("wb") as file:
        for chunk in plain_chunks(source, packing):
            hasher.update(chunk)
            file.write(chunk)
    return sha256_of(source) if packing == PARQUET else hasher.hexdigest()


def records_at(
    path: Path,
    shape: Literal["json", "csv"],
    known: RequestFormat,
    lines: Container[int],
    limits: Limits,
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Records that were accepted, by the lines they stand on, with every field they have."""
    records = _json_records if shape == "json" else _csv_records
    with path.open("rb") as file:
        for number, _, text, parse in records(file, known, limits):
            if number in lines:
                yield number, json.loads(text, parse_int=_whole) if shape == "json" else parse(text)


def _whole(digits: str) -> int | str:
    """Python turns no more than 4300 digits into a number."""
    return int(digits) if len(digits) < 4300 else digits


def arrow_rows(rows: list[dict[str, Any]], known: RequestFormat) -> pa.Table:
    """Typed records as an Arrow table with `_line`, in the order given."""
    columns: dict[str, pa.Array] = {"_line": pa.array([row["_line"] for row in rows], pa.int64())}
    for name, kind in known.fields.items():
        columns[name] = pa.array([row[name] for row in rows], kind.arrow)
    return pa.table(columns)

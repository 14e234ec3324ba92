"""The gateway's `GET /v1/usage`: its requests, listed day by day, and its totals to hold ours
against.

The answer's shape is stated nowhere; docs/usage_api.md says what is assumed here. Each page becomes
an object of JSON lines, of the kept fields only, and lands as any file does: a page that says the
same again changes nothing, another one is a new object whose equal records are duplicates. Totals
never land as requests; they become raw.usage_api_totals, beside which a claim sets what we counted.

A UTC day is listed every night until its look-back is over, and then no more. A listing that breaks
off goes on at its cursor the next night. The token comes from the environment, goes into one
header, and is written nowhere.
"""

import json
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import tenacity

from assets.canonical import FORMAT as CANONICAL
from pipelines.calendar import DAY, Clock
from pipelines.reading import (
    COUNT,
    CREDITS,
    TEXT,
    Number,
    RecordRefused,
    RequestFormat,
    SpooledObject,
)
from pipelines.settings import RequestSource, Settings, SettingsError
from pipelines.store import Draft, RawTable, arrow_table

if TYPE_CHECKING:
    import requests

log = logging.getLogger("meterhouse.land")

KEPT_DAYS = 30  # the gateway deletes request metadata after as many (facts/infery.md)
LOOK_BACK = timedelta(days=3)  # how long after its end a day may still change
PAGE_ROWS = 1_000
PAGE_BYTES = 64 * 2**20
ATTEMPTS = 8
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 300.0  # who asks for more is asked the next night
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # without a byte
ANSWER_SECONDS = 300.0  # for a whole page

ROWS = ("data", "usage", "items", "results")
CURSORS = ("next_cursor", "next_page", "next")
COUNTS = ("request_count", "requests")
CREDITS_USED = ("credits_used", "credits")

TABLES: dict[str, RawTable] = {
    "raw.usage_api_days": RawTable(
        "A day that GET /v1/usage was asked for and will not be asked for from its beginning: "
        "listed to its end once its look-back was over, or broken off.",
        {
            "source_name": ("varchar", "The [[requests]] source"),
            "location": ("varchar", "Its URL"),
            "time_zone": ("varchar", "Its time_zone setting: another one reads rows otherwise"),
            "usage_date": ("date", "The UTC day"),
            "cursor": (
                "varchar",
                "Where its listing goes on, empty at the beginning; null: it is closed",
            ),
            "page_count": ("bigint", "Pages listed so far"),
            "listed_at": ("timestamp", "When that listing began, UTC"),
        },
    ),
    "raw.usage_api_totals": RawTable(
        "What the gateway itself says of a day and model; the newest answer speaks.",
        {
            "source_name": ("varchar", "The [[requests]] source"),
            "gateway": ("varchar", "Whose requests were summed"),
            "usage_date": ("date", "The UTC day"),
            "model": ("varchar", "What served them; null: nothing, or the day was empty"),
            "request_count": ("bigint", "Requests; null where the answer counts none"),
            "credits": ("decimal(38, 9)", "Their credits"),
            "arrived_at": ("timestamp", "When it was asked, UTC"),
        },
        by_day=True,
    ),
}


class MayPass(Exception):
    """The gateway is busy, out of reach or cut short; `seconds`: when it asks to be asked again."""

    def __init__(self, what: str, seconds: float | None = None) -> None:
        super().__init__(what)
        self.seconds = seconds


class ListingBroken(Exception):
    """The gateway can't be listed any further tonight. The text says why, without a full stop."""


class CursorRefused(ListingBroken):
    """The gateway knows the cursor no more."""


# ---- what an answer holds -------------------------------------------------------------------


class Stated(tuple[tuple[str, Any], ...]):
    """A JSON object as it was written, with whatever it gives twice."""

    def first(self, names: Sequence[str]) -> Any:
        """The value of the first of these names that has one; None."""
        given = dict(self)
        return next((given[name] for name in names if given.get(name) is not None), None)


@dataclass(frozen=True)
class Page:
    """An answer: its rows as they were written, and the cursor of the next."""

    rows: list[Any]
    cursor: str | None

    @property
    def is_totals(self) -> bool:
        """Whether it states totals instead of requests. Raises ListingBroken where it mixes them:
        nobody could tell what was counted twice.
        """
        totals = [_is_total(row) for row in self.rows]
        if any(totals) and not all(totals):
            raise ListingBroken("it answered with requests and totals on one page")
        return any(totals)


def _is_total(row: Any) -> bool:
    names = {name for name, _ in row} if isinstance(row, Stated) else set()
    return not names & {"request_id", "timestamp"} and bool(names & {*COUNTS, *CREDITS_USED})


def page_of(content: bytes) -> Page:
    """Reads an answer. Raises MayPass for what is no whole JSON, ListingBroken for another shape
    than docs/usage_api.md assumes.
    """
    try:
        answer = json.loads(
            content,
            parse_float=Number,
            parse_int=Number,
            parse_constant=Number,  # NaN: its row is set aside, not its page
            object_pairs_hook=Stated,
        )
    except (ValueError, RecursionError):
        raise MayPass("its answer was no whole JSON") from None
    if isinstance(answer, list):
        return Page(answer, None)
    lists = [value for name, value in answer if name in ROWS] if isinstance(answer, Stated) else []
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise ListingBroken(f"its answer holds no one list of rows ({', '.join(ROWS)})")
    cursor = answer.first(CURSORS)
    if cursor is not None and (not isinstance(cursor, str) or not cursor):
        raise ListingBroken("the cursor of its answer is neither text nor number")
    has_more = answer.first(["has_more"])
    if has_more is True and cursor is None:
        raise ListingBroken("it says that there is more, and gives no cursor")
    return Page(lists[0], None if has_more is False else cursor)


def line_of(row: Any) -> str:
    """A row as a line of JSON: the kept fields, numbers and repetitions as they were written."""
    if isinstance(row, Stated):
        row = Stated((name, value) for name, value in row if name in FORMAT.fields)
    return _written(row)


def _written(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, Stated):
        return "{" + ", ".join(f"{json.dumps(k)}: {_written(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value)


# ---- the gateway ----------------------------------------------------------------------------


class Gateway:
    """The gateway's API, asked patiently."""

    def __init__(self, source: RequestSource) -> None:
        import requests  # here, because a night without such a source needs none

        class Bearer(requests.auth.AuthBase):
            """Sets the header itself, so that no ~/.netrc is asked for a password."""

            def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
                request.headers["Authorization"] = f"Bearer {token}"
                return request

        self.location = checked_location(source)
        token = checked_token(source)
        self.name = source.name
        self.requests = requests
        self.session = requests.Session()
        self.session.auth = Bearer()
        self.session.headers["Accept"] = "application/json"

    def close(self) -> None:
        self.session.close()

    def page(self, day: date, cursor: str | None, **parameters: str) -> Page:
        """A page of a day. Raises ListingBroken, or SettingsError where the token is refused."""
        ask = {
            "start": f"{day}T00:00:00Z",
            "end": f"{day + DAY}T00:00:00Z",
            "limit": str(PAGE_ROWS),
            **parameters,
            **({"cursor": cursor} if cursor else {}),
        }
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_worth_waiting),
            wait=_wait,
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            before_sleep=self._say,
            reraise=True,
        )
        try:
            return retrying(self.ask, ask)
        except MayPass as error:
            if error.seconds is not None and not _is_worth_waiting(error):
                raise ListingBroken(
                    f"{error}, and it asks for {error.seconds:.0f} s of patience"
                ) from None
            raise ListingBroken(f"{error}, {ATTEMPTS} times") from None

    def ask(self, ask: Mapping[str, str]) -> Page:
        failures = self.requests.exceptions
        try:
            with self.session.get(
                self.location,
                params=dict(ask),
                timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
                stream=True,
                allow_redirects=False,  # the token is for this place and no other
            ) as answer:
                self._check(answer, has_cursor="cursor" in ask)
                return page_of(self._content(answer))
        except failures.SSLError:
            raise ListingBroken("its certificate can't be trusted") from None
        except failures.Timeout:
            raise MayPass("it did not answer in time") from None
        # a cut answer shows as one of the last two
        except (
            failures.ConnectionError,
            failures.ChunkedEncodingError,
            failures.ContentDecodingError,
        ):
            raise MayPass("it could not be reached, or broke off") from None
        except failures.RequestException as error:
            raise ListingBroken(f"it could not be asked ({type(error).__name__})") from None

    def _check(self, answer: "requests.Response", *, has_cursor: bool) -> None:
        """Raises what a status means. Of a refusal only its status is told: what it says might
        repeat the token.
        """
        status = answer.status_code
        if status in (401, 403):
            raise SettingsError(
                f"The gateway refused the token of source '{self.name}' ({status}): set "
                f"{token_variable(self.name)} to one that may read its usage."
            )
        if status in (408, 425, 429) or status >= 500:
            raise MayPass(f"it answered {status}", _retry_after(answer.headers.get("Retry-After")))
        if has_cursor and 400 <= status < 500:
            raise CursorRefused(f"it answered {status} to its own cursor")
        if status != 200:
            raise ListingBroken(f"it answered {status}")

    def _content(self, answer: "requests.Response") -> bytes:
        content = bytearray()
        until = time.monotonic() + ANSWER_SECONDS
        for part in answer.iter_content(2**16):
            content += part
            if len(content) > PAGE_BYTES:
                raise ListingBroken(f"its answer is longer than {PAGE_BYTES} bytes")
            if time.monotonic() > until:
                raise MayPass("it did not answer in time")
        return bytes(content)

    def _say(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        seconds = state.next_action.sleep if state.next_action else 0.0
        log.warning(
            "The gateway of source '%s': %s; asking again in %.1f s", self.name, error, seconds
        )


def token_variable(name: str) -> str:
    """The variable that holds a source's token."""
    return f"METERHOUSE_REQUESTS_{name.upper().replace('-', '_')}_TOKEN"


def checked_token(source: RequestSource) -> str:
    """The token, fit for a header. Raises SettingsError, which does not show it."""
    variable = token_variable(source.name)
    if source.token is None or not source.token.get_secret_value():
        raise SettingsError(f"Source '{source.name}' needs a token: set {variable}.")
    token = source.token.get_secret_value()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise SettingsError(f"{variable} holds a blank, or a sign that no token has.")
    return token


def checked_location(source: RequestSource) -> str:
    """The URL, where a token may be sent to it. Raises SettingsError."""
    url = urlsplit(source.location)
    begins = f"The location of source '{source.name}'"
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SettingsError(f"{begins} is no URL: write one like 'https://api.infery.ai/v1/usage'.")
    if url.username or url.password or url.query or url.fragment:
        raise SettingsError(f"{begins} holds more than a place: write the URL up to its path.")
    if url.scheme == "http" and url.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise SettingsError(
            f"{begins} is not encrypted: write https, so that no one reads a token."
        )
    return source.location


def _retry_after(stated: str | None) -> float | None:
    """Seconds, from either form of the header (RFC 9110, 10.2.3)."""
    if stated is None:
        return None
    if stated.strip().replace(".", "", 1).isdigit():
        return float(stated)
    try:
        at = parsedate_to_datetime(stated)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _is_worth_waiting(error: BaseException) -> bool:
    return isinstance(error, MayPass) and (error.seconds or 0) <= LONGEST_RETRY_AFTER_SECONDS


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds before the next attempt: Retry-After where the gateway gives one, else 0.5, 1, 2 …
    with jitter.
    """
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, MayPass) and error.seconds is not None:
        return error.seconds
    longest = min(FIRST_WAIT_SECONDS * 2.0 ** (state.attempt_number - 1), LONGEST_WAIT_SECONDS)
    return random.uniform(longest / 2, longest)


# ---- requests, day by day -------------------------------------------------------------------

DayRow = dict[str, Any]  # of raw.usage_api_days


class Days:
    """What raw.usage_api_days says of a source, and what it will say."""

    def __init__(self, draft: Draft, source: RequestSource, clock: Clock) -> None:
        self.draft = draft
        self.mine = {
            "source_name": source.name,
            "location": source.location,
            "time_zone": source.time_zone,
        }
        self.now = clock.arrived_at
        rows: list[DayRow] = draft.query("from raw.usage_api_days").to_pylist()
        self.before = rows
        self.others = [row for row in rows if not self._is_mine(row)]
        self.known: dict[date, DayRow] = {
            row["usage_date"]: row for row in rows if self._is_mine(row)
        }

    def _is_mine(self, row: DayRow) -> bool:
        return all(row[name] == value for name, value in self.mine.items())

    @property
    def first(self) -> date:
        """The earliest day of which the gateway still has every request."""
        return self.now.date() - (KEPT_DAYS - 1) * DAY

    @property
    def closed(self) -> dict[date, datetime]:
        """Closed days, and when the listing that closed them began."""
        return {day: row["listed_at"] for day, row in self.known.items() if row["cursor"] is None}

    @property
    def open(self) -> list[date]:
        """The days to list, ascending, today last."""
        days = (self.first + number * DAY for number in range(KEPT_DAYS))
        return [day for day in days if day not in self.closed]

    @property
    def is_broken(self) -> bool:
        return any(row["cursor"] is not None for row in self.known.values())

    def missed(self) -> tuple[date, date] | None:
        """The days between what was closed last and what the gateway still has; None."""
        last = max(self.closed, default=None)
        if last is None or last + DAY >= self.first:
            return None
        return last + DAY, self.first - DAY

    def start(self, day: date) -> tuple[str, int, datetime]:
        """(cursor, pages listed, when it began) of a listing that goes on, or begins now."""
        row = self.known.get(day)
        if row is None or not row["cursor"]:
            return "", 0, self.now
        return row["cursor"], row["page_count"], row["listed_at"]

    def broke_off(self, day: date, cursor: str, page_count: int, began_at: datetime) -> None:
        known = self.known.get(day)
        if known is None or (known["cursor"], known["page_count"]) != (cursor, page_count):
            self._set(day, cursor, page_count, began_at)

    def listed(self, day: date, page_count: int, began_at: datetime) -> None:
        """A day was listed to its end: closed, where that listing began after its look-back."""
        self.known.pop(day, None)
        if began_at >= datetime.combine(day + DAY, datetime.min.time()) + LOOK_BACK:
            self._set(day, None, page_count, began_at)

    def _set(self, day: date, cursor: str | None, page_count: int, began_at: datetime) -> None:
        self.known[day] = {
            **self.mine,
            "usage_date": day,
            "cursor": cursor,
            "page_count": page_count,
            "listed_at": began_at,
        }

    def keep(self) -> None:
        """Writes what has changed; a listing that broke off too long ago is given up."""
        rows = self.others + [
            row for day, row in self.known.items() if row["cursor"] is None or day >= self.first
        ]
        rows.sort(key=lambda row: tuple(str(row[name]) for name in (*self.mine, "usage_date")))
        if rows == self.before:
            return
        if rows:
            shape = TABLES["raw.usage_api_days"]
            self.draft.replace("raw.usage_api_days", arrow_table(shape, rows))
        else:
            self.draft.drop("raw.usage_api_days")


def fetch(draft: Draft, source: RequestSource, clock: Clock) -> Iterator[SpooledObject]:
    """Lists what the gateway has of each open day: a page, an object. What was listed of a day
    whose listing breaks off lands too, and the rest is listed the next night.
    """
    days = Days(draft, source, clock)
    if missed := days.missed():
        draft.remark(
            f"Source '{source.name}': the days {missed[0]} to {missed[1]} were not listed in time, "
            f"the gateway keeps {KEPT_DAYS}: take them from another export."
        )
    with closing(Gateway(source)) as gateway:
        yield from _pages(draft, source, gateway, days)
    days.keep()


def _pages(
    draft: Draft, source: RequestSource, gateway: Gateway, days: Days
) -> Iterator[SpooledObject]:
    for day in days.open:
        cursor, page_count, began_at = days.start(day)
        passed = {cursor}
        try:
            while True:
                try:
                    page = gateway.page(day, cursor)
                except CursorRefused:
                    if "" in passed:
                        raise
                    log.info("source %s: %s is listed from its beginning", source.name, day)
                    cursor, page_count, began_at = "", 0, days.now
                    passed = {""}
                    continue
                is_totals = page.is_totals
                if page.cursor in passed:
                    raise ListingBroken("it gave the same cursor twice")
                page_count += 1
                if is_totals:
                    draft.remark(
                        f"Source '{source.name}' answered with totals for {day}, not with "
                        "requests: they are no records, and none landed."
                    )
                elif page.rows:
                    place = f"{gateway.location}?start={day}&end={day + DAY}, page {page_count}"
                    yield _spooled(draft, place, page.rows)
                if page.cursor is None:
                    break
                cursor = page.cursor
                passed.add(cursor)
        except ListingBroken as error:
            days.broke_off(day, cursor, page_count, began_at)
            draft.remark(
                f"Source '{source.name}': the listing of {day} broke off after "
                f"{page_count} pages, because {error}; the next night goes on there."
            )
            break
        days.listed(day, page_count, began_at)


def _spooled(draft: Draft, place: str, rows: list[Any]) -> SpooledObject:
    """A page in the spool, as an object of JSON lines."""
    path = draft.spool / f"{draft.name('page')}.jsonl"
    path.write_text("".join(f"{line_of(row)}\n" for row in rows), encoding="utf-8")
    stat = path.stat()
    return SpooledObject(
        place, stat.st_size, stat.st_mtime_ns, "json", path, packing="", is_fetched=True
    )


FORMAT = RequestFormat(
    name="usage_api",
    # A row has the fields of the CSV, and may have any other of the canonical record.
    fields=CANONICAL.fields,
    request=CANONICAL.request,
    fetch=fetch,
)


# ---- totals ---------------------------------------------------------------------------------


def land(draft: Draft, settings: Settings, clock: Clock) -> None:
    """Asks for the totals of each complete day whose requests were listed."""
    for source in settings.requests:
        if source.format == FORMAT.name:
            days = Days(draft, source, clock)
            if not days.is_broken:  # else it has just been asked in vain
                with closing(Gateway(source)) as gateway:
                    _land_totals(draft, source, gateway, days)


def _land_totals(draft: Draft, source: RequestSource, gateway: Gateway, days: Days) -> None:
    found = draft.query(
        "select usage_date, model, request_count, credits, arrived_at from raw.usage_api_totals "
        "where source_name = $name "
        "qualify arrived_at = max(arrived_at) over (partition by usage_date)",
        name=source.name,
    ).to_pylist()
    newest: dict[date, list[dict[str, Any]]] = {}
    for row in found:
        newest.setdefault(row["usage_date"], []).append(row)
    asked_at = {day: rows[0]["arrived_at"] for day, rows in newest.items()}
    # A closed day is asked for once more, so that no later listing could have changed it.
    unasked = [
        day
        for day, listed_at in days.closed.items()
        if day >= days.first and asked_at.get(day, datetime.min) < listed_at
    ]
    complete = [day for day in days.open if day < days.now.date()]
    for day in sorted([*unasked, *complete]):
        try:
            totals = _totals(gateway, day)
        except ListingBroken as error:
            draft.remark(
                f"Source '{source.name}': its totals of {day} could not be read, because {error}; "
                "nothing is held against them."
            )
            return
        before = {
            row["model"]: (row["request_count"], row["credits"]) for row in newest.get(day, [])
        }
        if totals == before and day not in unasked:
            continue
        rows = [
            {
                "source_name": source.name,
                "gateway": source.gateway,
                "usage_date": day,
                "model": model,
                "request_count": count,
                "credits": credits,
                "arrived_at": days.now,
            }
            for model, (count, credits) in sorted(totals.items(), key=lambda item: item[0] or "")
        ]
        shape = TABLES["raw.usage_api_totals"]
        draft.append("raw.usage_api_totals", arrow_table(shape, rows), day)


Total = tuple[int | None, Decimal]  # requests, credits


def _totals(gateway: Gateway, day: date) -> dict[str | None, Total]:
    """What the gateway says of a day, by model; an empty day is a total of nothing."""
    totals: dict[str | None, Total] = {}
    cursor, passed = "", {""}
    while True:
        page = gateway.page(day, cursor, group_by="model")
        if page.rows and not page.is_totals:
            raise ListingBroken("it answered with requests where totals were asked for")
        for row in page.rows:
            model, (count, credits) = _total(row, day)
            before = totals.get(model, (0, Decimal(0)))
            counts = None if None in (count, before[0]) else (count or 0) + (before[0] or 0)
            totals[model] = (counts, before[1] + credits)
        if page.cursor is None:
            return totals or {None: (0, Decimal(0))}
        if page.cursor in passed:
            raise ListingBroken("it gave the same cursor twice")
        cursor = page.cursor
        passed.add(cursor)


def _total(row: Stated, day: date) -> tuple[str | None, Total]:
    try:
        stated_day = TEXT.careful(row.first(["usage_date", "date", "day"]), "its day", None)
        if stated_day is not None and stated_day[:10] != str(day):
            raise RecordRefused(f"it speaks of {stated_day[:10]}")
        return TEXT.careful(row.first(["model"]), "model", None), (
            COUNT.careful(row.first(COUNTS), "request_count", None),
            CREDITS.careful(row.first(CREDITS_USED), "credits_used", None),
        )
    except RecordRefused as error:
        raise ListingBroken(f"a total can't be read ({error})") from None


# ---- doctor ---------------------------------------------------------------------------------


def trouble(source: RequestSource, clock: Clock) -> str | None:
    """Why the gateway can't be listed, as a sentence; None when it can. Asked once, for today."""
    try:
        with closing(Gateway(source)) as gateway:
            gateway.ask({"start": f"{clock.arrived_at.date()}T00:00:00Z", "limit": "1"})
    except (SettingsError, ListingBroken, MayPass) as error:
        return f"{error}".rstrip(".")
    return None

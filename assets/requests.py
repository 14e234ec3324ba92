"""Request logs: every object that has arrived becomes `raw.requests`, written once, and an account
of every line.

A format is a file beside this one with a `FORMAT`; here is what all formats share: finding objects,
knowing them by their content, the clean and the careful path, and finding records that speak of one
request (contract, "One request, one winner").
"""

import functools
import importlib
import json
import logging
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

import assets
from pipelines import object_store
from pipelines.calendar import Clock
from pipelines.reading import (
    FUTURE_SECONDS,
    NESTING_LIMIT,
    PARQUET,
    UNREADABLE,
    UNSURE,
    RequestFormat,
    Scan,
    SpooledObject,
    arrow_rows,
    careful_lines,
    careful_rows,
    fetch_all,
    read_through,
    search,
    shape_of,
    shown,
    unpack,
)
from pipelines.settings import RequestSource, Settings, SettingsError
from pipelines.store import (
    OWN_FILES,
    Draft,
    RawTable,
    StoredObject,
    Workbench,
    arrow_table,
    bring_ahead,
    in_order,
    parquet_list,
    places_among,
    quote,
    sha256_of,
)
from pipelines.unwritten import ASIDE, Sifted, Unpacked, readable

log = logging.getLogger("meterhouse.land")

BATCH_BYTES = 2**30  # of objects that land by one statement: each ends with a core at rest
LONG = 64 * 2**20  # bytes of an object that is landed by itself
CAREFUL_ROWS = 100_000
UNSETTLED_ROWS = 20_000_000  # whose ids are in memory at once, sixteen bytes each
OBJECT_ROWS = 5_000_000  # about, in an object of raw.requests (house, invariant 2)

REQUEST_COLUMNS: dict[str, tuple[str, str]] = {
    "gateway": ("varchar", "Whose request ids these are"),
    "source_name": ("varchar", "The [[requests]] source it came by"),
    "format": ("varchar", "The format of that source"),
    "request_id": ("varchar", "Opaque and case-sensitive, unique for ever within a gateway"),
    "call_id": ("varchar", "What a request's attempts share, where the log has a line for each"),
    "completed_at": ("timestamp", "When the request completed and was metered, UTC"),
    "usage_date": ("date", "The UTC day of completed_at"),
    "workspace_id": ("varchar", "As the record states it"),
    "api_key_id": ("varchar", "The key that made the request"),
    "member_id": ("varchar", "Who made it, for Playground requests only"),
    "source": ("varchar", "api or playground"),
    "requested_model": ("varchar", "What the caller asked for"),
    "model": ("varchar", "What served the call"),
    "fallback_from": ("varchar", "The model that failed, where a fallback fired"),
    "fallback_depth": ("integer", "How far down its chain the fallback went"),
    "status": ("integer", "HTTP status"),
    "error_code": ("varchar", "The error's name"),
    "is_streamed": ("boolean", "Whether the answer was streamed"),
    "prompt_tokens": ("bigint", "Tokens in"),
    "completion_tokens": ("bigint", "Tokens out"),
    "total_tokens": ("bigint", "As stated, else in plus out"),
    "credits": ("decimal(18, 9)", "Credits used, exact"),
    "latency_ms": ("bigint", "Milliseconds from gateway in to gateway out"),
    "gateway_in_at": ("timestamp", "The request reached the gateway, UTC"),
    "provider_in_at": ("timestamp", "It was sent to the provider, UTC"),
    "provider_out_at": ("timestamp", "The provider had answered, UTC"),
    "gateway_out_at": ("timestamp", "The gateway had answered, UTC"),
    "source_object": ("varchar", "sha256 of the object it was read from"),
    "source_line": ("bigint", "Its physical line there, from 1"),
    "arrived_at": ("timestamp", "When the object was landed, UTC"),
    "is_rounded": ("boolean", "Whether its money was rounded to nine places"),
}
# What the engine writes as it reads has no line numbers, but stands in their order. So a file holds
# either a row's source_line, or first_row: its own row at which line 1 of the object would stand.
STORED_COLUMNS = {**REQUEST_COLUMNS, "first_row": ("bigint", "")}
LINE = "case when source_line is null then file_row_number - first_row + 1 else source_line end"
READ_STORED = (
    f"select * exclude (first_row, file_row_number) replace ({LINE} as source_line) from {{files}}"
)

TABLES: dict[str, RawTable] = {
    "raw.requests": RawTable(
        "A record of a request, as its log states it, duplicates and all.",
        REQUEST_COLUMNS,
        by_day=True,
        reading=READ_STORED,
    ),
    "raw.source_objects": RawTable(
        "An object that was landed, and what was in it.",
        {
            "object_sha256": (
                "varchar",
                "Of the unpacked bytes; of the raw ones of Parquet and of what can't be unpacked",
            ),
            "source": ("varchar", "The source it came by"),
            "gateway": ("varchar", "Whose request ids are in it"),
            "format": ("varchar", "The format it was read as"),
            "location": ("varchar", "Where it was first found"),
            "arrived_at": ("timestamp", "When it was landed, UTC"),
            "read_count": ("bigint", "Records read"),
            "landed_count": ("bigint", "Records that became rows of raw.requests"),
            "folded_count": ("bigint", "Attempts folded into another record"),
            "quarantined_count": ("bigint", "Records set aside"),
            "rounded_count": ("bigint", "Records whose money was rounded to nine places"),
            "credits": ("decimal(38, 9)", "Of the landed records"),
            "first_at": ("timestamp", "The earliest completed_at, UTC"),
            "last_at": ("timestamp", "The latest completed_at, UTC"),
            "refused": ("varchar", "Why the whole object was quarantined; null where it was read"),
            "time_zone": ("varchar", "The source's time_zone setting as it was read"),
            "credits_per_usd": (
                "bigint",
                "That setting as it was read; null where the format knows no dollars",
            ),
        },
    ),
    "raw.sources": RawTable(
        "A source that gives its records a workspace, by the settings of the night; one gone from "
        "them keeps its last.",
        {
            "source_name": ("varchar", "The [[requests]] source"),
            "workspace_id": ("varchar", "Its workspace_id setting, for records that state none"),
        },
    ),
    "raw.quarantine": RawTable(
        "A line that could not be read without guessing, remembered by its place and hash, never "
        "by its text.",
        {
            "object_sha256": ("varchar", "The object it stands in"),
            "location": ("varchar", "Where that object was found"),
            "line_number": ("bigint", "Physical line from 1; null: the whole object"),
            "byte_offset": ("bigint", "Where the line begins, in unpacked bytes"),
            "byte_length": ("bigint", "How long it is, without its line end"),
            "line_sha256": ("varchar", "Of its bytes"),
            "reason": ("varchar", "Why it was set aside"),
            "source": ("varchar", "The source it came by"),
            "arrived_at": ("timestamp", "When, UTC"),
        },
    ),
    "staging.request_ids": RawTable(
        "A hash of a request's gateway and id, and one of its call where it has one, to find other "
        "records of it: an index, in order, rebuilt when DuckDB changes its hash.",
        {
            "id_hash": (
                "ubigint",
                "hash(gateway, request_id), or hash(gateway, 'call', call_id), of the DuckDB named "
                "in the snapshot",
            )
        },
        by_day=True,
    ),
    "staging.request_contests": RawTable(
        "A record of a request that has several records, or of one that shares a call with it, "
        "repeated for each day on which one of them stands.",
        {
            **REQUEST_COLUMNS,
            "contest_id": ("varchar", "The least request_id among them"),
            "contest_date": ("date", "A day on which a record of this contest stands"),
        },
        by_day=True,
    ),
}

# What a day's id index is made of: hashes of one DuckDB, of request ids alone or of calls as well.
IDS = f"ids by DuckDB {duckdb.__version__}"
IDS_AND_CALLS = f"ids and calls by DuckDB {duckdb.__version__}"
IDENTITY = "hash(gateway, request_id)"
CALL = "case when call_id is not null then hash(gateway, 'call', call_id) end"
# Of a line that was sifted: how many were left out before it.
ASIDE_COUNT = f"""case when "{ASIDE}" is null then error('aside') else "{ASIDE}" end as _aside"""
# A statement that is wrong by itself, whatever the lines hold.
OUR_FAULT = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
# In groups of 16,384 one id is found by reading one group a day; as differences of neighbours the
# hashes take three quarters of their eight bytes, and are read in two thirds of the time.
INDEX_FILES = f"{OWN_FILES}, row_group_size 16384"


@functools.cache
def formats() -> Mapping[str, RequestFormat]:
    """Every format of request logs: the files beside this one that have a `FORMAT`."""
    modules = [
        importlib.import_module(f"{assets.__name__}.{found.name}")
        for found in pkgutil.iter_modules(assets.__path__)
        if found.name != "requests"
    ]
    return {module.FORMAT.name: module.FORMAT for module in modules if hasattr(module, "FORMAT")}


def land(draft: Draft, settings: Settings, clock: Clock) -> None:
    """Lands every object not landed before, whatever days are in it, and settles which records
    speak of one request.
    """
    _reindex(draft)
    _keep_workspaces(draft, settings)
    seen, arrivals = Seen(draft), Arrivals(draft)
    for source in settings.requests:
        if source.format not in formats():
            raise SettingsError(
                f"source '{source.name}': there is no format '{source.format}'; known are "
                f"{', '.join(sorted(formats()))}."
            )
        landing = Landing(draft, source, formats()[source.format], settings, clock, seen, arrivals)
        seen.turn_to(draft, source, landing.read_as)
        landing.run()
    arrivals.settle()
    seen.keep()


def retry(draft: Draft, settings: Settings, clock: Clock) -> None:
    """Reads again what was set aside, with the settings and the clock of now; says of what that
    could not be done. What can be read lands, and a new account of its object replaces the old.
    """
    seen, arrivals = Seen(draft), Arrivals(draft)
    names = ", ".join(TABLES["raw.source_objects"].columns)
    for source in settings.requests:
        accounts = draft.query(
            f"""select {names} from (
                    select *, max(arrived_at) over (partition by gateway, object_sha256) as newest
                    from raw.source_objects
                )
                where arrived_at = newest and arrived_at < $now and quarantined_count > 0
                and source = $source order by location""",
            source=source.name,
            now=clock.arrived_at,
        ).to_pylist()
        if accounts:
            known = formats()[source.format]
            landing = Landing(draft, source, known, settings, clock, seen, arrivals)
            landing.retry(accounts)
    arrivals.settle()
    seen.keep()


def _keep_workspaces(draft: Draft, settings: Settings) -> None:
    """`raw.sources` as the settings have it now: a workspace_id set later speaks for what was
    landed before.
    """
    known = draft.query("select source_name, workspace_id from raw.sources").to_pylist()
    before = {row["source_name"]: row["workspace_id"] for row in known}
    stated = {source.name: source.workspace_id for source in settings.requests}
    after = {name: workspace for name, workspace in (before | stated).items() if workspace}
    if after == before:
        return
    if not after:
        draft.drop("raw.sources")
        return
    rows = [{"source_name": name, "workspace_id": after[name]} for name in sorted(after)]
    draft.replace("raw.sources", arrow_table(TABLES["raw.sources"], rows))


# format, time_zone, credits_per_usd: what decides how an object reads
ReadAs = tuple[str, str | None, int | None]
Known = tuple[str, str]  # gateway, object_sha256
SEEN = "ops/nights/.seen.json"


class Seen:
    """Which objects were landed; and which bytes lie at which place, so that an unchanged file need
    not be read again.

    The places, and what was said, are a cache, safe to lose. `objects`: those that the source whose
    turn it is need not land.
    """

    def __init__(self, draft: Draft) -> None:
        self.store = draft.store
        try:
            kept = json.loads(self.store.read(SEEN) or "")
            self.places: dict[str, list[Any]] = kept["places"]
            self.told: dict[str, list[Any]] = kept["told"]
        except (ValueError, LookupError, TypeError):
            self.places, self.told = {}, {}
        self.before = self._text()
        rows = draft.query(
            "select gateway, object_sha256, format, time_zone, credits_per_usd, "
            "landed_count = 0 and quarantined_count > 0 and refused is null as is_barren from "
            "raw.source_objects"
        ).to_pylist()
        self.landed: set[Known] = {(row["gateway"], row["object_sha256"]) for row in rows}
        self.objects = set(self.landed)
        # Nothing of these was accepted: the settings that they were read with, which may have been
        # mistaken.
        self.barren: dict[Known, set[ReadAs]] = {}
        for row in rows:
            if row["is_barren"]:
                read_as = (row["format"], row["time_zone"], row["credits_per_usd"])
                self.barren.setdefault((row["gateway"], row["object_sha256"]), set()).add(read_as)
        for row in rows:
            if not row["is_barren"]:
                self.barren.pop((row["gateway"], row["object_sha256"]), None)

    def turn_to(self, draft: Draft, source: RequestSource, read_as: ReadAs) -> None:
        """Lets a source land again what was read with other settings, all of it in vain; says once
        what stays as it is.
        """
        again = {
            known
            for known, readings in self.barren.items()
            if known[0] == source.gateway and read_as not in readings
        }
        self.objects = self.landed - again
        found = draft.query(
            "select distinct format, time_zone, credits_per_usd from raw.source_objects "
            "where source = $source and landed_count > 0",
            source=source.name,
        ).to_pylist()
        others = {tuple(row.values()) for row in found} - {read_as}
        if others and self.told.get(source.name) != list(read_as):
            self.told[source.name] = list(read_as)
            draft.remark(
                f"Source '{source.name}': objects of which records were accepted under another "
                f"format, time_zone or "
                "credits_per_usd stay as they were read; the new settings are for what arrives "
                "from now on."
            )

    def knows(self, gateway: str, spooled: SpooledObject) -> bool:
        place = self.places.get(spooled.location)
        return bool(place and place[:-1] == spooled.mark and (gateway, place[-1]) in self.objects)

    def add(self, gateway: str, spooled: SpooledObject) -> None:
        known = (gateway, spooled.sha256)
        if not spooled.is_fetched:
            self.places[spooled.location] = [*spooled.mark, spooled.sha256]
        self.objects.add(known)
        self.landed.add(known)
        self.barren.pop(known, None)  # once a night is enough

    def keep(self) -> None:
        if self._text() != self.before:
            self.store.write(SEEN, self._text())

    def _text(self) -> str:
        return json.dumps({"places": self.places, "told": self.told}, sort_keys=True)


def objects_at(location: Path | str) -> tuple[list[SpooledObject], list[str]]:
    """The objects of a folder (with its subfolders), a glob or one file; and names whose suffix is
    unknown.
    """
    if isinstance(location, str):
        return _objects_of_store(location)
    if location.is_dir():
        files = sorted(path for path in location.rglob("*") if path.is_file())
        base = location
    elif location.is_file():
        files, base = [location], location.parent
    else:
        pattern = next((part for part in location.parts if set(part) & set("*?[")), None)
        if pattern is None:
            return [], []
        base = Path(*location.parts[: location.parts.index(pattern)])
        files = sorted(
            path for path in base.glob(str(location.relative_to(base))) if path.is_file()
        )
    found, unknown = [], []
    for path in files:
        parts = path.relative_to(base).parts
        if any(part[0] in "._" for part in parts) or path.suffix in (".tmp", ".part"):
            continue
        shape = shape_of(path.name)
        if shape is None:
            unknown.append(shown(path))
            continue
        stat = path.stat()
        found.append(
            SpooledObject(str(path), stat.st_size, stat.st_mtime_ns, shape[0], path, shape[1])
        )
    return found, unknown


def _objects_of_store(location: str) -> tuple[list[SpooledObject], list[str]]:
    """The same for s3://bucket/prefix, as its listing shows them; bytes come later."""
    found, unknown = [], []
    for item in object_store.objects_at(location):
        shape = shape_of(item.name)
        if shape is None:
            unknown.append(item.location)
            continue
        modified_ns = int(item.modified_at.timestamp() * 1e9)
        spooled = SpooledObject(
            item.location, item.size, modified_ns, shape[0], Path(), shape[1], remote=item
        )
        found.append(spooled)
    return found, unknown


class Landing:
    """One source's new objects on their way into `raw.requests`."""

    def __init__(
        self,
        draft: Draft,
        source: RequestSource,
        known: RequestFormat,
        settings: Settings,
        clock: Clock,
        seen: Seen,
        arrivals: "Arrivals",
    ) -> None:
        self.draft = draft
        self.source = source
        self.format = known
        self.clock = clock
        self.seen = seen
        self.arrivals = arrivals
        self.location = Path() if known.fetch else settings.place(source.location)
        self.zone = ZoneInfo(source.time_zone) if source.time_zone else None
        self.latest = max(clock.as_of, clock.arrived_at) + timedelta(seconds=FUTURE_SECONDS)
        self.limits = settings.limits
        self.parameters = {"credits_per_usd": settings.warehouse.credits_per_usd}
        self.scan = Scan(known)
        self.read_as: ReadAs = (
            known.name,
            source.time_zone or None,
            self._values().get("credits_per_usd"),
        )

    def run(self) -> None:
        """Lands what is new, in batches of about 1 GiB; a long object by itself. While a batch is
        landed, the bytes of the next are brought and looked at.
        """
        if self.format.fetch:
            self._land_fetched(self.format.fetch(self.draft, self.source, self.clock))
            return
        objects, unknown = objects_at(self.location)
        if not objects and not (isinstance(self.location, Path) and self.location.exists()):
            self.draft.remark(f"Source '{self.source.name}': nothing lies at {self.location}.")
        for name in unknown:
            self.draft.remark(
                f"{name} was not read: its suffix is none of .jsonl, .ndjson, .csv (.gz, .zst) and "
                ".parquet."
            )
        new = [item for item in objects if not self.seen.knows(self.source.gateway, item)]
        landed = 0
        brought: Future[None] | None = None
        with ThreadPoolExecutor(1) as ahead:
            for batch, following in pairwise([*self._batches(new), []]):
                if brought:
                    brought.result()
                else:
                    self._bring(batch)
                brought = ahead.submit(self._bring, following)
                self._land_batch(batch)
                landed += len(batch)
                log.info("landed %d of %d objects of %s", landed, len(new), self.source.name)

    def _batches(self, objects: list[SpooledObject]) -> Iterator[list[SpooledObject]]:
        batch: list[SpooledObject] = []
        size = 0
        for item in objects:
            if batch and (size >= BATCH_BYTES or self._is_long(item, batch[-1])):
                yield batch
                batch, size = [], 0
            batch.append(item)
            size += item.size * (8 if item.packing else 1)
        if batch:
            yield batch

    def _land_fetched(self, objects: Iterable[SpooledObject]) -> None:
        """Lands what a format fetches by itself, as it comes."""
        batch: list[SpooledObject] = []
        for item in objects:
            batch.append(item)
            if sum(member.size for member in batch) >= BATCH_BYTES:
                self._bring(batch)
                self._land_batch(batch)
                batch = []
        if batch:
            self._bring(batch)
            self._land_batch(batch)

    # ---- one batch --------------------------------------------------------------------------

    def _bring(self, batch: list[SpooledObject]) -> None:
        """Fetches and looks at a batch, on which nothing else works."""
        fetch_all(batch, self.draft.spool)
        self._read(batch, None if self._is_long(*batch) else self.draft.spool)

    def _land_batch(self, batch: list[SpooledObject]) -> None:
        """Lands a batch that was brought."""
        ahead = self._land_packed(batch[0]) if self._is_long(*batch) and batch[0].packing else None
        still = [item for item in batch if item.is_still]
        moving = {item.location for item in batch} - {item.location for item in still}
        fresh = {
            item.sha256: item
            for item in reversed(still)
            if (self.source.gateway, item.sha256) not in self.seen.objects
        }
        rows = self._land_together(
            [item for item in still if fresh.get(item.sha256) is item and not item.refused], ahead
        )
        landed = {row["object_sha256"] for row in rows}
        if unsure := [item for item in still if item.is_unsure and item.sha256 not in landed]:
            with ThreadPoolExecutor(2) as scanners:
                for item in unsure:
                    with suppress(FileNotFoundError):  # gone since it was hashed: no longer still
                        search(item, self.scan, scanners)
            rows += self._land_together(unsure)
        landed = {row["object_sha256"] for row in rows}
        for item in still:
            if fresh.get(item.sha256) is item and item.sha256 not in landed:
                rows += self._land_careful(item)
        landed = {row["object_sha256"] for row in rows}
        if rows:
            self.draft.append("raw.source_objects", arrow_table(TABLES["raw.source_objects"], rows))
        aside = [
            self._aside(fresh[row["object_sha256"]], line)
            for row in rows
            for line in _set_aside(fresh[row["object_sha256"]])
        ]
        if aside:
            self.draft.append("raw.quarantine", arrow_table(TABLES["raw.quarantine"], aside))
        for item in batch:
            is_landed = item.sha256 in landed or item.sha256 not in fresh
            if is_landed and item.location not in moving:
                self.seen.add(self.source.gateway, item)
            else:
                why = item.trouble or f"{shown(item.location)} changed while it was read"
                self.draft.remark(f"{why.rstrip('.')}: it is left for the next night.")
            if item.path.parent == self.draft.spool:
                item.path.unlink(missing_ok=True)

    def _land_together(
        self, objects: list[SpooledObject], ahead: dict[str, "Landed"] | None = None
    ) -> list[dict[str, Any]]:
        """Lands what the engine reads rightly, or nearly; returns the accounts of that. `ahead`:
        what landed of them already.
        """
        groups: dict[tuple[tuple[str, ...] | None, bool, bool], list[SpooledObject]] = {}
        sifted: dict[tuple[bool, bool], list[SpooledObject]] = {}
        for item in objects:
            if item.is_hopeless:
                continue
            header = _csv_header(item.path) if item.shape == "csv" else None
            if not item.size or (
                # the engine knows no case, and of two columns takes the first
                header and len({name.lower() for name in header}) < len(header)
            ):
                continue
            if item.doubtful or item.odd:
                if header is None:
                    sifted.setdefault((item.is_plain, item.is_searched), []).append(item)
                continue
            groups.setdefault((header, item.is_plain, item.is_searched), []).append(item)
        rows: list[dict[str, Any]] = []
        for (header, is_plain, is_searched), some in groups.items():
            clean = (
                self._land_clean(some, header, is_plain, by_halves=header is not None)
                if ahead is None
                else ahead
            )
            rows += [
                self._account(item, clean[item.sha256].rows, clean[item.sha256])
                for item in some
                if item.sha256 in clean
            ]
            if header is None:
                left = [item for item in some if item.sha256 not in clean and not item.is_unsure]
                sifted.setdefault((is_plain, is_searched), []).extend(left)
        for (is_plain, _), some in sifted.items():
            if some:
                rows += self._land_sifted(some, is_plain)
        return rows

    def _land_packed(self, item: SpooledObject) -> dict[str, "Landed"] | None:
        """Lands a long packed object: the engine reads it while it is unpacked once more. That
        takes a third of what writing and reading its plain bytes does; they are written where this
        did not land it. Returns what landed, or None where it is not known yet whether the engine
        can land it.
        """
        is_known = (self.source.gateway, item.sha256) in self.seen.objects
        if not item.sha256 or item.refused or is_known:  # without a hash: gone since it was listed
            return None
        landed = None
        if item.is_sound:
            unpacked = Unpacked(item.path, item.packing, item.plain_size)
            with readable(self.draft.connection, [unpacked]) as [item.read_as]:
                landed = self._land_clean([item], None, True)
            item.read_as = ""
        if not landed:
            packed, item.path = item.path, item.place_in(self.draft.spool)
            with suppress(FileNotFoundError, *UNREADABLE):  # it was changed: no longer still
                unpack(packed, item.packing, item.path)
            if item.remote:
                packed.unlink(missing_ok=True)
        return landed

    def _read(self, batch: list[SpooledObject], spool: Path | None) -> None:
        """One pass over the bytes of each; what was packed is plain in the `spool`, if there is
        one.
        """
        for item in batch:
            item.limits = self.limits
            if not item.packing:
                item.path = _plainly_named(item, self.draft.spool)
        with ThreadPoolExecutor(1) as scanners:
            for item in batch:
                with suppress(FileNotFoundError):  # gone since it was listed: no longer still
                    read_through(item, self.scan, spool, scanners)

    # ---- what was set aside -----------------------------------------------------------------

    def retry(self, accounts: list[dict[str, Any]]) -> None:
        """Reads the lines again that these objects were landed without."""
        if self.format.fetch:
            self.draft.remark(
                f"Source '{self.source.name}' is asked, not read: what was set aside of its "
                "answers lies nowhere."
            )
            return
        places = {place: known[-1] for place, known in self.seen.places.items()}
        there = {places.get(item.location, ""): item for item in objects_at(self.location)[0]}
        landed = 0
        for account in accounts:
            item = there.get(account["object_sha256"])
            if item is not None:
                unread = replace(item, doubtful=[], odd=[], quarantine=[])
                fetch_all([item], self.draft.spool)
                self._read([item], self.draft.spool)
            # one that was refused is known by its packed bytes, and by its plain ones once read
            is_same = item is not None and (
                self.seen.places[item.location][:-1] == item.mark
                if account["refused"]
                else item.sha256 == account["object_sha256"]
            )
            if item is None or not is_same:
                self.draft.remark(
                    f"{account['location']} lies there no more as it was landed: what was set "
                    "aside of it stays so."
                )
            elif not account["refused"]:
                landed += self._land_again(item, account)
            elif not item.refused:
                self.seen.objects.discard((self.source.gateway, item.sha256))
                self._bring([unread])
                self._land_batch([unread])
                landed += self._landed_of(item.sha256)
                self._clear(account)
            if item is not None and item.path.parent == self.draft.spool:
                item.path.unlink(missing_ok=True)
        waiting = sum(account["quarantined_count"] for account in accounts)
        self.draft.remark(
            f"Source '{self.source.name}': of {waiting} records set aside {landed} could be read."
        )

    def _clear(self, account: Mapping[str, Any]) -> None:
        """What was refused was read under another hash: nothing is set aside of it any more."""
        nothing = {"read_count": 0, "quarantined_count": 0, "refused": None}
        row = {**account, **nothing, "arrived_at": self.clock.arrived_at}
        self.draft.append("raw.source_objects", arrow_table(TABLES["raw.source_objects"], [row]))

    def _landed_of(self, sha256: str) -> int:
        """How many records of an object landed as it was read last."""
        counts = self.draft.query(
            "select landed_count from raw.source_objects where object_sha256 = $object "
            "and gateway = $gateway order by arrived_at desc limit 1",
            object=sha256,
            gateway=self.source.gateway,
        )["landed_count"].to_pylist()
        return int(counts[0])

    def _land_again(self, item: SpooledObject, account: Mapping[str, Any]) -> int:
        """Lands what can be read now of the lines an object was landed without: how many."""
        lines = self.draft.query(
            "select line_number from raw.quarantine where object_sha256 = $object "
            "and source = $source and arrived_at = $at",
            object=item.sha256,
            source=self.source.name,
            at=account["arrived_at"],
        )["line_number"].to_pylist()
        table = self._careful_table(_one_word(item.sha256))
        rows = careful_rows(item, self.format, self.zone, self.latest, only=set(lines))
        self._insert_all(item, table, rows)
        item.quarantine.sort(key=lambda line: line.line_number or 0)
        again = _wholes(self._keep_table(table)).get(item.sha256, Landed())
        if not again.rows:
            return 0
        before = Landed(
            item.sha256,
            account["landed_count"],
            account["credits"] or Decimal(0),
            account["rounded_count"],
            account["first_at"],
            account["last_at"],
        )
        whole = before + again if before.rows else again
        row = self._account(item, account["read_count"], whole) | {"location": account["location"]}
        self.draft.append("raw.source_objects", arrow_table(TABLES["raw.source_objects"], [row]))
        aside = [self._aside(item, line) for line in _set_aside(item)]
        if aside:
            self.draft.append("raw.quarantine", arrow_table(TABLES["raw.quarantine"], aside))
        return again.rows

    def _aside(self, item: SpooledObject, line: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "object_sha256": item.sha256,
            "location": shown(item.location),
            "source": self.source.name,
            "arrived_at": self.clock.arrived_at,
            **line,
        }

    # ---- the clean path ---------------------------------------------------------------------

    def _land_clean(
        self,
        objects: list[SpooledObject],
        header: tuple[str, ...] | None,
        is_plain: bool,
        *,
        is_sifted: bool = False,
        by_halves: bool = True,
    ) -> dict[str, "Landed"]:
        """Lands objects together, strictly typed, in one statement; returns what landed of each,
        and nothing of one that does not add up. Where the statement raises, which does not say for
        which object, they are tried by halves, or none lands.
        """
        if not objects:
            return {}
        file = self.draft.new_file("parquet")
        heading = 0 if header is None else 1
        is_searched = all(item.is_searched for item in objects)
        first_rows, row = [], 0
        for item in objects:
            first_rows.append(row - heading)
            row += item.line_count - heading
        first_row = _by_file([str(first_row) for first_row in first_rows])
        select = self._select(
            f"(select {self._typed(header, is_plain, is_searched=is_searched)}, file_index"
            f"{', ' + ASIDE_COUNT if is_sifted else ''} "
            f"from {self._reader(objects, header, is_plain, is_sifted=is_sifted)})",
            source_object=_word_by_file([item.sha256 for item in objects]),
            first_row=f"{first_row} - _aside" if is_sifted else first_row,
        )
        try:
            self.draft.copy(select, file, self._values(), options=OWN_FILES)
            landed = self._landed(file)
        except (duckdb.Error, UnicodeDecodeError) as error:
            file.unlink(missing_ok=True)
            if header is None and isinstance(error, OUR_FAULT):
                raise
            if is_plain and not is_searched and UNSURE in str(error):
                for item in objects:
                    item.is_unsure = True
                return {}
            if len(objects) == 1 or not by_halves:
                return {}
            half = len(objects) // 2
            return {
                sha256: landed
                for some in (objects[:half], objects[half:])
                for sha256, landed in self._land_clean(
                    some, header, is_plain, is_sifted=is_sifted
                ).items()
            }
        wholes = {item.sha256: Landed() for item in objects} | _wholes(landed)
        sound = [
            item
            for item, first_row in zip(objects, first_rows, strict=True)
            if item.is_still
            and wholes[item.sha256].adds_up(
                first_row + heading, item.line_count - heading, self.latest
            )
        ]
        if len(sound) < len(objects) or len(wholes) > len(objects):
            file.unlink()
            again = sound if len(sound) < len(objects) else []
            return self._land_clean(again, header, is_plain, is_sifted=is_sifted)
        self._keep(file, landed)
        return wholes

    def _is_long(self, *items: SpooledObject) -> bool:
        """Whether one of them is such that the engine reads it where it lies, in two passes."""
        return any(
            item.shape == "json"
            and item.packing != PARQUET
            and item.size >= LONG
            and not item.trouble
            for item in items
        )

    def _reader(
        self,
        objects: list[SpooledObject],
        header: tuple[str, ...] | None,
        is_plain: bool,
        *,
        is_sifted: bool = False,
        is_lenient: bool = False,
    ) -> str:
        paths = f"[{', '.join(quote(item.read_as or str(item.path)) for item in objects)}]"
        if header is not None:
            return (
                f"read_csv({paths}, all_varchar = true, header = true, delim = ',', quote = '\"', "
                "escape = '\"', strict_mode = true, null_padding = false, "
                "hive_partitioning = false)"
            )
        kinds = {
            name: kind.plain.column if is_plain and kind.plain else kind.column
            for name, kind in self.format.fields.items()
        }
        columns = ", ".join(f"{quote(name)}: '{kind}'" for name, kind in kinds.items())
        if is_sifted:
            columns += f", {quote(ASIDE)}: 'bigint'"
        return (
            f"read_json({paths}, format = 'newline_delimited', columns = {{{columns}}}, "
            f"maximum_depth = {NESTING_LIMIT}, hive_partitioning = false"
            f"{', ignore_errors = true' if is_lenient else ''})"
        )

    def _typed(self, header: tuple[str, ...] | None, is_plain: bool, *, is_searched: bool) -> str:
        """The typed value of each field of the format."""
        typed = []
        for name, kind in self.format.fields.items():
            cell = f'"{name}"'
            if header is not None:
                cell = f"nullif({cell}, '')" if name in header else "null"
                cell = f"{cell}::{kind.column}"
            value = kind.typed(cell, is_plain=is_plain, is_searched=is_searched)
            typed.append(f'{value} as "{name}"')
        return ", ".join(typed)

    # ---- sifting ----------------------------------------------------------------------------

    def _land_sifted(self, objects: list[SpooledObject], is_plain: bool) -> list[dict[str, Any]]:
        """Lands JSON objects some of whose lines are in doubt: those by themselves, the rest as if
        they had never been there. Returns the account of each that adds up.

        First the lines in doubt are sought by the fields that every record needs, which reads half
        as much and finds nearly all; where others raise still, by every field.
        """
        rows: list[dict[str, Any]] = []
        for by_every_field in (False, True):
            landed = {row["object_sha256"] for row in rows}
            left = [item for item in objects if item.sha256 not in landed and not item.is_unsure]
            if left:
                rows += self._sift(left, is_plain, by_every_field=by_every_field)
        return rows

    def _sift(
        self, objects: list[SpooledObject], is_plain: bool, *, by_every_field: bool
    ) -> list[dict[str, Any]]:
        doubts = self._doubts(objects, is_plain, by_every_field=by_every_field)
        table = self._careful_table("null::varchar")
        whole: list[SpooledObject] = []
        parts: dict[str, tuple[SpooledObject, Sifted]] = {}
        for item in objects:
            if item.sha256 not in doubts:
                continue
            aside = sorted({*doubts[item.sha256], *item.doubtful, *(item.odd if is_plain else ())})
            if not aside:
                whole.append(item)
                continue
            with suppress(FileNotFoundError):  # gone since it was hashed: no longer still
                parts[item.sha256] = (item, Sifted(item.path, item.line_count, aside))
        landed = self._land_clean(whole, None, is_plain, by_halves=by_every_field)
        with readable(self.draft.connection, [sifted for _, sifted in parts.values()]) as names:
            clean = [
                replace(item, read_as=name, line_count=sifted.line_count)
                for (item, sifted), name in zip(parts.values(), names, strict=True)
            ]
            landed |= self._land_clean(
                clean, None, is_plain, is_sifted=True, by_halves=by_every_field
            )
            for (item, _), read in zip(parts.values(), clean, strict=True):
                item.is_unsure = read.is_unsure
            for sha256, (item, sifted) in parts.items():
                if sha256 in landed:
                    item.read_count = sifted.line_count
                    item.quarantine.clear()
                    lines = sifted.lines_aside()
                    self._insert_all(
                        item, table, careful_lines(lines, item, self.format, self.zone, self.latest)
                    )
        for sha256, some in _wholes(self._keep_table(table)).items():
            landed[sha256] = landed[sha256] + some if landed[sha256].rows else some
        return [
            self._account(
                item,
                landed[item.sha256].rows if item in whole else item.read_count,
                landed[item.sha256],
            )
            for item in objects
            if item.sha256 in landed
        ]

    def _doubts(
        self, objects: list[SpooledObject], is_plain: bool, *, by_every_field: bool
    ) -> dict[str, list[int]]:
        """Lines of objects, from 1, of which the fields that every record needs, or any, can't be
        typed strictly; nothing of an object of which not every line became a row.
        """
        completed = self.format.request["completed_at"]
        doubts = [
            kind.in_doubt(
                f'"{name}"',
                is_plain=is_plain,
                latest=f"timestamp '{self.latest}'" if name == completed else "",
            )
            for name, kind in self.format.fields.items()
            if kind.needed or by_every_field
        ]
        file = self.draft.new_file("parquet")
        try:
            self.draft.copy(
                f"select file_index, ({' or '.join(doubts)}) as is_in_doubt "
                f"from {self._reader(objects, None, is_plain, is_lenient=True)}",
                file,
            )
        except (duckdb.Error, UnicodeDecodeError) as error:
            file.unlink(missing_ok=True)
            if isinstance(error, OUR_FAULT):
                raise
            return {}
        rows = parquet_list([file], options=", file_row_number = true")
        query = self.draft.connection.execute
        counts = dict(query(f"select file_index, count(*) from {rows} group by 1").fetchall())
        lines: dict[int, list[int]] = {index: [] for index in range(len(objects))}
        first_rows = [0, *accumulate(counts.get(index, 0) for index in lines)]
        for index, row in query(
            f"select file_index, file_row_number from {rows} where is_in_doubt order by 2"
        ).fetchall():
            lines[index].append(row - first_rows[index] + 1)
        file.unlink()
        return {
            item.sha256: lines[index]
            for index, item in enumerate(objects)
            if counts.get(index, 0) == item.line_count
        }

    def _select(
        self, source: str, *, source_object: str, source_line: str = "null", first_row: str = "null"
    ) -> str:
        """Our columns, as they are stored, over the typed fields of the format; what a format
        doesn't give is null.
        """
        expressions = {
            **self.format.request,
            "usage_date": self.format.request["completed_at"],
            "is_rounded": self.format.rounded,
            "source_line": source_line,
            "first_row": first_row,
            "arrived_at": f"timestamp {quote(str(self.clock.arrived_at))}",
        }
        words = {
            "gateway": _one_word(self.source.gateway),
            "source_name": _one_word(self.source.name),
            "format": _one_word(self.format.name),
            "source_object": source_object,
        }
        columns = ", ".join(
            f"{words[name]} as {name}"
            if name in words
            else f"({expressions.get(name, 'null')})::{kind} as {name}"
            for name, (kind, _) in STORED_COLUMNS.items()
        )
        where = f" where ({self.format.refused}) is null" if self.format.refused else ""
        return f"select {columns} from {source}{where}"

    def _values(self) -> dict[str, int]:
        text = " ".join([*self.format.request.values(), self.format.rounded])
        return {name: value for name, value in self.parameters.items() if f"${name}" in text}

    def _account(self, item: SpooledObject, read: int, landed: "Landed") -> dict[str, Any]:
        """What was in an object: `read` records, and what landed of them."""
        return {
            "object_sha256": item.sha256,
            "source": self.source.name,
            "gateway": self.source.gateway,
            "format": self.format.name,
            "location": shown(item.location),
            "arrived_at": self.clock.arrived_at,
            "read_count": read,
            "landed_count": landed.rows,
            "folded_count": 0,
            "quarantined_count": read - landed.rows,
            "rounded_count": landed.rounded,
            "credits": landed.credits,
            "first_at": landed.first_at,
            "last_at": landed.last_at,
            "refused": item.refused or None,
            "time_zone": self.read_as[1],
            "credits_per_usd": self.read_as[2],
        }

    # ---- the careful path -------------------------------------------------------------------

    def _land_careful(self, item: SpooledObject) -> list[dict[str, Any]]:
        """Line by line: the good ones land, the bad ones are set aside. Returns the account; none
        where the object changed meanwhile, which nothing is kept of.
        """
        if item.refused:
            return [self._account(item, 1, Landed())]
        table = self._careful_table(_one_word(item.sha256))
        with suppress(FileNotFoundError):  # gone since it was hashed: no longer still
            self._insert_all(item, table, careful_rows(item, self.format, self.zone, self.latest))
        item.quarantine.sort(key=lambda line: line.line_number or 0)
        if not item.is_still:
            self.draft.connection.execute(f"drop table {table}")
            return []
        whole = _wholes(self._keep_table(table)).get(item.sha256, Landed())
        return [self._account(item, item.read_count, whole)]

    def _careful_table(self, source_object: str) -> str:
        """An empty table of our columns, for rows that were read line by line."""
        table = self.draft.name("careful")
        self.draft.connection.register("incoming", arrow_rows([], self.format))
        select = self._select("incoming", source_object=source_object, source_line="_line")
        self.draft.connection.execute(
            f"create temp table {table} as {select} limit 0", self._values()
        )
        return table

    def _insert_all(self, item: SpooledObject, table: str, rows: Iterable[dict[str, Any]]) -> None:
        select = self._select("incoming", source_object=quote(item.sha256), source_line="_line")
        for chunk in _chunks_of(rows, CAREFUL_ROWS):
            self._insert(item, f"insert into {table} {select}", chunk)

    def _keep_table(self, table: str) -> list["Landed"]:
        """Keeps what stands in such a table, and drops it; returns what that is."""
        file = self.draft.new_file("parquet")
        self.draft.copy(f"from {table}", file, options=OWN_FILES)
        self.draft.connection.execute(f"drop table {table}")
        landed = self._landed(file)
        self._keep(file, landed)
        return landed

    def _insert(self, item: SpooledObject, insert: str, rows: list[dict[str, Any]]) -> None:
        """Inserts typed rows; those that our columns can't hold (a sum over 2^63, a status over
        2^31) are set aside.
        """
        self.draft.connection.register("incoming", arrow_rows(rows, self.format))
        try:
            self.draft.connection.execute(insert, self._values())
        except (duckdb.ConversionException, duckdb.OutOfRangeException):
            if len(rows) == 1:
                _set_row_aside(item, rows[0], "a value is out of range")
                return
            half = len(rows) // 2
            self._insert(item, insert, rows[:half])
            self._insert(item, insert, rows[half:])
            return
        if self.format.refused:  # by what they say together; the insert has left them out
            refused = self.draft.connection.execute(
                f"select _line, {self.format.refused} as reason from incoming "
                "where reason is not null"
            ).fetchall()
            by_line = {row["_line"]: row for row in rows}
            for line, reason in refused:
                _set_row_aside(item, by_line[line], reason)

    # ---- keeping ----------------------------------------------------------------------------

    def _landed(self, file: Path) -> list["Landed"]:
        """What a written file holds, read back: a part for each object and day in it."""
        rows = self.draft.connection.execute(
            f"""select source_object, count(*), sum(credits), count_if(is_rounded),
                       min(completed_at), max(completed_at),
                       min(file_row_number), max(file_row_number), usage_date
                from {parquet_list([file], options=", file_row_number = true")}
                group by source_object, usage_date order by usage_date"""
        ).fetchall()
        return [Landed(*row) for row in rows]

    def _keep(self, file: Path, landed: list["Landed"]) -> None:
        """Takes in what one statement wrote, as one object a day (of some millions of rows at
        most), their ids indexed beside it, and the contests it opens. The file itself becomes the
        object where it can: the request grain is written once.
        """
        days: dict[date, list[Landed]] = {}
        for part in landed:
            assert part.usage_date is not None
            days.setdefault(part.usage_date, []).append(part)
        rows = sum(part.rows for part in landed)
        if not rows:
            file.unlink()
            return
        if len(days) == 1 and rows <= 1.2 * OBJECT_ROWS:
            [day] = days
            credits = str(sum((part.credits for part in landed), Decimal(0)))
            with ThreadPoolExecutor(1) as pool:
                sha256 = pool.submit(sha256_of, file)
                fresh = self._index({day: [file]})
                file = self.draft.add("raw.requests", file, day, (rows, credits), sha256.result())
            if "call_id" not in self.format.request:
                fresh = [replace(one, file=file) for one in fresh]
        else:
            new: dict[date, list[Path]] = {}
            source = parquet_list([file], options=", file_row_number = true")
            pieces = -(-rows // OBJECT_ROWS)
            for day, parts in days.items():
                for piece in range(pieces):
                    first, last = piece * rows // pieces, (piece + 1) * rows // pieces
                    if any(part.first_row < last and part.last_row >= first for part in parts):
                        select = (
                            f"select * exclude (file_row_number) replace ({LINE} as source_line, "
                            f"null::bigint as first_row) from {source} "
                            f"where usage_date = date '{day}' "
                            f"and file_row_number >= {first} and file_row_number < {last}"
                        )
                        item = self.draft.append("raw.requests", select, day, options=OWN_FILES)
                        new.setdefault(day, []).append(self.draft.locate(item))
            file.unlink()
            fresh = self._index(new)
        self.arrivals.add(fresh, rows)

    def _index(self, new: Mapping[date, list[Path]]) -> list["Fresh"]:
        """Writes the id index of new objects."""
        gateway, has_calls = quote(self.source.gateway), "call_id" in self.format.request
        return [
            _index(self.draft, day, files, gateway, has_calls=has_calls)
            for day, files in new.items()
        ]


@dataclass(frozen=True)
class Landed:
    """What a written file holds of one object (and one day): rows, credits, records rounded, the
    first and last completed_at, and the first and last row.
    """

    source_object: str = ""
    rows: int = 0
    credits: Decimal = Decimal(0)
    rounded: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    first_row: int = 0
    last_row: int = -1
    usage_date: date | None = None

    def __add__(self, other: "Landed") -> "Landed":
        """The same object's other day."""
        return Landed(
            self.source_object,
            self.rows + other.rows,
            self.credits + other.credits,
            self.rounded + other.rounded,
            min(filter(None, (self.first_at, other.first_at))),
            max(filter(None, (self.last_at, other.last_at))),
            min(self.first_row, other.first_row),
            max(self.last_row, other.last_row),
        )

    def adds_up(self, first_row: int, records: int, latest: datetime) -> bool:
        """Whether every record of the object became a row, in its place, and none is from the
        future.
        """
        if self.rows != records:
            return False
        return not self.rows or (
            (self.first_row, self.last_row) == (first_row, first_row + records - 1)
            and self.last_at is not None
            and self.last_at <= latest
        )


def _wholes(parts: Iterable[Landed]) -> dict[str, Landed]:
    """What landed of each object, its days together."""
    wholes: dict[str, Landed] = {}
    for part in parts:
        known = wholes.get(part.source_object)
        wholes[part.source_object] = known + part if known else part
    return wholes


# ---- one request, several records -----------------------------------------------------------


@dataclass(frozen=True)
class Fresh:
    """What has just landed of a day: its object of the id index and the hashes in it, in order; the
    hash of each record's id, in the order of the records, and the one file where these stand.
    """

    item: StoredObject
    ids: pa.Array
    records: pa.ChunkedArray
    file: Path | None = None  # none: in several, or their calls have hashes too


class Arrivals:
    """The ids of what has landed and is not yet held against all others: of many small objects they
    are held against the history once.
    """

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self._begin()

    def _begin(self) -> None:
        known = self.draft.partitions("staging.request_ids").values()
        self.history = [item for partition in known for item in partition.objects]
        self.fresh: list[Fresh] = []
        self.rows = 0

    def add(self, fresh: Iterable[Fresh], rows: int) -> None:
        """More of what landed, so many records."""
        self.fresh += fresh
        self.rows += rows
        if self.rows > UNSETTLED_ROWS:
            self.settle()

    def settle(self) -> None:
        """Writes the contests that these records open."""
        if self.fresh:
            ids = [fresh.ids for fresh in self.fresh]
            known, items = self.draft.places(self.history), [fresh.item for fresh in self.fresh]
            is_known, is_twice = _touched(
                self.draft, known, in_order(pa.chunked_array(ids)) if len(ids) > 1 else ids[0]
            )
            if is_known:
                _settle(self.draft, [*self.history, *items])
            elif is_twice:
                _settle(self.draft, items, _records_twice(self.draft, self.fresh))
        self._begin()


def _ids_of(connection: duckdb.DuckDBPyConnection, files: Sequence[Path | str]) -> pa.Array:
    """The hashes that files of the id index hold, in order."""
    ids = connection.sql(f"select id_hash from {parquet_list(files)}").to_arrow_table()["id_hash"]
    return in_order(ids) if len(files) > 1 else ids.combine_chunks()  # one file lies in order


def _twice(ids: pa.Array) -> pa.Array:
    """Those of ordered hashes that stand there more than once: equal ones are neighbours."""
    return ids[1:].filter(pc.equal(ids[1:], ids[:-1]))


def _touched(draft: Draft, known: list[Path], new: pa.Array) -> tuple[bool, bool]:
    """Finds which of new ids, in order, are in known files of the id index, or twice among the new,
    into the temp table `touched`; returns whether there are such, of either.
    """
    connection = draft.connection
    bring_ahead(known)
    again = _twice(new)
    connection.execute("create or replace temp table touched (id_hash ubigint)")
    known_count = 0
    if known:
        # in pieces, each of which a thread takes
        pieces = [new[first : first + 2**17] for first in range(0, len(new), 2**17)]
        ids = pa.chunked_array(pieces, pa.uint64())
        connection.register("arrivals", pa.table({"id_hash": ids}))
        [(known_count,)] = connection.execute(
            f"""insert into touched
                select distinct id_hash from arrivals
                semi join {parquet_list(known)} as known using (id_hash)"""
        ).fetchall()
        connection.unregister("arrivals")
    if len(again):
        connection.register("again", pa.table({"id_hash": again}))
        connection.execute("insert into touched from again except from touched")
        connection.unregister("again")
    return known_count > 0, len(again) > 0


def _records_twice(draft: Draft, arrivals: Sequence[Fresh]) -> str | None:
    """The select of those just landed whose ids are in `touched`, by where they stand: hashes still
    in memory need not be made again; nothing where they aren't known by their places.
    """
    connection = draft.connection
    touched = connection.sql("from touched").to_arrow_table()["id_hash"].combine_chunks()
    files: list[Path] = []
    places: list[pa.RecordBatch] = []
    for fresh in arrivals:
        if fresh.file is None:
            return None
        found = places_among(fresh.records, touched)
        if len(found):
            file_index = pa.repeat(pa.scalar(len(files), pa.uint64()), len(found))
            columns = [file_index, found.cast(pa.int64())]
            places.append(pa.record_batch(columns, ["file_index", "place"]))
            files.append(fresh.file)
    connection.register("found", pa.Table.from_batches(places))
    connection.execute("create or replace temp table places as from found")
    connection.unregister("found")
    # of one file, a number is found sooner than a pair
    where = (
        "file_row_number in (select place from places)"
        if len(files) == 1
        else "(file_index, file_row_number) in (from places)"
    )
    return TABLES["raw.requests"].rows_of(files, where=where)


def _index(
    draft: Draft,
    day: date,
    files: Sequence[Path],
    gateway: str = "gateway",
    *,
    has_calls: bool = True,
) -> Fresh:
    """Writes the id index of files of a day's records, as one object more."""
    records = f"from {parquet_list(files, options=', hive_partitioning = false')}"

    def hashes(of: str, where: str = "") -> pa.ChunkedArray:
        select = f"select {of.replace('gateway', gateway)} as id_hash {records} {where}"
        return draft.connection.sql(select).to_arrow_table()["id_hash"]

    known = draft.partitions("staging.request_ids").get(str(day))
    is_of_calls = known is not None and known.fingerprint == IDS_AND_CALLS
    found = hashes(IDENTITY)
    together = found
    if has_calls:
        calls = hashes(CALL, "where call_id is not null")
        is_of_calls |= len(calls) > 0
        together = pa.chunked_array([*found.chunks, *calls.chunks], pa.uint64())
    ids = in_order(together)
    index = pa.table({"id_hash": ids})
    item = draft.append("staging.request_ids", index, day, options=INDEX_FILES)
    draft.mark("staging.request_ids", day, IDS_AND_CALLS if is_of_calls else IDS)
    return Fresh(item, ids, found)


def _settle(draft: Draft, holders: Iterable[StoredObject], records: str | None = None) -> None:
    """Writes the contests of the ids in `touched`: all their records, for every day on which one
    stands. `holders`: the objects of the id index that may hold one; `records`: the select of these
    records, where it is known already.
    """
    connection = draft.connection
    names = ", ".join(REQUEST_COLUMNS)
    known = draft.partitions("staging.request_ids")
    day_of = {item: date.fromisoformat(key) for key in known for item in known[key].objects}
    while True:
        days = sorted({day_of[item] for item in _holding(draft, list(holders))})
        if records is None:
            has_calls = any(_has_calls(draft, day) for day in days)
            records = TABLES["raw.requests"].rows_of(
                draft.files("raw.requests", days),
                where=f"{IDENTITY} in (from touched)"
                + (f" or {CALL} in (from touched)" if has_calls else ""),
            )
        connection.execute(
            f"""create or replace temp table contests as
                select {names}, {IDENTITY} as id_hash, {CALL} as call_hash, request_id as contest_id
                from ({records})"""
        )
        # An attempt brings its call's other attempts, and each of them other records of its id.
        added = connection.execute(
            """insert into touched
               select unnest([id_hash, call_hash]) from contests where call_hash is not null
               except from touched returning id_hash"""
        ).fetchall()
        if not any(row[0] is not None for row in added):
            break
        holders, records = day_of, None
    while connection.execute(
        """update contests set contest_id = least_id from (
               select id_hash, min(contest_id) as least_id from (
                   select id_hash, contest_id from contests
                   union all
                   select others.id_hash, min(calls.contest_id)
                   from contests as others
                   inner join contests as calls using (gateway, call_id)
                   group by all
               ) group by all
           ) as known
           where known.id_hash = contests.id_hash and least_id < contest_id"""
    ).fetchall() != [(0,)]:
        pass
    connection.execute(  # hashes that met by chance
        """delete from contests where (gateway, contest_id) in (
               select (gateway, contest_id) from contests group by gateway, contest_id
               having count(*) = 1)"""
    )
    for day in days:
        kept = draft.files("staging.request_contests", [day])
        before = (
            f"union all select {names}, contest_id, contest_date "
            f"from {parquet_list(kept, options=', hive_partitioning = false')} "
            "anti join contests using (gateway, request_id)"
            if kept
            else ""
        )
        [(count,)] = connection.execute(
            f"select count(*) from contests where usage_date = date '{day}'"
        ).fetchall()
        if not count:
            continue
        draft.replace(
            "staging.request_contests",
            f"""select * from (
                    select {names}, contest_id, date '{day}' as contest_date from contests
                    where (gateway, contest_id) in
                        (select (gateway, contest_id) from contests where usage_date = date '{day}')
                    {before}
                ) order by gateway, request_id, source_object, source_line""",
            day,
        )


def _holding(draft: Draft, holders: list[StoredObject]) -> list[StoredObject]:
    """Those of some objects of the id index, not none, that hold an id in `touched`."""
    if len(holders) == 1:  # where else
        return holders
    # All at once, for there may be thousands; a semi join takes twice as long.
    found = draft.connection.execute(
        f"select file_index from {parquet_list(draft.places(holders))} group by 1 "
        "having bool_or(id_hash in (from touched))"
    ).fetchall()
    return [holders[index] for (index,) in found]


def _has_calls(draft: Draft, day: date) -> bool:
    """Whether the index of a day has entries of calls."""
    known = draft.partitions("staging.request_ids").get(str(day))
    return known is not None and known.fingerprint == IDS_AND_CALLS


def _is_of_ids_alone(draft: Draft, day: date) -> bool:
    """Whether the index of a day has one entry for each record: not where calls have entries of
    their own, nor where records of the same ids, in several objects, share one object of the index.
    """
    records, ids = (
        draft.partitions(name).get(str(day)) for name in ("raw.requests", "staging.request_ids")
    )
    is_whole = records is not None and ids is not None and records.rows == ids.rows
    return is_whole and not _has_calls(draft, day)


def _told_apart(draft: Draft, days: Sequence[date]) -> Callable[[Workbench], bool] | None:
    """What says, of staging.requests on some days, whether each id has one row: by the id index,
    for which the hashes of a day's ids have been put in order already.
    """
    if not days or not all(_is_of_ids_alone(draft, day) for day in days):
        return None
    return partial(_are_apart, draft.files("staging.request_ids", days))


def _are_apart(index: list[Path], bench: Workbench) -> bool:
    """Whether every id has one row: the index has it once, once what was contested is taken out and
    the winners are put in; and none is null. Contested records and winners are among its own.
    """
    connection = bench.connection
    connection.register("again", pa.table({"id_hash": _twice(_ids_of(connection, index))}))
    [(count,)] = connection.execute(
        f"""with entries as (
                select id_hash, 1 as entry from again
                union all
                select {IDENTITY}, -1 from staging.request_contests where usage_date = contest_date
                union all
                select {IDENTITY}, 1 from staging.request_winners
            ),
            odd as (
                select 1 from entries group by id_hash having 1 + sum(entry) not in (0, 1)
                union all
                select 1 from raw.requests where gateway is null
                union all
                select 1 from raw.requests where request_id is null
            )
            select count(*) from odd"""
    ).fetchall()
    connection.unregister("again")
    return not count


TOLD_APART = {"staging.requests": _told_apart}


def _reindex(draft: Draft, *, all_days: bool = False) -> None:
    """Writes the id index again for days indexed by another DuckDB, whose hash() may differ, or by
    a release that did not say whether calls are in it.
    """
    for day in draft.days("raw.requests"):
        known = draft.partitions("staging.request_ids").get(str(day))
        if all_days or known is None or known.fingerprint not in (IDS, IDS_AND_CALLS):
            draft.drop("staging.request_ids", day)
            _index(draft, day, draft.files("raw.requests", [day]))


def rebuild(draft: Draft) -> None:
    """The id index and the contests again, from `raw.requests` alone."""
    for day in draft.days("staging.request_contests"):
        draft.drop("staging.request_contests", day)
    _reindex(draft, all_days=True)
    known = draft.partitions("staging.request_ids").values()
    holders = [item for partition in known for item in partition.objects]
    if not holders:
        return
    draft.connection.execute(
        "create or replace temp table touched as "
        f"select id_hash from {parquet_list(draft.places(holders))} group by 1 having count(*) > 1"
    )
    [(count,)] = draft.connection.execute("select count(*) from touched").fetchall()
    if count:
        _settle(draft, holders)


# ---- small things ---------------------------------------------------------------------------


def _by_file(values: list[str]) -> str:
    """A constant of each file of a statement, as SQL."""
    if len(set(values)) == 1:
        return values[0]
    return f"[{', '.join(values)}][(file_index + 1)::bigint]"


def _word_by_file(texts: list[str]) -> str:
    """A text of each file of a statement, as SQL: an enum is written to Parquet without hashing
    every row's text.
    """
    if len(set(texts)) == 1:
        return _one_word(texts[0])
    words = ", ".join(quote(text) for text in texts)
    return f"([{words}]::enum({words})[])[(file_index + 1)::bigint]"


def _one_word(text: str) -> str:
    """A constant as SQL, an enum of one word."""
    return f"{quote(text)}::enum({quote(text)})"


def _plainly_named(item: SpooledObject, spool: Path) -> Path:
    """Where the engine finds the object: by a link, where its name is a pattern or no UTF-8."""
    if not set(str(item.path)) & set("*?[") and shown(item.path) == str(item.path):
        return item.path
    link = item.place_in(spool)
    link.unlink(missing_ok=True)
    link.symlink_to(item.path)
    return link


def _csv_header(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file:
        line = file.readline().decode("utf-8", errors="replace").strip("\ufeff\r\n")
    return tuple(name.strip().strip('"') for name in line.split(","))


def _set_row_aside(item: SpooledObject, row: Mapping[str, Any], reason: str) -> None:
    """Sets aside a record whose fields were read each by itself."""
    number, offset, length = row["_place"]
    with item.path.open("rb") as file:
        file.seek(offset)
        item.set_aside(number, offset, file.read(length), reason)


def _set_aside(item: SpooledObject) -> Iterator[dict[str, Any]]:
    if item.refused:
        yield {
            "line_number": None,
            "byte_offset": 0,
            "byte_length": item.size,
            "line_sha256": item.sha256,
            "reason": item.refused,
        }
    for line in item.quarantine:
        yield {
            "line_number": line.line_number,
            "byte_offset": line.byte_offset,
            "byte_length": line.byte_length,
            "line_sha256": line.line_sha256,
            "reason": line.reason,
        }


def _chunks_of(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk

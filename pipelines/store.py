"""Where tables live: immutable Parquet objects under one root, named by their content, and the
snapshot that names them.

A night writes drafts, audits them, and replaces `snapshot.json`: readers see the old night or the
new one, never a mixture
(house, invariant 1). What a table means does not belong here.
"""

import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import filelock
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.calendar import utc_now

FORMAT_VERSION = 1
COPIES = 3  # of snapshot.json, under ops/nights/
LAYERS = ("raw", "staging", "marts", "ops", "exports")
OBJECT_PATH = re.compile(
    r"(?:raw|staging|marts|ops|exports)/[a-z_]+/(?:usage_date=\d{4}-\d\d-\d\d/)?[0-9a-f]{32}\.(?:parquet|csv)"
)
SUPERSEDED_LIVE = timedelta(days=7)
ROW_GROUP = 122_880  # pinned: equal rows must be equal bytes whatever DuckDB's default becomes
# Files that are read by the house alone. Delta encodings save a quarter of the bytes; bloom filters
# are of ids nobody looks up so; a dictionary of nearly as many values as rows is begun in vain.
OWN_FILES = ", parquet_version v2, write_bloom_filter false, dictionary_size_limit 3000"
WORKER_MEMORY = "1500MB"  # of each engine beside the first, which has 2 GB
WHOLE = ""  # the partition key of a table that is not partitioned


class StoreError(RuntimeError):
    """The store can't be read or written; the text says why and what to do."""


@dataclass(frozen=True)
class RawTable:
    """The shape of a `raw.*` table: DuckDB type and documentation of each column.

    `reading`: the select of its rows from `{files}`, where these hold something else than the
    columns.
    """

    description: str
    columns: Mapping[str, tuple[str, str]]
    by_day: bool = False
    reading: str = "select * from {files}"

    def rows_of(
        self, files: Sequence[Path | str], *, by_path: bool = False, where: str = ""
    ) -> str:
        """The select that reads the table out of its files; `by_path`: the day is taken from their
        names, so that a day asked for is a file opened. `where`: of the rows as they are stored,
        before anything is computed.
        """
        options = f", hive_partitioning = {'true' if by_path else 'false'}"
        if "file_row_number" in self.reading:
            options += ", file_row_number = true"
        rows = self.reading.format(files=parquet_list(files, options=options))
        return f"{rows} where {where}" if where else rows


ARROW_TYPES = {
    "varchar": pa.string(),
    "varchar[]": pa.list_(pa.string()),
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
    "decimal(18,9)": pa.decimal128(18, 9),
    "decimal(38,9)": pa.decimal128(38, 9),
}


def arrow_table(shape: RawTable, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as Arrow, by the types the table declares; a column that a row leaves out is null."""
    return pa.table(
        {
            name: pa.array([row.get(name) for row in rows], ARROW_TYPES[kind.replace(", ", ",")])
            for name, (kind, _) in shape.columns.items()
        }
    )


def in_order(numbers: pa.ChunkedArray) -> pa.Array:
    """Numbers in ascending order, nulls last. Of five million Polars takes half of what the engine
    does; for a few thousand it need not be loaded.
    """
    if len(numbers) < 100_000:
        return numbers.combine_chunks().sort()
    import polars as pl

    return pl.Series(numbers).sort(nulls_last=True).to_arrow()


def places_among(numbers: pa.ChunkedArray, others: pa.Array) -> pa.Array:
    """Where numbers stand, from 0, that are among others. Of five million Polars takes a third."""
    if len(numbers) < 100_000:
        return pc.indices_nonzero(pc.is_in(numbers, value_set=others))
    import polars as pl

    return pl.Series(numbers).is_in(pl.Series(others).implode()).arg_true().to_arrow()


@dataclass(frozen=True)
class StoredObject:
    """One immutable file. `path` is relative to the root; `credits` is the exact sum of its column
    of that name.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    credits: str | None = None


@dataclass(frozen=True)
class Partition:
    """One day of a table, or the whole of it, and the fingerprint of what it was made from."""

    objects: tuple[StoredObject, ...]
    fingerprint: str = ""

    @cached_property
    def content(self) -> str:
        """A hash of what is in it, whatever order its objects arrived in."""
        return digest(sorted(item.sha256 for item in self.objects))

    @property
    def rows(self) -> int:
        return sum(item.rows for item in self.objects)

    def stated(self) -> dict[str, Any]:
        """As `snapshot.json` states it."""
        return {"objects": [vars(item) for item in self.objects], "fingerprint": self.fingerprint}


Tables = dict[str, dict[str, Partition]]


@dataclass(frozen=True)
class Snapshot:
    """What is published: table → partition → objects."""

    snapshot_id: str
    as_of: datetime
    published_at: datetime
    tables: Tables
    checks: dict[str, str] = field(default_factory=dict)
    superseded: dict[str, str] = field(default_factory=dict)
    version: str | None = field(default=None, compare=False)  # what the store calls this state

    @classmethod
    def of(cls, stated: Mapping[str, Any], version: str | None = None) -> "Snapshot":
        """The snapshot that `snapshot.json` states."""
        return cls(
            snapshot_id=stated["snapshot_id"],
            as_of=datetime.fromisoformat(stated["as_of"]),
            published_at=datetime.fromisoformat(stated["published_at"]),
            tables={
                table: {
                    key: Partition(
                        tuple(StoredObject(**item) for item in partition["objects"]),
                        partition["fingerprint"],
                    )
                    for key, partition in partitions.items()
                }
                for table, partitions in stated["tables"].items()
            },
            checks=stated["checks"],
            superseded=stated["superseded"],
            version=version,
        )

    def objects(self) -> Iterator[StoredObject]:
        for partitions in self.tables.values():
            for partition in partitions.values():
                yield from partition.objects


@functools.lru_cache(maxsize=1)
def read_snapshot(path: str, text: bytes, version: str | None) -> Snapshot:
    """The snapshot that the text of `snapshot.json` states. The last one read is remembered: a
    night asks five times, and that of a year takes a tenth of a second.
    """
    stated = json.loads(text.decode("utf-8"))
    if stated["format_version"] != FORMAT_VERSION:
        raise StoreError(
            f"{path} is of format {stated['format_version']}, this release reads "
            f"{FORMAT_VERSION}: use the release that wrote it, or land into a new root."
        )
    return Snapshot.of(stated, version)


def snapshot_text(content: Mapping[str, Any]) -> str:
    """The text of `snapshot.json`: a line for each table. (Indented throughout, it would be written
    by Python instead of C: a second for a year of days.)
    """
    tables = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(parts, sort_keys=True)}"
        for name, parts in sorted(content["tables"].items())
    )
    others = "".join(
        f"\n {json.dumps(name)}: {json.dumps(value, sort_keys=True)},"
        for name, value in sorted(content.items())
        if name != "tables"
    )
    return f'{{{others}\n "tables": {{\n{tables}\n }}\n}}\n'


def digest(parts: Iterable[object]) -> str:
    """sha256 over a list of texts, kept apart by a byte that no text of ours holds."""
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).hexdigest()


def quote(text: str) -> str:
    """A text as an SQL literal (paths only; values are bound)."""
    return "'" + text.replace("'", "''") + "'"


# Hashed at once: other threads of Python work meanwhile, and are waited for after each.
HASH_BYTES = 4 * 2**20


def sha256_of(path: Path) -> str:
    """The hash of a file's bytes."""
    hasher = hashlib.sha256()
    piece = bytearray(min(path.stat().st_size, HASH_BYTES) + 1)
    with path.open("rb", buffering=0) as file, memoryview(piece) as view:
        while count := file.readinto(view):
            hasher.update(view[:count])
    return hasher.hexdigest()


def bring_ahead(files: Iterable[Path]) -> None:
    """Has the system bring files from the disk, all at once, that will be read whole soon: hundreds
    of small ones that nobody has read since the last night take as long to find as to read.
    """
    if not hasattr(os, "posix_fadvise"):  # as on macOS: then they are read when they are read
        return
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)


def sync(path: Path) -> None:
    """fsync of a file or folder: a rename is durable only once its folder is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Writes a small file so that a reader sees the old text or the new one: draft, fsync, rename,
    fsync.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    sync(draft)
    os.replace(draft, path)
    sync(path.parent)


def parquet_list(paths: Sequence[Path | str], *, options: str = "") -> str:
    """A `read_parquet` over exact files, never a glob."""
    return f"read_parquet([{', '.join(quote(str(path)) for path in paths)}]{options})"


class Journal:
    """An append-only table whose lines are durable by themselves, not by a snapshot:
    `raw/<name>/<number>.json`, which holds the lines of one `append`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0  # of the last file that was written here

    def append(self, *entries: Mapping[str, Any]) -> None:
        """Lines more, on disk when this returns: all of them or none. Several processes may append
        at once.
        """
        if not entries:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        text = journal_text(entries)
        with filelock.FileLock(self.folder / ".lock"):
            if not self._number:
                self._number = len(self._files())
            while True:
                self._number += 1
                target = self.folder / f"{self._number:08d}.json"
                if not target.exists():
                    break
            try:
                write_whole(target, text)
            except FileNotFoundError:  # a night that began just now has swept the draft away
                write_whole(target, text)

    def entries(self) -> list[dict[str, Any]]:
        """Every line, in the order written."""
        return [
            entry
            for path in self._files()
            for entry in journal_entries(path.read_text(encoding="utf-8"))
        ]

    def rewrite(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Every line as `change` makes it, each file whole or not at all: only to erase a
        member.
        """
        if not self.folder.is_dir():
            return
        with filelock.FileLock(self.folder / ".lock"):
            for path in self._files():
                entries = journal_entries(path.read_text(encoding="utf-8"))
                changed = tuple(change(entry) for entry in entries)
                if changed != entries:
                    write_whole(path, journal_text(changed))

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.json"))


def journal_text(entries: Iterable[Mapping[str, Any]]) -> str:
    """The file of one `append`: a JSON object a line."""
    return "\n".join(json.dumps(dict(entry), default=str, sort_keys=True) for entry in entries)


@functools.lru_cache(maxsize=2**14)
def journal_entries(text: str) -> tuple[dict[str, Any], ...]:
    """The lines of such a file, parsed once in a process, for a night reads each journal several
    times: whoever is given them leaves them as they are.
    """
    return tuple(json.loads(line) for line in text.split("\n"))


class Store:
    """One root on a local disk; `pipelines/bucket_store.py` is the other kind, in an object store.

    What either kind does in its own way comes first: small files, objects, and the one moment at
    which a night becomes visible.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def place(self) -> str:
        """Where it is, for sentences."""
        return str(self.root)

    @property
    def reads_in_place(self) -> bool:
        """Whether published objects lie where DuckDB reads them."""
        return True

    # ---- small files ------------------------------------------------------------------------

    def read(self, name: str) -> str | None:
        """A small file's text; None where there is none."""
        try:
            return (self.root / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Writes a small file, whole or not at all."""
        write_whole(self.root / name, text)

    def texts(self, folder: str) -> dict[str, str]:
        """The numbered small files of a folder, in order."""
        files = sorted((self.root / folder).glob("[0-9]*.json"))
        return {path.name: path.read_text(encoding="utf-8") for path in files}

    def journal(self, table: str) -> "Journal":
        return Journal(self.root / table.replace(".", "/"))

    # ---- objects ----------------------------------------------------------------------------

    def local(self, items: Sequence[StoredObject]) -> list[Path]:
        """Published objects as files of this machine, which DuckDB reads."""
        return [self.root / item.path for item in items]

    def reach(self, paths: Iterable[str]) -> None:
        """Sees to it that published objects, named by their paths, can be read here."""

    def stand_in(self, paths: Iterable[str]) -> None:
        """Sees to it that a view may name published objects, before anybody reads them."""

    def has(self, path: str, published: Snapshot | None) -> bool:  # noqa: ARG002
        """Whether an object is there already, and stays: it need not be written again."""
        return (self.root / path).exists()

    def take_in(self, drafts: Mapping[str, Path]) -> None:
        """Gives drafts their names, durably; nothing speaks of them yet."""
        with ThreadPoolExecutor(8) as pool:  # waiting for the disk, not for a core
            list(pool.map(sync, drafts.values()))
        folders = set()
        for path, draft in drafts.items():
            target = self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft, target)
            folders.update([target.parent, target.parent.parent])
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(sync, sorted(folders)))

    def forget(self, paths: Sequence[str]) -> None:
        """Objects that must not live on for a week: gone at once."""
        for path in paths:
            (self.root / path).unlink(missing_ok=True)

    def missing(self, snapshot: Snapshot) -> list[str]:
        """Objects that the snapshot names and that are not there."""
        return [item.path for item in snapshot.objects() if not (self.root / item.path).exists()]

    def size(self) -> tuple[int, int]:
        """How many files there are, and their bytes."""
        sizes = [path.stat().st_size for path in self.root.rglob("*") if path.is_file()]
        return len(sizes), sum(sizes)

    # ---- what is derived from a snapshot ----------------------------------------------------

    def bring(self, name: str, mend: Callable[[Path], None]) -> Path:  # noqa: ARG002
        """A derived file as it is published, on this machine. `mend`: makes one that was made
        elsewhere fit here.
        """
        return self.root / name

    def hand_on(self, name: str, snapshot: Snapshot) -> None:
        """Publishes a derived file that was made here, from this snapshot."""

    def is_current(self, snapshot: Snapshot) -> bool:  # noqa: ARG002
        """Whether the snapshot is still the one that stands; the lock sees to that here."""
        return True

    def is_over(self, night: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Whether a night that says it runs is no more: here we hold the lock, so it is."""
        return True

    def trouble(self) -> str:
        """Why the place can't be written, beyond what a look at its folder tells."""
        return ""

    def tidy(self) -> None:
        """Lets go of what this machine keeps only for speed."""

    # ---- the snapshot -----------------------------------------------------------------------

    def snapshot(self) -> Snapshot | None:
        """What is published now; None before the first night."""
        path = f"{self.place}/snapshot.json"
        state = self._state()
        if state is None:
            if copies := self._copies():
                raise StoreError(
                    f"{path} is gone, though nights were published: copy {copies[-1]} to its place."
                )
            return None
        try:
            return read_snapshot(path, *state)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            copies = self._copies()
            newest = copies[-1] if copies else "a backup"
            raise StoreError(
                f"{path} can't be read ({error}): copy {newest} to its place."
            ) from None

    def _state(self) -> tuple[bytes, str | None] | None:
        """`snapshot.json` as it is, and what the store calls this state of it."""
        try:
            return (self.root / "snapshot.json").read_bytes(), None
        except FileNotFoundError:
            return None

    def _copies(self) -> list[str]:
        """The last snapshots as they were published, oldest first: what a lost `snapshot.json` is
        restored from.
        """
        folder = self.root / "ops" / "nights"
        found = sorted(folder.glob("snapshot-*.json"), key=lambda path: path.stat().st_mtime_ns)
        return [str(path) for path in found]

    def replace_snapshot(self, content: Mapping[str, Any], before: str | None) -> str | None:  # noqa: ARG002
        """The one moment at which a night becomes visible: `snapshot.json` is replaced, and a copy
        kept. `before`: the version it stands on; returns the new one.
        """
        text = snapshot_text(content)
        folder = self.root / "ops" / "nights"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.root / "snapshot.json", text)
        write_whole(folder / f"snapshot-{content['snapshot_id']}.json", text)
        for old in self._copies()[:-COPIES]:
            Path(old).unlink()
        return None

    # ---- one writer -------------------------------------------------------------------------

    @contextmanager
    def lock(self, wait_seconds: float = 0) -> Iterator[None]:
        """Keeps two nights apart. The kernel lets go of it when a process dies, however it dies.

        Raises StoreError naming the holder when another night runs for longer than `wait_seconds`.
        """
        folder = self.root / "ops" / "nights"
        folder.mkdir(parents=True, exist_ok=True)
        holder = folder / ".holder"
        lock = filelock.FileLock(folder / ".lock", timeout=wait_seconds)
        try:
            lock.acquire()
        except filelock.Timeout:
            who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
            raise StoreError(
                f"Another night is at work on {self.place} ({who}); it will publish what has "
                "arrived. Run again when it has ended."
            ) from None
        try:
            holder.write_text(f"process {os.getpid()}, since {utc_now():%H:%M:%S} UTC")
            yield
        finally:
            lock.release()

    @contextmanager
    def spool(self) -> Iterator[Path]:
        """A folder outside the root (mode 0700) for what is only passing through; emptied before
        and after.
        """
        name = f"meterhouse-{os.getuid()}-{digest([self.root])[:12]}"
        folder = Path(tempfile.gettempdir()) / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, snapshot: Snapshot | None) -> int:
        """Removes what a killed night left and what was superseded more than seven days ago;
        returns how many files.

        Only under the lock: a running night's objects are named by no snapshot yet. Without a
        snapshot nothing is known to
        be idle, so nothing but drafts goes; and only files named as the store names them are ever
        removed.
        """
        shutil.rmtree(self.root / ".drafts", ignore_errors=True)
        for file in self.root.glob(".*.tmp*"):  # a half-made warehouse.duckdb has a .wal beside it
            file.unlink()
        if snapshot is None:
            return 0
        kept = {item.path for item in snapshot.objects()}
        for path, since in snapshot.superseded.items():
            if utc_now() - datetime.fromisoformat(since) < SUPERSEDED_LIVE:
                kept.add(path)
        removed = 0
        for layer in LAYERS:
            for path in _files_under(str(self.root), layer):
                if path in kept:
                    continue
                name = path.rpartition("/")[2]
                if OBJECT_PATH.fullmatch(path):
                    (self.root / path).unlink()
                    removed += 1
                elif name.endswith(".tmp") and name.startswith("."):
                    # a journal's writer may have renamed it just now
                    (self.root / path).unlink(missing_ok=True)
        return removed


CORES = os.cpu_count() or 1
NOTHING = "0.000000000"  # the sum of no credits, as the engine says it


def _files_under(top: str, folder: str) -> Iterator[str]:
    """Every file under a folder of `top`, by its path from there; a link to a folder is not
    followed. (Of a year of days, os.walk asks each folder three more questions.)
    """
    folders = [folder] if Path(top, folder).is_dir() else []
    while folders:
        folder = folders.pop()
        with os.scandir(f"{top}/{folder}") as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                else:
                    yield path


def copy_parquet(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    target: Path,
    parameters: Mapping[str, object] | None = None,
    options: str = "",
    *,
    is_kept: bool = False,
) -> int:
    """Writes a select as the house writes Parquet; returns how many rows the engine says it wrote.

    `options`: more of COPY's; `is_kept`: the same select will be written again.
    """
    if "row_group_size" not in options:
        options += f", row_group_size {ROW_GROUP}"
    text = f"copy ({sql}) to $file (format parquet, compression zstd, compression_level 1{options})"
    [(rows,)] = connection.execute(
        parsed_once(connection, text) if is_kept else text,
        {**(parameters or {}), "file": str(target)},
    ).fetchall()
    return int(rows)


_parsed: dict[str, duckdb.Statement] = {}


def parsed_once(connection: duckdb.DuckDBPyConnection, text: str) -> duckdb.Statement:
    """A statement, parsed once in a process: DuckDB 2.0's parser takes a millisecond for a thousand
    characters, a tenth of what a small day costs. Only for texts of which there are few, such as
    the house's own.
    """
    if text not in _parsed:
        [_parsed[text]] = connection.extract_statements(text)
    return _parsed[text]


def write_parquet(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    target: Path,
    parameters: Mapping[str, object] | None = None,
    has_credits: bool | None = None,
    options: str = "",
    *,
    is_kept: bool = False,
) -> tuple[int, str | None]:
    """Writes a select; returns its rows, and the sum of its `credits` (None without such a column),
    read back from the file.

    `has_credits`: whether there is such a column, where the caller knows.
    """
    rows = copy_parquet(connection, sql, target, parameters, options, is_kept=is_kept)
    if not rows and has_credits is not None:  # nobody will ever open it
        return 0, NOTHING if has_credits else None
    source = parquet_list([target])
    if has_credits is None:
        described = connection.execute(f"from {source} limit 0").description or []
        has_credits = "credits" in {column[0] for column in described}
    total = "coalesce(sum(credits), 0)::varchar" if has_credits else "null"
    [(rows, credits)] = connection.execute(f"select count(*), {total} from {source}").fetchall()
    return rows, credits


# Functions that the SQL of tables may call (`sql/macros.sql`).
MACROS = (Path(__file__).parents[1] / "sql" / "macros.sql").read_text(encoding="utf-8")


def connect(spool: Path | None = None, memory_limit: str = "2GB") -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB in UTC that spills to the spool and knows the house's macros."""
    connection = duckdb.connect()
    # What DuckDB knows of a column's nulls would decide whether its Parquet says REQUIRED or
    # OPTIONAL: equal rows out of one file or out of two would be other bytes.
    connection.execute("set disabled_optimizers = 'statistics_propagation'")
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set enable_progress_bar = false")  # it is printed among what is said
    connection.execute(f"set memory_limit = '{memory_limit}'")
    if spool is not None:
        connection.execute(f"set temp_directory = {quote(str(spool / 'duckdb'))}")
    for layer in ("raw", "staging", "marts", "ops"):
        connection.execute(f"create schema {layer}")
    connection.execute(MACROS)
    return connection


class Workbench:
    """A connection, and what tables stand for on it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._bound: dict[str, str] = {}

    def bind(self, sources: Mapping[str, str]) -> None:
        """Makes tables readable by their names, each as its select."""
        for table, select in sources.items():
            if self._bound.get(table) != select:
                self.connection.execute(f"create or replace view {table} as {select}")
                self._bound[table] = select


Binder = Callable[..., None]  # (draft, table, days): makes a table readable by its name


class Draft:
    """What a night would publish: the published tables, and over them what it has written."""

    def __init__(
        self, store: Store, spool: Path, bind: Binder, published: Snapshot | None = None
    ) -> None:
        """`published`: the snapshot to begin with, where it is known already."""
        self.store = store
        self.bind = bind
        self.spool = spool
        self.published = published or store.snapshot()
        self.tables: Tables = (
            {name: dict(parts) for name, parts in self.published.tables.items()}
            if self.published
            else {}
        )
        self.checks: dict[str, str] = dict(self.published.checks) if self.published else {}
        self.bench = Workbench(connect(spool))
        self.connection = self.bench.connection
        self._workers: list[Workbench] = []
        self.pending: dict[str, Path] = {}
        self._folder = store.root / ".drafts"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._numbers = itertools.count(1)
        self.forgotten: set[str] = set()
        self._days: dict[str, tuple[tuple[str, ...], list[date]]] = {}
        self.remarks: list[str] = []

    def remark(self, sentence: str) -> None:
        """Something the night's summary should say."""
        self.remarks.append(sentence)

    def name(self, what: str) -> str:
        """A name for a temporary table that nothing else has."""
        return f"{what}_{next(self._numbers)}"

    # ---- looking ----------------------------------------------------------------------------

    def partitions(self, table: str) -> dict[str, Partition]:
        return self.tables.get(table, {})

    def changed(self, table: str) -> set[str]:
        """The partitions of a table that are not as they were published."""
        now = self.partitions(table)
        before = self.published.tables.get(table, {}) if self.published else {}
        return {key for key in now.keys() | before.keys() if now.get(key) != before.get(key)}

    def days(self, table: str) -> list[date]:
        """The days a day-partitioned table has, ascending."""
        keys = tuple(self.partitions(table))
        known = self._days.get(table)
        if known is None or known[0] != keys:  # asked for thousands of times a night
            days = sorted(date.fromisoformat(key) for key in keys if key != WHOLE)
            known = self._days[table] = (keys, days)
        return list(known[1])

    def locate(self, item: StoredObject) -> Path:
        """Where the object's bytes are now: drafted or published."""
        return self.pending.get(item.path) or self.store.local([item])[0]

    def files(
        self, table: str, days: Iterable[date] | None = None, *, filled: bool = False
    ) -> list[Path]:
        """The files of a table, or of some of its days; `filled`: only those that hold a row."""
        partitions = self.partitions(table)
        keys = sorted(partitions) if days is None else [str(day) for day in days]
        items = [item for key in keys if key in partitions for item in partitions[key].objects]
        return self.places([item for item in items if item.rows or not filled])

    def places(self, items: Sequence[StoredObject]) -> list[Path]:
        """The files of some objects, drafted or published."""
        published = [item for item in items if item.path not in self.pending]
        found = dict(zip(published, self.store.local(published), strict=True))
        return [found.get(item) or self.pending[item.path] for item in items]

    def query(self, sql: str, **parameters: object) -> pa.Table:
        """Runs a select over tables by their names: what is published, and this night's drafts over
        it.
        """
        for table in sorted(set(re.findall(r"\b(?:raw|staging|marts|ops)\.[a-z_]+", sql))):
            self.bind(self, table)
        return self.connection.sql(sql, params=parameters or None).to_arrow_table()

    @property
    def is_changed(self) -> bool:
        return self.published is None or self.tables != self.published.tables

    # ---- writing ----------------------------------------------------------------------------

    def append(
        self, table: str, rows: pa.Table | str, day: date | None = None, *, options: str = ""
    ) -> StoredObject:
        """One immutable object more. `rows`: an Arrow table, or the text of a select on
        `self.connection`. `options`: more of COPY's, for Parquet that is written otherwise.
        """
        item = self._write(table, rows, day, options=options)
        self._append(table, day, item)
        return item

    def copy(
        self,
        sql: str,
        file: Path,
        parameters: Mapping[str, object] | None = None,
        *,
        options: str = "",
    ) -> None:
        """Writes a select to a `new_file()`, which `add()` may take in once its rows are known."""
        copy_parquet(self.connection, sql, file, parameters, options)

    def add(
        self,
        table: str,
        file: Path,
        day: date,
        measured: tuple[int, str | None],
        sha256: str | None = None,
    ) -> Path:
        """One immutable object more, from a `new_file()` of so many rows and credits (and a hash,
        where it is known); returns where it is now.
        """
        item = self.adopt(table, file, day, measured, sha256)
        self._append(table, day, item)
        return self.locate(item)

    def _append(self, table: str, day: date | None, item: StoredObject) -> None:
        key = WHOLE if day is None else str(day)
        before = self.partitions(table).get(key, Partition(()))
        if item.path not in {other.path for other in before.objects}:
            self.tables.setdefault(table, {})[key] = Partition(
                (*before.objects, item), before.fingerprint
            )

    def replace(
        self,
        table: str,
        rows: pa.Table | str,
        day: date | None = None,
        *,
        fingerprint: str = "",
        parameters: Mapping[str, object] | None = None,
        has_credits: bool | None = None,
    ) -> StoredObject:
        """The one object of a partition, instead of what stood there."""
        item = self._write(table, rows, day, parameters, has_credits)
        key = WHOLE if day is None else str(day)
        self.tables.setdefault(table, {})[key] = Partition((item,), fingerprint)
        return item

    def mark(self, table: str, day: date | None, fingerprint: str) -> None:
        """States what a partition was made from."""
        key = WHOLE if day is None else str(day)
        partition = self.tables[table][key]
        self.tables[table][key] = Partition(partition.objects, fingerprint)

    def drop(self, table: str, day: date | None = None) -> None:
        """Takes a partition out of what will be published."""
        self.tables.get(table, {}).pop(WHOLE if day is None else str(day), None)

    def forget(self, table: str, day: date, item: StoredObject) -> None:
        """Takes an object out of what will be published; its file does not live on superseded."""
        part = self.tables[table][str(day)]
        objects = tuple(one for one in part.objects if one != item)
        self.tables[table][str(day)] = Partition(objects, part.fingerprint)
        if not objects:
            self.drop(table, day)
        self.forgotten.add(item.path)

    def _write(
        self,
        table: str,
        rows: pa.Table | str,
        day: date | None,
        parameters: Mapping[str, object] | None = None,
        has_credits: bool | None = None,
        options: str = "",
    ) -> StoredObject:
        draft = self.new_file("parquet")
        if isinstance(rows, pa.Table):
            self.connection.register("incoming", rows)
            has_credits = "credits" in rows.column_names
            rows = "from incoming"
        measured = write_parquet(self.connection, rows, draft, parameters, has_credits, options)
        return self.adopt(table, draft, day, measured)

    def put(
        self,
        table: str,
        file: Path,
        day: date | None,
        measured: tuple[int, str | None],
        *,
        fingerprint: str,
    ) -> StoredObject:
        """The one object of a partition, from a `new_file()` that a worker wrote."""
        item = self.adopt(table, file, day, measured)
        key = WHOLE if day is None else str(day)
        self.tables.setdefault(table, {})[key] = Partition((item,), fingerprint)
        return item

    def new_bench(self) -> Workbench:
        """One more bench, for another thread."""
        self._workers.append(Workbench(connect(self.spool, memory_limit=WORKER_MEMORY)))
        return self._workers[-1]

    @cached_property
    def packing(self) -> Workbench:
        """A bench for what is made while all others work."""
        return self.new_bench()

    def close(self) -> None:
        """Lets go of the engine; what was drafted stays on disk until it is swept."""
        for bench in (self.bench, *self._workers):
            bench.connection.close()

    def replace_files(
        self, table: str, day: date, files: Sequence[tuple[Path, int, str]], *, fingerprint: str
    ) -> list[StoredObject]:
        """The objects of a partition, from files written in `new_file()`, each with its rows and
        credits as read back.
        """
        items = [self.adopt(table, path, day, (rows, credits)) for path, rows, credits in files]
        self.tables.setdefault(table, {})[str(day)] = Partition(tuple(items), fingerprint)
        return items

    def new_file(self, suffix: str) -> Path:
        """A path for a draft."""
        return self._folder / f"{next(self._numbers)}.{suffix}"

    def adopt(
        self,
        table: str,
        draft: Path,
        day: date | None,
        measured: tuple[int, str | None],
        sha256: str | None = None,
    ) -> StoredObject:
        """Takes a file into the drafts, named by its content."""
        sha256 = sha256 or sha256_of(draft)
        layer, name = table.split(".")
        folder = f"{layer}/{name}" + ("" if day is None else f"/usage_date={day}")
        path = f"{folder}/{sha256[:32]}{draft.suffix}"
        rows, credits = measured
        item = StoredObject(path, rows, draft.stat().st_size, sha256, credits)
        if self.store.has(path, self.published):
            draft.unlink()
        else:
            self.pending[path] = draft
        return item

    # ---- publishing -------------------------------------------------------------------------

    def publish(self, as_of: datetime, *, forgets: bool = False) -> Snapshot:
        """Every draft under its name, durably; then replace `snapshot.json`. The caller has
        audited.

        `forgets`: what is superseded does not live on, and is gone with the next sweep.
        """
        named = {
            item.path
            for parts in self.tables.values()
            for p in parts.values()
            for item in p.objects
        }
        for path, draft in self.pending.items():
            if path not in named:
                draft.unlink()
        self.store.take_in({path: file for path, file in self.pending.items() if path in named})
        self.pending.clear()
        now = utc_now()
        superseded = {}
        if self.published is not None and not forgets:
            superseded = {
                path: since
                for path, since in self.published.superseded.items()
                if now - datetime.fromisoformat(since) < SUPERSEDED_LIVE and path not in named
            }
            kept = named | self.forgotten
            for item in self.published.objects():
                if item.path not in kept:
                    superseded[item.path] = now.isoformat()
        tables = {
            table: {key: part.stated() for key, part in parts.items()}
            for table, parts in self.tables.items()
            if parts
        }
        content: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "as_of": as_of.isoformat(),
            "tables": tables,
            "checks": self.checks,
        }
        snapshot_id = hashlib.sha256(snapshot_text(content).encode()).hexdigest()[:16]
        content |= {
            "snapshot_id": snapshot_id,
            "published_at": now.isoformat(),
            "superseded": superseded,
        }
        before = self.published.version if self.published else None
        version = self.store.replace_snapshot(content, before)
        self.store.forget(sorted(self.forgotten - named))  # else the next night's sweep does it
        self.published = Snapshot.of(content, version)
        return self.published

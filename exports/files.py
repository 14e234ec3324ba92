"""Files for elsewhere: the usage views as CSV and Parquet, each complete or not at all, with a
manifest that proves them.

A night's exports are objects of the snapshot like any table, so they are audited with it and
published by it.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from pipelines.object_store import Bucket, Taken, in_parallel
from pipelines.settings import Settings
from pipelines.store import (
    OBJECT_PATH,
    Draft,
    Snapshot,
    Store,
    StoredObject,
    Workbench,
    digest,
    parquet_list,
    quote,
    sha256_of,
    sync,
    write_whole,
)

SCHEMA_VERSION = 1

# Cells that a spreadsheet would run as a formula get an apostrophe (OWASP ASVS 1.2.10).
FORMULA = r"^[\s\x00\x0b\x{85}\p{Z}]*[=+\-@＝＋－＠\t\r\x00]"

MEASURES = (
    "request_count, error_count, fallback_count, prompt_tokens, completion_tokens, total_tokens, "
    "credits"
)


@dataclass(frozen=True)
class Export:
    """One kind of file: which table it stands on, its columns, and the column whose sum the
    manifest states.
    """

    table: str
    columns: str
    order: str
    credits: str
    texts: tuple[str, ...]

    def select(self, suffix: str, where: str = "") -> str:
        """The columns; in CSV with cells that would run as a formula defused."""
        rows = f"select {self.columns} from {self.table} {where} order by {self.order}"
        if suffix == "csv":
            replaced = ", ".join(
                f"case when regexp_matches({name}, '{FORMULA}') then '''' || {name} else {name} end"
                f" as {name}"
                for name in self.texts
            )
            return f"select * replace ({replaced}) from ({rows})"
        return rows


EXPORTS: Mapping[str, Export] = {
    # exactly the nine columns of the gateway's own export, in its order (the page, "Exporting")
    "usage": Export(
        "marts.requests",
        "strftime(completed_at, '%Y-%m-%dT%H:%M:%S.%fZ') as timestamp, model, api_key_id, "
        "prompt_tokens, "
        "completion_tokens, credits as credits_used, request_id, latency_ms, fallback_depth",
        "timestamp, request_id",
        "credits_used",
        ("model", "api_key_id", "request_id"),
    ),
    "requests": Export(
        "marts.requests",
        "*",
        "completed_at, gateway, request_id",
        "credits",
        (
            "gateway",
            "request_id",
            "workspace_id",
            "api_key_id",
            "member_id",
            "requested_model",
            "model",
            "fallback_from",
            "error_code",
        ),
    ),
    "usage_by_model": Export(
        "marts.usage_by_model",
        f"usage_date, workspace_id, model, {MEASURES}",
        "usage_date, workspace_id, model",
        "credits",
        ("workspace_id", "model"),
    ),
    "usage_by_key": Export(
        "marts.usage_by_key",
        f"usage_date, workspace_id, api_key_id, key_name, {MEASURES}",
        "usage_date, workspace_id, api_key_id",
        "credits",
        ("workspace_id", "api_key_id", "key_name"),
    ),
    "usage_by_member": Export(
        "marts.usage_by_member",
        f"usage_date, workspace_id, member_id, member_name, {MEASURES}",
        "usage_date, workspace_id, member_id",
        "credits",
        ("workspace_id", "member_id", "member_name"),
    ),
}


class ExportError(RuntimeError):
    """A file that can't be written; the text says why."""


def copy(
    connection: duckdb.DuckDBPyConnection, sql: str, target: Path, credits: str
) -> tuple[int, str]:
    """Writes a select to a .csv or .parquet file and reads it back; returns its rows and the exact
    sum of its credits.
    """
    suffix = target.suffix.removeprefix(".")
    options = "format csv, header" if suffix == "csv" else "format parquet, compression zstd"
    connection.execute(f"copy ({sql}) to {quote(str(target))} ({options})")
    reader = (
        f"read_csv({quote(str(target))}, all_varchar = true, header = true, delim = ',', quote = "
        f"'\"', escape = '\"')"
        if suffix == "csv"
        else parquet_list([target])
    )
    [(rows, total)] = connection.execute(
        f"select count(*), coalesce(sum({credits}::decimal(38, 9)), 0)::varchar from {reader}"
    ).fetchall()
    return rows, total


def nightly(
    draft: Draft, bench: Workbench, settings: Settings, contents: Mapping[tuple[str, date], str]
) -> Iterator[tuple[str, date, int, str]]:
    """Drafts the night's exports where their table's day changed, on a bench.

    `contents`: (table, day) → hash of what is in it. Yields (export, day, rows, credits) for what
    was written.
    """
    for name in settings.exports.nightly:
        if name not in EXPORTS:
            raise ExportError(
                f"[exports] nightly: there is no export '{name}'; known are {', '.join(EXPORTS)}."
            )
        export = EXPORTS[name]
        days = sorted(day for table, day in contents if table == export.table)
        for gone in set(draft.days(f"exports.{name}")) - set(days):
            draft.drop(f"exports.{name}", gone)
        for day in days:
            suffixes = ("csv",) if name in ("usage", "requests") else ("csv", "parquet")
            mark = digest(
                [SCHEMA_VERSION, *map(export.select, suffixes), contents[export.table, day]]
            )
            known = draft.partitions(f"exports.{name}").get(str(day))
            if known is not None and known.fingerprint == mark:
                continue
            draft.bind(draft, export.table, [day], bench)
            files = []
            for suffix in suffixes:
                target = draft.new_file(suffix)
                rows, credits = copy(
                    bench.connection, export.select(suffix), target, export.credits
                )
                files.append((target, rows, credits))
            draft.replace_files(f"exports.{name}", day, files, fingerprint=mark)
            yield name, day, files[0][1], files[0][2]
    for table in [name for name in draft.tables if name.startswith("exports.")]:
        if table.removeprefix("exports.") not in settings.exports.nightly:
            del draft.tables[table]


def deliver(store: Store, snapshot: Snapshot, location: Path | str) -> None:
    """Makes the export folder hold what the snapshot names, the manifest last: a reader of the
    manifest sees whole nights only.
    """
    items = {}
    files = []
    for table, partitions in sorted(snapshot.tables.items()):
        if not table.startswith("exports."):
            continue
        for key, partition in sorted(partitions.items()):
            for item in partition.objects:
                path = item.path.removeprefix("exports/")
                items[path] = item
                files.append(
                    {
                        "path": path,
                        "export": table.removeprefix("exports."),
                        "usage_date": key,
                        "rows": item.rows,
                        "credits": item.credits,
                        "bytes": item.bytes,
                        "sha256": item.sha256,
                    }
                )
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "snapshot_id": snapshot.snapshot_id,
        "files": files,
    }
    text = json.dumps(manifest, indent=1) + "\n"
    kept = set(items)
    kept |= {path.removeprefix("exports/") for path in snapshot.superseded}  # for seven days
    if isinstance(location, str):
        _deliver_to_bucket(store, snapshot, Bucket(location), items, text, kept)
        return
    for path, item in items.items():
        target = location / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part")
            shutil.copyfile(store.local([item])[0], part)
            sync(part)
            os.replace(part, target)
    location.mkdir(parents=True, exist_ok=True)
    stated = location / "manifest.json"
    if not stated.exists() or stated.read_text(encoding="utf-8") != text:
        write_whole(stated, text)
    for old in location.glob("*/usage_date=*/*"):
        name = old.relative_to(location).as_posix()
        if name not in kept and OBJECT_PATH.fullmatch(f"exports/{name}"):
            old.unlink()


def _deliver_to_bucket(
    store: Store,
    snapshot: Snapshot,
    bucket: Bucket,
    items: Mapping[str, StoredObject],
    manifest: str,
    kept: set[str],
) -> None:
    """The same into an object store. The manifest is written only over the one that was there
    before the snapshot was found to stand: no older night's takes the place of a newer one's.
    """
    there = {item.key: item.size for item in bucket.objects()}
    absent = [(path, item) for path, item in items.items() if there.get(path) != item.bytes]
    sources = store.local([item for _, item in absent])

    def upload(one: tuple[tuple[str, StoredObject], Path]) -> None:
        (path, item), source = one
        bucket.put(path, source, sha256=item.sha256)

    in_parallel(upload, zip(absent, sources, strict=True))
    while True:
        stated = bucket.get("manifest.json")
        if not store.is_current(snapshot):
            return
        if stated is not None and stated.content == manifest.encode():
            break
        with suppress(Taken):
            bucket.put("manifest.json", manifest.encode(), over=stated.etag if stated else None)
            break
    for name in there:
        if name not in kept and OBJECT_PATH.fullmatch(f"exports/{name}"):
            bucket.delete(name)


def other_files(target: Path) -> list[dict[str, Any]]:
    """What the manifest beside `target` says of other files. Raises ExportError where it is a
    night's.
    """
    try:
        stated = json.loads((target.parent / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise ExportError(f"{target.parent / 'manifest.json'} can't be read: {error}.") from None
    if "snapshot_id" in stated or not isinstance(stated.get("files"), list):
        raise ExportError(f"{target.parent} holds the nightly exports: name another folder.")
    return [file for file in stated["files"] if file["path"] != target.name]


def write_export(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    first: date,
    last: date,
    form: str,
    target: Path,
) -> dict[str, Any]:
    """Writes one export of UTC days `first` to `last` (included), whole or not at all; returns its
    manifest.

    `target`: a file, or a folder (then `<export>.<form>` in it); `manifest.json` stands beside the
    file.
    Raises ExportError where the place can't be written.
    """
    export = EXPORTS[name]
    if target.suffix not in (".csv", ".parquet"):
        target = target / f"{name}.{form}"
    suffix = target.suffix.removeprefix(".")
    if suffix != form:
        raise ExportError(f"{target} ends in .{suffix}, but --format says {form}: make them agree.")
    others = other_files(target)
    select = export.select(suffix, f"where usage_date between date '{first}' and date '{last}'")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.stem}.part.{suffix}")
        rows, credits = copy(connection, select, part, export.credits)
        sync(part)
        sha256 = sha256_of(part)
        size = part.stat().st_size
        os.replace(part, target)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "files": [
                *others,
                {
                    "path": target.name,
                    "export": name,
                    "from": str(first),
                    "to": str(last),
                    "rows": rows,
                    "credits": credits,
                    "bytes": size,
                    "sha256": sha256,
                },
            ],
        }
        write_whole(target.parent / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    except OSError as error:
        raise ExportError(f"{target} can't be written: {error.strerror or error}.") from None
    return manifest

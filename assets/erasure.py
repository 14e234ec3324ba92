"""A member made unidentifiable: the one exception to append-only (facts/faults.md, 22).

What a member's id stands in is written again with a name that only a keyed hash leads to, so that
every sum stays; what holds the old name is removed at once. A person decides it: the decision is a
line of `raw.decisions`, which holds the new name and never the old one. The next night carries it
out, and every later one holds what arrives against the names it has given, so that a log delivered
again brings nobody back.

While an erasure is under way, and only then, the old name stands in `ops/nights/.erasing-….json`:
a night that dies leaves that file, and the next one ends its work. Knows nothing of the marts: they
follow from raw.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from assets import decisions, playground
from pipelines import packs
from pipelines.calendar import DAY
from pipelines.settings import Settings, SettingsError
from pipelines.store import (
    OWN_FILES,
    WHOLE,
    Draft,
    Partition,
    Store,
    StoredObject,
    parquet_list,
    quote,
    sync,
    write_whole,
)

KEY_NAME = ".erasure.key"
KEY_BYTES = 32
PREFIX = "erased_"
JOURNAL = "raw.decisions"

# Where a member's id is a column of its own, and what those files are written with.
REQUESTS = {
    "raw.requests": OWN_FILES,
    "staging.request_contests": "",
}
# Tables of few rows: an id by itself, and texts in which people or paths may name the member.
PLACES = ("raw.files", "raw.source_objects", "raw.quarantine")
TEXTS: Mapping[str, tuple[str, ...]] = {
    "raw.members": ("name",),
    "raw.budgets": ("recipients",),
    "raw.keys": ("name",),
    playground.TABLE: playground.TEXTS,
    **dict.fromkeys(PLACES, ("location",)),
}
ANOMALIES = ("anomaly", "drift", "woke")  # the kinds of alert that a member's spend may open
CYCLE = timedelta(days=31)
BEFORE_A_WORD = r"(?:(?<!\w)|(?<=\\[bfnrt])|(?<=\\u[0-9a-f]{4}))"  # also where JSON says \n
SEEN = "ops/nights/.seen.json"  # landing's cache of places

PLACES_THAT_NAME = """
    select location from raw.source_objects where object_sha256 in (
        select source_object from raw.requests where member_id in ({ids})
    )
    union
    select location from raw.files where object_sha256 in (
        select source_object from raw.members where member_id in ({ids})
        union all
        select source_object from raw.budgets where scope = 'member' and subject_id in ({ids})
    )
    order by location
"""

Row = dict[str, Any]


# ---- names ----------------------------------------------------------------------------------


class Tombstones:
    """The names that were given to erased members, and the key by which an id leads to its own."""

    def __init__(self, key: bytes, names: Iterable[str] = ()) -> None:
        self.key = key
        self.names = frozenset(names)

    def name_for(self, member_id: str) -> str:
        """What stands for a member once erased: a keyed hash, for ever the same."""
        found = hmac.new(self.key, member_id.encode(errors="surrogatepass"), hashlib.sha256)
        return PREFIX + found.hexdigest()[:16]

    def match(self, member_ids: Iterable[str | None]) -> dict[str, str]:
        """Those of some ids that were erased, with what stands for them."""
        given = {one: self.name_for(one) for one in set(member_ids) if one}
        return {one: name for one, name in given.items() if name in self.names}

    def blot_place(self, place: str) -> str:
        """A path without the ids of erased members that are words of it."""
        words = {*place.split("/"), *re.split(r"[/=., ]", place), *re.findall(r"\w+", place)}
        found = self.match(words)
        return blotter(found)(place) if found else place


def key_mark(key: bytes) -> str:
    """What a decision remembers of the key it was made with: enough to know it again."""
    return hashlib.sha256(b"meterhouse erasure\x1f" + key).hexdigest()[:16]


def tombstones(store: Store, settings: Settings) -> Tombstones | None:
    """The names given so far; None where nobody was ever erased.

    Raises SettingsError where the key they were made with is not there: who was erased could come
    back unseen.
    """
    lines = [line for line in store.journal(JOURNAL).entries() if line["decision"] == "erased"]
    if not lines:
        return None
    path = settings.folder / KEY_NAME
    key = _read_key(path)
    if key is None or any(line["key_mark"] != key_mark(key) for line in lines):
        state = "is missing" if key is None else "is not the one that members were erased with"
        raise SettingsError(
            f"{path} {state}: put it back from its back-up; without it a log that is delivered "
            "again could bring an erased member back."
        )
    return Tombstones(key, (line["member_id"] for line in lines))


def ensure_key(settings: Settings) -> bytes:
    """The key beside `meterhouse.toml`; made by the first erasure, readable by its owner only."""
    path = settings.folder / KEY_NAME
    key = _read_key(path)
    if key is None:
        key = secrets.token_bytes(KEY_BYTES)
        _write_private(path, key.hex() + "\n")
    return key


def _write_private(path: Path, text: str) -> None:
    """Writes a small file whole, which its owner alone may ever read."""
    draft = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600, exist_ok=False)
    draft.write_text(text, encoding="utf-8")
    sync(draft)
    os.replace(draft, path)
    sync(path.parent)


def _read_key(path: Path) -> bytes | None:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return None
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(f"{path} holds no key: put it back from its back-up.")
    return key


def blotter(names: Mapping[str, str]) -> Callable[[str], str]:
    """What takes names out of a text, where they stand as words: `mem_1` is none in `mem_10`."""
    words = sorted(filter(None, names), key=len, reverse=True)
    pattern = re.compile(rf"{BEFORE_A_WORD}(?:{'|'.join(map(re.escape, words))})(?!\w)")
    return lambda text: pattern.sub(lambda found: names[found[0]], text)


# ---- the decision ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Erasure:
    """An erasure under way: whom it is about, by id and by the directory's names, and its line in
    the journal, which names nobody.
    """

    member_id: str
    names: tuple[str, ...]
    line: Mapping[str, Any] = field(hash=False)

    @property
    def given(self) -> str:
        """The name that stands for the member from now on."""
        return str(self.line["member_id"])

    @property
    def words(self) -> dict[str, str]:
        """What is taken out of texts; a name of one letter is no name to look for."""
        return dict.fromkeys(
            [self.member_id, *(name for name in self.names if len(name) > 1)], self.given
        )


def decide(
    store: Store, settings: Settings, member_id: str, names: Iterable[str], note: str | None = None
) -> Erasure:
    """Writes an erasure down, durably; call it under the store's lock. The next night carries it
    out.
    """
    known = tombstones(store, settings)  # a key that is gone is said before another is made
    stones = known or Tombstones(ensure_key(settings))
    given = stones.name_for(member_id)
    names = tuple(sorted({name for name in names if name}))
    blot = blotter(Erasure(member_id, names, {"member_id": given}).words)
    line = decisions.erased(given, key_mark(stones.key), blot(note) if note else None)
    erasure = Erasure(member_id, names, line)
    content = {"member_id": member_id, "names": names, "line": dict(line)}
    path = _path(store, erasure)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_private(path, json.dumps(content, default=str))
    _write_down(store, erasure)
    return erasure


def under_way(store: Store) -> list[Erasure]:
    """The erasures that no night has ended yet, each with its line in the journal."""
    found = []
    for path in sorted((store.root / "ops" / "nights").glob(".erasing-*.json")):
        stated = json.loads(path.read_text(encoding="utf-8"))
        erasure = Erasure(stated["member_id"], tuple(stated["names"]), stated["line"])
        _write_down(store, erasure)
        found.append(erasure)
    return found


def _path(store: Store, erasure: Erasure) -> Path:
    name = f".erasing-{erasure.line['decision_id']}.json"
    return store.root / "ops" / "nights" / name


def _write_down(store: Store, erasure: Erasure) -> None:
    journal = store.journal(JOURNAL)
    known = {line["decision_id"] for line in journal.entries()}
    if erasure.line["decision_id"] not in known:
        journal.append(erasure.line)


# ---- what a person is told ------------------------------------------------------------------

Select = Callable[..., list[Row]]  # rows of a select over what is published, its parameters bound


@dataclass(frozen=True)
class Traces:
    """What is published of a member: names in the directory, requests, and the landed files."""

    is_known: bool
    names: tuple[str, ...]
    request_count: int
    day_count: int
    places: tuple[str, ...]


def traces(rows: Select, member_id: str) -> Traces:
    """Where a member stands in what is published."""
    [counts] = rows(
        """select count(*) as requests, count(distinct usage_date) as days,
            (select count(*) from raw.members where member_id = $id) as directory,
            (select count(*) from raw.budgets where scope = 'member' and subject_id = $id) as limits
        from raw.requests where member_id = $id""",
        id=member_id,
    )
    names = rows("select distinct name from raw.members where member_id = $id", id=member_id)
    places = rows(PLACES_THAT_NAME.format(ids="$id"), id=member_id)
    return Traces(
        is_known=any(counts.values()),
        names=tuple(sorted(row["name"] for row in names if row["name"])),
        request_count=counts["requests"],
        day_count=counts["days"],
        places=tuple(row["location"] for row in places),
    )


@dataclass(frozen=True)
class Totals:
    """What is published, summed; and each day's sums by model, by key and by member."""

    request_count: int
    credits: Decimal
    by_day: Mapping[tuple[str, ...], tuple[int, Decimal]]

    def but(self, view: str) -> "Totals":
        """The same without one of the views."""
        by_day = {place: sums for place, sums in self.by_day.items() if place[0] != view}
        return Totals(self.request_count, self.credits, by_day)


def totals(rows: Select) -> Totals:
    """The sums that an erasure must leave as they are."""
    by_day: dict[tuple[str, ...], tuple[int, Decimal]] = {
        (view, str(row["usage_date"]), str(row["workspace_id"]), str(row["subject"])): (
            row["request_count"],
            row["credits"],
        )
        for view, subject in (("model", "model"), ("key", "api_key_id"), ("member", "member_id"))
        for row in rows(
            f"select usage_date, workspace_id, {subject} as subject, request_count, credits "
            f"from marts.usage_by_{view}"
        )
    }
    whole = [sums for place, sums in by_day.items() if place[0] == "model"]
    return Totals(
        sum(count for count, _ in whole), sum((credits for _, credits in whole), Decimal(0)), by_day
    )


def renamed(before: Totals, given: Mapping[str, str]) -> Totals:
    """The same sums, of members by their new names."""
    by_day = {
        (*place[:-1], given.get(place[-1], place[-1]) if place[0] == "member" else place[-1]): sums
        for place, sums in before.by_day.items()
    }
    return Totals(before.request_count, before.credits, by_day)


# ---- what is kept is written again ----------------------------------------------------------


def rewrite(draft: Draft, erasures: Sequence[Erasure]) -> list[str]:
    """Everything below the marts, without the old names: tables as drafts, journals in place.
    Returns where the objects were found that name the members, without their names.
    """
    given = {erasure.member_id: erasure.given for erasure in erasures}
    blot = blotter({word: name for one in erasures for word, name in one.words.items()})
    places = _places_that_name(draft, given)
    _rewrite_journals(draft, given, blot)
    for table in REQUESTS:
        _rename(draft, table, _objects(draft, table), given)
    for table in TEXTS:
        for key, item in _objects(draft, table):
            _reword(draft, table, key, item, given, blot)
    for path in (draft.store.root / "ops" / "nights").glob("[0-9]*.json"):
        _blot_file(path, blot)
    return list(map(blot, places))


def hide_arrivals(draft: Draft, stones: Tombstones) -> None:
    """Gives members who were erased their new names in what has just been landed, before anything
    reads it: a log that is delivered again brings nobody back.
    """
    for table in REQUESTS:
        items = [(key, item) for key, item in _objects(draft, table) if item.path in draft.pending]
        if items:
            files = parquet_list(
                [draft.locate(item) for _, item in items], options=", hive_partitioning = false"
            )
            found = draft.connection.execute(f"select distinct member_id from {files}").fetchall()
            _rename(draft, table, items, stones.match(member_id for (member_id,) in found))
    for table in TEXTS:
        for key, item in _objects(draft, table):
            if item.path in draft.pending:
                _hide_in(draft, table, key, item, stones)
    _forget_places(draft.store, stones.blot_place)


def _hide_in(draft: Draft, table: str, key: str, item: StoredObject, stones: Tombstones) -> None:
    rows = _rows(draft, item)
    if table in PLACES:
        _reword(draft, table, key, item, {}, stones.blot_place)
        return
    column = {"raw.members": "member_id", "raw.budgets": "subject_id"}.get(table)
    given = stones.match(rows[column].to_pylist()) if column else {}
    if given:
        _reword(draft, table, key, item, given, blotter(given))


def _objects(draft: Draft, table: str) -> list[tuple[str, StoredObject]]:
    return [(key, item) for key, part in draft.partitions(table).items() for item in part.objects]


def _rename(
    draft: Draft, table: str, items: Sequence[tuple[str, StoredObject]], given: Mapping[str, str]
) -> None:
    """Writes those of some objects again, row for row, that hold one of the ids."""
    if not items or not given:
        return
    ids = ", ".join(map(quote, given))
    files = [str(draft.locate(item)) for _, item in items]
    source = parquet_list(files, options=", filename = true, hive_partitioning = false")
    found = draft.connection.execute(
        f"select distinct filename from {source} where member_id in ({ids})"
    ).fetchall()
    hits = {name for (name,) in found}
    whens = " ".join(f"when {quote(one)} then {quote(name)}" for one, name in given.items())
    for (key, item), name in zip(items, files, strict=True):
        if name not in hits:
            continue
        source = parquet_list([name], options=", hive_partitioning = false")
        file = draft.new_file("parquet")
        column = f"case member_id {whens} else member_id end as member_id"
        draft.copy(f"select * replace ({column}) from {source}", file, options=REQUESTS[table])
        _swap(draft, table, key, item, file, item.rows)


def _reword(
    draft: Draft,
    table: str,
    key: str,
    item: StoredObject,
    given: Mapping[str, str],
    blot: Callable[[str], str],
) -> None:
    """Writes an object of a small table again, where it names a member."""
    before = _rows(draft, item)
    if table in PLACES:  # many rows may have one place
        places = pc.unique(before["location"]).to_pylist()
        if all(place is None or blot(place) == place for place in places):
            return
    rows = [
        _reworded(table, row, given, blot)
        for row in before.to_pylist()
        # what the member said goes altogether
        if table != playground.TABLE or row["member_id"] not in given
    ]
    if not rows:
        draft.forget(table, date.fromisoformat(key), item)
        return
    after = pa.Table.from_pylist(rows, schema=before.schema)
    if after.equals(before):
        return
    file = draft.new_file("parquet")
    draft.connection.register("incoming", after)
    draft.copy("from incoming", file)
    _swap(draft, table, key, item, file, len(rows))


def _reworded(table: str, row: Row, given: Mapping[str, str], blot: Callable[[str], str]) -> Row:
    row = {
        name: blot(value) if name in TEXTS[table] and isinstance(value, str) else value
        for name, value in row.items()
    }
    if table == "raw.members" and row["member_id"] in given:
        return row | {"member_id": given[row["member_id"]], "name": None}
    if table == "raw.budgets":
        if row["scope"] == "member" and row["subject_id"] in given:
            row["subject_id"] = given[row["subject_id"]]
        # an address that named the member leads nowhere now
        addresses = re.split(r"[\s,;]+", row["recipients"] or "")
        kept = [one for one in addresses if one and PREFIX not in one]
        if len(kept) < len(addresses):
            row["recipients"] = ", ".join(kept) or None
    return row


def _rows(draft: Draft, item: StoredObject) -> pa.Table:
    source = parquet_list([draft.locate(item)], options=", hive_partitioning = false")
    return draft.connection.sql(f"from {source}").to_arrow_table()


def _swap(draft: Draft, table: str, key: str, item: StoredObject, file: Path, rows: int) -> None:
    """Puts a file of so many rows, and of the same credits, where an object stood."""
    day = date.fromisoformat(key) if key != WHOLE else None
    new = draft.adopt(table, file, day, (rows, item.credits))
    part = draft.tables[table][key]
    objects = tuple(new if one is item else one for one in part.objects)
    draft.tables[table][key] = Partition(objects, part.fingerprint)
    if drafted := draft.pending.pop(item.path, None):
        drafted.unlink()


def _places_that_name(draft: Draft, given: Mapping[str, str]) -> list[str]:
    """Where the objects were found that name one of the members."""
    ids = ", ".join(map(quote, given))
    found = draft.query(PLACES_THAT_NAME.format(ids=ids))
    return [str(place) for place in found["location"].to_pylist()]


# ---- journals -------------------------------------------------------------------------------


def _rewrite_journals(draft: Draft, given: Mapping[str, str], blot: Callable[[str], str]) -> None:
    """The names in what people and sinks said, and the alerts' ids, which are hashes of a subject
    and its day: what was told of the old name stays told.
    """
    journals = {name: draft.store.journal(name) for name in (JOURNAL, "raw.deliveries")}
    alerts: dict[str, str] = {}
    if any(journal.entries() for journal in journals.values()):
        alerts = dict(_alert_ids(draft, given))

    def change(line: dict[str, Any]) -> dict[str, Any]:
        texts = {
            name: blot(line[name]) for name in ("note", "detail", "decided_by") if line.get(name)
        }
        if line.get("alert_id") in alerts:
            texts["alert_id"] = alerts[line["alert_id"]]
        if line.get("scope") == "member" and line.get("subject_id") in given:
            texts["subject_id"] = given[line["subject_id"]]
        return line | texts

    for journal in journals.values():
        journal.rewrite(change)


def _alert_ids(draft: Draft, given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The id of every alert that there may ever have been of a member, as `marts.budget_alerts`
    makes it, with the id it has under the new name.
    """
    days = draft.days("raw.requests")
    if not days:
        return
    first, last = min(days) - CYCLE, max(days)
    every = [first + DAY * number for number in range((last - first).days + 1)]
    ids = ", ".join(map(quote, given))
    workspaces = draft.query(
        f"""select workspace_id from raw.requests where member_id in ({ids})
            union select workspace_id from raw.keys
            union select workspace_id from raw.sources
            union select workspace_id from raw.budgets"""
    )["workspace_id"].to_pylist()
    budgets = draft.query(
        "select distinct workspace_id, subject_id, budget_id from raw.budgets "
        f"where scope = 'member' and subject_id in ({ids})"
    ).to_pylist()
    for day in every:
        for member_id, name in given.items():
            for kind in ANOMALIES:
                for workspace in {workspace or "" for workspace in workspaces}:
                    parts = (kind, workspace, "member")
                    yield _alert_id(*parts, member_id, str(day)), _alert_id(*parts, name, str(day))
        for budget in budgets:
            head = [part for part in ("budget", budget["workspace_id"], "member") if part]
            tail = (str(day), budget["budget_id"])
            old, new = budget["subject_id"], given[budget["subject_id"]]
            yield _alert_id(*head, old, *tail), _alert_id(*head, new, *tail)


def _alert_id(*identity: str) -> str:
    return "alert_" + hashlib.sha256("\x1f".join(identity).encode()).hexdigest()[:16]


# ---- what is derived, cached and logged -----------------------------------------------------


def finish(store: Store, settings: Settings, erasures: Sequence[Erasure]) -> Iterator[str]:
    """Removes what still holds the old names, once the snapshot, `warehouse.duckdb` and the exports
    hold none; yields what could not be done now, and is done by the next night.

    Only when all of it is gone are the erasures over.
    """
    snapshot = store.snapshot()
    store.sweep(snapshot)
    packs.sweep(store, snapshot)
    nights = store.root / "ops" / "nights"
    for copy in nights.glob("snapshot-*.json"):  # the earlier ones name objects that are gone
        if snapshot is None or copy.stem != f"snapshot-{snapshot.snapshot_id}":
            copy.unlink()
    for part in settings.path(settings.exports.location).rglob(".*.part"):
        part.unlink()
    blot = blotter({word: name for one in erasures for word, name in one.words.items()})
    _forget_places(store, blot)
    try:
        _blot_logs(
            settings.dagster_home, {word: n for one in erasures for word, n in one.words.items()}
        )
    except sqlite3.OperationalError as error:
        yield (
            f"Dagster's log under {settings.dagster_home} could not be rewritten ({error}): the "
            "next night goes on with the erasure."
        )
        return
    for erasure in erasures:
        _path(store, erasure).unlink(missing_ok=True)
    sync(nights)


def _forget_places(store: Store, blot: Callable[[str], str]) -> None:
    """Takes places out of landing's cache that name a member; such a file is read again."""
    path = store.root / SEEN
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        places = {place: what for place, what in kept["places"].items() if blot(place) == place}
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        path.unlink(missing_ok=True)  # as landing takes it: a cache
        return
    if len(places) < len(kept["places"]):
        write_whole(path, json.dumps(kept | {"places": places}, sort_keys=True))


def _blot_file(path: Path, blot: Callable[[str], str]) -> None:
    text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    blotted = blot(text)
    if blotted != text:
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        draft.write_bytes(blotted.encode("utf-8", errors="surrogateescape"))
        sync(draft)
        os.replace(draft, path)
        sync(path.parent)


def _blot_logs(folder: Path, words: Mapping[str, str]) -> None:
    """Dagster's local history: what nights said, in SQLite, and what they printed, in files."""
    escaped = {json.dumps(word)[1:-1]: name for word, name in words.items()}
    blot = blotter({**words, **escaped})
    for path in sorted(folder.rglob("*.db")):
        _blot_database(path, blot)
    for path in folder.glob("storage/*/compute_logs/*"):
        if path.suffix in (".out", ".err"):
            _blot_file(path, blot)


def _blot_database(path: Path, blot: Callable[[str], str]) -> None:
    """Never opened as a file: closing it would drop the locks of whoever in this process has it
    open.
    """
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("pragma secure_delete = on")
        connection.create_function("blot", 1, lambda v: blot(v) if isinstance(v, str) else v)
        tables = connection.execute(
            "select name from sqlite_master where type = 'table'"
        ).fetchall()
        for (table,) in tables:
            columns = connection.execute(f'pragma table_info("{table}")').fetchall()
            for name, kind in ((row[1], str(row[2]).upper()) for row in columns):
                if "CHAR" in kind or "TEXT" in kind:
                    connection.execute(
                        f'update "{table}" set "{name}" = blot("{name}") '
                        f'where "{name}" is not blot("{name}")'
                    )
        connection.execute("vacuum")
        connection.execute("pragma wal_checkpoint(truncate)")

"""Long history in few files: what a table holds of sixteen days, once more in one file.

To open a Parquet file costs DuckDB about a millisecond, whatever is in it, and what it reads comes
in as many small pieces: a year of days costs five times what the same rows cost in one file. Packs
lie beside the objects for speed alone: no snapshot names them, and where one is missing it is made
again.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from pipelines.store import (
    Draft,
    Partition,
    Snapshot,
    Store,
    copy_parquet,
    digest,
    parquet_list,
    sync,
)

FOLDER = ".packs"
DAYS = 16
SMALL = 1 << 20  # bytes of a day, beyond which opening its file is no part of the cost


def files(draft: Draft, table: str, days: Sequence[date], order: str) -> list[Path]:
    """The files of these days of a table, ascending: a pack for each sixteen days that are asked
    for whole and lie behind the table's newest; `order`: of the rows in it.
    """
    known = draft.days(table)
    if len(days) <= DAYS or not known:  # a view's days are not those of all it reads
        return draft.files(table, days, filled=True)
    whole, wanted = _blocks(known), _blocks(sorted(set(known) & set(days)))
    newest = known[-1].toordinal() // DAYS
    found: list[Path] = []
    for block, some in sorted(wanted.items()):
        if block < newest and len(some) == len(whole[block]) > 1 and _are_small(draft, table, some):
            found.append(_pack(draft, table, some, order))
        else:
            found += draft.files(table, some, filled=True)
    return found


def sweep(store: Store, snapshot: Snapshot | None) -> None:
    """Removes the packs of what is no longer published."""
    for folder in (store.root / FOLDER).glob("*"):
        partitions = snapshot.tables.get(folder.name, {}) if snapshot else {}
        days = [date.fromisoformat(key) for key in partitions if key]
        kept = {_name(partitions, some) for some in _blocks(days).values()}
        for pack in folder.glob("*.parquet*"):  # and what a killed night left of one
            if pack.name not in kept:
                pack.unlink()


def _blocks(days: Sequence[date]) -> dict[int, list[date]]:
    blocks: defaultdict[int, list[date]] = defaultdict(list)
    for day in days:
        blocks[day.toordinal() // DAYS].append(day)
    return blocks


def _are_small(draft: Draft, table: str, days: Sequence[date]) -> bool:
    partitions = draft.partitions(table)
    objects = [item for day in days for item in partitions[str(day)].objects]
    return sum(item.bytes for item in objects) < SMALL * len(objects)


def _name(partitions: dict[str, Partition], days: Sequence[date]) -> str:
    content = digest([f"{day}:{partitions[str(day)].content}" for day in sorted(days)])
    return f"{min(days)}-{content[:32]}.parquet"


def _pack(draft: Draft, table: str, days: Sequence[date], order: str) -> Path:
    pack = draft.store.root / FOLDER / table / _name(draft.partitions(table), days)
    if not pack.exists():
        pack.parent.mkdir(parents=True, exist_ok=True)
        making = pack.with_name(f".{pack.name}.{os.getpid()}.tmp")
        rows = parquet_list(draft.files(table, days), options=", hive_partitioning = false")
        copy_parquet(draft.packing.connection, f"from {rows} order by {order}", making)
        sync(making)  # half a file would be half a history
        os.replace(making, pack)
    return pack

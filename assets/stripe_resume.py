"""A first reading of a large Stripe account that broke off goes on where it was.

Windows that were closed lie beside the store, as files that no snapshot names, until something else
is published of Stripe: then they are of no use, and go. An ordinary night, whose lists fit one
window, leaves none. Only typed columns are in them, as in raw; and nothing of customers, whose
names and addresses must not outlive a night that failed: their lists are read once more.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from assets.stripe_objects import STAMP, TABLES
from assets.stripe_rows import CUSTOMERS, Resource
from pipelines import tabular
from pipelines.store import Draft, digest


class Unfinished:
    """The windows that an interrupted night has closed, as long as raw is as that night found it.

    Whoever reads them takes them for an earlier night's: what is newer is listed as always, and
    `left` says what they had not come to.
    """

    def __init__(self, draft: Draft, livemode: bool, api_base: str) -> None:
        self.folder = draft.store.root / ".stripe"
        contents = [
            partition.content
            for table in sorted(TABLES)
            for _, partition in sorted(draft.partitions(table).items())
        ]
        self.basis = digest([livemode, api_base, *contents])
        self._left: dict[str, tuple[int | None, int] | None] = {}
        self._number = 0

    def found(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """(table, rows) of each closed window, in the order written; first of all to be asked."""
        files = sorted(self.folder.glob("*.parquet")) if self.folder.is_dir() else []
        stated = [self._stated(file) for file in files]
        if any(said["basis"] != self.basis for said in stated):
            self.forget()
            return
        for file, said in zip(files, stated, strict=True):
            self._number += 1
            since = int(said["since"]) if said["since"] else None
            self._left[said["name"]] = (since, int(said["began"]) - 1) if said["began"] else None
            yield said["table"], pq.read_table(file).to_pylist()

    def forget(self) -> None:
        """Nothing is left of them: raw holds it all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _stated(file: Any) -> dict[str, str]:
        metadata = pq.read_schema(file).metadata
        names = ("basis", "name", "table", "since", "began")
        return {name: metadata[name.encode()].decode() for name in names}

    def left(self, resource: Resource) -> tuple[int | None, int] | None:
        """(since, until) of what is still to be listed of a resource, in epoch seconds; None:
        nothing is.
        """
        return self._left.get(resource.name)

    def add(
        self, resource: Resource, since: int | None, began: int | None, rows: list[dict[str, Any]]
    ) -> None:
        """One more closed window. `began`: its first second; None: nothing lies before it."""
        if resource is CUSTOMERS:
            return
        columns = {
            name: kind
            for name, (kind, _) in TABLES[resource.table].columns.items()
            if name not in STAMP
        }
        said = {
            "basis": self.basis,
            "name": resource.name,
            "table": resource.table,
            "since": "" if since is None else str(since),
            "began": "" if began is None else str(began),
        }
        self.folder.mkdir(exist_ok=True)
        self._number += 1
        file = self.folder / f"{self._number:06d}.parquet"
        draft = file.with_suffix(".tmp")
        pq.write_table(tabular.arrow(rows, columns).replace_schema_metadata(said), draft)
        draft.replace(file)

"""Dagster's local history of a night, written many events at a time.

Dagster's SQLite log opens a database anew and commits for every event: some 10 ms of a core each,
and a first night has hundreds. Here one connection a file stays open, and events that belong
together are one transaction. Only speed lives here: without it, or with another storage (Postgres),
the same events are written by the same methods, one by one.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy.pool import QueuePool

# Dagster's own switch: what a run plans is handed to the storage as one batch.
BATCH = "DAGSTER_EVENT_BATCH_SIZE"


@contextmanager
def quick(instance: dg.DagsterInstance) -> Iterator[None]:
    """Keeps the event log's connections open until the end; inside another, does nothing."""
    storage = instance.event_log_storage
    if type(storage) is not SqliteEventLogStorage or "_connect" in vars(storage):
        yield
        return
    kept = _KeptOpen(storage)
    before = os.environ.get(BATCH)
    os.environ[BATCH] = before or "1000"
    vars(storage).update(
        _connect=kept.connect, store_event_batch=kept.store, _together=kept.together
    )
    try:
        yield
    finally:
        for name in ("_connect", "store_event_batch", "_together"):
            del vars(storage)[name]
        if before is None:
            del os.environ[BATCH]
        kept.close()


@contextmanager
def together(instance: dg.DagsterInstance) -> Iterator[None]:
    """Events logged inside, by this thread, are one transaction, where `quick` has been entered."""
    with ExitStack() as stack:
        if begin := vars(instance.event_log_storage).get("_together"):
            stack.enter_context(begin())
        yield


class _KeptOpen:
    """An engine for each file of the event log (a run's own, the index), for one thread."""

    def __init__(self, storage: SqliteEventLogStorage) -> None:
        self.storage = storage
        self.slow = storage._connect
        self.owner = threading.get_ident()
        self.engines: dict[str, Any] = {}
        self.open: dict[str, Any] | None = None
        self.closing = ExitStack()

    @contextmanager
    def connect(self, shard: str) -> Iterator[Any]:
        """A connection in a transaction, as the storage's own gives to every other thread."""
        if threading.get_ident() != self.owner:
            with self.slow(shard) as connection:
                yield connection
            return
        if self.open is not None and shard in self.open:
            yield self.open[shard]
            return
        if shard not in self.engines:
            with self.slow(shard):
                pass  # makes the file where there is none
            self.engines[shard] = create_engine(
                self.storage.conn_string_for_shard(shard),
                poolclass=QueuePool,
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
            )
        if self.open is None:
            with self.engines[shard].begin() as connection:
                yield connection
        else:
            self.open[shard] = self.closing.enter_context(self.engines[shard].begin())
            yield self.open[shard]

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction a file for all that is written inside by the owner."""
        if self.open is not None or threading.get_ident() != self.owner:
            yield
            return
        self.open = {}
        try:
            with self.closing:
                yield
        finally:
            self.open = None
            self.closing = ExitStack()

    def store(self, events: Sequence[dg.EventLogEntry]) -> None:
        with self.together():
            for event in events:
                self.storage.store_event(event)

    def close(self) -> None:
        for engine in self.engines.values():
            engine.dispose()

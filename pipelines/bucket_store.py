"""A root in an object store: what is published lies in the bucket, and what DuckDB reads of it in a
cache on this machine. In the cache an empty file stands for an object that is not there: DuckDB
wants to find every file that a view names, and opens those that a query is about.

House, invariants 1 and 9: the snapshot is replaced by a PUT with If-Match, which is also the fence
between two writers; DuckDB reads local files. The cache holds immutable objects under the names
they have in the bucket, so that whatever is in it is right; it may be lost at any time.
"""

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.calendar import utc_now
from pipelines.object_store import (
    Bucket,
    Changed,
    Found,
    ObjectStoreError,
    RemoteObject,
    Taken,
    in_parallel,
    is_remote,
)
from pipelines.settings import Settings
from pipelines.store import (
    COPIES,
    LAYERS,
    OBJECT_PATH,
    SUPERSEDED_LIVE,
    Journal,
    Snapshot,
    Store,
    StoredObject,
    StoreError,
    digest,
    journal_entries,
    journal_text,
    sha256_of,
    snapshot_text,
    sync,
)

# Another night may be about to publish what it has put there: nobody takes that for a leftover.
GRACE = timedelta(days=1)
COMING = ".coming"  # how the name of a file ends that is not whole yet
PROBE = "ops/nights/.probe"
LEASE_SECONDS = 120.0  # a night that has not been heard of for so long is no more
IN_USE = timedelta(hours=1)  # what was read within it stays in the cache, whatever its bound


def open_store(settings: Settings) -> Store:
    """The store that `[warehouse] root` names."""
    if not is_remote(settings.warehouse.root):
        return Store(settings.root)
    return BucketStore(
        Bucket(settings.warehouse.root),
        settings.root,
        int(settings.warehouse.cache_gib * 2**30),
    )


class BucketStore(Store):
    """One root in a bucket. `root` is its cache on this machine."""

    def __init__(self, bucket: Bucket, cache: Path, cache_bytes: int) -> None:
        super().__init__(cache)
        self.bucket = bucket
        self.cache_bytes = cache_bytes
        self._named: tuple[str, set[str]] = ("", set())
        if not cache.is_dir():
            cache.mkdir(parents=True, mode=0o700, exist_ok=True)

    @property
    def place(self) -> str:
        return str(self.bucket)

    @property
    def reads_in_place(self) -> bool:
        return False

    # ---- small files ------------------------------------------------------------------------

    def read(self, name: str) -> str | None:
        found = self.bucket.get(name)
        return found.content.decode("utf-8") if found else None

    def write(self, name: str, text: str) -> None:
        self.bucket.put(name, text.encode())

    def texts(self, folder: str) -> dict[str, str]:
        """Each is fetched once: its copy in the cache bears the ETag of what it is a copy of."""
        listed = [
            item
            for item in self.bucket.objects(f"{folder}/")
            if item.name[:1].isdigit() and item.name.endswith(".json")
        ]
        copies = self.root / folder / ".copies"
        copies.mkdir(parents=True, exist_ok=True)
        kept = {path.name: path for path in copies.iterdir()}

        def text(item: RemoteObject) -> str | None:
            name = f"{item.name}.{digest([item.etag])[:16]}"
            if name in kept:
                return kept.pop(name).read_text(encoding="utf-8")
            found = self.bucket.get(item.key)
            if found is None:
                return None
            target = copies / name
            draft = copies / f".{name}.{os.getpid()}{COMING}"
            draft.write_bytes(found.content)
            sync(draft)
            os.replace(draft, target)
            return found.content.decode("utf-8")

        texts = dict(zip(listed, in_parallel(text, listed), strict=True))
        for outdated in kept.values():
            outdated.unlink(missing_ok=True)
        return {item.name: text for item, text in texts.items() if text is not None}

    def journal(self, table: str) -> Journal:
        return BucketJournal(self, table.replace(".", "/"))

    # ---- objects ----------------------------------------------------------------------------

    def local(self, items: Sequence[StoredObject]) -> list[Path]:
        absent = [item for item in items if not self._is_here(item.path, item.bytes)]
        if absent:
            in_parallel(self._fetch, absent)
        return super().local(items)

    def reach(self, paths: Iterable[str]) -> None:
        absent = [path for path in paths if not self._is_here(path)]
        if not absent:
            return
        snapshot = self.snapshot()
        known = {item.path: item for item in snapshot.objects()} if snapshot else {}

        def fetch(path: str) -> None:
            item = known.get(path)
            if item is None:  # superseded: its name is half of its hash, which will do
                head = self.bucket.head(path)
                size = head["ContentLength"] if head else 0
                item = StoredObject(path, 0, size, Path(path).stem)
            self._fetch(item)

        in_parallel(fetch, absent)

    def stand_in(self, paths: Iterable[str]) -> None:
        for path in paths:
            file = self.root / path
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()

    def _is_here(self, path: str, size: int | None = None) -> bool:
        file = self.root / path
        try:
            found = file.stat().st_size
        except FileNotFoundError:
            return False
        if found == 0 or size not in (None, found):
            return False
        os.utime(file)  # it was in use now: what was not for longest goes first
        return True

    def _fetch(self, item: StoredObject) -> None:
        target = self.root / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}{COMING}")
        try:
            self.bucket.fetch(item.path, draft, item.bytes)
            if not sha256_of(draft).startswith(item.sha256):
                raise StoreError(
                    f"{self.bucket.location_of(item.path)} is not what the snapshot says: restore "
                    "it from a backup."
                )
            sync(draft)
            os.replace(draft, target)
        except Changed:
            raise StoreError(
                f"{self.bucket.location_of(item.path)} is missing, though the snapshot names it: "
                "restore it from a backup."
            ) from None
        finally:
            draft.unlink(missing_ok=True)

    def has(self, path: str, published: Snapshot | None) -> bool:
        """Only what the snapshot names is sure to stay: of all else another night may think that
        nobody wants it.
        """
        if published is None:
            return False
        if self._named[0] != published.snapshot_id:
            self._named = published.snapshot_id, {item.path for item in published.objects()}
        return path in self._named[1]

    def take_in(self, drafts: Mapping[str, Path]) -> None:
        """Uploads, checked by sha256 on the other side; what went up is in the cache too."""

        def upload(item: tuple[str, Path]) -> None:
            path, draft = item
            self.bucket.put(path, draft)
            sync(draft)
            target = self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft, target)

        in_parallel(upload, drafts.items())

        def look(path: str) -> bool:
            head = self.bucket.head(path)
            return head is not None and head["ContentLength"] == (self.root / path).stat().st_size

        if not all(in_parallel(look, drafts)):
            raise StoreError(
                f"What was put under {self.place} is not there any more: look who else deletes "
                "there, and run again."
            )

    def forget(self, paths: Sequence[str]) -> None:
        for path in paths:
            self.bucket.delete(path)
        super().forget(paths)

    def missing(self, snapshot: Snapshot) -> list[str]:
        there = {item.key: item.size for layer in LAYERS for item in self._objects(layer)}
        return [item.path for item in snapshot.objects() if there.get(item.path) != item.bytes]

    def size(self) -> tuple[int, int]:
        sizes = [item.size for item in self.bucket.objects()]
        return len(sizes), sum(sizes)

    def _objects(self, layer: str) -> Iterator[RemoteObject]:
        for item in self.bucket.objects(f"{layer}/"):
            if OBJECT_PATH.fullmatch(item.key):
                yield item

    # ---- what is derived from a snapshot ----------------------------------------------------

    def bring(self, name: str, mend: Callable[[Path], None]) -> Path:
        target = self.root / name
        head = self.bucket.head(name)
        if head is None or self._mark(name, head["ETag"]) == self._marked(name):
            return target
        draft = self.root / f".{name}.{os.getpid()}{COMING}"
        try:
            self.bucket.fetch(name, draft, head["ContentLength"], head["ETag"])
            mend(draft)
        except Changed:  # a night replaced it just now
            draft.unlink(missing_ok=True)
            return self.bring(name, mend)
        sync(draft)
        os.replace(draft, target)
        self._note(name, head["ETag"])
        return target

    def hand_on(self, name: str, snapshot: Snapshot) -> None:
        """Where a newer snapshot stands, its own maker hands on what is derived from that. Looked
        at in this order, no older file takes the place of a newer one.
        """
        while True:
            head = self.bucket.head(name)
            if not self.is_current(snapshot):
                return
            with suppress(Taken):
                etag = self.bucket.put(name, self.root / name, over=head["ETag"] if head else None)
                self._note(name, etag)
                return

    def is_current(self, snapshot: Snapshot) -> bool:
        head = self.bucket.head("snapshot.json")
        return head is not None and head["ETag"] == snapshot.version

    def _mark(self, name: str, etag: str) -> str:
        """What tells that the file here is the one there: its ETag, and the file's own place and
        time.
        """
        with suppress(FileNotFoundError):
            stat = (self.root / name).stat()
            return f"{etag} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"
        return ""

    def _marked(self, name: str) -> str:
        with suppress(FileNotFoundError):
            return (self.root / f".{name}.etag").read_text(encoding="utf-8")
        return "nothing"

    def _note(self, name: str, etag: str) -> None:
        (self.root / f".{name}.etag").write_text(self._mark(name, etag), encoding="utf-8")

    # ---- the snapshot -----------------------------------------------------------------------

    def _state(self) -> tuple[bytes, str | None] | None:
        found = self.bucket.get("snapshot.json")
        return (found.content, found.etag) if found else None

    def _copies(self) -> list[str]:
        return [self.bucket.location_of(item.key) for item in self._copied()]

    def _copied(self) -> list[RemoteObject]:
        found = self.bucket.objects("ops/nights/snapshot-")
        return sorted(found, key=lambda item: item.modified_at)

    def replace_snapshot(self, content: Mapping[str, Any], before: str | None) -> str | None:
        """Only over the snapshot that the night began with: of two nights that began with the same
        one, the first to come here wins, and the other publishes nothing.
        """
        text = snapshot_text(content).encode()
        try:
            version = self.bucket.put("snapshot.json", text, over=before)
        except Taken:
            raise StoreError(
                f"Another night has published under {self.place} since this one began: nothing of "
                "this one is published. Run again, to add what it had."
            ) from None
        except ObjectStoreError as error:
            raise StoreError(
                f"Whether the snapshot was published is not known ({error}) Run again: what is "
                "not there is built again."
            ) from None
        self.bucket.put(f"ops/nights/snapshot-{content['snapshot_id']}.json", text)
        for old in self._copied()[:-COPIES]:
            self.bucket.delete(old.key)
        return version

    # ---- one writer -------------------------------------------------------------------------

    @contextmanager
    def lock(self, wait_seconds: float = 0) -> Iterator[None]:
        """Keeps nights of one machine apart by its lock, and those of several by a lease. The lease
        is a courtesy, lest two nights do the same work and tell the same alerts; what keeps a
        snapshot whole is the fence.
        """
        with super().lock(wait_seconds):
            lease = Lease(self.bucket, wait_seconds)
            lease.acquire()
            try:
                yield
            finally:
                lease.release()
                self.tidy()

    def is_over(self, night: Mapping[str, Any]) -> bool:
        began = datetime.fromisoformat(night["started_at"])
        return night.get("machine") == platform.node() or utc_now() - began > GRACE

    def sweep(self, snapshot: Snapshot | None) -> int:
        """Also in the bucket, where nothing younger than a day is a leftover: another night may be
        about to publish it.
        """
        super().sweep(snapshot)
        if snapshot is None:
            return 0
        now = utc_now()
        kept = {item.path for item in snapshot.objects()}
        for path, since in snapshot.superseded.items():
            if now - datetime.fromisoformat(since) < SUPERSEDED_LIVE:
                kept.add(path)
        left = [
            item.key
            for layer in LAYERS
            for item in self._objects(layer)
            if item.key not in kept and _age(item.modified_at, now) >= GRACE
        ]

        def remove(path: str) -> bool:
            head = self.bucket.head(path)  # it may have been put again since it was listed
            if head is None or _age(head["LastModified"], now) < GRACE:
                return False
            self.bucket.delete(path)
            return True

        self.bucket.abandon_parts(now.replace(tzinfo=UTC) - GRACE)
        return sum(in_parallel(remove, left))

    def trouble(self) -> str:
        try:
            self.bucket.put(PROBE, b"")
            self.bucket.delete(PROBE)
        except ObjectStoreError as error:
            return str(error)
        return ""

    def tidy(self) -> None:
        """Keeps the cache within its bound: what was not read for longest goes first."""
        now = utc_now().replace(tzinfo=UTC).timestamp()
        files = []
        for file in self.root.rglob("*"):
            with suppress(FileNotFoundError):
                stat = file.stat()
                if OBJECT_PATH.fullmatch(file.relative_to(self.root).as_posix()):
                    files.append((stat.st_mtime, stat.st_size, file))
                elif file.name.endswith(COMING) and now - stat.st_mtime > IN_USE.total_seconds():
                    file.unlink()  # somebody was killed who was fetching it
        total = sum(size for _, size, _ in files)
        for used_at, size, file in sorted(files):
            if total <= self.cache_bytes or now - used_at < IN_USE.total_seconds():
                return
            empty = file.with_name(f".{file.name}.{os.getpid()}{COMING}")
            empty.touch()
            os.replace(empty, file)  # views go on naming it, and who reads it now goes on reading
            total -= size


def _age(instant: datetime, now: datetime) -> timedelta:
    return now - instant.astimezone(UTC).replace(tzinfo=None)


class BucketJournal(Journal):
    """A journal whose files are objects: each is put only where none is yet, so that two who
    append at once have two.
    """

    def __init__(self, store: BucketStore, name: str) -> None:
        super().__init__(store.root / name)
        self.store = store
        self.name = name
        self._last = 0

    def append(self, *entries: Mapping[str, Any]) -> None:
        if not entries:
            return
        text = journal_text(entries).encode()
        if not self._last:
            self._look()
        while True:
            try:
                self.store.bucket.put(f"{self.name}/{self._last + 1:08d}.json", text, over=None)
            except Taken:
                self._look()
                continue
            self._last += 1
            return

    def entries(self) -> list[dict[str, Any]]:
        texts = self.store.texts(self.name)
        self._last = max((int(Path(name).stem) for name in texts), default=0)
        return [entry for text in texts.values() for entry in journal_entries(text)]

    def _look(self) -> None:
        listed = self.store.bucket.objects(f"{self.name}/")
        numbers = [int(item.name[:8]) for item in listed if item.name[:8].isdigit()]
        self._last = max(numbers, default=0)


class Lease:
    """Who is at work on a bucket: an object that its holder writes again while it is; one that was
    not written for two minutes belongs to nobody.
    """

    KEY = "ops/nights/.lease.json"

    def __init__(self, bucket: Bucket, wait_seconds: float) -> None:
        self.bucket = bucket
        self.until = time.monotonic() + wait_seconds
        self.machine = platform.node()
        self.text = json.dumps(
            {
                "machine": self.machine,
                "process": os.getpid(),
                "since": f"{utc_now():%H:%M:%S}",
                "token": secrets.token_hex(8),  # no two holders write the same
            }
        ).encode()
        self.etag: str | None = None
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    def acquire(self) -> None:
        """Raises StoreError where another holds it for longer than there is to wait."""
        while self.etag is None:
            found = self.bucket.get(self.KEY)
            if found is None or self._is_free(found):
                with suppress(Taken):
                    self.etag = self.bucket.put(
                        self.KEY, self.text, over=found.etag if found else None
                    )
                    break
            if time.monotonic() >= self.until:
                who = json.loads(found.content) if found else {}
                raise StoreError(
                    f"Another night is at work on {self.bucket} (process {who.get('process')} on "
                    f"{who.get('machine')}, since {who.get('since')} UTC); it will publish what "
                    "has arrived. Run again when it has ended."
                )
            time.sleep(0.5)
        self._heart.start()

    def _is_free(self, found: Found) -> bool:
        if found.age_seconds >= LEASE_SECONDS:
            return True
        holder = json.loads(found.content)
        if holder["machine"] != self.machine:
            return False
        try:
            os.kill(holder["process"], 0)
        except ProcessLookupError:
            return True  # it died on this machine
        except PermissionError:
            return False
        return bool(holder["process"] == os.getpid())

    def _beat(self) -> None:
        while not self._ended.wait(LEASE_SECONDS / 4):
            try:
                self.etag = self.bucket.put(self.KEY, self.text, over=self.etag)
            except Taken:
                return  # another has taken us for dead: the fence decides
            except ObjectStoreError:
                continue  # the store is away; it may come back

    def release(self) -> None:
        self._ended.set()
        self._heart.join()
        with suppress(ObjectStoreError):
            found = self.bucket.get(self.KEY)
            if found is not None and found.etag == self.etag:
                self.bucket.delete(self.KEY)

"""Two writers on one bucket while everything goes wrong on the way: seeded schedules, each held
against what the writers were told. What `test_bucket_store.py` and `proof.py` count.
"""

import hashlib
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines import object_store
from pipelines.bucket_store import BucketStore
from pipelines.models import Models
from pipelines.night import Published
from pipelines.object_store import Bucket, ObjectStoreError
from pipelines.reader import published
from pipelines.store import Draft, StoreError
from tests import buckets
from tests.buckets import FAULTS, SLOW_FAULTS, Asked, Fault, Proxy
from tests.houses import (
    AS_OF,
    SETTINGS,
    House,
    jsonl,
    packed,
    request,
    request_models,
    until_failure,
)

ROOT = "s3://bucket/house"


@dataclass
class Tally:
    """What became of many schedules."""

    schedules: int = 0
    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    published: int = 0
    outrun: int = 0  # began with a snapshot that another replaced meanwhile
    gave_up: int = 0  # the store was away for too long

    def add(self, proxy: Proxy) -> None:
        self.schedules += 1
        self.requests += len(proxy.asked)
        self.faults += proxy.seen


def troubled(
    rng: random.Random, *, slow: bool = False, spared: Callable[[Asked], bool] = lambda _: False
) -> Callable[[Asked], Fault]:
    """A rate of faults, and faults at that rate."""
    rate = rng.choice([0.05, 0.2, 0.4, 0.6])

    def choose(asked: Asked) -> Fault:
        if spared(asked) or rng.random() >= rate:
            return ""
        return rng.choice(SLOW_FAULTS if slow and rng.random() < 0.02 else FAULTS)

    return choose


# ---- writers of drafts ----------------------------------------------------------------------


@dataclass
class Writer:
    """One machine: it begins with what is published, adds facts, and publishes or learns that it
    can't. `stated`: facts of which it was told that they are published.
    """

    store: BucketStore
    spool: Path
    draft: Draft | None = None
    facts: list[int] = field(default_factory=list)

    def begin(self) -> None:
        self.store.sweep(self.store.snapshot())
        self.facts = []
        self.draft = Draft(self.store, self.spool, lambda *_: None)

    def add(self, fact: int) -> None:
        assert self.draft is not None
        self.draft.append("raw.facts", pa.table({"fact": [fact]}))
        self.facts.append(fact)

    def end(self) -> None:
        if self.draft is not None:
            self.draft.close()
        self.draft = None


def run_writers(seed: int, folder: Path, proxy: Proxy, tally: Tally, *, slow: bool = False) -> None:
    """One schedule of two writers. Raises AssertionError, naming the seed, where a fact is lost or
    doubled, an object is not whole, or two publish over one snapshot.
    """
    rng = random.Random(f"{seed}/writers")
    shutil.rmtree(folder, ignore_errors=True)
    proxy.begin_again()
    writers = []
    for name in ("one", "two"):
        (folder / name / "spool").mkdir(parents=True)
        store = BucketStore(Bucket(ROOT), folder / name / "cache", 2**30)
        writers.append(Writer(store, folder / name / "spool"))
    stated: set[int] = set()  # facts whose publication was confirmed
    unsure: set[int] = set()  # … and those of which nobody knows
    bases: list[str | None] = []
    lines: list[int] = []
    unsure_lines: set[int] = set()
    proxy.choose = troubled(rng, slow=slow)
    for step in range(rng.randint(8, 16)):
        writer = rng.choice(writers)
        with suppress(ObjectStoreError, StoreError):
            if rng.random() < 0.15:
                unsure_lines.add(step)
                writer.store.journal("raw.decisions").append({"line": step})
                lines.append(step)
            elif writer.draft is None:
                writer.begin()
            elif rng.random() < 0.4:
                writer.add(step)
            else:
                _publish(writer, stated, unsure, bases, tally)
        if rng.random() < 0.05 and writer.draft is None:
            shutil.rmtree(writer.store.root, ignore_errors=True)
            writer.store.root.mkdir()
    proxy.choose = lambda _: ""
    tally.add(proxy)
    for writer in writers:
        writer.end()
    try:
        reader = BucketStore(Bucket(ROOT), folder / "reader" / "cache", 2**30)
        found = _facts(reader)
        assert len(found) == len(set(found)), f"doubled: {found}"
        assert stated <= set(found), f"lost: {stated - set(found)}"
        assert set(found) <= stated | unsure, f"never published: {set(found) - stated - unsure}"
        assert len(bases) == len(set(bases)), "two were told that they won over one snapshot"
        written = [entry["line"] for entry in reader.journal("raw.decisions").entries()]
        assert len(written) == len(set(written)), f"lines doubled: {written}"
        assert set(lines) <= set(written) <= unsure_lines, f"lines {written}, appended {lines}"
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, writers: {error}") from error


def _publish(
    writer: Writer, stated: set[int], unsure: set[int], bases: list[str | None], tally: Tally
) -> None:
    assert writer.draft is not None
    before = writer.draft.published.version if writer.draft.published else None
    try:
        writer.draft.publish(AS_OF)
    except StoreError as error:
        if "Another night" in str(error):
            tally.outrun += 1
        else:
            unsure.update(writer.facts)
            tally.gave_up += 1
        raise
    except ObjectStoreError:
        unsure.update(writer.facts)
        tally.gave_up += 1
        raise
    else:
        stated.update(writer.facts)
        bases.append(before)
        tally.published += 1
    finally:
        writer.end()


def _facts(store: BucketStore) -> list[int]:
    """Every fact that is published, from objects that are what the snapshot says."""
    import pyarrow.parquet as pq

    snapshot = store.snapshot()
    items = list(snapshot.objects()) if snapshot else []
    found: list[int] = []
    for item, file in zip(items, store.local(items), strict=True):
        assert hashlib.sha256(file.read_bytes()).hexdigest() == item.sha256
        found += pq.read_table(file)["fact"].to_pylist()
    return found


# ---- whole nights ---------------------------------------------------------------------------

REMOTE = (
    SETTINGS.replace('root = "data"', f'root = "{ROOT}"')
    .replace('"landing/requests"', '"s3://bucket/logs"')
    .replace('"landing/proxy"', '"s3://bucket/proxy"')
    .replace('location = "out"', 'location = "s3://bucket/out"')
)


def run_nights(
    seed: int, folder: Path, proxy: Proxy, models: Models, tally: Tally, *, slow: bool = False
) -> None:
    """One schedule of two machines that run nights on one bucket, of logs in another: side by side,
    one after the other, one overtaking the other. Raises AssertionError, naming the seed, where a
    request or a credit is lost or doubled.
    """
    rng = random.Random(f"{seed}/nights")
    shutil.rmtree(folder, ignore_errors=True)
    proxy.begin_again()
    houses = [House(folder / name, models, REMOTE) for name in ("one", "two")]
    truth: dict[str, str] = {}
    for number in range(rng.randint(2, 3)):
        lines = []
        for index in range(rng.randint(1, 6)):
            name = f"r{rng.randint(0, 12)}" if index else f"n{number}"
            credits = truth.setdefault(name, f"{rng.randint(1, 999)}.000000001")
            lines.append(request(name, credits_used=credits))
        suffix = rng.choice([".jsonl", ".jsonl.gz"])
        content = packed(suffix.removeprefix(".jsonl"), jsonl(lines))
        buckets.put(proxy, f"s3://bucket/logs/{number}{suffix}", content)
        proxy.choose = troubled(rng, slow=slow)
        mine, other = rng.sample(houses, 2)
        slowly = mine.events()
        until = rng.choice(["", "land", "model", "audit", "publish"])
        if until:
            for event in _carefully(slowly, tally):
                if getattr(event, "step", "") == until:
                    break
            _count(until_failure(other.events()), tally)
        _count(until_failure(slowly), tally)
    proxy.choose = lambda _: ""
    tally.add(proxy)
    try:
        houses[0].night()
        with published(houses[0].store) as reader:
            rows = reader.rows("select request_id, credits from marts.requests")
        found = {row["request_id"]: str(row["credits"]) for row in rows}
        assert found == truth, f"found {found}, sent {truth}"
        assert len(rows) == len(truth), "a request is doubled"
        snapshot = houses[0].store.snapshot()
        assert snapshot is not None
        there = buckets.contents(proxy, ROOT)
        for item in snapshot.objects():
            assert hashlib.sha256(there[item.path]).hexdigest() == item.sha256, item.path
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, nights: {error}") from error


def _carefully(events: Any, tally: Tally) -> Any:
    try:
        yield from events
    except (ObjectStoreError, StoreError):
        tally.gave_up += 1


def _count(ended: tuple[list[Any], Exception | None], tally: Tally) -> None:
    """What became of a night; whatever it fails of is a sentence of ours."""
    events, failure = ended
    tally.published += sum(1 for event in events if isinstance(event, Published))
    if failure is not None:
        assert isinstance(failure, ObjectStoreError | StoreError), repr(failure)
        if "Another night" in str(failure):
            tally.outrun += 1
        else:
            tally.gave_up += 1


# ---- many of them ---------------------------------------------------------------------------


def run_many(first: int, schedules: int, folder: Path) -> list[str]:
    """Runs `schedules` of two writers, and a thirtieth as many of whole nights; returns what
    docs/proof.md says of them, and of each that went wrong.
    """
    writers, nights = Tally(), Tally()
    wrong: list[str] = []
    models = request_models(folder / "sql")
    began = time.monotonic()
    with buckets.object_store_server() as proxy, pytest.MonkeyPatch.context() as patch:
        for name, text in buckets.environment(proxy).items():
            patch.setenv(name, text)
        buckets.be_quick(patch)
        patch.setattr(object_store, "READ_SECONDS", 3 * buckets.PATIENCE_SECONDS)
        for seed in range(first, first + schedules):
            try:
                run_writers(seed, folder / "machines", proxy, writers, slow=True)
                if seed % 30 == 0:
                    run_nights(seed, folder / "machines", proxy, models, nights)
            except AssertionError as error:
                wrong.append(str(error))
                print(f"FAILED  object store: {error}", file=sys.stderr, flush=True)
            if (seed - first) % 100 == 99:
                print(f"object store: {seed - first + 1} of {schedules}", flush=True)
    lines = [
        "## Two writers on one object store",
        "",
        "Two machines work on one bucket, in an order drawn from the seed: they begin, add,",
        "publish, sweep, write into a journal, lose their cache. Meanwhile each request may meet,",
        "at a rate drawn too, a 409, 500 or 503, a connection that ends before or after the work",
        "is done, half a body, a damaged byte, or (writers) no answer in time. What is published",
        "in the end must be what the writers were told: nothing lost or doubled, every object",
        "whole, no two who won over one snapshot. In whole nights, whose logs lie in the bucket",
        "too, one machine overtakes the other at a step drawn from the seed, and every request and",
        "credit must be there once.",
        "",
        "| | schedules | requests | faults met | published | outrun | gave up | wrong |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for what, tally in (("two writers", writers), ("two nights", nights)):
        met = ", ".join(f"{count} {name}" for name, count in tally.faults.most_common() if name)
        mistakes = sum(1 for text in wrong if what.split()[1] in text)
        lines.append(
            f"| {what} | {tally.schedules} | {tally.requests} | {met} | {tally.published} | "
            f"{tally.outrun} | {tally.gave_up} | {mistakes} |"
        )
    lines += [
        "",
        f"Seeds {first} to {first + schedules - 1}, every thirtieth with nights; "
        f"{(time.monotonic() - began) / 60:.0f} minutes; "
        "moto's S3 server behind `tests/buckets.py`.",
        "",
    ]
    return lines + [f"- wrong: {text}" for text in wrong]

"""The long runs: nights killed at many moments, two writers on a failing object store.
`python -m tests.proof` rewrites docs/proof.md.

`--kills N` for fewer or more than a thousand, `--seed S` for others. A failure prints the seed and
the moments that led to it; `--seed S --kills N` of the same numbers runs them again.
"""

import argparse
import collections
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from tests.faults import run_many
from tests.houses import CHECKOUT
from tests.kills import IN_A_ROW, Moment, Trials, nights

DOCUMENT = CHECKOUT / "docs" / "proof.md"
BATCH = 25  # kills from one seed: what is printed when one goes wrong, and what has to be run again


@dataclass
class World:
    """Killed nights of one kind: the first of a house, or the second over a published first."""

    name: str
    is_second: bool
    seeds: list[int]
    moments: list[Moment] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    calls: dict[str, float] = field(default_factory=dict)


def seeds(first: int, kills: int) -> Iterator[tuple[int, int]]:
    """(seed, how many kills to make from it)"""
    for number in range(0, kills, BATCH):
        yield first + number // BATCH, min(BATCH, kills - number)


def run(world: World, folder: Path, first: int, kills: int) -> World:
    """Kills `kills` nights of a world, in a process of its own."""
    with nights(folder) as running:
        trials = Trials(running, folder, world.is_second)
        world.calls = trials.counts
        for seed, count in seeds(first, kills):
            world.seeds.append(seed)
            try:
                died = trials.run(seed, count)
            except AssertionError as error:
                world.failures.append(str(error))
                print(f"FAILED  {world.name}: {error}", file=sys.stderr, flush=True)
                continue
            world.moments += died
            print(
                f"{world.name}: seed {seed}, {len(world.moments)} of {kills} killed and mended",
                flush=True,
            )
    return world


def told(worlds: Sequence[World], seconds: float) -> str:
    """docs/proof.md."""
    lines = [
        "# Proof",
        "",
        "Written by `make proof` (`python -m tests.proof`); do not edit.",
        "",
        "## Nights killed with SIGKILL",
        "",
        "A night is killed at a random moment: after a random time, or right before or after its",
        "n-th rename, fsync, message to a sink, or event. Whatever it leaves, `snapshot.json` must",
        "name whole objects and `warehouse.duckdb` must be readable and speak of one snapshot.",
        f"The next night (after up to {IN_A_ROW} kills in a row) must leave the tables of an",
        "undisturbed run: from the roll-ups down byte for byte, above them row for row; the same",
        "exports; every alert told, none twice without saying so; no draft and no object that",
        "nothing names.",
        "",
        "| night | its calls | killed | by time | rename | fsync | message | event | wrong |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for world in worlds:
        by = collections.Counter(moment.call or "time" for moment in world.moments)
        calls = ", ".join(
            f"{int(world.calls[n])} {n}" for n in ("replace", "fsync", "send", "event")
        )
        kinds = " | ".join(str(by[n]) for n in ("time", "replace", "fsync", "send", "event"))
        lines.append(
            f"| {world.name} | {calls} | {len(world.moments)} | {kinds} | {len(world.failures)} |"
        )
    lines += [
        "",
        f"Seeds {worlds[0].seeds[0]} to {max(worlds[0].seeds)}, {BATCH} kills from each, for both; "
        f"{seconds / 60:.0f} minutes on {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, DuckDB {duckdb.__version__}.",
        "",
    ]
    for world in worlds:
        lines += [f"- wrong, {world.name}: {failure}" for failure in world.failures]
    return "\n".join(lines).rstrip() + "\n"


def main(words: Sequence[str] | None = None) -> int:
    """Runs it all; returns 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="how many nights to kill")
    parser.add_argument("--faults", type=int, default=1000, help="how many fault schedules to run")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--out", type=Path, default=DOCUMENT, help="where to write the result")
    chosen = parser.parse_args(words)
    began = time.monotonic()
    worlds = [World("first night", False, []), World("second night", True, [])]
    halves = [chosen.kills - chosen.kills // 2, chosen.kills // 2]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        places = [Path(folder) / "first", Path(folder) / "second"]
        list(pool.map(run, worlds, places, [chosen.seed] * 2, halves))
    killed = told(worlds, time.monotonic() - began)
    with tempfile.TemporaryDirectory() as folder:
        lines = run_many(chosen.seed, chosen.faults, Path(folder))
    chosen.out.parent.mkdir(exist_ok=True)
    text = killed + "\n" + "\n".join(lines).rstrip() + "\n"
    chosen.out.write_text(text, encoding="utf-8")
    return 1 if "- wrong" in text else 0


if __name__ == "__main__":
    sys.exit(main())

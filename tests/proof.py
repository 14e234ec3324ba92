"""The long runs: nights killed at many moments, lines fuzzed, worlds delivered in many ways, two
writers on a failing object store, nights of a Stripe that fails and does not hold still, accounts
with every cause planted, worlds of keys with incidents in them, alerts told to servers that fail
by nights that die.

`python -m tests.proof` rewrites docs/proof.md.

`--kills N`, `--lines N`, `--deliveries N`, `--faults N`, `--stripe N`, `--planted N`, `--worlds N`,
`--alerts N` for fewer or more; with 0 a part is not run, and what the page said of it stays.
`--seed S` for other seeds. A failure prints the seed and what led to it; the same numbers run it
again.
"""

import argparse
import collections
import os
import platform
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from pipelines import contents
from pipelines.simulator import worlds as simulated
from tests import alert_faults, deliveries, fuzz, planted, stripe_faults, worlds
from tests.deliveries import WHOLE, Delivery
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


def told(worlds: Sequence[World], seconds: float) -> list[str]:
    """The part of docs/proof.md about killed nights."""
    lines = [
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
    span = f"Seeds {worlds[0].seeds[0]} to {max(worlds[0].seeds)}"
    lines += ["", measured(f"{span}, {BATCH} kills from each, for both", seconds), ""]
    for world in worlds:
        lines += [f"- wrong, {world.name}: {failure}" for failure in world.failures]
    return lines


def measured(what: str, seconds: float) -> str:
    return (
        f"{what}; {seconds / 60:.0f} minutes on {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, DuckDB {duckdb.__version__}."
    )


# ---- lines ----------------------------------------------------------------------------------

FUZZED = {"canonical": 0.45, "litellm_spendlogs": 0.33, "usage_csv": 0.22}  # the share of each
FROM_A_SEED = 5000  # lines


def fuzzed(folder: Path, first: int, lines: int) -> tuple[list[str], bool]:
    """Lands that many odd lines; the part of docs/proof.md, and whether all was well."""
    began = time.monotonic()
    text = [
        "Lines that begin well and go wrong by a grammar: bytes flipped, fields dropped, repeated",
        "and retyped, numbers on the edge, escapes, nesting, NULs, no UTF-8, cut, glued, too long.",
        "Each must be accounted for, at its line and byte, with the values that a second reader",
        "(`tests/slow_reader.py`) has, which knows nothing of the house.",
        "",
        "| format | seeds | lines | accepted | set aside | wrong |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    wrong: list[str] = []
    for name, share in FUZZED.items():
        chosen = range(first, first + max(1, round(lines * share / FROM_A_SEED)))
        whole, failures = fuzz.Tally([]), 0
        for seed in chosen:
            try:
                tally = fuzz.run(folder / name, name, range(seed, seed + 1), FROM_A_SEED)
            except AssertionError as error:
                failures += 1
                wrong.append(f"- wrong: {error}")
                print(f"FAILED  {error}", file=sys.stderr, flush=True)
                continue
            whole.lines += tally.lines
            whole.accepted += tally.accepted
            whole.aside += tally.aside
            print(f"{name}: seed {seed}, {whole.lines:,} lines", flush=True)
        text.append(
            f"| {name} | {chosen[0]} to {chosen[-1]} | {whole.lines:,} | {whole.accepted:,} | "
            f"{whole.aside:,} | {failures} |"
        )
    text += ["", measured(f"{FROM_A_SEED:,} lines from each seed", time.monotonic() - began), ""]
    return text + wrong, not wrong


# ---- deliveries -----------------------------------------------------------------------------

FROM_A_WORLD = 10  # deliveries


def delivered(folder: Path, first: int, count: int) -> tuple[list[str], bool]:
    """Delivers worlds in that many ways; the part of docs/proof.md, and whether all was well."""
    began = time.monotonic()
    models = contents.models()
    wrong: list[str] = []
    nights = objects = 0
    worlds = range(first, first + max(1, count // FROM_A_WORLD))
    for seed in worlds:
        world, choice = deliveries.World(seed), random.Random(seed)
        whole = WHOLE.arrive(world, folder / "whole", models)
        for number in range(min(count, FROM_A_WORLD)):
            delivery = Delivery(
                seed=number,
                objects=choice.randint(1, 12),
                nights=choice.randint(1, 4),
                again=choice.choice((0, 3, 30)),
            )
            nights += delivery.nights + 1
            objects += sum(map(len, delivery.parcels(world)))
            try:
                deliveries.check(world, delivery, folder / "house", models, whole)
            except AssertionError as error:
                wrong.append(f"- wrong: {str(error)[:500]}")
                print(f"FAILED  {error}", file=sys.stderr, flush=True)
            shutil.rmtree(folder / "house")
        shutil.rmtree(folder / "whole")
        print(f"world {seed}: delivered in {FROM_A_WORLD} ways", flush=True)
    text = [
        "A world of request logs (three days and some of a year ago, three formats, records twice,",
        "records that contradict each other, odd and bad lines) arrives in any order, in pieces,",
        "with repetitions, renamed and packed otherwise, over several nights. What is published",
        "must be what it is when the world arrives whole: from the roll-ups down byte for byte, at",
        "the grain of requests row for row; each object's account that of the second reader; and",
        "the same again after a rebuild.",
        "",
        f"{len(worlds) * min(count, FROM_A_WORLD)} deliveries of {len(worlds)} worlds (seeds "
        f"{worlds[0]} to {worlds[-1]}), {objects:,} objects, {nights:,} nights: "
        f"{len(wrong)} wrong.",
        "",
        measured(f"{FROM_A_WORLD} deliveries of each world", time.monotonic() - began),
        "",
    ]
    return text + wrong, not wrong


# ---- worlds of keys -------------------------------------------------------------------------


def walked(first: int, count: int) -> tuple[list[str], bool]:
    """Walks through that many worlds; the part of docs/proof.md, and whether the promises of issue
    5 hold: a switch of model caught on its day in 95 %, the cause of what is planted right in 95 %.
    """
    began = time.monotonic()
    tally = worlds.walk(range(first, first + count))
    lines = [*told_of_worlds(tally), measured("20 keys of each kind", time.monotonic() - began)]
    is_well = (
        worlds.share(tally.of("model_switch"), worlds.is_same_day) >= 0.95
        and worlds.share(tally.incidents, worlds.is_right) >= 0.95
        and tally.hourly_only_count == 0
    )
    return lines, is_well


def told_of_worlds(tally: worlds.Tally) -> list[str]:
    """The table, and what it does not show."""
    lines = [
        "Keys of five families, 110 days at the grain of hours, made by `pipelines/simulator/`",
        "`worlds.py` from a seed; the house's own models judge the last 42 days one by one, at",
        "normal sensitivity. *Found*: an anomaly of the key within the incident's time.",
        "*Cause*: the right one named, of those found, and of all planted. *Hours*: from the",
        "onset to the hour in which the running total passed the day's stored limit, an hour its",
        "own, or six hours in a row theirs (or, of what only a whole day tells, to midnight), of",
        "those found; *night*: with the night alone.",
        "",
        "| planted | count | found | same day | cause, of found | cause, of all "
        "| hours, median | hours, 90 % | night, median |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups = [(kind,) for kind in simulated.CAUSES]
    groups += [("leak", "runaway"), tuple(simulated.CAUSES)]
    for kinds in groups:
        rows = tally.of(*kinds)
        found = [row for row in rows if worlds.is_found(row)]
        name = kinds[0] if len(kinds) == 1 else "all" if len(kinds) > 2 else "leak or runaway"
        shares = (
            worlds.share(rows, worlds.is_found),
            worlds.share(rows, worlds.is_same_day),
            worlds.share(found, worlds.is_right),
            worlds.share(rows, worlds.is_right),
        )
        hours = (
            worlds.hours_within(found, 0.5, "hours_to_alert"),
            worlds.hours_within(found, 0.9, "hours_to_alert"),
            worlds.hours_within(found, 0.5, "hours_to_night"),
        )
        lines.append(
            f"| {name.replace('_', ' ')} | {len(rows)} | "
            + " | ".join(f"{part:.3f}" for part in shares)
            + " | "
            + " | ".join(f"{part:g}" for part in hours)
            + " |"
        )
    second = sum(row["is_second_channel"] for row in tally.false)
    months = tally.key_days / 30
    return [
        *lines,
        "",
        f"False alarms: {len(tally.false) / months:.3f} per key-month, {second / months:.3f} of it "
        f"by the second channel, over {months:,.0f} key-months of all kinds.",
        f"Days over their limit in an hour that the night did not call out: "
        f"{tally.hourly_only_count}.",
        "",
        f"Seeds {tally.seeds[0]} to {tally.seeds[-1]}.",
    ]


# ---- the page -------------------------------------------------------------------------------

PARTS = {
    "kills": "Nights killed with SIGKILL",
    "lines": "Lines that are odd",
    "deliveries": "One world, delivered in many ways",
    "faults": "Two writers on one object store",
    "stripe": "A Stripe that fails and does not hold still",
    "planted": "Accounts with every cause planted",
    "worlds": "Incidents planted in worlds of many keys",
    "alerts": "Alerts, told to servers that fail by nights that die",
}


def page(parts: dict[str, list[str]], before: str) -> str:
    """docs/proof.md: the parts that ran, and the others as they stood."""
    stood = dict(re.findall(r"^## ([^\n]+)\n\n(.*?)(?=^## |\Z)", before, re.M | re.S))
    text = "# Proof\n\nWritten by `make proof` (`python -m tests.proof`); do not edit.\n"
    for name, title in PARTS.items():
        body = "\n".join(parts[name]) if name in parts else stood.get(title, "Not run yet.")
        text += f"\n## {title}\n\n{body.strip()}\n"
    return text


def main(words: Sequence[str] | None = None) -> int:
    """Runs it all; returns 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="how many nights to kill")
    parser.add_argument("--lines", type=int, default=1_000_000, help="how many lines to fuzz")
    parser.add_argument("--deliveries", type=int, default=1000, help="how many ways to deliver")
    parser.add_argument("--faults", type=int, default=1000, help="how many fault schedules to run")
    parser.add_argument("--stripe", type=int, default=1000, help="how many schedules of Stripe")
    parser.add_argument("--planted", type=int, default=20, help="how many accounts to plant")
    parser.add_argument("--worlds", type=int, default=20, help="how many worlds of keys to walk")
    parser.add_argument("--alerts", type=int, default=2000, help="how many schedules of sinks")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--out", type=Path, default=DOCUMENT, help="where to write the result")
    chosen = parser.parse_args(words)
    parts: dict[str, list[str]] = {}
    is_well = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.kills:
            parts["kills"], is_well = killed(folder, chosen.seed, chosen.kills)
        if chosen.lines:
            parts["lines"], is_right = fuzzed(folder / "lines", chosen.seed, chosen.lines)
            is_well = is_well and is_right
        if chosen.deliveries:
            parts["deliveries"], is_right = delivered(
                folder / "deliveries", chosen.seed, chosen.deliveries
            )
            is_well = is_well and is_right
        if chosen.faults:
            parts["faults"], is_right = troubled(folder / "faults", chosen.seed, chosen.faults)
            is_well = is_well and is_right
        if chosen.stripe:
            lines = stripe_faults.run_many(chosen.seed, chosen.stripe, folder / "stripe")
            parts["stripe"] = lines
            is_well = is_well and not any(line.startswith("- wrong") for line in lines)
        if chosen.planted:
            lines = planted.run_many(chosen.seed, chosen.planted, contents.models())
            parts["planted"] = lines
            is_well = is_well and not any(line.startswith("- wrong") for line in lines)
        if chosen.worlds:
            parts["worlds"], is_right = walked(chosen.seed, chosen.worlds)
            is_well = is_well and is_right
        if chosen.alerts:
            lines = alert_faults.run_many(chosen.seed, chosen.alerts, folder / "alerts")
            parts["alerts"] = lines
            is_well = is_well and not any(line.startswith("- wrong") for line in lines)
    chosen.out.parent.mkdir(exist_ok=True)
    before = chosen.out.read_text(encoding="utf-8") if chosen.out.exists() else ""
    chosen.out.write_text(page(parts, before), encoding="utf-8")
    return 0 if is_well else 1


def troubled(folder: Path, first: int, schedules: int) -> tuple[list[str], bool]:
    """Runs that many fault schedules; the part of docs/proof.md, and whether all was well."""
    lines = run_many(first, schedules, folder)[2:]  # the title is the page's
    return lines, not any(line.startswith("- wrong") for line in lines)


def killed(folder: Path, first: int, kills: int) -> tuple[list[str], bool]:
    """Kills that many nights; the part of docs/proof.md, and whether all was well."""
    began = time.monotonic()
    worlds = [World("first night", False, []), World("second night", True, [])]
    halves = [kills - kills // 2, kills // 2]
    with ThreadPoolExecutor(2) as pool:
        places = [folder / "first", folder / "second"]
        list(pool.map(run, worlds, places, [first] * 2, halves))
    return told(worlds, time.monotonic() - began), not any(world.failures for world in worlds)


if __name__ == "__main__":
    sys.exit(main())

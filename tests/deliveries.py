"""One world of request logs, delivered in many ways: what `test_deliveries.py` tries a few of, and
`proof.py` many.

A world is a list of lines by a seed: three days and a year ago, three formats, records twice,
records that contradict each other, calls of several attempts, odd ones and bad ones. A delivery is
a way for it to arrive: in any order, in any number of objects, some of them again, renamed, packed
or worded otherwise, over several nights.
"""

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipelines.models import Models
from tests.houses import SETTINGS, House, attempt, jsonl, request, spend_log
from tests.slow_reader import Verdicts, expected

LATEST = datetime(2026, 12, 31)
RANKS = {"canonical": 0, "litellm_spendlogs": 1, "litellm_payload": 2}
FOLDERS = {"canonical": "requests", "litellm_spendlogs": "proxy", "litellm_payload": "attempts"}
PACKINGS = ("", ".gz", ".zst")
BAD = ('{"request_id": 7}', "no record", json.dumps(request("x", credits_used=-1)))
WITH_ATTEMPTS = """
[[requests]]
name = "attempts"
gateway = "infery"
format = "litellm_payload"
location = "landing/attempts"
"""


class World:
    """The lines of a seed, by format."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        choice = random.Random(f"world {seed}")
        self.lines: list[tuple[str, str]] = []
        self.calls: list[dict[str, tuple[datetime, Decimal]]] = []  # attempt → its end and credits
        for number in range(choice.randrange(20, 60)):
            name = f"req_{choice.randrange(number + 1)}"  # some are records of an earlier one
            at = datetime(2026, 11, choice.choice((18, 19, 20)), choice.randrange(24), 30)
            if choice.random() < 0.05:
                at -= timedelta(days=365)
            if choice.random() < 0.3:
                spent = choice.choice(("0.0125", "0.00010185000000000001", "0", "2"))
                line = spend_log(name, spent, endTime=at.isoformat() + "Z", api_key="key_2")
                line["team_id"] = choice.choice(("ws_1", ""))
                self.lines.append(("litellm_spendlogs", json.dumps(line)))
                continue
            line = request(
                name,
                at.isoformat() + "Z",
                api_key_id=choice.choice(("key_1", "key_2", None)),
                workspace_id=choice.choice(("ws_1", "ws_2", "")),
                model=choice.choice(("gpt-5", "sonnet-5", None)),
                credits_used=choice.choice((1, "2.5", "0.000000001", 123456.789, "7E-1")),
                status=choice.choice((200, 200, 429, None)),
                source=choice.choice(("api", "playground")),
                member_id=choice.choice(("mem_1", None)),
            )
            self.lines.append(("canonical", json.dumps(line)))
            if choice.random() < 0.2:
                self.lines.append(self.lines[-1])
        for call in range(choice.randrange(8)):
            self._call(call, choice)
        for bad in BAD:
            self.lines.insert(choice.randrange(len(self.lines)), ("canonical", bad))

    def _call(self, call: int, choice: random.Random) -> None:
        """The attempts of a call, some of them told twice; the last may be in SpendLogs, too."""
        attempts: dict[str, tuple[datetime, Decimal]] = {}
        at = datetime(2026, 11, choice.choice((18, 19)), 23, 59)
        for number in range(choice.randrange(1, 4)):
            name = f"att_{call}_{number}"
            at += timedelta(seconds=choice.randrange(1, 90))
            attempts[name] = at, Decimal(choice.choice((0, 1, 2)))
            ended = at.replace(tzinfo=UTC).timestamp()
            dollars = float(attempts[name][1]) / 100
            line = attempt(name, f"call_{call}", endTime=ended, response_cost=dollars)
            self.lines += [("litellm_payload", json.dumps(line))] * choice.choice((1, 1, 1, 2))
        if choice.random() < 0.3:
            line = spend_log(name, "0.07", endTime=at.isoformat() + "Z")
            self.lines.append(("litellm_spendlogs", json.dumps(line)))
        self.calls.append(attempts)

    def truth(self) -> dict[date, tuple[int, Decimal]]:
        """Requests and credits of each day, by the contract's order of winners."""
        records: dict[str, list[tuple[int, datetime, Decimal]]] = defaultdict(list)
        for name, line in self.lines:
            if name == "litellm_payload":
                continue
            for row in expected(line.encode(), "json", name, LATEST).rows.values():
                record = (-RANKS[name], row["completed_at"], row["credits"])
                records[row["request_id"]].append(record)
        for attempts in self.calls:
            last = max(attempts, key=lambda name: (attempts[name][0], name))
            whole = sum((credits for _, credits in attempts.values()), Decimal(0))
            records[last].append((-RANKS["litellm_payload"], attempts[last][0], whole))
        days: dict[date, tuple[int, Decimal]] = defaultdict(lambda: (0, Decimal(0)))
        for stated in records.values():
            _, at, credits = max(stated)
            count, sums = days[at.date()]
            days[at.date()] = count + 1, sums + credits
        return dict(days)


@dataclass(frozen=True)
class Delivery:
    """How a world arrives."""

    seed: int
    objects: int
    nights: int
    again: int  # objects that come a second time, and lines

    def parcels(self, world: World) -> list[list[tuple[str, str, str]]]:
        """For each night, the objects: (format, name, text)."""
        choice = random.Random(f"delivery {self.seed}")
        lines = [*world.lines, *choice.sample(world.lines, min(self.again, len(world.lines)))]
        choice.shuffle(lines)
        parts: dict[tuple[str, int], list[str]] = defaultdict(list)
        for name, line in lines:
            parts[name, choice.randrange(self.objects)].append(line)
        nights: list[list[tuple[str, str, str]]] = [[] for _ in range(self.nights)]
        for (name, number), some in parts.items():
            text = jsonl(some)
            copies = 1 + (choice.random() < self.again / (self.again + 4))
            for copy in range(copies):
                worded = text
                if copy and choice.random() < 0.5:  # by another shipper
                    worded = jsonl(line if line in BAD else line + " " for line in some)
                file = f"{choice.randrange(10**6)}_{number}_{copy}.jsonl{choice.choice(PACKINGS)}"
                nights[choice.randrange(self.nights)].append((name, file, worded))
        return nights

    def arrive(self, world: World, folder: Path, models: Models) -> House:
        """A house that has had all of it."""
        house = House(folder, models, SETTINGS + WITH_ATTEMPTS)
        for parcels in self.parcels(world):
            for name, file, text in parcels:
                house.put(f"{FOLDERS[name]}/{file}", text)
            house.night()
        return house


WHOLE = Delivery(seed=0, objects=1, nights=1, again=0)


def answers(house: House) -> dict[str, Any]:
    """All that must not depend on how a world arrived: bytes from the roll-ups down; rows at the
    grain of requests, but for the line a record was read from; what was set aside, what conflicts.
    """
    but = "exclude (source_object, source_line)"
    return {f"bytes of {table}": parts for table, parts in house.answers().items()} | {
        "requests": house.rows(f"select * {but} from marts.requests order by all"),
        "staging": house.rows(f"select * {but} from staging.requests order by all"),
        "aside": house.rows("select distinct line_sha256, reason from ops.quarantine order by all"),
        "conflicts": house.rows(f"select distinct * {but} from ops.conflicts order by all"),
    }


def accounts(house: House) -> dict[str, tuple[int, int, int]]:
    """Object → read, landed and quarantined. Asserts that nothing else became of its records."""
    rows = house.rows("from ops.source_objects")
    for row in rows:
        landed = row["accepted_count"] + row["corroborating_count"] + row["duplicate_count"]
        assert row["read_count"] == landed + row["folded_count"] + row["quarantined_count"]
    return {
        row["object_sha256"]: (
            row["read_count"],
            row["read_count"] - row["quarantined_count"],
            row["quarantined_count"],
        )
        for row in rows
    }


def expected_accounts(world: World, delivery: Delivery) -> Mapping[str, tuple[int, int, int]]:
    """The same, by the second reader."""
    found = {}
    for parcels in delivery.parcels(world):
        for name, _, text in parcels:
            landed, aside = text.count("\n"), 0
            if name != "litellm_payload":  # of which no line is bad
                verdicts: Verdicts = expected(text.encode(), "json", name, LATEST)
                landed, aside = len(verdicts.rows), len(verdicts.aside)
            found[hashlib.sha256(text.encode()).hexdigest()] = (landed + aside, landed, aside)
    return found


def check(world: World, delivery: Delivery, folder: Path, models: Models, whole: House) -> None:
    """Asserts that a world that arrived in some way is the world that arrived whole, and that a
    rebuild changes nothing of it.
    """
    house = delivery.arrive(world, folder, models)
    assert accounts(house) == expected_accounts(world, delivery)
    found, wanted = answers(house), answers(whole)
    for name in wanted:
        assert found[name] == wanted[name], f"world {world.seed}, {delivery}: {name}"
    house.night(everything=True)
    again = answers(house)
    for name in found:
        assert again[name] == found[name], f"world {world.seed}, {delivery}: {name}, rebuilt"

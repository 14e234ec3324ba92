"""A real hour of traffic, replayed: the Azure LLM inference trace of 2023, 8,819 requests with
their tokens and instants, under keys and prices that a seed assigns.

Delivered as clouds deliver: in many objects, some packed, some twice, some under other names, in no
order and over several nights. Every request and token must be there once, and every sum must be
that of Python's own decimals.
"""

import csv as comma
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.houses import ROLL_UPS, House, Line, csv, jsonl, request, request_models

SEED = 20231116
MODELS = {
    "gpt-4o": (Decimal("0.000250001"), Decimal("0.001000003")),
    "gpt-4o-mini": (Decimal("0.000015"), Decimal("0.00006")),
    "sonnet-4": (Decimal("0.0003"), Decimal("0.001500007")),
}
Sums = dict[tuple[str | None, ...], tuple[int, int, int, Decimal]]


@pytest.fixture(scope="module")
def trace(shared: Path) -> list[Line]:
    """The trace as canonical records."""
    choice = random.Random(SEED)
    file = shared / "data" / "azure_llm" / "AzureLLMInferenceTrace_code.csv"
    with file.open(encoding="utf-8", newline="") as text:
        rows = list(comma.DictReader(text))
    lines = []
    for number, row in enumerate(rows):
        key = choice.randrange(40)
        model = choice.choice(list(MODELS))
        prompt, completion = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        dear = MODELS[model]
        lines.append(
            request(
                f"azure_{number}",
                row["TIMESTAMP"] + "Z",  # with a blank and seven digits, as the trace writes it
                workspace_id=f"ws_{key % 3}",
                api_key_id=f"key_{key:02}",
                requested_model=model,
                model=model,
                prompt_tokens=prompt,
                completion_tokens=completion,
                credits_used=format(prompt * dear[0] + completion * dear[1], "f"),
            )
        )
    return lines


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, trace: list[Line]) -> House:
    """The trace, delivered in about a hundred objects over three nights."""
    choice = random.Random(SEED)
    folder = tmp_path_factory.mktemp("azure")
    house = House(folder / "house", request_models(folder / "sql", *ROLL_UPS))
    lines = list(trace)
    choice.shuffle(lines)
    cuts = sorted(choice.sample(range(1, len(lines)), 79))
    objects = [lines[a:b] for a, b in zip([0, *cuts], [*cuts, len(lines)], strict=True)]
    deliveries: list[tuple[str, list[Line]]] = []
    for number, some in enumerate(objects):
        suffix = choice.choice((".jsonl", ".ndjson", ".csv", ".jsonl.gz", ".csv.gz", ".jsonl.zst"))
        deliveries.append((f"{number:03}{suffix}", some))
        if choice.random() < 0.2:  # again: the same bytes elsewhere, packed, or in another order
            deliveries.append((f"copies/{number}_{suffix}", some))
            deliveries.append((f"packed/{number}.jsonl.zst", some))
            deliveries.append((f"mixed/{number}.jsonl", choice.sample(some, len(some))))
    choice.shuffle(deliveries)
    for night in range(3):
        for name, some in deliveries[night::3]:
            house.put(f"requests/{name}", csv(some) if ".csv" in name else jsonl(some))
        house.night()
    return house


def summed(lines: Iterable[Line], named: Callable[[Line], tuple[str | None, ...]]) -> Sums:
    """Requests, tokens in and out, and credits, by what a line is named."""
    sums: Sums = defaultdict(lambda: (0, 0, 0, Decimal(0)))
    for line in lines:
        count, prompt, completion, credits = sums[named(line)]
        sums[named(line)] = (
            count + 1,
            prompt + line["prompt_tokens"],
            completion + line["completion_tokens"],
            credits + Decimal(line["credits_used"]),
        )
    return dict(sums)


MEASURES = (
    "sum(request_count)::bigint, sum(prompt_tokens)::bigint, sum(completion_tokens)::bigint, "
    "sum(credits)"
)


def found(house: House, names: str, table: str) -> Sums:
    rows = [
        tuple(row.values())
        for row in house.rows(f"select {names}, {MEASURES} from {table} group by all")
    ]
    return {row[:-4]: row[-4:] for row in rows}


def test_every_request_and_token_of_the_trace_is_kept(house: House, trace: list[Line]) -> None:
    [counted] = summed(trace, lambda _: ("all",)).values()
    assert counted[0] == 8819
    [kept] = house.rows(
        "select count(*), sum(prompt_tokens)::bigint, sum(completion_tokens)::bigint, sum(credits) "
        "from marts.requests"
    )
    assert tuple(kept.values()) == counted
    rows = house.rows("select request_id, completed_at, credits from marts.requests")
    assert {row["request_id"]: (row["completed_at"], row["credits"]) for row in rows} == {
        line["request_id"]: (
            datetime.fromisoformat(line["timestamp"][:26]),
            Decimal(line["credits_used"]),
        )
        for line in trace
    }
    [account] = house.rows(
        "select sum(read_count)::bigint as read, sum(accepted_count)::bigint as accepted, "
        "sum(duplicate_count)::bigint as duplicate, sum(quarantined_count)::bigint as aside "
        "from ops.source_objects"
    )
    assert account["accepted"] == 8819
    assert account["read"] == account["accepted"] + account["duplicate"]
    assert account["duplicate"] > 0
    assert account["aside"] == 0
    assert house.rows("from ops.conflicts") == []


def test_every_view_of_the_trace_sums_to_the_last_decimal(house: House, trace: list[Line]) -> None:
    by_model = summed(trace, lambda line: (line["workspace_id"], line["model"]))
    by_key = summed(trace, lambda line: (line["workspace_id"], line["api_key_id"]))
    by_member = summed(trace, lambda line: (line["workspace_id"], None))

    assert found(house, "workspace_id, model", "marts.usage_by_model") == by_model
    assert found(house, "workspace_id, api_key_id", "marts.usage_by_key") == by_key
    assert found(house, "workspace_id, member_id", "marts.usage_by_member") == by_member


@pytest.mark.parametrize(
    ("zone", "days"),
    [
        ("UTC", 1),
        ("Asia/Kolkata", 2),  # midnight at 18:30 UTC, in the middle of the trace
        ("Asia/Tashkent", 2),  # at 19:00
        ("Australia/Lord_Howe", 1),
        ("Pacific/Marquesas", 1),
    ],
)
def test_the_local_days_of_the_trace_sum_to_the_last_decimal(
    house: House, trace: list[Line], zone: str, days: int
) -> None:
    def local_day(line: Line) -> tuple[str]:
        instant = datetime.fromisoformat(line["timestamp"][:26] + "+00:00")
        return (str(instant.astimezone(ZoneInfo(zone)).date()),)

    expected = summed(trace, local_day)
    assert len(expected) == days
    asked = f"marts.usage('2023-11-01', '2023-11-30', group_by := 'day', time_zone := '{zone}')"
    assert found(house, "subject", asked) == expected

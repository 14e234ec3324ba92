"""OpenRouter's activity CSV: money to the last decimal, a cancelled generation in plain sight, and
nothing of who asked.
"""

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.models import Models
from tests.houses import House, csv, decimals

SETTINGS = """
[warehouse]
root = "data"
credits_per_usd = 100

[[requests]]
name = "openrouter"
format = "openrouter_csv"
location = "landing/openrouter"
workspace_id = "ws_1"
"""


def row(generation_id: str = "gen-1", **stated: Any) -> dict[str, Any]:
    """A row with every column of the file, in its order."""
    return {
        "generation_id": generation_id,
        "created_at": "2026-11-20 10:00:00.713",
        "cost_total": "0.0123",
        "cost_web_search": "0.004",
        "cost_cache": "",
        "cost_file_processing": "",
        "byok_usage_inference": "0",
        "tokens_prompt": 10389,
        "tokens_completion": 137,
        "tokens_reasoning": 64,
        "tokens_cached": 128,
        "model_permaslug": "openai/gpt-oss-120b",
        "provider_name": "SomeProvider",
        "variant": "standard",
        "cancelled": "false",
        "streamed": "true",
        "user": "ada@customer.example",
        "finish_reason_raw": "stop",
        "finish_reason_normalized": "stop",
        "generation_time_ms": 2150,
        "time_to_first_token_ms": 310,
        "api_key_disabled": "false",
        "api_key_name": "the key of Ada",
        "app_name": "Ada's app",
    } | stated


@pytest.fixture
def house(tmp_path: Path, some_models: Models) -> House:
    return House(tmp_path / "house", some_models, SETTINGS + 'time_zone = "UTC"\n')


def test_what_the_file_states_is_kept_and_what_it_leaves_out_is_null(house: House) -> None:
    house.put("openrouter/a.csv", csv([row()]))

    house.night()

    [one] = house.rows("select * from marts.requests")
    stated = {
        "gateway": "openrouter",
        "request_id": "gen-1",
        "completed_at": datetime(2026, 11, 20, 10, 0, 0, 713_000),
        "workspace_id": "ws_1",
        "source": "api",
        "model": "openai/gpt-oss-120b",
        "is_streamed": True,
        "prompt_tokens": 10389,
        "completion_tokens": 137,
        "total_tokens": 10526,
        "credits": Decimal("1.23"),
        "latency_ms": 2150,
    }
    assert {name: one[name] for name in stated} == stated
    absent = ("api_key_id", "member_id", "requested_model", "status", "error_code", "gateway_in_at")
    assert [one[name] for name in absent] == [None] * 6


def test_nothing_of_who_asked_reaches_the_disk(house: House) -> None:
    house.put("openrouter/a.csv", csv([row(), row("gen-2", cost_total="a lot")]))

    house.night()

    kept = json.dumps(
        house.rows("select * from raw.requests") + house.rows("from ops.quarantine"), default=str
    )
    assert "gen-1" in kept
    assert not any(word in kept for word in ("Ada", "customer.example"))


def test_a_cancelled_generation_keeps_its_tokens_and_credits_and_says_so(house: House) -> None:
    rows = [
        row("cancelled", cancelled="true", finish_reason_normalized=""),
        row("broken", finish_reason_normalized="error"),
        row("both", cancelled="true", finish_reason_normalized="error"),
        row("cut", finish_reason_normalized="length"),
    ]
    house.put("openrouter/a.csv", csv(rows))

    house.night()

    found = house.rows("select * from marts.requests")
    assert {one["request_id"]: one["error_code"] for one in found} == {
        "cancelled": "cancelled",
        "broken": "error",
        "both": "cancelled",
        "cut": None,
    }
    assert {(one["credits"], one["total_tokens"], one["status"]) for one in found} == {
        (Decimal("1.23"), 10526, None)
    }
    [sums] = house.rows(
        "select sum(request_count)::bigint as requests, sum(error_count)::bigint as errors, "
        "sum(credits) as credits from marts.usage_quarter_hourly"
    )
    assert sums == {"requests": 4, "errors": 3, "credits": Decimal("4.92")}


MONEY = {
    "0.00010185000000000001": "0.010185000",
    "4.2e-7": "0.000042000",
    "0.000000000005": "0.000000000",
    "0.000000000015": "0.000000002",
    "0": "0.000000000",
    "12.5": "1250.000000000",
}


def test_money_is_its_decimal_text_and_what_was_rounded_is_counted(house: House) -> None:
    house.put("openrouter/a.csv", csv([row(cost, cost_total=cost) for cost in MONEY]))

    house.night()

    found = house.rows("select request_id, credits from marts.requests")
    assert {one["request_id"]: f"{one['credits']:f}" for one in found} == MONEY
    account = house.rows("select rounded_count, credits from ops.source_objects")
    assert account == [{"rounded_count": 3, "credits": decimals(found)}]


@pytest.mark.parametrize("zone", ["", 'time_zone = "America/New_York"\n'])
def test_a_time_without_a_zone_is_the_sources_and_one_with_a_zone_its_own(
    tmp_path: Path, some_models: Models, zone: str
) -> None:
    house = House(tmp_path / "house", some_models, SETTINGS + zone)
    rows = [row("local"), row("zoned", created_at="2026-11-20T10:00:00+01:00")]
    house.put("openrouter/a.csv", csv(rows))

    house.night()

    found = house.rows("select request_id, completed_at from marts.requests")
    times = {one["request_id"]: one["completed_at"] for one in found}
    assert times.pop("zoned") == datetime(2026, 11, 20, 9)
    if zone:
        assert times == {"local": datetime(2026, 11, 20, 15, 0, 0, 713_000)}
    else:
        assert house.value("select reason from ops.quarantine") == (
            "created_at has no zone, and the source has no time_zone"
        )


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"cost_total": ""}, "cost_total is missing"),
        ({"cost_total": "-0.5"}, "cost_total is negative"),
        ({"cost_total": "$0.5"}, "cost_total is not a plain number"),
        ({"generation_id": ""}, "generation_id is missing"),
        ({"tokens_prompt": "1.5"}, "tokens_prompt is not a whole number"),
        ({"cancelled": "perhaps"}, "cancelled is neither true nor false"),
    ],
)
def test_a_row_that_would_need_guessing_is_set_aside_alone(
    house: House, stated: dict[str, str], reason: str
) -> None:
    house.put("openrouter/a.csv", csv([row("before"), row("odd") | stated, row("after")]))

    house.night()

    found = house.rows("select request_id from marts.requests order by 1 desc")
    assert [one["request_id"] for one in found] == ["before", "after"]
    assert house.rows("select line_number, reason from ops.quarantine") == [
        {"line_number": 3, "reason": reason}
    ]


def test_a_clean_file_and_one_read_line_by_line_give_the_same(
    tmp_path: Path, some_models: Models
) -> None:
    """With a zone the engine reads the file; without one each line is read by itself."""
    found = []
    for name, created_at in (("a", "2026-11-20T10:00:00.713Z"), ("b", "2026-11-20 10:00:00.713")):
        house = House(tmp_path / name, some_models, SETTINGS + 'time_zone = "UTC"\n')
        rows = [row(cost, cost_total=cost, created_at=created_at) for cost in MONEY]
        rows.append(row("gen-9", cancelled="true", streamed="", created_at=created_at))
        house.put("openrouter/a.csv", csv(rows))
        house.night()
        found.append(
            house.rows(
                "select * exclude (source_object, source_line) from marts.requests order by all"
            )
        )

    assert found[0] == found[1]


def test_an_export_pulled_again_with_more_in_it_counts_nothing_twice(house: House) -> None:
    house.put("openrouter/monday.csv", csv([row("gen-1")]))
    house.night()
    house.put("openrouter/tuesday.csv", csv([row("gen-1"), row("gen-2")]))

    house.night()

    assert house.value("select sum(credits) from marts.usage_quarter_hourly") == Decimal("2.46")
    assert house.value("select sum(duplicate_count)::bigint from ops.source_objects") == 1

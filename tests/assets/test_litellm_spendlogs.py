"""LiteLLM's SpendLogs: the real thing to the last decimal, and a small hand-made file of its
shape.
"""

import gzip
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.night import Published
from tests.houses import ROLL_UPS, House, decimals, jsonl, request_models, spend_log

SETTINGS = """
[warehouse]
root = "data"
credits_per_usd = 100

[[requests]]
name = "litellm"
format = "litellm_spendlogs"
location = "landing/litellm"
"""
AS_OF = datetime(2026, 11, 23)
EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
NINE = Decimal("1E-9")


def told_by(line: str) -> dict[str, Any]:
    """What the contract makes of one row, by Python's own JSON and decimals, apart from the
    house.
    """
    row = json.loads(line, parse_float=Decimal)
    credits = EXACT.multiply(Decimal(row["spend"]), Decimal(100))
    metadata = json.loads(row["metadata"]) if isinstance(row["metadata"], str) else row["metadata"]
    error = (metadata.get("error_information") or {}) if row["status"] == "failure" else {}
    code = error.get("error_code") or ""
    asked = row["model"] if row["model"] not in ("", "unknown-model") else None
    completed = datetime.fromisoformat(row["endTime"]).astimezone(UTC).replace(tzinfo=None)
    return {
        "request_id": row["request_id"],
        "completed_at": completed,
        "usage_date": completed.date(),
        "workspace_id": row["team_id"] or None,
        "api_key_id": row["api_key"] or None,
        "member_id": None,
        "source": "api",
        "requested_model": row["model_group"] or asked,
        "model": row["model"] if row["model_id"] else None,
        "status": 200 if row["status"] == "success" else int(code) if code else None,
        "error_code": error.get("error_class") or None,
        "prompt_tokens": row["prompt_tokens"],
        "completion_tokens": row["completion_tokens"],
        "total_tokens": row["total_tokens"],
        "credits": EXACT.quantize(credits, NINE),
        "latency_ms": row["request_duration_ms"],
    }


def is_rounded(line: str) -> bool:
    spend = json.loads(line, parse_float=Decimal)["spend"]
    credits = EXACT.multiply(Decimal(spend), Decimal(100))
    return credits != EXACT.quantize(credits, NINE)


def by_id(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row["request_id"]))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "house", request_models(tmp_path / "sql", *ROLL_UPS), SETTINGS)


def test_the_real_spend_logs_come_to_the_last_decimal(house: House, shared: Path) -> None:
    packed = shared / "data" / "litellm" / "spendlogs.jsonl.gz"
    house.put("litellm/spendlogs.jsonl.gz", packed.read_bytes())
    with gzip.open(packed, "rt", encoding="utf-8") as file:
        lines = list(file)

    said = house.ask("nightly", "--as-of", str(AS_OF))

    assert said.returncode == 0, said.stderr
    assert "1,200 requests of 21 keys" in said.stdout
    assert "458 requests stated money beyond nine places" in said.stdout
    [total] = house.rows(
        "select count(*) as requests, count(distinct api_key_id) as keys, sum(credits) as credits, "
        "sum(total_tokens)::bigint as tokens from marts.requests"
    )
    assert total == {
        "requests": 1200,
        "keys": 21,
        "credits": Decimal("329.312091000"),
        "tokens": 1_367_443,
    }
    for table in ("usage_by_model", "usage_by_key", "usage_by_member", "usage_quarter_hourly"):
        rows = house.rows(f"select request_count, total_tokens, credits from marts.{table}")
        assert decimals(rows) == Decimal("329.312091000"), table
        assert sum(row["total_tokens"] for row in rows) == 1_367_443, table
        assert sum(row["request_count"] for row in rows) == 1200, table
    assert sum(map(is_rounded, lines)) == 458
    assert house.value("select sum(rounded_count)::bigint from ops.source_objects") == 458
    expected = by_id(told_by(line) for line in lines)
    assert by_id(house.rows(f"select {', '.join(expected[0])} from marts.requests")) == expected


def test_the_real_objects_hold_no_prompt_address_or_agent(house: House, shared: Path) -> None:
    packed = shared / "data" / "litellm" / "spendlogs.jsonl.gz"
    house.put("litellm/spendlogs.jsonl.gz", packed.read_bytes())

    house.night(AS_OF)

    kept = house.rows("select * from raw.requests")
    text = json.dumps(kept, default=str)
    assert not any(word in text for word in ("127.0.0.1", "curl/7", "user_agent", "alias-00"))


# ---- a small file of the same shape ---------------------------------------------------------

FAILED = json.dumps(
    {
        "error_information": {"error_code": "429", "error_class": "RateLimitError"},
        "attempted_fallbacks": 0,
    }
)
NO_CODE = json.dumps({"error_information": {"error_code": "", "error_class": "Timeout"}})
NAMELESS = json.dumps({"error_information": {"error_code": None, "error_class": ""}})
FELL_BACK = json.dumps({"attempted_fallbacks": 1, "original_model_group": "opus"})

SMALL = [
    spend_log("plain", 0.0041475),
    spend_log("noisy", 0.00010185000000000001),
    spend_log("half_down", "0.00000000000500"),
    spend_log("half_up", "0.00000000001500"),
    spend_log("tiny", 1e-12),
    spend_log("free", 0.0),
    spend_log("dear", "1234567.123456789012345678"),
    spend_log("failed", 0.0, status="failure", metadata=FAILED),
    spend_log("no_code", 0.0, status="failure", metadata=NO_CODE),
    spend_log("nameless", 0.0, status="failure", metadata=NAMELESS),
    spend_log("unserved", 0.0, model="unknown-model", model_id="", model_group=""),
    spend_log("unlisted", 0.0, model="openai/x", model_id="", model_group=""),
    spend_log("fell_back", 0.01, metadata=FELL_BACK),
    spend_log("nobody", 0.01, team_id="", api_key=""),
    spend_log("zoned", 0.01, endTime="2026-11-20T01:30:00.123456+05:30"),
]


def test_a_small_file_of_that_shape_comes_to_the_last_decimal(house: House) -> None:
    house.put("litellm/small.jsonl", SMALL)

    house.night(AS_OF)

    expected = by_id(told_by(json.dumps(line)) for line in SMALL)
    assert by_id(house.rows(f"select {', '.join(expected[0])} from marts.requests")) == expected
    rounded = sum(is_rounded(json.dumps(line)) for line in SMALL)
    assert house.value("select sum(rounded_count)::bigint from ops.source_objects") == rounded


ROUNDED = {
    "0.000000000005": "0.000000000",
    "0.000000000015": "0.000000002",
    "0.000000000025": "0.000000002",
    "0.0000000000250000001": "0.000000003",
    "1e-11": "0.000000001",
    "4.9E-12": "0.000000000",
    "5.000000000000001e-12": "0.000000001",  # finer than what is multiplied; rounded once
    "4.9999999999999999e-12": "0.000000000",
    "0.00000000001499999999999999999999": "0.000000001",
    "0.00000000002500000000000000000000001": "0.000000003",
    "0e0099999": "0.000000000",
    "2.5E1": "2500.000000000",
    "9999999.99999999999": "999999999.999999999",
}


def test_money_beyond_nine_places_goes_to_the_even_neighbour(house: House) -> None:
    house.put("litellm/a.jsonl", [spend_log(spend, spend) for spend in ROUNDED])

    house.night(AS_OF)

    found = house.rows("select request_id, credits from marts.requests")
    assert {row["request_id"]: f"{row['credits']:f}" for row in found} == ROUNDED


def test_money_that_rounds_up_to_a_billion_credits_is_set_aside_alone(house: House) -> None:
    too_much = spend_log("too_much", "9999999.9999999999999999")
    house.put("litellm/a.jsonl", [spend_log("before"), too_much, spend_log("after")])

    house.night(AS_OF)

    found = house.rows("select request_id from marts.requests")
    assert {row["request_id"] for row in found} == {"before", "after"}
    [row] = house.rows("select line_number, reason from ops.quarantine")
    assert row == {"line_number": 2, "reason": "a value is out of range"}


def test_a_field_that_nothing_is_made_of_may_be_anything_whoever_reads_it(house: House) -> None:
    odd = spend_log("odd", startTime=[1])
    twice = jsonl([spend_log("twice")]).replace("{", '{"startTime": 1, ', 1)
    house.put("litellm/clean.jsonl", jsonl([odd]) + twice)
    house.put("litellm/careful.jsonl", [odd, "{broken", spend_log("more")])

    house.night(AS_OF)

    found = house.rows("select request_id from staging.requests order by 1")
    assert [row["request_id"] for row in found] == ["more", "odd", "twice"]
    assert house.value("select count(*) from ops.quarantine") == 1


def test_a_fallback_is_read_from_the_metadata(house: House) -> None:
    house.put("litellm/small.jsonl", SMALL)

    house.night(AS_OF)

    [row] = house.rows(
        "select fallback_from, fallback_depth from marts.requests where request_id = 'fell_back'"
    )
    assert row == {"fallback_from": "opus", "fallback_depth": 1}
    assert house.value("select sum(fallback_count)::bigint from marts.usage_by_model") == 1


def test_a_workspace_comes_from_the_team_then_the_directory_then_the_source(
    tmp_path: Path,
) -> None:
    models = request_models(tmp_path / "sql", *ROLL_UPS)
    house = House(tmp_path / "house", models, SETTINGS + 'workspace_id = "ws_source"\n')
    house.put("directory/keys.csv", "api_key_id,workspace_id,name\nkey_known,ws_directory,Bot\n")
    house.put(
        "litellm/a.jsonl",
        [
            spend_log("by_team", team_id="team"),
            spend_log("by_key", team_id="", api_key="key_known"),
            spend_log("by_source", team_id="", api_key="key_unknown"),
            spend_log("absent", team_id=None, api_key=None),
        ],
    )

    house.night(AS_OF)

    found = house.rows("select request_id, workspace_id from marts.requests")
    assert {row["request_id"]: row["workspace_id"] for row in found} == {
        "by_team": "team",
        "by_key": "ws_directory",
        "by_source": "ws_source",
        "absent": "ws_source",
    }


def test_the_night_reports_how_many_rows_were_rounded(house: House) -> None:
    house.put("litellm/small.jsonl", SMALL)

    happened = house.night(AS_OF)

    assert any(isinstance(event, Published) for event in happened)
    rounded = sum(is_rounded(json.dumps(line)) for line in SMALL)
    [row] = house.rows("select rounded_count, read_count, accepted_count from ops.source_objects")
    assert row == {
        "rounded_count": rounded,
        "read_count": len(SMALL),
        "accepted_count": len(SMALL),
    }

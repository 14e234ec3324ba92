"""The dashboard's CSV export: read by its nine names, and beside the canonical log a witness."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipelines.models import Models
from tests.houses import House, csv, jsonl, models_for, request

SETTINGS = """
[warehouse]
root = "data"

[[requests]]
name = "gateway"
gateway = "infery"
format = "canonical"
location = "landing/requests"

[[requests]]
name = "dashboard"
gateway = "infery"
format = "usage_csv"
location = "landing/dashboard"
workspace_id = "ws_1"
time_zone = "Europe/London"
"""


def row(request_id: str = "req_1", **stated: Any) -> dict[str, Any]:
    return {
        "timestamp": "2026-11-20T10:00:00Z",
        "model": "gpt-5",
        "api_key_id": "key_1",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "credits_used": "2.5",
        "request_id": request_id,
        "latency_ms": 900,
        "fallback_depth": 0,
    } | stated


@pytest.fixture
def house(tmp_path: Path, some_models: Models) -> House:
    return House(tmp_path / "house", some_models, settings=SETTINGS)


def test_what_the_export_states_is_kept_and_what_it_leaves_out_is_null(house: House) -> None:
    house.put("dashboard/a.csv", csv([row(), row("req_2", fallback_depth=2, latency_ms="")]))

    house.night()

    one, two = house.rows("select * from marts.requests order by request_id")
    stated = {
        "request_id": "req_1",
        "completed_at": datetime(2026, 11, 20, 10),
        "workspace_id": "ws_1",  # the source's setting: the export is of one workspace
        "api_key_id": "key_1",
        "model": "gpt-5",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "credits": Decimal("2.5"),
        "latency_ms": 900,
        "fallback_depth": 0,
        "source_line": 2,
    }
    assert {name: one[name] for name in stated} == stated
    absent = ("source", "member_id", "requested_model", "status", "error_code", "fallback_from")
    assert [one[name] for name in absent] == [None] * 6
    assert (two["fallback_depth"], two["latency_ms"], two["source_line"]) == (2, None, 3)


def test_columns_stand_in_any_order_and_a_time_without_zone_is_the_sources(house: House) -> None:
    rows = [dict(reversed(row(timestamp="2026-07-20 10:00:00").items()))]
    house.put("dashboard/a.csv", "\ufeff" + csv(rows).replace("\n", "\r\n"))

    house.night()

    assert house.value("select completed_at from marts.requests") == datetime(2026, 7, 20, 9)


def test_beside_the_canonical_log_it_corroborates_and_fills_what_is_missing(house: House) -> None:
    house.put("dashboard/a.csv", csv([row(credits_used="2"), row("req_2")]))
    house.put("requests/a.jsonl", jsonl([request("req_1", latency_ms=None)]))

    house.night()

    rows = house.rows(
        "select request_id, credits, latency_ms, source from marts.requests order by 1"
    )
    assert [tuple(one.values()) for one in rows] == [
        ("req_1", Decimal("2.5"), 900, "api"),
        ("req_2", Decimal("2.5"), 900, None),
    ]
    [conflict] = house.rows("select * from ops.conflicts")
    assert (conflict["differs_in"], conflict["credits"]) == ("credits", Decimal(2))
    counts = house.rows(
        "select accepted_count, corroborating_count from ops.source_objects "
        "where source = 'dashboard'"
    )
    assert [tuple(one.values()) for one in counts] == [(1, 1)]


def test_a_needed_column_that_is_missing_sets_every_row_aside(house: House) -> None:
    rows = [row(), row("req_2")]
    for one in rows:
        del one["credits_used"]
    house.put("dashboard/a.csv", csv(rows))

    house.night()

    assert house.value("select count(*) from marts.requests") == 0
    reasons = house.rows("select distinct reason from ops.quarantine")
    assert [one["reason"] for one in reasons] == ["the header has no column credits_used"]
    assert house.value("select count(*) from ops.quarantine") == 2


def test_what_meterhouse_exports_another_meterhouse_reads(tmp_path: Path) -> None:
    """The nine columns go out as they come in: credits to the last decimal, every token."""
    first = House(tmp_path / "first", models_for("marts.usage_by_key"), SETTINGS)
    lines = [
        request(f"req_{number}", credits_used=f"{number}.00000000{number}", latency_ms=number)
        for number in range(1, 9)
    ]
    first.put("requests/a.jsonl", jsonl(lines))
    first.night()
    days = ("--from", "2026-11-20", "--to", "2026-11-20")
    said = first.ask("export", "usage", *days, "--format", "csv", "--out", str(tmp_path / "out"))
    assert said.returncode == 0, said.stderr
    [exported] = (tmp_path / "out").rglob("*.csv")
    second = House(tmp_path / "second", first.models, SETTINGS)
    second.put("dashboard/a.csv", exported.read_text())

    second.night()

    facts = "request_id, completed_at, model, api_key_id, prompt_tokens, completion_tokens, credits"
    query = f"select {facts}, latency_ms from marts.requests order by request_id"
    assert second.rows(query) == first.rows(query)

"""LiteLLM's StandardLoggingPayload: a record an attempt, folded into requests, beside SpendLogs of
the same requests.
"""

import gzip
import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from assets.requests import IDS_AND_CALLS
from tests.houses import AS_OF, NOON_EPOCH, House, attempt, request_models, spend_log
from tests.sql.makers import DAY, NOON, contest

SETTINGS = """
[warehouse]
root = "data"

[[requests]]
name = "spend"
gateway = "litellm"
format = "litellm_spendlogs"
location = "landing/spend"

[[requests]]
name = "payload"
gateway = "litellm"
format = "litellm_payload"
location = "landing/payload"

[exports]
location = "out"
"""

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, request_models(tmp_path / "sql"), SETTINGS)


FAILED = {
    "status": "failure",
    "total_tokens": 0,
    "response_cost": 0.0,
    "error_information": {"error_code": "429", "error_class": "RateLimitError"},
}


def test_an_attempt_by_itself_is_a_request(house: House) -> None:
    house.put("payload/a.jsonl", [attempt(endTime=NOON_EPOCH + 0.015312)])
    house.night()

    [row] = house.rows("from marts.requests")
    assert (row["request_id"], row["api_key_id"], row["workspace_id"]) == ("att_1", "key_1", "ws_1")
    assert (row["credits"], row["status"], row["error_code"]) == (Decimal("2.5"), 200, None)
    assert row["completed_at"] == NOON + timedelta(microseconds=15312)
    assert row["latency_ms"] == 1000


@pytest.mark.parametrize("nights", [1, 2])
def test_attempts_fold_into_the_last_whenever_they_arrive(house: House, nights: int) -> None:
    first = attempt("att_1", **FAILED | {"response_cost": 0.01, "endTime": NOON_EPOCH - 5})
    last = attempt("att_2")
    if nights == 1:
        house.put("payload/a.jsonl", [last, first])
        house.night()
    else:
        house.put("payload/b.jsonl", [last])
        house.night()
        house.put("payload/a.jsonl", [first])
        house.night()

    [row] = house.rows("from marts.requests")
    assert (row["request_id"], row["status"], row["credits"]) == ("att_2", 200, Decimal("3.5"))
    objects = house.rows("from ops.source_objects")
    assert sum(row["folded_count"] for row in objects) == 1
    assert sum(row["accepted_count"] for row in objects) == 1
    assert not house.rows("from ops.conflicts")


@pytest.mark.parametrize("payload_first", [True, False])
def test_attempts_fold_though_other_records_of_a_day_came_in_two_wordings(
    house: House, payload_first: bool
) -> None:
    """Objects with the same ids share an object of the id index, which then has as many entries as
    there are records although calls have some of their own.
    """
    spent = [spend_log(name) for name in ("req_1", "req_2")]
    nights = [
        {"spend/a.jsonl": spent},
        {"spend/b.jsonl": [line | {"shipped_by": "another"} for line in spent]},
        {"payload/a.jsonl": [attempt("att_1", endTime=NOON_EPOCH - 5, **_cost(0.01))]},
        {"payload/b.jsonl": [attempt("att_2")]},
    ]
    for arrived in nights[::-1] if payload_first else nights:
        for name, lines in arrived.items():
            house.put(name, lines)
        house.night()

    credits = "select request_id, credits from marts.requests order by request_id"
    told = [tuple(row.values()) for row in house.rows(credits)]
    of_call, of_others = Decimal("3.5"), Decimal("2.5")
    assert told == [("att_2", of_call), ("req_1", of_others), ("req_2", of_others)]


def test_calls_that_an_earlier_release_indexed_are_whole_contests(house: House) -> None:
    """Its mark of a day did not say whether calls are in the index."""
    contests = "select request_id, format, contest_id from staging.request_contests order by all"
    house.put("payload/a.jsonl", [attempt("att_1", endTime=NOON_EPOCH - 5), attempt("att_2")])
    house.night()
    snapshot = house.root / "snapshot.json"
    marked = snapshot.read_text()
    assert IDS_AND_CALLS in marked
    snapshot.write_text(marked.replace(IDS_AND_CALLS, f"DuckDB {duckdb.__version__}"))

    house.put("spend/a.jsonl", [spend_log("att_2")])
    house.night()

    found = house.rows(contests)
    assert [row["contest_id"] for row in found] == ["att_1"] * 3
    house.night(everything=True)
    assert house.rows(contests) == found


def test_a_call_whose_attempts_end_on_two_days_is_one_request_on_the_later(house: House) -> None:
    midnight = NOON_EPOCH + 12 * 3600
    house.put("payload/a.jsonl", [attempt("att_1", endTime=midnight - 1, **_cost(0.01))])
    house.night()
    house.put("payload/b.jsonl", [attempt("att_2", endTime=midnight + 1)])
    house.night(AS_OF + timedelta(days=1))

    [row] = house.rows("from marts.requests")
    assert (row["request_id"], row["usage_date"]) == ("att_2", DAY + timedelta(days=1))
    assert row["credits"] == Decimal("3.5")
    assert [
        (quarter["usage_date"], quarter["credits"])
        for quarter in house.rows("from marts.usage_quarter_hourly")
    ] == [(DAY + timedelta(days=1), Decimal("3.5"))]


def _cost(dollars: float) -> dict[str, Any]:
    return {"response_cost": dollars}


def test_an_attempt_delivered_again_is_a_duplicate_whether_it_was_followed_or_not(
    house: House,
) -> None:
    attempts = [attempt("att_1", endTime=NOON_EPOCH - 5, **_cost(0.01)), attempt("att_2")]
    house.put("payload/a.jsonl", attempts)
    house.night()
    house.put("payload/b.jsonl", [*attempts, attempt("att_3", "call_3")])
    house.night()

    objects = house.rows("from ops.source_objects")
    totals = {
        name: sum(row[f"{name}_count"] for row in objects)
        for name in ("read", "accepted", "folded", "duplicate")
    }
    assert totals == {"read": 5, "accepted": 2, "folded": 1, "duplicate": 2}
    assert sum(row["credits"] for row in house.rows("from marts.requests")) == Decimal("6")
    assert not house.rows("from ops.conflicts")  # the same again contradicts nothing


def test_an_attempt_told_again_with_other_credits_is_a_conflict_of_the_whole_call(
    house: House,
) -> None:
    house.put("payload/a.jsonl", [attempt("att_1", endTime=NOON_EPOCH - 5, **_cost(0.01))])
    house.put("payload/b.jsonl", [attempt("att_2"), attempt("att_2", **_cost(0.015))])
    house.night()

    [conflict] = house.rows("from ops.conflicts")
    assert (conflict["request_id"], conflict["differs_in"]) == ("att_2", "credits")
    assert (conflict["credits"], conflict["winner_credits"]) == (Decimal("2.5"), Decimal("3.5"))


def test_spend_logs_count_where_both_logs_tell_of_a_request(house: House) -> None:
    house.put("payload/a.jsonl", [attempt("att_1", endTime=NOON_EPOCH - 5, **FAILED)])
    house.night()
    house.put("spend/a.jsonl", [spend_log("att_2", 0.025, total_tokens=9)])
    house.night()
    house.put("payload/b.jsonl", [attempt("att_2", stream=True)])
    house.night()

    [row] = house.rows("from marts.requests")
    assert (row["request_id"], row["credits"], row["total_tokens"]) == ("att_2", Decimal("2.5"), 9)
    assert row["is_streamed"] is True  # filled by the payload, which corroborates
    counts = {
        row["source"]: (row["accepted_count"], row["folded_count"], row["corroborating_count"])
        for row in sorted(house.rows("from ops.source_objects"), key=lambda row: row["location"])
        if row["source"] == "spend" or row["corroborating_count"]
    }
    assert counts == {"spend": (1, 0, 0), "payload": (0, 0, 1)}
    [conflict] = house.rows("from ops.conflicts")
    assert conflict["differs_in"] == "total_tokens"


def test_a_fallback_shows_in_the_models_that_the_attempts_asked_for(run_model: Run) -> None:
    call = {"format": "litellm_payload", "call_id": "call_1", "contest_id": "att_1"}
    first = contest(request_id="att_1", requested_model="flaky", model=None, **call)
    last = contest(
        request_id="att_2",
        requested_model="gpt-4o-mini",
        completed_at=NOON + timedelta(seconds=1),
        **call,
    )

    [row] = run_model(
        "staging.request_winners", {"staging.request_contests": [last, first]}, day=DAY
    )

    assert (row["request_id"], row["fallback_from"], row["fallback_depth"]) == ("att_2", "flaky", 1)


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        (1795332689015, "endTime is not seconds since 1970"),
        ("2026-11-20", "endTime is not seconds since 1970"),
        (None, "endTime is missing"),
    ],
    ids=["milliseconds", "a date", "null"],
)
def test_only_seconds_are_an_end(house: House, ends: Any, reason: str) -> None:
    house.put("payload/a.jsonl", [attempt(endTime=ends), attempt("att_2", "call_2")])
    house.night()

    assert [row["reason"] for row in house.rows("from ops.quarantine")] == [reason]
    assert [row["request_id"] for row in house.rows("from marts.requests")] == ["att_2"]


def test_the_two_real_logs_of_one_proxy_agree_after_folding(house: House, shared: Path) -> None:
    logs = {}
    for source, name in (("spend", "spendlogs"), ("payload", "standard_logging_payload")):
        packed = (shared / "data" / "litellm" / f"{name}.jsonl.gz").read_bytes()
        house.put(f"{source}/{name}.jsonl.gz", packed)
        logs[source] = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    house.night(AS_OF + timedelta(days=2))

    objects = {row["source"]: row for row in house.rows("from ops.source_objects")}
    spend, payload = objects["spend"], objects["payload"]
    # 1,250 attempts are 1,182 requests: 1,180 of them stand in SpendLogs too, two only here
    assert (spend["read_count"], spend["accepted_count"]) == (1200, 1200)
    assert payload["read_count"] == 1250
    assert payload["folded_count"] == 68
    assert payload["corroborating_count"] == 1180
    assert payload["accepted_count"] == 2

    requests = {row["request_id"]: row for row in house.rows("from marts.requests")}
    assert len(requests) == 1202
    both = {row["request_id"] for row in logs["spend"]} & {row["id"] for row in logs["payload"]}
    assert len(both) == 1180
    assert len(requests.keys() - both) == 22  # stand in one of the two only

    # They agree in credits and status; seven failures state 9 tokens here and 0 there.
    conflicts = house.rows("from ops.conflicts")
    assert [row["differs_in"] for row in conflicts] == ["prompt_tokens, total_tokens"] * 7
    assert all(row["credits"] == row["winner_credits"] for row in conflicts)
    assert {requests[row["request_id"]]["error_code"] is None for row in conflicts} == {False}
    for record in logs["payload"]:
        if record["id"] in both:
            code = record["error_information"]["error_code"] or None
            stated = "200" if record["status"] == "success" else code
            assert requests[record["id"]]["status"] == (stated and int(stated))

    # Before mapping, eight differ in the model's text: it never existed, and nothing served it.
    texts = {row["request_id"]: row["model"] for row in logs["spend"]}
    named = {
        row["id"]: (texts[row["id"]], row["model"])
        for row in logs["payload"]
        if row["id"] in both and texts[row["id"]] != row["model"]
    }
    assert list(named.values()) == [("unknown-model", "nope")] * 8
    assert {requests[name]["model"] for name in named} == {None}
    assert {requests[name]["requested_model"] for name in named} == {"nope"}

"""The gateway's totals beside what we counted: a warning names each day and model that differ."""

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from tests.sql.makers import NOON, request

Run = Callable[..., list[dict[str, Any]]]
CLAIM = "usage_api_totals__agree_with_what_landed"
DAY = NOON.date()


def total(model: str | None = "gpt-5", **stated: Any) -> dict[str, Any]:
    return {
        "source_name": "api",
        "gateway": "infery",
        "usage_date": DAY,
        "model": model,
        "request_count": 1,
        "credits": Decimal(2),
        "arrived_at": NOON,
    } | stated


def ours(model: str | None = "gpt-5", **stated: Any) -> dict[str, Any]:
    row = {"gateway": "infery", "model": model, "credits": Decimal(2), "workspace_id": "ws_1"}
    return request(**(row | stated))


def differences(
    run_model: Run, totals: list[Any], requests: list[Any], workspace_id: str | None = None
) -> list[tuple[date, str, str, str]]:
    sources = [{"source_name": "api", "workspace_id": workspace_id}] if workspace_id else []
    rows = run_model(
        CLAIM,
        {"raw.usage_api_totals": totals, "staging.requests": requests, "raw.sources": sources},
        as_of=NOON,
    )
    return [(row["usage_date"], row["claim"], row["expected"], row["found"]) for row in rows]


def test_totals_that_are_ours_are_no_news(run_model: Run) -> None:
    totals = [total(), total(None, request_count=None, credits=Decimal(4))]

    assert differences(run_model, totals, [ours(), ours(None), ours(None)]) == []


def test_a_difference_in_either_is_named_and_so_is_a_model_that_one_side_lacks(
    run_model: Run,
) -> None:
    totals = [total(), total("only_theirs"), total("fewer", request_count=3)]
    requests = [ours(credits=Decimal("2.5")), ours("fewer"), ours("only_ours")]

    found = differences(run_model, totals, requests)

    assert {(claim.split()[4], expected, counted) for _, claim, expected, counted in found} == {
        ("gpt-5", two("1"), "2.500000000 credits in 1 requests"),
        ("only_theirs", two("1"), "0.000000000 credits in 0 requests"),
        ("fewer", two("3"), two("1")),
        ("only_ours", "0.000000000 credits in 0 requests", two("1")),
    }


def two(count: str) -> str:
    return f"2.000000000 credits in {count} requests"


def test_the_newest_answer_of_a_day_speaks_whole(run_model: Run) -> None:
    older = NOON - timedelta(hours=1)
    totals = [
        total(arrived_at=older, credits=Decimal(9)),
        total("gone", arrived_at=older),
        total(),
    ]

    assert differences(run_model, totals, [ours()]) == []


def test_days_and_gateways_that_were_not_asked_for_are_not_compared(run_model: Run) -> None:
    other_day = DAY - timedelta(days=1)
    requests = [ours(), ours(gateway="litellm"), ours(usage_date=other_day)]

    assert differences(run_model, [total()], requests) == []


def test_a_source_of_one_workspace_is_compared_with_that_one(run_model: Run) -> None:
    requests = [ours(), ours(workspace_id="ws_2"), ours(workspace_id=None)]

    assert differences(run_model, [total()], requests, "ws_1") == []
    assert len(differences(run_model, [total()], requests)) == 1

"""What fallbacks took, and what they saved by estimate: never invented, signed, rounded once."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.houses import House
from tests.houses import request as line
from tests.sql.makers import DAY, request

Run = Callable[..., list[dict[str, Any]]]


def fallback(**stated: Any) -> dict[str, Any]:
    """A row of staging.fallbacks: ten requests that fell from opus to sonnet."""
    return {
        "usage_date": DAY,
        "workspace_id": "ws_1",
        "fallback_from": "opus",
        "model": "sonnet",
        "request_count": 10,
        "total_tokens": 1000,
        "credits": Decimal(3),
    } | stated


def usage(**stated: Any) -> dict[str, Any]:
    """A row of marts.usage_by_model: what opus itself took in a day."""
    return {
        "usage_date": DAY,
        "workspace_id": "ws_1",
        "model": "opus",
        "request_count": 5,
        "total_tokens": 500,
        "credits": Decimal(5),
    } | stated


def estimate(run_model: Run, fell: dict[str, Any], *used: dict[str, Any]) -> dict[str, Any]:
    [row] = run_model(
        "marts.fallback_estimates",
        {"staging.fallbacks": [fell], "marts.usage_by_model": used},
        day=DAY,
    )
    return row


def test_the_estimate_is_what_the_model_that_failed_takes_for_as_many_tokens(
    run_model: Run,
) -> None:
    row = estimate(run_model, fallback(), usage())

    assert row["estimated_credits"] == Decimal(10)
    assert row["estimated_saved_credits"] == Decimal(7)
    assert (row["request_count"], row["credits"]) == (10, Decimal(3))


def test_a_fallback_to_something_dearer_saved_less_than_nothing(run_model: Run) -> None:
    row = estimate(run_model, fallback(credits=Decimal("12.5")), usage())

    assert row["estimated_saved_credits"] == Decimal("-2.5")


def test_the_basis_is_thirty_days_of_the_same_workspace(run_model: Run) -> None:
    row = estimate(
        run_model,
        fallback(),
        usage(usage_date=DAY - timedelta(days=29), credits=Decimal(1)),
        usage(usage_date=DAY - timedelta(days=30), credits=Decimal(1000)),
        usage(usage_date=DAY + timedelta(days=1), credits=Decimal(1000)),
        usage(workspace_id="ws_2", credits=Decimal(1000)),
        usage(workspace_id=None, credits=Decimal(1000)),
        usage(model="opus-mini", credits=Decimal(1000)),
    )

    assert (row["basis_total_tokens"], row["basis_credits"]) == (500, Decimal(1))
    assert row["estimated_credits"] == Decimal(2)


def test_requests_of_no_workspace_are_held_against_their_like(run_model: Run) -> None:
    row = estimate(run_model, fallback(workspace_id=None), usage(workspace_id=None), usage())

    assert row["basis_request_count"] == 5


@pytest.mark.parametrize("served", ["opus", "anthropic/opus", "eu/anthropic/opus"])
def test_a_model_is_known_behind_its_providers_name(run_model: Run, served: str) -> None:
    assert estimate(run_model, fallback(), usage(model=served))["estimated_credits"] == 10


@pytest.mark.parametrize(
    ("fell", "used"),
    [
        (fallback(), usage(model="other")),
        (fallback(), usage(total_tokens=0)),
        (fallback(total_tokens=0), usage()),
        (fallback(model=None, credits=Decimal(0)), usage()),
        (fallback(fallback_from=None), usage()),
    ],
)
def test_without_a_basis_nothing_is_invented(
    run_model: Run, fell: dict[str, Any], used: dict[str, Any]
) -> None:
    row = estimate(run_model, fell, used)

    assert (row["estimated_credits"], row["estimated_saved_credits"]) == (None, None)
    assert row["request_count"] == 10


def test_an_estimate_is_rounded_once_to_nine_places(run_model: Run) -> None:
    row = estimate(run_model, fallback(total_tokens=1), usage(total_tokens=3, credits=Decimal(1)))

    assert row["estimated_credits"] == Decimal("0.333333333")
    assert row["estimated_saved_credits"] == Decimal("-2.666666667")


def test_what_fell_is_said_or_what_was_asked_for(run_model: Run) -> None:
    rows = run_model(
        "staging.fallbacks",
        {
            "raw.requests": [
                request(request_id="a", fallback_from="opus", requested_model="best"),
                request(request_id="b", fallback_depth=1, requested_model="opus"),
                request(request_id="c", fallback_depth=1, requested_model=None),
                request(request_id="d", fallback_depth=1, requested_model="gpt-4o"),
                request(request_id="e", fallback_depth=0),
                request(request_id="f"),
            ]
        },
        day=DAY,
    )

    assert [(row["fallback_from"], row["request_count"]) for row in rows] == [
        ("opus", 2), (None, 2),
    ]  # fmt: skip
    assert sum(row["credits"] for row in rows) == 10


def test_late_usage_of_the_model_that_failed_reaches_the_estimates_after_it(
    tmp_path: Path,
) -> None:
    house = House(tmp_path / "house")
    fell = {"fallback_from": "opus", "model": "sonnet", "credits_used": "1"}
    house.put("requests/a.jsonl", [line("fell", **fell)])
    house.night()
    before = house.value("select estimated_credits from marts.fallback_estimates")
    house.put("requests/b.jsonl", [line("own", "2026-11-01T10:00:00Z", model="opus")])

    house.night()

    assert before is None
    assert house.rows(
        "select fallback_from, model, estimated_credits, estimated_saved_credits "
        "from marts.fallback_estimates"
    ) == [
        {
            "fallback_from": "opus",
            "model": "sonnet",
            "estimated_credits": Decimal("2.5"),
            "estimated_saved_credits": Decimal("1.5"),
        }
    ]

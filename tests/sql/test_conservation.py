"""Conservation: every stage of a day against what was landed, to the last decimal."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.sql.makers import DAY, contest, request

Run = Callable[..., list[dict[str, Any]]]


def stages(credits: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The inputs of marts.conservation, each stage with the credits given and one request."""
    view = {"usage_date": DAY, "request_count": 1}
    return {
        "staging.request_counts": [
            view | {"stage": stage, "credits": Decimal(credits[stage])}
            for stage in ("raw", "staging")
        ],
        **{
            f"marts.usage_{name}": [view | {"credits": Decimal(credits[name])}]
            for name in ("by_model", "by_key", "by_member")
        },
        "marts.credit_ledger": [
            {"posted_date": DAY, "kind": "usage", "credits": -Decimal(credits["ledger"])}
        ],
        "ops.export_manifest": [
            {
                "usage_date": DAY,
                "kind": "csv",
                "row_count": 1,
                "credits": Decimal(credits["export"]),
            }
        ],
    }


NAMES = ("raw", "staging", "by_model", "by_key", "by_member", "ledger", "export")
EVEN = dict.fromkeys(NAMES, "2.500000001")


def test_stages_that_are_equal_agree(run_model: Run) -> None:
    rows = run_model("marts.conservation", stages(EVEN))

    assert {row["stage"]: row["agrees"] for row in rows} == dict.fromkeys(NAMES, True)


@pytest.mark.parametrize("stage", NAMES[1:])
def test_a_billionth_of_a_credit_is_a_disagreement(run_model: Run, stage: str) -> None:
    rows = run_model("marts.conservation", stages(EVEN | {stage: "2.500000002"}))

    assert [row["stage"] for row in rows if not row["agrees"]] == [stage]


@pytest.mark.parametrize("table", ["marts.usage_by_key", "marts.credit_ledger"])
def test_a_day_that_one_stage_lacks_is_a_disagreement(run_model: Run, table: str) -> None:
    rows = run_model("marts.conservation", stages(EVEN) | {table: []})

    assert [row["credits"] for row in rows if not row["agrees"]] == [Decimal(0)]


def test_exports_that_are_not_asked_for_are_no_stage(run_model: Run) -> None:
    rows = run_model("marts.conservation", stages(EVEN) | {"ops.export_manifest": []})

    assert {row["stage"] for row in rows if row["agrees"]} == set(NAMES) - {"export"}


def test_the_claim_names_the_day_the_table_and_both_numbers(run_model: Run) -> None:
    rows = run_model("marts.conservation", stages(EVEN | {"by_key": "2"}))

    [broken] = run_model("conservation__agrees", {"marts.conservation": rows})

    assert (broken["usage_date"], broken["table_name"]) == (DAY, "marts.usage_by_key")
    assert broken["expected"] == "2.500000001 credits in 1 requests"
    assert broken["found"] == "2.000000000 credits in 1 requests"


def test_raw_counts_a_contested_request_once_as_its_winner(run_model: Run) -> None:
    rows = run_model(
        "staging.request_counts",
        {
            "raw.request_manifest": [{"usage_date": DAY, "row_count": 3, "credits": Decimal(6)}],
            "staging.request_contests": [contest(credits=Decimal(1)), contest(credits=Decimal(2))],
            "staging.request_winners": [request(credits=Decimal(2))],
            "staging.request_hours": [
                {"usage_date": DAY, "request_count": 1, "credits": Decimal(credits)}
                for credits in (2, 3)
            ],
        },
        day=DAY,
    )

    assert {row["stage"]: (row["request_count"], row["credits"]) for row in rows} == {
        "raw": (2, Decimal(5)),
        "staging": (2, Decimal(5)),
    }

"""The accounts: what became of every record, and which disagree with the one that counts."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from tests.sql.makers import DAY, NOON, contest

Run = Callable[..., list[dict[str, Any]]]


def landed(sha256: str, **stated: Any) -> dict[str, Any]:
    return {
        "object_sha256": sha256,
        "source": "gateway",
        "read_count": 10,
        "landed_count": 9,
        "folded_count": 0,
        "quarantined_count": 1,
        "arrived_at": NOON,
    } | stated


def test_what_a_record_counts_as_is_counted_by_its_object(run_model: Run) -> None:
    def loser(source_object: str, counts_as: str) -> dict[str, Any]:
        return {
            "source_object": source_object,
            "source_line": 1,
            "source_name": "gateway",
            "counts_as": counts_as,
        }

    rows = run_model(
        "ops.source_objects",
        {
            "raw.source_objects": [landed("aa"), landed("bb"), landed("cc"), landed("dd")],
            "staging.request_losers": [
                loser("bb", "duplicate"),
                loser("cc", "corroborating"),
                loser("dd", "folded"),
            ],
        },
    )

    counts = {
        row["object_sha256"]: (
            row["accepted_count"],
            row["folded_count"],
            row["corroborating_count"],
            row["duplicate_count"],
        )
        for row in rows
    }
    assert counts == {
        "aa": (9, 0, 0, 0),
        "bb": (8, 0, 0, 1),
        "cc": (8, 0, 1, 0),
        "dd": (8, 1, 0, 0),
    }


def test_a_record_that_lost_is_a_duplicate_or_corroborates_by_its_format(run_model: Run) -> None:
    rows = run_model(
        "staging.request_losers",
        {
            "staging.request_contests": [
                contest(source_object="aa"),
                contest(source_object="bb"),
                contest(source_object="cc", format="usage_csv"),
            ],
        },
        day=DAY,
    )

    assert {row["source_object"]: row["counts_as"] for row in rows} == {
        "bb": "duplicate",
        "cc": "corroborating",
    }


def test_a_loser_differs_where_both_state_a_fact_and_silence_is_no_difference(
    run_model: Run,
) -> None:
    rows = run_model(
        "staging.request_losers",
        {
            "staging.request_contests": [
                contest(source_object="aa", credits=Decimal(2)),
                contest(source_object="bb", credits=Decimal(1), model="other"),
                contest(source_object="cc", credits=Decimal(2), model=None, total_tokens=None),
            ],
        },
        day=DAY,
    )

    assert [
        (row["source_object"], row["differs_in"], row["credits"], row["winner_credits"])
        for row in rows
    ] == [("bb", "credits, model", Decimal(1), Decimal(2)), ("cc", "", Decimal(2), Decimal(2))]


def test_a_conflict_is_a_loser_that_differs(run_model: Run) -> None:
    loser = {"gateway": "infery", "request_id": "req_1", "source_object": "aa", "source_line": 1}

    rows = run_model(
        "ops.conflicts",
        {
            "staging.request_losers": [
                loser | {"differs_in": "credits"},
                loser | {"differs_in": "", "source_line": 2},
                loser | {"differs_in": None, "source_line": 3},
            ]
        },
    )

    assert [row["source_line"] for row in rows] == [1]

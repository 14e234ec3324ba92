"""The accounts: what became of every record, and which disagree with the one that counts."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from tests.sql.makers import NOON, contest, request

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


def test_a_record_that_lost_is_a_duplicate_or_corroborates_by_its_format(run_model: Run) -> None:
    winner = contest(source_object="aa")
    rows = run_model(
        "ops.source_objects",
        {
            "raw.source_objects": [landed("aa"), landed("bb"), landed("cc")],
            "staging.request_contests": [
                winner,
                contest(source_object="bb"),
                contest(source_object="cc", format="usage_csv"),
            ],
            "staging.request_winners": [request(source_object="aa", credits=winner["credits"])],
        },
    )

    counts = {
        row["object_sha256"]: (
            row["accepted_count"],
            row["duplicate_count"],
            row["corroborating_count"],
        )
        for row in rows
    }
    assert counts == {"aa": (9, 0, 0), "bb": (8, 1, 0), "cc": (8, 0, 1)}


def test_a_conflict_is_a_loser_that_states_something_else_and_silence_is_none(
    run_model: Run,
) -> None:
    winner = contest(source_object="aa", credits=Decimal(2))
    rows = run_model(
        "ops.conflicts",
        {
            "staging.request_contests": [
                winner,
                contest(source_object="bb", credits=Decimal(1), model="other"),
                contest(source_object="cc", credits=Decimal(2), model=None, total_tokens=None),
            ],
            "staging.request_winners": [request(source_object="aa", credits=winner["credits"])],
        },
    )

    assert [
        (row["source_object"], row["differs_in"], row["credits"], row["winner_credits"])
        for row in rows
    ] == [("bb", "credits, model", Decimal(1), Decimal(2))]

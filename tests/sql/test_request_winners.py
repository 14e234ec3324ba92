"""One request, one winner: the contract's order, never the order of arrival."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.sql.makers import DAY, NOON, contest, request

Run = Callable[..., list[dict[str, Any]]]
LATER = NOON + timedelta(minutes=5)


def winner(run_model: Run, *records: dict[str, Any]) -> dict[str, Any]:
    [row] = run_model("staging.request_winners", {"staging.request_contests": records}, day=DAY)
    return row


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (
            {"format": "canonical"},
            {"format": "usage_csv", "completed_at": LATER, "credits": Decimal(9)},
        ),
        (
            {"completed_at": LATER, "credits": Decimal(1)},
            {"completed_at": NOON, "credits": Decimal(9)},
        ),
        ({"credits": Decimal("2.500000001")}, {"credits": Decimal("2.5")}),
    ],
    ids=["the higher format", "the later completed_at", "the most credits"],
)
def test_the_winner_is(run_model: Run, better: dict[str, Any], worse: dict[str, Any]) -> None:
    first = contest(**better, source_object="bb", arrived_at=NOON)
    second = contest(**worse, source_object="aa", arrived_at=NOON - timedelta(days=1))

    for records in ((first, second), (second, first)):
        assert winner(run_model, *records)["source_object"] == "bb"


def test_among_equal_records_the_first_landed_stands(run_model: Run) -> None:
    old = contest(source_object="zz", arrived_at=NOON)
    new = contest(source_object="aa", arrived_at=LATER)

    assert winner(run_model, new, old)["source_object"] == "zz"


@pytest.mark.parametrize("other", ["claude", "gpt-4o", "sonnet-5"])
def test_an_erased_member_leaves_the_winner_as_it_was(run_model: Run, other: str) -> None:
    mine = contest(source="playground", member_id="mem_1", source_object="aa")
    theirs = contest(source="playground", member_id="mem_2", model=other, source_object="bb")
    before = winner(run_model, mine, theirs)["source_object"]

    for name in ("erased_00", "erased_ff"):
        erased = mine | {"member_id": name}
        assert winner(run_model, theirs, erased)["source_object"] == before


def test_a_lower_format_fills_what_the_winner_leaves_null_but_not_its_credits(
    run_model: Run,
) -> None:
    stated = contest(model=None, latency_ms=None, credits=Decimal(2))
    beside = contest(format="usage_csv", model="gpt-4o", latency_ms=70, credits=Decimal(3))

    row = winner(run_model, stated, beside)

    assert (row["model"], row["latency_ms"], row["credits"]) == ("gpt-4o", 70, Decimal(2))


def test_a_duplicate_of_the_same_format_fills_nothing(run_model: Run) -> None:
    row = winner(run_model, contest(completed_at=LATER, model=None), contest(model="gpt-4o"))

    assert row["model"] is None


def test_the_winner_stands_on_its_own_day_only(run_model: Run) -> None:
    yesterday = {"usage_date": DAY - timedelta(days=1), "completed_at": NOON - timedelta(days=1)}

    rows = run_model(
        "staging.request_winners",
        {
            "staging.request_contests": [
                contest(contest_date=DAY - timedelta(days=1)),
                contest(contest_date=DAY - timedelta(days=1), **yesterday),
            ]
        },
        day=DAY - timedelta(days=1),
    )

    assert rows == []


def test_a_contested_request_is_counted_once(run_model: Run) -> None:
    rows = run_model(
        "staging.requests",
        {
            "raw.requests": [
                request(),
                request(source_line=2),
                request(request_id="req_2", source_line=3),
            ],
            "staging.request_contests": [contest(), contest(source_line=2)],
            "staging.request_winners": [request()],
        },
        day=DAY,
    )

    assert [row["request_id"] for row in rows] == ["req_1", "req_2"]


@pytest.mark.parametrize(
    ("stated", "directory", "setting", "expected"),
    [
        ("ws_own", "ws_key", "ws_set", "ws_own"),
        (None, "ws_key", "ws_set", "ws_key"),
        (None, None, "ws_set", "ws_set"),
        (None, None, None, None),
    ],
)
def test_a_workspace_is_the_records_else_the_keys_else_the_sources(
    run_model: Run,
    stated: str | None,
    directory: str | None,
    setting: str | None,
    expected: str | None,
) -> None:
    records = {"raw.requests": [request(workspace_id=stated)]}
    known = {"staging.keys": [{"api_key_id": "key_1", "workspace_id": directory}]}
    asked = {"staging.unplaced_keys": run_model("staging.unplaced_keys", records, day=DAY)}
    said = run_model("staging.key_workspaces", asked | known, day=DAY)
    sources = {"raw.sources": [{"source_name": "gateway", "workspace_id": setting}]}

    [row] = run_model(
        "staging.requests", {**records, **sources, "staging.key_workspaces": said}, day=DAY
    )

    assert row["workspace_id"] == expected


def test_a_day_asks_the_directory_for_the_keys_that_state_no_workspace(run_model: Run) -> None:
    rows = run_model(
        "staging.unplaced_keys",
        {
            "raw.requests": [
                request(),
                request(api_key_id="key_2", workspace_id=None),
                request(api_key_id="key_2", workspace_id=None, source_line=2),
                request(api_key_id=None, workspace_id=None, source_line=3),
            ],
            "staging.request_winners": [request(api_key_id="key_3", workspace_id=None)],
        },
        day=DAY,
    )

    assert [row["api_key_id"] for row in rows] == ["key_2", "key_3"]


def test_the_setting_of_a_corroborating_source_fills_the_winners_workspace(run_model: Run) -> None:
    stated = contest(workspace_id=None)
    beside = contest(format="usage_csv", workspace_id=None, source_name="export")

    [row] = run_model(
        "staging.request_winners",
        {
            "staging.request_contests": [stated, beside],
            "raw.sources": [{"source_name": "export", "workspace_id": "ws_set"}],
        },
        day=DAY,
    )

    assert (row["source_name"], row["source_workspace_id"]) == ("gateway", "ws_set")

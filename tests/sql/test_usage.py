"""Usage by quarter, model, key and member: what is counted, and that nothing is lost on the way."""

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sql.makers import DAY, NOON, contest, quarter, request

Run = Callable[..., list[dict[str, Any]]]
RAW = {"raw.requests": []}


def quarters(run_model: Run, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    return run_model("marts.usage_quarter_hourly", {"raw.requests": requests}, day=DAY)


def test_a_quarter_begins_on_the_quarter_and_holds_its_last_microsecond(run_model: Run) -> None:
    early = request(request_id="a", completed_at=datetime(2026, 11, 20, 12, 14, 59, 999999))
    late = request(request_id="b", completed_at=datetime(2026, 11, 20, 12, 15))

    rows = quarters(run_model, early, late)

    assert [row["quarter_at"] for row in rows] == [NOON, NOON + timedelta(minutes=15)]


def test_an_error_is_a_status_of_400_or_more_or_an_error_code(run_model: Run) -> None:
    rows = quarters(
        run_model,
        request(request_id="a", status=399),
        request(request_id="b", status=400),
        request(request_id="c", status=None, error_code="APIConnectionError"),
        request(request_id="d", status=None),
    )

    assert [(row["request_count"], row["error_count"]) for row in rows] == [(4, 2)]


def test_a_fallback_fired_when_it_says_from_what_or_how_deep(run_model: Run) -> None:
    rows = quarters(
        run_model,
        request(request_id="a", fallback_from="claude"),
        request(request_id="b", fallback_depth=1),
        request(request_id="c", fallback_depth=0),
    )

    assert sum(row["fallback_count"] for row in rows) == 2


def test_missing_tokens_sum_as_nought_and_missing_names_stay_null(run_model: Run) -> None:
    [row] = quarters(
        run_model,
        request(
            workspace_id=None,
            api_key_id=None,
            model=None,
            prompt_tokens=None,
            completion_tokens=None,
            total_tokens=None,
        ),
    )

    assert (row["workspace_id"], row["api_key_id"], row["model"]) == (None, None, None)
    assert (row["prompt_tokens"], row["total_tokens"], row["credits"]) == (0, 0, Decimal("2.5"))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    records=st.lists(
        st.builds(
            lambda number, minute, key, model, depth, status, credits: request(
                request_id=f"req_{number}",
                completed_at=NOON + timedelta(minutes=minute),
                api_key_id=key,
                model=model,
                fallback_depth=depth,
                status=status,
                credits=credits,
                total_tokens=None if depth else minute,
            ),
            st.integers(1, 4),
            st.sampled_from([0, 14, 15, 40]),
            st.sampled_from(["key_1", "key_2", None]),
            st.sampled_from(["gpt-4o", None]),
            st.sampled_from([None, 0, 1]),
            st.sampled_from([200, 500]),
            st.decimals(0, 999, places=9),
        ),
        max_size=9,
    )
)
def test_quarters_and_fallbacks_count_each_winner_once_and_no_loser(
    run_model: Run, records: list[dict[str, Any]]
) -> None:
    landed = [record | {"source_line": line} for line, record in enumerate(records, 1)]
    ids = [record["request_id"] for record in landed]
    contests = [contest(**record) for record in landed if ids.count(record["request_id"]) > 1]
    won = [
        {name: value for name, value in row.items() if name in request()}
        for row in run_model(
            "staging.request_winners", {"staging.request_contests": contests}, day=DAY
        )
    ]
    settled = {
        "raw.requests": landed,
        "staging.request_contests": contests,
        "staging.request_winners": won,
    }
    requests = run_model("staging.requests", settled, day=DAY)
    alone = {
        "raw.requests": [
            {name: row[name] for name in {**request(), "fallback_depth": 0}} for row in requests
        ]
    }

    assert len(requests) == len(set(ids))
    for table in ("marts.usage_quarter_hourly", "staging.fallbacks"):
        assert run_model(table, settled, day=DAY) == run_model(table, alone, day=DAY)


def test_requests_of_other_days_are_not_this_days(run_model: Run) -> None:
    assert quarters(run_model, request(usage_date=DAY - timedelta(days=1))) == []


def test_a_key_has_the_name_the_directory_gives_it(run_model: Run) -> None:
    rows = run_model(
        "marts.usage_by_key",
        {
            "marts.usage_quarter_hourly": [quarter(), quarter(api_key_id="key_2", quarter_at=NOON)],
            "staging.keys": [{"api_key_id": "key_1", "name": "production"}],
        },
        day=DAY,
    )

    assert [(row["api_key_id"], row["key_name"]) for row in rows] == [
        ("key_1", "production"),
        ("key_2", None),
    ]


def test_what_no_member_did_is_one_row_so_that_members_sum_to_the_whole(run_model: Run) -> None:
    rows = run_model(
        "marts.usage_by_member",
        {
            "marts.usage_quarter_hourly": [
                quarter(api_key_id="key_1"),
                quarter(api_key_id="key_2"),
                quarter(api_key_id=None, member_id="m_1", credits=Decimal("0.25")),
            ],
            "staging.members": [{"member_id": "m_1", "workspace_id": "ws_1", "name": "Ada"}],
        },
        day=DAY,
    )

    assert [(row["member_id"], row["member_name"], row["credits"]) for row in rows] == [
        ("m_1", "Ada", Decimal("0.25")),
        (None, None, Decimal("10")),
    ]


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("marts.usage_by_model", "model"),
        ("marts.usage_by_key", "api_key_id"),
        ("marts.usage_by_member", "member_id"),
    ],
)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["ws_1", "ws_2", None]),
            st.sampled_from(["a", "b", None]),
            st.decimals(0, 999_999_999, places=9),
        ),
        max_size=20,
    )
)
def test_each_view_sums_to_the_last_decimal(
    run_model: Run, table: str, key: str, rows: list[tuple[str | None, str | None, Decimal]]
) -> None:
    inputs = [
        quarter(quarter_at=NOON, workspace_id=workspace, credits=credits, **{key: name})
        for workspace, name, credits in rows
    ]
    oracle: dict[tuple[str | None, str | None], Decimal] = defaultdict(Decimal)
    for workspace, name, credits in rows:
        oracle[workspace, name] += credits

    found = run_model(table, {"marts.usage_quarter_hourly": inputs}, day=DAY)

    assert {(row["workspace_id"], row[key]): row["credits"] for row in found} == oracle


def test_a_workspaces_quarter_is_the_sum_of_its_keys_and_models(run_model: Run) -> None:
    later = NOON + timedelta(minutes=15)
    inputs = [
        quarter(credits=Decimal("0.000000001")),
        quarter(api_key_id="key_2", model="other", credits=Decimal(2)),
        quarter(quarter_at=later, credits=Decimal(3)),
        quarter(workspace_id=None, credits=Decimal(4)),
    ]

    rows = run_model("staging.workspace_quarters", {"marts.usage_quarter_hourly": inputs}, day=DAY)

    assert {(row["workspace_id"], row["quarter_at"]): row["credits"] for row in rows} == {
        ("ws_1", NOON): Decimal("2.000000001"),
        ("ws_1", later): Decimal(3),
        (None, NOON): Decimal(4),
    }

"""The first ledger and its balances: what a paid invoice grants, what usage takes, and that days
join up.
"""

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from tests.sql.makers import DAY

Run = Callable[..., list[dict[str, Any]]]


def invoice(**stated: Any) -> dict[str, Any]:
    return {
        "invoice_id": "inv_1",
        "workspace_id": "ws_1",
        "kind": "subscription",
        "issued_at": datetime(2026, 11, 18, 9),
        "credits": Decimal(9000),
        "status": "paid",
    } | stated


def usage(day: date, credits: str, key: str = "key_1") -> dict[str, Any]:
    return {
        "usage_date": day,
        "workspace_id": "ws_1",
        "api_key_id": key,
        "credits": Decimal(credits),
    }


def test_a_paid_invoice_grants_exactly_its_pack_and_an_unpaid_one_nothing(run_model: Run) -> None:
    rows = run_model(
        "marts.credit_ledger",
        {
            "marts.invoices": [
                invoice(),
                invoice(invoice_id="inv_2", kind="topup", credits=Decimal("0.000000001")),
                invoice(invoice_id="inv_3", status="open"),
                invoice(invoice_id="inv_4", credits=Decimal(0)),
            ]
        },
    )

    assert [
        (row["movement_id"], row["kind"], row["credits"], row["posted_date"]) for row in rows
    ] == [
        ("grant_inv_1", "grant", Decimal(9000), date(2026, 11, 18)),
        ("grant_inv_2", "topup", Decimal("0.000000001"), date(2026, 11, 18)),
    ]


def test_a_days_usage_of_a_workspace_is_one_debit(run_model: Run) -> None:
    rows = run_model(
        "marts.credit_ledger",
        {"marts.usage_by_key": [usage(DAY, "1.5"), usage(DAY, "2.25", "key_2")]},
    )

    assert [(row["kind"], row["credits"]) for row in rows] == [("usage", Decimal("-3.75"))]


def test_a_day_opens_with_what_the_day_before_closed_with(run_model: Run) -> None:
    movements = [
        {
            "workspace_id": "ws_1",
            "kind": kind,
            "credits": Decimal(credits),
            "posted_date": date(2026, 11, day),
        }
        for kind, credits, day in [
            ("grant", 100, 1),
            ("usage", -30, 1),
            ("usage", -80, 3),
            ("topup", 50, 5),
        ]
    ]

    rows = run_model("marts.credit_balances", {"marts.credit_ledger": movements})

    columns = ("opening_credits", "granted_credits", "used_credits", "closing_credits")
    assert [tuple(int(row[name]) for name in columns) for row in rows] == [
        (0, 100, 30, 70),
        (70, 0, 80, -10),
        (-10, 50, 0, 40),
    ]

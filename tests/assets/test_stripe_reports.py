"""Stripe's itemized report CSVs: balance transactions, what is behind them, payouts; exactly."""

import json
from datetime import datetime
from typing import Any

import pytest

from assets.stripe_csv import land

LINE = {
    "balance_transaction_id": "txn_1",
    "created_utc": "2026-11-02 10:30:00",
    "created": "2026-11-02 05:30:00",
    "available_on_utc": "2026-11-04 00:00:00",
    "currency": "gbp",
    "gross": "39.11",
    "fee": "0.94",
    "net": "38.17",
    "reporting_category": "charge",
    "source_id": "ch_1",
    "customer_facing_amount": "4950",
    "customer_facing_currency": "jpy",
    "automatic_payout_id": "po_1",
    "charge_id": "ch_1",
    "payment_intent_id": "pi_1",
    "invoice_id": "in_1",
    "invoice_number": "INF-7",
    "subscription_id": "sub_1",
    "customer_email": "someone@acme.example",
    "payment_metadata[infery_invoice_id]": "INF-1",
    "payment_metadata[workspace_id]": "ws_1",
    "payment_metadata[note]": "private",
    "refund_metadata[infery_invoice_id]": "INF-9",
}
PAYOUT = {
    "payout_id": "po_1",
    "effective_at_utc": "2026-11-05 00:00:00",
    "currency": "kwd",
    "gross": "-1.230",
    "fee": "0",
    "net": "-1.230",
    "reporting_category": "payout",
    "balance_transaction_id": "txn_9",
    "payout_expected_arrival_date": "2026-11-05",
    "payout_status": "in_transit",
    "payout_type": "bank_account",
}


def landed(house: Any, *lines: dict[str, str]) -> None:
    names = list(lines[0])
    text = [",".join(names)] + [",".join(line.get(name, "") for name in names) for line in lines]
    house.put("stripe/report.csv", "\n".join(text) + "\n")
    house.night(land)


def test_a_line_is_a_balance_transaction(house: Any) -> None:
    landed(house, LINE)

    [row] = house.rows("raw.stripe_balance_transactions")
    assert (row["balance_transaction_id"], row["origin"], row["source_id"]) == (
        "txn_1",
        "csv",
        "ch_1",
    )
    assert (row["amount_minor"], row["fee_minor"], row["net_minor"]) == (3911, 94, 3817)
    assert (row["currency"], row["payout_id"], row["reporting_category"]) == (
        "gbp",
        "po_1",
        "charge",
    )
    assert row["created_at"] == datetime(2026, 11, 2, 10, 30)
    assert row["available_at"] == datetime(2026, 11, 4)
    assert (row["livemode"], row["type"], row["fee_details"]) == (None, None, None)


def test_a_line_says_which_invoice_is_behind_its_charge(house: Any) -> None:
    landed(house, LINE)

    [row] = house.rows("raw.stripe_report_lines")
    assert (row["charge_id"], row["payment_intent_id"], row["stripe_invoice_id"]) == (
        "ch_1",
        "pi_1",
        "in_1",
    )
    assert (row["customer_facing_amount_minor"], row["customer_facing_currency"]) == (4950, "jpy")
    assert json.loads(row["metadata"]) == {"infery_invoice_id": "INF-1", "workspace_id": "ws_1"}
    assert not any(text in str(row) for text in ("acme", "private", "INF-9"))


def test_two_reports_of_one_transaction_are_one_transaction_and_two_lines(house: Any) -> None:
    landed(house, LINE)
    landed(house, LINE | {"trace_id": "T1"})

    assert len(house.rows("raw.stripe_balance_transactions")) == 1
    assert {row["report"] for row in house.rows("raw.stripe_report_lines")} == {
        "balance_change_from_activity",
        "payout_reconciliation",
    }


def test_columns_are_found_in_any_case_and_order(house: Any) -> None:
    renamed = {name.upper().replace("_UTC", " UTC"): said for name, said in LINE.items()}

    landed(house, dict(reversed(renamed.items())))

    [row] = house.rows("raw.stripe_report_lines")
    assert row["stripe_invoice_id"] == "in_1"
    assert json.loads(row["metadata"])["workspace_id"] == "ws_1"


def test_a_payout_is_what_reaches_the_bank(house: Any) -> None:
    landed(house, PAYOUT)

    [row] = house.rows("raw.stripe_payouts")
    assert (row["payout_id"], row["amount_minor"], row["currency"]) == ("po_1", 1230, "kwd")
    assert (row["status"], row["arrives_at"]) == ("in_transit", datetime(2026, 11, 5))
    assert (row["automatic"], row["balance_transaction_id"]) == (None, "txn_9")
    assert house.rows("raw.stripe_balance_transactions") == []


@pytest.mark.parametrize(
    ("line", "change", "reason"),
    [
        (LINE, {"currency": "ugx"}, "how many places"),
        (LINE, {"gross": "39.111"}, "more than the 2 places"),
        (LINE, {"gross": "39,11"}, "not a plain amount"),
        (LINE, {"net": "38.00"}, "net is not gross less fee"),
        (LINE, {"customer_facing_amount": "49.50"}, "more than the 0 places"),
        (LINE, {"created_utc": ""}, "created_utc is missing"),
        (LINE, {"balance_transaction_id": "ch_1"}, "not a transaction's"),
        (PAYOUT, {"payout_status": "gone"}, "none that Stripe uses"),
        (PAYOUT, {"gross": "1.2345"}, "more than the 3 places"),
    ],
)
def test_a_line_that_cannot_be_read_is_set_aside(
    house: Any, line: dict[str, str], change: dict[str, str], reason: str
) -> None:
    names = list(line)
    text = [",".join(names)] + [
        ",".join(f'"{one[name]}"' for name in names) for one in (line, line | change)
    ]
    house.put("stripe/report.csv", "\n".join(text) + "\n")
    house.night(land)

    [aside] = house.rows("raw.quarantine")
    assert reason in aside["reason"]
    assert (aside["line_number"], aside["source"]) == (3, "stripe_csv")
    assert [row["accepted_count"] for row in house.rows("raw.files")] == [1]


def test_a_report_without_utc_times_is_set_aside_with_the_column_it_lacks(house: Any) -> None:
    landed(house, {name: said for name, said in LINE.items() if not name.endswith("_utc")})

    [aside] = house.rows("raw.quarantine")
    assert aside["reason"] == "the header has no column 'created_utc'"


def test_the_same_report_again_appends_nothing(house: Any) -> None:
    landed(house, LINE)
    assert not house.night(land)

    landed(house, LINE, LINE | {"balance_transaction_id": "txn_2"})

    assert len(house.rows("raw.stripe_report_lines")) == 2
    assert [row["duplicate_count"] for row in house.rows("raw.files")] == [0, 1]

"""The dashboard's payments CSV: names of every year, exact minor units, refunds and disputes beside
the charge.
"""

import json
from datetime import datetime
from typing import Any

import pytest

from assets.stripe_csv import land, minor_units
from pipelines.reading import RecordRefused

PAID = {
    "id": "ch_1",
    "Created (UTC)": "2026-11-02 10:30",
    "Amount": "49.50",
    "Amount Refunded": "0.00",
    "Currency": "usd",
    "Captured": "true",
    "Mode": "Live",
    "Status": "Paid",
    "Customer Email": "someone@acme.example",
    "Card Last4": "4242",
    "PaymentIntent ID": "pi_1",
    "Invoice ID": "in_1",
    "workspace_id (metadata)": "ws_1",
    "infery_invoice_id (metadata)": "inv_1",
    "note (metadata)": "private",
}


def csv(*rows: dict[str, str]) -> str:
    names = list(rows[0])
    return (
        "\n".join(
            [",".join(names)] + [",".join(row.get(name, "") for name in names) for row in rows]
        )
        + "\n"
    )


def landed(house: Any, *rows: dict[str, str]) -> list[dict[str, Any]]:
    house.put("stripe/payments.csv", csv(*rows))
    house.night(land)
    found: list[dict[str, Any]] = house.rows("raw.stripe_charges")
    return found


def test_a_payment_becomes_a_charge(house: Any) -> None:
    [row] = landed(house, PAID)

    assert row["created_at"] == datetime(2026, 11, 2, 10, 30)
    assert (row["amount_minor"], row["amount_captured_minor"], row["currency"]) == (
        4950,
        4950,
        "usd",
    )
    assert (row["origin"], row["livemode"], row["status"], row["captured"]) == (
        "csv",
        True,
        "succeeded",
        True,
    )
    assert (row["payment_intent_id"], row["stripe_invoice_id"]) == ("pi_1", "in_1")
    assert json.loads(row["metadata"]) == {"infery_invoice_id": "inv_1", "workspace_id": "ws_1"}


def test_no_mail_card_or_other_metadata_stays(house: Any) -> None:
    text = str(landed(house, PAID))

    assert not any(secret in text for secret in ("acme", "4242", "private"))


def test_columns_are_found_by_any_years_name_in_any_case_and_order(house: Any) -> None:
    renamed = {
        "STATUS": "Paid",
        "currency": "USD",
        "amount_refunded": "0",
        "Created date (UTC)": "2026-11-02 10:30:00",
        "payment_intent": "pi_1",
        "ID": "ch_1",
        "AMOUNT": "49.5",
        "Infery_Invoice_ID (Metadata)": "inv_1",
    }

    [row] = landed(house, renamed)

    assert (row["amount_minor"], row["payment_intent_id"], row["livemode"]) == (4950, "pi_1", None)
    assert json.loads(row["metadata"]) == {"infery_invoice_id": "inv_1"}


@pytest.mark.parametrize(
    ("status", "captured", "becomes"),
    [
        ("Paid", "true", ("succeeded", True, False)),
        ("Refunded", "true", ("succeeded", True, True)),
        ("Refunded", "false", ("succeeded", False, True)),
        ("Uncaptured", "false", ("succeeded", False, False)),
        ("Failed", "false", ("failed", False, False)),
        ("Pending", "", ("pending", False, False)),
    ],
)
def test_the_dashboards_words_become_stripes(
    house: Any, status: str, captured: str, becomes: tuple[str, bool, bool]
) -> None:
    [row] = landed(house, PAID | {"Status": status, "Captured": captured})

    assert (row["status"], row["captured"], row["refunded"]) == becomes


@pytest.mark.parametrize(
    ("stated", "currency", "minor"),
    [
        ("49.50", "usd", 4950),
        ("49.5", "usd", 4950),
        ("0.29", "usd", 29),
        ("1234", "jpy", 1234),
        ("1.230", "kwd", 1230),
        ("10.00", "isk", 1000),
        ("999999999999.99", "eur", 99999999999999),
    ],
)
def test_major_units_become_minor_ones_exactly(stated: str, currency: str, minor: int) -> None:
    assert minor_units(stated, currency, "Amount") == minor


@pytest.mark.parametrize(
    ("stated", "currency"),
    [
        ("10", "ugx"),
        ("10.5", "jpy"),
        ("10.000", "usd"),
        ("1,234.50", "usd"),
        ("10,50", "eur"),
        ("-5.00", "usd"),
        ("1e3", "usd"),
        ("", "usd"),
        ("١٢", "usd"),
    ],
)
def test_an_amount_that_cannot_be_said_exactly_is_refused(stated: str, currency: str) -> None:
    with pytest.raises(RecordRefused):
        minor_units(stated, currency, "Amount")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Currency": "ugx"}, "how many places"),
        ({"Amount": "49.505"}, "more than the 2 places"),
        ({"Status": "Incomplete"}, "no charge's status"),
        ({"id": "pi_1"}, "not a charge's"),
        ({"Created (UTC)": "11/02/2026 10:30"}, "is not a time like"),
        ({"Mode": "Sandbox"}, "neither Live nor Test"),
        ({"Amount Refunded": "50.00"}, "more than Amount"),
        ({"Amount": ""}, "Amount is missing"),
    ],
)
def test_a_row_that_cannot_be_read_is_set_aside_and_the_rest_goes_on(
    house: Any, change: dict[str, str], reason: str
) -> None:
    rows = landed(house, PAID, PAID | {"id": "ch_2"} | change)

    assert [row["charge_id"] for row in rows] == ["ch_1"]
    [aside] = house.rows("raw.quarantine")
    assert reason in aside["reason"]
    assert not [value for value in change.values() if value and value in aside["reason"]]
    assert (aside["line_number"], aside["source"]) == (3, "stripe_csv")


def test_the_dispute_beside_a_charge_becomes_a_dispute(house: Any) -> None:
    dispute = {
        "Disputed Amount": "20.00",
        "Dispute Status": "Needs response",
        "Dispute Reason": "fraudulent",
        "Dispute Date (UTC)": "2026-11-10 08:00",
    }
    landed(house, PAID | dispute)

    [row] = house.rows("raw.stripe_disputes")

    assert (row["dispute_id"], row["charge_id"], row["status"]) == (
        "csv:dispute:ch_1",
        "ch_1",
        "needs_response",
    )
    assert (row["amount_minor"], row["created_at"]) == (2000, datetime(2026, 11, 10, 8))


def test_a_dispute_that_holds_money_needs_its_amount(house: Any) -> None:
    assert landed(house, PAID | {"Dispute Status": "lost"}) == []


def test_a_dispute_status_nobody_knows_is_set_aside_unquoted(house: Any) -> None:
    assert landed(house, PAID | {"Dispute Status": "ask Ada"}) == []

    [aside] = house.rows("raw.quarantine")
    assert aside["reason"] == "Dispute Status is none that Stripe uses"


def test_the_same_export_and_rows_that_say_nothing_new_append_nothing(house: Any) -> None:
    landed(house, PAID)
    assert not house.night(land)

    landed(house, PAID, PAID | {"id": "ch_2"})

    assert sorted(row["charge_id"] for row in house.rows("raw.stripe_charges")) == ["ch_1", "ch_2"]
    assert [row["duplicate_count"] for row in house.rows("raw.files")] == [0, 1]


def test_a_charge_refunded_since_is_a_new_version(house: Any) -> None:
    landed(house, PAID)

    rows = landed(house, PAID | {"Amount Refunded": "10.00"})

    assert [
        row["amount_refunded_minor"] for row in sorted(rows, key=lambda row: row["arrived_at"])
    ] == [0, 1000]

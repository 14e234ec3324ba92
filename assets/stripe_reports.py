"""The itemized reports of Stripe as rows of raw: what `stripe_csv.py` makes of a report's line.

A line of balance_change_from_activity.itemized or payout_reconciliation.itemized becomes a balance
transaction, and a row that says which charge, PaymentIntent and Stripe invoice are behind it; a
line of payouts.itemized becomes a payout.

Columns are chosen by whoever runs a report: they are found by name, whatever their order, and those
that say it in the report's own zone are not read. Amounts are major units of the settlement
currency, those of the customer in theirs; both become minor units exactly, or the line goes to
quarantine. A report states no charge as such: not whether an authorisation waits, nor what failed.
Reads nothing itself.
"""

import re
from collections.abc import Iterable
from typing import Any

from assets.stripe_objects import kept_metadata
from assets.stripe_texts import minor_units, utc, word
from pipelines import tabular
from pipelines.reading import RecordRefused
from pipelines.tabular import Record

ACTIVITY = "balance_change_from_activity"
RECONCILIATION = "payout_reconciliation"
PAYOUTS = "payouts"

NEEDED = {
    ACTIVITY: (
        *("balance_transaction_id", "created_utc", "currency", "gross", "fee", "net"),
        "reporting_category",
    ),
    PAYOUTS: ("payout_id", "effective_at_utc", "currency", "gross", "payout_status"),
}
NEEDED[RECONCILIATION] = NEEDED[ACTIVITY]
PAYOUT_STATUSES = ("pending", "in_transit", "paid", "failed", "canceled")

Rows = dict[str, dict[str, Any]]  # one row for each table


def report_of(names: Iterable[str]) -> str | None:
    """Which report has such a header; None: none that is read here.

    The first two have the same columns but for the bank's trace, which only the second can have;
    they say the same of a transaction, so nothing depends on it.
    """
    words = {word(name).replace(" ", "_") for name in names}
    if {"payout_id", "payout_status"} <= words and "gross" in words:
        return PAYOUTS
    if {"balance_transaction_id", "reporting_category"} <= words:
        return RECONCILIATION if words & {"trace_id", "trace_id_status"} else ACTIVITY
    return None


def rows(record: Record, report: str) -> Rows:
    """A line of a report as rows, by table. Raises RecordRefused with the reason."""
    if record.problem:
        raise RecordRefused(record.problem)
    value: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for name in record.names:
        stated = str(record.fields.get(name) or "").strip()
        # Of the PaymentIntent, else of the charge: which of the two is not said.
        found = re.fullmatch(r"\s*payment_metadata\[(.+)\]\s*", name, re.IGNORECASE)
        place = metadata if found else value
        said = found[1].strip().lower() if found else word(name).replace(" ", "_")
        if said in place:
            raise RecordRefused("a column is given twice")
        place[said] = stated
    for name in NEEDED[report]:
        if name not in value:
            raise RecordRefused(f"the header has no column '{name}'")
        if not value[name]:
            raise RecordRefused(f"{name} is missing")
    told = {name: stated for name, stated in value.items() if stated}
    if report == PAYOUTS:
        return {"raw.stripe_payouts": _payout(told)}
    return {
        "raw.stripe_balance_transactions": _transaction(told),
        "raw.stripe_report_lines": _line(told, metadata, report),
    }


def _transaction(told: dict[str, str]) -> dict[str, Any]:
    currency = tabular.currency(told["currency"], "currency") or ""
    amounts = {
        name: minor_units(told[name], currency, name, is_signed=True)
        for name in ("gross", "fee", "net")
    }
    if amounts["gross"] - amounts["fee"] != amounts["net"]:
        raise RecordRefused("net is not gross less fee")
    available = told.get("available_on_utc")
    return {
        "balance_transaction_id": _id(told["balance_transaction_id"], "txn", "a transaction's"),
        "origin": "csv",
        "livemode": None,
        "created_at": utc(told["created_utc"], "created_utc"),
        "available_at": _moment(available, "available_on_utc") if available else None,
        "reporting_category": told["reporting_category"],
        "amount_minor": amounts["gross"],
        "fee_minor": amounts["fee"],
        "net_minor": amounts["net"],
        "currency": currency,
        "source_id": told.get("source_id"),
        "payout_id": told.get("automatic_payout_id"),
    }


def _line(told: dict[str, str], metadata: dict[str, str], report: str) -> dict[str, Any]:
    facing = told.get("customer_facing_currency")
    amount = told.get("customer_facing_amount")
    currency = tabular.currency(facing, "customer_facing_currency") if facing else None
    return {
        "report_line_id": f"{report}:{told['balance_transaction_id']}",
        "origin": "csv",
        "report": report,
        "balance_transaction_id": told["balance_transaction_id"],
        "created_at": utc(told["created_utc"], "created_utc"),
        "reporting_category": told["reporting_category"],
        "source_id": told.get("source_id"),
        "charge_id": told.get("charge_id"),
        "payment_intent_id": told.get("payment_intent_id"),
        "stripe_invoice_id": told.get("invoice_id"),
        "invoice_number": told.get("invoice_number"),
        "subscription_id": told.get("subscription_id"),
        "payout_id": told.get("automatic_payout_id"),
        "customer_facing_amount_minor": minor_units(
            amount, currency, "customer_facing_amount", is_signed=True
        )
        if amount and currency
        else None,
        "customer_facing_currency": currency,
        "metadata": kept_metadata({name: said for name, said in metadata.items() if said}),
    }


def _payout(told: dict[str, str]) -> dict[str, Any]:
    currency = tabular.currency(told["currency"], "currency") or ""
    status = word(told["payout_status"]).replace(" ", "_")
    if status not in PAYOUT_STATUSES:
        raise RecordRefused("payout_status is none that Stripe uses")
    arrives = told.get("payout_expected_arrival_date")
    # The money leaves the balance: whether a report says so with a sign, we have not seen.
    amount = abs(minor_units(told["gross"], currency, "gross", is_signed=True))
    return {
        "payout_id": _id(told["payout_id"], "po", "a payout's"),
        "origin": "csv",
        "livemode": None,
        "created_at": utc(told["effective_at_utc"], "effective_at_utc"),
        "arrives_at": _moment(arrives, "payout_expected_arrival_date") if arrives else None,
        "status": status,
        "amount_minor": amount,
        "currency": currency,
        "balance_transaction_id": told.get("balance_transaction_id"),
        "type": told.get("payout_type"),
        "trace_id": told.get("trace_id"),
    }


def _moment(stated: str, name: str) -> Any:
    """A time, or a day's midnight."""
    return utc(f"{stated} 00:00" if len(stated) == 10 else stated, name)


def _id(stated: str, prefix: str, whose: str) -> str:
    if not re.fullmatch(rf"{prefix}_\w+", stated, re.ASCII):
        raise RecordRefused(f"the id is not {whose} ({prefix}_…)")
    return stated

"""The CSV files of Stripe. The dashboard's payments export: rows of raw.stripe_charges, and of
raw.stripe_disputes for the dispute beside a charge. Itemized reports: `stripe_reports.py`.

Columns are found by name, in any case, order and year's wording (facts/stripe.md, 5.5). Amounts are
major units and become minor ones exactly, by the currency's exponent, or the row goes to
quarantine: nothing is rounded and nothing guessed. The sum refunded beside a charge stays on the
charge's row; staging.refunds makes one refund of it. Where the API speaks of the same charge, the
API wins (contract); staging decides that too.
"""

import re
from collections.abc import Mapping
from typing import Any

from assets import stripe_reports
from assets.stripe_objects import TABLES as STRIPE_TABLES
from assets.stripe_objects import append_changed, kept_metadata
from assets.stripe_texts import PLACES as PLACES
from assets.stripe_texts import minor_units, utc, word
from pipelines import tabular
from pipelines.calendar import Clock
from pipelines.reading import RecordRefused
from pipelines.settings import Settings
from pipelines.store import Draft
from pipelines.tabular import Record

TABLES = STRIPE_TABLES | {"raw.files": tabular.FILES}

# Our name → the column's names over the years, in lower case, blanks for underscores.
NAMES = {
    "id": ("id", "charge id", "payment id"),
    "created": ("created (utc)", "created date (utc)", "created utc", "created at (utc)"),
    "amount": ("amount",),
    "amount_refunded": ("amount refunded", "refunded amount"),
    "currency": ("currency",),
    "captured": ("captured",),
    "status": ("status",),
    "mode": ("mode",),
    "payment_intent": ("paymentintent id", "payment intent id", "payment intent"),
    "invoice": ("invoice id", "invoice"),
    "customer": ("customer id", "customer"),
    "balance_transaction": ("balance transaction id", "balance transaction"),
    "description": ("description",),
    "disputed_amount": ("disputed amount", "dispute amount"),
    "dispute_status": ("dispute status",),
    "dispute_reason": ("dispute reason",),
    "dispute_date": ("dispute date (utc)", "dispute created (utc)"),
}
NEEDED = ("id", "created", "amount", "currency", "status")

# The dashboard's word → Stripe's status, and whether an uncaptured authorisation is meant.
STATUSES = {
    "paid": "succeeded",
    "succeeded": "succeeded",
    "refunded": "succeeded",
    "partially refunded": "succeeded",
    "partial refund": "succeeded",
    "disputed": "succeeded",
    "uncaptured": "succeeded",
    "requires capture": "succeeded",
    "pending": "pending",
    "processing": "pending",
    "failed": "failed",
    "declined": "failed",
    "blocked": "failed",
    "canceled": "failed",
    "cancelled": "failed",
    "expired": "failed",
}
UNCAPTURED = ("uncaptured", "requires capture")
DISPUTE_STATUSES = (
    "needs_response",
    "under_review",
    "won",
    "lost",
    "prevented",
    "warning_needs_response",
    "warning_under_review",
    "warning_closed",
)


def columns_of(header: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """Which column of a file holds what, and which holds which metadata key. Raises RecordRefused
    for a missing one.
    """
    by_word: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for name in header:
        found = re.fullmatch(r"\s*(.*\S)\s*\(metadata\)\s*", name, re.IGNORECASE)
        place, said = (metadata, found[1].lower()) if found else (by_word, word(name))
        if said in place:
            raise RecordRefused("a column is given twice")
        place[said] = name
    columns = {}
    for ours, theirs in NAMES.items():
        named = [by_word[said] for said in theirs if said in by_word]
        if named:
            columns[ours] = named[0]
        elif ours in NEEDED:
            raise RecordRefused(f"the header has no column '{theirs[0]}'")
    return columns, metadata


def charge_and_dispute(record: Record) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A row of the export as a charge, and the dispute shown beside it. Raises RecordRefused with
    the reason.
    """
    if record.problem:
        raise RecordRefused(record.problem)
    columns, metadata = columns_of(record.names)
    value = {
        ours: stated
        for ours, theirs in columns.items()
        if (stated := str(record.fields.get(theirs) or "").strip())
    }
    for name in NEEDED:
        if name not in value:
            raise RecordRefused(f"{columns[name]} is missing")
    if not re.fullmatch(r"(ch|py)_\w+", value["id"]):
        raise RecordRefused("the id is not a charge's (ch_… or py_…)")
    currency = tabular.currency(value["currency"], "Currency") or ""
    told = word(value["status"])
    if told not in STATUSES:
        raise RecordRefused("Status is no charge's status")
    status = STATUSES[told]
    amount = minor_units(value["amount"], currency, "Amount")
    is_captured = status == "succeeded" and told not in UNCAPTURED
    if "captured" in value:
        if value["captured"].lower() not in ("true", "false"):
            raise RecordRefused("Captured is neither true nor false")
        is_captured = status == "succeeded" and value["captured"].lower() == "true"
    refunded = amount if told == "refunded" else 0
    if "amount_refunded" in value:
        refunded = minor_units(value["amount_refunded"], currency, "Amount Refunded")
    if refunded > amount:
        raise RecordRefused("Amount Refunded is more than Amount")
    mode = value.get("mode", "").lower()
    if mode not in ("", "live", "test"):
        raise RecordRefused("Mode is neither Live nor Test")
    charge = {
        "charge_id": value["id"],
        "origin": "csv",
        "livemode": {"live": True, "test": False}.get(mode),
        "created_at": utc(value["created"], columns["created"]),
        "status": status,
        "amount_minor": amount,
        "amount_captured_minor": amount if is_captured else 0,
        "amount_refunded_minor": refunded,
        "currency": currency,
        "captured": is_captured,
        "refunded": told == "refunded" or (amount > 0 and refunded == amount),
        "disputed": "dispute_status" in value,
        "payment_intent_id": value.get("payment_intent"),
        "stripe_invoice_id": value.get("invoice"),
        "customer_id": value.get("customer"),
        "balance_transaction_id": value.get("balance_transaction"),
        "description": value.get("description"),
        "receipt_url": None,
        "metadata": kept_metadata(
            {key: record.fields[name] for key, name in metadata.items() if record.fields[name]}
        ),
    }
    return charge, _dispute(value, charge, columns)


def _dispute(
    value: Mapping[str, str], charge: Mapping[str, Any], columns: Mapping[str, str]
) -> dict[str, Any] | None:
    if "dispute_status" not in value:
        return None
    status = word(value["dispute_status"]).replace(" ", "_")
    if status not in DISPUTE_STATUSES:
        raise RecordRefused("Dispute Status is none that Stripe uses")
    amount = None
    if "disputed_amount" in value:
        amount = minor_units(value["disputed_amount"], charge["currency"], "Disputed Amount")
    elif status in ("needs_response", "under_review", "lost"):
        raise RecordRefused("a dispute that holds money, without a Disputed Amount")
    created = charge["created_at"]
    if "dispute_date" in value:
        created = utc(value["dispute_date"], columns["dispute_date"])
    return {
        "dispute_id": f"csv:dispute:{charge['charge_id']}",
        "origin": "csv",
        "livemode": charge["livemode"],
        "charge_id": charge["charge_id"],
        "payment_intent_id": charge["payment_intent_id"],
        "created_at": created,
        "status": status,
        "amount_minor": amount if amount is not None else charge["amount_minor"],
        "currency": charge["currency"],
        "reason": value.get("dispute_reason"),
        "metadata": kept_metadata(None),
    }


def land(draft: Draft, settings: Settings, clock: Clock) -> None:
    """Every export and report that is new at `[stripe] exports`."""
    location = settings.place(settings.stripe.exports)
    for arrival in tabular.arrivals(draft, clock, location, "stripe_csv"):
        first = next(iter(arrival.records), None)
        report = stripe_reports.report_of(first.names) if first else None
        rows: dict[str, list[dict[str, Any]]] = {}
        good = 0
        for record in arrival.records:
            try:
                found = stripe_reports.rows(record, report) if report else export_rows(record)
            except RecordRefused as error:
                arrival.refuse(record, str(error))
                continue
            good += 1
            for table, row in found.items():
                rows.setdefault(table, []).append(row)
        is_news = [
            len(append_changed(draft, table, rows[table], arrival.arrived_at))
            for table in sorted(rows)
        ]
        arrival.accepted_count = max(is_news, default=0)
        arrival.duplicate_count = good - arrival.accepted_count


def export_rows(record: Record) -> dict[str, dict[str, Any]]:
    """A row of the payments export, by table."""
    charge, dispute = charge_and_dispute(record)
    rows = {"raw.stripe_charges": charge}
    return rows | {"raw.stripe_disputes": dispute} if dispute else rows

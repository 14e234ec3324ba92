"""The Stripe dashboard's payments CSV: rows of raw.stripe_charges, and of raw.stripe_disputes for
the dispute beside a charge.

Columns are found by name, in any case, order and year's wording (facts/stripe.md, 5.5). Amounts are
major units and become minor ones exactly, by the currency's exponent, or the row goes to
quarantine: nothing is rounded and nothing guessed. The sum refunded beside a charge stays on the
charge's row; staging.refunds makes one refund of it. Where the API speaks of the same charge, the
API wins (contract); staging decides that too. Itemized report CSVs are not read here yet.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from assets.stripe_objects import TABLES as STRIPE_TABLES
from assets.stripe_objects import append_changed, kept_metadata
from pipelines import tabular
from pipelines.calendar import Clock
from pipelines.reading import RecordRefused
from pipelines.settings import Settings
from pipelines.store import Draft
from pipelines.tabular import Arrival, Record

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

# facts/reconciliation.md, section 2; sql/staging/currencies.sql says the same; a test compares.
ZERO_PLACES = (
    *("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga"),
    *("pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"),
)
THREE_PLACES = ("bhd", "jod", "kwd", "omr", "tnd")
PLACES: Mapping[str, int | None] = (
    dict.fromkeys(ZERO_PLACES, 0) | dict.fromkeys(THREE_PLACES, 3) | {"ugx": None}
)


def minor_units(stated: str, currency: str, name: str) -> int:
    """Major units as text to minor units, exactly. Raises RecordRefused for what can't be said
    exactly.

    >>> minor_units("49.5", "usd", "Amount") 4950
    """
    places = PLACES.get(currency, 2)
    if places is None:
        raise RecordRefused(f"{name}: how many places its currency has is not known")
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]+)?", stated, re.ASCII):
        raise RecordRefused(f"{name} is not a plain amount")
    if len(stated.partition(".")[2]) > places:
        raise RecordRefused(f"{name} has more than the {places} places of its currency")
    return int(Decimal(stated).scaleb(places))


def _utc(stated: str, name: str) -> datetime:
    found = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)[ Tt](\d\d:\d\d)(:\d\d)?(?:\.\d+)?(?:[Zz]| UTC)?", stated, re.ASCII
    )
    if not found:
        raise RecordRefused(f"{name} is not a time like 2026-11-22 06:00")
    try:
        return datetime.fromisoformat(f"{found[1]}T{found[2]}{found[3] or ':00'}")
    except ValueError:
        raise RecordRefused(f"{name} is no time there is") from None


def _word(stated: str) -> str:
    return " ".join(stated.lower().replace("_", " ").split())


def columns_of(header: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """Which column of a file holds what, and which holds which metadata key. Raises RecordRefused
    for a missing one.
    """
    by_word: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for name in header:
        found = re.fullmatch(r"\s*(.*\S)\s*\(metadata\)\s*", name, re.IGNORECASE)
        place, word = (metadata, found[1].lower()) if found else (by_word, _word(name))
        if word in place:
            raise RecordRefused("a column is given twice")
        place[word] = name
    columns = {}
    for ours, theirs in NAMES.items():
        named = [by_word[word] for word in theirs if word in by_word]
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
    word = _word(value["status"])
    if word not in STATUSES:
        raise RecordRefused("Status is no charge's status")
    status = STATUSES[word]
    amount = minor_units(value["amount"], currency, "Amount")
    is_captured = status == "succeeded" and word not in UNCAPTURED
    if "captured" in value:
        if value["captured"].lower() not in ("true", "false"):
            raise RecordRefused("Captured is neither true nor false")
        is_captured = status == "succeeded" and value["captured"].lower() == "true"
    refunded = amount if word == "refunded" else 0
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
        "created_at": _utc(value["created"], columns["created"]),
        "status": status,
        "amount_minor": amount,
        "amount_captured_minor": amount if is_captured else 0,
        "amount_refunded_minor": refunded,
        "currency": currency,
        "captured": is_captured,
        "refunded": word == "refunded" or (amount > 0 and refunded == amount),
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
    status = _word(value["dispute_status"]).replace(" ", "_")
    if status not in DISPUTE_STATUSES:
        raise RecordRefused("Dispute Status is none that Stripe uses")
    amount = None
    if "disputed_amount" in value:
        amount = minor_units(value["disputed_amount"], charge["currency"], "Disputed Amount")
    elif status in ("needs_response", "under_review", "lost"):
        raise RecordRefused("a dispute that holds money, without a Disputed Amount")
    created = charge["created_at"]
    if "dispute_date" in value:
        created = _utc(value["dispute_date"], columns["dispute_date"])
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


def _is_report(arrival: Arrival) -> bool:
    """Whether the file is one of Stripe's itemized reports, which have their own columns."""
    first = next(iter(arrival.records), None)
    return first is not None and {"balance_transaction_id", "reporting_category"} <= set(
        first.names
    )


def land(draft: Draft, settings: Settings, clock: Clock) -> None:
    """Every export that is new at `[stripe] exports`."""
    location = settings.place(settings.stripe.exports)
    for arrival in tabular.arrivals(draft, clock, location, "stripe_csv"):
        if _is_report(arrival):
            arrival.is_kept = False
            draft.remark(
                f"{arrival.location} was not read: it is an itemized report, not the payments "
                f"export."
            )
            continue
        charges, disputes = [], []
        for record in arrival.records:
            try:
                charge, dispute = charge_and_dispute(record)
            except RecordRefused as error:
                arrival.refuse(record, str(error))
                continue
            charges.append(charge)
            disputes += [dispute] if dispute else []
        changed = append_changed(draft, "raw.stripe_charges", charges, arrival.arrived_at)
        append_changed(draft, "raw.stripe_disputes", disputes, arrival.arrived_at)
        arrival.accepted_count = len(changed)
        arrival.duplicate_count = len(charges) - len(changed)

"""Stripe's API objects as rows of raw.stripe_*: which of them are listed, and which are not final.

Objects come in the shape of the API version they were read with. From basil (2025-03-31) on a
charge names no invoice and an invoice no charge: InvoicePayments tie them. Older shapes are read as
well, so both may lie in one warehouse (facts/stripe.md, 5.4). Reads nothing itself.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from assets.stripe_objects import kept_metadata

Object = Mapping[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """One kind of object: where it is listed, what is kept of it, and which of those in raw are not
    final.
    """

    name: str  # of the SDK's service, and in the URL
    table: str
    key: str
    row: Callable[[Object, bool], Row]
    not_final: str = ""  # SQL over the newest row of each id; empty: all are
    expand: tuple[str, ...] = ()


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _at_if(seconds: int | None) -> datetime | None:
    return None if seconds is None else _at(seconds)


def _id(value: Any) -> str | None:
    """An id, whether the field holds the id or the object."""
    if isinstance(value, Mapping):
        value = value.get("id")
    return str(value) if value else None


def _inside(value: Any, *names: str) -> Any:
    """What stands at a path of names; None where the path ends before."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def charge_row(stated: Object, livemode: bool) -> Row:
    """A Charge of the API as a row of raw.stripe_charges."""
    return {
        "charge_id": stated["id"],
        "origin": "api",
        "livemode": stated.get("livemode", livemode),
        "created_at": _at(stated["created"]),
        "status": stated["status"],
        "amount_minor": stated["amount"],
        "amount_captured_minor": stated.get("amount_captured", 0),
        "amount_refunded_minor": stated.get("amount_refunded", 0),
        "currency": stated["currency"].lower(),
        "captured": stated.get("captured", False),
        "refunded": stated.get("refunded", False),
        "disputed": stated.get("disputed", False),
        "payment_intent_id": _id(stated.get("payment_intent")),
        "stripe_invoice_id": _id(stated.get("invoice")),
        "customer_id": _id(stated.get("customer")),
        "balance_transaction_id": _id(stated.get("balance_transaction")),
        "description": stated.get("description"),
        "receipt_url": stated.get("receipt_url"),
        "metadata": kept_metadata(stated.get("metadata")),
    }


def refund_row(stated: Object, livemode: bool) -> Row:
    """A Refund of the API, its balance transaction expanded, as a row of raw.stripe_refunds."""
    transaction = stated.get("balance_transaction")
    return {
        "refund_id": stated["id"],
        "origin": "api",
        "livemode": livemode,
        "charge_id": _id(stated.get("charge")),
        "payment_intent_id": _id(stated.get("payment_intent")),
        "created_at": _at(stated["created"]),
        "status": stated["status"],
        "amount_minor": stated["amount"],
        "currency": stated["currency"].lower(),
        "failure_reason": stated.get("failure_reason"),
        "reason": stated.get("reason"),
        "reporting_category": transaction.get("reporting_category")
        if isinstance(transaction, Mapping)
        else None,
        "metadata": kept_metadata(stated.get("metadata")),
    }


def dispute_row(stated: Object, livemode: bool) -> Row:
    """A Dispute of the API as a row of raw.stripe_disputes."""
    return {
        "dispute_id": stated["id"],
        "origin": "api",
        "livemode": stated.get("livemode", livemode),
        "charge_id": _id(stated.get("charge")),
        "payment_intent_id": _id(stated.get("payment_intent")),
        "created_at": _at(stated["created"]),
        "status": stated["status"],
        "amount_minor": stated["amount"],
        "currency": stated["currency"].lower(),
        "reason": stated.get("reason"),
        "metadata": kept_metadata(stated.get("metadata")),
    }


def payment_intent_row(stated: Object, livemode: bool) -> Row:
    """A PaymentIntent of the API as a row of raw.stripe_payment_intents."""
    return {
        "payment_intent_id": stated["id"],
        "origin": "api",
        "livemode": stated.get("livemode", livemode),
        "created_at": _at(stated["created"]),
        "status": stated["status"],
        "amount_minor": stated["amount"],
        "amount_received_minor": stated.get("amount_received"),
        "currency": stated["currency"].lower(),
        "stripe_invoice_id": _id(stated.get("invoice")),
        "latest_charge_id": _id(stated.get("latest_charge")),
        "customer_id": _id(stated.get("customer")),
        "metadata": kept_metadata(stated.get("metadata")),
    }


def invoice_row(stated: Object, livemode: bool) -> Row:
    """A Stripe invoice, all its lines in it, as a row of raw.stripe_invoices."""
    subscription = _inside(stated, "parent", "subscription_details")
    snapshot = _inside(subscription, "metadata")
    if snapshot is None:  # before basil
        snapshot = _inside(stated, "subscription_details", "metadata")
    turned = stated.get("status_transitions")
    return {
        "stripe_invoice_id": stated["id"],
        "origin": "api",
        "livemode": stated.get("livemode", livemode),
        "created_at": _at(stated["created"]),
        "finalized_at": _at_if(_inside(turned, "finalized_at")),
        "paid_at": _at_if(_inside(turned, "paid_at")),
        "voided_at": _at_if(_inside(turned, "voided_at")),
        "status": stated.get("status"),
        "number": stated.get("number"),
        "billing_reason": stated.get("billing_reason"),
        "customer_id": _id(stated.get("customer")),
        "subscription_id": _id(_inside(subscription, "subscription") or stated.get("subscription")),
        "currency": stated["currency"].lower(),
        "subtotal_minor": stated.get("subtotal"),
        "total_minor": stated["total"],
        "total_excluding_tax_minor": stated.get("total_excluding_tax"),
        "tax_minor": _tax(stated),
        "amount_due_minor": stated.get("amount_due"),
        "amount_paid_minor": stated.get("amount_paid"),
        "amount_remaining_minor": stated.get("amount_remaining"),
        "amount_paid_off_stripe_minor": stated.get("amount_paid_off_stripe"),
        "pre_payment_credit_notes_minor": stated.get("pre_payment_credit_notes_amount"),
        "post_payment_credit_notes_minor": stated.get("post_payment_credit_notes_amount"),
        "starting_balance_minor": stated.get("starting_balance"),
        "ending_balance_minor": stated.get("ending_balance"),
        "charge_id": _id(stated.get("charge")),
        "payment_intent_id": _id(stated.get("payment_intent")),
        "paid_out_of_band": stated.get("paid_out_of_band"),
        "hosted_url": stated.get("hosted_invoice_url"),
        "pdf_url": stated.get("invoice_pdf"),
        "metadata": kept_metadata(stated.get("metadata")),
        "subscription_metadata": kept_metadata(snapshot),
        "line_metadata": _line_metadata(_inside(stated, "lines", "data") or ()),
    }


def _tax(stated: Object) -> int | None:
    """The sum of `total_taxes`, which is null for none; before basil `tax`, likewise."""
    if "total_taxes" in stated:
        return sum(int(tax["amount"]) for tax in stated["total_taxes"] or ())
    if "tax" in stated:
        return int(stated["tax"] or 0)
    return None


def _line_metadata(lines: Iterable[Object]) -> str:
    """What lines say of the two keys, each once, in their order."""
    said = (kept_metadata(line.get("metadata")) for line in lines)
    return json.dumps([json.loads(text) for text in dict.fromkeys(said) if text != "{}"])


def invoice_payment_row(stated: Object, livemode: bool) -> Row:
    """An InvoicePayment of the API as a row of raw.stripe_invoice_payments."""
    payment = stated.get("payment")
    return {
        "invoice_payment_id": stated["id"],
        "origin": "api",
        "livemode": stated.get("livemode", livemode),
        "created_at": _at(stated["created"]),
        "status": stated["status"],
        "stripe_invoice_id": _id(stated.get("invoice")),
        "payment_type": _inside(payment, "type"),
        "payment_intent_id": _id(_inside(payment, "payment_intent")),
        "charge_id": _id(_inside(payment, "charge")),
        "payment_record_id": _id(_inside(payment, "payment_record")),
        "amount_requested_minor": stated.get("amount_requested"),
        "amount_paid_minor": stated.get("amount_paid"),
        "currency": stated["currency"].lower(),
        "is_default": stated.get("is_default"),
        "paid_at": _at_if(_inside(stated, "status_transitions", "paid_at")),
        "canceled_at": _at_if(_inside(stated, "status_transitions", "canceled_at")),
    }


def balance_transaction_row(stated: Object, livemode: bool) -> Row:
    """A BalanceTransaction of the API as a row of raw.stripe_balance_transactions.

    It does not say its payout, nor its mode; whether it is available already follows from
    `available_at`, so that nothing of it changes with time alone.
    """
    rate = stated.get("exchange_rate")
    fees = [
        {"type": fee["type"], "amount": fee["amount"], "currency": fee["currency"].lower()}
        for fee in stated.get("fee_details") or ()
    ]
    return {
        "balance_transaction_id": stated["id"],
        "origin": "api",
        "livemode": livemode,
        "created_at": _at(stated["created"]),
        "available_at": _at_if(stated.get("available_on")),
        "type": stated.get("type"),
        "reporting_category": stated.get("reporting_category"),
        "balance_type": stated.get("balance_type"),
        "amount_minor": stated["amount"],
        "fee_minor": stated["fee"],
        "net_minor": stated["net"],
        "currency": stated["currency"].lower(),
        # The shortest text that reads back as the number is the one that Stripe wrote.
        "exchange_rate": None if rate is None else format(Decimal(str(rate)), "f"),
        "source_id": _id(stated.get("source")),
        "payout_id": None,
        "fee_details": json.dumps(fees),
    }


def credit_note_row(stated: Object, livemode: bool) -> Row:
    """A CreditNote of the API as a row of raw.stripe_credit_notes."""
    refunds = [_id(one.get("refund")) for one in stated.get("refunds") or ()]
    if not refunds:  # before basil
        refunds = [_id(stated.get("refund"))]
    return {
        "credit_note_id": stated["id"],
        "origin": "api",
        "livemode": stated.get("livemode", livemode),
        "created_at": _at(stated["created"]),
        "voided_at": _at_if(stated.get("voided_at")),
        "status": stated["status"],
        "number": stated.get("number"),
        "type": stated.get("type"),
        "reason": stated.get("reason"),
        "stripe_invoice_id": _id(stated.get("invoice")),
        "customer_id": _id(stated.get("customer")),
        "currency": stated["currency"].lower(),
        "total_minor": stated["total"],
        "total_excluding_tax_minor": stated.get("total_excluding_tax"),
        "tax_minor": _tax(stated),
        "pre_payment_minor": stated.get("pre_payment_amount"),
        "post_payment_minor": stated.get("post_payment_amount"),
        "out_of_band_minor": stated.get("out_of_band_amount"),
        "refund_ids": sorted(name for name in refunds if name),
        "metadata": kept_metadata(stated.get("metadata")),
    }


def payout_row(stated: Object, livemode: bool) -> Row:
    """A Payout of the API as a row of raw.stripe_payouts."""
    return {
        "payout_id": stated["id"],
        "origin": "api",
        "livemode": stated.get("livemode", livemode),
        "created_at": _at(stated["created"]),
        "arrives_at": _at_if(stated.get("arrival_date")),
        "status": stated["status"],
        "amount_minor": stated["amount"],
        "currency": stated["currency"].lower(),
        "automatic": stated.get("automatic"),
        "balance_transaction_id": _id(stated.get("balance_transaction")),
        "failure_balance_transaction_id": _id(stated.get("failure_balance_transaction")),
        "failure_code": stated.get("failure_code"),
        "reconciliation_status": stated.get("reconciliation_status"),
        "original_payout_id": _id(stated.get("original_payout")),
        "reversed_by_payout_id": _id(stated.get("reversed_by")),
        "method": stated.get("method"),
        "type": stated.get("type"),
        "trace_id": _inside(stated, "trace_id", "value"),
    }


def customer_row(stated: Object, livemode: bool) -> Row:
    """A Customer of the API as a row of raw.stripe_customers: the billing contact, no more."""
    return {
        "customer_id": stated["id"],
        "origin": "api",
        "livemode": stated.get("livemode", livemode),
        "created_at": _at(stated["created"]),
        "name": stated.get("name"),
        "email": stated.get("email"),
    }


CHARGES = Resource(
    "charges",
    "raw.stripe_charges",
    "charge_id",
    charge_row,
    "status = 'pending' or (status = 'succeeded' and not captured and not refunded)",
    expand=("customer",),
)
REFUNDS = Resource(
    "refunds",
    "raw.stripe_refunds",
    "refund_id",
    refund_row,
    "status in ('pending', 'requires_action')",
    expand=("balance_transaction",),
)
DISPUTES = Resource(
    "disputes",
    "raw.stripe_disputes",
    "dispute_id",
    dispute_row,
    # An inquiry may yet become a dispute under the same id.
    "status in ('needs_response', 'under_review', "
    "'warning_needs_response', 'warning_under_review')",
)
BALANCE_TRANSACTIONS = Resource(
    "balance_transactions",
    "raw.stripe_balance_transactions",
    "balance_transaction_id",
    balance_transaction_row,
)
# Abandoned checkouts leave PaymentIntents that wait for ever: one is read again with its charge.
PAYMENT_INTENTS = Resource(
    "payment_intents", "raw.stripe_payment_intents", "payment_intent_id", payment_intent_row
)
INVOICES = Resource(
    "invoices",
    "raw.stripe_invoices",
    "stripe_invoice_id",
    invoice_row,
    "status in ('draft', 'open')",
    expand=("customer",),
)
INVOICE_PAYMENTS = Resource(
    "invoice_payments",
    "raw.stripe_invoice_payments",
    "invoice_payment_id",
    invoice_payment_row,
    "status = 'open'",
)
# Only the credit notes of an open invoice can be voided: they are read again with it.
CREDIT_NOTES = Resource(
    "credit_notes", "raw.stripe_credit_notes", "credit_note_id", credit_note_row
)
PAYOUTS = Resource(
    "payouts",
    "raw.stripe_payouts",
    "payout_id",
    payout_row,
    "status in ('pending', 'in_transit') or reconciliation_status = 'in_progress'",
)
CUSTOMERS = Resource("customers", "raw.stripe_customers", "customer_id", customer_row)

# What may have been changed by another is listed after it: see `Reading.run`.
RESOURCES = (
    PAYOUTS,
    BALANCE_TRANSACTIONS,
    DISPUTES,
    REFUNDS,
    CREDIT_NOTES,
    INVOICE_PAYMENTS,
    CHARGES,
    PAYMENT_INTENTS,
    INVOICES,
    CUSTOMERS,
)

# How an id begins → where it is read; what a balance transaction names otherwise is not ours.
BY_PREFIX = {
    "ch": CHARGES,
    "py": CHARGES,
    "re": REFUNDS,
    "pyr": REFUNDS,
    "dp": DISPUTES,
    "du": DISPUTES,
    "po": PAYOUTS,
}

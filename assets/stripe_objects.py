"""What the house keeps of Stripe's objects, whichever way they came; both Stripe sources write
through here.

Only these typed columns reach the disk: no billing details, no cards, no evidence, no descriptions
of transfers, and of any metadata only the two keys that the ladder reads (facts/reconciliation.md,
section 3). Of a customer the name and the e-mail address are kept, because billing history shows a
billing contact; nothing else that names a person is. Lands nothing by itself.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pipelines import tabular
from pipelines.store import Draft, RawTable

METADATA_KEYS = ("infery_invoice_id", "workspace_id")

ORIGIN = {"origin": ("varchar", "who told: api | csv")}
STAMP = {
    "record_sha256": (
        "varchar",
        "of the typed record, without its arrival: equal records are the same version",
    ),
    "arrived_at": ("timestamp", "UTC, wall clock at landing"),
}
METADATA = {
    "metadata": (
        "varchar",
        "JSON object; only the keys infery_invoice_id and workspace_id are kept",
    )
}

TABLES = {
    "raw.stripe_charges": RawTable(
        "A Stripe charge as it stood when it was read; a new row whenever it has changed.",
        {"charge_id": ("varchar", "Stripe's id")}
        | ORIGIN
        | {
            "livemode": ("boolean", "false: a test charge; null: the export does not say"),
            "created_at": ("timestamp", "UTC"),
            "status": ("varchar", "succeeded | pending | failed"),
            "amount_minor": ("bigint", "asked for or authorised"),
            "amount_captured_minor": ("bigint", "taken"),
            "amount_refunded_minor": ("bigint", "Stripe's own sum, capture reversals included"),
            "currency": ("varchar", "lower-case ISO code"),
            "captured": ("boolean", ""),
            "refunded": ("boolean", "wholly refunded, or an authorisation let go"),
            "disputed": ("boolean", ""),
            "payment_intent_id": ("varchar", ""),
            "stripe_invoice_id": ("varchar", "before basil (2025-03-31), and in exports"),
            "customer_id": ("varchar", ""),
            "balance_transaction_id": ("varchar", ""),
            "description": ("varchar", ""),
            "receipt_url": ("varchar", ""),
        }
        | METADATA
        | STAMP,
    ),
    "raw.stripe_refunds": RawTable(
        "A Stripe refund as it stood when it was read; a new row whenever it has changed.",
        {"refund_id": ("varchar", "Stripe's id")}
        | ORIGIN
        | {
            "livemode": (
                "boolean",
                "the mode of the key it was read with: a Refund does not say its own",
            ),
            "charge_id": ("varchar", ""),
            "payment_intent_id": ("varchar", ""),
            "created_at": ("timestamp", "UTC"),
            "status": ("varchar", "pending | requires_action | succeeded | failed | canceled"),
            "amount_minor": ("bigint", ""),
            "currency": ("varchar", "lower-case ISO code"),
            "failure_reason": ("varchar", ""),
            "reason": ("varchar", ""),
            "reporting_category": ("varchar", "of its balance transaction; null: unknown"),
        }
        | METADATA
        | STAMP,
    ),
    "raw.stripe_disputes": RawTable(
        "A Stripe dispute as it stood when it was read; a new row whenever it has changed.",
        {
            "dispute_id": (
                "varchar",
                "Stripe's id; csv:dispute:<charge> for one shown beside a charge in an export",
            )
        }
        | ORIGIN
        | {
            "livemode": ("boolean", ""),
            "charge_id": ("varchar", ""),
            "payment_intent_id": ("varchar", ""),
            "created_at": ("timestamp", "UTC"),
            "status": ("varchar", "Stripe's word"),
            "amount_minor": ("bigint", ""),
            "currency": ("varchar", "lower-case ISO code"),
            "reason": ("varchar", ""),
        }
        | METADATA
        | STAMP,
    ),
    "raw.stripe_payment_intents": RawTable(
        "A Stripe PaymentIntent as it stood when it was read; a new row whenever it has changed.",
        {"payment_intent_id": ("varchar", "Stripe's id")}
        | ORIGIN
        | {
            "livemode": ("boolean", "false: test mode"),
            "created_at": ("timestamp", "UTC"),
            "status": (
                "varchar",
                "requires_payment_method | requires_confirmation | requires_action | processing | "
                "requires_capture | canceled | succeeded",
            ),
            "amount_minor": ("bigint", "asked for"),
            "amount_received_minor": ("bigint", "taken"),
            "currency": ("varchar", "lower-case ISO code"),
            "stripe_invoice_id": ("varchar", "before basil (2025-03-31) only"),
            "latest_charge_id": ("varchar", ""),
            "customer_id": ("varchar", ""),
        }
        | METADATA
        | STAMP,
    ),
    "raw.stripe_invoices": RawTable(
        "A Stripe invoice as it stood when it was read; a new row whenever it has changed.",
        {"stripe_invoice_id": ("varchar", "Stripe's id")}
        | ORIGIN
        | {
            "livemode": ("boolean", "false: test mode"),
            "created_at": ("timestamp", "UTC"),
            "finalized_at": ("timestamp", "UTC; null: a draft"),
            "paid_at": ("timestamp", "UTC"),
            "voided_at": ("timestamp", "UTC"),
            "status": (
                "varchar",
                "draft | open | paid | uncollectible | void; deleted (our word): a draft that "
                "Stripe knows no more",
            ),
            "number": ("varchar", "what the customer sees; null: a draft"),
            "billing_reason": ("varchar", "Stripe's word"),
            "customer_id": ("varchar", ""),
            "subscription_id": ("varchar", "`parent.subscription_details`, before basil its own"),
            "currency": ("varchar", "lower-case ISO code"),
            "subtotal_minor": ("bigint", ""),
            "total_minor": ("bigint", "Stripe's bill, tax included"),
            "total_excluding_tax_minor": ("bigint", ""),
            "tax_minor": ("bigint", "the sum of `total_taxes`; before basil its `tax`"),
            "amount_due_minor": ("bigint", ""),
            "amount_paid_minor": ("bigint", "from basil on, what was paid past Stripe included"),
            "amount_remaining_minor": ("bigint", ""),
            "amount_paid_off_stripe_minor": ("bigint", "null: the object does not say"),
            "pre_payment_credit_notes_minor": ("bigint", ""),
            "post_payment_credit_notes_minor": ("bigint", ""),
            "starting_balance_minor": ("bigint", "the customer's, before; negative: credit"),
            "ending_balance_minor": ("bigint", "the customer's, after; null: not finalised"),
            "charge_id": ("varchar", "before basil only"),
            "payment_intent_id": ("varchar", "before basil only"),
            "paid_out_of_band": ("boolean", "before basil only; null: the object does not say"),
            "hosted_url": ("varchar", "Stripe's page of it"),
            "pdf_url": ("varchar", ""),
        }
        | METADATA
        | {
            "subscription_metadata": (
                "varchar",
                "JSON object, the same two keys: of its subscription, as copied at finalisation",
            ),
            "line_metadata": (
                "varchar",
                "JSON list of objects, the same two keys: of its lines that say any, in order",
            ),
        }
        | STAMP,
    ),
    "raw.stripe_invoice_payments": RawTable(
        "A Stripe InvoicePayment (what was paid of an invoice, from basil on) as it stood when it "
        "was read; a new row whenever it has changed.",
        {"invoice_payment_id": ("varchar", "Stripe's id")}
        | ORIGIN
        | {
            "livemode": ("boolean", "false: test mode"),
            "created_at": ("timestamp", "UTC"),
            "status": ("varchar", "open | paid | canceled"),
            "stripe_invoice_id": ("varchar", ""),
            "payment_type": ("varchar", "payment_intent | charge | payment_record"),
            "payment_intent_id": ("varchar", "where its type is payment_intent"),
            "charge_id": ("varchar", "where its type is charge: one without a PaymentIntent"),
            "payment_record_id": ("varchar", "where its type is payment_record: past Stripe"),
            "amount_requested_minor": ("bigint", ""),
            "amount_paid_minor": ("bigint", "null until paid"),
            "currency": ("varchar", "lower-case ISO code"),
            "is_default": ("boolean", ""),
            "paid_at": ("timestamp", "UTC"),
            "canceled_at": ("timestamp", "UTC"),
        }
        | STAMP,
    ),
    "raw.stripe_balance_transactions": RawTable(
        "A Stripe balance transaction as it stood when it was read; a new row whenever it has "
        "changed.",
        {"balance_transaction_id": ("varchar", "Stripe's id")}
        | ORIGIN
        | {
            "livemode": ("boolean", "the mode of the key it was read with; null: from a report"),
            "created_at": ("timestamp", "UTC"),
            "available_at": ("timestamp", "UTC"),
            "type": ("varchar", "Stripe's word; null: a report does not say"),
            "reporting_category": ("varchar", "what the money was for, finer than the type"),
            "balance_type": ("varchar", "payments | issuing | …; null: a report does not say"),
            "amount_minor": ("bigint", "gross, in the currency of the account's balance"),
            "fee_minor": ("bigint", "what Stripe kept of it"),
            "net_minor": ("bigint", "amount less fee"),
            "currency": ("varchar", "lower-case ISO code, of settlement"),
            "exchange_rate": ("varchar", "decimal text; null: no conversion"),
            "source_id": ("varchar", "the charge, refund, dispute, payout … behind it"),
            "payout_id": ("varchar", "the automatic payout it went out with; null: none known"),
            "fee_details": (
                "varchar",
                "JSON list of {type, amount, currency}; null: a report does not say",
            ),
        }
        | STAMP,
    ),
    "raw.stripe_credit_notes": RawTable(
        "A Stripe credit note as it stood when it was read; a new row whenever it has changed.",
        {"credit_note_id": ("varchar", "Stripe's id")}
        | ORIGIN
        | {
            "livemode": ("boolean", "false: test mode"),
            "created_at": ("timestamp", "UTC"),
            "voided_at": ("timestamp", "UTC"),
            "status": ("varchar", "issued | void"),
            "number": ("varchar", "what the customer sees"),
            "type": ("varchar", "pre_payment | post_payment | mixed"),
            "reason": ("varchar", "Stripe's word"),
            "stripe_invoice_id": ("varchar", ""),
            "customer_id": ("varchar", ""),
            "currency": ("varchar", "lower-case ISO code"),
            "total_minor": ("bigint", "tax included"),
            "total_excluding_tax_minor": ("bigint", ""),
            "tax_minor": ("bigint", "the sum of `total_taxes`"),
            "pre_payment_minor": ("bigint", "what lowered the invoice; null: it does not say"),
            "post_payment_minor": ("bigint", "what was given back; null: it does not say"),
            "out_of_band_minor": ("bigint", "what was given back past Stripe"),
            "refund_ids": ("varchar[]", "the refunds it caused; before basil at most one"),
        }
        | METADATA
        | STAMP,
    ),
    "raw.stripe_payouts": RawTable(
        "A Stripe payout as it stood when it was read; a new row whenever it has changed.",
        {"payout_id": ("varchar", "Stripe's id")}
        | ORIGIN
        | {
            "livemode": ("boolean", "false: test mode; null: from a report"),
            "created_at": ("timestamp", "UTC"),
            "arrives_at": ("timestamp", "UTC; when the bank is to have it"),
            "status": ("varchar", "pending | in_transit | paid | failed | canceled"),
            "amount_minor": ("bigint", ""),
            "currency": ("varchar", "lower-case ISO code"),
            "automatic": ("boolean", "only an automatic one has a list of its transactions"),
            "balance_transaction_id": ("varchar", "the payout's own"),
            "failure_balance_transaction_id": ("varchar", ""),
            "failure_code": ("varchar", "Stripe's word"),
            "reconciliation_status": ("varchar", "not_applicable | in_progress | completed"),
            "original_payout_id": ("varchar", "of a reversal: what it reverses"),
            "reversed_by_payout_id": ("varchar", ""),
            "method": ("varchar", "standard | instant"),
            "type": ("varchar", "bank_account | card"),
            "trace_id": ("varchar", "what the bank calls it; null: not known"),
        }
        | STAMP,
    ),
    "raw.stripe_customers": RawTable(
        "A Stripe customer as it stood when it was read; a new row whenever it has changed. Only "
        "the billing contact is kept.",
        {"customer_id": ("varchar", "Stripe's id")}
        | ORIGIN
        | {
            "livemode": ("boolean", "false: test mode"),
            "created_at": ("timestamp", "UTC"),
            "name": ("varchar", "of the billing contact"),
            "email": ("varchar", "of the billing contact"),
        }
        | STAMP,
    ),
    "raw.stripe_report_lines": RawTable(
        "What an itemized report of Stripe says of a balance transaction, beside its money: which "
        "charge, PaymentIntent and Stripe invoice are behind it; a new row whenever it changed.",
        {"report_line_id": ("varchar", "<report>:<balance transaction>")}
        | ORIGIN
        | {
            "report": ("varchar", "the report's name, without its version"),
            "balance_transaction_id": ("varchar", ""),
            "created_at": ("timestamp", "UTC"),
            "reporting_category": ("varchar", ""),
            "source_id": ("varchar", ""),
            "charge_id": ("varchar", ""),
            "payment_intent_id": ("varchar", ""),
            "stripe_invoice_id": ("varchar", "stated after basil too: rung 7 of the ladder"),
            "invoice_number": ("varchar", ""),
            "subscription_id": ("varchar", ""),
            "payout_id": ("varchar", "the automatic payout it went out with"),
            "customer_facing_amount_minor": ("bigint", "in the customer's currency"),
            "customer_facing_currency": ("varchar", "lower-case ISO code"),
        }
        | METADATA
        | STAMP,
    ),
}


def kept_metadata(stated: Mapping[str, Any] | None) -> str:
    """The two keys of the metadata that the ladder reads, as a JSON object."""
    return json.dumps(
        {key: stated[key] for key in METADATA_KEYS if stated and stated.get(key) is not None}
    )


def append_changed(
    draft: Draft, table: str, rows: Iterable[Mapping[str, Any]], arrived_at: datetime
) -> list[dict[str, Any]]:
    """Appends the records that differ from the version raw holds of them (by id and origin);
    returns those appended.

    Reading what has not changed appends nothing at all, so a second night on the same Stripe
    changes no byte. Of several records of one id the last stands.
    """
    columns = {name: kind for name, (kind, _) in TABLES[table].columns.items()}
    key = next(iter(columns))
    stated: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        kept: dict[str, Any] = {name: row.get(name) for name in columns if name not in STAMP}
        text = json.dumps(kept, default=str, sort_keys=True)
        kept["record_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        kept["arrived_at"] = arrived_at
        stated[(kept[key], kept["origin"])] = kept
    if not stated:
        return []
    known: dict[tuple[str, str], str] = {}
    if draft.partitions(table):
        current = draft.query(
            f"select {key}, origin, record_sha256 from {table} "
            f"where {key} in (select unnest($ids::varchar[])) "
            "qualify row_number() over "
            f"(partition by {key}, origin order by arrived_at desc, record_sha256) = 1",
            ids=sorted({name for name, _ in stated}),
        ).to_pylist()
        known = {(row[key], row["origin"]): row["record_sha256"] for row in current}
    changed = [
        row for name, row in sorted(stated.items()) if known.get(name) != row["record_sha256"]
    ]
    if changed:
        draft.append(table, tabular.arrow(changed, columns))
    return changed

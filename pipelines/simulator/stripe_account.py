"""Stripe's objects as API version 2026-10-28.endive shapes them: every field, with plain values.

`charge(id="ch_1", amount=100)` gives a whole object with these fields written over. Field names
follow the examples that Stripe publishes; a charge of this version has no `invoice`, and its
`refunds` are null unless a request expands them.
"""

from copy import deepcopy
from typing import Any

API_VERSION = "2026-10-28.endive"

Object = dict[str, Any]


def account(objects: dict[str, list[Object]], *, as_of: int, mixed_modes: bool = False) -> Object:
    """What `stripe_server.serve` serves: objects by their kind (`charge`, `refund`, …).

    as_of: the account's clock in epoch seconds; events older than 30 days before it are gone.
    mixed_modes: a key sees test and live objects alike. Stripe never does this; but a warehouse
    that was once fed with the other mode's key holds both, and so does this one, in one night.
    A balance transaction's `_payout` is its automatic payout, which the list can be filtered by and
    the object does not show. `["forbidden"]` may name resources that no key may read.
    """
    identity = {
        "id": "acct_1MeterhouseLocal",
        "object": "account",
        "business_profile": {"name": "Infery (simulated)", "support_email": None, "url": None},
        "charges_enabled": True,
        "country": "GB",
        "default_currency": "gbp",
        "details_submitted": True,
        "email": "billing@infery.example",
        "metadata": {},
        "payouts_enabled": True,
        "settings": {"dashboard": {"display_name": "Infery (simulated)", "timezone": "Etc/UTC"}},
        "type": "standard",
    }
    return {"account": identity, "as_of": as_of, "mixed_modes": mixed_modes, "objects": objects}


def charge(**fields: Any) -> Object:
    return deepcopy(CHARGE) | fields


def refund(**fields: Any) -> Object:
    return deepcopy(REFUND) | fields


def dispute(**fields: Any) -> Object:
    return deepcopy(DISPUTE) | fields


def balance_transaction(**fields: Any) -> Object:
    """`net` follows from `amount` and `fee`, as it does at Stripe."""
    whole = deepcopy(BALANCE_TRANSACTION) | fields
    return whole | {"net": whole["amount"] - whole["fee"]}


def payment_intent(**fields: Any) -> Object:
    return deepcopy(PAYMENT_INTENT) | fields


def invoice(**fields: Any) -> Object:
    """What is due and left follows from the total, unless stated."""
    whole = deepcopy(INVOICE) | fields
    for name in ("amount_due", "subtotal", "subtotal_excluding_tax", "total_excluding_tax"):
        if name not in fields:
            whole[name] = whole["total"]
    if "amount_remaining" not in fields:
        whole["amount_remaining"] = max(0, whole["amount_due"] - whole["amount_paid"])
    return whole


def invoice_line(**fields: Any) -> Object:
    return deepcopy(INVOICE_LINE) | fields


def invoice_payment(**fields: Any) -> Object:
    return deepcopy(INVOICE_PAYMENT) | fields


def credit_note(**fields: Any) -> Object:
    return deepcopy(CREDIT_NOTE) | fields


def payout(**fields: Any) -> Object:
    return deepcopy(PAYOUT) | fields


def customer(**fields: Any) -> Object:
    return deepcopy(CUSTOMER) | fields


def _none(names: str) -> Object:
    return dict.fromkeys(names.split())


ADDRESS = _none("city country line1 line2 postal_code state")

CARD: Object = {
    **_none("amount_authorized authorization_code installments mandate network_transaction_id"),
    **_none("regulated_status three_d_secure transaction_link_id wallet"),
    "brand": "visa",
    "checks": _none("address_line1_check address_postal_code_check") | {"cvc_check": "pass"},
    "country": "GB",
    "exp_month": 8,
    "exp_year": 2030,
    "extended_authorization": {"status": "disabled"},
    "fingerprint": "LocalFingerprint",
    "funding": "credit",
    "incremental_authorization": {"status": "unavailable"},
    "last4": "4242",
    "multicapture": {"status": "unavailable"},
    "network": "visa",
    "network_token": {"used": False},
    "overcapture": {"maximum_amount_capturable": 0, "status": "unavailable"},
}

OUTCOME: Object = {
    **_none("advice_code network_advice_code network_decline_code reason"),
    "network_status": "approved_by_network",
    "seller_message": "Payment complete.",
    "type": "authorized",
}

CHARGE: Object = {
    "id": "ch_0",
    "object": "charge",
    "amount": 0,
    "amount_captured": 0,
    "amount_refunded": 0,
    **_none("application application_fee application_fee_amount balance_transaction"),
    "billing_details": {"address": ADDRESS} | _none("email name phone tax_id"),
    "calculated_statement_descriptor": "INFERY",
    "captured": True,
    "created": 0,
    "currency": "gbp",
    **_none("customer description"),
    "disputed": False,
    **_none("failure_balance_transaction failure_code failure_message"),
    "fraud_details": {},
    "livemode": True,
    "metadata": {},
    "on_behalf_of": None,
    "outcome": OUTCOME,
    "paid": True,
    **_none("payment_intent payment_method"),
    "payment_method_details": {"card": CARD, "type": "card"},
    **_none("receipt_email receipt_number receipt_url"),
    "refunded": False,
    **_none("refunds review shipping source source_transfer"),
    **_none("statement_descriptor statement_descriptor_suffix"),
    "status": "succeeded",
    **_none("transfer_data transfer_group"),
}

REFUND: Object = {
    "id": "re_0",
    "object": "refund",
    "amount": 0,
    **_none("balance_transaction charge"),
    "created": 0,
    "currency": "gbp",
    **_none("customer customer_account"),
    "destination_details": {"card": {"type": "refund"}, "type": "card"},
    "metadata": {},
    **_none("payment_intent payment_method reason receipt_number source_transfer_reversal"),
    "status": "succeeded",
    "transfer_reversal": None,
}

EVIDENCE: Object = {
    **_none(
        "access_activity_log billing_address cancellation_policy cancellation_policy_disclosure"
    ),
    **_none("cancellation_rebuttal customer_communication customer_email_address customer_name"),
    **_none("customer_purchase_ip customer_signature duplicate_charge_documentation"),
    **_none("duplicate_charge_explanation duplicate_charge_id product_description receipt"),
    **_none("refund_policy refund_policy_disclosure refund_refusal_explanation service_date"),
    **_none("service_documentation shipping_address shipping_carrier shipping_date"),
    **_none(
        "shipping_documentation shipping_tracking_number uncategorized_file uncategorized_text"
    ),
    "enhanced_evidence": {},
}

DISPUTE: Object = {
    "id": "dp_0",
    "object": "dispute",
    "amount": 0,
    "balance_transactions": [],
    "charge": None,
    "created": 0,
    "currency": "gbp",
    "enhanced_eligibility_types": [],
    "evidence": EVIDENCE,
    "evidence_details": {
        "due_by": None,
        "enhanced_eligibility": {},
        "has_evidence": False,
        "past_due": False,
        "submission_count": 0,
    },
    "is_charge_refundable": False,
    "livemode": True,
    "metadata": {},
    "payment_intent": None,
    "payment_method_details": {
        "card": {
            "brand": "visa",
            "case_type": "chargeback",
            "network": "visa",
            "network_reason_code": "10.4",
        },
        "type": "card",
    },
    "reason": "fraudulent",
    "status": "needs_response",
}

BALANCE_TRANSACTION: Object = {
    "id": "txn_0",
    "object": "balance_transaction",
    "amount": 0,
    "available_on": 0,
    "balance_type": "payments",
    "created": 0,
    "currency": "gbp",
    **_none("description exchange_rate"),
    "fee": 0,
    "fee_details": [],
    "net": 0,
    "reporting_category": "charge",
    "source": None,
    "status": "available",
    "type": "charge",
}

PAYMENT_INTENT: Object = {
    "id": "pi_0",
    "object": "payment_intent",
    "amount": 0,
    "amount_capturable": 0,
    "amount_details": {"tip": {}},
    "amount_received": 0,
    **_none("application application_fee_amount"),
    "automatic_payment_methods": {"enabled": True},
    **_none("canceled_at cancellation_reason"),
    "capture_method": "automatic",
    "client_secret": None,
    "confirmation_method": "automatic",
    "created": 0,
    "currency": "gbp",
    **_none("customer customer_account description excluded_payment_method_types"),
    **_none("last_payment_error latest_charge"),
    "livemode": True,
    "managed_payments": {"enabled": False},
    "metadata": {},
    **_none("next_action on_behalf_of payment_method payment_method_configuration_details"),
    "payment_method_options": {},
    "payment_method_types": ["card"],
    **_none("processing receipt_email review setup_future_usage shipping source"),
    **_none("statement_descriptor statement_descriptor_suffix"),
    "status": "succeeded",
    **_none("transfer_data transfer_group"),
}

INVOICE_LINE: Object = {
    "id": "il_0",
    "object": "line_item",
    "amount": 0,
    "currency": "gbp",
    "description": None,
    "discount_amounts": [],
    "discountable": True,
    "discounts": [],
    "invoice": None,
    "livemode": True,
    "metadata": {},
    "parent": None,
    "period": {"end": 0, "start": 0},
    "pretax_credit_amounts": [],
    "pricing": None,
    "quantity": 1,
    "quantity_decimal": None,
    "subscription": None,
    "subtotal": 0,
    "taxes": None,
}

INVOICE: Object = {
    "id": "in_0",
    "object": "invoice",
    "account_country": "GB",
    "account_name": "Infery (simulated)",
    "account_tax_ids": None,
    "amount_due": 0,
    "amount_overpaid": 0,
    "amount_paid": 0,
    "amount_remaining": 0,
    "amount_shipping": 0,
    "application": None,
    "attempt_count": 0,
    "attempted": False,
    "auto_advance": False,
    "automatic_tax": {"enabled": False} | _none("disabled_reason liability provider status"),
    "automatically_finalizes_at": None,
    "billing_reason": "manual",
    "collection_method": "charge_automatically",
    "created": 0,
    "currency": "gbp",
    **_none("custom_fields customer customer_account customer_address customer_email"),
    **_none("customer_name customer_phone customer_shipping"),
    "customer_tax_exempt": "none",
    "customer_tax_ids": [],
    **_none("default_payment_method default_source"),
    "default_tax_rates": [],
    "description": None,
    "discounts": [],
    **_none("due_date effective_at ending_balance footer from_invoice hosted_invoice_url"),
    "invoice_pdf": None,
    "issuer": {"type": "self"},
    **_none("last_finalization_error latest_revision"),
    "lines": {"object": "list", "data": [], "has_more": False, "url": "/v1/invoices/in_0/lines"},
    "livemode": True,
    "metadata": {},
    **_none("next_payment_attempt number on_behalf_of parent"),
    "payment_settings": _none("default_mandate payment_method_options payment_method_types"),
    "period_end": 0,
    "period_start": 0,
    "post_payment_credit_notes_amount": 0,
    "pre_payment_credit_notes_amount": 0,
    **_none("receipt_number rendering shipping_cost shipping_details"),
    "starting_balance": 0,
    "statement_descriptor": None,
    "status": "draft",
    "status_transitions": _none("finalized_at marked_uncollectible_at paid_at voided_at"),
    "subscription": None,
    "subtotal": 0,
    "subtotal_excluding_tax": 0,
    "test_clock": None,
    "total": 0,
    "total_discount_amounts": [],
    "total_excluding_tax": 0,
    **_none("total_pretax_credit_amounts total_taxes webhooks_delivered_at"),
}

INVOICE_PAYMENT: Object = {
    "id": "inpay_0",
    "object": "invoice_payment",
    "amount_paid": None,
    "amount_requested": 0,
    "created": 0,
    "currency": "gbp",
    "invoice": None,
    "is_default": True,
    "livemode": True,
    "payment": {"type": "payment_intent"},
    "status": "open",
    "status_transitions": _none("canceled_at paid_at"),
}

CREDIT_NOTE: Object = {
    "id": "cn_0",
    "object": "credit_note",
    "amount": 0,
    "amount_shipping": 0,
    "created": 0,
    "currency": "gbp",
    **_none("customer customer_account customer_balance_transaction"),
    "discount_amount": 0,
    "discount_amounts": [],
    **_none("effective_at invoice"),
    "lines": {"object": "list", "data": [], "has_more": False, "url": "/v1/credit_notes/cn_0"},
    "livemode": True,
    "memo": None,
    "metadata": {},
    **_none("number out_of_band_amount pdf"),
    "post_payment_amount": 0,
    "pre_payment_amount": 0,
    "pretax_credit_amounts": [],
    "reason": None,
    "refunds": [],
    "shipping_cost": None,
    "status": "issued",
    "subtotal": 0,
    "subtotal_excluding_tax": 0,
    "total": 0,
    **_none("total_excluding_tax total_taxes"),
    "type": "pre_payment",
    "voided_at": None,
}

PAYOUT: Object = {
    "id": "po_0",
    "object": "payout",
    "amount": 0,
    **_none("application_fee application_fee_amount"),
    "arrival_date": 0,
    "automatic": True,
    "balance_transaction": None,
    "created": 0,
    "currency": "gbp",
    "description": "STRIPE PAYOUT",
    "destination": "ba_1MeterhouseLocal",
    **_none("failure_balance_transaction failure_code failure_message"),
    "livemode": True,
    "metadata": {},
    "method": "standard",
    **_none("original_payout payout_method"),
    "reconciliation_status": "completed",
    "reversed_by": None,
    "source_type": "card",
    "statement_descriptor": None,
    "status": "paid",
    "trace_id": {"status": "supported", "value": None},
    "type": "bank_account",
}

CUSTOMER: Object = {
    "id": "cus_0",
    "object": "customer",
    "address": ADDRESS,
    "balance": 0,
    "created": 0,
    "currency": "gbp",
    "default_source": None,
    "delinquent": False,
    **_none("description discount email"),
    "invoice_prefix": "LOCAL",
    "invoice_settings": _none("custom_fields default_payment_method footer")
    | {"rendering_options": None},
    "livemode": True,
    "metadata": {},
    "name": None,
    "next_invoice_sequence": 1,
    "phone": None,
    "preferred_locales": [],
    "shipping": None,
    "tax_exempt": "none",
    "test_clock": None,
}

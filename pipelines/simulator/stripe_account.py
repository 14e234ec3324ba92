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

-- A Stripe PaymentIntent of the warehouse's mode as it stands now.
--
-- Only what the ladder reads of it: what its metadata says, and, before basil (2025-03-31), which
-- Stripe invoice it pays (facts/reconciliation.md, section 3). One of the other mode is left out
-- here, once, for everybody: no rung reads it.
--
-- grain: payment_intent_id
select
    payment_intent_id,
    created_at,
    status,  -- Stripe's word
    amount_minor,  -- asked for
    amount_received_minor,  -- taken
    lower(currency) as currency,
    stripe_invoice_id,  -- before basil only
    latest_charge_id,
    customer_id,
    trimmed(json_extract_string(metadata, '$.infery_invoice_id'))
        as infery_invoice_id,  -- what its metadata names
    trimmed(json_extract_string(metadata, '$.workspace_id'))
        as workspace_id,  -- what its metadata claims
from raw.stripe_payment_intents
where coalesce(livemode, $stripe_livemode) = $stripe_livemode
qualify version_rank(payment_intent_id, origin, arrived_at, record_sha256) = 1

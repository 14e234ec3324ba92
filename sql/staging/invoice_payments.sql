-- A Stripe InvoicePayment of the warehouse's mode as it stands now: what was paid of a Stripe
-- invoice, and by what. There are none before basil (2025-03-31).
--
-- grain: invoice_payment_id
with fetched as not materialized (  -- noqa: ST03
    select *
    from raw.stripe_invoice_payments
    where coalesce(livemode, $stripe_livemode) = $stripe_livemode
),

versions as (
    select *
    from newest_of(
        'fetched',
        invoice_payment_id,
        version_rank(invoice_payment_id, origin, arrived_at, record_sha256)
    )
)

select
    invoice_payment_id,
    stripe_invoice_id,
    created_at,
    status,  -- open | paid | canceled
    payment_type,  -- payment_intent | charge | payment_record (past Stripe)
    payment_intent_id,
    charge_id,  -- one without a PaymentIntent
    payment_record_id,
    amount_requested_minor,
    amount_paid_minor,  -- null until paid
    lower(currency) as currency,
    paid_at,
from versions

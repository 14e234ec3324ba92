-- A Stripe InvoicePayment of the warehouse's mode as it stands now: what was paid of a Stripe
-- invoice, and by what. There are none before basil (2025-03-31).
--
-- grain: invoice_payment_id
with fetched as not materialized (
    select *, hash(invoice_payment_id) as id_hash,
    from raw.stripe_invoice_payments
    where coalesce(livemode, $stripe_livemode) = $stripe_livemode
),

repeated as (  -- most are read once: only the others need be put in order
    select id_hash
    from fetched
    group by 1
    having count(*) > 1
),

newest as (
    select fetched.*
    from fetched
    semi join repeated using (id_hash)
    qualify row_number() over (
        partition by invoice_payment_id
        order by case origin when 'api' then 0 else 1 end, arrived_at desc, record_sha256
    ) = 1
),

versions as (
    select fetched.*
    from fetched
    anti join repeated using (id_hash)
    union all by name
    select * from newest
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

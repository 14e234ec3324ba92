-- A Stripe invoice of the warehouse's mode as it stands now, in either shape: as it was before
-- basil (2025-03-31) and as it is since.
--
-- Not to be confused with staging.invoices, the gateway's. What was paid past Stripe is stated in
-- one of three ways (facts/reconciliation.md, section 4); here it is one column. A deleted draft
-- is a draft.
--
-- grain: stripe_invoice_id
with fetched as not materialized (
    select *, hash(stripe_invoice_id) as id_hash,
    from raw.stripe_invoices
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
        partition by stripe_invoice_id
        order by case origin when 'api' then 0 else 1 end, arrived_at desc, record_sha256
    ) = 1
),

versions as (
    select fetched.*
    from fetched
    anti join repeated using (id_hash)
    union all by name
    select * from newest
),

records as (  -- what InvoicePayments say was paid past Stripe
    select stripe_invoice_id, sum(amount_paid_minor)::bigint as amount_minor
    from staging.invoice_payments
    where payment_type = 'payment_record' and status = 'paid'
    group by 1
)

select
    stripe_invoice_id,
    created_at,
    finalized_at,
    paid_at,
    voided_at,
    case status when 'deleted' then 'draft' else status end
        as status,  -- draft | open | paid | uncollectible | void
    coalesce(status in ('open', 'paid', 'uncollectible'), false)
        as is_bill,  -- something is, was or should have been owed
    number,
    billing_reason,
    customer_id,
    subscription_id,
    lower(currency) as currency,
    total_minor,  -- Stripe's bill, tax included
    total_excluding_tax_minor,
    tax_minor,
    amount_due_minor,
    amount_paid_minor,
    amount_remaining_minor,
    coalesce(pre_payment_credit_notes_minor, 0) as pre_payment_credit_notes_minor,
    coalesce(ending_balance_minor - starting_balance_minor, 0)
        as balance_applied_minor,  -- the customer's credit that paid a part of it
    case
        when amount_paid_off_stripe_minor is not null then amount_paid_off_stripe_minor
        when paid_out_of_band is not null
            then case when paid_out_of_band then amount_due_minor - amount_paid_minor else 0 end
        else coalesce(records.amount_minor, 0)
    end as out_of_band_minor,  -- paid past Stripe
    charge_id,  -- before basil only
    payment_intent_id,  -- likewise
    hosted_url,
    pdf_url,
    metadata,  -- JSON, as is all metadata here
    subscription_metadata,
    line_metadata,  -- a list of objects
from versions
left join records using (stripe_invoice_id)

-- A Stripe invoice of the warehouse's mode as it stands now, in either shape: as it was before
-- basil (2025-03-31) and as it is since.
--
-- Not to be confused with staging.invoices, the gateway's. What was paid past Stripe is stated in
-- one of three ways (facts/reconciliation.md, section 4); here it is one column. A deleted draft
-- is a draft.
--
-- grain: stripe_invoice_id
with fetched as not materialized (  -- noqa: ST03
    select *
    from raw.stripe_invoices
    where coalesce(livemode, $stripe_livemode) = $stripe_livemode
),

versions as (
    select *
    from newest_of(
        'fetched',
        stripe_invoice_id,
        version_rank(stripe_invoice_id, origin, arrived_at, record_sha256)
    )
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

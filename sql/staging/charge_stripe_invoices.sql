-- The Stripe invoice that a charge paid, or paid a part of.
--
-- facts/reconciliation.md, section 3. From basil (2025-03-31) on an InvoicePayment says so, not
-- canceled, of the charge's PaymentIntent or of the charge; before it, charge.invoice, else
-- payment_intent.invoice, else the invoice whose charge or payment_intent it is. The first that
-- speaks is right; a PaymentIntent that pays several invoices gives several rows. What only an
-- itemized report says (rung 7) stands beside it. Test charges have none.
--
-- grain: charge_id, stripe_invoice_id
with live as (
    select charge_id, payment_intent_id, stripe_invoice_id
    from staging.charges
    where state <> 'test'
),

told as (
    select live.charge_id, payments.stripe_invoice_id, 1 as step, 'invoice_payment' as told_by
    from live
    inner join staging.invoice_payments as payments using (payment_intent_id)
    where payments.status <> 'canceled' and payments.payment_type = 'payment_intent'
    union
    select live.charge_id, payments.stripe_invoice_id, 1 as step, 'invoice_payment' as told_by
    from live
    inner join staging.invoice_payments as payments using (charge_id)
    where payments.status <> 'canceled' and payments.payment_type = 'charge'
    union all
    select charge_id, stripe_invoice_id, 2 as step, 'charge' as told_by
    from live
    where stripe_invoice_id is not null
    union all
    select live.charge_id, intents.stripe_invoice_id, 3 as step, 'payment_intent' as told_by
    from live
    inner join staging.payment_intents as intents using (payment_intent_id)
    where intents.stripe_invoice_id is not null
    union
    select live.charge_id, bills.stripe_invoice_id, 4 as step, 'stripe_invoice' as told_by
    from live
    inner join staging.stripe_invoices as bills using (charge_id)
    union
    select live.charge_id, bills.stripe_invoice_id, 4 as step, 'stripe_invoice' as told_by
    from live
    inner join staging.stripe_invoices as bills using (payment_intent_id)
),

paid as (
    select charge_id, stripe_invoice_id, told_by
    from told
    where stripe_invoice_id is not null
    qualify step = min(step) over (partition by charge_id)
),

reported as (
    select distinct charge_id, stripe_invoice_id
    from raw.stripe_report_lines
    semi join live using (charge_id)
    anti join paid using (charge_id, stripe_invoice_id)
    where stripe_invoice_id is not null
)

select
    charge_id,
    stripe_invoice_id,
    told_by,  -- invoice_payment | charge | payment_intent | stripe_invoice | report
from paid
union all
select charge_id, stripe_invoice_id, 'report' as told_by
from reported

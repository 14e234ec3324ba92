-- A Stripe bill is made of what its own parts say: InvoicePayments that are paid sum to what was
-- paid, tax and the rest to the total, credit notes before payment to what it says of them
-- (facts/reconciliation.md, section 7). Only parts that were read are held against it.
--
-- severity: warning
with paid as (
    select stripe_invoice_id, sum(amount_paid_minor) as amount_minor
    from staging.invoice_payments
    where status = 'paid'
    group by 1
),

notes as (
    select stripe_invoice_id, sum(pre_payment_minor) as amount_minor
    from staging.credit_notes
    group by 1
    having count(*) = count(pre_payment_minor)
),

claims as (
    select
        stripe_invoice_id,
        'the payments of Stripe invoice ' || stripe_invoice_id || ' sum to what was paid' as claim,
        amount_paid_minor as expected,
        paid.amount_minor as found,
    from staging.stripe_invoices
    inner join paid using (stripe_invoice_id)
    where is_bill
    union all
    select
        stripe_invoice_id,
        'tax and the rest of Stripe invoice ' || stripe_invoice_id || ' make its total' as claim,
        total_minor as expected,
        tax_minor + total_excluding_tax_minor as found,
    from staging.stripe_invoices
    where is_bill
    union all
    select
        stripe_invoice_id,
        'the credit notes of Stripe invoice ' || stripe_invoice_id || ' sum to what it says',
        pre_payment_credit_notes_minor as expected,
        notes.amount_minor as found,
    from staging.stripe_invoices
    inner join notes using (stripe_invoice_id)
    where is_bill
)

select
    null::date as usage_date,
    'marts.invoice_reconciliation' as table_name,
    claim,
    expected::varchar as expected,
    found::varchar as found,
from claims
where expected <> found

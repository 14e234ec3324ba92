-- Each refund that counts and each lost dispute of a granted invoice's charge has its movement, or
-- was waived (facts/reconciliation.md, section 8). Told from staging, not from what the movements
-- were made of.
with gone as (
    select 'clawback_' || refund_id as movement_id, charge_id, currency
    from staging.refunds
    where is_counted
    union all
    select 'clawback_' || dispute_id as movement_id, charge_id, currency
    from staging.disputes
    where outcome = 'lost'
)

select
    null::date as usage_date,
    'marts.credit_ledger' as table_name,
    'the ledger has ' || gone.movement_id || ' of invoice ' || linked.invoice_id as claim,
    'a movement' as expected,
    'none' as found,
from gone
inner join marts.invoice_charges as linked using (charge_id)
inner join staging.invoices as invoices on invoices.infery_invoice_id = linked.invoice_id
anti join marts.credit_ledger as ledger on ledger.movement_id = gone.movement_id
where linked.role = 'settled' and invoices.status = 'paid' and invoices.credits > 0
    and invoices.currency = gone.currency and linked.currency = gone.currency

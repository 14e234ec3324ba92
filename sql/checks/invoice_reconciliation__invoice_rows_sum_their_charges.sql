-- Charged, refunded and disputed money of the invoice rows is that of their settled linked charges
-- in the row's currency (facts/reconciliation.md, section 7). Sums are made from staging, not from
-- what the row was made of.
with linked as (
    select invoice_charges.charge_id, rows.currency, invoice_charges.amount_minor
    from marts.invoice_charges
    inner join marts.invoice_reconciliation as rows on rows.item_id = invoice_charges.invoice_id
    where role = 'settled'
        and invoice_charges.currency = rows.currency
        and rows.item_kind = 'invoice'
),

sums as (
    select currency, 'charged' as what, sum(amount_minor) as expected, 0 as found
    from linked
    group by 1
    union all
    select linked.currency, 'refunded' as what, sum(refunds.amount_minor) as expected, 0 as found
    from linked
    inner join staging.refunds using (charge_id)
    where is_counted and refunds.currency = linked.currency
    group by 1
    union all
    select linked.currency, 'disputed' as what, sum(disputes.amount_minor) as expected, 0 as found
    from linked
    inner join staging.disputes using (charge_id)
    where outcome in ('open', 'lost') and disputes.currency = linked.currency
    group by 1
    union all
    select
        currency,
        unnest(['charged', 'refunded', 'disputed']) as what,
        0 as expected,
        unnest([sum(charged_minor), sum(refunded_minor), sum(disputed_minor)]) as found,
    from marts.invoice_reconciliation
    where item_kind = 'invoice'
    group by 1
)

select
    null::date as usage_date,
    'marts.invoice_reconciliation' as table_name,
    what || '_minor of the invoices in ' || currency || ' is that of their charges' as claim,
    sum(expected)::varchar as expected,
    sum(found)::varchar as found,
from sums
group by currency, what
having sum(expected) <> sum(found)

-- Every invoice and every charge that was accepted is in exactly one row, and so in exactly one
-- status: counted from raw itself, so that nothing can be lost on the way
-- (facts/reconciliation.md, section 7).
with spoken_for as (
    select distinct charge_id from marts.invoice_charges where role <> 'conflict'
),

claims as (
    select
        'every invoice has one row' as claim,
        (select count(distinct infery_invoice_id) from raw.invoices) as expected,
        (select count(*) from marts.invoice_reconciliation where item_kind = 'invoice') as found,
    union all
    select
        'every charge has one row of its own, or an invoice that speaks for it' as claim,
        (select count(distinct charge_id) from raw.stripe_charges) as expected,
        (select count(*) from marts.invoice_reconciliation where item_kind = 'charge')
        + (select count(*) from spoken_for) as found,
    union all
    select
        'no charge has both a row of its own and an invoice that speaks for it' as claim,
        0 as expected,
        (
            select count(*)
            from marts.invoice_reconciliation
            inner join spoken_for using (charge_id)
        ) as found,
    union all
    select
        'a charge belongs to one invoice' as claim,
        0 as expected,
        (
            select count(*)
            from (
                select charge_id
                from marts.invoice_charges
                where role <> 'conflict'
                group by 1
                having count(*) > 1
            ) as doubled
        ) as found,
)

select
    null::date as usage_date,
    'marts.invoice_reconciliation' as table_name,
    claim,
    expected::varchar as expected,
    found::varchar as found,
from claims
where expected <> found

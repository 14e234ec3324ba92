-- What Stripe captured in a currency is what the invoices' charges and the charges' own rows say,
-- to the last unit (facts/reconciliation.md, section 7).
with sums as (
    select currency, sum(amount_captured_minor) as captured, 0 as told
    from staging.charges
    where state = 'settled'
    group by 1
    union all
    select currency, 0 as captured, sum(amount_minor) as told
    from marts.invoice_charges
    where role = 'settled'
    group by 1
    union all
    select currency, 0 as captured, sum(charged_minor) as told
    from marts.invoice_reconciliation
    where item_kind = 'charge'
    group by 1
)

select
    null::date as usage_date,
    'marts.invoice_reconciliation' as table_name,
    'the minor units captured in ' || currency || ' are all told of' as claim,
    sum(captured)::varchar as expected,
    sum(told)::varchar as found,
from sums
group by currency
having sum(captured) <> sum(told)

-- A gateway invoice in `paid` has one grant of exactly its credits, and nothing else has one
-- (facts/reconciliation.md, section 8).
with paid as (
    select infery_invoice_id as invoice_id, credits
    from staging.invoices
    where status = 'paid' and credits > 0
),

granted as (
    select invoice_id, count(*) as grant_count, sum(credits) as credits
    from marts.credit_ledger
    where kind in ('grant', 'topup')
    group by 1
)

select
    null::date as usage_date,
    'marts.credit_ledger' as table_name,
    'invoice ' || invoice_id || ' has one grant of its pack' as claim,
    coalesce('1 of ' || paid.credits, 'none') as expected,
    coalesce(grant_count || ' of ' || granted.credits, 'none') as found,
from paid
full join granted using (invoice_id)
where paid.credits is distinct from granted.credits or grant_count <> 1

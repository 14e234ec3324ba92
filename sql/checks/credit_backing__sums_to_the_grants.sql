-- Backed, promotional, held, lost and unbacked credits sum to what the ledger granted
-- (facts/reconciliation.md, section 8).
with sums as (
    select
        workspace_id,
        0 as granted,
        sum(
            backed_credits + promotional_credits + held_credits + lost_credits + unbacked_credits
        ) as told,
    from marts.credit_backing
    where granted_credits > 0
    group by 1
    union all
    select workspace_id, sum(credits) as granted, 0 as told
    from marts.credit_ledger
    where kind in ('grant', 'topup')
    group by 1
)

select
    null::date as usage_date,
    'marts.credit_backing' as table_name,
    'the packs of ' || coalesce(workspace_id, 'unassigned') || ' are told of' as claim,
    sum(granted)::varchar as expected,
    sum(told)::varchar as found,
from sums
group by workspace_id
having sum(granted) <> sum(told)

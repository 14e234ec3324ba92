-- What refunds and disputes take of a lot is never more than it was granted
-- (facts/reconciliation.md, section 8).
select
    null::date as usage_date,
    'marts.credit_ledger' as table_name,
    'lot ' || lot_id || ' is not negative' as claim,
    '0 or more' as expected,
    sum(credits)::varchar as found,
from marts.credit_ledger
where lot_id is not null
group by lot_id
having sum(credits) < 0

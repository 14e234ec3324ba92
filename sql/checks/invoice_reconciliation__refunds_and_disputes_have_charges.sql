-- A refund or dispute whose charge was never read is money that no row can tell of.
--
-- severity: warning
with orphans as (
    select 'refund ' || refund_id as event, charge_id from staging.refunds
    union all
    select 'dispute ' || dispute_id as event, charge_id from staging.disputes
)

select
    null::date as usage_date,
    'marts.invoice_reconciliation' as table_name,
    'the charge of ' || event || ' is known' as claim,
    coalesce(charge_id, 'a charge') as expected,
    'none' as found,
from orphans
anti join staging.charges using (charge_id)

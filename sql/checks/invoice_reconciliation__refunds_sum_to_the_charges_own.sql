-- What Stripe says beside a charge was refunded is the sum of the refunds read, with or without
-- the part that was authorised and never captured (facts/reconciliation.md, sections 2 and 7). A
-- difference means that a refund has not been read yet, or has failed since.
--
-- severity: warning
with refunded as (
    select charge_id, sum(amount_minor) as amount_minor
    from staging.refunds
    where is_counted
    group by 1
)

select
    null::date as usage_date,
    'staging.refunds' as table_name,
    'the refunds of charge ' || charge_id || ' sum to what it says was refunded' as claim,
    amount_refunded_minor::varchar as expected,
    coalesce(refunded.amount_minor, 0)::varchar as found,
from staging.charges
left join refunded using (charge_id)
where state = 'settled' and origin = 'api'
    and amount_refunded_minor - coalesce(refunded.amount_minor, 0)
        not in (0, charges.amount_minor - amount_captured_minor)

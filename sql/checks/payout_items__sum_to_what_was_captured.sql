-- The movements of a charge that settled in its own currency, captures undone included, sum to what
-- was captured (facts/reconciliation.md, section 7).
--
-- severity: warning
with moved as (
    select source_id as charge_id, currency, amount_minor
    from staging.balance_transactions
    where coalesce(reporting_category, type) in ('charge', 'payment')
    union all
    select refunds.charge_id, moved.currency, moved.amount_minor
    from staging.balance_transactions as moved
    inner join raw.stripe_refunds as refunds on refunds.refund_id = moved.source_id
    where moved.reporting_category = 'partial_capture_reversal'
    group by refunds.charge_id, moved.balance_transaction_id, 2, 3
),

summed as (
    select charge_id, currency, sum(amount_minor) as amount_minor
    from moved
    group by 1, 2
)

select
    null::date as usage_date,
    'marts.payout_items' as table_name,
    'the movements of charge ' || charge_id || ' sum to what was captured' as claim,
    amount_captured_minor::varchar as expected,
    summed.amount_minor::varchar as found,
from staging.charges as charges
inner join summed using (charge_id, currency)
where state = 'settled' and summed.amount_minor <> amount_captured_minor

-- The two movements of a failed refund sum to nothing, those of a won dispute to its fee at most
-- (facts/reconciliation.md, section 7).
--
-- severity: warning
with moved as (
    select
        source_id,
        count(*) as movement_count,
        sum(amount_minor) as amount_minor,
        sum(net_minor) as net_minor,
        sum(fee_minor) as fee_minor,
    from staging.balance_transactions
    group by 1
)

select
    null::date as usage_date,
    'marts.payout_items' as table_name,
    'what failed refund ' || refund_id || ' moved came back' as claim,
    '0' as expected,
    moved.amount_minor::varchar as found,
from staging.refunds as refunds
inner join moved on moved.source_id = refunds.refund_id
where status = 'failed' and moved.amount_minor <> 0
union all
select
    null::date as usage_date,
    'marts.payout_items' as table_name,
    'what won dispute ' || dispute_id || ' moved came back, but for its fee' as claim,
    '0' as expected,
    moved.net_minor::varchar as found,
from staging.disputes as disputes
inner join moved on moved.source_id = disputes.dispute_id
where outcome = 'won' and (moved.amount_minor <> 0 or moved.net_minor < -abs(moved.fee_minor))

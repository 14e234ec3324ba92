-- What became of the money of a charge that was refunded or disputed: sums of its refunds and
-- disputes. A charge without any has no row.
--
-- Refunds and disputes in another currency than their charge's are told of but never added (Stripe
-- makes none).
--
-- grain: charge_id
with events as (
    select
        charge_id,
        'refund' as what,
        case when is_counted then 'counted' else status end as outcome,
        created_at,
        currency,
        amount_minor,
    from staging.refunds
    union all
    select charge_id, 'dispute' as what, outcome, created_at, currency, amount_minor,
    from staging.disputes
),

dated as (
    select
        events.*,
        events.currency = charges.currency as is_summed,
        min(events.created_at) filter (what = 'refund' and outcome = 'failed')
            over (partition by charge_id) as failed_at,
    from events
    inner join staging.charges as charges using (charge_id)
),

summed as (
    select
        charge_id,
        coalesce(
            sum(amount_minor) filter (what = 'refund' and outcome = 'counted' and is_summed), 0
        )::bigint as refunded_minor,
        coalesce(
            sum(amount_minor) filter (
                what = 'dispute' and outcome in ('open', 'lost') and is_summed
            ), 0
        )::bigint as disputed_minor,
        coalesce(
            sum(amount_minor) filter (what = 'refund' and outcome = 'failed'), 0
        )::bigint as failed_minor,
        coalesce(
            sum(amount_minor) filter (
                what = 'refund' and outcome = 'counted' and created_at > failed_at
            ), 0
        )::bigint as made_good_minor,
        min(failed_at) as failed_at,
        min(created_at) filter (what = 'dispute' and outcome = 'open') as open_dispute_at,
        coalesce(bool_or(what = 'dispute' and outcome = 'lost'), false) as has_lost_dispute,
        coalesce(bool_or(what = 'dispute' and outcome = 'won'), false) as has_won_dispute,
    from dated
    group by 1
)

select
    charge_id,
    refunded_minor,  -- sum of the refunds that count
    disputed_minor,  -- sum of its open and lost disputes
    case
        when failed_minor > made_good_minor then failed_at
    end as failed_refund_at,  -- the earliest failed refund, where they are not made good
    open_dispute_at,  -- the earliest open dispute
    has_lost_dispute,
    has_won_dispute,
from summed

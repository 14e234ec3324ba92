-- What became of the money of one charge: sums of its refunds and disputes, and words for each of
-- them.
--
-- The words (id, amount in major units, UTC date) are made here once, for the reasons people read.
-- Refunds and disputes in another currency than their charge's are told but never added (Stripe
-- makes none).
--
-- grain: charge_id
with events as (
    select
        charge_id,
        'charge' as what,
        state as outcome,
        charge_id as event_id,
        created_at,
        currency,
        case when state = 'settled' then amount_captured_minor else amount_minor end as minor,
        null::varchar as note,
    from staging.charges
    union all
    select
        charge_id,
        'refund' as what,
        case when is_counted then 'counted' else status end as outcome,
        refund_id as event_id,
        created_at,
        currency,
        amount_minor as minor,
        case when status = 'succeeded' then null else coalesce(failure_reason, status) end as note,
    from staging.refunds
    union all
    select
        charge_id,
        'dispute' as what,
        outcome,
        dispute_id as event_id,
        created_at,
        currency,
        amount_minor as minor,
        case when outcome = 'open' then concat_ws(', ', reason, status) end as note,
    from staging.disputes
),

worded as (
    select
        *,
        event_id || ' (' || upper(currency) || ' '
        || case when minor < 0 then '-' else '' end
        || case
            when currencies.currency is null or places > 0 then
                format('{:,}', abs(minor) // pow(10, coalesce(places, 2))::bigint) || '.'
                || lpad(
                    (abs(minor) % pow(10, coalesce(places, 2))::bigint)::varchar,
                    coalesce(places, 2), '0'
                )
            when places = 0 then format('{:,}', abs(minor))
            else format('{:,}', abs(minor)) || ' minor units'
        end
        || ', ' || strftime(created_at, '%Y-%m-%d')
        || coalesce(', ' || replace(note, '_', ' '), '') || ')' as words,
        min(created_at) filter (what = 'refund' and outcome = 'failed')
            over (partition by charge_id) as failed_at,
        min(currency) filter (what = 'charge') over (partition by charge_id) as charge_currency,
    from events
    left join staging.currencies using (currency)
),

summed as (
    select
        charge_id,
        any_value(words) filter (what = 'charge') as charge_words,
        coalesce(
            sum(minor) filter (
                what = 'refund' and outcome = 'counted' and currency = charge_currency
            ), 0
        )::bigint as refunded_minor,
        coalesce(
            sum(minor) filter (
                what = 'dispute' and outcome in ('open', 'lost') and currency = charge_currency
            ), 0
        )::bigint as disputed_minor,
        coalesce(
            sum(minor) filter (what = 'refund' and outcome = 'failed'), 0
        )::bigint as failed_minor,
        coalesce(
            sum(minor) filter (
                what = 'refund' and outcome = 'counted' and created_at > failed_at
            ), 0
        )::bigint as made_good_minor,
        min(failed_at) as failed_at,
        min(created_at) filter (what = 'dispute' and outcome = 'open') as open_dispute_at,
        count(*) filter (what = 'dispute' and outcome = 'lost') as lost_count,
        count(*) filter (what = 'dispute' and outcome = 'won') as won_count,
        string_agg(words, ', ' order by created_at, event_id)
            filter (what = 'refund' and outcome = 'counted') as refund_words,
        string_agg(words, ', ' order by created_at, event_id)
            filter (what = 'refund' and outcome = 'failed') as failed_words,
        string_agg(words, ', ' order by created_at, event_id)
            filter (what = 'dispute' and outcome = 'open') as open_words,
        string_agg(words, ', ' order by created_at, event_id)
            filter (what = 'dispute' and outcome = 'lost') as lost_words,
        string_agg(words, ', ' order by created_at, event_id)
            filter (what = 'dispute' and outcome = 'won') as won_words,
        string_agg(words, ', ' order by created_at, event_id)
            filter (what = 'dispute' and outcome = 'inquiry') as inquiry_words,
    from worded
    group by 1
)

select
    charge_id,
    charge_words,  -- the charge itself: captured if settled, else asked for
    refunded_minor,  -- sum of the refunds that count
    disputed_minor,  -- sum of its open and lost disputes
    case
        when failed_minor > made_good_minor then failed_at
    end as failed_refund_at,  -- the earliest failed refund, where they are not made good
    open_dispute_at,  -- the earliest open dispute
    lost_count > 0 as has_lost_dispute,
    won_count > 0 as has_won_dispute,
    refund_words,
    failed_words,
    open_words,
    lost_words,
    won_words,
    inquiry_words,
from summed
where charge_words is not null

-- A movement of the account's balance at Stripe, of the warehouse's mode, as it stands now.
--
-- Its amounts are in the currency of settlement, which never decides a status. Of a transaction
-- known by the API and by a report the API's version wins; which payout it went out with is taken
-- from whichever knows.
--
-- grain: balance_transaction_id
with versions as (
    select *
    from raw.stripe_balance_transactions
    where coalesce(livemode, $stripe_livemode) = $stripe_livemode
    qualify version_rank(balance_transaction_id, origin, arrived_at, record_sha256) = 1
),

known_payouts as (
    select balance_transaction_id, max(payout_id) as known_payout_id
    from raw.stripe_balance_transactions
    where payout_id is not null
    group by 1
)

select
    balance_transaction_id,
    origin,  -- who told: api | csv
    created_at,
    available_at,
    type,  -- Stripe's word; null: a report does not say
    reporting_category,  -- what the money was for, finer than the type
    amount_minor,  -- gross
    fee_minor,  -- what Stripe kept of it
    net_minor,
    lower(currency) as currency,  -- of settlement
    source_id,  -- the charge, refund, dispute, payout … behind it
    coalesce(versions.payout_id, known_payout_id) as payout_id,  -- null: none known
    list_sum(json_extract(fee_details, '$[*].amount')::bigint[])::bigint
        as fee_details_minor,  -- what the details of its fee sum to; null: not told
from versions
left join known_payouts using (balance_transaction_id)

-- A payout of Stripe to the bank, of the warehouse's mode, as it stands now.
--
-- grain: payout_id
select
    payout_id,
    origin,  -- who told: api | csv
    created_at,
    arrives_at,
    status,  -- pending | in_transit | paid | failed | canceled
    amount_minor,
    lower(currency) as currency,
    automatic,  -- only an automatic one has a list of its transactions
    balance_transaction_id,  -- the payout's own
    failure_balance_transaction_id,
    failure_code,
    reconciliation_status,  -- not_applicable | in_progress | completed
    original_payout_id,  -- of a reversal: what it reverses
    reversed_by_payout_id,
    trace_id,  -- what the bank calls it
from raw.stripe_payouts
where coalesce(livemode, $stripe_livemode) = $stripe_livemode
qualify version_rank(payout_id, origin, arrived_at, record_sha256) = 1

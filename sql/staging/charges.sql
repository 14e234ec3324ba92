-- A Stripe charge as it stands now, and the state that decides whether its money counts.
--
-- Of the versions fetched of one charge the API's win over a CSV export's, then the latest
-- fetched; facts/reconciliation.md, section 2, says what each state means. A CSV export without a
-- Mode column leaves the mode open: such a charge is taken to be of the warehouse's own mode.
--
-- grain: charge_id
-- sorted by: created_at
with fetched as not materialized (  -- noqa: ST03
    select *
    from raw.stripe_charges
),

versions as (
    select *
    from newest_of(
        'fetched',
        charge_id,
        version_rank(charge_id, origin, arrived_at, record_sha256)
    )
),

read as (
    select
        *,
        json_extract_string(metadata, ['$.infery_invoice_id', '$.workspace_id']) as named,
    from versions
)

select
    charge_id,
    origin,  -- who told: api | csv
    coalesce(livemode, $stripe_livemode) as livemode,  -- false: a test charge, no money at all
    case
        when coalesce(livemode, $stripe_livemode) <> $stripe_livemode then 'test'
        when status = 'succeeded' and captured and amount_captured_minor > 0 then 'settled'
        when status = 'pending' or (status = 'succeeded' and not captured and not refunded)
            then 'waiting'
        else 'dead'
    end as state,  -- test | settled | waiting | dead
    created_at,
    status,  -- Stripe's word: succeeded | pending | failed
    amount_minor,  -- what was asked for or authorised
    amount_captured_minor,  -- what was taken: the money of a settled charge
    amount_refunded_minor,  -- Stripe's own sum, capture reversals included
    lower(currency) as currency,
    captured,
    refunded,  -- wholly refunded, or an authorisation let go
    disputed,
    payment_intent_id,
    stripe_invoice_id,  -- before basil, and in CSV exports
    customer_id,
    receipt_url,
    trimmed(named[1])
        as infery_invoice_id,  -- what its metadata names
    trimmed(named[2])
        as workspace_id,  -- what its metadata claims
from read

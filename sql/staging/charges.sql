-- A Stripe charge as it stands now, and the state that decides whether its money counts.
--
-- Of the versions fetched of one charge the API's win over a CSV export's, then the latest
-- fetched; facts/reconciliation.md, section 2, says what each state means. A CSV export without a
-- Mode column leaves the mode open: such a charge is taken to be of the warehouse's own mode.
--
-- grain: charge_id
-- sorted by: created_at
with fetched as not materialized (
    select *, hash(charge_id) as id_hash,
    from raw.stripe_charges
),

repeated as (  -- most are read once: only the others need be put in order
    select id_hash
    from fetched
    group by 1
    having count(*) > 1
),

newest as (
    select fetched.*
    from fetched
    semi join repeated using (id_hash)
    qualify row_number() over (
        partition by charge_id
        order by case origin when 'api' then 0 else 1 end, arrived_at desc, record_sha256
    ) = 1
),

versions as (
    select fetched.*
    from fetched
    anti join repeated using (id_hash)
    union all by name
    select * from newest
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

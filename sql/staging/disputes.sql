-- A dispute over a Stripe charge as it stands now.
--
-- Inquiries (warning_*) and prevented disputes move no money. A CSV export shows at most one
-- dispute beside a charge; it stands only while the API has told of no dispute of that charge, nor
-- of the charge itself.
--
-- grain: dispute_id
with versions as (
    select *
    from raw.stripe_disputes
    qualify version_rank(dispute_id, origin, arrived_at, record_sha256) = 1
),

exported as (
    select * from versions where origin <> 'api'
),

told_by_api as (
    select charge_id from versions where origin = 'api'
    union
    select charges.charge_id
    from staging.charges as charges
    semi join exported using (charge_id)
    where charges.origin = 'api'
)

select
    dispute_id,  -- csv:dispute:<charge> for one in an export
    origin,  -- who told: api | csv
    coalesce(livemode, $stripe_livemode) as livemode,
    charge_id,
    payment_intent_id,
    created_at,
    status,  -- Stripe's word
    case
        when status in ('needs_response', 'under_review') then 'open'
        when status in ('lost', 'won') then status
        else 'inquiry'
    end as outcome,  -- open | lost | won | inquiry (moves no money)
    amount_minor,  -- taken or held while open, gone once lost
    lower(currency) as currency,
    reason,
from versions
where origin = 'api' or charge_id not in (
    select charge_id from told_by_api where charge_id is not null
)

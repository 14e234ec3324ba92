-- A refund of a Stripe charge as it stands now.
--
-- Capture reversals are no refunds: when less is captured than was authorised, Stripe books the
-- rest as a balance transaction of type refund whose reporting category is
-- partial_capture_reversal. Such a Refund is left out here, once, for everybody
-- (facts/reconciliation.md, section 2). A CSV export knows no Refund objects, only the sum
-- refunded beside each charge: of a charge that the API has not told of, that sum stands as one
-- refund, dated as the charge is.
--
-- grain: refund_id
with versions as (
    select *
    from raw.stripe_refunds
    qualify version_rank(refund_id, origin, arrived_at, record_sha256) = 1
),

told as (
    select
        refund_id,
        origin,
        charge_id,
        payment_intent_id,
        created_at,
        status,
        amount_minor,
        lower(currency) as currency,
        reason,
        failure_reason,
    from versions
    where reporting_category is distinct from 'partial_capture_reversal'
),

exported as (
    select
        'csv:refund:' || charge_id as refund_id,
        origin,
        charge_id,
        payment_intent_id,
        created_at,
        'succeeded' as status,
        amount_refunded_minor as amount_minor,
        currency,
        null::varchar as reason,
        null::varchar as failure_reason,
    from staging.charges
    anti join told using (charge_id)
    where origin = 'csv' and captured and amount_refunded_minor > 0
)

select
    refund_id,  -- csv:refund:<charge> for the sum in an export
    origin,  -- who told: api | csv
    charge_id,
    payment_intent_id,
    created_at,
    status,  -- pending | requires_action | succeeded | failed | canceled
    status in ('succeeded', 'pending', 'requires_action') as is_counted,  -- money given back
    amount_minor,
    currency,
    reason,
    failure_reason,  -- why a failed one failed
from told
union all
select
    refund_id,
    origin,
    charge_id,
    payment_intent_id,
    created_at,
    status,
    true as is_counted,
    amount_minor,
    currency,
    reason,
    failure_reason,
from exported

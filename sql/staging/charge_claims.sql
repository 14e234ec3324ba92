-- What one rung of the ladder says of a charge elsewhere than in the charge's own metadata: the
-- gateway invoice it names, the workspace it claims, or both.
--
-- facts/reconciliation.md, section 3: all seven rungs are read, a branch for each thing read; rungs
-- 1 and 2 stand in staging.charges. A charge of the other mode climbs no ladder. What merely names
-- again the invoice that the charge's own metadata names, and claims no workspace, changes nothing
-- and is left out: of a million plain charges nothing is left.
--
-- grain: charge_id, rung, read_from, infery_invoice_id?, workspace_id?
with live as (
    select charge_id, payment_intent_id, infery_invoice_id as own_invoice_id
    from staging.charges
    where state <> 'test'
)

select
    live.charge_id,
    3 as rung,  -- 1 would be the strongest
    intents.payment_intent_id as read_from,  -- the object that says so
    intents.infery_invoice_id,  -- known to the gateway or not; null: claims a workspace only
    intents.workspace_id,  -- can only contradict, never choose
from live
inner join staging.payment_intents as intents using (payment_intent_id)
where intents.workspace_id is not null or intents.infery_invoice_id <> own_invoice_id
    or (intents.infery_invoice_id is not null and own_invoice_id is null)
union all
select
    paid.charge_id,
    claims.rung,  -- 4 | 5 | 6
    stripe_invoice_id as read_from,
    claims.infery_invoice_id,
    claims.workspace_id,
from staging.charge_stripe_invoices as paid
inner join staging.stripe_invoice_claims as claims using (stripe_invoice_id)
where paid.told_by <> 'report'
union all
select
    live.charge_id,
    6 as rung,
    payment_intent_id as read_from,
    invoices.infery_invoice_id,
    null as workspace_id,
from live
inner join staging.invoices as invoices using (payment_intent_id)
where invoices.infery_invoice_id is distinct from own_invoice_id
union all
select distinct
    paid.charge_id,
    7 as rung,
    stripe_invoice_id as read_from,
    claims.infery_invoice_id,
    null as workspace_id,
from staging.charge_stripe_invoices as paid
inner join staging.stripe_invoice_claims as claims using (stripe_invoice_id)
where paid.told_by = 'report' and claims.infery_invoice_id is not null

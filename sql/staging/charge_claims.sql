-- What one rung of the ladder says of a charge: the gateway invoice it names, the workspace it
-- claims, or both.
--
-- facts/reconciliation.md, section 3: all seven rungs are read, a branch for each thing read. A
-- charge of the other mode climbs no ladder. The claim of a workspace alone names no invoice and
-- stands on rung 1, whose field it is.
--
-- kind: view
-- grain: charge_id, rung, read_from, infery_invoice_id?, workspace_id?
select
    charge_id,
    case when workspace_id is null then 2 else 1 end as rung,  -- 1 is the strongest
    charge_id as read_from,  -- the object that says so
    infery_invoice_id,  -- known to the gateway or not; null: claims a workspace only
    workspace_id,  -- can only contradict, never choose
from staging.charges
where state <> 'test' and (infery_invoice_id is not null or workspace_id is not null)
union all
select
    charges.charge_id,
    3 as rung,
    intents.payment_intent_id as read_from,
    intents.infery_invoice_id,
    intents.workspace_id,
from staging.charges as charges
inner join staging.payment_intents as intents using (payment_intent_id)
where charges.state <> 'test'
    and (intents.infery_invoice_id is not null or intents.workspace_id is not null)
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
    charges.charge_id,
    6 as rung,
    payment_intent_id as read_from,
    invoices.infery_invoice_id,
    null as workspace_id,
from staging.charges as charges
inner join staging.invoices as invoices using (payment_intent_id)
where charges.state <> 'test'
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

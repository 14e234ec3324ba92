-- A charge that is not plain, and what all rungs of the ladder say of it together.
--
-- A plain one has settled and brought just what is owed on the one invoice that its own metadata
-- names, in that invoice's currency and for its workspace, and nothing else speaks of it: all there
-- is to say of it stands in staging.charges. Of a million of them nothing is written here.
--
-- facts/reconciliation.md, section 3. One id named, known or not, is the invoice the charge means;
-- several are a contradiction. The extremes of the workspaces claimed say whether any of them
-- differs from a given one.
--
-- grain: charge_id
with beyond as (  -- what is said elsewhere than in the charge's own metadata
    select
        charge_id,
        min(infery_invoice_id) as first_invoice_id,
        max(infery_invoice_id) as last_invoice_id,
        min(rung) filter (where infery_invoice_id is not null) as rung,
        min(workspace_id) as first_workspace_id,
        max(workspace_id) as last_workspace_id,
        -- a rung is one digit: the least of these is the strongest rung's
        substr(min(case when workspace_id is not null then rung || workspace_id end), 2)
            as workspace_id,
    from staging.charge_claims
    group by 1
),

links as (
    select charge_id, min(stripe_invoice_id) as stripe_invoice_id
    from staging.charge_stripe_invoices
    where told_by <> 'report'
    group by 1
),

together as (
    select
        charge_id,
        state,
        created_at,
        currency,
        case when state = 'settled' then amount_captured_minor else amount_minor end
            as amount_minor,
        payment_intent_id,
        coalesce(links.stripe_invoice_id, charges.stripe_invoice_id) as stripe_invoice_id,
        case
            when charges.infery_invoice_id is null or state = 'test' then beyond.rung
            when charges.workspace_id is null then 2
            else 1
        end as rung,
        least(charges.infery_invoice_id, first_invoice_id) as infery_invoice_id,
        greatest(charges.infery_invoice_id, last_invoice_id) as last_invoice_id,
        case when state <> 'test' then least(charges.workspace_id, first_workspace_id) end
            as first_workspace_id,
        case when state <> 'test' then greatest(charges.workspace_id, last_workspace_id) end
            as last_workspace_id,
        coalesce(charges.workspace_id, beyond.workspace_id) as claimed_workspace_id,
        state = 'settled' and charges.infery_invoice_id is not null and beyond.charge_id is null
        and links.charge_id is null as speaks_alone,
    from staging.charges as charges
    left join beyond using (charge_id)
    left join links using (charge_id)
)

select
    charge_id,
    state,  -- test | settled | waiting | dead
    created_at,
    together.currency,
    amount_minor,  -- captured; asked for, while no money came
    together.payment_intent_id,
    together.stripe_invoice_id,  -- the one it paid
    coalesce(infery_invoice_id <> last_invoice_id, false) as has_several,  -- ids that are named
    infery_invoice_id,  -- the one named, or the first of several
    rung,  -- the strongest that named one
    first_workspace_id,  -- of those claimed, by name
    last_workspace_id,
    claimed_workspace_id,  -- by the strongest rung that claims one
    invoices.currency is not null as is_known,  -- to the gateway: the invoice that is named
    coalesce(together.currency <> invoices.currency, false)
        as is_other_currency,  -- than that invoice's
    coalesce(
        first_workspace_id <> invoices.workspace_id or last_workspace_id <> invoices.workspace_id,
        false
    ) as is_other_workspace,  -- a rung claims another than that invoice's
from together
left join staging.invoices as invoices using (infery_invoice_id)
where not coalesce(
    speaks_alone and is_known and not is_other_currency and not is_other_workspace
    and amount_minor = invoices.total_minor
    and invoices.status not in ('draft', 'void', 'uncollectible'), false
)

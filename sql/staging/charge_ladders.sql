-- A charge, and what all rungs of the ladder say of it together.
--
-- facts/reconciliation.md, section 3. One id named, known or not, is the invoice the charge means;
-- several are a contradiction. The extremes of the workspaces claimed say whether any of them
-- differs from a given one.
--
-- grain: charge_id
with summed as (
    select
        charge_id,
        min(infery_invoice_id) as infery_invoice_id,
        max(infery_invoice_id) as last_invoice_id,
        min(rung) filter (where infery_invoice_id is not null) as rung,
        min(workspace_id) as first_workspace_id,
        max(workspace_id) as last_workspace_id,
        arg_min(workspace_id, (rung, workspace_id)) filter (
            where rung > 2 and workspace_id is not null
        ) as other_workspace_id,
    from staging.charge_claims
    group by 1
),

links as (
    select charge_id, min(stripe_invoice_id) as stripe_invoice_id
    from staging.charge_stripe_invoices
    where told_by <> 'report'
    group by 1
)

select
    charge_id,
    charges.state,  -- test | settled | waiting | dead
    charges.created_at,
    charges.currency,
    case when charges.state = 'settled' then charges.amount_captured_minor
        else charges.amount_minor
    end as amount_minor,  -- captured; asked for, while no money came
    charges.payment_intent_id,
    coalesce(links.stripe_invoice_id, charges.stripe_invoice_id)
        as stripe_invoice_id,  -- the Stripe invoice it paid
    coalesce(summed.infery_invoice_id <> last_invoice_id, false)
        as has_several,  -- ids that are named
    case when charges.state = 'test' then charges.infery_invoice_id else summed.infery_invoice_id
    end as infery_invoice_id,  -- the one named, or the first of several
    summed.rung,  -- the strongest that named one
    first_workspace_id,  -- of those claimed, by name
    last_workspace_id,
    coalesce(charges.workspace_id, other_workspace_id)
        as claimed_workspace_id,  -- by the strongest rung that claims one
from staging.charges as charges
left join summed using (charge_id)
left join links using (charge_id)

-- A charge and the invoice whose row in marts.invoice_reconciliation speaks for it.
--
-- facts/reconciliation.md, sections 1 and 3: all rungs are read; one known id named, and the
-- charge belongs to it by the strongest rung that spoke; several, and each known one is told so
-- (role conflict) while the money stays on the charge's own row. A dead charge contradicts nobody.
--
-- grain: charge_id, invoice_id
-- sorted by: charged_at
with contradictions as (
    select charge_id, infery_invoice_id, min(rung) as rung
    from staging.contested_claims
    where is_contradiction and state in ('settled', 'waiting') and infery_invoice_id is not null
    group by 1, 2
),

named as (
    select
        charge_id,
        infery_invoice_id,
        case when workspace_id is null then 2 else 1 end as rung,
        state as role,
        case when state = 'settled' then amount_captured_minor else amount_minor end
            as amount_minor,
        currency,
        created_at,
        payment_intent_id,
        stripe_invoice_id,
        false as is_other_currency,
        false as is_other_workspace,
    from staging.charges
    anti join staging.charge_ladders using (charge_id)  -- the plain ones
    union all by name
    select *, state as role,
    from staging.charge_ladders
    where state <> 'test' and is_known and not has_several
    union all by name
    select
        contradictions.charge_id,
        contradictions.infery_invoice_id,
        contradictions.rung,
        'conflict' as role,
        ladders.created_at,
        ladders.currency,
        0 as amount_minor,
        ladders.payment_intent_id,
        ladders.stripe_invoice_id,
        ladders.currency <> invoices.currency as is_other_currency,
        coalesce(
            first_workspace_id <> invoices.workspace_id
            or last_workspace_id <> invoices.workspace_id, false
        ) as is_other_workspace,
    from contradictions
    inner join staging.charge_ladders as ladders using (charge_id)
    inner join staging.invoices as invoices
        on invoices.infery_invoice_id = contradictions.infery_invoice_id
)

select
    charge_id,
    infery_invoice_id as invoice_id,
    case rung
        when 1 then 'charge_metadata' when 2 then 'charge_invoice_id'
        when 3 then 'payment_intent_metadata' when 4 then 'stripe_invoice_metadata'
        when 5 then 'subscription_metadata' when 6 then 'gateway_reference'
        when 7 then 'report_invoice_id'
    end as matched_by,  -- the strongest rung that named this invoice
    rung,  -- its number, 1 is the strongest
    role,  -- settled | waiting | dead | conflict
    amount_minor,  -- captured; asked for, while no money came; 0 in a conflict
    currency,
    created_at as charged_at,
    payment_intent_id,  -- the charge's
    stripe_invoice_id,  -- the one the charge paid
    is_other_currency,  -- than the invoice's
    is_other_workspace,  -- a rung of the charge claims another than the invoice's
from named

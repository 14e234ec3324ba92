-- A charge and the invoice whose row in marts.invoice_reconciliation speaks for it.
--
-- facts/reconciliation.md, sections 1 and 3: all rungs are read; one known id named, and the
-- charge belongs to it by the strongest rung that spoke; several, and each known one is told so
-- (role conflict) while the money stays on the charge's own row. A dead charge contradicts nobody.
--
-- grain: charge_id, invoice_id
with named as (
    select
        charge_id,
        infery_invoice_id as invoice_id,
        min(rung) as rung,
        arg_min(matched_by, rung) as matched_by,
        count(*) over (partition by charge_id) as named_count,
    from staging.charge_claims
    where infery_invoice_id is not null
    group by 1, 2
)

select
    charge_id,
    invoice_id,
    matched_by,  -- the strongest rung that named this invoice
    rung,  -- its number, 1 is the strongest
    case
        when named_count > 1 then 'conflict'
        else charges.state
    end as role,  -- settled | waiting | dead | conflict
    case
        when named_count > 1 then 0
        when charges.state = 'settled' then charges.amount_captured_minor
        else charges.amount_minor
    end as amount_minor,  -- captured; asked for, while no money came; 0 in a conflict
    charges.currency,
    charges.created_at as charged_at,
from named
inner join staging.charges using (charge_id)
inner join staging.invoices on invoices.infery_invoice_id = named.invoice_id
where named_count = 1 or charges.state in ('settled', 'waiting')

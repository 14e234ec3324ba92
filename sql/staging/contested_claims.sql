-- A claim of a charge whose rungs contradict each other, or the workspace of the invoice they name.
--
-- The few that the reasons must tell of, and of which marts.invoice_charges tells every known
-- invoice.
--
-- grain: charge_id, rung, read_from, infery_invoice_id?, workspace_id?
with contested as (
    select charge_id, has_several, state
    from staging.charge_ladders
    left join staging.invoices as invoices using (infery_invoice_id)
    where has_several
        or first_workspace_id <> invoices.workspace_id
        or last_workspace_id <> invoices.workspace_id
)

select
    charge_id,
    rung,
    read_from,  -- the object that says so
    infery_invoice_id,
    workspace_id,
    has_several as is_contradiction,  -- several invoices are named
    state,  -- of the charge
from staging.charge_claims
inner join contested using (charge_id)

-- A claim of a charge whose rungs contradict each other, or the workspace of the invoice they name.
--
-- The few that the reasons must tell of, and of which marts.invoice_charges tells every known
-- invoice. The claim of a workspace alone names no invoice; the charge's own stands on rung 1,
-- whose field it is.
--
-- grain: charge_id, rung, read_from, infery_invoice_id?, workspace_id?
with contested as (
    select charge_id, has_several, state
    from staging.charge_ladders
    where has_several or is_other_workspace
),

claims as (
    select
        charge_id,
        case when workspace_id is null then 2 else 1 end as rung,
        charge_id as read_from,
        infery_invoice_id,
        workspace_id,
    from staging.charges
    semi join contested using (charge_id)
    where infery_invoice_id is not null or workspace_id is not null
    union all by name
    select *
    from staging.charge_claims
)

select
    charge_id,
    rung,
    read_from,  -- the object that says so
    infery_invoice_id,
    workspace_id,
    has_several as is_contradiction,  -- several invoices are named
    state,  -- of the charge
from claims
inner join contested using (charge_id)

-- What one rung of the ladder says of a charge: the gateway invoice it names, the workspace it
-- claims, or both.
--
-- facts/reconciliation.md, section 3. Rungs 1 and 2 read the charge's own metadata; each further
-- rung is one more branch here, and nothing below has to change for it. A charge of the other mode
-- climbs no ladder. The claim of a workspace alone names no invoice and stands on rung 1, whose
-- field it is.
--
-- grain: charge_id, rung, infery_invoice_id?, workspace_id?
select
    charge_id,
    case when workspace_id is null then 2 else 1 end as rung,  -- 1 is the strongest
    case
        when workspace_id is null then 'charge_invoice_id'
        else 'charge_metadata'
    end as matched_by,
    infery_invoice_id,  -- known to the gateway or not; null: claims a workspace only
    workspace_id,  -- can only contradict, never choose
from staging.charges
where state <> 'test' and (infery_invoice_id is not null or workspace_id is not null)

-- A key, model, member or workspace on the first day it ever spent anything.
--
-- Whether a subject is new, young or back from sleep depends on its birth, however long ago that
-- was. Kept as one small row for each birth, so that no night has to read all of history for it.
--
-- grain: usage_date, workspace_id?, scope, subject_id
-- looks back: marts.first_spends all days
with newborn as (
    select workspace_id, scope, subject_id
    from marts.daily_spend
    where usage_date = $day
    except  -- takes two absent workspaces for the same one, as a join would not
    select workspace_id, scope, subject_id
    from marts.first_spends
    where usage_date < $day
)

select
    $day as usage_date,
    workspace_id,        -- null: the source names none
    scope,               -- key, model, member or workspace
    subject_id,          -- the id (or model) within its scope
from newborn

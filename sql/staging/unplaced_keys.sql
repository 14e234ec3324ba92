-- A key that made requests in a UTC day whose records state no workspace: the directory says whose
-- it is.
--
-- What a day asks the directory for, so that a change of the directory re-opens the days that asked
-- for what changed, and no other.
--
-- grain: usage_date, api_key_id
with records as (
    select usage_date, workspace_id, api_key_id from raw.requests
    where usage_date = $day
    union all  -- a winner may have its key from a record of another day
    select usage_date, workspace_id, api_key_id from staging.request_winners
    where usage_date = $day
)

select distinct
    usage_date,
    api_key_id,
from records
where workspace_id is null and api_key_id is not null

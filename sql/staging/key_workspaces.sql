-- The workspace of a key, as the directory has it, in a UTC day that asks for it.
--
-- grain: usage_date, api_key_id
select
    usage_date,
    api_key_id,
    keys.workspace_id,
from staging.unplaced_keys
inner join staging.keys as keys using (api_key_id)
where usage_date = $day and keys.workspace_id is not null

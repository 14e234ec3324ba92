-- An API key, as the newest directory that names it states it: one that vanished keeps its name and
-- workspace.
--
-- grain: api_key_id
select
    api_key_id,
    workspace_id,
    name,  -- what people call it
    created_at,  -- UTC
    revoked_at,  -- UTC; null while it works
    replaces_api_key_id,  -- the key it was rotated from
from raw.keys
qualify delivery_rank(api_key_id, arrived_at, source_object, source_line) = 1

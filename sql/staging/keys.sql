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
qualify row_number() over (
    partition by api_key_id
    order by arrived_at desc, source_object, source_line desc
) = 1

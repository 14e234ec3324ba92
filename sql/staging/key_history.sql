-- What the directory said of an API key, and until when: a version for each change of it.
--
-- The first version speaks for all that was before it too. So what a key was called at an instant
-- stands in the row with (version_number = 1 or stated_at <= instant) and (superseded_at is null or
-- superseded_at > instant); `marts.keys_at(instant)` gives it for all keys.
--
-- grain: api_key_id, version_number
with deliveries as (  -- of one file the last line counts, as in staging.keys
    select *
    from raw.keys
    qualify row_number() over (
        partition by api_key_id, arrived_at
        order by source_object, source_line desc
    ) = 1
),

changes as (
    select
        *,
        row(workspace_id, name, created_at, revoked_at, replaces_api_key_id) as statement,
    from deliveries
    window arrivals as (partition by api_key_id order by arrived_at)
    qualify statement is distinct from lag(statement) over arrivals
)

select
    api_key_id,
    row_number() over versions as version_number,  -- from 1
    workspace_id,
    name,  -- what people called it
    created_at,  -- UTC
    revoked_at,  -- UTC; null while it works
    replaces_api_key_id,  -- the key it was rotated from
    arrived_at as stated_at,  -- when a directory that says so arrived first, UTC
    lead(arrived_at) over versions as superseded_at,  -- until when; null: it still says so
from changes
window versions as (partition by api_key_id order by arrived_at)

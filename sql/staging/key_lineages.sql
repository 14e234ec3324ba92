-- An API key's place in its rotations: which key they began with, and how many came up to it.
--
-- Walked from the first keys on, so that each key is met once, and a circle that a directory may
-- state (a replaces b, b replaces a) never: its keys have no first one, and each stands for itself.
--
-- grain: api_key_id
with recursive named as (
    select api_key_id, replaces_api_key_id
    from staging.keys
    union all
    select distinct  -- a key that only the one after it names
        replaces_api_key_id as api_key_id,
        null::varchar as replaces_api_key_id,
    from staging.keys
    where replaces_api_key_id not in (select known.api_key_id from staging.keys as known)
),

lineages as (
    select
        api_key_id,
        api_key_id as lineage_api_key_id,
        1::bigint as generation,
    from named
    where replaces_api_key_id is null
    union all
    select
        named.api_key_id,
        lineages.lineage_api_key_id,
        lineages.generation + 1 as generation,
    from lineages
    inner join named on named.replaces_api_key_id = lineages.api_key_id
)

select
    api_key_id,
    coalesce(lineage_api_key_id, api_key_id) as lineage_api_key_id,  -- the first key of them all
    generation,  -- from 1; null: the directory states a circle
from named
left join lineages using (api_key_id)

-- An API key: what the directory says of it, now or last, and what came of its rotations; keys that
-- no directory names but that spent are here too.
--
-- grain: api_key_id
with spenders as (
    select
        subject_id as api_key_id,
        min(usage_date) as first_spend_date,
        arg_min(workspace_id, usage_date) as workspace_id,
    from marts.first_spends
    where scope = 'key'
    group by 1
),

former as (
    select
        history.api_key_id,
        list(distinct history.name order by history.name) as names,
    from staging.key_history as history
    inner join staging.keys as keys using (api_key_id)
    where history.name <> keys.name
    group by 1
),

known as (
    select api_key_id from staging.key_lineages
    union
    select api_key_id from spenders
),

described as (
    select
        api_key_id,
        coalesce(keys.workspace_id, spenders.workspace_id) as workspace_id,
        keys.name as key_name,
        coalesce(former.names, list_value()) as former_names,
        keys.created_at,
        keys.revoked_at,
        keys.replaces_api_key_id,
        coalesce(lineages.lineage_api_key_id, api_key_id) as lineage_api_key_id,
        case when lineages.api_key_id is null then 1 else generation end as generation,
        keys.api_key_id is not null as is_in_directory,
        spenders.first_spend_date,
    from known
    left join staging.keys as keys using (api_key_id)
    left join staging.key_lineages as lineages using (api_key_id)
    left join former using (api_key_id)
    left join spenders using (api_key_id)
)

select
    api_key_id,  -- in the gateway's own word
    workspace_id,  -- the directory's; else the one in which it first spent
    key_name,  -- as the newest directory that names it calls it; a deleted key keeps it
    former_names,  -- what older directories called it, by the alphabet
    created_at,  -- UTC
    revoked_at,  -- UTC; null while it works
    replaces_api_key_id,  -- the key it was rotated from
    lineage_api_key_id,  -- the key that its rotations began with; itself, where there were none
    generation,  -- 1 for that key, 2 for the one that replaced it; null: they form a circle
    last_value(key_name ignore nulls) over (
        partition by lineage_api_key_id
        order by generation, created_at nulls first, api_key_id
        rows between unbounded preceding and unbounded following
    ) as lineage_name,  -- of the newest key of its lineage
    is_in_directory,  -- whether a directory ever named it
    first_spend_date,  -- the UTC day of its first credits; null: it spent none
from described

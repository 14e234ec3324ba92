-- What a key, a model, a member or a workspace spent on a day: one row for each of them that spent.
--
-- The four scopes stand in one table because the detector treats them alike: whatever can spend
-- has a normal range. Each scope is a cut through the same credits, so credits are never to be
-- added across scopes. A request that names no key (or model, member, workspace) belongs to no
-- subject of that scope: "unassigned" is the lack of a name, not a thing with habits. It still
-- counts in every other scope, above all in its workspace.
--
-- grain: usage_date, workspace_id?, scope, subject_id
with key_spend as (
    select
        usage_date,
        workspace_id,
        'key' as scope,
        api_key_id as subject_id,
        request_count,
        credits,
    from marts.usage_by_key
    where usage_date = $day
),

model_spend as (
    select
        usage_date,
        workspace_id,
        'model' as scope,
        model as subject_id,
        request_count,
        credits,
    from marts.usage_by_model
    where usage_date = $day
),

member_spend as (
    select
        usage_date,
        workspace_id,
        'member' as scope,
        member_id as subject_id,
        request_count,
        credits,
    from marts.usage_by_member
    where usage_date = $day
),

workspace_spend as (
    select
        usage_date,
        workspace_id,
        'workspace' as scope,
        workspace_id as subject_id,
        sum(request_count) as request_count,
        sum(credits) as credits,
    from marts.usage_by_key
    where usage_date = $day
    group by 1, 2
),

spend as (
    from key_spend
    union all
    from model_spend
    union all
    from member_spend
    union all
    from workspace_spend
)

select
    usage_date,
    workspace_id,                                    -- null: the source names none
    scope,                                           -- key, model, member or workspace
    subject_id,                                      -- the id (or model) within its scope
    cast(request_count as bigint) as request_count,  -- all its requests of the day, free ones too
    cast(credits as decimal(38, 9)) as credits,      -- always above zero
from spend
where subject_id is not null
    and credits > 0

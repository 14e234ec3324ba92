-- What became of a day out of range: told by an alert of its own, told as a line in the alert of a
-- narrower subject that explains it, or expected.
--
-- Expected: expected_days says so, of somebody's word. Whoever said it spoke of the days that were
-- published by then; the first day that is told after them begins a new alert, however close it
-- lies.
--
-- grain: usage_date, workspace_id?, scope, subject_id
with anomalies as (
    select
        usage_date,
        workspace_id,
        scope,
        subject_id,
        credits,
        explained_by_scope,
        explained_by_subject_id,
    from marts.spend_anomalies
    where usage_date <= $today
),

judged as (
    select
        anomalies.*,
        coalesce(era, 0) as era,
        expected_credits,
        coalesce(is_expected, false) as is_expected,
    from anomalies
    left join marts.expected_days as called
        on called.usage_date = anomalies.usage_date
        and called.workspace_id is not distinct from anomalies.workspace_id
        and called.scope = anomalies.scope
        and called.subject_id = anomalies.subject_id
),

told as (
    -- an explanation may itself be explained: a workspace by its model, the model by its key
    select
        judged.*,
        coalesce(other.explained_by_scope, judged.explained_by_scope) as told_by_scope,
        coalesce(other.explained_by_subject_id, judged.explained_by_subject_id)
            as told_by_subject_id,
    from judged
    left join judged as other
        on other.usage_date = judged.usage_date
        and other.workspace_id is not distinct from judged.workspace_id
        and other.scope = judged.explained_by_scope
        and other.subject_id = judged.explained_by_subject_id
),

own as (
    select
        *,
        lag(usage_date) over (
            partition by workspace_id, scope, subject_id, era
            order by usage_date
        ) as previous_date,
    from judged
    where explained_by_scope is null
        and not is_expected
),

episodes as (
    select
        usage_date,
        workspace_id,
        scope,
        subject_id,
        -- days at most three days apart are one incident: it is told once, not every morning
        max(case when previous_date is null or usage_date - previous_date > 3 then usage_date end)
            over (partition by workspace_id, scope, subject_id, era order by usage_date)
            as first_date,
    from own
)

select
    told.usage_date,
    told.workspace_id,        -- null: the source names none
    told.scope,               -- key, model, member or workspace
    told.subject_id,          -- the id (or model) within its scope
    told.credits,             -- spent on the day
    case
        when episodes.first_date is not null then 'alert'
        when teller.first_date is not null then 'line'
        else 'expected'
    end as told_as,           -- alert, line or expected
    coalesce(episodes.first_date, teller.first_date)
        as first_date,        -- the day on which the alert opened that tells it
    coalesce(told_by_scope, told.scope) as told_by_scope,  -- that alert's scope
    coalesce(told_by_subject_id, told.subject_id)
        as told_by_subject_id,  -- and the id (or model) within it
    told.expected_credits,    -- the highest day that somebody called expected before; or null
from told
left join episodes
    on episodes.usage_date = told.usage_date
    and episodes.workspace_id is not distinct from told.workspace_id
    and episodes.scope = told.scope
    and episodes.subject_id = told.subject_id
left join episodes as teller
    on teller.usage_date = told.usage_date
    and teller.workspace_id is not distinct from told.workspace_id
    and teller.scope = told.told_by_scope
    and teller.subject_id = told.told_by_subject_id

-- An incident: the days on which a subject was out of range, as long as they lie close together.
--
-- It escalates on the first day with twice the credits of the day on which it opened, and again on
-- the first with twice those of the day that escalated last. Once somebody has acknowledged it, it
-- takes twice the biggest day that was known then.
--
-- grain: first_date, workspace_id?, scope, subject_id
with recursive days as (
    select
        *,
        dense_rank() over (order by workspace_id, scope, subject_id, first_date) as episode,
    from marts.alert_days
    where told_as = 'alert'
),

acknowledged as (
    select episode, said_of_date, said_of_credits
    from days
    join staging.alert_decisions as decision
        on decision.usage_date = first_date
        and decision.workspace_id is not distinct from days.workspace_id
        and decision.scope = days.scope
        and decision.subject_id = days.subject_id
    where days.usage_date = first_date
        and decision = 'acknowledged'
),

candidates as (
    select
        days.episode,
        days.usage_date,
        days.credits,
        if(usage_date > said_of_date, 2 * said_of_credits, 0) as least_credits,
    from days
    left join acknowledged using (episode)
),

doublings as (
    select episode, usage_date, credits, 0 as level
    from days
    where usage_date = first_date
    union all
    select episode, candidates.usage_date, candidates.credits, level + 1
    from doublings
    join candidates using (episode)
    where candidates.usage_date > doublings.usage_date
        and candidates.credits >= 2 * doublings.credits
        and candidates.credits >= coalesce(least_credits, 0)
    qualify row_number() over (partition by episode order by candidates.usage_date) = 1
),

last_doublings as (
    select
        episode,
        max(level) as level,
        max(usage_date) filter (level > 0) as escalated_date,
    from doublings
    group by 1
)

select
    first_date,             -- the day it began; alert_id depends on it
    workspace_id,           -- null: the source names none
    scope,                  -- key, model, member or workspace
    subject_id,             -- the id (or model) within its scope
    max(usage_date) as last_date,            -- the last day out of range so far
    count(*) as anomaly_day_count,           -- days out of range
    max(credits) as highest_credits,         -- of one day
    cast(any_value(level) as bigint) as level,      -- how often it has doubled; 0: not yet
    any_value(escalated_date) as escalated_date,    -- the day on which it last did; or null
from days
join last_doublings using (episode)
group by 1, 2, 3, 4

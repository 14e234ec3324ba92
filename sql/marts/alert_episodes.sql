-- An incident: the days on which a subject was out of range, as long as they lie close together.
--
-- Days at most three days apart are one episode: an incident is told once, not every morning.
-- What narrower anomalies explain, and days after the night's date, are left out.
--
-- grain: first_date, workspace_id?, scope, subject_id
with anomalies as (
    select
        *,
        lag(usage_date) over (
            partition by workspace_id, scope, subject_id
            order by usage_date
        ) as previous_date,
    from marts.spend_anomalies
    where explained_by_scope is null
        and usage_date <= $today
),

numbered as (
    select
        *,
        max(case when previous_date is null or usage_date - previous_date > 3 then usage_date end)
            over (partition by workspace_id, scope, subject_id order by usage_date) as first_date,
    from anomalies
),

compared as (
    select
        *,
        first_value(credits) over (
            partition by workspace_id, scope, subject_id, first_date
            order by usage_date
        ) as first_credits,
    from numbered
)

select
    first_date,             -- the day it began; alert_id depends on it
    workspace_id,           -- null: the source names none
    scope,                  -- key, model, member or workspace
    subject_id,             -- the id (or model) within its scope
    max(usage_date) as last_date,            -- the last day out of range so far
    count(*) as anomaly_day_count,           -- days out of range
    max(credits) as highest_credits,         -- of one day
    min(usage_date) filter (usage_date > first_date and credits >= 2 * first_credits)
        as escalated_date,  -- the first day with twice the credits of the first; or null
from compared
group by 1, 2, 3, 4

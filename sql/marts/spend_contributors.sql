-- The five largest parts of what was spent beyond the usual on a day out of range: which key, on
-- which model, in which hour.
--
-- A part's excess is what it spent beyond what this key usually spends on this model in this hour
-- of the day, in the week before; its share is of all parts' excess together.
--
-- grain: usage_date, workspace_id?, scope, subject_id, position
-- looks back: marts.usage_quarter_hourly 8 days
with anomalies as (
    select
        workspace_id,
        scope,
        subject_id,
        row_number() over () as anomaly,
    from marts.spend_anomalies
    where usage_date = $day
),

quarters as (
    select
        workspace_id,
        api_key_id,
        member_id,
        model,
        usage_date,
        date_trunc('hour', quarter_at) as hour_at,
        request_count,
        credits,
    from marts.usage_quarter_hourly
    where usage_date between $day - 8 and $day
        and usage_date != $day - 1  -- the incident may have begun in it
),

spent as (
    select anomaly, anomalies.scope, anomalies.subject_id, quarters.*
    from quarters
    join anomalies
        on anomalies.workspace_id is not distinct from quarters.workspace_id
        and anomalies.subject_id = quarters.api_key_id
    where scope = 'key'
    union all
    select anomaly, anomalies.scope, anomalies.subject_id, quarters.*
    from quarters
    join anomalies
        on anomalies.workspace_id is not distinct from quarters.workspace_id
        and anomalies.subject_id = quarters.model
    where scope = 'model'
    union all
    select anomaly, anomalies.scope, anomalies.subject_id, quarters.*
    from quarters
    join anomalies
        on anomalies.workspace_id is not distinct from quarters.workspace_id
        and anomalies.subject_id = quarters.member_id
    where scope = 'member'
    union all
    select anomaly, anomalies.scope, anomalies.subject_id, quarters.*
    from quarters
    join anomalies
        on anomalies.workspace_id = quarters.workspace_id
        and anomalies.subject_id = quarters.workspace_id
    where scope = 'workspace'
),

parts as (
    select
        anomaly,
        any_value(workspace_id) as workspace_id,
        any_value(scope) as scope,
        any_value(subject_id) as subject_id,
        api_key_id,
        model,
        hour(hour_at) as hour_of_day,
        sum(request_count) filter (usage_date = $day) as request_count,
        sum(credits) filter (usage_date = $day) as credits,
        cast(sum(credits) filter (usage_date = $day) as double)
            - coalesce(cast(sum(credits) filter (usage_date < $day) as double), 0) / 7
            as excess_credits,
    from spent
    group by anomaly, api_key_id, model, hour_of_day
),

excesses as (
    select
        *,
        cast(round(excess_credits, 9) as decimal(38, 9)) as exact_excess_credits,
    from parts
    where excess_credits > 0
)

select
    $day as usage_date,
    workspace_id,   -- null: the source names none
    scope,          -- key, model, member or workspace
    subject_id,     -- the id (or model) within its scope
    cast(
        row_number() over (
            partition by anomaly
            order by exact_excess_credits desc, api_key_id, model, hour_of_day
        )
        as integer
    ) as position,  -- 1 is the largest part
    api_key_id,     -- null: unassigned, or the Playground
    model,          -- null: nothing served
    cast($day as timestamp) + interval 1 hour * hour_of_day as hour_at,  -- UTC, its beginning
    cast(credits as decimal(38, 9)) as credits,    -- spent in that hour
    cast(request_count as bigint) as request_count,  -- made in that hour
    round(
        cast(exact_excess_credits as double)
        / cast(sum(exact_excess_credits) over (partition by anomaly) as double),
        9
    ) as excess_share,  -- of the excess of all hours, 0 to 1
from excesses
qualify position <= 5

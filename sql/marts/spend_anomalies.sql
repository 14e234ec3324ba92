-- A key, model, member or workspace on a day that went out of its normal range, and what drove it.
--
-- One row for each day that spend_ranges calls high, drift or woke, and for each that only the
-- second channel sees: a key or member within its range of credits, whose requests have become so
-- dear that spend_mixes names it (reason dearer_requests or another_model). The verdict in
-- spend_ranges stays what it is: that of the credits. Such a row is an anomaly like any other: it
-- opens an alert, it explains wider scopes, and the claim that every anomaly is told holds it too.
-- Only of days that are over, for what a request costs on average may fall again until midnight.
--
-- Several days in a row are one alert: that is what budget_alerts makes of these rows.
--
-- One incident shows in several scopes: a leaked key lifts its model and its workspace too. A row
-- is explained when a row of a narrower scope (key and member, then model, then workspace) accounts
-- for at least 70 % of what it spent beyond the expected; only what is left unexplained alerts.
--
-- grain: usage_date, workspace_id?, scope, subject_id
with gates as (
    -- X percent and the floor, as for the ranges: nobody is woken for dear requests that are few
    select
        *,
        greatest(
            cast(
                expected * (1 + cast($alerts_exceed_percent as decimal(12, 4)) * 0.01)
                as decimal(38, 9)
            ),
            expected + cast($alerts_floor_credits as decimal(38, 9))
        ) as gate,
    from marts.spend_ranges
    where usage_date = $day
),

mixes as (
    select workspace_id, scope, subject_id, dearest_credits, new_model_excess_credits
    from marts.spend_mixes
    where usage_date = $day
),

judged as (
    select
        gates.*,
        dearest_credits,
        case
            when verdict in ('high', 'woke') then 'range'
            when verdict = 'drift' then 'drift'
            when not is_complete or expected = 0 or coalesce(credits <= gate, true) then null
            when credits > dearest_credits then 'dearer_requests'
            when new_model_excess_credits > gate - expected then 'another_model'
        end as reason,
    from gates
    left join mixes
        on mixes.workspace_id is not distinct from gates.workspace_id
        and mixes.scope = gates.scope
        and mixes.subject_id = gates.subject_id
),

anomalies as materialized (
    select
        * replace (
            -- the limit that was passed: of a day within its range that is not the range's
            case reason
                when 'dearer_requests' then greatest(gate, dearest_credits)
                when 'another_model' then gate
                else upper_limit
            end as upper_limit
        ),
        row_number() over () as anomaly,
        case scope when 'workspace' then 3 when 'model' then 2 else 1 end as breadth,
        greatest(credits - expected, 0) as excess_credits,
    from judged
    where reason is not null
),

habits as (
    select
        anomaly,
        request_count,
        usual_request_count,
        usual_credits_per_request,
        this_week_credits,
        best_week_credits,
    from anomalies
    join marts.spend_habits as habit
        on habit.usage_date = $day
        and habit.workspace_id is not distinct from anomalies.workspace_id
        and habit.scope = anomalies.scope
        and habit.subject_id = anomalies.subject_id
),

usage as (
    select workspace_id, api_key_id, member_id, model, quarter_at, credits
    from marts.usage_quarter_hourly
    where usage_date = $day
),

usage_by_subject as (
    select 'key' as scope, api_key_id as subject_id, *
    from usage
    union all
    select 'model', model, *
    from usage
    union all
    select 'member', member_id, *
    from usage
    union all
    select 'workspace', workspace_id, *
    from usage
),

spent as materialized (
    select anomaly, reason, upper_limit, api_key_id, model, quarter_at, usage_by_subject.credits
    from usage_by_subject
    join anomalies
        on usage_by_subject.workspace_id is not distinct from anomalies.workspace_id
        and usage_by_subject.scope = anomalies.scope
        and usage_by_subject.subject_id = anomalies.subject_id
),

-- When ------------------------------------------------------------------------------------------

running_totals as (
    select
        anomaly,
        quarter_at,
        any_value(upper_limit) as upper_limit,
        sum(sum(credits)) over (partition by anomaly order by quarter_at) as credits_so_far,
    from spent
    where reason = 'range'  -- what a request costs is known when the day is over
    group by 1, 2
),

crossings as (
    select anomaly, min(quarter_at) + interval '15 minutes' as crossed_at
    from running_totals
    where credits_so_far > upper_limit
    group by 1
),

-- What ------------------------------------------------------------------------------------------

model_credits as (
    select anomaly, model, sum(credits) as credits
    from spent
    where model is not null
    group by 1, 2
),

top_models as (
    select anomaly, model as top_model, credits as top_model_credits
    from model_credits
    qualify row_number() over (partition by anomaly order by credits desc, model) = 1
),

key_credits as (
    select anomaly, api_key_id, sum(credits) as credits
    from spent
    where api_key_id is not null
    group by 1, 2
),

top_keys as (
    select anomaly, api_key_id as top_key_id, credits as top_key_credits
    from key_credits
    qualify row_number() over (partition by anomaly order by credits desc, api_key_id) = 1
),

-- Which narrower anomalies account for it --------------------------------------------------------

contributions as (
    select
        wide.anomaly,
        wide.excess_credits as wide_excess_credits,
        narrow.scope,
        narrow.subject_id,
        -- of a model's excess a key can explain no more than it spent on that model
        case
            when wide.scope = 'model'
            then least(narrow.excess_credits, coalesce(model_credits.credits, 0))
            else narrow.excess_credits
        end as explained_credits,
    from anomalies as wide
    join anomalies as narrow
        on narrow.workspace_id is not distinct from wide.workspace_id
        and narrow.breadth < wide.breadth
    left join model_credits
        on model_credits.anomaly = narrow.anomaly
        and model_credits.model = wide.subject_id
),

explanations as (
    -- scope by scope: a member's playground requests may also have been counted with a key
    select
        anomaly,
        scope as explained_by_scope,
        arg_max(subject_id, (explained_credits, subject_id)) as explained_by_subject_id,
    from contributions
    group by anomaly, wide_excess_credits, scope
    having max(explained_credits) > 0 and 10 * max(explained_credits) >= 7 * wide_excess_credits
    qualify row_number() over (
        partition by anomaly
        order by sum(explained_credits) desc, explained_by_scope
    ) = 1
)

select
    usage_date,
    workspace_id,               -- null: the source names none
    scope,                      -- key, model, member or workspace
    subject_id,                 -- the id (or model) within its scope
    if(verdict in ('drift', 'woke'), verdict, 'anomaly') as kind,  -- anomaly, drift or woke
    reason,                     -- range, drift, dearer_requests or another_model: which rule
    credits,                    -- spent on the day, so far if it is not over
    expected,                   -- the typical day
    upper_limit,                -- the most that is not yet out of range; see reason
    ratio,                      -- credits / expected; null when expected is 0
    is_complete,                -- the day ended before the night's clock
    crossed_at,                 -- end of the quarter that passed the limit; other reasons: null
    request_count,              -- of the day
    usual_request_count,        -- on a day with spend; null without history
    usual_credits_per_request,  -- on a day with spend; null without history
    this_week_credits,          -- the median day of the week that ends with this day
    best_week_credits,          -- the best such week of the nine before the last
    top_model,                  -- on which it spent most
    top_model_credits,
    top_key_id,                 -- the key that spent most of it
    top_key_credits,
    explained_by_scope,         -- null: nothing narrower accounts for it, so it alerts
    explained_by_subject_id,    -- the narrower anomaly with the largest part in it
from anomalies
left join habits using (anomaly)
left join crossings using (anomaly)
left join top_models using (anomaly)
left join top_keys using (anomaly)
left join explanations using (anomaly)

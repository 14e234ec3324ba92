-- A key, model, member or workspace on a day that went out of its normal range, and what drove it.
--
-- One row for each day that spend_ranges calls high, drift, woke or expected, and for each that
-- only the second channel sees: a key or member within its range of credits, whose requests have
-- become so dear that spend_mixes names it (reason dearer_requests or another_model), which spent
-- so much in an hour (burst) or in six (surge), or makes so many more requests than a month ago
-- (climb), that spend_paces does.
-- The verdict in spend_ranges stays what it is: that of the credits. Such a row is an anomaly like
-- any other: it opens an alert, it explains wider scopes, and the claim that every anomaly is told
-- holds it too. A burst and a surge are told while they run, the others of days that are over only,
-- for what a request costs on average may fall again until midnight.
--
-- Several days in a row are one alert: that is what budget_alerts makes of these rows.
--
-- One incident shows in several scopes: a leaked key lifts its model and its workspace too. A row
-- is explained when a row of a narrower scope (key and member, then model, then workspace) accounts
-- for at least 70 % of what it spent beyond the expected; only what is left unexplained alerts.
--
-- grain: usage_date, workspace_id?, scope, subject_id
with gates as (
    -- X percent and the floor, as for the ranges: nobody is woken for trifles
    -- An expected day is what its numbers say, here and in all that follows: alert_days keeps it
    -- from being told.
    select
        * replace (coalesce(overruled_verdict, verdict) as verdict),
        greatest(
            cast(expected * (1 + exceed_percent * 0.01) as decimal(38, 9)),
            expected + floor_credits
        ) as gate,
    from marts.spend_ranges
    where usage_date = $day
),

mixes as (
    select workspace_id, scope, subject_id, dearest_credits, new_model_excess_credits
    from marts.spend_mixes
    where usage_date = $day
),

paces as (
    select
        workspace_id,
        scope,
        subject_id,
        peak_hour_at,
        peak_credits,
        hour_limit,
        six_hours_at,
        six_hours_credits,
        six_hours_limit,
        is_climbing as has_more_requests,
        usual_credits,
        best_credits,
    from marts.spend_paces
    where usage_date = $day
),

seen as (
    select
        gates.*,
        dearest_credits,
        new_model_excess_credits,
        peak_hour_at,
        peak_credits,
        -- not below a third of what is expected of the whole day (greatest() passes nulls over)
        case
            when hour_limit is not null then greatest(
                hour_limit,
                cast(round(cast(expected as double) / 3, 9) as decimal(38, 9))
            )
        end as hour_limit,
        six_hours_at,
        six_hours_credits,
        -- not below all that is expected of the whole day
        case when six_hours_limit is not null then greatest(six_hours_limit, expected) end
            as six_hours_limit,
        expected > 0 and coalesce(credits > gate, false) as is_of_note,
        -- by X percent and the floor above the two weeks that it is held against
        coalesce(
            has_more_requests
            and usual_credits > best_credits * (1 + cast(exceed_percent as double) * 0.01)
            and usual_credits > best_credits + cast(floor_credits as double),
            false
        ) as is_climbing,
    from gates
    left join mixes
        on mixes.workspace_id is not distinct from gates.workspace_id
        and mixes.scope = gates.scope
        and mixes.subject_id = gates.subject_id
    left join paces
        on paces.workspace_id is not distinct from gates.workspace_id
        and paces.scope = gates.scope
        and paces.subject_id = gates.subject_id
),

judged as (
    select
        *,
        is_of_note and coalesce(peak_credits > hour_limit, false) as has_burst,
        is_of_note and coalesce(six_hours_credits > six_hours_limit, false) as has_surge,
        case
            when verdict in ('high', 'woke') then 'range'
            -- what was told in its hour stays what it was when the day is over
            when verdict = 'drift' and not has_burst and not has_surge then 'drift'
            when is_complete and is_of_note and credits > dearest_credits then 'dearer_requests'
            when is_complete and is_of_note and new_model_excess_credits > gate - expected
            then 'another_model'
            when has_burst then 'burst'
            when has_surge then 'surge'
            when is_complete and is_climbing then 'climb'
        end as reason,
    from seen
),

anomalies as materialized (
    select
        * replace (
            -- the limit that was passed: of a day within its range that is not the range's
            case reason
                when 'dearer_requests' then greatest(gate, dearest_credits)
                when 'another_model' then gate
                when 'burst' then gate
                when 'surge' then gate
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
    select
        anomaly,
        reason,
        upper_limit,
        gate,
        hour_limit,
        six_hours_limit,
        api_key_id,
        model,
        quarter_at,
        usage_by_subject.credits,
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
        any_value(reason) as reason,
        any_value(upper_limit) as upper_limit,
        any_value(gate) as gate,
        any_value(hour_limit) as hour_limit,
        any_value(six_hours_limit) as six_hours_limit,
        sum(sum(credits)) over (partition by anomaly order by quarter_at) as credits_so_far,
        sum(sum(credits)) over (
            partition by anomaly, date_trunc('hour', quarter_at)
            order by quarter_at
        ) as credits_of_hour,
        coalesce(
            sum(sum(credits)) over (
                partition by anomaly
                order by date_trunc('hour', quarter_at)
                range between interval 5 hours preceding and interval 1 hour preceding
            ),
            0
        ) as credits_of_five_hours_before,
    from spent
    group by 1, 2
),

running_peaks as (
    select
        *,
        max(credits_of_hour) over (partition by anomaly order by quarter_at) as peak_so_far,
        max(credits_of_hour + credits_of_five_hours_before)
            over (partition by anomaly order by quarter_at)
            as six_hours_peak_so_far,
    from running_totals
),

crossings as (
    -- what a request costs, and how many there are in two weeks, is known when the day is over
    select anomaly, min(quarter_at) + interval '15 minutes' as crossed_at
    from running_peaks
    where (reason = 'range' and credits_so_far > upper_limit)
        or (peak_so_far > hour_limit and credits_so_far > gate)
        or (six_hours_peak_so_far > six_hours_limit and credits_so_far > gate)
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
    case
        when reason in ('drift', 'climb') then 'drift'
        when verdict = 'woke' then verdict
        else 'anomaly'
    end as kind,                -- anomaly, drift or woke
    reason,  -- range, drift, dearer_requests, another_model, burst, surge or climb: which rule
    credits,                    -- spent on the day, so far if it is not over
    expected,                   -- the typical day
    upper_limit,                -- the most that is not yet out of range; see reason
    ratio,                      -- credits / expected; null when expected is 0
    is_complete,                -- the day ended before the night's clock
    crossed_at,                 -- end of the quarter that passed it, or one of hours; or null
    request_count,              -- of the day
    usual_request_count,        -- on a day with spend; null without history
    usual_credits_per_request,  -- on a day with spend; null without history
    this_week_credits,          -- the median day of the week that ends with this day
    best_week_credits,          -- the best such week of the nine before the last
    peak_hour_at,               -- of a key or member: the hour with most credits, UTC
    peak_credits,               -- spent in it
    hour_limit,                 -- the most that is not yet a burst; null while too young
    six_hours_at,               -- the first of the six hours in a row with most credits, UTC
    six_hours_credits,          -- spent in them
    six_hours_limit,            -- the most that is not yet a surge; null while too young
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

-- Why a key, model, member or workspace went out of its range on a day: more requests, dearer ones,
-- another model, a new key, or the end of a sleep; and since when.
--
-- A day's credits are its requests times what one costs, and what one costs is the mix of models
-- times what each takes. Each of these three factors is held against what is usual, and the largest
-- is the cause. A model that was never called before belongs to the mix, at its own price. A key of
-- less than two weeks has no usual number of requests: if there are more, being new is the cause;
-- also of a wider scope, when such keys brought half of the excess. A sleeper has no usual at all.
--
-- Of a burst the hour is looked at, beside the biggest hours of eight weeks: in a day's numbers two
-- hours drown. The six of a surge do not, for they took more than a whole day. Of a drift, the week
-- beside the three before it: one day is chance. A climb is by definition one of requests.
--
-- Since when: of all runs of hours that end on this day, the one whose credits exceed by most what
-- these hours usually take (the shape of the week before, scaled to the expected day). The day
-- before is looked at too: what began at eleven at night shows on the next day. "Exceed" begins at
-- (r - 1) / ln(r) times the usual, where r is the day's ratio: the mark that tells two Poisson
-- rates apart soonest. Of a drift it is the start of the week that drifts, of a
-- climb of its two weeks.
--
-- grain: usage_date, workspace_id?, scope, subject_id
-- looks back: marts.usage_quarter_hourly 8 days, marts.usage_by_key_and_model 28 days
with anomalies as materialized (
    select
        anomaly.usage_date,
        anomaly.workspace_id,
        anomaly.scope,
        anomaly.subject_id,
        kind,
        reason,
        anomaly.credits,
        expected,
        cast(anomaly.credits - expected as double) as excess_credits,
        anomaly.request_count,
        anomaly.usual_request_count,
        anomaly.usual_credits_per_request,
        cast(anomaly.this_week_credits as double) as this_week_credits,
        habit.first_date,
        cast(anomaly.credits as double) / nullif(anomaly.request_count, 0) as credits_per_request,
        anomaly.peak_hour_at,
        pace.peak_request_count,
        pace.biggest_hour_request_count,
        cast(pace.peak_credits as double) / nullif(pace.peak_request_count, 0)
            as peak_credits_per_request,
        pace.usual_request_count as climbed_request_count,
        pace.best_request_count,
        row_number() over () as anomaly,
    from marts.spend_anomalies as anomaly
    left join marts.spend_habits as habit
        on habit.usage_date = $day
        and habit.workspace_id is not distinct from anomaly.workspace_id
        and habit.scope = anomaly.scope
        and habit.subject_id = anomaly.subject_id
    left join marts.spend_paces as pace
        on pace.usage_date = $day
        and pace.workspace_id is not distinct from anomaly.workspace_id
        and pace.scope = anomaly.scope
        and pace.subject_id = anomaly.subject_id
    where anomaly.usage_date = $day
),

places as (
    -- which rows of usage are whose
    select
        anomaly,
        workspace_id,
        if(scope = 'key', subject_id, null) as api_key_id,
        if(scope = 'model', subject_id, null) as model,
        if(scope = 'member', subject_id, null) as member_id,
        scope,
        if(reason = 'drift', $day - 6, $day) as now_from,
    from anomalies
),

-- Since when ------------------------------------------------------------------------------------

quarters as (
    select workspace_id, api_key_id, member_id, model, usage_date, quarter_at, credits
    from marts.usage_quarter_hourly
    where usage_date between $day - 8 and $day
),

spent as (
    select anomaly, usage_date, quarter_at, credits
    from quarters
    join places using (api_key_id)
    where scope = 'key'
        and quarters.workspace_id is not distinct from places.workspace_id
    union all
    select anomaly, usage_date, quarter_at, credits
    from quarters
    join places using (model)
    where scope = 'model'
        and quarters.workspace_id is not distinct from places.workspace_id
    union all
    select anomaly, usage_date, quarter_at, credits
    from quarters
    join places using (member_id)
    where scope = 'member'
        and quarters.workspace_id is not distinct from places.workspace_id
    union all
    select anomaly, usage_date, quarter_at, credits
    from quarters
    join places using (workspace_id)
    where scope = 'workspace'
),

spent_by_hour as materialized (
    select anomaly, usage_date, date_trunc('hour', quarter_at) as hour_at, sum(credits) as credits
    from spent
    group by 1, 2, 3
),

week_shapes as (
    select anomaly, hour(hour_at) as hour_of_day, sum(credits) as credits
    from spent_by_hour
    where usage_date < $day - 1
    group by 1, 2
),

weeks as (
    select anomaly, sum(credits) as week_credits
    from week_shapes
    group by 1
),

two_days as (
    select cast($day - 1 as timestamp) + interval 1 hour * number as hour_at
    from range(48) as hours (number)
),

hours as (
    select
        anomaly,
        hour_at,
        cast(coalesce(spent_by_hour.credits, 0) as double) as credits,
        cast(expected as double) * case
            when week_credits > 0
            then cast(coalesce(week_shapes.credits, 0) as double) / cast(week_credits as double)
            else 1.0 / 24
        end as usual_credits,
        greatest(1.5, least(100, cast(anomalies.credits as double) / nullif(expected, 0))) as ratio,
    from anomalies
    cross join two_days
    left join spent_by_hour using (anomaly, hour_at)
    left join weeks using (anomaly)
    left join week_shapes
        on week_shapes.anomaly = anomalies.anomaly
        and hour_of_day = hour(hour_at)
    where kind != 'drift'
),

gains as (
    select
        anomaly,
        hour_at,
        credits,
        sum(credits - usual_credits * coalesce((ratio - 1) / ln(ratio), 1)) over from_the_start
            as gain_by_then,
        coalesce(
            sum(credits - usual_credits * coalesce((ratio - 1) / ln(ratio), 1)) over before_it, 0
        ) as gain_before,
    from hours
    window
        from_the_start as (partition by anomaly order by hour_at),
        before_it as (
            partition by anomaly
            order by hour_at
            rows between unbounded preceding and 1 preceding
        )
),

runs as (
    select
        anomaly,
        hour_at as last_hour_at,
        gain_by_then - min(gain_before) over until_then as gain,
        -- of equal beginnings the latest: hours without anything are no part of it
        arg_min(hour_at, (gain_before, -epoch(hour_at))) over until_then as since_at,
    from gains
    window until_then as (partition by anomaly order by hour_at)
),

best_runs as (
    select anomaly, since_at, last_hour_at
    from runs
    where last_hour_at >= $day
    qualify row_number() over (partition by anomaly order by gain desc, last_hour_at) = 1
),

sinces as (
    select
        anomaly,
        since_at,
        cast(
            round(
                cast(sum(credits) as double)
                / (date_diff('hour', since_at, any_value(last_hour_at)) + 1),
                9
            )
            as decimal(38, 9)
        ) as credits_per_hour,
    from best_runs
    join spent_by_hour using (anomaly)
    where hour_at between since_at and last_hour_at
    group by 1, 2
),

-- Which models, which keys ----------------------------------------------------------------------

months as (
    select *
    from marts.usage_by_key_and_model
    where usage_date between $day - 28 and $day
),

used as materialized (
    select anomaly, places.scope, usage_date >= now_from as is_now, months.*
    from months
    join places using (api_key_id)
    where scope = 'key'
        and months.workspace_id is not distinct from places.workspace_id
    union all
    select anomaly, places.scope, usage_date >= now_from as is_now, months.*
    from months
    join places using (model)
    where scope = 'model'
        and months.workspace_id is not distinct from places.workspace_id
    union all
    select anomaly, places.scope, usage_date >= now_from as is_now, months.*
    from months
    join places using (member_id)
    where scope = 'member'
        and months.workspace_id is not distinct from places.workspace_id
    union all
    select anomaly, places.scope, usage_date >= now_from as is_now, months.*
    from months
    join places using (workspace_id)
    where scope = 'workspace'
),

sums as (
    select
        anomaly,
        model,
        coalesce(sum(request_count) filter (is_now), 0) as requests_now,
        coalesce(sum(request_count) filter (not is_now), 0) as requests_before,
        coalesce(sum(credits) filter (is_now), 0) as credits_now,
        coalesce(sum(credits) filter (not is_now), 0) as credits_before,
    from used
    group by 1, 2
),

weeks_of_drift as (
    -- the week that drifts beside the rest of the four weeks
    select
        anomaly,
        sum(requests_now) / 7.0 as week_request_count,
        sum(requests_before) / 22.0 as earlier_request_count,
        cast(sum(cast(credits_now as decimal(38, 9))) as double) / nullif(sum(requests_now), 0)
            as week_credits_per_request,
        cast(sum(cast(credits_before as decimal(38, 9))) as double)
            / nullif(sum(requests_before), 0) as earlier_credits_per_request,
    from sums
    join anomalies using (anomaly)
    where reason = 'drift'
    group by 1
),

models as (
    select
        anomaly,
        model,
        requests_now,
        requests_before,
        cast(credits_now as double) as credits_now,
        cast(credits_before as double) as credits_before,
        -- what today's requests of the model would have taken before; a new model's, what they took
        cast(
            round(
                requests_now * coalesce(
                    cast(credits_before as double) / nullif(requests_before, 0),
                    cast(credits_now as double) / nullif(requests_now, 0),
                    0
                ),
                9
            )
            as decimal(38, 9)
        ) as credits_as_before,
    from sums
    where model is not null
),

shares as (
    select
        anomaly,
        model,
        requests_now / nullif(sum(requests_now) over of_all, 0) as model_share,
        requests_before / nullif(sum(requests_before) over of_all, 0) as usual_model_share,
    from models
    window of_all as (partition by anomaly)
),

grown_models as (
    select anomaly, model, model_share, usual_model_share
    from shares
    qualify row_number() over (
        partition by anomaly
        order by coalesce(model_share, 0) - coalesce(usual_model_share, 0) desc, model
    ) = 1
),

mixes as (
    -- the day's mix at the prices before, against the month's; and the day's prices at its own mix
    select
        anomaly,
        cast(sum(credits_as_before) as double) / nullif(sum(requests_now), 0)
            / nullif(
                cast(sum(cast(credits_before as decimal(38, 9))) as double)
                / nullif(sum(requests_before), 0),
                0
            ) as mix_factor,
        cast(sum(cast(credits_now as decimal(38, 9))) as double)
            / nullif(cast(sum(credits_as_before) as double), 0) as price_factor,
    from models
    group by 1
),

new_keys as (
    select
        anomaly,
        used.api_key_id,
        coalesce(cast(sum(used.credits) filter (used.usage_date = $day) as double), 0)
            - coalesce(cast(sum(used.credits) filter (used.usage_date < $day) as double), 0)
            / greatest($day - any_value(first_date), 1)
            as new_credits,
    from used
    join marts.spend_habits as habit
        on habit.usage_date = $day
        and habit.workspace_id is not distinct from used.workspace_id
        and habit.scope = 'key'
        and habit.subject_id = used.api_key_id
    where used.scope in ('model', 'workspace')
        and habit.first_date > $day - 14
    group by 1, 2
),

newcomers as (
    select
        anomaly,
        sum(cast(round(new_credits, 9) as decimal(38, 9))) as new_key_credits,
        arg_max(api_key_id, (new_credits, api_key_id)) as new_key_id,
    from new_keys
    group by 1
),

-- The cause -------------------------------------------------------------------------------------

compared as (
    -- what is held against what: the day against a usual one, the hour that burst against the
    -- biggest, the week that drifts against those before, two weeks that climb against the busiest
    select
        *,
        case reason
            when 'burst' then peak_request_count
            when 'drift' then week_request_count
            when 'climb' then climbed_request_count
            else request_count
        end as requests_now,
        case reason
            when 'burst' then biggest_hour_request_count
            when 'drift' then earlier_request_count
            when 'climb' then best_request_count
            else usual_request_count
        end as requests_before,
        case reason
            when 'burst' then peak_credits_per_request
            when 'drift' then week_credits_per_request
            else credits_per_request
        end as cost_now,
        if(reason = 'drift', earlier_credits_per_request, usual_credits_per_request)
            as cost_before,
        case reason
            when 'burst' then format(' in the hour from {} UTC', strftime(peak_hour_at, '%H:%M'))
            when 'drift' then ' a day in this week'
            when 'climb' then ' on a usual day of the last two weeks'
            else ''
        end as now_words,
        case reason
            when 'burst' then 'in the busiest of eight weeks'
            when 'drift' then 'in the three before'
            when 'climb' then 'in the busiest two of the two months before the last'
            else 'on a usual day'
        end as before_words,
    from anomalies
    left join weeks_of_drift using (anomaly)
),

weighed as (
    select
        *,
        case
            when kind = 'woke' then 'woken'
            when request_count is null then null
            when scope in ('model', 'workspace')
                and cast(new_key_credits as double) >= 0.5 * excess_credits
            then 'new_key'
            when reason = 'another_model' then reason
            when reason = 'climb' then 'more_requests'
            when reason != 'dearer_requests'
                and coalesce(
                    requests_now / nullif(requests_before, 0)
                    >= cost_now / nullif(cost_before, 0),
                    true
                )
            then if(scope = 'key' and first_date > $day - 14, 'new_key', 'more_requests')
            when mix_factor >= price_factor then 'another_model'
            else 'dearer_requests'
        end as cause,
    from compared
    left join sinces using (anomaly)
    left join grown_models using (anomaly)
    left join mixes using (anomaly)
    left join newcomers using (anomaly)
)

select
    usage_date,
    workspace_id,               -- null: the source names none
    scope,                      -- key, model, member or workspace
    subject_id,                 -- the id (or model) within its scope
    cause,  -- more_requests, dearer_requests, another_model, new_key or woken; null: no counts
    case cause
        when 'woken' then format(
            'nothing was spent in the four weeks before, now {:,} requests{}',
            request_count, coalesce(' on model ' || model, '')
        )
        when 'new_key' then if(
            scope = 'key',
            format(
                'the key is {} days old: {:,} requests against {:,.0f} on a day so far, '
                || 'at {:,.4f} credits each against {:,.4f}',
                $day - first_date, request_count, coalesce(usual_request_count, 0),
                credits_per_request, coalesce(usual_credits_per_request, 0)
            ),
            format(
                'keys of the last two weeks, above all {}, brought {:,.2f} of the {:,.2f} credits '
                || 'beyond the expected',
                new_key_id, cast(new_key_credits as double), excess_credits
            )
        )
        when 'another_model' then format(
            '{:.0f}% of the requests on model {} against {:.0f}% usually, '
            || 'at {:,.4f} credits a request against {:,.4f}',
            100 * model_share, model, 100 * coalesce(usual_model_share, 0), cost_now, cost_before
        )
        when 'dearer_requests' then format(
            '{:,.4f} credits a request{} against {:,.4f} {}, for {:,.0f} requests against {:,.0f}',
            cost_now, now_words, cost_before, before_words, requests_now, requests_before
        )
        when 'more_requests' then format(
            '{:,.0f} requests{} against {:,.0f} {}, at {:,.4f} credits each against {:,.4f}',
            requests_now, now_words, coalesce(requests_before, 0), before_words,
            cost_now, coalesce(cost_before, 0)
        )
    end as cause_text,          -- both sides' numbers, as part of a sentence
    request_count,              -- of the day, so far; null: the source knows none
    usual_request_count,        -- on a day with spend; null without history
    credits_per_request,        -- of the day, so far
    usual_credits_per_request,  -- on a day with spend; null without history
    model,                      -- whose share of the requests grew most in 28 days; or null
    model_share,                -- of the requests that name a model: the day's, a drift's week's
    usual_model_share,          -- of those before, in 28 days; null: there were none
    case reason
        when 'climb' then cast($day - 13 as timestamp)
        when 'drift' then cast($day - 6 as timestamp)
        else since_at
    end as since_at,            -- UTC hour from which the spend runs above usual; or null
    if(
        kind = 'drift',
        cast(round(this_week_credits / 24, 9) as decimal(38, 9)),
        credits_per_hour
    ) as credits_per_hour,      -- from then to the last hour above usual, all credits of it
from weighed

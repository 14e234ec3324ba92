-- What a request of a key or a member costs on a day, and what it used to cost: the second channel.
--
-- Credits of a day vary with the number of requests; credits per request hardly do. Where both are
-- known, a switch to a dearer model shows here on a day on which the credits alone are still within
-- their range. Two rules, both against the 28 days before; no setting is in here, and spend_ranges'
-- verdict is its own: spend_anomalies puts the two together.
--
-- 1. Dearer: a request cost more than 1.6 times the dearest day, and 2.5 times the middle one.
-- 2. Another model: half of the credits or more went to models that had less than a twentieth of
--    them before, at twice what a request used to cost. It sees what began in the afternoon,
--    when the morning still hides it in the day's average.
--
-- Keys and members only: in a workspace or a model each key that comes or goes moves the average.
--
-- grain: usage_date, workspace_id?, scope, subject_id
-- looks back: marts.daily_spend 28 days, marts.usage_by_key_and_model 28 days
with subjects as materialized (
    select
        *,
        row_number() over () as subject,
        cast(credits as double) / nullif(request_count, 0) as credits_per_request,
    from marts.daily_spend
    where usage_date = $day
        and scope in ('key', 'member')
),

past as (
    select
        subject,
        count(spend.request_count) as active_day_count,
        median(spend.request_count) as usual_request_count,
        median(cast(spend.credits as double) / nullif(spend.request_count, 0))
            as usual_credits_per_request,
        max(cast(spend.credits as double) / nullif(spend.request_count, 0))
            as highest_credits_per_request,
    from marts.daily_spend as spend
    join subjects
        on spend.workspace_id is not distinct from subjects.workspace_id
        and spend.scope = subjects.scope
        and spend.subject_id = subjects.subject_id
    where spend.usage_date between $day - 28 and $history_until
    group by 1
),

usage as (
    select 'key' as scope, api_key_id as subject_id, *
    from marts.usage_by_key_and_model
    where usage_date between $day - 28 and $day
    union all
    select 'member', member_id, *
    from marts.usage_by_key_and_model
    where usage_date between $day - 28 and $day
),

models as (
    -- sums of exact credits, which do not depend on the order of rows, and only then doubles
    select
        subject,
        model,
        sum(usage.credits) filter (usage.usage_date = $day) as model_credits,
        sum(usage.request_count) filter (usage.usage_date = $day) as model_request_count,
        sum(usage.credits) filter (usage.usage_date <= $history_until) as past_credits,
    from usage
    join subjects
        on usage.workspace_id is not distinct from subjects.workspace_id
        and usage.scope = subjects.scope
        and usage.subject_id = subjects.subject_id
    where model is not null
    group by 1, 2
),

shares as (
    select
        *,
        cast(coalesce(past_credits, 0) as double)
            / nullif(cast(sum(past_credits) over (partition by subject) as double), 0)
            as past_share,
    from models
),

new_models as (
    select
        subject,
        cast(sum(model_credits) as double) as new_model_credits,
        sum(model_request_count) as new_model_request_count,
    from shares
    where past_share < 0.05
        and model_credits > 0
    group by 1
)

select
    usage_date,
    workspace_id,                      -- null: the source names none
    scope,                             -- key or member
    subject_id,                        -- the id within its scope
    request_count,                     -- of the day, so far; null: the source knows none
    credits,                           -- of the day, so far
    credits_per_request,               -- of the day, so far
    coalesce(active_day_count, 0) as active_day_count,  -- days with spend in the 28 before
    usual_request_count,               -- the middle of these days; null without any
    usual_credits_per_request,         -- the middle of these days
    highest_credits_per_request,       -- the dearest of these days
    -- Rounded here, as the ranges are, so that what follows can be checked by a reader.
    case
        when active_day_count >= 7 then cast(
            round(
                least(
                    request_count * greatest(
                        1.6 * highest_credits_per_request, 2.5 * usual_credits_per_request
                    ),
                    1e15
                ),
                9
            )
            as decimal(38, 9)
        )
    end as dearest_credits,            -- its requests at the highest normal price; null: too young
    case
        when active_day_count >= 7
            and new_model_credits >= 0.5 * cast(credits as double)
            and new_model_credits > 2 * new_model_request_count * usual_credits_per_request
        then cast(
            round(
                least(
                    new_model_credits - new_model_request_count * usual_credits_per_request, 1e15
                ),
                9
            )
            as decimal(38, 9)
        )
    end as new_model_excess_credits,   -- what models new to it cost more than usual; null: nothing
from subjects
left join past using (subject)
left join new_models using (subject)

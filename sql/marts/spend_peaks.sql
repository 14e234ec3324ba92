-- The hour of a day in which a key or a member spent most, and the six hours in a row.
--
-- Kept as one small row for each day, so that "the biggest hour of eight weeks" is read from here
-- and no night reads the quarters of past days for it.
--
-- grain: usage_date, workspace_id?, scope, subject_id
with quarters as (
    select
        usage_date,
        workspace_id,
        api_key_id,
        member_id,
        date_trunc('hour', quarter_at) as hour_at,
        request_count,
        credits,
    from marts.usage_quarter_hourly
    where usage_date = $day
),

by_subject as (
    select 'key' as scope, api_key_id as subject_id, *
    from quarters
    where api_key_id is not null
    union all
    select 'member', member_id, *
    from quarters
    where member_id is not null
),

hours as (
    select
        usage_date,
        workspace_id,
        scope,
        subject_id,
        hour_at,
        sum(request_count) as request_count,
        sum(credits) as credits,
    from by_subject
    group by 1, 2, 3, 4, 5
    having sum(credits) > 0
),

stretches as (
    -- of the day alone: what its last hours spend is no part of the next day's
    select
        *,
        sum(credits) over (
            partition by usage_date, workspace_id, scope, subject_id
            order by hour_at
            range between current row and interval 5 hours following
        ) as six_hours_credits,
    from hours
),

busiest as (
    -- of equals the first; an aggregate, for to number them would sort all hours again
    select
        usage_date,
        workspace_id,
        scope,
        subject_id,
        arg_max(
            struct_pack(hour_at, request_count, credits),
            (credits, -epoch(hour_at))
        ) as peak,
        arg_max(
            struct_pack(hour_at, credits := six_hours_credits),
            (six_hours_credits, -epoch(hour_at))
        ) as six_hours,
    from stretches
    group by 1, 2, 3, 4
)

select
    usage_date,
    workspace_id,                                              -- null: the source names none
    scope,                                                     -- key or member
    subject_id,                                                -- the id within its scope
    peak.hour_at as peak_hour_at,                              -- UTC, its beginning
    cast(peak.request_count as bigint) as peak_request_count,  -- made in that hour
    cast(peak.credits as decimal(38, 9)) as peak_credits,      -- spent in it, always above zero
    six_hours.hour_at as six_hours_at,                         -- UTC, the first of the busiest six
    cast(six_hours.credits as decimal(38, 9)) as six_hours_credits,  -- spent in those six
from busiest

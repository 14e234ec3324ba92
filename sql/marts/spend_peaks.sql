-- The hour of a day in which a key or a member spent most.
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
)

select
    usage_date,
    workspace_id,                                         -- null: the source names none
    scope,                                                -- key or member
    subject_id,                                           -- the id within its scope
    hour_at as peak_hour_at,                              -- UTC, its beginning; of equals the first
    cast(request_count as bigint) as peak_request_count,  -- made in that hour
    cast(credits as decimal(38, 9)) as peak_credits,      -- spent in it, always above zero
from hours
qualify row_number() over (
    partition by usage_date, workspace_id, scope, subject_id
    order by credits desc, hour_at
) = 1

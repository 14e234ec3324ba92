-- How many requests and credits a UTC day has in raw and in staging.
--
-- `raw` is what landing wrote, by the objects' own manifest, with a contested request counted once,
-- as its winner. `staging` is the sum of its hours.
--
-- grain: usage_date, stage
with contested as (
    select
        count(*) as request_count,
        coalesce(sum(credits), 0) as credits,
    from staging.request_contests
    where contest_date = $day and usage_date = $day
),

won as (
    select
        count(*) as request_count,
        coalesce(sum(credits), 0) as credits,
    from staging.request_winners
    where usage_date = $day
),

stored as (
    select
        coalesce(sum(row_count), 0) as request_count,
        coalesce(sum(credits), 0) as credits,
    from raw.request_manifest
    where usage_date = $day
)

select
    $day::date as usage_date,
    'raw' as stage,
    (stored.request_count - contested.request_count + won.request_count)::bigint as request_count,
    (stored.credits - contested.credits + won.credits)::decimal(38, 9) as credits,
from stored, contested, won
union all
select
    $day::date as usage_date,
    'staging' as stage,
    coalesce(sum(request_count), 0)::bigint as request_count,
    coalesce(sum(credits), 0)::decimal(38, 9) as credits,
from staging.request_hours
where usage_date = $day

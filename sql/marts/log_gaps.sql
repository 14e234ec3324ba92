-- A hole in the logs of a source: hours that usually have requests and now have none, or less than
-- a tenth, while the gateway still holds what is missing.
--
-- What is usual is learned from the source itself: so many requests as at least three of the four
-- weeks before had in that hour, in the one before it and in the one after it (clocks change). A
-- source of less than three weeks is held against the least of the last seven days, a younger one
-- against nothing. Nights and weekends that are usually quiet are so no holes. A hole is told of
-- from ten missing requests on, however many quiet hours they are spread over; the silence after a
-- source's newest request, once it has lasted a day. What another source of the same gateway
-- delivers beyond its own habits fills a hole.
--
-- The gateway deletes what it knows of a request after thirty days: an older hole is for ever, and
-- not told of any more.
--
-- looks back: staging.request_hours 59 days
-- grain: gateway, source_name, started_at
with complete_hours as (
    select hour_at, gateway, source_name, request_count
    from staging.request_hours
    where hour_at + interval '1 hour' <= $as_of
),

sources as (
    select
        gateway,
        source_name,
        min(hour_at) as first_hour_at,
        max(hour_at) as last_hour_at,
    from complete_hours
    group by 1, 2
),

every_hour as (
    select
        gateway,
        source_name,
        last_hour_at,
        unnest(generate_series(
            first_hour_at,
            date_trunc('hour', $as_of::timestamp) - interval '1 hour',
            interval '1 hour'
        )) as hour_at,
    from sources
),

counted as (
    select
        gateway,
        source_name,
        last_hour_at,
        hour_at,
        coalesce(request_count, 0) as request_count,
    from every_hour
    left join complete_hours using (gateway, source_name, hour_at)
),

remembered as (
    select
        *,
        list_reverse_sort(list_filter([
            lag(request_count, 168) over hours,
            lag(request_count, 336) over hours,
            lag(request_count, 504) over hours,
            lag(request_count, 672) over hours,
        ], lambda known: known is not null)) as week_counts,
        [
            lag(request_count, 24) over hours,
            lag(request_count, 48) over hours,
            lag(request_count, 72) over hours,
            lag(request_count, 96) over hours,
            lag(request_count, 120) over hours,
            lag(request_count, 144) over hours,
            lag(request_count, 168) over hours,
        ] as day_counts,
    from counted
    window hours as (partition by gateway, source_name order by hour_at)
),

learned as (
    select
        gateway,
        source_name,
        last_hour_at,
        hour_at,
        request_count,
        case
            when len(week_counts) >= 3 then week_counts[3]
            when day_counts[7] is not null then list_min(day_counts)
        end as habit_count,
        greatest(
            request_count - coalesce(list_max(week_counts), list_max(day_counts), 0), 0
        ) as unusual_count,
    from remembered
),

judged as (
    select
        *,
        coalesce(
            least(
                lag(habit_count) over hours,
                habit_count,
                lead(habit_count) over hours
            ),
            0
        ) as usual_count,
        sum(unusual_count) over (partition by gateway, hour_at) - unusual_count
            as filling_count,
    from learned
    window hours as (partition by gateway, source_name order by hour_at)
),

hours as (
    select
        *,
        request_count * 10 < usual_count as is_thin,
        is_thin and (request_count + filling_count) * 2 < usual_count as is_missing,
    from judged
    where hour_at + interval '30 days' >= $as_of
        and (
            hour_at <= last_hour_at
            or last_hour_at + interval '25 hours' <= $as_of
        )
),

runs as (
    select
        *,
        -- an hour that has its requests ends a run; a quiet one does not
        count_if(not is_missing and (request_count > 0 or is_thin)) over (
            partition by gateway, source_name
            order by hour_at
        ) as run_number,
    from hours
)

select
    gateway,  -- whose requests are missing
    source_name,  -- the [[requests]] source that should have told of them
    min(hour_at) as started_at,  -- the first hour that is missing, UTC
    max(hour_at) + interval '1 hour' as ended_at,  -- the end of the last one, UTC
    count(*) as hour_count,  -- hours between them that usually have requests
    sum(request_count)::bigint as request_count,  -- that these hours have
    sum(usual_count)::bigint as usual_count,  -- that they usually have, at the least
    last_hour_at,  -- the hour of the source's newest request, UTC
    max(hour_at) > last_hour_at as is_silent,  -- whether nothing has come from the source since
    min(hour_at) + interval '30 days' as recoverable_until,  -- then the gateway begins to delete it
    date_sub('day', $as_of::timestamp, min(hour_at) + interval '30 days')
        as days_left,  -- whole days until then
from runs
where is_missing and list_contains($requests_sources, source_name)
group by gateway, source_name, last_hour_at, run_number
having sum(usual_count) - sum(request_count) >= 10

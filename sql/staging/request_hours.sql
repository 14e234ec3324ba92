-- How many requests and credits a source has in an hour.
--
-- grain: usage_date, hour_at, gateway, source_name
select
    usage_date,
    date_trunc('hour', completed_at) as hour_at,  -- UTC
    gateway,
    source_name,  -- the [[requests]] source whose record speaks for the request
    count(*) as request_count,
    sum(credits) as credits,
from staging.requests
where usage_date = $day
group by 1, 2, 3, 4

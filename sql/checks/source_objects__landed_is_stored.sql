-- What landing counted, object by object, is what the files of raw.requests hold.
with objects as (  -- as they were read last
    select
        landed_count,
        credits,
    from raw.source_objects
    qualify arrived_at = max(arrived_at) over (partition by gateway, object_sha256)
),

counted as (
    select
        coalesce(sum(landed_count), 0) as request_count,
        coalesce(sum(credits), 0) as credits,
    from objects
),

stored as (
    select
        coalesce(sum(row_count), 0) as request_count,
        coalesce(sum(credits), 0) as credits,
    from raw.request_manifest
)

select
    null::date as usage_date,
    'raw.requests' as table_name,
    'the rows and credits that landing counted are stored' as claim,
    counted.credits || ' credits in ' || counted.request_count || ' requests' as expected,
    stored.credits || ' credits in ' || stored.request_count || ' requests' as found,
from counted, stored
where (counted.request_count, counted.credits) <> (stored.request_count, stored.credits)

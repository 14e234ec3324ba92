-- An object that was landed, and what became of each record in it: read = accepted + folded +
-- corroborating + duplicate + quarantined.
--
-- grain: object_sha256, source
-- looks back: staging.request_losers all days
with losers as (
    select
        source_object as object_sha256,
        source_name as source,
        count(*) filter (where counts_as = 'folded') as folded_count,
        count(*) filter (where counts_as = 'duplicate') as duplicate_count,
        count(*) filter (where counts_as = 'corroborating') as corroborating_count,
    from staging.request_losers
    group by 1, 2
),

objects as (  -- as they were read last: one is read again where other settings may make sense of it
    select *
    from raw.source_objects
    qualify arrived_at = max(arrived_at) over (partition by gateway, object_sha256)
)

select
    object_sha256,  -- of the unpacked bytes, or of the raw ones where they can't be unpacked
    objects.source,  -- the [[requests]] source it came by
    location,  -- where it was first found
    arrived_at,  -- UTC
    read_count,  -- records in it
    landed_count - coalesce(losers.folded_count, 0) - coalesce(duplicate_count, 0)
    - coalesce(corroborating_count, 0) as accepted_count,  -- records that stand for their requests
    coalesce(losers.folded_count, 0) as folded_count,  -- attempts that belong to another record
    coalesce(corroborating_count, 0) as corroborating_count,  -- of lower formats
    coalesce(duplicate_count, 0) as duplicate_count,  -- of the same format
    quarantined_count,  -- set aside: see ops.quarantine
    rounded_count,  -- records whose money was rounded to nine places
    credits,  -- of the landed records
    first_at,  -- the earliest completed_at in it, UTC
    last_at,  -- the latest
    refused,  -- why the whole object was quarantined
from objects
left join losers using (object_sha256, source)

union all

select
    object_sha256,
    source,
    location,
    arrived_at,
    read_count,
    accepted_count,
    0 as folded_count,
    0 as corroborating_count,
    duplicate_count,
    quarantined_count,
    0 as rounded_count,
    null as credits,
    null as first_at,
    null as last_at,
    null as refused,
from raw.files

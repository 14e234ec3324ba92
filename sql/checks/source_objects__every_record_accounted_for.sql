-- Every record that was read is accepted, folded, corroborating, a duplicate or quarantined.
with accounts as (
    select
        *,
        accepted_count + folded_count + corroborating_count + duplicate_count + quarantined_count
            as accounted_count,
    from ops.source_objects
)

select
    last_at::date as usage_date,
    'ops.source_objects' as table_name,
    'read = accepted + folded + corroborating + duplicate + quarantined, in ' || location as claim,
    read_count::varchar as expected,
    accounted_count::varchar as found,
from accounts
where read_count <> accounted_count or accepted_count < 0

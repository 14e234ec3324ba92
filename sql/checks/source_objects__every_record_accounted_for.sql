-- Every record that was read is accepted, folded, corroborating, a duplicate or quarantined.
select
    last_at::date as usage_date,
    'ops.source_objects' as table_name,
    'read = accepted + folded + corroborating + duplicate + quarantined, in ' || location as claim,
    read_count::varchar as expected,
    (accepted_count + folded_count + corroborating_count + duplicate_count + quarantined_count)::varchar as found,
from ops.source_objects
where read_count <> accepted_count + folded_count + corroborating_count + duplicate_count + quarantined_count
    or accepted_count < 0

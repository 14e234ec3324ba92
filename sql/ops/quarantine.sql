-- A record that was set aside, with its place and the reason; its text is not kept.
--
-- grain: object_sha256, line_number?, source
with superseded as (  -- readings of objects that were read again, with other settings
    select object_sha256, source, arrived_at
    from raw.source_objects
    qualify arrived_at < max(arrived_at) over (partition by gateway, object_sha256)
)

select
    object_sha256,  -- the object it stands in, as in ops.source_objects
    location,  -- where that object was found
    line_number,  -- physical line from 1; null: the whole object
    byte_offset,  -- where it begins, in unpacked bytes
    byte_length,  -- how long it is, without its line end
    line_sha256,  -- of its bytes: enough to find it again
    reason,  -- why it could not be read without guessing
    source,  -- the [[requests]] source it came by
    arrived_at,  -- UTC
from raw.quarantine
anti join superseded using (object_sha256, source, arrived_at)

-- A record that was set aside, with its place and the reason; its text is not kept.
--
-- grain: object_sha256, line_number?, source
select
    object_sha256,
    location,
    line_number,  -- physical line from 1; null: the whole object
    byte_offset,
    byte_length,
    line_sha256,
    reason,
    source,
    arrived_at,
from raw.quarantine

-- A member of a workspace, as the newest directory that names them states it.
--
-- grain: workspace_id?, member_id
select
    member_id,
    workspace_id,
    name,
from raw.members
qualify delivery_rank((workspace_id, member_id), arrived_at, source_object, source_line) = 1

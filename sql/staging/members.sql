-- A member of a workspace, as the newest directory that names them states it.
--
-- grain: workspace_id?, member_id
select
    member_id,
    workspace_id,
    name,
from raw.members
qualify row_number() over (
    partition by workspace_id, member_id
    order by arrived_at desc, source_object, source_line desc
) = 1

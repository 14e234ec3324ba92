-- A workspace, as the newest directory states it.
--
-- grain: workspace_id
select
    workspace_id,
    name,  -- what people call it
    time_zone,  -- IANA name; its local days
    plan,
    monthly_allowance_credits,  -- what the plan grants a cycle
    cycle_anchor_date,  -- a day on which a billing cycle began
    billing_email,
from raw.workspaces
qualify delivery_rank(workspace_id, arrived_at, source_object, source_line) = 1

-- A budget somebody set, as the newest directory states it.
--
-- grain: budget_id
select
    budget_id,
    workspace_id,
    scope,  -- workspace or key
    subject_id,  -- the key, for scope key
    threshold_percent,  -- of the plan's allowance
    threshold_credits,  -- or in credits
    exceed_percent,  -- the page's X, for this subject
    floor_credits,  -- an excess below it is no alert
    sensitivity,  -- low, normal or high
    recipients,  -- whom to tell by e-mail when it is reached, besides the settings'
from raw.budgets
qualify delivery_rank(budget_id, arrived_at, source_object, source_line) = 1

-- What was last said of an alert, by a person.
--
-- grain: alert_id
select
    alert_id,         -- as in marts.budget_alerts
    decision,         -- acknowledged, snoozed or expected
    until,            -- when a snooze ends; null for the others
    note,             -- what the person added; or null
    decided_at,       -- wall clock
    decided_by,       -- the user of the operating system
    workspace_id,     -- of the alert; null: the source names none
    scope,            -- of the alert; null: an early decision, which remembers the alert's id only
    subject_id,       -- of the alert
    usage_date,       -- the day it opened
    said_of_date,     -- its last day out of range, as published when this was said
    said_of_credits,  -- its biggest day, as published when this was said; null of a budget
    judged_until,     -- the last complete day published when this was said; null of early ones
from raw.decisions
where alert_id is not null  -- an erasure speaks of a member
qualify row_number() over (
    partition by alert_id
    order by decided_at desc, decision_id desc
) = 1

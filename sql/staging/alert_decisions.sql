-- What was last said of an alert, by a person.
--
-- grain: alert_id
select
    alert_id,    -- as in marts.budget_alerts
    decision,    -- acknowledged, snoozed or expected
    until,       -- when a snooze ends; null for the others
    note,        -- what the person added; or null
    decided_at,  -- wall clock
    decided_by,  -- the user of the operating system
from raw.decisions
where alert_id is not null  -- an erasure speaks of a member
qualify row_number() over (
    partition by alert_id
    order by decided_at desc, decision_id desc
) = 1

-- What somebody called expected: of whom, how much, and up to which day it is no news.
--
-- A table of its own, so that a word of another kind (a snooze, say) judges no day again.
--
-- grain: alert_id
select
    alert_id,         -- as in marts.budget_alerts: of which it was said
    workspace_id,     -- of the alert; null: the source names none
    scope,            -- of the alert
    subject_id,       -- of the alert
    -- a word never changes a day that was judged before it was said (greatest() passes over nulls)
    greatest(said_of_date, judged_until)
        as judged_until,  -- the last day of which it says nothing
    said_of_credits,  -- the biggest day of the alert when this was said
from staging.alert_decisions
where decision = 'expected'
    and said_of_credits is not null

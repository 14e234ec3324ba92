-- An attempt to tell an alert's transition to a sink, and what the sink answered.
--
-- The journal raw.deliveries has a line before each attempt and one after it. An attempt without
-- its second line was cut short, by a crash or a kill: nobody knows whether it was sent, and the
-- next one says that it may be a repetition.
--
-- grain: alert_id, sink, transition, attempted_at
select
    alert_id,        -- as in marts.budget_alerts
    sink,            -- the file in exports/alerts/
    transition,      -- opened, escalated, escalated_2 …, or closed
    attempted_at,    -- wall clock, UTC
    coalesce(max(outcome) filter (outcome != 'intended'), 'unknown')
        as outcome,  -- sent, sent_in_part, failed, refused, unknown, held, gave_up or not_sent_…
    max(detail) as detail,        -- what the sink said
    max(digest_id) as digest_id,  -- the digest that told it; null: a message of its own
from raw.deliveries
group by 1, 2, 3, 4

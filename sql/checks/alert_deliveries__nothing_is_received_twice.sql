-- A sink that has said it took a message is not sent it again. A warning: what is sent is sent, and
-- to hold back a night's tables would not unsend it.
--
-- severity: warning
select
    cast(max(attempted_at) as date) as usage_date,
    'ops.alert_deliveries' as table_name,
    'no sink takes the same message twice' as claim,
    '1' as expected,
    cast(count(*) as varchar) as found,
    alert_id,
    sink,
    transition,
from ops.alert_deliveries
where outcome in ('sent', 'sent_in_part')
group by alert_id, sink, transition
having count(*) > 1

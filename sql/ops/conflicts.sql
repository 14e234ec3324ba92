-- A losing record that states other credits, tokens, key or served model than the record that
-- counts.
--
-- grain: gateway, request_id, source_object, source_line
-- looks back: staging.request_losers all days
select
    gateway,  -- whose request id it is
    request_id,
    source_object,  -- where the losing record stands
    source_line,  -- physical line there, from 1
    differs_in,  -- both state it, and it differs
    credits,  -- as the losing record states them
    winner_credits,  -- as they count
from staging.request_losers
where differs_in <> ''

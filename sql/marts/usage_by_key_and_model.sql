-- What a key, or a member in the Playground, used of each model on a day.
--
-- A tenth of the rows of the quarters: what asks for a month of somebody's models reads this.
--
-- grain: usage_date, workspace_id?, api_key_id?, member_id?, model?
select
    usage_date,  -- the UTC day
    workspace_id,  -- null: the source names none
    api_key_id,  -- null: unassigned
    member_id,  -- Playground only
    model,  -- what served the calls; null when nothing did
    sum(request_count)::bigint as request_count,  -- failed ones too
    sum(credits)::decimal(38, 9) as credits,  -- exact
from marts.usage_quarter_hourly
where usage_date = $day
group by 1, 2, 3, 4, 5

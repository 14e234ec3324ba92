-- What a workspace spent in a quarter of an hour.
--
-- For what is told in each workspace's own days: of a month and a half of quarters hardly a row in
-- a hundred is left, once keys and models are out of them.
--
-- grain: usage_date, workspace_id?, quarter_at
select
    usage_date,
    workspace_id,  -- null: the source names none
    quarter_at,  -- UTC
    sum(credits) as credits,
from marts.usage_quarter_hourly
where usage_date = $day
group by 1, 2, 3

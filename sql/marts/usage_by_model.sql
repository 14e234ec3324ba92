-- What a workspace spent on a model in a UTC day.
--
-- grain: usage_date, workspace_id?, model?
select
    usage_date,  -- the UTC day
    workspace_id,  -- null: unassigned
    model,  -- what served the calls; null when nothing did
    sum(request_count)::bigint as request_count,  -- failed ones too
    sum(error_count)::bigint as error_count,  -- status ≥ 400 or an error code
    sum(fallback_count)::bigint as fallback_count,  -- another model served
    least(sum(prompt_tokens), 9223372036854775807)::bigint as prompt_tokens,  -- in
    least(sum(completion_tokens), 9223372036854775807)::bigint as completion_tokens,  -- out
    least(sum(total_tokens), 9223372036854775807)::bigint
        as total_tokens,  -- as stated, else in plus out
    sum(credits) as credits,  -- exact
from marts.usage_quarter_hourly
where usage_date = $day
group by 1, 2, 3

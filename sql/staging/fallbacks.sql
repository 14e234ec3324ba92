-- What the requests took in a UTC day that fell from one model to another.
--
-- grain: usage_date, workspace_id?, fallback_from?, model?
select
    usage_date,
    workspace_id,
    -- where only the depth is known, what was asked for is what fell
    coalesce(fallback_from, nullif(requested_model, model)) as fallback_from,
    model,
    sum(entries.request_count)::bigint as request_count,
    least(sum(coalesce(entries.total_tokens, 0)), 9223372036854775807)::bigint as total_tokens,
    sum(entries.credits) as credits,
from staging.request_entries as entries
where usage_date = $day and (fallback_from is not null or fallback_depth > 0)
group by 1, 2, 3, 4
having sum(entries.request_count) > 0

-- What each API key spent in a quarter of an hour, on each model that served it.
--
-- Quarters, because every time zone in use is a whole number of quarters from UTC:
-- a day in any zone is an exact sum of these rows.
--
-- grain: quarter_at, workspace_id?, api_key_id?, member_id?, requested_model?, model?
select
    time_bucket(interval '15 minutes', completed_at) as quarter_at,  -- UTC
    usage_date,  -- the UTC day
    workspace_id,  -- null: the source names none
    api_key_id,  -- null: unassigned
    member_id,  -- Playground only
    requested_model,  -- what the caller asked for, where the source says it
    model,  -- what served the call; null when nothing did
    sum(entries.request_count)::bigint as request_count,  -- failed ones too
    sum(
        case when status >= 400 or error_code is not null then entries.request_count else 0 end
    )::bigint as error_count,  -- status ≥ 400 or an error code
    sum(
        case
            when fallback_from is not null or fallback_depth > 0 then entries.request_count else 0
        end
    )::bigint as fallback_count,  -- another model served
    least(sum(coalesce(entries.prompt_tokens, 0)), 9223372036854775807)::bigint
        as prompt_tokens,  -- in
    least(sum(coalesce(entries.completion_tokens, 0)), 9223372036854775807)::bigint
        as completion_tokens,  -- out
    least(sum(coalesce(entries.total_tokens, 0)), 9223372036854775807)::bigint
        as total_tokens,  -- as stated, else in plus out
    sum(entries.credits) as credits,  -- exact
from staging.request_entries as entries
where usage_date = $day
group by 1, 2, 3, 4, 5, 6, 7
having sum(entries.request_count) > 0

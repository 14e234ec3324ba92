-- What a member spent in the Playground in a UTC day, and in one row without a member all the rest,
-- so that it sums to the whole.
--
-- grain: usage_date, workspace_id?, member_id?
select
    usage_date,  -- the UTC day
    usage.workspace_id,  -- null: unassigned
    member_id,  -- null: API calls, which belong to their key
    any_value(members.name) as member_name,  -- from the directory
    sum(request_count)::bigint as request_count,  -- failed ones too
    sum(error_count)::bigint as error_count,  -- status ≥ 400 or an error code
    sum(fallback_count)::bigint as fallback_count,  -- another model served
    least(sum(prompt_tokens), 9223372036854775807)::bigint as prompt_tokens,  -- in
    least(sum(completion_tokens), 9223372036854775807)::bigint as completion_tokens,  -- out
    least(sum(total_tokens), 9223372036854775807)::bigint
        as total_tokens,  -- as stated, else in plus out
    sum(credits) as credits,  -- exact
from marts.usage_quarter_hourly as usage
left join staging.members as members using (workspace_id, member_id)
where usage_date = $day
group by 1, 2, 3

-- What an API key spent in a UTC day.
--
-- grain: usage_date, workspace_id?, api_key_id?
select
    usage_date,  -- the UTC day
    usage.workspace_id,  -- null: unassigned
    api_key_id,  -- null: unassigned
    any_value(keys.name) as key_name,  -- from the directory, as it is called now
    coalesce(any_value(lineages.lineage_api_key_id), api_key_id)
        as lineage_api_key_id,  -- the key that its rotations began with
    sum(request_count)::bigint as request_count,  -- failed ones too
    sum(error_count)::bigint as error_count,  -- status ≥ 400 or an error code
    sum(fallback_count)::bigint as fallback_count,  -- another model served
    least(sum(prompt_tokens), 9223372036854775807)::bigint as prompt_tokens,  -- in
    least(sum(completion_tokens), 9223372036854775807)::bigint as completion_tokens,  -- out
    least(sum(total_tokens), 9223372036854775807)::bigint
        as total_tokens,  -- as stated, else in plus out
    sum(credits) as credits,  -- exact
from marts.usage_quarter_hourly as usage
left join staging.keys as keys using (api_key_id)
left join staging.key_lineages as lineages using (api_key_id)
where usage_date = $day
group by 1, 2, 3

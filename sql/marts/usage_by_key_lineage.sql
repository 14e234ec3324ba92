-- What an API key spent in a UTC day, together with the keys it was rotated from and to: a rotation
-- breaks no line.
--
-- kind: view
-- grain: usage_date, workspace_id?, lineage_api_key_id?
select
    usage_date,  -- the UTC day
    usage.workspace_id,  -- null: unassigned
    usage.lineage_api_key_id,  -- the key that the rotations began with; null: unassigned
    any_value(keys.lineage_name) as key_name,  -- of the newest of these keys
    count(distinct usage.api_key_id) as key_count,  -- how many of them were used that day
    sum(request_count)::bigint as request_count,  -- failed ones too
    sum(error_count)::bigint as error_count,  -- status ≥ 400 or an error code
    sum(fallback_count)::bigint as fallback_count,  -- another model served
    least(sum(prompt_tokens), 9223372036854775807)::bigint as prompt_tokens,  -- in
    least(sum(completion_tokens), 9223372036854775807)::bigint as completion_tokens,  -- out
    least(sum(total_tokens), 9223372036854775807)::bigint
        as total_tokens,  -- as stated, else in plus out
    sum(credits)::decimal(38, 9) as credits,  -- exact
from marts.usage_by_key as usage
left join marts.keys as keys on keys.api_key_id = usage.lineage_api_key_id
group by 1, 2, 3

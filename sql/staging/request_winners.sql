-- The record that speaks for a request of which several records arrived.
--
-- What the winner leaves null is filled from records of lower formats, which corroborate it; never
-- from a duplicate of its own format.
--
-- grain: gateway, request_id
with speaking as (
    select *
    from staging.request_rankings
    where contest_date = $day and counts_as in ('winner', 'corroborating')
)

select
    gateway,
    first(source_name order by place) as source_name,  -- of the winner
    first(format order by place) as format,  -- of the winner
    request_id,
    first(completed_at order by place) as completed_at,
    first(usage_date order by place) as usage_date,
    -- arg_min passes over nulls: the first record that states one
    arg_min(workspace_id, place) as workspace_id,
    arg_min(source_workspace_id, place) as source_workspace_id,
    arg_min(api_key_id, place) as api_key_id,
    arg_min(member_id, place) as member_id,
    arg_min(source, place) as source,
    arg_min(requested_model, place) as requested_model,
    arg_min(model, place) as model,
    arg_min(fallback_from, place) as fallback_from,
    arg_min(fallback_depth, place) as fallback_depth,
    arg_min(status, place) as status,
    arg_min(error_code, place) as error_code,
    arg_min(is_streamed, place) as is_streamed,
    arg_min(prompt_tokens, place) as prompt_tokens,
    arg_min(completion_tokens, place) as completion_tokens,
    arg_min(total_tokens, place) as total_tokens,
    first(credits order by place) as credits,  -- of the winner, whole
    arg_min(latency_ms, place) as latency_ms,
    arg_min(gateway_in_at, place) as gateway_in_at,
    arg_min(provider_in_at, place) as provider_in_at,
    arg_min(provider_out_at, place) as provider_out_at,
    arg_min(gateway_out_at, place) as gateway_out_at,
    first(source_object order by place) as source_object,
    first(source_line order by place) as source_line,
from speaking
group by gateway, request_id
having first(usage_date order by place) = $day

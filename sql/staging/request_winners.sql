-- The record that speaks for a request of which several records arrived.
--
-- Rank: the source's format in the contract's order, the latest completed_at, the most credits, the
-- smallest sha256 of the typed record without its member, then the member (an erasure, which gives
-- the member another name, must leave winners as they were); never the order of arrival, but among
-- records equal in all of that, where the first landed stands. What the winner leaves null is
-- filled from records of lower formats, which corroborate it; never from a duplicate of its own
-- format.
--
-- grain: gateway, request_id
with records as (
    select
        contests.*,
        sources.workspace_id as source_workspace_id,
        list_position(
            [
                'canonical', 'usage_api', 'litellm_spendlogs', 'litellm_payload', 'openrouter_csv',
                'usage_csv', 'client_log',
            ],
            format
        ) as format_rank,
        sha256(to_json([
            request_id, completed_at::varchar, contests.workspace_id, api_key_id, source,
            requested_model, model, fallback_from, fallback_depth::varchar, status::varchar,
            error_code, is_streamed::varchar, prompt_tokens::varchar, completion_tokens::varchar,
            total_tokens::varchar, credits::varchar, latency_ms::varchar, gateway_in_at::varchar,
            provider_in_at::varchar, provider_out_at::varchar, gateway_out_at::varchar,
        ])::varchar) as record_sha256,
    from staging.request_contests as contests
    left join raw.sources as sources using (source_name)
    where contest_date = $day
),

ranked as (
    select
        *,
        row_number() over (
            partition by gateway, request_id
            order by
                format_rank, completed_at desc, credits desc, record_sha256, member_id,
                arrived_at, source_object, source_line
        ) as place,
        min(format_rank) over (partition by gateway, request_id) as best_format_rank,
    from records
),

speaking as (
    select *
    from ranked
    where place = 1 or format_rank > best_format_rank
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

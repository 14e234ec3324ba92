-- A record of a request that has several, its place among them, and what it counts as.
--
-- Attempts of one call are folded first: the last to end stands for the request, with the credits
-- of all of them. Then rank: the source's format in the contract's order, the latest completed_at,
-- the most credits, the smallest sha256 of the typed record without its member, then the member (an
-- erasure, which gives the member another name, must leave winners as they were); never the order
-- of arrival, but among records equal in all of that, where the first landed stands.
--
-- kind: view
-- grain: contest_date, gateway, request_id, source_object, source_line
with hashed as (
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
),

copies as (  -- the same record of a format, again and again: only the first of them is an attempt
    select
        *,
        row_number() over (
            partition by contest_date, gateway, request_id, format
            order by
                completed_at desc, credits desc, record_sha256, member_id, arrived_at,
                source_object, source_line
        ) as copy_place,
        call_id is not null as is_attempt,
    from hashed
),

attempts as (
    select
        *,
        row_number() over (
            partition by contest_date, gateway, call_id, copy_place
            order by completed_at desc, request_id desc
        ) as attempts_behind,
        sum(credits) over (
            partition by contest_date, gateway, call_id, copy_place
        ) as call_credits,
        first_value(requested_model) over (
            partition by contest_date, gateway, call_id, copy_place
            order by completed_at, request_id
        ) as first_requested_model,
        count(distinct requested_model) over (
            partition by contest_date, gateway, call_id, copy_place
        ) as requested_model_count,
    from copies
    where is_attempt
),

folded as (
    select
        *,
        -- whether the attempt it is, or is a copy of, was followed by another
        coalesce(
            max(case when copy_place = 1 then attempts_behind end) over (
                partition by contest_date, gateway, request_id, format
            ) > 1, false
        ) as is_followed,
        -- of the call's other attempts; a copy says of them what the attempt does
        coalesce(
            max(case when copy_place = 1 then call_credits - credits end) over (
                partition by contest_date, gateway, request_id, format
            ), 0
        ) as other_credits,
    from attempts
    union all by name
    select
        *,
        false as is_followed,
        0 as other_credits,
    from copies
    where not is_attempt
),

placed as (
    select
        *,
        row_number() over ranked as place,
        first_value(format_rank) over ranked as best_format_rank,
    from folded
    window ranked as (
        partition by contest_date, gateway, request_id, is_followed
        order by
            format_rank, completed_at desc, credits desc, record_sha256, member_id,
            arrived_at, source_object, source_line
    )
),

counted as (
    select
        *,
        is_attempt and copy_place = 1 and not is_followed as is_call,
        case
            when is_followed and copy_place = 1 then 'folded'
            when is_followed then 'duplicate'
            when place = 1 then 'winner'
            when format_rank = best_format_rank then 'duplicate'
            else 'corroborating'
        end as counts_as,
    from placed
)

select
    contest_date,  -- a day on which a record of this request stands
    gateway,
    request_id,
    counts_as,  -- winner, folded, duplicate or corroborating
    place,  -- among the records of the request: 1 is the winner, or an attempt that was followed
    source_name,
    format,
    completed_at,  -- UTC
    usage_date,  -- the day on which this record stands
    workspace_id,
    source_workspace_id,  -- of the source's settings
    api_key_id,
    member_id,
    source,
    requested_model,
    model,
    -- where attempts asked for several models, the log itself may not call it a fallback
    coalesce(
        fallback_from,
        case when is_call and requested_model_count > 1 then first_requested_model end
    ) as fallback_from,
    coalesce(
        fallback_depth,
        case when is_call and requested_model_count > 1 then requested_model_count - 1 end
    )::integer as fallback_depth,
    status,
    error_code,
    is_streamed,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    (credits + case when is_followed then 0 else other_credits end)::decimal(18, 9) as credits,
    latency_ms,
    gateway_in_at,
    provider_in_at,
    provider_out_at,
    gateway_out_at,
    source_object,
    source_line,
from counted

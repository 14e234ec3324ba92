-- A request: the record that speaks for it, with the workspace it belongs to.
--
-- A day's records less those of contested requests, told by where they stand, and the winners of
-- the contests. A view: the request grain is written once.
--
-- kind: view
-- grain: gateway, request_id
with records as (
    select
        gateway, source_name, format, request_id, completed_at, usage_date, requests.workspace_id,
        sources.workspace_id as source_workspace_id, api_key_id, member_id, source,
        requested_model, model, fallback_from, fallback_depth, status, error_code, is_streamed,
        prompt_tokens, completion_tokens, total_tokens, credits, latency_ms, gateway_in_at,
        provider_in_at, provider_out_at, gateway_out_at, source_object, source_line,
    from raw.requests as requests
    anti join staging.request_contests
        using (source_line, source_object, gateway, usage_date)
    left join raw.sources as sources using (source_name)
    union all
    select
        gateway, source_name, format, request_id, completed_at, usage_date, workspace_id,
        source_workspace_id, api_key_id, member_id, source, requested_model, model, fallback_from,
        fallback_depth, status, error_code, is_streamed, prompt_tokens, completion_tokens,
        total_tokens, credits, latency_ms, gateway_in_at, provider_in_at, provider_out_at,
        gateway_out_at, source_object, source_line,
    from staging.request_winners
)

select
    gateway,
    source_name,
    format,
    request_id,
    completed_at,
    usage_date,
    -- as stated, else the key's entry in the directory, else the source's setting (contract)
    coalesce(records.workspace_id, keys.workspace_id, source_workspace_id) as workspace_id,
    api_key_id,
    member_id,
    source,
    requested_model,
    model,
    fallback_from,
    fallback_depth,
    status,
    error_code,
    is_streamed,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    credits,
    latency_ms,
    gateway_in_at,
    provider_in_at,
    provider_out_at,
    gateway_out_at,
    source_object,
    source_line,
from records
left join staging.key_workspaces as keys using (usage_date, api_key_id)

-- A request, metered the moment it completed.
--
-- kind: view
-- grain: gateway, request_id
select
    gateway,  -- whose request ids these are
    request_id,  -- opaque and case-sensitive, unique for ever within a gateway
    completed_at,  -- UTC
    usage_date,  -- the UTC day of completed_at
    workspace_id,  -- null: neither the record, the key's entry nor the source names one
    api_key_id,
    member_id,  -- Playground only
    source,  -- api or playground
    requested_model,  -- what the caller asked for, where the source says it
    model,  -- what served the call; null when nothing did
    fallback_from,
    fallback_depth,
    status,  -- HTTP
    error_code,
    is_streamed,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    credits,  -- exact, nine places
    latency_ms,  -- gateway in to gateway out
    gateway_in_at,
    provider_in_at,
    provider_out_at,
    gateway_out_at,
    source_object,  -- sha256 of the object it was read from
    source_line,  -- physical line there, from 1
from staging.requests

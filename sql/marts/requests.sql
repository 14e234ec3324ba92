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
    api_key_id,  -- null: unassigned
    member_id,  -- Playground only
    source,  -- api or playground
    requested_model,  -- what the caller asked for, where the source says it
    model,  -- what served the call; null when nothing did
    fallback_from,  -- the model that failed, where a fallback fired
    fallback_depth,  -- how many models failed before one served
    status,  -- HTTP
    error_code,  -- the error's class, in the source's own words
    is_streamed,
    prompt_tokens,
    completion_tokens,
    total_tokens,  -- as stated, else prompt + completion
    credits,  -- exact, nine places
    latency_ms,  -- gateway in to gateway out
    gateway_in_at,  -- the request reached the gateway, UTC
    provider_in_at,  -- it was sent to the provider
    provider_out_at,  -- the provider had answered
    gateway_out_at,  -- the gateway had answered
    source_object,  -- sha256 of the object it was read from
    source_line,  -- physical line there, from 1
from staging.requests

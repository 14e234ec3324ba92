"""The canonical request log: one JSON object or CSV row a request, as the contract's "Inputs" lists
its fields.
"""

from pipelines.reading import (
    COMPLETED,
    COUNT,
    CREDITS,
    FLAG,
    IDENTIFIER,
    MOMENT,
    TEXT,
    RequestFormat,
    choice,
)

FORMAT = RequestFormat(
    name="canonical",
    fields={
        "request_id": IDENTIFIER,
        "timestamp": COMPLETED,
        "workspace_id": TEXT,
        "api_key_id": TEXT,
        "member_id": TEXT,
        "source": choice("api", "playground"),
        "requested_model": TEXT,
        "model": TEXT,
        "fallback_from": TEXT,
        "fallback_depth": COUNT,
        "status": COUNT,
        "error_code": TEXT,
        "stream": FLAG,
        "prompt_tokens": COUNT,
        "completion_tokens": COUNT,
        "total_tokens": COUNT,
        "credits_used": CREDITS,
        "latency_ms": COUNT,
        "gateway_in_at": MOMENT,
        "provider_in_at": MOMENT,
        "provider_out_at": MOMENT,
        "gateway_out_at": MOMENT,
    },
    request={
        "request_id": "request_id",
        "completed_at": "timestamp",
        "workspace_id": "workspace_id",
        "api_key_id": "api_key_id",
        # An API call belongs to its key, never to a person (contract, "Inputs").
        "member_id": "case when source = 'playground' then member_id end",
        "source": "source",
        "requested_model": "requested_model",
        "model": "model",
        "fallback_from": "fallback_from",
        "fallback_depth": "fallback_depth",
        "status": "status",
        "error_code": "error_code",
        "is_streamed": "stream",
        "prompt_tokens": "prompt_tokens",
        "completion_tokens": "completion_tokens",
        "total_tokens": "coalesce(total_tokens, prompt_tokens + completion_tokens)",
        "credits": "credits_used",
        # Where both instants are stated they override a stated latency (facts/reading.md, "time").
        "latency_ms": (
            "coalesce((epoch_us(gateway_out_at) - epoch_us(gateway_in_at)) // 1000, latency_ms)"
        ),
        "gateway_in_at": "gateway_in_at",
        "provider_in_at": "provider_in_at",
        "provider_out_at": "provider_out_at",
        "gateway_out_at": "gateway_out_at",
    },
    # Assumed: the contract names no fields for it. What is asked of a chat is `messages`.
    history={"messages": ("messages", "prompt"), "response": ("response", "output")},
)

"""LiteLLM's SpendLogs: one row for each client request, as its proxy writes them (facts/sources.md,
5.1; contract, "LiteLLM").

`spend` is a binary float in USD: its decimal text times `credits_per_usd`, and what lies beyond
nine places is rounded half-even.
Of `metadata` only the error and the fallback are read; prompts, addresses and tags are never kept.
"""

from pipelines.reading import (
    COMPLETED,
    COUNT,
    DOCUMENT,
    FLOAT_MONEY,
    IDENTIFIER,
    TEXT,
    RequestFormat,
    choice,
)

CREDITS = "(spend::decimal(38, 25) * $credits_per_usd)"
ERROR = "try(metadata -> '$.error_information')"

FORMAT = RequestFormat(
    name="litellm_spendlogs",
    fields={
        "request_id": IDENTIFIER,
        "endTime": COMPLETED,
        "api_key": TEXT,
        "team_id": TEXT,
        "model": TEXT,
        "model_id": TEXT,
        "model_group": TEXT,
        "status": choice("success", "failure"),
        "prompt_tokens": COUNT,
        "completion_tokens": COUNT,
        "total_tokens": COUNT,
        "spend": FLOAT_MONEY,
        "request_duration_ms": COUNT,
        "metadata": DOCUMENT,
    },
    request={
        "request_id": "request_id",
        "completed_at": "endTime",
        "workspace_id": "team_id",
        "api_key_id": "api_key",
        "source": "'api'",
        "requested_model": "coalesce(model_group, nullif(model, 'unknown-model'))",
        "model": "case when model_id is not null then model end",
        "fallback_from": (
            "case when try((metadata ->> '$.attempted_fallbacks')::integer) > 0"
            " then nullif(metadata ->> '$.original_model_group', '') end"
        ),
        "fallback_depth": "try((metadata ->> '$.attempted_fallbacks')::integer)",
        "status": (
            "case status when 'success' then 200"
            f" when 'failure' then try_cast({ERROR} ->> '$.error_code' as integer) end"
        ),
        "error_code": (
            f"case status when 'failure' then nullif({ERROR} ->> '$.error_class', '') end"
        ),
        "prompt_tokens": "prompt_tokens",
        "completion_tokens": "completion_tokens",
        "total_tokens": "coalesce(total_tokens, prompt_tokens + completion_tokens)",
        "credits": f"round_even({CREDITS}, 9)",
        "latency_ms": "request_duration_ms",
    },
    rounded=f"{CREDITS} <> round_even({CREDITS}, 9)",
)

"""LiteLLM's StandardLoggingPayload: one record for each attempt, as its callbacks write them
(facts/sources.md; contract, "LiteLLM").

Attempts of one request share `litellm_call_id`. The last to end stands for the request, under the
id that SpendLogs give it, with the credits of all of them; the others are folded into it.
`response_cost` is a binary float in USD: its decimal text times `credits_per_usd`, rounded
half-even to nine places. Of `metadata` and `error_information` only the key, the team and the
error's code and class are read; prompts, answers, addresses and user agents are never kept.
"""

from pipelines.reading import (
    COUNT,
    DOCUMENT,
    EPOCH,
    FLAG,
    FLOAT_MONEY,
    IDENTIFIER,
    TEXT,
    RequestFormat,
    choice,
)

CREDITS = "(response_cost::decimal(38, 25) * $credits_per_usd)"


def _within(document: str, name: str) -> str:
    """A text inside a document; null where it is empty or no document."""
    return f"nullif(try({document} ->> '$.{name}'), '')"


FORMAT = RequestFormat(
    name="litellm_payload",
    fields={
        "id": IDENTIFIER,
        "litellm_call_id": TEXT,
        "endTime": EPOCH,
        "metadata": DOCUMENT,
        "model": TEXT,
        "model_id": TEXT,
        "model_group": TEXT,
        "status": choice("success", "failure"),
        "stream": FLAG,
        "prompt_tokens": COUNT,
        "completion_tokens": COUNT,
        "total_tokens": COUNT,
        "response_cost": FLOAT_MONEY,
        "response_time": DOCUMENT,
        "error_information": DOCUMENT,
    },
    request={
        "request_id": "id",
        "call_id": "litellm_call_id",
        "completed_at": "endTime",
        "workspace_id": _within("metadata", "user_api_key_team_id"),
        "api_key_id": _within("metadata", "user_api_key_hash"),
        "source": "'api'",
        "requested_model": "coalesce(model_group, nullif(model, 'unknown-model'))",
        "model": "case when model_id is not null then model end",
        "status": (
            "case status when 'success' then 200 when 'failure' then "
            f"try_cast({_within('error_information', 'error_code')} as integer) end"
        ),
        "error_code": (
            f"case status when 'failure' then {_within('error_information', 'error_class')} end"
        ),
        "is_streamed": "stream",
        "prompt_tokens": "prompt_tokens",
        "completion_tokens": "completion_tokens",
        "total_tokens": "coalesce(total_tokens, prompt_tokens + completion_tokens)",
        "credits": f"round_even({CREDITS}, 9)",
        "latency_ms": (
            "case when try_cast(response_time as double) between 0 and 9e9 "
            "then round(try_cast(response_time as double) * 1000)::bigint end"
        ),
    },
    rounded=f"{CREDITS} <> round_even({CREDITS}, 9)",
)

"""OpenRouter's activity CSV: one row for each generation (facts/sources.md, 5.2).

`cost_total` is a binary float in USD, and all that OpenRouter charged for the generation: its
decimal text times `credits_per_usd`, and what lies beyond nine places is rounded half-even.
The file names keys, but has no id of one, so `api_key_id` is null; `user` is whatever the caller
wrote there about its own customers, and neither it nor any name is kept. `created_at` stands for
the completion as it is (DECISIONS.md).
"""

from pipelines.reading import (
    COMPLETED,
    COUNT,
    FLAG,
    FLOAT_MONEY,
    IDENTIFIER,
    TEXT,
    RequestFormat,
)

CREDITS = "(cost_total::decimal(38, 25) * $credits_per_usd)"

FORMAT = RequestFormat(
    name="openrouter_csv",
    fields={
        "generation_id": IDENTIFIER,
        "created_at": COMPLETED,
        "cost_total": FLOAT_MONEY,
        "tokens_prompt": COUNT,
        "tokens_completion": COUNT,
        "model_permaslug": TEXT,
        "cancelled": FLAG,
        "streamed": FLAG,
        "finish_reason_normalized": TEXT,
        "generation_time_ms": COUNT,
    },
    request={
        "request_id": "generation_id",
        "completed_at": "created_at",
        "source": "'api'",
        "model": "model_permaslug",
        # No HTTP status is stated, so none is made up; a partial answer is one with this code.
        "error_code": (
            "case when cancelled then 'cancelled'"
            " when finish_reason_normalized = 'error' then 'error' end"
        ),
        "is_streamed": "streamed",
        "prompt_tokens": "tokens_prompt",
        "completion_tokens": "tokens_completion",  # reasoning included
        "total_tokens": "tokens_prompt + tokens_completion",
        "credits": f"round_even({CREDITS}, 9)",
        "latency_ms": "generation_time_ms",
    },
    rounded=f"{CREDITS} <> round_even({CREDITS}, 9)",
)

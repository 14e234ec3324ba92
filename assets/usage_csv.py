"""The CSV that the gateway's dashboard exports (Settings → Usage): nine columns, a row a request.

It names no workspace, no status and no member, and does not say whether a request came from the
Playground: what it leaves out stays null, the workspace comes from the key's entry in the directory
or from the source's `workspace_id`. Beside the canonical log it only corroborates (contract, "One
request, one winner"). Its page states no zone: a time without one is read in the source's
`time_zone`.
"""

from pipelines.reading import COMPLETED, COUNT, CREDITS, IDENTIFIER, TEXT, RequestFormat

FORMAT = RequestFormat(
    name="usage_csv",
    fields={
        "timestamp": COMPLETED,
        "model": TEXT,
        "api_key_id": TEXT,
        "prompt_tokens": COUNT,
        "completion_tokens": COUNT,
        "credits_used": CREDITS,
        "request_id": IDENTIFIER,
        "latency_ms": COUNT,
        "fallback_depth": COUNT,
    },
    request={
        "request_id": "request_id",
        "completed_at": "timestamp",
        "api_key_id": "api_key_id",
        "model": "model",
        "fallback_depth": "fallback_depth",
        "prompt_tokens": "prompt_tokens",
        "completion_tokens": "completion_tokens",
        "total_tokens": "prompt_tokens + completion_tokens",
        "credits": "credits_used",
        "latency_ms": "latency_ms",
    },
)

"""What a caller logged of the gateway's answers: the response headers, and the last chunk of a
stream or the whole body (seed-usage-and-billing.txt, "Per-request cost in the response").

One JSON object a line, of which these fields are read; docs/client_log.md shows it. The headers
stand by their lower-case names in the line itself, or in `headers` in any case. `usage` and
`credits_used` stand in the line itself, in `chunk` (the last of a stream) or in `body`. A fact may
be stated in several places; then they must agree. Everything else (prompts, answers, other headers)
is dropped before the disk.
"""

from pipelines.reading import (
    AMOUNT,
    COMPLETED,
    COUNT,
    FLAG,
    TEXT,
    Kind,
    RequestFormat,
    nested,
)

HEADERS: dict[str, Kind] = {
    "x-request-id": TEXT,
    "x-credits-used": AMOUNT,
    "x-model-used": TEXT,
    "x-fallback-from": TEXT,
    "x-fallback-depth": COUNT,
}
ANSWER: dict[str, Kind] = {
    "credits_used": AMOUNT,
    "usage": nested(
        {"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT},
    ),
}

# What is said in several places: its name for a reader, and the places.
STATED = {
    "x-request-id": ['"x-request-id"', 'headers."x-request-id"'],
    "credits": [
        '"x-credits-used"',
        'headers."x-credits-used"',
        "credits_used",
        "chunk.credits_used",
        "body.credits_used",
    ],
    "x-model-used": ['"x-model-used"', 'headers."x-model-used"'],
    "x-fallback-from": ['"x-fallback-from"', 'headers."x-fallback-from"'],
    "x-fallback-depth": ['"x-fallback-depth"', 'headers."x-fallback-depth"'],
    **{
        name: [f"{place}usage.{name}" for place in ("", "chunk.", "body.")]
        for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    },
}


def stated(name: str) -> str:
    """The fact as SQL, from whichever place states it."""
    return f"coalesce({', '.join(STATED[name])})"


MISSING = [
    f"when {stated('x-request-id')} is null then 'x-request-id is missing'",
    f"when {stated('credits')} is null then 'credits are missing'",
]
DIFFERENT = [
    f"when len(list_distinct([{', '.join(places)}])) > 1 then '{name} is stated twice, and differs'"
    for name, places in STATED.items()
]

FORMAT = RequestFormat(
    name="client_log",
    fields={
        "timestamp": COMPLETED,
        **HEADERS,
        "headers": nested(HEADERS, any_case=True),
        **ANSWER,
        "chunk": nested(ANSWER),
        "body": nested(ANSWER),
        # what the caller knows of its own call
        "api_key_id": TEXT,
        "workspace_id": TEXT,
        "requested_model": TEXT,
        "status": COUNT,
        "stream": FLAG,
        "latency_ms": COUNT,
    },
    request={
        "request_id": stated("x-request-id"),
        "completed_at": "timestamp",
        "workspace_id": "workspace_id",
        "api_key_id": "api_key_id",
        "source": "'api'",
        "requested_model": "requested_model",
        "model": stated("x-model-used"),
        "fallback_from": stated("x-fallback-from"),
        "fallback_depth": stated("x-fallback-depth"),
        "status": "status",
        "is_streamed": "coalesce(stream, case when chunk is not null then true end)",
        "prompt_tokens": stated("prompt_tokens"),
        "completion_tokens": stated("completion_tokens"),
        "total_tokens": (
            f"coalesce({stated('total_tokens')}, "
            f"{stated('prompt_tokens')} + {stated('completion_tokens')})"
        ),
        "credits": stated("credits"),
        "latency_ms": "latency_ms",
    },
    refused=f"case {' '.join(MISSING + DIFFERENT)} end",
)

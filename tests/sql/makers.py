"""Rows to test models with: a request, a quarter of usage, with sensible values where a test says
nothing.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

DAY = date(2026, 11, 20)
NOON = datetime(2026, 11, 20, 12)


def request(**stated: Any) -> dict[str, Any]:
    """A row of raw.requests or staging.requests."""
    row: dict[str, Any] = {
        "gateway": "infery",
        "source_name": "gateway",
        "format": "canonical",
        "request_id": "req_1",
        "completed_at": NOON,
        "usage_date": DAY,
        "workspace_id": "ws_1",
        "api_key_id": "key_1",
        "source": "api",
        "requested_model": "gpt-4o",
        "model": "gpt-4o",
        "status": 200,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "credits": Decimal("2.5"),
        "source_object": "aa",
        "source_line": 1,
    }
    return row | stated


def contest(**stated: Any) -> dict[str, Any]:
    """A row of staging.request_contests: a request's record, on a day where one of its records
    stands.
    """
    return {"contest_date": DAY, "arrived_at": NOON} | request(**stated)


def quarter(**stated: Any) -> dict[str, Any]:
    """A row of marts.usage_quarter_hourly."""
    row: dict[str, Any] = {
        "quarter_at": NOON,
        "usage_date": DAY,
        "workspace_id": "ws_1",
        "api_key_id": "key_1",
        "model": "gpt-4o",
        "request_count": 2,
        "error_count": 1,
        "fallback_count": 0,
        "prompt_tokens": 200,
        "completion_tokens": 40,
        "total_tokens": 240,
        "credits": Decimal("5"),
    }
    return row | stated


def judged(credits: object, **stated: Any) -> dict[str, Any]:
    """A row of marts.spend_ranges: a key's day within its range of credits, which would have gone
    up to 400.
    """
    row: dict[str, Any] = {
        "usage_date": date(2026, 11, 18),
        "workspace_id": "ws_1",
        "scope": "key",
        "subject_id": "key_1",
        "credits": Decimal(str(credits)),
        "expected": Decimal(100),
        "range_high": Decimal(400),
        "upper_limit": Decimal(400),
        "ratio": Decimal(str(credits)) / 100,
        "verdict": "normal",
        "is_complete": True,
        "exceed_percent": Decimal(50),
        "floor_credits": Decimal(10),
    }
    return row | stated

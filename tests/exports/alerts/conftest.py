"""An alert to tell, as `marts.budget_alerts` gives it."""

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest


@pytest.fixture(scope="session")
def alert_row() -> Callable[..., dict[str, Any]]:
    """`alert_row(kind="drift")`: a key at five times the expected, or as told."""

    def build(**columns: Any) -> dict[str, Any]:
        return {
            "alert_id": "alert_0123456789abcdef",
            "workspace_id": "ws_1",
            "workspace_name": "Acme",
            "kind": "anomaly",
            "scope": "key",
            "subject_id": "key_1",
            "subject_name": "Billing bot",
            "state": "open",
            "usage_date": date(2026, 11, 18),
            "last_date": date(2026, 11, 18),
            "credits": Decimal("1234.500000000"),
            "expected": Decimal("246.900000000"),
            "upper_limit": Decimal("480.000000000"),
            "ratio": Decimal("5.000000000"),
            "highest_credits": Decimal("1234.500000000"),
            "opened_at": datetime(2026, 11, 18, 9, 15),
            "escalated_at": None,
            "closed_at": None,
            "decision": None,
            "snoozed_until": None,
            "cause": "1,000 requests against 200 on a usual day, 92% of the credits on model gpt-5",
            "message": 'Key "Billing bot" of "Acme" spent 1,234.50 credits on 2026-11-18, '
            "5.0 times the expected 246.90 (normal up to 480.00).",
        } | columns

    return build

"""What sinks answered, made of the journal's lines."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

Rows = list[dict[str, Any]]
NOON = datetime(2026, 11, 19, 12)


def line(outcome: str, minutes: int = 0, detail: str = "", **columns: object) -> dict[str, Any]:
    return {
        "alert_id": "alert_1",
        "sink": "email",
        "transition": "opened",
        "attempted_at": NOON + timedelta(minutes=minutes),
        "outcome": outcome,
        "detail": detail,
    } | columns


def outcomes(run_model: Callable[..., Rows], *lines: dict[str, Any]) -> list[str]:
    rows = run_model("ops.alert_deliveries", {"raw.deliveries": lines})
    return [row["outcome"] for row in rows]


def test_the_two_lines_of_an_attempt_are_one_row(run_model: Callable[..., Rows]) -> None:
    assert outcomes(run_model, line("intended"), line("sent")) == ["sent"]


def test_an_attempt_without_an_answer_is_unknown(run_model: Callable[..., Rows]) -> None:
    lines = (line("intended"), line("intended", 1), line("failed", 1), line("not_sent_too_old", 2))

    assert outcomes(run_model, *lines) == ["unknown", "failed", "not_sent_too_old"]


def test_the_claim_warns_of_a_message_taken_twice(run_model: Callable[..., Rows]) -> None:
    claim = "alert_deliveries__nothing_is_received_twice"
    once = line("sent")
    other = line("sent", 1, sink="console")

    assert run_model(claim, {"ops.alert_deliveries": [once, other]}) == []
    [broken] = run_model(claim, {"ops.alert_deliveries": [once, other, line("sent_in_part", 2)]})
    assert broken["found"] == "2"

"""What people say: of alerts (acknowledged, snoozed, expected), and that a member is erased. A
journal, as the sinks' answers are.

A decision is a fact of raw: written down durably when it is made, whatever night is running, and
read by the next one. What follows from it is said in `sql/marts/budget_alerts.sql` (the state),
`exports/alerts/outbox.py` (what is still told) and `assets/erasure.py` (an erasure).
"""

import getpass
import os
import secrets
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Literal, Protocol

from pipelines.calendar import utc_now
from pipelines.store import RawTable

Decision = Literal["acknowledged", "snoozed", "expected"]

TABLES = {
    "raw.decisions": RawTable(
        "What a person said of an alert, the newest word on it counts; or that a member is erased.",
        {
            "decision_id": ("varchar", "its own"),
            "alert_id": ("varchar", "as in marts.budget_alerts; null for an erasure"),
            "decision": ("varchar", "acknowledged, snoozed, expected or erased"),
            "until": ("timestamp", "when a snooze ends, UTC; null for the others"),
            "member_id": ("varchar", "what stands for an erased member; null for the others"),
            "note": ("varchar", "what the person added; or null"),
            "decided_at": ("timestamp", "wall clock, UTC"),
            "decided_by": ("varchar", "the user of the operating system"),
            "arrived_at": ("timestamp", "wall clock when it was written down, UTC"),
            "workspace_id": ("varchar", "of the alert, as published when this was said, like all"),
            "scope": ("varchar", "that follow: key, model, member or workspace"),
            "subject_id": ("varchar", "the id (or model) within its scope"),
            "usage_date": ("date", "the day it opened"),
            "said_of_date": ("date", "its last day out of range"),
            "said_of_credits": ("decimal(38, 9)", "its biggest day; null for a budget's"),
            "judged_until": ("date", "the last complete day of all that was published"),
        },
    )
}


class Journal(Protocol):
    """What is needed of `store.journal(…)`: an appended line is durable when `append` returns."""

    def append(self, *entries: Mapping[str, Any]) -> None: ...


def decide(
    journal: Journal,
    alert_id: str,
    decision: Decision,
    note: str | None = None,
    lasting: timedelta | None = None,
    alert: Mapping[str, Any] | None = None,
    judged_until: date | None = None,
) -> dict[str, Any]:
    """Writes a decision down and returns its line. `lasting`: how long a snooze lasts, from now.

    `alert`: the row of `marts.budget_alerts` that the person saw; `judged_until`: the last complete
    day that was published with it. What they knew goes into the line: "expected" means as much as
    there was then, and not all that is still to come.
    """
    seen = alert or {}
    # what a budget has come to, or an allowance, is no day's credits
    is_of_days = seen.get("kind") not in ("budget", "exhaustion")
    now = utc_now()
    line = {
        "decision_id": f"decision_{secrets.token_hex(8)}",
        "alert_id": alert_id,
        "decision": decision,
        "until": None if lasting is None else now + lasting,
        "note": _plain(note or "") or None,
        "decided_at": now,
        "decided_by": _plain(_person()),
        "arrived_at": now,
        "workspace_id": seen.get("workspace_id"),
        "scope": seen.get("scope"),
        "subject_id": seen.get("subject_id"),
        "usage_date": seen.get("usage_date"),
        "said_of_date": seen.get("last_date"),
        "said_of_credits": seen.get("highest_credits") if is_of_days else None,
        "judged_until": judged_until,
    }
    journal.append(line)
    return line


def erased(member_id: str, key_mark: str, note: str | None = None) -> dict[str, Any]:
    """The line that says that a member is erased, by the name that stands for it from now on, and
    by which key that name was made.
    """
    now = utc_now()
    return {
        "decision_id": f"decision_{secrets.token_hex(8)}",
        "alert_id": None,
        "decision": "erased",
        "until": None,
        "member_id": member_id,
        "key_mark": key_mark,
        "note": _plain(note or "") or None,
        "decided_at": now,
        "decided_by": _plain(_person()),
        "arrived_at": now,
    }


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _plain(text: str) -> str:
    """One line of text that any table can hold: a terminal may hand over bytes that are none."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())

"""What stands behind an alert: its subject's last weeks, and who spent most on the day it tells of.

Read from the published tables only for what is about to be told: a night without news reads
nothing. What a house has not computed is left out of the message, never guessed.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds

from exports.alerts import Contributor, Day
from pipelines.calendar import DAY
from pipelines.store import Snapshot, Store

WEEKS = 6
CONTRIBUTORS = 5

Row = Mapping[str, Any]
Details = Callable[[Sequence[Row]], Mapping[str, Mapping[str, Any]]]
Subject = tuple[str | None, str, str]  # workspace_id, scope, subject_id


def details_of(store: Store, as_of: datetime) -> Details:
    """The days and contributors of alerts (rows of `marts.budget_alerts`), by alert_id."""

    def details(alerts: Sequence[Row]) -> Mapping[str, Mapping[str, Any]]:
        snapshot = store.snapshot()
        if snapshot is None:
            return {}
        today = (as_of - timedelta(microseconds=1)).date()
        first = today - DAY * (7 * WEEKS - 1)
        starts = [row["cycle_start_date"] for row in alerts if row.get("cycle_start_date")]
        weeks = _days(store, snapshot, alerts, min([first, *starts]), today)
        top = _contributors(store, snapshot, alerts)
        found: dict[str, Mapping[str, Any]] = {}
        for row in alerts:
            since = row.get("cycle_start_date") or first
            days = [day for day in weeks[_subject(row)] if day.usage_date >= since]
            found[row["alert_id"]] = {"days": days, "contributors": top.get(row["alert_id"], [])}
        return found

    return details


def _days(
    store: Store, snapshot: Snapshot, alerts: Sequence[Row], first: date, last: date
) -> Mapping[Subject, list[Day]]:
    """The days of each alert's subject, oldest first."""
    found: dict[Subject, list[Day]] = defaultdict(list)
    names = ["usage_date", "workspace_id", "scope", "subject_id"]
    names += ["credits", "expected", "upper_limit"]
    days = [first + DAY * number for number in range((last - first).days + 1)]
    for row in _rows(store, snapshot, "marts.spend_ranges", days, alerts, names):
        if row["credits"] is not None:  # tomorrow's row has a limit only
            found[_subject(row)].append(
                Day(row["usage_date"], row["credits"], row["expected"], row["upper_limit"])
            )
    for some in found.values():
        some.sort(key=lambda day: day.usage_date)
    return found


def _contributors(
    store: Store, snapshot: Snapshot, alerts: Sequence[Row]
) -> Mapping[str, list[Contributor]]:
    """Who spent most of each alert on its last day out of range, the most first."""
    spend = [row for row in alerts if row["kind"] not in ("budget", "exhaustion")]
    days = sorted({row["last_date"] for row in spend})
    found: dict[tuple[Subject, date], list[Row]] = defaultdict(list)
    for row in _rows(store, snapshot, "marts.spend_contributors", days, spend, None):
        found[_subject(row), row["usage_date"]].append(row)
    names = _key_names(store, snapshot) if found else {}
    told = {}
    for alert in spend:
        top = sorted(found[_subject(alert), alert["last_date"]], key=lambda row: row["position"])
        told[alert["alert_id"]] = [
            Contributor(
                credits=row["credits"],
                api_key_id=row["api_key_id"],
                key_name=names.get(row["api_key_id"]),
                model=row["model"],
                hour_at=row["hour_at"],
                request_count=row["request_count"],
                share=row["excess_share"],
            )
            for row in top[:CONTRIBUTORS]
        ]
    return told


def _key_names(store: Store, snapshot: Snapshot) -> Mapping[str, str]:
    parts = snapshot.tables.get("staging.keys", {}).values()
    files = store.local([item for part in parts for item in part.objects])
    table = ds.dataset([str(file) for file in files], format="parquet").to_table(
        columns=["api_key_id", "name"]
    )
    return {row["api_key_id"]: row["name"] for row in table.to_pylist() if row["name"]}


def _rows(
    store: Store,
    snapshot: Snapshot,
    table: str,
    days: Sequence[date],
    alerts: Sequence[Row],
    columns: list[str] | None,
) -> list[dict[str, Any]]:
    """The rows of these days that are about one of the alerts' subjects."""
    published = snapshot.tables.get(table, {})
    keys = [str(day) for day in days] if "" not in published else [""]
    objects = [item for key in keys if key in published for item in published[key].objects]
    if not objects or not alerts:
        return []
    wanted = {_subject(row) for row in alerts}
    names = sorted({subject_id for _, _, subject_id in wanted})
    found = ds.dataset(
        [str(file) for file in store.local(objects)], format="parquet", partitioning=None
    ).to_table(columns=columns, filter=pc.field("subject_id").isin(names))
    stated = set(days)
    return [
        row for row in found.to_pylist() if _subject(row) in wanted and row["usage_date"] in stated
    ]


def _subject(row: Row) -> Subject:
    return row["workspace_id"], row["scope"], row["subject_id"]

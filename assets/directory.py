"""The directory: workspaces, keys, members and budgets, from files named after what they hold.

Contract, "Inputs": `workspaces.csv`, `keys.json`, `members.parquet`, `budgets-2026-11.jsonl` … The
file's name up to its first character that is no letter says which table it is. The newest row of a
thing speaks; staging decides that.
"""

import functools
import re
import zoneinfo
from pathlib import Path
from typing import Any

import duckdb

from pipelines import tabular
from pipelines.calendar import Clock
from pipelines.reading import RecordRefused
from pipelines.settings import Settings
from pipelines.store import Draft
from pipelines.tabular import Column


@functools.cache
def zones() -> frozenset[str]:
    """The zones that DuckDB can sum a day in; Python knows some more, such as `localtime`."""
    with duckdb.connect() as connection:
        found = connection.execute("select name from pg_timezone_names()").fetchall()
    return frozenset(name for (name,) in found)


def time_zone(value: Any, name: str) -> str | None:
    """An IANA zone that Python and DuckDB both know: a day in any other can't be summed."""
    stated = tabular.text(value, name)
    if stated is not None:
        try:
            zoneinfo.ZoneInfo(stated)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise RecordRefused(f"{name} is no time zone there is") from None
        if stated not in zones():
            raise RecordRefused(f"{name} is no time zone there is")
    return stated


def recipients(value: Any, name: str) -> str | None:
    """Addresses as one text; a JSON list of them is joined by commas."""
    if isinstance(value, list):
        return ", ".join(filter(None, (tabular.text(part, name) for part in value))) or None
    return tabular.text(value, name)


COLUMNS = {
    "workspaces": {
        "workspace_id": Column("varchar", "", tabular.needed(tabular.text)),
        "name": Column("varchar", "what people call it", tabular.text),
        "time_zone": Column("varchar", "IANA name; null: UTC", time_zone),
        "plan": Column("varchar", "", tabular.text),
        "monthly_allowance_credits": Column(
            "decimal(18,9)", "credits of one cycle", tabular.nine_places
        ),
        "cycle_anchor_date": Column("date", "a day on which a cycle begins", tabular.day),
        "billing_email": Column("varchar", "", tabular.text),
    },
    "keys": {
        "api_key_id": Column("varchar", "", tabular.needed(tabular.text)),
        "workspace_id": Column("varchar", "", tabular.text),
        "name": Column("varchar", "what people call it", tabular.text),
        "created_at": Column("timestamp", "UTC", tabular.instant),
        "revoked_at": Column("timestamp", "UTC; null: in use", tabular.instant),
        "replaces_api_key_id": Column("varchar", "the key it was rotated from", tabular.text),
    },
    "members": {
        "member_id": Column("varchar", "", tabular.needed(tabular.text)),
        "workspace_id": Column("varchar", "", tabular.text),
        "name": Column("varchar", "", tabular.text),
    },
    "budgets": {
        "budget_id": Column("varchar", "", tabular.needed(tabular.text)),
        "workspace_id": Column("varchar", "", tabular.text),
        "scope": Column(
            "varchar",
            "workspace | key | model | member",
            tabular.word("workspace", "key", "model", "member"),
        ),
        "subject_id": Column(
            "varchar", "the key, model or member; null: the workspace", tabular.text
        ),
        "threshold_percent": Column(
            "decimal(18,9)", "of the cycle's allowance", tabular.nine_places
        ),
        "threshold_credits": Column("decimal(18,9)", "or an amount", tabular.nine_places),
        "exceed_percent": Column(
            "decimal(18,9)",
            "the page's X, for this subject",
            tabular.nine_places,
        ),
        "floor_credits": Column(
            "decimal(18,9)",
            "an excess below it is no alert",
            tabular.nine_places,
        ),
        "sensitivity": Column(
            "varchar",
            "low | normal | high",
            tabular.word("low", "normal", "high"),
        ),
        "recipients": Column(
            "varchar",
            "whom to tell by e-mail when it is reached, besides the settings'",
            recipients,
        ),
    },
}

DESCRIPTIONS = {
    "workspaces": "A workspace as one delivery of the directory states it.",
    "keys": "An API key as one delivery of the directory states it.",
    "members": "A member as one delivery of the directory states it.",
    "budgets": "A budget as one delivery of the directory states it.",
}

TABLES = {
    f"raw.{name}": tabular.raw_table(DESCRIPTIONS[name], columns)
    for name, columns in COLUMNS.items()
} | {"raw.files": tabular.FILES}


def table_of(path: Path) -> str | None:
    """Which table a file holds, by its name; None when it names none."""
    found = re.match("[a-z]+", path.name.lower())
    return found[0] if found and found[0] in COLUMNS else None


def land(draft: Draft, settings: Settings, clock: Clock) -> None:
    """Every file that is new at `[directory] location`."""

    def is_named(path: Path, place: str) -> bool:
        if table_of(path) is None:
            draft.remark(
                f"{place} was not read: the directory's files are named {', '.join(COLUMNS)}."
            )
            return False
        return True

    rows: dict[str, list[dict[str, Any]]] = {}
    location = settings.place(settings.directory.location)
    for arrival in tabular.arrivals(draft, clock, location, "directory", is_named):
        name = table_of(arrival.path) or ""
        rows.setdefault(name, []).extend(tabular.land_rows(arrival, COLUMNS[name], lambda _: None))
    for name, landed in sorted(rows.items()):
        types = {column: kind for column, (kind, _) in TABLES[f"raw.{name}"].columns.items()}
        if landed:
            draft.append(f"raw.{name}", tabular.arrow(landed, types))

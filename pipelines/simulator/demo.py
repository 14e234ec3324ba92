"""`make demo`: a simulated gateway with its Stripe, a real night over it, and what a user came for,
on one screen.

The night is the shipped one: the command line starts it, Stripe is read through the SDK from a
local server.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table

from pipelines.bucket_store import open_store
from pipelines.calendar import DAY, utc_now
from pipelines.cli import show_alerts, show_overview, show_reconciliation
from pipelines.reader import MEASURES, last_window, published
from pipelines.screens import number, out, show
from pipelines.settings import load
from pipelines.simulator import gateway, stripe_server

FOLDER = Path("demo")
DAYS, REQUESTS_PER_DAY, SEED = 45, 3000, 1


def main() -> int:
    """Runs the demo; returns the exit code of the night."""
    began = time.monotonic()
    last_day = utc_now().date() - DAY
    truth = simulated(last_day)
    out.print(
        f"[bold]Meterhouse demo[/] · a simulated gateway, {truth['first_day']} to "
        f"{truth['last_day']}, "
        f"{number(truth['total']['request_count'])} requests, seed {SEED}"
    )
    night_began = time.monotonic()
    with stripe_server.serve(FOLDER / "stripe_account.json") as stripe:
        environment = os.environ | {
            "METERHOUSE_STRIPE_API_BASE": stripe.base_url,
            "METERHOUSE_STRIPE_API_KEY": "rk_live_demo",
        }
        night = subprocess.run(
            [
                sys.executable,
                "-m",
                "pipelines.cli",
                "--config",
                str(FOLDER / "meterhouse.toml"),
                "nightly",
                "--date",
                str(last_day),
            ],
            env=environment,
            check=False,
        )
    night_seconds = time.monotonic() - night_began
    if night.returncode:
        return night.returncode
    show_all(truth)
    out.print(
        f"\n[dim]The night took {night_seconds:.1f} s, "
        f"the whole demo {time.monotonic() - began:.1f} "
        f"s.[/]"
    )
    return 0


def simulated(last_day: date) -> dict[str, Any]:
    """The truth of the simulation under `demo/`, made anew when the last day is another one."""
    file = FOLDER / "truth.json"
    if file.exists():
        truth: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if truth["last_day"] == str(last_day):
            return truth
    shutil.rmtree(FOLDER, ignore_errors=True)
    return gateway.simulate(
        FOLDER, days=DAYS, requests_per_day=REQUESTS_PER_DAY, seed=SEED, last_day=last_day
    )


VIEWS = {
    "model": [
        "model", "request_count", "error_count", "fallback_count", "total_tokens", "credits",
    ],
    "key": ["key_name", "workspace_id", "request_count", "error_count", "total_tokens", "credits"],
    "member": [
        "member_name", "workspace_id", "request_count", "error_count", "total_tokens", "credits",
    ],
}  # fmt: skip
LINES = 12


def shortened(rows: list[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    """The first rows, and one that sums the rest, so that the totals stay whole."""
    rest = rows[LINES:]
    if len(rest) < 2:
        return rows
    summed = {name: sum(row[name] for row in rest) for name in MEASURES}
    names = dict.fromkeys(rest[0], "") | {label: f"… {len(rest)} more"}
    return [*rows[:LINES], names | summed]


def heading(text: str) -> None:
    out.print()
    out.print(Rule(f"[bold]{text}[/]", align="left", style="dim"))


def show_all(truth: dict[str, Any]) -> None:
    """What a user came for: the views, the reconciliation, the alerts, where everything lies, what
    to try next.
    """
    settings = load(FOLDER / "meterhouse.toml")
    with published(open_store(settings)) as reader:
        as_of = reader.as_of
        heading("Where every workspace stands")
        show_overview(
            reader.rows("select * from marts.usage_overview order by workspace_id nulls last"),
            "table",
            as_of,
        )
        start, end = last_window("30d", as_of, "UTC")
        heading("What was used, last 30 days (UTC)")
        for group, columns in VIEWS.items():
            rows = shortened(reader.usage(group, start, end, "UTC"), columns[0])
            totals = [name for name in columns if name in MEASURES]
            show(rows, "table", title=f"By {group}", columns=columns, totals=totals)
        heading("Does the money agree?")
        items = reader.rows(
            "select * from marts.invoice_reconciliation order by case standing when "
            "'needs_person' then 0 "
            "when 'waits' then 1 else 2 end, age_days desc nulls last, item_id"
        )
        show_reconciliation(items, "table", everything=False)
        planted_statuses(truth, items)
        heading("What was out of range?")
        alerts = reader.rows("select * from marts.budget_alerts order by opened_at desc, alert_id")
        show_alerts(alerts, "table")
        planted_incidents(truth, alerts)
        heading("Does everything agree?")
        agreement(
            truth,
            reader.rows(
                "select stage, sum(request_count)::bigint as request_count, sum(credits) as "
                "credits, bool_and(agrees) as agrees from marts.conservation group by 1"
            ),
        )
    next_steps(settings.root)


def planted_statuses(truth: dict[str, Any], items: list[dict[str, Any]]) -> None:
    stated = {row["item_id"]: row["status"] for row in truth["reconciliation"]}
    found = {row["item_id"]: row["status"] for row in items}
    right = sum(stated[item] == found.get(item) for item in stated)
    planted = [row for row in truth["reconciliation"] if row["case"] != "plain"]
    caught = sum(found.get(row["item_id"]) == row["status"] for row in planted)
    mark = "[green]✓[/]" if right == len(stated) == len(found) else "[red]✗[/]"
    out.print(
        f"{mark} {caught} of {len(planted)} planted cases found, each in its planted status; "
        f"{right} of {len(stated)} items are right."
    )


def planted_incidents(truth: dict[str, Any], alerts: list[dict[str, Any]]) -> None:
    told = {
        (row["scope"], row["subject_id"]) for row in alerts if row["state"] in ("open", "escalated")
    }
    for incident in truth["incidents"]:
        found = ("key", incident["api_key_id"]) in told
        what = incident["kind"].replace("_", " ")
        out.print(
            f"{'[green]✓[/]' if found else '[red]✗[/]'} the planted {what} on "
            f"{incident['key_name']} was {'found' if found else 'missed'}."
        )


STAGES = {
    "raw": "landed",
    "staging": "requests",
    "by_model": "by model",
    "by_key": "by key",
    "by_member": "by member",
    "ledger": "ledger",
    "export": "exported",
}


def agreement(truth: dict[str, Any], stages: list[dict[str, Any]]) -> None:
    sums = {row["stage"]: row for row in stages}
    table = Table.grid(padding=(0, 3))
    table.add_row("[dim]the truth[/]", f"{truth['total']['credits']} credits")
    for stage, label in STAGES.items():
        row = sums[stage]
        mark = "[green]=[/]" if row["agrees"] else "[red]≠[/]"
        table.add_row(f"[dim]{label}[/]", f"{row['credits']} credits {mark}")
    out.print(table)


def next_steps(root: Path) -> None:
    heading("Where it lies, and what to try")
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="dim")
    grid.add_column()
    grid.add_row("DuckDB", f"{root / 'warehouse.duckdb'}")
    grid.add_row("Parquet, CSV", f"{root / 'exports'}  (manifest.json names every file)")
    grid.add_row("the truth", str((FOLDER / "truth.json").resolve()))
    out.print(grid)
    out.print()
    for line in (
        "source .venv/bin/activate && cd demo",
        "meterhouse usage --group-by day --last 7d --tz Europe/London",
        "meterhouse reconcile --all",
        "meterhouse export usage --from {0} --to {0} --out out".format(utc_now().date() - DAY),
        "make dev                       # the Dagster UI on this warehouse",
    ):
        out.print(Padding(f"[bold]{line}[/]", (0, 2)))


if __name__ == "__main__":
    sys.exit(main())

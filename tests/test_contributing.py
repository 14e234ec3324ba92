"""CONTRIBUTING.md, tried: each worked example is one file, and a night with it in place does what
the page says.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

HOUSE = Path(__file__).parents[1]
ROOMS = ("assets", "exports", "pipelines", "sql", "dagster_home")
DAY = "2026-11-20"

MODEL = "sql/marts/usage_by_hour.sql"
CLAIM = "sql/checks/usage_by_hour__sums_to_the_day.sql"
FORMAT = "assets/acme_proxy.py"
SINK = "exports/alerts/logbook.py"

SETTINGS = """
[[requests]]
name = "gateway"
format = "canonical"
location = "landing/requests"

[[requests]]
name = "acme"
format = "acme_proxy"
location = "landing/acme"

[alerts.logbook]
path = "logbook.txt"
"""

CANONICAL = [
    {
        "request_id": "req_1",
        "timestamp": f"{DAY}T09:15:00Z",
        "workspace_id": "ws_1",
        "credits_used": "2.5",
    },
    {
        "request_id": "req_2",
        "timestamp": f"{DAY}T09:50:00Z",
        "workspace_id": "ws_1",
        "credits_used": "1.75",
    },
    {
        "request_id": "req_3",
        "timestamp": f"{DAY}T13:00:00Z",
        "workspace_id": "ws_1",
        "credits_used": "4",
    },
]

ACME = [
    {
        "id": "a-1",
        "finished": f"{DAY}T13:10:00Z",
        "team": "ws_1",
        "token_name": "key_1",
        "asked": "large",
        "served": "small",
        "http": 200,
        "tokens_in": 12,
        "tokens_out": 3,
        "price": "0.000000001",
        "prompt": "never kept",
    },
    {"id": "a-2", "finished": f"{DAY}T13:11:00Z", "price": "a lot"},
]


def examples() -> dict[str, str]:
    """The page's code blocks that name a file, by that name."""
    page = (HOUSE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.findall(r"^```\w+ (\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return dict(found)


def copy_of_the_house(folder: Path) -> Path:
    """The rooms of the house, and two small logs to run a night on."""
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache", "history", "storage", "schedules")
    for room in ROOMS:
        shutil.copytree(HOUSE / room, folder / room, ignore=ignored)
    for name, records in (("requests", CANONICAL), ("acme", ACME)):
        place = folder / "landing" / name
        place.mkdir(parents=True)
        (place / f"{DAY}.jsonl").write_text(
            "".join(json.dumps(record) + "\n" for record in records)
        )
    directory = folder / "landing" / "directory"
    directory.mkdir()
    (directory / "budgets.csv").write_text(
        "budget_id,workspace_id,scope,subject_id,threshold_credits\nbudget_1,ws_1,workspace,,5\n"
    )
    (folder / "meterhouse.toml").write_text(SETTINGS)
    return folder


def night(house: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("METERHOUSE_", "DAGSTER_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "nightly", "--date", DAY],
        cwd=house,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def rows(house: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(house / "data" / "warehouse.duckdb"), read_only=True) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def extended(once: Callable[..., Any]) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """After its night, run by whichever worker came first. One test breaks a model in it, but its
    night publishes nothing: what the others look at stays.
    """
    made: tuple[Path, subprocess.CompletedProcess[str]] = once("extended", extend)
    return made


def extend(folder: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A copy of the house with the four files in it, after a night; and what that night said."""
    house = copy_of_the_house(folder)
    for name, text in examples().items():
        assert not (house / name).exists(), f"{name} is in the house already"
        (house / name).write_text(text, encoding="utf-8")
    done = night(house)
    assert done.returncode == 0, done.stderr
    return house, done


def test_the_page_has_one_file_for_each_thing() -> None:
    assert set(examples()) == {MODEL, CLAIM, FORMAT, SINK}


def test_a_new_model_is_a_table_with_its_documentation(extended: tuple[Path, Any]) -> None:
    house, _ = extended

    found = rows(
        house,
        "select hour(hour_at), workspace_id, request_count, credits "
        "from marts.usage_by_hour order by 1",
    )

    assert found == [(9, "ws_1", 2, Decimal("4.25")), (13, "ws_1", 2, Decimal("4.000000001"))]
    assert rows(
        house, "select comment from duckdb_tables() where table_name = 'usage_by_hour'"
    ) == [("What a workspace spent in an hour of a UTC day.",)]
    assert rows(
        house,
        "select comment from duckdb_columns() "
        "where table_name = 'usage_by_hour' and column_name = 'workspace_id'",
    ) == [("null: unassigned",)]


def test_a_new_claim_is_checked(extended: tuple[Path, Any]) -> None:
    house, _ = extended
    snapshot = json.loads((house / "data" / "snapshot.json").read_text())

    assert snapshot["checks"]["usage_by_hour__sums_to_the_day"]


def test_a_new_format_lands_rows_and_sets_aside_what_it_cannot_read(
    extended: tuple[Path, Any],
) -> None:
    house, _ = extended

    assert rows(
        house,
        "select api_key_id, requested_model, model, fallback_from, total_tokens, credits "
        "from marts.requests where gateway = 'acme'",
    ) == [("key_1", "large", "small", "large", 15, Decimal("0.000000001"))]
    assert rows(house, "select line_number, reason from ops.quarantine") == [
        (2, "price is not a plain number")
    ]


def test_a_new_sink_is_told_once(extended: tuple[Path, Any]) -> None:
    house, _ = extended
    [line] = (house / "logbook.txt").read_text().splitlines()

    assert re.fullmatch(r"opened alert_[0-9a-f]{16}: .*reached its budget of 5\.00.*", line)
    assert rows(house, "select outcome from ops.alert_deliveries where sink = 'logbook'") == [
        ("sent",)
    ]


def test_a_broken_claim_stops_the_night_and_leaves_what_was_published(
    extended: tuple[Path, Any],
) -> None:
    house, _ = extended
    before = (house / "data" / "snapshot.json").read_bytes()
    model = house / MODEL
    model.write_text(
        model.read_text().replace("usage_date = $day", "usage_date = $day and hour(quarter_at) = 9")
    )

    done = night(house)

    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert f"on {DAY}, marts.usage_by_hour: the hours of a day sum to its credits" in said
    assert "expected 8.250000001, found 4.250000000" in said
    assert (house / "data" / "snapshot.json").read_bytes() == before
    assert rows(house, "select sum(credits) from marts.usage_by_hour") == [
        (Decimal("8.250000001"),)
    ]


@pytest.mark.parametrize("linter", ["ruff", "sqlfluff"])
def test_the_examples_are_in_the_style_of_the_house(tmp_path: Path, linter: str) -> None:
    for name in ("pyproject.toml", ".sqlfluff"):
        shutil.copyfile(HOUSE / name, tmp_path / name)
    suffix, command = {
        "ruff": (".py", ["ruff", "check", "--no-cache"]),
        "sqlfluff": (".sql", ["sqlfluff", "lint", "--disable-progress-bar"]),
    }[linter]
    files = [name for name in examples() if name.endswith(suffix)]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(examples()[name], encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", *command, *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout

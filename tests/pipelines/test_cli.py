"""The command line: what it shows, what it writes, and how it fails: one sentence."""

import csv
import hashlib
import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from pipelines import reader
from pipelines.cli import main
from tests.houses import House, furnish, models_for, request

NINE = [
    "timestamp", "model", "api_key_id", "prompt_tokens", "completion_tokens", "credits_used",
    "request_id", "latency_ms", "fallback_depth",
]  # fmt: skip


SAID_BY_STATUS = ("marts.usage_by_key", "marts.budget_alerts", "marts.log_gaps")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("cli") / "house")
    furnish(house, first_day=17)
    house.put(
        "requests/odd.jsonl",
        [
            request("=1+1", "2026-11-20T05:00:00Z", model="@sum(a1)", latency_ms=12),
            request("late_evening", "2026-11-19T20:00:00Z", credits_used="3"),
            "no record",
        ],
    )
    house.put("proxy/nothing_yet.jsonl", "")
    house.night()
    return house


def invoke(house: House, *words: str) -> Result:
    """A command in this process (the night's needs one of its own: it goes through Dagster)."""
    return CliRunner().invoke(
        main,
        ["--config", str(house.config), *words],
        env={"COLUMNS": "250", "METERHOUSE_AS_OF": None},
    )


def told(house: House, *words: str) -> Any:
    """What a command says as JSON."""
    result = invoke(house, *words, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# ---- setting up -----------------------------------------------------------------------------


def test_init_writes_settings_and_folders_and_never_over_ones(tmp_path: Path) -> None:
    first = CliRunner().invoke(main, ["init", str(tmp_path / "new")])
    settings = (tmp_path / "new" / "meterhouse.toml").read_text()
    again = CliRunner().invoke(main, ["init", str(tmp_path / "new")])

    assert first.exit_code == 0
    assert "[[requests]]" in settings
    assert (tmp_path / "new" / "landing" / "requests").is_dir()
    assert again.exit_code == 1
    assert (tmp_path / "new" / "meterhouse.toml").read_text() == settings


def test_a_new_house_can_be_run_at_once(tmp_path: Path) -> None:
    CliRunner().invoke(main, ["init", str(tmp_path)])
    new = House(tmp_path)
    new.put("requests/a.jsonl", [request("a"), request("b")])

    said = new.ask("nightly", "--date", "2026-11-20")

    assert said.returncode == 0, said.stderr
    assert "2 requests of 1 key on 1 day" in said.stdout


# ---- showing --------------------------------------------------------------------------------


def test_status_says_what_is_published(house: House) -> None:
    [row] = told(house, "status")

    snapshot = house.store.snapshot()
    assert snapshot is not None
    assert row["snapshot_id"] == snapshot.snapshot_id
    assert row["requests"] == 110
    assert row["quarantined"] == 1
    assert row["open_alerts"] >= 2
    assert (row["restated_days"], row["newly_restated_days"]) == (0, 0)
    assert (row["log_gaps"], row["gaps_recoverable_until"]) == (0, None)
    assert Decimal(row["credits"]) == house.value("select sum(credits) from marts.requests")


def test_quarantine_list_says_where_each_record_stands_and_why(house: House) -> None:
    [row] = told(house, "quarantine", "list")

    assert row == {
        name: value if name != "arrived_at" else row["arrived_at"]
        for name, value in house.rows("from ops.quarantine")[0].items()
    }
    assert row["line_number"]
    assert row["reason"]
    assert told(house, "quarantine", "list", "--source", "nobody") == []


def test_status_says_which_published_days_were_restated_and_how_many_just_now(
    tmp_path: Path,
) -> None:
    house = House(tmp_path / "house", models_for(*SAID_BY_STATUS))
    house.put(
        "requests/a.jsonl", [request(f"{day}", f"2026-11-{day}T10:00:00Z") for day in (18, 19)]
    )
    house.night()
    for day in (18, 19):
        house.put(f"requests/{day}.jsonl", [request(f"late_{day}", f"2026-11-{day}T11:00:00Z")])
        house.night(datetime(2026, 11, day + 3))

    [row] = told(house, "status")

    assert (row["restated_days"], row["newly_restated_days"]) == (2, 1)
    assert "2 published days, 1 of them as of this snapshot" in invoke(house, "status").stdout


def test_status_says_until_when_a_gap_in_the_logs_can_be_filled(tmp_path: Path) -> None:
    house = House(tmp_path / "house", models_for(*SAID_BY_STATUS))
    hours = [datetime(2026, 11, 10) + timedelta(hours=number) for number in range(8 * 24)]
    house.put(
        "requests/a.jsonl",
        [
            request(f"{hour_at:%d-%H}-{number}", f"{hour_at:%Y-%m-%dT%H}:30:00Z")
            for hour_at in hours
            for number in range(3)
        ],
    )
    house.night()  # three silent days after them

    [row] = told(house, "status")

    assert (row["log_gaps"], row["gaps_recoverable_until"]) == (1, "2026-12-18T00:00:00Z")
    assert "1, which the gateway deletes from 2026-12-18 on (27 days left)" in (
        invoke(house, "status").stdout
    )


@pytest.mark.parametrize("group", ["model", "key", "member", "workspace", "day"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_usage_sums_to_the_whole_in_every_group_and_zone(
    house: House, group: str, zone: str
) -> None:
    span = ["--from", "2026-11-13", "--to", "2026-11-22"]
    rows = told(house, "usage", "--group-by", group, "--tz", zone, *span)

    credits = sum((Decimal(row["credits"]) for row in rows), Decimal(0))
    assert credits == house.value("select sum(credits) from marts.requests")
    assert sum(row["request_count"] for row in rows) == 110


def test_usage_of_a_local_day_is_that_days(house: House) -> None:
    span = ["--from", "2026-11-20", "--to", "2026-11-20"]
    [utc] = told(house, "usage", "--group-by", "day", "--tz", "UTC", *span)
    [kolkata] = told(house, "usage", "--group-by", "day", "--tz", "Asia/Kolkata", *span)

    for row, zone in ((utc, "UTC"), (kolkata, "Asia/Kolkata")):
        assert row["usage_date"] == "2026-11-20"
        assert Decimal(row["credits"]) == house.value(
            "select sum(credits) from marts.requests where "
            f"(completed_at at time zone 'UTC' at time zone '{zone}')::date = '2026-11-20'"
        )
    assert utc["credits"] != kolkata["credits"]


def test_the_last_day_is_the_ninety_six_quarters_before_as_of(house: House) -> None:
    rows = told(house, "usage", "--last", "24h", "--as-of", "2026-11-20T12:07:00Z")

    assert sum((Decimal(row["credits"]) for row in rows), Decimal(0)) == house.value(
        "select sum(credits) from marts.requests where completed_at >= '2026-11-19 12:15' "
        "and completed_at < '2026-11-20 12:15'"
    )


def test_overview_shows_each_workspace_against_its_allowance(house: House) -> None:
    rows = {row["workspace_id"]: row for row in told(house, "overview")}

    assert rows["ws_1"]["workspace_name"] == "Acme"
    assert Decimal(rows["ws_1"]["share_used"]) > 1
    assert [row["workspace_id"] for row in told(house, "overview", "--workspace", "ws_2")] == [
        "ws_2"
    ]


def test_a_request_is_shown_with_the_line_it_was_read_from(house: House) -> None:
    [row] = told(house, "request", "late_evening")
    shown = invoke(house, "request", "late_evening")

    assert row["source_location"].endswith("odd.jsonl")
    assert row["source_line"] == 2
    assert "late_evening" in shown.stdout
    assert "line 2" in shown.stdout


def test_a_request_is_found_by_its_day_or_where_no_index_knows_it_among_all(house: House) -> None:
    with reader.published(house.store) as published:
        by_index = published.request("late_evening")
        asked = []
        published._days_of = lambda request_id: asked.append(request_id) or []  # type: ignore[method-assign]
        among_all = published.request("late_evening")

    assert len(by_index) == 1
    assert by_index == among_all
    assert asked == ["late_evening"]


def test_tables_go_to_standard_output_and_csv_is_csv(house: House) -> None:
    result = invoke(house, "usage", "--format", "csv", "--from", "2026-11-13", "--to", "2026-11-22")

    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert {row["model"] for row in rows} >= {"gpt-5", "sonnet-5"}
    assert result.stderr == ""


# ---- files ----------------------------------------------------------------------------------


def test_the_usage_export_has_the_nine_columns_and_a_manifest_that_proves_it(
    house: House, tmp_path: Path
) -> None:
    span = ["--from", "2026-11-15", "--to", "2026-11-20"]
    result = invoke(house, "export", "usage", *span, "--out", str(tmp_path / "out"))

    assert result.exit_code == 0, result.output
    file = tmp_path / "out" / "usage.csv"
    rows = list(csv.DictReader(file.read_text().splitlines()))
    [stated] = json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]
    assert list(rows[0]) == NINE
    credits = sum((Decimal(row["credits_used"]) for row in rows), Decimal(0))
    assert credits == Decimal(stated["credits"])
    assert credits == house.value("select sum(credits) from marts.requests")
    assert stated["rows"] == len(rows) == 110
    assert stated["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_cells_that_a_spreadsheet_would_run_are_defused_in_csv_only(
    house: House, tmp_path: Path
) -> None:
    span = ["--from", "2026-11-20", "--to", "2026-11-20", "--out"]
    invoke(house, "export", "usage", *span, str(tmp_path / "usage.csv"))
    invoke(house, "export", "usage", *span, str(tmp_path / "usage.parquet"), "--format", "parquet")

    text = (tmp_path / "usage.csv").read_text()
    assert "'=1+1" in text
    assert "'@sum(a1)" in text
    rows = parquet.read_table(tmp_path / "usage.parquet").to_pylist()
    assert ("=1+1", "@sum(a1)") in {(row["request_id"], row["model"]) for row in rows}


def test_doctor_finds_nothing_to_mend_in_a_whole_house(house: House) -> None:
    result = invoke(house, "doctor")

    assert result.exit_code == 0, result.output
    assert "0 of its objects missing" in result.stdout


def test_doctor_says_what_to_mend(tmp_path: Path) -> None:
    poor = House(tmp_path, settings='[warehouse]\nroot = "data"\n')

    result = invoke(poor, "doctor")

    assert result.exit_code == 1
    assert "no [[requests]] block" in result.stdout


# ---- failing --------------------------------------------------------------------------------


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    wrong = House(tmp_path, settings="[warehouse]\nrooot = 'data'\n")

    result = invoke(wrong, "status")

    assert result.exit_code == 1
    assert "unknown setting 'warehouse.rooot'" in result.stderr
    assert "warehouse.root" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["request", "nobody"], "There is no request 'nobody'"),
        (["usage", "--tz", "Mars/Olympus"], "There is no time zone 'Mars/Olympus'"),
        (["overview", "--workspace", "nobody"], "There is no workspace 'nobody'"),
    ],
)
def test_a_failed_command_says_one_sentence_and_exits_1(
    house: House, words: list[str], sentence: str
) -> None:
    result = invoke(house, *words)

    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_a_house_without_a_night_says_what_to_do(tmp_path: Path) -> None:
    new = House(tmp_path)

    for word in ("status", "usage", "overview", "publish", "reconcile", "alerts"):
        result = invoke(new, word)
        assert result.exit_code == 1
        assert "run 'meterhouse nightly' first" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["usage", "--last", "7d", "--from", "2026-11-01", "--to", "2026-11-02"],
        ["usage", "--from", "2026-11-01"],
        ["usage", "--from", "yesterday", "--to", "2026-11-01"],
        ["usage", "--group-by", "colour"],
        ["usage", "--from", "2026-11-03", "--to", "2026-11-01"],
        ["nightly", "--date", "2026-11-20", "--as-of", "2026-11-21"],
        ["nightly", "--as-of", "tomorrow"],
        ["backfill", "--from", "2026-11-03", "--to", "2026-11-01"],
        ["export", "colours", "--from", "2026-11-01", "--to", "2026-11-02", "--out", "x"],
        ["no-such-command"],
    ],
)
def test_wrong_usage_exits_2(house: House, words: list[str]) -> None:
    assert invoke(house, *words).exit_code == 2


def test_a_broken_landing_folder_is_a_sentence_of_the_night(tmp_path: Path) -> None:
    broken = House(
        tmp_path, settings='[[requests]]\nname = "a"\nformat = "no_such"\nlocation = "landing"\n'
    )

    said = broken.ask("nightly", "--date", "2026-11-20")

    assert said.returncode == 1
    assert "there is no format 'no_such'" in said.stderr
    assert "Traceback" not in said.stderr


def test_backfill_and_rebuild_give_the_same_answers(house: House) -> None:
    before = house.answers()

    backfilled = house.ask(
        "backfill", "--from", "2026-11-18", "--to", "2026-11-19", "--as-of", AS_OF
    )
    after_backfill = house.answers()
    rebuilt = house.ask("rebuild")

    assert (backfilled.returncode, rebuilt.returncode) == (0, 0), rebuilt.stderr
    assert after_backfill == before
    assert house.answers() == before


AS_OF = "2026-11-21T00:00:00Z"

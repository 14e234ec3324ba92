"""`meterhouse watch`: an hour lands what is used, holds it against the stored limits, and tells."""

import json
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest

from pipelines import contents, definitions
from tests.houses import House, request

TODAY = date(2026, 11, 20)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """Fifteen days of a key, the night after them, and a morning of five times as much."""
    house = House(tmp_path_factory.mktemp("watch"))
    history = [
        request(f"req_{ago}", f"{TODAY - DAY * ago}T10:00:00Z", credits_used=str(100 + ago % 3))
        for ago in range(1, 16)
    ]
    house.put("requests/history.jsonl", history)
    house.night(datetime(2026, 11, 20))
    house.stored = house.rows(  # type: ignore[attr-defined]
        "select scope, upper_limit from marts.spend_ranges where usage_date = '2026-11-20'"
    )
    house.put(
        "requests/morning.jsonl",
        [
            request("req_a", "2026-11-20T08:00:00Z", credits_used="150"),
            request("req_b", "2026-11-20T11:10:00Z", credits_used="60", api_key_id="key_2"),
        ],
    )
    return house


def watch(house: House, *words: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(
        house.ask("watch", "--format", "json", *words, check=True).stdout
    )
    return found


def test_a_running_total_is_held_against_the_limit_of_the_night_before(house: House) -> None:
    quiet = watch(house, "--as-of", "2026-11-20T12:00:00Z")

    stored = {row["scope"]: str(row["upper_limit"]) for row in house.stored}  # type: ignore[attr-defined]
    assert {row["scope"]: row["upper_limit"] for row in quiet} == stored
    [workspace] = [row for row in quiet if row["scope"] == "workspace"]
    assert (workspace["credits"], workspace["verdict"]) == ("210.000000000", "incomplete")
    # 60 credits in the last three hours: not over the limit before midnight at that pace, or so
    assert workspace["credits_per_hour"] == "20.000000000"
    left = Decimal(str(workspace["upper_limit"])) - 210
    over_at = datetime(2026, 11, 20, 12) + timedelta(hours=float(left / 20))
    expected = over_at.replace(second=0, microsecond=0) if over_at.date() == TODAY else None
    assert workspace["crosses_at"] == (expected and f"{expected.isoformat()}Z")

    house.put("requests/noon.jsonl", [request("req_c", "2026-11-20T12:20:00Z", credits_used=900)])
    dry = watch(house, "--dry-run")
    loud = house.ask("watch", "--as-of", "2026-11-20T13:00:00Z", check=True)

    assert dry == quiet  # nothing was landed
    assert "Today against the limits" in loud.stdout
    alerts = house.rows("select usage_date, state, opened_at from marts.budget_alerts")
    assert {(row["usage_date"], row["state"]) for row in alerts} == {(TODAY, "open")}
    assert house.value("select count(*) from ops.alert_deliveries") > 0

    ids = house.rows("select alert_id from marts.budget_alerts order by 1")
    house.night(datetime(2026, 11, 21), sinks=contents.sinks())
    assert house.rows("select alert_id from marts.budget_alerts order by 1") == ids


def test_who_keeps_watching_does_it_by_the_wall_clock(house: House) -> None:
    said = house.ask("watch", "--every", "1h", "--as-of", "2026-11-20")

    assert said.returncode == 2
    assert "wall clock" in said.stderr


def test_an_hour_lands_what_is_used_and_leaves_money_to_the_night() -> None:
    names = {module.__name__.rpartition(".")[2] for module in contents.watched()}

    assert names == {"requests", "usage_api", "directory"}
    assert {job.name for job in definitions.defs.jobs or ()} == {"nightly", "watch"}


def test_the_hours_of_the_schedule_leave_out_the_one_of_the_night() -> None:
    assert definitions.every_hour.cron_schedule == "15 1-23 * * *"
    assert definitions.every_night.cron_schedule == "30 0 * * *"

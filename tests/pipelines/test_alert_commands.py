"""What a person says of an alert on the command line, and what the next night makes of it."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from exports.alerts import Alert, Answer
from pipelines.models import Built
from tests.houses import AS_OF, House, models_for, request

LATER = AS_OF + timedelta(minutes=1)


class Listener:
    """A sink that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        module = ModuleType("listener")
        module.send = self.send  # type: ignore[attr-defined]
        self.sinks = {"listener": module}

    def send(self, alert: Alert) -> Answer:
        self.told.append((alert.alert_id, alert.transition))
        return Answer("sent", "")


def reached_budget(folder: Path) -> House:
    """A house of one request, with a budget that it has reached; its night is not run yet."""
    house = House(folder)
    house.put("requests/a.jsonl", [request(credits_used="9")])
    house.put(
        "directory/budgets.csv",
        "budget_id,workspace_id,scope,subject_id,threshold_credits,recipients\n"
        "bud_1,ws_1,workspace,,5,ada@acme.example\n",
    )
    return house


@pytest.fixture(scope="module")
def nobody_decided(tmp_path_factory: pytest.TempPathFactory) -> House:
    """After its first night."""
    house = reached_budget(tmp_path_factory.mktemp("undecided") / "house")
    house.night()
    return house


@pytest.fixture
def house(tmp_path: Path, nobody_decided: House) -> House:
    """A copy of it."""
    shutil.copytree(nobody_decided.folder, tmp_path / "house")
    return House(tmp_path / "house")


def alert(house: House) -> dict[str, Any]:
    [row] = house.rows("select * from marts.budget_alerts")
    return row


def test_an_acknowledged_alert_is_published_as_such_by_the_next_night(house: House) -> None:
    alert_id = alert(house)["alert_id"]
    snapshot = house.store.snapshot()

    said = house.ask("alerts", "ack", alert_id, "--note", "Ada is on it")

    assert said.returncode == 0, said.stderr
    assert said.stdout == (
        f"Written down: {alert_id} is acknowledged. The next night publishes it.\n"
    )
    assert house.store.snapshot() == snapshot
    assert alert(house)["state"] == "open"
    house.night()  # the same clock: a decision is an input like any other
    row = alert(house)
    assert (row["state"], row["note"]) == ("acknowledged", "Ada is on it")
    assert row["decided_by"]
    assert house.ask("alerts", "--open", "--format", "json").stdout.strip() == "[]"


def test_the_newest_word_counts_and_a_quiet_night_changes_nothing(house: House) -> None:
    alert_id = alert(house)["alert_id"]
    for words in (["ack", alert_id], ["expected", alert_id], ["snooze", alert_id, "--for", "7d"]):
        assert house.ask("alerts", *words).returncode == 0
    house.night()

    row = alert(house)
    before = house.bytes()
    house.night()

    assert row["state"] == "snoozed"
    assert row["snoozed_until"] - row["decided_at"] == timedelta(days=7)
    assert house.bytes() == before
    decisions = "select decision from raw.decisions order by decided_at"
    assert [line["decision"] for line in house.rows(decisions)] == [
        "acknowledged", "expected", "snoozed",
    ]  # fmt: skip


def test_a_snooze_ends_by_the_nights_clock(house: House) -> None:
    house.ask("alerts", "snooze", alert(house)["alert_id"], "--for", "1h")
    house.night(AS_OF)
    during = alert(house)

    house.night(during["snoozed_until"])

    assert (during["state"], alert(house)["state"]) == ("snoozed", "open")


def test_an_expected_alert_that_nobody_heard_of_is_not_told(house: House) -> None:
    """The first night had no sink; the second has one, and the alert is a minute old."""
    listener, unheeded = Listener(), House(house.folder.parent / "unheeded")
    shutil.copytree(house.folder, unheeded.folder, dirs_exist_ok=True)
    house.ask("alerts", "expected", alert(house)["alert_id"])

    for place in (house, unheeded):
        place.night(LATER, sinks=listener.sinks)

    assert listener.told == [(alert(unheeded)["alert_id"], "opened")]
    assert alert(house)["state"] == "expected"


def test_what_is_expected_of_a_budget_is_no_level_of_any_day(house: House) -> None:
    house.ask("alerts", "expected", alert(house)["alert_id"], check=True)
    house.night()

    assert house.value("select said_of_credits from raw.decisions") is None
    assert house.rows("from staging.expected_levels") == []


def test_expected_is_the_verdict_of_later_days_and_opens_no_earlier_day_again(
    tmp_path: Path,
) -> None:
    house = House(tmp_path / "house", models_for("marts.budget_alerts"))

    def spends(day: int, credits: int) -> None:
        at = f"2026-11-{day}T10:00:00Z"
        house.put(f"requests/{day}.jsonl", [request(f"req_{day}", at, credits_used=f"{credits}")])

    def verdicts() -> list[tuple[int, str]]:
        rows = house.rows(
            "select usage_date, verdict from marts.spend_ranges "
            "where scope = 'key' and usage_date >= '2026-11-20' and credits > 0 order by 1"
        )
        return [(row["usage_date"].day, row["verdict"]) for row in rows]

    for day in range(14, 20):
        spends(day, 10)
    spends(20, 100)
    house.night()

    house.ask("alerts", "expected", alert(house)["alert_id"], check=True)
    happened = house.night()

    judged = [event for event in happened if isinstance(event, Built)]
    assert not [event for event in judged if event.table == "marts.spend_ranges"]
    assert house.value("select judged_until from raw.decisions") == date(2026, 11, 20)
    assert verdicts() == [(20, "high")]

    spends(21, 150)
    house.night(AS_OF + timedelta(hours=12))
    assert verdicts() == [(20, "high"), (21, "expected")]  # a day that is not over
    spends(22, 600)
    house.night(AS_OF + timedelta(days=2))
    assert verdicts() == [(20, "high"), (21, "expected"), (22, "high")]
    opened = house.rows("select usage_date from marts.budget_alerts order by 1")
    assert [row["usage_date"].day for row in opened] == [20, 22]

    at_once = House(tmp_path / "other", house.models)
    shutil.copytree(house.folder / "landing", at_once.folder / "landing")
    shutil.copytree(house.root / "raw" / "decisions", at_once.root / "raw" / "decisions")
    incremental = house.answers()
    house.night(AS_OF + timedelta(days=2), everything=True)
    at_once.is_prepared = False
    at_once.night(AS_OF + timedelta(days=2))
    assert house.answers() == incremental == at_once.answers()


def test_a_budgets_own_recipients_travel_with_its_alert(house: House) -> None:
    assert alert(house)["recipients"] == "ada@acme.example"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ack", "alert_unknown"], 1, "There is no alert 'alert_unknown' in what is published"),
        (["snooze", "alert_unknown", "--for", "7d"], 1, "There is no alert"),
        (["expected", "alert_unknown"], 1, "There is no alert"),
        (["snooze", "alert_unknown"], 2, "--for"),
        (["snooze", "alert_unknown", "--for", "0d"], 2, "write it as 12h, 7d or 2w"),
        (["snooze", "alert_unknown", "--for", "a week"], 2, "write it as 12h, 7d or 2w"),
    ],
)
def test_what_can_not_be_decided_is_said_and_leaves_no_trace(
    nobody_decided: House, words: list[str], code: int, said: str
) -> None:
    done = nobody_decided.ask("alerts", *words)

    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (nobody_decided.root / "raw" / "decisions").exists()


def test_before_the_first_night_there_is_nothing_to_decide(tmp_path: Path) -> None:
    done = House(tmp_path / "new").ask("alerts", "ack", "alert_1")

    assert done.returncode == 1
    assert "meterhouse nightly" in done.stderr


def test_bytes_that_are_no_text_do_not_stop_the_next_night(house: House) -> None:
    note = os.fsdecode(b"caf\xe9 \n closed")

    assert house.ask("alerts", "ack", alert(house)["alert_id"], "--note", note).returncode == 0
    house.night()

    assert alert(house)["note"] == "caf? closed"


def test_decisions_made_at_once_are_all_kept(tmp_path: Path) -> None:
    """Four processes, twenty-five lines each, into one journal."""
    writes = (
        "import sys; from pathlib import Path; from assets.decisions import decide; "
        "from pipelines.store import Store; "
        "journal = Store(Path(sys.argv[1])).journal('raw.decisions')\n"
        "for number in range(25): decide(journal, f'{sys.argv[2]}_{number}', 'expected')"
    )

    def person(name: int) -> None:
        subprocess.run([sys.executable, "-c", writes, str(tmp_path), str(name)], check=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(person, range(4)))

    lines = [
        json.loads(path.read_text())
        for path in (tmp_path / "raw" / "decisions").glob("[0-9]*.json")
    ]
    assert len({line["alert_id"] for line in lines}) == len(lines) == 100
    assert all(datetime.fromisoformat(line["decided_at"]) for line in lines)

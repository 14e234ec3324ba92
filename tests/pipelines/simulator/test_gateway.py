"""The simulated landing folder: the same for ever, believable, and exactly as its truth says.

What it is read with here is the standard library alone, sharing nothing with what wrote it.
"""

import csv
import gzip
import hashlib
import json
from collections import defaultdict
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipelines import settings
from pipelines.simulator.gateway import key_id, simulate

LAST_DAY = date(2026, 11, 20)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gateway")
    simulate(out, days=21, requests_per_day=1200, seed=11, last_day=LAST_DAY)
    return out


def delivered(out: Path) -> list[tuple[date, str]]:
    """Every line with the day of the object it came in, in order of arrival."""
    lines = []
    for path in sorted(out.glob("landing/requests/*/*/requests-*.jsonl*")):
        day = date.fromisoformat(path.name.removeprefix("requests-")[:10])
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        lines += [(day, line) for line in text.splitlines()]
    return lines


@cache
def requests(out: Path) -> list[Row]:
    """Each request once, the version with the most credits."""
    winners: dict[str, Row] = {}
    for _, line in delivered(out):
        try:
            row = json.loads(line, parse_float=Decimal)
        except json.JSONDecodeError:
            continue
        if "request_id" not in row or row["credits_used"] < 0:
            continue
        known = winners.get(row["request_id"])
        if known is None or row["credits_used"] > known["credits_used"]:
            winners[row["request_id"]] = row
    return list(winners.values())


def truth_of(out: Path) -> Row:
    truth: Row = json.loads((out / "truth.json").read_text())
    return truth


def hashes(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def sums(rows: list[Row], *by: str) -> dict[tuple[Any, ...], tuple[int, int, int, int, Decimal]]:
    groups: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0, 0, 0, 0, Decimal(0)])
    for row in rows:
        group = groups[tuple(row[name] for name in by)]
        group[0] += 1
        group[1] += row["status"] >= 400 or row["error_code"] is not None
        group[2] += row["fallback_from"] is not None
        group[3] += row["total_tokens"]
        group[4] += Decimal(row["credits_used"])
    return {key: (g[0], g[1], g[2], g[3], g[4]) for key, g in groups.items()}


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for place in ("one", "two", "other"):
        seed = 5 if place == "other" else 4
        simulate(tmp_path / place, days=15, requests_per_day=60, seed=seed, last_day=LAST_DAY)

    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert hashes(tmp_path / "one") != hashes(tmp_path / "other")


@pytest.mark.parametrize(
    ("table", "by"),
    [
        ("by_day", ["usage_date"]),
        ("by_workspace", ["workspace_id"]),
        ("by_key", ["workspace_id", "api_key_id"]),
        ("by_member", ["workspace_id", "member_id"]),
        ("by_model", ["workspace_id", "model"]),
    ],
)
def test_the_truth_is_what_stands_in_the_files(gateway: Path, table: str, by: list[str]) -> None:
    rows = [row | {"usage_date": row["timestamp"][:10]} for row in requests(gateway)]
    told = {
        tuple(row[name] for name in by): (
            row["request_count"],
            row["error_count"],
            row["fallback_count"],
            row["total_tokens"],
            Decimal(row["credits"]),
        )
        for row in truth_of(gateway)[table]
    }

    assert sums(rows, *by) == told


def test_the_truth_counts_every_line(gateway: Path) -> None:
    truth, lines = truth_of(gateway), delivered(gateway)
    late = {line for day, line in lines if json.loads(line)["timestamp"][:10] < str(day)}
    punctual = {line for day, line in lines if json.loads(line)["timestamp"][:10] == str(day)}

    assert len(lines) == truth["line_count"]
    assert len(lines) - len({line for _, line in lines}) == truth["duplicate_count"] > 0
    assert len(late - punctual) == truth["late_count"] > 0


def test_a_run_has_the_requests_that_were_asked_for(tmp_path: Path) -> None:
    truth = simulate(tmp_path, days=3, requests_per_day=777, seed=1, last_day=LAST_DAY)

    assert truth["total"]["request_count"] == 3 * 777
    assert truth["incidents"] == []


def test_the_four_instants_are_in_order_and_agree_with_the_latency(gateway: Path) -> None:
    for row in requests(gateway):
        names = ("gateway_in_at", "provider_in_at", "provider_out_at", "gateway_out_at")
        stated = [instant(row[name]) for name in names if row[name] is not None]
        assert stated == sorted(stated)
        assert row["timestamp"] == row["gateway_out_at"]
        assert timedelta(milliseconds=row["latency_ms"]) == stated[-1] - stated[0]
        assert row["total_tokens"] == row["prompt_tokens"] + row["completion_tokens"]


def test_credits_survive_a_reader_that_goes_through_binary_floats(gateway: Path) -> None:
    for _, line in delivered(gateway):
        exact = json.loads(line, parse_float=Decimal)["credits_used"]
        assert Decimal(str(json.loads(line)["credits_used"])) == Decimal(exact)
        assert -Decimal(exact).as_tuple().exponent <= 9  # type: ignore[operator]


def test_only_the_playground_names_members_and_only_the_api_names_keys(gateway: Path) -> None:
    who = {
        (row["source"], row["member_id"] is not None, row["api_key_id"] is not None)
        for row in requests(gateway)
    }

    assert who == {("playground", True, False), ("api", False, True)}


def test_every_kind_of_request_occurs(gateway: Path) -> None:
    rows = requests(gateway)

    assert {row["status"] for row in rows} == {200, 400, 413, 429, 499, 503}
    assert {row["fallback_depth"] for row in rows} == {0, 1, 2}
    for row in rows:
        has_fallen_back = row["fallback_from"] is not None
        assert has_fallen_back == (row["fallback_depth"] > 0)
        assert has_fallen_back == (row["model"] not in (row["requested_model"], None))
    images = [row for row in rows if row["model"] == "gpt-image-1"]
    assert images
    assert {row["total_tokens"] for row in images} == {0}
    assert all(row["credits_used"] > 0 for row in images)
    refused = [row for row in rows if row["model"] is None]
    assert {row["credits_used"] for row in refused} == {0}
    assert all(row["error_code"] for row in refused)


def test_an_office_rests_on_sunday_and_a_shop_does_not(gateway: Path) -> None:
    def share_of_sunday(name: str) -> float:
        mine = [row for row in requests(gateway) if row["api_key_id"] == key_id(name)]
        return sum(instant(row["timestamp"]).weekday() == 6 for row in mine) / len(mine)

    assert share_of_sunday("brightleaf-summaries") < 0.03
    assert share_of_sunday("kaveri-search-prod") > 0.07


def test_both_incidents_stand_out_from_their_keys_normal(gateway: Path) -> None:
    incidents = truth_of(gateway)["incidents"]
    daily = sums(
        [row | {"usage_date": row["timestamp"][:10]} for row in requests(gateway)],
        "api_key_id",
        "usage_date",
    )

    assert [incident["kind"] for incident in incidents] == ["leaked_key", "runaway_loop"]
    assert len({incident["workspace_id"] for incident in incidents}) == 2
    assert [incident["usage_date"] for incident in incidents] == ["2026-11-19", "2026-11-20"]
    for incident in incidents:
        assert Decimal(incident["credits"]) > 5 * Decimal(incident["normal_credits"]) + 50
        for day in incident["days"]:
            found = daily[incident["api_key_id"], day["usage_date"]][-1]
            assert Decimal(day["credits"]) == found


def test_a_rotated_key_names_the_one_it_replaces(gateway: Path) -> None:
    with (gateway / "landing/directory/keys.csv").open(encoding="utf-8", newline="") as file:
        keys = {row["api_key_id"]: row for row in csv.DictReader(file)}
    (new,) = (row for row in keys.values() if row["replaces_api_key_id"])
    old = keys[new["replaces_api_key_id"]]

    assert {row["api_key_id"] for row in requests(gateway)} - {None} == keys.keys()
    assert old["revoked_at"] == new["created_at"]
    for row in requests(gateway):
        if row["api_key_id"] in (old["api_key_id"], new["api_key_id"]):
            is_old = row["api_key_id"] == old["api_key_id"]
            assert is_old == (instant(row["timestamp"]) < instant(new["created_at"]))


def test_the_settings_it_writes_are_settings(gateway: Path) -> None:
    read = settings.load(gateway / "meterhouse.toml", {})

    (source,) = read.requests
    assert (source.name, source.gateway, source.format) == ("gateway", "infery", "canonical")
    for location in (source.location, read.directory.location, read.invoices.location):
        assert read.path(location).is_dir()


def test_faults_change_the_lines_and_not_the_truth(tmp_path: Path) -> None:
    clean, faulty = tmp_path / "clean", tmp_path / "faulty"
    faults = ("malformed", "conflicting")
    before = simulate(clean, days=2, requests_per_day=2000, seed=3, last_day=LAST_DAY)
    after = simulate(
        faulty, days=2, requests_per_day=2000, seed=3, last_day=LAST_DAY, faults=faults
    )

    assert after["total"] == before["total"]
    assert after["malformed_count"] == 6
    assert after["conflicting_count"] > 0
    extra = after["malformed_count"] + after["conflicting_count"]
    assert after["line_count"] == len(delivered(faulty)) == before["line_count"] + extra
    credits = sum(Decimal(row["credits_used"]) for row in requests(faulty))
    assert credits == Decimal(before["total"]["credits"])


def test_a_folder_holds_one_simulation(tmp_path: Path) -> None:
    for _ in range(2):
        simulate(tmp_path, days=1, requests_per_day=5, seed=1, last_day=LAST_DAY)

    with pytest.raises(ValueError, match="holds another simulation"):
        simulate(tmp_path, days=1, requests_per_day=5, seed=2, last_day=LAST_DAY)


def test_an_unknown_fault_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no fault 'flood'; there are: conflicting"):
        simulate(tmp_path, days=1, requests_per_day=1, seed=0, last_day=LAST_DAY, faults=["flood"])

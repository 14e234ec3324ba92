"""What a person corrects in a source's settings is applied to what it explains, and to nothing
else.
"""

from datetime import datetime
from pathlib import Path

import pytest

from pipelines.models import Models
from pipelines.night import Event, Published, Told
from tests.houses import House, jsonl, request, spend_log

SOURCE = '[[requests]]\nname = "gateway"\ngateway = "infery"\nlocation = "landing/requests"\n'


@pytest.fixture
def house(tmp_path: Path, some_models: Models) -> House:
    return House(tmp_path / "house", some_models, SOURCE + 'format = "canonical"\n')


def set_source(house: House, *lines: str, format: str = "canonical") -> None:
    text = "".join(f"{line}\n" for line in (f'format = "{format}"', *lines))
    house.config.write_text(SOURCE + text, encoding="utf-8")


def workspaces(house: House) -> dict[str, str | None]:
    rows = house.rows("select request_id, workspace_id from marts.requests")
    return {row["request_id"]: row["workspace_id"] for row in rows}


def said(happened: list[Event]) -> list[str]:
    return [event.sentence for event in happened if isinstance(event, Told)]


# ---- workspace_id ---------------------------------------------------------------------------


def test_a_workspace_set_later_speaks_for_records_that_were_landed_before(house: House) -> None:
    house.put("requests/a.jsonl", [request("none", workspace_id=None), request("own")])
    house.night()
    assert workspaces(house) == {"none": None, "own": "ws_1"}

    for named in ("ws_set", "ws_corrected"):
        set_source(house, f'workspace_id = "{named}"')
        house.night()
        assert workspaces(house) == {"none": named, "own": "ws_1"}
        assert not any(isinstance(event, Published) for event in house.night())

    sums = house.rows("select distinct workspace_id from marts.usage_quarter_hourly")
    assert {row["workspace_id"] for row in sums} == {"ws_1", "ws_corrected"}
    set_source(house)
    house.night()
    assert workspaces(house) == {"none": None, "own": "ws_1"}


def test_a_source_gone_from_the_settings_leaves_its_records_their_workspace(house: House) -> None:
    set_source(house, 'workspace_id = "ws_set"')
    house.put("requests/a.jsonl", [request("a", workspace_id=None)])
    house.night()

    house.config.write_text("", encoding="utf-8")
    house.night()

    assert workspaces(house) == {"a": "ws_set"}


# ---- what decides how an object reads -------------------------------------------------------


def test_an_object_of_which_nothing_was_accepted_is_read_again_in_the_format_corrected(
    house: House,
) -> None:
    house.put("requests/a.jsonl", [spend_log("a"), spend_log("b")])
    house.put("requests/b.jsonl.gz", jsonl([spend_log("c"), "{"]))
    house.night()
    assert house.value("select count(*) from ops.quarantine") == 4

    set_source(house, format="litellm_spendlogs")
    happened = house.night()

    assert sorted(workspaces(house)) == ["a", "b", "c"]
    [aside] = house.rows("from ops.quarantine")
    assert (aside["line_number"], aside["reason"]) == (2, "malformed JSON")
    accounts = house.rows("select read_count, quarantined_count from ops.source_objects order by 2")
    assert [tuple(row.values()) for row in accounts] == [(2, 0), (2, 1)]
    assert not [sentence for sentence in said(happened) if "stay as they were read" in sentence]
    assert not any(isinstance(event, Published) for event in house.night())


def test_an_object_is_read_again_in_the_zone_set_later_and_in_vain_only_once(house: House) -> None:
    house.put("requests/a.jsonl", [request("a", "2026-07-01T12:00:00")])
    house.put("requests/b.jsonl", ["{"])
    house.night()

    set_source(house, 'time_zone = "Europe/London"')
    house.night()

    [row] = house.rows("select request_id, completed_at from marts.requests")
    assert row["completed_at"] == datetime(2026, 7, 1, 11)
    assert house.value("select count(*) from ops.quarantine") == 1
    assert house.value("select count(*) from ops.source_objects") == 2
    assert not any(isinstance(event, Published) for event in house.night())
    set_source(house)
    assert not any(isinstance(event, Published) for event in house.night())


def test_what_was_accepted_under_other_settings_stays_and_that_is_said_once(house: House) -> None:
    set_source(house, 'time_zone = "Europe/London"')
    house.put("requests/a.jsonl", [request("a", "2026-07-01T12:00:00"), "{"])
    house.night()
    before = house.rows("from marts.requests")

    set_source(house, 'time_zone = "Europe/Paris"')
    first, second = house.night(), house.night()

    [sentence] = [sentence for sentence in said(first) if "'gateway'" in sentence]
    assert "stay as they were read" in sentence
    assert said(second) == []
    assert house.rows("from marts.requests") == before


def test_the_price_of_a_credit_matters_only_to_a_format_that_knows_dollars(house: House) -> None:
    house.put("requests/a.jsonl", [request("a")])
    house.night()

    house.config.write_text(
        f'[warehouse]\ncredits_per_usd = 7\n{SOURCE}format = "canonical"\n', encoding="utf-8"
    )

    assert said(house.night()) == []


def test_two_sources_that_share_a_folder_come_to_rest(tmp_path: Path, some_models: Models) -> None:
    other = SOURCE.replace('name = "gateway"', 'name = "proxy"') + 'format = "litellm_spendlogs"\n'
    settings = SOURCE + 'format = "canonical"\n' + other
    house = House(tmp_path / "house", some_models, settings)
    house.put("requests/a.jsonl", [spend_log("a")])
    house.put("requests/b.jsonl", ["{"])

    for _ in range(2):
        house.night()

    assert sorted(workspaces(house)) == ["a"]
    assert house.value("select count(*) from ops.quarantine") == 1
    assert not any(isinstance(event, Published) for event in house.night())

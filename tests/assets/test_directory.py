"""The directory from files: which table a file holds, and what is set aside."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from assets.directory import land


def test_each_file_lands_in_the_table_it_is_named_after(house: Any) -> None:
    house.put(
        "directory/workspaces.csv",
        "workspace_id,name,time_zone,plan,monthly_allowance_credits,cycle_anchor_date,billing_email\n"
        "ws_1,Acme,Europe/Berlin,pro,9000,2026-01-15,ops@acme.example\n",
    )
    house.put(
        "directory/keys.jsonl",
        '{"api_key_id": "key_1", "workspace_id": "ws_1", "created_at": "2026-01-01T00:00:00Z"}\n',
    )
    house.put(
        "directory/members.json", '[{"member_id": "mem_1", "workspace_id": "ws_1", "name": "Ada"}]'
    )
    house.put(
        "directory/budgets-2026.json",
        '{"budget_id": "b_1", "scope": "Key", "subject_id": "key_1", "threshold_percent": 75.5,'
        ' "recipients": ["a@x.example", "b@x.example"]}',
    )

    house.night(land)

    [workspace] = house.rows("raw.workspaces")
    [key] = house.rows("raw.keys")
    [member] = house.rows("raw.members")
    [budget] = house.rows("raw.budgets")
    assert workspace["monthly_allowance_credits"] == Decimal(9000)
    assert workspace["cycle_anchor_date"] == date(2026, 1, 15)
    assert (key["created_at"], key["revoked_at"]) == (datetime(2026, 1, 1), None)
    assert member["name"] == "Ada"
    assert (budget["scope"], budget["threshold_percent"]) == ("key", Decimal("75.5"))
    assert budget["recipients"] == "a@x.example, b@x.example"


def test_a_second_night_lands_nothing_and_a_changed_file_lands_again(house: Any) -> None:
    house.put("directory/members.csv", "member_id,name\nmem_1,Ada\n")
    house.night(land)

    assert not house.night(land)

    house.put("directory/members.csv", "member_id,name\nmem_1,Ada L.\n")

    assert house.night(land)
    assert {row["name"] for row in house.rows("raw.members")} == {"Ada", "Ada L."}


def test_a_zone_that_nobody_knows_is_set_aside(house: Any) -> None:
    house.put(
        "directory/workspaces.csv",
        "workspace_id,time_zone\nws_1,Europe/Berlin\nws_2,Mars/Olympus\nws_3,../secret\nws_4,\n",
    )

    house.night(land)

    assert [row["workspace_id"] for row in house.rows("raw.workspaces")] == ["ws_1", "ws_4"]
    assert [row["line_number"] for row in house.rows("raw.quarantine")] == [3, 4]


def test_a_zone_that_only_python_knows_is_set_aside(house: Any) -> None:
    house.put("directory/workspaces.csv", "workspace_id,time_zone\nws_1,localtime\nws_2,UTC\n")

    house.night(land)

    assert [row["workspace_id"] for row in house.rows("raw.workspaces")] == ["ws_2"]


def test_no_reason_quotes_what_the_record_says(house: Any) -> None:
    house.put("directory/workspaces.csv", "workspace_id,time_zone\nws_1,Ada Lovelace\n")
    house.put("directory/workspaces-2.csv", "workspace_id,cycle_anchor_date\nws_1,Ada Lovelace\n")
    house.put("directory/budgets.csv", "budget_id,scope\nb_1,Ada Lovelace\n")
    house.put("directory/members.jsonl", '{"member_id": "m_1", "Ada Lovelace": "\\u0000"}\n')

    house.night(land)

    reasons = [row["reason"] for row in house.rows("raw.quarantine")]
    assert len(reasons) == 4
    assert not [reason for reason in reasons if "Ada" in reason]


def test_a_file_named_after_nothing_known_is_told_and_not_read(house: Any) -> None:
    house.put("directory/people.csv", "member_id\nmem_1\n")

    assert not house.night(land)
    assert "people.csv" in house.remarks[0]

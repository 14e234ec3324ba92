"""Keys: what a deleted, renamed or rotated one keeps, and what bad directories cannot do."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.houses import AS_OF, House, csv, failed_claims, models_for, request
from tests.sql.makers import DAY, NOON, quarter

Run = Callable[..., list[dict[str, Any]]]


def stated(api_key_id: str, days_later: int = 0, **columns: Any) -> dict[str, Any]:
    """A row of raw.keys, from a directory of its own for each day."""
    return {
        "api_key_id": api_key_id,
        "workspace_id": "ws_1",
        "arrived_at": NOON + timedelta(days=days_later),
        "source_object": f"day {days_later}",
        "source_line": 2,
    } | columns


def listed(*keys: tuple[str, str | None]) -> list[dict[str, Any]]:
    """Rows of staging.keys: each key with the one it replaces."""
    return [{"api_key_id": key, "replaces_api_key_id": before} for key, before in keys]


def lineages(run_model: Run, *keys: tuple[str, str | None]) -> dict[str, tuple[str, int | None]]:
    rows = run_model("staging.key_lineages", {"staging.keys": listed(*keys)})
    assert len(rows) == len({row["api_key_id"] for row in rows})
    return {row["api_key_id"]: (row["lineage_api_key_id"], row["generation"]) for row in rows}


# ---- history --------------------------------------------------------------------------------


def test_a_version_begins_with_each_change_and_not_with_each_delivery(run_model: Run) -> None:
    rows = run_model(
        "staging.key_history",
        {
            "raw.keys": [
                stated("key_1", 0, name="Bot"),
                stated("key_1", 1, name="Bot"),
                stated("key_1", 2, name="Robot"),
                stated("key_1", 3, name=None),
                stated("key_1", 4, name="Bot"),
            ]
        },
    )

    assert [(row["version_number"], row["name"]) for row in rows] == [
        (1, "Bot"), (2, "Robot"), (3, None), (4, "Bot"),
    ]  # fmt: skip
    assert [row["superseded_at"] for row in rows] == [*(r["stated_at"] for r in rows[1:]), None]
    assert rows[1]["stated_at"] == NOON + timedelta(days=2)


def test_of_one_file_the_last_line_of_a_key_counts(run_model: Run) -> None:
    rows = run_model(
        "staging.key_history",
        {"raw.keys": [stated("key_1", name="a"), stated("key_1", name="b", source_line=3)]},
    )

    assert [row["name"] for row in rows] == ["b"]


# ---- lineage --------------------------------------------------------------------------------


def test_rotations_are_followed_to_the_first_key(run_model: Run) -> None:
    found = lineages(run_model, ("key_3", "key_2"), ("key_2", "key_1"), ("key_1", None))

    assert found == {"key_1": ("key_1", 1), "key_2": ("key_1", 2), "key_3": ("key_1", 3)}


def test_a_first_key_that_the_directory_forgot_is_known_by_the_one_after_it(
    run_model: Run,
) -> None:
    found = lineages(run_model, ("key_2", "key_1"), ("other_2", "key_1"))

    assert found == {"key_1": ("key_1", 1), "key_2": ("key_1", 2), "other_2": ("key_1", 2)}


@pytest.mark.parametrize("size", [1, 2, 500])
def test_a_circle_ends_doubles_nothing_and_is_said(run_model: Run, size: int) -> None:
    circle = [(f"c_{number}", f"c_{(number + 1) % size}") for number in range(size)]

    found = lineages(run_model, *circle, ("tail", "c_0"), ("sound", None))

    assert found == {key: (key, None) for key, _ in [*circle, ("tail", "")]} | {
        "sound": ("sound", 1)
    }


def test_a_long_chain_is_walked_once(run_model: Run) -> None:
    chain = [(f"k_{number:04}", f"k_{number - 1:04}") for number in range(1, 300)]

    found = lineages(run_model, *chain)

    assert found["k_0299"] == ("k_0000", 300)


# ---- the dimension --------------------------------------------------------------------------


def test_a_key_keeps_what_it_was_called_and_a_lineage_is_called_by_its_newest(
    run_model: Run,
) -> None:
    names = [("key_1", "Bot", 1), ("key_1", "Robot", 2)]
    rows = run_model(
        "marts.keys",
        {
            "staging.keys": [
                {"api_key_id": "key_1", "workspace_id": "ws_1", "name": "Robot"},
                {"api_key_id": "key_2", "replaces_api_key_id": "key_1", "name": "Robot II"},
                {"api_key_id": "key_3", "replaces_api_key_id": "key_2"},
            ],
            "staging.key_history": [
                {"api_key_id": key, "name": name, "version_number": number}
                for key, name, number in names
            ],
            "staging.key_lineages": [
                {"api_key_id": f"key_{n}", "lineage_api_key_id": "key_1", "generation": n}
                for n in (1, 2, 3)
            ],
        },
    )

    assert [(row["key_name"], row["former_names"]) for row in rows] == [
        ("Robot", ["Bot"]), ("Robot II", []), (None, []),
    ]  # fmt: skip
    assert {row["lineage_name"] for row in rows} == {"Robot II"}


def test_a_key_that_spent_is_there_though_no_directory_names_it(run_model: Run) -> None:
    [row] = run_model(
        "marts.keys",
        {
            "marts.first_spends": [
                {"usage_date": DAY - timedelta(days=n), "workspace_id": f"ws_{n}", "scope": "key",
                 "subject_id": "ghost"}
                for n in (1, 2)
            ]
        },
    )  # fmt: skip

    assert (row["api_key_id"], row["is_in_directory"], row["workspace_id"]) == (
        "ghost", False, "ws_2",
    )  # fmt: skip
    assert (row["lineage_api_key_id"], row["generation"]) == ("ghost", 1)
    assert row["first_spend_date"] == DAY - timedelta(days=2)


def test_the_usage_of_a_key_names_the_key_that_its_rotations_began_with(run_model: Run) -> None:
    rows = run_model(
        "marts.usage_by_key",
        {
            "marts.usage_quarter_hourly": [
                quarter(api_key_id=key) for key in ("key_2", "ghost", None)
            ],
            "staging.key_lineages": [{"api_key_id": "key_2", "lineage_api_key_id": "key_1"}],
        },
        day=DAY,
    )

    assert {row["api_key_id"]: row["lineage_api_key_id"] for row in rows} == {
        "key_2": "key_1", "ghost": "ghost", None: None,
    }  # fmt: skip


# ---- nights ---------------------------------------------------------------------------------


def test_a_rotated_key_reads_as_one_line_and_a_deleted_one_keeps_its_name(tmp_path: Path) -> None:
    house = House(tmp_path / "house", models_for("marts.usage_by_key_lineage"))
    house.put("directory/keys-1.csv", csv([{"api_key_id": "old", "name": "Bot"}]))
    house.put("requests/a.jsonl", [request(key, api_key_id=key) for key in ("old", "new", "x")])
    house.night()
    before = house.rows("from marts.usage_by_key_lineage order by lineage_api_key_id")
    house.put(
        "directory/keys-2.csv",
        csv([{"api_key_id": "new", "name": "Bot, rotated", "replaces_api_key_id": "old"}]).replace(
            "Bot, rotated", '"Bot, rotated"'
        ),
    )

    house.night(AS_OF + timedelta(days=1))

    assert len(before) == 3
    assert [
        (row["lineage_api_key_id"], row["key_name"], row["key_count"], row["credits"])
        for row in house.rows("from marts.usage_by_key_lineage order by lineage_api_key_id")
    ] == [("old", "Bot, rotated", 2, Decimal(5)), ("x", None, 1, Decimal("2.5"))]
    assert house.value("select key_name from marts.usage_by_key where api_key_id = 'old'") == "Bot"


def test_a_renamed_key_has_its_name_of_then_at_each_instant(tmp_path: Path) -> None:
    house = House(tmp_path / "house", models_for("staging.key_history"))
    for name in ("Bot", "Robot"):
        house.put(f"directory/keys-{name}.csv", csv([{"api_key_id": "key_1", "name": name}]))
        house.night()
    [first, second] = house.rows("from staging.key_history order by version_number")
    instants = {
        datetime(2020, 1, 1): "Bot",
        first["stated_at"]: "Bot",
        second["stated_at"] - timedelta(microseconds=1): "Bot",
        second["stated_at"]: "Robot",
        datetime(2030, 1, 1): "Robot",
    }

    found = {
        instant: house.value(f"select key_name from marts.keys_at(timestamp '{instant}')")
        for instant in instants
    }

    assert found == instants


def test_a_circle_in_the_directory_is_said_and_stops_nothing(tmp_path: Path) -> None:
    house = House(tmp_path / "house", models_for("marts.usage_by_key_lineage", "marts.keys"))
    house.put(
        "directory/keys.csv",
        csv([
            {"api_key_id": "a", "replaces_api_key_id": "b"},
            {"api_key_id": "b", "replaces_api_key_id": "a"},
        ]),
    )  # fmt: skip
    house.put("requests/a.jsonl", [request("1", api_key_id="a"), request("2", api_key_id="b")])

    happened = house.night()

    assert "a circle by way of b" in failed_claims(happened)["keys__rotations_form_no_circle"]
    assert house.value("select sum(credits) from marts.usage_by_key_lineage") == 5
    assert house.value("select count(*) from marts.usage_by_key_lineage") == 2
    assert date(2026, 11, 20) == house.value("select max(first_spend_date) from marts.keys")

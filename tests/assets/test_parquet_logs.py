"""Request logs as Parquet: each row is read as a line of JSON would be."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.houses import SETTINGS, House, request, request_models

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, request_models(tmp_path))


def put(house: House, name: str, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), house.put(f"requests/{name}", b""))


def rows(house: House) -> list[dict[str, Any]]:
    return house.rows("select * from raw.requests order by request_id")


def test_rows_land_as_the_same_lines_would(house: House, tmp_path: Path) -> None:
    lines = [request(f"req_{number}", credits_used="0.123456789") for number in range(5)]
    put(house, "a.parquet", lines)
    other = House(tmp_path / "other", request_models(tmp_path / "other"))
    other.put("requests/a.jsonl", lines)

    house.night()
    other.night()

    unlike = {"source_object", "arrived_at"}
    kept = [
        [{name: value for name, value in row.items() if name not in unlike} for row in rows(one)]
        for one in (house, other)
    ]
    assert kept[0] == kept[1]
    assert [row["source_line"] for row in kept[0]] == [1, 2, 3, 4, 5]


def test_typed_columns_keep_every_digit_and_microsecond(house: House) -> None:
    credits = Decimal("123456789.123456789")
    instant = AT.replace(microsecond=123456)
    row = request() | {"credits_used": credits, "timestamp": instant, "workspace_id": b"ws_1"}
    put(house, "a.parquet", [row])

    house.night()

    [found] = rows(house)
    assert found["credits"] == credits
    assert found["completed_at"] == instant.replace(tzinfo=None)
    assert found["workspace_id"] == "ws_1"


@pytest.mark.parametrize(("zone", "hours"), [("", []), ("Asia/Tokyo", [1])])
def test_an_instant_without_a_zone_needs_the_sources_time_zone(
    tmp_path: Path, zone: str, hours: list[int]
) -> None:
    stated = SETTINGS.replace('format = "canonical"', f'format = "canonical"\ntime_zone = "{zone}"')
    house = House(tmp_path, request_models(tmp_path), stated if zone else SETTINGS)
    put(house, "a.parquet", [request() | {"timestamp": AT.replace(tzinfo=None)}])

    house.night()

    assert [row["completed_at"].hour for row in rows(house)] == hours
    assert house.value("select count(*) from ops.quarantine") == 1 - len(hours)


def test_a_row_that_cannot_be_read_is_set_aside_by_its_place(house: House) -> None:
    lines = [request("a"), request("b") | {"credits_used": "-1"}, request("c")]
    put(house, "a.parquet", lines)

    house.night()

    assert [row["request_id"] for row in rows(house)] == ["a", "c"]
    assert house.value("select line_number from ops.quarantine") == 2


@pytest.mark.parametrize(
    "content", [b"PAR1 and no more", b"{}\n", b"PAR1" + bytes(64) + b"PAR1"], ids=repr
)
def test_what_is_no_parquet_is_quarantined_whole(house: House, content: bytes) -> None:
    house.put("requests/a.parquet", content)
    house.put("requests/b.jsonl", [request()])

    house.night()

    assert [row["request_id"] for row in rows(house)] == ["req_1"]
    assert house.value("select line_number is null from ops.quarantine")


def test_a_name_that_is_a_pattern_is_a_name(house: House) -> None:
    put(house, "a[1]*?.parquet", [request()])

    house.night()

    assert [row["request_id"] for row in rows(house)] == ["req_1"]


def test_the_same_file_again_changes_nothing(house: House) -> None:
    put(house, "a.parquet", [request()])
    house.night()
    put(house, "b.parquet", [request()])
    house.night()

    assert len(rows(house)) == 1

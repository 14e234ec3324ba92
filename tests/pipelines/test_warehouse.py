"""`warehouse.duckdb`: opened by any DuckDB from 1.4 on, documented, and mended after a move."""

import shutil
import struct
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from pipelines import contents, warehouse
from pipelines.models import Models
from tests.houses import House, furnish, published, request, request_models

STORAGE_OF_1_4 = 67


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("furnished") / "house")
    furnish(house, first_day=19)
    house.night()
    return house


def copy_of(house: House, folder: Path) -> House:
    """The same house elsewhere, for a test that changes it."""
    shutil.copytree(house.folder, folder / "house")
    return House(folder / "house")


def test_its_storage_version_is_one_that_1_4_can_open(furnished: House) -> None:
    head = (furnished.root / "warehouse.duckdb").read_bytes()[:20]

    assert head[8:12] == b"DUCK"
    assert struct.unpack("<Q", head[12:20]) == (STORAGE_OF_1_4,)


def test_it_carries_the_id_of_its_snapshot(furnished: House) -> None:
    snapshot = furnished.store.snapshot()

    assert snapshot is not None
    assert furnished.value("select snapshot_id from ops.snapshot") == snapshot.snapshot_id
    assert warehouse.published_id(furnished.store) == snapshot.snapshot_id


def test_every_table_and_every_documented_column_has_its_comment(furnished: House) -> None:
    without = furnished.rows(
        "select schema_name, table_name from duckdb_tables() where comment is null "
        "and database_name = 'warehouse' union all select schema_name, view_name from "
        "duckdb_views() where comment is null and not internal and database_name = 'warehouse'"
    )
    columns = furnished.rows(
        "select schema_name || '.' || table_name as name, column_name, comment "
        "from duckdb_columns() where comment is not null and database_name = 'warehouse'"
    )
    commented = {(row["name"], row["column_name"]): row["comment"] for row in columns}

    assert without == []
    for model in contents.models().order:
        for column in set(model.documentation) & set(model.columns):
            assert commented[model.name, column] == model.documentation[column]


def test_daily_and_money_marts_are_tables_and_requests_are_views(furnished: House) -> None:
    tables = {row["table_name"] for row in furnished.rows("select table_name from duckdb_tables()")}

    assert {"usage_by_model", "usage_by_key", "usage_by_member", "invoice_reconciliation"} <= tables
    assert {"requests", "usage_quarter_hourly"}.isdisjoint(tables)


def test_its_macro_sums_local_days_exactly(furnished: House) -> None:
    total = furnished.value("select sum(credits) from marts.requests")

    for group in ("model", "key", "member", "workspace", "day"):
        for zone in ("UTC", "Asia/Kolkata"):
            rows = furnished.rows(
                f"from marts.usage('2026-11-18', '2026-11-21', group_by := '{group}', "
                f"time_zone := '{zone}')"
            )
            assert sum((row["credits"] for row in rows), Decimal(0)) == total


def test_publish_mends_a_moved_root(furnished: House, tmp_path: Path) -> None:
    moved = House(tmp_path / "moved")
    shutil.copytree(furnished.folder, moved.folder, dirs_exist_ok=True)
    original, gone = furnished.root, furnished.folder / "gone"
    original.rename(gone)
    try:
        with published(moved.root) as connection, pytest.raises(duckdb.Error):
            connection.execute("select count(*) from marts.requests").fetchall()
        said = moved.ask("status")
        assert said.returncode in (0, 1)

        mended = moved.ask("publish")

        assert mended.returncode == 0, mended.stderr
        assert moved.value("select count(*) from marts.requests") == 60
    finally:
        gone.rename(original)


def test_a_reader_keeps_the_file_it_opened(furnished: House, tmp_path: Path) -> None:
    house = copy_of(furnished, tmp_path)
    text = (house.folder / "landing" / "requests" / "2026-11-20.jsonl").read_text()
    total = "select sum(request_count) from marts.usage_by_key"

    with published(house.root) as before:
        count = before.execute(total).fetchall()
        house.put("requests/c.jsonl", text.replace("leak_", "more_"))
        house.night()
        assert before.execute(total).fetchall() == count

    assert house.value("select count(*) from marts.requests where request_id like 'more_%'") == 12


def told(house: House) -> dict[str, object]:
    """All that the file tells: rows, comments, views and macros."""
    with published(house.root) as connection:

        def rows(sql: str) -> list[str]:
            return sorted(map(str, connection.execute(sql).fetchall()))

        names = connection.execute(
            "select schema_name || '.' || table_name from duckdb_tables() "
            "where database_name = 'warehouse' union all select schema_name || '.' || view_name "
            "from duckdb_views() where not internal and database_name = 'warehouse'"
        ).fetchall()
        said: dict[str, object] = {name: rows(f"select * from {name}") for (name,) in names}
        for what, columns in (
            ("tables()", "schema_name, table_name, comment, sql"),
            ("views()", "schema_name, view_name, comment, sql"),
            ("columns()", "schema_name, table_name, column_name, data_type, comment"),
            ("functions()", "schema_name, function_name, comment"),
        ):
            said[what] = rows(
                f"select {columns} from duckdb_{what} "
                "where not internal and database_name = 'warehouse'"
            )
    return said


def test_night_after_night_it_is_what_it_would_be_made_anew(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    furnish(house, first_day=20)
    house.night()
    text = (house.folder / "landing" / "requests" / "2026-11-20.jsonl").read_text()
    sizes = []
    for number, day in enumerate(("20", "19")):
        later = text.replace("leak_", f"more_{number}_").replace("2026-11-20", f"2026-11-{day}")
        house.put(f"requests/more-{number}.jsonl", later)
        house.night()
        mended = told(house)
        sizes.append((house.root / "warehouse.duckdb").stat().st_size)
        head = (house.root / "warehouse.duckdb").read_bytes()[:20]
        assert struct.unpack("<Q", head[12:20]) == (STORAGE_OF_1_4,)

        snapshot = house.store.snapshot()
        assert snapshot is not None
        warehouse.build(house.store, snapshot, house.models, anew=True)

        assert told(house) == mended
    assert house.ask("publish").returncode == 0
    assert told(house) == mended
    assert max(sizes) < 3 * min(sizes)


def test_a_model_that_is_gone_or_says_something_else_is_not_taken_over(tmp_path: Path) -> None:
    house = House(tmp_path / "house", request_models(tmp_path / "sql"))
    model = tmp_path / "sql" / "marts" / "brief.sql"
    model.write_text(
        "-- A day.\n--\n-- grain: usage_date\n"
        "select usage_date, 1 as one, from staging.requests where usage_date = $day group by 1\n"
    )
    house.models = Models(contents.raw_tables(), tmp_path / "sql")
    house.put("requests/a.jsonl", [request("a"), request("b", "2026-11-19T10:00:00Z")])
    house.night()
    assert house.value("select sum(one) from marts.brief") == 2

    model.write_text(model.read_text().replace("1 as one,", "2::bigint as one,  -- more\n"))
    house.models = Models(contents.raw_tables(), tmp_path / "sql")
    house.night()
    assert house.value("select sum(one) from marts.brief") == 4
    columns = "select comment from duckdb_columns() where column_name = 'one'"
    assert house.value(columns) == "more"

    model.unlink()
    house.models = Models(contents.raw_tables(), tmp_path / "sql")
    house.night()
    assert house.value("select count(*) from duckdb_tables() where table_name = 'brief'") == 0


def test_a_broken_file_is_made_again_by_the_next_night(furnished: House, tmp_path: Path) -> None:
    house = copy_of(furnished, tmp_path)
    (house.root / "warehouse.duckdb").write_bytes(b"not a database")

    house.night()

    assert house.value("select count(*) from marts.requests") == 60

"""Files for elsewhere: whole or not at all, proved by their manifest, harmless to a spreadsheet."""

import csv
import hashlib
import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from exports.files import ExportError, write_export

DAY = date(2026, 11, 20)
NINE = [
    "timestamp", "model", "api_key_id", "prompt_tokens", "completion_tokens",
    "credits_used", "request_id", "latency_ms", "fallback_depth",
]  # fmt: skip


@pytest.fixture
def warehouse() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("create schema marts")
    connection.execute(
        """create table marts.requests as select
            'req_' || i as request_id, timestamp '2026-11-20 12:00:00.5' as completed_at,
            date '2026-11-20' as usage_date, 'gpt-4o' as model, 'key_1' as api_key_id,
            10 as prompt_tokens, 2 as completion_tokens, 0.100000001::decimal(18, 9) as credits,
            70 as latency_ms, null::integer as fallback_depth
        from range(3) as numbers (i)"""
    )
    return connection


def export(
    warehouse: duckdb.DuckDBPyConnection, target: Path, form: str = "csv"
) -> dict[str, object]:
    return write_export(warehouse, "usage", DAY, DAY, form, target)


def test_the_usage_csv_has_the_gateways_nine_columns(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    export(warehouse, tmp_path / "out")

    with (tmp_path / "out" / "usage.csv").open(newline="") as file:
        header, first, *_ = csv.reader(file)
    assert header == NINE
    assert first == [
        "2026-11-20T12:00:00.500000Z", "gpt-4o", "key_1", "10", "2",
        "0.100000001", "req_0", "70", "",
    ]  # fmt: skip


def test_the_manifest_proves_the_file(warehouse: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    export(warehouse, tmp_path / "out")

    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    [file] = manifest["files"]
    content = (tmp_path / "out" / file["path"]).read_bytes()
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert (file["rows"], file["bytes"]) == (3, len(content))
    assert Decimal(file["credits"]) == Decimal("0.300000003")
    assert manifest["schema_version"] == 1


def test_parquet_keeps_decimals_and_two_exports_share_a_manifest(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    export(warehouse, tmp_path)
    export(warehouse, tmp_path, "parquet")

    kinds = dict(
        warehouse.sql(
            f"select column_name, column_type from (describe from '{tmp_path / 'usage.parquet'}')"
        ).fetchall()
    )
    assert kinds["credits_used"] == "DECIMAL(18,9)"
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [file["path"] for file in manifest["files"]] == ["usage.csv", "usage.parquet"]


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1", "\r=1", " =1", "\u00a0=1", "\x0b=1", "＝1"]
)
def test_a_cell_that_a_spreadsheet_would_run_is_defused(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path, cell: str
) -> None:
    warehouse.execute("update marts.requests set model = ?", [cell])

    export(warehouse, tmp_path)

    with (tmp_path / "usage.csv").open(newline="") as file:
        assert {row["model"] for row in csv.DictReader(file)} == {f"'{cell}"}


def test_a_file_that_can_not_be_written_leaves_nothing(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file, not a folder")

    with pytest.raises(ExportError, match="can't be written"):
        export(warehouse, tmp_path / "out" / "usage.csv")


def test_the_nights_own_folder_is_not_written_over(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text('{"snapshot_id": "abc", "files": []}')

    with pytest.raises(ExportError, match="name another folder"):
        export(warehouse, tmp_path)


def test_a_suffix_against_the_format_is_a_mistake(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="make them agree"):
        export(warehouse, tmp_path / "out.csv", "parquet")


def test_days_are_the_first_and_last_included(
    warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    warehouse.execute(
        "update marts.requests set usage_date = date '2026-11-21' where request_id = 'req_1'"
    )

    manifest = write_export(warehouse, "usage", DAY, datetime(2026, 11, 21).date(), "csv", tmp_path)

    assert manifest["files"][-1]["rows"] == 3

"""Gateway invoices from files: every record accepted or set aside, nothing landed twice."""

import gzip
import hashlib
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.gateway_invoices import land

INVOICE = {
    "infery_invoice_id": "inv_1",
    "workspace_id": "ws_1",
    "kind": "topup",
    "issued_at": "2026-11-02T10:00:00+01:00",
    "currency": "USD",
    "net_minor": "1000",
    "vat_minor": "200",
    "total_minor": "1200",
    "credits": "1000.5",
    "payment_intent_id": "",
    "stripe_invoice_id": "in_1",
    "status": "Paid",
    "pdf_url": "",
    "receipt_url": "",
}


def csv(*rows: dict[str, Any]) -> str:
    lines = [",".join(INVOICE)] + [
        ",".join(str(row.get(name, "")) for name in INVOICE) for row in rows
    ]
    return "\n".join(lines) + "\n"


def test_an_invoice_becomes_a_typed_row(house: Any) -> None:
    house.put("invoices/2026-11.csv", csv(INVOICE))

    house.night(land)

    [row] = house.rows("raw.invoices")
    assert row["issued_at"] == datetime(2026, 11, 2, 9)
    assert (row["currency"], row["total_minor"], row["status"]) == ("usd", 1200, "paid")
    assert row["credits"] == Decimal("1000.5")
    assert row["payment_intent_id"] is None
    assert row["source_line"] == 2


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "json", "parquet"])
def test_every_shape_of_file_gives_the_same_row(house: Any, suffix: str) -> None:
    content: str | bytes = csv(INVOICE)
    if suffix == "csv.gz":
        content = gzip.compress(csv(INVOICE).encode())
    elif suffix == "jsonl":
        content = json.dumps(INVOICE | {"total_minor": 1200, "credits": 1000.5}) + "\n"
    elif suffix == "json":
        content = json.dumps([INVOICE], indent=1)
    elif suffix == "parquet":
        typed = INVOICE | {
            "total_minor": 1200,
            "issued_at": datetime(2026, 11, 2, 9),
            "credits": Decimal("1000.5"),
        }
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([typed]), sink)
        content = sink.getvalue().to_pybytes()
    house.put(f"invoices/a.{suffix}", content)

    house.night(land)

    [row] = house.rows("raw.invoices")
    assert (row["infery_invoice_id"], row["total_minor"], row["issued_at"], row["credits"]) == (
        "inv_1",
        1200,
        datetime(2026, 11, 2, 9),
        Decimal("1000.5"),
    )


def test_the_same_content_again_under_any_name_changes_nothing(house: Any) -> None:
    house.put("invoices/a.csv", csv(INVOICE))
    assert house.night(land)

    house.put("invoices/b.csv", csv(INVOICE))
    house.put("invoices/c.csv.gz", gzip.compress(csv(INVOICE).encode()))

    assert not house.night(land)


def test_an_empty_file_is_remembered_and_holds_no_record(house: Any) -> None:
    house.put("invoices/a.csv", "")
    house.night(land)

    assert not house.night(land)
    assert [row["read_count"] for row in house.rows("raw.files")] == [0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "settled"}, "status is none of draft, open, paid, void, uncollectible"),
        ({"status": ""}, "status is missing"),
        ({"infery_invoice_id": " "}, "infery_invoice_id is missing"),
        ({"total_minor": "12.5"}, "total_minor is not a whole number"),
        ({"total_minor": "1,200"}, "cells under"),
        ({"net_minor": "999"}, "net_minor 999 + vat_minor 200 is not total_minor 1200"),
        ({"issued_at": "2026-11-02"}, "issued_at is not an RFC 3339 instant"),
        ({"issued_at": "2026-11-02T10:00:00"}, "issued_at has no zone"),
        ({"currency": "dollars"}, "no currency code"),
        ({"credits": "-1"}, "credits is negative"),
        ({"credits": "1.0000000001"}, "more than nine places"),
        ({"kind": "gift"}, "kind is none of subscription, topup"),
    ],
)
def test_what_cannot_be_read_is_set_aside_with_its_line(
    house: Any, change: dict[str, str], reason: str
) -> None:
    bad = INVOICE | change
    house.put("invoices/a.csv", csv(INVOICE, bad, INVOICE | {"infery_invoice_id": "inv_3"}))

    house.night(land)

    text = csv(bad).splitlines()[1].encode()
    [aside] = house.rows("raw.quarantine")
    assert reason in aside["reason"]
    quoted = [value for value in change.values() if value.isalpha() and value in aside["reason"]]
    assert quoted == []
    assert (aside["line_number"], aside["byte_length"], aside["source"]) == (
        3,
        len(text),
        "invoices",
    )
    assert aside["line_sha256"] == hashlib.sha256(text).hexdigest()
    assert [row["infery_invoice_id"] for row in house.rows("raw.invoices")] == ["inv_1", "inv_3"]
    [account] = house.rows("raw.files")
    assert (account["read_count"], account["accepted_count"], account["quarantined_count"]) == (
        3,
        2,
        1,
    )


def test_a_missing_column_sets_every_row_aside(house: Any) -> None:
    house.put("invoices/a.csv", "infery_invoice_id,status\ninv_1,paid\ninv_2,open\n")

    house.night(land)

    assert [row["line_number"] for row in house.rows("raw.quarantine")] == [2, 3]


def test_columns_stand_in_any_order_and_case_and_others_are_dropped(house: Any) -> None:
    names = [name.upper() for name in reversed(INVOICE)] + ["note"]
    house.put(
        "invoices/a.csv",
        ",".join(names) + "\n" + ",".join([*reversed(INVOICE.values()), "x"]) + "\n",
    )

    house.night(land)

    assert [row["total_minor"] for row in house.rows("raw.invoices")] == [1200]


def test_a_whole_file_that_cannot_be_trusted_is_set_aside_once(house: Any) -> None:
    house.put("invoices/a.csv.gz", gzip.compress(csv(INVOICE).encode())[:-9])
    house.put("invoices/b.json", '[{"infery_invoice_id": "inv_1"')
    house.night(land)

    assert {row["line_number"] for row in house.rows("raw.quarantine")} == {None}
    assert len(house.rows("raw.quarantine")) == 2
    assert not house.night(land)


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_record(house: Any) -> None:
    house.put("invoices/a.csv", b"\xef\xbb\xbf" + csv(INVOICE).replace("\n", "\r\n").encode())

    house.night(land)

    assert [row["infery_invoice_id"] for row in house.rows("raw.invoices")] == ["inv_1"]


def test_an_unclosed_quote_is_one_record_to_the_end(house: Any) -> None:
    house.put("invoices/a.csv", csv(INVOICE) + '"inv_2,ws_1\ninv_3,ws_1\n')

    house.night(land)

    [aside] = house.rows("raw.quarantine")
    assert (aside["line_number"], aside["reason"]) == (3, "an unclosed quote")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "malformed JSON"),
        ("{} {}", "more than one JSON value on the line"),
        ("[]", "not a JSON object"),
        ('{"total_minor": NaN}', "NaN is no JSON number"),
        ('{"status": "paid", "status": "open"}', "a field is given twice"),
        ('{"infery_invoice_id": 7}', "infery_invoice_id is not text"),
        (r'{"infery_invoice_id": "\u0000"}', "holds a character"),
    ],
)
def test_odd_json_lines_are_set_aside_by_their_line(house: Any, line: str, reason: str) -> None:
    house.put("invoices/a.jsonl", json.dumps(INVOICE) + "\n\n" + line + "\n")

    house.night(land)

    [aside] = house.rows("raw.quarantine")
    assert aside["line_number"] == 3
    assert reason in aside["reason"]


def test_two_bad_records_of_one_json_array_have_places_of_their_own(house: Any) -> None:
    house.put("invoices/a.json", json.dumps([INVOICE, {}, 7]))

    house.night(land)

    assert [row["line_number"] for row in house.rows("raw.quarantine")] == [2, 3]


def test_files_of_one_night_arrive_in_the_order_of_their_names(house: Any) -> None:
    house.put("invoices/2026-11-02.csv", csv(INVOICE | {"status": "void"}))
    house.put("invoices/2026-11-01.csv", csv(INVOICE | {"status": "open"}))

    house.night(land)

    rows = sorted(house.rows("raw.invoices"), key=lambda row: row["arrived_at"])
    assert [row["status"] for row in rows] == ["open", "void"]


def test_what_is_no_object_is_skipped_and_an_unknown_suffix_is_told(house: Any) -> None:
    for name in ("_draft.csv", ".hidden.csv", "a.csv.tmp", "a.part", "notes.txt"):
        house.put(f"invoices/{name}", csv(INVOICE))

    assert not house.night(land)
    assert len(house.remarks) == 1
    assert "notes.txt" in house.remarks[0]


def test_no_folder_is_no_invoice(house: Any) -> None:
    assert not house.night(land)

"""How results look: exact for machines, readable for people."""

import json
from datetime import date, datetime
from decimal import Decimal

import pytest

from pipelines.screens import bar, money, number, show

ROW = {
    "model": None,
    "usage_date": date(2026, 11, 20),
    "as_of": datetime(2026, 11, 20, 12),
    "credits": Decimal("0.000000001"),
}


def test_json_never_loses_a_digit(capsys: pytest.CaptureFixture[str]) -> None:
    show([ROW], "json")

    assert json.loads(capsys.readouterr().out) == [
        {
            "model": None,
            "usage_date": "2026-11-20",
            "as_of": "2026-11-20T12:00:00Z",
            "credits": "0.000000001",
        }
    ]


def test_csv_has_a_header_and_empty_cells_for_null(capsys: pytest.CaptureFixture[str]) -> None:
    show([ROW], "csv")

    assert capsys.readouterr().out.splitlines() == [
        "model,usage_date,as_of,credits",
        ",2026-11-20,2026-11-20T12:00:00Z,0.000000001",
    ]


def test_nothing_is_said_in_words_to_people_and_as_an_empty_list_to_machines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show([], "json")
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234567, "1,234,567"),
        (Decimal("1234.5"), "1,234.50"),
        (Decimal("3.000000000"), "3"),
        (Decimal("0.000012300"), "0.0000123"),
        (Decimal("-2.25"), "-2.25"),
    ],
)
def test_numbers_read_easily(value: Decimal | int, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("minor", "currency", "shown"),
    [(1440, "gbp", "14.40 GBP"), (500, "jpy", "500 JPY"), (-1234, "kwd", "-1.234 KWD")],
)
def test_money_stands_in_major_units_of_its_currency(minor: int, currency: str, shown: str) -> None:
    assert money(minor, currency) == shown


def test_a_share_beyond_the_allowance_is_a_full_bar() -> None:
    assert bar(2.05).plain == "████████████ 205%"

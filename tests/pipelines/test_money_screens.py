"""What a finance person sees of `meterhouse reconcile` and `meterhouse invoices`: at any width no
amount is cut short; what needs a person, how much of it, in which currency and since when stand in
the first lines; and an invoice has one line.
"""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from pipelines import cli, screens
from pipelines.screens import once_each

Row = dict[str, Any]


def judged(item: str, status: str, standing: str, difference: int, **stated: Any) -> Row:
    return {
        "item_id": item,
        "item_kind": "invoice",
        "workspace_id": "ws_harbour",
        "status": status,
        "standing": standing,
        "currency": "usd",
        "total_minor": 123_456_789,
        "kept_minor": 123_456_789,
        "difference_minor": difference,
        "reason": f"Invoice {item} over USD 1,234,567.89 is told of in a long sentence.",
        "opened_at": None if standing == "agrees" else datetime(2026, 11, 3),
        "age_days": None if standing == "agrees" else 17,
    } | stated


ROWS = [
    judged("inv_1", "missing_in_stripe", "needs_person", -123_456_789),
    judged("inv_2", "overpaid", "needs_person", 1_000_050),
    judged("inv_3", "workspace_mismatch", "needs_person", 0, currency="jpy"),
    judged("inv_4", "in_flight", "waits", -50_000, currency="kwd"),
    judged("inv_5", "matched", "agrees", 0),
]
PACKS = [
    {
        "item_id": "inv_1",
        "backing": "unbacked",
        "currency": "usd",
        "unbacked_minor": 123_456_789,
        "ungranted_minor": 0,
        "unbacked_credits": Decimal("9000.5"),
        "held_credits": Decimal(0),
        "ungranted_credits": None,
    }
]


def billed(invoice: str, workspace: str, **stated: Any) -> Row:
    return {
        "invoice_id": invoice,
        "workspace_id": "ws_1",
        "workspace_name": workspace,
        "kind": "subscription",
        "issued_at": datetime(2026, 11, 3, 9),
        "currency": "usd",
        "net_minor": 100_000_000,
        "vat_minor": 23_456_789,
        "total_minor": 123_456_789,
        "credits": Decimal("1234567.000000000"),
        "status": "uncollectible",
        "billing_email": "accounts.payable@harbour-and-sons.example",
    } | stated


BILLED = [
    billed("INF-202611-0001", "Harbour & Sons Logistics and Forwarding"),
    billed("INF-202611-0002", "Kaveri Commerce", status="paid", currency="jpy"),
]


@pytest.fixture(params=[80, 120, 160])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Console:
    """A terminal of this width, recorded."""
    console = Console(record=True, width=request.param, highlight=False, quiet=False)
    monkeypatch.setattr(screens, "out", console)
    monkeypatch.setattr(cli, "out", console)
    return console


def test_no_amount_and_no_day_is_cut_short_at_any_width(screen: Console) -> None:
    cli.show_reconciliation(ROWS, "table", False, PACKS)

    text = screen.export_text()
    assert "…" not in text
    assert "1,234,567.89" in text
    assert "10,000.50" in text


def test_the_first_lines_say_what_needs_a_person_how_much_and_since_when(screen: Console) -> None:
    cli.show_reconciliation(ROWS, "table", False, PACKS)

    lines = screen.export_text().splitlines()
    [needs] = [line for line in lines[:8] if "needs_person" in line]
    assert "JPY" in needs
    dollars = lines[lines.index(needs) + 1]
    for word in ("USD", "1,234,567.89", "10,000.50", "2026-11-03"):
        assert word in dollars
    assert "needs_person" not in dollars  # said once


def test_a_cause_without_unexplained_money_still_names_its_currency(screen: Console) -> None:
    cli.show_reconciliation(ROWS, "table", False)

    [line] = [line for line in screen.export_text().splitlines() if "workspace mismatch" in line]
    assert "JPY" in line


def test_packs_that_no_money_stands_behind_are_told_beside_it(screen: Console) -> None:
    cli.show_reconciliation(ROWS, "table", False, PACKS)

    [line] = [line for line in screen.export_text().splitlines() if "granted, unpaid" in line]
    assert "9,000.50" in line
    assert "1,234,567.89" in line


def test_what_agrees_is_told_one_by_one_only_when_asked_for(screen: Console) -> None:
    cli.show_reconciliation(ROWS, "table", False)
    assert "inv_5" not in screen.export_text()

    cli.show_reconciliation(ROWS, "table", True)
    assert "inv_5" in screen.export_text()


def test_a_column_is_said_once_until_one_before_it_changes() -> None:
    rows = [{"a": a, "b": b} for a, b in [(1, "x"), (1, "x"), (1, "y"), (2, "y")]]

    assert [(row["a"], row["b"]) for row in once_each(rows, "a", "b")] == [
        (1, "x"),
        ("", ""),
        ("", "y"),
        (2, "y"),
    ]


def test_an_invoice_is_one_line_on_which_no_amount_and_no_day_is_cut(screen: Console) -> None:
    cli.show_invoices([dict(row) for row in BILLED], "table")

    lines = [line for line in screen.export_text().splitlines() if "2026-11-03" in line]
    assert len(lines) == len(BILLED)
    for line, total in zip(lines, ("1,234,567.89 USD", "123,456,789 JPY"), strict=True):
        assert total in line
        assert " 1,234,567 " in line  # credits
        assert len(line.rstrip()) <= screen.width
    assert "Kaver" in lines[1]
    if screen.width >= cli.WIDE:
        assert "1,000,000.00" in lines[0]
        assert "234,567.89" in lines[0]


def test_a_narrow_screen_shows_a_common_invoice_whole(screen: Console) -> None:
    amounts = {
        "net_minor": 1_200,
        "vat_minor": 240,
        "total_minor": 1_440,
        "credits": Decimal(1_000),
    }
    common = billed("INF-202611-0029", "Harbour Analytics", status="open", **amounts)
    cli.show_invoices([common], "table")

    text = screen.export_text()
    for word in ("INF-202611-0029", "Harbour Analytics", "2026-11-03", "14.40 USD", "1,000"):
        assert word in text
    [line] = [line for line in text.splitlines() if "INF-" in line]
    assert "open" in line


def test_machines_get_an_invoice_with_every_column_and_whole_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.show_invoices([dict(row) for row in BILLED], "json")

    first, _ = json.loads(capsys.readouterr().out)
    assert first.keys() == BILLED[0].keys()
    assert first["workspace_name"] == "Harbour & Sons Logistics and Forwarding"
    assert first["issued_at"] == "2026-11-03T09:00:00Z"


def test_no_invoices_are_said_in_words(screen: Console) -> None:
    cli.show_invoices([], "table")

    assert "No invoices have arrived." in screen.export_text()

"""How results look: one list of rows as a table for people, as CSV, or as JSON (contract, "Command
line").

Decimals are text in JSON and never lose a digit; tables go to standard output, progress and
warnings to standard error.
"""

import csv
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 120  # where there is no terminal to ask
WIDE, WIDEST = 110, 140  # from so many columns on, more of what is known has room


def _console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    asked = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, highlight=False, width=None if asked else PIPED_WIDTH)


out = _console()
err = _console(stderr=True)

EXPONENTS = dict.fromkeys(
    [
        "bif",
        "clp",
        "djf",
        "gnf",
        "jpy",
        "kmf",
        "krw",
        "mga",
        "pyg",
        "rwf",
        "vnd",
        "vuv",
        "xaf",
        "xof",
        "xpf",
    ],
    0,
)
EXPONENTS |= dict.fromkeys(["bhd", "jod", "kwd", "omr", "tnd"], 3)

VERDICT_STYLES = {
    "agrees": "green",
    "waits": "yellow",
    "needs_person": "bold red",
    "open": "bold red",
    "escalated": "bold red",
    "closed": "dim",
    "acknowledged": "yellow",
    "paid": "green",
    "void": "dim",
    "uncollectible": "red",
    "draft": "dim",
}


def plain(value: Any) -> Any:
    """A value as JSON and CSV state it: decimals as text, instants as RFC 3339 UTC."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    if isinstance(value, date):
        return value.isoformat()
    return value


# A cell that a spreadsheet would run as a formula, also behind blanks (OWASP ASVS 1.2.10).
FORMULA = re.compile(r"[\s\x00\x0b\x85]*[=+\-@＝＋－＠]|[\t\r\x00]")


def defused(value: Any) -> Any:
    """A CSV cell: text that would run as a formula gets an apostrophe, numbers stay numbers."""
    if isinstance(value, str) and FORMULA.match(value):
        return f"'{value}"
    return plain(value)


def show(
    rows: Sequence[Mapping[str, Any]],
    form: str,
    *,
    title: str = "",
    columns: Sequence[str] | None = None,
    totals: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    cut_short: Collection[str] = (),
    nothing: str = "Nothing to show.",
) -> None:
    """Prints rows in the form asked for. `columns`: which of them a table shows; `totals`: which it
    sums in a last line; `cut_short`: whose text ends in an ellipsis where there is no room for it,
    these in this order, so that a row stays one line.
    """
    if form == "json":
        sys.stdout.write(
            json.dumps(
                [{k: plain(v) for k, v in row.items()} for row in rows],
                indent=2,
                ensure_ascii=False,
            )
            + "\n"
        )
    elif form == "csv":
        names = list(rows[0]) if rows else list(columns or ())
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow(["" if row[name] is None else defused(row[name]) for name in names])
    elif not rows:
        out.print(Text(nothing, style="dim"))
    else:
        out.print(
            as_table(
                rows,
                title=title,
                columns=columns,
                totals=totals,
                labels=labels,
                cut_short=cut_short,
            )
        )


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Prints names and what is known of them, one a line. Values are text, never markup."""
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="dim")
    grid.add_column()
    for name, value in facts:
        grid.add_row(Text(name), Text(value))
    out.print(grid)


def as_table(
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "",
    columns: Sequence[str] | None = None,
    totals: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    cut_short: Collection[str] = (),
) -> Table:
    """Rows as a table of the terminal's width: numbers to the right with thousands set apart, null
    as a dot. On a narrow screen, or where text is cut short, columns stand closer.
    """
    names = list(columns or rows[0])
    folded = FOLDED.difference(cut_short)
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=bool(cut_short) or out.width < WIDE,
        show_footer=bool(totals),
        header_style="dim",
    )
    for name in names:
        footer = Text("total", style="bold") if totals and name == names[0] else Text("")
        if name in totals:
            values = (row[name] for row in rows if row[name] is not None)
            footer = Text(number(sum(values, start=Decimal(0))), style="bold")
        is_numeric = any(_is_number(row[name]) for row in rows) or name.endswith(MONEY)
        table.add_column(
            (labels or {}).get(name, LABELS.get(name, name.replace("_", " "))),
            justify="right" if is_numeric and name != "share_used" else "left",
            footer=footer,
            no_wrap=is_numeric or name not in folded,
            overflow="fold" if name in folded else "ellipsis",
        )
    for row in rows:
        table.add_row(*(cell(name, row[name], row) for name in names))
    if cut_short:
        _narrow(table, [names.index(name) for name in cut_short if name in names])
    return table


def _narrow(table: Table, short: Sequence[int]) -> None:
    """Lets these columns alone give way where a table is wider than the screen, the first of them
    first: no amount or day is cut for a name's sake.
    """
    unbound = out.options.update(max_width=UNBOUND)
    excess = Measurement.get(out, unbound, table).maximum - out.width
    for at in short:
        column = table.columns[at]
        width = max(cell_len(str(text)) for text in [column.header, *column.cells])
        column.max_width = min(width, max(width - excess, SHORTEST))
        excess -= width - column.max_width


MISSING = {
    "workspace_id": "unassigned",
    "workspace_name": "unassigned",
    "model": "unassigned",
    "api_key_id": "unassigned",
    "key_name": "unassigned",
    "member_id": "all API calls",
    "member_name": "all API calls",
}
LONGEST_ID = 28
SHORTEST = 10  # characters that are left of a name
UNBOUND = 10_000  # characters: wider than any table
MONEY = (
    "_minor",
    "amount",
    "net",
    "vat",
    "billed",
    "kept",
    "unexplained",
    "too_little",
    "too_much",
)
FOLDED = {
    "billing_email",
    "reason",
    "message",
    "subject",
    "item_id",
    "key_name",
    "workspace_name",
    "model",
}
LABELS = {
    "request_count": "requests",
    "error_count": "errors",
    "fallback_count": "fallbacks",
    "total_tokens": "tokens",
    "workspace_id": "workspace",
    "workspace_name": "workspace",
    "key_name": "key",
    "member_name": "member",
    "usage_date": "day",
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def cell(name: str, value: Any, row: Mapping[str, Any]) -> Text:
    if value is None and name.removesuffix("_name") in ("key", "workspace", "member"):
        stem = "api_key" if name == "key_name" else name.removesuffix("_name")
        value = row.get(f"{stem}_id")  # a thing without a name is called by its id
        name = f"{stem}_id"
    if value is None:
        return Text(MISSING.get(name, "·"), style="dim")
    if name == "share_used":
        return bar(float(value))
    if name.endswith("_minor"):
        return Text(money(value, str(row.get("currency") or "")))
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int | float | Decimal):
        return Text(number(value))
    if isinstance(value, datetime):
        return Text(f"{value:%Y-%m-%d %H:%M}")
    if name.endswith("_id") and len(str(value)) > LONGEST_ID:  # a hash: CSV and JSON have it whole
        value = f"{str(value)[: LONGEST_ID - 1]}…"
    style = VERDICT_STYLES.get(str(value), "") if name in ("standing", "state", "status") else ""
    if (name, value) == ("status", "open"):  # an invoice's: nothing is wrong with it yet
        style = "yellow"
    return Text(str(value), style=style)


def number(value: Any) -> str:
    """A number for reading: thousands set apart, two places; small ones keep two digits that count.
    CSV and JSON are exact.
    """
    if isinstance(value, int) or (
        isinstance(value, Decimal) and value == value.to_integral_value()
    ):
        return f"{int(value):,}"
    if abs(value) >= Decimal("0.01"):
        return f"{value:,.2f}"
    return f"{value:.2g}" if isinstance(value, float) else f"{value:.9f}".rstrip("0")


def once_each(rows: Sequence[Mapping[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Rows of a table in which these columns are said once, not again in each line below: a column
    stands again where one before it changes.
    """
    said: list[Any] = []
    shown = []
    for row in rows:
        values = [row[name] for name in names]
        same = next(
            (at for at, (a, b) in enumerate(zip(values, said, strict=False)) if a != b), None
        )
        same = same if same is not None else len(values) if said else 0
        shown.append(dict(row) | dict.fromkeys(names[:same], ""))
        said = values
    return shown


def counted(count: int | Decimal | None, noun: str) -> str:
    """`1 day`, `45 days`."""
    return f"{number(int(count or 0))} {noun}{'' if count == 1 else 's'}"


def money(minor: int, currency: str) -> str:
    """Minor units as major ones with the currency's code; never added across currencies."""
    exponent = EXPONENTS.get(currency, 2)
    return f"{Decimal(minor).scaleb(-exponent):,.{exponent}f} {currency.upper()}".strip()


def bar(share: float, width: int = 12) -> Text:
    """A share of an allowance, drawn."""
    full = max(0, min(width, round(share * width)))
    style = "red" if share >= 1 else "yellow" if share >= 0.75 else "green"
    return Text.assemble(("█" * full, style), ("░" * (width - full), "dim"), f" {share:4.0%}")

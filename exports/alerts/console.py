"""Tells an alert to whoever looks at the terminal, or reads the log of last night's run."""

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from exports.alerts import Alert, Answer

COLOURS = {"opened": "red", "escalated": "bright_red", "closed": "green"}


def send(alert: Alert) -> Answer:
    """Prints a panel to standard error (contract: warnings go there)."""
    Console(stderr=True).print(panel(alert))
    return Answer("sent", "printed")


def panel(alert: Alert) -> Panel:
    """The alert as a box: what happened, since when, and why. Names are text, never markup."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    facts.add_row("since", f"{alert.opened_at:%Y-%m-%d %H:%M} UTC")
    if alert.closed_at is not None:
        facts.add_row("until", f"{alert.closed_at:%Y-%m-%d %H:%M} UTC")
    if alert.highest_credits != alert.credits:
        facts.add_row("highest day", f"{alert.highest_credits:,.2f} credits")
    facts.add_row("driven by", Text(alert.cause))
    colour = COLOURS[alert.transition]
    title = f"{alert.kind} {alert.transition}"
    if alert.may_repeat:
        title += ", may repeat an earlier one"
    news = [Text(alert.message, style="bold")]
    if alert.transition != "opened":
        headline = alert.headline[:1].upper() + alert.headline[1:]
        news = [Text(headline, style="bold"), Text(alert.message)]
    return Panel(
        Group(*news, "", facts),
        title=title,
        title_align="left",
        subtitle=alert.alert_id,
        subtitle_align="right",
        border_style=colour,
        width=100,
    )

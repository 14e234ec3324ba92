"""Tells an alert to whoever looks at the terminal, or reads the log of last night's run."""

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from exports.alerts import Alert, Answer
from exports.alerts.words import MOST_MEMBERS, contribution, headline, instant, numbers, title

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
    if alert.kind == "digest":
        for one in alert.members[:MOST_MEMBERS]:
            repeats = ", may repeat an earlier one" if one.may_repeat else ""
            said = f"{one.highest_credits:,.2f} credits, {title(one).lower()}{repeats}"
            facts.add_row(Text(one.subject), Text(said))
    else:
        for name, text in numbers(alert):
            facts.add_row(name.lower(), Text(text))
        facts.add_row("opened", instant(alert.opened_at))
        facts.add_row("driven by", Text(alert.cause))
        for part in alert.contributors:
            facts.add_row("spent by", Text(f"{contribution(part)}: {part.credits:,.2f} credits"))
        for line in (alert.also or "").split("\n"):
            if line:
                facts.add_row("with it", Text(line))
    colour = COLOURS[alert.transition]
    name = title(alert)
    if alert.may_repeat:
        name += ", may repeat an earlier one"
    news = [Text(alert.message, style="bold")]
    if alert.transition != "opened":
        news = [Text(headline(alert), style="bold"), Text(alert.message)]
    return Panel(
        Group(*news, "", facts),
        title=name,
        title_align="left",
        subtitle=alert.alert_id,
        subtitle_align="right",
        border_style=colour,
        width=100,
    )

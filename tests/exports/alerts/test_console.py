"""The console sink: a panel a person can read at a glance."""

from collections.abc import Callable
from typing import Any

import pytest

from exports.alerts import Alert, Answer, console

Rows = Callable[..., dict[str, Any]]


def printed(alert: Alert, capsys: pytest.CaptureFixture[str]) -> str:
    assert console.send(alert) == Answer("sent", "printed")
    out, err = capsys.readouterr()
    assert out == ""  # standard output is for tables
    return err


def test_the_panel_says_what_how_much_and_why(
    capsys: pytest.CaptureFixture[str], alert_row: Rows
) -> None:
    text = printed(Alert.of(alert_row(), "opened"), capsys)

    for part in ("Billing bot", "1,234.50", "5.0 times", "480.00", "2026-11-18 09:15", "gpt-5"):
        assert part in text


def test_a_name_is_never_markup(capsys: pytest.CaptureFixture[str], alert_row: Rows) -> None:
    row = alert_row(message="[red]bot[/red] spent", cause="[/nonsense]")

    text = printed(Alert.of(row, "opened", may_repeat=True), capsys)

    assert "[red]bot[/red] spent" in text
    assert "[/nonsense]" in text
    assert "may repeat" in text


@pytest.mark.parametrize("kind", ["anomaly", "drift", "woke", "budget"])
@pytest.mark.parametrize("transition", ["opened", "escalated", "closed"])
def test_every_kind_has_a_headline(kind: str, transition: str, alert_row: Rows) -> None:
    row = alert_row(kind=kind, expected=None, ratio=None)

    headline = Alert.of(row, transition).headline  # type: ignore[arg-type]

    assert 'key "Billing bot" in Acme' in headline

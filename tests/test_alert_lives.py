"""The life of an alert from a leaked key to its last mail, end to end: whole nights, the command
line, and real servers that take the messages.
"""

import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from exports.alerts import email, slack, webhook
from tests.houses import House, Line, request
from tests.receivers import HttpReceiver, MailReceiver

LAST = datetime(2026, 11, 20)  # the day of the leak
NIGHT = LAST + timedelta(days=1)
SINKS = {"email": email, "slack": slack, "webhook": webhook}


def used(day: datetime, key: int, credits: float, count: int = 4) -> list[Line]:
    """A key's day: a few requests of as many credits each, by the hour."""
    return [
        request(
            f"req_{day:%m%d}_{key}_{number}",
            f"{day:%Y-%m-%d}T{8 + number:02}:00:00Z",
            api_key_id=f"key_{key}",
            model="gpt-5" if key % 2 else "sonnet-5",
            credits_used=f"{credits}",
        )
        for number in range(count)
    ]


def arrives(house: House, day: datetime, leaked: float = 0.0) -> None:
    """A day of six keys; the first one's requests are leaked ones where there are credits."""
    lines = [line for key in range(2, 7) for line in used(day, key, 10 + key % 3)]
    house.put(f"requests/{day:%Y-%m-%d}.jsonl", [*lines, *used(day, 1, leaked or 2.0, 8)])


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[MailReceiver, HttpReceiver, HttpReceiver]]:
    with MailReceiver().running(), HttpReceiver().running():
        pass
    post, chat, hook = MailReceiver(), HttpReceiver(), HttpReceiver()
    with post.running(), chat.running(), hook.running():
        yield post, chat, hook


Servers = tuple[MailReceiver, HttpReceiver, HttpReceiver]


def furnished(folder: Path, servers: Servers, is_new: bool = False) -> House:
    post, chat, hook = servers
    house = House(
        folder,
        environment={
            "METERHOUSE_ALERTS_EMAIL_SMTP_HOST": "127.0.0.1",
            "METERHOUSE_ALERTS_EMAIL_SMTP_PORT": str(post.port),
            "METERHOUSE_ALERTS_EMAIL_RECIPIENTS": "ops@example.com",
            "METERHOUSE_ALERTS_SLACK_URL": chat.url,
            "METERHOUSE_ALERTS_WEBHOOK_URL": hook.url,
            "METERHOUSE_ALERTS_WEBHOOK_SECRET": "canary",
        },
    )
    if is_new:
        for number in range(24, 0, -1):
            arrives(house, LAST - timedelta(days=number))
        arrives(house, LAST, leaked=60.0)
    return house


@pytest.fixture(scope="module")
def leaked(tmp_path_factory: pytest.TempPathFactory, servers: Servers) -> House:
    """A workspace of six keys, one of them leaked, after the night that found it out."""
    house = furnished(tmp_path_factory.mktemp("leaked") / "house", servers, is_new=True)
    for server in servers:
        server.taken.clear()
    house.night(NIGHT, sinks=SINKS)
    return house


@pytest.fixture(scope="module")
def told(leaked: House, servers: Servers) -> list[list[Any]]:
    """What each server took in that night."""
    return [list(server.taken) for server in servers]


@pytest.fixture
def house(tmp_path: Path, leaked: House, told: list[list[Any]], servers: Servers) -> House:
    """A copy of it, and servers that have forgotten."""
    shutil.copytree(leaked.folder, tmp_path / "house")
    for server in servers:
        server.taken.clear()
    return furnished(tmp_path / "house", servers)


def alert(house: House) -> dict[str, Any]:
    [row] = house.rows("select * from marts.budget_alerts order by usage_date")
    return row


def night(house: House, days: int, leaked: float = 0.0, **options: Any) -> None:
    """The night after so many days more, on the last of which a request costs the key that much."""
    for number in range(1, days + 1):
        day = LAST + timedelta(days=number)
        if not (house.folder / "landing" / "requests" / f"{day:%Y-%m-%d}.jsonl").exists():
            arrives(house, day, leaked if number == days else 0.0)
    house.night(NIGHT + timedelta(days=days), sinks=SINKS, **options)


def headlines(servers: Servers) -> list[str]:
    return [str(mail["Subject"]).removeprefix("[Meterhouse] ") for mail in servers[0].taken]


def test_one_leaked_key_in_a_workspace_of_many_is_one_mail_one_message_and_one_event(
    leaked: House, told: list[list[Any]]
) -> None:
    mails, messages, events = told

    assert alert(leaked)["scope"] == "key"
    assert "Workspace ws_1: " in alert(leaked)["also"]
    assert (len(mails), len(messages), len(events)) == (1, 1, 1)
    [mail] = mails
    assert isinstance(mail, EmailMessage)
    assert mail["Subject"].startswith("[Meterhouse] Key key_1 in ws_1 spent 480.00 credits, 30.0 t")
    body = mail.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    for part in ("20 Nov        480.00 credits", "30.0 times the usual", "Workspace ws_1: "):
        assert part in text
    assert [part for part in mail.walk() if part.get_content_type() == "image/png"]
    event = json.loads(events[0].body)
    assert event["data"]["alert_id"] == alert(leaked)["alert_id"]
    assert events[0].headers["X-Infery-Signature"] == webhook.signature(events[0].body, "canary")


def test_what_the_sinks_answered_is_published_by_sink(leaked: House) -> None:
    rows = leaked.rows("select sink, transition, outcome from ops.alert_deliveries order by sink")

    assert rows == [
        {"sink": sink, "transition": "opened", "outcome": "sent"}
        for sink in ("email", "slack", "webhook")
    ]


def test_expected_silences_that_level_and_no_more_also_after_a_rebuild(
    house: House, servers: Servers
) -> None:
    house.ask("alerts", "expected", alert(house)["alert_id"], "--note", "a load test", check=True)

    night(house, 1, leaked=100.0)  # 800 credits: not twice 480
    assert (headlines(servers), alert(house)["state"]) == ([], "expected")
    before = house.answers()
    house.night(NIGHT + timedelta(days=1), sinks=SINKS, everything=True)
    assert (headlines(servers), house.answers()) == ([], before)

    night(house, 2, leaked=130.0)  # 1,040
    [headline] = headlines(servers)
    assert headline.startswith("Key key_1 in ws_1 spent 1,040.00 credits")
    states = house.rows("select state, usage_date from marts.budget_alerts order by usage_date")
    assert [row["state"] for row in states] == ["expected", "open"]


def test_unheeded_the_second_day_escalates_and_the_end_is_told(
    house: House, servers: Servers
) -> None:
    night(house, 1, leaked=130.0)
    night(house, 6)

    assert headlines(servers) == [
        "Escalated: key key_1 in ws_1 now at 1,040.00 credits a day",
        "Key key_1 in ws_1 is back to normal",
    ]
    first, last = servers[0].taken
    assert first["In-Reply-To"] == last["In-Reply-To"]


def test_acknowledged_it_escalates_only_beyond_twice_what_was_known_also_after_a_rebuild(
    house: House, servers: Servers
) -> None:
    night(house, 1, leaked=100.0)  # 800 credits, which is known when it is acknowledged
    house.ask("alerts", "ack", alert(house)["alert_id"], check=True)

    night(house, 2, leaked=130.0, everything=True)  # 1,040: twice 480, but not twice 800
    assert (headlines(servers), alert(house)["state"]) == ([], "acknowledged")
    night(house, 3, leaked=220.0)  # 1,760
    assert [line[:10] for line in headlines(servers)] == ["Escalated:"]
    assert alert(house)["state"] == "escalated"


def test_snoozed_nothing_is_told_until_it_ends_also_after_a_rebuild(
    house: House, servers: Servers
) -> None:
    house.ask("alerts", "snooze", alert(house)["alert_id"], "--for", "2d", check=True)
    night(house, 1, leaked=130.0, everything=True)
    assert (headlines(servers), alert(house)["state"]) == ([], "snoozed")

    # the snooze began now, which is later than the days of this house
    house.night(alert(house)["snoozed_until"], sinks=SINKS)

    assert "back to normal" in headlines(servers)[-1]

"""The life of an alert from a leaked key to its last mail, end to end: whole nights, the command
line, and real servers that take the messages.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from exports.alerts import email, slack, webhook
from pipelines.models import SQL
from tests.houses import ROLL_UPS, House, Line, request, request_models
from tests.receivers import HttpReceiver, MailReceiver

LAST = datetime(2026, 11, 20)  # the day of the leak
NIGHT = LAST + timedelta(days=1)
SINKS = {"email": email, "slack": slack, "webhook": webhook}
ALERTS = [
    f"{path.parent.name}/{path.stem}"
    for path in sorted(SQL.rglob("*.sql"))
    if path.stem.startswith(("alert_", "budget", "expected_", "spend_", "usage_by_key_and_model"))
]

# A workspace for each story, with three keys, the first of which leaks.
EXPECTED, HEEDED, SNOOZED, UNHEEDED = WORKSPACES = ("ws_1", "ws_2", "ws_3", "ws_4")
HOURLY = "ws_5"  # is over before anybody can say by which key
MERGED = "ws_6"  # so, too, and from the next hour on it is one key's, for good
NEW_MODELS = ("a-1", "b-1", "c-1", "d-1")


def arrives(house: House, day: datetime, **leaked: float) -> None:
    """A day of every workspace: `ws_1=60.0` is what each of eight requests of its leaked key takes.

    The other keys, and that one on other days, make four requests of some ten credits.
    """
    lines: list[Line] = []
    for workspace in WORKSPACES:
        for key in range(3):
            of_leak = leaked.get(workspace, 0.0) if key == 0 else 0.0
            lines += [
                request(
                    f"req_{day:%m%d}_{workspace}_{key}_{number}",
                    f"{day:%Y-%m-%d}T{8 + number:02}:00:00Z",
                    workspace_id=workspace,
                    api_key_id=f"key_{workspace[3:]}{key}",
                    model="gpt-5" if key % 2 else "sonnet-5",
                    credits_used=f"{of_leak or 10 + key}",
                )
                for number in range(8 if of_leak else 4)
            ]
    house.put(f"requests/{day:%Y-%m-%d}.jsonl", lines)


def spends(
    house: House, at: datetime, key: str, *models: str, credits: float, workspace: str = HOURLY
) -> None:
    """An hour of a key of a workspace: four requests on each model, of so many credits each."""
    key = f"{key}_{workspace[3:]}"
    house.put(
        f"requests/{at:%Y-%m-%dT%H}_{key}.jsonl",
        [
            request(
                f"req_{at:%m%dT%H}_{key}_{model}_{number}",
                f"{at:%Y-%m-%dT%H}:{number:02}:00Z",
                workspace_id=workspace,
                api_key_id=key,
                model=model,
                credits_used=f"{credits}",
            )
            for model in models
            for number in range(4)
        ],
    )


class Story:
    """The house, its servers, and what they took in each of its nights."""

    def __init__(self, house: House, *servers: MailReceiver | HttpReceiver) -> None:
        self.house = house
        self.servers = servers
        self.taken: dict[str, tuple[list[Any], ...]] = {}
        self.states: dict[str, dict[str, str]] = {}
        self.verdicts: dict[str, dict[tuple[str, int], str]] = {}  # of keys, by their days
        self.hourly: dict[str, dict[str, Any]] = {}  # the alerts of `HOURLY`, by their scope

    def night(self, name: str, as_of: datetime, **options: Any) -> None:
        for server in self.servers:
            server.taken.clear()
        self.house.night(as_of, sinks=SINKS, **options)
        self.taken[name] = tuple(list(server.taken) for server in self.servers)
        rows = self.house.rows("from marts.budget_alerts order by usage_date")
        self.states[name] = {row["workspace_id"]: row["state"] for row in rows}
        self.hourly[name] = {row["scope"]: row for row in rows if row["workspace_id"] == HOURLY}
        found = self.house.rows(
            "select subject_id, usage_date, verdict from marts.spend_ranges where scope = 'key'"
        )
        self.verdicts[name] = {
            (row["subject_id"], row["usage_date"].day): row["verdict"] for row in found
        }

    def mails(self, name: str, workspace: str) -> list[str]:
        """The subjects of a night's mails about a workspace."""
        subjects = [str(mail["Subject"]).strip() for mail in self.taken[name][0]]
        return [text.partition("] ")[2] for text in subjects if workspace in text]

    def events(self, name: str, workspace: str) -> list[dict[str, Any]]:
        """A night's events about a workspace."""
        found = [json.loads(event.body) for event in self.taken[name][2]]
        return [event for event in found if event["workspace_id"] == workspace]

    def alert(self, workspace: str) -> dict[str, Any]:
        """A workspace's first alert, as published now."""
        return self.house.rows(
            f"from marts.budget_alerts where workspace_id = '{workspace}' order by usage_date"
        )[0]


@pytest.fixture(scope="module")
def story(once: Callable[..., Any]) -> Story:
    """As lived by whichever worker came first; its house is only looked at."""
    folder, lived = once("alert_lives", live)
    told = Story(House(folder / "house"))
    vars(told).update(lived)
    return told


def live(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Three hours, and six nights: the leak, three days on which it goes on, one of them rebuilt,
    and the end.
    """
    post, chat, hook = MailReceiver(), HttpReceiver(), HttpReceiver()
    with post.running(), chat.running(), hook.running():
        models = request_models(
            folder / "sql",
            *ROLL_UPS,
            *ALERTS,
            *("staging/budgets", "staging/workspaces"),
        )
        house = House(
            folder / "house",
            models,
            environment={
                "METERHOUSE_ALERTS_EMAIL_SMTP_HOST": "127.0.0.1",
                "METERHOUSE_ALERTS_EMAIL_SMTP_PORT": str(post.port),
                "METERHOUSE_ALERTS_EMAIL_RECIPIENTS": "ops@example.com",
                "METERHOUSE_ALERTS_SLACK_URL": chat.url,
                "METERHOUSE_ALERTS_WEBHOOK_URL": hook.url,
                "METERHOUSE_ALERTS_WEBHOOK_SECRET": "canary",
            },
        )
        told = Story(house, post, chat, hook)
        for number in range(15, 0, -1):
            arrives(house, LAST - timedelta(days=number))
            for workspace in (HOURLY, MERGED):
                at = LAST - timedelta(days=number)
                spends(house, at, "key_old", "gpt-5", credits=10, workspace=workspace)
        # a key and models that nobody knows: only the workspace has a range
        for workspace in (HOURLY, MERGED):
            new = {"credits": 20, "workspace": workspace}
            spends(house, LAST.replace(hour=8), "key_new", *NEW_MODELS, **new)
        told.night("nine", LAST.replace(hour=9))
        for workspace in (HOURLY, MERGED):
            old = {"credits": 500, "workspace": workspace}
            spends(house, LAST.replace(hour=10), "key_old", "gpt-5", **old)
        told.night("eleven", LAST.replace(hour=11))
        spends(house, LAST.replace(hour=12), "key_new", *NEW_MODELS, credits=200)
        told.night("thirteen", LAST.replace(hour=13))
        arrives(house, LAST, **dict.fromkeys(WORKSPACES, 60.0))  # 480 credits
        told.night("leak", NIGHT)

        house.ask("alerts", "expected", told.alert(EXPECTED)["alert_id"], check=True)
        snooze = ("snooze", told.alert(SNOOZED)["alert_id"], "--for", "2d")
        house.ask("alerts", *snooze, check=True)
        arrives(house, LAST + timedelta(days=1), ws_1=100.0, ws_2=100.0, ws_3=130.0, ws_4=130.0)
        for workspace in (HOURLY, MERGED):
            spends(
                house, NIGHT.replace(hour=8), "key_old", "gpt-5", **old | {"workspace": workspace}
            )
        spends(house, NIGHT.replace(hour=8), "key_new", *NEW_MODELS, credits=200)
        told.night("second", NIGHT + timedelta(days=1))

        # 800 credits are known when it is acknowledged
        house.ask("alerts", "ack", told.alert(HEEDED)["alert_id"], check=True)
        told.night("rebuilt", NIGHT + timedelta(days=1), everything=True)

        arrives(house, LAST + timedelta(days=2), ws_1=130.0, ws_2=130.0)
        told.night("third", NIGHT + timedelta(days=2))

        arrives(house, LAST + timedelta(days=3), ws_2=220.0)
        told.night("fourth", NIGHT + timedelta(days=3))

        arrives(house, LAST + timedelta(days=4))
        arrives(house, LAST + timedelta(days=5))
        told.night("end", NIGHT + timedelta(days=5))
    return folder, {
        name: kept for name, kept in vars(told).items() if name not in ("house", "servers")
    }


def test_one_leaked_key_in_a_workspace_of_many_is_one_mail_one_message_and_one_event(
    story: Story,
) -> None:
    mails, messages, events = story.taken["leak"]

    assert len(mails) == len(messages) == len(events) == len(WORKSPACES)
    [mail] = [mail for mail in mails if UNHEEDED in mail["Subject"]]
    assert isinstance(mail, EmailMessage)
    assert story.mails("leak", UNHEEDED) == [
        "Key key_40 in ws_4 spent 480.00 credits, 12.0 times the expected"
    ]
    body = mail.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    for part in (
        "20 Nov        480.00 credits",
        "12.0 times the usual",
        "Workspace ws_4: 572.00 credits",  # a line, not a mail of its own
        "key_40 on sonnet-5, 20 Nov",
        "credits an hour",
        "Since         2026-11-20 08:00 UTC",
    ):
        assert part in text
    assert [part for part in mail.walk() if part.get_content_type() == "image/png"]
    for event in events:
        assert event.headers["X-Infery-Signature"] == webhook.signature(event.body, "canary")
    ids = {json.loads(event.body)["data"]["alert_id"] for event in events}
    assert {story.alert(workspace)["alert_id"] for workspace in WORKSPACES} == ids


def test_expected_silences_that_level_and_no_more_also_after_a_rebuild(story: Story) -> None:
    # 800 credits: not twice 480
    for night in ("second", "rebuilt"):
        assert (story.mails(night, EXPECTED), story.states[night][EXPECTED]) == ([], "expected")
    [headline] = story.mails("third", EXPECTED)
    assert headline.startswith("Key key_10 in ws_1 spent 1,040.00 credits")
    rows = story.house.rows(
        f"select usage_date, decision from marts.budget_alerts where workspace_id = '{EXPECTED}' "
        "order by usage_date"
    )
    assert [(row["usage_date"].day, row["decision"]) for row in rows] == [
        (20, "expected"),
        (22, None),
    ]


def test_the_expected_level_is_the_verdict_of_its_days_also_after_a_rebuild(story: Story) -> None:
    verdicts = story.verdicts["end"]
    leak = [verdicts["key_10", day] for day in (20, 21, 22, 23)]
    assert leak == ["high", "expected", "high", "normal"]  # 480, 800, 1,040 and 46 credits
    assert story.verdicts["second"] == story.verdicts["rebuilt"]
    assert verdicts["key_20", 21] == "high"  # of which somebody has said something else


def test_acknowledged_it_escalates_only_beyond_twice_what_was_known_also_after_a_rebuild(
    story: Story,
) -> None:
    # 1,040 credits: twice 480, but not twice 800
    for night in ("rebuilt", "third"):
        assert (story.mails(night, HEEDED), story.states[night][HEEDED]) == ([], "acknowledged")
    assert story.mails("fourth", HEEDED) == [
        "Escalated: key key_20 in ws_2 now at 1,760.00 credits a day"
    ]
    assert story.states["fourth"][HEEDED] == "escalated"


def test_snoozed_nothing_is_told_also_after_a_rebuild(story: Story) -> None:
    # the snooze began now, which is later than the days of this house
    for night in ("second", "rebuilt", "third", "fourth", "end"):
        assert story.mails(night, SNOOZED) == []
    assert [story.states[night][SNOOZED] for night in ("rebuilt", "end")] == ["snoozed", "closed"]


def test_unheeded_the_second_day_escalates_and_the_end_is_told_in_one_thread(
    story: Story,
) -> None:
    assert story.mails("second", UNHEEDED) == [
        "Escalated: key key_40 in ws_4 now at 1,040.00 credits a day"
    ]
    for night in ("rebuilt", "third", "fourth"):
        assert story.mails(night, UNHEEDED) == []
    assert story.mails("end", UNHEEDED) == ["Key key_40 in ws_4 is back to normal"]
    opened, escalated, closed = (
        next(mail for mail in story.taken[night][0] if UNHEEDED in mail["Subject"])
        for night in ("leak", "second", "end")
    )
    assert escalated["In-Reply-To"] == closed["In-Reply-To"] == opened["Message-ID"]


def test_a_workspace_told_in_its_hour_is_a_line_once_most_of_it_is_one_keys(story: Story) -> None:
    assert story.mails("nine", HOURLY) == [
        "Workspace ws_5 spent 320.00 credits, 8.0 times the expected"
    ]
    # news, for it says who
    assert story.mails("eleven", HOURLY) == [
        "Key key_old_5 in ws_5 spent 2,000.00 credits, 50.0 times the expected"
    ]
    [alert] = story.hourly["eleven"].values()
    assert "Workspace ws_5: 2,320.00 credits on 2026-11-20" in alert["also"]


def test_a_workspace_that_is_no_line_any_more_is_the_alert_that_was_told(story: Story) -> None:
    # the key has less than 70 % of the excess again
    assert "Workspace" not in story.hourly["thirteen"]["key"]["also"]
    told, again = (story.hourly[name]["workspace"]["alert_id"] for name in ("nine", "thirteen"))
    assert told == again
    for night in ("thirteen", "leak", "second", "rebuilt", "third", "fourth"):
        assert story.mails(night, HOURLY) == []
    assert sorted(story.mails("end", HOURLY)) == [
        "Key key_old_5 in ws_5 is back to normal",
        "Workspace ws_5 is back to normal",
    ]


def test_who_was_told_of_a_workspace_in_its_hour_hears_that_it_closed_with_the_keys_alert(
    story: Story,
) -> None:
    [opened] = story.events("nine", MERGED)
    assert (opened["type"], opened["data"]["scope"]) == ("spend.anomaly_opened", "workspace")
    [key] = story.events("eleven", MERGED)
    for night in ("thirteen", "leak", "second", "rebuilt", "third", "fourth"):
        assert story.events(night, MERGED) == []
    closed = {event["data"]["alert_id"]: event for event in story.events("end", MERGED)}
    assert closed.keys() == {opened["data"]["alert_id"], key["data"]["alert_id"]}
    assert {event["type"] for event in closed.values()} == {"spend.anomaly_closed"}
    workspace = closed[opened["data"]["alert_id"]]["data"]
    assert workspace["told_by_alert_id"] == key["data"]["alert_id"]
    assert (workspace["subject_id"], workspace["closed_at"]) == (MERGED, "2026-11-25T00:00:00Z")
    assert sorted(story.mails("end", MERGED)) == [
        "Key key_old_6 in ws_6 is back to normal",
        "Workspace ws_6 is back to normal",
    ]


def test_what_each_sink_answered_is_published(story: Story) -> None:
    rows = story.house.rows(
        "select distinct sink, outcome from ops.alert_deliveries order by sink, outcome"
    )

    assert [(row["sink"], row["outcome"]) for row in rows] == [
        ("email", "sent"),
        ("slack", "sent"),
        ("webhook", "sent"),
    ]

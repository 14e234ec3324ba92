"""Schedules of nights on which the sinks' servers fail and the machine dies around a send: what
`exports/alerts/test_outbox.py` tries a few of, and `proof.py` many.

A schedule is a world by its seed: alerts that open, escalate and close over three days, one to
three workspaces, one of the real e-mail, Slack and webhook sinks or all three, against real servers
that refuse, cut, fall silent and answer for others who did not. The night dies before or after any
line of the journal, or between a send and its line; then it is run again. Then all is calm until
everything is told.

What must hold of each sink: everything due was received; nothing was received a second time unless
it says that it may be a repetition, and unless an earlier attempt ended without an answer.
"""

import collections
import json
import os
import platform
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

from pydantic import SecretStr

from exports.alerts import Alert, Answer, outbox, posting, slack, webhook
from exports.alerts import email as mail
from pipelines import store
from pipelines.settings import EmailSink, SlackSink, WebhookSink
from pipelines.store import Journal, Store
from tests.receivers import Fault, HttpReceiver, MailReceiver, Receiver

FIRST = datetime(2026, 11, 19)
DAYS = 3
WHICH = {1: "email", 2: "slack", 3: "webhook"}
SECONDS_TO_ANSWER = 0.1  # instead of twenty: a schedule has several silences

HTTP_FAULTS = (
    Fault("connect"),
    Fault("body"),
    Fault("answer"),
    Fault("answer", is_silent=True),
    Fault("answer", 429, retry_after="1"),
    Fault("answer", 429, retry_after="7200"),
    Fault("answer", 500),
    Fault("answer", 503),
    Fault("answer", 400),
    Fault("answer", 502, takes=True),
    Fault("answer", 504),
)
MAIL_FAULTS = (
    *(Fault(step) for step in ("connect", "tls", "ehlo", "mail", "rcpt", "data", "body", "answer")),
    *(
        Fault(step, code)
        for step in ("connect", "mail", "rcpt", "data", "body")
        for code in (451, 554)
    ),
    Fault("answer", is_silent=True),
)


class Death(BaseException):
    """The process is no more."""


@dataclass
class Tally:
    """What happened in some schedules."""

    schedules: int = 0
    nights: int = 0
    deaths: int = 0
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    due: int = 0
    messages: int = 0
    digests: int = 0
    repeated: int = 0  # received again, and said so
    ambiguous: int = 0  # attempts that ended without an answer


class DyingJournal:
    """The journal of a machine that may die before or after a line is on disk."""

    def __init__(self, journal: Journal, dice: random.Random, chance: float) -> None:
        self.journal = journal
        self.dice = dice
        self.chance = chance

    def append(self, *entries: Mapping[str, Any]) -> None:
        if self.dice.random() < self.chance:
            raise Death
        self.journal.append(*entries)
        if self.dice.random() < self.chance:
            raise Death

    def entries(self) -> list[dict[str, Any]]:
        return self.journal.entries()


@contextmanager
def receivers() -> Iterator[tuple[MailReceiver, HttpReceiver, HttpReceiver]]:
    """The three servers, for as many schedules as are run; the clients are made less patient."""
    with ExitStack() as stack:
        for module, name in ((mail, "TIMEOUT_SECONDS"), (posting, "ANSWER_SECONDS")):
            stack.enter_context(mock.patch.object(module, name, SECONDS_TO_ANSWER))
        # what died here is a process, not a machine: it loses nothing that was written
        stack.enter_context(mock.patch.object(store, "sync", return_value=None))
        post, chat, hook = MailReceiver(), HttpReceiver(), HttpReceiver()
        for one in (post, chat, hook):
            one.patience = 2 * SECONDS_TO_ANSWER
            stack.enter_context(one.running())
        yield post, chat, hook


def run(
    seed: int, folder: Path, servers: tuple[MailReceiver, HttpReceiver, HttpReceiver], tally: Tally
) -> None:
    """One schedule. Raises AssertionError, which names the seed, where something was lost or was
    said twice without saying so.
    """
    dice = random.Random(f"{seed}/alerts")
    post, chat, hook = servers
    for one in servers:
        one.plan.clear()
        one.taken.clear()
    recipients = ["ops@example.com", "boss@example.com"][: dice.randint(1, 2)]
    sections = {
        "email": EmailSink(smtp_host="127.0.0.1", smtp_port=post.port, recipients=recipients),
        "slack": SlackSink(url=SecretStr(chat.url)),
        "webhook": WebhookSink(url=hook.url, secret=SecretStr("canary")),
    }
    chosen = [name for name in sections if seed % 4 == 0 or name == WHICH[seed % 4]]
    sinks = outbox.arm({"email": mail, "slack": slack, "webhook": webhook}, sections)
    sinks = {name: sinks[name] for name in chosen}
    journal = Store(folder).journal("raw.deliveries")
    stories = _stories(dice)
    for day in range(DAYS):
        _nights(day, stories, sinks, journal, servers, dice, tally)
    for one in servers:
        one.plan.clear()
    calm = FIRST + timedelta(days=DAYS)
    for hours in range(0, 12, 2):  # what an hour's digest held back comes with a later one
        rows = [row for row in (_row(story, calm) for story in stories) if row]
        report = outbox.tell(rows, sinks, journal, calm + timedelta(hours=hours), lambda _: None)
        tally.nights += 1
        if not report.held and not report.troubled:
            break
    else:
        raise AssertionError(f"seed {seed}: it never came to rest: {report.troubled[:1]}")
    lines = journal.entries()
    for name, server in zip(sections, servers, strict=True):
        if name not in chosen:
            continue
        _check(f"seed {seed}, {name}", name, server, stories, calm, lines, tally)
    tally.schedules += 1


def _nights(
    day: int,
    stories: list[dict[str, Any]],
    sinks: Mapping[str, outbox.Send],
    journal: Journal,
    servers: tuple[Receiver, ...],
    dice: random.Random,
    tally: Tally,
) -> None:
    """One night, run again as often as it dies; the third time only the servers fail."""
    as_of = FIRST + timedelta(days=day)
    rows = [row for row in (_row(story, as_of) for story in stories) if row]
    for trial in range(3):
        trouble = dice.choice((0.0, 0.2, 0.5, 0.9))
        for server in servers:
            some = MAIL_FAULTS if isinstance(server, MailReceiver) else HTTP_FAULTS
            server.plan.clear()
            server.plan.extend(
                dice.choice(some) if dice.random() < trouble else None for _ in range(40)
            )
        chance = 0.0 if trial == 2 else dice.choice((0.0, 0.02, 0.08))
        dying = {name: _mortal(send, dice, chance) for name, send in sinks.items()}
        before = [len(server.plan) for server in servers]
        plans = [list(server.plan) for server in servers]
        tally.nights += 1
        try:
            outbox.tell(rows, dying, DyingJournal(journal, dice, chance), as_of, lambda _: None)
            return
        except Death:
            tally.deaths += 1
        finally:
            for server, count, plan in zip(servers, before, plans, strict=True):
                for fault in plan[: count - len(server.plan)]:
                    if fault:
                        kind = type(server).__name__.removesuffix("Receiver").lower()
                        how = fault.code or ("silence" if fault.is_silent else "cut")
                        tally.faults[f"{kind} {fault.step} {how}"] += 1


def _mortal(send: outbox.Send, dice: random.Random, chance: float) -> outbox.Send:
    """A send during which the machine may die: before it, or with the answer in its hands."""

    def told(alert: Alert) -> Answer:
        if dice.random() < chance:
            raise Death
        answer = send(alert)
        if dice.random() < chance:
            raise Death
        return answer

    return told


def _stories(dice: random.Random) -> list[dict[str, Any]]:
    """Alerts to come: on which night each opens, escalates and closes."""
    places = dice.randint(1, 3)
    found = []
    for number in range(dice.randint(1, 7)):
        opens = dice.randrange(DAYS)
        found.append(
            {
                "name": f"story{number}",
                "workspace_id": f"ws_{number % places}",
                "kind": dice.choice(("anomaly", "anomaly", "drift", "budget", "exhaustion")),
                "opens": opens,
                "escalates": dice.choice((None, opens, opens + 1)),
                "closes": dice.choice((None, opens + 1, opens + 2)),
            }
        )
    return found


def _row(story: Mapping[str, Any], as_of: datetime) -> dict[str, Any] | None:
    """The row of `marts.budget_alerts` of a story, as a night knows it; None before it begins."""
    opened = FIRST + timedelta(days=story["opens"])
    if opened > as_of:
        return None

    def reached(what: str) -> datetime | None:
        if story[what] is None:
            return None
        at = FIRST + timedelta(days=story[what])
        return at if at <= as_of else None

    is_budget = story["kind"] in ("budget", "exhaustion")
    day = (opened - timedelta(days=1)).date()
    escalated_at = None if is_budget else reached("escalates")
    return {
        "alert_id": f"alert_{story['name']}",
        "workspace_id": story["workspace_id"],
        "workspace_name": None,
        "kind": story["kind"],
        "scope": "key",
        "subject_id": f"key_{story['name']}",
        "subject_name": story["name"],
        "usage_date": day,
        "last_date": day,
        "credits": Decimal(900),
        "highest_credits": Decimal(1900),
        "expected": None if is_budget else Decimal(100),
        "upper_limit": Decimal(200),
        "ratio": None if is_budget else Decimal(9),
        "opened_at": opened - timedelta(hours=3),
        "escalated_at": escalated_at,
        "level": int(escalated_at is not None),
        "closed_at": reached("closes"),
        "exhausted_on": day if story["kind"] == "exhaustion" else None,
        "cause": "more requests",
        "message": "It spent.",
        "decision": None,
        "snoozed_until": None,
    }


# ---- what was received ----------------------------------------------------------------------

Told = tuple[str, str, bool]  # alert_id, transition, whether it says that it may repeat


def _check(
    where: str,
    sink: str,
    server: Receiver,
    stories: list[dict[str, Any]],
    calm: datetime,
    lines: list[dict[str, Any]],
    tally: Tally,
) -> None:
    wanted = set()
    for story in stories:
        row = _row(story, calm)
        assert row is not None
        wanted |= {(row["alert_id"], step) for step, _ in outbox._transitions(row, calm)}
    told = [one for message in server.taken for one in READERS[sink](message)]
    found = collections.Counter((alert_id, step) for alert_id, step, _ in told)
    unflagged = collections.Counter((alert_id, step) for alert_id, step, flag in told if not flag)
    doubts: collections.Counter[tuple[str, str]] = collections.Counter()
    attempts: dict[tuple[str, str, str], str] = {}
    for line in lines:
        if line["sink"] == sink:
            attempts[line["alert_id"], line["transition"], line["attempted_at"]] = line["outcome"]
    for (alert_id, step, _), outcome in attempts.items():
        doubts[alert_id, step] += outcome in ("intended", "unknown")
    assert set(found) == wanted, f"{where}: lost {wanted - set(found)}, more {set(found) - wanted}"
    twice = [place for place, count in unflagged.items() if count > 1]
    assert not twice, f"{where}: {twice} were received twice and do not say so"
    for place, count in found.items():
        assert count <= 1 + doubts[place], f"{where}: {place} was sent again after an answer"
    tally.due += len(wanted)
    tally.messages += len(server.taken)
    tally.digests += sum(len(READERS[sink](message)) > 1 for message in server.taken)
    tally.repeated += sum(found.values()) - len(found)
    tally.ambiguous += sum(doubts.values())


STEPS = {"": "opened", "escalated": "escalated", "closed": "closed"}
MEMBER = re.compile(r'[-•] \*?key "(story\d+)"[^\n]*')


def _in_digest(text: str) -> list[Told]:
    """The alerts of a digest, as a person reads them."""
    found = []
    for line in MEMBER.finditer(text):
        step = next((step for step in ("escalated", "closed") if f", {step}" in line[0]), "opened")
        found.append((f"alert_{line[1]}", step, "may repeat" in line[0]))
    return found


def _of_mail(message: Any) -> list[Told]:
    if message["X-Meterhouse-Alert"].startswith("digest_"):
        body = message.get_body(("plain",))
        return _in_digest(body.get_content())
    flag = message["X-Meterhouse-May-Repeat"] == "yes"
    return [(message["X-Meterhouse-Alert"], message["X-Meterhouse-Transition"], flag)]


def _of_slack(message: Any) -> list[Told]:
    said = json.loads(message.body)
    blocks = said["attachments"][0]["blocks"]
    _, title, alert_id = blocks[-1]["elements"][0]["text"].split(" · ")
    if alert_id.startswith("digest_"):
        texts = [block["text"]["text"] for block in blocks if block["type"] == "section"]
        return _in_digest("\n".join(text for text in texts if "What to do" not in text))
    step = STEPS[title.partition(", ")[2]]
    return [(alert_id, step, said["text"].startswith("[may repeat]"))]


def _of_webhook(message: Any) -> list[Told]:
    event = json.loads(message.body)
    assert message.headers["X-Infery-Signature"] == webhook.signature(message.body, "canary")
    told = event["data"].get("alerts", [event["data"]])
    return [(one["alert_id"], one["transition"], one["may_repeat"]) for one in told]


READERS = {"email": _of_mail, "slack": _of_slack, "webhook": _of_webhook}


# ---- many ---------------------------------------------------------------------------------------


def run_many(first: int, count: int, folder: Path) -> list[str]:
    """The part of docs/proof.md; a line `- wrong: …` for each schedule that went wrong."""
    began = time.monotonic()
    tally, wrong = Tally(), []
    with receivers() as servers:
        for seed in range(first, first + count):
            try:
                run(seed, folder / str(seed), servers, tally)
            except AssertionError as error:
                wrong.append(f"- wrong: {error}")
                print(f"FAILED  {error}", flush=True)
            if (seed - first + 1) % 100 == 0:
                print(f"alerts: {seed - first + 1} of {count} schedules", flush=True)
    faults = collections.Counter[str]()
    for name, number in tally.faults.items():
        faults[name.partition(" ")[0]] += number
    minutes = (time.monotonic() - began) / 60
    return [
        "Alerts of one to three workspaces open, escalate and close over three days; storms become",
        "digests. The real e-mail, Slack and webhook sinks tell servers on the loopback,",
        "which refuse at each step (4xx, 5xx, 429 with and without a time to wait), cut the",
        "connection before, in and after the message, fail to encrypt, fall silent, and answer for",
        "others who did not. The night dies before and after lines of the journal and around a",
        "send, and is run again. Lost is what was due and never received; sent twice, what was",
        "received again without saying that it may be a repetition, or after an answer that had",
        "been seen.",
        "",
        "| | |",
        "| --- | ---: |",
        f"| schedules | {tally.schedules:,} |",
        f"| nights; of them died | {tally.nights:,}; {tally.deaths:,} |",
        f"| faults met: mail, HTTP | {faults['mail']:,}, {faults['http']:,} "
        f"(of {len(tally.faults)} kinds) |",
        f"| alerts' transitions due, by sink | {tally.due:,} |",
        f"| received, of them digests | {tally.messages:,}, {tally.digests:,} |",
        f"| attempts that ended without an answer | {tally.ambiguous:,} |",
        f"| received again after such an attempt, and saying so | {tally.repeated:,} |",
        f"| lost, or sent twice otherwise | {len(wrong)} |",
        "",
        f"Seeds {first} to {first + count - 1}; {minutes:.0f} minutes on {os.cpu_count()} cores; "
        f"Python {platform.python_version()}.",
        "",
        *wrong,
    ]

"""The outbox: every transition is told once, whatever sinks and machines do in between."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

from exports.alerts import Alert, Answer
from exports.alerts.outbox import Report, arm, deliver, published_alerts, tell
from pipelines.calendar import Clock
from pipelines.settings import Settings, SettingsError
from pipelines.store import Draft, Journal, Store
from tests.alert_faults import Death, DyingJournal

Rows = Callable[..., dict[str, Any]]
AS_OF = datetime(2026, 11, 19)  # the night after 18 November
NIGHT = timedelta(days=1)


class Sink:
    """A sink that answers as it is told to, and remembers what it has received."""

    def __init__(self, *answers: Answer | BaseException) -> None:
        self.answers: Iterator[Answer | BaseException] = iter(answers)
        self.received: list[Alert] = []

    def __call__(self, alert: Alert) -> Answer:
        answer = next(self.answers, Answer("sent", "taken"))
        if isinstance(answer, BaseException):
            raise answer
        if answer.outcome in ("sent", "sent_in_part", "unknown"):
            self.received.append(alert)
        return answer

    @property
    def transitions(self) -> list[str]:
        return [alert.transition for alert in self.received]


FAILED = Answer("failed", "451 later")
REFUSED = Answer("refused", "554 no")
UNKNOWN = Answer("unknown", "silence")
DOWN = Answer("failed", "no connection", is_down=True)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Store(tmp_path).journal("raw.deliveries")


@pytest.fixture
def night(journal: Journal) -> Callable[..., Report]:
    """`night(rows, sink, as_of=…)`: one night's telling, without the waits."""

    def run(
        rows: list[dict[str, Any]], *sinks: Callable[[Alert], Answer], as_of: datetime = AS_OF
    ) -> Report:
        named = {f"sink_{number}": sink for number, sink in enumerate(sinks)}
        return tell(rows, named, journal, as_of, sleep=lambda _: None)

    return run


Night = Callable[..., Report]


# ---- once ---------------------------------------------------------------------------------------


def test_an_alert_is_told_once_however_often_the_night_is_run(
    night: Night, journal: Journal, alert_row: Rows
) -> None:
    sink = Sink()

    for _ in range(3):
        night([alert_row()], sink)

    assert sink.transitions == ["opened"]
    assert [line["outcome"] for line in journal.entries()] == ["intended", "sent"]


def test_every_sink_is_told(night: Night, alert_row: Rows) -> None:
    first, second = Sink(), Sink()

    night([alert_row()], first, second)

    assert len(first.received) == len(second.received) == 1


def test_each_transition_is_told_in_its_turn(night: Night, alert_row: Rows) -> None:
    sink = Sink()
    escalated = {"escalated_at": datetime(2026, 11, 20), "highest_credits": Decimal(9000)}
    closed = escalated | {"closed_at": datetime(2026, 11, 23)}

    night([alert_row()], sink)
    night([alert_row(**escalated)], sink, as_of=AS_OF + NIGHT)
    night([alert_row(**closed)], sink, as_of=AS_OF + NIGHT * 4)
    night([alert_row(**closed)], sink, as_of=AS_OF + NIGHT * 5)

    assert sink.transitions == ["opened", "escalated", "closed"]


def test_an_acknowledged_alert_still_tells_that_it_escalates_and_closes(
    night: Night, alert_row: Rows
) -> None:
    sink = Sink()
    row = alert_row(decision="acknowledged", escalated_at=AS_OF + NIGHT)

    night([alert_row()], sink)
    night([row], sink, as_of=AS_OF + NIGHT)
    night([row | {"closed_at": AS_OF + NIGHT * 4}], sink, as_of=AS_OF + NIGHT * 4)

    assert sink.transitions == ["opened", "escalated", "closed"]


def test_of_what_was_expected_nothing_more_is_told(
    night: Night, journal: Journal, alert_row: Rows
) -> None:
    sink = Sink()
    row = alert_row(decision="expected", escalated_at=AS_OF, closed_at=AS_OF + NIGHT * 4)

    night([alert_row()], sink)
    night([row], sink, as_of=AS_OF + NIGHT * 4)

    assert sink.transitions == ["opened"]
    assert len(journal.entries()) == 2


def test_a_snooze_holds_back_an_escalation_until_it_ends_however_old(
    night: Night, alert_row: Rows
) -> None:
    sink = Sink()
    end = AS_OF + NIGHT * 6
    row = alert_row(decision="snoozed", snoozed_until=end, escalated_at=AS_OF + NIGHT)

    night([alert_row()], sink)
    night([row], sink, as_of=AS_OF + NIGHT)
    night([row], sink, as_of=end - timedelta(seconds=1))
    assert sink.transitions == ["opened"]

    for _ in range(2):
        night([row], sink, as_of=end)

    assert sink.transitions == ["opened", "escalated"]


def test_what_closed_during_a_snooze_is_told_as_closed_only(night: Night, alert_row: Rows) -> None:
    sink = Sink()
    end = AS_OF + NIGHT * 10
    row = alert_row(decision="snoozed", snoozed_until=end, escalated_at=AS_OF + NIGHT)

    night([alert_row()], sink)
    for later in (4, 10, 11):
        night([row | {"closed_at": AS_OF + NIGHT * 4}], sink, as_of=AS_OF + NIGHT * later)

    assert sink.transitions == ["opened", "closed"]


def test_the_end_of_a_cycle_is_no_news(night: Night, alert_row: Rows) -> None:
    sink = Sink()

    night([alert_row(kind="budget")], sink)
    night([alert_row(kind="budget", closed_at=AS_OF + NIGHT)], sink, as_of=AS_OF + NIGHT)

    assert sink.transitions == ["opened"]


def test_what_is_not_switched_on_is_not_told(alert_row: Rows) -> None:
    needs_nothing, needs_settings = ModuleType("console"), ModuleType("email")
    needs_nothing.send = lambda _: Answer("sent", "")  # type: ignore[attr-defined]
    needs_settings.send = lambda _, settings: Answer("sent", settings)  # type: ignore[attr-defined]
    modules = {"console": needs_nothing, "email": needs_settings}

    assert set(arm(modules, {})) == {"console"}
    assert arm(modules, {"email": "set"})["email"](Alert.of(alert_row(), "opened")).detail == "set"
    with pytest.raises(SettingsError, match=r"\[alerts.slak\].*console, email"):
        arm(modules, {"slak": {}})


def test_a_sink_may_bring_its_own_settings(alert_row: Rows) -> None:
    class Pager(BaseModel):
        number: int

    pager = ModuleType("pager")
    pager.Settings = Pager  # type: ignore[attr-defined]
    pager.send = lambda _, settings: Answer("sent", str(settings.number + 1))  # type: ignore[attr-defined]

    sinks = arm({"pager": pager}, {"pager": {"number": "41"}})

    assert sinks["pager"](Alert.of(alert_row(), "opened")).detail == "42"


def test_each_doubling_is_told_once_and_by_its_own_name(
    night: Night, journal: Journal, alert_row: Rows
) -> None:
    sink = Sink()
    for level in (0, 1, 1, 2, 2):
        escalated = {"escalated_at": AS_OF + NIGHT * level, "level": level} if level else {}
        night([alert_row(**escalated)], sink, as_of=AS_OF + NIGHT * level)

    told = [line["transition"] for line in journal.entries() if line["outcome"] == "sent"]
    assert told == ["opened", "escalated", "escalated_2"]


def test_of_an_acknowledged_alert_only_what_came_after_is_told(
    night: Night, alert_row: Rows
) -> None:
    known = datetime(2026, 11, 19).date()
    row = alert_row(decision="acknowledged", said_of_date=known)
    doubled = {"escalated_at": AS_OF + NIGHT, "escalated_date": known}
    again = {"escalated_at": AS_OF + NIGHT * 2, "escalated_date": known + NIGHT, "level": 2}
    before, after = Sink(), Sink()

    night([row | doubled], before, as_of=AS_OF + NIGHT)  # the sink has not heard of it yet
    night([row | again], after, as_of=AS_OF + NIGHT * 2)

    assert before.transitions == []
    assert [alert.step for alert in after.received] == ["escalated_2"]


def test_what_another_alert_tells_is_not_told(night: Night, alert_row: Rows) -> None:
    sink = Sink()

    night([alert_row(kind="budget", told_by_alert_id="alert_of_the_higher_budget")], sink)

    assert sink.received == []


def test_who_was_told_what_another_alert_tells_now_is_told_that_it_closed(
    night: Night, journal: Journal, alert_row: Rows
) -> None:
    """A workspace told in its hour, which is a line of its key's alert an hour later."""
    knows, does_not = Sink(), Sink()
    line = {"told_by_alert_id": "alert_of_the_key"}
    closed = line | {"closed_at": datetime(2026, 11, 23)}

    night([alert_row()], knows)
    night([alert_row(**line)], knows, does_not, as_of=AS_OF + NIGHT)
    for _ in range(2):
        night([alert_row(**closed)], knows, does_not, as_of=AS_OF + NIGHT * 4)

    assert knows.transitions == ["opened", "closed"]
    assert knows.received[-1].told_by_alert_id == "alert_of_the_key"
    assert does_not.received == []
    assert {line["sink"] for line in journal.entries()} == {"sink_0"}


# ---- storms -------------------------------------------------------------------------------------


def storm(alert_row: Rows, count: int, first: int = 0, **columns: Any) -> list[dict[str, Any]]:
    numbers = range(first, first + count)
    return [
        alert_row(alert_id=f"alert_{number:05d}", subject_id=f"key_{number}", **columns)
        for number in numbers
    ]


def test_a_few_alerts_come_by_themselves_and_many_as_one_digest(
    night: Night, journal: Journal, alert_row: Rows
) -> None:
    few, many = Sink(), Sink()

    night(storm(alert_row, 3), few)
    journal_before = len(journal.entries())
    report = night(storm(alert_row, 10_000), few, many)

    assert [alert.kind for alert in many.received] == ["digest"]
    assert len(many.received[0].members) == 10_000
    assert [alert.kind for alert in few.received] == ["anomaly"] * 3 + ["digest"]
    assert len(few.received[3].members) == 9_997
    assert len(journal.entries()) - journal_before == 2 * (10_000 + 9_997)
    files = len(list(journal.folder.glob("[0-9]*.json")))
    assert files == 2 * 3 + 2 * 2  # the lines of a message are one file before it and one after
    [told, *_] = report.sentences()
    assert told == ("sink_0: told 9,997 messages, 9,997 of them in 1 digest.", False)
    night(storm(alert_row, 10_000), few, many)
    assert (len(few.received), len(many.received)) == (4, 1)


def test_a_workspace_has_one_digest_an_hour_and_the_rest_waits(
    night: Night, journal: Journal, alert_row: Rows
) -> None:
    sink = Sink()
    later = timedelta(minutes=59)

    night(storm(alert_row, 5), sink)
    report = night(storm(alert_row, 9), sink, as_of=AS_OF + later)
    other = night(storm(alert_row, 1, 90, workspace_id="ws_2"), sink, as_of=AS_OF + later)
    assert [len(alert.members) for alert in sink.received] == [5, 0]
    assert (
        "sink_0: 4 messages held back (an hour has one digest; they are in the next).",
        False,
    ) in report.sentences()
    assert other.held == []

    night(storm(alert_row, 9), sink, as_of=AS_OF + later)  # what is held is written down once
    assert len([line for line in journal.entries() if line["outcome"] == "held"]) == 4
    night(storm(alert_row, 9), sink, as_of=AS_OF + NIGHT * 3)  # too old by now, had it not waited
    assert [len(alert.members) for alert in sink.received] == [5, 0, 4]


def test_a_digest_that_was_never_answered_is_repeated_and_says_so(
    night: Night, alert_row: Rows
) -> None:
    sink = Sink(UNKNOWN)

    report = night(storm(alert_row, 5), sink)

    first, again = sink.received
    assert (first.may_repeat, again.may_repeat) == (False, True)
    assert all(one.may_repeat for one in again.members)
    assert first.alert_id == again.alert_id
    assert len(report.repeated) == 5


def test_of_a_digest_only_what_may_have_been_received_is_marked(
    night: Night, alert_row: Rows
) -> None:
    sink = Sink(Death())
    with pytest.raises(Death):
        night(storm(alert_row, 2), sink)  # dies over the first

    night(storm(alert_row, 5), sink)

    [digest] = sink.received
    assert sorted(one.alert_id for one in digest.members if one.may_repeat) == ["alert_00000"]
    assert digest.may_repeat


def test_a_digest_tells_a_budgets_own_recipients_of_their_budgets_only(
    night: Night, alert_row: Rows
) -> None:
    sink = Sink()
    rows = storm(alert_row, 4) + storm(alert_row, 4, 10, kind="budget", recipients="ada@x.org")

    night(rows, sink)

    assert [(alert.recipients, len(alert.members)) for alert in sink.received] == [
        (None, 4),
        ("ada@x.org", 4),
    ]


# ---- old news -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("as_of", "count"),
    [
        (datetime(2026, 11, 18, 12), 1),  # the day is still running
        (datetime(2026, 11, 20, 23, 59, 59), 1),
        (datetime(2026, 11, 21), 0),  # it ended 48 hours ago
    ],
)
def test_only_the_last_48_hours_are_news(
    night: Night, alert_row: Rows, as_of: datetime, count: int
) -> None:
    sink = Sink()

    report = night([alert_row()], sink, as_of=as_of)

    assert len(sink.received) == count
    assert len(report.too_old) == 1 - count
    night([alert_row()], sink, as_of=AS_OF)  # nor is it told when the clock is set back
    assert len(sink.received) == count


def test_an_old_alert_that_escalates_is_news(night: Night, alert_row: Rows) -> None:
    sink = Sink()
    row = alert_row(escalated_at=datetime(2026, 11, 22))

    night([row], sink, as_of=datetime(2026, 11, 22))

    assert sink.transitions == ["escalated"]


def test_nobody_is_told_that_what_they_never_heard_of_has_closed(
    night: Night, alert_row: Rows, journal: Journal
) -> None:
    sink = Sink()
    row = alert_row(closed_at=datetime(2026, 11, 22))

    night([row], sink, as_of=datetime(2026, 11, 23))

    assert sink.received == []
    assert [line["outcome"] for line in journal.entries()] == [
        "not_sent_too_old",
        "not_sent_never_opened",
    ]


# ---- failures -----------------------------------------------------------------------------------


def test_a_passing_failure_is_tried_again_the_same_night(
    night: Night, journal: Journal, alert_row: Rows
) -> None:
    sink = Sink(FAILED, FAILED)

    report = night([alert_row()], sink)

    assert len(sink.received) == 1
    assert report.troubled == []
    outcomes = [line["outcome"] for line in journal.entries()]
    assert outcomes == ["intended", "failed"] * 2 + ["intended", "sent"]


def test_three_failures_wait_for_the_next_night(night: Night, alert_row: Rows) -> None:
    sink = Sink(FAILED, FAILED, FAILED)

    report = night([alert_row()], sink)
    assert sink.received == []
    [(sentence, is_failure)] = report.sentences()
    assert is_failure
    assert "451 later" in sentence

    night([alert_row()], sink, as_of=AS_OF + NIGHT * 3)  # too old by now, had it not been tried
    assert len(sink.received) == 1
    assert not sink.received[0].may_repeat


def test_a_refusal_is_tried_once_a_night(night: Night, journal: Journal, alert_row: Rows) -> None:
    sink = Sink(REFUSED, REFUSED)

    night([alert_row()], sink)
    assert len(journal.entries()) == 2
    night([alert_row()], sink, as_of=AS_OF + NIGHT)
    night([alert_row()], sink, as_of=AS_OF + NIGHT * 2)

    assert len(sink.received) == 1


def test_after_a_week_of_failures_it_is_given_up(night: Night, alert_row: Rows) -> None:
    sink = Sink(*[REFUSED] * 100)

    reports = [night([alert_row()], sink, as_of=AS_OF + NIGHT * day) for day in range(10)]

    assert [bool(report.troubled) for report in reports] == [True] * 8 + [False] * 2


def test_a_sink_that_raises_has_failed(night: Night, journal: Journal, alert_row: Rows) -> None:
    sink = Sink(ValueError("x" * 9999), ValueError("no"), ValueError("no"))

    report = night([alert_row()], sink)

    assert report.troubled[0][1] == "ValueError: no"
    assert max(len(line["detail"]) for line in journal.entries()) == 500


def test_when_a_server_is_down_the_others_are_not_tried_in_vain(
    night: Night, alert_row: Rows
) -> None:
    sink, other = Sink(*[DOWN] * 3), Sink()
    rows = [
        alert_row(alert_id=f"alert_{number}", workspace_id=f"ws_{number}") for number in range(5)
    ]

    report = night(rows, sink, other)

    assert len(report.troubled) == 5
    assert len(other.received) == 5
    night(rows, sink, as_of=AS_OF + NIGHT * 3)
    assert len(sink.received) == 5


def test_a_closing_is_not_told_before_its_opening(night: Night, alert_row: Rows) -> None:
    sink = Sink(REFUSED, REFUSED)
    row = alert_row(closed_at=datetime(2026, 11, 22))

    night([alert_row()], sink)
    night([row], sink, as_of=datetime(2026, 11, 22, 1))
    night([row], sink, as_of=datetime(2026, 11, 25))

    assert sink.transitions == ["opened", "closed"]


def test_a_refused_recipient_is_said_aloud_and_the_mail_not_repeated(
    night: Night, alert_row: Rows
) -> None:
    sink = Sink(Answer("sent_in_part", "refused for boss@example.com"))

    first, second = night([alert_row()], sink), night([alert_row()], sink)

    assert len(sink.received) == 1
    assert any(is_failure for _, is_failure in first.sentences())
    assert list(second.sentences()) == []


# ---- answers never seen -------------------------------------------------------------------------


def test_an_unseen_answer_is_followed_by_one_flagged_repetition(
    night: Night, alert_row: Rows
) -> None:
    sink = Sink(UNKNOWN)

    report = night([alert_row()], sink)
    night([alert_row()], sink, as_of=AS_OF + NIGHT)

    assert [alert.may_repeat for alert in sink.received] == [False, True]
    assert len(report.repeated) == 1


def test_two_unseen_answers_end_the_night(night: Night, alert_row: Rows) -> None:
    sink = Sink(UNKNOWN, UNKNOWN)

    report = night([alert_row()], sink)

    assert [alert.may_repeat for alert in sink.received] == [False, True]
    assert len(report.troubled) == 1


def test_a_crash_before_the_answer_is_followed_by_one_flagged_repetition(
    night: Night, alert_row: Rows
) -> None:
    sink = Sink(Death())

    with pytest.raises(Death):
        night([alert_row()], sink)
    night([alert_row()], sink)
    night([alert_row()], sink)

    assert [alert.may_repeat for alert in sink.received] == [True]


class Memory(Journal):
    """The same journal, without the disk."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def append(self, *entries: Mapping[str, Any]) -> None:
        self.lines += map(dict, entries)

    def entries(self) -> list[dict[str, Any]]:
        return [dict(line) for line in self.lines]


class BrokenPost:
    """A server that fails, refuses, falls silent and dies at random; it keeps what it took."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.taken: list[Alert] = []
        self.unseen = 0

    def __call__(self, alert: Alert) -> Answer:
        throw = self.dice.random()
        if throw < 0.15:
            return self.dice.choice([FAILED, REFUSED, DOWN])
        if throw < 0.20:
            raise Death  # before it was handed over
        self.taken.append(alert)
        if throw < 0.25:
            self.unseen += 1
            return UNKNOWN
        if throw < 0.30:
            self.unseen += 1
            raise Death  # after it was handed over
        return Answer("sent", "taken")


@pytest.mark.parametrize("seed", range(300))
def test_in_any_schedule_nothing_is_lost_and_nothing_repeated_unflagged(
    seed: int, alert_row: Rows
) -> None:
    dice = random.Random(seed)
    memory, post = Memory(), BrokenPost(dice)
    rows = [  # of one workspace they are a storm, and come as a digest
        alert_row(
            alert_id=f"alert_{number}",
            workspace_id=f"ws_{number % (1 + seed % 3)}",
            escalated_at=datetime(2026, 11, 19) if number % 2 else None,
        )
        for number in range(3)
    ]
    for attempt in range(200):
        is_calm = attempt >= 6  # then nothing breaks any more, and the rest must get through
        journal = memory if is_calm else DyingJournal(memory, dice, 0.04)
        sink = Sink() if is_calm else post
        try:
            report = tell(rows, {"post": sink}, journal, AS_OF, lambda _: None)
        except Death:
            continue
        if is_calm:
            assert isinstance(sink, Sink)
            post.taken += sink.received
            assert report.troubled == []
            break

    due = [(row["alert_id"], "opened") for row in rows]
    due += [(row["alert_id"], "escalated") for row in rows if row["escalated_at"]]
    heard = [one for alert in post.taken for one in alert.members or (alert,)]
    taken = Counter((alert.alert_id, alert.transition) for alert in heard)
    unflagged = Counter((one.alert_id, one.transition) for one in heard if not one.may_repeat)
    answered = [line for line in memory.lines if line["outcome"] == "sent"]
    assert set(taken) == set(due)  # nothing lost
    assert max(unflagged.values(), default=0) <= 1  # nothing said twice without saying so
    assert len({(line["alert_id"], line["transition"]) for line in answered}) == len(due)
    assert len(answered) == len(due)  # nothing sent again once its answer was seen


def test_a_sink_that_asks_to_wait_is_waited_for_and_one_that_asks_for_long_left_alone(
    journal: Journal, alert_row: Rows
) -> None:
    waits: list[float] = []
    busy = Answer("failed", "429", retry_after=17.0)
    sink = Sink(busy, FAILED)
    tell([alert_row()], {"patient": sink}, journal, AS_OF, waits.append)
    assert waits == [17.0, 2.0]
    assert len(sink.received) == 1

    long = Sink(Answer("failed", "429", retry_after=3600.0))
    rows = [alert_row(alert_id=f"alert_{number}") for number in range(2)]
    report = tell(rows, {"long": long}, journal, AS_OF, waits.append)
    assert len(waits) == 2
    assert len(report.troubled) == 2
    assert long.received == []


# ---- what is published --------------------------------------------------------------------------


def test_before_the_first_night_nothing_is_published(tmp_path: Path) -> None:
    assert published_alerts(Store(tmp_path)) == []


def test_what_is_published_is_told_and_the_night_says_so(tmp_path: Path, alert_row: Rows) -> None:
    store, sink = Store(tmp_path / "root"), Sink()
    draft = Draft(store, tmp_path, lambda *_: None)
    draft.replace("marts.budget_alerts", pa.Table.from_pylist([alert_row()]))
    draft.publish(AS_OF)
    draft.connection.close()
    module = ModuleType("pager")
    module.send = sink  # type: ignore[attr-defined]
    clock = Clock(as_of=AS_OF, arrived_at=AS_OF)

    first = deliver(store, Settings(), clock, {"pager": module})
    again = deliver(store, Settings(), clock, {"pager": module})

    assert list(first.sentences()) == [("pager: told 1 message.", False)]
    assert first.states()["pager"] == {
        "sent": 1, "repeated": 0, "too_old": 0, "held": 0, "troubled": 0, "last_answer": "taken",
    }  # fmt: skip
    assert list(again.sentences()) == []
    assert again.states() == {}
    assert sink.received == [Alert.of(alert_row(), "opened")]

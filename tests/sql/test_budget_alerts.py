"""Anomalies, episodes, budgets and the alerts made of them: one incident, one alert, one cause."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

TODAY = date(2026, 11, 18)
DAY = timedelta(days=1)

Row = dict[str, Any]
Rows = list[Row]
RunModel = Callable[..., Rows]
Tell = Callable[..., Rows]


def over(day: date = TODAY, credits: object = 500, **columns: object) -> Row:
    """A day out of range, as `spend_ranges` tells it: a key at five times the expected."""
    return {
        "usage_date": day,
        "workspace_id": "ws_1",
        "scope": "key",
        "subject_id": "key_1",
        "credits": Decimal(str(credits)),
        "expected": Decimal(100),
        "range_high": Decimal(200),
        "upper_limit": Decimal(200),
        "ratio": Decimal(str(credits)) / 100,
        "verdict": "high",
        "is_complete": True,
        "exceed_percent": Decimal(50),
        "floor_credits": Decimal(10),
    } | columns


def usage(day: date = TODAY, credits: object = 500, **columns: object) -> Row:
    """A quarter of an hour of one key on one model."""
    return {
        "quarter_at": datetime.combine(day, datetime.min.time()) + timedelta(hours=9),
        "usage_date": day,
        "workspace_id": "ws_1",
        "api_key_id": "key_1",
        "model": "gpt-5",
        "request_count": 100,
        "credits": Decimal(str(credits)),
    } | columns


def habit(range_row: Mapping[str, Any], **columns: object) -> Row:
    """What is known of the subject of a range."""
    names = ("usage_date", "workspace_id", "scope", "subject_id")
    return (
        {name: range_row[name] for name in names}
        | {
            "request_count": 1000,
            "usual_request_count": 200.0,
            "usual_credits_per_request": 0.5,
        }
        | columns
    )


def call(run_model: RunModel, spent: Sequence[Row], decisions: Sequence[Row]) -> Rows:
    """The days of some ranges, or of daily spend, of which a level had been called expected."""
    names = ("usage_date", "workspace_id", "scope", "subject_id", "credits")
    levels = run_model("staging.expected_levels", {"staging.alert_decisions": decisions})
    return [
        row
        for day in sorted({row["usage_date"] for row in spent})
        for row in run_model(
            "marts.expected_days",
            {
                "marts.daily_spend": [
                    {name: row[name] for name in names} for row in spent if row["usage_date"] == day
                ],
                "staging.expected_levels": levels,
            },
            day=day,
        )
    ]


@pytest.fixture
def tell(run_model: RunModel) -> Tell:
    """`tell(ranges, usage, as_of=…)` gives the alerts: the models, one after the other."""

    def run(
        ranges: Sequence[Row],
        quarters: Sequence[Row] = (),
        habits: Sequence[Row] | None = None,
        as_of: datetime | None = None,
        causes: Sequence[Row] = (),
        **tables: Sequence[Row],
    ) -> Rows:
        clock = {"as_of": as_of or datetime.combine(TODAY + DAY, datetime.min.time())}
        anomalies: Rows = []
        for day in sorted({row["usage_date"] for row in ranges}):
            today = [row for row in ranges if row["usage_date"] == day]
            anomalies += run_model(
                "marts.spend_anomalies",
                {
                    "marts.spend_ranges": today,
                    "marts.spend_habits": habits
                    if habits is not None
                    else [habit(row) for row in today],
                    "marts.usage_quarter_hourly": [
                        row for row in quarters if row["usage_date"] == day
                    ],
                },
                day=day,
            )
        staged = {f"staging.{name}": rows for name, rows in tables.items()}
        decided = {"staging.alert_decisions": tables.get("alert_decisions", ())}
        known = {"marts.spend_anomalies": anomalies, "marts.spend_causes": causes}
        called = {
            "marts.expected_days": call(run_model, ranges, decided["staging.alert_decisions"])
        }
        ranges_out = {"marts.spend_anomalies": anomalies}
        known["marts.alert_days"] = run_model("marts.alert_days", ranges_out | called, **clock)
        days = {"marts.alert_days": known["marts.alert_days"]}
        known["marts.alert_episodes"] = run_model("marts.alert_episodes", days | decided, **clock)
        return run_model("marts.budget_alerts", known | staged, **clock)

    return run


# ---- one incident, one alert --------------------------------------------------------------------


def test_an_ordinary_day_alerts_nobody(tell: Tell) -> None:
    assert (
        tell([over(verdict="normal"), over(verdict="too_young"), over(verdict="incomplete")]) == []
    )


def test_a_day_out_of_range_opens_an_alert(tell: Tell) -> None:
    [alert] = tell([over()])

    assert (alert["kind"], alert["state"], alert["usage_date"]) == ("anomaly", "open", TODAY)
    assert (alert["credits"], alert["expected"]) == (Decimal(500), Decimal(100))
    assert alert["closed_at"] is None


@pytest.mark.parametrize(("verdict", "kind"), [("drift", "drift"), ("woke", "woke")])
def test_drift_and_waking_are_kinds_of_their_own(tell: Tell, verdict: str, kind: str) -> None:
    [alert] = tell([over(verdict=verdict)])

    assert alert["kind"] == kind


def test_days_at_most_three_apart_are_one_alert(tell: Tell) -> None:
    [alert] = tell([over(TODAY - DAY * 6), over(TODAY - DAY * 3), over(TODAY)])

    assert (alert["usage_date"], alert["last_date"]) == (TODAY - DAY * 6, TODAY)


def test_days_four_apart_are_two_alerts(tell: Tell) -> None:
    first, second = sorted(
        tell([over(TODAY - DAY * 4), over(TODAY)]), key=lambda row: row["usage_date"]
    )

    assert (first["state"], second["state"]) == ("closed", "open")
    assert first["alert_id"] != second["alert_id"]


def test_an_alert_keeps_its_id_as_it_grows(tell: Tell) -> None:
    [young] = tell([over(TODAY - DAY)])
    [old] = tell([over(TODAY - DAY), over(TODAY, verdict="drift")])

    assert young["alert_id"] == old["alert_id"]
    assert len(young["alert_id"]) == len("alert_") + 16


def test_subjects_of_one_name_in_two_workspaces_are_two(tell: Tell) -> None:
    ids = {row["alert_id"] for row in tell([over(), over(workspace_id="ws_2")])}

    assert len(ids) == 2


def test_a_key_without_a_workspace_alerts_too(tell: Tell) -> None:
    [alert] = tell(
        [over(TODAY - DAY, workspace_id=None), over(TODAY, workspace_id=None)],
        [usage(TODAY - DAY, workspace_id=None)],
    )

    assert alert["last_date"] == TODAY
    assert "gpt-5" in alert["cause"]
    assert alert["message"].startswith("Key key_1 spent")


# ---- its life -----------------------------------------------------------------------------------


def test_it_stays_open_for_three_days_and_closes_on_the_fourth(tell: Tell) -> None:
    states = []
    for later in range(6):
        night = datetime.combine(TODAY + DAY * (later + 1), datetime.min.time())
        [alert] = tell([over()], as_of=night)
        states.append((alert["state"], alert["closed_at"]))

    closed = ("closed", datetime(2026, 11, 22))
    assert states == [("open", None)] * 4 + [closed] * 2


def test_twice_the_credits_of_the_first_day_escalate(tell: Tell) -> None:
    [alert] = tell([over(TODAY - DAY * 2, 500), over(TODAY - DAY, 999), over(TODAY, 1000)])

    assert alert["state"] == "escalated"
    assert alert["escalated_at"] == datetime.combine(TODAY + DAY, datetime.min.time())
    assert (alert["credits"], alert["highest_credits"]) == (Decimal(500), Decimal(1000))


@pytest.mark.parametrize(
    ("days", "level", "escalated"),
    [
        ((500, 999), 0, None),
        ((500, 1000), 1, 1),
        ((500, 1900, 2100), 1, 1),  # 2,100 is not twice what was told last
        ((500, 1900, 3800), 2, 2),
        ((500, 400, 1000, 900, 2000, 4000), 3, 5),
    ],
)
def test_it_escalates_each_time_it_doubles_what_was_told_last(
    tell: Tell, days: tuple[int, ...], level: int, escalated: int | None
) -> None:
    first = TODAY - DAY * (len(days) - 1)

    [alert] = tell([over(first + DAY * number, credits) for number, credits in enumerate(days)])

    on = None if escalated is None else first + DAY * escalated
    assert (alert["level"], alert["escalated_date"]) == (level, on)
    assert alert["state"] == ("escalated" if level else "open")


def test_it_opens_when_the_running_total_passes_the_limit(tell: Tell) -> None:
    quarters = [
        usage(credits=150, quarter_at=datetime(2026, 11, 18, 2, 0)),
        usage(credits=50, quarter_at=datetime(2026, 11, 18, 3, 0)),
        usage(credits=1, quarter_at=datetime(2026, 11, 18, 4, 30), model="gpt-5-mini"),
        usage(credits=299, quarter_at=datetime(2026, 11, 18, 9, 0)),
    ]

    [alert] = tell([over()], quarters)

    assert alert["opened_at"] == datetime(2026, 11, 18, 4, 45)


def test_nothing_happens_after_the_clock(tell: Tell) -> None:
    noon = datetime.combine(TODAY, datetime.min.time()) + timedelta(hours=12)

    [alert] = tell([over(is_complete=False), over(TODAY + DAY)], as_of=noon)

    assert alert["last_date"] == TODAY
    assert alert["opened_at"] == noon
    assert "so far" in alert["message"]


# ---- what a person said of it -------------------------------------------------------------------


def said(decision: str, hour: int = 1, **columns: object) -> Row:
    """A line of the journal of decisions."""
    return {
        "decision_id": f"decision_{hour}",
        "decision": decision,
        "decided_at": datetime.combine(TODAY + DAY, datetime.min.time()) + timedelta(hours=hour),
        "decided_by": "ada",
    } | columns


@pytest.fixture
def tell_after(tell: Tell, run_model: RunModel) -> Tell:
    """`tell_after([said("acknowledged")], ranges, …)`: the one alert of the ranges, after that."""

    def run(lines: Rows, ranges: Rows, **options: Any) -> Row:
        [row] = tell(ranges, **options)
        seen = {name: row[name] for name in ("alert_id", "workspace_id", "scope", "subject_id")}
        seen |= {"usage_date": row["usage_date"], "said_of_date": row["last_date"]}
        seen |= {"said_of_credits": row["highest_credits"]}
        lines = [seen | line for line in lines]
        decisions = run_model("staging.alert_decisions", {"raw.decisions": lines})
        [row] = tell(ranges, alert_decisions=decisions, **options)
        return row

    return run


@pytest.mark.parametrize("decision", ["acknowledged", "expected"])
def test_what_a_person_says_is_its_state_until_it_closes(tell_after: Tell, decision: str) -> None:
    states = []
    for later in (1, 4, 5):
        night = datetime.combine(TODAY + DAY * later, datetime.min.time())
        states.append(tell_after([said(decision)], [over()], as_of=night)["state"])

    assert states == [decision, decision, "closed"]


@pytest.mark.parametrize(("highest", "state"), [(600, "open"), (1000, "escalated")])
def test_a_snooze_lasts_until_its_end_and_not_a_moment_longer(
    tell_after: Tell, highest: int, state: str
) -> None:
    end = datetime(2026, 11, 19, 12)
    ranges = [over(TODAY - DAY), over(TODAY, highest)]
    lines = [said("snoozed", until=end)]

    before = tell_after(lines, ranges, as_of=end - timedelta(microseconds=1))
    after = tell_after(lines, ranges, as_of=end)

    assert (before["state"], after["state"]) == ("snoozed", state)
    assert before["snoozed_until"] == after["snoozed_until"] == end


def test_the_newest_word_counts(tell_after: Tell) -> None:
    lines = [said("acknowledged", 2, note="looking"), said("expected", 3), said("snoozed", 1)]

    row = tell_after(lines, [over()])

    assert (row["state"], row["decision"], row["note"]) == ("expected", "expected", None)


def known(day: date, credits: object, decision: str = "expected", **columns: object) -> Row:
    """What was said of the alert of key_1 that opened on a day, when its biggest day was so."""
    return {
        "alert_id": "alert_of_that_day",
        "decision": decision,
        "workspace_id": "ws_1",
        "scope": "key",
        "subject_id": "key_1",
        "usage_date": day,
        "said_of_date": day,
        "said_of_credits": Decimal(str(credits)),
    } | columns


@pytest.mark.parametrize(("later", "count"), [(500, 0), (999, 0), (1000, 1), (5000, 1)])
def test_the_level_that_was_called_expected_is_not_told_again_but_twice_as_much_is(
    tell: Tell, later: int, count: int
) -> None:
    first = TODAY - DAY * 20
    ranges = [over(first, 500), over(TODAY, later)]

    alerts = tell(ranges, alert_decisions=[known(first, 500)])

    assert sorted(row["usage_date"] for row in alerts) == [first, TODAY][: 1 + count]


def test_twice_what_was_expected_is_a_new_alert_however_soon_it_comes(tell: Tell) -> None:
    first = TODAY - DAY * 2
    ranges = [over(first, 500), over(first + DAY, 700), over(TODAY, 1100)]

    before = tell(ranges)
    after = tell(ranges, alert_decisions=[known(first, 500)])

    assert [(row["usage_date"], row["last_date"]) for row in before] == [(first, TODAY)]
    assert sorted((row["usage_date"], row["last_date"]) for row in after) == [
        (first, first),
        (TODAY, TODAY),
    ]


@pytest.mark.parametrize(
    "other", [{"subject_id": "key_2"}, {"workspace_id": "ws_2"}, {"said_of_credits": None}]
)
def test_what_is_expected_of_one_subject_says_nothing_of_another(tell: Tell, other: Row) -> None:
    first = TODAY - DAY * 20
    word = known(first, 500) | other

    assert len(tell([over(first), over()], alert_decisions=[word])) == 2


def test_what_is_expected_of_a_key_is_not_told_of_its_workspace_instead(tell: Tell) -> None:
    first = TODAY - DAY * 20
    workspace = over(scope="workspace", subject_id="ws_1", credits=1400, expected=Decimal(1000))
    ranges = [over(first), over(), workspace]

    alerts = tell(ranges, [usage()], alert_decisions=[known(first, 500)])

    assert [row["usage_date"] for row in alerts] == [first]


@pytest.mark.parametrize(("judged_until", "count"), [(None, 1), (TODAY - DAY, 1), (TODAY, 2)])
def test_a_word_changes_no_day_that_was_judged_before_it(
    tell: Tell, judged_until: date | None, count: int
) -> None:
    first = TODAY - DAY * 20
    word = known(first, 500, judged_until=judged_until)

    assert len(tell([over(first), over()], alert_decisions=[word])) == count


def test_a_level_counts_from_the_day_after_the_last_that_was_known(run_model: RunModel) -> None:
    first, later = TODAY - DAY * 3, TODAY - DAY
    decisions = [
        known(first, 500),
        known(later, 700, alert_id="alert_of_later"),
        known(first, 9999, "acknowledged", alert_id="alert_of_another_word"),
    ]
    amounts = {first: 500, later: 700, TODAY: 1399}
    spent = [over(day, credits) for day, credits in amounts.items()]

    days = call(run_model, [*spent, over(subject_id="key_2")], decisions)

    names = ("usage_date", "era", "expected_credits", "is_expected")
    assert [tuple(row[name] for name in names) for row in days] == [
        (later, 1, Decimal(500), True),
        (TODAY, 2, Decimal(700), True),
    ]
    [day] = call(run_model, [over(TODAY, 1400)], decisions)
    assert not day["is_expected"]  # twice as much


@pytest.mark.parametrize("verdict", ["high", "drift", "woke"])
def test_an_expected_day_is_the_anomaly_that_its_numbers_make_it(
    run_model: RunModel, verdict: str
) -> None:
    columns = {"expected": Decimal(0), "ratio": None} if verdict == "woke" else {}
    expected = over(verdict="expected", overruled_verdict=verdict, **columns)

    [plain], [overruled] = (
        run_model(
            "marts.spend_anomalies",
            {
                "marts.spend_ranges": [row],
                "marts.spend_habits": [habit(row)],
                "marts.usage_quarter_hourly": [usage()],
            },
            day=TODAY,
        )
        for row in (over(verdict=verdict, **columns), expected)
    )

    assert plain == overruled


@pytest.mark.parametrize(
    ("later", "state"), [(1100, "acknowledged"), (1399, "acknowledged"), (1400, "escalated")]
)
def test_an_acknowledged_alert_escalates_at_twice_what_was_known_then(
    tell_after: Tell, later: int, state: str
) -> None:
    ranges = [over(TODAY - DAY * 2, 500), over(TODAY - DAY, 700)]
    word = {"said_of_date": TODAY - DAY, "said_of_credits": Decimal(700)}
    word |= {"usage_date": TODAY - DAY * 2}

    row = tell_after([said("acknowledged") | word], [*ranges, over(TODAY, later)])

    assert (row["state"], row["level"]) == (state, int(state == "escalated"))


def test_a_word_on_one_alert_is_no_word_on_another(tell: Tell) -> None:
    decisions = [{"alert_id": "alert_of_somebody_else", "decision": "expected"}]

    [row] = tell([over()], alert_decisions=decisions)

    assert (row["state"], row["decision"]) == ("open", None)


# ---- one incident in several scopes -------------------------------------------------------------


def test_a_leaked_key_explains_its_model_and_its_workspace(tell: Tell) -> None:
    model = over(scope="model", subject_id="gpt-5", credits=900, expected=Decimal(500))
    workspace = over(scope="workspace", subject_id="ws_1", credits=1400, expected=Decimal(1000))

    alerts = tell([over(), model, workspace], [usage()])

    assert [row["scope"] for row in alerts] == ["key"]


@pytest.mark.parametrize(("workspace_excess", "count"), [(571, 1), (572, 2)])
def test_a_wider_scope_is_a_line_where_one_subject_has_seventy_percent_of_its_excess(
    tell: Tell, workspace_excess: int, count: int
) -> None:
    credits = 1000 + workspace_excess  # the key's excess is 400
    workspace = over(scope="workspace", subject_id="ws_1", credits=credits, expected=Decimal(1000))

    alerts = tell([over(), workspace], [usage()])

    assert len(alerts) == count
    [key] = [row for row in alerts if row["scope"] == "key"]
    line = "Workspace ws_1: 1,571.00 credits on 2026-11-18, "
    line += "15.7 times the expected 1,000.00"  # (the ratio is that of the row)
    assert key["also"] == (line if count == 1 else None)


def test_two_keys_with_half_each_do_not_explain_their_workspace(tell: Tell) -> None:
    workspace = over(scope="workspace", subject_id="ws_1", credits=1800, expected=Decimal(1000))

    alerts = tell([over(), over(subject_id="key_2"), workspace], [usage()])

    assert sorted(row["scope"] for row in alerts) == ["key", "key", "workspace"]


def test_a_small_key_does_not_explain_a_large_workspace(tell: Tell) -> None:
    workspace = over(scope="workspace", subject_id="ws_1", credits=9000, expected=Decimal(1000))

    alerts = tell([over(), workspace], [usage()])

    assert sorted(row["scope"] for row in alerts) == ["key", "workspace"]


def test_a_key_explains_no_model_that_it_did_not_use(tell: Tell) -> None:
    model = over(scope="model", subject_id="gpt-4", credits=900, expected=Decimal(500))

    alerts = tell([over(), model], [usage(model="gpt-5")])

    assert sorted(row["scope"] for row in alerts) == ["key", "model"]


def test_another_workspace_explains_nothing(tell: Tell) -> None:
    workspace = over(scope="workspace", subject_id="ws_2", workspace_id="ws_2")

    assert len(tell([over(), workspace], [usage()])) == 2


# ---- what it says -------------------------------------------------------------------------------


def test_the_message_names_the_subject_and_the_numbers(tell: Tell) -> None:
    [alert] = tell(
        [over(credits="1234.5", ratio=Decimal("12.345"))],
        [usage()],
        keys=[{"api_key_id": "key_1", "workspace_id": "ws_1", "name": "Billing bot"}],
        workspaces=[{"workspace_id": "ws_1", "name": "Acme"}],
    )

    assert alert["message"] == (
        'Key "Billing bot" of "Acme" spent 1,234.50 credits on 2026-11-18, '
        "12.3 times the expected 100.00 (normal up to 200.00)."
    )
    assert (alert["subject_name"], alert["workspace_name"]) == ("Billing bot", "Acme")


def test_the_cause_is_that_of_the_opening_day_and_the_rate_that_of_the_last(tell: Tell) -> None:
    subject = {name: over()[name] for name in ("workspace_id", "scope", "subject_id")}
    first = subject | {
        "usage_date": TODAY - DAY,
        "cause_text": "1,000 requests against 200 on a usual day",
        "since_at": datetime(2026, 11, 17, 7),
        "credits_per_hour": Decimal(40),
    }
    last = first | {"usage_date": TODAY, "cause_text": "more", "credits_per_hour": Decimal(90)}

    [alert] = tell([over(TODAY - DAY), over()], [usage(TODAY - DAY)], causes=[first, last])

    assert alert["cause"] == (
        "1,000 requests against 200 on a usual day, 100% of the credits on model gpt-5"
    )
    assert (alert["since_at"], alert["credits_per_hour"]) == (first["since_at"], Decimal(90))


def test_the_cause_of_a_workspace_names_its_key(tell: Tell) -> None:
    quarters = [usage(credits=300, api_key_id="key_2"), usage(credits=200)]

    [alert] = tell(
        [over(scope="workspace", subject_id="ws_1")],
        quarters,
        keys=[{"api_key_id": "key_2", "workspace_id": "ws_1", "name": "Crawler"}],
    )

    assert '60% of the credits by key "Crawler"' in alert["cause"]


def test_a_subject_without_habits_still_has_a_cause(tell: Tell) -> None:
    row = over(verdict="woke", expected=Decimal(0), ratio=None)

    [alert] = tell([row], habits=[habit(row, usual_request_count=None)])

    assert alert["cause"] == "1,000 requests"


# ---- budgets ------------------------------------------------------------------------------------


def spent(day: date, credits: object, **columns: object) -> Row:
    return {
        "usage_date": day,
        "workspace_id": "ws_1",
        "scope": "workspace",
        "subject_id": "ws_1",
        "request_count": 1,
        "credits": Decimal(str(credits)),
    } | columns


def budget(**columns: object) -> Row:
    return {"budget_id": "b_1", "workspace_id": "ws_1", "scope": "workspace"} | columns


@pytest.fixture
def cross(run_model: RunModel) -> Tell:
    """`cross(spend, budgets, anchor)` gives the days on which budgets were reached."""

    def run(spend: Rows, budgets: Rows, anchor: date | None = None) -> Rows:
        workspace = {
            "workspace_id": "ws_1",
            "monthly_allowance_credits": Decimal(1000),
            "cycle_anchor_date": anchor,
        }
        return run_model(
            "marts.budget_crossings",
            {
                "marts.daily_spend": spend,
                "staging.budgets": budgets,
                "staging.workspaces": [workspace],
            },
        )

    return run


def test_a_budget_is_crossed_on_the_day_its_share_is_reached(cross: Tell) -> None:
    spend = [spent(date(2026, 11, day), 100) for day in range(1, 12)]

    [row] = cross(spend, [budget(threshold_percent=Decimal(75))])

    assert (row["usage_date"], row["cycle_credits"]) == (date(2026, 11, 8), Decimal(800))
    assert row["threshold_credits"] == Decimal(750)


@pytest.mark.parametrize(
    ("percent", "threshold"),
    [
        ("12.345", "123.45"),
        ("0.000000001", "0.00000001"),
        ("100000", "1000000"),
        ("999999999.999999999", "9999999999.99999999"),
    ],
)
def test_a_share_of_the_allowance_is_exact_however_odd(
    cross: Tell, percent: str, threshold: str
) -> None:
    below = spent(TODAY, Decimal(threshold) - Decimal("0.000000001"))
    budgets = [budget(threshold_percent=Decimal(percent), recipients="ada@acme.example")]

    assert cross([below], budgets) == []
    [row] = cross([below, spent(TODAY + DAY, Decimal("0.000000001"))], budgets)

    assert row["threshold_credits"] == row["cycle_credits"] == Decimal(threshold)
    assert row["recipients"] == "ada@acme.example"


def test_a_budget_may_be_reached_once_in_every_cycle(cross: Tell) -> None:
    spend = [spent(date(2026, 1, 1) + DAY * number, 10) for number in range(120)]

    rows = cross(spend, [budget(threshold_credits=Decimal(200))], anchor=date(2025, 1, 31))

    # on the last day of a month that has no 31st
    assert [row["cycle_start_date"] for row in rows] == [
        date(2025, 12, 31),
        date(2026, 1, 31),
        date(2026, 2, 28),
        date(2026, 3, 31),
    ]
    assert rows[1]["usage_date"] == date(2026, 2, 19)
    assert rows[1]["cycle_end_date"] == date(2026, 2, 28)


def test_a_budget_of_a_key_counts_that_key_only(cross: Tell) -> None:
    key = {"scope": "key", "subject_id": "key_1"}
    spend = [spent(TODAY, 500), spent(TODAY, 40, **key), spent(TODAY + DAY, 60, **key)]

    [row] = cross(spend, [budget(threshold_credits=Decimal(100), **key)])

    assert row["usage_date"] == TODAY + DAY


def test_a_budget_without_threshold_or_allowance_alerts_nobody(cross: Tell) -> None:
    assert cross([spent(TODAY, 500)], [budget(exceed_percent=Decimal(20))]) == []


def test_a_reached_budget_is_an_alert_until_its_cycle_ends(run_model: RunModel) -> None:
    crossing = {
        "budget_id": "b_1",
        "cycle_start_date": date(2026, 11, 1),
        "cycle_end_date": date(2026, 12, 1),
        "usage_date": TODAY,
        "workspace_id": "ws_1",
        "scope": "workspace",
        "subject_id": "ws_1",
        "threshold_percent": Decimal(75),
        "allowance_credits": Decimal(1000),
        "threshold_credits": Decimal(750),
        "cycle_credits": Decimal(800),
    }

    def alert(as_of: datetime) -> Row:
        [row] = run_model(
            "marts.budget_alerts", {"marts.budget_crossings": [crossing]}, as_of=as_of
        )
        return row

    during, after = alert(datetime(2026, 11, 19)), alert(datetime(2026, 12, 2))
    assert (during["kind"], during["state"], after["state"]) == ("budget", "open", "closed")
    assert during["alert_id"] == after["alert_id"]
    assert during["message"] == (
        "Workspace ws_1 has spent 800.00 credits since 2026-11-01 "
        "and reached its budget of 750.00 on 2026-11-18."
    )
    assert "75% of the allowance of 1,000.00 credits" in during["cause"]
    crossing["threshold_percent"] = Decimal("1000000.5")
    assert "1000000.5% of the allowance" in alert(datetime(2026, 11, 19))["cause"]


def crossing(percent: int, day: date = TODAY, **columns: object) -> Row:
    """A budget of ws_1 on the day it was reached."""
    return {
        "budget_id": f"b_{percent}",
        "cycle_start_date": date(2026, 11, 1),
        "cycle_end_date": date(2026, 12, 1),
        "usage_date": day,
        "workspace_id": "ws_1",
        "scope": "workspace",
        "subject_id": "ws_1",
        "threshold_percent": Decimal(percent),
        "allowance_credits": Decimal(1000),
        "threshold_credits": Decimal(10 * percent),
        "cycle_credits": Decimal(10 * percent + 5),
    } | columns


def test_of_the_budgets_of_a_subject_the_highest_that_was_reached_is_open(
    run_model: RunModel,
) -> None:
    crossings = [crossing(50, TODAY - DAY * 5), crossing(75, TODAY - DAY), crossing(90)]
    crossings.append(crossing(50, scope="key", subject_id="key_1"))

    alerts = run_model(
        "marts.budget_alerts",
        {"marts.budget_crossings": crossings},
        as_of=datetime.combine(TODAY + DAY, datetime.min.time()),
    )

    states = {(row["scope"], row["upper_limit"]): row["state"] for row in alerts}
    assert states == {
        ("workspace", Decimal(500)): "closed",
        ("workspace", Decimal(750)): "closed",
        ("workspace", Decimal(900)): "open",
        ("key", Decimal(500)): "open",
    }
    closed = [row["closed_at"] for row in alerts if row["upper_limit"] == 750]
    assert closed == [datetime.combine(TODAY + DAY, datetime.min.time())]  # as 90 % opened


def test_budgets_that_are_reached_on_one_day_are_told_by_the_highest_to_everybody(
    run_model: RunModel,
) -> None:
    crossings = [crossing(50, recipients="ada@acme.example"), crossing(75, recipients="bob@x.org")]

    alerts = run_model(
        "marts.budget_alerts",
        {"marts.budget_crossings": crossings},
        as_of=datetime.combine(TODAY, datetime.min.time()) + timedelta(hours=12),
    )

    half, most = sorted(alerts, key=lambda row: row["upper_limit"])
    assert (half["told_by_alert_id"], most["told_by_alert_id"]) == (most["alert_id"], None)
    assert (half["state"], most["state"]) == ("closed", "open")
    assert most["recipients"] == "ada@acme.example, bob@x.org"


def running_out(**columns: object) -> Row:
    return {
        "workspace_id": "ws_1",
        "cycle_start_date": date(2026, 11, 1),
        "cycle_end_date": date(2026, 12, 1),
        "first_projected_on": TODAY,
        "exhausted_on": date(2026, 11, 25),
        "is_exhausted": False,
        "credits": Decimal(800),
        "allowance_credits": Decimal(1000),
        "credits_per_day": Decimal(48),
    } | columns


@pytest.mark.parametrize(
    ("columns", "as_of", "state", "said"),
    [
        ({}, datetime(2026, 11, 19), "open", "at this rate the rest is gone on 2026-11-25."),
        ({"is_exhausted": True}, datetime(2026, 11, 26), "open", "has spent its allowance"),
        ({"exhausted_on": None}, datetime(2026, 11, 26), "closed", "they last beyond 2026-11-30."),
        ({}, datetime(2026, 12, 2), "closed", "at this rate"),
    ],
)
def test_an_allowance_that_runs_out_is_an_alert_of_its_workspace(
    run_model: RunModel, columns: Row, as_of: datetime, state: str, said: str
) -> None:
    [alert] = run_model(
        "marts.budget_alerts", {"marts.budget_exhaustion": [running_out(**columns)]}, as_of=as_of
    )

    assert (alert["kind"], alert["scope"], alert["subject_id"]) == (
        "exhaustion",
        "workspace",
        "ws_1",
    )
    assert (alert["state"], alert["credits_per_hour"]) == (state, Decimal(2))
    assert said in alert["message"]


# ---- the claims ---------------------------------------------------------------------------------


def test_the_claim_sees_an_anomaly_that_nobody_tells(run_model: RunModel) -> None:
    [broken] = run_model(
        "budget_alerts__cover_every_anomaly",
        {"marts.spend_ranges": [over()]},
        as_of=datetime(2026, 11, 19),
    )

    assert (broken["expected"], broken["found"]) == ("1", "0")


def test_the_claim_holds_where_a_key_tells_for_its_workspace(
    run_model: RunModel, tell: Tell
) -> None:
    ranges = [over(), over(scope="workspace", subject_id="ws_1")]
    alerts = tell(ranges, [usage()])
    key = {"told_as": "alert", "first_date": TODAY, "told_by_scope": "key"}
    key |= {name: over()[name] for name in ("usage_date", "workspace_id", "scope", "subject_id")}
    key["told_by_subject_id"] = "key_1"
    days = [key, key | {"scope": "workspace", "subject_id": "ws_1", "told_as": "line"}]

    broken = run_model(
        "budget_alerts__cover_every_anomaly",
        {
            "marts.spend_ranges": ranges,
            "marts.budget_alerts": alerts,
            "marts.alert_days": days,
        },
        as_of=datetime(2026, 11, 19),
    )

    assert broken == []


def test_the_claim_sees_a_limit_that_is_not_the_largest_part(run_model: RunModel) -> None:
    claim = "spend_ranges__limit_is_the_largest_part"

    assert run_model(claim, {"marts.spend_ranges": [over()]}) == []
    [broken] = run_model(claim, {"marts.spend_ranges": [over(upper_limit=Decimal(201))]})
    assert (broken["expected"], broken["found"]) == ("200.000000000", "201.000000000")


def test_the_claim_sees_a_verdict_that_the_numbers_deny(run_model: RunModel) -> None:
    claim = "spend_ranges__verdict_follows_from_numbers"

    assert run_model(claim, {"marts.spend_ranges": [over()]}) == []
    [broken] = run_model(claim, {"marts.spend_ranges": [over(verdict="normal")]})
    assert broken["found"] == "normal"


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"verdict": "expected", "overruled_verdict": "high", "expected_credits": 251}, []),
        ({"verdict": "expected", "overruled_verdict": "high", "expected_credits": 250}, ["high"]),
        ({"verdict": "expected", "overruled_verdict": "high"}, ["high"]),
        ({"verdict": "expected", "expected_credits": 251}, ["expected"]),
        ({"verdict": "high", "expected_credits": 250}, []),
        ({"verdict": "high", "expected_credits": 251}, ["expected"]),
        ({"verdict": "high", "overruled_verdict": "high"}, ["high"]),
        ({"verdict": "normal", "expected_credits": 251, "upper_limit": 500}, []),
        (
            {
                "verdict": "expected",
                "overruled_verdict": "normal",
                "expected_credits": 251,
                "upper_limit": 500,
            },
            ["normal"],
        ),
    ],
)
def test_the_claim_sees_a_day_that_is_expected_or_not_against_what_was_called_so(
    run_model: RunModel, columns: Row, found: list[str]
) -> None:
    broken = run_model(
        "spend_ranges__verdict_follows_from_numbers", {"marts.spend_ranges": [over(**columns)]}
    )

    assert len(broken) == len(found)
    assert all(word in row["expected"] for word, row in zip(found, broken, strict=True))


def test_the_claim_asks_of_an_expected_day_that_somebody_knows_why_nobody_is_told(
    run_model: RunModel,
) -> None:
    day = over(verdict="expected", overruled_verdict="high")
    fate = {name: day[name] for name in ("usage_date", "workspace_id", "scope", "subject_id")}
    claim, clock = "budget_alerts__cover_every_anomaly", datetime(2026, 11, 19)
    ranges = {"marts.spend_ranges": [day]}
    fates = {"marts.alert_days": [fate | {"told_as": "expected"}]}

    assert len(run_model(claim, ranges, as_of=clock)) == 1
    assert run_model(claim, ranges | fates, as_of=clock) == []


def test_the_claim_sees_a_credit_that_is_in_the_usage_and_not_in_the_ranges(
    run_model: RunModel,
) -> None:
    used = {
        "usage_date": TODAY,
        "workspace_id": None,
        "api_key_id": "key_1",
        "credits": Decimal("500.000000001"),
    }

    [broken] = run_model(
        "spend_ranges__add_up_to_usage",
        {"marts.spend_ranges": [over()], "marts.usage_by_key": [used]},
    )

    assert broken["usage_date"] == TODAY
    assert (broken["expected"], broken["found"]) == ("500.000000001", "500.000000000")

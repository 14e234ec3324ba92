"""What went wrong for users of other gateways, each as a test with the numbers of its thread.

A thread is named `owner/repository#number`; what it reports is told in our words. Where another
system lost or doubled money, the same traffic must come out of a night whole.
"""

import itertools
import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.models import Models
from tests.houses import ROLL_UPS, House, csv, jsonl, models_for, request, request_models, spend_log


@pytest.fixture(scope="module")
def some_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return request_models(tmp_path_factory.mktemp("sql"))


@pytest.fixture
def house(tmp_path: Path, some_models: Models) -> House:
    return House(tmp_path / "house", some_models)


def usage(house: House, *words: str) -> list[dict[str, Any]]:
    """What `meterhouse usage` says."""
    said = CliRunner().invoke(
        main, ["--config", str(house.config), "usage", "--format", "json", *words]
    )
    assert said.exit_code == 0, said.output
    rows: list[dict[str, Any]] = json.loads(said.stdout)
    return rows


def total(rows: list[dict[str, Any]]) -> tuple[int, Decimal]:
    """Requests and credits of all the rows."""
    return (
        sum(row["request_count"] for row in rows),
        sum((Decimal(row["credits"]) for row in rows), Decimal(0)),
    )


def shared_out(credits: Decimal, count: int) -> list[Decimal]:
    """An amount in that many parts, to the last decimal."""
    part = (credits / count).quantize(Decimal("1E-9"))
    return [part] * (count - 1) + [credits - part * (count - 1)]


def account(house: House) -> dict[str, int]:
    """What became of all the records: read = accepted + folded + corroborating + duplicate +
    quarantined.
    """
    names = ("read", "accepted", "folded", "corroborating", "duplicate", "quarantined")
    sums = ", ".join(f"sum({name}_count)::bigint as {name}" for name in names)
    [row] = house.rows(f"select {sums} from ops.source_objects")
    assert row["read"] == sum(row[name] for name in names[1:])
    return {name: count for name, count in row.items() if count}


# ---- the right day in my time zone ----------------------------------------------------------


def test_five_days_asked_one_by_one_are_the_five_days_asked_at_once(tmp_path: Path) -> None:
    """BerriAI/litellm#29568: of 29 May to 2 June 2026 in India (UTC+5:30) the aggregate was 1,831
    requests and $701.39; five queries of a day each added up to 2,755 and $1,070.94. Each took in
    a neighbour; a single day was about twice what it was.
    """
    named = ("staging.keys", "staging.members", "staging.workspaces")
    house = House(tmp_path / "house", models_for("marts.usage_by_key", *named))
    midnight = datetime(2026, 5, 28, 18, 30)  # 29 May in India
    step = timedelta(days=5) / 1831
    parts = shared_out(Decimal("70139"), 1831)  # credits, 100 to the dollar
    lines = [
        request(f"in_{n}", f"{midnight + n * step:%Y-%m-%dT%H:%M:%S.%fZ}", credits_used=str(part))
        for n, part in enumerate(parts)
    ]
    beside = [midnight - n * timedelta(minutes=7) for n in range(1, 400)]
    beside += [midnight + timedelta(days=5, minutes=7 * n) for n in range(400)]
    lines += [request(f"{at}", f"{at:%Y-%m-%dT%H:%M:%SZ}", credits_used=40) for at in beside]
    house.put("requests/a.jsonl", lines)
    house.night()
    days = [f"2026-05-{day}" for day in (29, 30, 31)] + ["2026-06-01", "2026-06-02"]
    zone = ("--tz", "Asia/Kolkata")

    for group in ("day", "key", "model", "workspace", "member"):
        words = (*zone, "--group-by", group)
        whole = usage(house, *words, "--from", days[0], "--to", days[-1])
        single = [usage(house, *words, "--from", day, "--to", day) for day in days]

        assert total(whole) == (1831, Decimal("70139"))
        assert total(list(itertools.chain.from_iterable(single))) == total(whole)
        for rows, day in zip(single, days, strict=True):
            assert {row["usage_date"] for row in rows} == {day}


def test_a_day_elsewhere_holds_its_own_requests_and_no_others(house: House) -> None:
    """BerriAI/litellm#27780: a page showed $8.7824 and 176 requests for 11 May 2026 where the table
    had $0.99 and 38, which the provider's bill agreed with: the days beside it had been added.
    """
    own = [datetime(2026, 5, 11, 7) + n * timedelta(minutes=37) for n in range(38)]
    beside = [datetime(2026, 5, 11, 6, 59) - n * timedelta(minutes=9) for n in range(69)]
    beside += [datetime(2026, 5, 12, 7) + n * timedelta(minutes=9) for n in range(69)]
    assert len(own + beside) == 176
    parts = shared_out(Decimal("99"), 38) + shared_out(Decimal("779.24"), 138)
    house.put(
        "requests/a.jsonl",
        [
            request(f"{n}", f"{at:%Y-%m-%dT%H:%M:%SZ}", credits_used=str(part))
            for n, (at, part) in enumerate(zip(own + beside, parts, strict=True))
        ],
    )
    house.night()
    words = ("--tz", "America/Los_Angeles", "--from")

    assert total(usage(house, *words, "2026-05-11", "--to", "2026-05-11")) == (38, Decimal("99"))
    around = usage(house, *words, "2026-05-10", "--to", "2026-05-12")
    assert total(around) == (176, Decimal("878.24"))


def test_a_days_last_half_hour_in_utc_is_the_next_morning_in_shanghai(house: House) -> None:
    """BerriAI/litellm#30441: 2025-01-01T23:30Z is 07:30 of 2 January there, and was put on the 1st;
    another zone meant to delete the daily tables and aggregate again.
    """
    house.put("requests/a.jsonl", [request("a", "2025-01-01T23:30:00Z")])
    house.night()
    span = ("--from", "2025-01-01", "--to", "2025-01-03", "--group-by", "day", "--tz")

    assert [row["usage_date"] for row in usage(house, *span, "Asia/Shanghai")] == ["2025-01-02"]
    assert [row["usage_date"] for row in usage(house, *span, "UTC")] == ["2025-01-01"]


# ---- no request silently dropped ------------------------------------------------------------


def test_requests_without_an_id_are_neither_one_nor_gone(house: House) -> None:
    """BerriAI/litellm#39749: a provider answered with `"id": null`, the row got the id `None`, and
    with a primary key and duplicates skipped the first alone was kept; #6633: with an empty id,
    likewise.
    """
    lines = [request("None", f"2026-11-20T10:0{n}:00Z", credits_used=n + 1) for n in range(3)]
    house.put("requests/none.jsonl", lines)
    house.put("requests/null.jsonl", [request("") | {"request_id": None, "n": n} for n in range(3)])
    house.put("requests/empty.jsonl", [request("", credits_used=n) for n in range(3)])

    house.night()

    assert account(house) == {"read": 9, "accepted": 1, "duplicate": 2, "quarantined": 6}
    conflicts = house.rows("select source_line, differs_in, credits from ops.conflicts order by 1")
    assert [tuple(row.values()) for row in conflicts] == [
        (1, "credits", Decimal(1)),
        (2, "credits", Decimal(2)),
    ]
    aside = house.rows("select line_number, reason from ops.quarantine")
    assert sorted(row["line_number"] for row in aside) == [1, 1, 2, 2, 3, 3]
    assert {row["reason"] for row in aside} == {"request_id is missing"}


def test_an_id_used_again_by_somebody_else_is_listed_not_dropped(house: House) -> None:
    """BerriAI/litellm#28376: a provider numbers its answers, `chatcmpl-213`, for all its users;
    #35563: a client sends its own call id again. Of each id the first was kept and nothing said.
    """
    for night, (key, credits) in enumerate([("key_1", 1), ("key_2", 7), ("key_3", 3)]):
        line = request("chatcmpl-213", f"2026-11-{18 + night}T10:00:00Z", api_key_id=key)
        house.put(f"requests/{night}.jsonl", [line | {"credits_used": credits}])
        house.night()

    assert account(house) == {"read": 3, "accepted": 1, "duplicate": 2}
    conflicts = house.rows("select credits, winner_credits, differs_in from ops.conflicts")
    assert sorted((row["credits"], row["winner_credits"]) for row in conflicts) == [
        (Decimal(1), Decimal(3)),
        (Decimal(7), Decimal(3)),
    ]
    assert {row["differs_in"] for row in conflicts} == {"credits, api_key_id"}


def test_nothing_ends_after_the_first_hundred(house: House) -> None:
    """BerriAI/litellm#29292 and #23452: of more than 100 combinations of key, day and model in one
    flush the first 100 in order were written and the others lost.
    """
    combinations = list(itertools.product(range(40), (18, 19, 20), range(10)))
    lines = [
        request(f"{key}/{day}/{model}", f"2026-11-{day}T10:00:00Z", api_key_id=f"key_{key:02}")
        | {"model": f"model_{model}", "credits_used": "0.000000001"}
        for key, day, model in combinations
    ]
    house.put("requests/a.jsonl", lines)

    house.night()

    rows = house.rows(
        "select api_key_id, usage_date, model, credits from marts.usage_quarter_hourly"
    )
    assert len(rows) == len(combinations) == 1200
    assert total(usage(house, "--last", "7d")) == (1200, Decimal("0.0000012"))


# ---- no request counted twice ---------------------------------------------------------------


def test_a_request_that_is_logged_twice_is_spent_once(house: House) -> None:
    """BerriAI/litellm#15740 (#16992): a responses call logged its spend twice, once for the call
    inside; #17814: each look at a response (121 + 400 tokens, $0.0023) was a further row. Rows of
    one id are one request here; a row with an id of its own is a request of its own.
    """
    first = spend_log("resp_1", 0.0023, prompt_tokens=121, completion_tokens=400, total_tokens=521)
    again = first | {"call_type": "aget_responses", "endTime": "2026-11-20T10:02:33.123000+00:00"}
    house.put("proxy/a.jsonl", [first, first | {"call_type": "aresponses"}, again, again])
    house.put("proxy/b.jsonl", [again, first])

    house.night()

    assert account(house) == {"read": 6, "accepted": 1, "duplicate": 5}
    [row] = house.rows("select credits, total_tokens from marts.requests")
    assert tuple(row.values()) == (Decimal("0.23"), 521)
    assert house.rows("from ops.conflicts") == []


def test_an_event_that_is_delivered_four_times_is_charged_once(house: House) -> None:
    """Vexa-ai/vexa#350: each event stood four times in the meter, same time, same cost: 110 minutes
    at $0.3666 and at $0.5500, 120 at $0.4000 and $0.6000; four times the bill.
    """
    events = [("r110", "36.66"), ("b110", "55.00"), ("r120", "40.00"), ("b120", "60.00")]
    lines = [request(name, credits_used=credits) for name, credits in events]
    for delivery in range(4):
        house.put(
            f"requests/{delivery}.jsonl", [*lines, request(f"alone_{delivery}", source="api")]
        )
        house.night()

    assert account(house) == {"read": 20, "accepted": 8, "duplicate": 12}
    assert total(usage(house, "--last", "7d")) == (8, Decimal("191.66") + 4 * Decimal("2.5"))


def test_copies_that_differ_in_microseconds_are_one_request(house: House) -> None:
    """theexperiencecompany/gaia#1170: calls were metered twice, the copies differing only in the
    microseconds of their time: 1,673 were left of them against 1,680 billed.
    """
    lines = []
    for number in range(1673):
        at = datetime(2026, 11, 17, 0, 0, 7) + number * timedelta(seconds=51)
        for copy in range(1 + number % 2):
            lines.append(request(f"gen_{number}", f"{at:%Y-%m-%dT%H:%M:%S}.{copy:06}Z"))
    house.put("requests/a.jsonl", lines)

    house.night()

    assert account(house) == {"read": 2509, "accepted": 1673, "duplicate": 836}
    assert total(usage(house, "--last", "7d")) == (1673, 1673 * Decimal("2.5"))


def test_a_placeholder_of_nought_gives_way_to_the_real_record(house: House) -> None:
    """ClaudeCodeUsage/ClaudeCodeUsage#18: a proxy wrote a record of no tokens and then the real one
    under one id; what dropped duplicates kept the placeholder.
    """
    empty = {"prompt_tokens": 0, "completion_tokens": 0, "credits_used": 0}
    for name, lines in {
        "requests/a.jsonl": [request("a") | empty, request("a")],
        "requests/b.jsonl": [request("b"), request("b") | empty],
    }.items():
        house.put(name, lines)

    house.night()

    rows = house.rows("select prompt_tokens, credits from marts.requests")
    assert [tuple(row.values()) for row in rows] == [(10, Decimal("2.5"))] * 2
    assert house.value("select count(*) from ops.conflicts") == 2


# ---- late, and again ------------------------------------------------------------------------


def test_what_comes_late_opens_its_own_days_and_nothing_is_billed_again(tmp_path: Path) -> None:
    """flexprice/flexprice#605 and killbill/killbill#876: usage that comes after its period is lost,
    or everything is computed again. Here a line of last year touches its day alone, and what is
    read or built again changes nothing.
    """
    house = House(tmp_path / "house", request_models(tmp_path / "sql", *ROLL_UPS))
    for day in (18, 19, 20):
        house.put(f"requests/{day}.jsonl", [request(f"r_{day}", f"2026-11-{day}T10:00:00Z")])
    house.night()
    before = house.answers()["marts.usage_by_key"]
    late = [request("late", "2025-11-19T10:00:00Z"), request("late_too", "2026-11-19T11:00:00Z")]
    house.put("requests/late.jsonl", late)

    house.night()

    after = house.answers()["marts.usage_by_key"]
    assert {day for day in after if after[day] != before.get(day)} == {"2025-11-19", "2026-11-19"}
    house.put(
        "requests/late_again.jsonl.gz", jsonl([*late, request("r_18", "2026-11-18T10:00:00Z")])
    )
    house.night(everything=True)
    assert house.answers()["marts.usage_by_key"] == after
    assert house.value("select sum(credits) from marts.usage_by_key") == 5 * Decimal("2.5")


# ---- a key that is gone ---------------------------------------------------------------------


def test_a_deleted_key_keeps_its_name_its_workspace_and_its_history(tmp_path: Path) -> None:
    """BerriAI/litellm#25710: when a key was deleted, its rows lost the name of their team, and so
    every report by team after a rotation.
    """
    house = House(tmp_path / "house", models_for("marts.usage_by_key"))
    heading = "api_key_id,workspace_id,name\n"
    house.put("directory/keys.csv", f"{heading}key_old,ws_a,Nightly\nkey_new,ws_a,Nightly 2\n")
    house.put(
        "requests/1.jsonl",
        [request("r_1", "2026-11-18T10:00:00Z", api_key_id="key_old", workspace_id=None)],
    )
    house.night()
    house.put("directory/keys.csv", f"{heading}key_new,ws_a,Nightly (new)\n")
    house.put(
        "requests/2.jsonl",
        [
            request("r_2", "2026-11-20T10:00:00Z", api_key_id="key_new", workspace_id=None),
            request("late", "2026-11-18T11:00:00Z", api_key_id="key_old", workspace_id=None),
        ],
    )

    house.night()

    rows = house.rows(
        "select usage_date::varchar, workspace_id, api_key_id, key_name, credits "
        "from marts.usage_by_key order by all"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("2026-11-18", "ws_a", "key_old", "Nightly", Decimal(5)),
        ("2026-11-20", "ws_a", "key_new", "Nightly (new)", Decimal("2.5")),
    ]
    shown = usage(house, "--group-by", "key", "--last", "7d")
    assert [row["key_name"] for row in shown] == ["Nightly", "Nightly (new)"]


# ---- cut off, failed, free ------------------------------------------------------------------


def test_a_stream_that_was_cut_off_counts_with_what_it_states(house: House) -> None:
    """BerriAI/litellm#33736 and #30630: of a stream whose client had gone no row was written, but
    18 tokens in and 26 out were billed; #37734: 296 tokens out at a spend of 0.0, and behind a 408
    no tokens in; #13245: what went in alone. As each states itself, each counts.
    """
    house.put(
        "proxy/a.jsonl",
        [
            spend_log("gone", 0.00044, prompt_tokens=18, completion_tokens=26, total_tokens=44),
            spend_log("free", 0.0, prompt_tokens=9, completion_tokens=296, total_tokens=305),
            spend_log("in", 0.01, prompt_tokens=18, completion_tokens=None, total_tokens=None),
            spend_log(
                "capped",
                0.0,
                status="failure",
                prompt_tokens=0,
                completion_tokens=0,
                total_tokens=0,
                metadata=json.dumps(
                    {"error_information": {"error_code": "408", "error_class": "Timeout"}}
                ),
            ),
        ],
    )

    house.night()

    rows = house.rows(
        "select request_id, status, error_code, prompt_tokens, completion_tokens, total_tokens, "
        "credits from marts.requests order by 1"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("capped", 408, "Timeout", 0, 0, 0, Decimal(0)),
        ("free", 200, None, 9, 296, 305, Decimal(0)),
        ("gone", 200, None, 18, 26, 44, Decimal("0.044")),
        ("in", 200, None, 18, None, None, Decimal(1)),
    ]
    [sums] = house.rows(
        "select sum(request_count)::bigint as requests, sum(error_count)::bigint as errors, "
        "sum(prompt_tokens)::bigint as prompts, sum(completion_tokens)::bigint as completions, "
        "sum(credits) as credits from marts.usage_quarter_hourly"
    )
    assert tuple(sums.values()) == (4, 1, 45, 322, Decimal("1.044"))


def test_nought_is_a_price_and_nothing_is_not(house: House) -> None:
    """BerriAI/litellm#37294 and #38812: a rate of 0 was taken for a missing one, by its truth;
    #39618: missing token counts cost an exception, and as 0 would look free. 0 is accepted as 0;
    credits that are missing are set aside; tokens that are missing stay so.
    """
    lines = [
        request("free", credits_used=0, prompt_tokens=0, completion_tokens=0),
        request("text", credits_used="0.000000000", prompt_tokens="0"),
        request("unknown", credits_used=1, prompt_tokens=None, completion_tokens=None),
        request("unpriced", credits_used=None),
    ]
    house.put("requests/a.jsonl", lines)
    house.put("proxy/a.jsonl", [spend_log("spend", 0), spend_log("none", "")])

    house.night()

    rows = house.rows(
        "select request_id, prompt_tokens, total_tokens, credits from marts.requests order by 1"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("free", 0, 0, Decimal(0)),
        ("spend", 10, 15, Decimal(0)),
        ("text", 0, 5, Decimal(0)),
        ("unknown", None, None, Decimal(1)),
    ]
    aside = house.rows("select reason from ops.quarantine order by 1")
    assert [row["reason"] for row in aside] == ["credits_used is missing", "spend is missing"]


# ---- whose it was ---------------------------------------------------------------------------


def test_a_key_that_many_share_pins_nothing_to_the_first_of_them(tmp_path: Path) -> None:
    """BerriAI/litellm#31441: of requests through one shared key each row took the user of the first
    one seen, alice, who was billed for all of them.
    """
    house = House(tmp_path / "house", request_models(tmp_path / "sql", *ROLL_UPS))
    people = ("alice", "bob", "carol", "bob")
    house.put(
        "requests/a.jsonl",
        [
            *(
                request(f"p_{n}", source="playground", member_id=name, credits_used=2**n)
                for n, name in enumerate(people)
            ),
            *(request(f"a_{n}", member_id=name) for n, name in enumerate(people)),
        ],
    )
    logged = [spend_log(f"s_{n}", 1, user=name, end_user=name) for n, name in enumerate(people)]
    house.put("proxy/a.jsonl", logged)

    house.night()

    rows = house.rows(
        "select member_id, request_count, credits from marts.usage_by_member order by 1 nulls last"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("alice", 1, Decimal(1)),
        ("bob", 2, Decimal(10)),
        ("carol", 1, Decimal(4)),
        (None, 8, 4 * Decimal("2.5") + 4 * Decimal(100)),
    ]


# ---- a column that comes late ---------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_field_that_first_appears_after_a_hundred_rows_is_kept(
    tmp_path: Path, some_models: Models, suffix: str
) -> None:
    """BerriAI/litellm#39871: a schema was inferred from 100 rows; where the first tagged row came
    later the export failed, and one such day held back every other; #39873: of 105 rows, 101
    without a team, the tags of the last four were dropped.
    """
    house = House(tmp_path / "house", some_models)
    plain = [request(f"r_{n:03}", workspace_id="", credits_used=1) for n in range(101)]
    tagged = [
        request(f"r_{n:03}", workspace_id="team-a", credits_used="0.5", fallback_from="opus")
        for n in range(101, 105)
    ]
    lines = [line | {"fallback_from": line.get("fallback_from", "")} for line in plain + tagged]
    if suffix == ".jsonl":
        for line in lines[:101]:
            del line["workspace_id"], line["fallback_from"]
    house.put(f"requests/a{suffix}", csv(lines) if suffix == ".csv" else lines)
    house.put("requests/bad_day.jsonl", ['{"request_id": "b", "timestamp": "2026-11-19"}'] * 105)

    house.night()

    rows = house.rows(
        "select workspace_id, fallback_from, count(*) as requests, sum(credits) as credits "
        "from marts.requests group by all order by all"
    )
    assert [tuple(row.values()) for row in rows] == [
        ("team-a", "opus", 4, Decimal(2)),
        (None, None, 101, Decimal(101)),
    ]
    assert account(house) == {"read": 210, "accepted": 105, "quarantined": 105}

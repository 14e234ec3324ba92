"""A member is erased: nothing names it any more, every sum stays, and no replay brings it back."""

import gzip
import json
import random
import shutil
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets import decisions, erasure
from exports.alerts import Alert, Answer
from pipelines import contents
from pipelines.models import Models
from pipelines.night import Told
from pipelines.settings import SettingsError
from tests.houses import (
    AS_OF,
    House,
    Line,
    failed_claims,
    furnish,
    jsonl,
    models_for,
    published,
    request,
    traffic,
    until_failure,
)
from tests.kills import Moment, Nights, look_at_wreck, nights

ID = "mem_rosalind-7"
NAME = "Rosalind Élodie Franklin"
NEEDLES = (ID, NAME, json.dumps(NAME)[1:-1])
LATER = AS_OF + timedelta(days=1)


# ---- looking for a name everywhere ----------------------------------------------------------


def texts_of(path: Path) -> Iterator[str]:
    """All that a file says: its bytes, and what packed columns, statistics and tables unfold to."""
    content = path.read_bytes()
    yield content.decode("utf-8", errors="replace")
    if path.suffix == ".gz":
        yield gzip.decompress(content).decode("utf-8", errors="replace")
    elif path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        yield repr(file.read().to_pylist())
        yield repr(file.metadata.to_dict())
    elif path.suffix == ".duckdb":
        with closing(duckdb.connect()) as connection:
            connection.execute(f"attach '{path}' as one (read_only)")
            for schema, name in connection.execute(
                "select schema_name, table_name from duckdb_tables() where database_name = 'one'"
            ).fetchall():
                yield repr(connection.execute(f"from one.{schema}.{name}").fetchall())


def where_named(house: House, *needles: str) -> list[str]:
    """The files that name a member, of all but what lies in landing: that is its owner's."""
    found = []
    for path in sorted(house.folder.rglob("*")):
        inside = path.relative_to(house.folder)
        if not path.is_file() or inside.parts[0] == "landing":
            continue
        text = str(inside) + "".join(texts_of(path))
        if any(needle in text for needle in needles):
            found.append(str(inside))
    return found


def sums(house: House, given: Mapping[str, str] | None = None) -> erasure.Totals:
    """What is published, summed by day and model, key, member; members by their new names."""
    with published(house.root) as connection:

        def rows(sql: str) -> list[dict[str, Any]]:
            result = connection.execute(sql)
            names = [column[0] for column in result.description or []]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

        return erasure.renamed(erasure.totals(rows), given or {})


def erase(house: House, member_id: str = ID, names: tuple[str, ...] = (NAME,)) -> str:
    """The decision, without the night that carries it out; returns the name given."""
    with house.store.lock(60):
        return erasure.decide(house.store, house.settings, member_id, names).given


# ---- random members -------------------------------------------------------------------------

MEMBERS = ("mem_1", "mem_10", "ada@acme.example", "0f3c-11 22", "mém'ber", "x/y", "erin=1", None)
SMALL = ("marts.usage_by_model", "marts.usage_by_key", "marts.usage_by_member")


@pytest.fixture(scope="module")
def small_models() -> Models:
    """Request logs and the three usage views: nights short enough for many."""
    return models_for(*SMALL)


@st.composite
def logs(draw: st.DrawFn) -> list[list[Line]]:
    """Files of a few requests by a few members; ids come again, within a file and elsewhere, and
    may then state another member, with another model.
    """

    def stated(number: int, day: int, credits: str, model: int) -> Line:
        member = MEMBERS[(2 * number + model) % len(MEMBERS)]
        return request(
            f"req_{number}",
            f"2026-11-{day}T10:00:00Z",
            source="playground" if member else "api",
            member_id=member,
            credits_used=credits,
            model=["gpt-5", "sonnet-5"][model],
        )

    credits = st.sampled_from(["0", "0.1", "2.5", "0.000000001"])
    line = st.builds(stated, st.integers(1, 12), st.integers(18, 20), credits, st.integers(0, 1))
    return draw(st.lists(st.lists(line, min_size=1, max_size=8), min_size=1, max_size=4))


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(files=logs(), data=st.data())
def test_a_random_member_is_gone_and_stays_gone_and_sums_stay(
    tmp_path_factory: pytest.TempPathFactory,
    small_models: Models,
    files: list[list[Line]],
    data: st.DataObject,
) -> None:
    there = sorted({line["member_id"] for file in files for line in file if line["member_id"]})
    member = data.draw(st.sampled_from(there or ["nobody"]))
    folder = tmp_path_factory.mktemp("house") / "h"
    house = House(folder, small_models)
    for number, lines in enumerate(files):
        house.put(f"requests/{number}.jsonl", lines)
        if number in (0, len(files) - 1):
            house.night()
    before = house.value("select count(*) from raw.requests where member_id = 'mem_1'")

    name = erase(house, member, ())
    expected = sums(house, {member: name})
    house.night(lands=False)

    assert sums(house) == expected
    house.check_whole()
    with published(house.root) as connection:
        for table in ("raw.requests", "staging.request_contests", "marts.usage_by_member"):
            [(count,)] = connection.execute(
                f"select count(*) from {table} where member_id = $id", {"id": member}
            ).fetchall()
            assert count == 0, table
    if member != "mem_1":  # who is another stays
        assert before == house.value("select count(*) from raw.requests where member_id = 'mem_1'")

    for number, lines in enumerate(files):  # again: renamed, packed, in another order
        house.put(f"requests/{number}.again.jsonl", [*lines])
        house.put(f"requests/{number}.jsonl.gz", jsonl(lines))
        house.put(f"requests/{number}.reversed.jsonl", [*reversed(lines), {"odd": number}])
    house.night(LATER)
    for number, lines in enumerate(files):
        house.put(f"requests/{number}.late.jsonl.zst", jsonl([*lines, *lines]))
    house.night(LATER)

    assert sums(house) == expected
    assert house.value("select count(*) from raw.requests where member_id is not null") == sum(
        line["member_id"] is not None for line in [line for file in files for line in file * 4]
    )
    answers = house.answers()
    house.night(LATER, everything=True)
    assert house.answers() == answers
    house.check_whole()


# ---- the whole house ------------------------------------------------------------------------


def furnish_with_member(house: House, first_day: int) -> None:
    """A house in which the member is wherever a member can be."""
    furnish(house, first_day)
    house.put("directory/members.csv", f"member_id,workspace_id,name\n{ID},ws_1,{NAME}\n")
    house.put(
        "directory/keys.csv",
        "api_key_id,workspace_id,name\nkey_1,ws_1,Bot\nkey_2,ws_2,Batch\n"
        f"key_3,ws_1,{NAME}'s laptop\n",
    )
    house.put(
        "directory/budgets.csv",
        "budget_id,workspace_id,scope,subject_id,threshold_credits,recipients\n"
        "bud_1,ws_1,workspace,,400,\n"
        f'bud_m,ws_1,member,{ID},1000,"lead@acme.example, {ID}@acme.example"\n',
    )
    for day in range(first_day, 21):
        lines = [
            line | {"member_id": ID if line["member_id"] else None}
            for line in traffic(day, 36, "own")
        ]
        house.put(f"requests/{ID}/2026-11-{day}.jsonl", lines)
    dear = [
        request(
            f"dear_{number}",
            f"2026-11-20T1{number}:30:00Z",
            source="playground",
            member_id=ID,
            api_key_id=None,
            credits_used="300",
        )
        for number in range(6)
    ]
    house.put(f"requests/{ID}.jsonl", dear)
    house.put("requests/2026-11-20.jsonl", traffic(19, 3))


def told(messages: list[Alert]) -> Mapping[str, ModuleType]:
    """A sink that remembers."""
    sink = ModuleType("told")

    def send(alert: Alert) -> Answer:
        messages.append(alert)
        return Answer("sent", f"{NAME} has read it")

    sink.send = send  # type: ignore[attr-defined]
    return {"told": sink}


def test_nothing_names_an_erased_member_and_what_was_told_stays_told(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    furnish_with_member(house, first_day=15)  # for an anomaly there must be days that were usual
    messages: list[Alert] = []
    house.night(sinks=told(messages))
    of_member = {one.alert_id: one for one in messages if NAME in one.message}
    assert {one.kind for one in of_member.values()} >= {"anomaly", "budget"}
    [anomaly] = [one for one in of_member.values() if one.kind == "anomaly"]
    decisions.decide(
        house.store.journal("raw.decisions"), anomaly.alert_id, "acknowledged", f"{NAME} looks"
    )
    part = house.folder / "out" / "usage_by_member" / f".{ID}.csv.part"
    part.write_text(ID)
    house.night()  # supersedes what the first one published
    assert where_named(house, *NEEDLES)
    count = len(messages)

    name = erase(house)
    expected = sums(house, {ID: name})
    happened = house.night(sinks=told(messages), lands=False)

    assert where_named(house, *NEEDLES) == []
    assert not failed_claims(happened)
    assert sums(house) == expected
    house.check_whole()
    assert len(messages) == count
    [alert] = house.rows(
        "select state, subject_id, message, note from marts.budget_alerts "
        "where scope = 'member' and kind = 'anomaly'"
    )
    assert (alert["state"], alert["subject_id"]) == ("acknowledged", name)
    assert alert["message"].startswith(f"Member {name} of ")
    assert alert["note"] == f"{name} looks"
    assert house.value("select recipients from staging.budgets where budget_id = 'bud_m'") == (
        "lead@acme.example"
    )
    assert house.value("select name from staging.keys where api_key_id = 'key_3'") == (
        f"{name}'s laptop"
    )

    answers = house.answers()
    house.night(everything=True, lands=False)
    assert house.answers() == answers

    for file in (house.folder / "landing" / "requests" / ID).iterdir():  # delivered again
        shutil.copyfile(file, file.parent.parent / f"again-{file.name}")
    for file in (house.folder / "landing" / "directory").iterdir():
        file.write_text(file.read_text() + "\n")
    again = f"again_1,ws_1,{NAME}\n{ID},ws_2,Somebody Else\n"
    house.put("directory/members-2.csv", f"member_id,workspace_id,name\n{again}")
    house.night(LATER, sinks=told(messages))

    # a key's name is said again by the directory, of a key; another member may be called the same
    assert {Path(path).parts[1] for path in where_named(house, ID)} == set()
    assert house.value(f"select count(*) from staging.members where member_id = '{name}'") == 2
    assert house.value("select count(*) from raw.members where name = 'Somebody Else'") == 0
    assert all(one.transition != "opened" for one in messages[count:])


def test_the_night_that_ends_an_erasure_says_which_files_name_the_member_and_the_next_is_quiet(
    tmp_path: Path,
) -> None:
    house = House(tmp_path / "house")
    furnish_with_member(house, first_day=20)
    house.night()
    name = erase(house)

    said = [event.sentence for event in house.night() if isinstance(event, Told)]
    before = house.bytes()
    house.night()

    [sentence] = [one for one in said if "delete them" in one]
    assert f"requests/{name}/2026-11-20.jsonl" in sentence
    assert ID not in sentence
    assert house.bytes() == before


def test_dagster_s_history_forgets_too(tmp_path: Path, small_models: Models) -> None:
    house = House(tmp_path / "house", small_models, environment={})
    house.put("requests/a.jsonl", [request(source="playground", member_id=ID)])
    house.night()
    runs = house.settings.dagster_home / "history" / "runs"
    runs.mkdir(parents=True)
    said = json.dumps({"message": f"on 2026-11-20:\n{ID}, {NAME}, mem_rosalind-77"})
    with closing(sqlite3.connect(runs / "index.db")) as connection:
        connection.execute("create table event_logs (id integer primary key, event text)")
        connection.execute("insert into event_logs (event) values (?)", [said])
        connection.execute("insert into event_logs (event) values (?)", [said])
        connection.execute("delete from event_logs where id = 2")
        connection.commit()
    logs = house.settings.dagster_home / "storage" / "run" / "compute_logs"
    logs.mkdir(parents=True)
    (logs / "a.out").write_text(f"told {NAME}")

    name = erase(house)
    house.night()

    with closing(sqlite3.connect(runs / "index.db")) as connection:
        [(event,)] = connection.execute("select event from event_logs").fetchall()
    assert json.loads(event)["message"] == f"on 2026-11-20:\n{name}, {name}, mem_rosalind-77"
    assert where_named(house, NAME, NEEDLES[2], f"{ID},") == []


def test_every_raw_table_that_may_name_a_member_is_known_to_an_erasure() -> None:
    known = {*erasure.REQUESTS, *erasure.TEXTS, erasure.JOURNAL}

    for table, shape in contents.raw_tables().items():
        names_one = {"member_id", "subject_id", "member_name"} & shape.columns.keys()
        assert not names_one or table in known, table


# ---- the key --------------------------------------------------------------------------------


def test_without_its_key_no_night_lands(tmp_path: Path, small_models: Models) -> None:
    house = House(tmp_path / "house", small_models)
    house.put("requests/a.jsonl", [request(source="playground", member_id=ID)])
    house.night()
    erase(house)
    house.night()
    key = house.folder / ".erasure.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    right = key.read_text()

    for wrong in (None, "ab" * 32, "no key"):
        key.unlink()
        if wrong is not None:
            key.write_text(wrong)
        _, error = until_failure(house.events())
        assert isinstance(error, SettingsError)
        assert "back-up" in str(error)
        key.write_text(right)
    house.night()


def test_the_name_given_needs_the_key_and_is_for_ever_the_same() -> None:
    one, other = erasure.Tombstones(b"a" * 32), erasure.Tombstones(b"b" * 32)

    assert one.name_for(ID) == erasure.Tombstones(b"a" * 32).name_for(ID)
    assert one.name_for(ID) != other.name_for(ID)
    assert one.name_for(ID) != one.name_for(f"{ID} ")


@pytest.mark.parametrize(
    ("text", "blotted"),
    [
        ("mem_1", "X"),
        ("mem_10 mem_1, xmem_1", "mem_10 X, xmem_1"),
        ("landing/mem_1/a.jsonl", "landing/X/a.jsonl"),
        (r"line\nmem_1\u0022", r"line\nX\u0022"),
    ],
)
def test_a_name_is_taken_out_where_it_is_a_word(text: str, blotted: str) -> None:
    assert erasure.blotter({"mem_1": "X"})(text) == blotted


# ---- killed ---------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Nights]:
    with nights(tmp_path / "house", *SMALL) as process:
        yield process


def test_a_killed_erasure_is_ended_by_the_next_night(tmp_path: Path, running: Nights) -> None:
    house = House(tmp_path / "house")
    furnish(house, first_day=20)
    house.put("directory/members.csv", f"member_id,workspace_id,name\n{ID},ws_1,{NAME}\n")
    lines = [line | {"member_id": ID if line["member_id"] else None} for line in traffic(20, 48)]
    house.put("requests/2026-11-20.jsonl", lines)
    running.run()
    house.put("requests/late.jsonl", [lines[5] | {"request_id": "late"}])
    running.run()
    before = house.store.snapshot()
    assert before is not None
    name = erase(house)
    expected = sums(house, {ID: name})
    start = tmp_path / "start"
    shutil.copytree(house.folder, start)
    running.run()
    truth, counts = house.answers(), running.counts()

    rng = random.Random("1/erasures")
    for _ in range(3):
        shutil.rmtree(house.folder)
        shutil.copytree(start, house.folder)
        call = rng.choice(["replace", "fsync", "event", ""])
        moment = (
            Moment(call, rng.randint(1, int(counts[call])), rng.random() < 0.5)
            if call
            else Moment(seconds=rng.uniform(0.01, counts["seconds"]))
        )
        running.run(moment)
        look_at_wreck(house, before.snapshot_id)
        running.run()
        assert where_named(house, *NEEDLES) == [], f"killed {moment}"
        assert house.answers() == truth, f"killed {moment}"
        assert sums(house) == expected
        house.check_whole()


# ---- the command ----------------------------------------------------------------------------


def test_the_command_erases_and_says_what_is_left_to_do(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.put("requests/a.jsonl", [request(source="playground", member_id=ID), request("req_2")])
    house.put("directory/members.csv", f"member_id,workspace_id,name\n{ID},ws_1,{NAME}\n")
    assert house.ask("erase", "member", ID, "--yes").returncode == 1  # nothing is published
    house.night()

    unknown = house.ask("erase", "member", "mem_nobody", "--yes")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1), unknown.stderr
    assert "--even-if-unknown" in unknown.stderr
    assert house.ask("erase", "member", ID).returncode == 1  # nobody said yes
    assert where_named(house, ID)

    done = house.ask("erase", "member", ID, "--yes", "--note", f"{NAME} asked for it", check=True)

    assert "Totals by day, model, key and member are as before: 2 requests, 5" in done.stdout
    for name in ("requests/a.jsonl", "directory/members.csv"):
        assert str(house.folder / "landing" / name) in done.stdout
    assert where_named(house, *NEEDLES) == []
    assert "already" in house.ask("erase", "member", ID, "--yes", check=True).stdout

    house.ask("erase", "member", "mem_later", "--yes", "--even-if-unknown", check=True)
    house.put("requests/b.jsonl", [request("req_3", source="playground", member_id="mem_later")])
    house.night(LATER)
    assert where_named(house, "mem_later") == []
    assert house.value("select count(distinct member_id) from marts.requests") == 2

"""Nights killed with SIGKILL at a chosen moment, and run again: what `test_night.py` and `proof.py`
count.

A night in a process of its own costs a second of imports before it begins. So one process imports
the house once, starts no thread, and forks a child for each night. A child dies by its own hand at
the n-th rename, fsync, message or event of the night, or by its parent's after some time: the
moments between two system calls are as likely as those around them.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb

from exports.alerts import Alert, Answer
from tests.houses import (
    AS_OF,
    CHECKOUT,
    House,
    csv,
    furnish,
    invoice,
    models_for,
    payment,
    published,
    request,
    spend_log,
    traffic,
)

CALLS = ("replace", "fsync", "send", "event")
IN_A_ROW = 5  # so many nights may die before one ends its work


@dataclass(frozen=True)
class Moment:
    """When a night dies: around the `number`-th call of a kind (from 1), or after `seconds`."""

    call: str = ""
    number: int = 0
    is_after: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        if not self.call:
            return f"after {self.seconds:.3f} s"
        return f"{'after' if self.is_after else 'before'} {self.call} {self.number}"


# ---- the process that forks -----------------------------------------------------------------


def serve() -> None:
    """Reads orders from standard input, one JSON line each; answers each with what became of
    the night.
    """
    from pipelines import contents

    contents.models()
    contents.sources()
    for line in sys.stdin:
        order = json.loads(line)
        report = Path(order["report"])
        report.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            _die_in_a_night(order, report)
        deadline = order["moment"]["seconds"] if order["moment"] else 0.0
        if deadline:
            time.sleep(deadline)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        answer = {"killed": os.WIFSIGNALED(status), "code": os.waitstatus_to_exitcode(status)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _die_in_a_night(order: Mapping[str, Any], report: Path) -> None:
    """The child: one night, with a report of how many calls it made and how long it took."""
    code = 1
    try:
        counts = dict.fromkeys(CALLS, 0)
        moment = Moment(**order["moment"]) if order["moment"] else Moment()
        around = _counting(counts, moment)
        os.replace = around("replace", os.replace)
        os.fsync = around("fsync", os.fsync)
        house = House(
            Path(order["folder"]), models_for(*order["tables"]) if order["tables"] else None
        )
        house.is_prepared = False  # it is killed while it makes it, too
        began = time.monotonic()
        event = around("event", lambda: None)
        sinks = {"told": _sink(house.folder / "told.jsonl", around)}
        for _ in house.events(datetime.fromisoformat(order["as_of"]), sinks=sinks):
            event()
        report.write_text(json.dumps(counts | {"seconds": time.monotonic() - began}))
        code = 0
    except BaseException:  # noqa: BLE001  (the parent shows it)
        report.write_text(json.dumps({"error": traceback.format_exc()}))
    finally:
        os._exit(code)


def _counting(
    counts: dict[str, int], moment: Moment
) -> Callable[[str, Callable[..., Any]], Callable[..., Any]]:
    def around(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            counts[name] += 1
            is_now = moment.call == name and moment.number == counts[name]
            if is_now and not moment.is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*given, **named)
            if is_now:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted

    return around


def _sink(
    told: Path, around: Callable[[str, Callable[..., Any]], Callable[..., Any]]
) -> ModuleType:
    """A sink that writes down what it is told, so that a killed night's messages are known too."""

    def receive(alert: Alert) -> Answer:
        lines = [
            {"alert_id": one.alert_id, "transition": one.step, "may_repeat": one.may_repeat}
            for one in alert.members or (alert,)
        ]
        with told.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
        return Answer("sent", "written down")

    module = ModuleType("told")
    counted = around("send", receive)

    def send(alert: Alert) -> Answer:
        answer: Answer = counted(alert)
        return answer

    module.send = send  # type: ignore[attr-defined]
    return module


class Nights:
    """The other end of `serve()`."""

    def __init__(
        self, process: "subprocess.Popen[str]", folder: Path, tables: Sequence[str]
    ) -> None:
        self.process = process
        self.folder = folder
        self.tables = tables
        self.report = folder.parent / f"{folder.name}.report.json"

    def run(self, moment: Moment | None = None) -> bool:
        """One night in the house at `folder`; whether it was killed. Raises AssertionError if
        it failed.
        """
        order = {
            "folder": str(self.folder),
            "as_of": AS_OF.isoformat(),
            "moment": asdict(moment) if moment else None,
            "report": str(self.report),
            "tables": self.tables,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if not answer["killed"]:
            assert answer["code"] == 0, json.loads(self.report.read_text())["error"]
        return bool(answer["killed"])

    def counts(self) -> dict[str, float]:
        """How many calls the last night made, by kind, and its `seconds`."""
        counted: dict[str, float] = json.loads(self.report.read_text())
        return counted


@contextmanager
def nights(folder: Path, *tables: str) -> Iterator[Nights]:
    """A process that runs nights in `folder`; `tables`: of what these stand on alone."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.kills"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    ) as process:
        yield Nights(process, folder, tables)
        assert process.stdin is not None
        process.stdin.close()


# ---- trials ---------------------------------------------------------------------------------


def first_arrivals(house: House) -> None:
    """What the first night finds."""
    furnish(house, first_day=20)
    house.put("proxy/a.jsonl", [spend_log("llm_1", 0.1234567890123), spend_log("req_20_3", 0.5)])


def later_arrivals(house: House) -> None:
    """What the second night finds: late lines, duplicates across days and formats, odd lines,
    more money.
    """
    again = traffic(20)[:3]
    dear = request("dear", "2026-11-20T22:00:00Z", credits_used="400")
    house.put(
        "requests/2026-11-21.jsonl.gz",
        "".join(
            json.dumps(line) + "\n"
            for line in [
                *traffic(19, 6),
                *again,
                again[0] | {"credits_used": "77"},
                *traffic(20, 9, "new"),
                dear,
            ]
        )
        + '{"request_id": 7}\nno record\n',
    )
    house.put("proxy/b.jsonl", [spend_log("llm_2", 2.5), spend_log("req_20_1", 0.25)])
    house.put(
        "requests/late.csv", csv([request("late_1"), request("late_2", credits_used="0.000000001")])
    )
    house.put("invoices/later.csv", csv([invoice("inv_6"), invoice("inv_3", 3600)]))
    house.put(
        "stripe/later.csv", csv([payment("ch_6", "inv_6"), payment("ch_7", "inv_3", "36.00")])
    )


class Trials:
    """Killed nights in one folder: the first night of a house, or its second over a published
    first.
    """

    def __init__(self, running: Nights, folder: Path, is_second: bool) -> None:
        self.running = running
        self.folder = folder
        self.start = folder.parent / f"{folder.name}.start"
        shutil.rmtree(folder, ignore_errors=True)
        house = House(folder)
        first_arrivals(house)
        if is_second:
            running.run()
            later_arrivals(house)
        shutil.rmtree(self.start, ignore_errors=True)
        shutil.copytree(folder, self.start)
        self.before = self._snapshot_id()
        running.run()
        self.counts = running.counts()
        self.truth = state(house)
        self.told = told(house)

    def _snapshot_id(self) -> str | None:
        snapshot = House(self.folder).store.snapshot()
        return snapshot.snapshot_id if snapshot else None

    def moment(self, rng: random.Random) -> Moment:
        """A random moment of the night: by time, or at one of its calls."""
        if rng.random() < 0.4:
            return Moment(seconds=rng.uniform(0.001, self.counts["seconds"] * 1.05))
        call = rng.choice(CALLS)
        number = rng.randint(1, max(1, int(self.counts[call])))
        return Moment(call, number, rng.random() < 0.5)

    def run(self, seed: int, kills: int = 1) -> list[Moment]:
        """Kills `kills` nights, looks at what each left, and lets a last one end its work.

        A night begins where the one before died, up to five in a row; after that, or once one has
        published, a night runs whole and its tables are held against the truth. Returns the
        moments. Raises AssertionError, naming seed and moments, where they differ.
        """
        died: list[Moment] = []
        in_a_row = 0
        rng = random.Random(f"{seed}/kills")
        self._begin_again()
        try:
            while len(died) < kills:
                moment = self.moment(rng)
                if self.running.run(moment):
                    died.append(moment)
                    in_a_row += 1
                    look_at_wreck(House(self.folder), self.before)
                has_published = self._snapshot_id() != self.before
                if has_published or in_a_row == IN_A_ROW or len(died) == kills:
                    self._compare()
                    self._begin_again()
                    in_a_row = 0
        except AssertionError as error:
            where = ", then ".join(map(str, died[-in_a_row:]))
            raise AssertionError(f"seed {seed}, killed {where}: {error}") from error
        return died

    def _compare(self) -> None:
        """Runs a night whole, and asserts that everything is as after an undisturbed one."""
        self.running.run()
        house = House(self.folder)
        found = state(house)
        for name, expected in self.truth.items():
            assert found[name] == expected, f"{name} is not that of an undisturbed run"
        check_told(told(house), self.told)
        if self.before is None:
            self.running.run()  # without a snapshot no night removes an object; the next does
        check_tidy(house)

    def _begin_again(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.start, self.folder)


def look_at_wreck(house: House, before: str | None) -> None:
    """What a kill may leave: a whole snapshot, the old or the new one, and a readable warehouse
    or none.
    """
    snapshot = house.store.snapshot()
    house.check_whole()
    if before is not None:
        assert snapshot is not None, "the snapshot is gone"
    if (house.root / "warehouse.duckdb").exists():
        with published(house.root) as connection:
            look_for_mixture(connection)
    elif before is not None:
        raise AssertionError("warehouse.duckdb is gone")


SUMS = """
    select
        (select snapshot_id from ops.snapshot) as snapshot_id,
        (select sum(credits) from marts.usage_by_key) as by_key,
        (select sum(credits) from marts.usage_by_model) as by_model,
        (select sum(credits) from marts.requests) as requests
"""


def look_for_mixture(connection: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    """Asserts that tables and views of one connection speak of one snapshot; returns its id and
    credits.
    """
    [row] = connection.execute(SUMS).fetchall()
    snapshot_id, by_key, by_model, requests = row
    assert by_key == by_model == requests, f"two snapshots are mixed: {row}"
    return snapshot_id, by_key


def state(house: House) -> dict[str, Any]:
    """All that must be as after an undisturbed run: bytes from the roll-ups down, rows above
    and of `ops`.
    """
    found: dict[str, Any] = {f"bytes of {name}": parts for name, parts in house.answers().items()}
    with published(house.root) as connection:
        for table, but in (
            ("staging.requests", ""),
            ("staging.charges", "arrived_at"),
            ("staging.invoices", "arrived_at"),
            ("ops.source_objects", "arrived_at"),
            ("ops.quarantine", "arrived_at"),
            ("ops.conflicts", ""),
        ):
            columns = {row[0] for row in connection.execute(f"describe {table}").fetchall()}
            without = f"exclude ({but})" if but in columns else ""
            text = connection.execute(f"select * {without} from {table} order by all").fetchall()
            found[f"rows of {table}"] = hashlib.sha256(repr(text).encode()).hexdigest()
    manifest = json.loads((house.folder / "out" / "manifest.json").read_text())
    found["exports"] = [(file["path"], file["sha256"]) for file in manifest["files"]]
    for file in manifest["files"]:
        content = (house.folder / "out" / file["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"], file["path"]
    return found


def told(house: House) -> list[dict[str, Any]]:
    """What the sink was told, in order, whichever night told it."""
    path = house.folder / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check_told(heard: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Asserts that nothing was left untold, and that only messages that say so were told again."""
    wanted = {(line["alert_id"], line["transition"]) for line in expected}
    seen: set[tuple[str, str]] = set()
    for line in heard:
        place = (line["alert_id"], line["transition"])
        assert place not in seen or line["may_repeat"], f"{place} was told twice"
        seen.add(place)
    assert seen == wanted, f"told {seen}, expected {wanted}"


def check_tidy(house: House) -> None:
    """Asserts that a finished night leaves no draft and no object that nothing names."""
    snapshot = house.store.snapshot()
    assert snapshot is not None
    named = {item.path for item in snapshot.objects()} | set(snapshot.superseded)
    named |= {"snapshot.json", "warehouse.duckdb"}
    found = {name for name in house.bytes() if not name.startswith("raw/deliveries/")}
    assert found <= named, f"nothing names {found - named}"
    root = house.root
    missing = {name for name in named if not (root / name).exists()}
    assert not missing, f"the snapshot names {missing}, which are not there"
    assert not list(house.folder.rglob(".*.part")), "a half-copied export is left"


if __name__ == "__main__":
    serve()

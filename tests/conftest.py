"""What every test may use: a model run on rows, and a house of one's own in a temporary folder."""

import os
import pickle
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pipelines.calendar import Clock
from pipelines.contents import raw_tables
from pipelines.models import Models, Statement, empty_select
from pipelines.settings import Settings
from pipelines.store import parsed_once
from tests import buckets
from tests.houses import rolled_back

SHARED = Path(__file__).parents[2] / "shared"
Rows = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="session")
def models() -> Models:
    return Models(raw_tables())


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Any]:
    """`once(name, make)` gives what `make(folder)` returned, made by one worker for all of them.

    For what is dear to make and only looked at. The folder stays where it was; what is returned
    goes from worker to worker as a pickle.
    """
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if is_worker else base

    def made(name: str, make: Callable[[Path], Any]) -> Any:
        folder, kept = shared / name, shared / f"{name}.pickle"
        with FileLock(f"{kept}.lock"):
            if not kept.exists():
                shutil.rmtree(folder, ignore_errors=True)  # another worker's attempt that failed
                folder.mkdir()
                kept.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(kept.read_bytes())

    return made


@pytest.fixture
def run_model(models: Models) -> Callable[..., list[dict[str, Any]]]:
    """`run_model("marts.x", {"staging.y": rows}, day=…, as_of=…, alerts_floor_credits=…)` gives the
    model's rows, in grain order.

    Inputs not named are empty; a row may leave columns out (null). Other keywords are
    `$parameters`.
    """

    def run(
        table: str,
        inputs: Mapping[str, Rows],
        *,
        day: date | None = None,
        as_of: datetime | None = None,
        **parameters: object,
    ) -> list[dict[str, Any]]:
        statement = models.models.get(table) or models.claims[table]
        stored, views = looked_through(models, statement, inputs)
        unknown = set(inputs) - set(stored)
        assert not unknown, f"{table} does not read {unknown}"
        emptied = {
            name: f"create table {name} as {empty_select(models.types(name))}" for name in stored
        }
        with rolled_back(emptied, views) as connection:
            for name in stored:
                types = models.types(name)
                alike: defaultdict[tuple[str, ...], list[Any]] = defaultdict(list)
                for row in inputs.get(name, []):
                    missing = set(row) - set(types)
                    assert not missing, f"{name} has no column {missing}"
                    alike[tuple(row)].append(list(row.values()))
                for columns, rows in alike.items():
                    marks = f"({', '.join('?' for _ in columns)})"
                    for some in (rows[at : at + 100] for at in range(0, len(rows), 100)):
                        connection.execute(
                            f"insert into {name} ({', '.join(columns)}) "
                            f"values {', '.join(marks for _ in some)}",
                            [value for row in some for value in row],
                        )
            for name in views:
                connection.execute(f"create view {name} as {models.models[name].sql}")
            end = as_of or datetime.combine(day or date(2026, 11, 20), datetime.min.time())
            clock = Clock(as_of=end, arrived_at=end) if as_of else Clock.at(day=day or end.date())
            values = Settings().parameters() | clock.parameters(day) | parameters
            order = f" order by {', '.join(statement.order)}" if statement.order else ""
            text = f"select * from ({statement.sql}\n){order}"
            result = connection.execute(
                parsed_once(connection, text),
                {name: values[name] for name in statement.parameters},
            )
            names = [column[0] for column in result.description or []]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    return run


def looked_through(
    models: Models, statement: Statement, given: Mapping[str, Rows]
) -> tuple[list[str], list[str]]:
    """What a statement stands on: tables, and views that nobody gives rows for, each after those
    that it reads.
    """
    stored: list[str] = []
    views: list[str] = []
    for name in statement.inputs:
        model = models.models.get(name)
        if model is None or name in given or not set(given) & deep(models, name):
            stored.append(name)
            continue
        below, above = looked_through(models, model, given)
        stored += [table for table in below if table not in stored]
        views += [*(view for view in above if view not in views), name]
    return stored, views


def deep(models: Models, name: str) -> set[str]:
    """All that a view reads, through other views too."""
    model = models.models.get(name)
    if model is None or not model.is_view:
        return set()
    return set(model.inputs).union(*(deep(models, table) for table in model.inputs))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; a test that needs it is skipped, saying so,
    where it is absent.
    """
    if not SHARED.is_dir():
        pytest.skip("needs ../shared, which is not there")
    return SHARED


@pytest.fixture(scope="session")
def object_store_server() -> Iterator[buckets.Proxy]:
    with buckets.object_store_server() as proxy:
        yield proxy


@pytest.fixture
def proxy(
    object_store_server: buckets.Proxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[buckets.Proxy]:
    """An object store with an empty bucket named `bucket`, which the environment speaks of; through
    a proxy that does no harm until it is told to.
    """
    proxy = object_store_server
    proxy.begin_again()
    for name, text in buckets.environment(proxy).items():
        monkeypatch.setenv(name, text)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    buckets.be_quick(monkeypatch)
    yield proxy
    proxy.choose = lambda _: ""

"""Makers for tests: a house of one's own in a temporary folder, nights in it, and what is
published.
"""

import copy
import functools
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pyarrow as pa
from click.testing import CliRunner

from exports import files
from pipelines import contents, restatements, warehouse
from pipelines.bucket_store import open_store
from pipelines.calendar import Clock
from pipelines.cli import main
from pipelines.models import SQL, Checked, Models
from pipelines.night import Event, Night
from pipelines.settings import Settings, load
from pipelines.store import Snapshot, Store, connect, digest, quote

AS_OF = datetime(2026, 11, 21)
NOON_EPOCH = 1_795_176_000.0  # 2026-11-20 12:00 UTC
CHECKOUT = Path(__file__).parents[1]

SETTINGS = """
[warehouse]
root = "data"

[[requests]]
name = "gateway"
gateway = "infery"
format = "canonical"
location = "landing/requests"

[[requests]]
name = "proxy"
gateway = "infery"
format = "litellm_spendlogs"
location = "landing/proxy"

[exports]
location = "out"
"""

Line = dict[str, Any]


def request(request_id: str = "req_1", at: str = "2026-11-20T10:00:00Z", **stated: Any) -> Line:
    """A canonical record; keywords are its fields."""
    return {
        "request_id": request_id,
        "timestamp": at,
        "workspace_id": "ws_1",
        "api_key_id": "key_1",
        "source": "api",
        "requested_model": "gpt-5",
        "model": "gpt-5",
        "status": 200,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "credits_used": "2.5",
    } | stated


def spend_log(request_id: str = "req_1", spend: float | str = 0.025, **stated: Any) -> Line:
    """A row of LiteLLM's SpendLogs; keywords are its fields."""
    return {
        "request_id": request_id,
        "call_type": "acompletion",
        "api_key": "key_1",
        "startTime": "2026-11-20T10:00:00.000000+00:00",
        "endTime": "2026-11-20T10:00:01.500000+00:00",
        "model": "openai/gpt-5",
        "model_id": "model-1",
        "model_group": "gpt-5",
        "team_id": "ws_1",
        "status": "success",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "spend": spend,
        "request_duration_ms": 1500,
        "metadata": "{}",
        "messages": "{}",
    } | stated


def attempt(attempt_id: str = "att_1", call: str | None = "call_1", **stated: Any) -> Line:
    """A record of LiteLLM's payload log; keywords are its fields."""
    return {
        "id": attempt_id,
        "litellm_call_id": call,
        "status": "success",
        "startTime": NOON_EPOCH - 1,
        "endTime": NOON_EPOCH,
        "model": "openai/gpt-5",
        "model_id": "model-1",
        "model_group": "gpt-5",
        "metadata": {"user_api_key_hash": "key_1", "user_api_key_team_id": "ws_1"},
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "response_cost": 0.025,
        "response_time": 1.0003,
        "error_information": {"error_code": "", "error_class": ""},
        "messages": [{"role": "user", "content": "hi"}],
    } | stated


def jsonl(lines: Iterable[Line | str]) -> str:
    """Records, or lines as they are, one a line."""
    return "".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines)


def packed(suffix: str, text: str) -> bytes:
    """A text as a file with this suffix holds it."""
    plain = text.encode()
    if suffix == ".gz":
        return gzip.compress(plain, mtime=0)
    return bytes(pa.compress(plain, codec="zstd", asbytes=True)) if suffix == ".zst" else plain


def csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under the names of the first; nothing is quoted."""
    names = list(rows[0])
    lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
    return "\n".join(lines) + "\n"


def invoice(invoice_id: str, total_minor: int = 1200, **stated: Any) -> Line:
    """A row of the gateway's billing history, paid on 2026-11-16."""
    return {
        "infery_invoice_id": invoice_id,
        "workspace_id": "ws_1",
        "kind": "topup",
        "issued_at": "2026-11-16T10:00:00Z",
        "currency": "usd",
        "net_minor": total_minor - 200,
        "vat_minor": 200,
        "total_minor": total_minor,
        "credits": "1000.5",
        "payment_intent_id": "",
        "stripe_invoice_id": "",
        "status": "paid",
        "pdf_url": "",
        "receipt_url": "",
    } | stated


def payment(charge_id: str, invoice_id: str, amount: str = "12.00", **stated: Any) -> Line:
    """A row of the Stripe dashboard's payments CSV."""
    return {
        "id": charge_id,
        "Created (UTC)": "2026-11-16 10:05",
        "Amount": amount,
        "Amount Refunded": "0.00",
        "Currency": "usd",
        "Captured": "true",
        "Mode": "Live",
        "Status": "Paid",
        "PaymentIntent ID": f"pi_{charge_id}",
        "Disputed Amount": "",
        "Dispute Status": "",
        "Dispute Reason": "",
        "Dispute Date (UTC)": "",
        "workspace_id (metadata)": "ws_1",
        "infery_invoice_id (metadata)": invoice_id,
    } | stated


class House:
    """`meterhouse.toml`, the landing folders and the root, all under one folder."""

    is_prepared = True  # by an empty `warehouse.duckdb`, before the first night of `night()`

    def __init__(
        self,
        folder: Path,
        models: Models | None = None,
        settings: str = SETTINGS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.environment = dict(environment or {})
        self.models = models or contents.models()
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "meterhouse.toml"
        if not self.config.exists():
            self.config.write_text(settings, encoding="utf-8")

    @property
    def settings(self) -> Settings:
        return load(self.config, self.environment)

    @property
    def root(self) -> Path:
        return self.settings.root

    @property
    def store(self) -> Store:
        return open_store(self.settings)

    # ---- in ---------------------------------------------------------------------------------

    def put(self, name: str, content: Iterable[Line | str] | str | bytes) -> Path:
        """A file under `landing/`: records as JSON lines, or what is given; a text is packed where
        the name ends in .gz or .zst.
        """
        path = self.folder / "landing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, str | bytes):
            content = jsonl(content)
        path.write_bytes(packed(path.suffix, content) if isinstance(content, str) else content)
        return path

    # ---- nights -----------------------------------------------------------------------------

    def night(self, as_of: datetime = AS_OF, **options: Any) -> list[Event]:
        """One night in this process, without Dagster; options are those of `Night`. No sink
        unless given.
        """
        return list(self.events(as_of, **options))

    def events(
        self,
        as_of: datetime = AS_OF,
        *,
        models: Models | None = None,
        sources: tuple[ModuleType, ...] | None = None,
        sinks: Mapping[str, ModuleType] | None = None,
        **options: Any,
    ) -> Iterator[Event]:
        settings = self.settings
        if self.is_prepared and not settings.root.exists():
            settings.root.mkdir(mode=0o700, parents=True)
            (settings.root / warehouse.NAME).write_bytes(unfurnished(models or self.models))
        yield from Night(
            settings=settings,
            clock=Clock.at(as_of=as_of),
            models=models or self.models,
            sources=contents.sources() if sources is None else sources,
            sinks={} if sinks is None else sinks,
            **options,
        ).run()

    def ask(self, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """A command in this process: without the seconds that a process of its own takes to
        begin.
        """
        before = dict(os.environ)
        unset = {name: None for name in os.environ if name not in environment(self)}
        try:
            result = CliRunner().invoke(
                main, ["--config", str(self.config), *words], env=unset | environment(self)
            )
        finally:  # a night states its own settings for Dagster
            os.environ.clear()
            os.environ.update(before)
        if check:
            assert result.exit_code == 0, result.output
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)

    def run(self, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """The real command line, in a process of its own."""
        return subprocess.run(
            command(self, *words),
            env=environment(self),
            capture_output=True,
            text=True,
            check=check,
            timeout=240,
        )

    # ---- out --------------------------------------------------------------------------------

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """A select over what is published, as `warehouse.duckdb` shows it."""
        with published(self.root) as connection:
            result = connection.execute(sql)
            names = [column[0] for column in result.description or []]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def value(self, sql: str) -> Any:
        """The one value of a select."""
        [row] = self.rows(sql)
        [value] = row.values()
        return value

    def tables(self) -> dict[str, dict[str, list[str]]]:
        """table → partition → the hashes of its objects, sorted."""
        snapshot = self.store.snapshot()
        assert snapshot is not None
        return {
            table: {
                key: sorted(item.sha256 for item in partition.objects)
                for key, partition in partitions.items()
            }
            for table, partitions in snapshot.tables.items()
        }

    def answers(self) -> dict[str, dict[str, list[str]]]:
        """`tables()` from the roll-ups down: what must not depend on when or how often nights
        ran.
        """
        return {name: parts for name, parts in self.tables().items() if name.startswith("marts.")}

    def bytes(self) -> dict[str, str]:
        """Every file under the root but `ops/nights/`, by the hash of its bytes."""
        root = self.root  # the settings are read for it
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file() and root / "ops" / "nights" not in path.parents
        }

    def check_whole(self) -> None:
        """Asserts that every object the snapshot names is there, and is what it says."""
        snapshot = self.store.snapshot()
        if snapshot is None:
            return
        root = self.root
        for item in snapshot.objects():
            content = (root / item.path).read_bytes()
            assert hashlib.sha256(content).hexdigest() == item.sha256, item.path
        stated = {
            str(root / item.path): item.rows
            for item in snapshot.objects()
            if item.path.endswith(".parquet")
        }
        places = ", ".join(map(quote, stated))
        with engine() as connection:
            found = connection.execute(
                f"select file_name, num_rows from parquet_file_metadata([{places}])"
            ).fetchall()
        assert dict(found) == stated


REQUEST_MODELS = (
    "staging/key_lineages",
    "staging/key_workspaces",
    "staging/keys",
    "staging/request_counts",
    "staging/request_entries",
    "staging/request_losers",
    "staging/request_rankings",
    "staging/request_hours",
    "staging/request_winners",
    "staging/requests",
    "staging/unplaced_keys",
    "marts/requests",
    "marts/usage_quarter_hourly",
    "ops/conflicts",
    "ops/quarantine",
    "ops/source_objects",
    "checks/source_objects__every_record_accounted_for",
    "checks/source_objects__landed_is_stored",
)


# and from there to what is told of usage
ROLL_UPS = (
    "staging/members",
    "marts/usage_by_model",
    "marts/usage_by_key",
    "marts/usage_by_member",
    "marts/daily_spend",
    "marts/first_spends",
)


_some_models: dict[tuple[str, ...], Models] = {}


def request_models(folder: Path, *more: str) -> Models:
    """The part of the house that request logs fall through: a night of it takes a third of a
    second. `more`: models to add, as `layer/name`.
    """
    for name in (*REQUEST_MODELS, *more):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SQL / f"{name}.sql", folder / f"{name}.sql")
    if more not in _some_models:  # what they know of their types is the same for every test
        _some_models[more] = Models(contents.raw_tables(), folder)
    return _some_models[more]


def stands_on(name: str) -> frozenset[str]:
    """A table or a claim, and all that the house makes it of."""
    models = contents.models()
    found: set[str] = set()
    waiting = [name]
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            statement = models.models.get(one) or models.claims.get(one)
            waiting += statement.inputs if statement else MADE_OF.get(one, ())
    return frozenset(found)


# what no SQL file makes, but the night makes of other tables
MADE_OF: Mapping[str, tuple[str, ...]] = {
    "raw.request_manifest": ("raw.requests",),
    "ops.export_manifest": tuple(export.table for export in files.EXPORTS.values()),
    restatements.TABLE: (
        restatements.SUMS,
        restatements.QUARTERS,
        restatements.WINNERS,
        restatements.CONTESTS,
    ),
}


@functools.cache
def models_for(*tables: str) -> Models:
    """The part of the house that request logs and these tables need, with every claim about it."""
    whole = contents.models()
    whole.types("marts.requests")  # which asks for all of them
    needed = {name.replace("/", ".") for name in REQUEST_MODELS}.union(*map(stands_on, tables))
    part = copy.copy(whole)
    part.models = {name: model for name, model in whole.models.items() if name in needed}
    part.claims = {
        name: claim
        for name, claim in whole.claims.items()
        if stands_on(name) & whole.models.keys() <= needed
    }
    part.order = [model for model in whole.order if model.name in needed]
    return part


def command(house: House, *words: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", "--config", str(house.config), *words]


def environment(house: House) -> dict[str, str]:
    """The machine's environment with nothing of a Meterhouse in it but the house's own."""
    mine = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("METERHOUSE_", "DAGSTER_", "STRIPE_"))
    }
    return mine | {"COLUMNS": "200", "PYTHONPATH": str(CHECKOUT)} | house.environment


Place = tuple[str, int, int]  # of a file: its path, and what another one there would not share
_opened: list[tuple[Place, duckdb.DuckDBPyConnection]] = []


@contextmanager
def published(root: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """`warehouse.duckdb`, attached read-only as an analyst would. To attach it takes longer than to
    ask it: the one asked last stays open, until another is asked or a night has replaced it.
    """
    path = root / "warehouse.duckdb"
    stat = path.stat()
    place = (str(path), stat.st_ino, stat.st_mtime_ns)
    while _opened and _opened[-1][0] != place:
        _let_go(_opened.pop()[1])
    if _opened:
        _, connection = _opened.pop()
    else:
        with engine() as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"attach {quote(str(path))} as warehouse (read_only)")
        _idle.remove(connection)
        connection.execute("use warehouse")
    try:
        yield connection
    except BaseException:
        _let_go(connection)
        raise
    _opened.append((place, connection))


def _let_go(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("use memory")
    connection.execute("detach warehouse")
    _idle.append(connection)


_unfurnished: dict[str, bytes] = {}


def unfurnished(models: Models) -> bytes:
    """`warehouse.duckdb` of a house in which nothing has landed, for a first night to mend: to make
    it, with its 800 comments, is half of what a first night of little data costs. The command line
    in a process of its own makes it itself, and so does `warehouse.build(…, anew=True)`.
    """
    shapes = [(name, shape.columns) for name, shape in models.raw.items()]
    key = digest([*shapes, *(model.sql for model in models.order)])
    if key not in _unfurnished:
        with tempfile.TemporaryDirectory() as folder:
            nothing = Snapshot("", AS_OF, AS_OF, {})
            _unfurnished[key] = warehouse.build(Store(Path(folder)), nothing, models).read_bytes()
    return _unfurnished[key]


_idle: list[duckdb.DuckDBPyConnection] = []


@contextmanager
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of its own. To begin one takes 40 ms, which is most of what a test asks of it: so
    they are used again, and whoever changes one changes it back.
    """
    connection = _idle.pop() if _idle else duckdb.connect()
    try:
        yield connection
    finally:
        _idle.append(connection)


Standing = dict[str, str]  # an empty table of a bench → the statement that made it


def stored_rows(store: Store, models: Models, table: str) -> list[dict[str, Any]]:
    """What is published of a table that is no view, without a night's own engine to read it."""
    snapshot = store.snapshot()
    parts = snapshot.tables.get(table, {}) if snapshot else {}
    places = store.local([item for _, part in sorted(parts.items()) for item in part.objects])
    rows = models.rows_of(table, places) if places else models.empty(table)
    with engine() as connection:
        result = connection.execute(f"select * from ({rows})")
        names = [column[0] for column in result.description or []]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


_benches: list[tuple[duckdb.DuckDBPyConnection, Standing]] = []


@contextmanager
def rolled_back(
    tables: Mapping[str, str] | None = None, others: Iterable[str] = ()
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection as the store makes it, in a transaction that leaves nothing behind.

    `tables`: empty ones to begin with, name → the statement that makes it. They stay for the next
    test: to make those of one model takes as long as half of its run. `others`: names that must be
    free; all are where no tables are asked for.
    """
    connection, standing = _benches.pop() if _benches else (connect(), {})
    for name, statement in (tables or {}).items():
        if standing.get(name) != statement:
            connection.execute(f"drop table if exists {name}")
            connection.execute(statement)
            standing[name] = statement
    connection.execute("begin")
    try:
        for name in standing if tables is None else standing.keys() & set(others):
            connection.execute(f"drop table {name}")
        yield connection
    finally:
        connection.execute("rollback")
        _benches.append((connection, standing))


def failed_claims(events: Iterable[Event]) -> dict[str, str]:
    """The claims that did not hold, by name, with what was found; a grain by its table."""
    return {
        f"grain of {event.table}" if event.claim == "grain" else event.claim: event.found
        for event in events
        if isinstance(event, Checked) and not event.passed
    }


def until_failure(events: Iterator[Event]) -> tuple[list[Event], Exception | None]:
    """What happened up to the exception, and the exception."""
    happened: list[Event] = []
    try:
        for event in events:
            happened.append(event)
    except Exception as error:  # noqa: BLE001  (whatever stopped the night is the result)
        return happened, error
    return happened, None


def decimals(rows: Iterable[Mapping[str, Any]], name: str = "credits") -> Decimal:
    """The exact sum of a column."""
    return sum((Decimal(row[name]) for row in rows), Decimal(0))


def furnish(house: House, first_day: int = 15) -> None:
    """A small house with something in every table: an anomaly, a budget crossed, money that
    disagrees.

    Its days are November 2026, `first_day` to 20.
    """
    house.put(
        "directory/workspaces.csv",
        "workspace_id,name,time_zone,plan,monthly_allowance_credits,cycle_anchor_date,billing_email\n"
        "ws_1,Acme,Europe/London,scale,500,2026-11-16,a@acme.example\n"
        "ws_2,Beta,Asia/Kolkata,starter,100,2026-11-16,b@beta.example\n",
    )
    house.put(
        "directory/keys.csv",
        "api_key_id,workspace_id,name\nkey_1,ws_1,Bot\nkey_2,ws_2,Batch\nkey_3,ws_1,Site\n",
    )
    house.put("directory/members.csv", "member_id,workspace_id,name\nmem_1,ws_1,Ada\n")
    house.put(
        "directory/budgets.csv",
        "budget_id,workspace_id,scope,subject_id,threshold_credits\n"
        "bud_1,ws_1,workspace,,400\nbud_2,ws_1,workspace,,1500\n",
    )
    for day in range(first_day, 20):
        house.put(f"requests/2026-11-{day}.jsonl.gz", jsonl(traffic(day)))
    house.put("requests/2026-11-20.jsonl", [*traffic(20), *leak()])
    house.put(
        "invoices/2026-11.csv",
        csv([
            invoice("inv_1"),
            invoice("inv_2", 2400),
            invoice("inv_3", 3600, status="open"),
            invoice("inv_4", 1200),
            invoice("inv_5", 4800, workspace_id="ws_2"),
        ]),
    )  # fmt: skip
    house.put(
        "stripe/payments.csv",
        csv([
            payment("ch_1", "inv_1"),
            payment("ch_2", "inv_2", "24.00", **{"Amount Refunded": "4.00"}),
            payment("ch_3", "inv_4", "11.00"),
            payment("ch_4", "", "7.50"),
            payment("ch_5", "inv_5", "48.00", **DISPUTE, **{"workspace_id (metadata)": "ws_2"}),
        ]),
    )  # fmt: skip


DISPUTE = {
    "Disputed Amount": "48.00",
    "Dispute Status": "needs_response",
    "Dispute Reason": "fraudulent",
    "Dispute Date (UTC)": "2026-11-18 09:00",
}


def traffic(day: int, count: int = 24, name: str = "req") -> list[Line]:
    """A day of three keys, two models, a member, errors, fallbacks and exact fractions."""
    lines = []
    for index in range(count):
        is_playground = index % 6 == 5
        lines.append(
            request(
                f"{name}_{day}_{index}",
                f"2026-11-{day:02}T{index % 24:02}:{(index * 7 + day) % 60:02}:10.{index:03}Z",
                workspace_id="ws_2" if index % 4 == 3 else "ws_1",
                api_key_id=["key_1", "key_3", None, "key_2"][index % 4],
                source="playground" if is_playground else "api",
                member_id="mem_1" if is_playground else None,
                model=["gpt-5", "sonnet-5"][index % 2],
                fallback_from="opus-5" if index % 8 == 0 else None,
                fallback_depth=1 if index % 8 == 0 else 0,
                status=429 if index % 11 == 10 else 200,
                prompt_tokens=index * 10,
                completion_tokens=index,
                credits_used=f"{1 + index % 3}.{index:03}{day:03}001",
            )
        )
    return lines


def leak() -> list[Line]:
    """What a stolen key spends on the last day."""
    return [
        request(f"leak_{index}", f"2026-11-20T20:{index:02}:00Z", credits_used="99.000000001")
        for index in range(12)
    ]

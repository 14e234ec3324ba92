"""`make bench`: the night on one day of requests, less the empty night, against the engine.

All is measured in one run, in rounds, each figure in a process of its own. Each round is compared
by itself; the median of the rounds is what is found.

- The engine: `copy (from read_json(file, columns = {every canonical field, typed})) to …
  (format parquet, compression zstd)` with DuckDB's defaults. The process measures itself around
  that one statement: the start of the interpreter, the import and the connection are not in it.
- A night: `meterhouse nightly` on a warehouse that is in use; the whole process, from its start to
  its end, as the kernel accounts it. Every night has a copy of that warehouse to itself.
- The empty night: the same command once more.

What arrives is one day: clean, with duplicates, packed, in many objects, with bad lines, and into a
long history. The check of request ids is measured by itself, against a history of 100 million.

Writes the table to docs/benchmarks.md. Options: `python -m tests.bench --help`.
"""

import argparse
import functools
import gzip
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

from assets.requests import INDEX_FILES
from pipelines import contents
from pipelines.store import connect, sha256_of

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "benchmarks.md"
DAY = date(2026, 11, 20)
INSTANT = "%Y-%m-%dT%H:%M:%S.%fZ"
WORKSPACES, KEYS_EACH = 200, 10
OBJECTS = 2_000  # that the day arrives in, where it arrives in many
EVERY = 1_000  # one line in so many is repeated, or spoilt
SHORT_HISTORY, LONG_HISTORY = 4, 400  # days
HISTORY_LINES = 50_000  # a day of history
IDS = 100_000_000  # that the id check is measured against
CHARGES = 1_000_000  # that are reconciled, with as many invoices
SUBJECTS, SPENT_DAYS = 100_000, 400  # keys whose ranges are made, and days that each has spent on

# Every canonical field (contract, "Inputs") with the type that the bare engine is told.
CANONICAL: Mapping[str, str] = {
    "request_id": "varchar",
    "timestamp": "timestamp",
    "workspace_id": "varchar",
    "api_key_id": "varchar",
    "member_id": "varchar",
    "source": "varchar",
    "requested_model": "varchar",
    "model": "varchar",
    "fallback_from": "varchar",
    "fallback_depth": "integer",
    "status": "integer",
    "error_code": "varchar",
    "stream": "boolean",
    "prompt_tokens": "bigint",
    "completion_tokens": "bigint",
    "total_tokens": "bigint",
    "credits_used": "decimal(18, 9)",
    "latency_ms": "bigint",
    "gateway_in_at": "timestamp",
    "provider_in_at": "timestamp",
    "provider_out_at": "timestamp",
    "gateway_out_at": "timestamp",
}

FLOOR = """
import json, resource, sys, time
import duckdb
connection = duckdb.connect()
connection.execute("set enable_progress_bar = false")  # it is printed among the figures
before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
connection.execute(sys.argv[1])
wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"wall": wall, "cpu": cpu, "rss": after.ru_maxrss * 1024}))
"""

ID_CHECK = """
import json, resource, sys, tempfile, time
from pathlib import Path
from assets.requests import _ids_of, _touched
from pipelines import contents
from pipelines.store import Draft, Store
*history, fresh = sorted(Path(sys.argv[1]).iterdir())
with tempfile.TemporaryDirectory() as name:
    draft = Draft(Store(Path(name)), Path(name), contents.models().bind)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    assert not any(_touched(draft, history, _ids_of(draft.connection, [fresh])))
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    draft.close()
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"wall": wall, "cpu": cpu, "rss": after.ru_maxrss * 1024}))
"""

LANDING = """
import json, resource, sys, time
from datetime import date
from pathlib import Path
from pipelines import contents
from pipelines.calendar import Clock
from pipelines.night import Night, Started
from pipelines.settings import load
settings = load(Path("meterhouse.toml"), {})
night = Night(
    settings, Clock.at(day=date.fromisoformat(sys.argv[1])), contents.models(), contents.sources(),
    {},
)
before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
events = night.run()
while next(events) != Started("model"):
    pass
wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
events.close()
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"wall": wall, "cpu": cpu, "rss": after.ru_maxrss * 1024}))
"""

RECONCILING = """
import json, resource, sys, time
from pathlib import Path
from pipelines import contents
from pipelines.calendar import Clock
from pipelines.settings import Settings
from pipelines.models import write_model
from pipelines.store import connect
from datetime import date
folder, models = Path(sys.argv[1]), contents.models()
target, is_told = "marts.invoice_reconciliation", len(sys.argv) > 2
wanted = {target}
for model in reversed(models.order):
    if model.name in wanted:
        wanted |= set(model.inputs)
connection = connect(folder)
values = Settings().parameters() | Clock.at(day=date(2026, 11, 20)).parameters()
def stand(name, file):
    rows = f"from read_parquet('{file}')" if file.exists() else models.empty(name)
    connection.execute(f"create view {name} as {rows}")
for name in sorted(wanted & models.raw.keys()):
    stand(name, folder / f"{name}.parquet")
before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
for model in models.order:
    if model.name not in wanted:
        continue
    since = time.perf_counter()
    if model.is_view:
        connection.execute(f"create view {model.name} as {model.sql}")
        continue
    file = folder / f"built.{model.name}.parquet"
    bound = {name: values[name] for name in model.parameters}
    write_model(connection, model, file, bound)
    stand(model.name, file)
    if is_told:
        print(f"{model.name} {time.perf_counter() - since:.2f}", file=sys.stderr)
wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"wall": wall, "cpu": cpu, "rss": after.ru_maxrss * 1024}))
"""

RANGING = """
import json, resource, sys, time
from datetime import date, timedelta
from pathlib import Path
from pipelines import contents
from pipelines.calendar import Clock
from pipelines.settings import Settings
from pipelines.models import write_model
from pipelines.store import WORKER_MEMORY, connect
folder, day, models = Path(sys.argv[1]), date.fromisoformat(sys.argv[2]), contents.models()
connection, clock = connect(folder, WORKER_MEMORY), Clock.at(day=day)
for name in ("staging.alert_settings", "marts.expected_days"):
    connection.execute(f"create view {name} as {models.empty(name)}")
def stand(name, since, *more):
    files = [f"{folder}/{name}/*.parquet", *more]
    connection.execute(
        f"create or replace view {name} as from read_parquet({files}) "
        f"where usage_date >= date '{since}'"
    )
before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
learned = []
for when in (day, clock.tomorrow):
    habits, ranges = models.models["marts.spend_habits"], models.models["marts.spend_ranges"]
    stand("marts.first_spends", date.min)
    for name in ("marts.daily_spend", "marts.spend_habits"):
        stand(name, when - timedelta(days=habits.look_back[name]), *learned[: name == habits.name])
    values = Settings().parameters() | clock.parameters(when)
    for model in (habits, ranges):
        file = folder / f"built.{model.name}.{when}.parquet"
        bound = {parameter: values[parameter] for parameter in model.parameters}
        since = time.perf_counter()
        write_model(connection, model, file, bound)
        print(f"{model.name} {when} {time.perf_counter() - since:.2f}", file=sys.stderr)
        if model is habits:
            learned.append(str(file))
            connection.execute(f"create or replace view {model.name} as from '{file}'")
wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"wall": wall, "cpu": cpu, "rss": after.ru_maxrss * 1024}))
"""

SETTINGS = """
[warehouse]
root = "data"

[[requests]]
name = "gateway"
gateway = "infery"
format = "canonical"
location = "landing/requests"

[directory]
location = "landing/directory"

[invoices]
location = "landing/invoices"

[exports]
location = "data/exports"
"""


@dataclass(frozen=True)
class Measured:
    """One process: wall and CPU seconds (user and system, all threads), peak resident bytes."""

    wall: float
    cpu: float
    rss: int


Round = dict[str, Measured]  # what was measured in it, by its name in the table
CLEAN, TWICE = "clean", "0.1 % duplicates"
PACKED = "engine on gzip"
ONCE_MORE = ", once more"
TIMES = ("", ONCE_MORE, ", a third time", ", a fourth time")  # that some things are measured
BEFORE = "engine before"  # and the name of a night


def median(runs: Sequence[Measured]) -> Measured:
    """The median of each quantity by itself."""
    return Measured(
        statistics.median(run.wall for run in runs),
        statistics.median(run.cpu for run in runs),
        int(statistics.median(run.rss for run in runs)),
    )


# ---- what is measured -----------------------------------------------------------------------


def generate(target: Path, lines: int, day: date = DAY, worth: float = 1) -> None:
    """A day of `lines` canonical records: uneven keys, a working day's shape, opaque ids; every key
    is among any 50,000. `worth`: how many times as dear each is as those of the day measured.

    No two days are drawn alike: of days that are the same the detector would learn that nothing
    ever varies, and find half the keys of the next one out of their range.
    """
    first = (DAY - day).days * lines
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    connection.execute(
        f"""copy (
            with drawn as (
                select
                    i,
                    (i - {first}) / {lines} as share,
                    -- busy at midday, quiet at midnight
                    (86399999999 * (share + 0.6 * sin(2 * pi() * share) / (2 * pi())))::bigint
                        as microsecond_of_day,
                    case when i % 25 = 0 then i // 25 % {WORKSPACES}
                        else least(hash(i, 1) % {WORKSPACES}, hash(i, 2) % {WORKSPACES}) end
                        as workspace,
                    case when i % 25 = 0 then i // 25 // {WORKSPACES} % {KEYS_EACH}
                        else least(hash(i, 3) % {KEYS_EACH}, hash(i, 4) % {KEYS_EACH}) end as key,
                    -- a key has its habits: three models, one of them nearly always
                    case when hash(i, 5) % 100 < 80 then 0 else hash(i, 5) % 2 + 1 end as habit,
                    hash(workspace, key, habit) % 12 as model,
                    hash(i, 6) % 100 < 6 as is_playground,
                    hash(i, 7) % 1000 as luck,
                    (20 + hash(i, 8) % 60 * (hash(i, 9) % 80))::bigint as prompt_tokens,
                    (1 + hash(i, 12) % 30 * (hash(i, 13) % 40))::bigint as completion_tokens,
                    (180 + hash(i, 14) % 900 + hash(i, 15) % 70 * (hash(i, 16) % 70))::bigint
                        as milliseconds,
                from range({first}, {first + lines}) as numbers(i)
            ),
            timed as (
                select *, timestamp '{day}' + to_microseconds(microsecond_of_day) as completed_at,
                from drawn
            )
            select
                'req_' || upper(substr(md5(i || 'request{day}'), 1, 26)) as request_id,
                strftime(completed_at, '{INSTANT}') as "timestamp",
                'ws_' || substr(md5(workspace::varchar), 1, 8) as workspace_id,
                'key_' || substr(md5(workspace || '/' || key), 1, 12) as api_key_id,
                case when is_playground
                    then 'mem_' || substr(md5(workspace || '/' || luck % 7), 1, 10) end
                    as member_id,
                case when is_playground then 'playground' else 'api' end as source,
                'model-' || model as requested_model,
                case when luck < 15 then 'model-' || (model + 1) % 12
                    when luck < 985 then 'model-' || model end
                    as model,
                case when luck < 15 then 'model-' || model end as fallback_from,
                case when luck < 15 then 1 else 0 end as fallback_depth,
                case when luck < 985 then 200 when luck < 993 then 429 else 502 end as status,
                case when luck >= 993 then 'provider_error' when luck >= 985 then 'rate_limited' end
                    as error_code,
                hash(i, 17) % 3 > 0 as stream,
                prompt_tokens,
                case when luck < 985 then completion_tokens else 0 end as completion_tokens,
                prompt_tokens + case when luck < 985 then completion_tokens else 0 end
                    as total_tokens,
                case when luck < 985
                    then ((prompt_tokens + completion_tokens * 4) * (model + 1) * {worth} / 10000.0)
                        ::decimal(18, 4)
                    else 0
                end as credits_used,
                milliseconds as latency_ms,
                strftime(completed_at - to_milliseconds(milliseconds), '{INSTANT}')
                    as gateway_in_at,
                strftime(completed_at - to_milliseconds(milliseconds - 9), '{INSTANT}')
                    as provider_in_at,
                strftime(completed_at - to_milliseconds(4), '{INSTANT}') as provider_out_at,
                strftime(completed_at, '{INSTANT}') as gateway_out_at,
            from timed
        ) to '{target}' (format json)"""
    )


def measured(command: Sequence[str], folder: Path) -> Measured:
    """Runs a command to its end; raises RuntimeError with what it said where it fails."""
    said = folder / "said.txt"
    with said.open("w", encoding="utf-8") as file:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{said.read_text(encoding='utf-8')}")
    return Measured(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def engine(file: Path, folder: Path) -> Measured:
    """The bare engine on `file`."""
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in CANONICAL.items())
    target = folder / "floor.parquet"
    statement = (
        f"copy (from read_json('{file}', columns = {{{columns}}})) to '{target}' "
        "(format parquet, compression zstd)"
    )
    done = itself(FLOOR, folder, statement)
    target.unlink()
    return done


def itself(script: str, folder: Path, *words: str) -> Measured:
    """What a script says that it took, run in `folder`."""
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    return Measured(**json.loads(done.stdout))


def run(folder: Path, *words: str) -> Measured:
    """`meterhouse` with these words, in `folder`."""
    command = [sys.executable, "-m", "pipelines.cli", "--config", "meterhouse.toml", *words]
    return measured(command, folder)


def warm(place: Path) -> None:
    """Reads a file, or those of a folder, so that they lie in memory: the engine's own has just
    been read, and how fast a disk is is not what is compared.
    """
    for file in sorted(place.iterdir()) if place.is_dir() else [place]:
        sha256_of(file)


def night(folder: Path) -> Measured:
    """`meterhouse nightly` as of the end of the day, in `folder`."""
    return run(folder, "nightly", "--date", str(DAY))


@dataclass(frozen=True)
class Ids:
    """Where the id check is measured: files of the id index that lie in this folder."""

    folder: Path

    def prepare(self, fresh: int) -> None:
        """400 files of 250,000 ids each, and one of `fresh` more, none of them among the others."""
        if self.folder.exists():
            return
        self.folder.mkdir()
        connection = duckdb.connect()
        connection.execute("set enable_progress_bar = false")
        each = IDS // LONG_HISTORY
        sizes = [each] * LONG_HISTORY + [fresh]
        for number, size in enumerate(sizes):
            connection.execute(
                f"copy (select hash({number}, i) as id_hash from range({size}) as numbers(i) "
                f"order by 1) to '{self.folder}/{number:03}.parquet' "
                f"(format parquet, compression zstd{INDEX_FILES})"
            )

    def check(self) -> Measured:
        warm(self.folder)
        return itself(ID_CHECK, REPOSITORY, str(self.folder))


@dataclass(frozen=True)
class Money:
    """Where reconciling is measured: raw tables of a gateway's invoices and of Stripe's charges."""

    folder: Path

    def prepare(self, count: int) -> None:
        """`count` invoices and as many charges. Nine in ten are top-ups, whose charges name them;
        the rest are subscriptions, named by the Stripe invoice alone. One in fifty was refunded,
        one in a hundred not paid, one in a thousand paid twice.
        """
        if self.folder.exists():
            return
        self.folder.mkdir()
        connection = duckdb.connect()
        connection.execute("set enable_progress_bar = false")
        connection.execute(
            f"""create table numbers as
            select
                i,
                substr(md5(i || 'money'), 1, 24) as word,
                i % 10 = 0 as is_subscription,
                timestamp '2026-01-01' + to_seconds(i * 27) as moment,
                1000 + hash(i, 1) % 90000 as minor,
                'ws_' || hash(i, 2) % {WORKSPACES} as workspace_id,
            from range({count}) as drawn(i)"""
        )
        stamp = "'api' as origin, true as livemode, moment as created_at, 'usd' as currency"
        arrived = "md5(word) as record_sha256, moment as arrived_at"
        names = (
            "json_object('infery_invoice_id', 'inv_' || word, 'workspace_id', workspace_id)"
            "::varchar"
        )
        metadata = f"case when is_subscription then '{{}}' else {names} end as metadata"
        tables = {
            "raw.invoices": """select 'inv_' || word as infery_invoice_id, workspace_id,
                case when is_subscription then 'subscription' else 'topup' end as kind,
                moment as issued_at, 'usd' as currency, minor as net_minor, 0::bigint as vat_minor,
                minor as total_minor, 10::decimal(18, 9) as credits,
                'pi_' || word as payment_intent_id, null::varchar as stripe_invoice_id,
                'paid' as status, null::varchar as pdf_url, null::varchar as receipt_url,
                'file' as source_object, i as source_line, moment as arrived_at from numbers""",
            "raw.stripe_charges": f"""select 'ch_' || word as charge_id, {stamp},
                'succeeded' as status, minor as amount_minor, minor as amount_captured_minor,
                case when i % 50 = 0 then 500 else 0 end as amount_refunded_minor, true as captured,
                false as refunded, false as disputed, 'pi_' || word as payment_intent_id,
                null::varchar as stripe_invoice_id, 'cus_' || workspace_id as customer_id,
                'txn_' || word as balance_transaction_id, null::varchar as description,
                'https://pay.example/' || word as receipt_url, {metadata}, {arrived}
                from (
                    from numbers where i % 100 <> 1
                    union all by name
                    select * replace (word || 'again' as word, 'x' as workspace_id)
                    from numbers where i % 1000 = 2
                )""",
            "raw.stripe_refunds": f"""select 're_' || word as refund_id, {stamp},
                'ch_' || word as charge_id, null::varchar as payment_intent_id,
                'succeeded' as status, 500::bigint as amount_minor, null::varchar as failure_reason,
                null::varchar as reason, 'refund' as reporting_category, '{{}}' as metadata,
                {arrived} from numbers where i % 50 = 0""",
            "raw.stripe_invoices": f"""select 'in_' || word as stripe_invoice_id, {stamp},
                'paid' as status, minor as total_minor, minor as amount_due_minor,
                minor as amount_paid_minor, 0::bigint as starting_balance_minor,
                0::bigint as ending_balance_minor, {names} as metadata,
                '{{}}' as subscription_metadata, '[]' as line_metadata, {arrived}
                from numbers where is_subscription""",
            "raw.stripe_invoice_payments": f"""select 'inpay_' || word as invoice_payment_id,
                {stamp}, 'in_' || word as stripe_invoice_id, 'paid' as status,
                'payment_intent' as payment_type, 'pi_' || word as payment_intent_id,
                minor as amount_paid_minor, {arrived} from numbers where is_subscription""",
        }
        shapes = contents.raw_tables()
        for table, select in tables.items():
            columns = {name: kind for name, (kind, _) in shapes[table].columns.items()}
            stated = {column[0] for column in connection.execute(select).description or []}
            typed = ", ".join(
                f"{name if name in stated else 'null'}::{kind} as {name}"
                for name, kind in columns.items()
            )
            connection.execute(
                f"copy (select {typed} from ({select})) to '{self.folder}/{table}.parquet' "
                "(format parquet, compression zstd)"
            )

    def join(self) -> Measured:
        """The bare engine: a hash join of the two tables by the PaymentIntent, written."""
        target = self.folder / "joined.parquet"
        charges, invoices = (
            f"read_parquet('{self.folder}/{table}.parquet')"
            for table in ("raw.stripe_charges", "raw.invoices")
        )
        statement = (
            f"copy (select * from {charges} as charges join {invoices} as invoices "
            f"using (payment_intent_id)) to '{target}' (format parquet, compression zstd)"
        )
        done = itself(FLOOR, self.folder, statement)
        target.unlink()
        return done

    def reconcile(self, *options: str) -> Measured:
        """Every model from raw to the mart, written one after the other as a night writes it."""
        return itself(RECONCILING, REPOSITORY, str(self.folder), *options)


@dataclass(frozen=True)
class Ranges:
    """Where a night's ranges are measured: what many keys spent, day by day, and what was learned
    of each day, in files of sixteen days, as a night reads long history.
    """

    folder: Path

    def prepare(self, subjects: int, days: int) -> None:
        if self.folder.exists():
            return
        connection = connect()
        models, at = contents.models(), DAY - timedelta(days=days - 1)
        types = models.types("marts.spend_habits")
        learned = ["burst", "surprise", "biggest_day", "judged_day_count", "run_end_date"]
        kept = ["usage_date", "workspace_id", "scope", "subject_id", "credits", *learned]
        rest = ", ".join(f"null::{kind} as {n}" for n, kind in types.items() if n not in kept)
        for name in ("marts.daily_spend", "marts.first_spends", "marts.spend_habits"):
            (self.folder / name).mkdir(parents=True)
        connection.execute("create table runs (usage_date date, run_end_date date)")
        while at <= DAY:
            last = min(at + timedelta(days=15 - at.toordinal() % 16), DAY)  # of this run
            connection.execute(
                f"""create or replace table spent as
                select
                    date '{at}' + day::integer as usage_date,
                    'ws_' || number % {WORKSPACES} as workspace_id,
                    'key' as scope,
                    'key_' || substr(md5(number::varchar), 1, 12) as subject_id,
                    (1 + hash(number, usage_date, 1) % 500)::bigint as request_count,
                    ((1 + number % 100) * (50 + hash(number, usage_date) % 100) / 97)
                        ::decimal(38, 9) as credits,
                from range({subjects}) as keys(number), range({(last - at).days + 1}) as days(day)
                order by 1, 2, 3, 4"""
            )
            connection.execute(
                f"copy spent to '{self.folder}/marts.daily_spend/{at}.parquet' "
                "(format parquet, compression zstd)"
            )
            connection.execute(
                f"""create or replace table habits as
                select usage_date, workspace_id, scope, subject_id, credits,
                    0.5 + hash(subject_id, usage_date) % 1000 / 900 as burst,
                    burst * 0.7 as surprise, null::double as biggest_day,
                    null::bigint as judged_day_count, null::date as run_end_date
                from spent where usage_date < date '{DAY}'
                union all by name
                from runs"""
            )
            connection.execute(
                f"""copy (select *, {rest} from habits order by 1, 2, 3, 4)
                to '{self.folder}/marts.spend_habits/{at}.parquet'
                (format parquet, compression zstd)"""
            )
            connection.execute(
                f"""create or replace table runs as
                select date '{last}' + 1 as usage_date, workspace_id, 'key_run' as scope,
                    subject_id, null::decimal(38, 9) as credits, max(burst) as burst,
                    max(surprise) as surprise, max(credits)::double as biggest_day,
                    count(*) as judged_day_count, date '{last}' as run_end_date
                from habits where run_end_date is null group by all"""
            )
            if not any((self.folder / "marts.first_spends").iterdir()):
                connection.execute(
                    f"""copy (
                        select usage_date, workspace_id, scope, subject_id
                        from spent where usage_date = date '{at}'
                    ) to '{self.folder}/marts.first_spends/0.parquet' (format parquet)"""
                )
            at = last + timedelta(days=1)
        connection.close()

    def scan(self) -> Measured:
        """The bare engine: the same table read once and grouped by the same names, written."""
        target = self.folder / "grouped.parquet"
        statement = (
            "copy (select workspace_id, scope, subject_id, count(*), sum(credits), max(credits) "
            f"from read_parquet('{self.folder}/marts.daily_spend/*.parquet') group by 1, 2, 3) "
            f"to '{target}' (format parquet, compression zstd)"
        )
        done = itself(FLOOR, self.folder, statement)
        target.unlink()
        return done

    def judge(self) -> Measured:
        """Habits and ranges of one day and of the next, written as a night writes them."""
        return itself(RANGING, REPOSITORY, str(self.folder), str(DAY))


# ---- what arrives ---------------------------------------------------------------------------

SPOILT: Sequence[Callable[[bytes], bytes]] = (
    lambda line: line[: len(line) // 2] + b"\n",  # torn
    lambda line: line.replace(b'"request_id":"', b'"id":"'),
    lambda line: line.replace(b'"credits_used":', b'"credits_used":-1'),
    lambda line: line.replace(b'"timestamp":"2026-', b'"timestamp":"2026/'),
    lambda line: line.replace(b'"prompt_tokens":', b'"prompt_tokens":0.5e1'),
)


def with_duplicates(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Every thousandth line once more, five hundred lines later."""
    again = b""
    for number, line in enumerate(lines):
        yield line
        if number % EVERY == 0:
            again = line
        elif number % EVERY == EVERY // 2:
            yield again


def with_bad_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Every thousandth line spoilt, in one of five ways."""
    for number, line in enumerate(lines):
        which, is_good = divmod(number, EVERY)
        yield line if is_good else SPOILT[which % len(SPOILT)](line)


def rewritten(
    file: Path, target: Path, change: Callable[[Iterable[bytes]], Iterator[bytes]]
) -> Path:
    with file.open("rb") as source, target.open("wb") as out:
        out.writelines(change(source))
    return target


def packed(file: Path, target: Path) -> Path:
    with file.open("rb") as source, gzip.open(target, "wb", compresslevel=5) as out:
        shutil.copyfileobj(source, out, 2**22)
    return target


def in_objects(file: Path, target: Path, lines: int) -> Path:
    """The same lines in a folder of many objects."""
    target.mkdir()
    each = -(-lines // OBJECTS)
    with file.open("rb") as source:
        for number in range(OBJECTS):
            with (target / f"{number:04}.jsonl").open("wb") as out:
                out.writelines(itertools.islice(source, each))
    return target


# Where what arrives lies until it does.
PLACES = {
    CLEAN: "requests.jsonl",
    TWICE: "twice.jsonl",
    "0.1 % bad lines": "bad.jsonl",
    "gzip": "packed.jsonl.gz",
    f"{OBJECTS:,} objects": "objects",
}


# ---- rounds ---------------------------------------------------------------------------------


class Bench:
    """Warehouses in use, and nights on copies of them. A copy lies where the warehouse was set up:
    what it knows of the places it has read holds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.house = folder / "house"

    def set_up(self, name: str, days: int, lines: int, worth: float = 1) -> None:
        """A warehouse of some days before the day that is measured, built and put away; one that
        lies there is brought up to this release by a night in which nothing arrives.
        """
        shutil.rmtree(self.house, ignore_errors=True)
        if (self.folder / name).exists():
            (self.folder / name).rename(self.house)
        else:
            landing = self.house / "landing" / "requests"
            landing.mkdir(parents=True)
            (self.house / "meterhouse.toml").write_text(SETTINGS, encoding="utf-8")
            for back in range(days, 0, -1):
                day = DAY - timedelta(days=back)
                generate(landing / f"before_{back:03}.jsonl", lines, day, worth)
        night(self.house)
        self.house.rename(self.folder / name)

    def night(self, name: str, arrives: Path) -> Measured:
        """A night on a copy of a warehouse, when a file (or a folder of them) has arrived."""
        self._arrives(name, arrives)
        return night(self.house)

    def landing(self, name: str, arrives: Path) -> Measured:
        """The first part of such a night alone: until all that has arrived is landed, its ids held
        against every other.
        """
        self._arrives(name, arrives)
        return itself(LANDING, self.house, str(DAY))

    def _arrives(self, name: str, arrives: Path) -> None:
        self.copy(name)
        landing = self.house / "landing" / "requests"
        for file in sorted(arrives.iterdir()) if arrives.is_dir() else [arrives]:
            os.link(file, landing / file.name)
        warm(arrives)

    def copy(self, name: str) -> None:
        """Objects and logs never change where they lie, so those are linked."""
        shutil.rmtree(self.house, ignore_errors=True)

        def take(source: str, target: str) -> None:
            if source.endswith((".parquet", ".jsonl")):
                os.link(source, target)
            else:
                shutil.copy2(source, target)

        shutil.copytree(self.folder / name, self.house, copy_function=take)


@dataclass(frozen=True)
class Claim:
    """What a measured quantity is held against."""

    sentence: str
    found: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.found <= self.limit


def compare(
    file: Path, folder: Path, lines: int, rounds: int, only: Sequence[str] = ()
) -> list[Round]:
    """Everything in turn, `rounds` times; or `only` some of it. The engine is measured before each
    night, for a machine's pace changes: as `engine before …`.
    """
    bench, index, money = Bench(folder), Ids(folder / "ids"), Money(folder / "money")
    ranges = Ranges(folder / "ranges")
    places = {name: folder / place for name, place in PLACES.items()}
    say = functools.partial(print, file=sys.stderr, flush=True)
    arrivals: Mapping[str, Callable[[], Path]] = {
        CLEAN: lambda: file,
        TWICE: lambda: rewritten(file, places[TWICE], with_duplicates),
        "0.1 % bad lines": lambda: rewritten(file, places["0.1 % bad lines"], with_bad_lines),
        "gzip": lambda: packed(file, places["gzip"]),
        f"{OBJECTS:,} objects": lambda: in_objects(file, places[f"{OBJECTS:,} objects"], lines),
    }
    histories = {f"{days} days before it": days for days in (SHORT_HISTORY, LONG_HISTORY)}

    def is_wanted(name: str) -> bool:
        return not only or name in only

    say("setting up …")
    arrived = {
        name: places[name] if places[name].exists() else make()
        for name, make in arrivals.items()
        if is_wanted(name)
    }
    bench.set_up("in use", 1, 1_000)
    for name, days in histories.items():
        if is_wanted(name):
            # as dear a day as the one that arrives: nobody is alerted
            bench.set_up(name, days, HISTORY_LINES, lines / HISTORY_LINES)
    if is_wanted("id check"):
        index.prepare(lines)
    if is_wanted("reconciliation"):
        money.prepare(CHARGES)
    if is_wanted("ranges"):
        ranges.prepare(SUBJECTS, SPENT_DAYS)
    done: list[Round] = []

    def keep(name: str, *found: Measured) -> None:
        for one in found:
            done[-1][name] = one
            say(f"  {name}: {one.wall:.2f} s, {one.cpu:.2f} CPU, {one.rss / 2**20:,.0f} MiB")

    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        done.append({})
        warm(file)
        for name, arrives in arrived.items():
            keep(f"{BEFORE} {name}", engine(file, folder))
            if name == "gzip":
                keep(PACKED, engine(arrives, folder))
            keep(name, bench.night("in use", arrives))
            if name == "gzip":
                keep(f"{PACKED}{ONCE_MORE}", engine(arrives, folder))
            if name == CLEAN:
                keep("empty night", night(bench.house))
            if name == TWICE:  # what they add is less than the pace moves in a minute
                for turn, again in enumerate(TIMES[1:]):  # there and back
                    for each in (CLEAN, TWICE) if turn % 2 else (TWICE, CLEAN):
                        if each in arrived:
                            keep(f"{BEFORE} {each}{again}", engine(file, folder))
                            keep(f"{each}{again}", bench.night("in use", arrived[each]))
        lived = [name for name in histories if is_wanted(name)]
        for name in lived:
            keep(f"{BEFORE} {name}", engine(file, folder))
            keep(name, bench.night(name, file))
            if name == list(histories)[-1]:
                keep("one request found", run(bench.house, "request", first_request(file)))
        for turn, again in enumerate(TIMES):  # there and back, for a pace that rises or falls
            for name in reversed(lived) if turn % 2 else lived:
                keep(f"landing, {name}{again}", bench.landing(name, file))
        if is_wanted("id check"):
            keep(f"{BEFORE} id check", engine(file, folder))
            keep("id check", index.check())
        if is_wanted("reconciliation"):
            keep("join of charges and invoices", money.join())
            keep("reconciliation", money.reconcile())
        if is_wanted("ranges"):
            keep("scan and group of daily spend", ranges.scan())
            keep("ranges", ranges.judge())
    return done


def first_request(file: Path) -> str:
    """The id of the request on the first line."""
    with file.open(encoding="utf-8") as lines:
        return str(json.loads(next(lines))["request_id"])


# ---- what is said of it ---------------------------------------------------------------------


def each_time(one: Round, of: Callable[[str], float], day: str) -> float:
    """The median of a night that was measured several times in a round: one in four may meet a
    minute in which the machine does something else.
    """
    return statistics.median(of(f"{day}{again}") for again in TIMES if f"{day}{again}" in one)


def added(one: Round, by: str) -> float:
    """What 0.1 % duplicates took more than the clean nights beside them, in the engine measured
    before these: four nights of each, there and back, so that a pace that rises or falls does not
    tell.
    """

    def usual(day: str, before: str = "") -> float:
        return each_time(one, lambda name: float(getattr(one[f"{before}{name}"], by)), day)

    engine = (usual(TWICE, f"{BEFORE} ") + usual(CLEAN, f"{BEFORE} ")) / 2
    return (usual(TWICE) - usual(CLEAN)) / engine


def claims(rounds: Sequence[Round]) -> list[Claim]:
    """What is asked of a night, on what was measured: each quantity of each round by itself, for
    what is compared stands side by side there, and then the median of the rounds.
    """
    first, *_ = rounds
    found: list[Claim] = []

    def hold(sentence: str, limit: float, of: Callable[[Round], float], *needs: str) -> None:
        if first.keys() >= set(needs):
            value = statistics.median(of(one) for one in rounds)
            found.append(Claim(sentence, value, limit))

    def both(sentence: str, limit: float, of: Callable[[Round, str], float], *needs: str) -> None:
        for kind, attribute in (("wall", "wall"), ("CPU", "cpu")):
            hold(f"{sentence}, {kind}", limit, lambda one, by=attribute: of(one, by), *needs)  # type: ignore[misc]

    def net(one: Round, by: str, name: str, against: str = BEFORE) -> float:
        """A night less the empty night, in engines: of the one before it and the one after."""
        measured = list(one)
        here = measured.index(name)
        engines = [at for at, other in enumerate(measured) if other.startswith(against)]
        around = [
            *[at for at in engines if at < here][-1:],
            *[at for at in engines if at > here][:1],
        ]
        floor = statistics.mean(getattr(one[measured[at]], by) for at in around)
        return float((getattr(one[name], by) - getattr(one["empty night"], by)) / floor)

    def day(one: Round, by: str, name: str) -> float:
        return each_time(one, lambda each: net(one, by, each), name)

    def ratio(one: Round, by: str, name: str, against: str) -> float:
        return float(getattr(one[name], by) / getattr(one[against], by))

    empty = "empty night"
    bad, many = "0.1 % bad lines", f"{OBJECTS:,} objects"
    short, long = (f"{days} days before it" for days in (SHORT_HISTORY, LONG_HISTORY))
    join, reconciled = "join of charges and invoices", "reconciliation"
    both("a clean day ÷ the engine", 2.0, lambda one, by: day(one, by, CLEAN), CLEAN)
    both("what 0.1 % duplicates add to that", 0.1, added, TWICE, CLEAN)
    both(
        "the day with 0.1 % duplicates ÷ the engine on the clean day",
        2.1,
        lambda one, by: day(one, by, TWICE),
        TWICE,
        empty,
    )
    both(
        "the day in gzip ÷ the engine on the same gzip",
        2.0,
        lambda one, by: net(one, by, "gzip", PACKED),
        "gzip",
        empty,
    )
    both(
        "the day with 0.1 % bad lines ÷ the engine on the clean day",
        3.0,
        lambda one, by: net(one, by, bad),
        bad,
        empty,
    )
    both(
        f"the day in {OBJECTS:,} objects ÷ the day in one",
        1.3,
        lambda one, by: net(one, by, many) / day(one, by, CLEAN),
        many,
        CLEAN,
    )

    def landed(one: Round, by: str, history: str) -> float:
        """A landing into a history, the mean of all."""
        return statistics.mean(getattr(one[f"landing, {history}{again}"], by) for again in TIMES)

    both(
        f"the day landed into {LONG_HISTORY} days ÷ into {SHORT_HISTORY}",
        1.1,
        lambda one, by: landed(one, by, long) / landed(one, by, short),
        *(f"landing, {history}" for history in (long, short)),
    )
    hold(
        f"seconds that {LONG_HISTORY} days add to the day landed into {SHORT_HISTORY}",
        1.0,
        lambda one: landed(one, "wall", long) - landed(one, "wall", short),
        *(f"landing, {history}" for history in (long, short)),
    )
    both(
        f"the whole night into {LONG_HISTORY} days ÷ into {SHORT_HISTORY}",
        1.1,
        lambda one, by: ratio(one, by, long, short),
        long,
        short,
    )
    hold(
        f"seconds that {LONG_HISTORY} days add to the whole night into {SHORT_HISTORY}",
        1.0,
        lambda one: one[long].wall - one[short].wall,
        long,
        short,
    )
    check = "id check"
    both(
        "the id check ÷ the engine, by 100 M ids",
        0.4,
        lambda one, by: ratio(one, by, check, f"{BEFORE} {check}"),
        check,
    )
    both(
        "reconciling a million charges with a million invoices ÷ their join",
        3.0,
        lambda one, by: ratio(one, by, reconciled, join),
        reconciled,
    )
    scanned, judged = "scan and group of daily spend", "ranges"
    both(
        f"a night's ranges of {SUBJECTS:,} keys ÷ one scan and group of {SPENT_DAYS} days",
        10.0,
        lambda one, by: ratio(one, by, judged, scanned),
        judged,
    )
    hold(
        "peak memory of any night, GB",
        3.0,
        lambda one: max(run.rss for run in one.values()) / 10**9,
    )
    hold("the empty night, seconds", 5.0, lambda one: one[empty].wall, empty)
    return found


def as_told(name: str) -> str:
    """By which name of the table something was measured."""
    if name.startswith(BEFORE):
        return "engine"
    return next(name.removesuffix(again) for again in TIMES[::-1] if name.endswith(again))


def table(rounds: Sequence[Round]) -> Iterator[tuple[str, list[Measured]]]:
    """What was measured, by its name; the engine of all rounds and nights in one."""
    names = dict.fromkeys(as_told(name) for one in rounds for name in one)
    for name in names:
        yield (
            name,
            [run for one in rounds for of, run in one.items() if as_told(of) == name],
        )


def page(
    rounds: Sequence[Round], file: Path, lines: int, load: float, *, is_part: bool = False
) -> str:
    """The tables as Markdown, and how they were measured."""
    rows = [
        f"| {name} | {median(of).wall:.2f} | {min(run.wall for run in of):.2f}–"
        f"{max(run.wall for run in of):.2f} | {median(of).cpu:.2f} | "
        f"{median(of).rss / 2**20:,.0f} |"
        for name, of in table(rounds)
    ]
    held = [
        f"| {claim.sentence} | {claim.found:.2f} | {claim.limit:.1f} | "
        f"{'yes' if claim.holds else '**no**'} |"
        for claim in claims(rounds)
    ]
    return f"""# What a night costs

Written by `make bench` (`tests/bench.py`) on {date.today()}; run it to have your own.
{"Only a part of it was run: what has no row below was not measured." if is_part else ""}

{lines:,} canonical requests of one day ({file.stat().st_size / 2**20:,.0f} MiB, {WORKSPACES}
workspaces with {KEYS_EACH} keys each, every canonical field) arrive in a warehouse that is in use.
{os.cpu_count()} cores, Python {platform.python_version()}, DuckDB {duckdb.__version__}.
{len(rounds)} rounds, in each of which everything runs once (the clean day and the one with
duplicates four times, there and back), the engine before and after every night; the load average
was {load:.1f} before the first. What arrives lies in memory, for it was read just before. What is
compared is compared within its round, a night with the mean of the engines beside it, as a
machine's pace changes; what is found is the median of the rounds.

| | found | limit | holds |
| --- | --- | --- | --- |
{chr(10).join(held)}

A day's night is compared less the empty night; only where histories are compared is it whole.

| | wall, s | lowest–highest | CPU, s | peak memory, MiB |
| --- | --- | --- | --- | --- |
{chr(10).join(rows)}

- **engine**: `copy (from read_json(file, columns = {{every canonical field, typed}})) to …
  (format parquet, compression zstd)`, DuckDB's defaults, in a process of its own, timed around that
  statement: no interpreter start, no import. It checks, counts and hashes nothing, nor syncs.
- **clean** and the others, down to those with days before it: the whole of `meterhouse nightly`,
  interpreter start included: it lands what has arrived with an account of every line, types it
  strictly, resolves duplicates, builds and audits every table, exports, syncs, publishes, and
  derives `warehouse.duckdb`. One request landed before it, of the day before, in a thousand.
- **0.1 % duplicates**: every thousandth line stands there once more. Clean nights and such are
  measured four times a round, there and back: told is the median of the four.
  **0.1 % bad lines**: every thousandth is torn, or lacks its id, or states credits, an instant or
  tokens that are none.
- **empty night**: the same command again, when nothing new has arrived.
- **{SHORT_HISTORY} and {LONG_HISTORY} days before it**: the clean day, where so many days of
  {HISTORY_LINES:,} requests have landed, each with every key. **Landing**: the first part of that
  night, from its begin until every record is accounted for and its id held against all others;
  timed around that, four times a round, there and back, after the nights: the ids of the history
  lie in memory. **One request found**: `meterhouse request` in the longer of them.
- **id check**: the ids of the day against an index of {IDS:,} others in {LONG_HISTORY} files.
- **reconciliation**: {CHARGES:,} charges, as many gateway invoices, a tenth of them behind Stripe
  invoices: every model from raw to `marts.invoice_reconciliation`, each written as a night does.
  **Join of charges and invoices**: the bare engine's hash join of the two raw tables, all columns
  written.
- **ranges**: what is known of {SUBJECTS:,} keys that spent on each of {SPENT_DAYS} days, and the
  range of one day of each and of the day after it, as a night writes both: `marts.spend_habits` and
  `marts.spend_ranges`.
  **Scan and group of daily spend**: the bare engine reads the same table once, all days, and groups
  it by the same names.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes the page; exit code 1 where a claim of the page does not hold."""
    parser = argparse.ArgumentParser(description="The night against the bare engine.")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each is measured (default: 3)"
    )
    parser.add_argument(
        "--lines", type=int, default=5_000_000, help="requests in the day (default: 5,000,000)"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        help="measure these alone, by the names in the table; writes no page but with --write",
    )
    parser.add_argument("--write", action="store_true", help="write the page of a part, too")
    parser.add_argument(
        "--keep",
        type=Path,
        help="a folder for what is set up, found there again by the next run",
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="meterhouse-bench-") as name:
        folder = (options.keep or Path(name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / PLACES[CLEAN]
        if not file.exists():
            generate(file, options.lines)
        load = os.getloadavg()[0]
        rounds = compare(file, folder, options.lines, options.rounds, options.only or ())
        text = page(rounds, file, options.lines, load, is_part=bool(options.only))
    print(text)
    if options.write or not options.only:
        PAGE.write_text(text, encoding="utf-8")
    return int(not all(claim.holds for claim in claims(rounds)))


if __name__ == "__main__":
    sys.exit(main())

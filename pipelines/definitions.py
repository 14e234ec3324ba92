"""Meterhouse as Dagster sees it: one asset for each table and export, one check for each claim, one
night that makes them all.

The night is one step, because what it publishes it publishes together: no table is ever newer than
another. It runs the same
whether the schedule, the UI or `meterhouse nightly` starts it.
"""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg

from exports.files import EXPORTS
from pipelines import contents, history
from pipelines.bucket_store import open_store
from pipelines.calendar import Clock, parse_day, parse_instant
from pipelines.models import MANIFESTS, Built, Checked, Models
from pipelines.night import Delivered, Night, Published, Started, Told, claim_table
from pipelines.object_store import ObjectStoreError
from pipelines.settings import Settings, SettingsError, load

# The rooms of the picture in house.md, in the order in which data falls through them.
GROUPS = (
    ("comes_in", r"raw\..*|staging\.request_(ids|contests)"),
    (
        "reconciliation",
        r"staging\.(charge_.*|contested_.*|reconciliation_.*|stripe_.*)|marts\.(invoice|payout).*",
    ),
    ("staging", r"staging\..*"),
    ("usage", r"marts\.(requests|usage_.*|keys|fallback_.*)"),
    ("credits", r"marts\.credit_.*"),
    ("alerts", r"marts\.(.*spend.*|alert_.*|budget_.*)"),
    ("files", r"exports\.(usage.*|requests)"),
    ("goes_out", r"exports\..*"),
    ("answers", r"marts\..*"),
    ("proof", r"ops\..*"),
)
PROOFS = {"marts.conservation", "marts.log_gaps", "marts.restatements"}


def group_of(table: str) -> str:
    """The group of an asset; a new mart that fits no pattern is an answer."""
    if table in PROOFS:
        return "proof"
    return next(group for group, pattern in GROUPS if re.fullmatch(pattern, table))


AS_OF, DAYS, EVERYTHING, LANDS, RETRIES, WATCHES, STARTED_BY, WAIT, PROCESS = (
    f"meterhouse/{name}"
    for name in (
        "as_of",
        "days",
        "everything",
        "lands",
        "retries",
        "watches",
        "started_by",
        "wait_seconds",
        "process",
    )
)


def settings_here() -> Settings:
    """The settings of this code location: `METERHOUSE_CONFIG`, or `meterhouse.toml` where Dagster
    was started.
    """
    return load()


def first_day() -> date:
    """Where the daily partitions begin: the month of the earliest day, or sixty days ago."""
    first = date.today() - timedelta(days=60)
    try:
        snapshot = open_store(settings_here()).snapshot()
    except (SettingsError, ObjectStoreError):
        snapshot = None
    known = snapshot.tables.get("raw.requests", {}) if snapshot else {}
    return min([first, *(date.fromisoformat(day) for day in known)]).replace(day=1)


def asset_key(table: str) -> dg.AssetKey:
    return dg.AssetKey(table.split("."))


def asset_specs(models: Models) -> Iterator[dg.AssetSpec]:
    """Every table, with what it stands on and its documentation, as read out of its file."""
    by_day = dg.DailyPartitionsDefinition(start_date=str(first_day()), end_offset=2)

    def spec(
        table: str, description: str, inputs: Any, columns: Any, is_by_day: bool, kinds: set[str]
    ) -> dg.AssetSpec:
        metadata = {}
        if columns:
            metadata["dagster/column_schema"] = dg.TableSchema(
                columns=[
                    dg.TableColumn(name, kind, description=text) for name, kind, text in columns
                ]
            )
        return dg.AssetSpec(
            asset_key(table),
            deps=[asset_key(name) for name in inputs],
            description=description,
            group_name=group_of(table),
            partitions_def=by_day if is_by_day else None,
            metadata=metadata,
            kinds=kinds,
            skippable=True,
        )

    for table, shape in contents.raw_tables().items():
        columns: list[tuple[str, str, str | None]] = [
            (name, kind, text) for name, (kind, text) in shape.columns.items()
        ]
        inputs = {"staging": ["raw.requests"], "marts": ["staging.request_counts"]}.get(
            table.partition(".")[0], []
        )
        yield spec(table, shape.description, inputs, columns, shape.by_day, {"parquet"})
    for model in models.order:
        types = models.types(model.name)
        columns = [(name, types[name], model.documentation.get(name)) for name in model.columns]
        inputs = sorted({MANIFESTS.get(name, name) for name in model.inputs} - {model.name})
        kinds = {"duckdb", "view"} if model.is_view else {"duckdb", "parquet"}
        yield spec(
            model.name, model.description, inputs, columns, models.is_by_day(model.name), kinds
        )
    for name, export in EXPORTS.items():
        yield spec(
            f"exports.{name}",
            f"Files of {export.table} for elsewhere.",
            [export.table],
            [],
            True,
            {"csv"},
        )
    answers = [model.name for model in models.order if model.name.startswith("marts.")]
    yield spec(
        "exports.warehouse",
        "warehouse.duckdb: what is published, as one file.",
        answers,
        [],
        False,
        {"duckdb"},
    )
    for sink in contents.sinks():
        yield spec(
            f"exports.alerts_{sink}",
            f"Budget alerts by {sink}, each transition once.",
            ["marts.budget_alerts"],
            [],
            False,
            {sink},
        )


def check_specs(models: Models) -> Iterator[dg.AssetCheckSpec]:
    """The grain of every stored table, and every claim of `sql/checks`; all but warnings block
    publishing.
    """
    for model in models.order:
        if not model.is_view or model.name == "staging.requests":
            yield dg.AssetCheckSpec(
                "grain",
                asset=asset_key(model.name),
                blocking=True,
                description=f"One row for each {', '.join(model.grain)}.",
            )
    for name, claim in models.claims.items():
        yield dg.AssetCheckSpec(
            name.partition("__")[2],
            asset=asset_key(claim_table(models, name)),
            blocking=not claim.is_warning,
            description=claim.description,
        )


MODELS = contents.models()


@dg.multi_asset(
    name="night",
    specs=list(asset_specs(MODELS)),
    check_specs=list(check_specs(MODELS)),
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def night(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """Everything that is new: land, model, check, reconcile, detect, export, publish, alert."""
    tags = context.run.tags
    clock = Clock.at(as_of=parse_instant(tags[AS_OF])) if AS_OF in tags else Clock.at()
    forced: tuple[date, date] | None = None
    if DAYS in tags:
        first, _, last = tags[DAYS].partition("...")
        forced = parse_day(first), parse_day(last)
    elif context.run.tags.get("dagster/asset_partition_range_start"):
        forced = (
            parse_day(tags["dagster/asset_partition_range_start"]),
            parse_day(tags["dagster/asset_partition_range_end"]),
        )
    elif context.has_partition_key:
        forced = parse_day(context.partition_key), parse_day(context.partition_key)
    settings = settings_here()
    fail_the_dead(context)
    work = Night(
        settings=settings,
        clock=clock,
        models=MODELS,
        sources=contents.watched() if WATCHES in tags else contents.sources(),
        sinks=contents.sinks(),
        forced=(lambda day: day is not None and forced[0] <= day <= forced[1])
        if forced
        else (lambda _: False),
        everything=EVERYTHING in tags,
        lands=tags.get(LANDS) != "no",
        retries=RETRIES in tags,
        wait_seconds=float(tags.get(WAIT, 60)),
        started_by=tags.get(STARTED_BY, "dagster"),
    )
    with history.quick(context.instance):
        for events in in_background(work.run()):
            with history.together(context.instance):
                for event in events:
                    show(context, event)
    yield from ()


def fail_the_dead(context: dg.AssetExecutionContext) -> None:
    """Marks runs as failed whose process is no more: a killed night never got to say so itself."""
    context.instance.add_run_tags(context.run_id, {PROCESS: str(os.getpid())})
    running = context.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    for run in running:
        process = run.tags.get(PROCESS)
        if run.run_id != context.run_id and process and not is_alive(int(process)):
            context.instance.report_run_failed(
                run, f"Its process, {process}, ended without a word."
            )


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's, but there
    return True


# The command line's progress, when it is what started the night.
LISTENERS: list[Callable[[Any], None]] = []
GATHER_SECONDS = 0.5  # how long events wait for others, to be written down together


def in_background(events: Iterator[Any]) -> Iterator[list[Any]]:
    """The same events, some at a time, made by a thread of their own.

    DuckDB goes on while Dagster writes down what happened.
    """
    done = object()
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def produce() -> None:
        try:
            for event in events:
                for listener in LISTENERS:
                    listener(event)
                waiting.put(event)
            waiting.put(done)
        except BaseException as error:  # noqa: BLE001
            waiting.put(error)  # raised again in the thread that asked

    thread = threading.Thread(target=produce, name="night")
    thread.start()
    last: Any = None
    while last is not done:
        some = [waiting.get()]
        until = time.monotonic() + GATHER_SECONDS
        while some[-1] is not done and not isinstance(some[-1], BaseException):
            try:
                some.append(waiting.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        last = some[-1]
        if last is done or isinstance(last, BaseException):
            some.pop()
        if some:
            yield some
        if isinstance(last, BaseException):
            thread.join()
            raise last
    thread.join()


def show(context: dg.AssetExecutionContext, event: Any) -> None:
    """One event of the night as Dagster's own: a materialization, a check, a line of the log."""
    if isinstance(event, Built):
        metadata: dict[str, Any] = {
            "dagster/row_count": event.rows,
            "seconds": round(event.seconds, 3),
        }
        if event.credits is not None:
            metadata |= {"credits": float(event.credits), "credits_exact": event.credits}
        context.log_event(
            dg.AssetMaterialization(
                asset_key(event.table),
                partition=str(event.day) if event.day else None,
                metadata=metadata,
            )
        )
    elif isinstance(event, Checked):
        if not event.is_news and not context.selected_asset_check_keys:
            return  # it stands as it was said when it last changed
        name = "grain" if event.claim == "grain" else event.claim.partition("__")[2]
        context.log_event(
            dg.AssetCheckEvaluation(
                asset_key=asset_key(event.table),
                check_name=name,
                passed=event.passed,
                metadata={"found": dg.MetadataValue.text(event.found)} if event.found else {},
                severity=dg.AssetCheckSeverity.WARN
                if event.is_warning
                else dg.AssetCheckSeverity.ERROR,
                blocking=not event.is_warning,
            )
        )
    elif isinstance(event, Published):
        rows = sum(item.rows for item in event.snapshot.objects())
        context.log_event(
            dg.AssetMaterialization(
                asset_key("exports.warehouse"),
                metadata={"snapshot": event.snapshot.snapshot_id, "dagster/row_count": rows},
            )
        )
    elif isinstance(event, Delivered):
        context.log_event(
            dg.AssetMaterialization(
                asset_key(f"exports.alerts_{event.sink}"), metadata=dict(event.state)
            )
        )
    elif isinstance(event, Started):
        context.log.info(f"{event.step} …")
    elif isinstance(event, Told):
        (context.log.error if event.is_failure else context.log.warning)(event.sentence)


nightly = dg.define_asset_job(
    "nightly",
    # The night says what it checked; planning every check beforehand would cost a quiet night a
    # second.
    selection=dg.AssetSelection.all() - dg.AssetSelection.all_asset_checks(),
    description="One night: everything that is new, audited together and published together.",
    executor_def=dg.in_process_executor,
    tags={"dagster/max_retries": "1"},
)


@dg.schedule(
    job=nightly,
    cron_schedule="30 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night, half an hour after the UTC day has ended.",
)
def every_night(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    as_of: datetime = context.scheduled_execution_time
    return dg.RunRequest(
        run_key=as_of.isoformat(), tags={AS_OF: as_of.isoformat(), STARTED_BY: "schedule"}
    )


watch = dg.define_asset_job(
    "watch",
    selection=dg.AssetSelection.all() - dg.AssetSelection.all_asset_checks(),
    description="The intraday check: a night that lands request logs and the directory only.",
    executor_def=dg.in_process_executor,
    tags={WATCHES: "yes"},
)


@dg.schedule(
    job=watch,
    # Not in the hour of the night, which does the same and more.
    cron_schedule="15 1-23 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour: running totals against the limits that the night before has stored.",
)
def every_hour(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    as_of: datetime = context.scheduled_execution_time
    return dg.RunRequest(
        run_key=as_of.isoformat(), tags={AS_OF: as_of.isoformat(), STARTED_BY: "schedule"}
    )


defs = dg.Definitions(
    assets=[night],
    jobs=[nightly, watch],
    schedules=[every_night, every_hour],
    executor=dg.in_process_executor,
)

"""The command line (contract, "Command line: `meterhouse`"). A failed command says one plain
sentence and exits 1.
"""

import contextlib
import gc
import logging
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from assets import decisions
from pipelines import watching
from pipelines.bucket_store import open_store
from pipelines.calendar import DAY, Clock, parse_day, parse_instant, utc_now
from pipelines.models import ModelError
from pipelines.object_store import ObjectStoreError
from pipelines.object_store import objects_at as objects_in_store
from pipelines.reader import (
    GROUPS,
    MEASURES,
    Reader,
    last_window,
    local_days,
    published,
    usage_columns,
)
from pipelines.screens import (
    WIDE,
    WIDEST,
    counted,
    err,
    money,
    number,
    once_each,
    out,
    show,
    show_facts,
)
from pipelines.settings import FILE_NAME, Settings, SettingsError, load
from pipelines.store import StoreError

HERE = Path(__file__).parents[1]
MILLISECOND = timedelta(milliseconds=1)


class Instant(click.ParamType[datetime]):
    name = "instant"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        try:
            return value if isinstance(value, datetime) else parse_instant(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Day(click.ParamType[date]):
    name = "date"

    def convert(self, value: Any, param: Any, ctx: Any) -> date:
        try:
            return value if isinstance(value, date) else parse_day(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Failed(click.ClickException):
    """One sentence; exit 1."""

    def show(self, file: Any = None) -> None:  # noqa: ARG002
        err.print(f"[bold red]meterhouse:[/] {_escape(self.message)}", soft_wrap=True)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


class Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Turns what the house raises into a sentence; `--debug` shows the traceback too."""
        from exports.files import ExportError
        from pipelines.night import NightFailed

        expected = (
            *(SettingsError, StoreError, ObjectStoreError, ModelError),
            *(NightFailed, ExportError),
        )
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            raise Failed("Stopped. What was published stays; run again to go on.") from None
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            cause: BaseException = error
            while not isinstance(cause, expected) and cause.__cause__ is not None:
                cause = cause.__cause__
            if isinstance(cause, expected):
                raise Failed(str(cause)) from None
            raise Failed(
                f"{type(cause).__name__}: {(str(cause) or 'no message').splitlines()[0]} "
                "(run again with --debug to see where)."
            ) from None


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", type=click.Path(path_type=Path), help=f"Settings file (default: {FILE_NAME} here)."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="meterhouse")
@click.pass_context
def main(ctx: click.Context, config: Path | None, debug: bool) -> None:
    """The open warehouse behind an AI gateway's bill: every request, credit, invoice and charge,
    proved to agree.
    """
    ctx.obj = config
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.ERROR, format="%(message)s", stream=sys.stderr
    )


def settings_of(ctx: click.Context) -> Settings:
    return load(ctx.obj)


format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
)
as_of_option = click.option(
    "--as-of",
    type=Instant(),
    envvar="METERHOUSE_AS_OF",
    help="The night's clock: exclusive end, UTC (default: now).",
)


# ---- setting up -----------------------------------------------------------------------------


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
def init(folder: Path) -> None:
    """Write a commented meterhouse.toml and the landing folders."""
    target = folder / FILE_NAME
    if target.exists():
        raise Failed(f"{target} is there already; it was left as it is.")
    for name in ("requests", "directory", "invoices", "stripe"):
        (folder / "landing" / name).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(HERE / "pipelines" / "meterhouse.toml", target)
    out.print(f"Wrote [bold]{target}[/] and [bold]{folder / 'landing'}[/].\n")
    out.print("Next:  put request logs (.jsonl, .jsonl.gz, .csv) into landing/requests,")
    out.print("       then run  [bold]meterhouse doctor[/]  and  [bold]meterhouse nightly[/].")


@main.command()
@click.option(
    "--out", "folder", type=click.Path(path_type=Path), required=True, help="Where to write it."
)
@click.option("--days", type=click.IntRange(min=1), default=45, show_default=True)
@click.option("--requests-per-day", type=click.IntRange(min=1), default=3000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--last-day", type=Day(), help="The last simulated day (default: yesterday, UTC).")
@click.option("--faults", default="", help="Faults to plant, separated by commas.")
def simulate(
    folder: Path, days: int, requests_per_day: int, seed: int, last_day: date | None, faults: str
) -> None:
    """Write a believable gateway's logs, invoices and Stripe account, and the truth beside them."""
    from pipelines.simulator import gateway

    try:
        truth = gateway.simulate(
            folder,
            days=days,
            requests_per_day=requests_per_day,
            seed=seed,
            last_day=last_day or utc_now().date() - DAY,
            faults=tuple(filter(None, faults.split(","))),
        )
    except ValueError as error:
        raise Failed(str(error)) from None
    out.print(
        f"Simulated {truth['first_day']} to {truth['last_day']} with seed {seed} in "
        f"[bold]{folder}[/]; "
        f"the truth is in {folder / 'truth.json'}."
    )


# ---- nights ---------------------------------------------------------------------------------


def run_night(
    settings: Settings, config: Path | None, tags: dict[str, str], on_event: Callable[[Any], None]
) -> None:
    """One night through Dagster, as schedule and UI run it. Raises what the night raised."""
    os.environ["METERHOUSE_CONFIG"] = str(
        (config or Path(os.environ.get("METERHOUSE_CONFIG") or FILE_NAME)).resolve()
    )
    prepare_dagster_home(settings.dagster_home)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    warnings.simplefilter("ignore")
    # Dagster's classes are made once and stay: to look for garbage among them, while they are made
    # and again and again after that, takes half a second of a night.
    gc.disable()
    import dagster as dg
    import filelock

    from pipelines import definitions, history

    gc.freeze()
    gc.enable()
    definitions.LISTENERS.append(on_event)
    try:
        # two first nights at once would each make Dagster's tables
        with filelock.FileLock(settings.dagster_home / ".lock"):
            made = dg.DagsterInstance.get()
        with made as instance, history.quick(instance):
            job = "watch" if definitions.WATCHES in tags else "nightly"
            definitions.defs.resolve_job_def(job).execute_in_process(
                instance=instance,
                tags=tags,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
    finally:
        definitions.LISTENERS.remove(on_event)
        gc.unfreeze()


def prepare_dagster_home(folder: Path) -> None:
    """`DAGSTER_HOME` beside `meterhouse.toml`, with the repository's `dagster.yaml` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "dagster.yaml").exists():
        shutil.copyfile(HERE / "dagster_home" / "dagster.yaml", folder / "dagster.yaml")


class Watcher:
    """Shows a night on standard error while it runs, and remembers what a summary needs."""

    def __init__(self, title: str, expected: int | None = None) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}")]
        if expected:
            columns += [
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TimeRemainingColumn(),
            ]
        columns.append(TimeElapsedColumn())
        self.progress = Progress(*columns, console=err, transient=True)
        self.task = self.progress.add_task(title, total=expected)
        self.title = title
        self.built = 0
        self.landed: dict[str, int] = {}
        self.checks = 0
        self.warnings: list[str] = []
        self.failures: list[str] = []
        self.snapshot: Any = None

    def __call__(self, event: Any) -> None:
        from pipelines.models import Built, Checked
        from pipelines.night import Published, Started, Told

        if isinstance(event, Started):
            self.progress.update(self.task, description=f"{self.title}: {event.step}")
            if event.step == "alert":  # sinks may print
                self.progress.stop()
        elif isinstance(event, Built):
            self.built += 1
            self.progress.update(self.task, advance=1, description=f"{self.title}: {event.table}")
        elif isinstance(event, Checked):
            self.checks += 1
            if event.is_warning and not event.passed:
                self.warnings.append(event.found)
        elif isinstance(event, Published):
            self.snapshot = event.snapshot
        elif isinstance(event, Told):
            (self.failures if event.is_failure else self.warnings).append(event.sentence)

    def __enter__(self) -> "Watcher":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()


@main.command()
@click.option(
    "--date",
    "day",
    type=Day(),
    help="A whole day: the same as --as-of the next day's midnight, UTC.",
)
@as_of_option
@click.option(
    "--wait", type=float, default=60, show_default=True, help="Seconds to wait for another night."
)
@click.pass_context
def nightly(ctx: click.Context, day: date | None, as_of: datetime | None, wait: float) -> None:
    """Everything that is new: land, model, check, reconcile, detect, export, publish, alert. Safe
    to run twice.
    """
    if (
        day
        and as_of
        and ctx.get_parameter_source("as_of") == click.core.ParameterSource.COMMANDLINE
    ):
        raise click.UsageError("Say --date or --as-of, not both.")
    clock = Clock.at(as_of=None if day else as_of, day=day)
    _night(ctx, clock, {"meterhouse/wait_seconds": str(wait)}, "night")


def _night(
    ctx: click.Context, clock: Clock, tags: dict[str, str], title: str, expected: int | None = None
) -> None:
    settings = settings_of(ctx)
    began = utc_now()
    tags = {
        "meterhouse/as_of": clock.as_of.isoformat(),
        "meterhouse/started_by": "meterhouse",
    } | tags
    with Watcher(title, expected) as watcher:
        run_night(settings, ctx.obj, tags, watcher)
    seconds = (utc_now() - began).total_seconds()
    for sentence in watcher.warnings:
        err.print(f"[yellow]note:[/] {_escape(sentence)}", soft_wrap=True)
    if watcher.snapshot is None:
        out.print(
            f"Nothing new as of {clock.as_of:%Y-%m-%d %H:%M} UTC: nothing was changed, nothing "
            f"sent ({seconds:.1f} s)."
        )
    else:
        with published(open_store(settings)) as reader:
            [sums] = reader.rows(
                "select sum(request_count) as requests, sum(credits) as credits, count(distinct "
                "usage_date) as days, "
                "count(distinct api_key_id) as keys, sum(total_tokens) as tokens from "
                "marts.usage_by_key"
            )
            [rounded] = reader.rows(
                "select coalesce(sum(rounded_count), 0) as rows, coalesce(sum(quarantined_count), "
                "0) as aside from ops.source_objects"
            )
        out.print(
            f"Published snapshot [bold]{watcher.snapshot.snapshot_id}[/] as of "
            f"{clock.as_of:%Y-%m-%d %H:%M} UTC "
            f"in {seconds:.1f} s: {counted(sums['requests'], 'request')} of "
            f"{counted(sums['keys'], 'key')} on {counted(sums['days'], 'day')}, "
            f"{sums['credits'] or 0} credits, {counted(sums['tokens'], 'token')}; "
            f"{counted(watcher.checks, 'claim')} {'holds' if watcher.checks == 1 else 'hold'}.",
            soft_wrap=True,
        )
        if rounded["rows"]:
            out.print(
                f"{counted(rounded['rows'], 'request')} stated money beyond nine places; it was "
                "rounded half-even, row by row."
            )
        if rounded["aside"]:
            out.print(
                f"[yellow]Set aside: {counted(rounded['aside'], 'record')}[/], "
                "see 'meterhouse quarantine list'."
            )
    if watcher.failures:
        raise Failed(" ".join(watcher.failures))


class Span(click.ParamType[timedelta]):
    name = "span"

    def convert(self, value: Any, param: Any, ctx: Any) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([1-9][0-9]{0,3})([mhdw])", value, re.ASCII)
        if not found:
            self.fail(
                f"'{value}' is no span: write it as 12h, 7d or 2w; minutes as 30m.", param, ctx
            )
        unit = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[found[2]]
        return timedelta(**{unit: int(found[1])})


@main.command()
@click.option("--every", type=Span(), help="Keep watching, so often: 15m, 1h (default: once).")
@click.option(
    "--dry-run", is_flag=True, help="Only show what is published: land nothing, tell nobody."
)
@click.option("--lines", type=click.IntRange(min=1), default=20, show_default=True)
@as_of_option
@format_option
@click.option(
    "--wait", type=float, default=60, show_default=True, help="Seconds to wait for another night."
)
@click.pass_context
def watch(
    ctx: click.Context,
    every: timedelta | None,
    dry_run: bool,
    lines: int,
    as_of: datetime | None,
    form: str,
    wait: float,
) -> None:
    """The intraday check: running totals of today against the limits that the night before has
    stored. What is over its limit is told at once.
    """
    if every and (as_of or dry_run):
        raise click.UsageError("--every goes with the wall clock: leave out --as-of and --dry-run.")
    tags = {"meterhouse/wait_seconds": str(wait), "meterhouse/watches": "yes"}
    while True:
        began = time.monotonic()
        try:
            if not dry_run:
                # what the night and the console say is for people: beside CSV or JSON, not in it
                aside = sys.stdout if form == "table" else sys.stderr
                with contextlib.redirect_stdout(aside):
                    _night(ctx, Clock.at(as_of=as_of), tags, "watch")
            with reading(ctx) as reader:
                rows = watching.running_totals(reader)
        except Exception as error:
            if not every:
                raise
            err.print(  # the next hour may do better: whoever watches goes on watching
                f"[bold red]meterhouse:[/] {utc_now():%Y-%m-%d %H:%M} UTC: "
                f"{_escape(str(error) or type(error).__name__)}",
                soft_wrap=True,
            )
        else:
            show_running_totals(rows, form, lines)
        if not every:
            return
        time.sleep(max(0.0, every.total_seconds() - (time.monotonic() - began)))


def show_running_totals(rows: list[dict[str, Any]], form: str, lines: int) -> None:
    over = sum(row["credits"] > row["upper_limit"] for row in rows)
    title = f"Today against the limits: {over} of {len(rows)} over"
    show(
        rows[:lines] if form == "table" else rows,
        form,
        title=title,
        columns=watching.COLUMNS,
        labels={
            "subject_id": "subject",
            "subject_name": "name",
            "credits": "so far",
            "upper_limit": "limit",
            "limit_share": "of limit",
            "credits_per_hour": "an hour",
            "crosses_at": "over at (UTC)",
        },
        nothing="Nothing with a limit has spent today.",
    )


@main.command()
@click.option("--from", "first", type=Day(), required=True, help="First day, included.")
@click.option("--to", "last", type=Day(), required=True, help="Last day, included.")
@as_of_option
@click.pass_context
def backfill(ctx: click.Context, first: date, last: date, as_of: datetime | None) -> None:
    """Build a range of days again, in one run (first and last day included)."""
    if last < first:
        raise click.UsageError("--to is before --from.")
    settings = settings_of(ctx)
    from pipelines import contents

    snapshot = open_store(settings).snapshot()
    days = [
        day
        for day in (snapshot.tables.get("raw.requests", {}) if snapshot else {})
        if str(first) <= day <= str(last)
    ]
    models = contents.models()
    by_day = sum(1 for model in models.order if model.uses_day)
    tags = {"meterhouse/days": f"{first}...{last}"}
    _night(
        ctx,
        Clock.at(as_of=as_of),
        tags,
        "backfill",
        by_day * len(days) + len(models.order) - by_day,
    )


@main.command()
@as_of_option
@click.pass_context
def rebuild(ctx: click.Context, as_of: datetime | None) -> None:
    """Make everything below raw again from raw."""
    settings = settings_of(ctx)
    if as_of is None:
        snapshot = open_store(settings).snapshot()
        as_of = snapshot.as_of if snapshot else None
    _night(ctx, Clock.at(as_of=as_of), {"meterhouse/everything": "yes"}, "rebuild")


@main.command()
@click.pass_context
def publish(ctx: click.Context) -> None:
    """Make warehouse.duckdb and the export folder again from the snapshot (after a move)."""
    from exports import files
    from pipelines import contents, warehouse

    settings = settings_of(ctx)
    store = open_store(settings)
    with store.lock(60):
        snapshot = store.snapshot()
        if snapshot is None:
            raise Failed(
                f"Nothing is published under {store.place} yet: run 'meterhouse nightly' first."
            )
        if missing := store.missing(snapshot):
            raise Failed(
                f"{len(missing)} objects of the snapshot are missing, the first is "
                f"{store.place}/{missing[0]}: "
                "restore them from a backup."
            )
        path = warehouse.build(store, snapshot, contents.models(), anew=True)
        files.deliver(store, snapshot, settings.place(settings.exports.location))
    out.print(f"Made [bold]{path}[/] from snapshot {snapshot.snapshot_id}.")


# ---- showing --------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(ctx: click.Context) -> Iterator[Reader]:
    with published(open_store(settings_of(ctx))) as reader:
        yield reader


@main.command()
@format_option
@click.pass_context
def status(ctx: click.Context, form: str) -> None:
    """What is published: snapshot, nights, days, rows, credits, disk, quarantine, open alerts."""
    store = open_store(settings_of(ctx))
    with published(store) as reader:
        [row] = reader.rows(
            """select
                snapshot_id, as_of, published_at,
                (select count(*) from ops.nights) as nights,
                (select max(started_at) from ops.nights) as last_night,
                count(distinct usage_date) as days,
                min(usage_date) as first_date,
                max(usage_date) as last_date,
                coalesce(sum(request_count), 0)::bigint as requests,
                coalesce(sum(credits), 0)::decimal(38, 9) as credits,
                (select count(*) from ops.quarantine) as quarantined,
                (select count(*) from marts.budget_alerts where state in ('open', 'escalated'))
                    as open_alerts,
                (select count(distinct usage_date) from marts.restatements) as restated_days,
                (
                    select count(distinct usage_date)
                    from marts.restatements, ops.snapshot
                    where changed_at = as_of
                ) as newly_restated_days,
                (select count(*) from marts.log_gaps) as log_gaps,
                (select min(recoverable_until) from marts.log_gaps) as gaps_recoverable_until
            from ops.snapshot
            left join marts.usage_by_key on true
            group by snapshot_id, as_of, published_at"""
        )
    count, size = store.size()
    row |= {"files": count, "disk_bytes": size, "root": store.place}
    if form != "table":
        show([row], form)
        return
    show_facts(
        [
            ("snapshot", f"{row['snapshot_id']}, as of {row['as_of']:%Y-%m-%d %H:%M} UTC"),
            (
                "published",
                f"{row['published_at']:%Y-%m-%d %H:%M} UTC, "
                f"after {counted(row['nights'], 'night')}",
            ),
            ("days", f"{row['days']}  ({row['first_date']} to {row['last_date']})"),
            ("requests", number(row["requests"])),
            ("credits", format(row["credits"], "f")),
            (
                "restated",
                f"{counted(row['restated_days'], 'published day')}, "
                f"{number(row['newly_restated_days'])} of them as of this snapshot",
            ),
            ("gaps in logs", _gaps(row["log_gaps"], row["gaps_recoverable_until"], row["as_of"])),
            ("quarantine", f"{counted(row['quarantined'], 'record')} set aside"),
            ("alerts", f"{row['open_alerts']} open"),
            (
                "disk",
                f"{row['disk_bytes'] / 2**20:,.1f} MiB in {counted(row['files'], 'file')}, "
                f"under {row['root']}",
            ),
        ]
    )


def _gaps(count: int, until: datetime | None, as_of: datetime) -> str:
    """How many holes there are, and how long the gateway still holds what fills them."""
    if until is None:
        return "none"
    left = counted((until - as_of).days, "day")
    return f"{number(count)}, which the gateway deletes from {until:%Y-%m-%d} on ({left} left)"


def zone_option(command: Any) -> Any:
    return click.option(
        "--tz", "zone", help="IANA zone of the days (default: the workspace's; UTC where they mix)."
    )(command)


@main.command()
@click.option("--group-by", type=click.Choice(list(GROUPS)), default="model", show_default=True)
@click.option("--workspace", help="Only this workspace.")
@click.option(
    "--last",
    type=click.Choice(["24h", "7d", "30d"]),
    help="The last quarters or local days (default: 30d).",
)
@click.option("--from", "first", type=Day(), help="First local day, included.")
@click.option("--to", "last_day", type=Day(), help="Last local day, included.")
@zone_option
@as_of_option
@format_option
@click.pass_context
def usage(
    ctx: click.Context,
    group_by: str,
    workspace: str | None,
    last: str | None,
    first: date | None,
    last_day: date | None,
    zone: str | None,
    as_of: datetime | None,
    form: str,
) -> None:
    """The usage views: by model, key, member, workspace or day. Days are local; first and last are
    included.
    """
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if last and (first or last_day):
        raise click.UsageError("Say --last or --from and --to, not both.")
    if bool(first) != bool(last_day):
        raise click.UsageError("--from and --to go together.")
    if first and last_day and last_day < first:
        raise click.UsageError("--to is before --from.")
    with reading(ctx) as reader:
        zone = zone or reader.zone_of(workspace)
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise Failed(
                f"There is no time zone '{zone}'; write an IANA name such as Europe/London."
            ) from None
        if first and last_day:
            start, end = local_days(first, last_day, zone)
            span = f"{first} to {last_day}"
        else:
            start, end = last_window(last or "30d", as_of or reader.as_of, zone)
            span = f"last {last or '30d'}"
        each_day = form != "table"
        rows = reader.usage(group_by, start, end, zone, workspace, each_day=each_day)
        if workspace and not rows and not reader.knows(workspace):
            raise Failed(f"There is no workspace '{workspace}' in what is published.")
    titles = {
        "model": "By model",
        "key": "By key",
        "member": "By member",
        "workspace": "By workspace",
        "day": "By day",
    }
    place = f", {workspace}" if workspace else ""
    idle = {"prompt_tokens", "completion_tokens"} | ({"api_key_id"} if group_by == "key" else set())
    idle |= (
        {"member_id"}
        if group_by == "member"
        else {"workspace_id"}
        if group_by == "workspace"
        else set()
    )
    names = [*usage_columns(group_by, each_day=each_day), *MEASURES]
    shown = [name for name in names if each_day or name not in idle]
    show(
        rows,
        form,
        title=f"{titles[group_by]} · {span}{place} · days in {zone}",
        columns=shown,
        totals=[name for name in MEASURES if name in shown],
        nothing=f"No usage in {span}{place}.",
    )


@main.command()
@click.option("--workspace", help="Only this workspace.")
@format_option
@click.pass_context
def overview(ctx: click.Context, workspace: str | None, form: str) -> None:
    """Credits today, this week, this month against the plan's allowance, and when it runs out at
    this rate.
    """
    with reading(ctx) as reader:
        rows = reader.rows(
            "select * from marts.usage_overview where $workspace is null or workspace_id = "
            "$workspace "
            "order by workspace_id nulls last",
            workspace=workspace,
        )
        as_of = reader.as_of
    if workspace and not rows:
        raise Failed(f"There is no workspace '{workspace}' in what is published.")
    show_overview(rows, form, as_of)


def show_overview(rows: list[dict[str, Any]], form: str, as_of: datetime) -> None:
    show(
        rows,
        form,
        title=f"Overview · as of {as_of:%Y-%m-%d %H:%M} UTC",
        columns=[
            "workspace_name",
            "plan",
            "credits_today",
            "credits_this_week",
            "credits_this_month",
            "credits_this_cycle",
            "allowance_credits",
            "share_used",
            "exhausted_on",
        ],
        labels={
            "credits_today": "today",
            "credits_this_week": "week",
            "credits_this_month": "month",
            "credits_this_cycle": "cycle",
            "allowance_credits": "allowance",
            "share_used": "used",
            "exhausted_on": "runs out",
        },
    )


@main.command()
@click.argument("request_id")
@format_option
@click.pass_context
def request(ctx: click.Context, request_id: str, form: str) -> None:
    """One request: timings, tokens, credits, fallback, the model that served it, and the line it
    was read from.
    """
    with reading(ctx) as reader:
        rows = reader.request(request_id)
        if not rows:
            raise Failed(f"There is no request '{request_id}' in what is published.")
        for row in rows:
            [place] = reader.rows(
                "select location from ops.source_objects where object_sha256 = $sha limit 1",
                sha=row["source_object"],
            ) or [{"location": None}]
            row["source_location"] = place["location"]
    if form != "table":
        show(rows, form)
        return
    for row in rows:
        show_facts(request_facts(row))


def request_facts(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a person asks of one request, in the order in which they ask it."""
    yield "request", f"{row['request_id']}  ({row['gateway']})"
    yield "completed", f"{row['completed_at']} UTC"
    outcome = "·" if row["status"] is None else str(row["status"])
    yield "status", outcome + (f"  {row['error_code']}" if row["error_code"] else "")
    served, asked = row["model"] or "nothing", row["requested_model"]
    yield "model", served + (f"  (asked for {asked})" if asked and asked != served else "")
    if row["fallback_from"] or row["fallback_depth"]:
        yield (
            "fallback",
            f"from {row['fallback_from'] or '·'}, depth {row['fallback_depth'] or '·'}",
        )
    yield "workspace", row["workspace_id"] or "unassigned"
    yield "key", row["api_key_id"] or "unassigned"
    if row["member_id"]:
        yield "member", row["member_id"]
    tokens = [row[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    shown = ["·" if count is None else number(count) for count in tokens]
    yield "tokens", f"{shown[0]} + {shown[1]} = {shown[2]}"
    yield "credits", format(row["credits"].normalize(), "f")
    yield "latency", "·" if row["latency_ms"] is None else f"{number(row['latency_ms'])} ms"
    before = None
    for name in ("gateway_in_at", "provider_in_at", "provider_out_at", "gateway_out_at"):
        instant = row[name]
        if instant is not None:
            gap = "" if before is None else f"  +{(instant - before) / MILLISECOND:,.0f} ms"
            yield name.removesuffix("_at").replace("_", " "), f"{instant:%H:%M:%S.%f}{gap}"
            before = instant
    yield "read from", f"{row['source_location']}, line {row['source_line']}"


@main.group()
def quarantine() -> None:
    """Records that could not be read without guessing, set aside with their place and reason."""


@quarantine.command("list")
@click.option("--source", help="Only what came by this [[requests]] source.")
@format_option
@click.pass_context
def quarantined(ctx: click.Context, source: str | None, form: str) -> None:
    """Every record set aside: the object, the line, and why. Its text is kept nowhere but there."""
    with reading(ctx) as reader:
        rows = reader.rows(
            "select * from ops.quarantine where $source is null or source = $source "
            "order by arrived_at desc, location, line_number",
            source=source,
        )
    show(
        rows,
        form,
        title="Set aside",
        columns=["location", "line_number", "byte_offset", "reason", "arrived_at"],
        labels={"line_number": "line", "byte_offset": "byte"},
        nothing="Nothing is set aside: every record that arrived could be read.",
    )


@quarantine.command("retry")
@as_of_option
@click.pass_context
def retry(ctx: click.Context, as_of: datetime | None) -> None:
    """A night that also reads again what was set aside, where its object still lies there: what was
    from the future, or what other settings make sense of.
    """
    _night(ctx, Clock.at(as_of=as_of), {"meterhouse/retries": "yes"}, "retry")


@main.command()
@click.option("--workspace", help="Only this workspace.")
@format_option
@click.pass_context
def invoices(ctx: click.Context, workspace: str | None, form: str) -> None:
    """Billing history: every subscription renewal and top-up."""
    with reading(ctx) as reader:
        rows = reader.rows(
            "select * from marts.invoices where $workspace is null or workspace_id = $workspace "
            "order by issued_at desc, invoice_id",
            workspace=workspace,
        )
    show_invoices(rows, form)


def show_invoices(rows: list[dict[str, Any]], form: str) -> None:
    """Billing history, the newest first. A table has one line for each invoice, on which no amount
    is cut short: a narrow screen shows fewer columns, and less of a long name.
    """
    if form == "table":  # links and hours are long: CSV and JSON have them
        for row in rows:
            row["issued_at"] = row["issued_at"].date()
            row["net"] = _beside(row["net_minor"], row["currency"])  # as the total beside it
            row["vat"] = _beside(row["vat_minor"], row["currency"])
    amounts = ["net", "vat"] if out.width >= WIDE else []
    show(
        rows,
        form,
        title="Billing history",
        columns=[
            *("invoice_id", "workspace_name"),
            *(["kind"] if out.width >= WIDE else []),
            *("issued_at", *amounts, "total_minor", "credits", "status"),
            *(["billing_email"] if out.width >= WIDEST else []),
        ],
        labels={
            "billing_email": "billed to",
            "issued_at": "issued",
            "vat": "VAT",
            "total_minor": "total",
            "workspace_name": "workspace",
        },
        cut_short=["billing_email", "workspace_name", "invoice_id"],
        nothing="No invoices have arrived.",
    )


@main.command()
@click.option("--workspace", help="Only this workspace.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also what agrees (tables show only what waits or needs a person).",
)
@format_option
@click.pass_context
def reconcile(ctx: click.Context, workspace: str | None, everything: bool, form: str) -> None:
    """Every invoice and charge with its status and the reason: what agrees, what waits, what needs
    a person.
    """
    with reading(ctx) as reader:
        rows = reader.rows(
            "select * from marts.invoice_reconciliation where $workspace is null or workspace_id "
            "= $workspace "
            "order by case standing when 'needs_person' then 0 when 'waits' then 1 else 2 end, "
            "age_days desc nulls last, item_id",
            workspace=workspace,
        )
        packs = reader.rows(
            "select * from marts.credit_backing where $workspace is null or workspace_id "
            "= $workspace order by item_id",
            workspace=workspace,
        )
    show_reconciliation(rows, form, everything, packs)


UNEXPLAINED = {"too_little": "too little", "too_much": "too much"}


def show_reconciliation(
    rows: list[dict[str, Any]],
    form: str,
    everything: bool,
    packs: Sequence[Mapping[str, Any]] = (),
) -> None:
    """What agrees, what waits, what needs a person, and how much is unexplained since when; the
    packs that no money stands behind; then the rows that say why. Money is summed within a
    currency, never across. No amount is cut short: a narrow screen shows fewer columns.
    """
    if form != "table":
        show(rows, form)
        return
    is_wide = out.width >= WIDE
    labels = UNEXPLAINED | ({} if is_wide else {"currency": "in"})
    columns = ["invoices", "charges", "billed", "kept"] if is_wide else ["items"]
    show(
        once_each(_standings(rows), "standing"),
        form,
        title="Reconciliation · invoices and charges",
        columns=["standing", "currency", *columns, "too_little", "too_much", "since"],
        labels=labels,
        nothing="No invoices or charges have arrived.",
    )
    open_rows = [row for row in rows if row["standing"] != "agrees"]
    if open_rows and not everything:
        show(
            once_each(_causes(open_rows), "standing", "cause"),
            form,
            title="What waits or needs a person, by cause",
            columns=[
                *(["standing"] if is_wide else []),
                *("cause", "currency", "items", "too_little", "too_much", "since"),
            ],
            labels=labels,
        )
    if lacking := _lacking(packs):
        show(
            lacking,
            form,
            title="Packs without money, and money without a pack",
            columns=["packs", "currency", "items", "credits", "amount"],
            labels=labels,
        )
    shown = [
        row
        | {"since": row["opened_at"].date() if row["opened_at"] else None}
        | {"subject": _subject(row, is_wide)}
        for row in (rows if everything else open_rows)
    ]
    show(
        shown,
        form,
        title="One by one" if not everything else "Every invoice and charge",
        columns=[
            *(["subject", "reason"] if is_wide else ["subject"]),
            *("difference_minor", "since", "age_days"),
        ],
        labels={
            "subject": "workspace, status" if is_wide else "workspace, status, reason",
            "difference_minor": "unexplained",
            "age_days": "days",
        },
        nothing="Nothing waits and nothing needs a person.",
    )


def _subject(row: Mapping[str, Any], is_wide: bool) -> str:
    """Whose row it is and its status; on a narrow screen the reason is told below, not beside."""
    workspace, status = row["workspace_id"] or "unassigned", row["status"]
    return f"{workspace}\n{status}" if is_wide else f"{workspace} · {status}\n{row['reason']}"


def _beside(minor: int, currency: str) -> str:
    """An amount in a line that names its currency elsewhere."""
    return money(minor, currency).partition(" ")[0]


def _unexplained(rows: list[dict[str, Any]], currency: str) -> dict[str, Any]:
    """Sums of rows of one currency, and the oldest day; nothing of one sign pays for the other."""
    little = -sum(min(0, row["difference_minor"]) for row in rows)
    much = sum(max(0, row["difference_minor"]) for row in rows)
    opened = [row["opened_at"].date() for row in rows if row["opened_at"]]
    return {
        "too_little": _beside(little, currency) if little else None,
        "too_much": _beside(much, currency) if much else None,
        "since": min(opened, default=None),
    }


def _standings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each standing and currency, what needs a person first."""
    summary = []
    for standing in ("needs_person", "waits", "agrees"):
        for currency in sorted({row["currency"] for row in rows}):
            mine = [
                row for row in rows if (row["standing"], row["currency"]) == (standing, currency)
            ]
            if mine:
                summary.append(
                    {
                        "standing": standing,
                        "currency": currency.upper(),
                        "invoices": sum(row["item_kind"] == "invoice" for row in mine),
                        "charges": sum(row["item_kind"] == "charge" for row in mine),
                        "items": len(mine),
                        "billed": _beside(sum(row["total_minor"] for row in mine), currency),
                        "kept": _beside(sum(row["kept_minor"] for row in mine), currency),
                    }
                    | _unexplained(mine, currency)
                )
    return summary


def _causes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each status and currency, a status's currencies side by side, otherwise in the
    order of `rows`.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    seen = {status: place for place, status in enumerate(dict.fromkeys(r["status"] for r in rows))}
    rows = sorted(rows, key=lambda row: (seen[row["status"]], row["currency"]))
    for row in rows:
        groups.setdefault((row["standing"], row["status"], row["currency"]), []).append(row)
    return [
        {
            "standing": standing,
            "cause": status.replace("_", " "),
            "currency": currency.upper(),
            "items": len(mine),
        }
        | _unexplained(mine, currency)
        for (standing, status, currency), mine in groups.items()
    ]


LACKING = {
    "unbacked": "granted, unpaid",
    "pending": "granted, pending",
    "held": "held by a dispute",
    "ungranted": "paid, not granted",
}


def _lacking(packs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each way and currency in which a pack and its money are not both there."""
    lines = []
    for backing, words in LACKING.items():
        for currency in sorted({row["currency"] for row in packs}):
            mine = [
                row for row in packs if (row["backing"], row["currency"]) == (backing, currency)
            ]
            if mine:
                amount = sum(row["unbacked_minor"] + row["ungranted_minor"] for row in mine)
                credits = sum(
                    row["unbacked_credits"] + row["held_credits"] + (row["ungranted_credits"] or 0)
                    for row in mine
                )
                lines.append(
                    {
                        "packs": words,
                        "currency": currency.upper(),
                        "items": len(mine),
                        "credits": credits or None,
                        "amount": _beside(amount, currency) if amount else None,
                    }
                )
    return once_each(lines, "packs")


@main.group(invoke_without_command=True)
@click.option("--open", "only_open", is_flag=True, help="Only what is open.")
@click.option("--workspace", help="Only this workspace.")
@format_option
@click.pass_context
def alerts(ctx: click.Context, only_open: bool, workspace: str | None, form: str) -> None:
    """The state of every budget alert; its commands write down what you say of one."""
    if ctx.invoked_subcommand:
        return
    with reading(ctx) as reader:
        rows = reader.rows(
            "select * from marts.budget_alerts "
            "where (not $open or state in ('open', 'escalated')) "
            "and ($workspace is null or workspace_id = $workspace) "
            "order by opened_at desc, alert_id",
            open=only_open,
            workspace=workspace,
        )
    show_alerts(rows, form)


def show_alerts(rows: list[dict[str, Any]], form: str) -> None:
    show(
        rows,
        form,
        title="Budget alerts",
        columns=["alert_id", "state", "usage_date", "message", "credits", "upper_limit", "ratio"],
        labels={"alert_id": "alert", "upper_limit": "limit", "ratio": "× normal"},
        nothing="No alerts.",
    )


note_option = click.option("--note", help="A word for whoever asks why.")


@alerts.command()
@click.argument("alert_id")
@note_option
@click.pass_context
def ack(ctx: click.Context, alert_id: str, note: str | None) -> None:
    """Say that somebody is looking at it: told is only that it reaches twice what it is now, and
    that it closes.
    """
    say_of_alert(ctx, alert_id, "acknowledged", note)


@alerts.command()
@click.argument("alert_id")
@click.option("--for", "lasting", type=Span(), required=True, help="From now: 12h, 7d or 2w.")
@note_option
@click.pass_context
def snooze(ctx: click.Context, alert_id: str, lasting: timedelta, note: str | None) -> None:
    """Hear nothing of it for a while; what happens meanwhile is told afterwards."""
    say_of_alert(ctx, alert_id, "snoozed", note, lasting)


@alerts.command()
@click.argument("alert_id")
@note_option
@click.pass_context
def expected(ctx: click.Context, alert_id: str, note: str | None) -> None:
    """Say that it was planned: nothing more is told of it, nor of later days of the same subject
    until one spends twice as much.
    """
    say_of_alert(ctx, alert_id, "expected", note)


def say_of_alert(
    ctx: click.Context,
    alert_id: str,
    decision: decisions.Decision,
    note: str | None,
    lasting: timedelta | None = None,
) -> None:
    """Writes down what a person says of an alert, once it is known that there is such an alert."""
    settings = settings_of(ctx)
    with published(open_store(settings)) as reader:
        found = reader.rows("select * from marts.budget_alerts where alert_id = $id", id=alert_id)
        judged_until = reader.as_of.date() - DAY
    if not found:
        raise Failed(
            f"There is no alert '{alert_id}' in what is published; 'meterhouse alerts' lists them."
        )
    journal = open_store(settings).journal("raw.decisions")
    line = decisions.decide(journal, alert_id, decision, note, lasting, found[0], judged_until)
    end = f" until {line['until']:%Y-%m-%d %H:%M} UTC" if line["until"] else ""
    after = " (it is closed, and stays so)" if found[0]["state"] == "closed" else ""
    out.print(
        f"Written down: {alert_id} is {decision}{end}{after}. The next night publishes it.",
        soft_wrap=True,
    )


# ---- forgetting -----------------------------------------------------------------------------


@main.group()
def erase() -> None:
    """Make a member unidentifiable, for good; every total stays as it is."""


@erase.command()
@click.argument("member_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--even-if-unknown", is_flag=True, help="Also one of whom nothing has arrived yet.")
@note_option
@click.pass_context
def member(
    ctx: click.Context, member_id: str, yes: bool, even_if_unknown: bool, note: str | None
) -> None:
    """Write everything that names a member again, without the name, and keep it out for ever."""
    from assets import erasure

    settings = settings_of(ctx)
    store = open_store(settings)
    if not store.reads_in_place:
        raise Failed(
            "A member can't be erased in an object store yet: its versions, and other machines' "
            "caches, would keep the name. Only a root in a folder can be."
        )
    with published(store) as reader:
        traces = erasure.traces(reader.rows, member_id)
        before = erasure.totals(reader.rows)
        as_of = reader.as_of
    stones = erasure.tombstones(store, settings)
    if member_id.startswith(erasure.PREFIX) or (
        not traces.is_known and stones is not None and stones.match([member_id])
    ):
        out.print("That member is erased already: nothing that is published names it.")
        return
    if not traces.is_known and not even_if_unknown:
        raise Failed(
            f"There is no member '{member_id}' in what is published; say --even-if-unknown to "
            "keep out one of whom nothing has arrived yet."
        )
    if not yes:
        click.confirm(
            f"Erase member '{member_id}' from {counted(traces.request_count, 'request')} on "
            f"{counted(traces.day_count, 'day')}? Nobody can undo it",
            abort=True,
            err=True,
        )
    with store.lock(60), published(store) as reader:
        names = erasure.traces(reader.rows, member_id).names  # a night may have learned another
        decided = erasure.decide(store, settings, member_id, names, note)
    err.print("Written down; a night carries it out now, and should it fail, the next one does.")
    tags = {
        "meterhouse/as_of": as_of.isoformat(),
        "meterhouse/started_by": "meterhouse",
        "meterhouse/lands": "no",
    }
    with Watcher("erase") as watcher:
        run_night(settings, ctx.obj, tags, watcher)
    for sentence in watcher.warnings:
        err.print(f"[yellow]note:[/] {_escape(sentence)}", soft_wrap=True)
    with published(store) as reader:
        after = erasure.totals(reader.rows)
    renamed = erasure.renamed(before, {member_id: decided.given})
    out.print(f"Erased: [bold]{decided.given}[/] stands for the member from now on.")
    sums = f"{counted(after.request_count, 'request')}, {after.credits} credits"
    if renamed == after:
        out.print(f"Totals by day, model, key and member are as before: {sums}.")
    elif renamed.but("member") == after.but("member"):
        out.print(
            f"Totals by day, model and key are as before: {sums}; between members some moved, as "
            "records of one request differed in nothing but the member."
        )
    else:
        out.print(
            f"[yellow]Totals changed[/]: before, {counted(before.request_count, 'request')}, "
            f"{before.credits} credits; now {sums}."
        )
    there = [place for place in traces.places if Path(place).exists()]
    if there:
        out.print(
            f"{counted(len(there), 'file')} that landed still named the member when it was read; "
            "to delete or mend them, and every copy of them, is up to you:"
        )
    for place in there:
        sys.stdout.write(f"  {place}\n")
    if watcher.failures:
        raise Failed(" ".join(watcher.failures))


# ---- files for elsewhere --------------------------------------------------------------------


@main.command()
@click.argument("what")
@click.option("--from", "first", type=Day(), required=True, help="First UTC day, included.")
@click.option("--to", "last", type=Day(), required=True, help="Last UTC day, included.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "parquet"]),
    help="Default: what --out ends in, else csv.",
)
@click.option(
    "--out",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    help="A .csv or .parquet file, or a folder.",
)
@click.pass_context
def export(
    ctx: click.Context, what: str, first: date, last: date, form: str | None, target: Path
) -> None:
    """Write a file for elsewhere with a manifest.json beside it (first and last day included)."""
    from exports import files

    if last < first:
        raise click.UsageError("--to is before --from.")
    if what not in files.EXPORTS:
        raise click.UsageError(
            f"There is no export '{what}'; known are {', '.join(files.EXPORTS)}."
        )
    with reading(ctx) as reader:
        form = form or target.suffix.removeprefix(".") or "csv"
        span = [first + DAY * number for number in range((last - first).days + 1)]
        reader.reach(files.EXPORTS[what].table, span)
        manifest = files.write_export(reader.connection, what, first, last, form, target)
    file = manifest["files"][-1]
    out.print(
        f"Wrote [bold]{file['path']}[/]: {counted(file['rows'], 'row')}, "
        f"{file['credits']} credits, "
        f"sha256 {file['sha256'][:12]}…."
    )


# ---- looking back ---------------------------------------------------------------------------


@main.command()
@click.argument("daily", required=False, type=click.Path(path_type=Path))
@click.option(
    "--out", "target", type=click.Path(path_type=Path), help="Parquet of api_key_id, usage_date."
)
@click.option(
    "--ranges",
    type=click.Path(path_type=Path),
    help="Parquet of every key and day with its range, limit and verdict.",
)
@click.option(
    "--sensitivity", type=click.Choice(["low", "normal", "high"]), help="Default: the settings'."
)
@click.option("--exceed-percent", type=click.FloatRange(0, 10_000), help="X; likewise.")
@click.option("--floor", type=click.FloatRange(0, 1e12), help="Credits; likewise.")
@click.option("--from", "first", type=Day(), help="First day to judge, included (default: all).")
@click.option("--to", "last", type=Day(), help="Last day to judge, included.")
@click.option("--last", "lasting", type=Span(), help="Only the last days: 90d or 12w.")
@format_option
@click.pass_context
def backtest(
    ctx: click.Context,
    daily: Path | None,
    target: Path | None,
    ranges: Path | None,
    sensitivity: str | None,
    exceed_percent: float | None,
    floor: float | None,
    first: date | None,
    last: date | None,
    lasting: timedelta | None,
    form: str,
) -> None:
    """Walk the detector forward over past days: of a Parquet table DAILY of api_key_id,
    usage_date, credits; or, without one, of your own warehouse: what would have been sent.
    """
    from dataclasses import replace

    from pipelines import backtest as past
    from pipelines import contents

    if lasting is not None and (lasting < DAY or lasting % DAY):
        raise click.UsageError("--last is whole days: 90d or 12w.")
    if lasting is not None and (first or last):
        raise click.UsageError("Say --last, or --from and --to, not both.")
    if first and last and last < first:
        raise click.UsageError("--to is before --from.")
    if daily is None and (target or ranges or first or last):
        raise click.UsageError(
            "--out, --ranges, --from and --to need a table; of your own warehouse say --last 90d."
        )
    if daily is not None and target is None:
        raise click.UsageError("Say where the alerts go: --out ALERTS.parquet.")
    is_settled = daily is None or ctx.obj is not None or Path(FILE_NAME).exists()
    settings = settings_of(ctx) if is_settled else Settings()
    own = past.Strictness.of(settings)
    asked = replace(
        own,
        sensitivity=sensitivity or own.sensitivity,
        exceed_percent=own.exceed_percent if exceed_percent is None else exceed_percent,
        floor_credits=own.floor_credits if floor is None else floor,
    )
    count = None if lasting is None else lasting // DAY
    try:
        with _days_passing("backtest") as on_day:
            if daily is not None and target is not None:
                walked = past.walk(
                    daily, contents.models(), asked, target, ranges, first, last, count, on_day
                )
            else:
                with published(open_store(settings)) as reader:
                    sent = past.look_back(
                        reader,
                        contents.models(),
                        settings,
                        count or 90,
                        past.tried(asked),
                        on_day,
                    )
    except past.BacktestError as error:
        raise Failed(str(error)) from None
    if daily is None:
        _show_backtest(sent, count or 90, form)
        return
    row = {
        "first_date": walked.first,
        "last_date": walked.last,
        "sensitivity": asked.sensitivity,
        "exceed_percent": asked.exceed_percent,
        "floor_credits": asked.floor_credits,
        "key_count": walked.key_count,
        "key_day_count": walked.key_day_count,
        "alert_day_count": walked.alert_count,
        "episode_count": walked.episode_count,
    }
    if form == "table":
        out.print(
            f"Judged {counted(walked.key_day_count, 'day')} of {counted(walked.key_count, 'key')}, "
            f"{walked.first} to {walked.last}, sensitivity {asked.sensitivity}: "
            f"{counted(walked.alert_count, 'day')} over the limit in "
            f"{counted(walked.episode_count, 'episode')}. Wrote [bold]{target}[/]"
            + (f" and [bold]{ranges}[/]." if ranges else "."),
            soft_wrap=True,
        )
    else:
        show([row], form)


@contextlib.contextmanager
def _days_passing(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, moved by how many days of how many are done."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} days"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, every: progress.update(task, completed=done, total=every)


def _show_backtest(sent: list[Any], day_count: int, form: str) -> None:
    """As a table, how many alerts each strictness would have sent, then the list of the first."""
    if form == "table":
        show(
            [
                {
                    "sensitivity": one.strictness.sensitivity,
                    "exceed_percent": f"{one.strictness.exceed_percent:g} %",
                    "alerts": len(one.episodes),
                    "a_month": f"{len(one.episodes) * 30 / day_count:.1f}",
                    "is_yours": "◄ as asked" if place == 0 else "",
                }
                for place, one in enumerate(sent)
            ],
            form,
            title=f"What would have been sent in the last {day_count} days",
            labels={"exceed_percent": "X", "a_month": "a month", "is_yours": ""},
        )
    show(
        sent[0].episodes,
        form,
        title="Each of them",
        columns=[
            *("first_date", "last_date", "scope", "subject_id", "kind"),
            *("credits", "expected", "upper_limit", "ratio"),
        ],
        labels={"upper_limit": "limit", "ratio": "× normal", "subject_id": "subject"},
        nothing="Nothing would have been sent.",
    )


# ---- looking after it -----------------------------------------------------------------------


@main.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check the settings, the credentials, the sources and the free space, and say what to mend."""
    from assets import erasure, usage_api
    from assets.requests import formats, objects_at

    settings = settings_of(ctx)
    bad = 0

    def say(fine: bool | None, text: str) -> None:
        nonlocal bad
        bad += fine is False
        mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]·[/]"}[fine]
        out.print(f" {mark} {_escape(text)}", soft_wrap=True)

    say(True, f"settings: {settings.folder / FILE_NAME if ctx.obj is None else ctx.obj}")
    if not settings.requests:
        say(False, "sources: no [[requests]] block; write one, so that there is something to land.")
    for source in settings.requests:
        if source.format not in formats():
            say(
                False,
                f"source {source.name}: no format '{source.format}'; known are "
                f"{', '.join(sorted(formats()))}.",
            )
            continue
        if source.format == usage_api.FORMAT.name:
            trouble = usage_api.trouble(source, Clock.at())
            say(
                trouble is None,
                f"source {source.name}: {trouble or f'requests can be read at {source.location}'}",
            )
            continue
        location = settings.place(source.location)
        try:
            found, unknown = objects_at(location)
        except ObjectStoreError as error:
            say(False, f"source {source.name}: {error}")
            continue
        if not found and not unknown:
            say(
                None if isinstance(location, Path) and location.exists() else False,
                f"source {source.name}: nothing lies at {location}.",
            )
        else:
            say(True, f"source {source.name}: {len(found)} objects at {location}")
        for name in unknown[:3]:
            say(None, f"source {source.name}: {name} will not be read, its suffix is not known.")
    for name, folder in (("directory", settings.directory), ("invoices", settings.invoices)):
        location = settings.place(folder.location)
        try:
            count = count_files(location)
        except ObjectStoreError as error:
            say(False, f"{name}: {error}")
            continue
        say(True if count else None, f"{name}: {count} files at {location}")
    _doctor_stripe(settings, say)
    _doctor_email(settings, say)
    root = settings.root
    try:
        if stones := erasure.tombstones(open_store(settings), settings):
            say(True, f"erased members: {len(stones.names)}, with the key of their names")
    except (SettingsError, ObjectStoreError) as error:
        say(False, f"erased members: {error}")
    place = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    say(free > 1, f"free space: {free:,.1f} GiB at {place}" + ("" if free > 1 else "; make room."))
    what = "root" if root == settings.place(settings.warehouse.root) else "cache"
    say(
        os.access(place, os.W_OK),
        f"{what}: {root} can{'' if os.access(place, os.W_OK) else ' not'} be written",
    )
    try:
        store = open_store(settings)
        if trouble := store.trouble():
            say(False, f"root: {trouble}")
        elif not store.reads_in_place:
            say(True, f"root: {store.place} can be written")
        snapshot = store.snapshot()
        missing = len(store.missing(snapshot)) if snapshot else 0
        if snapshot is None:
            say(None, "snapshot: none yet; run 'meterhouse nightly'.")
        else:
            say(not missing, f"snapshot: {snapshot.snapshot_id}, {missing} of its objects missing")
    except (StoreError, ObjectStoreError) as error:
        say(False, f"snapshot: {error}")
    if bad:
        raise Failed(f"{bad} thing{'s' if bad > 1 else ''} to mend; see the lines marked ✗.")


def count_files(location: Path | str) -> int:
    """How many files lie in a folder, or objects at a place in an object store."""
    if isinstance(location, str):
        return len(objects_in_store(location))
    return sum(1 for path in location.rglob("*") if path.is_file()) if location.is_dir() else 0


def _doctor_stripe(settings: Settings, say: Callable[[bool | None, str], None]) -> None:
    if settings.stripe.api_key is None:
        say(None, "stripe: METERHOUSE_STRIPE_API_KEY is not set; charges come from files only.")
        return
    secret = settings.stripe.api_key.get_secret_value()
    mode = "live" if settings.stripe.livemode else "test"
    if not secret.startswith("rk_"):
        say(
            None,
            f"stripe: a {mode} key that can write; a restricted read-only key (rk_…) is enough "
            f"and safer.",
        )
    from assets import stripe_api

    trouble = stripe_api.trouble(settings)
    say(
        trouble is None,
        f"stripe: {trouble or f'all can be read ({mode} mode) at {settings.stripe.api_base}'}",
    )


def _doctor_email(settings: Settings, say: Callable[[bool | None, str], None]) -> None:
    import smtplib

    from exports.alerts import outbox
    from pipelines import contents

    outbox.arm(contents.sinks(), settings.alerts.sinks)
    sink = settings.alerts.email
    if sink is None:
        others = " and ".join(sorted(settings.alerts.sinks))
        where = f"on the console and by {others}" if others else "on the console only"
        say(None, f"e-mail: no [alerts.email]; alerts are told {where}.")
        return
    try:
        with smtplib.SMTP(sink.smtp_host, sink.smtp_port, timeout=10) as session:
            session.noop()
        say(True, f"e-mail: {sink.smtp_host}:{sink.smtp_port} answers")
    except (OSError, smtplib.SMTPException) as error:
        say(
            False,
            f"e-mail: {sink.smtp_host}:{sink.smtp_port} does not answer ({error}); mend "
            f"[alerts.email].",
        )


if __name__ == "__main__":
    main()

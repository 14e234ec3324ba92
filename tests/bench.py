"""`make bench`: the night on one day of requests, less the empty night, against the engine.

All three are measured in one run, in turn, each as a process of its own; medians are compared.

- The engine: `copy (from read_json(file, columns = {every canonical field, typed})) to …
  (format parquet, compression zstd)` with DuckDB's defaults. The process measures itself around
  that one statement: the start of the interpreter, the import and the connection are not in it.
- The night: `meterhouse nightly` on a warehouse that was set up by a night before anything had
  arrived; the whole process, from its start to its end, as the kernel accounts it.
- The empty night: the same command once more.

Writes the table to docs/benchmarks.md. Options: `python -m tests.bench --help`.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "benchmarks.md"
DAY = date(2026, 11, 20)
INSTANT = "%Y-%m-%dT%H:%M:%S.%fZ"
WORKSPACES, KEYS_EACH = 200, 10
NIGHT_LIMIT, EMPTY_SECONDS_LIMIT = 2.5, 5.0  # issue 2, point 10

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


def median(runs: Sequence[Measured]) -> Measured:
    """The median of each quantity by itself."""
    return Measured(
        statistics.median(run.wall for run in runs),
        statistics.median(run.cpu for run in runs),
        int(statistics.median(run.rss for run in runs)),
    )


# ---- what is measured -----------------------------------------------------------------------


def generate(target: Path, lines: int) -> None:
    """A day of `lines` canonical records: uneven keys, a working day's shape, opaque ids."""
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    connection.execute(
        f"""copy (
            with drawn as (
                select
                    i,
                    i / {lines} as share,
                    -- busy at midday, quiet at midnight
                    (86399999999 * (share + 0.6 * sin(2 * pi() * share) / (2 * pi())))::bigint
                        as microsecond_of_day,
                    least(hash(i, 1) % {WORKSPACES}, hash(i, 2) % {WORKSPACES}) as workspace,
                    least(hash(i, 3) % {KEYS_EACH}, hash(i, 4) % {KEYS_EACH}) as key,
                    -- a key has its habits: three models, one of them nearly always
                    case when hash(i, 5) % 100 < 80 then 0 else hash(i, 5) % 2 + 1 end as habit,
                    hash(workspace, key, habit) % 12 as model,
                    hash(i, 6) % 100 < 6 as is_playground,
                    hash(i, 7) % 1000 as luck,
                    (20 + hash(i, 8) % 60 * (hash(i, 9) % 80))::bigint as prompt_tokens,
                    (1 + hash(i, 12) % 30 * (hash(i, 13) % 40))::bigint as completion_tokens,
                    (180 + hash(i, 14) % 900 + hash(i, 15) % 70 * (hash(i, 16) % 70))::bigint
                        as milliseconds,
                from range({lines}) as numbers(i)
            ),
            timed as (
                select *, timestamp '{DAY}' + to_microseconds(microsecond_of_day) as completed_at,
                from drawn
            )
            select
                'req_' || upper(substr(md5(i::varchar || 'request'), 1, 26)) as request_id,
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
                    then ((prompt_tokens + completion_tokens * 4) * (model + 1) / 10000.0)
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
    done = subprocess.run(
        [sys.executable, "-c", FLOOR, statement], check=True, capture_output=True, text=True
    )
    target.unlink()
    return Measured(**json.loads(done.stdout))


def night(folder: Path) -> Measured:
    """`meterhouse nightly` as of the end of the day, in `folder`."""
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "--config",
        "meterhouse.toml",
        "nightly",
        "--date",
        str(DAY),
    ]
    return measured(command, folder)


def prepared(folder: Path) -> Path:
    """A warehouse that one night has set up before anything had arrived."""
    (folder / "landing" / "requests").mkdir(parents=True)
    (folder / "meterhouse.toml").write_text(SETTINGS, encoding="utf-8")
    night(folder)
    return folder


def day_before(file: Path, house: Path) -> None:
    """Puts the warehouse in use: a night over a thousand requests of the day before, unmeasured."""
    with file.open(encoding="utf-8") as lines:
        text = "".join(line for line, _ in zip(lines, range(1000), strict=False))
    text = text.replace(str(DAY), str(DAY - timedelta(days=1))).replace(
        '"request_id":"', '"request_id":"b'
    )
    (house / "landing" / "requests" / "before.jsonl").write_text(text, encoding="utf-8")
    night(house)


def compare(file: Path, folder: Path, rounds: int) -> dict[str, list[Measured]]:
    """Engine, night and empty night in turn, `rounds` times, each on a warehouse of its own."""
    runs: dict[str, list[Measured]] = {"engine": [], "night": [], "empty night": []}
    for number in range(rounds):
        house = prepared(folder / f"round_{number}")
        day_before(file, house)
        runs["engine"].append(engine(file, folder))
        os.link(file, house / "landing" / "requests" / "requests.jsonl")
        runs["night"].append(night(house))
        runs["empty night"].append(night(house))
        shutil.rmtree(house)
        print(
            f"round {number + 1} of {rounds}: "
            + ", ".join(
                f"{name} {of[-1].wall:.2f} s ({of[-1].cpu:.2f} CPU)" for name, of in runs.items()
            ),
            file=sys.stderr,
        )
    return runs


# ---- what is said of it ---------------------------------------------------------------------


def page(runs: Mapping[str, Sequence[Measured]], file: Path, lines: int, load: float) -> str:
    """The table as Markdown, with the medians, their range, the ratios, and how it was measured."""
    middle = {name: median(of) for name, of in runs.items()}
    floor, whole, empty = middle["engine"], middle["night"], middle["empty night"]
    net_wall, net_cpu = whole.wall - empty.wall, whole.cpu - empty.cpu

    def row(name: str, wall: float, cpu: float, rss: str, spread: str) -> str:
        ratios = f"{wall / floor.wall:.2f} | {cpu / floor.cpu:.2f}"
        return f"| {name} | {wall:.2f} | {cpu:.2f} | {ratios} | {rss} | {spread} |"

    def spread(of: Sequence[Measured]) -> str:
        return f"{min(run.wall for run in of):.2f}–{max(run.wall for run in of):.2f}"

    rows = [
        row(
            name,
            middle[name].wall,
            middle[name].cpu,
            f"{middle[name].rss / 2**20:,.0f}",
            spread(of),
        )
        for name, of in runs.items()
    ]
    rows.append(row("**the night less the empty night**", net_wall, net_cpu, "", ""))
    count = len(runs["engine"])
    return f"""# What a night costs

Written by `make bench` (`tests/bench.py`) on {date.today()}; run it to have your own.

{lines:,} canonical requests of one day in one file ({file.stat().st_size / 2**20:,.0f} MiB,
{WORKSPACES} workspaces with {KEYS_EACH} keys each, every canonical field). {os.cpu_count()} cores,
Python {platform.python_version()}, DuckDB {duckdb.__version__}. Medians of {count} rounds, in each
of which the three run one after the other; the load average was {load:.1f} before the first.

| | wall, s | CPU, s | wall ÷ engine | CPU ÷ engine | peak memory, MiB | wall, lowest–highest |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

- **engine**: `copy (from read_json(file, columns = {{every canonical field, typed}})) to …
  (format parquet, compression zstd)`, DuckDB's defaults, in a process of its own, timed around that
  statement: no interpreter start, no import. It checks, counts and hashes nothing, nor syncs.
- **night**: the whole of `meterhouse nightly`, interpreter start included: it lands the file with
  an account of every line, types it strictly, resolves duplicates, builds and audits every table,
  exports, syncs, publishes, and derives `warehouse.duckdb`.
  The warehouse is one in use: a night before it has landed a thousand requests of the day before.
- **empty night**: the same command again, when nothing new has arrived.

The claim: the night less the empty night is at most {NIGHT_LIMIT} times the engine, and the empty
night takes under {EMPTY_SECONDS_LIMIT:.0f} s. Here: **{net_wall / floor.wall:.2f}** in wall time,
**{net_cpu / floor.cpu:.2f}** in CPU time, and {empty.wall:.2f} s.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes the page; exit code 1 where a claim of the page does not hold."""
    parser = argparse.ArgumentParser(description="The night against the bare engine.")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each is measured (default: 3)"
    )
    parser.add_argument(
        "--lines", type=int, default=1_000_000, help="requests in the day (default: 1,000,000)"
    )
    parser.add_argument("--file", type=Path, help="a file of such requests made before; it is kept")
    parser.add_argument("--dry", action="store_true", help="print the page, do not write it")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="meterhouse-bench-") as name:
        folder = Path(name)
        file = options.file or folder / "requests.jsonl"
        if not file.exists():
            generate(file, options.lines)
        load = os.getloadavg()[0]
        runs = compare(file, folder, options.rounds)
        text = page(runs, file, options.lines, load)
    print(text)
    if not options.dry:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
    floor, whole, empty = (median(runs[kind]) for kind in ("engine", "night", "empty night"))
    slow = (
        max((whole.wall - empty.wall) / floor.wall, (whole.cpu - empty.cpu) / floor.cpu)
        > NIGHT_LIMIT
    )
    return int(slow or empty.wall > EMPTY_SECONDS_LIMIT)


if __name__ == "__main__":
    sys.exit(main())

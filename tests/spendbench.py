"""`python -m tests.spendbench`: the shipped detector and its rivals on SpendBench's dev split.

Every row is scored by ../shared/spendbench/score.py, which is not ours; the shipped detector's
alerts are those of `meterhouse backtest`, that is of the warehouse's own models. The rivals are as
small as they can be told; all have the gate of 50 % and 10 credits that a Meterhouse alert has, so
that nobody loses by trifles. Prints the tables of docs/detection.md, and draws its picture.
"""

import argparse
import importlib.util
import tempfile
import time
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import polars as pl

from pipelines import contents
from pipelines.backtest import Strictness, walk

HOUSE = Path(__file__).parents[1]
BENCH = HOUSE.parent / "shared" / "spendbench"
PICTURE = HOUSE / "docs" / "detection.svg"
DAYS = 60  # that are judged, as the labels say
GATE = "credits > 1.5 * usual and credits > usual + 10"

# The days of every key since its first, one without spend being a zero, and what came before each.
CALENDAR = """
    create table calendar as
    with days as (
        select api_key_id, unnest(range(min(usage_date), $last + 1, interval 1 day))::date as day
        from daily
        group by 1
    )

    select
        days.api_key_id,
        days.day as usage_date,
        coalesce(credits, 0)::double as credits,
        row_number() over whole as age,
    from days
    left join daily on daily.api_key_id = days.api_key_id and daily.usage_date = days.day
    window whole as (partition by days.api_key_id order by days.day)
"""


def before(count: int) -> str:
    return (
        f"over (partition by api_key_id order by usage_date rows between {count} preceding and "
        "1 preceding)"
    )


RIVALS = {
    "fixed: 50 % over the mean of 7 days": f"""
        select *, avg(credits) {before(7)} as usual, usual as top
        from calendar
    """,
    "z-score: 3 σ, 28 days": f"""
        select *, avg(credits) {before(28)} as usual,
            case when age > 7 then usual + 3 * stddev_samp(credits) {before(28)} end as top
        from calendar
    """,
    "2 × the biggest of 56 days": f"""
        select *, avg(credits) {before(56)} as usual,
            case when age > 3 then 2 * max(credits) {before(56)} end as top
        from calendar
    """,
    # The tested day is in its own mean and spread, as in the package's training window.
    "Elementary's default: 3 σ, 14 days": """
        select *, avg(credits) over fortnight as usual,
            case when age >= 7 then usual + 3 * stddev_samp(credits) over fortnight end as top
        from calendar
        window fortnight as (
            partition by api_key_id order by usage_date rows between 13 preceding and current row
        )
    """,
}
SECOND = ("k1", "k2", "yk", "y2", "mg", "d0", "d1", "dq", "dprev")
SECOND_PRESETS = {
    "low": (3.0, 2.0, 2.6, 2.8, 2.5, 2.0, 0.6, 1.35, 1.25),
    "normal": (2.4, 1.45, 2.04, 2.3, 2.5, 1.9, 0.5, 1.1, 1.2),
    "high": (1.75, 1.35, 1.8, 2.1, 2.0, 1.75, 0.5, 1.0, 1.15),
}


def scorer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("score", BENCH / "score.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rival(connection: duckdb.DuckDBPyConnection, select: str) -> pl.DataFrame:
    return connection.sql(
        f"select api_key_id, usage_date from ({select}) as judged where credits > top and {GATE}"
    ).pl()


def second_detector(
    connection: duckdb.DuckDBPyConnection, last: date, sensitivity: str
) -> pl.DataFrame:
    """The reference of ../shared/spendbench/detector.sql, day by day."""
    sql = (BENCH / "detector.sql").read_text()
    values = dict(zip(SECOND, SECOND_PRESETS[sensitivity], strict=True)) | {"x": 0.5, "floor": 10.0}
    found = []
    for back in range(DAYS):
        day = last - timedelta(days=back)
        keys = connection.execute(sql, values | {"t": day}).fetchall()
        found += [(key, day) for key, *_ in keys]
    return pl.DataFrame(found, schema=["api_key_id", "usage_date"], orient="row")


def false_by_kind(alerts: pl.DataFrame, labels: pl.DataFrame, module: ModuleType) -> dict[str, Any]:
    """False alarms per key-month of each kind of key, by the scorer itself."""
    last = pl.read_parquet(BENCH / "dev" / "daily_credits.parquet")["usage_date"].max()
    return {
        str(kind): module.score(alerts, part, last)["false_per_key_month"]
        for (kind,), part in sorted(labels.group_by("kind"))
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="the shipped normal only")
    quick = options.parse_args().quick
    module = scorer()
    daily = BENCH / "dev" / "daily_credits.parquet"
    labels = pl.read_parquet(BENCH / "dev" / "labels.parquet")
    last = pl.read_parquet(daily)["usage_date"].max()
    assert isinstance(last, date)
    found: dict[str, pl.DataFrame] = {}
    for sensitivity in ("normal",) if quick else ("low", "normal", "high"):
        with tempfile.TemporaryDirectory() as folder:
            file, began = Path(folder) / "alerts.parquet", time.monotonic()
            walk(
                daily,
                contents.models(),
                Strictness(sensitivity, 50.0, 10.0),
                file,
                last_days=DAYS,
            )
            found[f"**shipped, {sensitivity}**"] = pl.read_parquet(file)
            print(f"walked {DAYS} days at {sensitivity} in {time.monotonic() - began:.1f} s")
    if not quick:
        with duckdb.connect() as connection:
            connection.execute(f"create table daily as from '{daily}'")
            connection.execute("alter table daily add column key_id varchar")
            connection.execute("alter table daily add column day date")
            connection.execute("update daily set key_id = api_key_id, day = usage_date")
            connection.execute(
                "create view first_seen as select key_id, min(day) as born from daily group by 1"
            )
            for sensitivity in SECOND_PRESETS:
                found[f"second detector, {sensitivity}"] = second_detector(
                    connection, last, sensitivity
                )
            connection.execute(CALENDAR, {"last": last})
            for name, select in RIVALS.items():
                found[name] = rival(connection, select)
    scores = {name: module.score(alerts, labels, last) for name, alerts in found.items()}
    print("\n| | precision | recall | F1 | false per key-month | same day |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, score in scores.items():
        columns = ("precision", "recall", "f1", "false_per_key_month", "same_day")
        print(f"| {name} | {' | '.join(f'{score[column]:.3f}' for column in columns)} |")
    kinds = sorted(next(iter(scores.values()))["recall_by_kind"])
    print(f"\n| recall | {' | '.join(kinds)} | real | synthetic |")
    print(f"| --- |{' --- |' * (len(kinds) + 2)}")
    for name, score in scores.items():
        cells = [score["recall_by_kind"][kind] for kind in kinds]
        cells += [score["by_base"][base]["recall"] for base in ("real", "synthetic")]
        print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    benign = sorted(set(labels.filter(pl.col("onset").is_null())["kind"]))
    print(f"\n| false alarms | {' | '.join(benign)} | real | synthetic |")
    print(f"| --- |{' --- |' * (len(benign) + 2)}")
    for name, alerts in found.items():
        by_kind: dict[str, Any] = defaultdict(float, false_by_kind(alerts, labels, module))
        cells = [by_kind[kind] for kind in benign]
        bases = scores[name]["by_base"]
        cells += [bases[base]["false_per_key_month"] for base in ("real", "synthetic")]
        print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    if not quick:
        PICTURE.write_text(picture(scores), encoding="utf-8")
        print(f"\ndrawn: {PICTURE}")


def picture(scores: dict[str, dict[str, Any]]) -> str:
    """Recall over false alarms (logarithmic), a dot a detector."""
    from math import log10

    def across(value: float) -> float:
        return 110 + 560 * (log10(value) - log10(0.03)) / (log10(3) - log10(0.03))

    def up(value: float) -> float:
        return 300 - 260 * (value - 0.65) / 0.35

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 345" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="820" height="345" fill="white"/>',
    ]
    for tick in (0.7, 0.8, 0.9, 1.0):
        parts.append(
            f'<path d="M64 {up(tick):.0f}H680" stroke="#ddd"/>'
            f'<text x="58" y="{up(tick) + 4:.0f}" text-anchor="end" fill="#555">{tick:.1f}</text>'
        )
    for tick in (0.03, 0.1, 0.3, 1, 3):
        parts.append(
            f'<path d="M{across(tick):.0f} 40V300" stroke="#eee"/>'
            f'<text x="{across(tick):.0f}" y="316" text-anchor="middle" fill="#555">{tick:g}</text>'
        )
    parts.append(
        '<text x="390" y="336" text-anchor="middle" fill="#555">false alarms per key-month</text>'
        '<text x="70" y="26" fill="#555">recall</text>'
    )
    for name, score in scores.items():
        is_ours = name.startswith("**")
        x, y = across(max(score["false_per_key_month"], 0.03)), up(score["recall"])
        fill = "#0a7" if is_ours else "#888"
        label = name.strip("*").split(":")[0]
        turned = "end" if is_ours or x > 560 else "start"
        shift = -8 if turned == "end" else 8
        below = 14 if label.startswith("second") else -6
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}"/>'
            f'<text x="{x + shift:.1f}" y="{y + below:.1f}" '
            f'text-anchor="{turned}" fill="{fill}">{label}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()

"""A gateway's landing folder made from a seed, with its Stripe account and the truth about both.

The truth is summed in plain Python integers (billionths of a credit) while the lines are written,
so that it shares no code with what reads them. The same arguments give the same bytes.
"""

import base64
import csv
import gzip
import hashlib
import json
import math
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from statistics import NormalDist, median
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

from pipelines.simulator import billing

FAULTS = {
    "malformed": "lines that no reader can take: cut short, without an id, with impossible credits",
    "conflicting": "requests delivered again with fewer credits; the first version wins",
}
INCIDENTS_FROM_DAYS = 14  # a shorter run has no normal that an incident could leave

BILLION = 10**9  # credits are counted in billionths: nine places, exactly
Row = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A model as the gateway sells it; prices in billionths of a credit."""

    per_prompt_token: int
    per_completion_token: int
    fallback: str | None  # what serves the call when this one can't
    per_image: int = 0
    tokens_per_second: int = 80


MODELS = {
    "gpt-4o": Model(263_750, 1_055_000, "claude-sonnet-4-5"),
    "gpt-4o-mini": Model(15_825, 63_300, "gemini-2.5-flash", tokens_per_second=120),
    "claude-sonnet-4-5": Model(316_500, 1_582_500, "gemini-2.5-pro", tokens_per_second=70),
    "claude-haiku-4-5": Model(105_500, 527_500, "gpt-4o-mini", tokens_per_second=140),
    "gemini-2.5-pro": Model(131_875, 1_055_000, "gpt-4o"),
    "gemini-2.5-flash": Model(31_650, 263_750, "llama-3.3-70b", tokens_per_second=180),
    "llama-3.3-70b": Model(62_245, 83_347, "gpt-4o-mini", tokens_per_second=110),
    "text-embedding-3-small": Model(2_113, 0, None),
    "text-embedding-3-large": Model(13_717, 0, None),
    "gpt-image-1": Model(0, 0, "flux-1.1-pro", per_image=4_431_000_000),
    "flux-1.1-pro": Model(0, 0, None, per_image=4_220_000_000),
}

WORKDAYS = (1.0, 1.08, 1.1, 1.05, 0.95, 0.06, 0.04)
SOFT_WEEK = (1.0, 1.03, 1.05, 1.03, 1.0, 0.72, 0.66)
EVERY_DAY = (1.0,) * 7
OFFICE = tuple(
    1.0 if 9 <= hour < 18 else 0.25 if hour in (8, 18, 19) else 0.01 for hour in range(24)
)
DAYTIME = tuple(1 + 0.75 * math.cos((hour - 15) / 24 * 2 * math.pi) for hour in range(24))
FLAT = (1.0,) * 24
AT_TWO = tuple(float(hour == 2) for hour in range(24))
AT_SIX_NOON = tuple(float(hour in (6, 12)) for hour in range(24))


@dataclass(frozen=True)
class Habit:
    """How one key, or a workspace's playground, behaves."""

    name: str
    workspace_id: str
    share: float  # of all requests, before the shapes; any unit
    week: Sequence[float]  # Monday first, local
    hours: Sequence[float]  # 24, local
    models: dict[str, int]  # slug: weight
    prompt_tokens: int  # mean
    completion_tokens: int
    day_spread: float = 0.12  # sigma of the day-to-day factor's logarithm
    active_share: float = 1.0  # of its days with any request
    streamed_share: float = 0.5  # of the chat calls; nothing else is streamed
    member_ids: tuple[str, ...] = ()  # the playground's; a key has none
    first_days_ago: int | None = None  # its first day, counted back from the last; None: always
    last_days_ago: int = 0
    wheel: tuple[str, ...] = field(init=False, compare=False)  # 64 slugs, as often as their weight

    def __post_init__(self) -> None:
        total, reached = sum(self.models.values()), 0
        wheel: list[str] = []
        for slug, weight in self.models.items():
            reached += weight
            wheel += [slug] * (round(64 * reached / total) - len(wheel))
        object.__setattr__(self, "wheel", tuple(wheel))

    @property
    def api_key_id(self) -> str | None:
        """None in the playground: there, a member stands for the request."""
        return None if self.member_ids else key_id(self.name)

    @property
    def mean_credits(self) -> float:
        """About what one request takes; only for the size of an incident."""
        models = [MODELS[slug] for slug in self.wheel]
        return sum(
            m.per_image
            + self.prompt_tokens * m.per_prompt_token
            + self.completion_tokens * m.per_completion_token
            for m in models
        ) / (len(models) * BILLION)


@cache
def key_id(name: str) -> str:
    """An opaque id that a key keeps over all seeds."""
    return "key_" + base64.b32encode(hashlib.sha256(name.encode()).digest())[:12].decode().lower()


WORKSPACES: list[Row] = [
    billing.workspace("ws_harbour", "Harbour Analytics", "Europe/London", "Pro", 1, "gbp"),
    billing.workspace("ws_brightleaf", "Brightleaf Health", "America/New_York", "Scale", 12, "usd"),
    billing.workspace("ws_kaveri", "Kaveri Commerce", "Asia/Kolkata", "Pro", 20, "usd"),
    billing.workspace("ws_fjord", "Fjord Legal", "Europe/Oslo", "Team", 7, "eur"),
    billing.workspace(
        "ws_pixelforge", "Pixelforge Studio", "America/Los_Angeles", "Team", 26, "usd"
    ),
]
MEMBERS = {
    "ws_harbour": {
        "mem_aisha": "Aisha Khan",
        "mem_tom": "Tom Whitfield",
        "mem_greta": "Greta Lund",
    },
    "ws_brightleaf": {"mem_marcus": "Marcus Bell", "mem_elena": "Elena Ortiz"},
    "ws_kaveri": {"mem_ravi": "Ravi Menon", "mem_priya": "Priya Nair"},
    "ws_fjord": {"mem_ingrid": "Ingrid Solberg", "mem_jonas": "Jonas Berg"},
    "ws_pixelforge": {"mem_dana": "Dana Park"},
}
CHEAP = {"gpt-4o-mini": 5, "gemini-2.5-flash": 3}
STRONG = {"gpt-4o": 4, "claude-sonnet-4-5": 3}
CLAUDE = {"claude-haiku-4-5": 6, "claude-sonnet-4-5": 1}
EMBEDDINGS = {"text-embedding-3-small": 9, "text-embedding-3-large": 1}
IMAGES = {"gpt-image-1": 2, "flux-1.1-pro": 3}
OPEN = {"llama-3.3-70b": 1}
MIXED = CLAUDE | CHEAP


def _playground(workspace_id: str, share: float, models: dict[str, int]) -> Habit:
    return Habit(
        "Playground", workspace_id, share, WORKDAYS, OFFICE, models, 700, 350,
        day_spread=0.2, streamed_share=1.0, member_ids=tuple(MEMBERS[workspace_id]),
    )  # fmt: skip


HARBOUR, BRIGHTLEAF, KAVERI, FJORD, PIXELFORGE = (row["workspace_id"] for row in WORKSPACES)

HABITS = [
    # name, workspace, share, week, hours, models, prompt and completion tokens
    Habit("harbour-api-prod", HARBOUR, 14, SOFT_WEEK, DAYTIME, CHEAP | {"gpt-4o": 1}, 1400, 260),
    Habit("harbour-report-writer", HARBOUR, 4, WORKDAYS, OFFICE, STRONG, 1800, 500),
    Habit("harbour-embeddings", HARBOUR, 9, EVERY_DAY, FLAT, EMBEDDINGS, 900, 0),
    Habit("harbour-nightly-digest", HARBOUR, 2, EVERY_DAY, AT_TWO, CLAUDE, 3000, 400),
    Habit("harbour-tom-laptop", HARBOUR, 0.7, WORKDAYS, OFFICE, STRONG, 900, 250, 0.35, 0.7),
    _playground(HARBOUR, 1.6, STRONG),
    Habit("brightleaf-triage-prod", BRIGHTLEAF, 16, SOFT_WEEK, DAYTIME, CLAUDE, 1600, 220),
    Habit("brightleaf-summaries", BRIGHTLEAF, 6, WORKDAYS, OFFICE, STRONG, 2200, 420),
    Habit("brightleaf-ci-smoke-tests", BRIGHTLEAF, 1.5, EVERY_DAY, AT_SIX_NOON, MIXED, 1500, 200),
    Habit("brightleaf-claims-batch", BRIGHTLEAF, 3, EVERY_DAY, AT_SIX_NOON, OPEN, 2600, 300),
    Habit("brightleaf-embeddings", BRIGHTLEAF, 5, EVERY_DAY, FLAT, EMBEDDINGS, 1100, 0),
    Habit("brightleaf-staging", BRIGHTLEAF, 0.8, WORKDAYS, OFFICE, CHEAP, 900, 200, 0.3, 0.8),
    _playground(BRIGHTLEAF, 1.2, STRONG | {"gemini-2.5-pro": 2}),
    Habit("kaveri-search-prod", KAVERI, 18, SOFT_WEEK, DAYTIME, CHEAP, 800, 140),
    Habit("kaveri-catalogue-agent", KAVERI, 2.5, EVERY_DAY, FLAT, OPEN | CHEAP, 1900, 420),
    Habit("kaveri-support-bot", KAVERI, 7, SOFT_WEEK, DAYTIME, CLAUDE, 1300, 240),
    Habit("kaveri-product-photos", KAVERI, 0.5, WORKDAYS, OFFICE, IMAGES, 0, 0),
    Habit("kaveri-dev", KAVERI, 0.6, WORKDAYS, OFFICE, CHEAP | STRONG, 700, 200, 0.4, 0.6),
    _playground(KAVERI, 0.9, STRONG),
    Habit("fjord-contracts-prod", FJORD, 4, WORKDAYS, OFFICE, {"gemini-2.5-pro": 1}, 2800, 300,
          first_days_ago=17),
    Habit("fjord-contracts-prod-old", FJORD, 4, WORKDAYS, OFFICE, {"gemini-2.5-pro": 1}, 2800, 300,
          last_days_ago=18),
    Habit("fjord-clause-index", FJORD, 3, EVERY_DAY, AT_TWO, EMBEDDINGS, 1500, 0),
    Habit("fjord-word-plugin", FJORD, 2, WORKDAYS, OFFICE, CLAUDE, 1500, 350),
    _playground(FJORD, 0.8, CLAUDE),
    Habit("pixelforge-render-prod", PIXELFORGE, 1.4, SOFT_WEEK, DAYTIME, IMAGES, 0, 0),
    Habit("pixelforge-captions", PIXELFORGE, 4, SOFT_WEEK, DAYTIME, CHEAP, 600, 90),
    Habit("pixelforge-prompt-helper", PIXELFORGE, 2, WORKDAYS, OFFICE, OPEN, 500, 220),
    _playground(PIXELFORGE, 0.5, IMAGES | CHEAP),
]  # fmt: skip
REPLACES = {"fjord-contracts-prod": "fjord-contracts-prod-old"}


@dataclass(frozen=True)
class Incident:
    """What goes wrong with one key near the end: from then on it is used in another way too."""

    kind: str
    key_name: str
    change: Row  # of the key's habit
    starts: tuple[int, int]  # days before the last, UTC hour
    ends: tuple[int, int]

    @property
    def habit(self) -> Habit:
        return next(habit for habit in HABITS if habit.name == self.key_name)


LEAKED = {"models": STRONG, "prompt_tokens": 1500, "completion_tokens": 600}
INCIDENTS = (
    Incident("leaked_key", "brightleaf-ci-smoke-tests", LEAKED, (1, 9), (0, 24)),
    Incident("runaway_loop", "kaveri-catalogue-agent", {"prompt_tokens": 2600}, (0, 3), (0, 10)),
)
INCIDENT_MULTIPLE = 9  # of a normal day's requests, within 24 hours of a leak or within a loop
INCIDENT_FLOOR_CREDITS = 120  # and never so small that it would not matter

Plan = list[list[list[tuple[Habit, int]]]]  # [day][UTC hour] -> habits and their requests


def simulate(
    out: Path,
    *,
    days: int,
    requests_per_day: int,
    seed: int,
    last_day: date,
    faults: Collection[str] = (),
) -> Row:
    """Writes a gateway's landing folder, settings and Stripe account under `out`.

    Returns the truth, which also stands in `out/truth.json`. There are exactly `days` times
    `requests_per_day` requests, and from 14 days on the extra ones of two incidents.
    Raises ValueError for a size below one, an unknown fault, or a folder that holds a simulation
    with other arguments: its left-over lines would make the truth a lie.
    """
    unknown = sorted(set(faults) - FAULTS.keys())
    if unknown:
        raise ValueError(
            f"There is no fault '{unknown[0]}'; there are: {', '.join(sorted(FAULTS))}."
        )
    if days < 1 or requests_per_day < 1:
        raise ValueError("A simulation needs at least one day and one request a day.")
    arguments: Row = {
        "days": days,
        "requests_per_day": requests_per_day,
        "seed": seed,
        "last_day": str(last_day),
        "faults": sorted(faults),
    }
    told = out / "truth.json"
    if told.exists() and json.loads(told.read_text("utf-8")).get("arguments") != arguments:
        raise ValueError(f"{out} holds another simulation; give an empty folder, or remove it.")
    calendar = [last_day - timedelta(days=ago) for ago in reversed(range(days))]
    plan = _plan(calendar, days * requests_per_day, seed)
    writer = _Writer(out / "landing" / "requests", seed, faults)
    for day, hours in zip(calendar, plan, strict=True):
        writer.write_day(day, hours, is_last=day == last_day)

    used = writer.used_credits()
    invoices, account, reconciliation = billing.bill(WORKSPACES, used, calendar[0], last_day, seed)
    _write_directory(out / "landing" / "directory", calendar[0], last_day)
    _write_csv(out / "landing" / "invoices" / "invoices.csv", invoices)
    _write_json(out / "stripe_account.json", account)
    (out / "meterhouse.toml").write_text(SETTINGS, encoding="utf-8")
    truth = {
        "arguments": arguments,
        "first_day": str(calendar[0]),
        "last_day": str(last_day),
        **writer.truth(),
        "incidents": _incident_truth(writer, calendar) if days >= INCIDENTS_FROM_DAYS else [],
        "reconciliation": reconciliation,
    }
    _write_json(told, truth)
    return truth


def _plan(calendar: list[date], total: int, seed: int) -> Plan:
    """How many requests each habit makes in each hour; they sum to `total`, incidents apart.

    Shapes are local, so a habit moves by an hour of UTC when its zone's clocks change.
    """
    rng = random.Random(f"{seed}/plan")
    weights: list[list[list[float]]] = []
    zones = {row["workspace_id"]: ZoneInfo(row["time_zone"]) for row in WORKSPACES}
    for number, day in enumerate(calendar):
        ago = len(calendar) - 1 - number
        factors = []
        for habit in HABITS:
            factor = habit.share * math.exp(habit.day_spread * rng.gauss(0, 1))
            is_there = habit.first_days_ago is None or ago <= habit.first_days_ago
            is_active = rng.random() < habit.active_share and ago >= habit.last_days_ago
            factors.append(factor if is_there and is_active else 0.0)
        weights.append([])
        for hour in range(24):
            instant = datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
            local = {workspace_id: instant.astimezone(zone) for workspace_id, zone in zones.items()}
            row = []
            for habit, factor in zip(HABITS, factors, strict=True):
                now = local[habit.workspace_id]
                row.append(
                    factor * habit.week[now.weekday()] * habit.hours[now.hour] / sum(habit.hours)
                )
            weights[-1].append(row)

    # Cumulative rounding: every cell gets its share of the total, and the total comes out exactly.
    scale = total / math.fsum(w for day_weights in weights for row in day_weights for w in row)
    plan: Plan = []
    reached, given = 0.0, 0
    for day_weights in weights:
        plan.append([])
        for row in day_weights:
            cells = []
            for habit, weight in zip(HABITS, row, strict=True):
                reached += weight * scale
                count = math.floor(reached) - given
                given += count
                cells.append((habit, count))
            plan[-1].append(cells)
    plan[-1][23].append((HABITS[0], total - given))  # what binary rounding left over: one at most
    if len(calendar) >= INCIDENTS_FROM_DAYS:
        for incident in INCIDENTS:
            _add_incident(plan, incident, scale)
    return plan


def _add_incident(plan: Plan, incident: Incident, scale: float) -> None:
    """scale: requests per unit of a habit's share."""
    habit = incident.habit
    gone_wrong = replace(habit, **incident.change)
    (first, from_hour), (last, to_hour) = incident.starts, incident.ends
    slots = [
        (-1 - ago, hour)
        for ago in range(first, last - 1, -1)
        for hour in range(24)
        if (ago < first or hour >= from_hour) and (ago > last or hour < to_hour)
    ]
    normal_count = habit.share * scale * sum(habit.week) / 7
    wanted = max(INCIDENT_MULTIPLE * normal_count, INCIDENT_FLOOR_CREDITS / gone_wrong.mean_credits)
    for day, hour in slots:
        plan[day][hour].append((gone_wrong, math.ceil(wanted / min(24, len(slots)))))


# --- the lines ---

# 1,024 equally likely values around 1, lognormal: a draw is one look-up.
TOKEN_FACTORS = [math.exp(0.6 * NormalDist().inv_cdf((i + 0.5) / 1024) - 0.18) for i in range(1024)]
CLOCK = [f"T{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}." for s in range(86_400)]
THOUSANDTHS = [f"{ms:03d}Z" for ms in range(1000)]
CROCKFORD = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)
DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PAIRS = [a + b for a in DIGITS for b in DIGITS]
UPSTREAM_ERRORS = ((429, "rate_limited"), (503, "provider_unavailable"))
CALLER_ERRORS = (
    (400, "context_length_exceeded"),
    (400, "invalid_request"),
    (413, "payload_too_large"),
)
MALFORMED = (
    '{"request_id":"req_cut_short","timestamp":"2026-',
    '{"timestamp":"2026-01-01T00:00:00Z","workspace_id":"ws_harbour","credits_used":1}',
    '{"request_id":"req_minus","timestamp":"2026-01-01T00:00:00Z","credits_used":-1}',
)

Tally = dict[tuple[str, str | None, str | None, str | None], list[int]]
MEASURES = ("request_count", "error_count", "fallback_count", "total_tokens")  # then credits


class _Writer:
    """Writes one object of request lines a day and keeps the count of what it wrote."""

    def __init__(self, folder: Path, seed: int, faults: Collection[str]) -> None:
        self.folder = folder
        self.rng = random.Random(f"{seed}/requests")
        self.faults = faults
        self.days: dict[date, Tally] = {}
        self.held: list[str] = []  # lines that arrive with the next day's object
        self.lines = {"line_count": 0, "duplicate_count": 0, "late_count": 0}
        self.lines |= {f"{fault}_count": 0 for fault in ("malformed", "conflicting")}

    def write_day(self, day: date, hours: list[list[tuple[Habit, int]]], *, is_last: bool) -> None:
        tally = self.days[day] = {}
        folder = self.folder / f"{day:%Y}" / f"{day:%m}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"requests-{day}.jsonl{'' if is_last else '.gz'}"
        with path.open("wb") as file:
            if is_last:
                self._write_lines(file, day, hours, tally, is_last)
            else:
                # No name and no time in the header, so that equal lines are equal bytes.
                with gzip.GzipFile("", "wb", 1, fileobj=file, mtime=0) as packed:
                    self._write_lines(packed, day, hours, tally, is_last)

    def _write_lines(
        self,
        file: BinaryIO | gzip.GzipFile,
        day: date,
        hours: list[list[tuple[Habit, int]]],
        tally: Tally,
        is_last: bool,
    ) -> None:
        held, self.held = self.held, []
        self._write(file, held)
        for hour, cells in enumerate(hours):
            rows: list[tuple[int, str]] = []
            for habit, count in cells:
                rows += _requests(self.rng, habit, count, day, hour, tally)
            rows.sort()
            self._write(file, self._delivered(day, rows, is_last))
        if "malformed" in self.faults:
            self._write(file, MALFORMED)
            self.lines["malformed_count"] += len(MALFORMED)

    def _delivered(self, day: date, rows: list[tuple[int, str]], is_last: bool) -> Iterator[str]:
        """The lines of an hour as they arrive: a few of them twice, a few a day later."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
        ids = _ids(self.rng, [int(midnight) * 1000 + at for at, _ in rows])
        for (_, rest), request_id in zip(rows, ids, strict=True):
            line = f'{{"request_id":"req_{request_id}",{rest}'
            fate = int(self.rng.random() * 4096)
            if fate == 0 and not is_last:
                self.held.append(line)
                self.lines["late_count"] += 1
                continue
            yield line
            if fate in (1, 2):
                self.lines["duplicate_count"] += 1
                if fate == 2 and not is_last:
                    self.held.append(line)
                else:
                    yield line
            elif fate < 16 and "conflicting" in self.faults and '"credits_used":0,' not in line:
                # The same instant and fewer credits: the first version wins.
                before, _, after = line.partition('"credits_used":')
                yield f'{before}"credits_used":0,{after.partition(",")[2]}'
                self.lines["conflicting_count"] += 1

    def _write(
        self, file: BinaryIO | gzip.GzipFile, lines: Collection[str] | Iterator[str]
    ) -> None:
        text = "\n".join(lines)
        if text:
            file.write(text.encode() + b"\n")
            self.lines["line_count"] += text.count("\n") + 1

    def used_credits(self) -> dict[tuple[str, date], int]:
        """Billionths of a credit by workspace and UTC day."""
        used: dict[tuple[str, date], int] = {}
        for day, tally in self.days.items():
            for (workspace_id, _, _, _), sums in tally.items():
                used[workspace_id, day] = used.get((workspace_id, day), 0) + sums[-1]
        return used

    def key_days(self, api_key_id: str) -> dict[date, int]:
        """Billionths of a credit that a key used on each of its days with requests."""
        days: dict[date, int] = {}
        for day, tally in self.days.items():
            for (_, key, _, _), sums in tally.items():
                if key == api_key_id:
                    days[day] = days.get(day, 0) + sums[-1]
        return days

    def truth(self) -> Row:
        """Exact totals, duplicates counted once: rows by day, workspace, key, member and model."""
        cells = [
            ((str(day), *key), sums)
            for day, tally in self.days.items()
            for key, sums in tally.items()
        ]
        names = ("usage_date", "workspace_id", "api_key_id", "member_id", "model")

        def rows(*by: str) -> list[Row]:
            places = [names.index(name) for name in by]
            groups: dict[tuple[str | None, ...], list[int]] = {}
            for key, sums in cells:
                group = groups.setdefault(tuple(key[place] for place in places), [0] * 5)
                for place, value in enumerate(sums):
                    group[place] += value
            ordered = sorted(groups, key=lambda group: tuple(name or "" for name in group))
            return [
                dict(zip(by, group, strict=True))
                | dict(zip(MEASURES, groups[group], strict=False))
                | {"credits": credits_text(groups[group][-1])}
                for group in ordered
            ]

        return {
            **self.lines,
            "total": rows()[0],
            "by_day": rows("usage_date"),
            "by_workspace": rows("workspace_id"),
            "by_key": rows("workspace_id", "api_key_id"),
            "by_member": rows("workspace_id", "member_id"),
            "by_model": rows("workspace_id", "model"),
        }


def credits_text(billionths: int) -> str:
    """Credits as exact decimal text without trailing zeros."""
    whole, part = divmod(billionths, BILLION)
    return f"{whole}.{part:09d}".rstrip("0").rstrip(".")


def _ids(rng: random.Random, instants_ms: list[int]) -> Iterator[str]:
    """ULIDs: ten digits of the millisecond, sixteen of chance."""
    chance = base64.b32encode(rng.randbytes(10 * len(instants_ms))).translate(CROCKFORD).decode()
    for place, ms in enumerate(instants_ms):
        time = (
            f"{PAIRS[ms >> 40]}{PAIRS[ms >> 30 & 1023]}{PAIRS[ms >> 20 & 1023]}"
            f"{PAIRS[ms >> 10 & 1023]}{PAIRS[ms & 1023]}"
        )
        yield time + chance[16 * place : 16 * place + 16]


def _requests(
    rng: random.Random, habit: Habit, count: int, day: date, hour: int, tally: Tally
) -> Iterator[tuple[int, str]]:
    """`count` requests that complete in an hour: milliseconds of the day, the line after its id.

    One draw of 64 bits decides nearly everything about a request; a draw for each would take a
    third longer.
    """
    today, yesterday = str(day), str(day - timedelta(days=1))
    workspace_id, api_key_id = habit.workspace_id, habit.api_key_id
    head = f'"workspace_id":"{workspace_id}","api_key_id":{_quoted(api_key_id)}'
    source = "playground" if habit.member_ids else "api"
    streamed_below = int(habit.streamed_share * 1024)
    members = habit.member_ids or (None,)
    draw, uniform = rng.getrandbits, rng.random

    def stamp(ms: int) -> str:
        # A negative second counts back from the end of CLOCK: yesterday's last minutes.
        return f"{today if ms >= 0 else yesterday}{CLOCK[ms // 1000]}{THOUSANDTHS[ms % 1000]}"

    for _ in range(count):
        dice = draw(64)
        odd = dice & 1023
        requested = model = habit.wheel[dice >> 10 & 63]
        prompt = int(habit.prompt_tokens * TOKEN_FACTORS[dice >> 16 & 1023])
        completion = int(habit.completion_tokens * TOKEN_FACTORS[dice >> 26 & 1023])
        is_streamed = completion > 0 and dice >> 36 & 1023 < streamed_below
        waited_ms = 3 + (dice >> 46 & 15)  # in the gateway, before the provider
        member_id = members[(dice >> 50 & 255) % len(members)]
        status, error_code, depth = 200, "null", 0

        if odd < 16:
            # The provider answered 429 or 503, and the next model of the chain served.
            while depth < (2 if odd < 2 else 1) and (next_model := MODELS[model].fallback):
                model, depth = next_model, depth + 1
            waited_ms += 200 + (dice >> 46 & 1023) * depth
        elif odd < 21:
            # No model of the chain would serve: no credits.
            status, name = UPSTREAM_ERRORS[odd & 1]
            error_code, prompt, completion = f'"{name}"', 0, 0
        elif odd < 27:
            status, name = CALLER_ERRORS[odd % 3]
            error_code, prompt, completion = f'"{name}"', 0, 0
        elif odd < 34 and is_streamed:
            # The client hung up: only the tokens made so far are metered.
            status, error_code = 499, '"client_closed_request"'
            completion = completion * (dice >> 46 & 1023) >> 10

        price = MODELS[model]
        if price.per_image:
            prompt, completion, is_streamed = 0, 0, False
        if status in (200, 499):
            served = model
            billionths = (
                prompt * price.per_prompt_token
                + completion * price.per_completion_token
                + price.per_image * (1 + (dice >> 52 & 3) // 3)  # one image, sometimes two
            )
        else:
            served, billionths = None, 0
        provider_ms = (
            120 + (dice >> 40 & 255) + prompt // 20 + completion * 1000 // price.tokens_per_second
        ) + (6000 if price.per_image else 0)

        at = hour * 3_600_000 + int(uniform() * 3_600_000)
        provider_out = at - 1 - (dice >> 58 & 7)
        provider_in = provider_out - provider_ms
        gateway_in = provider_in - waited_ms
        sums = tally.setdefault((workspace_id, api_key_id, member_id, served), [0] * 5)
        sums[0] += 1
        sums[1] += status >= 400
        sums[2] += depth > 0
        sums[3] += prompt + completion
        sums[4] += billionths

        gateway_out_at = stamp(at)
        if status in (400, 413):  # refused at the door
            gateway_in = at - waited_ms
            provider = '"provider_in_at":null,"provider_out_at":null'
        else:
            provider = (
                f'"provider_in_at":"{stamp(provider_in)}","provider_out_at":"{stamp(provider_out)}"'
            )
        whole, part = divmod(billionths, BILLION)
        spent = f"{whole}.{part:09d}".rstrip("0") if part else str(whole)
        line = (
            f'"timestamp":"{gateway_out_at}",{head},'
            f'"member_id":{_quoted(member_id)},"source":"{source}",'
            f'"requested_model":"{requested}","model":{_quoted(served)},'
            f'"fallback_from":{_quoted(requested if depth else None)},"fallback_depth":{depth},'
            f'"status":{status},"error_code":{error_code},'
            f'"stream":{"true" if is_streamed else "false"},'
            f'"prompt_tokens":{prompt},"completion_tokens":{completion},'
            f'"total_tokens":{prompt + completion},"credits_used":{spent},'
            f'"latency_ms":{at - gateway_in},"gateway_in_at":"{stamp(gateway_in)}",{provider},'
            f'"gateway_out_at":"{gateway_out_at}"}}'
        )
        yield at, line


def _quoted(text: str | None) -> str:
    return f'"{text}"' if text else "null"


# --- beside the lines ---


def _incident_truth(writer: _Writer, calendar: list[date]) -> list[Row]:
    """What was planted, with the credits of each of its days and those of a normal one."""
    incidents = []
    for incident in INCIDENTS:
        habit = incident.habit
        used = writer.key_days(key_id(habit.name))
        days = calendar[-1 - incident.starts[0] : len(calendar) - incident.ends[0]]
        first = days[0]
        normal = median([value for day, value in used.items() if day < first])
        incidents.append(
            {
                "kind": incident.kind,
                "workspace_id": habit.workspace_id,
                "api_key_id": habit.api_key_id,
                "key_name": habit.name,
                "usage_date": str(first),
                "starts_at": f"{first}T{incident.starts[1]:02d}:00:00Z",
                "normal_credits": credits_text(int(normal)),
                "credits": credits_text(used[first]),
                "days": [{"usage_date": str(d), "credits": credits_text(used[d])} for d in days],
            }
        )
    return incidents


def _write_directory(folder: Path, first_day: date, last_day: date) -> None:
    keys = []
    for place, habit in enumerate(habit for habit in HABITS if not habit.member_ids):
        began = first_day - timedelta(days=30 + 11 * place)
        if habit.first_days_ago is not None:
            began = last_day - timedelta(days=habit.first_days_ago)
        ended = last_day - timedelta(days=habit.last_days_ago - 1) if habit.last_days_ago else None
        replaced = REPLACES.get(habit.name)
        keys.append(
            {
                "api_key_id": habit.api_key_id,
                "workspace_id": habit.workspace_id,
                "name": habit.name,
                "created_at": f"{began}T00:00:00Z",
                "revoked_at": f"{ended}T00:00:00Z" if ended else "",
                "replaces_api_key_id": key_id(replaced) if replaced else "",
            }
        )
    members = [
        {"member_id": member_id, "workspace_id": workspace_id, "name": name}
        for workspace_id, people in MEMBERS.items()
        for member_id, name in people.items()
    ]
    names = (
        "workspace_id,name,time_zone,plan,monthly_allowance_credits,cycle_anchor_date,billing_email"
    )
    workspaces = []
    for workspace in WORKSPACES:
        anchor = billing.cycle_start(first_day, workspace["anchor_day"])
        whole = workspace | {"cycle_anchor_date": str(anchor)}
        workspaces.append({name: whole[name] for name in names.split(",")})
    _write_csv(folder / "workspaces.csv", workspaces)
    _write_csv(folder / "keys.csv", keys)
    _write_csv(folder / "members.csv", members)
    _write_csv(folder / "budgets.csv", BUDGETS)


def _budget(budget_id: str, workspace_id: str, **given: str) -> Row:
    columns = (
        "scope", "subject_id", "threshold_percent", "threshold_credits", "exceed_percent",
        "floor_credits", "sensitivity", "recipients",
    )  # fmt: skip
    blank = dict.fromkeys(columns, "")
    return {"budget_id": budget_id, "workspace_id": workspace_id} | blank | given


BUDGETS = [
    _budget("bud_harbour_75", "ws_harbour", scope="workspace", threshold_percent="75",
            recipients="finance@harbour.example"),
    _budget("bud_brightleaf_90", "ws_brightleaf", scope="workspace", threshold_percent="90",
            recipients="ap@brightleaf.example"),
    _budget("bud_agent", "ws_kaveri", scope="key", subject_id=key_id("kaveri-catalogue-agent"),
            threshold_credits="2500", recipients="platform@kaveri.example"),
]  # fmt: skip


def _write_csv(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_json(path: Path, value: Row) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


SETTINGS = f"""\
# A simulated gateway, written by `meterhouse simulate`. What is true of it stands in truth.json.

[warehouse]
root = "data"
credits_per_usd = 100

[[requests]]
name = "gateway"
gateway = "infery"
format = "canonical"
location = "landing/requests"

[directory]
location = "landing/directory"

[invoices]
location = "landing/invoices"

[stripe]
# The local Stripe that serves stripe_account.json; read only when METERHOUSE_STRIPE_API_KEY is set.
# api_base = "http://127.0.0.1:4242"

[reconciliation]
settle_days = {billing.SETTLE_DAYS}
pending_days = {billing.PENDING_DAYS}

[exports]
location = "data/exports"
"""

"""Which published days a night changes, by how much, and because of which objects.

Everything else below raw is a function of raw, the settings and the clock; this table remembers,
since what was published before is seen nowhere else once the snapshot is replaced. It is drafted
like any table, so that a killed night leaves no trace of it, and the next one tells it again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

from pipelines.calendar import DAY, Clock
from pipelines.models import Models
from pipelines.store import Draft, Partition, RawTable, arrow_table

TABLE = "marts.restatements"
TABLES = {
    TABLE: RawTable(
        "A published day that a later night changed: by how much, and because of which objects.",
        {
            "usage_date": ("date", "The UTC day; it had ended when it was published before"),
            "restatement_number": ("bigint", "Which change of this day it is, from 1"),
            "changed_at": ("timestamp", "As-of of the night that published the change, UTC"),
            "request_count_before": ("bigint", "As published until then"),
            "request_count_after": ("bigint", "As published from then on"),
            "credits_before": ("decimal(38, 9)", "As published until then"),
            "credits_after": ("decimal(38, 9)", "As published from then on"),
            "source_objects": (
                "varchar[]",
                "Which objects that night landed with records of the day (sha256, sorted); none: "
                "the directory, a setting or a release changed it",
            ),
        },
        by_day=True,
    )
}

# What a day says of itself: how much, in which quarter of an hour whose, and by which records.
SUMS = "staging.request_counts"
QUARTERS = "marts.usage_quarter_hourly"
WINNERS = "staging.request_winners"
CONTESTS = "staging.request_contests"
QUARTER_COLUMNS = (  # those of the contract: a column that a release adds restates nothing
    "quarter_at, usage_date, workspace_id, api_key_id, member_id, requested_model, model, "
    "request_count, error_count, fallback_count, prompt_tokens, completion_tokens, total_tokens, "
    "credits"
)


@dataclass(frozen=True)
class Restatement:
    """A day's change: how many requests and credits it had, and has."""

    usage_date: date
    before: tuple[int, Decimal]
    after: tuple[int, Decimal]

    def __str__(self) -> str:
        requests = self.after[0] - self.before[0]
        credits = self.after[1] - self.before[1]
        if not requests and not credits:
            return f"{self.usage_date} (the same sums, by other records)"
        noun = "request" if abs(requests) == 1 else "requests"
        return f"{self.usage_date} ({requests:+,} {noun}, {credits:+,f} credits)"


def record(draft: Draft, models: Models, clock: Clock) -> list[Restatement]:
    """Drafts a row for each published day that the draft changes; returns them by day.

    Costs what changed: the days whose objects differ are compared, and no others are opened.
    """
    comparison = Comparison(draft, models)
    restated = comparison.restatements()
    causes = comparison.causes([change.usage_date for change in restated]) if restated else {}
    for change in restated:
        day = change.usage_date
        known = models.sources(draft, TABLE, [day])[TABLE]
        rows = draft.connection.sql(f"{known} order by all").to_arrow_table().to_pylist()
        row = {
            "usage_date": day,
            "restatement_number": len(rows) + 1,
            "changed_at": clock.as_of,
            "request_count_before": change.before[0],
            "request_count_after": change.after[0],
            "credits_before": change.before[1],
            "credits_after": change.after[1],
            "source_objects": causes.get(day, []),
        }
        draft.replace(TABLE, arrow_table(TABLES[TABLE], [*rows, row]), day)
    return restated


def sentence(restated: Sequence[Restatement], shown: int = 3) -> str:
    """What the night's summary says of them."""
    count = len(restated)
    named = ", ".join(map(str, restated[:shown]))
    more = f", and {count - shown} more" if count > shown else ""
    what = "1 published day was" if count == 1 else f"{count} published days were"
    return f"{what} restated: {named}{more}; see {TABLE}."


class Comparison:
    """What is published beside what is drafted, day by day."""

    def __init__(self, draft: Draft, models: Models) -> None:
        self.draft = draft
        self.models = models
        self.connection = draft.connection
        self.published = draft.published.tables if draft.published else {}

    def restatements(self) -> list[Restatement]:
        """The days that had ended when they were published, and will be published otherwise.

        A day that had not ended grows; that is no news. One that was restated before goes on
        being told of, whatever clock the night between had.
        """
        as_of = self.draft.published.as_of if self.draft.published else datetime.min
        days = [
            day
            for day in sorted(set().union(*map(self._changed, (SUMS, QUARTERS, WINNERS))))
            if datetime.combine(day + DAY, time()) <= as_of
            or str(day) in self.draft.partitions(TABLE)
        ]
        if not days:
            return []
        before, after = self._sums(self._before(SUMS, days)), self._sums(self._after(SUMS, days))
        none = (0, Decimal(0))
        changed = {day for day in days if before.get(day, none) != after.get(day, none)}
        alike = [day for day in days if day not in changed]
        changed |= self._other_quarters(alike) | self._other_winners(alike)
        return [
            Restatement(day, before.get(day, none), after.get(day, none))
            for day in days
            if day in changed
        ]

    def causes(self, days: Sequence[date]) -> dict[date, list[str]]:
        """The objects landed this night that have a record of a day, or one of a request that
        stands or stood on it.
        """
        records = self._new("raw.requests", days)
        contests = self.models.sources(self.draft, CONTESTS, days)[CONTESTS]
        causes: dict[date, list[str]] = {}
        for day, source_object in self.connection.execute(
            f"""select usage_date, source_object::varchar from ({records})
                union
                select contest_date, source_object::varchar from ({contests})
                where source_object in (select unnest($landed::varchar[]))
                order by all""",
            {"landed": self._landed()},
        ).fetchall():
            causes.setdefault(day, []).append(source_object)
        return causes

    # ---- which days -------------------------------------------------------------------------

    def _changed(self, table: str) -> set[date]:
        """The published days of which a table would hold something else."""
        before, after = self.published.get(table, {}), self.draft.partitions(table)
        return {
            date.fromisoformat(key)
            for key in self.published.get(SUMS, {})
            if before.get(key, Partition(())).content != after.get(key, Partition(())).content
        }

    def _sums(self, rows: str) -> dict[date, tuple[int, Decimal]]:
        found = self.connection.execute(
            f"select usage_date, request_count, credits from ({rows}) where stage = 'staging'"
        ).fetchall()
        return {day: (count, credits) for day, count, credits in found}

    def _other_quarters(self, days: Iterable[date]) -> set[date]:
        """Days of the same sums that are somebody else's now: of a key that the directory moved."""
        wanted = sorted(set(days) & self._changed(QUARTERS))
        if not wanted:
            return set()
        before, after = (
            f"select {QUARTER_COLUMNS} from ({rows})"
            for rows in (self._before(QUARTERS, wanted), self._after(QUARTERS, wanted))
        )
        found = self.connection.execute(
            f"select distinct usage_date from (({before} except all {after}) "
            f"union all ({after} except all {before}))"
        ).fetchall()
        return {day for (day,) in found}

    def _other_winners(self, days: Iterable[date]) -> set[date]:
        """Days on which another record speaks for a request than the one before; a contest that
        the record of before has won changes nothing.
        """
        wanted = sorted(set(days) & self._changed(WINNERS))
        if not wanted:
            return set()
        contests = self.models.sources(self.draft, CONTESTS, wanted)[CONTESTS]
        found = self.connection.execute(
            f"""with winners as ({self._after(WINNERS, wanted)}),
                winners_before as ({self._before(WINNERS, wanted)}),
                records_before as (
                    from ({contests}) where source_object not in (select unnest($landed::varchar[]))
                )
                select usage_date from winners
                semi join records_before using (gateway, request_id)
                where source_object in (select unnest($landed::varchar[]))
                union
                select winners.usage_date from winners
                inner join winners_before using (gateway, request_id)
                where (winners.source_object, winners.source_line)
                    <> (winners_before.source_object, winners_before.source_line)""",
            {"landed": self._landed()},
        ).fetchall()
        return {day for (day,) in found}

    # ---- which files ------------------------------------------------------------------------

    def _landed(self) -> list[str]:
        """The objects that this night has landed."""
        rows = self._new("raw.source_objects")
        found = self.connection.execute(f"select object_sha256 from ({rows})").fetchall()
        return [sha256 for (sha256,) in found]

    def _new(self, table: str, days: Sequence[date] | None = None) -> str:
        """The select of what this night has added to a table, or to some of its days."""
        before = self.published.get(table, {}).values()
        known = {item.path for partition in before for item in partition.objects}
        wanted = None if days is None else {str(day) for day in days}
        files = [
            self.draft.locate(item)
            for key, partition in self.draft.partitions(table).items()
            if wanted is None or key in wanted
            for item in partition.objects
            if item.path not in known
        ]
        # as the files state it: to number the lines of raw.requests would be in vain
        return RawTable("", {}).rows_of(files) if files else self.models.empty(table)

    def _before(self, table: str, days: Sequence[date]) -> str:
        """The select of what is published of some days of a table."""
        partitions = self.published.get(table, {})
        keys = [key for key in map(str, days) if key in partitions]
        items = [item for key in keys for item in partitions[key].objects]
        return self._rows(table, self.draft.store.local(items))

    def _after(self, table: str, days: Sequence[date]) -> str:
        """The select of what would be published of them."""
        return self.models.sources(self.draft, table, days)[table]

    def _rows(self, table: str, files: Sequence[Path]) -> str:
        return self.models.rows_of(table, files) if files else self.models.empty(table)

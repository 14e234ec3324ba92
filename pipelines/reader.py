"""What is published, for the commands that show it: `warehouse.duckdb`, attached read-only, and the
usage of local days.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import date, datetime, time, timedelta
from typing import Any

import duckdb

from pipelines.calendar import DAY
from pipelines.store import Store, StoreError, quote
from pipelines.warehouse import NAME, bring, objects_read

QUARTER = timedelta(minutes=15)

# What a row of each view is about: the columns of the mart it shows (days stand before them).
GROUPS: Mapping[str, tuple[str, ...]] = {
    "model": ("workspace_id", "model"),
    "key": ("workspace_id", "api_key_id", "key_name"),
    "member": ("workspace_id", "member_id", "member_name"),
    "workspace": ("workspace_id", "workspace_name"),
    "day": (),
}
LOCAL_DATE = "(quarter_at at time zone 'UTC' at time zone $zone)::date"
EXPRESSIONS = {
    "usage_date": f"{LOCAL_DATE} as usage_date",
    "workspace_id": "usage.workspace_id",
    "key_name": "keys.name as key_name",
    "member_name": "members.name as member_name",
    "workspace_name": "workspaces.name as workspace_name",
}
NAMES = {
    "key": "left join staging.keys as keys using (api_key_id)",
    "member": "left join staging.members as members using (workspace_id, member_id)",
    "workspace": "left join staging.workspaces as workspaces using (workspace_id)",
}
MEASURES = (
    "request_count",
    "error_count",
    "fallback_count",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "credits",
)


class Reader:
    """One published snapshot, readable with SQL by the names of the contract's tables."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store) -> None:
        self.connection = connection
        self.store = store

    def reach(self, sql: str, days: Collection[date] | None = None) -> None:
        """Sees to it that what a select reads is on this machine; `days`: those that it asks
        requests of, by `usage_date`.
        """
        if self.store.reads_in_place:
            return
        paths = objects_read(self.connection, sql)
        if days is not None:
            other = {
                path
                for path in paths
                if path.startswith("raw/requests/")
                and not path.startswith(tuple(f"raw/requests/usage_date={day}/" for day in days))
            }
            paths -= other - objects_read(self.connection, sql, whole=False)
        self.store.reach(paths)

    def request(self, request_id: str) -> list[dict[str, Any]]:
        """The row of `marts.requests` with this id: one for each gateway that has such a request.

        The id index says on which days to look. Where it knows nothing, every day is looked at: it
        may be of another DuckDB, whose hash() is another.
        """
        sql = "select * from marts.requests where request_id = $id"
        if days := self._days_of(request_id):
            narrow = f"{sql} and usage_date in ({', '.join(quote(str(day)) for day in days)})"
            self.reach(narrow, days)
            if found := self._fetch(narrow, {"id": request_id}):
                return found
        return self.rows(sql, id=request_id)

    def _days_of(self, request_id: str) -> list[date]:
        """The days on which the id index knows a request."""
        hashes = self.rows(
            "select distinct hash(gateway, $id) as id_hash from staging.request_hours",
            id=request_id,
        )
        if not hashes:
            return []
        known = ", ".join(str(row["id_hash"]) for row in hashes)  # in the text: files are left out
        try:
            found = self.rows(
                f"select distinct usage_date from staging.request_ids where id_hash in ({known})"
            )
        except duckdb.BinderException:  # a file of an earlier release: its index tells no days
            return []
        return [row["usage_date"] for row in found]

    def rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of a select, as dicts by column."""
        self.reach(sql)
        return self._fetch(sql, parameters)

    def _fetch(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        result = self.connection.execute(sql, dict(parameters) or None)
        names = [column[0] for column in result.description or []]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    @property
    def as_of(self) -> datetime:
        """The clock of what is published: exclusive end, UTC."""
        instant: datetime = self.rows("select as_of from ops.snapshot")[0]["as_of"]
        return instant

    def zone_of(self, workspace_id: str | None) -> str:
        """A workspace's zone; UTC where workspaces mix or it states none."""
        if workspace_id is None:
            return "UTC"
        found = self.rows(
            "select time_zone from staging.workspaces where workspace_id = $id", id=workspace_id
        )
        return str(found[0]["time_zone"] or "UTC") if found else "UTC"

    def knows(self, workspace_id: str) -> bool:
        """Whether a workspace is in the directory or has usage."""
        known = self.rows(
            """select 1 from staging.workspaces where workspace_id = $id
            union all select 1 from marts.usage_by_key where workspace_id = $id limit 1""",
            id=workspace_id,
        )
        return bool(known)

    def usage(
        self,
        group_by: str,
        start: datetime,
        end: datetime,
        zone: str,
        workspace_id: str | None = None,
        *,
        each_day: bool = False,
    ) -> list[dict[str, Any]]:
        """Usage of `start` ≤ quarter < `end` (UTC instants), grouped; summed over the span, or for
        each local day of `zone`. Whatever the grouping, it sums to the quarters, exactly.
        """
        names = usage_columns(group_by, each_day=each_day)
        parameters: dict[str, Any] = {"start": start, "end": end}
        if "usage_date" in names:
            parameters["zone"] = zone
        where = ""
        if workspace_id is not None:
            where = "and usage.workspace_id = $workspace"
            parameters["workspace"] = workspace_id
        columns = ", ".join(EXPRESSIONS.get(name, name) for name in names)
        measures = ", ".join(
            f"sum(credits)::decimal(38, 9) as {name}"
            if name == "credits"
            else f"least(sum({name}), 9223372036854775807)::bigint as {name}"
            for name in MEASURES
        )
        order = ", ".join(["usage_date" if "usage_date" in names else "credits desc", *names])
        return self.rows(
            f"""select {columns}, {measures}
                from marts.usage_quarter_hourly as usage {NAMES.get(group_by, "")}
                where quarter_at >= $start and quarter_at < $end {where}
                    -- so that only the files of these days are opened
                    and usage_date between $start::date and $end::date
                group by all order by {order}""",
            **parameters,
        )


def usage_columns(group_by: str, *, each_day: bool) -> list[str]:
    """What a usage view is grouped by; summed over the span, a model's workspaces are one."""
    names = list(GROUPS[group_by])
    if group_by == "model" and not each_day:
        names.remove("workspace_id")
    return ["usage_date", *names] if each_day or group_by == "day" else names


def local_days(first: date, last: date, zone: str) -> tuple[datetime, datetime]:
    """The UTC instants at which local days `first` to `last` (included) begin and end.

    By the engine's own zones, as LOCAL_DATE goes: where a country has changed its mind between two
    releases of the zones, one table would end a day where the other goes on with it.
    """
    with closing(duckdb.connect()) as engine:

        def beginning(day: date) -> datetime:
            [(instant,)] = engine.execute(
                f"select min(quarter_at) filter ({LOCAL_DATE} >= $day::date) from range("
                "$day::timestamp - interval 1 day, $day::timestamp + interval 3 days, "
                "interval 15 minutes) as quarters(quarter_at)",
                {"day": day, "zone": zone},
            ).fetchall()
            assert isinstance(instant, datetime)
            return instant

        return beginning(first), beginning(last + DAY)


def last_window(text: str, as_of: datetime, zone: str) -> tuple[datetime, datetime]:
    """`24h`: the 96 quarters that end with the one before as-of. `7d`, `30d`: local days, today
    included.
    """
    moment = as_of - timedelta(microseconds=1)
    if text == "24h":
        whole = datetime.combine(moment.date(), time())
        end = whole + ((moment - whole) // QUARTER + 1) * QUARTER
        return end - 96 * QUARTER, end
    with closing(duckdb.connect()) as engine:
        [(today,)] = engine.execute(
            f"select {LOCAL_DATE} from (select $moment::timestamp as quarter_at)",
            {"moment": moment, "zone": zone},
        ).fetchall()
    return local_days(today - (int(text.removesuffix("d")) - 1) * DAY, today, zone)


@contextmanager
def published(store: Store) -> Iterator[Reader]:
    """Opens what is published. Raises StoreError where nothing is."""
    path = bring(store)
    if not path.exists():
        if store.snapshot() is not None:
            raise StoreError(
                f"{store.place}/{NAME} is gone: run 'meterhouse publish' to make it again."
            )
        raise StoreError(
            f"Nothing is published under {store.place} yet: run 'meterhouse nightly' first."
        )
    connection = duckdb.connect()
    try:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"attach {quote(str(path))} as warehouse (read_only)")
        connection.execute("use warehouse")
        yield Reader(connection, store)
    except duckdb.IOException as error:
        raise StoreError(
            f"What is published under {store.place} can't be read ({str(error).splitlines()[0]}): "
            "run 'meterhouse publish', as after a move."
        ) from None
    finally:
        connection.close()
        store.tidy()

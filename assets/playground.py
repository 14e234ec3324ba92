"""What was said in the Playground, where a source carries it and its settings ask for it.

The page: "Prompts and outputs are not stored on API requests by default. Playground calls keep
history per retention rules." With `playground_history_days` set on a `[[requests]]` source, the
accepted Playground records of what has just landed are read once more, for these two texts alone;
nothing of an API request is ever kept, nor of a line that was set aside, nor anything at all where
the setting is absent. Days past their retention are gone with the night that finds them so.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from assets import requests
from pipelines import object_store
from pipelines.calendar import DAY, Clock
from pipelines.reading import ObjectRefused, RequestFormat, records_at, shape_of, unpack
from pipelines.settings import Limits, RequestSource, Settings, SettingsError
from pipelines.store import Draft, RawTable, arrow_table, parquet_list

TABLE = "raw.playground_history"
TABLES = {
    TABLE: RawTable(
        "What was said in a Playground request, as its record states it; kept for as many days as "
        "its source's playground_history_days.",
        {
            "gateway": ("varchar", "Whose request id it is"),
            "source_name": ("varchar", "The [[requests]] source it came by"),
            "request_id": ("varchar", "As in raw.requests"),
            "completed_at": ("timestamp", "When the request completed, UTC"),
            "usage_date": ("date", "The UTC day of completed_at"),
            "workspace_id": ("varchar", "As the record states it"),
            "member_id": ("varchar", "Who made the request"),
            "messages": ("varchar", "What was asked: text, or JSON as the record has it"),
            "response": ("varchar", "What was answered: text, or JSON as the record has it"),
            "source_object": ("varchar", "sha256 of the object it was read from"),
            "source_line": ("bigint", "Its physical line there, from 1"),
            "arrived_at": ("timestamp", "When the object was landed, UTC"),
        },
        by_day=True,
    )
}
TEXTS = ("messages", "response")

Row = dict[str, Any]


def keep(
    draft: Draft,
    settings: Settings,
    clock: Clock,
    landed: Collection[str],
    is_erased: Callable[[str], bool],
) -> None:
    """Takes the history out of what this night has landed, where it is asked for, and lets go of
    what is past its retention. `landed`: the paths of its objects.
    """
    asking = {source.name: source for source in settings.requests if source.playground_history_days}
    for source in asking.values():
        if not requests.formats()[source.format].history:
            raise SettingsError(
                f"source '{source.name}': {source.format} carries no Playground history; take "
                "playground_history_days out."
            )
    _expire(draft, asking, clock)
    parts = draft.partitions("raw.requests").values() if asking else ()
    paths = [item.path for part in parts for item in part.objects if item.path in landed]
    if paths:
        files = [draft.pending[path] for path in paths]
        for (source_object, name), rows in _said(draft, files, asking, clock, is_erased).items():
            _keep_object(draft, source_object, asking[name], rows, settings.limits)


def _first_day(source: RequestSource, clock: Clock) -> date:
    """The first day that is kept: so many days, the night's date included."""
    return clock.today - DAY * (source.playground_history_days - 1)


def _expire(draft: Draft, asking: Mapping[str, RequestSource], clock: Clock) -> None:
    """A source that asks no more, or is gone from the settings, keeps nothing."""
    for day in draft.days(TABLE):
        for item in draft.partitions(TABLE)[str(day)].objects:
            source = parquet_list([draft.locate(item)], options=", hive_partitioning = false")
            [(name,)] = draft.connection.execute(
                f"select distinct source_name from {source}"
            ).fetchall()
            if name not in asking or day < _first_day(asking[name], clock):
                draft.forget(TABLE, day, item)


def _said(
    draft: Draft,
    files: Sequence[Path],
    asking: Mapping[str, RequestSource],
    clock: Clock,
    is_erased: Callable[[str], bool],
) -> dict[tuple[str, str], list[Row]]:
    """The accepted Playground records of this night whose texts are to be kept, by their object and
    its source.
    """
    records = requests.TABLES["raw.requests"].rows_of(files)
    names = ", ".join(name for name in TABLES[TABLE].columns if name not in TEXTS)
    table = draft.connection.sql(
        f"select {names} from ({records}) where source = 'playground' "
        "and source_name in (select unnest($names)) order by source_object, source_line",
        params={"names": list(asking)},
    ).to_arrow_table()
    said: dict[tuple[str, str], list[Row]] = {}
    for row in table.to_pylist():
        is_young = row["usage_date"] >= _first_day(asking[row["source_name"]], clock)
        if is_young and not (row["member_id"] and is_erased(row["member_id"])):
            said.setdefault((row["source_object"], row["source_name"]), []).append(row)
    return said


def _keep_object(
    draft: Draft, source_object: str, source: RequestSource, rows: Sequence[Row], limits: Limits
) -> None:
    """Reads the lines of an object again; one object a day of what they say."""
    known = requests.formats()[source.format]
    lines = {row["source_line"]: row for row in rows}
    days: dict[date, list[Row]] = {}
    for number, record in _records(draft, source_object, known, lines, limits):
        texts = {
            column: next(filter(None, (_text(record.get(name)) for name in names)), None)
            for column, names in known.history.items()
        }
        if any(texts.values()):
            days.setdefault(lines[number]["usage_date"], []).append(lines[number] | texts)
    for day, kept in sorted(days.items()):
        draft.append(TABLE, arrow_table(TABLES[TABLE], kept), day)


def _records(
    draft: Draft,
    source_object: str,
    known: RequestFormat,
    lines: Mapping[int, Row],
    limits: Limits,
) -> Iterable[tuple[int, Mapping[str, Any]]]:
    [place] = draft.query(
        "select location from raw.source_objects where object_sha256 = $object "
        "order by arrived_at desc limit 1",
        object=source_object,
    )["location"].to_pylist()
    shape = shape_of(Path(place).name)
    assert shape is not None
    plain, fetched = draft.spool / "history", draft.spool / "history.fetched"
    try:
        if object_store.is_remote(place):
            object_store.object_at(place).fetch(fetched)
        path = fetched if object_store.is_remote(place) else Path(place)
        if unpack(path, shape[1], plain) == source_object:
            yield from records_at(plain, shape[0], known, lines, limits)
            return
    except (OSError, EOFError, ObjectRefused, object_store.Changed):
        pass
    finally:
        plain.unlink(missing_ok=True)
        fetched.unlink(missing_ok=True)
    draft.remark(f"{place} changed since it was landed: its Playground history was not kept.")


def _text(value: Any) -> str | None:
    """A text as it is, anything else as JSON; without what no text may hold."""
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", errors="replace").decode("utf-8").replace("\x00", "\ufffd")

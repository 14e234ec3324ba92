"""The house's landing alone, without a night around it: objects in, their records out."""

import shutil
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from assets import requests
from pipelines import contents
from pipelines.calendar import Clock
from pipelines.settings import RequestSource, Settings
from pipelines.store import Draft, Store
from tests.slow_reader import COLUMNS, Verdicts, expected

NOW = datetime(2026, 11, 25, 12)
LATEST = NOW + timedelta(minutes=5)


class Landings:
    """Lands objects of one format, again and again; nothing is published."""

    def __init__(self, folder: Path, format_name: str = "canonical") -> None:
        self.folder = folder
        self.format = format_name
        self.landing = folder / "landing"
        self.spool = folder / "spool"
        self.models = contents.models()
        source = RequestSource(
            name="gateway", gateway="gateway", format=format_name, location="landing"
        )
        self.settings = Settings(folder=folder, requests=[source])

    def land(self, objects: Mapping[str, bytes], *, ahead: bool = False) -> dict[str, Verdicts]:
        """What became of each object's records, by its name; of equal ones, by the first. Asserts
        that each record was accounted for. `ahead`: each is landed as a long one is.
        """
        for folder in (self.landing, self.spool, self.folder / "data"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        (self.folder / "data" / "ops" / "nights").mkdir(parents=True)
        for name, content in objects.items():
            (self.landing / name).write_bytes(content)
        draft = Draft(Store(self.folder / "data"), self.spool, self.models.bind)
        with patch.object(requests, "LONG", 0 if ahead else requests.LONG):
            requests.land(draft, self.settings, Clock(as_of=NOW, arrived_at=NOW))
        accounts = draft.query(
            "select object_sha256, location, read_count, landed_count, folded_count, "
            "quarantined_count from raw.source_objects"
        ).to_pylist()
        columns = ", ".join(COLUMNS)
        rows = draft.query(
            f"select source_object, source_line, {columns} from raw.requests"
        ).to_pylist()
        aside = draft.query(
            "select object_sha256, line_number, byte_offset, byte_length from raw.quarantine"
        ).to_pylist()
        draft.close()
        found = {account["object_sha256"]: Verdicts() for account in accounts}
        for row in rows:
            verdicts, line = found[row.pop("source_object")], row.pop("source_line")
            assert line not in verdicts.rows, "a line became two rows"
            verdicts.rows[line] = row
        for line in aside:
            place = (line["byte_offset"], line["byte_length"])
            found[line["object_sha256"]].aside[line["line_number"]] = place
        for account in accounts:
            verdicts = found[account["object_sha256"]]
            assert account["landed_count"] == len(verdicts.rows)
            assert account["quarantined_count"] == len(verdicts.aside)
            assert account["read_count"] == len(verdicts.rows) + len(verdicts.aside)
        return {
            Path(account["location"]).name: found[account["object_sha256"]] for account in accounts
        }

    def expected(self, name: str, content: bytes) -> Verdicts:
        """What the second reader makes of an object."""
        shape = "csv" if name.endswith(".csv") else "json"
        return expected(content, shape, self.format, LATEST)

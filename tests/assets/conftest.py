"""A small house in which a source lands its files, night after night."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.calendar import Clock
from pipelines.models import Models
from pipelines.settings import Settings
from pipelines.store import Draft, Store
from tests.houses import request_models, stored_rows

AS_OF = datetime(2026, 11, 20)


class LandingHouse:
    """Lands, publishes, and tells what raw holds; each night's wall clock is an hour after the
    last.
    """

    def __init__(self, folder: Path, models: Models, settings: Settings) -> None:
        self.folder = folder
        self.models = models
        self.settings = settings
        self.arrived_at = AS_OF
        self.remarks: list[str] = []

    def put(self, name: str, content: str | bytes) -> Path:
        path = self.folder / "landing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def night(self, land: Callable[..., None], as_of: datetime = AS_OF) -> bool:
        """One night of one source; whether it changed what is published."""
        self.arrived_at += timedelta(hours=1)
        draft = self._draft()
        land(draft, self.settings, Clock(as_of=as_of, arrived_at=self.arrived_at))
        self.remarks = draft.remarks
        is_changed = any(
            draft.tables.get(table)
            != (draft.published.tables if draft.published else {}).get(table)
            for table in draft.tables
        )
        if is_changed:
            draft.publish(as_of)
        draft.connection.close()
        return is_changed

    def rows(self, table: str) -> list[dict[str, Any]]:
        return stored_rows(Store(self.settings.root), self.models, table)

    def _draft(self) -> Draft:
        spool = self.folder / "spool"
        spool.mkdir(exist_ok=True)
        return Draft(Store(self.settings.root), spool, self.models.bind)


@pytest.fixture(scope="module")
def some_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The models that a request passes, and no others: what a test of landing needs."""
    return request_models(tmp_path_factory.mktemp("sql"))


@pytest.fixture
def house(tmp_path: Path, models: Models) -> LandingHouse:
    (tmp_path / "data").mkdir()
    return LandingHouse(tmp_path, models, Settings(folder=tmp_path))

"""`make bench` itself, on a few rows: what it measures by itself is still there to be measured."""

from pathlib import Path

import pytest

from tests import bench


@pytest.mark.parametrize("part", ["ids", "money", "ranges"])
def test_what_is_measured_by_itself_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(bench, "IDS", 4_000)
    if part == "ids":
        ids = bench.Ids(tmp_path / part)
        ids.prepare(50)
        found = [ids.check()]
    elif part == "money":
        money = bench.Money(tmp_path / part)
        money.prepare(100)
        found = [money.join(), money.reconcile()]
    else:
        ranges = bench.Ranges(tmp_path / part)
        ranges.prepare(10, 40)
        found = [ranges.scan(), ranges.judge()]

    assert all(one.wall > 0 and one.cpu > 0 and one.rss > 0 for one in found)

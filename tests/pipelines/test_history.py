"""pipelines/history.py: the same history, only faster."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from pipelines import history


@dg.asset
def busy(context: dg.AssetExecutionContext) -> None:
    with history.together(context.instance):
        for day in range(1, 6):
            context.log_event(dg.AssetMaterialization("daily", partition=f"2026-11-0{day}"))
            context.log_event(dg.AssetMaterialization("whole", metadata={"day": day}))


def told(folder: Path, around: Callable[[dg.DagsterInstance], object]) -> tuple[object, ...]:
    """What Dagster knows after one run of `busy` under `folder`."""
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        with around(instance):  # type: ignore[attr-defined]
            result = dg.materialize([busy], instance=instance)
        days = instance.get_materialized_partitions(dg.AssetKey("daily"))
        last = instance.get_latest_materialization_event(dg.AssetKey("whole"))
        logged = [entry.dagster_event_type for entry in instance.all_logs(result.run_id)]
        return (
            days,
            last.asset_materialization.metadata["day"].value,
            logged,
            "_connect" in vars(instance.event_log_storage),
        )


def test_a_quick_history_holds_what_a_slow_one_holds(tmp_path: Path) -> None:
    def slow(_: dg.DagsterInstance) -> object:
        from contextlib import nullcontext

        return nullcontext()

    assert told(tmp_path / "quick", history.quick) == told(tmp_path / "slow", slow)


def test_a_quick_history_within_another_changes_nothing(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, history.quick(instance):
        before = vars(instance.event_log_storage)["_connect"]
        with history.quick(instance):
            assert vars(instance.event_log_storage)["_connect"] is before
        assert vars(instance.event_log_storage)["_connect"] is before

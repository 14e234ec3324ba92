"""What Dagster shows: an asset for each table, a check for each claim, one night that makes
them all.
"""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from pipelines import contents, definitions
from pipelines.night import claim_table
from tests.houses import CHECKOUT, House, environment, furnish


def keys() -> set[str]:
    graph = definitions.defs.resolve_asset_graph()
    return {".".join(key.path) for key in graph.get_all_asset_keys()}


def test_every_table_export_and_sink_is_an_asset() -> None:
    models = contents.models()

    assert set(models.models) | set(contents.raw_tables()) <= keys()
    assert {"exports.warehouse", "exports.usage_by_key", "exports.alerts_email"} <= keys()


def test_an_asset_stands_on_what_its_file_reads() -> None:
    graph = definitions.defs.resolve_asset_graph()
    node = graph.get(dg.AssetKey(["marts", "usage_by_key"]))

    assert {".".join(key.path) for key in node.parent_keys} == {
        "marts.usage_quarter_hourly",
        "staging.keys",
        "staging.key_lineages",
    }
    assert (
        node.group_name
        == definitions.defs.resolve_asset_graph()
        .get(dg.AssetKey(["marts", "usage_by_model"]))
        .group_name
    )
    assert isinstance(node.partitions_def, dg.DailyPartitionsDefinition)


def test_every_claim_and_every_grain_is_a_check() -> None:
    graph = definitions.defs.resolve_asset_graph()
    checks = {(".".join(key.asset_key.path), key.name) for key in graph.asset_check_keys}
    models = contents.models()

    claims = {(claim_table(models, name), name.partition("__")[2]) for name in models.claims}
    grains = {(m.name, "grain") for m in models.order if not m.is_view}
    assert claims <= checks
    assert grains <= checks


def test_a_schedule_runs_the_night_every_night() -> None:
    schedule = definitions.every_night

    assert schedule.cron_schedule == "30 0 * * *"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert definitions.night.backfill_policy == dg.BackfillPolicy.single_run()


LOOK = """
import dagster as dg, json
with dg.DagsterInstance.get() as instance:
    runs = instance.get_runs()
    key = dg.AssetKey(["marts", "usage_by_key"])
    made = instance.fetch_materializations(key, limit=50).records
    print(json.dumps({
        "runs": [(run.job_name, run.status.value) for run in runs],
        "days": sorted(record.partition_key for record in made),
        "metadata": sorted(made[0].asset_materialization.metadata),
        "credits": [r.asset_materialization.metadata["credits_exact"].value for r in made],
    }))
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("dagster") / "house")
    furnish(house, first_day=19)
    return house


def test_a_night_of_the_command_line_appears_in_dagster_with_its_rows_and_credits(
    house: House,
) -> None:
    said = house.ask("nightly", "--date", "2026-11-20")
    assert said.returncode == 0, said.stderr
    home = {"DAGSTER_HOME": str(house.folder / "dagster_home")}
    look = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOOK],
        env=environment(house) | home,
        capture_output=True,
        text=True,
        check=True,
        cwd=CHECKOUT,
    )

    seen = json.loads(look.stdout)
    assert seen["runs"] == [["nightly", "SUCCESS"]]
    assert seen["days"] == ["2026-11-19", "2026-11-20"]
    assert {"dagster/row_count", "credits", "credits_exact"} <= set(seen["metadata"])
    assert sum(map(float, seen["credits"])) == pytest.approx(1284.55, abs=0.01)
    assert Path(home["DAGSTER_HOME"], "dagster.yaml").exists()

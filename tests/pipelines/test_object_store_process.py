"""The real command line on a house whose root and logs are in an object store, told so by the
environment alone.
"""

from pathlib import Path

import pytest

from tests import buckets
from tests.buckets import Proxy
from tests.houses import AS_OF, House, furnish, jsonl, request, spend_log


@pytest.fixture
def house(tmp_path: Path, proxy: Proxy) -> House:
    """Its files name folders; the environment says otherwise."""
    elsewhere = buckets.environment(proxy) | {
        "METERHOUSE_WAREHOUSE_ROOT": "s3://bucket/house",
        "METERHOUSE_REQUESTS_GATEWAY_LOCATION": "s3://bucket/logs",
        "METERHOUSE_EXPORTS_LOCATION": "s3://bucket/out",
        "METERHOUSE_AS_OF": AS_OF.isoformat(),
    }
    return House(tmp_path / "house", environment=elsewhere)


def test_every_command_works_with_an_object_store(house: House, proxy: Proxy) -> None:
    furnish(house, first_day=20)
    house.put("proxy/a.jsonl", [spend_log("proxy")])
    for path in (house.folder / "landing" / "requests").iterdir():
        buckets.put(proxy, f"s3://bucket/logs/{path.name}", path.read_bytes())
    buckets.put(proxy, "s3://bucket/logs/late.jsonl", jsonl([request("late")]).encode())

    exported = house.folder / "file.csv"
    said = {
        words: (house.run if words == "nightly" else house.ask)(*words.split())
        for words in (
            "doctor",
            "nightly",
            "nightly --wait 1",
            "usage --group-by key",
            "request late",
            "status",
            f"export requests --from 2026-11-20 --to 2026-11-20 --out {exported}",
            "publish",
            "rebuild",
        )
    }

    for words, done in said.items():
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    assert "root: s3://bucket/house can be written" in said["doctor"].stdout
    assert "Published snapshot" in said["nightly"].stdout
    assert "Nothing new" in said["nightly --wait 1"].stdout
    assert "s3://bucket/logs/late.jsonl, line 1" in said["request late"].stdout
    assert "under s3://bucket/house" in said["status"].stdout
    assert exported.read_text().count("\n") == 1 + 24 + 12 + 2
    there = buckets.contents(proxy, "s3://bucket")
    assert {"house/snapshot.json", "house/warehouse.duckdb", "out/manifest.json"} <= set(there)
    assert not (house.folder / "data").exists()
    secret = house.environment["AWS_SECRET_ACCESS_KEY"].encode()
    for path in house.folder.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path
    assert not any(secret in content for content in there.values())


def test_a_root_that_cannot_be_reached_is_a_sentence(house: House) -> None:
    house.environment["METERHOUSE_WAREHOUSE_ROOT"] = "s3://no-such-bucket/house"
    doctor = house.ask("doctor")
    nightly = house.ask("nightly")

    assert (doctor.returncode, nightly.returncode) == (1, 1)
    assert "root: There is no bucket 'no-such-bucket'" in doctor.stdout
    assert nightly.stderr.strip().startswith("meterhouse: There is no bucket 'no-such-bucket' at")
    assert "Traceback" not in nightly.stderr

"""In whatever order, pieces, copies, names and packings logs arrive, and over however many nights,
what is published is the same; `make proof` tries many more ways.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.models import Models
from tests.deliveries import WHOLE, Delivery, World, check
from tests.houses import ROLL_UPS, House, request_models

WORLDS = 2


@pytest.fixture(scope="module")
def usage_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """As far as usage goes; `make proof` has all the house."""
    return request_models(tmp_path_factory.mktemp("sql"), *ROLL_UPS)


Arrived = list[tuple[World, House]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, usage_models: Models) -> Arrived:
    """Each world, and a house where it arrived whole."""
    arrived = []
    for seed in range(WORLDS):
        world, folder = World(seed), tmp_path_factory.mktemp("whole")
        arrived.append((world, WHOLE.arrive(world, folder / "house", usage_models)))
    return arrived


def test_a_world_that_arrives_whole_is_what_the_contract_makes_of_it(
    whole: Arrived,
) -> None:
    for world, house in whole:
        rows = house.rows(
            "select usage_date, sum(request_count)::bigint as requests, sum(credits) as credits "
            "from marts.usage_by_key group by all"
        )
        found = {row["usage_date"]: (row["requests"], row["credits"]) for row in rows}
        assert found == world.truth()
        assert house.rows("from ops.conflicts") != []


@settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    number=st.integers(0, WORLDS - 1),
    delivery=st.builds(
        Delivery,
        seed=st.integers(0, 2**32),
        objects=st.integers(1, 9),
        nights=st.integers(1, 3),
        again=st.sampled_from((0, 3, 30)),
    ),
)
def test_however_it_arrives_it_is_the_same_world(
    whole: Arrived, usage_models: Models, number: int, delivery: Delivery
) -> None:
    world, house = whole[number]
    with tempfile.TemporaryDirectory() as folder:
        check(world, delivery, Path(folder) / "house", usage_models, house)

"""Twenty seeded schedules of a Stripe that fails and does not hold still; `make proof` runs a
thousand.
"""

from pathlib import Path

import pytest

from pipelines.models import Models
from tests.stripe_faults import Tally, run_schedule


@pytest.mark.parametrize("seed", range(1, 21))
def test_no_object_is_missed_or_doubled_whatever_stripe_does(
    tmp_path: Path, models: Models, seed: int
) -> None:
    tally = Tally()

    run_schedule(seed, tmp_path / "schedule", models, tally)

    assert tally.requests > 20

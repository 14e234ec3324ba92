"""Whatever mail servers, Slack, webhooks and the machine do, every alert is received, and none
twice without saying so; `make proof` runs many more schedules.
"""

from pathlib import Path

from tests.alert_faults import Tally, receivers, run

SCHEDULES = range(50)


def test_in_any_schedule_of_faults_and_deaths_everything_is_received_and_repetitions_say_so(
    tmp_path: Path,
) -> None:
    tally = Tally()

    with receivers() as servers:
        for seed in SCHEDULES:
            run(seed, tmp_path / str(seed), servers, tally)

    # or it proves nothing
    assert min(tally.deaths, tally.digests, tally.repeated, tally.ambiguous) > 20
    assert len(tally.faults) > 20

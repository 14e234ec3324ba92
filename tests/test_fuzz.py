"""A hundred thousand odd lines, by seeds: each accounted for, and as the second reader has it.

`make proof` lands a million.
"""

from pathlib import Path

import pytest

from assets.requests import formats
from tests.fuzz import GOOD, run
from tests.slow_reader import FORMATS

LINES = {
    "canonical": 40_000,
    "usage_csv": 20_000,
    "litellm_spendlogs": 30_000,
    "openrouter_csv": 10_000,
}


@pytest.mark.parametrize("name", LINES)
def test_every_odd_line_is_accounted_for_as_the_second_reader_has_it(
    tmp_path: Path, name: str
) -> None:
    tally = run(tmp_path, name, range(1, LINES[name] // 5000 + 1), 5000)

    assert tally.lines >= LINES[name] // 5000 * 5000
    assert tally.accepted > tally.aside > tally.lines // 20


def test_what_is_fuzzed_is_what_there_is() -> None:
    """A format that the second reader does not know yet is one that nobody has fuzzed."""
    assert set(FORMATS) == set(GOOD) == set(LINES)
    assert set(FORMATS) <= set(formats())

"""`make dev` before it becomes Dagster: which settings it takes, and what it says without any."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.houses import CHECKOUT


@pytest.mark.parametrize("named", [{}, {"CONFIG": ""}, {"CONFIG": " "}])
def test_without_a_config_it_takes_the_one_here_or_the_demos(named: dict[str, str]) -> None:
    # the suite may be run by make, which tells other makes so
    others = ("CONFIG", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in others}
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "dev"],
        cwd=CHECKOUT,
        env=environment | named,
        capture_output=True,
        text=True,
        check=True,
    )

    here = "meterhouse.toml" if (CHECKOUT / "meterhouse.toml").exists() else "demo/meterhouse.toml"
    assert done.stdout.splitlines()[-1].endswith(f"python -m pipelines.dev {here}")


@pytest.mark.parametrize("words", [[], [""]])
def test_without_settings_it_says_in_a_sentence_what_to_do(
    tmp_path: Path, words: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.dev", *words],
        cwd=tmp_path,
        env=dict(os.environ) | {"PYTHONPATH": str(CHECKOUT), "METERHOUSE_CONFIG": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = " ".join(done.stderr.split())
    assert "There is no" in said
    assert said.endswith("Or run 'make demo' first.")

"""The documentation, tried: what README types is run, what ARCHITECTURE says of imports holds, and
every answer is documented.
"""

import ast
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.models import Models
from pipelines.settings import load

HOUSE = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "DECISIONS.md",
    "CHANGELOG.md",
    "docs/client_log.md",
    "docs/detection.md",
    "docs/usage_api.md",
)
ANYTHING = "…"


def page(name: str) -> str:
    return (HOUSE / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page(name), re.MULTILINE | re.DOTALL)


# ---- README, as a new user reads it ---------------------------------------------------------


@dataclass(frozen=True)
class Typed:
    """A command of README, what the page says comes out of it, and what did."""

    command: str
    said: list[str]
    done: subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Newcomer:
    """A person whose only log is README's three lines: where typing it has led them, and what they
    saw.
    """

    place: Path
    environment: Mapping[str, str]
    typed: list[Typed]

    def types(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.place,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def transcript(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, with the lines that are said to come out of it."""
    command, said = "", list[str]()
    for line in block.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, said
            command, said = line.removeprefix("$ "), []
        else:
            said.append(line)
    yield command, said


def agrees(said: list[str], found: str) -> bool:
    """Whether a command's output is what the page says: `…` stands for anything, blank lines for
    nothing.
    """
    pattern = ""
    for line in said:
        text = line.strip()
        if text == ANYTHING:
            pattern += r"(?:[^\n]*\n)*?"
        elif text:
            pattern += r"[^\n]*?".join(re.escape(part) for part in text.split(ANYTHING)) + r"\n"
    lines = "".join(f"{line.strip()}\n" for line in found.splitlines() if line.strip())
    return re.fullmatch(pattern, lines) is not None


@pytest.fixture(scope="module")
def newcomer(once: Callable[..., Any]) -> Newcomer:
    """Who typed README's commands, for whichever worker came first."""
    person: Newcomer = once("home", types_readme)
    return person


def types_readme(home: Path) -> Newcomer:
    """README's commands, typed in a home of its own; the clock is stated, to know the days."""
    (home / "logs").mkdir()
    [lines] = blocks("README.md", "json")
    with gzip.open(home / "logs" / "2026-11-21.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("METERHOUSE_", "DAGSTER_"))
    } | {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "METERHOUSE_AS_OF": "2026-11-22",
        "COLUMNS": "160",
    }
    [block] = blocks("README.md", "console")
    person = Newcomer(home, environment, [])
    for command, said in transcript(block):
        if command.startswith("cd "):
            person = replace(
                person, place=Path(command.removeprefix("cd ").replace("~", str(home)))
            )
        else:
            person.typed.append(Typed(command, said, person.types("bash", "-c", command)))
    return person


def test_what_readme_types_says_what_readme_shows(newcomer: Newcomer) -> None:
    for typed in newcomer.typed:
        assert typed.done.returncode == 0, (
            f"{typed.command}\n{typed.done.stdout}{typed.done.stderr}"
        )
        assert agrees(typed.said, typed.done.stdout), f"{typed.command}\n{typed.done.stdout}"


def test_the_export_of_readme_has_the_nine_columns_of_the_gateway(newcomer: Newcomer) -> None:
    assert (newcomer.place / "november" / "usage.csv").read_text().splitlines()[0] == (
        "timestamp,model,api_key_id,prompt_tokens,completion_tokens,credits_used,request_id,latency_ms,fallback_depth"
    )


def test_the_script_of_readme_reads_the_warehouse(newcomer: Newcomer) -> None:
    [script] = blocks("README.md", "python")

    done = newcomer.types(sys.executable, "-c", script)

    assert done.returncode == 0, done.stderr
    assert "claude-sonnet" in done.stdout


@pytest.mark.parametrize("command", ["status", "overview", "reconcile", "invoices", "alerts"])
def test_the_other_commands_of_readme_have_something_to_say(
    newcomer: Newcomer, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(newcomer.place)
    unset = {name: None for name in os.environ if name not in newcomer.environment}

    done = CliRunner().invoke(main, [command], env=unset | dict(newcomer.environment))

    assert (done.exit_code, bool(done.stdout)) == (0, True), done.output


def test_the_settings_shown_can_be_loaded(tmp_path: Path) -> None:
    for name in PAGES:
        for block in blocks(name, "toml"):
            file = tmp_path / "meterhouse.toml"
            file.write_text(block, encoding="utf-8")
            assert load(file, {}).requests


# ---- every page -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_only_what_there_is(name: str) -> None:
    text = page(name)
    makefile = (HOUSE / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert isinstance(main, click.Group)

    assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= targets
    assert set(re.findall(r"(?:`|\$ |^|&& |/)meterhouse ([a-z]+)", text, re.MULTILINE)) <= set(
        main.commands
    )
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert link.startswith("https://") or (HOUSE / name).parent.joinpath(link).exists(), link
    for path in re.findall(
        r"`((?:assets|exports|pipelines|sql|tests|dagster_home)/[\w/.]+)`", text
    ):
        worked_example = name == "CONTRIBUTING.md" and f" {path}\n" in text
        assert (HOUSE / path).exists() or worked_example, path


# ---- who knows whom -------------------------------------------------------------------------

FLOOR = {
    "calendar",
    "settings",
    "object_store",
    "bucket_store",
    "store",
    "packs",
    "reading",
    "tabular",
    "unwritten",
}  # what assets and exports may stand on
WIRING = {"contents", "definitions", "night", "cli"}  # what may know assets and exports
DAGSTER = {"definitions", "history", "cli"}


def imports(path: Path) -> set[str]:
    """The modules a file imports, wherever in it, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(room: str) -> Iterator[tuple[Path, set[str]]]:
    for path in sorted((HOUSE / room).rglob("*.py")):
        yield path, imports(path)


def rooms(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_assets_and_exports_stand_on_the_floor_and_never_know_each_other() -> None:
    for room, other in (("assets", "exports"), ("exports", "assets")):
        for path, names in modules(room):
            known = {name.split(".")[1] for name in names if name.startswith("pipelines.")}
            assert known <= FLOOR, f"{path} imports pipelines.{known - FLOOR}"
            assert other not in rooms(names), path


def test_only_the_wiring_knows_assets_and_exports() -> None:
    for path, names in modules("pipelines"):
        if path.stem not in WIRING:
            assert not rooms(names) & {"assets", "exports"}, path


def test_the_floor_stands_on_nothing_else() -> None:
    for stem in FLOOR:
        known = {
            name.split(".")[1]
            for name in imports(HOUSE / "pipelines" / f"{stem}.py")
            if name.startswith("pipelines.")
        }
        assert known <= FLOOR, stem


def test_dagster_is_kept_at_the_edge() -> None:
    for room in ("assets", "exports", "pipelines"):
        for path, names in modules(room):
            assert "dagster" not in rooms(names) or path.stem in DAGSTER, path


def test_nothing_is_called_by_a_name_that_says_nothing() -> None:
    stems = {
        path.stem
        for room in ("assets", "exports", "pipelines", "tests", "sql")
        for path in (HOUSE / room).rglob("*.*")
    }

    assert not stems & {"utils", "helpers", "common", "manager", "base"}


# ---- every answer is documented -------------------------------------------------------------

# Names that say it all, wherever they stand (ARCHITECTURE.md, "Words").
PLAIN = {
    "age_days",
    "budget_id",
    "charge_id",
    "charged_at",
    "completion_tokens",
    "currency",
    "invoice_id",
    "is_streamed",
    "issued_at",
    "pdf_url",
    "prompt_tokens",
    "receipt_url",
    "request_id",
    "source_line",
    "stripe_invoice_id",
    "top_key_credits",
    "top_model_credits",
    "total_tokens",
    "usage_date",
    "workspace_id",
    "yesterday_credits",
}


def test_every_table_says_what_a_row_is(models: Models) -> None:
    for model in models.order:
        assert re.match(r"[A-Z].+[.:]( |$)", model.description), model.name


def test_every_column_that_people_query_is_documented_in_its_file_or_plain(models: Models) -> None:
    silent = {
        f"{model.name}.{column}"
        for model in models.order
        if model.name.startswith(("marts.", "ops."))
        for column in model.columns
        if column not in model.documentation and column not in PLAIN
    }

    assert not silent


def test_every_claim_says_what_it_claims(models: Models) -> None:
    for name, claim in models.claims.items():
        assert claim.description, name
        assert {"usage_date", "table_name", "claim", "expected", "found"} <= set(claim.columns), (
            name
        )

# Two commands do everything: `make demo` and `make test`. Only Python 3.11+ (with venv and pip) and make are needed.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Where bytecode is not kept (some containers), every command would compile the house anew.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test lint format dev bench proof lock clean

demo: .venv/run  ## simulate a small gateway with Stripe, run a night on it, and show what came out
	@$(BIN)/python -m pipelines.simulator.demo

test: .venv/dev  ## the whole test suite
	@$(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/dev  ## types, style, SQL
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sqlfluff lint --disable-progress-bar -q sql

format: .venv/dev  ## mend what can be mended by itself
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/sqlfluff fix -q sql

dev: .venv/run  ## the Dagster UI and daemon on the local warehouse (CONFIG=…)
	@$(BIN)/python -m pipelines.dev $(or $(strip $(CONFIG)),$(firstword $(wildcard meterhouse.toml) demo/meterhouse.toml))

bench: .venv/dev  ## the night against the bare engine; rewrites docs/benchmarks.md
	@$(BIN)/python -m tests.bench

proof: .venv/dev  ## the long runs; rewrites docs/proof.md
	@$(BIN)/python -m tests.proof

lock: .venv/dev  ## the two lock files again, from pyproject.toml
	@$(BIN)/python -m pip --quiet install pip-tools
	@$(BIN)/pip-compile -q $(LOCK) -o requirements.lock pyproject.toml
	@$(BIN)/pip-compile -q $(LOCK) --extra dev -o requirements-dev.lock pyproject.toml

LOCK := --generate-hashes --allow-unsafe --no-strip-extras --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

clean:  ## take away what the commands above made
	rm -rf .venv demo *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Meterhouse needs Python 3.11 or newer: say make PYTHON=python3.12")'
	@echo "Setting up .venv (once) …"
	@$(PYTHON) -m venv .venv

.venv/run: requirements.lock pyproject.toml | .venv/bin/python
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: requirements-dev.lock pyproject.toml | .venv/bin/python
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ .venv/run

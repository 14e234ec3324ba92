"""The table of contents: which sources, formats, models, claims and sinks there are. Each is found
by its file.

A file in `assets/` with a `FORMAT` is a format of request logs; one with `TABLES` and `land` is a
source of its own.
A file in `exports/alerts/` with `send` is an alert sink; the file's name is its `[alerts.<name>]`.
"""

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType

import assets
import exports.alerts
from assets import decisions, playground
from exports.alerts import outbox
from pipelines import night, restatements
from pipelines.models import Models
from pipelines.store import RawTable


def _modules(package: ModuleType) -> list[ModuleType]:
    return [
        importlib.import_module(f"{package.__name__}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
    ]


@functools.cache
def sources() -> tuple[ModuleType, ...]:
    """Every file of `assets/` that lands something, in the order of the alphabet."""
    return tuple(module for module in _modules(assets) if hasattr(module, "land"))


WATCHED = ("requests", "usage_api", "directory")  # what an hour lands; the rest is the night's


@functools.cache
def watched() -> tuple[ModuleType, ...]:
    """The sources that say what is used, and whose it is."""
    return tuple(module for module in sources() if module.__name__.rpartition(".")[2] in WATCHED)


@functools.cache
def sinks() -> Mapping[str, ModuleType]:
    """The alert sinks, by their names."""
    return {
        module.__name__.rpartition(".")[2]: module
        for module in _modules(exports.alerts)
        if hasattr(module, "send")
    }


def raw_tables() -> dict[str, RawTable]:
    """The shape of every table that models may read and no model makes."""
    tables: dict[str, RawTable] = {
        **outbox.TABLES,
        **decisions.TABLES,
        **playground.TABLES,
        **night.TABLES,
        **restatements.TABLES,
    }
    for module in sources():
        tables |= module.TABLES
    return tables


@functools.cache
def models() -> Models:
    """The graph of `sql/`."""
    return Models(raw_tables())

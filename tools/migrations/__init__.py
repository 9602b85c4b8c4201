"""Migrations from three generations of an old API to `helpers`, one file each, in order."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from tools.migrations.legacy import CURES, KEPT, MODULES, legacy_symbols

if TYPE_CHECKING:
    from tools.codemod.draft import Draft

__all__ = ["ORDER", "begin", "finish", "legacy_symbols", "migrations", "old_words"]

ORDER = (
    "unported",
    "fine_tuning",
    "hyperparameter_search",
    "results",
    "search_results",
    "settings",
    "coordinator",
    "data_module",
    "imports",
    "prose",
)
"""Uses come before imports: an import goes only when no cell uses its name."""


def migrations() -> dict[str, ModuleType]:
    """All migrations by name, in the order in which they are applied; each has a `migrate`."""
    return {name: importlib.import_module(f"{__name__}.{name}") for name in ORDER}


def begin(draft: "Draft") -> None:
    """Note what the code uses before the first migration."""
    from tools.migrations.symbols import live

    draft.live_before = live(draft)


def finish(draft: "Draft") -> None:
    """Say of every old name that the code still uses what comes nearest."""
    from tools.migrations.remains import report

    report(draft)


def old_words() -> frozenset[str]:
    """Words that name nothing any more, by which mentions in texts and comments are found."""
    tails = {module.rpartition(".")[2] for module in MODULES if module.count(".") == 1}
    return frozenset(CURES.keys() - KEPT.keys() | (tails - {"training"}))

"""Search for good settings: a space of them, trials that train, and a table of what came out.

Names are loaded on first use: a space needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "SearchSpace": "helpers.search.space",
    "Float": "helpers.search.parameters",
    "Int": "helpers.search.parameters",
    "Choice": "helpers.search.parameters",
    "Const": "helpers.search.parameters",
    "Derived": "helpers.search.parameters",
    "When": "helpers.search.parameters",
    "Constraint": "helpers.search.space",
    "run_search": "helpers.search.loop",
    "SearchResult": "helpers.search.result",
    "Study": "helpers.search.study",
    "Trial": "helpers.search.trial",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

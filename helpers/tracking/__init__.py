"""Records of runs: ExperimentDB, and what identifies the code and the machine behind a run.

Names are loaded on first use, so that importing this folder costs nothing. The function
`environment` is imported from its module, because a package cannot show both under one name.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "ExperimentDB": "helpers.tracking.db",
    "code_version": "helpers.tracking.environment",
    "fingerprint": "helpers.tracking.environment",
}

__all__ = ["ExperimentDB", "code_version", "fingerprint"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

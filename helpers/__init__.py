"""Train transformers: the names that notebooks and scripts use, in the order a reader meets them.

Nothing is loaded before it is used: `import helpers` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "TrainingConfig": "helpers.config",
    "TrainingConfigBuilder": "helpers.config",
    "UniversalDataModule": "helpers.data",
    "TaskSpec": "helpers.task",
    "Decoder": "helpers.models",
    "DecoderConfig": "helpers.models",
    "build_decoder": "helpers.models",
    "summarize": "helpers.models",
    "complete_text": "helpers.models",
    "Trainer": "helpers.trainer",
    "TrainingResult": "helpers.engine.result",
    "TrainingLoop": "helpers.engine.loop",
    "OptimizerFactory": "helpers.engine.optim",
    "SchedulerFactory": "helpers.engine.schedule",
    "MetricsTracker": "helpers.engine.metrics",
    "Callback": "helpers.engine.callbacks",
    "EarlyStopping": "helpers.engine.callbacks",
    "ExperimentDB": "helpers.tracking",
    "SearchSpace": "helpers.search",
    "Float": "helpers.search",
    "Int": "helpers.search",
    "Choice": "helpers.search",
    "Const": "helpers.search",
    "Derived": "helpers.search",
    "When": "helpers.search",
    "Constraint": "helpers.search",
    "run_search": "helpers.search",
    "SearchResult": "helpers.search",
    "load_export": "helpers.export",
    "HelpersError": "helpers.errors",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"helpers has no {name!r}; it has {', '.join(_HOMES)}.")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

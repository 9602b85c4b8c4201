"""A trial as it is recorded: what was tried, how it ended, and every number that may judge it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.engine.durable import write_json
from helpers.engine.result import TrainingResult
from helpers.engine.run_folder import read_json

# completed; diverged; out_of_memory; failed by another error; paused by an interrupt.
# The first three are final: such a trial is found again, and not trained again.
FINAL_STATES = ("completed", "diverged", "out_of_memory")
TRIAL_FILE = "trial.json"
ALWAYS_KNOWN = ("train_loss", "training_time", "tokens_per_s")
# The folder may be moved, and the value follows from the metrics.
UNSAVED = {"run_dir", "value"}
MAXIMIZED = {"val_accuracy", "tokens_per_s"}


@dataclass(frozen=True)
class Trial:
    """One trial; `metrics` has all numbers it is known by, `value` the one that is searched for.

    Units: `seconds` of wall time over all sessions, building and validation included.
    """

    number: int
    state: str
    params: dict[str, Any]
    run_id: str
    run_dir: str
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    value: float | None = None

    def judged_by(self, metric: str) -> Trial:
        """The same trial with the value of a metric; only a completed one has it."""
        known = self.metrics if self.state == "completed" else {}
        return dataclasses.replace(self, value=known.get(metric))

    def save(self, folder: Path) -> None:
        """Write the record into the folder of the run."""
        folder.mkdir(parents=True, exist_ok=True)
        values = dataclasses.asdict(self)
        write_json(folder / TRIAL_FILE, {n: v for n, v in values.items() if n not in UNSAVED})

    @classmethod
    def load(cls, folder: Path) -> Trial | None:
        """Read the record of a run folder, or nothing where there is none that is whole."""
        values = read_json(folder / TRIAL_FILE)
        names = {f.name for f in dataclasses.fields(cls)} - UNSAVED
        if values is None or values.keys() != names:
            return None
        return cls(**values, run_dir=str(folder))

    def __repr__(self) -> str:
        end = f"{self.value:.4f}" if self.value is not None else first_sentence(self.reason)
        shown = " ".join(filter(None, [f"trial {self.number}", self.state, end]))
        return f"{shown} in {self.seconds:.1f} s: {words(self.params)}"


def words(params: Mapping[str, Any]) -> str:
    """Values as one would pass them.

    >>> words({"learning_rate": 0.00123456, "optimizer": "adamw"})
    'learning_rate=0.001235, optimizer=adamw'
    """
    shown = {n: f"{v:.4g}" if isinstance(v, float) else str(v) for n, v in params.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def known_metrics(task_metrics: tuple[str, ...], has_validation: bool) -> list[str]:
    """Names of the metrics that a completed trial has."""
    validated = [f"val_{name}" for name in task_metrics] + ["best_val_loss"]
    return [*(validated if has_validation else []), *ALWAYS_KNOWN]


def metrics_of(result: TrainingResult) -> dict[str, float]:
    """The numbers of a run that are finite."""
    known = {f"val_{name}": value for name, value in result.final_metrics.items()}
    ending = {
        "best_val_loss": result.best_loss,
        "train_loss": _last_training_loss(result),
        "training_time": result.training_time,
        "tokens_per_s": result.tokens_per_s,
    }
    return {
        n: float(v) for n, v in {**known, **ending}.items() if v is not None and math.isfinite(v)
    }


def first_sentence(text: str) -> str:
    """A text up to its first full stop or line end.

    >>> first_sentence("The loss is 1.5 up to step 3. Lower it.")
    'The loss is 1.5 up to step 3'
    """
    return text.partition("\n")[0].partition(". ")[0].rstrip(".")


def _last_training_loss(result: TrainingResult) -> float | None:
    if "train/loss" not in result.history:
        return None
    losses = result.history["train/loss"].dropna()
    return losses.iloc[-1] if len(losses) else None

"""The record of a run for people and programs: `run_summary.json`, and a table in the notebook."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.config import TrainingConfig
from helpers.engine.durable import write_json
from helpers.engine.result import TrainingResult
from helpers.engine.run_folder import shown
from helpers.notebook.runtime import seconds_since_start
from helpers.tracking.environment import environment

if TYPE_CHECKING:
    import pandas as pd

MIME = "application/vnd.trainbook.run+json"
FILE_NAME = "run_summary.json"


@dataclass(frozen=True)
class RunSummary:
    """What is left of a run when its notebook is closed.

    Units: `val_loss` in nats per token, `*_s` in seconds; `elapsed_s` and `first_loss_s` count from
    the start of the process.
    """

    values: dict[str, Any]
    path: Path

    def line(self) -> str:
        """The run in one line."""
        v = self.values
        words = [f"run {v['run_id']}: {v['status']}"]
        if v["val_loss"] is not None:
            words.append(f"validation loss {v['val_loss']:.4f} nats/token")
        if v["val_bits_per_byte"] is not None:
            words.append(f"{v['val_bits_per_byte']:.4f} bits/byte")
        return ", ".join([*words, f"{v['elapsed_s']:.0f} s", shown(self.path)])

    def __repr__(self) -> str:
        return self.line()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        run = {key: self.values[key] for key in ("run_id", "status", "run_dir")}
        return {
            "text/plain": repr(self),
            "text/html": self._html(),
            MIME: {**run, "summary_path": shown(self.path)},
        }

    def _html(self) -> str:
        names = ("run_id", "status", "steps", "val_loss", "val_bits_per_byte", "training_s")
        cell = "<td style='text-align:left'>"
        rows = [(name, self.values[name]) for name in names] + [("record", shown(self.path))]
        body = "".join(
            f"<tr>{cell}{name}</td>{cell}{html.escape(_text(value))}</td></tr>"
            for name, value in rows
        )
        return f"<table>{body}</table>"


def record_run(
    result: TrainingResult,
    config: TrainingConfig,
    *,
    metrics: Mapping[str, float] | None = None,
    baselines: Mapping[str, float] | None = None,
) -> RunSummary:
    """Write `run_summary.json` into the run folder, and return it for display.

    `metrics` are those of the validation data; without them those of the result. Where the run had
    ended before and nothing was trained now, the record is left as it is.
    """
    path = Path(result.run_dir) / FILE_NAME
    if result.first_loss_at is None and path.exists():
        return RunSummary(json.loads(path.read_text(encoding="utf-8")), path)
    metrics = metrics or result.final_metrics
    first_loss_s = result.first_loss_at and seconds_since_start(result.first_loss_at)
    values = {
        "run_id": result.run_id,
        "status": result.status,
        "run_dir": shown(result.run_dir),
        "steps": result.steps,
        "tokens": result.tokens,
        "elapsed_s": seconds_since_start(),
        "training_s": result.training_time,
        "first_loss_s": first_loss_s,
        "tokens_per_s": result.tokens_per_s,
        "val_loss": metrics.get("loss"),
        "val_bits_per_byte": metrics.get("bits_per_byte"),
        "baselines": dict(baselines or {}),
        "checkpoint_path": result.checkpoint_path and shown(result.checkpoint_path),
        "html_path": None,
        "config": config.to_dict(),
        "environment": environment(),
    }
    write_json(path, json.loads(json.dumps(_finite(values))))
    return RunSummary(values, path)


def runs_on_record(config: TrainingConfig, n: int = 5) -> pd.DataFrame:
    """The last runs on record with what sets them apart; empty without a database."""
    import pandas as pd

    from helpers.tracking.db import ExperimentDB

    url = config.database_url()
    if url is None:
        return pd.DataFrame()
    with ExperimentDB(url) as db:
        table = db.runs().tail(n)
        settings = pd.DataFrame([db.run(name)["config"] for name in table.index], table.index)
    results = table.filter(["status", "step", "final_loss", "final_bits_per_byte"])
    return settings.filter(["source", "optimizer", "learning_rate", "d_model"]).join(results)


def _finite(value: Any) -> Any:
    """The same value with numbers that JSON does not know as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4f}" if isinstance(value, float) else str(value)

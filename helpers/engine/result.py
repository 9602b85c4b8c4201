"""What a run returns: numbers, tables and paths, as attributes and as items."""

from __future__ import annotations

import dataclasses
import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.engine.durable import write_json
from helpers.engine.identity import EXTENSIONS
from helpers.engine.run import Run
from helpers.engine.run_folder import read_json, shown

if TYPE_CHECKING:
    import pandas as pd

LAST_WEIGHTS = "those of the last step"


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of `Trainer.train`; `result.final_loss` and `result["final_loss"]` are the same.

    `status` is completed, stopped_early or paused. `final_metrics` are those of a last validation
    over all data, `final_loss` is its loss, or the last training loss without validation data.
    `mirrored_step` is the newest step that this session copied to `mirror_dir` and read back, and
    `mirror` says in words where the mirror stands.
    `weights` says which weights the metrics, the samples and `final_model.pt` are of.
    `metrics_summary` has one row for each validation, `history` one for each logged step.

    Units: losses in nats per token, `training_time` in seconds over all sessions without validation
    and saving, `first_loss_at` in seconds since the epoch, of this session.
    """

    run_id: str
    run_dir: str
    status: str
    steps: int
    tokens: int
    final_loss: float | None
    final_metrics: dict[str, float]
    best_loss: float | None
    best_step: int | None
    best_epoch: int | None
    training_time: float
    tokens_per_s: float
    checkpoint_path: str | None
    best_checkpoint_path: str | None
    resumed_from: int | None
    mirrored_step: int | None
    mirror: str
    first_loss_at: float | None
    metrics_summary: pd.DataFrame
    history: pd.DataFrame
    samples: list[tuple[int, str]]
    events: list[tuple[int, str, str]]
    weights: str

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(f"{name!r} is not in the result, which has {', '.join(self.keys())}.")
        return getattr(self, name)

    def keys(self) -> list[str]:
        """Names of all values."""
        return [field.name for field in dataclasses.fields(self)]

    def to_dict(self) -> dict[str, Any]:
        """All values as plain JSON types: tables as lists of rows, paths as a reader wants them."""
        tables = {"metrics_summary", "history"}
        values = {name: getattr(self, name) for name in self.keys() if name not in tables}
        for name in tables:
            frame = getattr(self, name)
            values[name] = [
                {key: value for key, value in row.items() if value == value}
                for row in frame.to_dict("records")
            ]
        for name in ("run_dir", "checkpoint_path", "best_checkpoint_path"):
            values[name] = values[name] and shown(values[name])
        return values

    def rows(self) -> list[tuple[str, str]]:
        """What a reader wants to see, with units."""
        rows = [("run", self.run_id), ("status", self.status), ("steps", f"{self.steps:,}")]
        if self.final_loss is not None:
            rows.append(("final loss", f"{self.final_loss:.4f} nats per token"))
        if "bits_per_byte" in self.final_metrics:
            rows.append(("bits per byte", f"{self.final_metrics['bits_per_byte']:.4f}"))
        if self.best_loss is not None:
            best = f"{self.best_loss:.4f} nats at step {self.best_step:,}"
            rows.append(("best validation", best))
        rows.append(("tokens", f"{self.tokens:,} at {self.tokens_per_s:,.0f} per second"))
        rows.append(("training time", f"{self.training_time:.1f} s"))
        if self.resumed_from is not None:
            rows.append(("continued from", f"step {self.resumed_from:,}"))
        if self.weights != LAST_WEIGHTS:
            rows.append(("weights", self.weights))
        rows.append(("checkpoint", shown(self.checkpoint_path)))
        if self.mirror:
            rows.append(("mirror", self.mirror))
        return rows

    def __repr__(self) -> str:
        return "\n".join(f"{name:<16}{value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        cell = "<td style='text-align:left'>"
        rows = "".join(
            f"<tr>{cell}{name}</td>{cell}{html.escape(value)}</td></tr>"
            for name, value in self.rows()
        )
        return f"<table>{rows}</table>"


def make_result(run: Run, status: str, final: dict[str, float]) -> TrainingResult:
    """Collect the outcome of a session."""
    state, rows = run.state, run.tracker.rows
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    best = state.best_step if state.best_step in run.folder.checkpoints.steps() else None
    elapsed = run.tracker.elapsed_s
    return TrainingResult(
        run_id=run.run_id,
        run_dir=str(run.folder.path),
        status=status,
        steps=state.step,
        tokens=state.tokens,
        final_loss=final.get("loss", losses[-1] if losses else None),
        final_metrics=final,
        best_loss=state.best_loss,
        best_step=state.best_step,
        best_epoch=_epoch_of(rows, state.best_step),
        training_time=elapsed,
        tokens_per_s=state.tokens / elapsed if elapsed else 0.0,
        checkpoint_path=str(run.folder.checkpoints.path(state.step)),
        best_checkpoint_path=None if best is None else str(run.folder.checkpoints.path(best)),
        resumed_from=run.resumed_from,
        mirrored_step=None,
        mirror="",
        first_loss_at=run.tracker.first_loss_at,
        metrics_summary=run.tracker.summary(),
        history=run.tracker.history(),
        weights=_weights(run.config.ema_decay),
        samples=list(run.samples),
        events=list(run.events),
    )


def with_mirror(result: TrainingResult, run: Run) -> TrainingResult:
    """The result with what the mirror came to, which is known only after the result was copied."""
    mirror = run.mirror
    if mirror is None:
        return result
    return dataclasses.replace(
        result,
        mirrored_step=mirror.mirrored_step,
        mirror=mirror.note,
        events=list(run.events),
    )


def write_result(run: Run, result: TrainingResult) -> None:
    """Keep the outcome in the run folder, tables left out: they follow from metrics.jsonl."""
    values = result.to_dict()
    kept = {n: values[n] for n in ("status", "steps", "final_metrics")}
    with run.folder.writing():
        write_json(run.folder.result_file, {**kept, EXTENSIONS: run.state.extensions})


def read_result(run: Run) -> TrainingResult | None:
    """The outcome of a run that has ended for good, or None if there is something left to train."""
    known = read_json(run.folder.result_file)
    if known is None or not {"status", "steps", "final_metrics"} <= known.keys():
        return None
    before = known.get(EXTENSIONS, 0) < run.state.extensions
    if known["status"] == "paused" or known["steps"] != run.state.step or before:
        return None
    return make_result(run, known["status"], known["final_metrics"])


def _weights(ema_decay: float) -> str:
    if not ema_decay:
        return LAST_WEIGHTS
    return f"moving average with decay {ema_decay:g}; the checkpoints hold the raw ones too"


def _epoch_of(rows: list[dict[str, Any]], step: int | None) -> int | None:
    """The epoch, counted from 0, in which a step lies."""
    epochs = [row["epoch"] for row in rows if row["step"] == step]
    return max(0, math.ceil(epochs[0]) - 1) if epochs else None

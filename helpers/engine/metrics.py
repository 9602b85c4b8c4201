"""MetricsTracker: losses stay on the device until they are logged, then become one row."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from helpers.objectives import perplexity

if TYPE_CHECKING:
    import pandas as pd


class MetricsTracker:
    """Collects what a run measures and keeps it in a file of one JSON object a line.

    A row has `step` and `epoch`; rows of training have `train/...`, rows of validation `val/...`.

    Units: losses in nats per token, `elapsed_s` in seconds of training over all sessions of a run.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.first_loss_at: float | None = None
        self._path = path
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._counts: list[int | Tensor] = []
        self._earlier: dict[str, list[float]] = _nothing()
        self._elapsed_before, self._window_s = 0.0, 0.0
        self._clock: float | None = None
        self._is_behind, self._trouble = False, ""

    def add(self, loss_sum: Tensor, count: int | Tensor, gradient_norm: Tensor) -> None:
        """Keep what one step measured, without waiting for the device."""
        self._losses.append(loss_sum)
        self._counts.append(count)
        self._norms.append(gradient_norm)

    def pending(self) -> dict[str, Any]:
        """What the steps since the last row measured, as numbers; this waits for the device."""
        losses = torch.stack(self._losses).tolist() if self._losses else []
        norms = torch.stack(self._norms).tolist() if self._norms else []
        return {
            "losses": self._earlier["losses"] + losses,
            "norms": self._earlier["norms"] + norms,
            "counts": self._earlier["counts"] + [int(count) for count in self._counts],
            "window_s": self._window_s,
        }

    def flush(self, step: int, **values: float) -> dict[str, Any]:
        """Turn the steps since the last row into a row; this waits for the device.

        A step whose gradient overflowed in fp16 was skipped, and does not enter the mean norm
        unless all were.
        """
        pending = self.pending()
        losses, counts = pending["losses"], pending["counts"]
        norms = [n for n in pending["norms"] if math.isfinite(n)] or pending["norms"]
        self.pause()
        loss = sum(losses) / sum(counts)
        row = {
            "step": step,
            "train/loss": loss,
            "train/perplexity": perplexity(loss) if loss == loss else loss,
            "gradient_norm": sum(norms) / len(norms),
            "tokens_per_s": sum(counts) / max(1e-9, self._window_s),
            "elapsed_s": self.elapsed_s,
            **values,
        }
        self._losses, self._counts, self._norms, self._window_s = [], [], [], 0.0
        self._earlier = _nothing()
        self.first_loss_at = self.first_loss_at or time.time()
        self._append(row)
        self.resume()
        return row

    def add_row(self, row: dict[str, Any]) -> None:
        """Keep a row that is measured already, as of a validation."""
        self._append({**row, "elapsed_s": self.elapsed_s})

    def resume(self) -> None:
        """Start the clock of training."""
        self._clock = time.perf_counter()

    def pause(self) -> None:
        """Stop the clock: what follows is not training."""
        if self._clock is not None:
            passed = time.perf_counter() - self._clock
            self._elapsed_before += passed
            self._window_s += passed
            self._clock = None

    @property
    def has_pending(self) -> bool:
        """Whether steps wait for a flush."""
        return bool(self._losses or self._earlier["losses"])

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far, validation and saving left out."""
        running = 0.0 if self._clock is None else time.perf_counter() - self._clock
        return self._elapsed_before + running

    def restore(self, step: int, elapsed_s: float, pending: dict[str, Any] | None = None) -> None:
        """Take up an earlier session: its rows up to a step, and what was still pending."""
        self._elapsed_before, self._losses, self._counts, self._norms = elapsed_s, [], [], []
        if pending is not None:
            self._earlier = {name: pending[name] for name in _nothing()}
            self._window_s = pending["window_s"]
        if self._path is None or not self._path.exists():
            return
        self.rows = [row for row in read_rows(self._path) if row["step"] <= step]
        self._rewrite()

    def history(self) -> pd.DataFrame:
        """All rows, indexed by step; training and validation at one step are one row."""
        import pandas as pd

        merged: dict[int, dict[str, Any]] = {}
        for row in self.rows:
            merged.setdefault(row["step"], {}).update(row)
        return pd.DataFrame([merged[step] for step in sorted(merged)])

    def summary(self) -> pd.DataFrame:
        """One row for each validation: losses, perplexities, accuracy, learning rate, time.

        The training loss is that of the last log before it. Without validations, each logged row.
        """
        history = self.history()
        if "val/loss" not in history:
            return history
        names = [name for name in history if not name.startswith("val/")]
        history[names] = history[names].ffill()
        return history[history["val/loss"].notna()].reset_index(drop=True)

    def _append(self, row: dict[str, Any]) -> None:
        """Keep a row; where the file cannot be written, it is written anew with the next row."""
        self.rows.append(row)
        if self._path is None:
            return
        try:
            if self._is_behind:
                self._rewrite()
            else:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(_line(row))
            self._is_behind = False
        except OSError as error:
            if not self._is_behind:
                self._trouble = f"{self._path} cannot be written ({error.strerror}) for now"
            self._is_behind = True

    def _rewrite(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        temporary.write_text("".join(map(_line, self.rows)), encoding="utf-8")
        temporary.replace(self._path)

    def take_trouble(self) -> str:
        """What kept the file from being written, once."""
        trouble, self._trouble = self._trouble, ""
        return trouble


def _nothing() -> dict[str, list[float]]:
    return {"losses": [], "norms": [], "counts": []}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; lines that a crash or an editor tore are left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int) and "epoch" in row:
            rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"

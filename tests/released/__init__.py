"""Runs as released versions wrote them, which every later version has to open.

`python -m tests.released FOLDER` writes the run of the version at hand: paused halfway, with
`expected.json` and `final_model.pt` of the same run unbroken beside it.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn

from helpers.config import TrainingConfig
from helpers.engine.callbacks import Callback
from helpers.task import TaskSpec
from helpers.trainer import Trainer

SETTINGS = {
    "run_name": "halfway",
    "max_steps": 12,
    "batch_size": 4,
    "learning_rate": 0.05,
    "optimizer": "adamw",
    "precision": "fp32",
    "device": "cpu",
    "log_every": 1,
    "eval_every": 4,
    "save_every": 3,
    "keep_checkpoints": 1,
    "panel": "off",
    "database": "off",
}


class Net(nn.Module):
    """A table, dropout, and a buffer that moves; its code is a part of what the run is."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(6, 11)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.norm(self.table(tokens).mT).mT))


class Halfway(Callback):
    """Ask to stop at step 6."""

    def on_log(self, run, row) -> None:
        if row["step"] == 6:
            run.stop.set("halfway")


def samples() -> list[dict[str, torch.Tensor]]:
    """Sequences that count up, modulo 11."""
    return [{"tokens": torch.arange(i, i + 9) % 11} for i in range(40)]


def trainer(output_dir: Path, *callbacks: Callback) -> Trainer:
    """The trainer of the run, with fresh weights."""
    torch.manual_seed(0)
    config = TrainingConfig(output_dir=str(output_dir), **SETTINGS)
    task = TaskSpec.causal_lm(inputs=("tokens",))
    return Trainer(Net(), None, config, task, callbacks=callbacks)


def train(output_dir: Path, *callbacks: Callback):
    """Train until the end, or until a callback asks to stop."""
    return trainer(output_dir, *callbacks).train(samples(), samples()[:8])


def main(folder: Path) -> None:
    """Write the run, and what became of it without a pause."""
    with tempfile.TemporaryDirectory() as scratch:
        folder.mkdir()
        result = train(Path(scratch) / "unbroken")
        losses = (Path(result.run_dir) / "metrics.jsonl").read_text().splitlines()
        shutil.copy(Path(result.run_dir) / "final_model.pt", folder)
        rows = [json.loads(line) for line in losses]
        expected = {f"{row['step']}": row["train/loss"] for row in rows if "train/loss" in row}
        train(Path(scratch) / "paused", Halfway())
        shutil.copytree(Path(scratch) / "paused" / "halfway", folder / "halfway")
    (folder / "halfway" / "LOCK").unlink(missing_ok=True)
    config = folder / "halfway" / "config.json"
    config.write_text(re.sub(r'("output_dir": )"[^"]*"', r'\1"runs"', config.read_text()))
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")

"""Write `training_legacy.ipynb`: a notebook of 54 cells as a user of the old API had it.

Cells are numbered from 0. The old API is in cells 8 (imports), 31 (training), 43 and 44 (search)
and 46 to 53 (sweeps and gist loaders of the second generation); the headers 26, 29 and 42 speak
of it, and cell 4 mentions it in a comment. It cannot run, because what it imports is gone.

Cells 7, 23 and 28 import `TaskSpec`, `TrainingConfig` and `ExperimentDB` from `helpers`: the owner
has moved these three by hand and left the rest. They must come through untouched.
The migrated notebook trains a small model on text of the standard library and runs to its end.
"""

import json
from pathlib import Path

CELLS = [
    ("md", "title", """\
# Train a character model

A small transformer learns to write Python, cell by cell."""),
    ("md", "needs", """\
You need a CPU and a minute. The text is the source of a few modules of the standard library."""),
    ("code", "runtime", """\
import sys

sys.version"""),
    ("md", "setup-text", """\
## 1. Set up

Folders first, then the task and the imports."""),
    ("code", "download", """\
# Fetch files that are missing, such as tier3_training_utilities.py of older copies.
from pathlib import Path

missing = [name for name in ("pyproject.toml",) if not Path(name).exists()]
missing"""),
    ("code", "folders", """\
workspace = Path("runs")
workspace.mkdir(exist_ok=True)"""),
    ("md", "imports-text", """\
## 2. Imports

What is predicted, and the parts that do it."""),
    ("code", "task", """\
from helpers import TaskSpec

task_spec = TaskSpec.causal_lm()"""),
    ("code", "imports", """\
import torch
from torch import nn

from utils.training.training_core import TrainingCoordinator
from utils.training.training_config import TrainingConfig
from utils.tokenization.data_module import SimpleDataModule

print(f"Loaded: {TrainingConfig.__name__}, test_fine_tuning and friends")"""),
    ("code", "seed", """\
torch.manual_seed(42)"""),
    ("md", "data-text", """\
## 3. The data

Characters of real source code."""),
    ("code", "text", """\
import inspect
import textwrap

text = inspect.getsource(textwrap)
len(text)"""),
    ("code", "vocabulary", """\
characters = sorted(set(text))
number_of = {c: i for i, c in enumerate(characters)}
len(characters)"""),
    ("code", "encode", """\
tokens = torch.tensor([number_of[c] for c in text])
tokens.shape"""),
    ("code", "sequences", """\
sequence_length = 32
sequences = tokens[: len(tokens) // 33 * 33].view(-1, 33)
samples = [{"input_ids": row[:-1], "labels": row[1:]} for row in sequences]
val_data, train_data = samples[::10], [s for i, s in enumerate(samples) if i % 10]
len(train_data), len(val_data)"""),
    ("code", "look", """\
"".join(characters[i] for i in train_data[0]["input_ids"])"""),
    ("md", "model-text", """\
## 4. The model

An embedding, one layer of attention, and a head."""),
    ("code", "model-config", """\
from types import SimpleNamespace

config_obj = SimpleNamespace(
    vocab_size=len(characters), d_model=32, n_heads=2, max_seq_len=sequence_length
)"""),
    ("code", "model-class", """\
class CharacterModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.token = nn.Embedding(config.vocab_size, config.d_model)
        self.place = nn.Embedding(config.max_seq_len, config.d_model)
        self.block = nn.TransformerEncoderLayer(
            config.d_model, config.n_heads, 4 * config.d_model, dropout=0.0, batch_first=True
        )
        self.head = nn.Linear(config.d_model, config.vocab_size)

    def forward(self, input_ids):
        n = input_ids.shape[1]
        x = self.token(input_ids) + self.place(torch.arange(n, device=input_ids.device))
        mask = nn.Transformer.generate_square_subsequent_mask(n, device=input_ids.device)
        return self.head(self.block(x, src_mask=mask, is_causal=True))"""),
    ("code", "model-factory", """\
def build_model(config):
    torch.manual_seed(0)
    return CharacterModel(config)"""),
    ("code", "model", """\
model = build_model(config_obj)"""),
    ("code", "parameters-count", """\
sum(p.numel() for p in model.parameters())"""),
    ("md", "settings-text", """\
### Settings

Few steps, so that the whole notebook takes seconds."""),
    ("code", "settings", """\
from helpers import TrainingConfig

training_config = TrainingConfig(
    optimizer="adamw",
    learning_rate=5e-3,
    batch_size=16,
    epochs=3,
    eval_every=10,
    log_every=5,
    save_every=0,
    panel="off",
    output_dir=str(workspace),
)"""),
    ("md", "steps-text", """\
An epoch is one pass over all training sequences."""),
    ("code", "steps", """\
steps_per_epoch = -(-len(train_data) // training_config.batch_size)
steps_per_epoch"""),
    ("md", "tracking-text", """\
## 5. Tracking

Metrics of `test_fine_tuning()` go to W&B if you say so, and to a database in any case."""),
    ("code", "wandb", """\
import os

try:
    import wandb
except ImportError:
    wandb = None
use_wandb = wandb is not None and "WANDB_API_KEY" in os.environ
use_wandb"""),
    ("code", "database", """\
from helpers import ExperimentDB

db = ExperimentDB(training_config.database_url())
db"""),
    ("md", "train-text", """\
## 6. Train

All of it is one call of `test_fine_tuning()` from `utils.tier3_training_utilities`:

```python
results = test_fine_tuning(model, config, train_data, val_data, n_epochs=10)
```"""),
    ("code", "ready", """\
print(f"{steps_per_epoch * training_config.epochs:.0f} steps to go")"""),
    ("code", "train", """\
# Train by test_fine_tuning; the result is a dict.
from utils.tier3_training_utilities import test_fine_tuning

results = test_fine_tuning(
    model=model,
    config=config_obj,
    train_data=train_data,
    val_data=val_data,
    n_epochs=training_config.epochs,
    learning_rate=training_config.learning_rate,
    batch_size=training_config.batch_size,
    use_wandb=use_wandb
)
print(f"from {results['loss_history'][0]:.2f} to {results['loss_history'][-1]:.2f} nats")
print(f"{results['training_time_seconds']:.1f} s")"""),
    ("code", "final-loss", """\
final_loss = results["final_loss"]
final_loss"""),
    ("code", "summary", """\
metrics_summary = results["metrics_summary"]
metrics_summary"""),
    ("code", "curve", """\
metrics_summary.plot(x="epoch", y=["train/loss", "val/loss"])"""),
    ("md", "after-text", """\
## 7. Look at the run

The best epoch, the record, and a check that the loss fell."""),
    ("code", "best", """\
results["best_epoch"]"""),
    ("code", "record", """\
db.runs()"""),
    ("code", "fell", """\
losses = metrics_summary["val/loss"]
assert losses.iloc[-1] < losses.iloc[0], "the loss did not fall\""""),
    ("md", "write-text", """\
## 8. Let it write

One character after another."""),
    ("code", "write", """\
written = tokens[:8]
for _ in range(40):
    with torch.no_grad():
        logits = model(written[None, -sequence_length:])[0, -1]
    written = torch.cat([written, logits.argmax()[None]])"""),
    ("code", "show", """\
"".join(characters[i] for i in written)"""),
    ("md", "search-text", """\
## 9. Search

`test_hyperparameter_search()` tries settings and keeps the best."""),
    ("code", "search-settings", """\
# The search of old: test_hyperparameter_search draws from these ranges.
from utils.tier3_training_utilities import test_hyperparameter_search

run_hp_search = True
n_trials = 2
search_space = {
    "learning_rate": (1e-3, 1e-2),
    "batch_size": [8, 16],
}"""),
    ("code", "search", """\
if run_hp_search:
    hp_results = test_hyperparameter_search(
        model_factory=lambda: build_model(config_obj),
        config=config_obj,
        train_data=train_data,
        n_trials=n_trials,
        search_space=search_space,
        random_seed=42,
    )
    print(hp_results["best_params"], f"{hp_results['best_value']:.3f}")
    print(hp_results["trials_df"])"""),
    ("md", "next-text", """\
## 10. Next

Larger models, longer runs, sweeps."""),
    ("code", "sweep-imports", """\
from utils.training import (
    build_configs_for_mode,
    build_eval_config,
    build_task_spec,
    run_grid_sweep,
    run_training,
)

print("training v4 loaded")"""),
    ("code", "sweep-configs", """\
sweep_configs = build_configs_for_mode("fast")
sweep_task = build_task_spec(sweep_configs[0])"""),
    ("code", "sweep-run", """\
sweep_run = run_training(model, None, sweep_configs[0], sweep_task, build_eval_config())"""),
    ("code", "sweep-grid", """\
sweep_results = run_grid_sweep(sweep_configs[0], {"learning_rate": [1e-4, 1e-3]})"""),
    ("code", "sweep-table", """\
import pandas as pd

pd.DataFrame(sweep_results)"""),
    ("code", "gist-imports", """\
from utils.training import create_repro_bundle, load_gist_model

print("gist loader ready")"""),
    ("code", "gist-model", """\
gist_model, gist_config = load_gist_model("0123456789abcdef")"""),
    ("code", "gist-bundle", """\
create_repro_bundle(gist_model, gist_config, sweep_run)"""),
]  # fmt: skip


def notebook() -> dict:
    """The notebook as JSON, in nbformat 4.5."""
    return {
        "cells": [cell(*entry) for entry in CELLS],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def cell(kind: str, id: str, source: str) -> dict:
    """One cell, with its source as a list of lines."""
    lines = source.splitlines(keepends=True)
    if kind == "md":
        return {"cell_type": "markdown", "id": id, "metadata": {}, "source": lines}
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": id,
        "metadata": {},
        "outputs": [],
        "source": lines,
    }


def text() -> str:
    """The file's content."""
    return json.dumps(notebook(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    path = Path(__file__).with_name("training_legacy.ipynb")
    path.write_text(text(), encoding="utf-8")

"""The data of a run as samples that can be trained on, or a refusal that names what cannot be."""

from __future__ import annotations

from typing import Any

from torch import nn

from helpers.config import TrainingConfig
from helpers.data.labels import Limits, check_samples
from helpers.data.packing import Samples, as_samples
from helpers.errors import ConfigError
from helpers.task import TaskSpec


def samples_for(task: TaskSpec, data: Any, name: str) -> Samples:
    """Data of any known kind as samples with the fields of a task.

    Raises: DataError, naming the argument, if it is of no such kind.
    """
    return as_samples(data, name, inputs=task.inputs[0], labels=task.labels)


def both_samples(
    task: TaskSpec, config: TrainingConfig, train_data: Any, val_data: Any
) -> tuple[Samples, Samples | None]:
    """Training and validation data as samples.

    Raises: DataError as above; ConfigError if the settings need validation data and have none.
    """
    train = samples_for(task, train_data, "train_data")
    val = None if val_data is None else samples_for(task, val_data, "val_data")
    if val is None and config.early_stopping_patience:
        raise ConfigError(
            f"early_stopping_patience is {config.early_stopping_patience}, but "
            "there is no val_data to judge by. Pass val_data, or set it to 0."
        )
    return train, val


def sound_samples(
    task: TaskSpec,
    model: nn.Module,
    model_config: Any,
    config: TrainingConfig,
    train: Samples,
    val: Samples | None,
) -> tuple[Samples, Samples | None, list[tuple[str, str]]]:
    """The samples that can be trained on, and what the run should have on record of the rest.

    Raises: DataError with all that cannot.
    """
    tables = [module for module in model.modules() if type(module) is nn.Embedding]
    limits = Limits(
        task.inputs[0],
        task.labels,
        task.ignore_index,
        n_inputs=max((table.num_embeddings for table in tables), default=0),
        n_labels=getattr(model_config, "vocab_size", 0) or 0,
    )
    train, val, report = check_samples(train, val, limits, config.bad_rows)
    reports = [getattr(train, "report", None), report]
    return train, val, [("data", line) for r in reports if r for line in r.events()]

"""The trained model as a file for others: weights, settings and results as plain types."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from helpers.config import TrainingConfig
from helpers.engine.durable import cause_of
from helpers.errors import CheckpointError


def export_model(
    path: str | Path, model: nn.Module, config: TrainingConfig, results: Mapping[str, Any]
) -> Path:
    """Write `model_state_dict`, `training_config` and `results` in one file.

    `torch.load(path, weights_only=True)` reads it: all values are tensors or plain types. The file
    appears whole or not at all.

    Raises: CheckpointError if it cannot be written.
    """
    path = Path(path)
    content = {
        "model_state_dict": {name: t.detach().cpu() for name, t in model.state_dict().items()},
        "training_config": config.to_dict(),
        "results": plain(results),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        if temporary.exists():
            temporary.unlink()
        needed = sum(t.numel() * t.element_size() for t in content["model_state_dict"].values())
        raise CheckpointError(
            f"The model could not be written to {path} "
            f"({cause_of(error, path.parent, needed)}). Free some space, or choose another folder."
        ) from error
    return path


def load_export(path: str | Path) -> dict[str, Any]:
    """Read what `export_model` wrote.

    Raises: CheckpointError if the file is missing, or is not such an export.
    """
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be read as an exported model ({reason}). Give the path of a "
            "final_model.pt."
        ) from error
    wanted = {"model_state_dict", "training_config", "results"}
    if not isinstance(content, dict) or not wanted <= content.keys():
        raise CheckpointError(
            f"{path} holds no {sorted(wanted)}, but an exported model has them. Give the path of a "
            "final_model.pt."
        )
    return content


def plain(value: Any) -> Any:
    """The same value in types that JSON and a safe `torch.load` know.

    Raises: TypeError for a type that has no plain form.
    """
    if type(value) in (bool, int, float, str, type(None)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, Path):
        return str(value)
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"{type(value).__name__} has no plain form. Convert it first.")

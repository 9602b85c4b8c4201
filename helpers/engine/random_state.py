"""All random states of a process as plain numbers and tensors, to be put back exactly."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helpers.errors import CheckpointError


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture_random_state() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The states as JSON types (Python, NumPy) and as tensors (torch, each GPU)."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    values = {
        "python": [version, list(words), gauss],
        "numpy": [kind, keys.tolist(), position, has_gauss, cached],
    }
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states = torch.cuda.get_rng_state_all()
        tensors |= {f"cuda:{i}": state for i, state in enumerate(states)}
    return values, tensors


def restore_random_state(values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Put back what `capture_random_state` returned; states of absent GPUs are left out.

    A GPU that the checkpoint knows nothing of keeps its state: the run was not on it.

    Raises: CheckpointError if a state of the host is missing, or one is unknown.
    """
    gpus = {name for name in tensors if re.fullmatch(r"cuda:[0-9]+", name)}
    if tensors.keys() - gpus != {"cpu"} or values.keys() != {"python", "numpy"}:
        raise CheckpointError(
            f"The checkpoint holds the random states {sorted([*values, *tensors])}, but python, "
            "numpy, cpu and those of GPUs are wanted. Use an older checkpoint."
        )
    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = values["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))
    # torch reads a state from the start of its storage, which here is that of a whole file.
    torch.set_rng_state(tensors["cpu"].clone())
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda:{i}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda:{i}"].clone(), i)

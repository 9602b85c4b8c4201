"""Do settings, model and data agree? What contradicts is refused, what nothing reads is told."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import nn

from helpers.config import TrainingConfig
from helpers.data.packing import Samples
from helpers.engine.identity import plain_config
from helpers.errors import ConfigError, TaskError

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


def check_model(model: nn.Module) -> None:
    """Refuse a model that cannot be trained here as it is, or not be taken up from a checkpoint.

    Raises: TaskError naming the first reason.
    """
    if not torch.is_grad_enabled():
        raise TaskError(
            "Gradients are switched off here, by torch.no_grad or torch.inference_mode, but "
            "training needs them. Call it outside of that block."
        )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise TaskError(f"{name} has no shape yet. Run the model once on a batch before.")
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.complex64):
            raise TaskError(
                f"{name} is of type {parameter.dtype}, but fp32 is wanted for weights that are "
                "trained: precision='fp16' casts them as needed. Call model.float()."
            )
    for name, module in model.named_modules():
        if getattr(module, "sparse", False) and isinstance(module, nn.Embedding):
            raise TaskError(f"{name} has sparse gradients. Build it with sparse=False.")
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise TaskError(
                f"{name} in the model's state_dict is of type {type(value).__name__}, but tensors "
                "are wanted, which a checkpoint keeps bit for bit. Let get_extra_state return a "
                "tensor, or keep the value in a buffer."
            )
        if any(n > 1 and not step for n, step in zip(value.shape, value.stride(), strict=True)):
            raise TaskError(
                f"{name} in the model's state_dict was expanded, so that many of its elements are "
                "one, and none can be put back. Give it memory of its own with .clone()."
            )
    try:
        # As a checkpoint would be: what cannot be taken up is told before anything is saved.
        model.load_state_dict(model.state_dict(), strict=True)
    except RuntimeError as error:
        what = " ".join(str(error).split())[:300]
        raise TaskError(
            f"The model cannot load its own state_dict ({what}), but a run that is continued has "
            "to. Let load_state_dict take what state_dict returns."
        ) from error


def check_names(model: nn.Module, before: Collection[str]) -> None:
    """Compare the names of a model's state after a first step with those before it.

    Raises: TaskError if they differ, as a model that is built anew could not take them up.
    """
    changed = sorted(set(before) ^ model.state_dict().keys())
    if changed:
        raise TaskError(
            f"The first step changed which names the model's state_dict has: {changed[:5]}. A run "
            "that is continued builds the model anew and needs the same ones. Make them in "
            "__init__, or run the model once on a batch before."
        )


def own_generators(model: nn.Module) -> list[str]:
    """Random generators that a model holds itself, whose states no checkpoint has."""
    return [
        f"{name}.{attribute}".lstrip(".")
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if isinstance(value, GENERATORS)
    ]


def check_agreement(config: TrainingConfig, model_config: Any, train: Samples) -> list[str]:
    """Compare what the user set with what model and data were built with.

    Returns the names of settings that the user changed and that neither of them knows.

    Raises: ConfigError if a value differs from the one that was built in.
    """
    shape = plain_config(model_config)
    unread = _compare(config, "model", shape if isinstance(shape, dict) else {}, "model")
    unread += _compare(config, "data", getattr(train, "settings", {}), "data")
    tokenizer = getattr(train, "tokenizer", None)
    _check_vocabulary(shape, tokenizer)
    if tokenizer is None:
        unread += [n for n in ("sample_tokens", "sample_prompt") if _is_changed(config, n)]
    return [name for name in unread if name not in ("cache_dir", "num_workers")]


def _compare(config: TrainingConfig, group: Any, built: dict[str, Any], what: str) -> list[str]:
    unread = []
    for name, value in config.group(group).items():
        if name not in built:
            unread += [name] if _is_changed(config, name) else []
        elif built[name] != value and config.origin(name) != "default":
            raise ConfigError(
                f"{name} is {value!r} in the settings, but the {what} was built with "
                f"{built[name]!r}. Build the {what} from the settings, or leave {name} out."
            )
    return unread


def _check_vocabulary(shape: Any, tokenizer: Any) -> None:
    size = shape.get("vocab_size") if isinstance(shape, dict) else None
    if tokenizer is not None and isinstance(size, int) and size < tokenizer.vocab_size:
        raise ConfigError(
            f"The model was built for {size} tokens, but the data has {tokenizer.vocab_size}. "
            "Build the model with the vocab_size of the data."
        )


def _is_changed(config: TrainingConfig, name: str) -> bool:
    default = TrainingConfig.model_fields[name].default
    return config.origin(name) == "user" and getattr(config, name) != default

"""Which names a search may have: settings that say how a model learns, and those of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helpers.config import check_name, group_of
from helpers.errors import ConfigError

# A name behind this prefix is a keyword of the model's factory, and no setting.
MODEL = "model."
RENAMED = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "warmup_ratio": "warmup_fraction",
    "gradient_clip_norm": "max_grad_norm",
    "grad_clip": "max_grad_norm",
    "gradient_clipping": "max_grad_norm",
}
SEEDS = {"seed", "random_seed"}
UNSEARCHED = {
    "data": "all trials share the data",
    "checkpointing": "it does not change what a model learns",
    "logging": "it does not change what a model learns",
}


def fault_of_name(name: str) -> str:
    """Why a search may not have this name, as a sentence, or an empty text."""
    if not isinstance(name, str):
        return f"{name!r} is a {type(name).__name__}, but the name of a setting is wanted."
    if name.startswith(MODEL):
        return _fault_of_model_name(name)
    if name in SEEDS:
        return (
            f"{name} is never searched: the best of several seeds is luck. Set seed in "
            "training_config, and repeat the best trials on others."
        )
    if name in RENAMED:
        return f"{name} is not a setting. Use {RENAMED[name]}."
    try:
        check_name(name)
    except ConfigError as error:
        return f"{error} A name of the model's factory is written {MODEL}{name}."
    group = group_of(name)
    if group in UNSEARCHED:
        return f"{name} is not searched: {UNSEARCHED[group]}. Set it in training_config."
    return ""


def model_values(params: Mapping[str, Any]) -> dict[str, Any]:
    """The values for the model's factory, by keyword."""
    return {n.removeprefix(MODEL): v for n, v in params.items() if n.startswith(MODEL)}


def setting_values(params: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are settings."""
    return {n: v for n, v in params.items() if not n.startswith(MODEL)}


def _fault_of_model_name(name: str) -> str:
    keyword = name.removeprefix(MODEL)
    if not keyword.isidentifier():
        return f"{name} was given, but behind {MODEL} a keyword of the model's factory is wanted."
    if keyword in SEEDS:
        return f"{name} is never searched: the best of several seeds is luck. Leave it out."
    return ""

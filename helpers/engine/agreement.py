"""Do settings, model and data agree? What contradicts is refused, what nothing reads is told."""

from __future__ import annotations

from typing import Any

from helpers.config import TrainingConfig
from helpers.data.packing import Samples
from helpers.engine.identity import plain_config
from helpers.errors import ConfigError


def check_agreement(config: TrainingConfig, model_config: Any, train: Samples) -> list[str]:
    """Compare what the user set with what model and data were built with.

    Returns the names of settings that the user changed and that neither of them knows.

    Raises: ConfigError if a value differs from the one that was built in.
    """
    shape = plain_config(model_config)
    unread = _compare(config, "model", shape if isinstance(shape, dict) else {}, "model")
    unread += _compare(config, "data", getattr(train, "settings", {}), "data")
    if getattr(train, "tokenizer", None) is None:
        unread += [n for n in ("sample_tokens", "sample_prompt") if _is_changed(config, n)]
    return [name for name in unread if name != "cache_dir"]


def _compare(config: TrainingConfig, group: Any, built: dict[str, Any], what: str) -> list[str]:
    unread = []
    for name, value in config.group(group).items():
        if not _is_changed(config, name):
            continue
        if name not in built:
            unread.append(name)
        elif built[name] != value:
            raise ConfigError(
                f"{name} is {value!r} in the settings, but the {what} was built with "
                f"{built[name]!r}. Build the {what} from the settings, or leave {name} out."
            )
    return unread


def _is_changed(config: TrainingConfig, name: str) -> bool:
    default = TrainingConfig.model_fields[name].default
    return config.origin(name) == "user" and getattr(config, name) != default

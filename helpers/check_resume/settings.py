"""The settings of a check: the user's own, in a folder apart, and saved often enough to be killed.

What a run computes is left as it is; only its length, its cadences and its places change.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from helpers.config import TrainingConfig
from helpers.engine.plan import run_length
from helpers.errors import ConfigError

RUN_NAME = "run"
PLACES = ("output_dir", "run_name", "resume", "mirror_dir", "database", "panel")
"""Settings that the check decides, so that nothing of the user's is touched."""
CADENCES = ("max_steps", "epochs", "save_every", "save_minutes", "eval_every", "log_every")
"""Settings that the check may change, and shows."""
LEAST_STEPS = 4


@dataclass(frozen=True)
class Spec:
    """What a session trains: a target with the settings in a file, bounded for so many kills."""

    target: str
    config_file: str
    steps: int
    kills: int

    def save(self, path: Path) -> Path:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Spec:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def refuse_clock(config: TrainingConfig) -> None:
    """Raise ConfigError for a run that a clock ends, which is never the same twice."""
    for name in ("budget", "finish_by"):
        value = getattr(config, name)
        if value:
            raise ConfigError(
                f"{name} is {value!r}, but a run that a clock ends is never the same twice, so "
                f"there is nothing to compare. Empty it for the check and set the length in steps, "
                f"as --set {name}= --set max_steps=40."
            )


def in_scratch(config: TrainingConfig, folder: Path) -> TrainingConfig:
    """The same settings with all places below a folder; mirror and panel are off."""
    return config.replace(
        output_dir=str(folder),
        run_name=RUN_NAME,
        resume="auto",
        mirror_dir="",
        database="off" if config.database == "off" else "auto",
        panel="off",
    )


def bounded(
    config: TrainingConfig, n_samples: int, *, has_val: bool, steps: int, kills: int
) -> TrainingConfig:
    """The same settings with at most so many steps, and saves and validations between the kills.

    Raises: ConfigError if the run is too short to be killed, or if a clock ends it.
    """
    refuse_clock(config)
    own = run_length(config, n_samples)
    length = min(own, steps)
    if length < LEAST_STEPS:
        raise ConfigError(
            f"The run has {length} steps, but {LEAST_STEPS} are wanted to kill it in between. "
            "Set max_steps higher, or lower batch_size if epochs decides."
        )
    # An odd one, so that losses that are not logged yet are a part of some checkpoints.
    save_every = max(1, length // (2 * (kills + 1))) | 1
    changes: dict[str, Any] = {
        "save_every": min(config.save_every or save_every, save_every),
        "save_minutes": 0.0,
        "log_every": min(config.log_every, max(2, length // 20)),
    }
    if length < own:
        changes |= {"max_steps": length, "epochs": 0.0}
    if has_val and config.eval_every:
        changes["eval_every"] = min(config.eval_every, max(1, length // (kills + 1)))
    return config.replace(**changes)


def check_obeyed(given: TrainingConfig, own: TrainingConfig, target: str) -> None:
    """Raise ConfigError if a trainer was built without the settings that were asked for."""
    ignored = [
        f"{name} is {there!r} where {here!r} was asked for"
        for name, (here, there) in given.diff(own).items()
        if name not in PLACES and given.origin(name) not in ("default", "automatic")
    ]
    if ignored:
        raise ConfigError(
            f"{target} returned a trainer with other settings than it was given: "
            f"{'; '.join(ignored)}. Build the Trainer with the config that the function gets."
        )

"""Old settings and keywords, and the settings of ours that they become."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

from tools.codemod.build import Argument, call_text
from tools.codemod.draft import Draft

RENAMED = {
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "random_seed": "seed",
    "gradient_clip_norm": "max_grad_norm",
    "checkpoint_dir": "output_dir",
    "warmup_ratio": "warmup_fraction",
    "max_seq_len": "sequence_length",
    "num_layers": "n_layers",
    "num_heads": "n_heads",
    "val_split": "val_fraction",
    "lr": "learning_rate",
    "wd": "weight_decay",
}
SAME = (
    "epochs", "learning_rate", "batch_size", "weight_decay", "deterministic", "run_name", "seed",
    "max_grad_norm", "output_dir",
)  # fmt: skip
CHOICES = {
    "use_amp": ("precision", "auto", "fp32"),
    "use_lr_schedule": ("scheduler", "wsd", "constant"),
}
"""Switches that became a choice: the setting, its value for True and for False."""

DROPPED = {
    "adapter": "models are called as they are, and `forward` may have any signature",
    "log_grad_dist_every": "the norm of the gradient is in result.history",
    "log_grad_histogram": "the norm of the gradient is in result.history",
}
WANDB = (
    "metrics go to metrics.jsonl, result.history and ExperimentDB; "
    "send result.history to W&B after training"
)
ACCUMULATION = "gradient_accumulation_steps"
LEGACY_DEFAULTS = {
    "epochs": "3",
    "learning_rate": "5e-5",
    "weight_decay": "0.01",
    "batch_size": "4",
    "precision": '"fp32"',
}
"""What the function API took where nothing was said, and what differs from ours."""

OPTIMIZER = {"optimizer": '"adamw"'}
"""Old learning rates are meant for AdamW."""


DEPTH = 12
"""How far a builder's methods stand from the margin, at the least."""


@dataclass
class Converted:
    """Settings of ours as code, by name, and what is to be said."""

    settings: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def converted(draft: Draft, given: Mapping[str, str], batch_size: str = "4") -> Converted:
    """Settings of ours for old ones given as code; `batch_size` is the one if none is given."""
    result = Converted()
    for name, code in given.items():
        if name in DROPPED and code in ("None", "False"):
            continue
        if name in DROPPED:
            result.dropped.append(f"{name}={code} is dropped: {DROPPED[name]}.")
        elif name == "use_wandb":
            _convert_wandb(draft, code, result)
        elif name == ACCUMULATION:
            _convert_accumulation(given, code, batch_size, result)
        elif name in CHOICES:
            _convert_choice(name, code, result)
        elif (ours := RENAMED.get(name, name)) in draft.fields or ours in SAME:
            result.settings.setdefault(ours, code)
        else:
            result.unknown.append(name)
    return result


def _convert_wandb(draft: Draft, code: str, result: Converted) -> None:
    if code == "False":
        return
    if "loggers" in draft.fields:
        result.settings["loggers"] = (
            '["wandb"]' if code == "True" else f'["wandb"] if {code} else []'
        )
    else:
        result.dropped.append(f"use_wandb={code} is dropped: {WANDB}.")


def _convert_choice(name: str, code: str, result: Converted) -> None:
    setting, yes, no = CHOICES[name]
    if code == "True":
        result.settings[setting] = f'"{yes}"'
    elif code == "False":
        result.settings[setting] = f'"{no}"'
    else:
        result.settings[setting] = f'"{yes}" if {code} else "{no}"'


def _convert_accumulation(
    given: Mapping[str, str], code: str, batch_size: str, result: Converted
) -> None:
    """The old batch went through the model at once; ours is the batch of one update."""
    if code == "1":
        return
    one = given.get("batch_size", batch_size)
    product = f"{_factor(one)} * {_factor(code)}"
    if one.isdigit() and code.isdigit():
        product = str(int(one) * int(code))
    result.settings["batch_size"] = product
    result.settings["micro_batch_size"] = one


def _factor(code: str) -> str:
    is_simple = all(part.isidentifier() for part in code.split(".")) or code.isdigit()
    return code if is_simple else f"({code})"


def group_of(draft: Draft, name: str) -> str:
    """The group of a setting, by which the builder's methods are called."""
    return draft.fields.get(name, {}).get("group", "settings")


def builder_text(draft: Draft, base: str, builder: str, settings: Mapping[str, str]) -> str:
    """A config that differs from another in some settings."""
    groups: dict[str, list[Argument]] = {}
    for name, code in settings.items():
        groups.setdefault(group_of(draft, name), []).append((name, code))
    steps = [call_text(f".with_{group}", parts, DEPTH) for group, parts in groups.items()]
    lines = "\n".join([f"{builder}.from_config({base})", *steps, ".build()"])
    return "(\n" + textwrap.indent(lines, "    ") + "\n)"

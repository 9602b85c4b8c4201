"""What makes a run this run: settings, data, model and task, and the name they give it."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import json
import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from helpers.config import TrainingConfig, role_of
from helpers.engine.checkpoint import STATE
from helpers.engine.random_state import capture_random_state, restore_random_state
from helpers.engine.run_folder import read_json
from helpers.errors import CheckpointError, ConfigError
from helpers.task import TaskSpec

if TYPE_CHECKING:
    from helpers.data.packing import Samples
    from helpers.engine.run_folder import RunFolder

N_LOOKED_AT = 64
EXTENSIONS = "extensions"
"""Where run.json and checkpoints keep the changes of a run's schedule, oldest first."""


def run_identity(
    config: TrainingConfig,
    task: TaskSpec,
    model: nn.Module,
    model_config: Any,
    train: Samples,
    val: Samples | None,
) -> dict[str, Any]:
    """Describe a run as plain JSON; `run_id` is its run_name, or follows from the rest."""
    shapes = {n: [str(p.dtype), *p.shape] for n, p in model.named_parameters()}
    identity = {
        "settings": {n: v for n, v in config.to_dict().items() if role_of(n) != "runtime"},
        "task": task.to_dict(),
        "model": {
            "class": type(model).__name__,
            "config": plain_config(model_config),
            "code": _code_digest(model),
        },
        "parameters": _digest(shapes),
        "data": data_fingerprint(train),
        "validation data": None if val is None else data_fingerprint(val),
    }
    return {"run_id": config.run_name or f"run-{_digest(identity)}", **identity}


def data_fingerprint(data: Samples) -> str:
    """What the data calls itself, or a digest of its length and of up to 64 samples.

    Data that is drawn at random differs at each look; then only its length identifies it.
    """
    known = getattr(data, "fingerprint", None)
    if known is not None:
        return known
    random_state = capture_random_state()
    looks = {_digest_samples(data) for _ in range(2)}
    restore_random_state(*random_state)
    return looks.pop() if len(looks) == 1 else f"{len(data)} samples drawn at random"


def check_identity(folder: RunFolder, identity: dict[str, Any], config: TrainingConfig) -> None:
    """Record a new run, or refuse to continue one that was started with something else.

    Raises: CheckpointError with every difference; RunFolderError if it cannot be written.
    """
    before = recorded_identity(folder)
    if before is not None:
        check_same_run(before, identity, folder.run_id)
        if EXTENSIONS in before:
            identity[EXTENSIONS] = before[EXTENSIONS]
    # A new run, or one whose run.json is lost: its checkpoints know it too.
    if before is None or before != folder.read_identity():
        with folder.writing():
            # First, because with the other in place nobody would write it again.
            config.save(folder.config_file)
            folder.write_identity(identity)


def recorded_identity(folder: RunFolder) -> dict[str, Any] | None:
    """What a run is on record with: by its run.json, or by a checkpoint that knows more of it.

    On another machine than the one that extended a run, the checkpoint is pulled back alone.
    """
    identity, steps = folder.read_identity(), folder.checkpoints.steps()
    state = read_json(folder.checkpoints.path(steps[-1]) / STATE) if steps else None
    own = (state or {}).get("identity") or {}
    known = 0 if identity is None else len(identity.get(EXTENSIONS, ()))
    return own if len(own.get(EXTENSIONS, ())) > known else identity


def check_same_run(before: dict[str, Any], identity: dict[str, Any], run_id: str) -> None:
    """Raise CheckpointError with every difference between what a run was and what it would be.

    A setting that did not exist when the run was started had its default.
    """
    defaults = {n: f.default for n, f in TrainingConfig.model_fields.items()}
    fixed = {n: v for n, v in defaults.items() if role_of(n) != "runtime"}
    if "settings" in before:
        before = {**before, "settings": {**fixed, **before["settings"]}}
    differences = _differences(_without_extensions(before), _without_extensions(identity))
    if differences:
        listing = "\n".join(f"- {line}" for line in differences)
        names = [line.partition(":")[0] for line in differences]
        hint = ""
        if all(name in fixed and role_of(name) == "schedule" for name in names):
            hint = _how_to_extend(names, before, identity["settings"], run_id)
        raise CheckpointError(
            f"The run {run_id} was started with other settings:\n{listing}\n{hint}"
            "Put them back to continue it, or choose another run_name to start anew."
        )


def _how_to_extend(
    names: list[str], before: dict[str, Any], wanted: dict[str, Any], run_id: str
) -> str:
    """The call that changes these settings; a warm-up that an extension set follows by itself."""
    if EXTENSIONS in before:
        names = [n for n in names if n != "warmup_fraction"] or [
            n for n in ("max_steps", "epochs") if wanted[n]
        ]
    given = ", ".join(f"{name}={wanted[name]!r}" for name in names)
    return f"To go on with these, call extend(..., run_id={run_id!r}, {given}) of the trainer. "


def as_extended(before: dict[str, Any], identity: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its run, with the extensions since then applied."""
    done = before.get(EXTENSIONS, [])
    extensions = identity.get(EXTENSIONS, [])
    if done == extensions or done != extensions[: len(done)]:
        return before
    settings = dict(before.get("settings", {}))
    for extension in extensions[len(done) :]:
        for name, (was, now) in extension["settings"].items():
            if settings.get(name, was) == was:
                settings[name] = now
    return {**before, "settings": settings}


def _without_extensions(identity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name != EXTENSIONS}


def plain_config(model_config: Any) -> Any:
    """A model's config as plain JSON types, whatever it is."""
    if model_config is None or isinstance(model_config, str | int | float | bool | list | tuple):
        return _plain(model_config, "config")
    if hasattr(model_config, "to_dict"):
        model_config = model_config.to_dict()
    elif dataclasses.is_dataclass(model_config):
        model_config = dataclasses.asdict(model_config)
    elif not isinstance(model_config, Mapping) and hasattr(model_config, "__dict__"):
        model_config = vars(model_config)
    return _plain(model_config, "config")


def _plain(value: Any, name: str) -> Any:
    """A value of a model's config in JSON types that are the same in every process.

    Raises: ConfigError for an object that has no such form.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(item, name) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    text = str(value)
    if " at 0x" in text:
        raise ConfigError(
            f"{name} in the model's config is a {type(value).__name__}, whose text differs in "
            "every process, so a run could not be found again. Give it a __str__, or leave it out."
        )
    return text


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Leaves that differ, as `path: was ..., is ...`."""
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in sorted(before.keys() | now.keys()):
            name = f"{path}.{key}" if path and path != "settings" else key
            lines += _differences(before.get(key), now.get(key), name)
        return lines
    return [] if before == now else [f"{path}: was {before!r}, is {now!r}"]


def _code_digest(model: nn.Module) -> str | None:
    """Digest of the classes that the user wrote, comments and docstrings left out.

    Classes of torch and of this package do not enter: a new version of them is the same model.
    """
    trees = []
    for kind in sorted({type(m) for m in model.modules()}, key=lambda k: k.__qualname__):
        if kind.__module__.partition(".")[0] in ("torch", "helpers"):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
        except (OSError, TypeError, SyntaxError):  # no source at hand, as of a built-in class
            continue
        trees.append(_without_docstrings(tree))
    return _digest(trees) if trees else None


def _without_docstrings(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _digest_samples(data: Samples) -> str:
    index = np.unique(np.linspace(0, len(data) - 1, min(N_LOOKED_AT, len(data))).astype(np.int64))
    digest = hashlib.sha256(str(len(data)).encode())
    for name, tensor in sorted(data.gather(index).fields.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

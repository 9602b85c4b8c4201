"""The target of a check: a function that builds trainer and data, found by name in any process."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from helpers.config import TrainingConfig
from helpers.data import UniversalDataModule
from helpers.errors import ConfigError, HelpersError
from helpers.models import DecoderConfig, build_decoder
from helpers.task import TaskSpec
from helpers.trainer import Trainer

FORM = "package.module:function or path/file.py:function"


def text_model(config: TrainingConfig) -> tuple[Trainer, Any, Any]:
    """The trainer and data of training.ipynb."""
    data = UniversalDataModule.from_config(config)
    model_config = DecoderConfig(data.vocab_size, **config.group("model"))
    model = build_decoder(model_config, seed=config.seed)
    return Trainer(model, model_config, config, TaskSpec.causal_lm()), data.train, data.val


DEFAULT = f"{__name__}:text_model"


def name_of(make_trainer: Callable[..., Any] | str | None) -> str:
    """The name by which another process finds a function.

    >>> name_of(text_model)
    'helpers.check_resume.target:text_model'

    Raises: ConfigError for a function that no other process could import.
    """
    if make_trainer is None:
        return DEFAULT
    if isinstance(make_trainer, str):
        return make_trainer
    module, name = (
        getattr(make_trainer, "__module__", ""),
        getattr(make_trainer, "__qualname__", ""),
    )
    if name.isidentifier() and module == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        module = str(Path(file).absolute()) if file else ""
    if not module or not name.isidentifier():
        raise ConfigError(
            f"make_trainer is {name or type(make_trainer).__name__}, which lives in this process "
            "alone, but the processes that are killed must import it. Write it as a function of a "
            f"file, as with %%writefile in a notebook, and pass {FORM}."
        )
    return f"{module}:{name}"


def build(target: str, config: TrainingConfig) -> tuple[Trainer, Any, Any]:
    """Call the function that a name stands for: trainer, training data, validation data or None.

    Raises: ConfigError if it cannot be imported or called, or returns something else.
    """
    make = _load(target)
    _check_takes_config(make, target)
    try:
        built = make(config)
    except HelpersError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{target} was called with the settings and ended with {_told(error)}. Mend that, or "
            "leave out the settings that it cannot do with."
        ) from error
    return _checked(built, target)


def _load(target: str) -> Callable[..., Any]:
    place, _, name = target.rpartition(":")
    if not place or not name.isidentifier():
        raise ConfigError(f"target is {target!r}, but {FORM} is wanted. Name one.")
    try:
        is_file = place.endswith(".py")
        module = _module_of_file(Path(place)) if is_file else importlib.import_module(place)
    except Exception as error:
        hint = "Start where it lies, or give the path of its file, as path/file.py:function."
        if not isinstance(error, ModuleNotFoundError | FileNotFoundError):
            hint = "Mend that, so that it can be imported."
        raise ConfigError(
            f"target is {target!r}, but importing {place} ended with {_told(error)}. {hint}"
        ) from error
    make = getattr(module, name, None)
    if not callable(make):
        known = [n for n, value in vars(module).items() if inspect.isfunction(value)]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else f" Write one, or name another: {FORM}."
        raise ConfigError(f"target is {target!r}, but {place} has no function {name}.{hint}")
    return make


def _module_of_file(path: Path) -> ModuleType:
    """The module that a file holds; like a script it finds those beside it."""
    path = path.expanduser().absolute()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    sys.path.insert(0, str(path.parent))
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_target"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _check_takes_config(make: Callable[..., Any], target: str) -> None:
    try:
        inspect.signature(make).bind(None)
    except TypeError as error:
        raise ConfigError(
            f"{target} is to be called with the settings, but it does not fit: {error}. Write it "
            "as def make_trainer(config)."
        ) from error
    except ValueError:  # a builtin, whose signature is not known
        return


def _checked(built: Any, target: str) -> tuple[Trainer, Any, Any]:
    if not isinstance(built, tuple) or len(built) != 3 or not isinstance(built[0], Trainer):
        got = type(built).__name__
        if isinstance(built, tuple):
            got = f"({', '.join(type(part).__name__ for part in built)})"
        raise ConfigError(
            f"{target} returned {got}, but (trainer, train_data, val_data) is wanted. Return "
            "these three, with None for val_data where there is none."
        )
    return built


def _told(error: BaseException) -> str:
    """An error in one line, with the line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "importlib" not in f.filename and f.filename != __file__]
    last = own[-1] if own else None
    where = "" if last is None else f" in {Path(last.filename).name}, line {last.lineno}"
    return f"{type(error).__name__}{where}: {str(error).partition(chr(10))[0].rstrip('.')}"

"""The model of a trial: built anew after seeding, and sharing no weight with another trial."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from helpers.config import TrainingConfig, group_of
from helpers.engine.random_state import set_seed
from helpers.errors import ConfigError, TaskError
from helpers.search.names import model_values, setting_values


class ModelFactory:
    """Call the user's function for each trial, with the settings if it takes them.

    Raises: ConfigError for a model where a function is wanted.
    """

    def __init__(self, make_model: Callable[..., nn.Module]) -> None:
        if isinstance(make_model, nn.Module):
            raise ConfigError(
                "model_factory is a model, but a function that makes one is wanted: a model would "
                "be shared between trials, and each would start from the weights of the one "
                "before. Pass a function of the settings, as lambda config: MyModel()."
            )
        if not callable(make_model):
            raise ConfigError(
                f"model_factory is of type {type(make_model).__name__}, but a function that makes "
                "a model is wanted. Pass one, as lambda config: MyModel()."
            )
        self._make_model = make_model
        self._takes_config = takes_settings(make_model)
        self._weights: dict[int, weakref.ref] = {}

    def fault(self, params: Mapping[str, Any]) -> str:
        """Why the function cannot be called for these values, or an empty text."""
        keywords = model_values(params)
        try:
            signature = inspect.signature(self._make_model)
            signature.bind(*([None] if self._takes_config else []), **keywords)
        except TypeError as error:
            return (
                f"model_factory is to be called with {_wanted(self._takes_config, keywords)}, but "
                f"it does not fit: {error}. Change its arguments, or the names in the space."
            )
        except ValueError:  # a builtin, whose signature is not known
            pass
        shape = [name for name in setting_values(params) if group_of(name) == "model"]
        if shape and not self._takes_config:
            return (
                f"{', '.join(shape)} would be searched, but model_factory takes no settings and "
                "would build the same model each time. Give it an argument, as lambda config: ..."
            )
        return ""

    def build(self, config: TrainingConfig, params: Mapping[str, Any]) -> nn.Module:
        """Make the model of a trial.

        Raises: TaskError if it is no model; ConfigError if it shares weights with an earlier one.
        """
        set_seed(config.seed)
        arguments = [config] if self._takes_config else []
        model = self._make_model(*arguments, **model_values(params))
        if not isinstance(model, nn.Module):
            raise TaskError(
                f"model_factory returned a {type(model).__name__}, but a model is wanted. Return "
                "an nn.Module."
            )
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for name, parameter in trained.items():
            before = self._weights.get(id(parameter))
            if before is not None and before() is parameter:
                raise ConfigError(
                    f"model_factory returned a model whose {name} is that of an earlier trial, but "
                    "each trial starts from weights of its own. Build the model inside the "
                    "function."
                )
        self._weights |= {id(p): weakref.ref(p) for p in trained.values()}
        return model


def takes_settings(make_model: Callable[..., Any]) -> bool:
    """Whether the first argument is for the settings: it has no default, or is called config."""
    try:
        parameters = list(inspect.signature(make_model).parameters.values())
    except (TypeError, ValueError):
        return True
    if not parameters or parameters[0].kind in (
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    ):
        return False
    first = parameters[0]
    return first.default is inspect.Parameter.empty or first.name in ("config", "training_config")


def _wanted(takes_config: bool, keywords: Mapping[str, Any]) -> str:
    arguments = ["the settings"] if takes_config else []
    arguments += [f"{name}=" for name in keywords]
    return " and ".join(filter(None, [", ".join(arguments)])) or "nothing"

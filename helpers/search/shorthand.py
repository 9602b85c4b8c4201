"""A space written with tuples, lists and plain values, or as plain data that was saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helpers.config import TrainingConfig
from helpers.errors import ConfigError
from helpers.search.names import fault_of_name
from helpers.search.parameters import Choice, Const, Float, Int, Parameter, from_plain
from helpers.search.space import Constraint, faults_in, refusal

# Settings whose tuples are logarithmic: their useful values lie powers of ten apart.
LOGARITHMIC = {"learning_rate", "weight_decay", "epsilon"}


def read_space(values: Any) -> tuple[dict[str, Parameter], list[Constraint]]:
    """Parameters and constraints of a space.

    Raises: ConfigError with all faults at once.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"The space is {values!r}, but names with ranges and choices are wanted, such as "
            "{'learning_rate': (1e-4, 1e-2)}."
        )
    named, written = values, []
    if "parameters" in values and values.keys() <= {"parameters", "constraints"}:
        named, written = values["parameters"], values.get("constraints", [])
    parameters, constraints, faults = {}, [], []
    for name, value in named.items():
        try:
            parameters[name] = read_parameter(name, value)
        except ConfigError as error:
            faults.append(fault_of_name(name) or f"{name}: {error}")
    for item in written:
        try:
            constraints.append(_read_constraint(item))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise refusal("space", faults + faults_in(parameters, constraints))
    return parameters, constraints


def read_parameter(name: str, value: Any) -> Parameter:
    """One parameter from a tuple, a list, a dict or a plain value.

    >>> read_parameter("learning_rate", (1e-4, 1e-2))
    Float(0.0001, 0.01, log=True)
    >>> read_parameter("n_layers", (1, 4))
    Int(1, 4)
    """
    if isinstance(value, Parameter):
        return value
    if isinstance(value, Mapping):
        return from_plain(dict(value))
    if isinstance(value, list):
        return Choice(value)
    if not isinstance(value, tuple):
        return Const(value)
    if len(value) != 2:
        raise ConfigError(
            f"{value} was given, but a tuple is a range with two bounds. Write choices as a list."
        )
    low, high = value
    if _is_whole(name, value):
        return Int(low, high)
    return Float(low, high, log=name in LOGARITHMIC and isinstance(low, int | float) and low > 0)


def _is_whole(name: str, bounds: tuple[Any, Any]) -> bool:
    """Whether a range has whole numbers: the setting decides, and without one the bounds do."""
    field = TrainingConfig.model_fields.get(name)
    if field is not None:
        return field.annotation is int
    return all(isinstance(bound, int) for bound in bounds)


def _read_constraint(item: Any) -> Constraint:
    if isinstance(item, Constraint):
        return item
    if not isinstance(item, Mapping) or not {"expression"} <= item.keys() <= {
        "expression",
        "reason",
    }:
        raise ConfigError(
            f"{item!r} was given as a constraint, but expression and reason are wanted."
        )
    return Constraint(**item)

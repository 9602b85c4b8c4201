"""SearchSpace: what is searched, as plain data, checked against the settings when it is made."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.config import TrainingConfig, check_value
from helpers.errors import ConfigError
from helpers.search.expression import evaluate, names_in
from helpers.search.names import MODEL, fault_of_name
from helpers.search.parameters import (
    Choice,
    Const,
    Derived,
    Drawn,
    Float,
    Int,
    Parameter,
    When,
    drawn_within,
    to_plain,
)
from helpers.search.ranges import short


@dataclass(frozen=True, repr=False)
class Constraint:
    """What must hold in every trial, as `Constraint("d_model % n_heads == 0", "whole heads")`.

    It holds where one of the values that it reads is not there. `reason` is told when it rules out
    too much.
    """

    expression: str
    reason: str = ""

    def __post_init__(self) -> None:
        names_in(self.expression)

    def __repr__(self) -> str:
        return short(self)

    def __str__(self) -> str:
        return f"{self.reason} ({self.expression})" if self.reason else self.expression


class SearchSpace:
    """Parameters by name, in order, and constraints over their values.

    Names are settings of `TrainingConfig`, or `model.<name>` for keywords of the model's factory.

    >>> space = SearchSpace({"weight_decay": Float(0, 1), "n_layers": Int(1, 3)})
    >>> space.at([0.25, 0.5])
    {'weight_decay': 0.25, 'n_layers': 2}

    Raises: ConfigError with all faults at once, as unknown names, values that a setting may not
    have, and seeds, which are never searched.
    """

    def __init__(
        self, parameters: Mapping[str, Parameter], constraints: Sequence[Constraint] = ()
    ) -> None:
        self.parameters, self.constraints = dict(parameters), tuple(constraints)
        faults = faults_in(self.parameters, self.constraints)
        if not self.parameters:
            faults = ["The space is empty, but something is to be searched. Give a parameter."]
        if faults:
            raise refusal("space", faults)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSpace:
        """Read what `to_dict` returned, or names with tuples, lists and plain values.

        A tuple is a range with both bounds, of whole numbers where the setting is one; it is
        logarithmic for learning_rate, weight_decay and epsilon above zero. A list has choices, and
        any other value is the same in all trials.
        """
        from helpers.search.shorthand import read_space

        return cls(*read_space(values))

    def to_dict(self) -> dict[str, Any]:
        """The space as plain JSON types."""
        return {
            "parameters": {name: to_plain(p) for name, p in self.parameters.items()},
            "constraints": [
                {"expression": c.expression, "reason": c.reason} for c in self.constraints
            ],
        }

    @property
    def drawn(self) -> dict[str, Drawn]:
        """What values are drawn from, by name, in order."""
        found = {name: drawn_within(parameter) for name, parameter in self.parameters.items()}
        return {name: drawn for name, drawn in found.items() if drawn is not None}

    def at(self, point: Sequence[float]) -> dict[str, Any]:
        """Values at a point of the unit cube with a coordinate for each drawn name."""
        shares = dict(zip(self.drawn, point, strict=True))
        return next(self.expand(lambda name, drawn: [drawn.at(shares[name])]))

    def expand(self, options: Callable[[str, Drawn], Sequence[Any]]) -> Iterator[dict[str, Any]]:
        """All combinations of options, the last name changing fastest; only active names."""
        return _expand(list(self.parameters.items()), {}, options)

    def broken(self, values: Mapping[str, Any]) -> Constraint | None:
        """The first constraint that these values break, if there is one."""
        for constraint in self.constraints:
            is_read = names_in(constraint.expression) <= values.keys()
            if is_read and not evaluate(constraint.expression, values):
                return constraint
        return None

    def __eq__(self, other: object) -> bool:
        # As text, because the order of names decides which values are drawn.
        return isinstance(other, SearchSpace) and json.dumps(self.to_dict()) == json.dumps(
            other.to_dict()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        lines = [f"    {name!r}: {parameter!r}," for name, parameter in self.parameters.items()]
        ending = f", {list(self.constraints)!r}" if self.constraints else ""
        return "\n".join(["SearchSpace({", *lines, "}" + ending + ")"])

    def _repr_html_(self) -> str:
        cell = "<td style='text-align:left'>"
        rows = [(name, repr(p)) for name, p in self.parameters.items()]
        rows += [("constraint", str(constraint)) for constraint in self.constraints]
        body = "".join(
            f"<tr>{cell}{html.escape(name)}</td>{cell}{html.escape(text)}</td></tr>"
            for name, text in rows
        )
        return f"<table>{body}</table>"


def faults_in(parameters: Mapping[str, Any], constraints: Sequence[Any] = ()) -> list[str]:
    """Everything that is wrong with a space, a sentence or two each."""
    faults: list[str] = []
    above: dict[str, Any] = {}
    for name, parameter in parameters.items():
        faults += _faults_of(name, parameter, above)
        above[name] = parameter
    return faults + [
        f for constraint in constraints for f in _faults_of_constraint(constraint, above)
    ]


def refusal(what: str, faults: Sequence[str]) -> ConfigError:
    """All faults as one error."""
    if len(faults) == 1:
        return ConfigError(faults[0])
    lines = "\n".join(f"- {fault}" for fault in faults)
    return ConfigError(f"{len(faults)} faults in the {what}:\n{lines}", faults)


def _expand(
    items: Sequence[tuple[str, Parameter]],
    values: dict[str, Any],
    options: Callable[[str, Drawn], Sequence[Any]],
) -> Iterator[dict[str, Any]]:
    if not items:
        yield values
        return
    (name, parameter), rest = items[0], items[1:]
    found = _options(name, parameter, values, options)
    if found is None:
        yield from _expand(rest, values, options)
        return
    for value in found:
        yield from _expand(rest, {**values, name: value}, options)


def _options(
    name: str,
    parameter: Parameter,
    values: Mapping[str, Any],
    options: Callable[[str, Drawn], Sequence[Any]],
) -> Sequence[Any] | None:
    """The values that a parameter may have, given those above it; None where it is not active."""
    while isinstance(parameter, When):
        if parameter.name not in values or values[parameter.name] not in parameter.values:
            return None
        parameter = parameter.inner
    if isinstance(parameter, Const):
        return [parameter.value]
    if isinstance(parameter, Derived):
        is_known = names_in(parameter.expression) <= values.keys()
        return [evaluate(parameter.expression, values)] if is_known else None
    return options(name, parameter)


def _faults_of(name: str, parameter: Any, above: Mapping[str, Parameter]) -> Iterator[str]:
    fault = fault_of_name(name)
    if fault:
        yield fault
    if not isinstance(parameter, Parameter):
        yield (
            f"{name} is {parameter!r}, but a parameter such as Float(0.1, 0.9) is wanted. Use one, "
            "or SearchSpace.from_dict for tuples and lists."
        )
        return
    if not fault and not name.startswith(MODEL):
        yield from _faults_of_values(name, parameter)
    while isinstance(parameter, When):
        yield from _faults_of_condition(name, parameter, above)
        parameter = parameter.inner
    if isinstance(parameter, Derived):
        yield from _faults_of_names(name, parameter.expression, above, "above it")


def _faults_of_values(name: str, parameter: Parameter) -> Iterator[str]:
    """What a setting may not be, one fault at most: the others are likely the same."""
    kind, drawn = TrainingConfig.model_fields[name].annotation, drawn_within(parameter)
    if kind is int and isinstance(drawn, Float):
        yield f"{name} is a whole number, but {drawn} draws fractions. Use Int."
        return
    for value in parameter.extremes():
        try:
            check_value(name, value)
        except ConfigError as error:
            yield str(error)
            return


def _faults_of_condition(name: str, when: When, above: Mapping[str, Parameter]) -> Iterator[str]:
    if when.name not in above:
        yield (
            f"{name} depends on {when.name}, which does not stand above it. Put {when.name} into "
            f"the space, above {name}."
        )
        return
    known = _possible(above[when.name])
    strange = [value for value in when.values if known is not None and value not in known]
    if known is None or strange or not when.values:
        wanted = "whole numbers or choices" if known is None else f"some of {known}"
        yield (
            f"{name} depends on {when.name} being one of {list(when.values)}, but {wanted} are "
            "wanted there. Change one of the two."
        )


def _possible(parameter: Parameter) -> Sequence[Any] | None:
    """The values that a parameter may have, or None where they cannot be listed."""
    while isinstance(parameter, When):
        parameter = parameter.inner
    if isinstance(parameter, Choice | Const):
        return parameter.extremes()
    return (
        range(parameter.low, parameter.high + 1, parameter.step)
        if isinstance(parameter, Int)
        else None
    )


def _faults_of_constraint(constraint: Any, above: Mapping[str, Parameter]) -> Iterator[str]:
    if isinstance(constraint, Constraint):
        yield from _faults_of_names("A constraint", constraint.expression, above, "in the space")
    else:
        yield f"{constraint!r} was given as a constraint. Write Constraint('expression', 'reason')."


def _faults_of_names(
    owner: str, expression: str, known: Mapping[str, Parameter], where: str
) -> Iterator[str]:
    unknown = sorted(names_in(expression) - known.keys())
    if unknown:
        yield (
            f"{owner} reads {', '.join(unknown)} in {expression!r}, but only names {where} have "
            "values. Correct the names or their order."
        )

"""What a parameter of a search may be: a range, choices, a value, a formula, or one at times.

Every kind is a frozen dataclass of plain values. `at(u)` turns a number of [0, 1) into a value,
`grid(points)` lists values, and `extremes()` are those that must fit the setting.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from helpers.errors import ConfigError
from helpers.search.expression import names_in
from helpers.search.ranges import Float, Int, index_at, short


@dataclass(frozen=True, repr=False)
class Choice:
    """One of several plain values, in this order in a grid."""

    values: Sequence[Any]
    kind: ClassVar[str] = "choice"

    def __repr__(self) -> str:
        return short(self)

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not isinstance(self.values, Sequence | range):
            raise ConfigError(f"Choice got {self.values!r}, but a list of values is wanted.")
        object.__setattr__(self, "values", tuple(self.values))
        texts = [_plain_text(value) for value in self.values]
        if not texts or len(set(texts)) < len(texts):
            raise ConfigError(
                f"Choice has the values {list(self.values)}, but one or more are wanted, each "
                "once. Correct the list."
            )

    @property
    def n_values(self) -> int:
        """How many values there are."""
        return len(self.values)

    def at(self, u: float) -> Any:
        """The value at a share `u` of the list."""
        return self.values[index_at(u, len(self.values))]

    def grid(self, points: int | None) -> list[Any]:
        """All values, whatever `points` says."""
        return list(self.values)

    def extremes(self) -> list[Any]:
        """All values."""
        return list(self.values)


@dataclass(frozen=True, repr=False)
class Const:
    """One value in all trials, shown among the parameters."""

    value: Any
    kind: ClassVar[str] = "const"

    def __repr__(self) -> str:
        return short(self)

    def __post_init__(self) -> None:
        _plain_text(self.value)

    def extremes(self) -> list[Any]:
        """The value."""
        return [self.value]


@dataclass(frozen=True, repr=False)
class Derived:
    """A value computed from those above it, as `Derived("batch_size // 2")`; it is not drawn.

    Without one of the values that it reads it is left out too.
    """

    expression: str
    kind: ClassVar[str] = "derived"

    def __repr__(self) -> str:
        return short(self)

    def __post_init__(self) -> None:
        names_in(self.expression)

    def extremes(self) -> list[Any]:
        """Nothing: the values are known in a trial only."""
        return []


@dataclass(frozen=True, repr=False)
class When:
    """A parameter that is there only when another one, above it, has one of these values."""

    name: str
    values: Sequence[Any]
    inner: Float | Int | Choice | Const | Derived | When
    kind: ClassVar[str] = "when"

    def __repr__(self) -> str:
        return short(self)

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not isinstance(self.values, Sequence):
            object.__setattr__(self, "values", (self.values,))
        object.__setattr__(self, "values", tuple(self.values))
        for value in self.values:
            _plain_text(value)
        if not isinstance(self.inner, Parameter):
            raise ConfigError(
                f"When got {self.inner!r} as the parameter, but one such as Float(0.1, 0.9) is "
                "wanted."
            )

    def extremes(self) -> list[Any]:
        """Those of the parameter within."""
        return self.inner.extremes()


Drawn: TypeAlias = Float | Int | Choice
Parameter: TypeAlias = Float | Int | Choice | Const | Derived | When
KINDS: dict[str, Any] = {kind.kind: kind for kind in (Float, Int, Choice, Const, Derived, When)}


def drawn_within(parameter: Parameter) -> Drawn | None:
    """The range or choices below all conditions, or None if nothing is drawn."""
    while isinstance(parameter, When):
        parameter = parameter.inner
    return parameter if isinstance(parameter, Drawn) else None


def to_plain(parameter: Parameter) -> dict[str, Any]:
    """A parameter as plain JSON types."""
    values = {f.name: getattr(parameter, f.name) for f in dataclasses.fields(parameter)}
    for name, value in values.items():
        if isinstance(value, Parameter):
            values[name] = to_plain(value)
        elif isinstance(value, tuple):
            values[name] = list(value)
    return {"kind": parameter.kind, **values}


def from_plain(values: dict[str, Any]) -> Parameter:
    """Rebuild what `to_plain` returned.

    Raises: ConfigError if a name is unknown or missing, or a value is wrong.
    """
    values = dict(values)
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"kind is {kind!r}, but {', '.join(KINDS)} are known. Use one of them.")
    fields = dataclasses.fields(KINDS[kind])
    known = {field.name for field in fields}
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    if not needed <= values.keys() <= known:
        raise ConfigError(
            f"A parameter of kind {kind} has {sorted(values)}, but {sorted(needed)} are wanted and "
            f"{sorted(known - needed)} are allowed."
        )
    if isinstance(values.get("inner"), dict):
        values["inner"] = from_plain(values["inner"])
    return KINDS[kind](**values)


def _plain_text(value: Any) -> str:
    """A value as JSON, which must come back as it was.

    Raises: ConfigError for a value that does not.
    """
    try:
        text = json.dumps(value, allow_nan=False)
        is_plain = json.loads(text) == value
    except (TypeError, ValueError):
        is_plain = False
    if not is_plain:
        raise ConfigError(
            f"{value!r} is of type {type(value).__name__}, but a number, a text, True, False, None "
            "or a list of them is wanted, so that the space can be saved. Use plain values."
        )
    return text

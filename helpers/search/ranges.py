"""Ranges of numbers, both bounds included, evenly spread in the number or in its logarithm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from helpers.errors import ConfigError


@dataclass(frozen=True, repr=False)
class Float:
    """A number from low to high; `log` spreads its logarithm evenly, `step` makes it a lattice.

    >>> Float(0.0, 0.3, step=0.1).grid(None)
    [0.0, 0.1, 0.2, 0.3]
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    kind: ClassVar[str] = "float"

    def __repr__(self) -> str:
        return short(self)

    def __post_init__(self) -> None:
        _check_range(self, int | float)
        if self.log and self.step is not None:
            raise ConfigError(f"{self} has log and step, but one of them is wanted. Leave one out.")
        for name in ("low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def n_values(self) -> int | None:
        """How many values there are, or None for a range without steps."""
        return None if self.step is None else _n_steps(self) + 1

    def at(self, u: float) -> float:
        """The value at a share `u` of the range."""
        if self.step is not None:
            return self._on_lattice(index_at(u, self.n_values))
        return _between(self, u)

    def grid(self, points: int | None) -> list[float]:
        """All values of a lattice, or so many from low to high, evenly spread.

        Raises: ConfigError without `points` for a range without steps.
        """
        if self.step is not None:
            return [self._on_lattice(i) for i in _spread(self.n_values, points)]
        if points is None:
            raise ConfigError(
                f"{self} has no step, so a grid cannot know its values. Give points=5, or a step."
            )
        return [_between(self, share) for share in _shares(points)]

    def extremes(self) -> list[float]:
        """The bounds."""
        return [self.low, self.high]

    def _on_lattice(self, i: int) -> float:
        # Decimals, because 3 * 0.1 is not 0.3.
        return float(Decimal(str(self.low)) + i * Decimal(str(self.step)))


@dataclass(frozen=True, repr=False)
class Int:
    """A whole number from low to high, both included; `log` spreads its logarithm evenly.

    >>> Int(2, 8, step=2).grid(None)
    [2, 4, 6, 8]
    """

    low: int
    high: int
    log: bool = False
    step: int = 1
    kind: ClassVar[str] = "int"

    def __repr__(self) -> str:
        return short(self)

    def __post_init__(self) -> None:
        _check_range(self, int)
        if self.log and self.step != 1:
            raise ConfigError(f"{self} has log and step, but one of them is wanted. Leave one out.")

    @property
    def n_values(self) -> int:
        """How many values there are."""
        return _n_steps(self) + 1

    def at(self, u: float) -> int:
        """The value at a share `u` of the range."""
        if self.log:
            return self._nearest(u, 0.5)
        return self.low + self.step * index_at(u, self.n_values)

    def grid(self, points: int | None) -> list[int]:
        """All values, or about so many, evenly spread; both bounds are among them."""
        if self.log and points is not None and points < self.n_values:
            return list(dict.fromkeys(self._nearest(share, 0.0) for share in _shares(points)))
        return [self.low + self.step * i for i in _spread(self.n_values, points)]

    def extremes(self) -> list[int]:
        """The bounds."""
        return [self.low, self.high]

    def _nearest(self, share: float, margin: float) -> int:
        """The whole number at a share of the logarithm; with a margin the ends get their due."""
        low, high = math.log(self.low - margin), math.log(self.high + margin)
        return min(self.high, max(self.low, round(math.exp(low + share * (high - low)))))


def _check_range(range_: Float | Int, kind: Any) -> None:
    """Refuse bounds and steps that make no range."""
    low, high, step = range_.low, range_.high, range_.step
    wanted = "finite numbers" if isinstance(range_, Float) else "whole numbers"
    for value in (low, high, 1 if step is None else step):
        if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
            raise ConfigError(f"{range_} has {value!r}, but {wanted} are wanted.")
    if low >= high:
        raise ConfigError(
            f"{range_} has no room between its bounds, but low is to be less than high. Swap "
            "them, or use Const for one value."
        )
    if range_.log and low <= 0:
        raise ConfigError(f"{range_} has log, but {low} has no logarithm. Raise low above 0.")
    if step is None:
        return
    if step <= 0 or _rest(range_):
        raise ConfigError(
            f"{range_} cannot go from low to high in whole steps, but both bounds are to be "
            f"reached. Change {'step' if step <= 0 or low + step > high else 'high'}."
        )


def _n_steps(range_: Float | Int) -> int:
    low, high, step = (Decimal(str(v)) for v in (range_.low, range_.high, range_.step))
    return int((high - low) / step)


def _rest(range_: Float | Int) -> Decimal:
    low, high, step = (Decimal(str(v)) for v in (range_.low, range_.high, range_.step))
    return (high - low) % step


def _between(range_: Float, share: float) -> float:
    """The point at a share of a range; at 0 and 1 exactly the bounds."""
    low, high = range_.low, range_.high
    if share <= 0 or share >= 1:
        return low if share <= 0 else high
    if range_.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        value = low * (1 - share) + high * share
    return min(high, max(low, value))


def short(parameter: Any) -> str:
    """A dataclass as one writes it: fields without a default first, of the others what differs."""
    words = []
    for field in dataclasses.fields(parameter):
        value = getattr(parameter, field.name)
        shown = repr(list(value) if isinstance(value, tuple) else value)
        if field.default is dataclasses.MISSING:
            words.append(shown)
        elif value != field.default:
            words.append(f"{field.name}={shown}")
    return f"{type(parameter).__name__}({', '.join(words)})"


def index_at(u: float, n: int | None) -> int:
    """Which of n values lies at a share `u` of them."""
    assert n is not None
    return min(int(u * n), n - 1)


def _shares(points: int) -> list[float]:
    return [i / (points - 1) for i in range(points)]


def _spread(n: int | None, points: int | None) -> Sequence[int]:
    """All of 0 to n - 1, or so many of them that include both ends."""
    assert n is not None
    if points is None or points >= n:
        return range(n)
    return list(dict.fromkeys(round(share * (n - 1)) for share in _shares(points)))

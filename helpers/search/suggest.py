"""Which values come next: trial k follows from the space, the seed and k alone.

No values are suggested twice, and none that break a constraint: such points are passed over.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from random import Random
from typing import Any, TypeAlias

from helpers.errors import ConfigError
from helpers.search.space import SearchSpace, refusal

METHODS = ("quasi_random", "random", "grid")
# So many points in a row that cannot be used, and the space counts as used up.
MAX_PASSED_OVER = 10_000
BLOCK = 64
Points: TypeAlias = int | Mapping[str, int] | None


def suggestions(
    space: SearchSpace, method: str = "quasi_random", *, seed: int = 0, points: Points = None
) -> Iterator[dict[str, Any]]:
    """Values of trial 0, 1, 2 and so on, by the name of a method.

    Raises: ConfigError for an unknown method, or for `points` without a grid.
    """
    if method not in METHODS:
        raise ConfigError(
            f"method is {method!r}, but the methods are {', '.join(METHODS)}. Use one of them."
        )
    if method == "grid":
        return grid(space, points=points)
    if points is not None:
        raise ConfigError(
            f"points is {points!r}, but method {method!r} draws from whole ranges. Leave points "
            "out, or use method='grid'."
        )
    return random(space, seed) if method == "random" else quasi_random(space, seed)


def suggestion(
    space: SearchSpace,
    number: int,
    method: str = "quasi_random",
    *,
    seed: int = 0,
    points: Points = None,
) -> dict[str, Any]:
    """Values of one trial, the same as in sequence.

    >>> from helpers.search import Int
    >>> suggestion(SearchSpace({"n_layers": Int(1, 8)}), 2, "grid")
    {'n_layers': 3}

    Raises: ConfigError if the space has fewer.
    """
    found = list(islice(suggestions(space, method, seed=seed, points=points), number, number + 1))
    if not found:
        raise ConfigError(f"Trial {number} was asked for, but the grid ends before. Lower it.")
    return found[0]


def grid(space: SearchSpace, points: Points = None) -> Iterator[dict[str, Any]]:
    """All combinations, the last name changing fastest.

    `points` thins out ranges with more values, all of them or by name; a range without steps needs
    it. Choices are always all there.

    Raises: ConfigError if a range needs points, or points do not fit.
    """
    values = _values_by_name(space, points)
    return _usable(space, space.expand(lambda name, drawn: values[name]))


def random(space: SearchSpace, seed: int) -> Iterator[dict[str, Any]]:
    """Independent draws."""
    size = len(space.drawn)
    # A text as seed is hashed by SHA-512, the same in every process.
    points = (_coordinates(Random(f"{seed} {i}"), size) for i in count())
    return _usable(space, map(space.at, points), is_endless=True)


def quasi_random(space: SearchSpace, seed: int) -> Iterator[dict[str, Any]]:
    """A scrambled Sobol sequence, which fills the space evenly wherever it is stopped.

    Source: Owen 1998, "Scrambling Sobol' and Niederreiter-Xing points"; torch's SobolEngine.
    """
    points = _sobol_points(len(space.drawn), seed)
    return _usable(space, map(space.at, points), is_endless=True)


def _values_by_name(space: SearchSpace, points: Points) -> dict[str, list[Any]]:
    drawn, values, faults = space.drawn, {}, []
    by_name = points if isinstance(points, Mapping) else dict.fromkeys(drawn, points)
    faults += [
        f"points has {name}, which is not drawn. Leave it out."
        for name in by_name.keys() - drawn.keys()
    ]
    for name, parameter in drawn.items():
        wanted = by_name.get(name)
        if wanted is not None and (not isinstance(wanted, int) or wanted < 2):
            faults.append(f"points is {wanted!r} for {name}, but two or more are wanted.")
            continue
        try:
            values[name] = parameter.grid(wanted)
        except ConfigError as error:
            faults.append(f"{name}: {error}")
    if faults:
        raise refusal("grid", faults)
    return values


def _coordinates(source: Random, size: int) -> list[float]:
    return [source.random() for _ in range(size)]


def _sobol_points(size: int, seed: int) -> Iterator[list[float]]:
    if not size:
        yield from ([] for _ in count())
    import torch

    engine = torch.quasirandom.SobolEngine(size, scramble=True, seed=seed)
    while True:
        yield from engine.draw(BLOCK, dtype=torch.float64).tolist()


def _usable(
    space: SearchSpace, found: Iterable[dict[str, Any]], *, is_endless: bool = False
) -> Iterator[dict[str, Any]]:
    """Leave out what was there before or breaks a constraint.

    Raises: ConfigError if nothing usable comes any more.
    """
    seen: set[str] = set()
    passed_over: Counter[str] = Counter()
    for values in found:
        key, broken = json.dumps(values, sort_keys=True), space.broken(values)
        if broken is None and key not in seen:
            seen.add(key)
            passed_over.clear()
            yield values
            continue
        passed_over["were there before" if broken is None else f"break {broken}"] += 1
        if is_endless and passed_over.total() == MAX_PASSED_OVER:
            why = ", ".join(f"{n:,} {reason}" for reason, n in passed_over.most_common())
            raise ConfigError(
                f"The space has no more than {len(seen)} different points that can be used: of "
                f"{MAX_PASSED_OVER:,} more draws {why}. Ask for fewer trials, or widen the space."
            )

"""How long a run may take and how much memory it may hold: as the settings say, or as asked."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

KEYS = ("cell_s", "total_s", "memory_mib", "tags")
UNITS = {"cell_s": "seconds", "total_s": "seconds", "memory_mib": "MiB"}


@dataclass(frozen=True)
class Limit:
    """Seconds, and in words what they are the limit of."""

    seconds: float
    of: str

    def __str__(self) -> str:
        return f"{self.seconds:g} s, the limit of {self.of}"


@dataclass(frozen=True)
class Limits:
    """What a run may take; None is no limit."""

    cell_s: float | None = None
    total_s: float | None = None
    memory_mib: float | None = None
    """Of the kernel and all processes that it started, together."""
    tags: Mapping[str, float] = field(default_factory=dict)
    """Seconds of a cell that carries a tag; these go before `cell_s`."""

    @classmethod
    def of(cls, table: Mapping[str, Any], **given: float | None) -> "Limits":
        """The limits of the settings; what is given goes before them, `cell_s` before tags too."""
        given = {name: value for name, value in given.items() if value is not None}
        tags = {} if "cell_s" in given else table.get("tags", {})
        return cls(**{**table, **given, "tags": tags})

    def of_cell(self, tags: Sequence[str]) -> Limit | None:
        """The limit of a cell with these tags: the longest of its tags', else that of each cell."""
        tagged = [(self.tags[tag], tag) for tag in tags if tag in self.tags]
        if tagged:
            seconds, tag = max(tagged)
            return Limit(seconds, f"cells tagged {tag}")
        return Limit(self.cell_s, "each cell") if self.cell_s else None

    def of_all(self) -> Limit | None:
        """The limit of the whole notebook."""
        return Limit(self.total_s, "the whole notebook") if self.total_s else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a report."""
        return {name: getattr(self, name) for name in UNITS} | {"tags": dict(self.tags)}


def limit_faults(table: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with `[tool.notebooks.limits]`, one message for each fault."""
    for name, value in table.items():
        if name not in KEYS:
            near = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            yield f"limits.{name} is not a limit.{hint} Known: {', '.join(KEYS)}."
        elif name != "tags":
            yield from _number_fault(f"limits.{name}", value, UNITS[name])
        elif not isinstance(value, dict):
            yield (
                f"limits.tags in [tool.notebooks] is {value!r}, but a table of tag to seconds "
                "is wanted, like { long = 1800 }. Correct pyproject.toml."
            )
        else:
            for tag, seconds in value.items():
                yield from _number_fault(f"limits.tags.{tag}", seconds, "seconds")


def _number_fault(name: str, value: Any, unit: str) -> Iterator[str]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 < value < float("inf")):
        yield (
            f"{name} in [tool.notebooks] is {value!r}, but a number of {unit} above 0 is wanted. "
            "Correct pyproject.toml."
        )

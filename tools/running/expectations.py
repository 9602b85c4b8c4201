"""Compare what a smoke run tells of itself with what the settings expect of it.

In pyproject.toml, by notebook; a key is one of the run's summary, with dots for what lies deeper,
or `FILE:KEY`, a column of a file of JSON lines in the run's folder:

    [tool.notebooks.expect."training.ipynb"]
    status = "completed"
    val_loss = { max = 9.0 }
    "baselines.gzip" = { min = 0.1 }
    "metrics.jsonl:train/loss" = { falls = true }

`falls`: the mean of the last third is below that of the first.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MISSING = object()


def expectation_faults(table: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with `[tool.notebooks.expect]`, one message for each fault."""
    for notebook, wanted in table.items():
        if not isinstance(wanted, dict):
            yield (
                f'expect."{notebook}" in [tool.notebooks] is {wanted!r}, but a table of keys of '
                "the run's summary is wanted. Correct pyproject.toml."
            )
            continue
        for key, tests in wanted.items():
            is_sound = isinstance(tests, str | int | float) or (
                isinstance(tests, dict)
                and tests
                and all(_is_sound_test(name, value) for name, value in tests.items())
            )
            if not is_sound:
                yield (
                    f'expect."{notebook}".{key} in [tool.notebooks] is {tests!r}, but a value, or '
                    "a table of equals, min, max (numbers) or falls (true) is wanted. "
                    "Correct pyproject.toml."
                )


def _is_sound_test(name: str, value: Any) -> bool:
    if name in ("min", "max"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return name == "equals" or (name == "falls" and value is True)


def unmet(wanted: Mapping[str, Any], summary: Mapping[str, Any] | None, folder: Path | None) -> str:
    """What is not as expected, in words; empty if all is."""
    if wanted and summary is None:
        return "no summary is told, but one is expected"
    found = []
    for key, tests in wanted.items():
        value = _value(key, summary or {}, folder)
        tests = tests if isinstance(tests, dict) else {"equals": tests}
        reasons = (_fails(name, value, bound) for name, bound in tests.items())
        found += [f"{key} {reason}" for reason in reasons if reason]
    return "; ".join(found)


def _value(key: str, summary: Mapping[str, Any], folder: Path | None) -> Any:
    name, colon, column = key.partition(":")
    if colon:
        return _column(folder / name, column) if folder else MISSING
    value: Any = summary
    for part in key.split("."):
        value = value.get(part, MISSING) if isinstance(value, Mapping) else MISSING
    return value


def _column(path: Path, name: str) -> Any:
    """The finite values of a column, in order."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError):
        return MISSING
    values = [row[name] for row in rows if isinstance(row, dict) and name in row]
    return [value for value in values if _is_number(value)] or MISSING


def _fails(test: str, value: Any, bound: Any) -> str:
    """Why a value does not stand the test, in words."""
    if value is MISSING:
        return "is not told"
    if test == "equals":
        return "" if value == bound else f"is {value!r}, but {bound!r} is expected"
    if test == "falls":
        return _does_not_fall(value)
    if not _is_number(value):
        return f"is {value!r}, but a number is expected"
    if test == "min":
        return "" if value >= bound else f"is {value:.4g}, but at least {bound:g} is expected"
    return "" if value <= bound else f"is {value:.4g}, but at most {bound:g} is expected"


def _does_not_fall(values: Any) -> str:
    if not isinstance(values, list) or len(values) < 2:
        return "has fewer than two values, but falling ones are expected"
    third = max(1, len(values) // 3)
    first, last = sum(values[:third]) / third, sum(values[-third:]) / third
    return "" if last < first else f"goes from {first:.4g} to {last:.4g}, but is expected to fall"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""Records as tables: what a reader sees of runs, and of two runs side by side."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

if typing.TYPE_CHECKING:
    from pandas import DataFrame

_NOT_SET = "(not set)"
_COMPARED = (
    "config", "task", "seed", "data_fingerprint", "code_version", "environment", "status", "results"
)  # fmt: skip


def runs_table(records: list[dict[str, Any]], columns: list[str]) -> DataFrame:
    """One row a run, the numbers and words of its results as further columns."""
    import pandas

    for record in records:
        for name, value in record.pop("results").items():
            if isinstance(value, str | int | float):
                record.setdefault(name, value)
    names = None if records else [name for name in columns if name != "results"]
    frame = pandas.DataFrame(records, columns=names)
    return with_times(frame, "created", "updated", "finished").set_index("run_id")


def metrics_table(rows: Sequence[Any], names: Sequence[str] | None) -> DataFrame:
    """`(step, name, value)` as one row a step and one column a metric."""
    import pandas

    frame = pandas.DataFrame(rows, columns=["step", "name", "value"])
    frame = frame.astype({"step": "int64", "value": "float64"})
    wide = frame.pivot(index="step", columns="name", values="value").sort_index()
    wide = wide.reindex(columns=sorted(wide.columns) if names is None else list(names))
    return wide.rename_axis(columns=None)


def table(rows: Iterable[Any], columns: list[str], index: str) -> DataFrame:
    """Rows under the names of their columns."""
    import pandas

    return pandas.DataFrame(rows, columns=columns).set_index(index)


def with_times(frame: DataFrame, *names: str) -> DataFrame:
    """The same table with UTC seconds turned into times."""
    import pandas

    times = {name: pandas.to_datetime(frame[name], unit="s", utc=True) for name in names}
    return frame.assign(**times)


def differences(one: Mapping[str, Any], other: Mapping[str, Any], names: list[str]) -> DataFrame:
    """Each setting and final result in which the records of two runs differ, a line each."""
    import pandas

    a, b = (_flatten({name: run[name] for name in _COMPARED}) for run in (one, other))
    lines = {
        name: (a.get(name, _NOT_SET), b.get(name, _NOT_SET))
        for name in {**a, **b}
        if not _same(a.get(name, _NOT_SET), b.get(name, _NOT_SET))
    }
    index = pandas.Index(lines, dtype=object)
    return pandas.DataFrame(lines.values(), index=index, columns=names)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _same(a: Any, b: Any) -> bool:
    """Equal, where NaN equals NaN and the types of numbers do not count."""
    return a == b or json.dumps(a) == json.dumps(b)

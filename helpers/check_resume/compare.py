"""All that a run left behind, value by value, and where two runs differ."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from helpers.check_resume.settings import RUN_NAME
from helpers.engine.metrics import read_rows
from helpers.engine.run_folder import RunFolder
from helpers.export import load_export

TIMES = {"wall_s", "elapsed_s", "window_s", "tokens_per_s", "training_s"}
"""What a clock said; it differs between two runs that are the same."""
FACTS = (
    "status",
    "steps",
    "tokens",
    "final_loss",
    "final_metrics",
    "best_loss",
    "best_step",
    "samples",
    "weights",
)
ROWS = "metric rows"
PARTS = (
    "weights and buffers",
    "optimizer",
    "average of weights",
    "loss scaler",
    "random states",
    "counters",
    "callbacks",
    "guard",
    "losses not logged",
    "plan and identity",
    ROWS,
    "rows in the database",
    "exported model",
)
"""Parts in the order of a report; one that a run does not have is left out."""
SECTIONS = {
    "model": "weights and buffers",
    "buffers": "weights and buffers",
    "optimizer": "optimizer",
    "ema": "average of weights",
    "random": "random states",
}
STATES = {
    "random": "random states",
    "scaler": "loss scaler",
    "callbacks": "callbacks",
    "guard": "guard",
    "run": "counters",
    "pending": "losses not logged",
}
OTHER = "plan and identity"


class Name(NamedTuple):
    """What a value is called: the part of the state, its name there, and the step of a row."""

    part: str
    name: str
    step: int = -1


@dataclass(frozen=True)
class Part:
    """A part of the state: how many values, and a hash over all of them in each run."""

    name: str
    n_values: int
    unbroken: str
    killed: str

    @property
    def is_same(self) -> bool:
        """Whether every value is the same in every bit."""
        return self.unbroken == self.killed


@dataclass(frozen=True)
class Difference:
    """A value that differs, at the first place where it does; `extent` is how much, in words."""

    name: Name
    place: str
    unbroken: str
    killed: str
    extent: str = ""

    @property
    def where(self) -> str:
        """The value as a reader finds it: name and first place, or name and step."""
        step = f" at step {self.name.step}" if self.name.step >= 0 else ""
        return f"{self.name.name}{self.place}{step}"

    def __str__(self) -> str:
        extent = f" ({self.extent})" if self.extent else ""
        return f"{self.where}: {self.unbroken} unbroken, {self.killed} killed{extent}"


@dataclass(frozen=True)
class Comparison:
    """Two runs, part by part, with every difference: first those of the rows, by step."""

    parts: list[Part]
    differences: list[Difference]
    row_steps: list[int]

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return all(part.is_same for part in self.parts)

    @property
    def n_values(self) -> int:
        """Values that were compared."""
        return sum(part.n_values for part in self.parts)

    @property
    def first_step(self) -> int | None:
        """The first step whose logged metrics differ."""
        return min((d.name.step for d in self.differences if d.name.part == ROWS), default=None)

    @property
    def same_until(self) -> int | None:
        """The last step before that whose logged metrics are the same."""
        first = self.first_step
        return max((s for s in self.row_steps if first is None or s < first), default=None)


def compare(unbroken: Path, killed: Path) -> Comparison:
    """Compare the run of one output_dir with that of another.

    The states are read one after the other; only where they differ are both in memory.
    """
    here, there = _hashes(unbroken), _hashes(killed)
    present = {name.part for name in [*here, *there]}
    found = [_part(part, here, there) for part in PARTS if part in present]
    row_steps = sorted({name.step for name in here if name.part == ROWS})
    differ = {name for name in here.keys() | there.keys() if here.get(name) != there.get(name)}
    if not differ:
        return Comparison(found, [], row_steps)
    known, other = ({n: v for n, v in values_of(f) if n in differ} for f in (unbroken, killed))
    differences = [difference(name, known, other) for name in {**known, **other}]
    return Comparison(found, sorted(differences, key=_by_step), row_steps)


def values_of(output_dir: Path) -> Iterator[tuple[Name, Any]]:
    """Everything that a run left behind but times and paths, rows first."""
    folder = RunFolder(output_dir / RUN_NAME)
    yield from _rows(folder)
    last = folder.checkpoints.load_latest()
    for section, tensors in last.sections.items():
        for name, tensor in tensors.items():
            yield Name(SECTIONS.get(section, section), name), tensor
    yield Name("counters", "step of the checkpoint"), last.step
    for key, value in last.state.items():
        if key not in TIMES and value not in (None, {}):
            prefix = "" if key in STATES else key
            yield from _leaves(STATES.get(key, OTHER), prefix, value)
    yield from _exported(folder)
    yield from _recorded(output_dir)


def difference(name: Name, known: dict[Name, Any], other: dict[Name, Any]) -> Difference:
    """Where two values of one name differ first, and by how much at most."""
    if name not in known or name not in other:
        texts = [_text(side[name]) if name in side else "absent" for side in (known, other)]
        return Difference(name, "", *texts)
    here, there = known[name], other[name]
    if isinstance(here, Tensor) and isinstance(there, Tensor) and _kind(here) == _kind(there):
        return _tensor_difference(name, here, there)
    place = ""
    while isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        index = next(i for i in range(len(here)) if _digest(here[i]) != _digest(there[i]))
        place, here, there = f"{place}[{index}]", here[index], there[index]
    extent = ""
    if isinstance(here, int | float) and isinstance(there, int | float):
        extent = f"off by {abs(here - there):.2g}"
    return Difference(name, place, *_texts(here, there), extent)


def _tensor_difference(name: Name, here: Tensor, there: Tensor) -> Difference:
    flat, other = here.reshape(-1), there.reshape(-1)
    differs = (_bytes(flat) != _bytes(other)).reshape(flat.numel(), -1).any(dim=1)
    first = int(differs.nonzero()[0])
    index = [int(i) for i in torch.unravel_index(torch.tensor(first), here.shape)]
    extent = f"{int(differs.sum()):,} of {flat.numel():,} differ"
    if here.dtype != torch.bool and not here.dtype.is_complex:
        extent += f", by up to {float((flat.double() - other.double()).abs().max()):.2g}"
    place = f"[{', '.join(map(str, index))}]" if index else ""
    return Difference(name, place, *_texts(flat[first].item(), other[first].item()), extent)


def _rows(folder: RunFolder) -> Iterator[tuple[Name, Any]]:
    rows = read_rows(folder.metrics_file)
    for row in rows:
        kind = "validation" if any(key.startswith("val/") for key in row) else "training"
        for key, value in row.items():
            if key not in TIMES and key != "step":
                yield Name(ROWS, key if "/" in key else f"{key} of {kind}", row["step"]), value
    yield Name("counters", "number of metric rows"), len(rows)


def _leaves(part: str, name: str, value: Any) -> Iterator[tuple[Name, Any]]:
    """The values in nested dicts by their path; a list is one value."""
    if not isinstance(value, dict):
        yield Name(part, name), value
        return
    for key, item in value.items():
        if key not in TIMES:
            yield from _leaves(part, f"{name}.{key}" if name else str(key), item)


def _exported(folder: RunFolder) -> Iterator[tuple[Name, Any]]:
    content = load_export(folder.model_file)
    for name, tensor in content["model_state_dict"].items():
        yield Name("exported model", name), tensor
    results = {name: content["results"].get(name) for name in FACTS}
    yield from _leaves("exported model", "results", results)


def _recorded(output_dir: Path) -> Iterator[tuple[Name, Any]]:
    """Metrics in the database, where one is kept."""
    file = output_dir / "experiments.db"
    if not file.exists():
        return
    from helpers.tracking import ExperimentDB

    with ExperimentDB(str(file)) as db:
        table = db.metrics(RUN_NAME)
    for name in table.columns.difference(list(TIMES)):
        for step, value in table[name].dropna().items():
            yield Name("rows in the database", name, int(step)), float(value)


def _hashes(output_dir: Path) -> dict[Name, str]:
    return {name: _digest(value) for name, value in values_of(output_dir)}


def _part(part: str, here: dict[Name, str], there: dict[Name, str]) -> Part:
    sides = [{n: h for n, h in side.items() if n.part == part} for side in (here, there)]
    texts = ["".join(f"{n}{h}" for n, h in sorted(side.items())) for side in sides]
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    return Part(part, len(sides[0].keys() | sides[1].keys()), *hashes)


def _digest(value: Any) -> str:
    if isinstance(value, Tensor):
        return hashlib.sha256(_kind(value).encode() + _bytes(value).numpy().tobytes()).hexdigest()
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8)


def _texts(here: Any, there: Any) -> tuple[str, str]:
    """Two values, shortly, but in so many digits that they look different."""
    if isinstance(here, float) and isinstance(there, float):
        for digits in (6, 9):
            texts = f"{here:.{digits}g}", f"{there:.{digits}g}"
            if texts[0] != texts[1]:
                return texts
    return _text(here), _text(there)


def _text(value: Any) -> str:
    text = _kind(value) if isinstance(value, Tensor) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _by_step(found: Difference) -> tuple[bool, float]:
    is_row = found.name.part == ROWS
    return not is_row, found.name.step if is_row else math.inf

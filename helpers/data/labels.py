"""Samples looked at one by one before the first step: labels, inputs, fields, shapes, copies."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from helpers.data.check import DataReport, Fault, excerpt_of
from helpers.data.collate import as_field
from helpers.data.draws import random_states_kept
from helpers.data.packing import MapSamples, Samples
from helpers.errors import DataError
from helpers.task import IGNORED

LIMIT_S = 20.0
"""Time for one look at the samples; a data set that takes longer is looked at in part."""

Flaw = tuple[str, str, str]
"""Kind of a fault, what to say, and an excerpt."""
Shapes = tuple[tuple[str, tuple[int, ...] | None], ...]
"""The shape of each field; None stands for one dimension, which is padded to any length."""


@dataclass(frozen=True)
class Limits:
    """What labels and inputs may be: their fields, the label that does not count, largest ids.

    A number of 0 is unknown, and then no id is too large.
    """

    inputs: str = "input_ids"
    labels: str = "labels"
    ignore_index: int = IGNORED
    n_inputs: int = 0
    n_labels: int = 0


@dataclass(eq=False)
class _Seen:
    """What a look at one data set leaves: its sound samples, its classes, and a digest of each.

    Those that there was no time for are `unseen`, and trained on. All can be in one batch; `cause`
    is the first error that the data set itself raised.
    """

    sound: list[int] = field(default_factory=list)
    unseen: range = range(0)
    digests: dict[bytes, str] = field(default_factory=dict)
    classes: set[int] = field(default_factory=set)
    n_looked_at: int = 0
    has_ids: bool = False
    shapes: Shapes = ()
    cause: Exception | None = None

    @property
    def n_left(self) -> int:
        """Samples that are trained on."""
        return len(self.sound) + len(self.unseen)


@dataclass
class _Left(Sequence[int]):
    """The numbers of the samples that are left; those not looked at take no memory."""

    sound: list[int]
    unseen: range

    def __len__(self) -> int:
        return len(self.sound) + len(self.unseen)

    def __getitem__(self, i: int) -> int:
        n = len(self.sound)
        return self.sound[i] if i < n else self.unseen[i - n]


def check_samples(
    train: Samples, val: Samples | None, limits: Limits, bad_rows: str = "fail"
) -> tuple[Samples, Samples | None, DataReport]:
    """Look at every sample of data sets of the user's own; packed text was checked as text.

    Where `bad_rows` is skip, bad samples are left out. Random states are as they were before.
    Raises: DataError with all samples that cannot be trained on, from the first error of the data
    set's own if there was one.
    """
    report = DataReport(source="the data sets", bad_rows=bad_rows)
    seen = {}
    with random_states_kept():
        for name, samples in (("train_data", train), ("val_data", val)):
            if isinstance(samples, MapSamples):
                seen[name] = _look(samples, name, limits, report)
    report.settle(next((found.cause for found in seen.values() if found.cause), None))
    for name, found in seen.items():
        _check_left(name, found, report)
    if len(seen) == 2:
        _compare(seen["train_data"], seen["val_data"], report)
    report.n_documents = sum(found.n_left for found in seen.values())
    chosen = [
        _chosen(samples, seen.get(name), bad_rows)
        for name, samples in (("train_data", train), ("val_data", val))
    ]
    return chosen[0], chosen[1], report


def _look(samples: MapSamples, name: str, limits: Limits, report: DataReport) -> _Seen:
    groups: dict[Shapes, _Seen] = {}
    names, cause, unseen = None, None, range(0)
    deadline = time.monotonic() + LIMIT_S
    for i in range(len(samples)):
        if time.monotonic() > deadline:
            says = f"took {LIMIT_S:.0f} s for {i:,} of {len(samples):,} samples"
            report.note("not all looked at", name, says, count=len(samples) - i)
            unseen = range(i, len(samples))
            break
        report.n_rows += 1
        fields, found, error = _read(samples, i)
        cause = cause or error
        if found is None:
            names = names or list(fields)
            found = _flaw(fields, names, limits)
        if found is not None:
            kind, says, shown = found
            report.fault(Fault(kind, f"{name}[{i}]", says, shown))
            continue
        seen = _group_of(fields, i, groups, samples)
        seen.sound.append(i)
        _add_classes(seen, fields, limits)
        _note_copy(seen, fields, f"{name}[{i}]", report)
    seen = _largest(groups, name, report)
    seen.unseen = unseen
    seen.n_looked_at, seen.cause = len(samples) - len(unseen), cause
    return seen


def _read(samples: MapSamples, i: int) -> tuple[Mapping[str, Any], Flaw | None, Exception | None]:
    """The fields of a sample, or why there are none, and what the data set raised."""
    try:
        item = samples.dataset[i]
        if isinstance(item, Mapping):  # one may read its fields only now
            item = dict(item)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the user's own code raises
        what = str(error).partition("\n")[0][:120]
        says = f"could not be read ({type(error).__name__}: {what}), but every sample is wanted"
        return {}, ("unreadable sample", says, ""), error
    try:
        return samples.of([item]).fields(0), None, None
    except DataError:
        says = (
            f"is of type {type(item).__name__}, but a mapping of fields or a pair of input and "
            "label is wanted"
        )
        return {}, ("no sample", says, ""), None


def _group_of(
    fields: Mapping[str, Any], i: int, groups: dict[Shapes, _Seen], samples: MapSamples
) -> _Seen:
    """The samples that can be in one batch with this one."""
    tensors = [(name, torch.as_tensor(value)) for name, value in fields.items()]
    shapes = tuple((name, None if t.dim() == 1 else tuple(t.shape)) for name, t in tensors)
    if shapes not in groups:
        first = next(iter(groups.values()), None)
        if first is None or not _go_together(samples, first.sound[0], i):
            first = _Seen(shapes=shapes)
        groups[shapes] = first
    return groups[shapes]


def _go_together(samples: MapSamples, i: int, j: int) -> bool:
    """Whether the samples can be collated, which a function of the user's own decides too."""
    try:
        samples.gather(np.array([i, j]))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever the user's own code raises
        return False
    return True


def _largest(groups: dict[Shapes, _Seen], name: str, report: DataReport) -> _Seen:
    """The samples whose shapes are the most frequent; all others are faults."""
    most = max(groups.values(), key=lambda seen: len(seen.sound), default=_Seen())
    for seen in dict.fromkeys(groups.values()):
        if seen is most:
            continue
        pairs = zip(seen.shapes, most.shapes, strict=True)
        field_name, own, other = next((n, a, b) for (n, a), (_, b) in pairs if a != b)
        says = f"has {_named(own)} in {field_name!r}, but others have {_named(other)}"
        for i in seen.sound:
            report.fault(Fault("other shape", f"{name}[{i}]", says))
    return most


def _named(shape: tuple[int, ...] | None) -> str:
    return "one dimension" if shape is None else f"the shape {shape}"


def _flaw(fields: Mapping[str, Any], names: list[str], limits: Limits) -> Flaw | None:
    """What is wrong with the fields of a sample, or None."""
    if list(fields) != names:
        says = f"has the fields {sorted(fields)}, but the first has {sorted(names)}"
        return "other fields", says, ""
    if limits.inputs not in fields:
        return "other fields", f"has no field {limits.inputs!r}, which the task reads", ""
    for name, value in fields.items():
        kind = "wrong label" if name == limits.labels else "wrong input"
        try:
            given = as_field(value, is_id=name in (limits.inputs, limits.labels)).detach().cpu()
        except (TypeError, ValueError, RuntimeError) as error:
            what = str(error).partition("\n")[0][:120]
            return kind, f"has a field {name!r} that is no tensor: {what}", excerpt_of(value)
        if name == limits.inputs and not given.dim():
            return kind, f"has one number as {name!r}, but a sequence is wanted", ""
        array = torch.atleast_1d(given)
        if not array.numel():
            return kind, f"has a field {name!r} without a value", ""
        if name == limits.labels:
            says = _label_fault(array, limits)
        else:
            says = _input_fault(array, name, limits)
        if says:
            return kind, says, ""
    return None


def _label_fault(labels: torch.Tensor, limits: Limits) -> str:
    if labels.is_floating_point() or labels.is_complex():
        if place := _first(~torch.isfinite(labels)):
            return f"has a label that is {labels[place].item()} at {list(place)}"
        return f"has labels of type {labels.dtype}, but the task wants ids"
    counted = (labels != limits.ignore_index) & (labels != IGNORED)
    if place := _first(counted & (labels < 0)):
        return f"has a label that is {labels[place].item()} at {list(place)}, but ids start at 0"
    if limits.n_labels and (place := _first(counted & (labels >= limits.n_labels))):
        return (
            f"has a label that is {labels[place].item()} at {list(place)}, but the model knows "
            f"the ids 0 to {limits.n_labels - 1}"
        )
    return ""


def _input_fault(values: torch.Tensor, name: str, limits: Limits) -> str:
    if values.is_floating_point():
        place = _first(~torch.isfinite(values))
        return f"has {values[place].item()} in {name!r} at {list(place)}" if place else ""
    if name != limits.inputs or not limits.n_inputs:
        return ""
    if place := _first((values < 0) | (values >= limits.n_inputs)):
        return (
            f"has an input that is {values[place].item()} at {list(place)}, but the model embeds "
            f"the ids 0 to {limits.n_inputs - 1}"
        )
    return ""


def _first(wrong: torch.Tensor) -> tuple[int, ...]:
    """Where the first true value is, or nothing."""
    if not wrong.any():
        return ()
    return tuple(torch.nonzero(wrong)[0].tolist())


def _add_classes(seen: _Seen, fields: Mapping[str, Any], limits: Limits) -> None:
    labels = fields.get(limits.labels, fields.get(limits.inputs))
    labels = None if labels is None else as_field(labels, is_id=True)
    if labels is None or labels.is_floating_point() or labels.is_complex():
        return
    seen.has_ids = True
    seen.classes.update(torch.unique(labels).tolist())
    seen.classes -= {limits.ignore_index, IGNORED}


def _note_copy(seen: _Seen, fields: Mapping[str, Any], place: str, report: DataReport) -> None:
    digest = hashlib.blake2b(digest_size=16)
    for value in fields.values():
        flat = torch.as_tensor(value).detach().cpu().reshape(-1).contiguous()
        digest.update(flat.view(torch.uint8).numpy())
    key = digest.digest()
    if key in seen.digests:
        report.note("repeated samples", place, f"is {seen.digests[key]} again")
    else:
        seen.digests[key] = place


def _check_left(name: str, seen: _Seen, report: DataReport) -> None:
    if not seen.n_left:
        raise DataError(
            f"{name} has no sample left: all of its {seen.n_looked_at:,} were left out as "
            f"{', '.join(report.counts)}. Correct them."
        ) from seen.cause
    if seen.has_ids and not seen.classes:
        raise DataError(
            f"{name} has no label that counts: all are {IGNORED} or another that is ignored. Look "
            "at the labels of the data set."
        )
    if len(seen.classes) == 1:
        report.note("one class", name, f"has the label {next(iter(seen.classes))} alone")


def _compare(train: _Seen, val: _Seen, report: DataReport) -> None:
    for key, place in val.digests.items():
        if key in train.digests:
            report.note("in both splits", place, f"is {train.digests[key]}, which is in training")
    if new := sorted(val.classes - train.classes):
        listed = ", ".join(map(str, new[:5])) + (" ..." if len(new) > 5 else "")
        says = f"has {len(new):,} labels that training lacks: {listed}"
        report.note("new labels", "val_data", says, count=len(new))


def _chosen(samples: Samples | None, seen: _Seen | None, bad_rows: str) -> Samples | None:
    """The samples that are sound, under the numbers that are left."""
    if seen is None or samples is None:
        return samples
    if seen.n_left < len(samples):
        samples = samples.of(Subset(samples.dataset, _Left(seen.sound, seen.unseen)))
    samples.settings = {"bad_rows": bad_rows}
    return samples

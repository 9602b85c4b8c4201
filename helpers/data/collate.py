"""A batch: named tensors whose first dimension counts samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from helpers.errors import DataError
from helpers.task import IGNORED


@dataclass(slots=True)
class Batch:
    """Fields of a global or a micro-batch.

    Shapes: every tensor of `fields` has `n_samples` as its first dimension.
    `n_targets` counts the labels that enter the loss, where the host knows it without looking.
    """

    fields: dict[str, Tensor]
    n_samples: int
    n_targets: int | None = None

    def __getitem__(self, name: str) -> Tensor:
        return self.fields[name]

    def to(self, device: torch.device) -> Batch:
        """Copy to a device; on the CPU the batch itself."""
        if device.type == "cpu":
            return self
        # Only contiguous memory is copied straight from a pinned page.
        moved = {
            name: t.contiguous().pin_memory().to(device, non_blocking=True)
            if device.type == "cuda"
            else t.to(device)
            for name, t in self.fields.items()
        }
        return Batch(moved, self.n_samples, self.n_targets)

    def split(self, size: int) -> Iterator[Batch]:
        """Cut into micro-batches of at most `size` samples."""
        if size >= self.n_samples:
            yield self
            return
        for start in range(0, self.n_samples, size):
            stop = min(start + size, self.n_samples)
            yield Batch({k: t[start:stop] for k, t in self.fields.items()}, stop - start)


def collate(items: Sequence[Any], *, inputs: str = "input_ids", labels: str = "labels") -> Batch:
    """Stack samples given as mappings, or as pairs of input and label.

    One-dimensional fields of unequal length are padded on the right: `labels` with -100, which no
    loss counts, the rest with 0; `attention_mask` then tells `inputs` from padding.

    Raises: DataError if samples differ in their fields or in other dimensions.
    """
    samples = [as_mapping(item, inputs, labels) for item in items]
    names = list(samples[0])
    for i, sample in enumerate(samples):
        if list(sample) != names:
            raise DataError(
                f"Sample {i} of a batch has the fields {sorted(sample)}, but the first has "
                f"{sorted(names)}. Give every sample the same fields."
            )
    fields, padded = {}, False
    for name in names:
        column = [as_field(sample[name], is_id=name in (inputs, labels)) for sample in samples]
        if len({t.shape for t in column}) == 1:
            fields[name] = torch.stack(column)
        elif all(t.dim() == 1 for t in column):
            fill = IGNORED if name == labels else 0
            fields[name] = torch.nn.utils.rnn.pad_sequence(
                column, batch_first=True, padding_value=fill
            )
            padded |= name == inputs
        else:
            raise DataError(
                f"The field {name} has the shapes {sorted({tuple(t.shape) for t in column})} in "
                "one batch, but equal shapes are wanted. Resize them in the data set."
            )
    if padded and "attention_mask" not in fields:
        lengths = torch.tensor([len(s[inputs]) for s in samples])
        width = fields[inputs].shape[1]
        fields["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
    return Batch(fields, len(samples))


def as_field(value: Any, *, is_id: bool) -> Tensor:
    """A field of a sample as a tensor; ids of any whole type as int64, as models and losses want.

    Shapes: ids have one dimension or none; what has more, as an image of bytes, stays as it is.
    """
    tensor = torch.as_tensor(value)
    is_whole = not (tensor.is_floating_point() or tensor.is_complex())
    return tensor.long() if is_id and is_whole and tensor.dim() <= 1 else tensor


def as_mapping(item: Any, inputs: str, labels: str) -> Mapping[str, Any]:
    """The fields of a sample: a mapping, or a pair of input and label.

    Raises: DataError if it is neither.
    """
    if isinstance(item, Mapping):
        return item
    if isinstance(item, tuple | list) and len(item) == 2:
        return {inputs: item[0], labels: item[1]}
    raise DataError(
        f"A sample is of type {type(item).__name__}, but a mapping of fields or a pair of input "
        "and label is wanted. Return one of them from the data set."
    )

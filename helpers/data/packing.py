"""Sequences cut end to end from a stream of tokens: no padding, no token computed for nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from helpers.data.collate import Batch, as_mapping, collate
from helpers.errors import DataError
from helpers.task import IGNORED


class Samples(Protocol):
    """What the trainer needs of data: a length, and batches by index."""

    def __len__(self) -> int: ...
    def gather(self, index: np.ndarray) -> Batch: ...


class PackedTokens:
    """Windows of `sequence_length` tokens, one after another; each predicts the token after it.

    Shapes: a batch has `input_ids` and `labels`, both int64 (B, T); labels are the inputs moved by
    one, so the last label of a window is the first input of the next.
    With `keep_tail` the last, shorter window counts too, filled up with labels of -100.

    Raises: DataError if there are fewer tokens than one window needs.
    """

    def __init__(
        self,
        tokens: np.ndarray | str | Path,
        sequence_length: int,
        *,
        dtype: Any = np.uint16,
        token_bytes: np.ndarray | None = None,
        keep_tail: bool = False,
        name: str = "The token stream",
    ) -> None:
        from_file = isinstance(tokens, str | Path)
        self.tokens = np.memmap(tokens, dtype, mode="r") if from_file else tokens
        self.sequence_length = sequence_length
        self.settings: dict[str, Any] = {"sequence_length": sequence_length}
        self.token_bytes = None if token_bytes is None else torch.from_numpy(token_bytes)
        n_targets = len(self.tokens) - 1
        full, rest = divmod(n_targets, sequence_length)
        self._n_full, self._tail = full, rest if keep_tail else 0
        if full + bool(self._tail) < 1:
            raise DataError(
                f"{name} has {len(self.tokens)} tokens, but one sequence of {sequence_length} "
                f"needs {sequence_length + 1}. Lower sequence_length, or load more text."
            )
        self._span = np.arange(sequence_length + 1)

    def __len__(self) -> int:
        return self._n_full + bool(self._tail)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        batch = self.gather(np.array([i]))
        return {name: t[0] for name, t in batch.fields.items()}

    @property
    def n_targets(self) -> int:
        """Tokens that one pass over the data predicts."""
        return self._n_full * self.sequence_length + self._tail

    def gather(self, index: np.ndarray) -> Batch:
        """Windows by number: one indexing of the memory-mapped file."""
        starts = index[:, None] * self.sequence_length
        if self._tail and int(index.max()) == self._n_full:
            return self._gather_with_tail(index, starts)
        window = torch.from_numpy(self.tokens[starts + self._span].astype(np.int64))
        n = len(index)
        # The inputs are a copy, so that a forward that writes to them leaves the labels alone.
        fields = {"input_ids": window[:, :-1].clone(), "labels": window[:, 1:]}
        return Batch(fields, n, n * self.sequence_length)

    def _gather_with_tail(self, index: np.ndarray, starts: np.ndarray) -> Batch:
        positions = starts + self._span
        beyond = positions >= len(self.tokens)
        window = self.tokens[np.minimum(positions, len(self.tokens) - 1)].astype(np.int64)
        labels = np.where(beyond, IGNORED, window)[:, 1:]
        fields = {
            "input_ids": torch.from_numpy(window[:, :-1].copy()),
            "labels": torch.from_numpy(labels.copy()),
        }
        return Batch(fields, len(index), int((labels != IGNORED).sum()))


class MapSamples:
    """A map-style data set (`len` and integer index) as `Samples`."""

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[Sequence[Any]], Batch] = collate,
        *,
        inputs: str = "input_ids",
        labels: str = "labels",
    ) -> None:
        self.dataset, self._collate = dataset, collate
        self._names = inputs, labels
        self.settings: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def fields(self, i: int) -> Mapping[str, Any]:
        """The fields of one sample as the data set gives them."""
        return as_mapping(self.dataset[i], *self._names)

    def of(self, dataset: Any) -> MapSamples:
        """The samples of another data set, collated as these are."""
        inputs, labels = self._names
        return MapSamples(dataset, self._collate, inputs=inputs, labels=labels)

    def gather(self, index: np.ndarray) -> Batch:
        """Draw samples one by one and collate them.

        Raises: DataError naming the sample that the data set cannot give.
        """
        return self._collate([self._draw(int(i)) for i in index])

    def _draw(self, i: int) -> Any:
        try:
            return self.dataset[i]
        except (DataError, MemoryError):
            raise
        except Exception as error:  # whatever the user's own code raises
            raise DataError(
                f"Sample {i} of the data set could not be read ({type(error).__name__}: {error}), "
                "but every sample is wanted. Look at it, or leave it out of the data set."
            ) from error


def as_samples(
    data: Any, name: str, *, inputs: str = "input_ids", labels: str = "labels"
) -> Samples:
    """Take what a user passes as data: a split, packed tokens, or a map-style data set.

    `inputs` and `labels` are the fields that padding must tell apart.

    Raises: DataError if it is none of them, or is empty.
    """
    if data is None:
        raise DataError(
            f"{name} is None, but data is wanted. Pass a split of UniversalDataModule, or a data "
            "set with len and index."
        )
    if isinstance(data, torch.Tensor) or type(data).__module__.startswith("pandas"):
        raise DataError(
            f"{name} is a {type(data).__name__}, but a data set of samples is wanted. Make a list "
            "of dicts, such as [{'input_ids': row} for row in rows]."
        )
    if not hasattr(data, "gather"):
        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise DataError(
                f"{name} is of type {type(data).__name__}, but a data set with len and index is "
                "wanted. Turn a stream into a list, or pass a split of UniversalDataModule."
            )
        own = functools.partial(collate, inputs=inputs, labels=labels)
        data = MapSamples(data, own, inputs=inputs, labels=labels)
    if not len(data):
        raise DataError(f"{name} is empty, but samples are wanted. Load more data.")
    return data

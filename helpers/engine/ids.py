"""Ids that the model has no row for: found on the host, where a device would only die of them.

A GPU answers such an id with an assertion that ends the whole process, later and elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from helpers.errors import DataError, TaskError
from helpers.task import IGNORED

if TYPE_CHECKING:
    from helpers.data.collate import Batch
    from helpers.data.packing import Samples
    from helpers.objectives import Objective

CHUNK = 2**24


def check_tokens(objective: Objective, data: Samples, name: str) -> bool:
    """Look at all tokens of packed data at once; return whether this was such data.

    Raises: TaskError naming the first token that the model does not embed.
    """
    tokens = getattr(data, "tokens", None)
    if not (isinstance(tokens, np.ndarray) and tokens.ndim == 1 and tokens.dtype.kind in "iu"):
        return False
    limit = objective.n_embeddings
    for start in range(0, len(tokens), CHUNK):
        part = tokens[start : start + CHUNK]
        objective.largest_id = max(objective.largest_id, int(part.max()))
        is_signed = part.dtype.kind == "i"
        if (is_signed and part.min() < 0) or (limit and part.max() >= limit):
            wrong = (part < 0) | (part >= limit) if limit else part < 0
            place = start + int(np.argmax(wrong))
            raise TaskError(
                f"The model embeds {limit} tokens, but token {place:,} of the {name} is "
                f"{tokens[place]}. Build the model with the vocab_size of the data."
            )
    return True


def check_batch(objective: Objective, batch: Batch, index: np.ndarray, name: str) -> None:
    """Look at the ids and labels of one batch before they go to the device.

    The first batch is left to the objective, which says more about a task that does not fit.

    Raises: DataError naming the sample and its value.
    """
    if not objective.n_classes:
        return
    ids, task = batch[objective.task.inputs[0]], objective.task
    if objective.n_embeddings and _is_beyond(ids, objective.n_embeddings, ()):
        _refuse(ids, objective.n_embeddings, (), index, name, "an input", "embeds")
    labels = batch.fields.get(task.labels)
    ignored = (IGNORED, task.ignore_index)
    if labels is not None and _is_beyond(labels, objective.n_classes, ignored):
        _refuse(labels, objective.n_classes, ignored, index, name, "a label", "predicts")


def explain_index_error(
    objective: Objective, batch: Batch, index: np.ndarray, error: IndexError
) -> Exception:
    """The error to raise for an IndexError within the model: of the data, if an id is to blame."""
    ids = batch[objective.task.inputs[0]]
    limit = min((n for n in objective.table_sizes), default=0)
    if not limit or ids.is_floating_point() or not _is_beyond(ids, limit, ()):
        return error
    sample, value = _first(ids, limit, ())
    return DataError(
        f"Sample {index[sample]} of the training data holds the id {value}, but a table of the "
        f"model has {limit} rows ({error}). Correct the sample, or build a larger model."
    )


def explain_device_assert(error: RuntimeError, step: int) -> None:
    """Say on an error that leaves a GPU unusable what is left to do."""
    if "device-side assert" in str(error):
        error.add_note(
            "The GPU answers nothing in this process any more. Restart the runtime and run all "
            f"cells again: the run goes on from its newest checkpoint, of step {step} or before. "
            "Most often an id or a label is beyond a table of the model."
        )


def _is_beyond(ids: Tensor, limit: int, ignored: tuple[int, ...]) -> bool:
    if ids.is_floating_point() or ids.is_complex() or not ids.numel():
        return False
    low, high = (int(x) for x in ids.aminmax())
    return (high >= limit or low < 0) and bool(_wrong(ids, limit, ignored).any())


def _wrong(ids: Tensor, limit: int, ignored: tuple[int, ...]) -> Tensor:
    wrong = (ids < 0) | (ids >= limit)
    for value in ignored:
        wrong &= ids != value
    return wrong


def _first(ids: Tensor, limit: int, ignored: tuple[int, ...]) -> tuple[int, int]:
    """Row and value of the first id that is wrong."""
    place = torch.nonzero(_wrong(ids, limit, ignored))[0]
    return int(place[0]), int(ids[tuple(place)])


def _refuse(
    ids: Tensor,
    limit: int,
    ignored: tuple[int, ...],
    index: np.ndarray,
    name: str,
    what: str,
    verb: str,
) -> None:
    row, value = _first(ids, limit, ignored)
    raise DataError(
        f"Sample {index[row]} of the {name} has {what} of {value}, but the model {verb} the ids 0 "
        f"to {limit - 1}. Correct or leave out the sample, or build the model larger."
    )

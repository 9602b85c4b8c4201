"""Losses as a sum and a count, and metrics that need no logits to be kept.

Legend: B batch, T time (tokens), V vocabulary.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.errors import TaskError
from helpers.task import IGNORED, TaskSpec

if TYPE_CHECKING:
    from helpers.data.collate import Batch


def token_loss_sum(logits: Tensor, labels: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """Cross-entropy summed over all labelled tokens; labels of `ignore_index` do not count.

    Shapes: logits (B, T, V), labels (B, T) -> scalar.
    Units: nats.
    """
    flat = logits.flatten(0, -2).float()
    return F.cross_entropy(flat, labels.flatten(), ignore_index=ignore_index, reduction="sum")


def shifted_labels(input_ids: Tensor) -> Tensor:
    """Labels of a causal language model: the inputs moved left by one, the last one ignored.

    Shapes: (B, T) -> (B, T).
    """
    return F.pad(input_ids[:, 1:], (0, 1), value=IGNORED)


def perplexity(loss: float) -> float:
    """Exponential of a loss in nats, infinite where a float cannot hold it."""
    return math.exp(loss) if loss < 700 else math.inf


class Objective:
    """A task bound to a model: feeds it, finds its logits, and sums loss and metrics.

    Raises: TaskError at the first batch if a field of the task does not fit `forward`, or if the
    output holds no logits of shape (B, T, V).
    """

    def __init__(
        self, task: TaskSpec, model: nn.Module, forward: Callable[..., Any] | None = None
    ) -> None:
        self.task = task
        self._forward = model if forward is None else forward
        tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
        self.table_sizes = tables
        self.n_embeddings = max(tables, default=0)
        self.n_classes = 0
        """Width of the logits, known after the first batch."""
        self.largest_id = 0
        """The largest id of the whole data, where somebody has looked."""
        self._keywords = _keywords(task, model)
        self._is_checked = False

    def labels(self, batch: Batch) -> Tensor:
        """Labels of a batch: int64 (B, T)."""
        labels = self._given_labels(batch)
        if self.task.ignore_index == IGNORED:
            return labels
        # What our own padding put there is ignored under any index.
        return labels.masked_fill(labels == IGNORED, self.task.ignore_index)

    def _given_labels(self, batch: Batch) -> Tensor:
        if self.task.labels in batch.fields:
            return batch[self.task.labels]
        ids = batch[self.task.inputs[0]]
        if "attention_mask" in batch.fields:
            ids = ids.masked_fill(batch["attention_mask"] == 0, IGNORED)
        return shifted_labels(ids)

    def count(self, batch: Batch) -> int | Tensor:
        """Number of labels that enter the loss, without a look at the device where possible."""
        if batch.n_targets is not None:
            return max(1, batch.n_targets)
        return (self.labels(batch) != self.task.ignore_index).sum().clamp(min=1)

    def logits(self, batch: Batch) -> Tensor:
        """Run the model on the inputs of a batch: (B, T, V)."""
        if not self._is_checked:
            self._check_fields(batch)
        first, *rest = self._keywords
        if first is None:
            output = self._forward(batch[self.task.inputs[0]])
        else:
            output = self._forward(**{k: batch[k] for k in (first, *rest) if k in batch.fields})
        logits = _logits_of(output)
        if not self._is_checked:
            self._check_logits(logits, self.labels(batch))
            self._is_checked = True
        return logits

    def loss_sum(self, batch: Batch) -> Tensor:
        """Summed loss of a batch, a scalar in nats.

        Raises: TaskError if the loss does not depend on anything that is trained.
        """
        labels = self.labels(batch)  # before forward, which may write to its inputs
        loss = token_loss_sum(self.logits(batch), labels, self.task.ignore_index)
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise TaskError(
                "The loss does not depend on any trainable parameter, but training needs that. "
                "Unfreeze some, and return logits that are not detached."
            )
        return loss

    def sums(self, batch: Batch, token_bytes: Tensor | None = None) -> Tensor:
        """Sums over a batch for `metrics_from`, on the device: loss, targets, hits, bytes."""
        labels = self.labels(batch)
        logits = self.logits(batch)
        counted = labels != self.task.ignore_index
        hits = (logits.argmax(-1) == labels) & counted
        n_bytes = torch.zeros((), device=labels.device)
        if token_bytes is not None:
            n_bytes = token_bytes[labels[counted]].sum()
        loss = token_loss_sum(logits, labels, self.task.ignore_index)
        return torch.stack([x.double() for x in (loss, counted.sum(), hits.sum(), n_bytes)])

    def metrics_from(self, sums: Tensor) -> dict[str, float]:
        """Turn added-up `sums` into the metrics of the task; without bytes no bits per byte.

        The loss is among them whatever the task says, for a run is judged by it.
        """
        loss_sum, targets, hits, n_bytes = sums.tolist()
        if not targets:
            raise TaskError(
                f"None of the labels counts: all are {self.task.ignore_index} or padding, but a "
                "loss needs one. Look at the labels of the data set."
            )
        loss = loss_sum / max(1.0, targets)
        values = {"loss": loss, "perplexity": perplexity(loss), "accuracy": hits / max(1, targets)}
        if n_bytes:
            values["bits_per_byte"] = loss_sum / math.log(2) / n_bytes
        wanted = dict.fromkeys((*self.task.metrics, "loss"))
        return {name: values[name] for name in wanted if name in values}

    def _check_fields(self, batch: Batch) -> None:
        missing = [name for name in self.task.inputs if name not in batch.fields]
        if missing:
            raise TaskError(
                f"A batch has the fields {sorted(batch.fields)}, but the task wants {missing} as "
                "input. Rename the fields of the data set, or set TaskSpec.inputs."
            )
        known = {*self.task.inputs, self.task.labels, "attention_mask"}
        unused = sorted(set(batch.fields) - known - set(filter(None, self._keywords)))
        if unused:
            raise TaskError(
                f"A batch has the fields {unused}, which neither the task nor the model's forward "
                "reads. Leave them out of the data set, or name them in TaskSpec.inputs."
            )
        self._check_ids(batch)

    def _check_ids(self, batch: Batch) -> None:
        """Refuse ids that no embedding has, and labels that are the inputs themselves."""
        ids = batch[self.task.inputs[0]]
        is_whole = not (ids.is_floating_point() or ids.is_complex())
        if self.n_embeddings and is_whole and ids.numel() and int(ids.min()) < 0:
            raise TaskError(
                f"An input is {int(ids.min())}, but ids count from 0. Look at the data set."
            )
        top = int(ids.max()) if is_whole and ids.numel() else 0
        if self.n_embeddings and top >= self.n_embeddings:
            raise TaskError(
                f"The model embeds {self.n_embeddings} tokens, but an input is {top}. Build the "
                "model with the vocab_size of the data."
            )
        labels = self.labels(batch)
        if labels.is_floating_point():
            raise TaskError(
                f"The labels are of type {labels.dtype}, but {self.task.kind} wants ids. Convert "
                "them to torch.long in the data set."
            )
        counted = labels != self.task.ignore_index
        if not counted.any() or int(labels[counted].min()) < 0:
            raise TaskError(
                f"The first batch has no label that counts, or one below 0 that is not "
                f"{self.task.ignore_index}, but the loss needs ids. Look at the labels."
            )
        if self.task.labels not in batch.fields or labels.shape != ids.shape:
            return
        is_copy = bool((labels[counted] == ids[counted]).all())
        if is_copy and len(ids[counted].unique()) > 1:
            raise TaskError(
                f"The labels of a batch equal its inputs, but {self.task.kind} wants the inputs "
                "moved by one, and would learn to copy. Leave the labels out: they are made from "
                "the inputs."
            )

    def _check_logits(self, logits: Any, labels: Tensor) -> None:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        wanted = tuple(labels.shape)
        if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[:2] != labels.shape:
            raise TaskError(
                f"The model returned {shape}, but {self.task.kind} wants logits of shape "
                f"{(*wanted, 'V')} for labels of shape {wanted}. Return the logits, a tuple that "
                "starts with them, or an object with an attribute logits."
            )
        top = max(int(labels.max()), self.largest_id)
        if top >= logits.shape[-1]:
            raise TaskError(
                f"The model predicts {logits.shape[-1]} tokens, but a label is {top}. Build the "
                "model with the vocab_size of the data."
            )
        self.n_classes = logits.shape[-1]


def _keywords(task: TaskSpec, model: nn.Module) -> tuple[str | None, ...]:
    """Names by which `forward` takes the fields; (None,) where it takes one tensor by position.

    Raises: TaskError if forward takes no input, or needs one that the task does not name.
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    by_name = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    by_place = [
        p.name
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)
    ]
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters) and set(needed) <= set(task.inputs)
    if all(name in by_name or takes_any for name in task.inputs):
        extra = tuple(n for n in ("attention_mask",) if n in by_name and n not in task.inputs)
        names: tuple[str | None, ...] = (*task.inputs, *extra)
        given = names
    elif len(task.inputs) == 1 and by_place:
        names, given = (None,), (by_place[0],)
    else:
        unknown = [name for name in task.inputs if name not in by_name]
        raise TaskError(
            f"The task gives {list(task.inputs)} to the model, but {type(model).__name__}.forward "
            f"takes {list(by_name)} and not {unknown}. Set TaskSpec.inputs to its names."
        )
    absent = [name for name in needed if name not in given]
    if absent:
        raise TaskError(
            f"{type(model).__name__}.forward needs {absent}, but the task gives only "
            f"{list(task.inputs)}. Name the fields in TaskSpec.inputs, or give them defaults."
        )
    return names


def _logits_of(output: Any) -> Any:
    """The logits in what a model returned."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    if isinstance(output, tuple | list) and output:
        return output[0]
    return getattr(output, "logits", output)

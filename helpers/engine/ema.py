"""An exponential moving average of the weights: it lags behind the noise of single updates.

The average is what is validated, sampled from and exported; training goes on with the raw weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from helpers.engine.optim import copy_same_tensors


class WeightAverage:
    """The average of a model's trainable weights, on their device, in fp32 or better.

    Buffers are not averaged: the statistics of a batch norm stay those of the last step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._parameters = list(named.values())
        self._average = [
            p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for p in self._parameters
        ]
        self._names = list(named)
        self._is_in = False

    def decay_after(self, n_updates: int) -> float:
        """The decay that update `n_updates`, counted from 1, is taken up with.

        >>> [WeightAverage(nn.Linear(1, 1), 0.5).decay_after(n) for n in (1, 8, 100)]
        [0.18181818181818182, 0.5, 0.5]

        Source: `num_updates` of tf.train.ExponentialMovingAverage, TensorFlow's documentation:
        min(decay, (1 + n) / (10 + n)), so that the first weights are soon forgotten.
        """
        return min(self.decay, (1 + n_updates) / (10 + n_updates))

    @torch.no_grad()
    def update(self, n_updates: int, held: Tensor | None = None) -> None:
        """Take up the weights after an applied update.

        Where `held`, a scalar of fp32 on their device, is 1 and not 0, nothing was applied and the
        average stays; the host does not wait for it.
        """
        share: float | list[Tensor] = 1 - self.decay_after(n_updates)
        if held is not None:
            by_type = {a.dtype: ((1 - held.double()) * share).to(a.dtype) for a in self._average}
            share = [by_type[a.dtype] for a in self._average]
        weights = [p.to(a.dtype) for p, a in zip(self._parameters, self._average, strict=True)]
        torch._foreach_lerp_(self._average, weights, share)

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Give the model the averaged weights, and then its own back, bit for bit, come what may.

        Inside another such context it does nothing.
        """
        if self._is_in:
            yield
            return
        raw = [p.detach().clone() for p in self._parameters]
        self._is_in = True
        try:
            self.copy_to_model()
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, raw)
            self._is_in = False

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Leave the model with the averaged weights, for good."""
        torch._foreach_copy_(self._parameters, self._average)

    def state_tensors(self) -> dict[str, Tensor]:
        """The average by parameter name, for a checkpoint."""
        assert not self._is_in, "the weights of the model are swapped for their average"
        return dict(zip(self._names, self._average, strict=True))

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Copy the average of a checkpoint in place.

        Raises: CheckpointError if a tensor is missing, unknown or of another shape.
        """
        copy_same_tensors("average of weights", self.state_tensors(), tensors)

"""Metrics of a model over a data set, as sums that never leave the device until the end."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from helpers.data.collate import Batch
from helpers.data.packing import Samples
from helpers.engine.device import DevicePlan
from helpers.engine.memory import MicroBatch, first_line, free_memory, is_out_of_memory, let_go
from helpers.objectives import Objective


@torch.no_grad()
def evaluate(
    model: nn.Module,
    objective: Objective,
    plan: DevicePlan,
    data: Samples,
    n_sequences: int,
    batch_size: int,
) -> dict[str, float]:
    """Metrics over the first to last of `n_sequences` evenly spread samples; 0 takes all.

    Draws no random number, and leaves the model in the mode it was in. Where memory runs out, it
    goes on with half as many samples at once.
    """
    n = min(n_sequences or len(data), len(data))
    index = np.linspace(0, len(data) - 1, n).astype(np.int64)
    token_bytes = getattr(data, "token_bytes", None)
    if token_bytes is not None:
        token_bytes = token_bytes.to(plan.device)
    was_training = model.training
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=plan.device)
    start, parts = 0, MicroBatch(min(batch_size, n))
    while start < n:
        batch = data.gather(index[start : start + parts.size])
        try:
            sums += _sums(objective, plan, batch, token_bytes)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
            let_go(error)
        else:
            start += batch.n_samples
            continue
        free_memory()
        parts.halve(batch.n_samples, plan.device, reason)
    model.train(was_training)
    return objective.metrics_from(sums)


def _sums(
    objective: Objective, plan: DevicePlan, batch: Batch, token_bytes: Tensor | None
) -> Tensor:
    with plan.autocast():
        return objective.sums(batch.to(plan.device), token_bytes)

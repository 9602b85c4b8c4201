"""Metrics of a model over a data set, as sums that never leave the device until the end."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from helpers.data.packing import Samples
from helpers.engine.device import DevicePlan
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

    Draws no random number, and leaves the model in the mode it was in.
    """
    n = min(n_sequences or len(data), len(data))
    index = np.linspace(0, len(data) - 1, n).astype(np.int64)
    token_bytes = getattr(data, "token_bytes", None)
    if token_bytes is not None:
        token_bytes = token_bytes.to(plan.device)
    was_training = model.training
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=plan.device)
    for start in range(0, n, batch_size):
        batch = data.gather(index[start : start + batch_size]).to(plan.device)
        with plan.autocast():
            sums += objective.sums(batch, token_bytes)
    model.train(was_training)
    return objective.metrics_from(sums)

"""Where numbers stop being finite: one batch, run once more while every module is watched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from helpers.engine.memory import StepStart, first_line, let_go
from helpers.objectives import Objective

if TYPE_CHECKING:
    from helpers.data.collate import Batch
    from helpers.engine.loop import TrainingLoop


def first_not_finite(loop: TrainingLoop, batch: Batch) -> str:
    """Say in words which module's output, or which gradient, of a batch is not finite first.

    The weights are those of now, and the model is left as it was.
    """
    start = StepStart(loop.model, loop.plan.device)
    start.keep()
    loop.optimizer.zero_grad()
    try:
        return _search(loop, batch)
    except (RuntimeError, MemoryError) as error:
        # What is diagnosed must not be hidden by what went wrong with looking.
        let_go(error)
        return f"run once more, it failed ({first_line(error)})"
    finally:
        loop.optimizer.zero_grad()
        start.put_back()


def _search(loop: TrainingLoop, batch: Batch) -> str:
    # The plain model: hooks would make a compiled one compile again.
    objective = Objective(loop.objective.task, loop.model)
    total = torch.zeros((), device=loop.plan.device)
    with _watched(loop.model) as found:
        for micro in batch.to(loop.plan.device).split(loop.micro_batch.size):
            with loop.plan.autocast():
                loss = objective.loss_sum(micro) / objective.count(batch)
            if found:
                return f"run once more, the first output that is not finite is that of {found[0]}"
            loss.backward()
            total += loss.detach()
    named = {n: p.grad for n, p in loop.model.named_parameters() if p.grad is not None}
    wrong = [name for name, gradient in named.items() if not gradient.isfinite().all()]
    if not total.isfinite():
        return "run once more, the loss is not finite but the output of every module is"
    if wrong:  # gradients are computed from the last layer to the first
        return f"run once more, the first gradient that is not finite is that of {wrong[-1]}"
    return "run once more with the weights as they are, all of it is finite"


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """Collect the names of modules whose output is not finite, in the order of the computation."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name or type(module).__name__)

        return look

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()

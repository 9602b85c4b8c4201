"""The whole plan of a run before its first step: steps, tokens, memory, disk and time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from helpers.data.collate import Batch
from helpers.data.order import SampleOrder
from helpers.data.packing import Samples
from helpers.engine.budget import RESERVE, UNLIMITED, Budget, duration
from helpers.engine.device import DevicePlan
from helpers.engine.memory import redo_in_halves
from helpers.engine.random_state import capture_random_state, restore_random_state
from helpers.errors import DataError
from helpers.models.summary import count_parameters

if TYPE_CHECKING:
    from helpers.config import TrainingConfig
    from helpers.engine.loop import TrainingLoop


@dataclass(frozen=True)
class RunPlan:
    """What a run will do and cost.

    Units: `*_mib` in MiB, `*_s` in seconds. Weights, gradients and optimizer state are exact,
    activations are those of one measured micro-batch, time is measured steps times their number.
    """

    run_id: str
    steps: int
    epochs: float
    tokens: int
    parameters: int
    device: DevicePlan
    weights_mib: float
    gradients_mib: float
    optimizer_mib: float
    activations_mib: float
    disk_mib: float
    step_s: float
    total_s: float
    limit_s: float | None = None

    @property
    def memory_mib(self) -> float:
        """Weights, gradients, optimizer state and activations together."""
        return self.weights_mib + self.gradients_mib + self.optimizer_mib + self.activations_mib

    def rows(self) -> list[tuple[str, str, str]]:
        """What, how much, and how it comes about."""
        split = (
            f"weights {self.weights_mib:.1f}, gradients {self.gradients_mib:.1f}, optimizer "
            f"{self.optimizer_mib:.1f}, activations {self.activations_mib:.1f}"
        )
        return [
            ("run", self.run_id, "folder below output_dir"),
            ("length", f"{self.steps:,} steps", f"{self.epochs:.3g} epochs"),
            ("tokens", f"{self.tokens:,}", f"{self.tokens / self.parameters:.1f} per parameter"),
            ("parameters", f"{self.parameters:,}", "a shared one counts once"),
            ("device", str(self.device.device), self.device.reasons["device"]),
            ("precision", self.device.precision, self.device.reasons["precision"]),
            ("compile", "on" if self.device.compile else "off", self.device.reasons["compile"]),
            ("memory", f"{self.memory_mib:,.0f} MiB", split),
            ("disk", f"{self.disk_mib:,.0f} MiB", "checkpoints that are kept, and the final model"),
            ("time", duration(self.total_s), self._pace()),
        ]

    def _pace(self) -> str:
        pace = f"{1000 * self.step_s:.0f} ms a step, measured"
        return pace if self.limit_s is None else f"{pace}; {duration(self.limit_s)} at the most"

    def __repr__(self) -> str:
        return "\n".join(f"{what:<10} {much:<22} {how}" for what, much, how in self.rows())

    def _repr_html_(self) -> str:
        left = "<td style='text-align:left'>"
        rows = "".join(
            f"<tr>{left}{what}</td>{left}<b>{much}</b></td>{left}{how}</td></tr>"
            for what, much, how in self.rows()
        )
        return f"<table>{rows}</table>"


def run_length(config: TrainingConfig, n_samples: int) -> int:
    """Steps of a run over so many samples; UNLIMITED where a budget alone ends it.

    Raises: DataError if the batch is larger than the data.
    """
    if config.batch_size > n_samples:
        raise DataError(
            f"batch_size is {config.batch_size}, but the training data has {n_samples} sequences. "
            "Lower batch_size, or load more data."
        )
    if config.epochs:
        return max(1, math.ceil(round(config.epochs * n_samples) / config.batch_size))
    return config.max_steps or UNLIMITED


def measure_plan(
    loop: TrainingLoop,
    train: Samples,
    val: Samples | None,
    config: TrainingConfig,
    run_id: str,
    steps: int,
) -> RunPlan:
    """Put a plan together; `loop` is thrown away afterwards."""
    step_s, activations_mib = probe(loop, train, config.seed)
    limit_s = Budget.of(config).limit_s
    if limit_s is not None:
        steps = _steps_within((1 - RESERVE) * limit_s, config, val, steps, step_s)
    weights = _mib(loop.model.state_dict().values())
    gradients = _mib(loop.optimizer.parameters)
    average = {} if loop.average is None else loop.average.state_tensors()
    state = _mib([*loop.optimizer.state_tensors().values(), *average.values()])
    kept = config.keep_checkpoints + (val is not None)
    n_samples = min(steps * config.batch_size, round(config.epochs * len(train)) or math.inf)
    tokens = int(n_samples * getattr(train, "sequence_length", 1))
    return RunPlan(
        run_id=run_id,
        steps=steps,
        epochs=n_samples / len(train),
        tokens=tokens,
        parameters=count_parameters(loop.model),
        device=loop.plan,
        weights_mib=weights,
        gradients_mib=gradients,
        optimizer_mib=state,
        activations_mib=activations_mib,
        disk_mib=kept * (weights + state) + weights,
        step_s=step_s,
        total_s=steps * step_s + _validation_s(config, val, steps, step_s),
        limit_s=limit_s,
    )


def probe(loop: TrainingLoop, train: Samples, seed: int) -> tuple[float, float]:
    """Measure seconds of a step and MiB of activations, leaving no trace in the model.

    Updates are made at a learning rate of 0, so `loop` must have an optimizer of its own; buffers
    and random states are put back.
    """
    random_state = capture_random_state()
    buffers = {name: buffer.clone() for name, buffer in loop.model.named_buffers()}
    batch = train.gather(SampleOrder(len(train), seed).take(0, loop.batch_size))
    was_training = loop.model.training
    loop.model.train()
    loop.start.keep()
    activations = redo_in_halves(loop, batch, None, lambda: _activations_mib(loop, batch))
    seconds = min(_timed_step(loop, batch) for _ in range(3))
    loop.model.train(was_training)
    for name, buffer in loop.model.named_buffers():
        buffer.copy_(buffers[name])
    restore_random_state(*random_state)
    return seconds, activations


def _timed_step(loop: TrainingLoop, batch: Batch) -> float:
    start = time.perf_counter()
    loop.accumulate(batch)
    # An infinite gradient would leave its trace even at a learning rate of 0.
    for parameter in loop.optimizer.parameters:
        if parameter.grad is not None:
            parameter.grad.zero_()
    norm = loop.clip()
    loop.apply(0.0)
    norm.item()
    return time.perf_counter() - start


def _activations_mib(loop: TrainingLoop, batch: Batch) -> float:
    """Size of what the forward pass of one micro-batch keeps for the backward pass."""
    parameters = {p.untyped_storage().data_ptr() for p in loop.model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    micro = next(iter(batch.to(loop.plan.device).split(loop.micro_batch.size)))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), loop.plan.autocast():
        loop.objective.loss_sum(micro).backward()
    loop.optimizer.zero_grad()
    return sum(kept.values()) / 2**20


def _validation_s(config: TrainingConfig, val: Samples | None, steps: int, step_s: float) -> float:
    """Seconds of all validations, a sequence taken at a third of its cost in training."""
    if val is None:
        return 0.0
    times = steps // config.eval_every if config.eval_every else 1
    each = min(config.eval_sequences or len(val), len(val))
    return (times * each + len(val)) * step_s / config.batch_size / 3


def _steps_within(
    room_s: float, config: TrainingConfig, val: Samples | None, most: int, step_s: float
) -> int:
    """The most steps that fit into a time with their validations; at least one."""
    fits, too_many = 1, most + 1
    while too_many - fits > 1:
        steps = (fits + too_many) // 2
        if steps * step_s + _validation_s(config, val, steps, step_s) <= room_s:
            fits = steps
        else:
            too_many = steps
    return fits


def _mib(tensors: Iterable[torch.Tensor]) -> float:
    """Size of tensors; one that is shared counts once."""
    unique = {t.data_ptr(): t.numel() * t.element_size() for t in tensors}
    return sum(unique.values()) / 2**20

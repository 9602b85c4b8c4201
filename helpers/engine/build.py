"""What a run is put together from: the device as the run knows it, and the loop that updates."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from helpers.config import TrainingConfig
from helpers.engine.device import DevicePlan, plan_device, prepare_backend
from helpers.engine.durable import write_json
from helpers.engine.ema import WeightAverage
from helpers.engine.guard import Guard
from helpers.engine.loop import TrainingLoop
from helpers.engine.optim import OptimizerFactory
from helpers.engine.run_folder import DEVICE_FILE, RunFolder, read_json
from helpers.engine.schedule import SchedulerFactory
from helpers.objectives import Objective


def settle_device(
    model: nn.Module, config: TrainingConfig, run_path: Path | None = None
) -> DevicePlan:
    """Plan the device, keep the precision that a run has begun in, and move the model there."""
    prepare_backend(config)
    before = None if run_path is None else read_json(run_path / DEVICE_FILE)
    begun_in = before.get("precision") if before else None
    plan = plan_device(model, config, begun_in=begun_in)
    model.to(plan.device)
    if run_path is not None and before is None and run_path.is_dir():
        with RunFolder(run_path).writing():
            write_json(run_path / DEVICE_FILE, plan.to_dict())
    return plan


def build_loop(
    model: nn.Module,
    objective: Objective,
    config: TrainingConfig,
    total_steps: int,
    plan: DevicePlan,
) -> TrainingLoop:
    """Everything that updates a model, which is on its device."""
    return TrainingLoop(
        model,
        objective,
        OptimizerFactory.create(model, config, muon_dtype=plan.muon_dtype),
        SchedulerFactory.create(config, total_steps),
        plan,
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        max_grad_norm=config.max_grad_norm,
        guard=Guard(plan.device, config.spike_sigma),
        average=WeightAverage(model, config.ema_decay) if config.ema_decay else None,
    )

"""What the guard costs a step: with and without it in one process, in an order drawn each time.

    python benchmarks/bench_guard.py [--steps 1500]

`guard` judges each step and holds a bad one back; `all` also remembers random states and buffers,
so that a step can be done again where memory runs out. `nothing` stands there twice: how far the
two are apart is what the machine adds. Steps are compared by their median and by the 10th
percentile, which a busy machine moves less; every tenth step is logged, as in a run.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from helpers.config import TrainingConfig
from helpers.data.collate import Batch
from helpers.engine.device import plan_device
from helpers.engine.guard import Guard
from helpers.engine.loop import TrainingLoop
from helpers.engine.optim import OptimizerFactory
from helpers.engine.run import Run
from helpers.engine.run_folder import RunFolder
from helpers.engine.schedule import SchedulerFactory
from helpers.models import Decoder, DecoderConfig
from helpers.objectives import Objective
from helpers.task import TaskSpec
from tests.faults.scale import record

MODES = ("nothing", "nothing again", "guard", "all")
SIZES = {"smoke": (64, 2, 2, 8, 64), "quick": (128, 4, 4, 16, 128)}
WARM_UP, SEED, STEPS = 20, 0, 10**6


class Forgetful:
    """Remembers nothing of a step's start."""

    def keep(self) -> None:
        """Do nothing."""

    def put_back_buffers_where(self, held: Tensor) -> None:
        """Do nothing."""


def make(mode: str, size: tuple[int, ...], optimizer: str) -> tuple[TrainingLoop, Run]:
    """A loop and its run, with parts of the protection left out."""
    width, n_layers, n_heads, *_ = size
    config = TrainingConfig(optimizer=optimizer, device="cpu", precision="fp32")
    torch.manual_seed(SEED)
    model = Decoder(DecoderConfig(257, d_model=width, n_layers=n_layers, n_heads=n_heads))
    plan = plan_device(model, config)
    loop = TrainingLoop(
        model,
        Objective(TaskSpec.causal_lm(), model),
        OptimizerFactory.create(model, config),
        SchedulerFactory.create(config, STEPS),
        plan,
        batch_size=size[3],
        guard=Guard(plan.device, 10.0) if mode in ("guard", "all") else None,
    )
    if mode != "all":
        loop.start = Forgetful()
    folder = RunFolder(tempfile.mkdtemp())
    run = Run(folder, config, model, total_steps=STEPS, n_train_samples=STEPS)
    return loop, run


def compare(size: tuple[int, ...], optimizer: str, n_steps: int) -> dict[str, list[float]]:
    """Seconds of each step, by mode."""
    loops = {mode: make(mode, size, optimizer) for mode in MODES}
    batch_size, length = size[3:]
    ids = torch.randint(257, (batch_size, length + 1))
    fields = {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}
    batch = Batch(fields, batch_size, batch_size * length)
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    for i in range(n_steps + WARM_UP):
        for mode in random.sample(MODES, len(MODES)):
            loop, run = loops[mode]
            started = time.perf_counter()
            loop.step(batch, run)
            if i % 10 == 9:
                if loop.guard is not None:
                    loop.guard.read(run.state)
                run.tracker.flush(run.state.step, epoch=0.0)
            times[mode].append(time.perf_counter() - started)
    return {mode: seconds[WARM_UP:] for mode, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(SEED)
    started, figures = time.perf_counter(), {}
    print("| size | optimizer | mode | median, ms | over nothing | 10th percentile over nothing |")
    print("|---|---|---|---|---|---|")
    for name, size in SIZES.items():
        for optimizer in ("adamw", "muon"):
            n_steps = options.steps if name == "smoke" else max(40, options.steps // 20)
            times = compare(size, optimizer, n_steps)
            middle = {mode: statistics.median(t) for mode, t in times.items()}
            low = {mode: statistics.quantiles(t, n=10)[0] for mode, t in times.items()}
            for mode in MODES:
                more = 100 * (middle[mode] / middle["nothing"] - 1)
                less = 100 * (low[mode] / low["nothing"] - 1)
                print(
                    f"| {name} | {optimizer} | {mode} | {1000 * middle[mode]:.2f} | {more:+.1f} % "
                    f"| {less:+.1f} % |"
                )
            figures[f"{name}, {optimizer}, 10th percentile, %"] = round(less, 1)
    record(
        "guard_cost",
        "Judging each step, and remembering how it began so that it can be done again, adds a few "
        "percent to the time of a small step.",
        figures,
        command="python benchmarks/bench_guard.py",
        seed=SEED,
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()

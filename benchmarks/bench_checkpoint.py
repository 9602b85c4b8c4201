"""What saving costs the training: in the background, beside a copy of the state alone and rivals.

    python benchmarks/bench_checkpoint.py [--rounds 12] [--width 384] [--steps 400]

First one run of the trainer in one process, in which the ways to save take turns, one a step, in an
order drawn for each round:

- nothing: the step alone;
- copy: the state is copied to CPU memory that is used again, and that is all;
- background: a checkpoint as the trainer writes it, hashed, synced and read by a manifest;
- synchronous: the same, waited for;
- torch.save: model and optimizer into one file beside it, then renamed, as many loops do;
- torch.save + fsync: the same, synced.

`stops` is the time for which the loop stands still in the call; `costs` also counts what the step
after it takes longer, for which another core must be free, and what is left of the writing after
that step. Both are medians over rounds
and divided by those of the copy. Then a run of the default settings, with the share of its wall
time that all its saving took, those at its begin and end included.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from helpers.config import TrainingConfig
from helpers.data.packing import PackedTokens
from helpers.engine.callbacks import Callback
from helpers.engine.saver import Buffers, Saver
from helpers.engine.snapshot import save_run, take_snapshot
from helpers.models import Decoder, DecoderConfig
from helpers.trainer import Trainer
from tests.faults.scale import record

MODES = ("nothing", "copy", "background", "synchronous", "torch.save", "torch.save + fsync")
WARM_UP, SEED, VOCABULARY = 2, 0, 256
LIMITS = {"stops the loop / copy": 1.3, "share of wall time, default, %": 2.0}
"""What is promised; with more than that the benchmark fails."""
# So many sequences that a step takes longer than a checkpoint takes to be written.
BATCH = 24


class Watched(Trainer):
    """A trainer whose loop can be looked at."""

    def _loop(self, *arguments: Any, **named: Any) -> Any:
        self.loop = super()._loop(*arguments, **named)
        return self.loop


class TakeTurns(Callback):
    """Save in another way after each step, and take the time."""

    def __init__(self, rounds: int, folder: Path) -> None:
        rng = random.Random(SEED)
        self.turns = [m for _ in range(rounds + WARM_UP) for m in rng.sample(MODES, len(MODES))]
        self.folder, self.buffers, self.trainer = folder, Buffers(), None
        self.stops: dict[str, list[float]] = {mode: [] for mode in MODES}
        self.units: dict[str, list[float]] = {mode: [] for mode in MODES}
        self.began, self.mode, self.n_bytes = 0.0, "", 0

    def on_log(self, run: Any, row: dict[str, Any]) -> None:
        """End the turn of one way, whose step is over, and begin that of the next."""
        run.saver.wait(run)
        if self.mode:
            self.units[self.mode].append(time.perf_counter() - self.began)
        if not self.turns:
            return
        self.mode = self.turns.pop(0)
        act = self.ways(run)[self.mode]
        snapshot = take_snapshot(run, self.trainer.loop)
        self.n_bytes, self.sections = snapshot.n_bytes, snapshot.sections
        self.began = time.perf_counter()
        act()
        self.stops[self.mode].append(time.perf_counter() - self.began)

    def ways(self, run: Any) -> dict[str, Callable[[], Any]]:
        """How each way saves."""
        loop = self.trainer.loop
        return {
            "nothing": lambda: None,
            "copy": lambda: self.buffers.copy(self.sections),
            "background": lambda: save_run(run, loop, is_background=True),
            "synchronous": lambda: save_run(run, loop),
            "torch.save": lambda: self.torch_save(is_synced=False),
            "torch.save + fsync": lambda: self.torch_save(is_synced=True),
        }

    def torch_save(self, *, is_synced: bool) -> None:
        """What a careful hand-written loop does."""
        path = self.folder / "last.pt"
        with path.with_suffix(".tmp").open("wb") as file:
            torch.save(self.sections, file)
            if is_synced:
                file.flush()
                os.fsync(file.fileno())
        path.with_suffix(".tmp").replace(path)


class Clocked:
    """Adds up the wall time in methods of the saver, wherever they are called."""

    def __init__(self, *names: str) -> None:
        self.total_s, self._depth = 0.0, 0
        for name in names:
            setattr(Saver, name, self._timed(getattr(Saver, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._depth, started = self._depth + 1, time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                self._depth -= 1
                self.total_s += 0.0 if self._depth else time.perf_counter() - started

        return call


def tokens() -> np.ndarray:
    """Bytes drawn at random: what is trained does not matter here."""
    return np.random.default_rng(SEED).integers(0, VOCABULARY, 2_000_000).astype(np.uint16)


def train(folder: str, shape: dict[str, int], callbacks: list[Callback], **settings: Any) -> Any:
    """Train a decoder of this shape on the CPU, and return the result."""
    common = {"output_dir": folder, "device": "cpu", "panel": "off", "database": "off"}
    config = TrainingConfig(**common, **shape, seed=SEED, sample_tokens=0, eval_every=0, **settings)
    torch.manual_seed(SEED)
    sizes = {name: shape[name] for name in ("d_model", "n_layers", "n_heads")}
    model = Decoder(DecoderConfig(VOCABULARY, **sizes))
    trainer = Watched(model, model.config, config, callbacks=callbacks)
    for callback in callbacks:
        callback.trainer = trainer
    return trainer.train(PackedTokens(tokens(), shape["sequence_length"]))


def compare(rounds: int, width: int) -> dict[str, float]:
    """Print what each way costs, by one run in which they take turns; return what ours does."""
    shape = {"d_model": width, "n_layers": 6, "n_heads": 6, "sequence_length": 128}
    with tempfile.TemporaryDirectory() as folder:
        turns = TakeTurns(rounds, Path(folder))
        settings = {"optimizer": "adamw", "save_every": 0, "save_minutes": 0, "log_every": 1}
        n_steps = len(turns.turns) + 1
        train(folder, shape, [turns], batch_size=BATCH, max_steps=n_steps, **settings)
    stops = {mode: values[WARM_UP:] for mode, values in turns.stops.items()}
    units = {mode: values[WARM_UP:] for mode, values in turns.units.items()}
    costs = {
        mode: statistics.median(a - b for a, b in zip(units[mode], units["nothing"], strict=True))
        for mode in MODES
    }
    copy_s = statistics.median(stops["copy"])
    step_s = statistics.median(units["nothing"])
    print(f"state {turns.n_bytes / 2**20:.0f} MiB, step {step_s:.2f} s, copy {copy_s:.4f} s, "
          f"{rounds} rounds\n")  # fmt: skip
    print("| way to save | stops the loop, s | stops / copy | costs the loop, s | costs / copy |")
    print("|---|---|---|---|---|")
    for mode in MODES[1:]:
        stop_s = statistics.median(stops[mode])
        print(f"| {mode} | {stop_s:.4f} | {stop_s / copy_s:.2f} | {costs[mode]:.4f} | "
              f"{costs[mode] / costs['copy']:.2f} |")  # fmt: skip
    stop_s = statistics.median(stops["background"])
    return {
        "state, MiB": round(turns.n_bytes / 2**20),
        "copy of the state, s": round(copy_s, 4),
        "stops the loop / copy": round(stop_s / copy_s, 2),
        "slows the step and the writing, s": round(costs["background"] - stop_s, 3),
    }


def default_cadence(steps: int) -> dict[str, float]:
    """Print the share of wall time that saving takes with the default settings, and return it."""
    names = ("save_every", "save_minutes")
    shape = {"d_model": 128, "n_layers": 4, "n_heads": 4, "sequence_length": 128}
    cases, shares = {"default": {}, "every step": {"save_every": 1}}, {}
    print(
        "\n| cadence | save_every, save_minutes | steps | checkpoints | wall s | share of saving |"
    )
    print("|---|---|---|---|---|---|")
    for name, changes in cases.items():
        clock = Clocked("save", "is_due", "deliver", "wait", "close")
        counter = Count()
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            train(folder, shape, [counter], max_steps=steps, **changes)
            wall_s = time.perf_counter() - started
        shares[f"share of wall time, {name}, %"] = round(100 * clock.total_s / wall_s, 2)
        config = TrainingConfig(**changes)
        cadence = ", ".join(f"{getattr(config, name):g}" for name in names)
        print(f"| {name} | {cadence} | {steps} | {counter.n} | {wall_s:.1f} | "
              f"{100 * clock.total_s / wall_s:.2f} % |")  # fmt: skip
    return shares


class Count(Callback):
    """Count checkpoints."""

    n = 0

    def on_checkpoint(self, run: Any, info: Any) -> None:
        self.n += 1


def faults_of(figures: dict[str, float]) -> list[str]:
    """What costs more than is promised."""
    return [name for name, limit in LIMITS.items() if figures[name] > limit]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    figures = compare(options.rounds, options.width) | default_cadence(options.steps)
    if faults_of(figures):
        print(f"\nmore than promised: {', '.join(faults_of(figures))}")
        return 1
    record(
        "cost",
        "Saving in the background stops the training for a copy of its state, and with the default "
        "cadence for less than 2 % of the time.",
        {**figures, "rounds": options.rounds},
        command="python benchmarks/bench_checkpoint.py",
        seed=SEED,
        seconds=time.perf_counter() - started,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

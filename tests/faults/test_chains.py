"""Chains of resumes: a run that was broken up to six times equals the unbroken one in every bit.

A chain follows from one number: settings, moments and ways to break off. `TRAINBOOK_CHAIN=17`
replays chain 17 alone.
"""

import contextlib
import hashlib
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from helpers.data.packing import MapSamples
from helpers.engine import loop, snapshot
from helpers.engine.callbacks import Callback, EarlyStopping
from helpers.engine.ema import WeightAverage
from helpers.engine.metrics import MetricsTracker
from helpers.engine.optim import Optimizer
from helpers.engine.run import RunState
from helpers.engine.run_folder import RunFolder
from helpers.errors import CheckpointError
from helpers.export import load_export
from tests.faults.scale import n, record

ONE = os.environ.get("TRAINBOOK_CHAIN")
SEEDS = [int(ONE)] if ONE else range(n(12, 200))
# What differs between two runs that are the same.
TIMES = {"wall_s", "elapsed_s", "window_s", "tokens_per_s"}
WAYS = (
    "stop",
    "kill in the forward pass",
    "kill in the backward pass",
    "kill at the log",
    "kill at the validation",
    "kill at the checkpoint",
    "kill at the start",
    "kill at the end",
    "kill in the data",
    "error in the model",
    "error at the log",
)

SURE = tuple(way for way in WAYS if way.endswith(("pass", "start", "model")))


class Killed(BaseException):
    """What no handler catches, so that nothing is rescued."""


class Broken(Exception):
    """An error of somebody's code, after which the steps done are rescued."""


@dataclass
class Break(Callback):
    """Break a session off in one way at one step, once."""

    way: str
    step: int
    part: int
    rows: "Rows"
    is_done: bool = False
    calls: Counter = field(default_factory=Counter)

    def act(self) -> None:
        if self.is_done:
            return
        self.is_done = True
        raise Broken if self.way.startswith("error") else Killed

    def on_start(self, run):
        self.run = run
        run.model.register_forward_hook(self.forward)
        if self.way == "kill at the start":
            self.act()
        if self.way == "kill in the data":
            # With workers the data is looked at twice before the first batch is read.
            looks = 2 * len(self.rows) if run.config.num_workers else 0
            self.rows.left = looks + self.step * run.config.batch_size

    def forward(self, model, inputs, output):
        if not model.training or self.run.state.step + 1 != self.step:
            return
        if self.way == "stop" and not self.is_done:
            self.is_done = True
            self.run.stop.set("test")
        self.calls["forward"] += 1
        if self.calls["forward"] != self.part:
            return
        if self.way in ("kill in the forward pass", "error in the model"):
            self.act()
        if self.way == "kill in the backward pass":
            output.register_hook(lambda gradient: self.act())

    def on_log(self, run, row):
        if self.way.endswith("at the log") and row["step"] >= self.step:
            self.act()

    def on_evaluate(self, run, row):
        if self.way == "kill at the validation" and row["step"] >= self.step:
            self.act()

    def on_checkpoint(self, run, info):
        if self.way == "kill at the checkpoint" and info.step >= self.step:
            self.act()

    def on_end(self, run, status):
        if self.way == "kill at the end":
            self.act()


class Rows:
    """Sequences of a data set, of which reading one may kill."""

    def __init__(self, n_rows: int) -> None:
        self.ids = torch.randint(257, (n_rows, 9), generator=torch.Generator().manual_seed(n_rows))
        self.left: int | None = None
        self.is_broken = False

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        if self.left is not None:
            self.left -= 1
            self.is_broken = self.left < 0
        if self.is_broken:
            raise Killed
        return {"input_ids": self.ids[i, :-1], "labels": self.ids[i, 1:]}


class Noisy(nn.Module):
    """A model that draws from every generator, with moving buffers, and a shared weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.table, self.norm = nn.Embedding(257, 8), nn.BatchNorm1d(8)
        self.hidden, self.out = nn.Linear(8, 8), nn.Linear(8, 257)
        self.out.weight = self.table.weight
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, input_ids):
        x = self.norm(self.hidden(self.table(input_ids)).mT).mT
        if self.training:
            self.count += 1
            scale = 0.01 * random.random() * np.random.rand() + 1e-4 * self.count
            x = x + scale * torch.randn_like(x)
        return self.out(x)


@dataclass(frozen=True)
class Chain:
    """What is trained, and where and how it is broken off."""

    seed: int
    settings: dict[str, Any]
    is_noisy: bool
    n_rows: int
    n_val: int
    breaks: list[tuple[str, int, int]]
    workers: list[int]

    @classmethod
    def of(cls, seed: int) -> "Chain":
        """The chain that a number stands for."""
        rng = random.Random(f"chain {seed}")
        is_noisy, n_rows = rng.random() < 0.3, rng.randint(13, 40)
        batch, micro = rng.choice([(4, 0), (6, 2), (5, 2), (3, 1)])
        settings = {
            "dropout": 0.0 if is_noisy else rng.choice([0.0, 0.1]),
            "batch_size": batch,
            "micro_batch_size": micro,
            "max_grad_norm": rng.choice([0.0, 0.5]),
            "ema_decay": rng.choice([0.0, 0.9]),
            "scheduler": rng.choice(["wsd", "cosine", "linear", "constant"]),
            "optimizer": rng.choice(["muon", "adamw"]),
            "precision": rng.choice(["fp32"] * 4 + ["bf16", "fp16"]),
            "warmup_fraction": rng.choice([0.0, 0.2]),
            "save_every": rng.choice([0, 1, 1, 3, 5]),
            "keep_checkpoints": rng.choice([1, 2]),
            "log_every": rng.choice([1, 1, 3, 7]),
            "eval_every": rng.choice([0, 2, 5]),
            "save_minutes": rng.choice([0.0, 10.0]),
        }
        if settings["eval_every"] and rng.random() < 0.4:
            settings |= {"early_stopping_patience": 3, "early_stopping_min_delta": 9.0}
        settings |= _length(rng, n_rows, batch)
        steps = settings["max_steps"] or -(-round(settings["epochs"] * n_rows) // batch)
        breaks = _breaks(rng, steps, max(1, n_rows // batch), -(-batch // (micro or batch)))
        workers = [rng.choice([0, 2]) for _ in range(len(breaks) + 1)]
        n_val = 6 if settings["eval_every"] else 0
        return cls(seed, settings, is_noisy, n_rows, n_val, breaks, workers)


def _length(rng: random.Random, n_rows: int, batch: int) -> dict[str, Any]:
    """So many steps, or epochs whose last batch may be a part of one."""
    if rng.random() < 0.5:
        return {"max_steps": rng.randint(6, 14)}
    longest = 14 * batch / n_rows
    return {"max_steps": 0, "epochs": min(rng.choice([1.0, 1.5, 2.0, 2.3]), round(longest, 1))}


def _breaks(rng: random.Random, steps: int, epoch: int, parts: int) -> list[tuple[str, int, int]]:
    """One to six breaks: anywhere, at the first step, an epoch's end, the last step, twice."""
    # The first one takes effect whatever the settings, so that every chain has a resume.
    breaks = [(rng.choice(SURE), rng.choice([1, min(2, steps), min(epoch, steps, 6)]), 1)]
    for _ in range(rng.randint(0, 5)):
        step = rng.choice([rng.randint(1, steps)] * 4 + [1, epoch, epoch + 1, steps, steps + 1])
        if rng.random() < 0.25:
            step = breaks[-1][1]
        breaks.append((rng.choice(WAYS), step, rng.randint(1, parts)))
    return breaks[:1] + (breaks[1:] if rng.random() < 0.3 else sorted(breaks[1:], key=_step_of))


def _step_of(at: tuple[str, int, int]) -> int:
    return at[1]


@pytest.fixture
def train(make_trainer, tmp_path):
    """Train one session of a chain in a folder; return the trainer, its result, if it ended, and
    whether it was broken off.
    """

    def session(chain: Chain, folder: str, at: tuple[str, int, int] | None, workers: int):
        rows, val = Rows(chain.n_rows), Rows(chain.n_val) if chain.n_val else None
        breaks = [] if at is None else [Break(*at, rows)]
        trainer = make_trainer(
            model=Noisy() if chain.is_noisy else None,
            run_name="r",
            output_dir=str(tmp_path / folder),
            num_workers=workers,
            callbacks=breaks,
            **chain.settings,
        )
        _scramble(f"{chain.seed} {folder} {at}")
        data = MapSamples(rows)
        data.fingerprint = f"{chain.n_rows} rows"
        result = None
        with contextlib.suppress(Killed, Broken):
            result = trainer.train(data, val)
        return trainer, result, rows.is_broken or any(b.is_done for b in breaks)

    return session


def _scramble(seed: str) -> None:
    """Whatever was drawn before a session must not matter."""
    number = random.Random(seed).randrange(2**32)
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def run_chain(chain: Chain, train: Callable) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Digests of the unbroken run and of the broken one, and the ways in which that broke off."""
    trainer, result, _ = train(chain, f"unbroken {chain.seed}", None, chain.workers[-1])
    unbroken, ways = digests(trainer, result), []
    for at, workers in zip([*chain.breaks, None], chain.workers, strict=True):
        trainer, result, is_broken = train(chain, f"broken {chain.seed}", at, workers)
        ways += [at[0]] if is_broken else []
    assert not threads()
    return unbroken, digests(trainer, result), ways


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "data"]


def digests(trainer, result) -> dict[str, str]:
    """SHA-256 of every part of the state and of the outcome of a run, by name."""
    folder = RunFolder(result.run_dir)
    last = folder.checkpoints.load_latest()
    parts = {f"{s}/{name}": _of(t) for s, ts in last.sections.items() for name, t in ts.items()}
    parts |= {f"state/{name}": _of(value) for name, value in _timeless(last.state).items()}
    parts |= {f"memory/{name}": _of(t) for name, t in trainer.model.state_dict().items()}
    exported = load_export(folder.model_file)["model_state_dict"]
    parts |= {f"export/{name}": _of(t) for name, t in exported.items()}
    facts = ("status", "steps", "tokens", "final_loss", "final_metrics", "best_loss", "best_step")
    parts |= {f"result/{name}": _of(result[name]) for name in facts}
    parts["rows"] = _of(result.history.to_dict("records"))
    return parts | {"result/step": _of(last.step)}


def _of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        content = f"{value.dtype} {tuple(value.shape)}".encode()
        content += value.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
    else:
        content = json.dumps(_timeless(value), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _timeless(value: Any) -> Any:
    """A value without what a clock said, and without gaps of tables."""
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in TIMES and v == v}
    return [_timeless(v) for v in value] if isinstance(value, list | tuple) else value


def test_every_chain_of_resumes_gives_the_bits_of_the_unbroken_run(train):
    began, ways, lengths, n_values = time.monotonic(), Counter(), Counter(), 0
    for seed in SEEDS:
        chain = Chain.of(seed)
        unbroken, broken, own_ways = run_chain(chain, train)
        names = unbroken.keys() | broken.keys()
        differ = sorted(name for name in names if unbroken.get(name) != broken.get(name))
        ways.update(own_ways)
        lengths[len(own_ways)] += 1
        n_values += len(unbroken)

        assert not differ, f"TRAINBOOK_CHAIN={seed}: {differ[:8]} differ in {chain}"
    assert ONE or not lengths[0]
    record(
        "resume",
        "Killed or stopped one to six times at any step, with dropout, accumulation, clipping, an "
        "average of weights, each schedule and optimizer, and another number of workers, a run "
        "ends in the same bits as one that was never disturbed.",
        {
            "chains": len(SEEDS),
            "bit-identical": len(SEEDS),
            "resumes": ways.total(),
            "chains by resumes": {str(k): v for k, v in sorted(lengths.items())},
            "resumes by cause": dict(sorted(ways.items())),
            "values compared by SHA-256": n_values,
        },
        command="TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_chains.py",
        seed=0,
        seconds=time.monotonic() - began,
    )


def test_chains_cover_what_they_should():
    """Of 200 chains: every way to break off, every schedule, both optimizers, and so on."""
    chains = [Chain.of(seed) for seed in range(200)]
    covered = {
        name: {chain.settings[name] for chain in chains}
        for name in ("dropout", "max_grad_norm", "ema_decay", "scheduler", "optimizer")
    }

    assert covered == {
        "dropout": {0.0, 0.1},
        "max_grad_norm": {0.0, 0.5},
        "ema_decay": {0.0, 0.9},
        "scheduler": {"wsd", "cosine", "linear", "constant"},
        "optimizer": {"muon", "adamw"},
    }
    assert {way for chain in chains for way, _, _ in chain.breaks} == set(WAYS)
    assert {len(chain.breaks) for chain in chains} == set(range(1, 7))
    assert {(0, 2), (2, 0)} <= {tuple(chain.workers[:2]) for chain in chains}
    assert any(chain.settings["micro_batch_size"] == 2 for chain in chains)
    assert any("early_stopping_patience" in chain.settings for chain in chains)
    assert any(chain.settings.get("epochs") for chain in chains)


# Without a protection the chains go red


def nothing(*args, **named):
    return None


def without_random_states(patch):
    patch.setattr(snapshot, "restore_random_state", nothing)
    patch.setattr(loop, "restore_random_state", nothing)


def without_data_cursor(patch):
    patch.setattr(snapshot, "RunState", lambda **state: RunState(**{**state, "samples": 0}))


def without_pending(patch):
    real = MetricsTracker.restore
    patch.setattr(
        MetricsTracker, "restore", lambda self, step, s, pending=None: real(self, step, s)
    )


REMOVED = {
    "random states": without_random_states,
    "optimizer": lambda patch: patch.setattr(Optimizer, "load_state_tensors", nothing),
    "average": lambda patch: patch.setattr(WeightAverage, "load_state_tensors", nothing),
    "data cursor": without_data_cursor,
    "losses not logged yet": without_pending,
    "early stopping": lambda patch: patch.setattr(EarlyStopping, "load_state_dict", nothing),
}


@pytest.mark.parametrize("removed", [None, *REMOVED])
def test_a_chain_without_one_part_of_the_state_goes_red(train, monkeypatch, removed):
    settings = {"dropout": 0.1, "ema_decay": 0.9, "log_every": 7, "eval_every": 2, "save_every": 3}
    stopping = {"early_stopping_patience": 4, "early_stopping_min_delta": 9.0}
    breaks = [("stop", 4, 1), ("stop", 5, 1)]
    chain = Chain(-1, settings | stopping | {"max_steps": 12}, False, 20, 6, breaks, [0, 2, 0])
    with monkeypatch.context() as patch:
        if removed is not None:
            REMOVED[removed](patch)
        unbroken, broken, _ = run_chain(chain, train)

    assert (unbroken == broken) == (removed is None)


# What a checkpoint must hold


def drop(key):
    return lambda part: part.pop(key)


def add(key):
    return lambda part: part.update({key: {}})


@pytest.mark.parametrize(
    ("where", "change"),
    [
        *[("sections", drop(name)) for name in ("model", "optimizer", "random", "buffers", "ema")],
        *[("state", drop(name)) for name in sorted(snapshot.VALUES - snapshot.LATER.keys())],
        ("sections", add("more")),
        ("state", add("more")),
    ],
)
def test_a_checkpoint_with_a_part_too_few_or_too_many_is_refused(train, where, change):
    chain = Chain(-1, {"max_steps": 6, "ema_decay": 0.9}, False, 20, 0, [], [0])
    _, result, _ = train(chain, "r", ("stop", 3, 1), 0)
    store = RunFolder(result.run_dir).checkpoints
    taken = store.load(3)
    taken.step = 4
    change(getattr(taken, where))
    store.save(taken, keep=9)

    with pytest.raises(CheckpointError, match="has the parts"):
        train(chain, "r", None, 0)


def test_what_callbacks_draw_before_the_first_step_does_not_matter(train, make_trainer, tmp_path):
    """Random states are put back when all else is ready."""

    class Drawing(Callback):
        def on_start(self, run):
            torch.rand(7), random.random(), np.random.rand()

    chain = Chain(-1, {"dropout": 0.1, "max_steps": 8}, False, 20, 0, [], [0])
    settings = {"run_name": "r", "callbacks": [Drawing()], **chain.settings}
    whole = make_trainer(**settings, output_dir=str(tmp_path / "whole"))
    broken = {**settings, "output_dir": str(tmp_path / "broken")}
    rows = Rows(20)
    expected = digests(whole, whole.train(rows))
    pause = Break("stop", 4, 1, rows)
    make_trainer(**{**broken, "callbacks": [Drawing(), pause]}).train(rows)
    again = make_trainer(**broken)

    assert digests(again, again.train(rows)) == expected

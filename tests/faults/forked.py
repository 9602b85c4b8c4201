"""Tiny runs in forked children: a trial that ends by a signal costs a tenth of a second.

A warm process has imported everything, has trained once and has a single thread; it forks a child
for each trial, signals it, and hears what it tells through a pipe. A child that hangs says where,
and is ended.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from helpers.config import TrainingConfig
from helpers.data.packing import MapSamples, Samples
from helpers.engine.callbacks import Callback
from helpers.engine.checkpoint import verify
from helpers.engine.run_folder import RunFolder
from helpers.errors import CheckpointError
from helpers.models import Decoder, DecoderConfig
from helpers.trainer import Trainer
from tests.faults.test_chains import Rows, digests

ROOT = Path(__file__).parents[2]
HANG_S = 60.0
N_TRAIN, N_VAL = 24, 6
SHAPE = {"d_model": 8, "n_layers": 1, "n_heads": 2}
PLAIN = {
    **SHAPE,
    "tokenizer": "byte",
    "sequence_length": 8,
    "batch_size": 4,
    "max_steps": 10,
    "eval_every": 2,
    "save_every": 1,
    "save_minutes": 0.0,
    "log_every": 1,
    "learning_rate": 0.02,
    "dropout": 0.1,
    "sample_tokens": 0,
    "panel": "off",
    "database": "off",
    "device": "cpu",
}
# FOLDER stands for that of a trial.
SCENES: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged": {
        "ema_decay": 0.9,
        "save_every": 2,
        "eval_every": 1,
        "keep_checkpoints": 1,
        "micro_batch_size": 2,
        "log_every": 3,
    },
    "bf16": {"precision": "bf16", "save_every": 3, "num_workers": 1, "optimizer": "adamw"},
    "epochs": {"max_steps": 0, "epochs": 1.6, "keep_checkpoints": 1, "early_stopping_patience": 4},
    "database": {"database": "sqlite:///FOLDER/runs.db", "eval_every": 3, "save_every": 2},
    "mirror": {"mirror_dir": "FOLDER/mirror", "save_every": 2},
}


class HungError(AssertionError):
    """A child did not end in time."""


class Tell:
    """Says what happens to the process that forked this one, a line of JSON each."""

    def __init__(self, writing: int, reading: int) -> None:
        self._writing, self._reading = writing, reading

    def __call__(self, kind: str, *values: Any) -> None:
        os.write(self._writing, (json.dumps([kind, *values]) + "\n").encode())

    def wait(self) -> None:
        """Wait until that process lets this one go on."""
        os.read(self._reading, 1)


class Child:
    """A forked process that acts and tells; whoever forks it signals it."""

    def __init__(self, act: Callable[[Tell], None], log: Path) -> None:
        (up, up_end), (down_end, down) = os.pipe(), os.pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.began = log, time.monotonic()
        self._text, self._is_over = b"", False
        self.pid = os.fork()
        if not self.pid:
            _live(act, Tell(up_end, down_end), log)
        os.close(up_end)
        os.close(down_end)
        self._up, self._down = up, down

    def hear(self, until: float) -> list[Any] | None:
        """The next that it tells; None when the time has come, or when it has ended."""
        while b"\n" not in self._text:
            left_s = max(0.0, until - time.monotonic())
            is_ready = bool(select.select([self._up], [], [], left_s)[0])
            part = os.read(self._up, 2**16) if is_ready else b""
            self._is_over = is_ready and not part
            if not part:
                return None
            self._text += part
        line, _, self._text = self._text.partition(b"\n")
        return json.loads(line)

    def hear_all(self) -> list[list[Any]]:
        """What it tells until it ends.

        Raises: HungError with the stacks of its threads if it does not end.
        """
        messages, until = [], self.began + HANG_S
        while (message := self.hear(until)) is not None:
            messages.append(message)
        if not self._is_over:
            raise HungError(f"A child hangs:\n{self._where()}")
        self._bury()
        return messages

    def send(self, number: int) -> None:
        """Send a signal; a child that has ended is a zombie until `hear_all`, so none is missed."""
        os.kill(self.pid, number)

    def let_go_on(self) -> None:
        """End its wait, now or when it comes to one."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, and says why
            os.write(self._down, b".")

    def _bury(self) -> None:
        os.waitpid(self.pid, 0)
        os.close(self._up)
        os.close(self._down)

    def _where(self) -> str:
        """The stacks of a child that hangs, which is killed then."""
        self.send(signal.SIGUSR1)
        time.sleep(0.5)
        self.send(signal.SIGKILL)
        self._bury()
        return self.log.read_text(errors="replace")


def _live(act: Callable[[Tell], None], tell: Tell, log: Path) -> NoReturn:
    """Be the child, and never come back."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Ends a child that hangs, even where nobody is left to end it.
        signal.alarm(int(HANG_S) + 10)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        faulthandler.register(signal.SIGUSR1, 2, all_threads=True)
        try:
            act(tell)
        except BaseException:  # noqa: BLE001 - it is told
            tell("error", traceback.format_exc())
    finally:
        os._exit(0)


class Warm:
    """The warm process, seen from a test: calls functions of a module there."""

    def __init__(self, module: str, log: Path) -> None:
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forked", module],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
        )

    def call(self, name: str, *, limit_s: float, **values: Any) -> Any:
        """What a function of the module returns, as JSON.

        Raises: AssertionError if it raises, or takes longer.
        """
        self._process.stdin.write((json.dumps([name, values]) + "\n").encode())
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], limit_s)
        if not ready:
            self._process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
        answer = self._process.stdout.readline() if ready else b""
        if not answer:
            self.close()
            raise HungError(f"{name} gave no answer:\n{self.log.read_text(errors='replace')}")
        outcome, value = json.loads(answer)
        assert outcome == "returned", value
        return value

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def warm(module: str, folder: Path) -> Iterator[Warm]:
    """A warm process as long as the block runs."""
    process = Warm(module, folder / "warm.log")
    try:
        yield process
    finally:
        process.close()


def serve(name: str) -> None:
    """Be the warm process: answer calls on the standard input until it is closed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    faulthandler.register(signal.SIGUSR1, 2, all_threads=True)
    torch.set_num_threads(1)
    module = importlib.import_module(name)
    for line in sys.stdin:
        function, values = json.loads(line)
        try:
            answer = ["returned", getattr(module, function)(**values)]
        except Exception:  # noqa: BLE001 - it is raised by `call`
            answer = ["raised", traceback.format_exc()]
        print(json.dumps(answer), file=answers, flush=True)


def warm_up(folder: Path, scenes: Sequence[str]) -> None:
    """Train each scene once, so that a child finds everything imported."""
    for scene in scenes:
        trainer_of(scene, folder / scene).train(*data())
    # A lock that a thread of the parent holds would stay locked in the child.
    assert threading.active_count() == 1, threading.enumerate()


def data() -> tuple[Samples, Samples]:
    """Data to train and to validate on."""
    samples = []
    for n_rows in (N_TRAIN, N_VAL):
        samples.append(MapSamples(Rows(n_rows)))
        samples[-1].fingerprint = f"{n_rows} rows"
    return samples[0], samples[1]


def trainer_of(scene: str, folder: Path, callbacks: Sequence[Callback] = ()) -> Trainer:
    """A trainer of a tiny run in a folder; whatever was drawn before must not matter."""
    settings = {k: _in(folder, value) for k, value in {**PLAIN, **SCENES[scene]}.items()}
    config = TrainingConfig(
        **settings,
        run_name="r",
        output_dir=str(folder / "runs"),
        cache_dir=str(folder / "cache"),
    )
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(257, **config.group("model")))
    number = random.SystemRandom().randrange(2**32)
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
    return Trainer(model, model.config, config, callbacks=callbacks)


def _in(folder: Path, value: Any) -> Any:
    return value.replace("FOLDER", str(folder)) if isinstance(value, str) else value


def run_folder(folder: Path) -> RunFolder:
    """The folder of a trial's run."""
    return RunFolder(folder / "runs" / "r")


class Durable(Callback):
    """Tells the process outside what the run says is durable, and how far a session is."""

    def __init__(self, tell: Tell) -> None:
        self.tell, self.mirrored = tell, None

    def on_start(self, run):
        self.tell("start", run.resumed_from)

    def on_found_complete(self, run, status):
        self.tell("start", run.resumed_from)

    def on_log(self, run, row):
        step = None if run.mirror is None else run.mirror.mirrored_step
        if step not in (None, self.mirrored):
            self.mirrored = step
            self.tell("mirrored", step)

    def on_checkpoint(self, run, info):
        self.tell("durable", info.step)
        self.on_log(run, {})

    def on_end(self, run, status):
        self.tell("end", status)


def torn(folder: Path) -> str:
    """Which checkpoint of a trial is not sound, or nothing; none may ever be."""
    run = run_folder(folder)
    for step in run.checkpoints.steps():
        try:
            verify(run.checkpoints.path(step))
        except CheckpointError as error:
            return str(error)
    return "something was set aside as damaged" if run.checkpoints.quarantine.exists() else ""


def temporary(folder: Path) -> list[str]:
    """Files and folders of a trial that somebody was amid writing or removing."""
    signs = (".tmp", ".del-", ".probe")
    found = [path for path in folder.rglob("*") if any(sign in path.name for sign in signs)]
    return sorted(str(path.relative_to(folder)) for path in found)


def train(tell: Tell, scene: str, folder: Path) -> None:
    """Train to the end, and tell all about it."""
    trainer = trainer_of(scene, folder, [Durable(tell)])
    result = trainer.train(*data())
    losses = result.history["val/loss"].dropna()
    tell("best steps", [int(result.history["step"][i]) for i in losses[is_lowest(losses)].index])
    tell("status", result.status)
    tell("digests", digests(trainer, result))
    tell("left", temporary(folder))


def is_lowest(losses) -> Any:
    """Which losses are lower than all before."""
    return losses < losses.cummin().shift(fill_value=float("inf"))


def said_in(messages: list) -> dict[str, list]:
    """The last of each kind that a child told."""
    return {kind: values for kind, *values in messages}


@dataclass
class Unbroken:
    """What a run comes to if nobody disturbs it, and how long it takes in a child."""

    digests: dict[str, str]
    best_steps: set[int]
    life_s: float

    @classmethod
    def of(cls, scene: str, folder: Path) -> "Unbroken":
        child = Child(lambda tell: train(tell, scene, folder), folder.with_suffix(".log"))
        said = said_in(child.hear_all())
        life_s = time.monotonic() - child.began
        return cls(said["digests"][0], set(said["best steps"][0]), life_s)


@dataclass
class Acknowledged:
    """What a run has said is durable."""

    best_steps: set[int]
    newest: int = -1
    best: int = -1
    mirrored: int = -1

    @property
    def owed(self) -> int:
        """The step that a session must go on from, or a later one."""
        return max(self.newest, self.mirrored)

    def hear(self, kind: str, step: Any = None, *rest: Any) -> None:
        """Take up what a session told."""
        if kind == "durable" and step in self.best_steps:
            self.best = max(self.best, step)
        if kind == "durable" or (kind == "start" and step is not None):
            self.newest = max(self.newest, step)
        if kind == "mirrored":
            self.mirrored = max(self.mirrored, step)

    def fault(self, folder: Path) -> str:
        """What is lost of it, or torn, or nothing."""
        steps = run_folder(folder).checkpoints.steps()
        if max(steps, default=-1) < self.newest:
            return f"step {self.newest} was durable, but {steps} are there"
        if self.best >= 0 and not any(s >= self.best for s in self.best_steps & set(steps)):
            return f"the best step {self.best} was durable, but {steps} are there"
        return torn(folder)

    def lose_disk(self, folder: Path) -> None:
        """Be on a new machine, which has the mirror alone."""
        shutil.rmtree(folder / "runs")
        self.newest = self.best = -1


if __name__ == "__main__":
    serve(sys.argv[1])

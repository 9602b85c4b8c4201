"""Interrupted at any moment, a run stands between two steps, on disk and in memory, and goes on.

A first signal lets the step end; a second one raises wherever it hits, and whatever it tore in
memory does not matter, because training again takes up the last checkpoint.
"""

import contextlib
import dis
import math
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import pytest
import torch

import helpers
from helpers import trainer as trainer_module
from helpers.engine import snapshot, stop
from helpers.engine.callbacks import Callback
from helpers.engine.loop import TrainingLoop
from helpers.engine.stop import StopSignal
from tests.faults import forked
from tests.faults.forked import SCENES, Acknowledged, Child, Durable, Tell, Unbroken, said_in
from tests.faults.scale import n, record
from tests.faults.test_chains import digests

SEED = 23
NUMBERS = (signal.SIGINT, signal.SIGTERM)
RAISED = "a first interrupt raised amid the run"
# Where interrupts are placed by the line: the suite, and what keeps states of a process for it.
PLACES = (
    str(Path(helpers.__file__).parent),
    contextlib.__file__,
    torch.utils._contextlib.__file__,
    torch.autograd.grad_mode.__file__,
    torch.amp.autocast_mode.__file__,
)
# After these Python looks whether a signal has come.
CHECKED = ("RESUME", "CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE")


# In the child


class Terminated(BaseException):
    """SIGTERM outside of a run."""


@dataclass
class Own:
    """The handler that is there before and after a run."""

    is_over: bool = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.is_over:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated


@dataclass
class Places:
    """Counts the lines of a run by file, and sends signals at some of them.

    The first is sent at a line of a file, the others so many lines after the one before: where
    Python would look for a signal, which is at the start of a function, after a call, and at the
    end of a round of a loop.
    """

    file: str = ""
    line: int = 0
    gaps: list[int] = field(default_factory=list)
    n_lines: Counter = field(default_factory=Counter)
    sent: list[str] = field(default_factory=list)
    _left: float = float("inf")

    def __enter__(self) -> "Places":
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error: Any) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, value: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(PLACES):
            return None
        frame.f_trace_opcodes = self._left <= 0
        return self._trace_line

    def _trace_line(self, frame: FrameType, event: str, value: Any) -> Any:
        if event == "line":
            name = frame.f_code.co_filename
            self.n_lines[name] += 1
            self._left -= 1
            if not self.sent and name == self.file and self.n_lines[name] == self.line:
                self._left = 0
            frame.f_trace_opcodes = self._left <= 0
        if event == "opcode" and self._left <= 0 and is_checked(frame):
            self.sent.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
            self._left = self.gaps.pop(0) if self.gaps else float("inf")
            os.kill(os.getpid(), signal.SIGINT)
        return self._trace_line


def is_checked(frame: FrameType) -> bool:
    """Whether Python looks for signals between the last instruction and the one to come."""
    code, at = frame.f_code, frame.f_lasti
    before = ""
    for instruction in dis.get_instructions(code):
        if instruction.offset == at:
            return before.startswith(CHECKED) or instruction.opname == "RESUME"
        if instruction.opname not in ("CACHE", "PRECALL"):
            before = instruction.opname
    return False


class Moments(Callback):
    """Notes whether the run has begun and ended, and which handler is there meanwhile."""

    def __init__(self) -> None:
        self.is_begun = self.is_ended = False
        self.handlers: list[Any] = []

    def on_start(self, run):
        self.is_begun, self.is_ended = True, False
        self.handlers = [signal.getsignal(number) for number in NUMBERS]
        if run.control is not None:
            run.control.look_every_s = 0.001

    def on_found_complete(self, run, status):
        self.is_begun = self.is_ended = True

    def on_end(self, run, status):
        self.is_ended = status != "failed"


@dataclass
class Subject:
    """A trainer in a process that is interrupted in it, again and again."""

    tell: Tell
    scene: str
    folder: Path
    acknowledged: Acknowledged

    def __post_init__(self) -> None:
        self.moments = Moments()
        heard = Durable(self.hear)
        self.trainer = forked.trainer_of(self.scene, self.folder, [heard, self.moments])
        self.data = forked.data()

    def hear(self, kind: str, *values: Any) -> None:
        self.acknowledged.hear(kind, *values)

    def session(self, plan: dict[str, Any]) -> None:
        """Train, be interrupted, and tell how that ended and what is wrong then."""
        own, sent, result = Own(), [], None
        self.moments.is_begun = self.moments.is_ended = False
        for number in NUMBERS:
            signal.signal(number, own)
        places = Places(**plan["place"]) if "place" in plan else None
        try:
            self.tell("go")
            try:
                with places or contextlib.nullcontext():
                    result = self.trainer.train(*self.data)
            finally:
                own.is_over = True
            ended = result.status
        except (KeyboardInterrupt, Terminated):
            ended = "raised"
        sent = places.sent if places is not None else []
        handlers = [signal.getsignal(number) for number in NUMBERS]
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)
        self.tell.wait()
        fault = "" if handlers == [own, own] else f"the handlers are {handlers}"
        fault = fault or self.fault(ended, result, plan, sent)
        is_amid = self.moments.is_begun and not self.moments.is_ended
        self.tell("ended", ended, is_amid, sent, fault)

    def fault(self, ended: str, result: Any, plan: dict[str, Any], sent: list[str]) -> str:
        if not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return "the process is not as it was: gradients off or autocast on"
        is_amid = self.moments.is_begun and not self.moments.is_ended
        if ended == "raised" and is_amid and plan["n"] == 1:
            return RAISED
        if ended != "raised" and len(sent) == 2:
            return "a second interrupt did not raise"
        if ended == "paused":
            return self.acknowledged.fault(self.folder) or self.torn_memory(result)
        if plan["is_looked_at"]:
            return self.lost()
        return ""

    def lost(self) -> str:
        """What is lost or torn on disk, where a writer may be at work still."""
        until = time.monotonic() + 2
        while (fault := self.acknowledged.fault(self.folder)) and time.monotonic() < until:
            time.sleep(0.01)
        return fault

    def torn_memory(self, result: Any) -> str:
        """How memory and disk differ after a pause, or nothing."""
        snapshot = forked.run_folder(self.folder).checkpoints.load(result.steps)
        state = snapshot.state["run"]
        if state["step"] != result.steps or state["updates"] != result.steps:
            return f"paused at step {result.steps}, but saved {state}"
        counts = {int(t) for k, t in snapshot.sections["optimizer"].items() if k[:5] == "step/"}
        if counts != {state["updates"]}:
            return f"{state['updates']} updates were counted, but the optimizer has {counts}"
        weights = {**snapshot.sections["model"], **snapshot.sections.get("ema", {})}
        own = self.trainer.model.state_dict()
        differ = [name for name, tensor in weights.items() if not torch.equal(tensor, own[name])]
        return f"memory and disk differ in {differ}" if differ else ""

    def finish(self) -> None:
        """Train undisturbed to the end, and tell all about it."""
        result = self.trainer.train(*self.data)
        self.tell("status", result.status)
        self.tell("digests", digests(self.trainer, result))
        self.tell("left", forked.temporary(self.folder), threads())


def threads() -> list[str]:
    """Threads that are there beside the main one, after a moment to end in."""
    until = time.monotonic() + 2
    while threading.active_count() > 1 and time.monotonic() < until:
        time.sleep(0.005)
    return [t.name for t in threading.enumerate() if t is not threading.main_thread()]


# In the warm process


@dataclass
class Trial:
    """One run, interrupted in one process until it ends."""

    scene: str
    folder: Path
    unbroken: Unbroken
    n_lines: dict[str, int]
    rng: random.Random
    control: str = ""
    focus: str = ""
    counts: Counter = field(default_factory=Counter)

    def run(self) -> str:
        """What went wrong, or nothing."""
        self.plans = [self.plan() for _ in range(self.rng.choice([1, 1, 2, 3]))]
        child, plans, messages = Child(self.act, self.folder.with_suffix(".log")), self.plans, []
        for plan in plans:
            messages += self.disturb(child, plan)
        messages += child.hear_all()
        return self.fault(messages)

    def plan(self) -> dict[str, Any]:
        """How one session is interrupted."""
        rng = self.rng
        plan = {"n": rng.choice([1, 2]), "is_looked_at": rng.random() < 0.5}
        if rng.random() < 0.5 and not self.focus:
            after_s = rng.uniform(0, 0.9) * self.unbroken.life_s
            return {**plan, "after_s": after_s, "gap_s": 10 ** rng.uniform(-5, -1.5)}
        # Each file as often as another, so that what takes no time is hit too.
        file = rng.choice([name for name in sorted(self.n_lines) if self.focus in name])
        gaps = [round(10 ** rng.uniform(0, 3)) for _ in range(plan["n"] - 1)]
        # Rather early, for a session that goes on is a short one.
        line = math.ceil(self.n_lines[file] * rng.random() ** 1.5)
        return {**plan, "place": {"file": file, "line": line, "gaps": gaps}}

    def disturb(self, child: Child, plan: dict[str, Any]) -> list:
        """Interrupt a session from outside, where the plan says so; return what the child told."""
        messages, until = [], child.began + forked.HANG_S
        while (message := child.hear(until)) is not None:
            messages.append(message)
            if message[0] in ("go", "error"):
                break
        if "after_s" in plan:
            time.sleep(plan["after_s"])
            for i in range(plan["n"]):
                time.sleep(i * plan["gap_s"])
                child.send(self.rng.choice(NUMBERS))
        child.let_go_on()
        return messages

    def act(self, tell: Tell) -> None:
        with CONTROLS.get(self.control, contextlib.nullcontext)():
            acknowledged = Acknowledged(self.unbroken.best_steps)
            subject = Subject(tell, self.scene, self.folder, acknowledged)
            for plan in self.plans:
                subject.session(plan)
            subject.finish()

    def fault(self, messages: list) -> str:
        said = said_in(messages)
        where = [m for m in messages if m[0] == "ended"]
        for _, ended, is_amid, sent, fault in where:
            self.counts["sessions interrupted"] += ended != "completed"
            self.counts["paused after their step"] += ended == "paused"
            self.counts["broken off amid the run by a second signal"] += is_amid
            self.counts["broken off before or after it"] += ended == "raised" and not is_amid
            # Without handlers it raises outside of the loop too, which is not what this one is for.
            if fault and (fault, self.control) != (RAISED, "saved where it hits"):
                return f"{fault}, after {sent} of {self.plans}"
        if "error" in said:
            return f"it did not go on after {where} of {self.plans}:\n{said['error'][0]}"
        if said["status"][0] != "completed":
            return f"it ended as {said['status'][0]}"
        names = self.unbroken.digests.items() ^ said["digests"][0].items()
        if names:
            differ = sorted({name for name, _ in names})[:8]
            return f"it differs from the unbroken run in {differ} after {where} of {self.plans}"
        files, threads = said["left"]
        self.counts["threads left by a second interrupt"] += len(threads)
        if files or (threads and all(plan["n"] == 1 for plan in self.plans)):
            return f"left behind: {said['left']} after {where} of {self.plans}"
        return ""


def lines_of(scene: str, folder: Path) -> dict[str, int]:
    """How many lines of each file a run goes through."""

    def count(tell):
        trainer, data = forked.trainer_of(scene, folder), forked.data()
        with Places() as places:
            trainer.train(*data)
        tell("lines", places.n_lines)

    return said_in(Child(count, folder.with_suffix(".log")).hear_all())["lines"][0]


def campaign(place: str, n_interrupts: int, seed: int, **options: str) -> dict:
    """Trials until a run was interrupted so often, or until something is wrong."""
    root, counts = Path(place), Counter()
    names = options.pop("scenes", "").split() or list(SCENES)
    forked.warm_up(root / "warm", names)
    unbroken = {name: Unbroken.of(name, root / f"unbroken {name}") for name in names}
    n_lines = {name: lines_of(name, root / f"counted {name}") for name in names}
    while counts["sessions interrupted"] < n_interrupts:
        i = counts["trials"]
        scene, folder = names[i % len(names)], root / f"trial {i}"
        rng = random.Random(f"{seed} {i}")
        trial = Trial(scene, folder, unbroken[scene], n_lines[scene], rng, counts=counts, **options)
        counts["trials"] += 1
        fault = trial.run()
        if fault:
            return {"fault": f"trial {i} of seed {seed}, {scene}: {fault}", **counts}
        shutil.rmtree(folder)
    return {"fault": "", **counts}


def stops(place: str, n_stops: int, seed: int) -> dict:
    """The file STOP at any moment, from another process, with the run on the main thread or not."""
    root, rng, counts = Path(place), random.Random(seed), Counter()
    forked.warm_up(root / "warm", ["plain"])
    unbroken = Unbroken.of("plain", root / "unbroken")
    while counts["paused"] < n_stops:
        counts["trials"] += 1
        i = counts["trials"]
        folder, is_main = root / f"stop {i}", i % 2 == 0
        child = Child(lambda tell, f=folder, m=is_main: be_stopped(tell, f, m), root / "log")
        messages = [child.hear(child.began + forked.HANG_S)]
        time.sleep(rng.uniform(0, 0.7) * unbroken.life_s)
        file = folder / "runs" / "r" / "STOP"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        child.let_go_on()
        said = said_in(messages + child.hear_all())
        if "error" in said:
            return {"fault": said["error"][0]}
        ended, is_left, handlers = said["ended"]
        counts[ended] += 1
        counts["paused on another thread"] += ended == "paused" and not is_main
        if handlers != ("ours" if is_main else "own") or (is_left and ended == "paused"):
            return {"fault": f"stop {i} of seed {seed}: {said['ended']}"}
        if said["digests"][0] != unbroken.digests:
            return {"fault": f"stop {i} of seed {seed}: it differs from the unbroken run"}
    return {"fault": "", **counts}


def be_stopped(tell: Tell, folder: Path, is_main: bool) -> None:
    """Train, be stopped by the file, and train to the end, on the main thread or another."""
    moments, own, results = Moments(), Own(is_over=True), []
    trainer, data = forked.trainer_of("plain", folder, [moments]), forked.data()
    for number in NUMBERS:
        signal.signal(number, own)

    def act() -> None:
        tell("go")
        results.append(trainer.train(*data))
        tell.wait()
        file = folder / "runs" / "r" / "STOP"
        handlers = "own" if moments.handlers == [own, own] else "ours"
        tell("ended", results[0].status, file.exists(), handlers)
        file.unlink(missing_ok=True)
        results.append(trainer.train(*data))

    if is_main:
        act()
    else:
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
    tell("digests", digests(trainer, results[1]))


# Ways that do not keep the promise


@contextlib.contextmanager
def without_handlers() -> Iterator[None]:
    """Signals mean what they meant before."""

    @contextlib.contextmanager
    def nothing():
        yield StopSignal()

    with patch.object(trainer_module, "stop_on_signals", nothing):
        yield


@contextlib.contextmanager
def saved_where_it_hits() -> Iterator[None]:
    """The interrupt is caught, and what is there then is saved."""
    real = TrainingLoop.run

    def run(self, *values):
        try:
            return real(self, *values)
        except (KeyboardInterrupt, Terminated):
            return "paused"

    with without_handlers(), patch.object(TrainingLoop, "run", run):
        yield


def carried_on_from_memory() -> Any:
    """The weights that are there are taken for those of the checkpoint."""
    return patch.object(snapshot, "load_model_tensors", lambda *values: None)


def handlers_left() -> Any:
    """Handlers of a run stay."""
    return patch.object(stop, "_put_back", lambda *values: None)


def modes_left() -> Any:
    """What an interrupt leaves switched in torch stays so."""
    return patch.object(stop._Modes, "put_back", lambda self: None)


CONTROLS = {
    "without handlers": without_handlers,
    "saved where it hits": saved_where_it_hits,
    "carried on from memory": carried_on_from_memory,
    "handlers left": handlers_left,
    "modes left": modes_left,
}
DIFFERS, SWITCHED = "differs from the unbroken run|memory and disk differ", "not as it was"
# By what each of them may be found out.
SIGNS = {
    "without handlers": f"{RAISED}|did not go on|{SWITCHED}",
    "saved where it hits": f"updates were counted|but saved|did not go on|{DIFFERS}|{SWITCHED}",
    "carried on from memory": DIFFERS,
    "handlers left": "the handlers are",
    "modes left": SWITCHED,
}
FOCUS = {"modes left": "grad_mode.py"}


# In the test


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    with forked.warm("tests.faults.test_interrupts", tmp_path_factory.mktemp("warm")) as process:
        yield process


def test_interrupted_at_any_moment_a_run_is_whole_and_goes_on_in_the_same_process(
    process, tmp_path
):
    began, n_interrupts, n_stops = time.monotonic(), n(20, 1000), n(4, 100)
    limit_s = 120 + 3 * n_interrupts
    figures = process.call(
        "campaign", limit_s=limit_s, place=str(tmp_path), n_interrupts=n_interrupts, seed=SEED
    )
    place = str(tmp_path / "stops")
    stopped = process.call("stops", limit_s=limit_s, place=place, n_stops=n_stops, seed=SEED)

    assert (figures.pop("fault"), stopped.pop("fault")) == ("", "")
    assert figures["sessions interrupted"] >= n_interrupts
    assert stopped["paused"] == n_stops
    record(
        "interrupts",
        "Interrupted at any moment by SIGINT, SIGTERM or the file STOP, a run ends between two "
        "steps with memory and disk alike; a second signal raises at once, and whatever it tore, "
        "training again in the same process ends in the bits of the unbroken run.",
        {
            **figures,
            "paused by the file STOP": stopped["paused"],
            "of these trained on another thread": stopped["paused on another thread"],
            "torn states": 0,
            "runs that differ": 0,
        },
        command="TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_interrupts.py",
        seed=SEED,
        seconds=time.monotonic() - began,
    )


@pytest.mark.parametrize("control", CONTROLS)
def test_what_does_not_keep_the_promise_goes_red(process, tmp_path, control):
    outcome = process.call(
        "campaign",
        limit_s=300,
        place=str(tmp_path),
        n_interrupts=200,
        seed=SEED,
        control=control,
        scenes="plain",
        focus=FOCUS.get(control, ""),
    )

    assert re.search(SIGNS[control], outcome["fault"])

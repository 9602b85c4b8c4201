"""Sessions as processes: started, watched through a pipe, and killed at a moment that was drawn."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

from helpers.engine.manifest import MANIFEST
from helpers.engine.run_folder import RunFolder

FIRST_KINDS = ("training", "saving", "validating")
ALL_KINDS = (*FIRST_KINDS, "starting", "ending")
LEAST_S = 0.002
ENDINGS = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Moment:
    """When to kill: so long after the first of some events at or after a step."""

    kind: str
    step: int
    delay_s: float
    events: frozenset[tuple[str, int]] = frozenset()

    def is_reached(self, event: dict[str, Any], session: Session) -> bool:
        """Whether the delay begins with an event; not before there is a step to go on from."""
        step = event.get("step", -1)
        is_there = step >= self.step and (event["event"], step) in self.events
        return is_there and session.has_saved


@dataclass
class Session:
    """What one process came to; times are of the monotonic clock that all processes share."""

    launched: float
    log: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    ended: float = 0.0
    is_killed: bool = False

    def find(self, event: str) -> dict[str, Any] | None:
        """The first event of a kind."""
        return next((e for e in self.events if e["event"] == event), None)

    def times(self, event: str) -> dict[int, float]:
        """When an event happened, by step."""
        return {e["step"]: e["t"] for e in self.events if e["event"] == event}

    @property
    def is_done(self) -> bool:
        """Whether training ended for good."""
        return self.find("done") is not None and not self.is_paused

    @property
    def is_paused(self) -> bool:
        """Whether the run stopped itself, to go on in another session."""
        return (self.find("done") or {}).get("status") == "paused"

    @property
    def resumed_from(self) -> int | None:
        """The step of the checkpoint that it took up."""
        return (self.find("start") or {}).get("resumed_from")

    @property
    def has_saved(self) -> bool:
        """Whether a kill would go on from a step, and not from the start."""
        return bool(self.resumed_from) or any(self.times("checkpoint"))

    @property
    def reached(self) -> int | None:
        """The last step that it made or took up, if it came that far."""
        return max(
            (e["step"] for e in self.events if e["event"] in ("start", "step")), default=None
        )

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        return self.ended - self.launched

    @property
    def trouble(self) -> str:
        """Why it did not end: its refusal, its own pause, or the last lines that it wrote."""
        refusal = self.find("refused")
        if refusal is not None:
            return refusal["message"]
        if self.is_paused:
            return (
                f"The run pauses itself at step {self.reached} ({self.find('paused')['reason']}), "
                "but one that goes on to its end is wanted, to compare what it leaves. Build it "
                "without the callback that calls run.stop.set, or let that call "
                "run.stop_early(reason), which ends it."
            )
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "\n".join(lines[-12:]) or "it ended without a word"


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into the interrupt that SIGINT is, so that all is cleaned up.

    One that is ignored, as below nohup, stays so; those that come after the first change nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in ENDINGS if signal.getsignal(n) is not signal.SIG_IGN}
    is_ending = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal is_ending
        if not is_ending:
            is_ending = True
            raise KeyboardInterrupt

    try:
        for number in before:
            signal.signal(number, end)
        yield
    finally:
        is_ending = True
        for number, handler in before.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def run_session(spec: Path, log: Path, moment: Moment | None = None) -> Session:
    """Train in a process of its own, which is killed at the moment given; return what was seen."""
    reading, writing = os.pipe()
    session, process = Session(time.monotonic(), log), None
    try:
        with _interrupts_held():
            process = _start(spec, log, writing)
        _follow(session, reading, moment)
    finally:
        # Also where we are interrupted ourselves; the group has the workers of the process too.
        if process is not None:
            if not session.is_done or session.is_killed:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(reading)
    session.ended = time.monotonic()
    return session


def _start(spec: Path, log: Path, writing: int) -> subprocess.Popen:
    """Start the process of a session, which alone holds the writing end from here on."""
    command = [sys.executable, "-P", "-m", "helpers.check_resume.session", str(spec), str(writing)]
    # What can be imported here can be there.
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": paths},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[writing],
                start_new_session=True,
            )
    finally:
        os.close(writing)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let signals wait until the block is over; amid its start they would lose a process.

    By handlers: a mask would pass to the process, and would not bind our other threads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDINGS)}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}
    with contextlib.ExitStack() as restoring:
        for number, handler in before.items():
            restoring.callback(signal.signal, number, handler)
            signal.signal(number, lambda number, frame: held.append(number))
        yield
    if held:
        before[held[0]](held[0], None)


def _follow(session: Session, reading: int, moment: Moment | None) -> None:
    """Read events until the process ends, or until it is time to kill it."""
    deadline, rest = None, b""
    if moment is not None and moment.kind == "starting":
        deadline = session.launched + moment.delay_s
    while True:
        wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reading], [], [], wait_s)[0]:
            session.is_killed = True
            return
        content = os.read(reading, 65536)
        if not content:
            return
        *lines, rest = (rest + content).split(b"\n")
        for event in map(json.loads, lines):
            session.events.append(event)
            if deadline is None and moment is not None and moment.is_reached(event, session):
                deadline = event["t"] + moment.delay_s


@dataclass
class Timeline:
    """How long everything took in a session that nobody disturbed."""

    session: Session
    folder: RunFolder

    @cached_property
    def last_step(self) -> int:
        """The step at which the run ended."""
        return self.session.reached or 0

    @cached_property
    def evaluated(self) -> set[int]:
        """Steps that were validated, but for the last."""
        return self.session.times("evaluate").keys() - {self.last_step}

    @cached_property
    def saved(self) -> set[int]:
        """Steps that were saved on the way."""
        return self.session.times("checkpoint").keys() - {0, self.last_step}

    def beginnings(self, kind: str) -> set[tuple[str, int]]:
        """The events after which something begins; validating comes before saving."""
        first = min(self.saved, default=0)
        steps = {s for s in self.session.times("step") if first < s < self.last_step}
        if kind == "ending":
            return {("start", self.last_step), ("step", self.last_step)}
        if kind == "validating":
            steps &= self.evaluated
        if kind == "saving":
            steps &= self.saved
            return {("evaluate" if step in self.evaluated else "step", step) for step in steps}
        return {("step", step) for step in steps}

    def seconds(self, kind: str, step: int) -> float:
        """How long something takes at a step."""
        if kind == "starting":
            first = min(self.session.times("step").values())
            return first - self.session.launched
        begun = self.session.times("step")[step]
        if kind == "ending":
            return self.session.ended - begun
        if kind == "validating":
            return self.session.times("evaluate")[step] - begun
        if kind == "saving":
            return max(LEAST_S, self._write_s)
        later = (t for s, t in self.session.times("step").items() if s > step)
        return max(LEAST_S, min(later, default=self.session.ended) - begun)

    @cached_property
    def _write_s(self) -> float:
        """Seconds from the step to the end of its checkpoint, the shortest of those on disk."""
        offset = time.time() - time.monotonic()
        begun = self.session.times("step") | self.session.times("evaluate")
        return min(
            (
                os.stat(self.folder.checkpoints.path(step) / MANIFEST).st_mtime
                - offset
                - begun[step]
                for step in self.folder.checkpoints.steps()
                if step in begun and step != self.last_step
            ),
            default=0.0,
        )


def draw_moments(timeline: Timeline, n: int, seed: int) -> list[Moment]:
    """Moments in the order of the run: of training, saving and validating, then of anything.

    What a run never does is replaced by training.
    """
    rng = random.Random(f"check-resume {seed}")
    kinds = rng.sample(FIRST_KINDS, len(FIRST_KINDS)) + rng.choices(ALL_KINDS, k=n)
    moments = [_draw(timeline, kind, rng) for kind in kinds[:n]]
    return sorted(moments, key=lambda moment: moment.step)


def _draw(timeline: Timeline, kind: str, rng: random.Random) -> Moment:
    kind = kind if timeline.beginnings(kind) else "training"
    begun = timeline.beginnings(kind) or timeline.beginnings("ending")
    step = rng.choice(sorted({step for _, step in begun}))
    delay_s = rng.random() * timeline.seconds(kind, step)
    return Moment(kind, step, delay_s, frozenset(begun) if kind != "starting" else frozenset())

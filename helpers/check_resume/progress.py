"""What a session tells the process that watches it: how far it is, to the millisecond."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from helpers.engine.callbacks import Callback

if TYPE_CHECKING:
    from helpers.engine.checkpoint import CheckpointInfo
    from helpers.engine.run import Run

POLL_S = 0.001


class Reporter:
    """Writes one JSON object a line to a pipe, each with a monotonic time.

    Where nobody reads any more there is nothing to train for, and the process ends.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._step = -1

    def say(self, event: str, **values: Any) -> None:
        """Write one line, at once and whole."""
        line = json.dumps({"event": event, "t": time.monotonic(), **values}) + "\n"
        try:
            os.write(self._descriptor, line.encode())
        except OSError:
            os._exit(1)

    def say_step(self, step: int) -> None:
        """Tell a step once."""
        with self._lock:
            if step > self._step:
                self._step = step
                self.say("step", step=step)

    def say_start(self, step: int, **values: Any) -> None:
        """Tell from which step the session goes on."""
        self._step = step
        self.say("start", step=step, **values)


class Progress(Callback):
    """Tell steps, validations and checkpoints; it has no state and changes nothing.

    Steps are read by a thread, for rows are logged every so many steps only.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def on_start(self, run: Run) -> None:
        self._reporter.say_start(
            run.state.step,
            resumed_from=run.resumed_from,
            parameters=sum(p.numel() for p in run.model.parameters()),
        )
        self._thread = threading.Thread(target=self._watch, args=(run,), daemon=True)
        self._thread.start()

    def on_evaluate(self, run: Run, row: dict[str, Any]) -> None:
        self._reporter.say_step(row["step"])
        self._reporter.say("evaluate", step=row["step"])

    def on_checkpoint(self, run: Run, info: CheckpointInfo) -> None:
        self._reporter.say_step(run.state.step)
        self._reporter.say("checkpoint", step=info.step)

    def on_end(self, run: Run, status: str) -> None:
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
        self._reporter.say_step(run.state.step)
        if status == "paused":
            self._reporter.say("paused", step=run.state.step, reason=run.stop.reason)

    def _watch(self, run: Run) -> None:
        while not self._is_over.wait(POLL_S):
            self._reporter.say_step(run.state.step)

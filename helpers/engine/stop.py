"""One signal that asks a run to end after the step it is in."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Set once by an interrupt, by SIGTERM or by a call; the loop reads it between steps."""

    def __init__(self) -> None:
        self.reason = ""

    def __bool__(self) -> bool:
        return bool(self.reason)

    def set(self, reason: str) -> None:
        """Ask to stop; the first reason stays."""
        self.reason = self.reason or reason


@contextmanager
def stop_on_signals() -> Iterator[StopSignal]:
    """Turn the first SIGINT or SIGTERM into a stop; a second one raises at once.

    Outside the main thread no handler can be installed, and the signals keep their meaning.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.set("interrupted" if number == signal.SIGINT else "terminated")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

"""One signal ends a run after the step it is in; a second one ends it at once.

Whatever the second one breaks off, the process can train on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

AUTOCAST_DEVICES = ("cpu", "cuda", "mps")


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

    Whatever the second one breaks off, handlers and modes of torch are as before after the block.
    Outside the main thread no handler can be installed, and the signals keep their meaning.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handler, modes = _Handler(stop), _Modes()
    try:
        for number in before:
            signal.signal(number, handler)
        yield stop
    finally:
        handler.is_closing = True
        modes.put_back()
        # The first that is back may raise at once, before the second is.
        try:
            _put_back(signal.SIGTERM, before)
        finally:
            _put_back(signal.SIGINT, before)
        if handler.is_late:
            raise KeyboardInterrupt


@dataclass
class _Handler:
    """What a signal does; while handlers are put back, a second one waits until they are.

    One after a stop that somebody else had asked for is still the first.
    """

    stop: StopSignal
    is_closing: bool = False
    is_late: bool = False
    is_first: bool = True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.is_first:
            self.is_first = False
            self.stop.set("interrupted" if number == signal.SIGINT else "terminated")
        elif self.is_closing:
            self.is_late = True
        else:
            raise KeyboardInterrupt


def _put_back(number: int, before: dict[int, Any]) -> None:
    # None stands for a handler that was not installed from Python.
    signal.signal(number, before[number] if before[number] is not None else signal.SIG_DFL)


@dataclass
class _Modes:
    """Modes of torch in this thread, which an interrupt in the wrong place leaves switched.

    One level of autocast too many, and the weights of a step would be used in all steps to come:
    torch keeps their casts until the outermost level ends.
    """

    is_grad_on: bool = field(default_factory=torch.is_grad_enabled)
    level: int = field(default_factory=lambda: _autocast_level())
    is_cached: bool = field(default_factory=torch.is_autocast_cache_enabled)
    autocast: dict[str, tuple[bool, torch.dtype]] = field(
        default_factory=lambda: {
            device: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
            for device in AUTOCAST_DEVICES
        }
    )

    def put_back(self) -> None:
        """Make them what they were."""
        torch.set_grad_enabled(self.is_grad_on)
        for device, (is_enabled, dtype) in self.autocast.items():
            torch.set_autocast_enabled(device, is_enabled)
            torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_cache_enabled(self.is_cached)
        while _autocast_level() > self.level:
            torch.autocast_decrement_nesting()
        if not self.level:
            torch.clear_autocast_cache()


def _autocast_level() -> int:
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()

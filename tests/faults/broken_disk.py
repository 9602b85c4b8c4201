"""A disk that fails: calls of `os` on what lies below one folder raise, wait or lie; others do not.

The files are real ones, and so is the error: only the moment at which the system fails is chosen.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WRITES = ("open", "write", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir", "truncate")
READS = ("readv", "read", "listdir", "stat")
PAUSE_S = 0.005

Rule = Callable[[str, int], None]


class BrokenDisk:
    """What happens to the calls below `root` is up to `rule(name of the call, how many before)`."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.rule, self.calls, self.is_struck = str(root), None, 0, False
        self.released = threading.Event()
        self._open: set[int] = set()
        self._real = {name: getattr(os, name) for name in (*WRITES, *READS, "close")}
        for name in (*WRITES, *READS):
            monkeypatch.setattr(os, name, self._wrapped(name))
        monkeypatch.setattr(os, "close", self._close)

    def fail(self, code: int, *names: str) -> None:
        """Fail these calls from now on, or all that write."""

        def rule(name: str, before: int) -> None:
            if name in (names or WRITES):
                raise OSError(code, os.strerror(code))

        self.rule = rule

    def fail_nth(self, n: int, code: int) -> None:
        """Fail the n-th call from now, counted from 0; `is_struck` says whether it came."""
        first, self.is_struck = self.calls, False

        def rule(name: str, before: int) -> None:
            if before - first == n:
                self.is_struck = True
                raise OSError(code, os.strerror(code))

        self.rule = rule

    def hang(self) -> None:
        """Let all calls wait until the disk is mended."""
        self.rule = lambda name, before: self.released.wait() and None

    def slow_down(self) -> None:
        """Let each call take its time."""
        self.rule = lambda name, before: time.sleep(PAUSE_S)

    def once(self, name: str, action: Callable[[], None]) -> None:
        """Do something right before the next call of this name."""

        def rule(called: str, before: int) -> None:
            if called == name:
                self.rule = None
                action()

        self.rule = rule

    def mend(self) -> None:
        """Let all calls through again, those that wait too."""
        self.rule = None
        self.released.set()

    def _wrapped(self, name: str) -> Callable:
        real = self._real[name]

        def call(first, *rest, **named):
            if self._is_below(first) and self.rule is not None:
                before, self.calls = self.calls, self.calls + 1
                self.rule(name, before)
            result = real(first, *rest, **named)
            if name == "open" and self._is_below(first):
                self._open.add(result)
            return result

        return call

    def _close(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        self._real["close"](descriptor)

    def _is_below(self, place) -> bool:
        if isinstance(place, int):
            return place in self._open
        return str(place).startswith(self.root)


@contextmanager
def foreign_owner(root: Path) -> Iterator[None]:
    """Another machine that takes the mirror below `root`, and counts on while the block runs."""
    is_over = threading.Event()
    owner = {"host": "elsewhere x", "boot_id": "other", "pid": 1, "process_start": "1"}

    def beat() -> None:
        beats = 0
        while not is_over.is_set():
            beats += 1
            line = str({**owner, "token": "theirs", "beats": beats}).replace("'", '"').ljust(1024)
            root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(root / "OWNER.json", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, line.encode())
            os.close(descriptor)
            is_over.wait(PAUSE_S)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()

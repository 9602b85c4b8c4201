"""Look at a kernel from outside while its cells run: its memory, and the time that is left."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from tools.running.kernel import Kernel
from tools.running.limits import Limit, Limits
from tools.running.processes import Processes
from tools.running.verdict import CellRecord

LOOK_S = 0.2
LOOK_STRICT_S = 0.05  # memory grows by some GB each second
GRACE_S = 10.0


class Guard:
    """Measures each cell; interrupts what breaks a limit of time, kills what breaks that of memory.

    A cell that does not end within `GRACE_S` of the interrupt is killed too.
    """

    def __init__(self, kernel: Kernel, limits: Limits) -> None:
        self.size_mib: float | None = None
        """Memory that the run held when last seen."""
        self.overrun = ""
        """By what it exceeded the limit of memory, in words."""
        self._kernel, self._limits = kernel, limits
        whole = limits.of_all()
        self._end = (time.monotonic() + whole.seconds, whole) if whole else (math.inf, None)
        self._lock = threading.Lock()
        self._processes: Processes | None = None
        self._cell: CellRecord | None = None
        self._deadline: tuple[float, Limit | None] = self._end

    @property
    def is_over(self) -> bool:
        """Whether the time of the whole notebook is used up."""
        return time.monotonic() >= self._end[0]

    @contextlib.contextmanager
    def on_duty(self, mark: str) -> Iterator[None]:
        """Watch a kernel that has been started with this mark; leave nothing of it behind."""
        self._processes = Processes(self._kernel.pid, mark)
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(LOOK_STRICT_S if self._limits.memory_mib else LOOK_S):
                with self._lock:
                    self._look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def begin(self, cell: CellRecord) -> None:
        """A cell begins."""
        with self._lock:
            limit = self._limits.of_cell(cell.tags)
            own = (time.monotonic() + limit.seconds, limit) if limit else (math.inf, None)
            self._cell, self._deadline = cell, min(own, self._end, key=lambda end: end[0])
            self._measure()

    def end(self) -> None:
        """The cell has ended."""
        with self._lock:
            self._look()
            self._cell = None

    def left(self, apart: list[int]) -> dict[str, int]:
        """Processes that run beside the kernel, by name."""
        return self._processes.left(apart)

    def clear(self) -> None:
        """Kill what outlived the kernel."""
        if self._processes:
            self._processes.end()

    def _look(self) -> None:
        size, allowed = self._measure(), self._limits.memory_mib
        if allowed and size > allowed and not self.overrun:
            self.overrun = f"{size:.0f} MiB of {allowed:g} MiB allowed"
            self._processes.end()
        deadline, limit = self._deadline
        cell, late_s = self._cell, time.monotonic() - deadline
        if cell is None or limit is None or late_s < 0:
            return
        if cell.broke is None:
            cell.broke = limit
            self._kernel.interrupt()
        elif late_s > GRACE_S:
            self._kernel.kill()

    def _measure(self) -> float:
        size = self._processes.size_mib()
        if size:  # nothing is left of a kernel that was killed
            self.size_mib = size
            if self._cell is not None:
                self._cell.memory_mib = max(size, self._cell.memory_mib or 0.0)
        return size

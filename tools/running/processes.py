"""The processes of a run: the kernel, and all that was started from it, however it was started.

A process keeps the environment it was started with, so a mark in the kernel's is found in its
children, and also in one that its parent has left behind.
"""

import contextlib
import os
import threading
from collections.abc import Collection, Iterator

import psutil

MARK = "TRAINBOOK_KERNEL"
MIB = 2**20
NAME_CHARACTERS = 60
LIBRARY_WORKERS = (
    "multiprocessing.",
    "joblib.externals.loky",
    "torch/_inductor/compile_worker",
    "wandb-core",
)
"""In the command of a process that a library keeps until the kernel ends: no work of a cell."""


class Processes:
    """All living processes that carry a mark, or whose parent is one of them."""

    def __init__(self, kernel: int, mark: str) -> None:
        self._kernel, self._mark = kernel, mark
        self._lock = threading.Lock()
        self._ours: dict[int, psutil.Process] = {}
        self._known = set(psutil.pids()) - {kernel}
        with contextlib.suppress(psutil.Error):
            self._ours[kernel] = psutil.Process(kernel)

    def size_mib(self) -> float:
        """Resident memory of all of them together; a page that two share counts twice."""
        total = 0
        for process in self._alive():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total / MIB

    def left(self, apart: Collection[int]) -> dict[str, int]:
        """What runs beside the kernel, by name; without some processes and what they started."""
        parents, found = {}, {}
        for process in self._alive():
            with contextlib.suppress(psutil.Error):
                parents[process.pid], command = process.ppid(), " ".join(process.cmdline())
                is_library = any(word in command for word in LIBRARY_WORKERS)
                found[process.pid] = "" if is_library else command or process.name()
        apart = {*apart, *(pid for pid, command in found.items() if not command)}
        return {
            f"process {command[:NAME_CHARACTERS]} ({pid})": pid
            for pid, command in found.items()
            if pid != self._kernel and not apart.intersection(_line(pid, parents))
        }

    def end(self) -> None:
        """Kill all that is left, the kernel too."""
        for process in self._alive():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _alive(self) -> list[psutil.Process]:
        with self._lock:
            pids = set(psutil.pids())
            self._known &= pids
            for pid in sorted(pids - self._known):  # a parent comes before its child, mostly
                self._known.add(pid)
                with contextlib.suppress(psutil.Error, OSError):
                    self._examine(psutil.Process(pid))
            for pid, process in list(self._ours.items()):
                if not _is_alive(process):
                    del self._ours[pid]
            return list(self._ours.values())

    def _examine(self, process: psutil.Process) -> None:
        if process.pid == os.getpid():
            return
        if process.ppid() in self._ours or process.environ().get(MARK) == self._mark:
            self._ours[process.pid] = process


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _line(pid: int, parents: dict[int, int]) -> Iterator[int]:
    """A process, its parent, and so on."""
    seen: set[int] = set()
    while pid in parents and pid not in seen:
        seen.add(pid)
        yield pid
        pid = parents[pid]

"""Saver: writes checkpoints in the background, so that training waits only for a copy of its state.

One snapshot is in memory at a time. While it is written the next one is not taken: a second copy
would cost as much memory as the state itself, and the checkpoint that is taken when the writer is
free is newer than the one that would have waited. What became of a save is told on the thread that
trains, between two steps.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helpers.engine.checkpoint import CheckpointInfo, CheckpointStore, Snapshot
from helpers.errors import CheckpointError

if TYPE_CHECKING:
    from helpers.engine.run import Run

SHARE = 0.015
"""Share of the wall time for which saving may stop the training."""
GRACE_S = 2.0
"""What it may take beyond that, so that a short run keeps its cadence to the step."""


@dataclass
class Buffers:
    """Memory on the CPU that the state is copied into, made once and used again."""

    _memory: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def copy(self, sections: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Copy all tensors; the copies are valid until the next call."""
        copies = {
            section: {name: self._like((section, name), t) for name, t in tensors.items()}
            for section, tensors in sections.items()
        }
        sources = [t.detach() for tensors in sections.values() for t in tensors.values()]
        targets = [t for tensors in copies.values() for t in tensors.values()]
        if sources:
            # Into pinned memory the copies of all tensors overlap; one wait at the end is enough.
            torch._foreach_copy_(targets, sources, non_blocking=any(t.is_cuda for t in sources))
        for device in {t.device for t in sources if t.is_cuda}:
            torch.cuda.synchronize(device)
        return copies

    def clear(self) -> None:
        """Give the memory back."""
        self._memory.clear()

    def _like(self, key: tuple[str, str], tensor: Tensor) -> Tensor:
        own = self._memory.get(key)
        if own is None or own.shape != tensor.shape or own.dtype != tensor.dtype:
            own = self._memory[key] = _cpu_memory(tensor)
        return own


@dataclass
class Saver:
    """Saves a run when it is due, by steps and by time.

    With `minutes` above 0 a save by steps that would raise the cost of saving above `SHARE` of the
    wall time is put off; with 0 every one is made, and waits for the one before.
    """

    store: CheckpointStore
    every: int = 0
    minutes: float = 0.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    stopped_s: float = 0.0
    """Seconds for which saving on the way stopped the training, in this session."""
    write_s: float | None = None
    """Seconds that writing a checkpoint takes, the last ones counting most; None before one was."""
    best_on_disk: int | None = None
    """The last best step that was saved; the best one is not, where saving it failed."""
    _last_stop_s: float = field(default=0.0, repr=False)
    _is_owed: bool = field(default=False, repr=False)
    _is_told: bool = field(default=False, repr=False)
    _buffers: Buffers = field(default_factory=Buffers, repr=False)
    _writer: ThreadPoolExecutor | None = field(default=None, repr=False)
    _writing: Future[str] | None = field(default=None, repr=False)
    _durable: deque[CheckpointInfo] = field(default_factory=deque, repr=False)

    def __post_init__(self) -> None:
        self._began = self._saved_at = self.clock()

    @property
    def is_on_the_way(self) -> bool:
        """Whether the settings ask for checkpoints before the end."""
        return self.every > 0 or self.minutes > 0

    def is_due(self, run: Run) -> bool:
        """Whether to save after this step; a save that was put off stays due."""
        self._is_owed |= self.every > 0 and run.state.step % self.every == 0
        now = self.clock()
        is_late = self.minutes > 0 and now - self._saved_at >= 60 * self.minutes
        if not self.minutes or not (self._is_owed or is_late):
            return self._is_owed
        allowed_s = GRACE_S + SHARE * (now - self._began) - self.stopped_s
        if self._is_busy():
            started = self.clock()
            wait([self._writing], timeout=max(0.0, GRACE_S - self.stopped_s))
            self.stopped_s += self.clock() - started
        if not self._is_busy() and (is_late or self._last_stop_s <= allowed_s):
            return True
        self._tell_spacing(run)
        return False

    def save(self, run: Run, take: Callable[[], Snapshot], *, is_background: bool) -> None:
        """Save the snapshot that `take` returns: at once, or from a copy beside the training.

        Raises: CheckpointError if it cannot be written at once, or has no form as JSON.
        """
        started = self.clock()
        self.wait(run)
        snapshot = take()
        text, keep, best = snapshot.state_text(), run.config.keep_checkpoints, run.state.best_step
        self._is_owed, self._saved_at = False, self.clock()
        if not is_background:
            trouble = self._write(snapshot, text, keep, best)
            self.deliver(run)
            if trouble:
                run.tell("not removed", trouble)
            return
        copy = Snapshot(snapshot.step, self._buffers.copy(snapshot.sections), {})
        self._writer = self._writer or ThreadPoolExecutor(1, "checkpoint")
        self._writing = self._writer.submit(self._write, copy, text, keep, best)
        self._last_stop_s = self.clock() - started
        self.stopped_s += self._last_stop_s

    def owe_nothing(self) -> None:
        """Begin counting anew, as after a run went back to a checkpoint."""
        self._is_owed, self._saved_at = False, self.clock()

    def deliver(self, run: Run) -> None:
        """Tell what became durable, or failed, since the last call; never waits."""
        done = self._writing if not self._is_busy() else None
        while self._durable:
            run.emit("on_checkpoint", self._durable.popleft())
        if done is not None:
            self._writing = None
            error = done.exception()
            if error is not None:
                run.tell("not saved", str(error) or type(error).__name__)
            elif done.result():
                run.tell("not removed", done.result())

    def wait(self, run: Run) -> None:
        """Wait until nothing is being written, and tell what became of it."""
        if self._writing is not None:
            wait([self._writing])
            self.deliver(run)

    def close(self, run: Run) -> None:
        """Wait for the writer and give thread and memory back; the saver can be used again."""
        try:
            self.wait(run)
        finally:
            if self._writer is not None:
                self._writer.shutdown(wait=not self._is_busy())
            self._writer = None
            self._buffers.clear()

    def _write(self, snapshot: Snapshot, text: str, keep: int, best: int | None) -> str:
        """Write a checkpoint and then remove older ones; return what kept them from going."""
        started, protected = self.clock(), {best, self.best_on_disk} - {None}
        self._durable.append(self.store.write(snapshot, text, protected))
        took_s = self.clock() - started
        self.write_s = took_s if self.write_s is None else (self.write_s + took_s) / 2
        if best is not None and os.path.isdir(self.store.path(best)):
            self.best_on_disk, protected = best, {best}
        try:
            self.store.retain(keep, protected)
        except CheckpointError as error:
            return str(error)
        return ""

    def _is_busy(self) -> bool:
        return self._writing is not None and not self._writing.done()

    def _tell_spacing(self, run: Run) -> None:
        """Say once that saves by steps are put off, and why."""
        if self._is_owed and not self._is_told:
            self._is_told = True
            run.tell(
                "saving less often",
                f"a save stops the training for {self._last_stop_s:.2g} s and is written beside "
                f"it; one every {self.every:,} steps would take more than 2 % of the time, so some "
                "are put off. Raise save_every; save_minutes=0 keeps to the steps at any cost",
            )


def _cpu_memory(tensor: Tensor) -> Tensor:
    """Memory for a copy; pinned for a GPU, if so much can be pinned."""
    if tensor.is_cuda:
        try:
            return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        except RuntimeError:
            pass
    return torch.empty(tensor.shape, dtype=tensor.dtype)

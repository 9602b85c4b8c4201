"""Batches read ahead by threads: the same ones in the same order, however many threads read.

A batch is a pure function of its place in the stream of samples, so it does not matter who reads
it, or when. Data for which that is not so is read by the thread that trains.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import torch

from helpers.data.collate import Batch
from helpers.data.draws import random_states_kept
from helpers.data.order import SampleOrder
from helpers.data.packing import Samples
from helpers.errors import DataError

AHEAD = 2
"""Batches that are read ahead for each worker."""
TELL_S, GIVE_UP_S = 60.0, 600.0
"""Waiting for one batch, until it is told and until the run ends."""
CLOSE_S = 5.0
LOOK_S = 0.05
N_LOOKED_AT = 64
SHOWN = 8
REFUSAL = (
    "num_workers is {n}, but {why}, so batches read ahead would differ from those of a run without "
    "workers. They are read by the thread that trains. Let __getitem__ depend on its index alone, "
    "or set num_workers to 0."
)


@dataclass
class _Job:
    """One batch: its place in the stream, its samples, and what became of them."""

    start: int
    index: np.ndarray
    done: threading.Event = field(default_factory=threading.Event)
    worker: threading.Thread | None = None
    batch: Batch | None = None
    error: BaseException | None = None
    is_dropped: bool = False


class Prefetch:
    """The batches of a stream of samples, read ahead by `n_workers` threads; 0 reads them here.

    Two batches for each worker are in memory at most. `refusal` says why data is not read by
    workers, if it is not: two looks at it differ, or it draws from the random generators that the
    model draws from too. An error of a worker is raised where its batch is taken.
    """

    def __init__(self, samples: Samples, n_workers: int = 0) -> None:
        self._samples, self.refusal = samples, ""
        if n_workers and (why := why_not_ahead(samples)):
            self.refusal, n_workers = REFUSAL.format(n=n_workers, why=why), 0
        self._n_workers = n_workers
        self._workers: list[threading.Thread] = []
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ahead: deque[_Job] = deque()

    def follow(self, order: SampleOrder, batch_size: int, end: int) -> None:
        """Read batches of an order up to a place in its stream; what was read ahead is dropped."""
        self._order, self._batch_size, self._end = order, batch_size, end
        self._drop()

    def take(
        self,
        start: int,
        is_stopped: Any = False,
        tell: Callable[[str, str], None] = lambda kind, message: None,
    ) -> tuple[np.ndarray, Batch] | None:
        """The numbers and the batch of the samples from `start` on.

        None if `is_stopped` came true before they were there; that they take long is told.

        Raises: what reading them raised; DataError if they do not come.
        """
        if not self._n_workers:
            index = self._index(start)
            return index, self._samples.gather(index)
        if not self._ahead or self._ahead[0].start != start:
            self._drop()
        self._read_ahead(start)
        job = self._ahead[0]
        if not self._wait_for(job, is_stopped, tell):
            return None
        self._ahead.popleft()
        if job.error is not None:
            raise job.error
        self._read_ahead(start + len(job.index))
        return job.index, job.batch

    def close(self) -> None:
        """End the threads; one that hangs in the user's code is left to itself."""
        self._drop()
        for _ in self._workers:
            self._jobs.put(None)
        deadline = time.monotonic() + CLOSE_S
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        self._workers = []

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def _index(self, start: int) -> np.ndarray:
        return self._order.take(start, min(self._batch_size, self._end - start))

    def _read_ahead(self, start: int) -> None:
        """Ask for all batches that may be in memory, from the last one asked for or from here."""
        if self._ahead:
            last = self._ahead[-1]
            start = last.start + len(last.index)
        while len(self._ahead) < AHEAD * self._n_workers and start < self._end:
            job = _Job(start, self._index(start))
            self._ahead.append(job)
            self._jobs.put(job)
            start += len(job.index)
        while len(self._workers) < self._n_workers:
            worker = threading.Thread(
                target=_work, args=(self._samples, self._jobs), name="data", daemon=True
            )
            self._workers.append(worker)
            worker.start()

    def _wait_for(self, job: _Job, is_stopped: Any, tell: Callable[[str, str], None]) -> bool:
        """Wait until a batch is there; return False if asked to stop before."""
        began, is_told = time.monotonic(), False
        while not job.done.wait(LOOK_S):
            waited_s = time.monotonic() - began
            if is_stopped:
                return False
            if not self._is_in_hand(job):
                job.is_dropped, job.batch = True, self._samples.gather(job.index)
                return True
            if waited_s > GIVE_UP_S:
                raise DataError(
                    f"{_named(job)} have not come for {waited_s:.0f} s, but a batch is wanted. "
                    "Look at the data set and its disk; training again goes on from the last "
                    "checkpoint."
                )
            if waited_s > TELL_S and not is_told:
                is_told = True
                tell("waiting for data", f"{_named(job)} have not come for {waited_s:.0f} s")
        return True

    def _is_in_hand(self, job: _Job) -> bool:
        """Whether a thread that lives reads this batch, or will."""
        if job.done.is_set():
            return True
        if job.worker is not None:
            return job.worker.is_alive()
        return any(worker.is_alive() for worker in self._workers)

    def _drop(self) -> None:
        for job in self._ahead:
            job.is_dropped = True
        self._ahead.clear()


def why_not_ahead(samples: Samples) -> str:
    """Why a thread must not read this data ahead, from two looks at up to 64 samples, or nothing.

    A thread that draws from a global generator takes its numbers away from the model's dropout, and
    which ones is up to chance. Seeding the generators for each sample would disturb the model in
    the same way, and costs 0.5 ms a sample (torch 2.13, one core, 2026-11).
    """
    n = min(N_LOOKED_AT, len(samples))
    index = np.unique(np.linspace(0, len(samples) - 1, n).astype(np.int64))
    before = _random_states()
    with random_states_kept():
        looks = [samples.gather(index).fields for _ in range(2)]
        is_drawn = _random_states() != before
    if is_drawn:
        return "the data draws from the random generators of the process"
    if not _is_same(*looks):
        return "two looks at the same samples of the data differ"
    return ""


def _random_states() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), kind, keys.tobytes(), *rest, torch.get_rng_state().numpy().tobytes()


def _is_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].shape == b[name].shape and torch.equal(_bytes(a[name]), _bytes(b[name]))
        for name in a
    )


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """What is compared, so that NaN equals itself."""
    return tensor.contiguous().view(-1).view(torch.uint8)


def _named(job: _Job) -> str:
    """The samples of a batch in words."""
    listed = ", ".join(map(str, job.index[:SHOWN]))
    more = f" and {len(job.index) - SHOWN:,} more" if len(job.index) > SHOWN else ""
    return f"The samples {listed}{more}"


def _work(samples: Samples, jobs: queue.SimpleQueue[_Job | None]) -> None:
    """Read batches until told to end; what goes wrong belongs to the thread that takes them."""
    while (job := jobs.get()) is not None:
        if job.is_dropped:
            continue
        job.worker = threading.current_thread()
        try:
            job.batch = samples.gather(job.index)
        except BaseException as error:  # noqa: BLE001 - it is raised by `take`
            job.error = error
        job.done.set()
        # A thread that waits must not keep the last batch.
        del job

"""Run several notebooks at once, each in a process of its own, and stop them together.

A worker has a process group of its own, so that an interrupt from the terminal reaches us alone;
we hand it on once for each time it comes.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from tools.errors import ToolsError
from tools.run import RunReport, run_job
from tools.running.job import Job
from tools.running.verdict import Verdict

STOPS = (signal.SIGINT, signal.SIGTERM)
ORPHAN_GRACE_S = 15


@dataclass
class Worker:
    """A process that runs one notebook."""

    job: Job
    process: Any
    messages: Connection
    outcome: RunReport | ToolsError | None = None


@dataclass
class Crew:
    """The workers of one call."""

    jobs: list[Job]
    n_workers: int
    progress: Callable[[Job, str], None]
    running: list[Worker] = field(default_factory=list)
    n_stops: int = 0

    def run(self) -> Iterator[RunReport]:
        """Yield a report for each notebook that was begun, as they end.

        Raises: ToolsError if a worker met one.
        """
        with self._signals():
            while self.running or (self.jobs and not self.n_stops):
                while self.jobs and not self.n_stops and len(self.running) < self.n_workers:
                    with _stops_held():  # a worker is told of those that come from here on
                        self.running.append(_start(self.jobs.pop(0)))
                ready = wait([worker.messages for worker in self.running])
                for worker in [w for w in self.running if w.messages in ready]:
                    if self._is_over(worker):
                        self.running.remove(worker)
                        yield self._report(worker)

    def _is_over(self, worker: Worker) -> bool:
        """Take one message of a worker; whether it was the last."""
        try:
            message = worker.messages.recv()
        except EOFError:
            worker.process.join()
            return True
        if isinstance(message, str):
            self.progress(worker.job, message)
        else:
            worker.outcome = message
        return False

    def _report(self, worker: Worker) -> RunReport:
        if isinstance(worker.outcome, ToolsError):
            raise worker.outcome
        return worker.outcome or _without_report(worker, is_stopped=bool(self.n_stops))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Hand on the first interrupt and the second; the third ends the workers at once."""

        def on_signal(number: int, frame: Any) -> None:
            self.n_stops += 1
            for worker in self.running:
                if self.n_stops > 2:
                    worker.process.kill()
                elif worker.process.is_alive():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.process.pid, signal.SIGINT)

        before = {number: signal.signal(number, on_signal) for number in STOPS}
        try:
            yield
        finally:
            for worker in self.running:
                worker.process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)


def run_jobs(
    jobs: Sequence[Job], n_workers: int, progress: Callable[[Job, str], None]
) -> Iterator[RunReport]:
    """Run notebooks, at most `n_workers` at a time; one at a time they run in this process.

    After an interrupt no other is begun.
    """
    if n_workers > 1 and len(jobs) > 1:
        yield from Crew(list(jobs), n_workers, progress).run()
        return
    for job in jobs:
        report = run_job(job, lambda line, job=job: progress(job, line))
        yield report
        if report.verdict.status == "interrupted":
            return


@contextlib.contextmanager
def _stops_held() -> Iterator[None]:
    """Let interrupts wait, also in a worker that is started, until it has a group of its own."""
    resource_tracker.ensure_running()  # when it starts, it lets interrupts through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(job: Job) -> Worker:
    """Start a worker while interrupts are held."""
    context = multiprocessing.get_context("spawn")
    messages, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, theirs), name=job.label)
    process.start()
    theirs.close()
    return Worker(job, process, messages)


def _work(job: Job, messages: Connection) -> None:
    """Run one notebook in this process, and send lines, then the report or what is wrong."""
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()

    is_begun = False

    def send(message: Any) -> None:
        nonlocal is_begun
        is_begun = True
        with contextlib.suppress(OSError):  # nobody listens any more
            messages.send(message)

    def on_signal(number: int, frame: Any) -> None:
        """Stop what has not begun; while cells run, others listen, and then the page is written."""
        if not is_begun:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        for number in STOPS:
            signal.signal(number, on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        try:
            outcome: RunReport | ToolsError = run_job(job, send)
        except ToolsError as error:
            outcome = error
        send(outcome)


def _end_with_parent() -> None:
    """Stop when the process that started us is gone."""
    wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(ORPHAN_GRACE_S)
    os._exit(1)


def _without_report(worker: Worker, is_stopped: bool) -> RunReport:
    """What is known of a run whose worker ended before it could tell."""
    if is_stopped:
        verdict = Verdict("interrupted", "interrupted", "before a cell had run")
    else:
        reason = f"its runner ended with exit code {worker.process.exitcode}"
        verdict = Verdict("failed", "dead kernel", reason)
    job = worker.job
    return RunReport(job.path, verdict, (), 0.0, None, None, None, job.workflow, job.limits)

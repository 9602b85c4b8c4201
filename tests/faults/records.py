"""Databases of runs to break, processes to kill, and what must be left afterwards."""

import contextlib
import errno
import json
import math
import os
import select
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from helpers.engine.callbacks import Callback
from helpers.tracking import ExperimentDB, entries, spool
from helpers.tracking.writer import RunWriter

SEED = 4
RUN = {
    "name": "first try",
    "config": {"learning_rate": 3e-4},
    "task": {"kind": "causal_lm"},
    "data_fingerprint": "d41d8cd98f00",
    "code_version": "0.1.0",
    "environment": {},
    "seed": 7,
    "run_dir": "runs/a",
}
HOSTILE = [
    "'; DROP TABLE runs; --",
    'a"b`c[d]%s?:x',
    "<script>alert(1)</script>",
    "\N{PILE OF POO}",
]


class At(Callback):
    """Call something after a step."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step, self.action = step, action

    def on_log(self, run, row):
        if row["step"] == self.step:
            self.action()


class Told(Callback):
    """Keeps what a run told."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def on_event(self, run, kind, message):
        self.kinds.append(kind)


class Child:
    """A forked process that reports numbers, each as it is acknowledged."""

    def __init__(self, work: Callable[[Callable[[int], object]], object]) -> None:
        self.reader, out = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                work(lambda number: os.write(out, b"%08d" % number))
                code = 0
            finally:
                os._exit(code)
        os.close(out)

    def read(self, limit_s: float = 60.0) -> list[int]:
        """Numbers that have come since the last look; none at its end."""
        select.select([self.reader], [], [], limit_s)
        found = os.read(self.reader, 8 * 4096)
        return [int(found[i : i + 8]) for i in range(0, len(found), 8)]

    def wait(self) -> tuple[list[int], int]:
        """The rest of its numbers, and its exit status."""
        numbers = []
        while more := self.read():
            numbers += more
        os.close(self.reader)
        return numbers, os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> list[int]:
        """Kill it with SIGKILL; what it acknowledged before comes back."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()[0]


def metrics_of(database: Path, run_id: str) -> dict[tuple[int, str], float]:
    with closing(sqlite3.connect(database)) as raw:
        rows = raw.execute("SELECT step, name, value FROM metrics WHERE run_id = ?", (run_id,))
        return {(step, name): math.nan if v is None else v for step, name, v in rows}


def metrics_in_file(folder: Path) -> dict[tuple[int, str], float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {(r["step"], name): float(v) for r in rows for name, v in r.items() if name != "step"}


def is_sound(database: Path) -> bool:
    with closing(sqlite3.connect(database)) as raw:
        return raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@contextlib.contextmanager
def held(database: Path) -> Iterator[sqlite3.Connection]:
    """Hold the lock of a database, as a program that was stopped in the middle does."""
    with closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield holder


def write_directly(path: Path, run_id: str, first: int, end: int) -> Callable:
    """A process that writes rows itself, and acknowledges each that is written."""

    def work(acknowledge):
        with ExperimentDB(path) as database:
            database.start_run(run_id, **RUN)
            for step in range(first, end):
                database.log_metrics(run_id, [(step, {"loss": step / 2})])
                acknowledge(step)

    return work


def spooled(folder: Path, database: Path, n_rows: int = 20) -> Path:
    """A folder with a spool of one run."""
    file = spool.LineFile(folder / spool.SPOOL)
    named = {"database": str(database)}
    file.add(entries.run("a", **RUN) | named)
    for step in range(n_rows):
        file.add(entries.metrics("a", [(step, {"loss": step / 2})]) | named)
    file.add(entries.event("a", "spike", "loss 9.1", 3, {}) | named)
    file.add(entries.finish("a", "completed", {"final_loss": 1.5}) | named)
    return folder


def dump(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as raw:
        return list(raw.iterdump())


def full_database(folder: Path, n_runs: int = 3, n_rows: int = 60) -> Path:
    """A database of runs with journals and metrics files, and one run that only it knows."""
    path = folder / "experiments.db"
    with ExperimentDB(path) as database:
        for number in range(n_runs):
            run_id = f"run-{number}"
            rows = [
                (step, {"loss": step + number / 8, "lr": 1 / (step + 1)}) for step in range(n_rows)
            ]
            run_writer = RunWriter(database, folder / run_id)
            run_writer.add(entries.run(run_id, **RUN))
            lines = [json.dumps({"step": step, **values}) + "\n" for step, values in rows]
            (folder / run_id / "metrics.jsonl").write_text("".join(lines))
            run_writer.add(entries.metrics(run_id, rows))
            run_writer.add(entries.event(run_id, "spike", "loss 9.1", 3, {}))
            run_writer.add(entries.finish(run_id, "completed", {"final_loss": 1.5}))
            assert run_writer.close(30.0)
        database.start_run("by hand", **RUN)
        database.log_metrics("by hand", [(step, {"loss": 1.0}) for step in range(50)])
        database.log_event("by hand", "note", "kept by hand")
        database.finish_run("by hand", "completed", {"final_loss": 2.5})
    return path


def overwrite(path: Path) -> None:
    path.write_text("This was a database.\n" * 100)


def tear_pages(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        for at in range(4096, size, 8192):
            file.seek(at)
            file.write(b"\xff" * 2048)


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

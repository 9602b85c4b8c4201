"""The record of runs under kills, locks, full disks and damage: what is acknowledged stays."""

import contextlib
import errno
import json
import math
import os
import random
import resource
import select
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event as on
from sqlalchemy import text

from helpers.engine.callbacks import Callback
from helpers.errors import DatabaseUnavailableError, TrackingError
from helpers.tracking import ExperimentDB, db, entries, owner, schema, spool, sqlite_file, writer
from helpers.tracking.connect import check_place, connect, open_engine, parse_url, transaction
from helpers.tracking.migrations import MIGRATIONS
from helpers.tracking.writer import RunWriter
from tests.faults.scale import n, record

COMMAND = "TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_database.py"
V1 = Path(__file__).parent / "data" / "database_v1.sql"
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


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "experiments.db"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Batches and retries of tests come soon."""
    monkeypatch.setattr(writer, "BATCH_S", 0.05)
    monkeypatch.setattr(writer, "RETRY_S", (0.05, 0.2))


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


# kill -9


def write_directly(path: Path, run_id: str, first: int, end: int) -> Callable:
    """A process that writes rows itself, and acknowledges each that is written."""

    def work(acknowledge):
        with ExperimentDB(path) as database:
            database.start_run(run_id, **RUN)
            for step in range(first, end):
                database.log_metrics(run_id, [(step, {"loss": step / 2})])
                acknowledge(step)

    return work


def write_like_a_run(path: Path, run_id: str, first: int, end: int) -> Callable:
    """A process that hands rows to a writer, never waits for it, and ends without a word."""

    def work(acknowledge):
        run_writer = RunWriter(ExperimentDB(path), path.parent / run_id)
        run_writer.add(entries.run(run_id, **RUN))
        for step in range(first, end):
            run_writer.add(entries.metrics(run_id, [(step, {"loss": step / 2})]))
            acknowledge(step)
            time.sleep(0.001)

    return work


def kill_writers(path: Path, n_writers: int, n_rows: int, n_kills: int) -> dict[str, int]:
    """Kill writers again and again at random moments; returns how many rows of each are lost."""
    rng = random.Random(SEED)
    kinds = (write_directly, write_like_a_run)
    runs = {f"run-{i}": kinds[i % 2] for i in range(n_writers)}
    acknowledged: dict[str, set[int]] = {run_id: set() for run_id in runs}
    points = {
        run_id: sorted(
            rng.sample(range(1, n_rows), n_kills // n_writers + (i < n_kills % n_writers))
        )
        for i, run_id in enumerate(runs)
    }
    children: dict[str, Child] = {}
    n_killed = 0

    def begin(run_id: str) -> None:
        first = max(acknowledged[run_id], default=-1) + 1
        children[run_id] = Child(runs[run_id](path, run_id, first, n_rows))

    for run_id in runs:
        begin(run_id)
    while children:
        ready = select.select([c.reader for c in children.values()], [], [], 60)[0]
        assert ready, "no writer has written for a minute"
        for run_id, child in [(r, c) for r, c in children.items() if c.reader in ready]:
            found = child.read()
            acknowledged[run_id].update(found)
            if not found:
                assert child.wait() == ([], 0)
                del children[run_id]
            elif points[run_id] and max(acknowledged[run_id]) >= points[run_id][0]:
                time.sleep(rng.uniform(0, 0.004))
                acknowledged[run_id].update(child.kill())
                n_killed += 1
                points[run_id].pop(0)
                begin(run_id)
    with ExperimentDB(path) as database:
        database.merge_spools()
        assert "running" not in set(database.runs()["status"])
    lost = {
        run_id: sum(metrics_of(path, run_id).get((step, "loss")) != step / 2 for step in steps)
        for run_id, steps in acknowledged.items()
    }
    n_acknowledged = sum(map(len, acknowledged.values()))
    return {"kills": n_killed, "acknowledged": n_acknowledged, "lost": sum(lost.values())}


def test_kills_lose_no_acknowledged_row(path):
    n_writers, n_rows, n_kills = n(4, 8), n(200, 2000), n(10, 200)
    started = time.perf_counter()
    figures = kill_writers(path, n_writers, n_rows, n_kills)

    assert figures == {"kills": n_kills, "acknowledged": n_writers * n_rows, "lost": 0}
    assert is_sound(path)
    record(
        "metrics",
        f"{n_writers} writers x {n_rows:,} rows with {n_kills} kills, 0 acknowledged rows lost",
        {"writers": n_writers, "rows_each": n_rows, **figures},
        command=f"{COMMAND} -k kills_lose",
        seed=SEED,
        seconds=time.perf_counter() - started,
    )


def test_rows_acknowledged_before_they_are_written_would_be_missed(path, monkeypatch):
    """Without the spool, a kill takes what was acknowledged with it."""
    monkeypatch.setattr(spool.LineFile, "add", lambda self, entry: "")

    assert kill_writers(path, 2, 100, 2)["lost"] > 0


# transactions


def add_one(connection) -> None:
    """Read a value, and write one that depends on it."""
    known = connection.execute(text("SELECT value FROM metrics WHERE run_id = 'a'")).scalar_one()
    time.sleep(0.01)
    connection.execute(text(f"UPDATE metrics SET value = {known + 1} WHERE run_id = 'a'"))


def count_in_threads(path: Path, mode: str, n_threads: int, n_times: int) -> tuple[int, float]:
    """How many of the transactions of some threads fail, and the count they come to."""
    with ExperimentDB(path) as database:
        database.start_run("a", **RUN)
        database.log_metrics("a", [(0, {"count": 0.0})])
    engine = open_engine(parse_url(path)).execution_options(sqlite_begin=mode)
    failures = []

    def work():
        for _ in range(n_times):
            try:
                with transaction(engine, "count") as connection:
                    add_one(connection)
            except DatabaseUnavailableError as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(failures), metrics_of(path, "a")[0, "count"]


def test_transactions_that_read_and_then_write_all_succeed(path):
    n_times = n(10, 200)

    assert count_in_threads(path, "IMMEDIATE", 4, n_times) == (0, 4 * n_times)


def test_deferred_transactions_would_fail(path):
    n_failed, count = count_in_threads(path, "DEFERRED", 4, 10)

    assert n_failed > 0 and count == 40 - n_failed


def test_writers_begin_immediate_and_readers_do_not(path):
    with ExperimentDB(path) as database:
        sent = []
        on.listen(database._engine, "before_cursor_execute", lambda *a: sent.append(a[2]))
        database.start_run("a", **RUN)
        database.runs()

    assert [s for s in sent if s.startswith("BEGIN")] == ["BEGIN IMMEDIATE", "BEGIN DEFERRED"]


def test_pragmas_are_set_on_every_connection(path):
    path.touch()
    with closing(connect(path)) as raw:
        found = {
            name: raw.execute(f"PRAGMA {name}").fetchone()
            for name in ("foreign_keys", "trusted_schema", "cell_size_check", "busy_timeout")
        }
        is_wal = raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        synchronous = raw.execute("PRAGMA synchronous").fetchone()[0]

    assert found == {
        "foreign_keys": (1,),
        "trusted_schema": (0,),
        "cell_size_check": (1,),
        "busy_timeout": (30_000,),
    }
    assert synchronous == (1 if is_wal else 2)


# a database that is locked


def test_training_goes_on_while_the_database_is_locked(make_trainer, data, path):
    path = path.parent / "runs" / path.name
    stack, told = contextlib.ExitStack(), Told()
    hold = At(2, lambda: stack.enter_context(held(path)))
    with ExperimentDB(path, busy_timeout_s=0.05) as database:
        trainer = make_trainer(run_name="r", db=database, callbacks=[hold, told], save_every=4)
        result = trainer.train(data.train)
    folder = Path(result.run_dir)
    n_waiting = len(spool.waiting(folder))
    stack.close()

    assert result.status == "completed"
    assert told.kinds == ["not recorded"]
    assert n_waiting > 10
    with ExperimentDB(path) as database:
        assert database.run("r")["status"] == "completed"
    assert metrics_of(path, "r") == metrics_in_file(folder)
    assert spool.waiting(folder) == []


def test_the_next_session_writes_what_an_earlier_one_could_not(make_trainer, data, path):
    path = path.parent / "runs" / path.name
    settings = {"run_name": "r", "resume": "auto"}
    stack = contextlib.ExitStack()
    hold = At(2, lambda: stack.enter_context(held(path)))
    with ExperimentDB(path, busy_timeout_s=0.05) as database:
        first = make_trainer(**settings, db=database, callbacks=[hold]).train(data.train)
        stack.close()
        make_trainer(**settings, db=database).train(data.train)

    assert metrics_of(path, "r") == metrics_in_file(Path(first.run_dir))


def test_a_locked_database_opens_and_says_so(path):
    ExperimentDB(path).close()
    with held(path):
        database = ExperimentDB(path, busy_timeout_s=0.05)
        with pytest.raises(DatabaseUnavailableError, match="locked") as caught:
            database.runs()

    assert "locked" in database.notes[0]
    assert caught.value.cause == "locked"
    assert database.runs().empty


def test_nobody_waits_for_a_locked_database(path):
    run_writer = RunWriter(ExperimentDB(path), path.parent / "a")
    with held(path):
        started = time.perf_counter()
        run_writer.add(entries.run("a", **RUN))
        for step in range(100):
            run_writer.add(entries.metrics("a", [(step, {"loss": 1.0})]))
            run_writer.flush()
        seconds = time.perf_counter() - started

    assert seconds < 2.0
    assert run_writer.close(30.0)
    assert len(metrics_of(path, "a")) == 100


def test_the_random_state_of_a_run_is_left_alone(path):
    before = random.getstate()
    run_writer = RunWriter(ExperimentDB(path, busy_timeout_s=0.05), path.parent / "a")
    run_writer.add(entries.run("a", **RUN))
    with held(path):
        run_writer.flush(5.0)
    run_writer.close(30.0)

    assert random.getstate() == before


# the spool


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


def test_a_spool_that_is_merged_twice_is_merged_once(path, tmp_path):
    folder = spooled(tmp_path / "a", path)
    lines = (folder / spool.SPOOL).read_bytes()
    with ExperimentDB(path) as database:
        once = dump(path)
        (folder / spool.SPOOL).write_bytes(lines)
        (folder / spool.TAKEN).write_bytes(lines)
        merged = database.merge_spools(tmp_path)

    assert merged == 2 * 23
    assert dump(path) == once
    assert not (folder / spool.SPOOL).exists() and not (folder / spool.TAKEN).exists()


def test_whole_lines_of_a_torn_spool_are_read(path, tmp_path):
    file = spooled(tmp_path / "a", path, 3) / spool.SPOOL
    whole = file.read_bytes()
    for end in range(0, len(whole), n(7, 1)):
        file.write_bytes(whole[:end])
        n_whole = whole[:end].count(b"\n") + (whole[end : end + 1] == b"\n")
        assert len(spool.read(file)) == n_whole
        spool.LineFile(file).add({"kind": "late"})
        assert spool.read(file)[-1] == {"kind": "late"}


def test_a_damaged_line_is_left_out_and_the_others_are_read(path, tmp_path):
    rng = random.Random(SEED)
    file = spooled(tmp_path / "a", path, 3) / spool.SPOOL
    whole, known, n_seen = file.read_bytes(), spool.read(file), 0
    for _ in range(n(100, 2000)):
        at = rng.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        found = spool.read(file)
        assert len(found) >= len(known) - 2
        assert all(entry in known for entry in found)
        n_seen += len(found) < len(known)

    assert n_seen > 0.8 * n(100, 2000)  # the others hit what is around an entry


def test_the_spool_of_another_database_is_left_to_it(path, tmp_path):
    folder = spooled(tmp_path / "a", tmp_path / "other.db")
    with ExperimentDB(path) as database:
        assert len(spool.waiting(folder)) == 23
        assert database.merge_spools() == 23


def test_what_the_database_refuses_is_kept_and_the_rest_is_written(path, tmp_path):
    folder = spooled(tmp_path / "a", path, 5)
    file = spool.LineFile(folder / spool.SPOOL)
    file.add({"kind": "of a later release", "run_id": "a", "time": 1.0})
    file.add(entries.metrics("a", [(99, {"loss": 99.0})]))
    with ExperimentDB(path) as database:
        database.merge_spools()
        notes = database.notes

    assert metrics_of(path, "a")[99, "loss"] == 99.0
    assert [e["kind"] for e in spool.read(folder / spool.REFUSED)] == ["of a later release"]
    assert "refused" in notes[0]


# full disks


class FailingDisk:
    """The calls of `os`, of which the n-th one that changes the disk fails, or all from then on."""

    CALLS = ("open", "write", "fsync", "rename", "ftruncate")

    def __init__(self, at: int, code: int, *, is_for_good: bool = False) -> None:
        self.at, self.code, self.is_for_good, self.count = at, code, is_for_good, 0

    def __getattr__(self, name):
        real = getattr(os, name)
        return self._counting(real) if name in self.CALLS else real

    def _counting(self, real):
        def call(*values, **named):
            self.count += 1
            if self.count == self.at or (self.is_for_good and self.count > self.at):
                raise OSError(self.code, os.strerror(self.code))
            return real(*values, **named)

        return call


def write_on(disk: FailingDisk, path: Path, monkeypatch) -> dict[tuple[int, str], float]:
    """Write 10 rows while the database is locked and the disk of the spool fails."""
    with monkeypatch.context() as patched, held(path):
        patched.setattr(spool, "os", disk)
        run_writer = RunWriter(ExperimentDB(path, busy_timeout_s=0.0), path.parent / "a")
        run_writer.add(entries.run("a", **RUN))
        for step in range(10):
            run_writer.add(entries.metrics("a", [(step, {"loss": 1.0})]))
        run_writer.flush(1.0)
    assert run_writer.close(30.0)
    return metrics_of(path, "a")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, 107])
def test_no_failing_call_of_the_spool_loses_a_row(path, code, monkeypatch):
    n_tried = 0
    for at in range(1, 1000, n(5, 1)):
        path.unlink(missing_ok=True)
        ExperimentDB(path).close()
        disk = FailingDisk(at, code)
        assert len(write_on(disk, path, monkeypatch)) == 10
        if disk.count < at:
            break
        n_tried += 1

    assert n_tried >= n(5, 25)


def test_a_spool_that_cannot_be_written_at_all_is_bypassed(path, monkeypatch):
    run_writer = RunWriter(ExperimentDB(path), path.parent / "a")
    with monkeypatch.context() as patched:
        patched.setattr(spool, "_append", no_space)
        run_writer.add(entries.run("a", **RUN))
        for step in range(10):
            run_writer.add(entries.metrics("a", [(step, {"loss": 1.0})]))
        is_done = run_writer.flush(30.0)

    assert is_done
    assert "No space left" in run_writer.take_trouble()
    assert len(metrics_of(path, "a")) == 10
    assert run_writer.close(30.0)


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_database_that_cannot_grow_gets_its_rows_later(path):
    def work(acknowledge):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        run_writer = RunWriter(ExperimentDB(path), path.parent / "a")
        run_writer.add(entries.run("a", **RUN))
        run_writer.flush(30.0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
        for step in range(n(100, 300)):
            values = {f"metric {i}": float(step) for i in range(20)}
            run_writer.add(entries.metrics("a", [(step, values)]))
            acknowledge(step)
        acknowledge(10**6 + run_writer.flush(5.0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        acknowledge(10**7 + run_writer.close(30.0))

    numbers, code = Child(work).wait()

    assert code == 0
    assert numbers[-2:] == [10**6, 10**7 + 1]
    assert len(metrics_of(path, "a")) == 20 * n(100, 300)
    assert is_sound(path)


# damage


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    path.write_text("This was a database.\n" * 100)


def tear_pages(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        for at in range(4096, size, 8192):
            file.seek(at)
            file.write(b"\xff" * 2048)


DAMAGE = [
    pytest.param(lambda path: path.unlink(), id="deleted"),
    pytest.param(truncate, id="cut in half"),
    pytest.param(lambda path: os.truncate(path, 0), id="emptied"),
    pytest.param(overwrite, id="overwritten by text"),
    pytest.param(lambda path: (path.unlink(), path.write_text("note")), id="replaced by a note"),
    pytest.param(tear_pages, id="every second page torn"),
]


@pytest.mark.parametrize("moment", ["between runs", "mid-run"])
@pytest.mark.parametrize("harm", DAMAGE)
def test_a_damaged_database_is_built_anew_with_every_row(
    make_trainer, data, tmp_path, harm, moment
):
    path, runs = tmp_path / "runs" / "experiments.db", tmp_path / "runs"
    settings = {"database": "auto", "save_every": 5, "eval_every": 6}
    make_trainer(**settings, run_name="a").train(data.train, data.val)
    if moment == "between runs":
        harm(path)
    at = [At(6, lambda: harm(path))] if moment == "mid-run" else []
    result = make_trainer(**settings, run_name="b", callbacks=at).train(data.train, data.val)

    assert result.status == "completed"
    with ExperimentDB(path) as database:
        table = database.runs()
        kept = {name: set(database.checkpoints(name).index) for name in "ab"}
        artifacts = {name: list(database.artifacts(name).index) for name in "ab"}
    assert list(table.index) == ["a", "b"]
    assert list(table["status"]) == ["completed", "completed"]
    for name in "ab":
        assert metrics_of(path, name) == metrics_in_file(runs / name)
        assert {5, 10, 12} <= kept[name] and artifacts[name] == ["final_model.pt"]
    assert is_sound(path)


def test_a_run_without_a_journal_is_put_on_record_from_its_files(make_trainer, data, tmp_path):
    path = tmp_path / "runs" / "experiments.db"
    result = make_trainer(database="off", run_name="a", save_every=5).train(data.train, data.val)
    with ExperimentDB(path) as database:
        row, steps = database.run("a"), list(database.checkpoints("a").index)

    assert (row["status"], row["seed"], row["results"]["step"]) == ("completed", 42, 12)
    assert row["config"]["max_steps"] == 12
    assert row["results"]["final_loss"] == result.final_loss
    assert steps == [10, 12]
    assert metrics_of(path, "a") == metrics_in_file(Path(result.run_dir))


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


def harm_bytes(content: bytes, rng: random.Random) -> bytes:
    """A bit, a page or the end of a file, gone wrong."""
    damaged = bytearray(content)
    kind, at = rng.randrange(3), rng.randrange(len(content))
    if kind == 0:
        damaged[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        start = at - at % 4096
        damaged[start : start + 4096] = bytes(4096)
    else:
        del damaged[at:]
    return bytes(damaged)


def read_everything(database: ExperimentDB) -> None:
    for run_id in database.runs().index:
        database.run(run_id), database.metrics(run_id), database.events(run_id)
        database.checkpoints(run_id), database.artifacts(run_id)


def test_any_damage_ends_in_a_sound_database_with_every_row(tmp_path):
    path = full_database(tmp_path)
    whole, names = path.read_bytes(), ["run-0", "run-1", "run-2"]
    wanted = {name: metrics_in_file(tmp_path / name) for name in names}
    rng, started = random.Random(SEED), time.perf_counter()
    figures = {"faults": n(60, 2000), "built_anew": 0, "unseen_and_mended_by_rebuild": 0, "lost": 0}
    for _ in range(figures["faults"]):
        for leftover in tmp_path.glob("experiments.db*"):
            leftover.unlink()
        path.write_bytes(harm_bytes(whole, rng))
        with ExperimentDB(path) as database:
            figures["built_anew"] += any("was damaged" in note for note in database.notes)
            # A number that was changed within a sound page is nothing that SQLite can see.
            if {name: metrics_of(path, name) for name in names} != wanted:
                figures["unseen_and_mended_by_rebuild"] += 1
                database.rebuild()
            found = {name: metrics_of(path, name) for name in names}
            read_everything(database)
        figures["lost"] += sum(
            found[name].get(key) != value for name in names for key, value in wanted[name].items()
        )
        assert is_sound(path)

    assert figures["lost"] == 0 and figures["built_anew"] > 0
    record(
        "database",
        f"{figures['faults']:,} damaged databases: all open again, 0 rows of metrics.jsonl lost",
        figures,
        command=f"{COMMAND} -k any_damage",
        seed=SEED,
        seconds=time.perf_counter() - started,
    )


def test_without_the_check_damage_would_be_taken_for_sound(tmp_path, monkeypatch):
    path = full_database(tmp_path)
    tear_pages(path)
    monkeypatch.setattr(sqlite_file, "damage", lambda path, timeout_s: "")

    with pytest.raises(TrackingError, match="malformed"):
        [ExperimentDB(path).metrics(name) for name in ("run-0", "run-1", "run-2", "by hand")]


def test_what_only_the_damaged_file_knew_is_read_from_it(tmp_path):
    path = full_database(tmp_path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(100)  # the root of all tables stays, the list of free pages and counts do not
        file.seek(size - 4096)
        file.write(bytes(4096))
    with ExperimentDB(path) as database:
        notes, table = database.notes, database.runs()
        row = database.run("by hand")

    assert "was damaged" in notes[0] and "1 from what could be read" in notes[0]
    assert set(table.index) == {"run-0", "run-1", "run-2", "by hand"}
    assert (row["status"], row["results"]) == ("completed", {"final_loss": 2.5})


def test_a_damaged_file_is_moved_with_its_journals_and_never_deleted(tmp_path):
    path = full_database(tmp_path)
    overwrite(path)
    content = path.read_bytes()
    sides = {suffix: tmp_path / f"experiments.db{suffix}" for suffix in ("-wal", "-journal")}
    for suffix, side in sides.items():
        side.write_bytes(suffix.encode() * 9)
    with ExperimentDB(path):
        pass

    aside = tmp_path / "experiments.db.damaged-1"
    assert aside.read_bytes() == content
    for suffix in sides:
        assert Path(f"{aside}{suffix}").read_bytes() == suffix.encode() * 9


def test_a_file_that_never_was_a_database_of_runs_stays_where_it_is(path):
    overwrite(path)
    before = path.read_bytes()

    with pytest.raises(TrackingError, match="does not look like a database of runs"):
        ExperimentDB(path)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_kernels_that_find_damage_at_once_mend_it_once(tmp_path):
    path = full_database(tmp_path)
    overwrite(path)
    go = threading.Event()

    def work(acknowledge):
        with ExperimentDB(path) as database:
            database.log_metrics("run-0", [(1000 + os.getpid(), {"loss": 1.0})])
            acknowledge(1000 + os.getpid())

    go.set()
    children = [Child(work) for _ in range(4)]
    ended = [child.wait() for child in children]

    assert [code for _, code in ended] == [0] * 4
    found = metrics_of(path, "run-0")
    assert all((step, "loss") in found for steps, _ in ended for step in steps)
    assert len(list(tmp_path.glob("*.damaged-*"))) - len(list(tmp_path.glob("*.damaged-*-*"))) == 1


def test_rebuild_puts_back_what_was_changed_behind_its_back(tmp_path):
    path = full_database(tmp_path)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE metrics SET value = 666 WHERE run_id = 'run-1'")
        raw.execute("DELETE FROM metrics WHERE run_id = 'run-2'")
        raw.execute("UPDATE runs SET status = 'failed' WHERE run_id = 'run-0'")
    with ExperimentDB(path) as database:
        n_runs = database.rebuild(tmp_path)
        status = database.run("run-0")["status"]

    assert (n_runs, status) == (3, "completed")
    for name in ("run-0", "run-1", "run-2"):
        assert metrics_of(path, name) == metrics_in_file(tmp_path / name)


@pytest.mark.parametrize("name", ["run.json", "record.jsonl"])
def test_a_folder_that_cannot_be_read_does_not_keep_the_others_from_the_record(tmp_path, name):
    path = full_database(tmp_path)
    (tmp_path / "odd").mkdir()
    content = {"run_id": ["no", "text"]} if name == "run.json" else {"kind": "run", "run_id": "odd"}
    line = json.dumps(content) if name == "run.json" else spool.encode(content).decode()
    (tmp_path / "odd" / name).write_text(line)
    path.unlink()
    with ExperimentDB(path) as database:
        found, notes = set(database.runs().index), database.notes

    assert {"run-0", "run-1", "run-2"} <= found
    assert name == "run.json" or "odd was left out" in notes[0]


# backups


def test_a_backup_during_writes_is_consistent(path, tmp_path):
    with ExperimentDB(path) as database:
        database.start_run("a", **RUN)
        child = Child(write_directly(path, "b", 0, 10**6))
        last = -1
        for number in range(n(5, 50)):
            last = max([last, *child.read()])
            copy = tmp_path / "drive" / f"copy-{number}.db"
            copy.parent.mkdir(exist_ok=True)
            database.backup(copy)
            steps = sorted(step for step, _ in metrics_of(copy, "b"))
            assert is_sound(copy)
            assert steps == list(range(len(steps))) and steps[-1] >= last
        child.kill()

    assert sorted(p.suffix for p in copy.parent.iterdir()) == [".db"] * n(5, 50)


def test_a_damaged_database_does_not_replace_a_good_backup(tmp_path):
    path = full_database(tmp_path)
    with ExperimentDB(path) as database:
        database.backup(tmp_path / "copy.db")
        before = (tmp_path / "copy.db").read_bytes()
        tear_pages(path)
        with pytest.raises(TrackingError):
            database.backup(tmp_path / "copy.db")

    assert (tmp_path / "copy.db").read_bytes() == before


def test_backups_from_threads_at_once_are_whole(path, tmp_path):
    with ExperimentDB(path) as database:
        database.start_run("a", **RUN)
        threads = [
            threading.Thread(target=database.backup, args=[tmp_path / "copy.db"]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert is_sound(tmp_path / "copy.db")
    assert not list(tmp_path.glob("*.part"))


# schemas


def old_database(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(V1.read_text(encoding="utf-8"))
    return path


def shape_of(database: Path) -> dict[str, list]:
    with closing(sqlite3.connect(database)) as raw:
        tables = [t for (t,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        shape = {t: raw.execute(f"PRAGMA table_info({t})").fetchall() for t in tables}
        shape["indexes"] = raw.execute(
            "SELECT name, tbl_name FROM sqlite_master WHERE type = 'index' ORDER BY name"
        ).fetchall()
        shape["header"] = [
            raw.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "application_id")
        ]
    return shape


def check_old_content(database: ExperimentDB) -> None:
    second = "b'; DROP TABLE runs; --"
    loss = database.metrics("a")["loss"]
    assert list(database.runs()["status"]) == ["completed", "paused", "interrupted"]
    assert database.run(second)["name"] == "<script>\N{PILE OF POO}"
    assert math.isnan(loss[1]) and loss[2] == math.inf and loss[3] == -math.inf
    assert loss[2**53] == 5e-324
    assert database.metrics(second).loc[1, 'a"b`c'] == 0.5
    assert list(database.events("a")["message"]) == ["loss 9.1", "line 1\nline 2"]
    assert database.checkpoints("a")["is_best"].to_dict() == {2: True, 3: False}
    assert math.isnan(database.run("a")["results"]["worst"])
    assert database.artifacts("a").loc["model.bin", "bytes"] == 3


def test_a_database_of_the_first_schema_opens_as_one_of_the_present(path, tmp_path):
    with ExperimentDB(old_database(path)) as database, ExperimentDB(tmp_path / "new.db"):
        check_old_content(database)
        database.log_event("a", "note", "after the migration")

    assert shape_of(path) == shape_of(tmp_path / "new.db")
    with closing(sqlite3.connect(tmp_path / "experiments.db.v1.bak")) as copy:
        assert copy.execute("SELECT version FROM trainbook_schema").fetchall() == [(1,)]
        assert copy.execute("SELECT count(*) FROM metrics").fetchone() == (6,)


def test_every_schema_has_a_migration_to_the_next():
    assert list(MIGRATIONS) == list(range(2, schema.SCHEMA_VERSION + 1))


def test_a_migration_killed_at_any_statement_was_done_or_not(path):
    versions, n_sent = [], 0
    for at in range(1, 100):
        path.unlink(missing_ok=True)
        old_database(path)

        def work(acknowledge, at=at):
            count = 0

            def kill(*_):
                nonlocal count
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

            make = db.open_engine

            def listened(*values):
                engine = make(*values)
                on.listen(engine, "before_cursor_execute", kill)
                on.listen(engine, "commit", kill)
                return engine

            db.open_engine = listened
            ExperimentDB(path).close()

        _, code = Child(work).wait()
        with closing(sqlite3.connect(path)) as raw:
            rows = raw.execute("SELECT version FROM trainbook_schema").fetchall()
            header = raw.execute("PRAGMA user_version").fetchone()[0]
        versions.append(len(rows))
        assert (rows, header) in [([(1,)], 0), ([(1,), (2,)], 2)]
        with ExperimentDB(path) as database:
            check_old_content(database)
        if code == 0:
            break
        n_sent += 1

    assert n_sent > len(MIGRATIONS[2])
    assert set(versions) == {1, 2}


def test_kernels_that_migrate_at_once_do_it_once(path):
    old_database(path)

    def work(acknowledge):
        with ExperimentDB(path) as database:
            database.log_metrics("a", [(100, {"loss": 1.0})])

    children = [Child(work) for _ in range(4)]

    assert [child.wait()[1] for child in children] == [0] * 4
    with ExperimentDB(path) as database, closing(sqlite3.connect(f"{path}.v1.bak")) as copy:
        assert database.metrics("a").loc[100, "loss"] == 1.0
        assert copy.execute("SELECT version FROM trainbook_schema").fetchall() == [(1,)]
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT version FROM trainbook_schema").fetchall() == [(1,), (2,)]


def test_a_migration_without_room_for_a_copy_waits(path, monkeypatch):
    old_database(path)
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_file, "_replace", no_space)
        database = ExperimentDB(path)
        with pytest.raises(DatabaseUnavailableError, match="no copy of it can be made"):
            database.runs()

    check_old_content(database)


def test_a_newer_database_can_be_read_and_its_rows_wait(path, tmp_path):
    with ExperimentDB(path) as database:
        database.start_run("a", **RUN)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("INSERT INTO trainbook_schema VALUES (99)")
    with ExperimentDB(path) as database:
        run_writer = RunWriter(database, tmp_path / "b")
        run_writer.add(entries.run("b", **RUN))
        is_done = run_writer.close(5.0)

        assert "has schema 99" in database.notes[0] and "only read it" in database.notes[0]
        assert list(database.runs().index) == ["a"]
    assert not is_done and "has schema 99" in run_writer.take_trouble()
    assert [entry["run_id"] for entry in spool.waiting(tmp_path / "b")] == ["b"]


# runs whose process died


def test_a_run_whose_process_was_killed_is_interrupted(path):
    living = Child(write_directly(path, "living", 0, 10**6))
    dead = Child(write_directly(path, "dead", 0, 10**6))
    living.read(), dead.read()
    dead.kill()
    with ExperimentDB(path) as database:
        status = database.runs()["status"].to_dict()
    living.kill()

    assert status == {"living": "running", "dead": "interrupted"}


def test_an_interrupted_run_is_running_when_it_goes_on(path):
    Child(write_directly(path, "a", 0, 3)).wait()
    with ExperimentDB(path) as database:
        before = database.run("a")["status"]
        database.start_run("a", **RUN)
    with ExperimentDB(path) as database:
        assert (before, database.run("a")["status"]) == ("interrupted", "running")


ME = {"process_start": "changes", "pid": os.getpid()}


@pytest.mark.parametrize(
    ("changes", "in_file", "on_server"),
    [
        pytest.param({}, False, False, id="this process"),
        pytest.param({"process_start": "1"}, True, True, id="its number was given again"),
        pytest.param({"pid": 2**22 + 1}, True, True, id="no such process"),
        pytest.param({"boot_id": "before"}, True, True, id="the machine was started again"),
        pytest.param({"host": "other"}, False, False, id="a container beside this one"),
        pytest.param({"host": "other", "boot_id": "x"}, True, False, id="another machine"),
        pytest.param(
            dict.fromkeys(("host", "pid", "boot_id", "process_start")), True, False, id="unknown"
        ),
    ],
)
def test_an_owner_is_dead_only_where_that_is_certain(changes, in_file, on_server):
    found = {**owner.this_process(), **changes}

    assert owner.is_dead(found, is_file=True) == in_file
    assert owner.is_dead(found, is_file=False) == on_server


def test_a_process_that_nobody_has_waited_for_is_dead():
    reader, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(out, json.dumps(owner.this_process()).encode())
        os._exit(0)
    found = json.loads(os.read(reader, 4096))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    is_dead = owner.is_dead(found, is_file=True)
    os.waitpid(pid, 0)
    os.close(reader), os.close(out)

    assert is_dead


# places


@pytest.mark.parametrize(
    ("kind", "is_local"),
    [
        ("ext4", True), ("xfs", True), ("btrfs", True), ("zfs", True), ("tmpfs", True),
        ("overlay", True), ("fuseblk", True), ("fuse.drive", False), ("fuse.gcsfuse", False),
        ("fuse", False), ("nfs", False), ("nfs4", False), ("cifs", False), ("smb3", False),
        ("9p", False), ("drvfs", False),
    ],
)  # fmt: skip
def test_a_database_on_a_file_system_without_locks_is_refused_with_the_cure(
    tmp_path, kind, is_local
):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"root / ext4 rw 0 0\nthere {tmp_path}/drive {kind} rw 0 0\n")
    place = tmp_path / "drive" / "experiments.db"
    refusal = pytest.raises(TrackingError, match=rf"kind {kind}, .* local disk, and copy it here")

    with contextlib.nullcontext() if is_local else refusal:
        check_place(place, mounts)
    assert place.parent.is_dir() == is_local


# values


def test_hostile_names_and_odd_numbers_survive_spool_journal_and_rebuild(path, tmp_path):
    values = dict(zip(HOSTILE, [math.nan, math.inf, -math.inf, 5e-324], strict=True))
    for name in HOSTILE:
        folder = tmp_path / f"run-{HOSTILE.index(name)}"
        run_writer = RunWriter(ExperimentDB(path), folder)
        run_writer.add(entries.run(name, **{**RUN, "name": name, "config": {name: name}}))
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, **values}) + "\n")
        run_writer.add(entries.history(name))
        run_writer.add(entries.event(name, name, name, 1, {name: name}))
        assert run_writer.close(30.0)
    written = dump(path)
    path.unlink()
    with ExperimentDB(path) as database:
        for name in HOSTILE:
            found = database.metrics(name).loc[1].to_dict()
            assert {key: repr(v) for key, v in found.items()} == {
                key: repr(v) for key, v in values.items()
            }
            assert database.run(name)["config"] == {name: name}
            assert database.events(name).iloc[0]["message"] == name
        assert "<script>" not in database._repr_html_()

    assert [line for line in dump(path) if "metrics" in line] == [
        line for line in written if "metrics" in line
    ]


def test_a_million_steps_are_written_and_read(path):
    n_steps = n(20_000, 1_000_000)
    with ExperimentDB(path) as database:
        database.start_run("a", **RUN)
        for first in range(0, n_steps, 10_000):
            rows = [(step, {"loss": step / 2}) for step in range(first, first + 10_000)]
            database.log_metrics("a", rows)
        loss = database.metrics("a", ["loss"])["loss"]

    assert len(loss) == n_steps and loss.sum() == n_steps * (n_steps - 1) / 4


def test_nothing_stays_open_between_two_calls(path):
    with ExperimentDB(path) as database:
        database.start_run("a", **RUN)
        before = os.listdir("/proc/self/fd")
        for step in range(50):
            database.log_metrics("a", [(step, {"loss": 1.0})])
            database.metrics("a")

        assert len(os.listdir("/proc/self/fd")) == len(before)
        assert stat.S_ISREG(path.stat().st_mode)

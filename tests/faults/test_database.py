"""The record of runs under kills, locks and full disks: what is acknowledged stays."""

import contextlib
import errno
import json
import math
import os
import random
import resource
import select
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event as on
from sqlalchemy import text

from helpers.engine.callbacks import Callback
from helpers.errors import DatabaseUnavailableError
from helpers.tracking import ExperimentDB, entries, spool
from helpers.tracking.connect import connect, open_engine, parse_url, transaction
from helpers.tracking.writer import RunWriter
from tests.faults.records import (
    HOSTILE,
    RUN,
    SEED,
    At,
    Child,
    Told,
    dump,
    held,
    is_sound,
    metrics_in_file,
    metrics_of,
    no_space,
    spooled,
    write_directly,
)
from tests.faults.scale import n, record

COMMAND = "TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_database.py"
pytestmark = pytest.mark.usefixtures("impatient")


# kill -9


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
        "Where many processes write into one database of runs and are killed at random moments, "
        "every row that was acknowledged is there afterwards.",
        {
            "writers": n_writers,
            "rows each": n_rows,
            "kills": figures["kills"],
            "acknowledged rows": figures["acknowledged"],
            "acknowledged rows lost": figures["lost"],
        },
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


def test_rows_for_a_database_that_is_locked_from_the_start_are_said_to_wait(
    make_trainer, data, path
):
    told, seen = Told(), []
    told.on_event = lambda run, kind, message: seen.append(message)
    with ExperimentDB(path):
        pass
    with held(path), ExperimentDB(path, busy_timeout_s=0.05) as database:
        make_trainer(run_name="r", db=database, callbacks=[told]).train(data.train)

    assert "locked" in seen[0] and "are merged later" in seen[-1]
    assert not any("nothing of this call" in message for message in seen)


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


def test_a_locked_database_says_so_and_is_used_when_it_is_free(path):
    ExperimentDB(path).close()
    with held(path):
        database = ExperimentDB(path, busy_timeout_s=0.05)
        with pytest.raises(DatabaseUnavailableError, match="locked") as caught:
            database.start_run("a", **RUN)

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


def test_the_record_of_a_run_that_went_back_is_that_of_its_file(make_trainer, data, path):
    class GoBack(Callback):
        """Leaves rows of a later step behind, as a run does that returns to a checkpoint."""

        def on_log(self, run, row):
            if row["step"] == 6:
                database.merge_spool(run.folder.path)
                database.log_metrics("r", [(9, {"train/ruin": math.nan})])
                run.state.rewinds, run.state.n_rewinds = [[4, 36, 40]], 1

    with ExperimentDB(path) as database:
        result = make_trainer(run_name="r", db=database, callbacks=[GoBack()]).train(data.train)

    assert metrics_of(path, "r") == metrics_in_file(Path(result.run_dir))


# the spool


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


def test_nothing_stays_open_or_running_after_a_run(path):
    with ExperimentDB(path) as database:
        before = len(os.listdir("/proc/self/fd")), threading.active_count()
        for number in range(n(5, 200)):
            run_writer = RunWriter(database, path.parent / f"run-{number}")
            run_writer.add(entries.run(f"run-{number}", **RUN))
            run_writer.add(entries.metrics(f"run-{number}", [(1, {"loss": 1.0})]))
            assert run_writer.close(30.0)
            database.metrics(f"run-{number}")

        assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before

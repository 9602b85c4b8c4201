"""Old, new and borrowed databases of runs: schemas, owners, places, servers."""

import contextlib
import json
import math
import os
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event as on

from helpers.errors import DatabaseUnavailableError, TrackingError
from helpers.tracking import ExperimentDB, db, entries, owner, schema, spool, sqlite_file
from helpers.tracking.connect import check_place
from helpers.tracking.migrations import MIGRATIONS
from helpers.tracking.writer import RunWriter
from tests.faults.records import HOSTILE, RUN, Child, no_space, spooled, write_directly

V1 = Path(__file__).parent / "data" / "database_v1.sql"
pytestmark = pytest.mark.usefixtures("impatient")


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
        raw.execute("PRAGMA user_version = 99")
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


# servers


def test_a_server_keeps_a_run_as_a_file_does(path, server, tmp_path):
    tables = []
    for place in (path, server):
        run_id = f"run-{random.Random().getrandbits(64):x}"
        with ExperimentDB(place) as database:
            run_writer = RunWriter(database, tmp_path / run_id)
            run_writer.add(entries.run(run_id, **RUN))
            run_writer.add(entries.metrics(run_id, [(1, {"a": math.nan, "b": math.inf})]))
            run_writer.add(entries.event(run_id, "spike", HOSTILE[3], 1, {"x": [1]}))
            run_writer.add(entries.checkpoint(run_id, 1, "p", 9, True, {"loss": math.nan}))
            run_writer.add(entries.finish(run_id, "completed", {"final_loss": math.nan}))
            assert run_writer.close(30.0)
            database.merge_spool(spooled(tmp_path / "again" / run_id, path))
            tables.append(
                repr(database.run(run_id)["results"])
                + database.metrics(run_id).to_csv()
                + database.events(run_id)["message"].to_csv(index=False)
                + database.checkpoints(run_id)["bytes"].to_csv()
            )

    assert tables[0] == tables[1]

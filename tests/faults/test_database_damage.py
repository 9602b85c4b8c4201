"""A damaged database of runs is found, moved aside and built anew; a backup is whole."""

import json
import os
import random
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from helpers.engine.run_folder import RunFolder
from helpers.errors import TrackingError
from helpers.tracking import ExperimentDB, schema, spool, sqlite_file
from tests.faults.records import (
    RUN,
    SEED,
    At,
    Child,
    full_database,
    is_sound,
    metrics_in_file,
    metrics_of,
    overwrite,
    tear_pages,
    write_directly,
)
from tests.faults.scale import n, record

COMMAND = "TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_database_damage.py"
pytestmark = pytest.mark.usefixtures("impatient")


# damage


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


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
    assert steps == RunFolder(result.run_dir).checkpoints.steps()
    assert metrics_of(path, "a") == metrics_in_file(Path(result.run_dir))


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
            is_anew = any("was damaged" in note for note in database.notes)
            figures["built_anew"] += is_anew
            assert database._version == schema.SCHEMA_VERSION, database.notes
            # A number that was changed within a sound page is nothing that SQLite can see.
            if {name: metrics_of(path, name) for name in names} != wanted:
                figures["unseen_and_mended_by_rebuild"] += 1
                database.rebuild()
            found = {name: metrics_of(path, name) for name in names}
            if not is_anew:
                read_everything(database)
        figures["lost"] += sum(
            found[name].get(key) != value for name in names for key, value in wanted[name].items()
        )
        assert is_sound(path)

    assert figures["lost"] == 0 and figures["built_anew"] > 0
    record(
        "database",
        "A database of runs with any byte changed, a page zeroed or its end cut off opens again, "
        "and holds every row that the run folders have.",
        {
            "damaged databases": figures["faults"],
            "built anew when opened": figures["built_anew"],
            "changed within a sound page, and mended by rebuild": figures[
                "unseen_and_mended_by_rebuild"
            ],
            "rows lost": figures["lost"],
        },
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
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 4096)
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

    def work(acknowledge):
        with ExperimentDB(path) as database:
            database.log_metrics("run-0", [(1000 + os.getpid(), {"loss": 1.0})])
            acknowledge(1000 + os.getpid())

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

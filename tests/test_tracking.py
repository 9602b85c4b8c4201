"""The record of runs: what is acknowledged is kept, and comes back as it was written."""

import getpass
import json
import math
import os
import platform
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from helpers.errors import TrackingError
from helpers.tracking import ExperimentDB, code_version, fingerprint, schema
from helpers.tracking.connect import journal_mode
from helpers.tracking.environment import environment, mounted_as

ROOT = Path(__file__).parents[1]
RUN = {
    "name": "first try",
    "config": {"learning_rate": 3e-4, "tokenizer": "byte"},
    "task": {"kind": "causal_lm"},
    "data_fingerprint": "d41d8cd98f00",
    "code_version": "0.1.0",
    "environment": {"packages": {"torch": "2.13.0"}},
    "seed": 7,
    "run_dir": "runs/a",
}
WRITER = """
import sys
from helpers.tracking import ExperimentDB
path, run_id, name, first, last = sys.argv[1:]
db = ExperimentDB(path)
for step in range(int(first), int(last)):
    db.log_metrics(run_id, [(step, {name: step / 2})])
    print(step, flush=True)
"""


@pytest.fixture
def db(tmp_path):
    with ExperimentDB(tmp_path / "runs.db") as db:
        db.start_run("a", **RUN)
        yield db


def start_python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def same(a: float, b: float) -> bool:
    return repr(float(a)) == repr(float(b))


def test_importing_the_folder_loads_nothing():
    heavy = "{'sqlalchemy', 'pandas', 'torch', 'sqlite3'}"
    code = f"import sys, helpers.tracking; print({heavy} & set(sys.modules))"

    assert start_python(code).communicate()[0].strip() == "set()"


def test_importing_the_database_loads_neither_torch_nor_pandas():
    code = "import sys, helpers.tracking.db; print({'pandas', 'torch'} & set(sys.modules))"

    assert start_python(code).communicate()[0].strip() == "set()"


# what goes in comes out


@pytest.mark.parametrize(
    "value",
    [0.1, -0.1, 5e-324, 1.7e308, 2.0**53, 7, True, math.nan, math.inf, -math.inf],
    ids=repr,
)
def test_metric_comes_back_as_the_same_float(db, value):
    db.log_metrics("a", [(3, {"loss": value})])

    assert same(db.metrics("a").loc[3, "loss"], value)


@pytest.mark.parametrize("to_number", ["torch", "numpy"])
def test_tensors_and_arrays_of_one_number_are_metrics(db, to_number):
    kind = pytest.importorskip(to_number)

    db.log_metrics("a", [(0, {"loss": (kind.tensor if to_number == "torch" else kind.array)(2.5)})])

    assert db.metrics("a").loc[0, "loss"] == 2.5


def test_nan_is_on_record_and_a_metric_that_was_not_logged_is_not(db):
    db.log_metrics("a", [(1, {"loss": math.nan, "lr": 0.1}), (2, {"lr": 0.2})])

    assert list(db.metrics("a", ["loss"]).index) == [1]


def test_metrics_are_wide_and_sorted(db):
    db.log_metrics("a", [(20, {"b": 4, "a": 3}), (3, {"b": 2, "a": 1})])
    table = db.metrics("a")

    assert list(table.index) == [3, 20]
    assert list(table.columns) == ["a", "b"]
    assert table.to_numpy().tolist() == [[1, 2], [3, 4]]
    assert list(db.metrics("a", ["b", "never", "a"]).columns) == ["b", "never", "a"]


def test_metrics_of_a_run_without_any_is_an_empty_table(db):
    db.log_metrics("a", [])

    assert db.metrics("a").shape == (0, 0)
    assert list(db.metrics("a", ["loss"]).columns) == ["loss"]


def test_run_comes_back_as_it_was_written(db):
    run = db.run("a")

    assert {name: run[name] for name in RUN} == RUN
    assert run["status"] == "running"
    assert run["finished"] is None
    assert abs(run["created"] - time.time()) < 60


def test_results_keep_nan(db):
    db.finish_run("a", "failed", {"final_loss": math.nan, "worst": math.inf, "why": "diverged"})
    run = db.run("a")

    assert math.isnan(run["results"]["final_loss"])
    assert run["results"]["worst"] == math.inf
    assert run["finished"] >= run["created"]


def test_events_come_back_in_the_order_of_writing(db):
    db.log_event("a", "started", "on two cores", device="cpu")
    db.log_event("a", "spike", "loss 9.1", step=40, batch=[1, 2])
    events = db.events("a")

    assert list(events["kind"]) == ["started", "spike"]
    assert events["step"].isna().tolist() == [True, False]
    assert events["step"].iloc[1] == 40
    assert list(events["details"]) == [{"device": "cpu"}, {"batch": [1, 2]}]


def test_artifact_is_recorded_with_size_and_hash(db, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"abc")
    db.log_artifact("a", tmp_path / "model.bin", "model")
    row = db.artifacts("a").loc["model.bin"]

    assert row["bytes"] == 3
    assert row["sha256"].startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize("name", ["missing.bin", "."])
def test_artifact_that_is_no_file_is_refused(db, tmp_path, name):
    with pytest.raises(TrackingError, match="cannot be read"):
        db.log_artifact("a", tmp_path / name, "model")


def test_one_checkpoint_at_most_is_the_best(db):
    for step, is_best in [(10, True), (20, True), (30, False)]:
        db.log_checkpoint("a", step, f"ckpt/{step}", 1000, is_best, {"loss": 1 / step})
    db.mark_checkpoint("a", 10, "deleted")
    table = db.checkpoints("a")

    assert table["is_best"].to_dict() == {10: False, 20: True, 30: False}
    assert list(table["status"]) == ["deleted", "kept", "kept"]
    assert table.loc[20, "metrics"] == {"loss": 0.05}


def test_runs_are_listed_in_the_order_they_started(db):
    for run_id in ("z", "c"):
        db.start_run(run_id, **RUN)
    db.start_run("a", **RUN)
    db.finish_run("c", "completed", {"final_loss": 1.5, "curve": [1, 2]})
    table = db.runs()

    assert list(table.index) == ["a", "z", "c"]
    assert table.loc["c", "final_loss"] == 1.5
    assert "curve" not in table


def test_database_without_runs_has_an_empty_table(tmp_path):
    with ExperimentDB(tmp_path / "runs.db") as db:
        assert db.runs().empty
        assert "<table" in db._repr_html_()


# a run that is continued


def test_continued_run_keeps_its_creation_time_and_results(db):
    db.finish_run("a", "paused", {"final_loss": 2.0})
    before = db.run("a")
    db.start_run("a", **{**RUN, "name": "second try"})
    after = db.run("a")

    assert before["status"] == "paused"
    assert before["finished"] is None
    assert after["status"] == "running"
    assert after["name"] == "second try"
    assert [after[k] for k in ("created", "results", "number")] == [
        before[k] for k in ("created", "results", "number")
    ]


def test_steps_that_are_repeated_replace_their_rows(db):
    db.log_metrics("a", [(step, {"loss": 100.0 + step}) for step in range(10)])
    db.log_metrics("a", [(step, {"loss": float(step)}) for step in range(5, 12)])
    loss = db.metrics("a")["loss"]

    assert loss.tolist() == [100, 101, 102, 103, 104, 5, 6, 7, 8, 9, 10, 11]


def test_last_value_of_a_step_within_one_call_wins(db):
    db.log_metrics("a", [(1, {"loss": 1.0}), (1, {"loss": 2.0})])

    assert db.metrics("a").loc[1, "loss"] == 2.0


def test_metrics_after_a_step_are_forgotten(db):
    db.start_run("b", **RUN)
    for run_id in "ab":
        db.log_metrics(run_id, [(step, {"loss": 1.0}) for step in range(5)])
    db.forget_after("a", 2)

    assert list(db.metrics("a").index) == [0, 1, 2]
    assert list(db.metrics("b").index) == [0, 1, 2, 3, 4]


def test_call_that_fails_halfway_keeps_nothing(db):
    def rows():
        yield 1, {"loss": 1.0}
        yield 2, {"loss": "high"}

    with pytest.raises(TrackingError, match="'high'"):
        db.log_metrics("a", rows())

    assert db.metrics("a").empty


# two runs, line by line


def test_compare_shows_only_what_differs(db):
    config = {"learning_rate": 1e-3, "tokenizer": "byte", "optimizer": "muon"}
    db.start_run("b", **{**RUN, "config": config, "seed": 8})
    for run_id, loss in (("a", 2.0), ("b", 1.5)):
        db.finish_run(run_id, "completed", {"final_loss": loss, "worst": math.nan})
    lines = db.compare("a", "b")

    assert {
        name: tuple(line) for name, line in zip(lines.index, lines.to_numpy(), strict=True)
    } == {
        "config.learning_rate": (3e-4, 1e-3),
        "config.optimizer": ("(not set)", "muon"),
        "seed": (7, 8),
        "results.final_loss": (2.0, 1.5),
    }


def test_run_does_not_differ_from_itself(db):
    db.finish_run("a", "completed", {"losses": [math.nan, 1.0]})

    assert db.compare("a", "a").empty


def test_fingerprint_of_a_run_is_what_it_depends_on(db):
    db.start_run("same", **{**RUN, "name": "other", "run_dir": "elsewhere"})
    db.start_run("seed", **{**RUN, "seed": 8})
    prints = db.runs()["fingerprint"]

    assert prints["a"] == prints["same"] != prints["seed"]


# what is refused


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda db, run: db.run(run), id="run"),
        pytest.param(lambda db, run: db.metrics(run), id="metrics"),
        pytest.param(lambda db, run: db.events(run), id="events"),
        pytest.param(lambda db, run: db.checkpoints(run), id="checkpoints"),
        pytest.param(lambda db, run: db.artifacts(run), id="artifacts"),
        pytest.param(lambda db, run: db.compare("train-2024", run), id="compare"),
        pytest.param(lambda db, run: db.log_metrics(run, [(1, {"loss": 1.0})]), id="log_metrics"),
        pytest.param(lambda db, run: db.log_event(run, "x", "y"), id="log_event"),
        pytest.param(lambda db, run: db.log_artifact(run, __file__, "x"), id="log_artifact"),
        pytest.param(lambda db, run: db.log_checkpoint(run, 1, "p", 1, True, {}), id="checkpoint"),
        pytest.param(lambda db, run: db.mark_checkpoint(run, 1, "kept"), id="mark_checkpoint"),
        pytest.param(lambda db, run: db.forget_after(run, 1), id="forget_after"),
        pytest.param(lambda db, run: db.finish_run(run, "completed", {}), id="finish_run"),
    ],
)
def test_unknown_run_is_refused_with_the_nearest(db, call):
    db.start_run("train-2024", **RUN)

    with pytest.raises(TrackingError, match=r"'train-2042' is not one .* Did you mean train-2024"):
        call(db, "train-2042")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        pytest.param(lambda db: db.finish_run("a", "done", {}), "'done'", id="status"),
        pytest.param(lambda db: db.finish_run("a", "running", {}), "'running'", id="no end"),
        pytest.param(lambda db: db.finish_run("a", "failed", {"x": {1}}), "results", id="set"),
        pytest.param(lambda db: db.log_event("a", "k", "m", p=Path()), "details", id="path"),
        pytest.param(lambda db: db.log_metrics("a", [(-1, {"x": 1})]), "-1", id="step below 0"),
        pytest.param(lambda db: db.log_metrics("a", [(2**63, {"x": 1})]), "step", id="step"),
        pytest.param(lambda db: db.mark_checkpoint("a", 5, "kept"), "Step 5", id="checkpoint"),
        pytest.param(lambda db: db.mark_checkpoint("a", 5, "eaten"), "'eaten'", id="its status"),
    ],
)
def test_impossible_values_are_named(db, call, words):
    with pytest.raises(TrackingError, match=words):
        call(db)


HOSTILE = [
    pytest.param("'; DROP TABLE runs; --", id="SQL"),
    pytest.param('a"b`c[d]%s?:x', id="quotes"),
    pytest.param("<script>alert(1)</script>", id="HTML"),
    pytest.param("\N{PILE OF POO}\u202e\n\t", id="emoji"),
    pytest.param("../../etc/passwd", id="path"),
    pytest.param("e\u0301", id="not normalised"),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_kept_as_it_is(db, text):
    db.start_run(text, **{**RUN, "name": text, "config": {text: text}})
    db.log_metrics(text, [(1, {text: 0.5})])
    db.log_event(text, text, text, **{text: text})
    db.finish_run(text, "completed", {text: text})
    event = db.events(text).iloc[0]

    assert db.run(text)["name"] == text
    assert db.run(text)["config"] == db.run(text)["results"] == {text: text}
    assert db.metrics(text, [text]).loc[1, text] == 0.5
    assert [event["kind"], event["message"], event["details"]] == [text, text, {text: text}]
    assert list(db.runs().index) == ["a", text]
    assert "<script>" not in db._repr_html_()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("a\0b", id="NUL"),
        pytest.param("\ud83d", id="lone surrogate"),
        pytest.param("x" * 10_000, id="10 kB"),
        pytest.param(7, id="a number"),
    ],
)
def test_keys_that_no_database_holds_are_refused(db, text):
    for call in (
        lambda: db.start_run(text, **RUN),
        lambda: db.run(text),
        lambda: db.log_metrics("a", [(1, {text: 1.0})]),
    ):
        with pytest.raises(TrackingError, match="text of 1 to 255 characters") as caught:
            call()
        assert len(str(caught.value)) < 300


def test_messages_of_any_text_are_kept_readable(db):
    db.log_event("a", "error", "NUL \0, half a pair \ud83d", data="\0\ud83d")
    db.log_event("a", "error", "x" * 10_000)
    events = db.events("a")

    assert events["message"].iloc[0] == r"NUL \x00, half a pair \ud83d"
    assert events["details"].iloc[0] == {"data": "\0\ud83d"}
    assert events["message"].iloc[1] == "x" * 10_000


# more than one process, and processes that die


def test_processes_that_write_at_once_lose_nothing(db, tmp_path):
    writers = [
        start_python(WRITER, tmp_path / "runs.db", "a", f"worker-{i}", 0, 50) for i in range(4)
    ]
    codes = [writer.wait(60) for writer in writers if writer.communicate()]
    table = db.metrics("a")

    assert codes == [0] * 4
    assert table.shape == (50, 4)
    assert all(table[f"worker-{i}"].tolist() == [s / 2 for s in range(50)] for i in range(4))


def test_kill_loses_no_acknowledged_row(db, tmp_path):
    rng = random.Random(0)
    steps = 0
    for _ in range(4):
        writer = start_python(WRITER, tmp_path / "runs.db", "a", "loss", steps, 10**6)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        writer.kill()
        lines = writer.communicate()[0].splitlines(keepends=True)
        acknowledged = [int(line) for line in lines if line.endswith("\n")]
        found = db.metrics("a").index.tolist()
        assert found == list(range(len(found)))
        assert found[-1] >= max(acknowledged, default=steps)
        steps = len(found)

    with closing(sqlite3.connect(tmp_path / "runs.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_processes_that_open_a_new_database_at_once_make_one_schema(tmp_path):
    code = "import sys; from helpers.tracking import ExperimentDB; ExperimentDB(sys.argv[1])"
    openers = [start_python(code, tmp_path / "runs.db") for _ in range(3)]

    assert [opener.wait(60) for opener in openers if opener.communicate()] == [0] * 3
    with closing(sqlite3.connect(tmp_path / "runs.db")) as raw:
        assert raw.execute("SELECT version FROM trainbook_schema").fetchall() == [
            (schema.SCHEMA_VERSION,)
        ]


def test_backup_made_during_writes_holds_all_rows_before_it(db, tmp_path):
    writer = start_python(WRITER, tmp_path / "runs.db", "a", "loss", 0, 300)
    assert writer.stdout is not None
    last = [int(writer.stdout.readline()) for _ in range(20)][-1]
    db.backup(tmp_path / "drive" / "backup.db")
    writer.communicate()

    with ExperimentDB(tmp_path / "drive" / "backup.db") as backup:
        found = backup.metrics("a").index.tolist()
    assert found == list(range(len(found)))
    assert found[-1] >= last
    assert os.listdir(tmp_path / "drive") == ["backup.db"]


def test_backup_replaces_an_older_one(db, tmp_path):
    db.backup(tmp_path / "backup.db")
    db.start_run("b", **RUN)
    db.backup(tmp_path / "backup.db")

    with ExperimentDB(tmp_path / "backup.db") as backup:
        assert list(backup.runs().index) == ["a", "b"]


def test_backup_onto_itself_is_refused(db, tmp_path):
    with pytest.raises(TrackingError, match="is the database itself"):
        db.backup(tmp_path / "." / "runs.db")


def test_backup_that_cannot_be_written_is_refused(db, tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(TrackingError, match="cannot be written"):
        db.backup(tmp_path / "file" / "backup.db")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        pytest.param(Path.mkdir, "is a folder", id="folder"),
        pytest.param(os.mkfifo, "is a device, a pipe or a socket", id="pipe"),
    ],
)
def test_backup_onto_what_is_no_file_is_refused_and_leaves_it(db, tmp_path, make, told):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "backup.db"
    make(target)
    before = target.stat()

    with pytest.raises(TrackingError, match=f"{told}, but a backup goes to a file"):
        db.backup(target)

    assert target.stat() == before
    assert os.listdir(tmp_path / "elsewhere") == ["backup.db"]


# opening


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_path_and_url_open_the_same_file(db, tmp_path, form):
    with ExperimentDB(form.format(tmp_path / "runs.db")) as again:
        assert list(again.runs().index) == ["a"]


def test_path_with_signs_of_a_url_is_a_path(tmp_path):
    with ExperimentDB(tmp_path / "what?mode=memory#1%20" / "runs.db"):
        assert (tmp_path / "what?mode=memory#1%20" / "runs.db").is_file()


def test_closed_database_opens_again_with_all_rows(db):
    db.log_metrics("a", [(1, {"loss": 0.5})])
    db.close()

    assert db.metrics("a").loc[1, "loss"] == 0.5


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("sqlite://", "no file", id="memory"),
        pytest.param("sqlite:///:memory:", "no file", id="memory by name"),
        pytest.param("mysql://me:hunter2@host/runs", "mysql", id="another kind"),
        pytest.param("postgresql://me:hunter2@host:port/runs", "cannot be read", id="no URL"),
        pytest.param("{}/file/runs.db", "cannot be made", id="folder is a file"),
        pytest.param("/proc/nowhere/runs.db", "cannot be made", id="folder cannot be made"),
        pytest.param("/proc/runs.db", "cannot be made", id="file cannot be made"),
        pytest.param("{}", "unable to open", id="path is a folder"),
        pytest.param("{}/junk", "not a database", id="another file"),
        pytest.param("{}/other.db", "tables of another program", id="another program's"),
    ],
)
def test_places_that_cannot_be_used_are_refused(tmp_path, url, words):
    (tmp_path / "file").touch()
    (tmp_path / "junk").write_text("junk " * 1000)
    with closing(sqlite3.connect(tmp_path / "other.db")) as raw:
        raw.execute("CREATE TABLE trials (id)")

    with pytest.raises(TrackingError, match=words) as caught:
        ExperimentDB(url.format(tmp_path))
    assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)

    with pytest.raises(TrackingError, match="cannot be written"):
        ExperimentDB(tmp_path / "runs.db")


def test_newer_schema_can_be_read_and_is_not_written(db, tmp_path):
    with closing(sqlite3.connect(tmp_path / "runs.db")) as raw, raw:
        raw.execute("INSERT INTO trainbook_schema VALUES (99)")
        raw.execute("PRAGMA user_version = 99")
        raw.execute("ALTER TABLE runs ADD COLUMN mood TEXT")

    with ExperimentDB(tmp_path / "runs.db") as newer:
        assert newer.run("a")["seed"] == 7
        with pytest.raises(TrackingError, match="has schema 99"):
            newer.log_metrics("a", [(1, {"loss": 1.0})])
        with pytest.raises(TrackingError, match="has schema 99"):
            newer.start_run("b", **RUN)
        assert newer.metrics("a").empty


def test_damaged_database_is_moved_aside_and_told(db, tmp_path):
    db.log_metrics("a", [(step, {"loss": 1.0}) for step in range(2000)])
    path = tmp_path / "runs.db"
    damaged = path.read_bytes()[:100] + b"\xff" * 20_000
    path.write_bytes(damaged)

    with ExperimentDB(path) as anew:
        assert anew.runs().empty
        assert "runs.db was damaged" in anew.notes[0] and "runs.db.damaged-1" in anew.notes[0]
    assert (tmp_path / "runs.db.damaged-1").read_bytes() == damaged


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 37, 2), ("TRUNCATE", "FULL")),
        ((3, 51, 2), ("TRUNCATE", "FULL")),
        ((3, 51, 3), ("WAL", "NORMAL")),
        ((4, 0, 0), ("WAL", "NORMAL")),
    ],
)
def test_journal_is_one_that_the_version_of_sqlite_keeps_safely(version, mode):
    assert journal_mode(version) == mode


def test_journal_left_by_a_newer_sqlite_is_changed_to_a_safe_one(db, tmp_path):
    db.close()
    with closing(sqlite3.connect(tmp_path / "runs.db")) as raw:
        raw.execute("PRAGMA journal_mode = WAL")
    with ExperimentDB(tmp_path / "runs.db") as again:
        runs = list(again.runs().index)
    with closing(sqlite3.connect(tmp_path / "runs.db")) as raw:
        found = raw.execute("PRAGMA journal_mode").fetchone()[0]

    assert runs == ["a"]
    assert (found == "wal") == (journal_mode(sqlite3.sqlite_version_info)[0] == "WAL")


@pytest.mark.parametrize("table", schema.metadata.sorted_tables, ids=str)
def test_schema_can_be_said_in_postgresql(table):
    assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))


MOUNTS = """\
/dev/vda / ext4 rw 0 0
drive /content/drive fuse.drive rw 0 0
nas:/x /mnt/my\\040nas nfs4 rw 0 0
tmpfs /content/drive/local tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/content/runs.db", "ext4"),
        ("/content/drive/MyDrive/runs.db", "fuse.drive"),
        ("/content/drive2/runs.db", "ext4"),
        ("/content/drive/local/runs.db", "tmpfs"),
        ("/mnt/my nas/runs.db", "nfs4"),
    ],
)
def test_kind_of_disk_is_that_of_the_deepest_mount(path, kind):
    assert mounted_as(Path(path), MOUNTS) == kind


# environment and fingerprints


def test_environment_is_plain_json_and_names_the_packages():
    found = environment()

    assert json.loads(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    assert {"numpy", "pandas", "sqlalchemy"} <= set(found["packages"])


def test_environment_holds_no_secret_and_no_person(monkeypatch):
    monkeypatch.setenv("FAKE_TOKEN", "hunter2-secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    text = json.dumps(environment())
    private = ["FAKE_TOKEN", "hunter2-secret", str(Path.home()), platform.node()]
    if len(getpass.getuser()) > 4:
        private.append(getpass.getuser())

    assert '"OMP_NUM_THREADS": "2"' in text
    assert [word for word in private if word and word in text] == []


def test_code_version_stays_the_same_while_the_code_does():
    assert code_version() == code_version() != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(("ab", "c"), ("a", "bc"), id="where parts end"),
        pytest.param(("a",), (b"a",), id="text and bytes"),
        pytest.param(('{"a": 1}',), ({"a": 1},), id="text and values"),
        pytest.param(("a", "b"), ("b", "a"), id="order of parts"),
        pytest.param((), ("",), id="nothing and empty"),
        pytest.param(({"a": 1},), ({"a": "1"},), id="number and text"),
    ],
)
def test_fingerprints_of_different_parts_differ(one, other):
    assert fingerprint(*one) != fingerprint(*other)


def test_fingerprint_is_twelve_digits_and_blind_to_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert len(fingerprint("x")) == 12
    assert int(fingerprint("x"), 16) >= 0

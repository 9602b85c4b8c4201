"""Each call that a save, a retention or a load makes to the disk may fail; nothing is lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.engine.callbacks import Callback
from helpers.engine.checkpoint import CheckpointStore
from helpers.engine.durable import cause_of
from helpers.engine.run_folder import RunFolder
from helpers.errors import CheckpointError
from tests.faults.checkpoints import is_as_saved, snapshot_of
from tests.faults.disk import READING, WRITING, failing
from tests.faults.scale import n, record

ROOT = Path(__file__).parents[2]
BEST = 1
ERRORS = {
    "full": errno.ENOSPC,
    "broken": errno.EIO,
    "read-only": errno.EROFS,
    "not allowed": errno.EACCES,
    "gone": errno.ENOTCONN,
}
CALLS = tuple(dict.fromkeys(WRITING + READING))
# Calls and seconds of each error that was tried so far, once and lasting.
TRIED: dict[tuple[int, bool], tuple[int, float]] = {}
# Saves step after step on a disk of so many KiB, and tells what became of each size.
SMALL_DISK = """
import json, os, resource, signal, subprocess, sys
from pathlib import Path
import helpers.engine.checkpoint as checkpoint
from helpers.errors import CheckpointError
from tests.faults.checkpoints import is_as_saved, snapshot_of

place, outcomes = Path(sys.argv[1]), []
foreseen = checkpoint.CheckpointStore._make_room
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def fill(folder):
    store, acknowledged, errors = checkpoint.CheckpointStore(folder), [], []
    for step in range(1, 7):
        try:
            store.save(snapshot_of(step), keep=3, protected={1} & set(acknowledged))
            acknowledged.append(step)
        except CheckpointError as error:
            errors.append(str(error))
    left = [n for n in os.listdir(folder) if n[0] == "."] if folder.is_dir() else []
    fresh = checkpoint.CheckpointStore(folder)
    latest = fresh.load_latest()
    is_lost = acknowledged and (latest is None or latest.step != acknowledged[-1])
    is_lost = is_lost or (latest is not None and not is_as_saved(latest))
    is_lost = is_lost or (1 in acknowledged and 1 not in fresh.steps())
    return len(acknowledged), bool(is_lost), errors, left

for kind, first, last, stride in json.loads(sys.argv[2]):
    checkpoint.CheckpointStore._make_room = (
        foreseen if kind == "foreseen" else lambda *ignored: None
    )
    for kib in range(first, last, stride):
        if kind == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, resource.RLIM_INFINITY))
            outcomes.append([kind, kib, *fill(place / str(kib) / "checkpoints")])
            limit = resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            continue
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", place], check=True)
        outcomes.append([kind, kib, *fill(place / "r" / "checkpoints")])
        subprocess.run(["umount", place], check=True)
print(json.dumps(outcomes))
"""


def can_mount() -> bool:
    """Whether this user may mount a small disk in a namespace of its own."""
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def names_cause(message: str, number: int) -> bool:
    """Whether a message says what went wrong, for a full disk with the numbers that help."""
    if number == errno.ENOSPC:
        return "disk full" in message and "MiB are needed" in message and "MiB are free" in message
    return os.strerror(number) in message


def begin(folder: Path) -> CheckpointStore:
    """A store that holds step 1, the best, and step 2."""
    store = CheckpointStore(folder)
    for step in (1, 2):
        store.save(snapshot_of(step), keep=9)
    return store


def save_retain_load(store: CheckpointStore, acknowledged: list[int]) -> list[str]:
    """One save, one retention and one load as after a restart; returns what they complained of."""
    complaints, fresh = [], CheckpointStore(store.folder)

    def save():
        snapshot = snapshot_of(3)
        store.write(snapshot, snapshot.state_text(), {BEST})
        acknowledged.append(3)

    for act in (save, lambda: store.retain(1, {BEST}), fresh.sweep, fresh.load_latest):
        try:
            act()
        except CheckpointError as error:
            complaints.append(str(error))
    return complaints + fresh.notes


def fault_after(store: CheckpointStore, acknowledged: list[int]) -> str:
    """What is wrong at the next start, when the disk works again; or nothing."""
    fresh = CheckpointStore(store.folder)
    fresh.sweep()
    snapshot = fresh.load_latest()
    if snapshot is None or snapshot.step < max(acknowledged):
        return f"{snapshot and snapshot.step} was loaded, but {max(acknowledged)} is durable"
    if not is_as_saved(snapshot):
        return f"step {snapshot.step} is not as it was saved"
    if not is_as_saved(fresh.load(BEST)):
        return "the best one is lost"
    left = [name for name in os.listdir(fresh.folder) if not name.startswith("step-")]
    if left:
        return f"left behind: {left}"
    fresh.save(snapshot_of(4), keep=1, protected={BEST})
    return "" if fresh.steps() == [BEST, 4] else f"then there are {fresh.steps()}"


@pytest.mark.parametrize("is_lasting", [False, True], ids=["once", "from there on"])
@pytest.mark.parametrize("number", ERRORS.values(), ids=ERRORS)
def test_every_call_may_fail_in_a_save_a_retention_and_a_load(tmp_path, number, is_lasting):
    """The n-th call fails, for n = 1, 2, 3 and so on until a round passes without a failure."""
    begin(tmp_path / "begun")
    began, nth, faults, silent = time.perf_counter(), 0, [], []
    while True:
        nth += n(3, 1)
        place = tmp_path / "run"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(tmp_path / "begun", place / "checkpoints")
        store, acknowledged = CheckpointStore(place / "checkpoints"), [1, 2]
        with failing(number, nth, CALLS, is_lasting=is_lasting) as counter:
            complaints = save_retain_load(store, acknowledged)
        fault = fault_after(store, acknowledged)
        if fault:
            faults.append((nth, counter["name"], fault))
        if 3 not in acknowledged and not any(names_cause(c, number) for c in complaints):
            silent.append((nth, counter["name"], complaints))
        if not counter["failed"]:
            break

    assert (faults, silent) == ([], [])
    assert nth > 60
    TRIED[number, is_lasting] = nth // n(3, 1) - 1, time.perf_counter() - began
    record(
        "disk_calls",
        "Whichever call of a save, a retention or a load the disk refuses, once or from there on, "
        "no checkpoint is lost, nothing is left behind, and the cause is told.",
        {
            "errors": len({number for number, _ in TRIED}),
            "refused calls": sum(n_calls for n_calls, _ in TRIED.values()),
            "checkpoints lost": 0,
            "causes not told": 0,
        },
        command="TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_checkpoint_faults.py",
        seed=0,
        seconds=sum(seconds for _, seconds in TRIED.values()),
    )


def test_on_a_small_disk_of_any_size_nothing_is_lost_and_the_cause_is_named(tmp_path):
    """Sizes from far too small to enough: foreseen by asking for room, and met while writing.

    Where no disk can be mounted, a limit on the size of files takes its place.
    """
    stride, spare = n(16, 4), 64 * 1024
    kinds, command = [("limit", 1, 21, n(3, 1))], []
    if can_mount():
        command = ["unshare", "-Urm"]
        kinds += [("foreseen", spare - 8, spare + 120, stride), ("unforeseen", 4, 164, stride)]
    done = subprocess.run(
        [*command, sys.executable, "-c", SMALL_DISK, str(tmp_path), json.dumps(kinds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    outcomes = json.loads(done.stdout)
    causes = {"limit": "File too large", "foreseen": "disk full", "unforeseen": "disk full"}
    errors = [(kind, error) for kind, *_, errors, _ in outcomes for error in errors]

    assert [outcome[:2] for outcome in outcomes if outcome[3] or outcome[5]] == []
    assert errors and all(causes[kind] in error for kind, error in errors)
    for kind, *_ in kinds:
        saved = [n_saved for k, _, n_saved, *_ in outcomes if k == kind]
        assert (saved[0], saved[-1]) == (0, 6)


class Failing(Callback):
    """Let each call to the disk fail between two steps of a run."""

    def __init__(self, number: int, first: int, last: int) -> None:
        self.number, self.first, self.last = number, first, last
        self.fault = None

    def on_log(self, run, row):
        if row["step"] == self.first:
            run.saver.wait(run)
            self.fault = failing(self.number, 1, WRITING, is_lasting=True)
            self.fault.__enter__()
        elif row["step"] == self.last:
            run.saver.wait(run)
            self.fault.__exit__(None, None, None)


@pytest.mark.parametrize("number", ERRORS.values(), ids=ERRORS)
def test_a_run_whose_disk_fails_for_a_while_goes_on_and_says_why(make_trainer, data, number):
    settings = {"save_every": 3, "max_steps": 15}
    expected = make_trainer(run_name="unbroken", **settings).train(data.train)
    result = make_trainer(run_name="r", callbacks=[Failing(number, 5, 10)], **settings).train(
        data.train
    )
    not_saved = [message for _, kind, message in result.events if kind == "not saved"]

    assert (result.status, result.final_loss) == ("completed", expected.final_loss)
    assert len(not_saved) == 2 and all(names_cause(message, number) for message in not_saved)
    assert RunFolder(result.run_dir).checkpoints.steps() == [12, 15]


def test_a_run_folder_that_is_deleted_is_made_anew_and_can_be_continued(make_trainer, data):
    class Delete(Callback):
        def on_log(self, run, row):
            if row["step"] == 5:
                run.saver.wait(run)
                shutil.rmtree(run.folder.path)
            if row["step"] == 8:
                run.stop.set("test")

    settings = {"save_every": 3, "dropout": 0.1}
    unbroken = make_trainer(run_name="unbroken", **settings).train(data.train)
    paused = make_trainer(run_name="r", callbacks=[Delete()], **settings).train(data.train)
    result = make_trainer(run_name="r", **settings).train(data.train)

    assert (paused.status, result.status) == ("paused", "completed")
    assert (result.resumed_from, result.final_loss) == (8, unbroken.final_loss)
    assert RunFolder(result.run_dir).run_file.exists()


def test_a_checkpoint_that_cannot_be_reached_is_not_taken_for_damaged(tmp_path):
    """A mount that is gone says nothing about the files behind it."""
    store = begin(tmp_path / "run" / "checkpoints")
    with (
        failing(errno.ENOTCONN, 1, ("open",), is_lasting=True),
        pytest.raises(CheckpointError, match=r"not connected.*nothing was changed"),
    ):
        CheckpointStore(store.folder).load_latest()

    assert CheckpointStore(store.folder).load_latest().step == 2
    assert not store.quarantine.exists()


def test_a_full_disk_first_gives_up_what_may_go(tmp_path, monkeypatch):
    """Newest, best, protected, pinned and kept checkpoints stay."""
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    for step in range(1, 8):
        store.save(snapshot_of(step), keep=99)
    store.protect.add(2)
    store.keep_always(3)
    free = iter([0, 2**40])
    monkeypatch.setattr("helpers.engine.checkpoint.free_bytes", lambda path: next(free))
    with store.pin(5):
        store.save(snapshot_of(8), keep=99, protected={BEST})

    assert store.steps() == [1, 2, 3, 5, 7, 8]


def test_the_newest_sound_checkpoint_stays_when_the_newest_is_damaged(tmp_path):
    store = begin(tmp_path / "run" / "checkpoints")
    (store.path(2) / "state.json").write_text("damaged")
    CheckpointStore(store.folder).retain(1)

    assert store.steps() == [1, 2]


def test_after_a_sync_that_failed_another_file_is_written(tmp_path, monkeypatch):
    """Pages that could not be written may be called clean, so the same file is not synced again."""
    store, real, synced = begin(tmp_path / "run" / "checkpoints"), os.fsync, []

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if len(synced) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CheckpointError, match="Input/output error"):
        store.save(snapshot_of(3), keep=9)
    store.save(snapshot_of(3), keep=9)

    files = [path for path in synced if Path(path).suffix]
    assert len(files) == len(set(files)) > 3
    assert is_as_saved(store.load(3))


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), id="plain"),
        pytest.param(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), id="quota"),
        pytest.param(RuntimeError("[enforce fail] . unexpected pos 704 vs 598"), id="torch.save"),
        pytest.param(
            RuntimeError("Error while serializing: No space left on device (os error 28)"),
            id="safetensors",
        ),
    ],
)
def test_a_full_disk_is_called_so_whoever_found_it(tmp_path, error):
    assert names_cause(cause_of(error, tmp_path, 2**20), errno.ENOSPC)
    assert "1 MiB are needed" in cause_of(error, tmp_path, 2**20)

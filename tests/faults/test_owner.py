"""One run, one owner: a second one is refused and told who, a dead one is taken over from."""

import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from helpers.engine import owner
from helpers.engine.owner import Claim, RunLock
from helpers.engine.run_folder import RunFolder
from helpers.errors import RunFolderError
from helpers.tracking.owner import this_process
from tests.faults.broken_disk import foreign_owner
from tests.faults.scale import n, record

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from helpers.engine.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""
SEED = 5
# Trials and seconds so far, on file systems with locks and without.
TRIED: dict[str, tuple[int, float]] = {}
NFS = "server:/x {folder} nfs rw 0 0\n"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    for name, seconds in (("WATCH_S", 0.3), ("BEAT_S", 0.03), ("SETTLE_S", 0.05)):
        monkeypatch.setattr(owner, name, seconds)


@pytest.fixture
def no_flock(monkeypatch):
    """A file system that has no locks, as Drive."""

    def refuse(descriptor, mode):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture
def holder(tmp_path):
    """Another process that trains the run in `tmp_path / "r"`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "r")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def written(path: Path, **changes) -> dict:
    """An owner in a file, that differs from this process in some ways."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**this_process(), "token": "theirs", "beats": 1, "since": "then", **changes}
    path.write_text(json.dumps(content).ljust(owner.SIZE))
    return content


def test_a_second_kernel_is_refused_and_told_who_and_where(make_trainer, data, holder):
    with pytest.raises(RunFolderError, match=rf"trained by process {holder.pid} on \S+, since 20"):
        make_trainer(run_name="r", output_dir=str(Path(holder.args[-1]).parent)).train(data.train)


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_a_killed_owner_is_taken_over_from_and_named(tmp_path, holder, request, locks):
    if locks == "no locks":
        request.getfixturevalue("no_flock")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunFolder(tmp_path / "r").lock() as lock:
        notes = lock.notes

    assert len(notes) == 1
    assert f"process {holder.pid} on " in notes[0]


def test_a_run_that_ended_well_leaves_nothing_to_tell(tmp_path):
    for _ in range(2):
        with RunFolder(tmp_path / "r").lock() as lock:
            assert lock.notes == []


def test_a_taken_over_run_is_told_as_an_event(make_trainer, data, tmp_path):
    written(tmp_path / "runs" / "r" / "LOCK", pid=2**22 - 1, process_start="1")
    result = make_trainer(run_name="r").train(data.train)

    assert result.status == "completed"
    assert [kind for _, kind, _ in result.events] == ["owner"]


def test_where_locks_fail_a_living_process_of_this_machine_keeps_the_run(tmp_path, no_flock):
    parent = os.getppid()
    start = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    written(tmp_path / "r" / "LOCK", pid=parent, process_start=start)
    with pytest.raises(RunFolderError, match=f"process {parent}"):
        RunFolder(tmp_path / "r").lock().__enter__()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"pid": 2**22 - 1}, id="dead process"),
        pytest.param({"pid": 1, "process_start": "0"}, id="its number was given away"),
        pytest.param({"boot_id": "an earlier one"}, id="other boot"),
        pytest.param({"host": "elsewhere", "boot_id": "x"}, id="other machine, silent"),
        pytest.param({"token": "of an earlier call"}, id="earlier call of this kernel"),
    ],
)
def test_where_locks_fail_a_stale_owner_is_taken_over_from(tmp_path, no_flock, change):
    written(tmp_path / "r" / "LOCK", **change)
    with RunFolder(tmp_path / "r").lock() as lock:
        assert len(lock.notes) == 1

    assert (tmp_path / "r" / "LOCK").read_bytes() == b""


def test_where_locks_fail_a_machine_that_counts_on_keeps_the_run(tmp_path, no_flock):
    path = tmp_path / "r" / "LOCK"
    written(path, host="elsewhere", boot_id="x")
    stop, beats = threading.Event(), iter(range(2, 10**6))

    def beat():
        while not stop.wait(0.01):
            written(path, host="elsewhere", boot_id="x", beats=next(beats))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(RunFolderError, match=r"process .* on elsewhere, since then"):
            RunFolder(path.parent).lock().__enter__()
    finally:
        stop.set()
        thread.join()


def test_on_a_shared_disk_a_lock_alone_is_not_trusted(tmp_path):
    """A lock may reach this machine only; one that is silent is waited for."""
    mounts = tmp_path / "mounts"
    mounts.write_text(NFS.format(folder=tmp_path))
    written(tmp_path / "LOCK", host="elsewhere", boot_id="x")
    lock, began = RunLock(tmp_path / "LOCK", "r", mounts), time.monotonic()
    lock.acquire()
    waited = time.monotonic() - began
    lock.release()

    assert waited >= owner.WATCH_S
    assert "elsewhere" in lock.notes[0]


def test_one_that_lost_its_run_to_another_machine_is_told(tmp_path, no_flock):
    lost = []
    with RunFolder(tmp_path / "r").lock() as lock:
        lock.on_lost = lost.append
        written(tmp_path / "r" / "LOCK", host="elsewhere", boot_id="x")
        deadline = time.monotonic() + 5
        while not lost and time.monotonic() < deadline:
            time.sleep(0.01)

    assert "taken over by process" in lost[0]
    assert "elsewhere" in lost[0]
    assert json.loads((tmp_path / "r" / "LOCK").read_text())["host"] == "elsewhere"


@pytest.mark.parametrize("is_taken", [True, False], ids=["by another", "by nobody"])
def test_one_whose_lock_was_removed_takes_it_again_or_is_told(tmp_path, is_taken):
    lost, path = [], tmp_path / "r" / "LOCK"
    with RunFolder(tmp_path / "r").lock() as lock:
        lock.on_lost = lost.append
        if is_taken:
            other = path.with_name("other").open("w")
            fcntl.flock(other, fcntl.LOCK_EX)
            os.replace(other.name, path)
        else:
            path.unlink()
        deadline = time.monotonic() + 5
        while not (lost if is_taken else path.exists()) and time.monotonic() < deadline:
            time.sleep(0.01)
        is_kept = not lost
        if is_kept:
            with pytest.raises(RunFolderError, match="is being trained"):
                RunLock(path, "r").acquire()
        else:
            other.close()

    assert is_kept != is_taken


def test_two_kernels_of_one_process_cannot_both_own_a_run(tmp_path, no_flock):
    with RunFolder(tmp_path / "r").lock(), pytest.raises(RunFolderError, match=str(os.getpid())):
        RunFolder(tmp_path / "r").lock().__enter__()


def test_a_forked_worker_does_not_keep_the_lock_of_its_parent(tmp_path):
    """Else a run whose process was killed would stay locked as long as a data worker lives."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        lock = RunFolder(tmp_path / "r").lock()
        lock.__enter__()
        worker = os.fork()
        if worker == 0:
            os.write(writer, str(os.getpid()).encode())
        time.sleep(30)
        os._exit(0)
    worker = int(os.read(reader, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    try:
        with RunFolder(tmp_path / "r").lock() as lock:
            assert f"process {parent} " in lock.notes[0]
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("jump_s", [86_400, -86_400], ids=["a day on", "a day back"])
def test_a_jump_of_the_clock_changes_no_owner(tmp_path, monkeypatch, jump_s):
    real = time.time
    claim = Claim(tmp_path / "OWNER.json", watch_s=0.3)
    with foreign_owner(tmp_path):
        time.sleep(0.05)
        assert not claim.take()
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        time.sleep(0.4)
        assert not claim.take()
        assert claim.is_holder_alive
    assert not claim.take()
    time.sleep(0.35)
    assert claim.take()


def test_a_run_through_a_jump_of_the_clock_is_the_same_run(make_trainer, data, monkeypatch):
    """Checkpoints are ordered by step, waits are measured by a clock that nobody sets."""
    settings = {"save_every": 2, "save_minutes": 10, "eval_every": 4, "budget": "5min"}
    plain = make_trainer(run_name="plain", **settings).train(data.train, data.val)
    real, offset = time.time, iter([86_400.0, -86_400.0] * 10**6)
    monkeypatch.setattr(time, "time", lambda: real() + next(offset))
    jumped = make_trainer(run_name="jumped", **settings).train(data.train, data.val)
    again = make_trainer(run_name="jumped", **settings).train(data.train, data.val)

    assert (jumped.steps, again.resumed_from) == (plain.steps, plain.steps)
    assert jumped.status == again.status == plain.status


def hold(path: Path) -> tuple[int, int]:
    """A forked process that owns the run in a folder; its number, and what ends with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with RunFolder(path).lock():
            os.write(writer, b"held")
            time.sleep(60)
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 4) == b"held"
    return child, reader


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_a_living_owner_is_named_and_a_killed_one_taken_over_from(
    tmp_path, monkeypatch, request, locks
):
    """Again and again, while the clock of this machine jumps."""
    if locks == "no locks":
        request.getfixturevalue("no_flock")
    began, n_trials, rng, real = time.monotonic(), n(8, 200), random.Random(SEED), time.time
    jump_s = 0.0
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    for _ in range(n_trials):
        child, reader = hold(tmp_path / "r")
        jump_s = rng.choice([-86_400.0, -3600.0, 0.0, 3600.0, 86_400.0])
        with pytest.raises(RunFolderError, match=f"process {child} on "):
            RunFolder(tmp_path / "r").lock().__enter__()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        with RunFolder(tmp_path / "r").lock() as lock:
            assert len(lock.notes) == 1 and f"process {child} on " in lock.notes[0]
    TRIED[locks] = n_trials, time.monotonic() - began
    n_all = sum(count for count, _ in TRIED.values())
    record(
        "owner",
        "A run that a living process trains is refused to a second one, which is told who has it; "
        "from one that was killed it is taken over; and the clock may jump by a day meanwhile. "
        "The same holds where the file system has no locks.",
        {
            "living owners": n_all,
            "of these respected and named": n_all,
            "killed owners": n_all,
            "of these taken over from and named": n_all,
            "file systems": list(TRIED),
        },
        command="TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_owner.py",
        seed=SEED,
        seconds=sum(seconds for _, seconds in TRIED.values()),
    )


def test_a_full_disk_does_not_keep_a_lock_from_being_held(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "r")

    def full(descriptor, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        lock = folder.lock()
        lock.__enter__()
    with pytest.raises(RunFolderError, match="another process"):
        folder.lock().__enter__()
    lock.__exit__(None, None, None)


def test_without_the_system_lock_two_processes_own_one_run(tmp_path, holder, monkeypatch):
    """The control: with the lock's answer removed, the living owner is not respected."""
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, mode: None)
    with RunFolder(tmp_path / "r").lock() as lock:
        assert f"process {holder.pid} on " in lock.notes[0]

    assert holder.poll() is None

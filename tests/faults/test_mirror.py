"""The mirror: whatever the other disk does, the run is the same, and what it holds is sound."""

import contextlib
import errno
import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from helpers.engine import copier as copier_module
from helpers.engine import mirror, mirror_files, owner, pull_back
from helpers.engine.callbacks import Callback
from helpers.engine.checkpoint import Snapshot, verify
from helpers.engine.copier import Copier
from helpers.engine.mirror_files import BEST, LAST, PREVIOUS, read_copies
from helpers.engine.pull_back import pull_back as pull
from helpers.engine.run_folder import RunFolder
from helpers.errors import CheckpointError, ConfigError
from tests.faults.broken_disk import BrokenDisk, foreign_owner
from tests.faults.scale import n, record

SETTINGS = {"save_every": 2, "save_minutes": 0, "eval_every": 4, "dropout": 0.1}
SEED = 7


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """The same waits as in earnest, in hundredths of a second."""
    for module, name, value in (
        (mirror, "RETRY_S", 0.02),
        (mirror, "RETRY_AT_MOST_S", 0.2),
        (mirror, "BEAT_S", 0.05),
        (mirror, "WATCH_S", 0.3),
        (mirror, "STALL_S", 0.4),
        (mirror, "END_WAIT_S", 8.0),
        (pull_back, "STALL_S", 0.4),
    ):
        monkeypatch.setattr(module, name, value)


class At(Callback):
    """Call something after a step, and let the mirror's thread have a share of the time."""

    def __init__(self, moments: dict[int, Callable]):
        self.moments = moments

    def on_log(self, run, row):
        if row["step"] in self.moments:
            self.moments[row["step"]](run)
        time.sleep(0.003)


@dataclass
class World:
    """One trial: where the run and its mirror are, and what can be done to them."""

    tmp: Path
    disk: BrokenDisk
    monkeypatch: pytest.MonkeyPatch
    rng: random.Random
    cleaning: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def home(self) -> Path:
        return self.tmp / "drive" / "mirror"

    @property
    def root(self) -> Path:
        return self.home / "r"


def gone(world: World) -> Callable[[], None]:
    """The folder is moved away, as by an unmounting, and what is written there fails."""

    def strike():
        if world.home.exists():
            world.home.rename(world.tmp / "away")
            world.cleaning.callback(lambda: bring_home(world))
        world.disk.fail(errno.ENOENT)

    return strike


def bring_home(world: World) -> None:
    shutil.rmtree(world.home, ignore_errors=True)
    world.home.parent.mkdir(exist_ok=True)
    (world.tmp / "away").rename(world.home)


def failing(code: int, *names: str) -> Callable[[World], Callable[[], None]]:
    return lambda world: lambda: world.disk.fail(code, *names)


def a_file(world: World) -> Callable[[], None]:
    """mirror_dir is a file from the start."""
    world.home.parent.mkdir(parents=True)
    world.home.write_text("not a folder")
    world.cleaning.callback(lambda: world.home.unlink(missing_ok=True))
    return lambda: None


def not_mounted(world: World) -> Callable[[], None]:
    """Drive is not mounted, and gets mounted when the fault is over."""
    mounts = world.tmp / "mounts"
    mounts.write_text("/dev/sda / ext4 rw 0 0\n")
    world.monkeypatch.setattr(mirror_files, "DRIVE", world.home.parent)
    world.monkeypatch.setattr(mirror_files, "MOUNTS", mounts)
    entry = f"drive {world.home.parent} fuse.drive rw 0 0\n"
    world.cleaning.callback(lambda: mounts.write_text(entry))
    return lambda: None


def deleted(world: World) -> Callable[[], None]:
    """Somebody deletes the mirror while a file is being copied into it."""
    return lambda: world.disk.once("fsync", lambda: shutil.rmtree(world.home, ignore_errors=True))


def taken(world: World) -> Callable[[], None]:
    """Another machine takes the mirror over."""
    return lambda: world.cleaning.enter_context(foreign_owner(world.root))


def lying(world: World) -> Callable[[], None]:
    """What is read back is not what was written."""

    def rule(name: str, before: int) -> None:
        files = world.root.glob(".incoming-*/*/*") if name == "fsync" else ()
        newest = max(files, key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is not None and newest.name == "model.safetensors":
            newest.write_bytes(newest.read_bytes()[:-4] + b"lies")

    return lambda: setattr(world.disk, "rule", rule)


def no_logger(world: World) -> Callable[[], None]:
    """The database of runs turns into a folder."""
    database = world.tmp / "runs" / "experiments.db"

    def strike():
        database.rename(database.with_suffix(".away"))
        database.mkdir()

    def mend():
        shutil.rmtree(database)
        database.with_suffix(".away").rename(database)

    world.cleaning.callback(mend)
    return strike


FAULTS = {
    "disappears": gone,
    "is full": failing(errno.ENOSPC, "write", "open", "mkdir"),
    "turns read-only": failing(errno.EROFS),
    "loses its connection (107)": failing(errno.ENOTCONN, *("stat", "listdir", "open", "write")),
    "has input/output errors (5)": failing(errno.EIO, "fsync", "write", "readv"),
    "hangs": lambda world: world.disk.hang,
    "is slow": lambda world: world.disk.slow_down,
    "is a file": a_file,
    "is not mounted": not_mounted,
    "is deleted in mid-copy": deleted,
    "is taken by another machine": taken,
    "has a logger that fails": no_logger,
}
# These do not keep the copies from being made in the end.
HARMLESS = {"is slow", "is deleted in mid-copy", "has a logger that fails"}


@pytest.fixture
def world(tmp_path, monkeypatch):
    made = []

    def make(name: str, seed: int) -> World:
        place = tmp_path / name.replace(" ", "-") / str(seed)
        place.mkdir(parents=True)
        disk = BrokenDisk(place / "drive", monkeypatch)
        made.append(World(place, disk, monkeypatch, random.Random(f"{name} {seed}")))
        return made[-1]

    yield make
    for one in made:
        one.disk.mend()
        one.cleaning.close()
        wait_for_threads()


def wait_for_threads() -> None:
    """Let workers that were left to hang come to their end."""
    for thread in mirror._hanging.values():
        thread.join(timeout=10)


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def sound_steps(root: Path) -> dict[str, int]:
    """The steps in the slots of a mirror, each one verified."""
    copies = read_copies(root)
    for copy in copies.values():
        verify(copy.path)
    return {slot: copy.step for slot, copy in copies.items()}


def train(make_trainer, data, world, moments=(), **changes):
    """Train in a trial's world; return the trainer and its result."""
    settings = SETTINGS | {"run_name": "r", "output_dir": str(world.tmp / "runs")} | changes
    trainer = make_trainer(
        callbacks=[At(dict(moments))],
        mirror_dir=str(world.home),
        database="auto",
        **settings,
    )
    return trainer, trainer.train(data.train, data.val)


@pytest.fixture(scope="module")
def alone():
    return {}


@pytest.fixture
def expected(make_trainer, data, alone, tmp_path):
    """The weights of the run without a mirror."""
    if not alone:
        trainer = make_trainer(run_name="alone", callbacks=[At({})], **SETTINGS)
        trainer.train(data.train, data.val)
        alone.update(weights(trainer))
    return alone


def one_trial(name, seed, make_trainer, data, world, expected):
    """A run under a fault, the same after it has passed, and the same on a new machine."""
    at = random.Random(f"{SEED} {name} {seed}").randint(1, 9)
    trial = world(name, seed)
    strike = FAULTS[name](trial)
    began = time.monotonic()
    trainer, result = train(make_trainer, data, trial, {at: lambda run: strike()})
    seconds = time.monotonic() - began

    assert result.status == "completed"
    assert result.steps == 12
    assert same(weights(trainer), expected)
    assert seconds < 20
    told = [kind for _, kind, _ in result.events]
    assert ("not mirrored" in told) or name in HARMLESS
    assert told.count("not mirrored") <= 3
    if name in HARMLESS:
        assert result.mirrored_step == 12

    trial.disk.mend()
    trial.cleaning.close()
    wait_for_threads()
    _, mended = train(make_trainer, data, trial)
    assert (mended.status, mended.mirrored_step) == ("completed", 12)
    assert sound_steps(trial.root)[LAST] == 12

    shutil.rmtree(trial.tmp / "runs")
    elsewhere, pulled = train(make_trainer, data, trial)
    assert (pulled.status, pulled.resumed_from) == ("completed", 12)
    assert same(weights(elsewhere), expected)
    assert len(pulled.history) == len(result.history)
    assert (trial.tmp / "runs" / "r" / "final_model.pt").exists()


def test_a_run_ends_the_same_whatever_the_other_side_does(make_trainer, data, world, expected):
    began, finished = time.monotonic(), 0
    for name in FAULTS:
        for seed in range(n(1, 5)):
            try:
                one_trial(name, seed, make_trainer, data, world, expected)
            except AssertionError as error:
                raise AssertionError(f"the other disk {name}, trial {seed}") from error
            finished += 1

    assert finished == len(FAULTS) * n(1, 5)
    record(
        "other_side",
        "Whatever the disk of the mirror or the logger does, the run finishes with the same "
        "weights, and the mirror is made up for and restored from afterwards.",
        {"faults": len(FAULTS), "runs each": n(1, 5), "runs": finished, "finished": finished},
        command="TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_mirror.py",
        seed=SEED,
        seconds=time.monotonic() - began,
    )


# What the mirror holds


def snapshot(step: int) -> Snapshot:
    """A small checkpoint whose content follows from its step."""
    sections = {"model": {"w": torch.full((64,), float(step))}, "optimizer": {}}
    return Snapshot(step, sections, {"run": {"step": step, "best_step": None}})


def local_run(path: Path, steps: range | list[int] = ()) -> RunFolder:
    folder = RunFolder(path)
    folder.write_identity({"run_id": path.name, "settings": {}})
    for step in steps:
        folder.checkpoints.save(snapshot(step), keep=100)
    return folder


def copier_of(folder: RunFolder, home: Path) -> Copier:
    return Copier(folder, home, lambda n_bytes: None, 0.0)


def bring(copier: Copier, step: int, best: int | None = None) -> None:
    """What the mirror does for a new checkpoint."""
    copier.open()
    copier.bring_files(("run.json",))
    copier.bring(step, LAST, best)
    if best is not None:
        copier.bring(best, BEST)


def mirrored(folder: RunFolder, home: Path, step: int, best: int | None = None) -> None:
    """One session that copies one checkpoint and ends."""
    copier = copier_of(folder, home)
    bring(copier, step, best)
    copier.claim.forget()


def test_the_slots_hold_the_newest_two_and_the_best(tmp_path):
    folder, best_of = local_run(tmp_path / "r", range(10)), [0, 1, 2, 2, 2, 2, 6, 6, 6, 9]
    copier = copier_of(folder, tmp_path / "m")
    for step, best in enumerate(best_of):
        bring(copier, step, best)
        held = sound_steps(tmp_path / "m" / "r")

        assert held[LAST] == step
        assert held.get(PREVIOUS, 0) == max(0, step - 1)
        assert best in held.values()
        assert len(held) <= 3


def test_the_best_step_is_copied_though_newer_ones_came_before_it_was(tmp_path):
    folder = local_run(tmp_path / "r", range(5))
    mirrored(folder, tmp_path / "m", 4, best=1)

    assert sound_steps(tmp_path / "m" / "r") == {LAST: 4, BEST: 1}


@pytest.fixture
def memory_disk():
    """A folder in memory where there is one, so that syncing it takes no time."""
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


CODES = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.ENOTCONN]


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
def test_whichever_call_fails_a_sound_copy_is_always_there(memory_disk, monkeypatch, code):
    """The n-th call on the other disk fails, for n = 0, 1, 2 ... until none does."""
    home, stride = memory_disk / "m", n(5, 1)
    disk, number = BrokenDisk(home, monkeypatch), CODES.index(code) % stride
    folder = local_run(memory_disk / "r", range(4))
    while True:
        shutil.rmtree(home, ignore_errors=True)
        first, second = copier_of(folder, home), copier_of(folder, home)
        for step in (0, 1, 2):
            bring(first, step, best=1)
        first.claim.forget()
        disk.fail_nth(number, code)
        with contextlib.suppress(OSError):
            bring(second, 3, best=1)
        disk.mend()
        newest = max(sound_steps(home / "r").values())
        elsewhere = RunFolder(memory_disk / "new" / str(number) / "r")
        notes = pull(elsewhere, home).notes

        assert newest >= 2
        assert elsewhere.checkpoints.load_latest().step == newest
        assert sum("was pulled back" in note for note in notes) == 1
        second.close()
        bring(second, 3, best=1)
        second.claim.forget()
        assert sound_steps(home / "r") == {LAST: 3, PREVIOUS: 2, BEST: 1}
        if not disk.is_struck:
            break
        number += stride

    assert number > 100


def test_a_copy_that_cannot_be_read_for_good_is_given_up(tmp_path, monkeypatch):
    """An input/output error may pass; one that stays is a disk that has lost the copy."""
    folder, disk = local_run(tmp_path / "r", [1, 2]), BrokenDisk(tmp_path / "m", monkeypatch)
    mirrored(folder, tmp_path / "m", 1)
    copier = copier_of(folder, tmp_path / "m")
    disk.fail(errno.EIO, "readv")
    for _ in range(copier_module.PATIENCE):
        with pytest.raises(OSError, match="Input/output error"):
            bring(copier, 2)
        assert (tmp_path / "m" / "r" / LAST / "step-000000001").exists()
        copier.close()
    with pytest.raises(OSError, match="Input/output error"):
        bring(copier, 2)
    disk.mend()
    bring(copier, 2)

    assert sound_steps(tmp_path / "m" / "r")[LAST] == 2


def test_an_earlier_step_never_replaces_a_later_one(tmp_path):
    """As where Drive was mounted only after a run had been started again from nothing."""
    mirrored(local_run(tmp_path / "a" / "r", [40]), tmp_path / "m", 40)
    late = copier_of(local_run(tmp_path / "b" / "r", [2, 42]), tmp_path / "m")
    with pytest.raises(OSError, match="holds step 40 of this run, and this session is at step 2"):
        bring(late, 2)
    assert sound_steps(tmp_path / "m" / "r") == {LAST: 40}
    bring(late, 42)

    assert sound_steps(tmp_path / "m" / "r") == {LAST: 42, PREVIOUS: 40}


@pytest.mark.parametrize(
    ("here", "step", "words"),
    [
        pytest.param([6], 6, "is at step 6", id="that has the one before"),
        pytest.param([], None, "has no checkpoint", id="that has none"),
    ],
)
def test_a_session_behind_the_mirror_is_refused(tmp_path, here, step, words):
    """Also where its checkpoint is one of those that the mirror has."""
    first = copier_of(local_run(tmp_path / "a" / "r", [6, 30]), tmp_path / "m")
    bring(first, 6)
    bring(first, 30)
    first.claim.forget()
    late = copier_of(local_run(tmp_path / "b" / "r", here), tmp_path / "m")
    late.open()
    with pytest.raises(OSError, match=f"holds step 30 of this run, and this session {words}"):
        late.bring(step, LAST) if here else late.check_ahead(step)

    assert sound_steps(tmp_path / "m" / "r") == {LAST: 30, PREVIOUS: 6}


def test_a_session_that_went_back_from_where_the_mirror_is_is_not_behind_it(tmp_path):
    folder = local_run(tmp_path / "r", [4, 6])
    mirrored(folder, tmp_path / "m", 6)
    later = copier_of(folder, tmp_path / "m")
    bring(later, 6)
    bring(later, 4)

    assert sound_steps(tmp_path / "m" / "r") == {LAST: 4, PREVIOUS: 6}


def test_a_session_behind_the_mirror_leaves_its_rows_alone(make_trainer, data, world, expected):
    """As where Drive did not answer when a run was started again on a new machine."""
    here = world("rows", 0)
    train(make_trainer, data, here)
    rows = (here.root / "metrics.jsonl").read_bytes()
    shutil.rmtree(here.tmp / "runs")
    here.disk.fail(errno.ENOTCONN, "stat", "listdir", "open")
    moments = {
        2: lambda run: here.disk.mend(),
        6: lambda run: run.stop.set("to start again"),
    }
    _, behind = train(make_trainer, data, here, moments)
    kept = (here.root / "metrics.jsonl").read_bytes()
    trainer, again = train(make_trainer, data, here)

    assert (behind.status, behind.mirrored_step) == ("paused", None)
    assert any("the mirror holds step 12" in text for _, _, text in behind.events)
    assert kept == rows
    assert again.resumed_from == 12
    assert [row["step"] for _, row in again.history.iterrows()] == list(range(1, 13))
    assert same(weights(trainer), expected)


def test_the_results_are_copied_whenever_the_worker_looks(make_trainer, data, world, monkeypatch):
    """It looks again right before it is asked for the last time."""

    class Slow(mirror.Mirror):
        def offer(self, *wanted, **named):
            time.sleep(0.2)
            super().offer(*wanted, **named)

    monkeypatch.setattr("helpers.trainer.Mirror", Slow)
    here = world("results", 0)
    _, result = train(make_trainer, data, here, max_steps=4)

    assert result.mirrored_step == 4
    assert (here.root / "result.json").exists()
    assert (here.root / "final_model.pt").exists()


def test_a_later_step_that_is_damaged_gives_way(tmp_path):
    mirrored(local_run(tmp_path / "a" / "r", [40]), tmp_path / "m", 40)
    flip(next((tmp_path / "m" / "r" / LAST).glob("*/model.safetensors")))
    mirrored(local_run(tmp_path / "b" / "r", [2]), tmp_path / "m", 2)

    assert sound_steps(tmp_path / "m" / "r") == {LAST: 2}


def test_the_mirror_of_another_run_is_left_alone(tmp_path, make_trainer, data):
    home = str(tmp_path / "m")
    make_trainer(run_name="r", mirror_dir=home).train(data.train)
    before = sound_steps(tmp_path / "m" / "r")
    config = {"output_dir": str(tmp_path / "other"), "learning_rate": 0.02}
    (tmp_path / "other" / "r").mkdir(parents=True)
    ours = make_trainer(run_name="r", **config)
    ours.train(data.train)
    shutil.rmtree(tmp_path / "other" / "r" / "checkpoints")
    (tmp_path / "other" / "r" / "result.json").unlink()
    result = make_trainer(run_name="r", mirror_dir=home, **config).train(data.train)

    assert (result.status, result.resumed_from, result.mirrored_step) == ("completed", None, None)
    assert "other settings" in result.events[0][2]
    assert sound_steps(tmp_path / "m" / "r") == before


def test_what_is_removed_is_emptied_before(tmp_path, monkeypatch):
    """What Drive puts into its trash is then of no size."""
    sizes, real = [], os.unlink

    def unlink(path, *rest, **named):
        if "/m/r/" in str(path) and ".incoming-" not in Path(path).name:
            sizes.append(os.path.getsize(path))
        real(path, *rest, **named)

    monkeypatch.setattr(os, "unlink", unlink)
    copier = copier_of(local_run(tmp_path / "r", range(4)), tmp_path / "m")
    for step in range(4):
        bring(copier, step)

    assert len(sizes) > 4
    assert set(sizes) == {0}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# Pulling back


@pytest.mark.parametrize("stop_at", [3, 6, 11])
def test_a_run_goes_on_elsewhere_bit_for_bit(make_trainer, data, world, expected, stop_at):
    here = world("elsewhere", stop_at)
    stop = {stop_at: lambda run: run.stop.set("the machine is taken away")}
    _, paused = train(make_trainer, data, here, stop)
    shutil.rmtree(here.tmp / "runs")
    trainer, result = train(make_trainer, data, here)

    assert (paused.status, paused.mirrored_step) == ("paused", stop_at)
    assert (result.status, result.resumed_from) == ("completed", stop_at)
    assert same(weights(trainer), expected)
    assert list(result.history.index) == list(range(len(result.history)))
    assert [row["step"] for _, row in result.history.iterrows()] == list(range(1, 13))
    assert f"step {stop_at} was pulled back" in result.events[0][2]


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(100)


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(cut_short, id="half uploaded"),
        pytest.param(flip, id="a bit flipped"),
        pytest.param(lambda path: path.unlink(), id="a file missing"),
        pytest.param(lambda path: path.write_bytes(b""), id="a file of no bytes"),
        pytest.param(lambda path: cut_short(path.with_name("MANIFEST.json")), id="manifest torn"),
    ],
)
def test_a_newest_copy_that_is_damaged_is_passed_over_with_one_line(tmp_path, harm):
    copier = copier_of(local_run(tmp_path / "a" / "r", [1, 2]), tmp_path / "m")
    bring(copier, 1)
    bring(copier, 2)
    harm(next((tmp_path / "m" / "r" / LAST).glob("*/model.safetensors")))
    folder = RunFolder(tmp_path / "b" / "r")
    notes, is_reached = pull(folder, tmp_path / "m")

    assert is_reached
    assert folder.checkpoints.load_latest().step == 1
    assert sum("passed over" in note for note in notes) == 1
    assert sum("step 1 was pulled back" in note for note in notes) == 1
    assert not list(folder.checkpoints.folder.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("here", "there", "newest", "is_pulled"),
    [
        pytest.param([], [5], 5, True, id="nothing here"),
        pytest.param([3], [5], 5, True, id="less here"),
        pytest.param([5], [5], 5, False, id="as much here"),
        pytest.param([7], [5], 7, False, id="more here"),
    ],
)
def test_the_copy_that_is_ahead_is_taken(tmp_path, here, there, newest, is_pulled):
    mirrored(local_run(tmp_path / "a" / "r", there), tmp_path / "m", there[-1])
    folder = local_run(tmp_path / "b" / "r", here)
    notes, is_reached = pull(folder, tmp_path / "m")

    assert folder.checkpoints.load_latest().step == newest
    assert bool(notes) == is_pulled
    assert is_reached


def test_a_damaged_local_checkpoint_is_made_good_from_the_mirror(tmp_path):
    folder = local_run(tmp_path / "r", [4, 5])
    mirrored(folder, tmp_path / "m", 5)
    flip(folder.checkpoints.path(5) / "model.safetensors")
    again = RunFolder(tmp_path / "r")
    pull(again, tmp_path / "m")

    assert again.checkpoints.load_latest().step == 5
    assert ["is damaged: model.safetensors is not" in reason for reason in reasons(again)] == [True]


def reasons(folder: RunFolder) -> list[str]:
    """Why checkpoints were set aside."""
    files = folder.checkpoints.quarantine.glob("*/DAMAGE.txt")
    return [path.read_text() for path in sorted(files)]


def after_going_back(step: int) -> Snapshot:
    """A checkpoint of a run that went back to step 4, with the states that it had there."""
    later = snapshot(step)
    later.state["run"] |= {"rewinds": [[4, 16, 20]], "best_step": 6}
    return later


def went_back(path: Path) -> RunFolder:
    """A run that went back to step 4, and on to step 8 from there."""
    folder = local_run(path, [4])
    for step in (6, 8):
        folder.checkpoints.save(after_going_back(step), keep=5)
    return folder


@pytest.mark.parametrize("is_damaged", [False, True], ids=["sound", "damaged"])
def test_what_came_after_the_copy_of_a_later_course_is_set_aside(tmp_path, is_damaged):
    """Else the run would go on from there, and be refused by the mirror for good."""
    mirrored(went_back(tmp_path / "a" / "r"), tmp_path / "m", 8, best=6)
    folder = local_run(tmp_path / "b" / "r", [4, 6, 8, 12])
    if is_damaged:
        flip(folder.checkpoints.path(12) / "model.safetensors")
    notes = pull(folder, tmp_path / "m").notes
    why = "is not as it was written" if is_damaged else "of a course that the run has left"
    told = [note for note in notes if "set aside" in note]

    assert folder.checkpoints.steps() == [4, 6, 8]
    assert folder.checkpoints.load_latest().state["run"]["rewinds"]
    assert folder.checkpoints.load(6).state["run"]["rewinds"]
    assert len(told) == len(reasons(folder)) == 3
    assert ["damaged" in reason for reason in reasons(folder)] == [False, False, is_damaged]
    assert any("step 12 was set aside" in note and why in note for note in told)
    assert folder.checkpoints.notes == []
    mirrored(folder, tmp_path / "m", 8, best=6)
    assert pull(folder, tmp_path / "m") == ([], True)


def test_a_branch_that_was_given_up_is_not_pulled_back(tmp_path):
    """A run that went back to an earlier step has an earlier one, and is ahead all the same."""
    mirrored(local_run(tmp_path / "a" / "r", [9]), tmp_path / "m", 9)
    folder = local_run(tmp_path / "b" / "r")
    folder.checkpoints.save(after_going_back(6), keep=5)

    assert pull(folder, tmp_path / "m") == ([], True)
    mirrored(folder, tmp_path / "m", 6)
    assert sound_steps(tmp_path / "m" / "r")[LAST] == 6


def test_a_run_that_must_exist_may_exist_in_the_mirror_alone(make_trainer, data, tmp_path):
    settings = {"run_name": "r", "resume": "must", "mirror_dir": str(tmp_path / "m")}
    with pytest.raises(CheckpointError, match="no checkpoint to continue from"):
        make_trainer(**settings).train(data.train)
    make_trainer(run_name="r", mirror_dir=str(tmp_path / "m")).train(data.train)
    shutil.rmtree(tmp_path / "runs")

    assert make_trainer(**settings).train(data.train).resumed_from == 12


@pytest.mark.parametrize("is_mirror", [True, False], ids=["in the mirror", "nowhere"])
def test_a_run_that_is_never_continued_takes_a_name_that_is_free(
    make_trainer, data, tmp_path, is_mirror
):
    home = tmp_path / "m"
    settings = {"run_name": "r", "mirror_dir": str(home) if is_mirror else "", "resume": "never"}
    make_trainer(**settings).train(data.train)
    before = {path.name: path.read_bytes() for path in (home / "r").glob("*.json*")}
    shutil.rmtree(tmp_path / "runs")
    result = make_trainer(**settings).train(data.train)

    assert result.run_id == ("r-2" if is_mirror else "r")
    assert {path.name: path.read_bytes() for path in (home / "r").glob("*.json*")} == before


@pytest.mark.parametrize("hinder", [BrokenDisk.hang, lambda disk: disk.fail(errno.EIO, "listdir")])
def test_names_in_a_mirror_that_does_not_answer_are_not_waited_for(tmp_path, monkeypatch, hinder):
    mirrored(local_run(tmp_path / "a" / "r", [5]), tmp_path / "m", 5)
    disk = BrokenDisk(tmp_path / "m", monkeypatch)
    names = pull_back.mirrored_names(tmp_path / "m")
    hinder(disk)
    hindered = pull_back.mirrored_names(tmp_path / "m")
    disk.mend()

    assert (names, hindered) == ({"r"}, set())


HINDRANCES = {
    "it is not connected": lambda disk: disk.fail(errno.ENOTCONN, "stat", "listdir", "open"),
    "its files cannot be read": lambda disk: disk.fail(errno.EIO, "readv"),
    "looking breaks off": lambda disk: disk.fail_nth(10, errno.EIO),
    "reading breaks off": lambda disk: disk.fail_nth(36, errno.EIO),
}


@pytest.mark.parametrize("hinder", HINDRANCES.values(), ids=HINDRANCES)
def test_who_pulls_knows_that_the_mirror_was_not_read(tmp_path, monkeypatch, hinder):
    mirrored(local_run(tmp_path / "a" / "r", [5]), tmp_path / "m", 5)
    disk = BrokenDisk(tmp_path / "m", monkeypatch)
    hinder(disk)
    folder = RunFolder(tmp_path / "b" / "r")
    notes, is_reached = pull(folder, tmp_path / "m")
    disk.mend()

    assert not is_reached
    assert notes
    assert pull(folder, tmp_path / "m").is_reached


def test_a_copy_that_has_no_room_here_is_not_read(tmp_path, monkeypatch):
    mirrored(local_run(tmp_path / "a" / "r", [5]), tmp_path / "m", 5)
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(pull_back.shutil, "disk_usage", lambda path: full)
    notes, is_reached = pull(RunFolder(tmp_path / "b" / "r"), tmp_path / "m")

    assert not is_reached
    assert "0 are free here" in notes[0]


def test_a_pull_leaves_the_files_of_one_that_was_given_up_alone(tmp_path):
    """That one may wake up, and so may not share a name with it."""
    mirrored(local_run(tmp_path / "a" / "r", [5]), tmp_path / "m", 5)
    folder = RunFolder(tmp_path / "b" / "r")
    (folder.path / ".run.tmp").write_text("theirs")
    notes = pull(folder, tmp_path / "m").notes

    assert [note for note in notes if "not pulled back" in note] == []
    assert folder.read_identity()["run_id"] == "r"
    assert (folder.path / ".run.tmp").read_text() == "theirs"


def test_a_mirror_that_hangs_does_not_keep_a_run_from_starting(tmp_path, monkeypatch):
    mirrored(local_run(tmp_path / "a" / "r", [5]), tmp_path / "m", 5)
    disk = BrokenDisk(tmp_path / "m", monkeypatch)
    disk.hang()
    began = time.monotonic()
    notes, is_reached = pull(RunFolder(tmp_path / "b" / "r"), tmp_path / "m")
    seconds = time.monotonic() - began
    disk.mend()

    assert not is_reached
    assert seconds < 5 * pull_back.STALL_S
    assert "nothing came for" in notes[0]
    time.sleep(0.2)
    assert RunFolder(tmp_path / "b" / "r").checkpoints.steps() == []


# What is told, and what is not done


def test_each_step_has_the_state_that_it_has(make_trainer, data, world):
    here = world("states", 0)
    train(make_trainer, data, here, {5: lambda run: here.disk.fail(errno.ENOSPC, "write")})
    content = json.loads((here.tmp / "runs" / "r" / "MIRROR.json").read_text())
    copied = sound_steps(here.root)
    mirrored = {int(s) for s, v in content["steps"].items() if v["state"] == "MIRRORED"}

    assert mirrored <= set(copied.values())
    assert content["steps"]["12"]["state"] == "LOCAL_DURABLE"
    assert "No space left" in content["trouble"]
    assert "trash" in content["trouble"]


def test_a_trouble_is_told_once_and_its_end_too(make_trainer, data, world):
    here = world("told", 0)
    moments = {
        3: lambda run: here.disk.fail(errno.ENOTCONN),
        9: lambda run: (time.sleep(0.3), here.disk.mend()),
    }
    _, result = train(make_trainer, data, here, moments)
    told = [text for _, kind, text in result.events if kind == "not mirrored"]

    assert len(told) == 1
    assert "mount it again" in told[0]
    assert any("works again" in text for _, kind, text in result.events)
    assert result.mirrored_step == 12
    assert "step 12 is copied" in repr(result)


def test_while_drive_is_not_mounted_no_folder_is_made_in_its_place(make_trainer, data, world):
    here = world("drive", 0)
    not_mounted(here)
    _, result = train(make_trainer, data, here)

    assert result.status == "completed"
    assert not here.home.parent.exists()
    assert any("Google Drive is not mounted" in text for _, _, text in result.events)


def test_drive_that_is_mounted_later_is_used_from_then_on(make_trainer, data, world):
    here = world("drive", 1)
    not_mounted(here)
    _, result = train(make_trainer, data, here, {6: lambda run: here.cleaning.close()})

    assert result.mirrored_step == 12
    assert sound_steps(here.root)[LAST] == 12


def test_the_loser_of_a_mirror_stops_writing_and_says_so(make_trainer, data, world):
    here, held = world("loser", 0), []

    def strike(run):
        time.sleep(0.3)
        here.cleaning.enter_context(foreign_owner(here.root))
        time.sleep(0.1)
        held.append(sound_steps(here.root))

    _, result = train(make_trainer, data, here, {5: strike})
    told = [text for _, kind, text in result.events if kind == "not mirrored"]

    assert sound_steps(here.root) == held[0]
    assert "taken over by process 1 on elsewhere" in told[0]
    assert "mirroring has stopped" in told[0]


def test_sessions_with_a_disk_that_hangs_leave_one_thread(make_trainer, data, world):
    here = world("hang", 0)
    here.disk.hang()
    for number in range(4):
        _, result = train(make_trainer, data, here, run_name="r", max_steps=4 + number)
        n_threads = sum(thread.name == "mirror" for thread in threading.enumerate())

        assert result.status == "completed"
        assert n_threads <= 1
        shutil.rmtree(here.tmp / "runs")


def test_a_mirror_in_the_run_itself_is_refused(make_trainer, data, tmp_path):
    with pytest.raises(ConfigError, match="Set it to a folder on another disk"):
        make_trainer(run_name="r", mirror_dir=str(tmp_path / "runs")).train(data.train)


def test_a_disk_that_lies_is_found_out(make_trainer, data, world):
    here = world("lies", 0)
    strike = lying(here)
    _, result = train(make_trainer, data, here, {2: lambda run: strike()})
    sound_steps(here.root)

    assert result.status == "completed"
    assert any("read back otherwise" in text for _, _, text in result.events)


# With a protection removed, the claims above fail


def test_without_reading_back_a_lie_is_taken_for_a_copy(tmp_path, monkeypatch, world):
    here = world("control", 0)
    monkeypatch.setattr(mirror_files, "read_back", lambda path, wanted, beat: None)
    lying(here)()
    copier = copier_of(local_run(here.tmp / "r", [1]), here.home)
    bring(copier, 1)

    assert copier.copied_steps() == {LAST: 1}
    with pytest.raises(CheckpointError):
        sound_steps(here.root)


def test_without_the_table_of_mounts_the_copies_land_on_the_local_disk(
    make_trainer, data, world, monkeypatch
):
    here = world("control", 1)
    not_mounted(here)
    monkeypatch.setattr(copier_module, "check_place", lambda home: None)
    train(make_trainer, data, here)

    assert here.root.exists()


def test_without_comparing_owners_two_machines_write(make_trainer, data, world, monkeypatch):
    here, held = world("control", 2), []
    monkeypatch.setattr(owner.Claim, "is_mine", lambda claim: True)

    def strike(run):
        time.sleep(0.3)
        here.cleaning.enter_context(foreign_owner(here.root))
        held.append(sound_steps(here.root)[LAST])

    train(make_trainer, data, here, {5: strike})

    assert sound_steps(here.root)[LAST] > held[0]


def test_a_mirror_that_leads_to_the_run_itself_is_told(make_trainer, data, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    result = make_trainer(run_name="r", mirror_dir=str(tmp_path / "link")).train(data.train)

    assert result.status == "completed"
    assert any("own folder" in message for _, kind, message in result.events)
    assert result.mirror.startswith("step 12 is on the local disk only")

"""Training waits for a copy of its state, not for the disk, and nothing of a save is lost."""

import os
import threading
import time

import pytest
import torch

from helpers.engine.callbacks import Callback
from helpers.engine.checkpoint import CheckpointStore, Snapshot
from helpers.engine.run_folder import RunFolder
from helpers.engine.saver import GRACE_S, SHARE, Buffers, Saver
from helpers.errors import CheckpointError

# Nothing but the cadence decides on a save: no decay that begins at a step of its own.
EVEN = {"scheduler": "cosine"}


class SlowDisk:
    """Syncs that wait until they are let go."""

    def __init__(self, monkeypatch) -> None:
        self.is_free, self.real = threading.Event(), os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)
        self.is_free.set()

    def fsync(self, descriptor):
        assert self.is_free.wait(60)
        self.real(descriptor)

    def blocked(self, first: int, last: int) -> Callback:
        """Block from one step to another."""
        return At({first: lambda run: self.is_free.clear(), last: lambda run: self.is_free.set()})


class At(Callback):
    """Do something when steps are logged."""

    def __init__(self, actions):
        self.actions = actions

    def on_log(self, run, row):
        if row["step"] in self.actions:
            self.actions[row["step"]](run)


class Notes(Callback):
    """Remember at which step and on which thread checkpoints were told."""

    def __init__(self):
        self.told = []

    def on_checkpoint(self, run, info):
        self.told.append((info.step, run.state.step, threading.current_thread()))


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class StubRun:
    """As much of a run as a saver looks at."""

    def __init__(self, config) -> None:
        self.config, self.events, self.told = config, [], []
        self.state = type("State", (), {"step": 0, "best_step": None})()

    def tell(self, kind, message):
        self.events.append((kind, message))

    def emit(self, method, info):
        self.told.append(info.step)


@pytest.fixture
def disk(monkeypatch):
    slow = SlowDisk(monkeypatch)
    yield slow
    slow.is_free.set()


@pytest.fixture
def run(tiny_config):
    return StubRun(tiny_config(keep_checkpoints=9))


def take(run, size: int = 10):
    return lambda: Snapshot(
        run.state.step, {"model": {"w": torch.full((size,), float(run.state.step))}}, {}
    )


# Beside the training


def test_training_goes_on_while_a_checkpoint_is_written(make_trainer, data, disk):
    notes, stepped = Notes(), []
    look = At({6: lambda run: stepped.append(run.folder.checkpoints.steps())})
    settings = {"save_every": 4, "max_steps": 8, **EVEN}
    callbacks = [notes, look, disk.blocked(4, 7)]
    make_trainer(callbacks=callbacks, **settings).train(data.train)

    told = {step: at for step, at, _ in notes.told}
    assert stepped == [[0]]
    assert 7 <= told[4] <= 8
    assert list(told) == [0, 4, 8]


def test_what_is_written_is_the_state_of_its_step_whatever_is_trained_meanwhile(
    make_trainer, data, disk
):
    settings = {"dropout": 0.1, "save_every": 4, "eval_every": 4, "keep_checkpoints": 9, **EVEN}
    settings |= {"optimizer": "adamw", "sample_tokens": 2}
    unbroken = make_trainer(run_name="unbroken", **settings)
    expected = unbroken.train(data.train, data.val)
    slow = make_trainer(run_name="r", callbacks=[disk.blocked(4, 7)], **settings)
    slow.train(data.train, data.val)
    stores = [
        RunFolder(f"{slow.training_config.output_dir}/{n}").checkpoints for n in ("r", "unbroken")
    ]
    saved, wanted = (store.load(4) for store in stores)

    assert saved.state["run"] | {"wall_s": 0} == wanted.state["run"] | {"wall_s": 0}
    assert saved.state["samples"] == wanted.state["samples"]
    for section, tensors in wanted.sections.items():
        assert all(torch.equal(saved.sections[section][n], t) for n, t in tensors.items())
    assert expected.status == "completed"


def test_a_run_killed_between_copy_and_acknowledgement_goes_on_from_the_one_before(
    make_trainer, data, monkeypatch
):
    settings = {"dropout": 0.1, "save_every": 3, **EVEN}
    unbroken = make_trainer(run_name="unbroken", **settings).train(data.train)
    child = os.fork()
    if child == 0:
        disk = SlowDisk(monkeypatch)
        actions = At({6: lambda run: disk.is_free.clear(), 8: lambda run: os._exit(9)})
        make_trainer(run_name="r", callbacks=[actions], **settings).train(data.train)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    result = make_trainer(run_name="r", **settings).train(data.train)

    assert os.waitstatus_to_exitcode(status) == 9
    assert (result.resumed_from, result.final_loss) == (3, unbroken.final_loss)
    assert not list(RunFolder(result.run_dir).checkpoints.folder.glob(".*"))


def test_checkpoints_are_told_on_the_thread_that_trains_and_no_thread_is_left(make_trainer, data):
    notes, before = Notes(), threading.enumerate()
    settings = {"save_every": 2, "save_minutes": 0, "max_steps": 8, **EVEN}
    make_trainer(callbacks=[notes], **settings).train(data.train)

    assert [step for step, *_ in notes.told] == [0, 2, 4, 6, 8]
    assert {thread for *_, thread in notes.told} == {threading.main_thread()}
    assert threading.enumerate() == before


def test_an_error_waits_for_the_writer(make_trainer, data, disk):
    def fail(run):
        threading.Timer(0.3, disk.is_free.set).start()
        raise ValueError("on purpose")

    actions = At({4: lambda run: disk.is_free.clear(), 5: fail})
    trainer = make_trainer(run_name="r", callbacks=[actions], save_every=4, **EVEN)
    with pytest.raises(ValueError, match="on purpose"):
        trainer.train(data.train)

    store = RunFolder(f"{trainer.training_config.output_dir}/r").checkpoints
    assert store.steps() == [4, 5]  # what failed was beside the step, so its state is kept too


@pytest.mark.parametrize("command", ["SAVE", "PAUSE"])
def test_a_command_is_done_when_its_checkpoint_is_durable(make_trainer, data, command):
    seen = []

    class Look(Callback):
        def on_event(self, run, kind, message):
            if kind == "paused":
                seen.append(run.folder.checkpoints.steps())
                (run.folder.path / "PAUSE").unlink()

        def on_log(self, run, row):
            if row["step"] == 5:
                run.control._next_look = 0.0
                (run.folder.path / command).touch()
            if row["step"] == 6:
                seen.append(run.folder.checkpoints.steps())

    make_trainer(callbacks=[Look()]).train(data.train)

    assert seen[0] == [0, 5]


# Saver


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(CheckpointError("the disk is full"), id="ours"),
        pytest.param(MemoryError("no memory"), id="any other"),
    ],
)
def test_an_error_of_the_writer_is_told_between_two_steps(tmp_path, run, monkeypatch, error):
    def fail(*arguments):
        raise error

    saver = Saver(CheckpointStore(tmp_path))
    monkeypatch.setattr(saver.store, "write", fail)
    saver.save(run, take(run), is_background=True)
    saver.close(run)

    assert run.events == [("not saved", str(error))]


def test_what_cannot_be_copied_raises_where_it_is(tmp_path, run):
    saver = Saver(CheckpointStore(tmp_path))
    with pytest.raises(CheckpointError, match="cannot be written as JSON"):
        saver.save(run, lambda: Snapshot(1, {}, {"callbacks": object()}), is_background=True)


def test_a_best_checkpoint_that_is_on_disk_stays_until_the_next_best_is(tmp_path, run, monkeypatch):
    saver, real = Saver(CheckpointStore(tmp_path)), CheckpointStore.write
    run.config = run.config.replace(keep_checkpoints=1)

    def write(store, snapshot, *details):
        if snapshot.step == 3:
            raise CheckpointError("the disk is full")
        return real(store, snapshot, *details)

    monkeypatch.setattr(CheckpointStore, "write", write)
    for step, best in ((1, 1), (2, 1), (3, 3), (4, 3)):
        run.state.step, run.state.best_step = step, best
        saver.save(run, take(run), is_background=True)
    saver.close(run)
    before = saver.store.steps()
    run.state.step = run.state.best_step = 5
    saver.save(run, take(run), is_background=False)

    assert (before, saver.store.steps()) == ([1, 4], [5])


def test_saves_that_stop_the_training_for_too_long_are_put_off_and_this_is_told_once(
    tmp_path, run, monkeypatch
):
    """A step takes 1 s and a copy 0.5 s, so that every step would be 50 % of the time."""
    clock = Clock()
    saver = Saver(CheckpointStore(tmp_path), every=1, minutes=10, clock=clock)
    monkeypatch.setattr(saver.store, "retain", lambda *details: None)

    def slow_take():
        clock.now += 0.5
        return take(run)()

    saved = []
    for run.state.step in range(1, 2001):
        clock.now += 1.0
        if saver.is_due(run):
            saver.save(run, slow_take, is_background=True)
            saver.wait(run)
            saved.append(run.state.step)

    assert saved[:3] == [1, 2, 3]
    assert saver.stopped_s <= GRACE_S + SHARE * (clock.now - 1000)
    assert saver.stopped_s / (clock.now - 1000) < 0.02
    assert len(saved) > 50
    assert [kind for kind, _ in run.events] == ["saving less often"]


@pytest.mark.parametrize(
    ("every", "minutes", "saved"),
    [
        pytest.param(4, 0, [4, 8, 12, 16, 20], id="by steps"),
        pytest.param(0, 1, [6, 12, 18], id="by time"),
        pytest.param(4, 1, [4, 8, 12, 16, 20], id="steps come first"),
        pytest.param(9, 1, [6, 9, 15, 18], id="both"),
        pytest.param(0, 0, [], id="neither"),
    ],
)
def test_a_save_is_due_by_steps_or_by_time(tmp_path, run, every, minutes, saved):
    """A step takes 10 s."""
    clock, due = Clock(), []
    saver = Saver(CheckpointStore(tmp_path), every=every, minutes=minutes, clock=clock)
    for run.state.step in range(1, 21):
        clock.now += 10.0
        if saver.is_due(run):
            saver.save(run, take(run), is_background=True)
            saver.wait(run)
            due.append(run.state.step)

    assert due == saved


def test_a_writer_that_is_busy_for_long_stops_the_training_for_the_grace_alone(
    tmp_path, run, disk, monkeypatch
):
    monkeypatch.setattr("helpers.engine.saver.GRACE_S", 0.2)
    saver = Saver(CheckpointStore(tmp_path), every=1, minutes=10)
    disk.is_free.clear()
    saver.save(run, take(run), is_background=True)
    started = time.perf_counter()
    due = [saver.is_due(run) for run.state.step in range(1, 500)]
    passed = time.perf_counter() - started
    disk.is_free.set()
    saver.wait(run)

    assert not any(due) and passed < 1.0
    saver.stopped_s = 0.0
    assert saver.is_due(run)


# Memory


def test_buffers_are_used_again_and_share_nothing_with_the_state():
    buffers, weight = Buffers(), torch.arange(6.0).reshape(2, 3).t()
    first = buffers.copy({"model": {"w": weight}})["model"]["w"]
    weight += 1
    kept = first.clone()
    second = buffers.copy({"model": {"w": weight}})["model"]["w"]

    assert kept.tolist() == (weight - 1).tolist()
    assert second.tolist() == weight.tolist()
    assert first.data_ptr() == second.data_ptr() != weight.data_ptr()


@pytest.mark.parametrize(
    "changed",
    [torch.ones(4), torch.ones(3, dtype=torch.bfloat16), torch.ones(())],
    ids=["shape", "dtype", "number"],
)
def test_buffers_fit_a_tensor_that_has_changed(changed):
    buffers = Buffers()
    buffers.copy({"model": {"w": torch.zeros(3)}})
    copy = buffers.copy({"model": {"w": changed}, "none": {}})["model"]["w"]

    assert torch.equal(copy, changed) and copy.dtype == changed.dtype

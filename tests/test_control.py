"""A run obeys the files STOP, PAUSE, SAVE and FINISH in its folder, and loses no bit by it."""

import os
import signal
import threading

import pytest
import torch

from helpers.engine.callbacks import Callback
from helpers.engine.control import COMMANDS, ControlFiles
from helpers.engine.run_folder import RunFolder
from helpers.engine.stop import stop_on_signals

PEAK = 0.01
RUN = {"run_name": "r", "max_steps": 24, "dropout": 0.1, "save_every": 50, "save_minutes": 0.0}
LONG = RUN | {"max_steps": 200, "scheduler": "constant", "decay_fraction": 0.6}


class Killed(BaseException):
    """What no handler catches."""


class Outside(Callback):
    """Somebody at a terminal, who does something after a step, and something during a pause."""

    def __init__(self, at=(), on_pause=None):
        self.at, self.on, self.saved, self.left = dict(at), {"paused": on_pause}, [], None

    def on_start(self, run):
        run.control.look_every_s = 0.0

    def on_log(self, run, row):
        if row["step"] in self.at:
            act(run, self.at[row["step"]])

    def on_event(self, run, kind, message):
        if self.on.get(kind) is not None:
            act(run, self.on[kind])

    def on_checkpoint(self, run, info):
        self.saved.append(info.step)

    def on_end(self, run, status):
        self.left = {name for name in COMMANDS if (run.folder.path / name).exists()}


def act(run, what):
    """Touch files, or do something else."""
    if callable(what):
        what(run)
        return
    for name in what.split():
        (run.folder.path / name).touch()


def go_on(run):
    (run.folder.path / "PAUSE").unlink()


def kill(run):
    raise Killed


@pytest.fixture
def make(make_trainer):
    """Make a trainer of the run `r` with somebody outside."""

    def make(at=(), on_pause=None, *, settings=RUN, **changes):
        return make_trainer(callbacks=[Outside(at, on_pause)], **(settings | changes))

    return make


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rates(result) -> list[float]:
    """The learning rate of each step over its peak."""
    return (result.history["learning_rate"] / PEAK).tolist()


def told(result, kind) -> list[str]:
    return [message for _, k, message in result.events if k == kind]


def in_this_thread(call):
    return call()


def in_another_thread(call):
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join(60)
    return results[0]


THREADS = pytest.mark.parametrize("where", [in_this_thread, in_another_thread])


# The files


@pytest.mark.parametrize(
    ("names", "given"),
    [
        pytest.param([], [], id="none"),
        pytest.param(["STOP"], ["STOP"], id="one"),
        pytest.param(["stop", "Save"], ["SAVE", "STOP"], id="in any case"),
        pytest.param(["PAUSE", "STOP", "SAVE", "FINISH"], list(COMMANDS), id="in their order"),
        pytest.param(["stop", "STOP"], ["STOP"], id="twice"),
        pytest.param(["STOP.txt", "STOPPED", "QUIT", ".STOP"], [], id="other names"),
        pytest.param(["SAVE/"], ["SAVE"], id="an empty folder"),
    ],
)
def test_commands_are_found_and_removed(tmp_path, names, given):
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    control = ControlFiles(tmp_path)

    assert control.given() == given
    for name in given:
        control.done(name)
    assert (control.given(), control.notes) == ([], [])
    assert len(list(tmp_path.iterdir())) == (0 if given else len(names))


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path):
    folder, target = tmp_path / "r", tmp_path / "target"
    folder.mkdir()
    target.mkdir()
    (folder / "SAVE").symlink_to(target)
    ControlFiles(folder).done("SAVE")

    assert (list(folder.iterdir()), target.is_dir()) == ([], True)


def test_a_command_that_cannot_be_removed_counts_once_until_it_is_gone(tmp_path):
    inner = tmp_path / "SAVE" / "something"
    inner.mkdir(parents=True)
    control = ControlFiles(tmp_path)
    control.done("SAVE")

    assert control.given() == []
    assert "SAVE cannot be removed" in control.notes[0]
    inner.rmdir()
    inner.parent.rmdir()
    assert control.given() == []
    (tmp_path / "SAVE").touch()
    assert control.given() == ["SAVE"]


def test_between_two_looks_nothing_is_read(tmp_path):
    control = ControlFiles(tmp_path, look_every_s=100.0)
    first = control.read()
    (tmp_path / "STOP").touch()

    assert (first, control.read(), control.given()) == ([], [], ["STOP"])


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_is_none_holds_no_commands(tmp_path, kind):
    if kind == "file":
        (tmp_path / "r").touch()
    control = ControlFiles.from_now(tmp_path / "r")

    assert (control.given(), control.notes) == ([], [])


# Runs


@THREADS
def test_stop_pauses_after_the_step_and_the_run_goes_on_bit_by_bit(make, data, where):
    unbroken = make(run_name="unbroken")
    unbroken.train(data.train)
    first = make({7: "STOP"})
    paused = where(lambda: first.train(data.train))
    second = make()
    result = where(lambda: second.train(data.train))

    assert (paused.status, paused.steps, first.callbacks[0].left) == ("paused", 7, set())
    assert told(paused, "stopping") == ["the file STOP is there"]
    assert (result.status, result.resumed_from) == ("completed", 7)
    assert same(weights(second), weights(unbroken))


@THREADS
def test_save_saves_at_once_and_the_run_goes_on(make, data, where):
    unbroken, trainer = make(run_name="unbroken"), make({7: "SAVE", 9: "SAVE"})
    unbroken.train(data.train)
    result = where(lambda: trainer.train(data.train))
    outside = trainer.callbacks[0]

    assert (result.status, outside.left) == ("completed", set())
    assert {7, 9} <= set(outside.saved)
    assert same(weights(trainer), weights(unbroken))


@THREADS
def test_pause_saves_and_waits_and_goes_on_bit_by_bit(make, data, where):
    unbroken, trainer = make(run_name="unbroken"), make({7: "PAUSE"}, go_on)
    unbroken.train(data.train)
    result = where(lambda: trainer.train(data.train))

    assert 7 in trainer.callbacks[0].saved
    assert told(result, "paused") == ["the file PAUSE is there; remove it to go on"]
    assert told(result, "goes on") == ["the file PAUSE is gone"]
    assert result.status == "completed"
    assert same(weights(trainer), weights(unbroken))


@pytest.mark.parametrize(
    ("on_pause", "why"),
    [
        pytest.param("STOP", "asked to stop", id="STOP"),
        pytest.param(lambda run: run.stop.set("test"), "asked to stop", id="a call"),
        pytest.param(
            lambda run: os.kill(os.getpid(), signal.SIGINT), "asked to stop", id="an interrupt"
        ),
    ],
)
def test_a_stop_ends_a_pause_without_another_step(make, data, on_pause, why):
    trainer = make({7: "PAUSE"}, on_pause)
    result = trainer.train(data.train)
    again = make().train(data.train)

    assert (result.status, result.steps) == ("paused", 7)
    assert told(result, "goes on") == [why]
    assert (again.status, again.resumed_from) == ("completed", 7)
    assert "PAUSE was there before" in told(again, "control file")[0]


def test_commands_are_carried_out_during_a_pause(make, data):
    def finish_and_go_on(run):
        act(run, "FINISH")
        run.callbacks[0].on["finishing"] = go_on

    result = make({20: "PAUSE"}, finish_and_go_on, settings=LONG).train(data.train)

    assert (result.status, result.steps) == ("completed", 22)
    assert told(result, "finishing") == ["cooling down over 2 updates"]


def test_all_commands_at_once_finish_later_and_stop_now(make, data):
    first = make({20: "PAUSE STOP SAVE FINISH"}, settings=LONG)
    paused = first.train(data.train)
    result = make(settings=LONG).train(data.train)

    assert (paused.status, paused.steps, first.callbacks[0].left) == ("paused", 20, {"PAUSE"})
    assert (result.status, result.steps) == ("completed", 22)


def test_a_pause_takes_no_part_of_a_budget(make, data):
    def rest(run):
        clock = run.budget.clock
        run.budget.clock = lambda: clock() + 1e6
        go_on(run)

    result = make({7: "PAUSE"}, rest, budget="5h").train(data.train)

    assert (result.status, result.steps) == ("completed", 24)


def test_a_pause_with_other_commands_is_no_time_of_training(make, data):
    def save_and_wait(run):
        act(run, "SAVE")
        threading.Timer(1.0, go_on, [run]).start()

    result = make({7: "PAUSE"}, save_and_wait).train(data.train)

    assert result.training_time < 0.9


def test_a_time_of_day_does_not_wait_for_a_pause(make, data):
    def rest(run):
        clock = run.budget.clock
        run.budget.clock = lambda: clock() + 1e6

    trainer = make({7: "PAUSE"}, rest, finish_by="21:30")
    result = trainer.train(data.train)

    assert (result.status, result.steps) == ("completed", 7)
    assert told(result, "goes on") == ["its time is over"]
    assert "longer than it had" in told(result, "time")[-1]


# Finish now


@THREADS
def test_finish_cools_down_over_a_tenth_of_the_steps_and_completes(make, data, where):
    trainer = make({40: "FINISH"}, settings=LONG)
    result = where(lambda: trainer.train(data.train, data.val))

    assert (result.status, result.steps, trainer.callbacks[0].left) == ("completed", 44, set())
    assert rates(result)[40:] == pytest.approx([1.0, 0.755, 0.51, 0.265], abs=0.01)
    assert result.final_metrics["loss"] > 0
    assert (RunFolder(result.run_dir).model_file).exists()


def test_a_command_that_lies_in_a_complete_run_is_told(make, data, tmp_path):
    make().train(data.train)
    (tmp_path / "runs" / "r" / "STOP").touch()
    trainer, seen = make(), []
    trainer.callbacks[0].on["control file"] = seen.append
    trainer.train(data.train)

    assert len(seen) == 1


def test_a_run_that_finished_is_found_complete(make, data):
    make({40: "FINISH"}, settings=LONG).train(data.train)
    again = make(settings=LONG).train(data.train)

    assert (again.status, again.steps, again.resumed_from) == ("completed", 44, 44)


@pytest.mark.parametrize(
    ("at", "steps"),
    [
        pytest.param({40: "FINISH", 42: "FINISH"}, 44, id="twice"),
        pytest.param({41: "FINISH"}, 46, id="rounded up"),
        pytest.param({1: "FINISH"}, 2, id="after one step"),
        pytest.param({198: "FINISH"}, 200, id="near the end"),
        pytest.param({200: "FINISH"}, 200, id="at the end"),
    ],
)
def test_the_first_finish_decides_and_the_steps_stay_the_limit(make, data, at, steps):
    trainer = make(at, settings=LONG)
    result = trainer.train(data.train)

    assert (result.status, result.steps, trainer.callbacks[0].left) == ("completed", steps, set())


def test_a_run_that_ended_leaves_no_finish_behind(make, data):
    def finish_unseen(run):
        act(run, "FINISH")
        run.control.look_every_s = run.control._next_look = float("inf")

    result = make({20: finish_unseen}).train(data.train)

    assert result.status == "completed"
    assert "FINISH" not in os.listdir(result.run_dir)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"scheduler": "constant"}, id="constant"),
        pytest.param({"scheduler": "wsd", "warmup_fraction": 0.4}, id="in the warm-up"),
        pytest.param({"scheduler": "wsd", "decay_fraction": 0.9}, id="on the way down"),
        pytest.param({"scheduler": "cosine"}, id="cosine"),
    ],
)
def test_the_learning_rate_only_falls_from_there(make, data, changes):
    result = make({50: "FINISH"}, settings=LONG, **changes).train(data.train)
    found = rates(result)[49:]

    assert result.steps == 55
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.3


def test_a_finish_may_be_asked_for_by_a_callback(make, data):
    result = make({40: lambda run: run.finish_soon(0.25)}, settings=LONG).train(data.train)

    assert (result.status, result.steps) == ("completed", 50)


@pytest.mark.parametrize("n_stops", [1, 3])
def test_a_finish_goes_on_after_a_stop_bit_by_bit(make, data, n_stops):
    unbroken = make({40: "FINISH"}, settings=LONG, run_name="unbroken")
    expected = unbroken.train(data.train, data.val)
    make({40: "FINISH", 41: "STOP"}, settings=LONG).train(data.train, data.val)
    for k in range(1, n_stops):
        make({41 + k: "STOP"}, settings=LONG).train(data.train, data.val)
    trainer = make(settings=LONG)
    result = trainer.train(data.train, data.val)

    assert (result.resumed_from, result.steps) == (40 + n_stops, expected.steps)
    assert rates(result) == rates(expected)
    assert same(weights(trainer), weights(unbroken))


@pytest.mark.parametrize(
    ("save_every", "steps"),
    [
        pytest.param(50, 44, id="as it is"),
        pytest.param(0, 200, id="without a save at the command, the test is red"),
    ],
)
def test_a_finish_outlives_the_process(make, data, save_every, steps):
    trainer = make({40: "FINISH", 42: kill}, settings=LONG, save_every=save_every)
    with pytest.raises(Killed):
        trainer.train(data.train)
    result = make(settings=LONG, save_every=save_every).train(data.train)

    assert (result.status, result.steps) == ("completed", steps)


def test_a_finish_at_a_step_that_was_just_saved_outlives_the_process(make, data):
    trainer = make({50: "FINISH", 52: kill}, settings=LONG)
    with pytest.raises(Killed):
        trainer.train(data.train)
    result = make(settings=LONG).train(data.train)

    assert trainer.callbacks[0].saved == [0, 50, 51]
    assert (result.resumed_from, result.steps) == (51, 55)


# Commands from before


@pytest.mark.parametrize(
    ("name", "session"),
    [*[(name, "first") for name in (*COMMANDS, "stop")], ("STOP", "resumed"), ("STOP", "must")],
)
def test_what_lay_there_before_a_session_is_removed_and_told(make, data, tmp_path, name, session):
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    if session != "first":
        make({5: "STOP"}).train(data.train)
    (folder / name).touch()
    result = make(resume="must" if session == "must" else "auto").train(data.train)

    assert (result.status, result.steps) == ("completed", 24)
    assert f"the file {name.upper()} was there before" in told(result, "control file")[0]
    assert not (folder / name).exists()


def test_without_that_an_old_stop_would_stop_the_next_session(make, data, tmp_path, monkeypatch):
    monkeypatch.setattr(ControlFiles, "from_now", ControlFiles)
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    (folder / "STOP").touch()
    result = make().train(data.train)

    assert (result.status, result.steps) == ("paused", 1)


def test_a_command_that_cannot_be_removed_is_carried_out_once_and_told(make, data):
    def hold(run):
        (run.folder.path / "SAVE" / "inside").mkdir(parents=True)

    trainer = make({7: hold}, settings=LONG, max_steps=24)
    result = trainer.train(data.train)

    assert trainer.callbacks[0].saved == [0, 7, 24]
    assert "SAVE cannot be removed" in told(result, "control file")[0]
    assert result.status == "completed"


def test_one_from_before_that_cannot_be_removed_is_let_lie(make, data, tmp_path):
    (tmp_path / "runs" / "r" / "STOP" / "inside").mkdir(parents=True)
    result = make().train(data.train)

    assert (result.status, result.steps) == ("completed", 24)
    assert "STOP cannot be removed" in told(result, "control file")[1]


def test_a_run_folder_that_is_moved_away_ends_no_run(make, data):
    def move(run):
        run.folder.path.rename(run.folder.path.with_name("elsewhere"))

    assert make({7: move}).train(data.train).status == "completed"


def test_the_first_interrupt_after_a_stop_by_file_does_not_break_the_step_off():
    with stop_on_signals() as stop:
        stop.set("stopped by the file STOP")
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    assert stop.reason == "stopped by the file STOP"

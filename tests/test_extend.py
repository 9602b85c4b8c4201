"""A schedule changes through `extend` alone, on record, and a crash in between loses nothing."""

import contextlib
import json
import shutil
import time
from pathlib import Path

import pytest
import torch

from helpers.engine import extend
from helpers.engine import pull_back as pull_back_module
from helpers.engine.callbacks import Callback
from helpers.engine.checkpoint import CheckpointStore
from helpers.engine.run_folder import RunFolder, read_json
from helpers.errors import CheckpointError, ConfigError, RunFolderError

# wsd with decay_fraction 0.5: the way down of 12 steps begins at step 6.
SETTINGS = {"save_every": 5, "decay_fraction": 0.5, "dropout": 0.1, "save_minutes": 0.0}


class Stop(Callback):
    """Stop after a step, or do something else with the run there."""

    def __init__(self, step, act=None):
        self.step, self.act = step, act or (lambda run: run.stop.set("test"))

    def on_log(self, run, row):
        if row["step"] == self.step:
            self.act(run)


@pytest.fixture
def make(make_trainer):
    """Make a trainer of the run `r`."""
    return lambda **changes: make_trainer(**({"run_name": "r"} | SETTINGS | changes))


def folder_of(trainer) -> RunFolder:
    return RunFolder(Path(trainer.training_config.output_dir) / "r")


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def told(result, kind: str) -> list[str]:
    return [message for _, k, message in result.events if k == kind]


def rates(result) -> list[float]:
    return result.history["learning_rate"].tolist()


def test_an_extended_run_equals_one_that_never_was_shorter(make, make_trainer, data):
    """With wsd all before the way down is the same, so the run goes on from there."""
    make().train(data.train, data.val)
    trainer = make()
    result = trainer.extend(data.train, data.val, max_steps=24)
    longer = make_trainer(**SETTINGS, max_steps=24, warmup_fraction=0.025, run_name="longer")
    expected = longer.train(data.train, data.val)

    assert (result.resumed_from, result.steps, result.status) == (6, 24, "completed")
    assert same(weights(trainer), weights(longer))
    assert rates(result) == rates(expected)
    assert result.final_metrics == expected.final_metrics


def test_a_shorter_run_keeps_as_much_of_its_warm_up_as_there_is_room_for(make, data):
    settings = {"max_steps": 40, "warmup_fraction": 0.4, "decay_fraction": 0.6}
    make(**settings, callbacks=[Stop(2)]).train(data.train)
    result = make(**settings).extend(data.train, max_steps=24)

    assert (result.status, result.steps) == ("completed", 24)


def test_what_came_after_is_set_aside_and_nothing_is_lost(make, data):
    trainer = make()
    short = trainer.train(data.train, data.val)
    before = weights(trainer)
    result = trainer.extend(data.train, data.val, max_steps=24)
    folder = folder_of(trainer)
    place = extend.aside(folder, 1)

    assert same(CheckpointStore(place).load(12).sections["model"], before)
    assert read_json(place / "result.json")["final_metrics"] == short.final_metrics
    assert {"final_model.pt", "metrics.jsonl"} <= {path.name for path in place.iterdir()}
    assert min(folder.checkpoints.steps()) > 6
    assert "before-extension-1" in told(result, "extended")[0]


def test_the_change_is_on_record(make, data):
    make().train(data.train)
    trainer = make(database="auto")
    result = trainer.extend(data.train, max_steps=24)
    folder = folder_of(trainer)
    changes = {"max_steps": [12, 24], "warmup_fraction": [0.025, 0.5 / 24]}

    entry = {"from_step": 6, "last_step": 12, "settings": changes}
    assert folder.read_identity()["extensions"] == [entry]
    assert read_json(folder.config_file)["max_steps"] == 24
    assert folder.checkpoints.load(24).state["identity"]["extensions"] == [entry]
    assert "max_steps 12 -> 24" in told(result, "extended")[0]


def test_the_trainer_keeps_the_new_schedule_and_asking_again_continues(make, data):
    make().train(data.train)
    paused = make()
    paused.callbacks = [Stop(15)]
    first = paused.extend(data.train, max_steps=24)
    again = make()
    second = again.extend(data.train, max_steps=24)
    third = again.train(data.train)

    assert (first.status, first.steps, paused.training_config.max_steps) == ("paused", 15, 24)
    assert (second.status, second.resumed_from) == ("completed", 15)
    assert (third.status, third.resumed_from) == ("completed", 24)
    assert told(second, "extended") == told(third, "extended") == []
    assert len(folder_of(again).read_identity()["extensions"]) == 1


def test_a_run_is_extended_twice(make, make_trainer, data):
    make().train(data.train)
    make().extend(data.train, max_steps=18)
    trainer = make()
    result = trainer.extend(data.train, max_steps=30)
    longer = make_trainer(**SETTINGS, max_steps=30, warmup_fraction=0.02, run_name="longer")
    longer.train(data.train)

    assert (result.resumed_from, result.steps) == (9, 30)
    assert same(weights(trainer), weights(longer))
    assert len(folder_of(trainer).read_identity()["extensions"]) == 2


def test_a_paused_run_before_its_way_down_goes_on_from_where_it_is(make, data):
    paused = make()
    paused.callbacks = [Stop(4)]
    paused.train(data.train)
    result = make().extend(data.train, max_steps=24)

    assert result.resumed_from == 4
    assert "its last step 4" in told(result, "extended")[0]
    assert not extend.aside(folder_of(paused), 1).exists()


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"save_every": 0}, id="no checkpoint before the way down"),
        pytest.param({"scheduler": "cosine", "decay_fraction": 0.6}, id="cosine"),
        pytest.param({"scheduler": "linear", "decay_fraction": 0.6}, id="linear"),
        pytest.param({"scheduler": "constant", "decay_fraction": 0.6}, id="constant"),
    ],
)
def test_else_a_run_goes_on_from_its_last_step_and_says_so(make, data, settings):
    make(**settings).train(data.train)
    result = make(**settings).extend(data.train, max_steps=24)

    assert (result.resumed_from, result.steps) == (12, 24)
    assert "its last step 12" in told(result, "extended")[0]
    assert (extend.aside(RunFolder(result.run_dir), 1) / "result.json").exists()


def test_a_damaged_checkpoint_before_the_way_down_is_passed_over(make, data):
    trainer = make()
    trainer.train(data.train)
    (folder_of(trainer).checkpoints.path(6) / "state.json").write_text("{}")
    result = make(keep_checkpoints=1).extend(data.train, max_steps=24)

    assert result.resumed_from == 12


def test_the_checkpoint_before_the_way_down_stays(make, data):
    trainer = make(save_every=1, keep_checkpoints=1)
    trainer.train(data.train)

    assert folder_of(trainer).checkpoints.steps() == [6, 12]


def test_a_run_that_was_asked_to_finish_can_be_extended(make, data):
    trainer = make(scheduler="constant", decay_fraction=0.6, save_every=20)
    trainer.callbacks = [Stop(5, lambda run: (run.folder.path / "FINISH").touch())]
    trainer.training_config = trainer.training_config.replace(max_steps=200)
    short = trainer.train(data.train)
    result = trainer.extend(data.train, max_steps=short.steps + 6)
    learning_rate = trainer.training_config.learning_rate

    assert short.steps < 200
    assert result.steps == short.steps + 6
    assert rates(result)[-6:] == [learning_rate] * 6


@pytest.mark.parametrize(("n", "epochs"), [(10, (1.0, 3.0)), (12, (2.0, 2.5)), (7, (1.0, 2.0))])
def test_epochs_are_extended_to_the_sample(make, n, epochs):
    """Also after an end with a part of a batch."""
    ids = torch.arange(n * 9).reshape(n, 9) % 257
    samples = [{"input_ids": row[:-1], "labels": row[1:]} for row in ids]
    settings = {"max_steps": 0, "save_every": 0}
    make(epochs=epochs[0], **settings).train(samples)
    trainer = make(epochs=epochs[0], **settings)
    result = trainer.extend(samples, epochs=epochs[1])
    state = folder_of(trainer).checkpoints.load_latest().state["run"]

    assert state["samples"] == round(epochs[1] * n)
    assert result.status == "completed"


def test_a_run_that_stopped_early_goes_on(make, data):
    early = {"eval_every": 2, "early_stopping_patience": 2, "early_stopping_min_delta": 9.0}
    stopped = make(**early).train(data.train, data.val)
    result = make(**early).extend(data.train, data.val, max_steps=24)

    assert (stopped.status, stopped.steps) == ("stopped_early", 6)
    assert result.steps > 6


def test_a_warm_up_that_is_over_does_not_begin_again(make, data):
    settings = {"warmup_fraction": 0.25, "max_steps": 12}
    make(**settings).train(data.train)
    result = make(**settings).extend(data.train, max_steps=120)

    assert rates(result)[:4] == pytest.approx([0.01 / 3, 0.02 / 3, 0.01, 0.01])
    assert rates(result)[6:60] == [0.01] * 54


# What is refused


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        pytest.param({}, ConfigError, "nothing was to be changed", id="nothing"),
        pytest.param({"seed": 1}, ConfigError, "seed was to be changed", id="no schedule"),
        pytest.param({"max_steps": 6}, CheckpointError, "has done 12 steps", id="too short"),
        pytest.param({"max_steps": -1}, ConfigError, "max_steps is -1", id="impossible"),
        pytest.param(
            {"max_steps": 24, "epochs": 2.0}, ConfigError, "one of them decides", id="two lengths"
        ),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_the_run(make, data, changes, error, says):
    trainer = make()
    trainer.train(data.train)
    before = trainer.training_config, folder_of(trainer).read_identity()
    with pytest.raises(error, match=says):
        trainer.extend(data.train, **changes)

    assert (trainer.training_config, folder_of(trainer).read_identity()) == before
    assert trainer.train(data.train).status == "completed"


def test_a_run_that_is_not_there_is_refused(make, data):
    with pytest.raises(CheckpointError, match="There is no run other"):
        make().extend(data.train, run_id="other", max_steps=24)

    assert not folder_of(make()).path.with_name("other").exists()


def test_other_settings_are_refused_with_the_difference_and_nothing_is_recorded(make, data):
    make().train(data.train)
    trainer = make(learning_rate=0.02)
    with pytest.raises(CheckpointError, match=r"learning_rate: was 0\.01, is 0\.02"):
        trainer.extend(data.train, max_steps=24)

    assert "extensions" not in folder_of(trainer).read_identity()


def test_a_changed_schedule_without_extend_is_refused_with_the_call_to_make(make, data):
    make().train(data.train)
    with pytest.raises(CheckpointError, match=r"extend\(..., run_id='r', max_steps=24\)"):
        make(max_steps=24).train(data.train)
    make().extend(data.train, max_steps=24)
    with pytest.raises(CheckpointError, match=r"extend\(..., run_id='r', max_steps=12\)"):
        make().train(data.train)


# Crashes


class Killed(BaseException):
    """What no handler catches."""


@pytest.mark.parametrize("name", ["write_identity", "replace", "replace_file", "sync_folder"])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_crash_at_any_moment_leaves_the_run_or_the_extended_run(
    make, make_trainer, data, monkeypatch, name, nth
):
    make().train(data.train, data.val)
    owners = {"write_identity": RunFolder, "replace": extend.os}
    owner, calls = owners.get(name, extend), []
    real = getattr(owner, name)

    def die(*args, **named):
        calls.append(1)
        if len(calls) == nth:
            raise Killed
        return real(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        with contextlib.suppress(Killed):
            make().extend(data.train, data.val, max_steps=24)
    trainer = make()
    result = trainer.extend(data.train, data.val, max_steps=24)
    longer = make_trainer(**SETTINGS, max_steps=24, warmup_fraction=0.025, run_name="longer")
    longer.train(data.train, data.val)

    assert (result.status, result.steps) == ("completed", 24)
    assert same(weights(trainer), weights(longer))


def test_a_lost_run_file_is_made_up_for_from_the_checkpoints(make, data):
    make().train(data.train)
    first = make().extend(data.train, max_steps=24)
    file = RunFolder(first.run_dir).run_file
    known = json.loads(file.read_text())
    file.unlink()
    again = make().extend(data.train, max_steps=24)

    assert again.resumed_from == 24
    assert json.loads(file.read_text()) == known


def test_an_extended_run_goes_on_from_its_mirror_on_a_new_machine(make, data, tmp_path):
    mirror = {"mirror_dir": str(tmp_path / "drive")}
    make(**mirror).train(data.train)
    paused = make(**mirror)
    paused.callbacks = [Stop(16)]
    paused.extend(data.train, max_steps=24)
    shutil.rmtree(folder_of(paused).path)
    trainer = make(**mirror)
    result = trainer.extend(data.train, max_steps=24)
    alone = make(run_name="alone", max_steps=24)
    alone.train(data.train)

    assert (result.resumed_from, result.steps) == (16, 24)
    assert same(weights(trainer), weights(alone))


@pytest.mark.parametrize("run_id", ["../elsewhere", "/tmp", ".", "a/b"])
def test_a_run_lies_below_its_output_dir(make, data, tmp_path, run_id):
    other = tmp_path / "elsewhere" / ".note.tmp"
    other.parent.mkdir()
    other.touch()
    with pytest.raises(ConfigError, match="run_name is"):
        make().extend(data.train, run_id=run_id, max_steps=24)

    assert [path.name for path in other.parent.iterdir()] == [".note.tmp"]


def test_a_folder_of_something_else_is_no_run(make, data, tmp_path):
    other = tmp_path / "runs" / "x" / ".note.tmp"
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(CheckpointError, match="no run x"):
        make().extend(data.train, run_id="x", max_steps=24)

    assert [path.name for path in other.parent.iterdir()] == [".note.tmp"]


def test_an_extension_that_cannot_be_written_leaves_the_trainer_as_it_was(make, data, monkeypatch):
    make().train(data.train)
    trainer, before = make(), make().training_config

    def refuse(*_):
        raise OSError(28, "full")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_identity", refuse)
        with pytest.raises(RunFolderError, match="full"):
            trainer.extend(data.train, max_steps=24)

    assert trainer.training_config == before
    assert trainer.train(data.train).status == "completed"


def test_nothing_is_decided_while_the_mirror_cannot_be_read(make, data, tmp_path, monkeypatch):
    mirror = {"mirror_dir": str(tmp_path / "drive")}
    make(**mirror).train(data.train)
    trainer, before = make(**mirror), make(**mirror).training_config
    recorded = folder_of(trainer).read_identity()
    with monkeypatch.context() as patch:
        patch.setattr(pull_back_module, "STALL_S", 0.0)
        patch.setattr(pull_back_module, "check_place", lambda place: time.sleep(1.0))
        with pytest.raises(CheckpointError, match=r"could not be read as a whole .*given up"):
            trainer.extend(data.train, max_steps=24)

    assert (trainer.training_config, folder_of(trainer).read_identity()) == (before, recorded)
    assert trainer.extend(data.train, max_steps=24).steps == 24

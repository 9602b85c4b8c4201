"""A run folder that fails under a run: the steps done are never lost with it."""

import shutil
from pathlib import Path

import pytest

from helpers.engine.callbacks import Callback
from helpers.errors import CheckpointError

SETTINGS = {"run_name": "r", "save_every": 4, "save_minutes": 0}


class Strike(Callback):
    """Do something to the run's folder after a step, and keep what is told."""

    def __init__(self, step: int, action):
        self.step, self.action, self.told = step, action, []

    def on_log(self, run, row):
        if row["step"] == self.step:
            run.saver.wait(run)
            self.action(run.folder)

    def on_event(self, run, kind, message):
        self.told.append((kind, message))


def block(folder):
    """As root no folder is read-only, so one that cannot be written is made of a file."""
    shutil.rmtree(folder.checkpoints.folder)
    folder.checkpoints.folder.write_text("in the way")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


def test_steps_that_cannot_be_saved_in_the_folder_are_saved_elsewhere(
    make_trainer, data, tmp_path, temporary
):
    expected = make_trainer(run_name="whole").train(data.train).final_loss
    strike = Strike(6, block)
    with pytest.raises(CheckpointError, match="could not be written"):
        make_trainer(callbacks=[strike], **SETTINGS).train(data.train)
    saved = next(temporary.glob("r-*/step-000000012"))
    words = dict(strike.told)["saved elsewhere"]
    place = tmp_path / "runs" / "r" / "checkpoints"
    place.unlink()
    place.mkdir()
    shutil.move(saved, place)
    result = make_trainer(**SETTINGS).train(data.train)

    assert str(saved) in words
    assert str(place) in words
    assert (result.status, result.resumed_from, result.final_loss) == ("completed", 12, expected)


def test_where_nothing_can_be_written_that_is_said(make_trainer, data, temporary, monkeypatch):
    strike = Strike(6, lambda folder: (block(folder), shutil.rmtree(temporary)))
    with pytest.raises(CheckpointError, match="could not be written"):
        make_trainer(callbacks=[strike], **SETTINGS).train(data.train)

    assert "nor can a temporary folder" in dict(strike.told)["not saved"]


def test_a_run_folder_that_is_deleted_does_not_end_the_run(make_trainer, data):
    expected = make_trainer(run_name="whole").train(data.train).final_loss
    strike = Strike(6, lambda folder: shutil.rmtree(folder.path))
    result = make_trainer(callbacks=[strike], **SETTINGS).train(data.train)

    assert (result.status, result.final_loss) == ("completed", expected)
    assert Path(result.checkpoint_path).is_dir()
    assert Path(result.run_dir, "final_model.pt").is_file()

"""Files that a released version wrote open in this one, and mean the same."""

import json
import math
import shutil
import time
from contextlib import closing
from pathlib import Path

import pytest

from helpers.config import TrainingConfig
from helpers.engine.checkpoint import CheckpointStore
from helpers.engine.metrics import read_rows
from helpers.engine.snapshot import SECTIONS, VALUES
from helpers.errors import CheckpointError
from helpers.export import load_export
from helpers.tracking import ExperimentDB
from tests import released
from tests.faults.scale import record

WRITTEN = Path(released.__file__).parent / "written"
VERSIONS = pytest.mark.parametrize("version", sorted(path.name for path in WRITTEN.iterdir()))


@pytest.fixture
def copy(tmp_path):
    def make(version: str) -> Path:
        return shutil.copytree(WRITTEN / version, tmp_path / version) / "halfway"

    return make


def test_runs_of_released_versions_go_on_as_if_unbroken(copy):
    began, versions = time.monotonic(), sorted(path.name for path in WRITTEN.iterdir())
    for version in versions:
        folder = copy(version)
        result = released.train(folder.parent)
        expected = json.loads((folder.parent / "expected.json").read_text())
        rows = read_rows(folder / "metrics.jsonl")
        losses = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
        assert (result.status, result.steps) == ("completed", 12)
        assert losses.keys() == {int(step) for step in expected}
        assert all(math.isclose(losses[int(s)], e, rel_tol=1e-5) for s, e in expected.items())
    record(
        "old_runs",
        "A run that an earlier version left halfway goes on to its end with the losses that the "
        "version itself would have had.",
        {"versions": len(versions), "losses that differ": 0},
        command="python -m pytest tests/test_released.py",
        seed=0,
        seconds=time.monotonic() - began,
    )


@VERSIONS
def test_settings_of_a_released_version_load(copy, version):
    config = TrainingConfig.load(copy(version) / "config.json")

    assert {name: getattr(config, name) for name in released.SETTINGS} == released.SETTINGS


@VERSIONS
def test_a_run_of_a_released_version_comes_into_a_new_database(copy, version, tmp_path):
    folder = copy(version)

    with closing(ExperimentDB(tmp_path / "new.db")) as db:
        db.rebuild(folder.parent)
        recorded = db.metrics("halfway")

    assert recorded.index.max() == 6


@VERSIONS
def test_a_model_that_a_released_version_exported_loads(version):
    saved = load_export(WRITTEN / version / "final_model.pt")
    model = released.Net()
    model.load_state_dict(saved["model_state_dict"])

    assert saved["training_config"]["max_steps"] == 12
    assert saved["results"]["status"] == "completed"


def test_the_newest_files_are_those_of_this_version(tmp_path):
    """A change of the format needs another folder: `python -m tests.released FOLDER`."""
    released.train(tmp_path, released.Halfway())

    now = CheckpointStore(tmp_path / "halfway" / "checkpoints").load(6)
    newest = sorted(WRITTEN.iterdir())[0]
    kept = CheckpointStore(newest / "halfway" / "checkpoints").load(6)

    assert kept.sections.keys() == now.sections.keys() == SECTIONS
    assert kept.state.keys() == now.state.keys() == VALUES
    assert kept.state["run"].keys() == now.state["run"].keys()


@pytest.mark.parametrize("part", ["run", "state"])
def test_a_checkpoint_of_a_later_version_is_refused_by_name(copy, part):
    store = CheckpointStore(copy("0.1.0") / "checkpoints")
    snapshot = store.load(6)
    (snapshot.state["run"] if part == "run" else snapshot.state)["mood"] = 1
    store.discard_after(5)
    store.save(snapshot, keep=1)

    with pytest.raises(CheckpointError, match=r"mood.*Use the version of the suite that wrote it"):
        released.train(store.folder.parents[1])

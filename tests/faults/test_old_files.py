"""Files of earlier versions: what a version has written, all later ones read.

`data` holds one of each format, as its version wrote it; none of them is ever made anew.
"""

import json
import shutil
import time
from pathlib import Path

import pytest

from helpers.config import TrainingConfig
from helpers.engine import manifest
from helpers.engine.checkpoint import CheckpointStore
from helpers.errors import CheckpointFormatError
from helpers.tracking import ExperimentDB, schema
from tests.faults.checkpoints import is_as_saved
from tests.faults.scale import record
from tests.faults.test_database_schema import check_old_content, old_database

DATA = Path(__file__).parent / "data"
WIDTH = 2


def read_checkpoint(version: int, place: Path) -> None:
    shutil.copytree(DATA / f"checkpoint_v{version}", place / "checkpoints")
    store = CheckpointStore(place / "checkpoints")
    assert is_as_saved(store.load_latest(), WIDTH)
    assert store.notes == []


def read_settings(version: int, place: Path) -> None:
    path = DATA / f"config_v{version}.json"
    written = json.loads(path.read_text())
    read = TrainingConfig.load(path)
    own = {name for name in written if name in TrainingConfig.model_fields}
    assert {name: read.to_dict()[name] for name in own} == {name: written[name] for name in own}
    assert TrainingConfig.load(read.save(place / "config.json")) == read


def read_database(version: int, place: Path) -> None:
    with ExperimentDB(old_database(place / "experiments.db")) as database:
        check_old_content(database)


# By kind: how a file is read, and the version that is written now.
KINDS = {
    "checkpoint": (read_checkpoint, manifest.FORMAT),
    "config": (read_settings, 1),
    "database": (read_database, schema.SCHEMA_VERSION),
}


def kept(kind: str) -> list[int]:
    """The versions of which there is a file."""
    return sorted(int(path.stem.rpartition("_v")[2]) for path in DATA.glob(f"{kind}_v*"))


def test_files_of_every_earlier_version_are_read_as_they_were_written(tmp_path):
    began, n_read = time.monotonic(), {}
    for kind, (read, _) in KINDS.items():
        for version in kept(kind):
            place = tmp_path / f"{kind} {version}"
            place.mkdir()
            read(version, place)
        n_read[kind] = len(kept(kind))

    # Of the version that is written now, a database is made by all other tests.
    assert kept("checkpoint") == list(range(1, manifest.FORMAT + 1))
    assert kept("database") == list(range(1, schema.SCHEMA_VERSION))
    record(
        "old_files",
        "A checkpoint, settings and a database of runs that an earlier version wrote are read as "
        "they were written.",
        {f"formats of a {kind}": count for kind, count in n_read.items()},
        command="python -m pytest tests/faults/test_old_files.py",
        seed=0,
        seconds=time.monotonic() - began,
    )


def test_a_checkpoint_of_another_format_is_refused_and_not_called_damaged(tmp_path, monkeypatch):
    """The control: what reads it is the version; another one says so, and changes nothing."""
    shutil.copytree(DATA / "checkpoint_v1", tmp_path / "checkpoints")
    monkeypatch.setattr(manifest, "FORMAT", manifest.FORMAT + 1)
    store = CheckpointStore(tmp_path / "checkpoints")
    with pytest.raises(CheckpointFormatError, match="has format 1, but"):
        store.load_latest()

    assert (store.steps(), store.quarantine.exists()) == ([1], False)

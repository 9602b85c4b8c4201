"""The folder of one run: its lock, its identity, and where each file lies."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.engine.checkpoint import CheckpointStore
from helpers.engine.durable import is_full, write_json
from helpers.engine.owner import RunLock
from helpers.errors import RunFolderError

DEVICE_FILE = "device.json"
# Of files that a killed process was writing: a name, its number, and mostly a token.
LEFTOVER = re.compile(r"\.(probe|.+\.(jsonl?|pt|db))[.-][0-9]+([.-][0-9a-f]{8})?\.tmp")


class RunFolder:
    """A folder `<output_dir>/<run_id>/` with identity, settings, metrics, checkpoints and results.

    Raises: RunFolderError if the folder cannot be created or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.run_file = self.path / "run.json"
        self.config_file = self.path / "config.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.result_file = self.path / "result.json"
        self.model_file = self.path / "final_model.pt"
        self.checkpoints = CheckpointStore(self.path / "checkpoints")
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{os.getpid()}.tmp"
            probe.write_bytes(b"")
            probe.unlink(missing_ok=True)

    @property
    def run_id(self) -> str:
        """The name of the run, unique below its output_dir."""
        return self.path.name

    @contextmanager
    def lock(self) -> Iterator[RunLock]:
        """Own the run while training; what was taken over is in the lock's notes.

        Raises: RunFolderError, saying who and where, if another process trains it.
        """
        lock = RunLock(self.path / "LOCK", self.run_id)
        lock.acquire()
        try:
            for path in self.path.glob(".*.tmp"):
                if LEFTOVER.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            yield lock
        finally:
            lock.release()

    def read_identity(self) -> dict[str, Any] | None:
        """What the run was started with, or None for a new run."""
        return read_json(self.run_file)

    def write_identity(self, identity: dict[str, Any]) -> None:
        """Record what the run is started with."""
        write_json(self.run_file, identity)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say in plain words that a file of the folder cannot be written.

        Raises: RunFolderError for an OSError within.
        """
        try:
            yield
        except OSError as error:
            cure = "Free some space" if is_full(error) else "Mend that"
            raise RunFolderError(
                f"The run folder {self.path} cannot be written ({error.strerror or error}). "
                f"{cure}, or set output_dir to a folder on a local disk that you may write."
            ) from error


def free_name(output_dir: str | Path, name: str, taken: Collection[str] = ()) -> str:
    """The name, or with the first number behind it that has no folder yet and is not `taken`."""
    root, number, candidate = Path(output_dir).expanduser(), 1, name
    while candidate in taken or (root / candidate).exists():
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None if there is none that can be read.

    What these files say is in the checkpoints too, so a torn one is as good as none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content else None


def shown(path: str | Path) -> str:
    """A path as a reader wants it: relative to the working folder where it lies below it."""
    path, here = Path(path).absolute(), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)

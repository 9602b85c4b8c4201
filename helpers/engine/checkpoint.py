"""Checkpoints that are whole or not there: a directory, hashed, synced, and only then named.

A checkpoint is complete if its directory has its final name, and sound if every file has the size
and SHA-256 that the manifest says. Nothing in it is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.errors import CheckpointError, CheckpointFormatError

FORMAT = 1
MANIFEST, STATE = "MANIFEST.json", "state.json"
SPARE_BYTES = 64 * 2**20


@dataclass
class Snapshot:
    """Everything a run continues from: tensors by section and name, and plain JSON values."""

    step: int
    sections: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint on disk."""

    step: int
    path: Path
    n_bytes: int


@dataclass
class CheckpointStore:
    """The checkpoints of one run; `notes` says what was found damaged and set aside."""

    folder: Path
    notes: list[str] = field(default_factory=list)

    def save(
        self, snapshot: Snapshot, *, keep: int, protected: Iterable[int] = ()
    ) -> CheckpointInfo:
        """Write a checkpoint, and when it is durable remove the oldest ones beyond `keep`.

        Steps in `protected` are never removed. Saving a step that is there already does nothing.

        Raises: CheckpointError if the disk is full or cannot be written; older ones stay.
        """
        final = self.folder / _name(snapshot.step)
        if not final.exists():
            building = self.folder / f".tmp-{snapshot.step}-{os.getpid()}"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._check_space(snapshot)
                _write(building, snapshot)
                building.rename(final)
                _sync_folder(self.folder)
            except (TypeError, ValueError) as error:
                shutil.rmtree(building, ignore_errors=True)
                raise CheckpointError(
                    f"The state of step {snapshot.step} cannot be written as JSON ({error}). "
                    "Return plain numbers, texts, lists and dicts from state_dict."
                ) from error
            except (OSError, SafetensorError) as error:
                shutil.rmtree(building, ignore_errors=True)
                raise CheckpointError(
                    f"The checkpoint of step {snapshot.step} could not be written to "
                    f"{self.folder} ({error}). Free some space or choose another output_dir; the "
                    "older checkpoints are untouched."
                ) from error
        self._retain(keep, {snapshot.step, *protected})
        return CheckpointInfo(snapshot.step, final, _size(final))

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(
            int(path.name.removeprefix("step-"))
            for path in self.folder.iterdir()
            if path.name.startswith("step-") and path.name[5:].isdigit()
        )

    def path(self, step: int) -> Path:
        """The directory of a step."""
        return self.folder / _name(step)

    def load_latest(self) -> Snapshot | None:
        """Load the newest checkpoint that verifies, or None if there never was one.

        A damaged one is moved to `quarantine`, with its reason in `notes`.

        Raises: CheckpointError if there were checkpoints and none of them is sound, or if the
        newest was written by another version of the suite.
        """
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except CheckpointFormatError:
                raise
            except CheckpointError as error:
                self._quarantine(step, str(error))
        if self.quarantine.is_dir():
            raise CheckpointError(
                f"No checkpoint in {self.folder} is sound; the damaged ones are in "
                f"{self.quarantine}. Start anew under another run_name, or remove the run's folder."
            )
        return None

    @property
    def quarantine(self) -> Path:
        """Where damaged checkpoints are kept."""
        return self.folder.parent / "quarantine"

    def load(self, step: int) -> Snapshot:
        """Verify and load one checkpoint.

        Raises: CheckpointError if a byte is not as it was written.
        """
        path = self.path(step)
        verify(path)
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        sections = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
        return Snapshot(step, sections, state)

    def sweep(self) -> None:
        """Remove what an interrupted save or removal left behind."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.name.startswith((".tmp-", ".del-")):
                    shutil.rmtree(path, ignore_errors=True)

    def _check_space(self, snapshot: Snapshot) -> None:
        tensors = (t for section in snapshot.sections.values() for t in section.values())
        needed = int(1.2 * sum(t.numel() * t.element_size() for t in tensors)) + SPARE_BYTES
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(
                f"disk full: {free / 2**20:.0f} MiB are free, and {needed / 2**20:.0f} are needed"
            )

    def _retain(self, keep: int, protected: set[int]) -> None:
        steps = self.steps()
        for step in set(steps[:-keep]) - protected:
            doomed = self.folder / f".del-{step}"
            shutil.rmtree(doomed, ignore_errors=True)
            self.path(step).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _quarantine(self, step: int, reason: str) -> None:
        place = self.quarantine
        place.mkdir(exist_ok=True)
        number = sum(1 for _ in place.iterdir())
        self.path(step).rename(place / f"{_name(step)}-{number}")
        self.notes.append(f"step {step} was set aside: {reason}")


def verify(path: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises: CheckpointError naming the first file that differs.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        is_sealed = manifest["seal"] == _seal(manifest)
        step, version = manifest["step"], manifest["format"]
        present = {p.name for p in path.iterdir()} - {MANIFEST}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged: its manifest cannot be read ({error})."
        ) from error
    if not is_sealed:
        raise CheckpointError(f"{path} is damaged: its manifest is not as it was written.")
    if version != FORMAT:
        raise CheckpointFormatError(
            f"{path} has format {version}, but {FORMAT} is wanted. Use the version of the suite "
            "that wrote it, or start anew under another run_name."
        )
    if path.name != _name(step):
        raise CheckpointError(f"{path} is damaged: it holds step {step}.")
    if present != set(files):
        odd = sorted(present ^ set(files))
        raise CheckpointError(f"{path} is damaged: {odd} are missing or do not belong there.")
    for name, wanted in files.items():
        if not _is_as_written(path / name, wanted):
            raise CheckpointError(f"{path} is damaged: {name} is not as it was written.")


def model_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Parameters and buffers for a file, and the name that each shared one is stored under."""
    tensors, aliases, stored = {}, {}, {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        if key in stored:
            aliases[name] = stored[key]
        else:
            stored[key] = name
            tensors[name] = tensor.detach()
    return tensors, aliases


def load_model_tensors(
    model: nn.Module, tensors: dict[str, Tensor], aliases: dict[str, str]
) -> None:
    """Put parameters and buffers back.

    Raises: CheckpointError if a name or shape does not fit.
    """
    full = tensors | {name: tensors[source] for name, source in aliases.items()}
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - full.keys()), sorted(full.keys() - own.keys())
    wrong = sorted(n for n in own.keys() & full.keys() if own[n].shape != full[n].shape)
    if missing or unknown or wrong:
        raise CheckpointError(
            f"The weights of the checkpoint lack {missing[:3]}, have {unknown[:3]} too many and "
            f"{wrong[:3]} in another shape, but they must fit exactly. Build the model as it was, "
            "or start a new run under another run_name."
        )
    model.load_state_dict(full, strict=True)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step, durably."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _write(folder: Path, snapshot: Snapshot) -> None:
    folder.mkdir()
    for section, tensors in snapshot.sections.items():
        save_file(_apart(tensors), folder / f"{section}.safetensors")
    (folder / STATE).write_text(json.dumps(snapshot.state), encoding="utf-8")
    files = {}
    for path in sorted(folder.iterdir()):
        _sync_file(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    manifest = {"format": FORMAT, "step": snapshot.step, "torch": torch.__version__, "files": files}
    manifest["seal"] = _seal(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    _sync_file(folder / MANIFEST)
    _sync_folder(folder)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU, each whole and in memory of its own, as safetensors wants them."""
    apart, seen = {}, set()
    for name, tensor in tensors.items():
        on_cpu = tensor.detach().cpu().contiguous()
        storage = on_cpu.untyped_storage().data_ptr()
        apart[name] = on_cpu.clone() if storage in seen else on_cpu
        seen.add(storage)
    return apart


def _seal(manifest: dict[str, Any]) -> str:
    """SHA-256 of the manifest without its seal."""
    content = {key: value for key, value in manifest.items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_as_written(path: Path, wanted: dict[str, Any]) -> bool:
    """Compare size and hash with the manifest; a file that cannot be read differs."""
    try:
        return path.stat().st_size == wanted["bytes"] and _sha256(path) == wanted["sha256"]
    except OSError:
        return False


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

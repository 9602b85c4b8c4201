"""Checkpoints that are whole or not there: a directory, hashed, synced, and only then named.

A checkpoint is complete if its directory has its final name, and sound if every file has the size
and SHA-256 that the manifest says. Nothing in it is pickled.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from helpers.engine.durable import (
    cause_of,
    free_bytes,
    is_full,
    remove_folder,
    sync_folder,
    sync_upwards,
    write_file,
)
from helpers.engine.manifest import (
    MANIFEST,
    check,
    check_file,
    folder_name,
    manifest_text,
    read_manifest,
    unreadable,
)
from helpers.engine.tensor_file import tensor_parts, tensors_in
from helpers.errors import CheckpointError, CheckpointFormatError

STATE, TENSORS, REASON = "state.json", ".safetensors", "DAMAGE.txt"
SPARE_BYTES = 64 * 2**20


@dataclass
class Snapshot:
    """Everything a run continues from: tensors by section and name, and plain JSON values."""

    step: int
    sections: dict[str, dict[str, Tensor]]
    state: dict[str, Any]

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors."""
        tensors = (t for section in self.sections.values() for t in section.values())
        return sum(t.numel() * t.element_size() for t in tensors)

    def state_text(self) -> str:
        """The values as JSON.

        Raises: CheckpointError if one of them has no such form, or would be read back as another.
        """
        try:
            _check_keys(self.state)
            return json.dumps(self.state)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"The state of step {self.step} cannot be written as JSON ({error}). "
                "Return plain numbers, texts, lists and dicts from state_dict."
            ) from error


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint on disk."""

    step: int
    path: Path
    n_bytes: int


@dataclass
class CheckpointStore:
    """The checkpoints of one run; `notes` says what was found damaged and set aside.

    Steps in `protect`, steps that are pinned, and those with a file `step-....keep` beside them are
    never removed. All methods may be called from any thread; one at a time saves.
    """

    folder: Path
    notes: list[str] = field(default_factory=list)
    protect: set[int] = field(default_factory=set)
    _pins: Counter[int] = field(default_factory=Counter, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    # Steps that this object wrote or verified, with their bytes.
    _sound: dict[int, int] = field(default_factory=dict, repr=False)
    _is_rooted: bool = field(default=False, repr=False)

    def save(
        self, snapshot: Snapshot, *, keep: int, protected: Iterable[int] = ()
    ) -> CheckpointInfo:
        """Write a checkpoint, and when it is durable remove the oldest ones beyond `keep`.

        Raises: CheckpointError if the disk is full or cannot be written; older ones stay.
        """
        info = self.write(snapshot, snapshot.state_text(), protected)
        self.retain(keep, protected)
        return info

    def write(self, snapshot: Snapshot, text: str, protected: Iterable[int] = ()) -> CheckpointInfo:
        """Write a checkpoint with its state as JSON text; when this returns it is durable.

        If the disk is full, older ones go first, but for the newest sound one and those protected.
        A step that is there and sound stays as it is.

        Raises: CheckpointError if the disk is full or cannot be written.
        """
        step, needed = snapshot.step, int(1.2 * (snapshot.n_bytes + len(text))) + SPARE_BYTES
        try:
            self._make_folder()
            if not self._is_there(step):
                self._make_room(needed, protected)
                self._sound[step] = self._build_once_or_twice(snapshot, text, protected)
        except CheckpointError:
            raise
        except OSError as error:
            cure = "Free some space" if is_full(error) else "Mend that"
            raise CheckpointError(
                f"The checkpoint of step {step} could not be written to {self.folder} "
                f"({cause_of(error, self.folder, needed)}). {cure}, or choose another output_dir; "
                "the older checkpoints are untouched."
            ) from error
        return CheckpointInfo(step, self.path(step), self._sound[step])

    def retain(self, keep: int, protected: Iterable[int] = ()) -> None:
        """Remove all but the newest `keep` checkpoints, the newest sound one and those protected.

        Raises: CheckpointError if one cannot be removed.
        """
        try:
            steps = self.steps()
            kept = {*steps[-keep:], *protected, *self.protect, *self._kept_always()}
            kept.add(self._newest_sound(steps))
            for step in steps:
                if step not in kept:
                    self._remove(step)
        except OSError as error:
            raise CheckpointError(
                f"Older checkpoints could not be removed from {self.folder} "
                f"({error.strerror or error}). Remove some by hand; the run goes on."
            ) from error

    def discard_after(self, step: int) -> None:
        """Remove the checkpoints after a step, which a run that went back will compute anew.

        Also those that are pinned: what is copied of them would belong to no run.

        Raises: CheckpointError if one cannot be removed.
        """
        try:
            for later in self.steps():
                if later > step:
                    self._remove(later, is_forced=True)
        except OSError as error:
            raise CheckpointError(
                f"A checkpoint after step {step} could not be removed from {self.folder} "
                f"({error.strerror or error}). Remove it by hand, and run again."
            ) from error

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, oldest first."""
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(
            int(name.removeprefix("step-")) for name in names if re.fullmatch(r"step-[0-9]+", name)
        )

    def path(self, step: int) -> Path:
        """The directory of a step."""
        return self.folder / folder_name(step)

    @contextmanager
    def pin(self, step: int) -> Iterator[Path]:
        """Keep a checkpoint where it is as long as the block runs, as while it is copied.

        Raises: CheckpointError if it is not there.
        """
        with self._lock:
            if not self.path(step).is_dir():
                raise CheckpointError(f"There is no checkpoint of step {step} in {self.folder}.")
            self._pins[step] += 1
        try:
            yield self.path(step)
        finally:
            with self._lock:
                self._pins[step] -= 1

    def keep_always(self, step: int) -> None:
        """Keep a checkpoint for good; removing its file `.keep` gives it up again.

        Raises: CheckpointError if it is not there.
        """
        with self.pin(step) as path:
            path.with_suffix(".keep").touch()
            sync_folder(self.folder)

    def load_latest(self) -> Snapshot | None:
        """Load the newest checkpoint that verifies, or None if there never was one.

        A damaged one is moved to `quarantine`, with its reason in `notes`.

        Raises: CheckpointError if there were checkpoints and none of them is sound, if one cannot
        be read, or if the newest was written by another version of the suite.
        """
        try:
            steps = self.steps()
            for step in reversed(steps):
                snapshot = self._load_or_set_aside(step)
                if snapshot is not None:
                    return snapshot
            is_lost = bool(steps) or self.quarantine.is_dir()
        except CheckpointError:
            raise
        except OSError as error:
            raise CheckpointError(unreadable(self.folder, error)) from error
        if is_lost:
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

        Raises: CheckpointError if a byte is not as it was written, or cannot be read.
        """
        try:
            return self._load(step)
        except CheckpointError:
            raise
        except OSError as error:
            raise CheckpointError(unreadable(self.path(step), error)) from error

    def set_aside(self, step: int, reason: str) -> None:
        """Move a checkpoint to `quarantine` and note why; nothing is deleted."""
        self._sound.pop(step, None)
        try:
            self.quarantine.mkdir(exist_ok=True)
            number = len(os.listdir(self.quarantine))
            while (place := self.quarantine / f"{folder_name(step)}-{number}").exists():
                number += 1
            os.rename(self.path(step), place)
            sync_folder(self.quarantine)
            sync_folder(self.folder)
        except OSError as error:
            self.notes.append(f"step {step} cannot be used nor set aside ({error}): {reason}")
            return
        with suppress(OSError):
            write_file(place / REASON, _parts(f"{reason}\n"))
        self.notes.append(f"step {step} was set aside: {reason}")

    def sweep(self) -> None:
        """Remove what an interrupted save or removal left behind."""
        with suppress(OSError):
            for name in os.listdir(self.folder):
                if name.startswith((".tmp-", ".del-")):
                    remove_folder(self.folder / name)

    def _make_folder(self) -> None:
        """Make the folder durably; also when it was deleted under a run."""
        if self._is_rooted and self.folder.is_dir():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        sync_upwards(self.folder.parent)
        self._is_rooted = True

    def _is_there(self, step: int) -> bool:
        """Whether a step is there, sound and durable; a damaged one is set aside."""
        if not self.path(step).exists():
            return False
        if step not in self._sound:
            try:
                check(self.path(step))
            except CheckpointError as error:
                self.set_aside(step, str(error))
                return False
            self._sound[step] = _size(self.path(step))
        sync_folder(self.folder)
        return True

    def _make_room(self, needed: int, protected: Iterable[int]) -> None:
        """Raise OSError unless so much is free, if need be without the older checkpoints."""
        if free_bytes(self.folder) < needed:
            self._prune(protected)
        if free_bytes(self.folder) < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _prune(self, protected: Iterable[int]) -> bool:
        """Remove all that may be removed; return whether that was anything."""
        before = self.steps()
        with suppress(CheckpointError):
            self.retain(1, protected)
        return self.steps() != before

    def _build_once_or_twice(self, snapshot: Snapshot, text: str, protected: Iterable[int]) -> int:
        """Build; where a quota is full that no one could ask for, again without older ones."""
        try:
            return self._build(snapshot, text)
        except OSError as error:
            if not is_full(error) or not self._prune(protected):
                raise
        return self._build(snapshot, text)

    def _build(self, snapshot: Snapshot, text: str) -> int:
        """Write beside the final name, and take the name when all is synced; return the size."""
        unique = f".tmp-{snapshot.step}-{os.getpid()}-{secrets.token_hex(4)}"
        building, final = self.folder / unique, self.path(snapshot.step)
        try:
            n_bytes = _write(building, snapshot, text)
            os.rename(building, final)
            try:
                sync_folder(self.folder)
            except OSError:
                # It has its name, but nobody knows whether for good: then it must not have it.
                os.rename(final, building)
                raise
        finally:
            remove_folder(building)
        return n_bytes

    def _newest_sound(self, steps: list[int]) -> int | None:
        """The newest step that verifies; what this object wrote or read is not read again."""
        for step in reversed(steps):
            with suppress(CheckpointError):
                if step not in self._sound:
                    check(self.path(step))
                    self._sound[step] = _size(self.path(step))
                return step
        return None

    def _kept_always(self) -> Iterator[int]:
        for path in self.folder.glob("step-*.keep"):
            if path.stem[5:].isdigit():
                yield int(path.stem[5:])

    def _remove(self, step: int, *, is_forced: bool = False) -> None:
        doomed = self.folder / f".del-{step}"
        remove_folder(doomed)
        with self._lock:
            if self._pins[step] and not is_forced:
                return
            os.rename(self.path(step), doomed)
            self._sound.pop(step, None)
        # Else a power loss could leave the name and take the files.
        sync_folder(self.folder)
        remove_folder(doomed)

    def _load_or_set_aside(self, step: int) -> Snapshot | None:
        """Load a checkpoint; one that is damaged is moved away.

        Bytes that differ stay so, but a sector that could not be read may be read the second time.
        """
        is_read_again = False
        while True:
            try:
                return self._load(step)
            except CheckpointFormatError:
                raise
            except CheckpointError as error:
                if is_read_again or not isinstance(error.__cause__, OSError):
                    self.set_aside(step, str(error))
                    return None
                is_read_again = True

    def _load(self, step: int) -> Snapshot:
        """Load and verify in one reading: what was hashed is what is used."""
        path = self.path(step)
        sections, state = {}, {}
        for name, wanted in read_manifest(path).items():
            content = bytearray(wanted["bytes"])
            check_file(path / name, wanted, memoryview(content))
            try:
                if name.endswith(TENSORS):
                    sections[name.removesuffix(TENSORS)] = tensors_in(content)
                else:
                    state = json.loads(content)
            except (ValueError, KeyError, RuntimeError) as error:
                raise CheckpointError(
                    f"{path} is damaged: {name} cannot be understood ({error})."
                ) from error
        self._sound[step] = _size(path)
        return Snapshot(step, sections, state)


def verify(path: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises: CheckpointError naming the first file that differs, or what kept it from being read.
    """
    try:
        check(path)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(unreadable(path, error)) from error


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


def _write(folder: Path, snapshot: Snapshot, text: str) -> int:
    """Write all files of a checkpoint, the manifest last; return their size."""
    os.mkdir(folder)
    files = {}
    contents = {f"{name}{TENSORS}": tensor_parts(t) for name, t in snapshot.sections.items()}
    for name, parts in {**contents, STATE: _parts(text)}.items():
        n_bytes, sha256 = write_file(folder / name, parts)
        files[name] = {"bytes": n_bytes, "sha256": sha256}
    size, _ = write_file(folder / MANIFEST, _parts(manifest_text(snapshot.step, files)))
    sync_folder(folder)
    return size + sum(file["bytes"] for file in files.values())


def _parts(text: str) -> list[memoryview]:
    return [memoryview(text.encode())]


def _check_keys(value: Any) -> None:
    """Raise TypeError for a key that JSON would turn into text, so that it came back as another."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is of type {type(key).__name__} and not a text")
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())

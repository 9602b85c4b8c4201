"""Copies of one run on a disk that may go away: written, synced, read back, and only then named.

A checkpoint lies in a slot, `last`, `previous` or `best`, as the same directory that it is on the
local disk. Slots are few and fixed, because what is deleted on Drive fills its trash for weeks. All
that is done to the other disk goes through `os`, call by call, and raises OSError as it comes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.engine.durable import sync_folder, write_file
from helpers.engine.manifest import MANIFEST, read_manifest
from helpers.errors import CheckpointError
from helpers.tracking.environment import MOUNTS, mounted_as

DRIVE = Path("/content/drive")
LAST, PREVIOUS, BEST = SLOTS = ("last", "previous", "best")
INCOMING, FILES, OWNER, STATE = ".incoming-", "FILES.json", "OWNER.json", "state.json"
CHUNK = 2**20
# What a checkpoint cannot be continued without on another machine, and what a run ends with.
BEGUN = ("run.json", "config.json", "device.json", "metrics.jsonl")
ENDED = ("result.json", "final_model.pt", "experiments.db")

Beat = Callable[[int], None]


class SourceError(OSError):
    """The local side cannot be read; the other one is not to blame."""


class NotThereError(OSError):
    """The disk of the mirror is not there at all."""


@dataclass(frozen=True)
class Copy:
    """A checkpoint whose files have the right sizes; `seal` is its manifest.

    `rank` orders the checkpoints of a run: by how often it was extended, then by how often it went
    back, and then by step. Older ones kept no count of the latter.
    """

    rank: tuple[int, int, int]
    path: Path
    seal: bytes

    @property
    def step(self) -> int:
        """The step that it is of."""
        return self.rank[-1]


def check_place(home: Path, mounts: Path | None = None) -> None:
    """Raise NotThereError for a place on Drive while Drive is not mounted.

    The table of mounts decides: a plain folder of that name would take the copies and lose them.
    """
    mounts = mounts or MOUNTS
    if not home.is_relative_to(DRIVE):
        return
    kind = mounted_as(home, mounts.read_text(errors="surrogateescape")) if mounts.exists() else ""
    if not kind.startswith("fuse"):
        raise NotThereError(
            errno.ENODEV, f"Google Drive is not mounted at {DRIVE}; mount it, also while this runs"
        )


def read_copies(root: Path, *, is_patient: bool = False) -> dict[str, Copy]:
    """The checkpoints below the mirror of a run, by slot; those half written are left out.

    One that is complete, but was not named yet, is under `.incoming-` and its slot. For one who is
    patient an input/output error says nothing about a copy: it may be the connection's.
    """
    copies = {}
    for place in (*SLOTS, INCOMING + LAST, INCOMING + BEST):
        for name in sorted(_names(root / place)):
            try:
                copies[place] = copy_at(root / place / name)
            except CheckpointError as error:
                if is_patient:
                    raise_if_out_of_reach(error)
    return copies


def raise_if_out_of_reach(error: CheckpointError) -> None:
    """Raise the input/output error that made a checkpoint look damaged, if one did."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno == errno.EIO:
        raise cause


def copy_at(path: Path) -> Copy:
    """Look at a checkpoint without reading its tensors.

    Raises: CheckpointError if it is not whole.
    """
    files = read_manifest(path)
    for name, wanted in files.items():
        if os.stat(path / name).st_size != wanted["bytes"]:
            raise CheckpointError(f"{path} is damaged: {name} is not whole.")
    state = read_json_there(path / STATE).get("run")
    run = state if isinstance(state, dict) else {}
    step = int(path.name.removeprefix("step-"))
    n_rewinds = run.get("n_rewinds", len(run.get("rewinds", ())))
    rank = (run.get("extensions", 0), n_rewinds, step)
    return Copy(rank, path, b"".join(bytes(part) for part in _parts(path / MANIFEST, _no_beat)))


def copy_checkpoint(source: Path, target: Path, beat: Beat) -> None:
    """Copy a checkpoint, manifest last, and read each file back.

    Raises: SourceError if the local one cannot be read or is damaged.
    """
    try:
        files = read_manifest(source)
    except OSError as error:
        raise SourceError(errno.EIO, f"the local checkpoint cannot be copied: {error}") from error
    os.makedirs(target)
    for name in [*files, MANIFEST]:
        beat(0)
        got = write_file(target / name, _local_parts(source / name, beat))
        if name != MANIFEST and got != (files[name]["bytes"], files[name]["sha256"]):
            raise SourceError(errno.EIO, f"{source / name} is not as it was written")
        read_back(target / name, got, beat)
    sync_folder(target)


def copy_file(source: Path, target: Path, beat: Beat) -> tuple[int, str]:
    """Replace one file by a copy that was read back; return its size and SHA-256."""
    beat(0)
    incoming = target.with_name(INCOMING + target.name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(incoming)
    got = write_file(incoming, _local_parts(source, beat))
    read_back(incoming, got, beat)
    beat(0)
    os.replace(incoming, target)
    sync_folder(target.parent)
    return got


def fetch_file(source: Path, target: Path, beat: Beat) -> tuple[int, str]:
    """Bring one file from the other disk to a new file of the local one."""
    return write_file(target, _parts(source, beat))


def read_back(path: Path, wanted: tuple[int, str], beat: Beat) -> None:
    """Read a file and compare it with what was written.

    Through a mount this may be the machine's own cache, which does not prove an upload.
    """
    digest, n_bytes = hashlib.sha256(), 0
    for part in _parts(path, beat, is_fresh=True):
        digest.update(part)
        n_bytes += len(part)
    if (n_bytes, digest.hexdigest()) != wanted:
        raise OSError(errno.EIO, f"{path.name} is read back otherwise than it was written")


def write_json_there(path: Path, content: Any) -> None:
    """Replace a small JSON file on the other disk."""
    incoming = path.with_name(INCOMING + path.name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(incoming)
    write_file(incoming, [memoryview(json.dumps(content, indent=1).encode())])
    os.replace(incoming, path)


def read_json_there(path: Path) -> dict[str, Any]:
    """The object in a small JSON file; {} if there is none, or if it is torn."""
    try:
        content = json.loads(b"".join(bytes(part) for part in _parts(path, _no_beat)))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def remove_tree(path: Path) -> None:
    """Remove a folder, its files emptied before, so that Drive's trash keeps nothing of them."""
    for name in _names(path):
        if os.path.isdir(path / name):
            remove_tree(path / name)
            continue
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path / name, 0)
            os.unlink(path / name)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def move(source: Path, target: Path) -> None:
    """Give a folder another name, which must be free."""
    os.rename(source, target)
    sync_folder(target.parent)


def fresh_name(folder: Path, prefix: str) -> Path:
    """A name in a folder that nobody else takes."""
    return folder / f"{prefix}{os.getpid()}-{secrets.token_hex(4)}"


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _parts(path: Path, beat: Beat, *, is_fresh: bool = False) -> Iterator[memoryview]:
    """The content of a file; a fresh reading asks the disk instead of the system's cache."""
    memory = memoryview(bytearray(CHUNK))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if is_fresh and hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while n_read := os.readv(descriptor, [memory]):
            beat(n_read)
            yield memory[:n_read]
    finally:
        os.close(descriptor)


def _local_parts(path: Path, beat: Beat) -> Iterator[memoryview]:
    try:
        yield from _parts(path, beat)
    except OSError as error:
        raise SourceError(error.errno, f"{path} cannot be read: {error.strerror}") from error


def _no_beat(n_bytes: int) -> None:
    """Count nothing."""

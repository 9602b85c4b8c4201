"""The manifest of a checkpoint: the size and SHA-256 of each file, sealed by a hash of its own.

What differs from it is damage and raises CheckpointError. What cannot be reached at all, as behind
a mount that is gone, raises OSError: it says nothing about the checkpoint.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from helpers.engine.durable import read_file
from helpers.errors import CheckpointError, CheckpointFormatError

FORMAT = 1
MANIFEST = "MANIFEST.json"
# Errors by which a file shows that it is not what was written; a bad sector is among them.
DAMAGE = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EIO}


def folder_name(step: int) -> str:
    """The name of a complete checkpoint."""
    return f"step-{step:09d}"


def manifest_text(step: int, files: dict[str, dict[str, Any]]) -> str:
    """The manifest of a step whose files have these sizes and hashes."""
    manifest = {"format": FORMAT, "step": step, "torch": torch.__version__, "files": files}
    return _dump({**manifest, "seal": _seal(manifest)})


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Size and hash of each file, after all was compared that needs no reading of them.

    Raises: CheckpointError for damage, CheckpointFormatError for another version of the suite.
    """
    with _damage_told(path / MANIFEST):
        content = bytearray(os.stat(path / MANIFEST).st_size)
        read_file(path / MANIFEST, memoryview(content))
        present = set(os.listdir(path)) - {MANIFEST}
    try:
        manifest = json.loads(content)
        files, step, version = manifest["files"], manifest["step"], manifest["format"]
        # The text too, so that not even a blank may differ.
        is_sealed = manifest["seal"] == _seal(manifest) and _dump(manifest).encode() == content
    except (ValueError, KeyError, TypeError) as error:
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
    if path.name != folder_name(step):
        raise CheckpointError(f"{path} is damaged: it holds step {step}.")
    if present != set(files):
        odd = sorted(present ^ set(files))
        raise CheckpointError(f"{path} is damaged: {odd} are missing or do not belong there.")
    return files


def check(path: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises: CheckpointError naming the first that differs, OSError if it is out of reach.
    """
    for name, wanted in read_manifest(path).items():
        check_file(path / name, wanted)


def check_file(path: Path, wanted: dict[str, Any], memory: memoryview | None = None) -> None:
    """Read a file, into `memory` if given, and compare it.

    Raises: CheckpointError if it differs, OSError if it is out of reach.
    """
    with _damage_told(path):
        is_whole = os.stat(path).st_size == wanted["bytes"]
        is_same = is_whole and _is_same(read_file(path, memory), wanted)
    if not is_same:
        raise CheckpointError(f"{path.parent} is damaged: {path.name} is not as it was written.")


def unreadable(path: Path, error: OSError) -> str:
    """What to tell about a checkpoint that is out of reach."""
    return (
        f"{path} cannot be read ({error.strerror or error}), and nothing was changed. Make it "
        "readable and start again."
    )


def _is_same(got: tuple[int, str], wanted: dict[str, Any]) -> bool:
    return got == (wanted["bytes"], wanted["sha256"])


def _dump(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=1)


def _seal(manifest: dict[str, Any]) -> str:
    """SHA-256 of the manifest without its seal."""
    content = {key: value for key, value in manifest.items() if key != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turn the errors by which a file shows damage into a CheckpointError."""
    try:
        yield
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        raise CheckpointError(
            f"{path.parent} is damaged: {path.name} cannot be read ({error.strerror})."
        ) from error

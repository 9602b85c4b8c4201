"""Files that are on the disk when the call returns, and plain words when they cannot be.

All that a checkpoint does to the disk goes through here and through `os`, call by call.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHUNK = 2**24
# By these a network file system says that its folders cannot be synced, not that it failed.
UNABLE = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
# Texts by which libraries say that the disk is full without saying so in `errno`: torch.save,
# safetensors, and both through FUSE.
FULL_SIGNS = ("no space left", "unexpected pos", "quota exceeded", "os error 28")


def write_file(path: Path, parts: Iterable[memoryview]) -> tuple[int, str]:
    """Write a new file and sync it; return its size and SHA-256, taken on the way.

    After a sync that failed the kernel may call dirty pages clean, so a file is never synced twice:
    whoever tries again writes another one.
    Source: Rebello et al. 2020, Can applications recover from fsync failures?, USENIX ATC.
    """
    digest, n_bytes = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for part in parts:
            for start in range(0, len(part), CHUNK):
                chunk = part[start : start + CHUNK]
                digest.update(chunk)
                n_bytes += len(chunk)
                while chunk:
                    chunk = chunk[os.write(descriptor, chunk) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return n_bytes, digest.hexdigest()


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file, or make it, in one step and durably."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        write_file(temporary, [memoryview(content)])
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step, durably."""
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())


def read_file(path: Path, memory: memoryview | None = None) -> tuple[int, str]:
    """Read a file, into `memory` if given; return the size and SHA-256 of what was read."""
    digest, n_bytes = hashlib.sha256(), 0
    spare = memoryview(bytearray(2**20)) if memory is None else None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while True:
            room = memory[n_bytes : n_bytes + CHUNK] if spare is None else spare
            n_read = os.readv(descriptor, [room]) if room else 0
            if not n_read:
                return n_bytes, digest.hexdigest()
            digest.update(room[:n_read])
            n_bytes += n_read
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
    finally:
        os.close(descriptor)


def sync_upwards(path: Path) -> None:
    """Make the names of a folder and of all above it durable, up to where its disk is mounted."""
    path = path.absolute()
    while True:
        try:
            sync_folder(path)
        except PermissionError:
            return  # a folder that we may not read is one that we did not make
        if os.path.ismount(path):
            return
        path = path.parent


def remove_folder(path: Path) -> None:
    """Remove a folder as far as that is possible; what is left is swept at the next start."""
    shutil.rmtree(path, ignore_errors=True)


def free_bytes(path: Path) -> int:
    """Bytes that a user may still write; 0 if no more files can be made."""
    disk = os.statvfs(path)
    return 0 if disk.f_files and not disk.f_favail else disk.f_bavail * disk.f_frsize


def is_full(error: BaseException) -> bool:
    """Whether an error means that the disk or a quota is full, whatever it says."""
    number, text = getattr(error, "errno", None), str(error).lower()
    return number in (errno.ENOSPC, errno.EDQUOT) or any(sign in text for sign in FULL_SIGNS)


def cause_of(error: BaseException, folder: Path, needed: int) -> str:
    """What went wrong in plain words; for a full disk how much is needed and how much is free."""
    if not is_full(error):
        return str(error).partition("\n")[0]
    wanted = f"disk full: {needed / 2**20:,.0f} MiB are needed"
    try:
        return f"{wanted}, and {free_bytes(folder) / 2**20:,.0f} MiB are free"
    except OSError:
        return wanted

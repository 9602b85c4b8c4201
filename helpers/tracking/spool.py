"""Files of entries beside a run: a spool until the database has them, a journal to build it anew.

One JSON object a line with the CRC of its entry; a line that a crash tore is left out. A call to
write returns when the system has the line, so that a kill loses nothing; `sync` is for power cuts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

from helpers.tracking.entries import Entry

SPOOL, TAKEN, REFUSED = "spool.jsonl", "spool.merging.jsonl", "spool.refused.jsonl"
JOURNAL = "record.jsonl"
_START, _END = '{"crc":"', ',"entry":'


class LineFile:
    """A file that grows by whole lines; those that cannot be written now are held in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: list[bytes] = []
        self._mutex = threading.Lock()

    def add(self, entry: Entry) -> str:
        """Write an entry behind those held; return what is wrong if they must wait."""
        with self._mutex:
            self.held.append(encode(entry))
            return self._write()

    def write_held(self) -> str:
        """Try again to write what is held; return what is wrong if it must wait."""
        with self._mutex:
            return self._write()

    def release(self, lines: list[bytes]) -> None:
        """Forget the first lines held, which are safe elsewhere."""
        with self._mutex:
            if self.held[: len(lines)] == lines:
                del self.held[: len(lines)]

    def sync(self) -> str:
        """Wait until what is written would survive a power cut; return what is wrong."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{self.path} cannot be synced ({error.strerror})"
        return ""

    def _write(self) -> str:
        if not self.held:
            return ""
        try:
            try:
                _append(self.path, b"".join(self.held))
            except FileNotFoundError:  # the folder was removed while the run goes on
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _append(self.path, b"".join(self.held))
        except OSError as error:
            return f"{self.path} cannot be written ({error.strerror})"
        self.held.clear()
        return ""


def encode(entry: Entry) -> bytes:
    """An entry as a line."""
    text = json.dumps(entry, separators=(",", ":"))
    return f'{_START}{zlib.crc32(text.encode()):08x}"{_END}{text}}}\n'.encode()


def decode(line: bytes) -> Entry | None:
    """The entry of a line, or None if it is not as it was written."""
    body = len(_START) + 8 + 1 + len(_END)
    text = line.strip()
    checksum, content = text[len(_START) : len(_START) + 8], text[body:-1]
    if checksum.decode(errors="replace") != f"{zlib.crc32(content):08x}":
        return None
    return json.loads(content)


def read(path: Path) -> list[Entry]:
    """The entries of a file that are as they were written; none if there is no file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return []
    return [entry for line in lines if line and (entry := decode(line)) is not None]


def waiting(folder: Path) -> list[Entry]:
    """The entries of a run that no database has yet."""
    return read(folder / TAKEN) + read(folder / SPOOL)


def take(folder: Path) -> Path | None:
    """Set the spool of a run aside to be merged; the same one until it is removed.

    New lines go to a new spool meanwhile, so that nobody who writes waits for the database.
    """
    taken = folder / TAKEN
    if not taken.exists():
        try:
            with locked(folder / SPOOL, os.O_RDWR):
                os.rename(folder / SPOOL, taken)
        except FileNotFoundError:
            return None
    return taken


@contextlib.contextmanager
def merging(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Be the only one who merges the spool of a run; False if somebody else does."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, os.O_RDONLY, wait=wait))
        except (BlockingIOError, FileNotFoundError):
            yield False
            return
        yield True


@contextlib.contextmanager
def locked(path: Path, flags: int, *, wait: bool = True) -> Iterator[int]:
    """Hold the lock of a file or folder, and yield its descriptor.

    Raises: BlockingIOError if it is held by another and there is no time to wait.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            yield descriptor
        finally:
            # Said outright, because a forked process may still hold the descriptor.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _append(path: Path, lines: bytes) -> None:
    """Add whole lines to the file that has the name now; all of them, or as good as none."""
    while True:
        with locked(path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as descriptor:
            size = _size_if_there(path, descriptor)
            if size is None:  # it was taken between opening and locking
                continue
            is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            try:
                _write_all(descriptor, b"\n" + lines if is_torn else lines)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
            return


def _size_if_there(path: Path, descriptor: int) -> int | None:
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return None
    opened = os.fstat(descriptor)
    return opened.st_size if os.path.samestat(named, opened) else None


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]

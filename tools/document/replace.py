"""Replace a file whole: whatever fails or is killed meanwhile leaves the old bytes or the new."""

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.errors import NotebookError

SUFFIX = ".replacing"


def replace_file(path: Path, old: bytes | None, new: bytes) -> None:
    """Put `new` in the place of `old`; None says that there is no file yet.

    Another program that saves in the microseconds between the last look at the file and the
    renaming is not seen: no file system offers more without a lock that all programs heed.

    Raises: NotebookError in one line, with the file as it was.
    """
    try:
        _replace(path, old, new)
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotebookError(
            f"{shown(path)} cannot be written ({reason}); it is as it was, but room and a right "
            "to write are wanted. Free some space or choose another folder, and try again."
        ) from error


def shown(path: Path | str) -> str:
    """A path as it can be printed in one line."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _replace(path: Path, old: bytes | None, new: bytes) -> None:
    _clear_strays(path)
    found = _checked(path, old)
    with contextlib.ExitStack() as stack:
        spare = None if old is None else stack.enter_context(_temporary(path, old, found))
        fresh = stack.enter_context(_temporary(path, new, found))
        if _bytes_of(path) != old:
            raise _changed(path)
        ours = os.stat(fresh)
        os.replace(fresh, path)
        try:
            _sync_folder(path.parent)
            if _bytes_of(path) != new:
                if not _is_same_file(path, ours):  # what another wrote after us is its own
                    raise _changed(path)
                raise OSError(errno.EIO, "it reads back with other bytes")
        except OSError:
            _take_back(path, spare)
            raise


def _changed(path: Path) -> NotebookError:
    return _refusal(
        path,
        "was changed by another program since it was read",
        "the content that was read is wanted",
        "Read it again, and repeat the edit",
    )


def _is_same_file(path: Path, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), found)
    except FileNotFoundError:
        return False


def _take_back(path: Path, spare: str | None) -> None:
    try:
        if spare is None:
            os.unlink(path)
        else:
            os.replace(spare, path)
    except OSError as error:
        raise _refusal(
            path,
            f"has the new content, but it could not be checked or taken back ({error.strerror})",
            "a disk that answers is wanted",
            "Look at the file before you go on",
        ) from error


def _checked(path: Path, old: bytes | None) -> os.stat_result | None:
    """The file's state, if it is one that may be replaced."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        if old is None:
            return None
        raise _refusal(
            path, "is gone", "the file that was read is wanted", "Restore it, or read another"
        ) from None
    faults = {
        "is a symbolic link": stat.S_ISLNK(found.st_mode),
        "is not a regular file": not stat.S_ISREG(found.st_mode),
        "has a second name (a hard link), which would keep the old content": found.st_nlink > 1,
        "is read-only": not found.st_mode & 0o222 or not os.access(path, os.W_OK),
        "is in a read-only folder": not _is_writable(path.parent),
    }
    for got, is_so in faults.items():
        if is_so:
            wanted = "a plain file that may be written is wanted"
            raise _refusal(path, got, wanted, "Name such a file, or change this one")
    return found


def _is_writable(folder: Path) -> bool:
    """Whether files may be made in a folder; its mode counts for an administrator too."""
    return bool(os.stat(folder).st_mode & 0o222) and os.access(folder, os.W_OK | os.X_OK)


def _bytes_of(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        return file.read()


@contextlib.contextmanager
def _temporary(path: Path, content: bytes, like: os.stat_result | None) -> Iterator[str]:
    """A file beside `path` with this content, safe on disk, and gone afterwards."""
    prefix = f"{_prefix(path)}{os.getpid()}."
    descriptor, name = tempfile.mkstemp(SUFFIX, prefix, path.parent)
    try:
        try:
            _fill(descriptor, content, like)
        finally:
            os.close(descriptor)
        yield name
    finally:
        _unlink(name)


def _fill(descriptor: int, content: bytes, like: os.stat_result | None) -> None:
    os.fchmod(descriptor, stat.S_IMODE(like.st_mode) if like else 0o666 & ~_umask())
    if like and (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
        # Only an administrator can keep another's file theirs; nobody else loses anything.
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, like.st_uid, like.st_gid)
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prefix(path: Path) -> str:
    """What the names of temporary files for `path` start with; short, whatever its own name is."""
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}."


def _clear_strays(path: Path) -> None:
    """Remove temporary files that a killed process left."""
    prefix = _prefix(path)
    for name in os.listdir(path.parent):
        if name.startswith(prefix) and name.endswith(SUFFIX):
            process = name.removeprefix(prefix).partition(".")[0]
            if process.isdecimal() and not _is_alive(int(process)):
                _unlink(path.parent / name)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _unlink(path: str | Path) -> None:
    # What cannot be removed now is harmless, and removed by the next write.
    with contextlib.suppress(OSError):
        os.unlink(path)


def _refusal(path: Path, got: str, wanted: str, do: str) -> NotebookError:
    return NotebookError(f"{shown(path)} {got}, but {wanted}. {do}.")

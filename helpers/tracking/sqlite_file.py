"""The file of a SQLite database: whether it is sound, how it is set aside, and how it is copied.

A damaged file is never deleted: it is moved aside with its journals, which may hold more of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import tempfile
import threading
from pathlib import Path

from helpers.errors import DatabaseUnavailableError, TrackingError
from helpers.tracking import schema
from helpers.tracking.connect import cause_of, connect, explain
from helpers.tracking.spool import locked

MAGIC = b"SQLite format 3\0"
SUFFIXES = ("-journal", "-wal", "-shm", "")
_METRICS = """
SELECT run_id, name, run_id IN (SELECT run_id FROM runs),
    min(typeof(step) = 'integer' AND typeof(value) IN ('real', 'null'))
FROM metrics GROUP BY run_id, name
"""


def identity(path: Path) -> tuple[int, int] | None:
    """Which file has the name now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_or_set_aside(path: Path, timeout_s: float, *, is_ours: bool) -> tuple[Path | None, str]:
    """Make sure that a database can be opened there: a sound one, or a new one.

    Returns where a damaged one was moved, and what was wrong with it. One that is not known to be
    ours stays where it is.

    Raises: TrackingError if there is something that is no database of runs;
    DatabaseUnavailableError if that cannot be said for now.
    """
    if path.exists() and not damage(path, timeout_s):
        return None, ""
    with locked(path.absolute().parent, os.O_RDONLY):  # of two kernels, the second finds it mended
        if not path.exists() and any(f.exists() and f.stat().st_size for f in files_of(path)):
            set_aside(path)  # journals of a file that was deleted do not belong to a new one
        _make(path)
        reason = damage(path, timeout_s)
        if not reason:
            return None, ""
        if not is_ours and not _has_our_mark(path):
            raise TrackingError(
                f"{path} cannot be used ({reason}), and it does not look like a database of runs. "
                "Give another path, or move the file aside."
            )
        aside = set_aside(path)
        path.touch()
        return aside, reason


def _make(path: Path) -> None:
    """Make an empty file, unless there is one.

    Raises: TrackingError if there can be none; DatabaseUnavailableError if only the disk is full.
    """
    try:
        path.touch()
    except OSError as error:
        what = f"{path} cannot be made ({error.strerror}), but the database of runs is to be there."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DatabaseUnavailableError(f"{what} Free some space.", "full") from error
        raise TrackingError(f"{what} Give a path in a folder that can be written.") from error


def damage(path: Path, timeout_s: float) -> str:
    """What is wrong with a SQLite file, or ""; an empty file is a database without tables.

    Raises: DatabaseUnavailableError if it is locked or cannot be read for now.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
        if start and start != MAGIC:  # SQLite would bring its journals into whatever this is
            return "file is not a database"
        with contextlib.closing(connect(path, timeout_s)) as connection:
            # quick_check would take two thirds of the time and not see an index that is wrong
            # (0.10 and 0.15 s for a million metrics, 36 MiB, two cores, 2026-11-23).
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
            return _wrong_row(connection) if found == "ok" else found.replace("\n", " ")
    except UnicodeDecodeError as error:  # in names of tables, or in the message about them
        return f"text that is no text: {error.reason}"
    except sqlite3.Error as error:
        if cause_of(error)[0] == "damaged":
            return str(error)
        raise explain(error, str(path)) from error
    except OSError as error:
        raise DatabaseUnavailableError(
            f"{path} cannot be read ({error.strerror}). Make the file and its folder readable.",
            "unreadable",
        ) from error


def _wrong_row(connection: sqlite3.Connection) -> str:
    """What is wrong with the content of a database of runs whose pages are sound, or ""."""
    connection.execute("SELECT * FROM sqlite_master").fetchall()  # text that is none raises
    connection.text_factory = bytes
    mark, header = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version")
    )
    if mark != schema.APPLICATION_ID:  # not ours, or of the first schema, or empty
        return ""
    version = connection.execute(f"SELECT max(version) FROM {schema.version.name}").fetchone()[0]  # noqa: S608
    if version != header:
        return f"it has schema {header} by its header, and {version} by its table"
    if version != schema.SCHEMA_VERSION:
        return ""
    for table in schema.metadata.sorted_tables:
        columns = list(table.c)
        names = ", ".join(f'"{column.name}"' for column in columns)
        if table is schema.metrics:
            continue
        try:
            for row in connection.execute(f"SELECT {names} FROM {table.name}"):  # noqa: S608
                for column, value in zip(columns, row, strict=True):
                    schema.decoded(column, value)
        except (TypeError, ValueError) as error:
            return f"a row of {table.name}: {error}"
    try:
        for run_id, name, has_run, are_numbers in connection.execute(_METRICS):
            if not (name.decode() and has_run and are_numbers):
                return f"a row of metrics: {name.decode()!r} of {run_id.decode()!r}"
    except (TypeError, ValueError, AttributeError) as error:
        return f"a row of metrics: {error}"
    return ""


def set_aside(path: Path) -> Path:
    """Move a database and its journals to the first free name behind it."""
    number = 1
    while any(map(os.path.lexists, files_of(aside := _aside(path, number)))):
        number += 1
    for source, target in zip(files_of(path), files_of(aside), strict=True):
        with contextlib.suppress(FileNotFoundError):
            os.rename(source, target)
    return aside


def backup(source: Path, target: Path, timeout_s: float) -> None:
    """Write a consistent and checked copy to any disk, also while the database is in use.

    Raises: TrackingError if it cannot be written, or is not sound; an older copy stays then, and so
    does whatever is no regular file.
    """
    _refuse_other_kinds(target)
    # SQLite cannot write to Drive safely, so it writes a local file, and that is copied.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "runs.db"
        try:
            with (
                contextlib.closing(connect(source, timeout_s)) as reader,
                contextlib.closing(sqlite3.connect(copy)) as writer,
            ):
                reader.backup(writer)
                # A copy is one file, whatever journal the database has.
                writer.execute("PRAGMA journal_mode = DELETE")
                found = writer.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found == "ok":
                _replace(copy, target)
                return
        except (OSError, sqlite3.Error) as error:
            raise TrackingError(
                f"{target} was given for a backup, but it cannot be written ({error}). "
                "Give a path in a folder that can be written and has room."
            ) from error
    raise DatabaseUnavailableError(
        f"{source} is damaged ({found}), so it was not backed up to {target}; what was there "
        "stays. Open the database again: it is built anew.",
        "damaged",
    )


def files_of(path: Path) -> list[Path]:
    """The names of a database and of the journals that may lie beside it, journals first."""
    return [path.with_name(path.name + suffix) for suffix in SUFFIXES]


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.damaged-{number}")


def _has_our_mark(path: Path) -> bool:
    """Whether a damaged file still says in its header that it is a database of runs."""
    with path.open("rb") as file:
        header = file.read(72)
    return header.startswith(MAGIC) and header[68:72] == schema.APPLICATION_ID.to_bytes(4, "big")


def _refuse_other_kinds(target: Path) -> None:
    """Raise TrackingError for a folder, a device or a pipe, which a new file would push out."""
    try:
        mode = target.stat().st_mode
    except OSError:  # nothing is there, or writing tells why nothing can be
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or a socket"
        raise TrackingError(
            f"{target} is {what}, but a backup goes to a file of its own. Give the path of one."
        )


def _replace(source: Path, target: Path) -> None:
    """Copy a file so that at every moment the target is the old one or the whole new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with source.open("rb") as reader, part.open("wb") as writer:
            shutil.copyfileobj(reader, writer)
            writer.flush()
            os.fsync(writer.fileno())
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the name durable, where the file system can (Drive cannot)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

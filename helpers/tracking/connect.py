"""Which database a path or URL means, and how it is opened so that nothing is lost."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError

from helpers.errors import DatabaseUnavailableError, TrackingError
from helpers.tracking.environment import MOUNTS, network_file_system

BUSY_TIMEOUT_S = 30.0
# What keeps a database from being used for now: words of SQLite's error, and what to do.
_CAUSES = {
    "locked": (
        ("BUSY", "LOCKED"),
        "Another process has held it for longer than it should: close that one, or wait.",
    ),
    "full": (("FULL", "IOERR"), "Free some space on its disk and call again."),
    "damaged": (("CORRUPT", "NOTADB"), "Call again: it is built anew from the run folders."),
    "missing": (("CANTOPEN", "READONLY_DBMOVED"), "Call again: it is built anew."),
    "read-only": (("READONLY", "PERM"), "Make the file and its folder writable."),
}


def parse_url(url: str | Path) -> URL:
    """The URL that is meant; it is not repeated in errors, as it may hold a password."""
    if isinstance(url, Path) or "://" not in url:
        parsed = URL.create("sqlite", database=os.fspath(url))
    else:
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError) as error:
            raise TrackingError(
                "The URL of the database cannot be read, but sqlite:///path or "
                "postgresql://user@host/database is wanted. Give one of these, or a path."
            ) from error
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise TrackingError(
            f"The database is {backend}, but sqlite or postgresql is wanted. "
            "Give the path of a SQLite file."
        )
    if backend == "sqlite" and (parsed.database or ":memory:") == ":memory:":
        raise TrackingError(
            "The database has no file, but a record of runs is kept on disk. Give a path."
        )
    return parsed


def open_engine(url: URL, timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """Make what connects; SQLite is opened for each transaction and closed after it.

    So no lock, descriptor or deleted file is held between two, and none is inherited by a fork.

    Raises: TrackingError if the driver is missing.
    """
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "").absolute()
        engine = create_engine(
            "sqlite://", creator=lambda: connect(path, timeout_s), poolclass=NullPool
        )
        event.listen(engine, "begin", begin)
        return engine
    try:
        return create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise TrackingError(
            f"A database at {url.render_as_string(hide_password=True)} needs the Python package "
            f"{error.name}, which is not installed. Install it with pip install {error.name}, or "
            "give the path of a SQLite file."
        ) from error


def connect(path: Path, timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Open a SQLite file that is there; a missing one is an error and not made anew."""
    journal, synchronous = journal_mode(sqlite3.sqlite_version_info)
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,  # we send BEGIN ourselves, see begin
    )
    try:
        for setting in (
            "foreign_keys = ON",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "mmap_size = 0",
            f"journal_mode = {journal}",
            f"synchronous = {synchronous}",
        ):
            connection.execute(f"PRAGMA {setting}")
    except (sqlite3.Error, UnicodeDecodeError):
        connection.close()
        raise
    return connection


def journal_mode(version: tuple[int, ...]) -> tuple[str, str]:
    """Return the journal that this version of SQLite keeps safely, and how it is synced.

    Source: sqlite.org/wal.html; up to 3.51.2 two connections could damage a database in WAL mode.
    """
    return ("WAL", "NORMAL") if version >= (3, 51, 3) else ("TRUNCATE", "FULL")


def begin(connection: Connection) -> None:
    """Begin as the execution options say.

    Writers begin IMMEDIATE: a lock that is taken late fails at once, whatever the timeout.
    """
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


@contextmanager
def transaction(engine: Engine, name: str) -> Iterator[Connection]:
    """One transaction, in which the errors of SQLAlchemy become ours."""
    try:
        with engine.begin() as connection:
            yield connection
    except UnicodeDecodeError as error:  # SQLite's own words about a damaged file
        raise DatabaseUnavailableError(
            f"{name} cannot be used ({error.reason} in its text). {_CAUSES['damaged'][1]}",
            "damaged",
        ) from error
    except SQLAlchemyError as error:
        raise explain(error, name) from error


def explain(error: SQLAlchemyError | sqlite3.Error, name: str) -> TrackingError:
    """Our error for one of the database called `name`, with a cause unless a row is at fault."""
    original = getattr(error, "orig", None) or error
    cause, cure = cause_of(original)
    is_row = isinstance(error, IntegrityError | DataError) or isinstance(
        original, sqlite3.ProgrammingError | sqlite3.InterfaceError
    )
    if not cause and isinstance(error, DBAPIError) and not is_row:
        cause = "unusable"
    what = f"{name} cannot be used ({original})"
    message = f"{what}, and nothing of this call was kept. {cure}"
    if not cause:
        return TrackingError(message)
    return DatabaseUnavailableError(message, cause, f"{what}. {cure}")


def cause_of(error: BaseException) -> tuple[str, str]:
    """What kept SQLite from using its file, in a word, and the cure; "" for anything else."""
    code = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_")
    if "no such table" in str(error) or "Could not decode" in str(error):
        code = "CORRUPT"
    for cause, (codes, cure) in _CAUSES.items():
        if code.startswith(codes):
            return cause, cure
    return "", "See the cause above."


def check_place(path: Path, mounts: Path = MOUNTS) -> None:
    """Make the folder of a SQLite file, on a disk that SQLite can lock.

    Raises: TrackingError if there can be no database.
    """
    kind = network_file_system(path, mounts)
    if kind:
        raise TrackingError(
            f"{path} is on a file system of the kind {kind}, but SQLite loses rows on anything "
            "except a local disk. Give a path on the local disk, and copy it here with backup()."
        )
    if path.is_dir():
        raise TrackingError(
            f"{path} cannot be used (unable to open it: it is a folder), but the database of runs "
            "is a file. Give the path of a file, not of a folder."
        )
    folder = path.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(
            f"The folder {folder} cannot be made ({error.strerror}), but the database of runs is "
            "to be in it. Give a path in a folder that can be written."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TrackingError(
            f"The folder {folder} cannot be written, but the database of runs is to be in it. "
            "Give a path in a folder that can be written."
        )

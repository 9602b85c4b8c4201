"""Which database a path or URL means, and how SQLite is opened so that nothing is lost."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from helpers.errors import TrackingError
from helpers.tracking.environment import network_file_system

BUSY_TIMEOUT_S = 30


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


def open_engine(url: URL) -> Engine:
    """Connect lazily; SQLite gets its pragmas, and BEGIN as the execution options say.

    Raises: TrackingError if the place or the driver is missing.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite:
        _prepare_folder(Path(url.database or ""))
    options = {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if is_sqlite else {}
    try:
        engine = create_engine(url, **options)
    except ModuleNotFoundError as error:
        raise TrackingError(
            f"A database at {url.render_as_string(hide_password=True)} needs the Python package "
            f"{error.name}, which is not installed. Install it with pip install {error.name}, or "
            "give the path of a SQLite file."
        ) from error
    if is_sqlite:
        event.listen(engine, "connect", _set_up_connection)
        event.listen(engine, "begin", _begin)
    return engine


def journal_mode(version: tuple[int, ...]) -> str:
    """Return the journal that this version of SQLite keeps safely.

    Source: sqlite.org/wal.html; up to 3.51.2 two connections could damage a database in WAL mode.
    """
    return "WAL" if version >= (3, 51, 3) else "DELETE"


def _set_up_connection(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we send BEGIN ourselves, see _begin
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_mode = {journal_mode(sqlite3.sqlite_version_info)}")


def _begin(connection: Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _prepare_folder(path: Path) -> None:
    """Make the folder of a SQLite file, on a disk that SQLite can lock."""
    kind = network_file_system(path)
    if kind:
        raise TrackingError(
            f"{path} is on a file system of the kind {kind}, but SQLite loses rows on anything "
            "except a local disk. Give a path on the local disk, and copy it here with backup()."
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

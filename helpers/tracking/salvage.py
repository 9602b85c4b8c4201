"""What can still be read of a damaged SQLite file, for the runs that nothing else knows."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table

from helpers.tracking import entries, schema
from helpers.tracking.sqlite_file import files_of

Row = dict[str, Any]


def salvage(connection: Connection, path: Path, skip: set[str]) -> int:
    """Take over what can be read of a damaged database, except for the runs in `skip`.

    Returns the number of its runs. What is on record already is not replaced.
    """
    known: set[str] = set()
    with _copied(path) as copy:
        for table in schema.metadata.sorted_tables:
            if table is schema.version:
                continue
            rows = [row for row in _readable(copy, table) if row["run_id"] not in skip]
            if table is schema.runs:
                known = {row["run_id"] for row in rows}
            _insert(connection, table, [row for row in rows if row["run_id"] in known])
    return len(known)


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    if rows:
        # Numbers of events are given anew.
        plain = [{name: value for name, value in row.items() if name != "id"} for row in rows]
        connection.execute(entries.insert(connection, table).on_conflict_do_nothing(), plain)


@contextlib.contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """A copy with its journals, because SQLite changes what it reads if a journal is left."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "damaged.db"
        with contextlib.suppress(OSError):
            for source, target in zip(files_of(path), files_of(copy), strict=True):
                if source.exists():
                    shutil.copyfile(source, target)
        yield copy


def _readable(path: Path, table: Table) -> list[Row]:
    """The rows of a table before the first damaged page and behind the last one."""
    found: dict[tuple[Any, ...], Row] = {}
    keys = [column.name for column in table.primary_key]
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{key} {direction}" for key in keys)
        for raw in _rows(path, f"SELECT * FROM {table.name} ORDER BY {order}"):  # noqa: S608
            try:
                row = {c.name: schema.decoded(c, raw[c.name]) for c in table.c if c.name in raw}
                found.setdefault(tuple(row[key] for key in keys), row)
            except (TypeError, ValueError, KeyError):
                continue  # damage that SQLite does not see
    return [found[key] for key in sorted(found)]


def _rows(path: Path, statement: str) -> Iterator[Row]:
    """Rows up to the first that cannot be read."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as opened:
        opened.text_factory = lambda raw: raw.decode("utf-8", "replace")
        cursor = opened.execute(statement)
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(names, row, strict=True))

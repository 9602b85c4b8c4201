"""The schema of the database of runs, made or brought up to date one numbered step at a time.

A step is one transaction with its new number in it: killed at any statement, it was done or not.
The statements are those that SQLite and PostgreSQL both understand.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, func, insert, inspect, select

from helpers.errors import TrackingError
from helpers.tracking import schema

MIGRATIONS: dict[int, tuple[str, ...]] = {
    2: (
        "ALTER TABLE runs ADD COLUMN host TEXT",
        "ALTER TABLE runs ADD COLUMN pid BIGINT",
        "ALTER TABLE runs ADD COLUMN boot_id TEXT",
        "ALTER TABLE runs ADD COLUMN process_start TEXT",
        "ALTER TABLE events ADD COLUMN key VARCHAR(32)",
        "CREATE UNIQUE INDEX ix_events_key ON events (key)",
    ),
}


def version_of(connection: Connection, name: str) -> int | None:
    """The version of the schema that is there, or None in an empty database.

    Raises: TrackingError if the database called `name` is another program's.
    """
    tables = inspect(connection).get_table_names()
    if schema.version.name in tables:
        return connection.execute(select(func.max(schema.version.c.version))).scalar_one()
    if tables:
        raise TrackingError(
            f"{name} holds the tables of another program ({', '.join(tables[:3])}), but a "
            "database of runs of its own is wanted. Give another path or database."
        )
    return None


def create(connection: Connection) -> None:
    """Make the tables of the present schema in an empty database."""
    schema.metadata.create_all(connection, checkfirst=False)
    _set_version(connection, schema.SCHEMA_VERSION)


def migrate(connection: Connection, name: str, save: Callable[[int], None]) -> int:
    """Take one step if the schema is an old one; return the version that is there now.

    `save` is called with the old version before anything changes, while nobody else can write.
    """
    # Of two kernels that migrate, the second waits here, or in SQLite at BEGIN IMMEDIATE.
    connection.execute(select(schema.version).with_for_update())
    version = version_of(connection, name)
    assert version is not None
    if version >= schema.SCHEMA_VERSION:
        return version
    save(version)
    for statement in MIGRATIONS[version + 1]:
        connection.exec_driver_sql(statement)
    _set_version(connection, version + 1)
    return version + 1


def _set_version(connection: Connection, version: int) -> None:
    """Write the number into its table, and into the header of a SQLite file."""
    newest = connection.execute(select(func.max(schema.version.c.version))).scalar()
    if newest != version:
        connection.execute(insert(schema.version), {"version": version})
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {version}")

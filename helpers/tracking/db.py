"""ExperimentDB: the record of runs, on SQLite by default and PostgreSQL by URL."""

from __future__ import annotations

import random
import threading
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, select, update
from sqlalchemy.exc import SQLAlchemyError

from helpers.errors import DatabaseUnavailableError, TrackingError
from helpers.tracking import entries, migrations, rebuild, schema, spool, sqlite_file, tables
from helpers.tracking.connect import (
    BUSY_TIMEOUT_S,
    check_place,
    explain,
    open_engine,
    parse_url,
    transaction,
)
from helpers.tracking.entries import Entry
from helpers.tracking.owner import is_dead
from helpers.tracking.salvage import salvage

if typing.TYPE_CHECKING:
    from pandas import DataFrame

BATCH = 500
# Not the common generator: the random state of a run is part of what it continues from.
_JITTER = random.Random()
# What an entry or a folder may cause that another version, or an editor, wrote.
_REFUSALS = (TrackingError, LookupError, TypeError, ValueError, ArithmeticError)
_NOT_A_RUN = (*_REFUSALS, AttributeError, SQLAlchemyError, OSError)


class ExperimentDB:
    """Open the database of runs at a path, `sqlite:///path` or `postgresql://...`.

    Every write is one transaction: it is kept whole, also through a kill, or not at all. A SQLite
    file that is missing or damaged is made anew from the run folders below `output_dir` (the
    folder of the file, unless given); a damaged one is moved aside first, and `notes` says so.

    >>> with ExperimentDB(getfixture("tmp_path") / "runs.db") as db:
    ...     db.runs().empty
    True

    Raises: TrackingError if the place cannot be used; every method raises it for an unknown run,
    and DatabaseUnavailableError while the database is locked, full or gone.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        output_dir: str | Path | None = None,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        self._url = parse_url(url)
        self._timeout_s = busy_timeout_s
        self._file: Path | None = None
        if self._url.get_backend_name() == "sqlite":
            self._file = Path(self._url.database or "").absolute()
            check_place(self._file)
        folder = output_dir if output_dir is not None else self._file and self._file.parent
        self._output_dir = None if folder is None else Path(folder).expanduser().absolute()
        self._engine = open_engine(self._url, busy_timeout_s)
        self._writer = self._engine.execution_options(sqlite_begin="IMMEDIATE")
        self._opening = threading.RLock()
        self._version: int | None = None
        self._seen: tuple[int, int] | None = None
        self._was_open = False
        self.notes: list[str] = []
        try:
            self._open()
        except DatabaseUnavailableError as error:  # each call tries again
            self.notes.append(error.state)

    def start_run(
        self,
        run_id: str,
        *,
        name: str,
        config: Mapping[str, Any],
        task: Any,
        data_fingerprint: str,
        code_version: str,
        environment: Mapping[str, Any],
        seed: int,
        run_dir: str | Path,
    ) -> None:
        """Put a run on record, or continue it: its creation time and results are kept."""
        entry = entries.run(
            run_id,
            name=name,
            config=config,
            task=task,
            data_fingerprint=data_fingerprint,
            code_version=code_version,
            environment=environment,
            seed=seed,
            run_dir=run_dir,
        )
        self.write([entry])

    def log_metrics(self, run_id: str, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Record `(step, {name: value})` rows together; a step logged again replaces its values."""
        self.write([entries.metrics(run_id, rows)])

    def log_event(
        self, run_id: str, kind: str, message: str, step: int | None = None, **details: Any
    ) -> None:
        """Record that something happened; `details` are plain JSON values."""
        self.write([entries.event(run_id, kind, message, step, details)])

    def log_artifact(
        self, run_id: str, path: str | Path, kind: str, name: str | None = None
    ) -> None:
        """Record a file with its size and SHA-256, under its own name unless another is given."""
        self.write([entries.artifact(run_id, path, kind, name)])

    def log_checkpoint(
        self,
        run_id: str,
        step: int,
        path: str | Path,
        bytes: int,
        is_best: bool,
        metrics: Mapping[str, float],
    ) -> None:
        """Record a checkpoint that is on disk; if it is the best one, the others are not."""
        self.write([entries.checkpoint(run_id, step, path, bytes, is_best, metrics)])

    def mark_checkpoint(self, run_id: str, step: int, status: str) -> None:
        """Say what became of a checkpoint: kept, deleted or damaged."""
        self.write([entries.checkpoint_status(run_id, step, status)])

    def forget_after(self, run_id: str, step: int) -> None:
        """Delete the metrics of later steps, as a resume from an older checkpoint needs."""
        self.write([entries.forget(run_id, step)])

    def finish_run(self, run_id: str, status: str, results: Mapping[str, Any]) -> None:
        """Record how a run ended: completed, paused, stopped_early or failed."""
        self.write([entries.finish(run_id, status, results)])

    def runs(self) -> DataFrame:
        """Return all runs in the order they were first started, with the numbers of their results.

        A run whose process died without a word is `interrupted`.

        Units: times are UTC.
        """
        left_out = ("config", "environment", "number", "host", "pid", "boot_id", "process_start")
        columns = [c for c in schema.runs.c if c.name not in left_out]
        with self._reading() as connection:
            rows = connection.execute(select(*columns).order_by(schema.runs.c.number)).mappings()
            records = [dict(row) for row in rows]
        return tables.runs_table(records, [c.name for c in columns])

    def run(self, run_id: str) -> dict[str, Any]:
        """Return the record of one run; times are UTC seconds."""
        with self._reading(run_id) as connection:
            statement = select(schema.runs).where(schema.runs.c.run_id == run_id)
            return dict(connection.execute(statement).mappings().one())

    def metrics(self, run_id: str, names: Sequence[str] | None = None) -> DataFrame:
        """Return one row a step, one column a metric, both sorted, or `names` in their order.

        NaN is also what a metric shows at a step where others were logged and it was not; asked
        for alone, a metric has only its own steps.
        """
        columns = schema.metrics.c
        statement = select(columns.step, columns.name, columns.value).where(
            columns.run_id == run_id
        )
        if names is not None:
            wanted = [schema.check_key("metric name", name) for name in names]
            statement = statement.where(columns.name.in_(wanted))
        with self._reading(run_id) as connection:
            rows = connection.execute(statement).all()
        return tables.metrics_table(rows, names)

    def events(self, run_id: str) -> DataFrame:
        """Return what happened to a run, in the order it was written; times are UTC."""
        frame = self._table(schema.events, run_id, "id").drop(columns="key")
        return tables.with_times(frame, "time").astype({"step": "Int64"})

    def checkpoints(self, run_id: str) -> DataFrame:
        """Return the checkpoints of a run by step, also those that are gone; times are UTC."""
        return tables.with_times(self._table(schema.checkpoints, run_id, "step"), "created")

    def artifacts(self, run_id: str) -> DataFrame:
        """Return the files of a run by name, with size in bytes and SHA-256."""
        return self._table(schema.artifacts, run_id, "name")

    def compare(self, run_a: str, run_b: str) -> DataFrame:
        """Return each setting and final result in which two runs differ, a line each."""
        return tables.differences(self.run(run_a), self.run(run_b), [run_a, run_b])

    def backup(self, path: str | Path) -> None:
        """Write a consistent and checked copy of a SQLite database to any disk.

        It may be in use meanwhile, and the call may come from any thread. What is at the path stays
        until the copy is whole.
        """
        path = Path(path)
        if self._file is None:
            raise TrackingError(
                f"backup was called on {self}, but it copies SQLite files. Use pg_dump."
            )
        if path.resolve() == self._file.resolve():
            raise TrackingError(
                f"{path} is the database itself, but a backup goes elsewhere. Give another path."
            )
        self._open()
        try:
            sqlite_file.backup(self._file, path, self._timeout_s)
        except DatabaseUnavailableError:
            self._version = None
            raise

    def merge_spools(self, output_dir: str | Path | None = None) -> int:
        """Write what waits in the spools of all run folders below; return the number of entries.

        The spool of a run that another process is merging right now is left to it.
        """
        return sum(self.merge_spool(f, wait=False) for f in self._run_folders(output_dir))

    def merge_spool(self, folder: Path, *, wait: bool = True) -> int:
        """Write what waits in the spool of one run folder; return the number of entries.

        What the database refuses for good is kept in `spool.refused.jsonl`.

        Raises: DatabaseUnavailableError; all is in the spool then.
        """
        n_merged = 0
        with spool.merging(folder, wait=wait) as is_ours:
            while is_ours and (part := spool.take(folder)):
                waiting = spool.read(part)
                self.merge(waiting, folder)
                part.unlink()
                n_merged += len(waiting)
        return n_merged

    def rebuild(self, output_dir: str | Path | None = None) -> int:
        """Put the runs of all run folders below on record again; return their number.

        What they know replaces what is on record, everything else stays.
        """
        folders = self._run_folders(output_dir)
        known: set[str] = set()
        self._apply(lambda connection: known.update(self._import(connection, folders)))
        self.merge_spools(output_dir)
        return len(known)

    def write(self, batch: Sequence[Entry]) -> None:
        """Write entries in one transaction.

        Raises: DatabaseUnavailableError if it cannot be had; TrackingError if one is refused.
        """

        def work(connection: Connection) -> None:
            for entry in batch:
                entries.apply(connection, entry)

        self._apply(work)

    def close(self) -> None:
        """Close all connections; a later call opens a new one."""
        self._engine.dispose()

    @property
    def name(self) -> str:
        """Where the database is, without a password."""
        if self._file is not None:
            return str(self._file)
        return self._url.render_as_string(hide_password=True)

    def __enter__(self) -> ExperimentDB:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ExperimentDB({str(self)!r})"

    def __str__(self) -> str:
        return self.name if self._file is None else self._url.database or ""

    def _repr_html_(self) -> str:
        shown = ["name", "status", "created", "updated", "seed", "data_fingerprint", "code_version"]
        return self.runs()[shown].to_html(max_rows=20)

    def _open(self) -> None:
        """Make sure that what has the name now is a sound database of this schema."""
        is_there = self._file is None or sqlite_file.identity(self._file) == self._seen
        if self._version is not None and is_there:
            return
        with self._opening:
            aside, reason = None, ""
            if self._file is not None:
                aside, reason = sqlite_file.check_or_set_aside(
                    self._file, self._timeout_s, is_ours=self._was_open or self._has_runs()
                )
                self._seen = sqlite_file.identity(self._file)
            self._version = self._make_schema(aside, reason)
            self._was_open = True
            if self._version == schema.SCHEMA_VERSION:
                self._settle()

    def _make_schema(self, aside: Path | None, reason: str) -> int:
        """Make the tables, or bring them up to date; return the version that is there."""
        with transaction(self._engine, str(self)) as connection:
            version = migrations.version_of(connection, str(self))
        if version is None:
            try:
                self._make_tables(aside, reason)
            except TrackingError:
                # A server lets two processes begin, and refuses the second one at its first table.
                with transaction(self._engine, str(self)) as connection:
                    if migrations.version_of(connection, str(self)) is None:
                        raise
            return schema.SCHEMA_VERSION
        while version < schema.SCHEMA_VERSION:
            with transaction(self._writer, str(self)) as connection:
                version = migrations.migrate(connection, str(self), self._save_old)
        if version > schema.SCHEMA_VERSION:
            self.notes.append(str(self._too_new(version)))
        return version

    def _make_tables(self, aside: Path | None, reason: str) -> None:
        """Make the tables with all that the run folders know, unless another process just did."""
        folders = self._run_folders()
        with transaction(self._writer, str(self)) as connection:
            if migrations.version_of(connection, str(self)) is not None:
                return
            migrations.create(connection)
            n_salvaged = 0
            known = self._import(connection, folders)
            if aside is not None:
                n_salvaged = salvage(connection, aside, known)
        if aside is not None:
            self.notes.append(
                f"{self} was damaged ({reason}) and is now {aside.name}. It was built anew: "
                f"{len(known)} runs from their folders, {n_salvaged} from what could be read of it."
            )
        elif self._was_open:
            self.notes.append(
                f"{self} was gone. It was built anew: {len(known)} runs from their folders."
            )

    def _import(self, connection: Connection, folders: Sequence[Path]) -> set[str]:
        """Put the runs of folders on record; one that cannot be read is noted and left out."""
        known = set()
        for folder in filter(rebuild.has_run, folders):
            try:
                with connection.begin_nested():
                    known.add(rebuild.import_run(connection, folder))
            except _NOT_A_RUN as error:
                if isinstance(error, SQLAlchemyError):
                    error = explain(error, str(self))
                if isinstance(error, DatabaseUnavailableError):
                    raise error from None
                self.notes.append(f"{folder} was left out of the record: {error}")
        return known

    def _save_old(self, version: int) -> None:
        """Keep a copy of the database as it was before a migration."""
        if self._file is None:
            return
        copy = self._file.with_name(f"{self._file.name}.v{version}.bak")
        try:
            sqlite_file.backup(self._file, copy, self._timeout_s)
        except TrackingError as error:
            raise DatabaseUnavailableError(
                f"{self} has schema {version} and is not migrated to {schema.SCHEMA_VERSION}, "
                f"because no copy of it can be made first: {error}",
                "full",
            ) from error

    def _settle(self) -> None:
        """Write what waits for this database, and say of dead runs that they are."""
        for folder in self._run_folders():
            if any(e.get("database") == self.name for e in spool.waiting(folder)):
                self.merge_spool(folder, wait=False)
        with transaction(self._engine, str(self)) as connection:
            if not self._dead_runs(connection):
                return
        with transaction(self._writer, str(self)) as connection:
            table = schema.runs
            for run_id in self._dead_runs(connection):
                ended = update(table).where(table.c.run_id == run_id)
                connection.execute(ended.values(status="interrupted"))

    def _dead_runs(self, connection: Connection) -> list[str]:
        running = select(schema.runs).where(schema.runs.c.status == "running")
        rows = connection.execute(running).mappings()
        return [row["run_id"] for row in rows if is_dead(row, is_file=self._file is not None)]

    def merge(self, waiting: list[Entry], folder: Path) -> None:
        """Write the entries of a spool in their order, in batches."""
        batch: list[Entry] = []
        for entry in waiting:
            if entry["kind"] != "history":
                batch.append(entry)
            if batch and (entry["kind"] == "history" or len(batch) == BATCH):
                self._write_or_refuse(batch, folder)
                batch = []
            if entry["kind"] == "history":
                self._sync_metrics(entry["run_id"], folder)
        if batch:
            self._write_or_refuse(batch, folder)

    def _sync_metrics(self, run_id: str, folder: Path) -> None:
        for rows in rebuild.metric_chunks(folder):
            self._apply(lambda c, rows=rows: entries.sync_metrics(c, run_id, rows))

    def _write_or_refuse(self, batch: list[Entry], folder: Path) -> None:
        """Write a batch; where one of it is refused, write each by itself and keep that one."""
        try:
            self.write(batch)
            return
        except DatabaseUnavailableError:
            raise
        except _REFUSALS:
            run_id = batch[0]["run_id"]  # the database may be one that does not know it any more
            self._apply(
                lambda connection: (
                    rebuild.is_on_record(connection, run_id) or self._import(connection, [folder])
                )
            )
        refused = spool.LineFile(folder / spool.REFUSED)
        for entry in batch:
            try:
                self.write([entry])
            except DatabaseUnavailableError:
                raise
            except _REFUSALS as error:
                refused.add(entry)
                self.notes.append(f"An entry of {folder.name} was refused: {error}")

    def _apply(self, work: Callable[[Connection], Any]) -> None:
        """Do work in one transaction that writes; again, if the file was replaced meanwhile.

        Raises: DatabaseUnavailableError if another process holds the database for too long.
        """
        end, n_repairs = time.monotonic() + 2 * self._timeout_s, 0
        while True:
            try:
                self._open()
                self._check_writable()
                seen = self._seen
                with transaction(self._writer, str(self)) as connection:
                    work(connection)
                if self._file is None or sqlite_file.identity(self._file) == seen:
                    return
            except DatabaseUnavailableError as error:
                if error.cause in ("damaged", "missing") and n_repairs < 2:
                    self._version = None
                    n_repairs += 1
                elif error.cause == "locked" and time.monotonic() < end:
                    time.sleep(_JITTER.uniform(0.01, 0.2))
                else:
                    raise

    def _check_writable(self) -> None:
        if self._version is not None and self._version > schema.SCHEMA_VERSION:
            raise self._too_new(self._version)

    def _too_new(self, version: int) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(
            f"{self} has schema {version}, but this release writes schema "
            f"{schema.SCHEMA_VERSION} and can only read it. Install a newer release.",
            "newer",
        )

    @contextmanager
    def _reading(self, run_id: str | None = None) -> Iterator[Connection]:
        """One consistent view, in which `run_id` is on record."""
        try:
            self._open()
            with transaction(self._engine, str(self)) as connection:
                if run_id is not None:
                    run_id = schema.check_key("run_id", run_id)
                    statement = select(schema.runs.c.run_id).where(schema.runs.c.run_id == run_id)
                    if connection.execute(statement).first() is None:
                        raise entries.unknown_run(connection, run_id)
                yield connection
        except DatabaseUnavailableError as error:
            if error.cause in ("damaged", "missing"):
                self._version = None  # the next call mends it
            raise

    def _run_folders(self, output_dir: str | Path | None = None) -> list[Path]:
        folder = self._output_dir if output_dir is None else Path(output_dir).expanduser()
        return [] if folder is None else rebuild.run_folders(folder.absolute())

    def _has_runs(self) -> bool:
        return bool(self._run_folders())

    def _table(self, table: Table, run_id: str, index: str) -> DataFrame:
        """The rows of a run, sorted by their index."""
        columns = [c for c in table.c if c.name != "run_id"]
        statement = select(*columns).where(table.c.run_id == run_id).order_by(table.c[index])
        with self._reading(run_id) as connection:
            rows = connection.execute(statement).all()
        return tables.table(rows, [c.name for c in columns], index)

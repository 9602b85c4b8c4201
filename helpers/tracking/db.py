"""ExperimentDB: the record of runs, on SQLite by default and PostgreSQL by URL."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Table,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from helpers.errors import TrackingError
from helpers.tracking import schema
from helpers.tracking.connect import BUSY_TIMEOUT_S, open_engine, parse_url
from helpers.tracking.environment import fingerprint

if typing.TYPE_CHECKING:
    from pandas import DataFrame

STATUSES = ("running", "completed", "paused", "stopped_early", "failed")
CHECKPOINT_STATUSES = ("kept", "deleted", "damaged")
_NOT_SET = "(not set)"
_CURES = {
    "locked": f"Another process has held it for {BUSY_TIMEOUT_S} s: close that one, or wait.",
    "is full": "The disk is full: free some space and call again.",
    "readonly": "Make the file and its folder writable.",
    "unable to open": "Give the path of a file, not of a folder.",
    "not a database": "Give another path, or put a backup in its place.",
    "malformed": "Move the file aside and put a backup in its place.",
}


class ExperimentDB:
    """Open the database of runs at a path, `sqlite:///path` or `postgresql://...`.

    Every write is one transaction: it is kept whole, also through a kill, or not at all.

    >>> with ExperimentDB(getfixture("tmp_path") / "runs.db") as db:
    ...     db.runs().empty
    True

    Raises: TrackingError if the place cannot be used; every method raises it for an unknown run.
    """

    def __init__(self, url: str | Path) -> None:
        self._url = parse_url(url)
        self._engine = open_engine(self._url)
        # Writers begin IMMEDIATE: a lock that is taken late fails at once, whatever the timeout.
        self._writer = self._engine.execution_options(sqlite_begin="IMMEDIATE")
        self._version = schema.SCHEMA_VERSION
        try:
            self._version = self._make_tables()
        except BaseException:
            self.close()
            raise

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
        identity = {
            "config": schema.check_plain("config", config),
            "task": schema.check_plain("task", task),
            "data_fingerprint": schema.printable(data_fingerprint),
            "code_version": schema.printable(code_version),
            "seed": seed,
        }
        now = time.time()
        row = {
            **identity,
            "run_id": schema.check_key("run_id", run_id),
            "number": select(
                func.coalesce(func.max(schema.runs.c.number), 0) + 1
            ).scalar_subquery(),
            "name": schema.printable(name),
            "status": "running",
            "created": now,
            "updated": now,
            "finished": None,
            "fingerprint": fingerprint(identity),
            "run_dir": schema.printable(os.fspath(run_dir)),
            "environment": schema.check_plain("environment", environment),
            "results": {},
        }
        with self._writing() as connection:
            statement = self._upsert(schema.runs, keep=("number", "created", "results"))
            connection.execute(statement.values(row))

    def log_metrics(self, run_id: str, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Record `(step, {name: value})` rows together; a step logged again replaces its values."""
        values = {
            (schema.check_step(step), schema.check_key("metric name", name)): schema.check_number(
                name, value
            )
            for step, metrics in rows
            for name, value in metrics.items()
        }
        found = [
            {"run_id": run_id, "name": name, "step": step, "value": value}
            for (step, name), value in values.items()
        ]
        with self._writing(run_id) as connection:
            if found:
                connection.execute(self._upsert(schema.metrics), found)

    def log_event(
        self, run_id: str, kind: str, message: str, step: int | None = None, **details: Any
    ) -> None:
        """Record that something happened; `details` are plain JSON values."""
        row = {
            "run_id": run_id,
            "time": time.time(),
            "step": None if step is None else schema.check_step(step),
            "kind": schema.printable(kind),
            "message": schema.printable(message),
            "details": schema.check_plain("details", details),
        }
        with self._writing(run_id) as connection:
            connection.execute(insert(schema.events), row)

    def log_artifact(
        self, run_id: str, path: str | Path, kind: str, name: str | None = None
    ) -> None:
        """Record a file with its size and SHA-256, under its own name unless another is given."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            raise TrackingError(
                f"{path} was given as an artifact, but it cannot be read ({error.strerror}). "
                "Give the path of a file."
            ) from error
        row = {
            "run_id": run_id,
            "name": schema.check_key("artifact name", path.name if name is None else name),
            "kind": schema.printable(kind),
            "path": schema.printable(os.fspath(path)),
            "bytes": size,
            "sha256": sha256,
        }
        with self._writing(run_id) as connection:
            connection.execute(self._upsert(schema.artifacts), row)

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
        row = {
            "run_id": run_id,
            "step": schema.check_step(step),
            "path": schema.printable(os.fspath(path)),
            "bytes": bytes,
            "is_best": bool(is_best),
            "status": "kept",
            "created": time.time(),
            "metrics": schema.check_plain("metrics", metrics),
        }
        table = schema.checkpoints
        with self._writing(run_id) as connection:
            if is_best:
                connection.execute(
                    update(table).where(table.c.run_id == run_id).values(is_best=False)
                )
            connection.execute(self._upsert(table), row)

    def mark_checkpoint(self, run_id: str, step: int, status: str) -> None:
        """Say what became of a checkpoint: kept, deleted or damaged."""
        _check_word("status", status, CHECKPOINT_STATUSES)
        table = schema.checkpoints
        with self._writing(run_id) as connection:
            marked = connection.execute(
                update(table).where(table.c.run_id == run_id, table.c.step == step),
                {"status": status},
            )
            if not marked.rowcount:
                raise TrackingError(
                    f"Step {step} of run {run_id} was marked {status}, but no checkpoint of that "
                    "step is on record. Record it with log_checkpoint."
                )

    def forget_after(self, run_id: str, step: int) -> None:
        """Delete the metrics of later steps, as a resume from an older checkpoint needs."""
        table = schema.metrics
        with self._writing(run_id) as connection:
            connection.execute(
                delete(table).where(
                    table.c.run_id == run_id, table.c.step > schema.check_step(step)
                )
            )

    def finish_run(self, run_id: str, status: str, results: Mapping[str, Any]) -> None:
        """Record how a run ended: completed, paused, stopped_early or failed."""
        _check_word("status", status, STATUSES[1:])
        row = {
            "status": status,
            "finished": None if status == "paused" else time.time(),
            "results": schema.check_plain("results", results),
        }
        with self._writing(run_id) as connection:
            connection.execute(
                update(schema.runs).where(schema.runs.c.run_id == run_id).values(row)
            )

    def runs(self) -> DataFrame:
        """Return all runs in the order they were first started, with the numbers of their results.

        Units: times are UTC.
        """
        import pandas

        names = [c for c in schema.runs.c if c.name not in ("config", "environment", "number")]
        with self._reading() as connection:
            rows = connection.execute(select(*names).order_by(schema.runs.c.number)).mappings()
            records = [dict(row) for row in rows]
        for record in records:
            for name, value in record.pop("results").items():
                if isinstance(value, str | int | float):
                    record.setdefault(name, value)
        columns = [c.name for c in names if c.name != "results"] if not records else None
        frame = pandas.DataFrame(records, columns=columns)
        return _with_times(frame, "created", "updated", "finished").set_index("run_id")

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
        import pandas

        table = schema.metrics
        statement = select(table.c.step, table.c.name, table.c.value).where(
            table.c.run_id == run_id
        )
        if names is not None:
            statement = statement.where(
                table.c.name.in_([schema.check_key("metric name", n) for n in names])
            )
        with self._reading(run_id) as connection:
            rows = connection.execute(statement).all()
        frame = pandas.DataFrame(rows, columns=["step", "name", "value"])
        frame = frame.astype({"step": "int64", "value": "float64"})
        wide = frame.pivot(index="step", columns="name", values="value").sort_index()
        wide = wide.reindex(columns=sorted(wide.columns) if names is None else list(names))
        return wide.rename_axis(columns=None)

    def events(self, run_id: str) -> DataFrame:
        """Return what happened to a run, in the order it was written; times are UTC."""
        frame = self._table(schema.events, run_id, "id")
        return _with_times(frame, "time").astype({"step": "Int64"})

    def checkpoints(self, run_id: str) -> DataFrame:
        """Return the checkpoints of a run by step, also those that are gone; times are UTC."""
        return _with_times(self._table(schema.checkpoints, run_id, "step"), "created")

    def artifacts(self, run_id: str) -> DataFrame:
        """Return the files of a run by name, with size in bytes and SHA-256."""
        return self._table(schema.artifacts, run_id, "name")

    def compare(self, run_a: str, run_b: str) -> DataFrame:
        """Return each setting and final result in which two runs differ, a line each."""
        import pandas

        a, b = (_flatten(_comparable(self.run(run_id))) for run_id in (run_a, run_b))
        lines = {
            name: (a.get(name, _NOT_SET), b.get(name, _NOT_SET))
            for name in {**a, **b}
            if not _same(a.get(name, _NOT_SET), b.get(name, _NOT_SET))
        }
        return pandas.DataFrame(
            lines.values(), index=pandas.Index(lines, dtype=object), columns=[run_a, run_b]
        )

    def backup(self, path: str | Path) -> None:
        """Write a consistent copy of a SQLite database to any disk, also while it is in use."""
        path = Path(path)
        if not self._is_sqlite:
            raise TrackingError(
                f"backup was called on {self}, but it copies SQLite files. Use pg_dump."
            )
        if path.resolve() == Path(self._url.database or "").resolve():
            raise TrackingError(
                f"{path} is the database itself, but a backup goes elsewhere. Give another path."
            )
        # SQLite cannot write to Drive safely, so it writes a local file, and that is copied.
        with tempfile.TemporaryDirectory() as folder, self._reading() as connection:
            source, copy = connection.connection.driver_connection, Path(folder) / "runs.db"
            assert source is not None
            try:
                with closing(sqlite3.connect(copy)) as target:
                    source.backup(target)
                _replace(copy, path)
            except (OSError, sqlite3.Error) as error:
                raise TrackingError(
                    f"{path} was given for a backup, but it cannot be written ({error}). "
                    "Give a path in a folder that can be written and has room."
                ) from error

    def close(self) -> None:
        """Close all connections; a later call opens a new one."""
        self._engine.dispose()

    def __enter__(self) -> ExperimentDB:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ExperimentDB({str(self)!r})"

    def __str__(self) -> str:
        if self._is_sqlite:
            return self._url.database or ""
        return self._url.render_as_string(hide_password=True)

    def _repr_html_(self) -> str:
        shown = ["name", "status", "created", "updated", "seed", "data_fingerprint", "code_version"]
        return self.runs()[shown].to_html(max_rows=20)

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    def _make_tables(self) -> int:
        """Make the tables if there are none; return the version of the schema that is there."""
        with self._transaction(self._writer) as connection:
            tables = inspect(connection).get_table_names()
            if schema.version.name in tables:
                return connection.execute(select(func.max(schema.version.c.version))).scalar_one()
            if tables:
                raise TrackingError(
                    f"{self} holds the tables of another program ({', '.join(tables[:3])}), but a "
                    "database of runs of its own is wanted. Give another path or database."
                )
            schema.metadata.create_all(connection, checkfirst=False)
            connection.execute(insert(schema.version), {"version": schema.SCHEMA_VERSION})
            return schema.SCHEMA_VERSION

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        """One transaction, in which the errors of SQLAlchemy become ours."""
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error)
            cure = next((_CURES[word] for word in _CURES if word in cause), "See the cause above.")
            raise TrackingError(
                f"{self} cannot be used ({cause}), and nothing of this call was kept. {cure}"
            ) from error

    @contextmanager
    def _reading(self, run_id: str | None = None) -> Iterator[Connection]:
        """One consistent view, in which `run_id` is on record."""
        with self._transaction(self._engine) as connection:
            if run_id is not None:
                run_id = schema.check_key("run_id", run_id)
                statement = select(schema.runs.c.run_id).where(schema.runs.c.run_id == run_id)
                if connection.execute(statement).first() is None:
                    raise _unknown_run(connection, run_id)
            yield connection

    @contextmanager
    def _writing(self, run_id: str | None = None) -> Iterator[Connection]:
        """One write, which also says that the run `run_id` is alive."""
        if self._version > schema.SCHEMA_VERSION:
            raise TrackingError(
                f"{self} has schema {self._version}, but this release writes schema "
                f"{schema.SCHEMA_VERSION} and can only read it. Install a newer release."
            )
        with self._transaction(self._writer) as connection:
            if run_id is not None:
                run_id = schema.check_key("run_id", run_id)
                touched = connection.execute(
                    update(schema.runs).where(schema.runs.c.run_id == run_id),
                    {"updated": time.time()},
                )
                if not touched.rowcount:
                    raise _unknown_run(connection, run_id)
            yield connection

    def _upsert(self, table: Table, keep: tuple[str, ...] = ()) -> Any:
        """An INSERT that replaces the row of the same primary key, except for `keep`."""
        dialect = import_module(f"sqlalchemy.dialects.{self._url.get_backend_name()}")
        statement = dialect.insert(table)
        replaced = [c.name for c in table.c if not c.primary_key and c.name not in keep]
        return statement.on_conflict_do_update(
            index_elements=list(table.primary_key),
            set_={name: statement.excluded[name] for name in replaced},
        )

    def _table(self, table: Table, run_id: str, index: str) -> DataFrame:
        """The rows of a run, sorted by their index."""
        import pandas

        columns = [c for c in table.c if c.name != "run_id"]
        statement = select(*columns).where(table.c.run_id == run_id).order_by(table.c[index])
        with self._reading(run_id) as connection:
            rows = connection.execute(statement).all()
        return pandas.DataFrame(rows, columns=[c.name for c in columns]).set_index(index)


def _replace(source: Path, target: Path) -> None:
    """Copy a file so that at every moment the target is the old one or the whole new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with source.open("rb") as reader, part.open("wb") as writer:
        shutil.copyfileobj(reader, writer)
        writer.flush()
        os.fsync(writer.fileno())
    part.replace(target)


def _unknown_run(connection: Connection, run_id: str) -> TrackingError:
    known = connection.execute(select(schema.runs.c.run_id)).scalars().all()
    near = difflib.get_close_matches(run_id, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else "See runs() for all of them."
    return TrackingError(f"{run_id!r} is not one of the {len(known)} runs on record. {hint}")


def _check_word(what: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise TrackingError(
            f"{what} is {word!r}, but {', '.join(known[:-1])} or {known[-1]} is wanted."
        )


def _with_times(frame: DataFrame, *names: str) -> DataFrame:
    """The same table with UTC seconds turned into times."""
    import pandas

    times = {name: pandas.to_datetime(frame[name], unit="s", utc=True) for name in names}
    return frame.assign(**times)


def _comparable(run: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's record in which a difference means something."""
    names = ("config", "task", "seed", "data_fingerprint", "code_version", "environment")
    return {name: run[name] for name in (*names, "status", "results")}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _same(a: Any, b: Any) -> bool:
    """Equal, where NaN equals NaN and the types of numbers do not count."""
    return a == b or json.dumps(a) == json.dumps(b)

"""What is put on record, as plain JSON: checked when made, and the same applied once or again.

An entry is written to the database, or waits in a file and is written later; each says by itself
all that it changes.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, func, select, update

from helpers.errors import TrackingError
from helpers.tracking import schema
from helpers.tracking.environment import fingerprint
from helpers.tracking.owner import this_process

ENDINGS = ("completed", "paused", "stopped_early", "failed")
STATUSES = ("running", *ENDINGS, "interrupted")
CHECKPOINT_STATUSES = ("kept", "deleted", "damaged")
IDENTITY = ("config", "task", "data_fingerprint", "code_version", "seed")

Entry = dict[str, Any]


def run(
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
) -> Entry:
    """A run that starts or goes on in this process."""
    row = {
        "name": schema.printable(name),
        "config": schema.check_plain("config", config),
        "task": schema.check_plain("task", task),
        "data_fingerprint": schema.printable(data_fingerprint),
        "code_version": schema.printable(code_version),
        "environment": schema.check_plain("environment", environment),
        "seed": seed,
        "run_dir": schema.printable(os.fspath(run_dir)),
        "status": "running",
        "finished": None,
        **this_process(),
    }
    return _entry("run", run_id, row=row)


def metrics(run_id: str, rows: Iterable[tuple[int, Mapping[str, float]]]) -> Entry:
    """Values of metrics at steps; the last one of a step and name counts."""
    values = {
        (schema.check_step(step), schema.check_key("metric name", name)): schema.check_number(
            name, value
        )
        for step, named in rows
        for name, value in named.items()
    }
    return _entry("metrics", run_id, rows=[[*key, value] for key, value in values.items()])


def event(run_id: str, kind: str, message: str, step: int | None, details: Any) -> Entry:
    """Something that happened."""
    row = {
        "step": None if step is None else schema.check_step(step),
        "kind": schema.printable(kind),
        "message": schema.printable(message),
        "details": schema.check_plain("details", details),
        "key": uuid.uuid4().hex,
    }
    return _entry("event", run_id, row=row)


def artifact(run_id: str, path: str | Path, kind: str, name: str | None = None) -> Entry:
    """A file as it is now."""
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
        "name": schema.check_key("artifact name", path.name if name is None else name),
        "kind": schema.printable(kind),
        "path": schema.printable(os.fspath(path)),
        "bytes": size,
        "sha256": sha256,
    }
    return _entry("artifact", run_id, row=row)


def checkpoint(
    run_id: str,
    step: int,
    path: str | Path,
    bytes: int,
    is_best: bool,
    metrics: Mapping[str, float],
) -> Entry:
    """A checkpoint that is on disk."""
    row = {
        "step": schema.check_step(step),
        "path": schema.printable(os.fspath(path)),
        "bytes": bytes,
        "is_best": bool(is_best),
        "status": "kept",
        "metrics": schema.check_plain("metrics", metrics),
    }
    return _entry("checkpoint", run_id, row=row)


def checkpoint_status(run_id: str, step: int, status: str) -> Entry:
    """What became of a checkpoint."""
    _check_word("status", status, CHECKPOINT_STATUSES)
    return _entry("checkpoint status", run_id, step=schema.check_step(step), status=status)


def forget(run_id: str, step: int) -> Entry:
    """That the metrics of later steps do not count."""
    return _entry("forget", run_id, step=schema.check_step(step))


def history(run_id: str) -> Entry:
    """That the metrics on record are to be those of the run's own file."""
    return _entry("history", run_id)


def finish(run_id: str, status: str, results: Mapping[str, Any]) -> Entry:
    """How a run ended."""
    _check_word("status", status, ENDINGS)
    return _entry("finish", run_id, status=status, results=schema.check_plain("results", results))


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a row of a run, without its step and what is no number."""
    return {
        name: float(value)
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float)
    }


def apply(connection: Connection, entry: Entry) -> None:
    """Write an entry; again is as good as once.

    Raises: TrackingError if its run or checkpoint is not on record.
    """
    run_id = entry["run_id"]
    if entry["kind"] == "run":
        _put_run(connection, run_id, entry)
        return
    table = schema.runs
    touched = connection.execute(
        update(table).where(table.c.run_id == run_id), {"updated": entry["time"]}
    )
    if not touched.rowcount:
        raise unknown_run(connection, run_id)
    _APPLY[entry["kind"]](connection, run_id, entry)


def sync_metrics(connection: Connection, run_id: str, rows: list[list[Any]]) -> None:
    """Make the metrics of some steps what `rows` say, and write only where they differ."""
    table = schema.metrics
    steps = [step for step, _, _ in rows]
    known = select(table.c.step, table.c.name, table.c.value).where(
        table.c.run_id == run_id, table.c.step.between(min(steps), max(steps))
    )
    found = {(step, name): value for step, name, value in connection.execute(known)}
    differing = [row for row in rows if not _same(found.get((row[0], row[1])), row[2])]
    _put_metrics(connection, run_id, {"rows": differing})


def upsert(connection: Connection, table: Table, keep: tuple[str, ...] = ()) -> Any:
    """An INSERT that replaces the row of the same primary key, except for `keep`."""
    statement = insert(connection, table)
    replaced = [c.name for c in table.c if not c.primary_key and c.name not in keep]
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={name: statement.excluded[name] for name in replaced},
    )


def insert(connection: Connection, table: Table) -> Any:
    """The INSERT of this database, which knows what to do on a conflict."""
    return import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(table)


def unknown_run(connection: Connection, run_id: str) -> TrackingError:
    """The error for a run that is not on record, with the nearest that is."""
    known = connection.execute(select(schema.runs.c.run_id)).scalars().all()
    near = difflib.get_close_matches(run_id, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else "See runs() for all of them."
    return TrackingError(f"{run_id!r} is not one of the {len(known)} runs on record. {hint}")


def _entry(kind: str, run_id: str, **content: Any) -> Entry:
    return {
        "kind": kind,
        "run_id": schema.check_key("run_id", run_id),
        "time": time.time(),
        **content,
    }


def _put_run(connection: Connection, run_id: str, entry: Entry) -> None:
    row = {
        **entry["row"],
        "run_id": run_id,
        "number": select(func.coalesce(func.max(schema.runs.c.number), 0) + 1).scalar_subquery(),
        "created": entry["time"],
        "updated": entry["time"],
        "fingerprint": fingerprint({name: entry["row"][name] for name in IDENTITY}),
        "results": {},
    }
    statement = upsert(connection, schema.runs, keep=("number", "created", "results"))
    connection.execute(statement.values(row))


def _put_metrics(connection: Connection, run_id: str, entry: Entry) -> None:
    rows = [
        {"run_id": run_id, "step": step, "name": name, "value": value}
        for step, name, value in entry["rows"]
    ]
    if rows:
        connection.execute(upsert(connection, schema.metrics), rows)


def _put_event(connection: Connection, run_id: str, entry: Entry) -> None:
    statement = insert(connection, schema.events).on_conflict_do_nothing(index_elements=["key"])
    connection.execute(statement, {"run_id": run_id, "time": entry["time"], **entry["row"]})


def _put_artifact(connection: Connection, run_id: str, entry: Entry) -> None:
    connection.execute(upsert(connection, schema.artifacts), {"run_id": run_id, **entry["row"]})


def _put_checkpoint(connection: Connection, run_id: str, entry: Entry) -> None:
    """If it is the best one, the others are not."""
    table = schema.checkpoints
    if entry["row"]["is_best"]:
        connection.execute(update(table).where(table.c.run_id == run_id).values(is_best=False))
    row = {"run_id": run_id, "created": entry["time"], **entry["row"]}
    connection.execute(upsert(connection, table), row)


def _put_checkpoint_status(connection: Connection, run_id: str, entry: Entry) -> None:
    table, step, status = schema.checkpoints, entry["step"], entry["status"]
    marked = connection.execute(
        update(table).where(table.c.run_id == run_id, table.c.step == step), {"status": status}
    )
    if not marked.rowcount:
        raise TrackingError(
            f"Step {step} of run {run_id} was marked {status}, but no checkpoint of that "
            "step is on record. Record it with log_checkpoint."
        )


def _forget(connection: Connection, run_id: str, entry: Entry) -> None:
    table = schema.metrics
    connection.execute(delete(table).where(table.c.run_id == run_id, table.c.step > entry["step"]))


def _finish(connection: Connection, run_id: str, entry: Entry) -> None:
    row = {
        "status": entry["status"],
        "finished": None if entry["status"] == "paused" else entry["time"],
        "results": entry["results"],
    }
    connection.execute(update(schema.runs).where(schema.runs.c.run_id == run_id).values(row))


_APPLY: dict[str, Callable[[Connection, str, Entry], None]] = {
    "metrics": _put_metrics,
    "event": _put_event,
    "artifact": _put_artifact,
    "checkpoint": _put_checkpoint,
    "checkpoint status": _put_checkpoint_status,
    "forget": _forget,
    "finish": _finish,
}


def _same(a: float | None, b: float) -> bool:
    return a is not None and (a == b or (math.isnan(a) and math.isnan(b)))


def _check_word(what: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise TrackingError(
            f"{what} is {word!r}, but {', '.join(known[:-1])} or {known[-1]} is wanted."
        )

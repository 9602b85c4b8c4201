"""A run folder as entries, so that a database of runs can be made anew from the folders.

A folder knows its run from `record.jsonl`; one without it from `run.json`, `config.json`, the
checkpoints and `result.json`. Its metrics are those of `metrics.jsonl`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from helpers.errors import TrackingError
from helpers.tracking import entries, schema, spool
from helpers.tracking.entries import Entry

METRICS = "metrics.jsonl"
CHUNK = 20_000
_SOURCES = ("run.json", spool.JOURNAL)
_MARKS = (*_SOURCES, spool.SPOOL, spool.TAKEN)
_NOBODY = {"host": None, "pid": None, "boot_id": None, "process_start": None}


def run_folders(output_dir: Path) -> list[Path]:
    """The folders of runs below, also those of the trials of a search, in order of their start."""
    found = []
    for folder in _folders(output_dir):
        inner = [folder] if _is_run(folder) else _folders(folder)
        found += [path for path in inner if _is_run(path)]
    return sorted(found, key=lambda path: (_started(path), path))


def import_run(connection: Connection, folder: Path) -> str:
    """Put the run of a folder on record as far as the folder knows it; return its id.

    Raises: TrackingError if it holds no run.
    """
    known = spool.read(folder / spool.JOURNAL)
    has_journal = bool(known) and known[0]["kind"] == "run"
    known = known if has_journal else _entries_of_files(folder)
    if not known:
        raise TrackingError(f"{folder} holds no run that can be read. Remove or mend it.")
    run_id = known[0]["run_id"]
    if not has_journal and is_on_record(connection, run_id):
        known = known[1:]  # the database knows more of it than these files
    for entry in known:
        entries.apply(connection, entry)
    for rows in metric_chunks(folder):
        entries.sync_metrics(connection, run_id, rows)
    return run_id


def metric_chunks(folder: Path) -> Iterator[list[list[Any]]]:
    """The `[step, name, value]` of the metrics file of a run, in lists of bounded size."""
    chunk: list[list[Any]] = []
    try:
        with (folder / METRICS).open(encoding="utf-8", errors="replace") as file:
            for line in file:
                chunk += _values(line)
                if len(chunk) >= CHUNK:
                    yield chunk
                    chunk = []
    except OSError:
        pass  # no metrics were written, or what is there cannot be read
    if chunk:
        yield chunk


def _values(line: str) -> Iterator[list[Any]]:
    """The values of a row; none of a line that a crash or an editor tore."""
    try:
        row = json.loads(line)
    except ValueError:
        return
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return
    for name, value in entries.numbers(row).items():
        with contextlib.suppress(TrackingError):
            yield [schema.check_step(row["step"]), schema.check_key("metric name", name), value]


def _entries_of_files(folder: Path) -> list[Entry]:
    """What the files of a run say that has no journal."""
    identity = _object(folder / "run.json")
    if not identity:
        return []
    config = _object(folder / "config.json") or identity.get("settings", {})
    run_id = str(identity.get("run_id", folder.name))
    first = entries.run(
        run_id,
        name=run_id,
        config={name: value for name, value in config.items() if not name.startswith("_")},
        task=identity.get("task"),
        data_fingerprint=str(identity.get("data", "")),
        code_version="",
        environment={},
        seed=int(config.get("seed", 0)),
        run_dir=folder.absolute(),
    )
    first["row"] |= {"status": "interrupted", **_NOBODY}
    first["time"] = (folder / "run.json").stat().st_mtime
    found = [first, *_checkpoints(run_id, folder)]
    result = _object(folder / "result.json")
    if result.get("status") in entries.ENDINGS:
        final = result.get("final_metrics", {})
        results = {"step": result.get("steps"), **{f"final_{n}": v for n, v in final.items()}}
        found.append(entries.finish(run_id, result["status"], results))
    return found


def _checkpoints(run_id: str, folder: Path) -> Iterator[Entry]:
    """An entry for each checkpoint that is on disk."""
    for path in sorted((folder / "checkpoints").glob("step-*")):
        manifest = _object(path / "MANIFEST.json")
        if isinstance(manifest.get("step"), int):
            size = sum(file.stat().st_size for file in path.iterdir())
            yield entries.checkpoint(run_id, manifest["step"], path, size, False, {})


def is_on_record(connection: Connection, run_id: str) -> bool:
    """Whether the database knows a run."""
    wanted = select(schema.runs.c.run_id).where(schema.runs.c.run_id == run_id)
    return connection.execute(wanted).first() is not None


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as found:
            return [Path(item) for item in found if item.is_dir() and item.name[0] != "."]
    except OSError:
        return []


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _MARKS)


def has_run(folder: Path) -> bool:
    """Whether a folder has more of a run than what waits for the database."""
    return any((folder / name).is_file() for name in _SOURCES)


def _started(folder: Path) -> float:
    """When a run began, as far as its folder knows; only the order of a new record hangs on it."""
    try:
        with (folder / spool.JOURNAL).open("rb") as file:
            first = spool.decode(file.readline())
        return float(first.get("time", 0.0)) if first else 0.0
    except OSError:
        with contextlib.suppress(OSError):
            return (folder / "run.json").stat().st_mtime
        return 0.0


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

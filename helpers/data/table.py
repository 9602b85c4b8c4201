"""Rows of text from tables: files, DataFrames, and lists of texts or of dicts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers.data.check import DataReport, FileFault, repeated
from helpers.data.columns import choose_column
from helpers.data.files import CHUNK, suffix_of
from helpers.data.json_records import json_line_records, json_list_records
from helpers.data.parquet import parquet_records
from helpers.data.records import Flaw, Record, csv_records

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
# Rows that are looked at to find the column of the text.
N_LOOKED_AT = 100


class Row(NamedTuple):
    """One row: where it is, its text or what stands there, its id, or its flaw."""

    place: str
    text: Any
    id: Any = None
    flaw: Flaw | None = None


def rows_of_file(
    path: Path, label: str, *, text_column: str, delimiter: str, report: DataReport
) -> Iterator[Row]:
    """Rows of a csv, tsv, jsonl, json or parquet file, plain or gzip.

    Raises: FileFault for what no row can be told from.
    """
    suffix, columns = suffix_of(path), None
    if suffix in (".csv", ".tsv"):
        columns, records = csv_records(path, label, delimiter, report)
    elif suffix == ".json":
        records = json_list_records(path, label)
    elif suffix == ".parquet":
        columns, records = parquet_records(path, label, text_column)
    else:
        records = json_line_records(path, label)
    return _rows(records, str(path), text_column, columns, report, label)


def rows_of_list(items: Iterable[Any], *, text_column: str, report: DataReport) -> Iterator[Row]:
    """Rows of a list of texts or of dicts; `text 0` is the first."""
    records = (Record(f"text {i}", item) for i, item in enumerate(items))
    return _rows(records, "The list", text_column, None, report, "the list")


def rows_of_frame(
    frame: pd.DataFrame | pd.Series, *, text_column: str, report: DataReport
) -> Iterator[Row]:
    """Rows of a DataFrame or Series; places are those of iloc."""
    if not hasattr(frame, "columns"):
        return (Row(f"iloc[{i}]", text) for i, text in enumerate(frame))
    columns = [str(name) for name in frame.columns]
    if twice := repeated(columns):
        says = f"has the column {twice[0]!r} more than once"
        raise FileFault("repeated column", "The DataFrame", says)
    cells = zip(*(frame.iloc[:, j] for j in range(len(columns))), strict=True)
    records = (
        Record(f"iloc[{i}]", dict(zip(columns, row, strict=True))) for i, row in enumerate(cells)
    )
    return _rows(records, "The DataFrame", text_column, columns, report, "the DataFrame")


def _rows(
    records: Iterable[Record],
    source: str,
    text_column: str,
    columns: Sequence[str] | None,
    report: DataReport,
    label: str,
) -> Iterator[Row]:
    """Take text and id out of records, in the column that the first of them decide."""
    records = iter(records)
    head = list(_look_at(records))
    sound = [record.fields for record in head if record.flaw is None]
    is_table = columns is not None or any(isinstance(fields, dict) for fields in sound[:1])
    if not is_table:
        if text_column and sound:
            says = f"has no columns, but text_column is {text_column!r}; leave it empty"
            raise FileFault("columns", source, says)
        yield from (Row(r.place, r.fields, None, r.flaw) for r in itertools.chain(head, records))
        return
    sound = [fields for fields in sound if isinstance(fields, dict)]
    names = list(columns or dict.fromkeys(name for fields in sound for name in fields))
    column = choose_column(source, names, sound, text_column, from_text=columns is not None)
    report.columns[label] = column
    id_name = next((name for name in names if name.lower() == "id" and name != column), None)
    for record in itertools.chain(head, records):
        yield _row(record, column, id_name)


def _row(record: Record, column: str, id_name: str | None) -> Row:
    place, fields, flaw = record
    if flaw is not None:
        return Row(place, None, None, flaw)
    if not isinstance(fields, dict):
        says = f"is of type {type(fields).__name__}, but the rows before are objects"
        return Row(place, None, None, Flaw("mixed rows", says))
    if column not in fields:
        known = ", ".join(map(repr, list(fields)[:5])) or "nothing"
        says = f"has no field {column!r}, but {known}"
        return Row(place, None, None, Flaw("missing value", says))
    return Row(place, fields[column], fields.get(id_name) if id_name else None)


def _look_at(records: Iterator[Record]) -> Iterator[Record]:
    """The first records, up to a megabyte."""
    size = 0
    for record in itertools.islice(records, N_LOOKED_AT):
        yield record
        values = record.fields.values() if isinstance(record.fields, dict) else [record.fields]
        size += sum(len(value) for value in values if isinstance(value, str))
        if size > CHUNK:
            return

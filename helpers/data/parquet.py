"""Rows of parquet files, the columns that are wanted alone; pyarrow is loaded when one is read."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from helpers.data.check import FileFault, excerpt_of, repeated
from helpers.data.columns import choose_column
from helpers.data.files import is_gzip, pieces
from helpers.data.records import Flaw, Record

MARK = b"PAR1"
BATCH_ROWS = 256


def parquet_records(path: Path, label: str, text_column: str) -> tuple[list[str], Iterator[Record]]:
    """Text and id columns, and the rows.

    Raises: FileFault if the file is no sound parquet, or pyarrow is not there.
    """
    opened = _opened(path)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        says = "is parquet, which needs the package pyarrow, and it is not installed"
        raise FileFault("package", path, says) from error
    try:
        file = parquet.ParquetFile(opened)
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken(path, error) from error
    schema = file.schema_arrow
    if twice := repeated(schema.names):
        raise FileFault("repeated column", path, f"has the column {twice[0]!r} more than once")
    kinds = {field.name: "text" if _is_text(field.type) else 0 for field in schema}
    column = choose_column(str(path), list(kinds), [kinds], text_column)
    names = [name for name in kinds if name == column or name.lower() == "id"]
    return names, _records(path, label, file, names, pyarrow.ArrowException)


def _records(
    path: Path, label: str, file: Any, names: list[str], fault: type[Exception]
) -> Iterator[Record]:
    number = itertools.count(1)
    try:
        for batch in file.iter_batches(BATCH_ROWS, columns=names):
            for fields, flaw in _rows(batch):
                yield Record(f"{label} row {next(number)}", fields, flaw)
    except (fault, OSError) as error:
        raise _broken(path, error) from error


def _rows(batch: Any) -> Iterator[tuple[Any, Flaw | None]]:
    try:
        yield from ((fields, None) for fields in batch.to_pylist())
        return
    except UnicodeDecodeError:
        pass  # one of them is not UTF-8: found below
    for i in range(batch.num_rows):
        try:
            yield batch.slice(i, 1).to_pylist()[0], None
        except UnicodeDecodeError as error:
            says = f"is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
            yield None, Flaw("not UTF-8", says, excerpt_of(error.object, error.start))


def _is_text(kind: Any) -> bool:
    return "string" in str(getattr(kind, "value_type", kind)) and "list" not in str(kind)


def _opened(path: Path) -> BinaryIO:
    """The file, decompressed if it is gzip, with the mark of parquet at both ends."""
    if is_gzip(path):
        file = tempfile.TemporaryFile()  # noqa: SIM115
        file.writelines(pieces(path))
    else:
        next(pieces(path), None)
        file = path.open("rb")
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(4)
    file.seek(max(0, size - 4))
    end = file.read(4)
    if start != MARK:
        says = f"is not parquet: its first bytes are {start!r}, but {MARK!r} is wanted"
    elif end != MARK or size < 12:
        says = f"is cut short: its last bytes, up to byte {size}, are {end!r}, not {MARK!r}"
    else:
        return file
    file.close()
    raise FileFault("damaged", path, says)


def _broken(path: Path, error: Exception) -> FileFault:
    what = str(error).partition("\n")[0][:200]
    return FileFault("damaged", path, f"cannot be read as parquet: {what}")

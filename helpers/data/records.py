"""Records of a csv or tsv file, one at a time, each with its place and what is wrong with it."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from helpers.data import files
from helpers.data.check import DataReport, FileFault, excerpt_of, repeated
from helpers.data.files import Line, check_head, lines

DELIMITERS = ",;\t|"
BOM = b"\xef\xbb\xbf"


class Flaw(NamedTuple):
    """Why a record cannot be used: kind, what to say, and an excerpt."""

    kind: str
    says: str
    excerpt: str = ""
    byte: int | None = None


class Record(NamedTuple):
    """One record: where it is, its fields by name or its bare value, or its flaw."""

    place: str
    fields: Any
    flaw: Flaw | None = None


class _Feed:
    """Lines of a csv file as text, with what was wrong in those since the last record."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, lines(path)
        self.flaws: list[Flaw] = []
        self.first_line, self.number, self.size = 0, 0, 0
        self.is_crlf = False

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.number, self.first_line = line.number, self.first_line or line.number
            self.size += line.size
            self.is_crlf = line.data.endswith(b"\r\n")
            yield self._decode(line)

    def _decode(self, line: Line) -> str:
        if line.is_too_long:
            self.flaws.append(too_long(line))
            return "\n"
        if self.size > files.LONGEST_ROW:
            raise FileFault(
                "quotes",
                self._path,
                f"line {self.first_line} opens a quote that is not closed within "
                f"{files.LONGEST_ROW:,} bytes",
            )
        data = line.data.removeprefix(BOM) if line.number == 1 else line.data
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            self.flaws.append(not_utf8(line, error, line.size - len(data)))
            return data.decode(errors="surrogateescape")

    def next_record(self) -> None:
        """Forget the lines of the last record."""
        self.flaws, self.first_line, self.size = [], 0, 0


def csv_records(
    path: Path, label: str, delimiter: str, report: DataReport
) -> tuple[list[str], Iterator[Record]]:
    """Names of the columns, which the first row has, and the rows below.

    Rows count as in the file, the header being row 1; blank lines are none.
    Raises: FileFault for a file or header that is no table.
    """
    head = check_head(path)
    if not head.strip():
        raise FileFault("no rows", path, "is empty, but training needs text")
    delimiter = delimiter or ("\t" if files.suffix_of(path) == ".tsv" else sniff(head))
    feed = _Feed(path)
    rows = _csv_rows(path, feed, delimiter)
    header, error = next(((row, error) for row, error in rows if row or error), ([], None))
    if feed.flaws:
        flaw = feed.flaws[0]
        raise FileFault(flaw.kind, f"{path} row 1", flaw.says, flaw.excerpt)
    if error is not None:
        raise FileFault("quotes", f"{path} row 1", f"is no header: {error}")
    header = [name.strip() for name in header]
    _check_header(path, header, delimiter, head)
    feed.next_record()
    return header, _csv_body(label, header, feed, rows, report)


def _csv_rows(
    path: Path, feed: _Feed, delimiter: str
) -> Iterator[tuple[list[str], csv.Error | None]]:
    """Fields of each row, or the fault of the parser, which goes on at the next line."""
    reader = csv.reader(iter(feed), delimiter=delimiter, strict=True)
    with _no_field_limit():
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                _check_fatal(path, feed, error)
                yield [], error
                continue
            yield row, None


def _check_fatal(path: Path, feed: _Feed, error: csv.Error) -> None:
    """Raise FileFault for what takes the rest of the file with it."""
    if "unexpected end of data" in str(error):
        says = f"line {feed.first_line} opens a quote that is never closed"
        raise FileFault("quotes", path, says) from error
    if "new-line character" in str(error) and feed.number == 1:
        says = "ends its lines with CR alone, but LF or CR LF is wanted"
        raise FileFault("not a table", path, says) from error


def _csv_body(
    label: str,
    header: list[str],
    feed: _Feed,
    rows: Iterator[tuple[list[str], csv.Error | None]],
    report: DataReport,
) -> Iterator[Record]:
    number, n_crlf = 1, 0
    for row, error in rows:
        if not (row or error or feed.flaws):
            feed.next_record()
            continue
        number += 1
        line = "" if feed.first_line == number else f" (line {feed.first_line})"
        flaw = _row_flaw(row, error, header, feed)
        fields = dict(zip(header, row, strict=False))
        n_crlf += feed.is_crlf
        yield Record(f"{label} row {number}{line}", fields, flaw)
        feed.next_record()
    if 0 < n_crlf < number - 2:  # the header and a last row without an end are not counted
        says = f"has {n_crlf:,} CR LF in {number - 1:,} row ends"
        report.note("mixed line ends", label, says)


def _row_flaw(
    row: list[str], error: csv.Error | None, header: list[str], feed: _Feed
) -> Flaw | None:
    if feed.flaws:
        return feed.flaws[0]
    if error is not None:
        return Flaw("quotes", f"cannot be read as csv: {error}")
    if len(row) == len(header):
        return None
    count = f"{len(row)} field{'' if len(row) == 1 else 's'}"
    says = f"has {count}, but the header has {len(header)}"
    return Flaw("other number of fields", says, excerpt_of(", ".join(row)))


def _check_header(path: Path, header: list[str], delimiter: str, head: bytes) -> None:
    if twice := repeated(header):
        raise FileFault("repeated column", path, f"has the column {twice[0]!r} more than once")
    other = sniff(head)
    if len(header) == 1 and other != delimiter and other in header[0]:
        says = (
            f"is read with the delimiter {delimiter!r}, but its header {excerpt_of(header[0])} "
            f"looks separated by {other!r}"
        )
        raise FileFault("delimiter", path, says)


def sniff(head: bytes) -> str:
    """The delimiter under which most rows have as many fields as the first, and more than one.

    >>> sniff(b"id;text\\n1;one, two\\n2;three\\n")
    ';'
    """
    text = head.decode(errors="replace").removeprefix("\ufeff")
    sample = text.splitlines(keepends=True)[:200]
    sample = sample[:-1] if len(sample) > 2 and len(head) >= 65_536 else sample

    def fit(delimiter: str) -> float:
        with _no_field_limit(), contextlib.suppress(csv.Error):
            counts = [len(row) for row in csv.reader(sample, delimiter=delimiter) if row]
            if counts and counts[0] > 1:
                return sum(count == counts[0] for count in counts) / len(counts)
        return 0.0

    return max(DELIMITERS, key=lambda d: (fit(d), -DELIMITERS.index(d)))


@contextlib.contextmanager
def _no_field_limit() -> Iterator[None]:
    """The csv module refuses fields of more than 128 KiB unless told; lines are bounded here."""
    before = csv.field_size_limit(2 * files.LONGEST_ROW)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def too_long(line: Line) -> Flaw:
    says = f"is {line.size:,} bytes long, but {files.LONGEST_ROW:,} are the most"
    return Flaw("too long", says, excerpt_of(line.data[:80]))


def not_utf8(line: Line, error: UnicodeDecodeError, skipped: int = 0) -> Flaw:
    byte = line.byte + skipped + error.start
    says = f"is not UTF-8 text: byte {byte} is 0x{error.object[error.start]:02x}"
    return Flaw(
        "not UTF-8",
        f"{says}{guess(error.object, error.start)}",
        excerpt_of(error.object, error.start),
        byte,
    )


def guess(data: bytes, at: int) -> str:
    """How the bytes around one would read in the encoding that is likeliest beside UTF-8.

    >>> guess(b"gr\\xf6\\xdfe", 2)
    ", which would read 'größe' in Windows-1252"
    """
    try:
        shown = data[max(0, at - 8) : at + 8].decode("cp1252").strip()
    except UnicodeDecodeError:
        return ""
    return f", which would read {shown!r} in Windows-1252" if shown.isprintable() else ""

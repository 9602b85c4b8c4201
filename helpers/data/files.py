"""Files in pieces: plain or gzip, as bytes, lines or text, never whole in memory."""

from __future__ import annotations

import codecs
import gzip
import tokenize
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helpers.data.check import FileFault

CHUNK = 2**20
LONGEST_ROW = 2**24
"""Bytes of a row of a table; a longer one is not taken into memory."""

MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
FORMATS = {
    b"\x1f\x8b": "gzip, whose name ends with .gz",
    b"PK\x03\x04": "a zip archive or an Excel sheet",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF-": "a PDF",
    b"\xd0\xcf\x11\xe0": "a document of old Office",
    b"SQLite format 3\0": "a database",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PAR1": "parquet, whose name ends with .parquet",
}


class Line(NamedTuple):
    """One line with its end: number from 1, first byte, and size; of a too long one a start."""

    number: int
    byte: int
    data: bytes
    size: int

    @property
    def is_too_long(self) -> bool:
        """Whether `data` is not all of it."""
        return self.size > len(self.data)


def suffix_of(path: Path) -> str:
    """The ending that says what a file holds, `.gz` left out."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def is_gzip(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.name.lower().endswith(".gz")


def pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file, decompressed, a megabyte at a time.

    Raises: FileFault if it cannot be read to its end.
    """
    done = 0
    try:
        with path.open("rb") as raw:
            file = gzip.GzipFile(fileobj=raw) if is_gzip(path) else raw
            if is_gzip(path):
                _check_gzip(path, raw.read(2))
                raw.seek(0)
            while piece := file.read(CHUNK):
                done += len(piece)
                yield piece
    except EOFError as error:
        says = f"is cut short: its gzip ends at byte {path.stat().st_size}, in the middle"
        raise FileFault("damaged", path, f"{says}, after {done:,} bytes of content") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        says = f"is damaged after {done:,} bytes of content"
        raise FileFault("damaged", path, f"{says}: {error}") from error
    except OSError as error:
        raise FileFault("unreadable", path, f"cannot be read ({error.strerror})") from error


def _check_gzip(path: Path, start: bytes) -> None:
    if start != b"\x1f\x8b":
        says = "is not gzip, as its name says: " + (
            f"byte 0 is 0x{start[0]:02x}, but 0x1f is wanted" if start else "it is empty"
        )
        raise FileFault("not gzip", path, says)


def lines(path: Path, limit: int | None = None) -> Iterator[Line]:
    """The lines of a file, each with its end; what goes beyond the limit is counted only."""
    limit = limit or LONGEST_ROW
    number, byte, held, size = 1, 0, b"", 0
    for piece in pieces(path):
        start = 0
        while (end := piece.find(b"\n", start) + 1) > 0:
            part = piece[start:end]
            data = held + part if size + len(part) <= limit else (held + part)[:80]
            yield Line(number, byte, data, size + len(part))
            number, byte, held, size = number + 1, byte + size + len(part), b"", 0
            start = end
        size += len(piece) - start
        held = (held + piece[start:])[: limit if size <= limit else 80]
    if size:
        yield Line(number, byte, held, size)


def check_head(path: Path) -> bytes:
    """The first kilobytes of a file of text.

    Raises: FileFault if they are of another format or encoding than UTF-8.
    """
    head = next(pieces(path), b"")[:65_536]
    kind, what = _what_is(head)
    if kind == "not UTF-8":
        says = f"is not UTF-8 text: byte 0 is 0x{head[0]:02x}, and it looks like {what}"
        raise FileFault(kind, path, says, repr(head[:12]))
    if kind == "NUL":
        says = f"is not text: it holds a NUL at position {head.index(0)}"
        raise FileFault(kind, path, f"{says}{what}", repr(head[:12]))
    return head


def _what_is(head: bytes) -> tuple[str, str]:
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return "not UTF-8", f"{name} by its first bytes"
    for start, name in FORMATS.items():
        if head.startswith(start) and (start[0] > 127 or b"\x8b" in start or b"\0" in head):
            return "not UTF-8", name
    if head.count(0) > len(head) // 8:
        even, odd = head[::2].count(0), head[1::2].count(0)
        is_wide = max(even, odd) > 4 * min(even, odd)
        return "NUL", ", as UTF-16 without a mark does" if is_wide else ""
    return "", ""


class NotUtf8(ValueError):
    """Bytes that are not UTF-8, from `byte` of a file on."""

    def __init__(self, byte: int, value: int) -> None:
        super().__init__(f"is not UTF-8 text: byte {byte} is 0x{value:02x}")
        self.byte = byte


def text_of(path: Path) -> Iterator[str]:
    """The text of a file in pieces: UTF-8, a mark at its start left out; `.py` as it declares.

    Raises: NotUtf8; FileFault.
    """
    if path.suffix == ".py":
        yield _python_source(path)
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    start = done = 0
    for piece in pieces(path):
        if not done and piece.startswith(codecs.BOM_UTF8):
            start = 3
        yield _decode(decoder, piece[start:], done + start)
        done, start = done + len(piece), 0
    yield _decode(decoder, b"", done, is_last=True)


def _decode(
    decoder: codecs.IncrementalDecoder, piece: bytes, byte: int, *, is_last: bool = False
) -> str:
    """Decode what follows; bytes that wait in the decoder come before `byte`."""
    waiting = len(decoder.getstate()[0])
    try:
        return decoder.decode(piece, is_last)
    except UnicodeDecodeError as error:
        raise NotUtf8(byte - waiting + error.start, error.object[error.start]) from error


def _python_source(path: Path) -> str:
    """A Python source in the encoding that it declares, its line ends made one kind."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except OSError as error:
        raise FileFault("unreadable", path, f"cannot be read ({error.strerror})") from error
    except (SyntaxError, UnicodeDecodeError) as error:
        says = f"is not text in the encoding of a Python source: {error}"
        raise FileFault("not UTF-8", path, says) from error

"""A text that is read anew at each use, in pieces, so that memory does not grow with it."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import hashlib
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from helpers.data.files import CHUNK, NotUtf8, text_of
from helpers.errors import DataError


class Spool:
    """Texts of a table one after another in a file without a name, read back by position.

    Raises: DataError if the disk does not take them.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        try:
            if folder is not None:
                folder = Path(folder).expanduser()
                folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=CHUNK)  # noqa: SIM115
        except OSError as error:
            raise DataError(
                f"cache_dir is {str(folder)!r}, but it cannot be written ({error.strerror}). "
                "Set cache_dir to a folder on a local disk."
            ) from error
        weakref.finalize(self, _close, self._file)
        self._size, self._is_flushed = 0, True

    def add(self, text: bytes) -> tuple[int, int]:
        """Write a text; its first byte, and the one after its last."""
        start = self._size
        try:
            self._file.write(text)
        except OSError as error:
            raise _full_disk(error) from error
        self._size, self._is_flushed = start + len(text), False
        return start, self._size

    def chunks(self, start: int, stop: int) -> Iterator[str]:
        """The text between two bytes, in pieces."""
        if not self._is_flushed:
            try:
                self._file.flush()
            except OSError as error:
                raise _full_disk(error) from error
            self._is_flushed = True
        decoder = codecs.getincrementaldecoder("utf-8")()
        for at in range(start, stop, CHUNK):
            # A position of its own for each reader: a fork shares that of the file.
            yield decoder.decode(os.pread(self._file.fileno(), min(CHUNK, stop - at), at))


def _close(file: BinaryIO) -> None:
    with contextlib.suppress(OSError):  # a full disk was told when it was written to
        file.close()


def _full_disk(error: OSError) -> DataError:
    return DataError(
        f"The texts of a table cannot be kept ({error.strerror}). Free some space, or set "
        "cache_dir to another folder."
    )


@dataclass(frozen=True, slots=True)
class Document:
    """One text, in memory, in a file of its own, or in a spool.

    Units: `n_bytes` counts UTF-8; `span` are the characters of the content that belong to the
    document, of a spool the bytes.
    """

    name: str
    digest: bytes
    n_bytes: int
    content: str | Path | Spool
    span: tuple[int, int | None] = (0, None)

    @property
    def text(self) -> str:
        """The text itself.

        Raises: DataError if the file is not what it was when it was read first.
        """
        if isinstance(self.content, str):
            return self.content[slice(*self.span)]
        return "".join(self.chunks())

    def chunks(self) -> Iterator[str]:
        """The text in pieces of about a megabyte.

        Raises: DataError at its end if the file is not what it was when it was read first.
        """
        if isinstance(self.content, str):
            yield self.text
            return
        if isinstance(self.content, Spool):
            yield from self.content.chunks(self.span[0], self.span[1] or 0)
            return
        digest = hashlib.sha256()
        try:
            for chunk in _between(text_of(self.content), *self.span):
                digest.update(chunk.encode())
                yield chunk
        except NotUtf8 as error:
            raise DataError(self._changed()) from error
        if digest.digest() != self.digest:
            raise DataError(self._changed())

    def _changed(self) -> str:
        return f"{self.content} has changed since it was read. Build the data module again."

    def cut(self, character: int) -> tuple[Document, Document]:
        """The parts before and after a character."""
        start, stop = self.span
        before = measure(_between(self.chunks(), 0, character))
        after = measure(_between(self.chunks(), character, None))
        at = start + (before[1] if isinstance(self.content, Spool) else character)
        return tuple(
            dataclasses.replace(self, digest=digest, n_bytes=n_bytes, span=span)
            for (digest, n_bytes), span in ((before, (start, at)), (after, (at, stop)))
        )


def measure(chunks: Iterable[str]) -> tuple[bytes, int]:
    """SHA-256 of a text, and its bytes as UTF-8."""
    digest, n_bytes = hashlib.sha256(), 0
    for chunk in chunks:
        data = chunk.encode()
        digest.update(data)
        n_bytes += len(data)
    return digest.digest(), n_bytes


def cut_near(document: Document, share: float, n_copies: int) -> int:
    """The character after the last line end before a share of a text, else after a blank.

    `share` is in bytes over the bytes of all copies.
    """
    total = n_copies * document.n_bytes
    near = int(sum(map(len, document.chunks())) * share / total)
    line, blank, at = 0, 0, 0
    for chunk in _between(document.chunks(), 0, near):
        line = at + chunk.rfind("\n") + 1 if "\n" in chunk else line
        blank = at + chunk.rfind(" ") + 1 if " " in chunk else blank
        at += len(chunk)
    return line or blank or near


def _between(chunks: Iterable[str], start: int, stop: int | None) -> Iterator[str]:
    """Characters from start to stop; all chunks are drawn, so that their end is checked."""
    at = 0
    for chunk in chunks:
        part = chunk[max(0, start - at) : None if stop is None else max(0, stop - at)]
        at += len(chunk)
        if part:
            yield part

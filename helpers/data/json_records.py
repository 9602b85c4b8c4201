"""Records of JSON: one value a line, or the items of one list, taken a few megabytes at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.data import files
from helpers.data.check import FileFault, excerpt_of, repeated
from helpers.data.files import NotUtf8, check_head, lines, text_of
from helpers.data.records import BOM, Flaw, Record, not_utf8, too_long


def json_line_records(path: Path, label: str) -> Iterator[Record]:
    """One JSON value a line; blank lines are none."""
    check_head(path)
    for line in lines(path):
        data = line.data.removeprefix(BOM) if line.number == 1 else line.data
        if not data.strip():
            continue
        place, skipped = f"{label} row {line.number}", line.size - len(data)
        flaw, value = None, None
        if line.is_too_long:
            flaw = too_long(line)
        else:
            try:
                value = _parse(data.decode())
            except UnicodeDecodeError as error:
                flaw = not_utf8(line, error, skipped)
            except (ValueError, RecursionError) as error:
                flaw = _not_json(data, error, line.byte + skipped)
        yield Record(place, value, flaw)


class _Repeated(ValueError):
    """An object has a name twice, of which JSON would keep the last in silence."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise _Repeated(repeated(name for name, _ in pairs)[0])
    return content


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _parse(text: str) -> Any:
    return _DECODER.decode(text)


def _not_json(data: bytes, error: Exception, byte: int) -> Flaw:
    if isinstance(error, _Repeated):
        return Flaw("repeated field", f"has the field {str(error)!r} more than once")
    if isinstance(error, json.JSONDecodeError):
        at = len(error.doc[: error.pos].encode())
        what = f"{error.msg} at byte {byte + at}"
        return Flaw("not JSON", f"is not JSON: {what}", excerpt_of(data, at), byte + at)
    return Flaw("not JSON", f"is not JSON that can be read: {_in_short(error)}", excerpt_of(data))


def json_list_records(path: Path, label: str) -> Iterator[Record]:
    """The items of one JSON list, counted from 1, a few megabytes at a time.

    Raises: FileFault where the list breaks off, for nothing after it can be found.
    """
    head = check_head(path)
    first = head.removeprefix(BOM).lstrip()[:1]
    if first != b"[":
        what = "an object" if first == b"{" else "no list"
        says = f"holds {what}, but a list of rows is wanted; JSON values a line are named .jsonl"
        raise FileFault("not a table", path, says if first else "is empty, but a list is wanted")
    try:
        yield from _list_items(path, label, len(BOM) if head.startswith(BOM) else 0)
    except NotUtf8 as error:
        raise FileFault("not UTF-8", path, str(error)) from error


def _list_items(path: Path, label: str, byte: int) -> Iterator[Record]:
    items = _Items(path, byte)
    for number in itertools.count(1):
        place = f"{path} item {number}"
        try:
            found, value = items.take()
        except _Repeated as error:
            says = f"has the field {str(error)!r} more than once"
            raise FileFault("repeated field", place, says) from error
        except (NotUtf8, FileFault):
            raise
        except (ValueError, RecursionError) as error:
            says = f"is not JSON from byte {items.byte} on: {_in_short(error)}"
            raise FileFault("not JSON", place, says, items.excerpt) from error
        if not found:
            return
        yield Record(f"{label} item {number}", value)


class _Items:
    """Items of a JSON list from a buffer that is filled as needed."""

    def __init__(self, path: Path, byte: int) -> None:
        self._pieces = text_of(path)
        self._text, self._bytes_before = next(self._pieces), byte
        self._at = self._text.index("[") + 1

    @property
    def byte(self) -> int:
        """The first byte that was not taken yet."""
        return self._bytes_before + len(self._text[: self._at].encode())

    @property
    def excerpt(self) -> str:
        """What comes next."""
        return excerpt_of(self._text[self._at : self._at + 40])

    def take(self) -> tuple[bool, Any]:
        """Whether there is one more item, and the item.

        Raises: ValueError where the list breaks off.
        """
        while True:
            start = _after_blanks(self._text, self._at)
            if self._text[start : start + 1] == "]":
                self._at = start + 1
                return self._end()
            try:
                value, end = _DECODER.raw_decode(self._text, start)
                end = _after_blanks(self._text, end)
                after = self._text[end : end + 1]
                if after:
                    self._at = self._past(after, end)
                    return True, value
                error = json.JSONDecodeError("the list ends in the middle", "", 0)
            except json.JSONDecodeError as caught:
                error = caught
            if len(self._text) - self._at > files.LONGEST_ROW:
                limit = f"no item ends within {files.LONGEST_ROW:,} characters"
                raise ValueError(f"{limit} ({error.msg})") from error
            if not self._fill():
                raise error

    def _past(self, after: str, end: int) -> int:
        if after not in ",]":
            raise ValueError("a comma is missing after it")
        return end + (after == ",")

    def _end(self) -> tuple[bool, None]:
        while True:
            if self._text[self._at :].strip():
                raise ValueError("there is more after the list")
            if not self._fill():
                return False, None

    def _fill(self) -> bool:
        more = next(self._pieces, "")
        self._bytes_before += len(self._text[: self._at].encode())
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)


def _after_blanks(text: str, at: int) -> int:
    return json.decoder.WHITESPACE.match(text, at).end()


def _in_short(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return str(error).partition(";")[0].partition(". ")[0]

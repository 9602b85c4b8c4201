"""A file of text as one document; where it has bad lines, each is named, and may be left out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.data import files
from helpers.data.check import DataReport, Fault, FileFault, excerpt_of, flaw_of
from helpers.data.document import Document, Spool
from helpers.data.files import Line, NotUtf8, check_head, lines, text_of
from helpers.data.records import BOM, Flaw, not_utf8, too_long


@dataclass
class _Facts:
    """What one look at a text tells."""

    digest: bytes = b""
    n_bytes: int = 0
    n_lines: int = 0
    n_cr: int = 0
    n_crlf: int = 0
    n_long: int = 0
    n_replaced: int = 0
    n_marks: int = 0
    is_blank: bool = True
    has_nul: bool = False
    start: str = ""


def read_text_file(path: Path, report: DataReport, spool: Callable[[], Spool]) -> list[Document]:
    """The file as a list of one document, or of none where all of it is left out.

    Rows are its lines. Where one of them is not UTF-8 or holds a NUL, `spool` keeps the others.
    Raises: FileFault if the file cannot be read, or is of another format or encoding.
    """
    if path.suffix != ".py":
        check_head(path)
    try:
        facts = _look(text_of(path))
    except NotUtf8:
        facts = None
    if facts is None or facts.has_nul:
        if path.suffix == ".py":
            raise FileFault("NUL", path, "is not text: it holds a NUL")
        return _without_bad_lines(path, report, spool)
    report.n_rows += max(1, facts.n_lines)
    flaw = flaw_of(facts.start) if facts.n_bytes < 10 else None
    if facts.is_blank or flaw:
        kind, says = flaw or ("no text", "is empty, but training needs text")
        report.fault(Fault(kind, str(path), says))
        return []
    _note_facts(path.name, facts, report)
    return [Document(str(path), facts.digest, facts.n_bytes, path)]


def _look(chunks: Iterable[str]) -> _Facts:
    facts, digest = _Facts(), hashlib.sha256()
    run, last = 0, ""
    for chunk in chunks:
        data = chunk.encode()
        digest.update(data)
        facts.n_bytes += len(data)
        facts.start = facts.start or chunk[:10]
        facts.is_blank = facts.is_blank and not chunk.strip()
        facts.has_nul = facts.has_nul or "\0" in chunk
        facts.n_lines += chunk.count("\n")
        if "\r" in chunk or last == "\r":
            facts.n_cr += chunk.count("\r")
            facts.n_crlf += chunk.count("\r\n") + (last == "\r" and chunk[:1] == "\n")
        if len(data) > len(chunk):
            facts.n_replaced += chunk.count("\ufffd")
            facts.n_marks += chunk.count("\ufeff")
        # Pieces are far shorter than the longest line that goes unmentioned.
        end = chunk.find("\n")
        facts.n_long += end >= 0 and run + end > files.LONGEST_ROW
        run = run + len(chunk) if end < 0 else len(chunk) - chunk.rfind("\n") - 1
        last = chunk[-1:] or last
    facts.n_long += run > files.LONGEST_ROW
    facts.n_lines += last not in ("", "\n")
    facts.digest = digest.digest()
    return facts


def _note_facts(name: str, facts: _Facts, report: DataReport) -> None:
    """Note what is sound, but may surprise."""
    if facts.n_crlf and facts.n_lines > facts.n_crlf + 1:
        says = f"has {facts.n_crlf:,} CR LF in {facts.n_lines:,} lines"
        report.note("mixed line ends", name, says)
    elif facts.n_cr > facts.n_crlf:
        says = f"has {facts.n_cr - facts.n_crlf:,} CR without LF, which end no line here"
        report.note("mixed line ends", name, says)
    if facts.n_long:
        says = f"has {facts.n_long:,} lines of more than {files.LONGEST_ROW:,} characters"
        report.note("long lines", name, says, count=facts.n_long)
    if facts.n_replaced:
        says = f"holds {facts.n_replaced:,} U+FFFD, put where a program could not read"
        report.note("replaced characters", name, says, count=facts.n_replaced)
    if facts.n_marks:
        says = f"holds {facts.n_marks:,} byte order marks within, as joined files do"
        report.note("marks within", name, says, count=facts.n_marks)


def _without_bad_lines(
    path: Path, report: DataReport, spool: Callable[[], Spool]
) -> list[Document]:
    """Name each bad line, and keep the others."""
    digest, start, stop, is_blank = hashlib.sha256(), None, 0, True
    for line, flaw in _judged(path):
        report.n_rows += 1
        if flaw is not None:
            place = f"{path.name} line {line.number}, byte {flaw.byte}"
            report.fault(Fault(flaw.kind, place, flaw.says, flaw.excerpt))
        elif report.bad_rows == "skip":
            data = line.data.removeprefix(BOM) if line.number == 1 else line.data
            digest.update(data)
            first, stop = spool().add(data)
            start = first if start is None else start
            is_blank = is_blank and not data.decode().strip()
    if is_blank or start is None:
        return []
    return [Document(str(path), digest.digest(), stop - start, spool(), (start, stop))]


def _judged(path: Path) -> Iterator[tuple[Line, Flaw | None]]:
    for line in lines(path):
        if line.is_too_long:
            yield line, too_long(line)._replace(byte=line.byte)
            continue
        try:
            line.data.decode()
        except UnicodeDecodeError as error:
            yield line, not_utf8(line, error)
            continue
        at = line.data.find(b"\0")
        says = f"is not text: it holds a NUL at position {at}"
        flaw = Flaw("NUL", says, excerpt_of(line.data, at), line.byte + at)
        yield line, flaw if at >= 0 else None

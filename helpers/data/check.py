"""What is wrong with data: each fault named by file, row and byte, counted, and told at once."""

from __future__ import annotations

import html
import numbers
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from helpers.errors import DataError

EXAMPLES = 5
"""Places that are named of each kind of fault; all are counted."""

POLICIES = ("fail", "skip")
# How None, NaN and missing cells look once a program has turned them into text.
MISSING_WORDS = {"nan", "NaN", "NAN", "None", "null", "NULL", "<NA>", "NaT", "#N/A"}
CURES = {
    "no text": "Fill it, or leave it out.",
    "missing value": "Fill it, or leave the row out.",
    "not a string": "Decode it or turn it into text first.",
    "NUL": "Export its text first, or remove the NUL.",
    "half a surrogate pair": "Remove it.",
    "not UTF-8": "Save it as UTF-8, or export its text first.",
    "not JSON": "Write one JSON value a line, or a list of them in a .json file.",
    "repeated field": "Give each field of an object a name of its own.",
    "other number of fields": "Quote texts that hold the delimiter, or name it by delimiter=.",
    "quotes": "Write a quote within quotes twice, and close each one.",
    "too long": "Cut it into several rows.",
    "mixed rows": "Give all rows the same form.",
    "not gzip": "Leave .gz out of its name if it is not compressed, or compress it again.",
    "damaged": "Copy or download it again.",
    "columns": "Set text_column to the one that holds the text.",
    "repeated column": "Give each column a name of its own.",
    "delimiter": "Name the right one by delimiter=, or call the file .csv or .tsv as it is.",
    "no rows": "Put text there, or give another source.",
    "not a table": "Write a list of texts, or of objects with a field for the text.",
    "unreadable": "Check the path and its permissions.",
    "package": "Install it, or save the data as .csv or .jsonl.",
    "wrong label": "Correct it; -100 marks a position that does not count.",
    "wrong input": "Look at how the sample is made.",
    "other fields": "Give every sample the same fields.",
    "other shape": "Resize it in the data set.",
    "no sample": "Return one of them from the data set.",
    "unreadable sample": "Look at it, or leave it out of the data set.",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `says` goes on where `place` starts the sentence; `excerpt` is safe to show.

    One of a whole file is cured by no leaving out of rows.
    """

    kind: str
    place: str
    says: str
    excerpt: str = ""
    is_whole: bool = False

    def __str__(self) -> str:
        shown = f" ({self.excerpt})" if self.excerpt else ""
        return f"{self.place} {self.says}{shown}. {CURES[self.kind]}"


class FileFault(DataError):
    """A file that cannot be read, or not to its end."""

    def __init__(self, kind: str, place: Any, says: str, excerpt: str = "") -> None:
        self.fault = Fault(kind, str(place), says, excerpt, is_whole=True)
        super().__init__(str(self.fault))


@dataclass(slots=True)
class Tally:
    """How often something was found, and the first places."""

    count: int = 0
    examples: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        """Count one more."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(fault)


@dataclass
class DataReport:
    """What was read, what was left out, and what is worth a look; shown as tables.

    `faults` are rows that cannot be trained on, `notes` what is sound but may surprise.
    """

    source: str = ""
    bad_rows: str = "fail"
    n_files: int = 0
    n_rows: int = 0
    n_documents: int = 0
    n_skipped: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Tally] = field(default_factory=dict)
    notes: dict[str, Tally] = field(default_factory=dict)
    is_whole: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Rows by kind of fault."""
        return {kind: tally.count for kind, tally in self.faults.items()}

    def fault(self, fault: Fault) -> None:
        """Count a fault."""
        self.faults.setdefault(fault.kind, Tally()).add(fault)
        self.is_whole |= fault.is_whole
        self.n_skipped += not fault.is_whole

    def note(self, kind: str, place: str, says: str, excerpt: str = "", count: int = 1) -> None:
        """Count something that hinders nothing."""
        tally = self.notes.setdefault(kind, Tally())
        tally.add(Fault(kind, place, says, excerpt))
        tally.count += count - 1

    def settle(self, cause: Exception | None = None) -> None:
        """Raise DataError with all faults, unless rows alone are bad and are to be left out.

        It is raised from `cause`, an error behind the first of them.
        """
        if not self.faults or (self.bad_rows == "skip" and not self.is_whole):
            return
        raise DataError(self._refusal()) from cause

    def events(self) -> list[str]:
        """Sentences for the record of a run: what was left out, and what leaks."""
        lines = []
        if self.n_skipped:
            parts = [f"{kind} {tally.count:,} ({_places(tally)})" for kind, tally in self._rows()]
            lines.append(
                f"{self.n_skipped:,} of {self.n_rows:,} rows were left out: {'; '.join(parts)}"
            )
        for kind in ("in both splits", "one class", "new labels", "not all looked at"):
            if kind in self.notes:
                tally = self.notes[kind]
                lines.append(f"{kind} {tally.count:,}: {tally.examples[0].says}")
        return lines

    def _rows(self) -> Iterable[tuple[str, Tally]]:
        return sorted(self.faults.items(), key=lambda item: -item[1].count)

    def _refusal(self) -> str:
        single = [tally.examples[0] for tally in self.faults.values() if tally.count == 1]
        can_skip = not self.is_whole and self.bad_rows == "fail" and self.n_skipped < self.n_rows
        hint = (
            f' Or set bad_rows="skip" to train on the other {self.n_rows - self.n_skipped:,}.'
            if can_skip
            else ""
        )
        if len(self.faults) == len(single) == 1:
            return f"{single[0]}{hint}"
        total = sum(self.counts.values())
        cures = "\n".join(f"- {kind}: {CURES[kind]}" for kind, _ in self._rows())
        return (
            f"{total:,} faults were found in {self.n_rows:,} rows of {self.source}, but sound text "
            f"is wanted.\n\n{_table(self._rows())}\n\n{cures}{hint and chr(10) + '-' + hint}"
        )

    def __repr__(self) -> str:
        lines = [self._summary()]
        lines += [f"{file}: the text is in {column!r}" for file, column in self.columns.items()]
        for title, tallies in (("left out", self.faults), ("to know", self.notes)):
            if tallies:
                lines.append(f"\n{title}\n{_table(tallies.items())}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        columns = "".join(
            f"<br>{html.escape(file)}: the text is in <code>{html.escape(column)}</code>"
            for file, column in self.columns.items()
        )
        tables = "".join(
            _html_table(title, tallies)
            for title, tallies in (("left out", self.faults), ("to know", self.notes))
            if tallies
        )
        return f"<p>{html.escape(self._summary())}{columns}</p>{tables}"

    def _summary(self) -> str:
        files = f"{self.n_files:,} files, " if self.n_files > 1 else ""
        left_out = f", {self.n_skipped:,} left out" if self.n_skipped else ", none left out"
        return (
            f"{self.source}: {files}{self.n_rows:,} rows read{left_out}, "
            f"{self.n_documents:,} documents"
        )


def flaw_of(text: Any) -> tuple[str, str] | None:
    """Kind of a fault and what to say of it, or None for a sound text."""
    if is_missing(text):
        return "missing value", f"is {text}, but training needs text"
    if not isinstance(text, str):
        return "not a string", f"is of type {type(text).__name__}, but a string is wanted"
    if len(text) < 10 and text.strip() in MISSING_WORDS:
        return "missing value", "stands for a missing value, but training needs text"
    if not text or text.isspace():
        return "no text", "is empty, but training needs text"
    if "\0" in text:
        return "NUL", f"is not text: it holds a NUL at position {text.index(chr(0))}"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            "half a surrogate pair",
            f"holds half a surrogate pair at position {error.start}, which UTF-8 cannot write",
        )
    return None


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or what pandas writes for them."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, numbers.Number) and bool(value != value)


def excerpt_of(value: Any, at: int = 0, width: int = 40) -> str:
    """A few characters around a position, on one line, with all others than plain ones escaped."""
    if not isinstance(value, str | bytes):
        value, at = str(value)[: 2 * width], 0
    start = max(0, at - width // 2)
    part = value[start : start + width]
    if isinstance(part, bytes):
        return f"{'...' if start else ''}{part!r}"[:80]
    return f"{'...' if start else ''}{part!a}"[:80]


def repeated(names: Iterable[Any]) -> list[str]:
    """Names that come more than once."""
    return [str(name) for name, count in Counter(names).items() if count > 1]


def _places(tally: Tally) -> str:
    shown = ", ".join(fault.place for fault in tally.examples)
    return f"{shown} ..." if tally.count > len(tally.examples) else shown


def _table(tallies: Iterable[tuple[str, Tally]]) -> str:
    """Count, kind, place and what was found, in columns of equal width."""
    rows = [("rows", "fault", "where", "what")]
    for kind, tally in tallies:
        for i, fault in enumerate(tally.examples):
            says = fault.says.partition(", but ")[0] if i else fault.says
            shown = f"{says}  {_worth_showing(fault)}".rstrip()
            rows.append(("" if i else f"{tally.count:,}", "" if i else kind, fault.place, shown))
        if tally.count > len(tally.examples):
            rows.append(("", "", f"... and {tally.count - len(tally.examples):,} more", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip()
        for row in rows
    )


def _worth_showing(fault: Fault) -> str:
    return fault.excerpt if fault.excerpt.strip("'") else ""


def _html_table(title: str, tallies: dict[str, Tally]) -> str:
    left = "<td style='text-align:left'>"
    rows = "".join(
        f"<tr>{left}{tally.count:,}</td>{left}{html.escape(kind)}</td>"
        f"{left}{html.escape(_places(tally))}</td>"
        f"{left}{html.escape(tally.examples[0].says)} "
        f"<code>{html.escape(tally.examples[0].excerpt)}</code></td></tr>"
        for kind, tally in tallies.items()
    )
    head = "".join(f"<th style='text-align:left'>{t}</th>" for t in (title, "", "where", "first"))
    return f"<table><tr>{head}</tr>{rows}</table>"

"""The report for people: by file, each finding with its line, a mark below it, and the cure."""

import textwrap
from collections.abc import Iterator
from itertools import groupby

import click

from tools.checking.finding import Finding, shown
from tools.validate import Report

COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}
WIDTH = 96
INDENT = " " * 6
TAB = "    "
DOTS = "..."


def render(report: Report) -> str:
    """All findings, then one line that counts them."""
    lines: list[str] = []
    for path, findings in groupby(report.findings, key=lambda finding: finding.path):
        lines += [click.style(shown(path), bold=True), ""]
        for finding in findings:
            lines += [*_finding(finding), ""]
    return "\n".join([*lines, summary(report)])


def summary(report: Report) -> str:
    """How much was checked and found.

    An info does not fail a check and is counted only where there is one.
    """
    parts = [
        _count(len(report.paths), "notebook"),
        _count(report.count("error"), "error"),
        _count(report.count("warning"), "warning"),
    ]
    if report.count("info"):
        parts.append(f"{report.count('info')} info")
    if report.n_known:
        parts.append(f"{report.n_known} in the baseline")
    if report.n_accepted:
        parts.append(f"{report.n_accepted} accepted in the notebooks")
    return ", ".join(parts)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _finding(finding: Finding) -> Iterator[str]:
    colour = COLOURS[finding.severity]
    head = f"{finding.severity} {finding.code}"
    where = [finding.place] if finding.place else ["the file as a whole"]
    if finding.file_line and finding.cell_index is not None:
        where.append(f"{shown(finding.path)}:{finding.file_line}")
    yield f"  {click.style(head, fg=colour, bold=True)}  {click.style('  '.join(where), dim=True)}"
    if finding.excerpt.strip():
        yield from _excerpt(finding, colour)
    yield from _wrapped(finding.message)
    yield from _wrapped(finding.cure)


def _excerpt(finding: Finding, colour: str) -> Iterator[str]:
    """The line of source without its indentation, and a mark below the column."""
    line = finding.excerpt.rstrip()
    indented = len(line) - len(line.lstrip())
    column = (finding.column or 0) - 1 - indented
    text = line.strip().expandtabs(len(TAB))
    is_known = 0 <= column < len(text)
    room = WIDTH - len(INDENT) - 2
    start = max(0, column - room // 2) if is_known and len(text) > room else 0
    part = text[start : start + room]
    if start:
        part = DOTS + part[len(DOTS) :]
    if start + room < len(text):
        part = part[: -len(DOTS)] + DOTS
    yield f"{INDENT}{click.style('|', dim=True)} {part}"
    if is_known:
        mark = " " * (column - start) + "^" * _name_length(text[column:])
        yield f"{INDENT}{click.style('|', dim=True)} {click.style(mark, fg=colour)}"


def _name_length(text: str) -> int:
    """Characters of the dotted name that the text begins with, at least 1."""
    n = 0
    while n < len(text) and (text[n].isalnum() or text[n] in "_."):
        n += 1
    return max(1, len(text[:n].rstrip(".")))


def _wrapped(text: str) -> list[str]:
    return [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(
            part,
            WIDTH,
            initial_indent=INDENT,
            subsequent_indent=INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]

"""See what makes a notebook file differ at every save: indentation, line ends, the last line."""

import re
from collections.abc import Iterator

STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
OPENING, CLOSING = "{[", "}]"


def style_faults(text: str) -> Iterator[tuple[str, str]]:
    """Each fault of the file's layout, with its cure; what the file says does not count."""
    save = "Save the file with Jupyter, or write it anew with an indentation of one blank."
    uneven = first_uneven_line(text)
    if not text:
        return
    if "\n" not in text.strip():
        yield "The whole file is one line, so that every edit is a change of all.", save
    elif uneven:
        yield f"Line {uneven} of the file is not indented as the first lines are.", save
    if "\r" in text:
        yield "The file has carriage returns at its line ends, but line feeds are wanted.", save
    if not text.endswith("\n"):
        yield "The file does not end in a newline.", "Add a newline at the end of the file."


def first_uneven_line(text: str) -> int:
    """The first line, from 1, that is not indented by its depth times the first step; else 0."""
    step, depth = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        code = STRING.sub("", line).strip()
        if not code and not line.strip():
            continue
        closed = len(code) - len(code.lstrip(CLOSING))
        indent = line[: len(line) - len(line.lstrip())]
        step = step or (indent if depth == 1 and not closed else "")
        if indent != step * (depth - closed):
            return number
        depth += sum(code.count(mark) for mark in OPENING)
        depth -= sum(code.count(mark) for mark in CLOSING)
    return 0

"""Measure notebooks: how much text, how much code, in what portions, and what comes first."""

import ast
import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tools.document.cell import Cell
from tools.document.markdown import outline
from tools.notebook import Notebook
from tools.program import CodeCell, Program


@dataclass(frozen=True)
class NotebookStats:
    """The measures of one notebook; empty cells do not count, nor do empty lines of code."""

    notebook: str
    cells: int
    code_cells: int
    text_percent: float
    """Share of the cells that are text."""
    headings: int
    words: int
    """Words in all text cells."""
    words_per_text_cell: float
    words_per_code_line: float
    code_lines: int
    code_lines_median: float
    """Lines of a code cell; so are the next two."""
    code_lines_p90: float
    code_lines_max: int
    longest_code_run: int
    """Code cells that follow one another."""
    code_lines_to_training: int | None
    """Read before the cell with the first training call; None if there is no such call."""
    cells_to_training_percent: float | None
    forms: int
    """Cells with a form of Colab."""
    size_kib: float
    outputs_kib: float


def measure(notebook: Notebook, training_calls: Iterable[str], name: str = "") -> NotebookStats:
    """Measure a notebook; a training call is one of a function or method of a given name.

    Source: lines are counted with comments and magics, as a reader sees them.
    """
    cells = [cell for cell in notebook.cells if cell.source.strip()]
    code = [cell for cell in cells if cell.kind == "code"]
    text = [cell for cell in cells if cell.kind in ("markdown", "heading")]
    lines = [code_lines(cell) for cell in code]
    words = sum(_words(cell.source) for cell in text)
    first = _first_training_cell(Program(notebook).cells, frozenset(training_calls))
    before = [cell for cell in cells if first is not None and cell.index < first]
    return NotebookStats(
        notebook=name or notebook.path.name,
        cells=len(cells),
        code_cells=len(code),
        text_percent=_percent(len(text), len(cells)),
        headings=sum(1 for _ in outline(notebook)),
        words=words,
        words_per_text_cell=_ratio(words, len(text)),
        words_per_code_line=_ratio(words, sum(lines)),
        code_lines=sum(lines),
        code_lines_median=statistics.median(lines) if lines else 0,
        code_lines_p90=_p90(lines),
        code_lines_max=max(lines, default=0),
        longest_code_run=_longest_run(cells),
        code_lines_to_training=None if first is None else sum(map(code_lines, _code(before))),
        cells_to_training_percent=None if first is None else _percent(len(before), len(cells)),
        forms=sum(1 for cell in code if _is_form(cell)),
        size_kib=round(len(notebook.raw) / 1024, 1),
        outputs_kib=round(_outputs_bytes(notebook.cells) / 1024, 1),
    )


def code_lines(cell: Cell) -> int:
    """Lines that are not empty."""
    return sum(1 for line in cell.source.split("\n") if line.strip())


def _code(cells: list[Cell]) -> Iterator[Cell]:
    return (cell for cell in cells if cell.kind == "code")


def _words(source: str) -> int:
    """Words and numbers; the bars of a table are none."""
    return sum(any(map(str.isalnum, word)) for word in source.split())


def _p90(lines: list[int]) -> float:
    if len(lines) < 2:
        return max(lines, default=0)
    return round(statistics.quantiles(lines, n=10, method="inclusive")[-1], 1)


def _longest_run(cells: list[Cell]) -> int:
    runs = (sum(1 for _ in run) for kind, run in groupby(c.kind for c in cells) if kind == "code")
    return max(runs, default=0)


def _is_form(cell: Cell) -> bool:
    """Whether Colab shows fields or a title instead of plain code."""
    comments = (part for line in cell.source.split("\n") for part in line.split("#")[1:])
    return any(part.lstrip().startswith(("@param", "@title", "@markdown")) for part in comments)


def _outputs_bytes(cells: list[Cell]) -> int:
    outputs = (cell.node.get("outputs") for cell in cells)
    return sum(len(json.dumps(output, ensure_ascii=False)) for output in outputs if output)


def _first_training_cell(cells: tuple[CodeCell, ...], names: frozenset[str]) -> int | None:
    """Index of the first cell that trains when it is run, not when a function of it is called."""
    for cell in cells:
        calls = (node for node in _run_now(cell.tree) if isinstance(node, ast.Call))
        if any(_trains(call, names) for call in calls):
            return cell.index
    return None


def _run_now(tree: ast.AST | None) -> Iterator[ast.AST]:
    """The nodes of a cell that are evaluated when it runs."""
    todo: list[ast.AST] = [tree] if tree else []
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            todo.extend(ast.iter_child_nodes(node))


def _trains(call: ast.Call, names: frozenset[str]) -> bool:
    """Whether a call trains; `model.train()` of torch only sets a mode."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id in names
    if not isinstance(function, ast.Attribute) or function.attr not in names:
        return False
    receiver = function.value
    owner = receiver.attr if isinstance(receiver, ast.Attribute) else getattr(receiver, "id", "")
    sets_mode = function.attr == "train" and not call.args and not call.keywords
    return not (sets_mode and owner.lower().endswith(("model", "net", "network", "module")))


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 1) if whole else 0


COLUMNS: dict[str, str] = {
    "notebook": "notebook",
    "cells": "cells",
    "code": "code_cells",
    "text %": "text_percent",
    "headings": "headings",
    "words/text": "words_per_text_cell",
    "words/line": "words_per_code_line",
    "lines": "code_lines",
    "median": "code_lines_median",
    "p90": "code_lines_p90",
    "max": "code_lines_max",
    "run": "longest_code_run",
    "first": "cells_to_training_percent",
    "(lines)": "code_lines_to_training",
    "forms": "forms",
    "KiB": "size_kib",
    "outputs": "outputs_kib",
}
LEGEND = """\
text %      share of the cells that are text
words/text  words in a text cell; words/line: words for each line of code
lines       of code; then median, 90th percentile and maximum of a code cell
run         code cells in a row
first       % of the cells before the first training call, and (lines) of code until then
KiB         of the file, and of its outputs"""


def table(rows: list[NotebookStats]) -> str:
    """The measures for people: a line for each notebook, and what the columns mean."""
    cells = [list(COLUMNS)]
    cells += [[_shown(getattr(row, field)) for field in COLUMNS.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, *numbers in cells:
        aligned = [f"{text:>{width}}" for text, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([f"{name:<{widths[0]}}", *aligned]))
    return "\n".join([*lines, "", LEGEND])


def _shown(value: Any) -> str:
    """At most one digit after the point, and none where the number is large or whole."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
    return str(value)

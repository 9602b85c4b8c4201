"""Write notebooks as other checkers can read them, and lead their findings back to the cells.

Each code cell becomes one cell of a notebook of nbformat 4.5, under one line of comment: both
ruff and ty drop a cell whose first line looks like a magic without its sign (`config`,
`run trainer`), and a comment there prevents it. A plain .py file would not do: `await` at the
top level, `display` and the value of a cell's last line are faults there and none in a notebook.
"""

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tools.analysis.names import Names, is_left_out
from tools.document.cell import PARAMETERS_TAG, Cell
from tools.document.magics import MARK
from tools.notebook import Notebook
from tools.program import CodeCell, Program

HEAD = "#\n"
HEAD_LINES = 1
OPEN = b'eval("0") or ('
"""What makes a value one of any type to a type checker."""


@dataclass(frozen=True)
class Copy:
    """A notebook, its root, and the file that the other checkers read in its place."""

    notebook: Notebook
    program: Program
    root: Path
    path: Path
    names: Names

    @cached_property
    def cells(self) -> list[Cell]:
        """All cells of the notebook."""
        return self.notebook.cells

    def place(self, number: int, row: int) -> tuple[CodeCell, int] | None:
        """The cell and its line, from 1, for a cell and a row, both from 1, of the copy."""
        line = row - HEAD_LINES
        if not 1 <= number <= len(self.program.cells) or line < 1:
            return None
        return self.program.cells[number - 1], line


def write_copies(
    subjects: Sequence[tuple[Notebook, Program, Path]], folder: Path
) -> dict[str, Copy]:
    """Write a copy of every notebook into the folder; by file name."""
    copies = {}
    for number, (notebook, program, root) in enumerate(subjects):
        path = folder / f"n{number}.ipynb"
        path.write_text(json.dumps(_content(program), ensure_ascii=True), encoding="utf-8")
        copies[path.name] = Copy(notebook, program, root, path, Names(program))
    return copies


def _content(program: Program) -> dict:
    cells = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": HEAD + ("" if is_left_out(cell) else _source(cell)),
        }
        for i, cell in enumerate(program.cells)
    ]
    return {
        "cells": cells,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _source(cell: CodeCell) -> str:
    """The Python of a cell, in which parameters and what shell lines return have any value.

    Otherwise a type checker would take `if preset == "small":` for dead code because of the
    default, and with it the names that are bound there.
    """
    lines = [line.encode() for line in cell.python.split("\n")]
    values = [
        node.value
        for node in cell.nodes
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and node.value is not None
        and _is_open(cell, node, lines[node.end_lineno - 1])
    ]
    # From the end, so that what is put in moves nothing that is still to come.
    for value in sorted(values, key=lambda value: (value.lineno, value.col_offset), reverse=True):
        last, first = value.end_lineno - 1, value.lineno - 1
        lines[last] = _insert(lines[last], value.end_col_offset, b")")
        lines[first] = _insert(lines[first], value.col_offset, OPEN)
    return b"\n".join(lines).decode()


def _is_open(cell: CodeCell, node: ast.Assign | ast.AnnAssign, line: bytes) -> bool:
    """Whether the value that is assigned is not the one that stands there."""
    if MARK.encode() in line:
        return True
    is_top = node in cell.tree.body
    return is_top and (PARAMETERS_TAG in cell.cell.tags or b"@param" in line)


def _insert(line: bytes, offset: int, text: bytes) -> bytes:
    return line[:offset] + text + line[offset:]

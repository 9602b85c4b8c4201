"""The Python of a notebook: its code cells in run order, parsed once for every rule."""

import ast
from dataclasses import dataclass
from functools import cached_property

from tools.magics import Magic, mask
from tools.notebook import Cell, Notebook


@dataclass(frozen=True)
class CodeCell:
    """One code cell as Python: magics are masked, line numbers are those of the cell."""

    cell: Cell
    python: str
    magics: tuple[Magic, ...]
    tree: ast.Module | None
    """None if the cell does not parse, or is not Python (`%%bash`)."""
    error: SyntaxError | None

    @property
    def index(self) -> int:
        """Place among all cells of the file, from 0."""
        return self.cell.index


@dataclass(frozen=True)
class Program:
    """All code cells of a notebook in the order in which they run."""

    notebook: Notebook

    @cached_property
    def cells(self) -> tuple[CodeCell, ...]:
        """The code cells, empty ones included."""
        return tuple(_parsed(cell) for cell in self.notebook.cells if cell.kind == "code")


def _parsed(cell: Cell) -> CodeCell:
    python, magics = mask(cell.source)
    try:
        return CodeCell(cell, python, magics, ast.parse(python), None)
    except SyntaxError as error:
        return CodeCell(cell, python, magics, None, error)

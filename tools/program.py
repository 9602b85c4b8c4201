"""The Python of a notebook: its code cells in run order, parsed once for every rule."""

import ast
import io
import keyword
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

from tools.document.magics import Magic, mask
from tools.notebook import Cell, Notebook

SKIP_TAG = "skip-execution"
MAX_DEPTH = 100
FLAGS = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


@dataclass(frozen=True)
class CodeCell:
    """One code cell as Python: magics are masked, line numbers are those of the cell."""

    cell: Cell
    python: str
    magics: tuple[Magic, ...]
    tree: ast.Module | None
    """None if the cell does not parse, is not Python (`%%bash`), or is too deep for any rule."""
    error: SyntaxError | None
    """Why it does not parse. A `return` outside a function parses: ruff reports it."""

    @property
    def index(self) -> int:
        """Place among all cells of the file, from 0."""
        return self.cell.index

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All nodes of the tree, listed once for every rule; empty without a tree."""
        return tuple(ast.walk(self.tree)) if self.tree is not None else ()

    @property
    def is_python(self) -> bool:
        """Whether it is Python, sound or not: no cell magic hands it to another program."""
        return not any(magic.is_whole_cell for magic in self.magics)

    @property
    def is_skipped(self) -> bool:
        """Whether a run leaves the cell out."""
        return SKIP_TAG in self.cell.tags


@dataclass(frozen=True)
class Program:
    """All code cells of a notebook in the order in which they run."""

    notebook: Notebook

    @cached_property
    def cells(self) -> tuple[CodeCell, ...]:
        """The code cells, empty ones included."""
        return tuple(_parsed(cell) for cell in self.notebook.cells if cell.kind == "code")

    @cached_property
    def names_in_broken_cells(self) -> frozenset[str]:
        """Every name in cells without a tree: what they would bind is not undefined elsewhere."""
        return frozenset(
            name
            for cell in self.cells
            if cell.tree is None and cell.is_python
            for name in _names(cell.python)
        )


def is_deep(tree: ast.Module) -> bool:
    """Whether a tree is so deep that visitors, which call themselves, would break down."""
    level: list[ast.AST] = [statement for statement in tree.body if _may_be_deep(statement)]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True


def _may_be_deep(statement: ast.stmt) -> bool:
    """Each level takes a character at least."""
    is_short = (statement.end_col_offset or 0) - statement.col_offset < MAX_DEPTH
    return statement.end_lineno != statement.lineno or not is_short


def _parsed(cell: Cell) -> CodeCell:
    try:
        python, magics = mask(cell.source)
    except ValueError:
        # Its magics cannot be told from its comments; if it has none it is Python as it is.
        python, magics = cell.source, ()
    if any(magic.is_whole_cell for magic in magics):
        return CodeCell(cell, python, magics, None, None)
    try:
        tree = parse_python(python)
    except SyntaxError as error:
        # IPython takes away what all lines are indented by.
        dedented = textwrap.dedent(python)
        if isinstance(error, IndentationError) and _parses(dedented):
            return CodeCell(cell, dedented, magics, parse_python(dedented), None)
        return CodeCell(cell, python, magics, None, error)
    return CodeCell(cell, python, magics, None if is_deep(tree) else tree, None)


def _parses(python: str) -> bool:
    try:
        return parse_python(python) is not None
    except SyntaxError:
        return False


def parse_python(python: str) -> ast.Module:
    """Parse a cell as IPython does: `await` may stand outside functions.

    Raises: SyntaxError for all that the parser refuses, sizes and null bytes too.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return compile(python, "<cell>", "exec", FLAGS, dont_inherit=True)
    except SyntaxError as error:
        error.lineno = error.lineno or 1
        raise
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        reason = str(error) or "it is nested too deeply"
        raise SyntaxError(reason, ("<cell>", 1, 1, python.split("\n", 1)[0])) from error


def _names(python: str) -> Iterator[str]:
    """The names in a piece of Python; what follows a fault is read line by line."""
    try:
        yield from _names_in_sound(python)
    except (tokenize.TokenError, SyntaxError):
        for line in python.split("\n"):
            try:
                yield from _names_in_sound(line.strip())
            except (tokenize.TokenError, SyntaxError):
                continue


def _names_in_sound(python: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(python).readline):
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
            yield token.string


def compile_fault(cell: CodeCell) -> SyntaxError | None:
    """Why a cell cannot be compiled as IPython would; None if it can, or is not Python."""
    return cell.error if cell.tree is None else _fault_of(cell.python)


@lru_cache(maxsize=4096)
def _fault_of(python: str) -> SyntaxError | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(python, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError) as error:
        return SyntaxError(str(error) or "too deeply nested")
    return None

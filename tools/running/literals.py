"""Read the cell of parameters: what it assigns, as literals with the comment behind each."""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tools.document.cell import PARAMETERS_TAG
from tools.errors import ParameterError
from tools.running.runnable import has_tag

if TYPE_CHECKING:
    from nbformat import NotebookNode


@dataclass(frozen=True)
class Assignment:
    """One line `name = literal  # comment` of the cell of parameters."""

    name: str
    default: Any
    comment: str


def assignments(nb: NotebookNode) -> dict[str, Assignment]:
    """What the one cell tagged `parameters` assigns, by name.

    Raises: ParameterError unless there is one such cell and it holds nothing but literals.
    """
    tagged = [cell for cell in nb.cells if has_tag(cell, PARAMETERS_TAG)]
    if len(tagged) != 1:
        raise ParameterError(
            f"{len(tagged) or 'No'} cells are tagged {PARAMETERS_TAG!r}, but parameters need "
            f"exactly one. Tag the cell that holds the defaults."
        )
    source = tagged[0].source
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise ParameterError(_unsound(source, line, "is not plain Python")) from error
    comments = _comments(source)
    found = [_assignment(statement, source, comments) for statement in statements]
    return {assignment.name: assignment for assignment in found}


def _assignment(node: ast.stmt, source: str, comments: dict[int, str]) -> Assignment:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    if (
        not isinstance(node, ast.Assign | ast.AnnAssign)
        or len(targets) != 1
        or not isinstance(targets[0], ast.Name)
        or node.value is None
    ):
        raise ParameterError(_unsound(source, node.lineno, "is not `name = literal`"))
    try:
        value = ast.literal_eval(node.value)
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise ParameterError(_unsound(source, node.lineno, "is not a literal")) from error
    return Assignment(targets[0].id, value, comments.get(node.end_lineno or node.lineno, ""))


def _unsound(source: str, line: int, what: str) -> str:
    lines = source.splitlines()
    text = lines[line - 1].strip() if line <= len(lines) else ""
    return (
        f"Line {line} of the cell tagged {PARAMETERS_TAG!r} {what}: {text}\n"
        "The cell may hold only `name = literal`. Move everything else to a later cell."
    )


def _comments(source: str) -> dict[int, str]:
    """Comments by line; the source is known to parse."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}

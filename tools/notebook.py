"""Read a notebook, and say which cell is meant: by id and title, and by its number for the eye."""

import ast
import io
import json
import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from tools.errors import NotebookError, ParameterError

PARAMETERS_TAG = "parameters"
TITLE_CHARACTERS = 60


def read_notebook(path: Path) -> NotebookNode:
    """Read a Python notebook of nbformat 4.

    Raises: NotebookError if the file is missing or is anything else.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = json.loads(text)
    except OSError as error:
        raise NotebookError(
            f"{path} cannot be read ({error.strerror}). Give the path of a notebook."
        ) from error
    except (ValueError, RecursionError) as error:
        raise NotebookError(
            f"{path} is not JSON ({error}), but a notebook is wanted. Give an .ipynb file."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise NotebookError(
            f"{path} has no list of cells, but a notebook of format 4 is wanted. "
            "Give another file, or save this one with a current Jupyter."
        )
    nb = _valid(path, text)
    language = language_of(nb)
    if language != "python":
        raise NotebookError(
            f"{path} is written in {language}, but only Python notebooks are run. Give another one."
        )
    return nb


def _valid(path: Path, text: str) -> NotebookNode:
    try:
        with warnings.catch_warnings(action="ignore"):
            nb = nbformat.reads(text, as_version=4)
            nbformat.validate(nb)
    except (nbformat.ValidationError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise NotebookError(
            f"{path} is not a valid notebook ({reason}). Repair it, or save it anew with Jupyter."
        ) from error
    return nb


def language_of(nb: NotebookNode) -> str:
    """The language in lower case; a notebook that does not say counts as Python."""
    metadata = nb.metadata
    named = metadata.get("kernelspec", {}).get("language")
    return str(named or metadata.get("language_info", {}).get("name") or "python").lower()


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Whether the cell carries the tag."""
    return tag in cell.metadata.get("tags", [])


def id_of(cell: NotebookNode) -> str:
    """The cell's id, from where nbformat 4.5 or where Colab keeps it; empty without one."""
    return str(cell.get("id") or cell.metadata.get("id") or "")


def title_of(cell: NotebookNode) -> str:
    """The form's title if the cell has one, else its first line that is not empty, cut short."""
    lines = [line.strip() for line in cell.source.splitlines() if line.strip()]
    title = form_title(lines[0]) or lines[0] if lines else ""
    return title if len(title) <= TITLE_CHARACTERS else title[: TITLE_CHARACTERS - 3] + "..."


def form_title(line: str) -> str:
    """The text of a `# @title` line; empty for any other line.

    >>> form_title('# @title Train the model { display-mode: "form" }')
    'Train the model'
    """
    text = line.lstrip("#").lstrip()
    if not line.startswith("#") or not text.startswith("@title"):
        return ""
    return text.removeprefix("@title").partition("{")[0].strip()


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

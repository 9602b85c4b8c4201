"""Read a notebook that is to be run, and say which cell is meant: by id, title and number."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tools.document.cell import form_title as form_title
from tools.document.cell import title_of_source
from tools.document.notebook_file import load
from tools.errors import NotebookError

if TYPE_CHECKING:
    from nbformat import NotebookNode


def read_notebook(path: Path) -> NotebookNode:
    """Read a Python notebook of nbformat 4.

    Raises: NotebookError if the file is missing or is anything else.
    """
    raw, _ = load(path)
    nb = _valid(path, raw.decode())
    language = language_of(nb)
    if language != "python":
        raise NotebookError(
            f"{path} is written in {language}, but only Python notebooks are run. Give another one."
        )
    return nb


def _valid(path: Path, text: str) -> NotebookNode:
    import nbformat

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


def tags_of(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Whether the cell carries the tag."""
    return tag in cell.metadata.get("tags", [])


def id_of(cell: NotebookNode) -> str:
    """The cell's id, from where nbformat 4.5 or where Colab keeps it; empty without one."""
    return str(cell.get("id") or cell.metadata.get("id") or "")


def title_of(cell: NotebookNode) -> str:
    """The form's title if the cell has one, else its first line that is not empty, cut short."""
    return title_of_source(cell.source)

"""Subsets of a notebook's cells that are meant to run alone: "recover without training"."""

import os
from collections.abc import Mapping
from typing import Any

from tools.notebook import Cell, Notebook
from tools.settings import Settings

KEYS = ("skip", "only")


def declared(notebook: Notebook, settings: Settings) -> dict[str, Any]:
    """The workflows of a notebook, by name: from its own metadata, then from the settings.

    Nothing is checked here; a rule says what is wrong with a declaration.
    """
    own = _table(notebook.content.get("metadata")).get("workflows")
    name = os.path.relpath(notebook.path.resolve(), settings.root).replace(os.sep, "/")
    configured = settings.workflows.get(name, {})
    return {**_table(own), **_table(configured)}


def cells_of(notebook: Notebook, workflow: str, settings: Settings) -> set[str]:
    """The ids of the cells that belong to a workflow; text cells count like code.

    Raises: KeyError if the notebook has no workflow of this name.
    """
    return included(notebook, declared(notebook, settings)[workflow])


def included(notebook: Notebook, declaration: Any) -> set[str]:
    """The ids of the cells that a declaration keeps; a word in it is the id or a tag of cells."""
    cells = notebook.cells
    only, skip = words(declaration, "only"), words(declaration, "skip")
    kept = [cell for cell in cells if not only or cell.kind != "code" or matches(cell, only)]
    return {cell.id for cell in kept if not matches(cell, skip)}


def words(declaration: Any, key: str) -> tuple[str, ...]:
    """The ids and tags under `skip` or `only`; none if there is no list of text."""
    value = declaration.get(key, ()) if isinstance(declaration, Mapping) else ()
    return tuple(word for word in value if isinstance(word, str)) if _is_list(value) else ()


def matches(cell: Cell, wanted: tuple[str, ...]) -> bool:
    """Whether a cell's id or one of its tags is among the words."""
    return cell.id in wanted or not set(wanted).isdisjoint(cell.tags)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _table(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}

"""Write into notebooks and documents what the schema and the outlines say, and see drift.

The schema of the settings is the only place where a default, a range or a help text is written
by hand; the form, the tables, the badges and the pinned ref are made from it and from an outline.
"""

import ast
import difflib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.document.replace import replace_file
from tools.errors import SettingsError
from tools.generation.form_cell import form_source
from tools.generation.outline import Document, Outline, OutlineCell, read_outline
from tools.generation.tables import parameters_table, rules_table, settings_table
from tools.notebook import Cell, Notebook, read
from tools.settings import Settings

BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
COLAB = "https://colab.research.google.com/github"
MINOR_WITH_IDS = 5


@dataclass(frozen=True)
class Drift:
    """A file whose text is not what it should be."""

    path: Path
    old: str
    new: str
    write: Callable[[], None]
    """Replace the file by the new text."""

    def diff(self) -> str:
        """A unified diff from what is there to what should be there."""
        lines = difflib.unified_diff(
            self.old.splitlines(), self.new.splitlines(), "as it is", "as it should be", lineterm=""
        )
        return "\n".join([str(self.path), *lines])


def find_drift(settings: Settings, names: tuple[str, ...] = ()) -> list[Drift]:
    """Compare every notebook that has an outline, and its documents, with what they should be.

    Raises: SettingsError if an outline contradicts the schema or a file; nothing is written.
    """
    unknown = [name for name in names if name not in settings.outlines]
    if unknown:
        raise SettingsError(
            f"{', '.join(unknown)} has no outline. "
            "Add a line to [tool.notebooks.outlines] in pyproject.toml."
        )
    schema = settings.load_schema()
    found: list[Drift] = []
    for name in names or settings.outlines:
        outline = read_outline(settings.root / settings.outlines[name])
        found += notebook_drift(settings, name, outline, schema)
        for document in outline.documents:
            found += _document_drift(settings, name, outline, document, schema, found)
    return found


def notebook_drift(
    settings: Settings, name: str, outline: Outline, schema: dict[str, Any]
) -> list[Drift]:
    """The drift of one notebook: none, or one entry."""
    notebook = read(settings.root / name)
    old = notebook.text()
    restore_ids(notebook, outline)
    _restore_metadata(notebook, outline)
    for id, wanted in outline.cells.items():
        _restore_cell(notebook.cell(id), wanted, settings, name)
    if outline.parameters:
        cell = notebook.cell(outline.parameters.cell)
        source = form_source(outline.parameters, schema)
        if cell.source != source:
            cell.source = source
    new = notebook.text()
    return [Drift(notebook.path, old, new, notebook.write)] if new != old else []


def restore_ids(notebook: Notebook, outline: Outline) -> None:
    """Give every cell its id back: the outline's by how a cell begins, others from the file.

    Raises: SettingsError if a cell of the outline is not there, or begins like two.
    """
    by_id = {cell.id: cell for cell in notebook.cells}
    for id, wanted in outline.cells.items():
        if id in by_id:
            continue
        matches = [cell for cell in notebook.cells if cell.source.startswith(wanted.starts)]
        if len(matches) != 1:
            raise SettingsError(
                f"{len(matches) or 'No'} cells of {notebook.path} begin with {wanted.starts!r}, "
                f"but the outline wants one as {id!r}. Correct the outline or the notebook."
            )
        matches[0].node["id"] = id
        matches[0].metadata.pop("id", None)
    for cell in notebook.cells:
        cell.node.setdefault("id", cell.id)
        if cell.metadata.get("id") == cell.node["id"]:
            del cell.metadata["id"]
    if notebook.content.get("nbformat_minor", 0) < MINOR_WITH_IDS:
        notebook.content["nbformat_minor"] = MINOR_WITH_IDS


def _restore_metadata(notebook: Notebook, outline: Outline) -> None:
    metadata = notebook.content.setdefault("metadata", {})
    for key, value in outline.metadata.items():
        if metadata.get(key) != value:
            metadata[key] = value


def _restore_cell(cell: Cell, wanted: OutlineCell, settings: Settings, name: str) -> None:
    missing = [tag for tag in wanted.tags if tag not in cell.tags]
    if missing:
        cell.metadata["tags"] = [*cell.tags, *missing]
    if wanted.cellView and cell.metadata.get("cellView") != wanted.cellView:
        cell.metadata["cellView"] = wanted.cellView
    source = cell.source
    if wanted.badge:
        source = with_badge(source, badge(settings, name))
    if wanted.repository:
        source = with_constant(source, wanted.repository, settings.repository, cell.id)
    if wanted.ref:
        source = with_constant(source, wanted.ref, settings.ref, cell.id)
    if source != cell.source:
        cell.source = source


def badge(settings: Settings, name: str) -> str:
    """The badge that opens a notebook of the repository, at its pinned ref, in Colab.

    Raises: SettingsError without a repository on GitHub or without a ref.
    """
    slug = settings.repository.removeprefix("https://github.com/").strip("/")
    if slug == settings.repository.strip("/") or not settings.ref:
        raise SettingsError(
            f"The badge of {name} needs a repository on GitHub and a ref, but they are "
            f"{settings.repository!r} and {settings.ref!r}. Set [project.urls] Repository and "
            "ref of [tool.notebooks] in pyproject.toml."
        )
    return f"{BADGE}({COLAB}/{slug}/blob/{settings.ref}/{name})"


def with_badge(text: str, badge: str) -> str:
    """The text with this badge: in place of the one for the same notebook, else under the title."""
    lines = text.split("\n")
    name = badge.rpartition("/")[2]
    places = [
        i for i, line in enumerate(lines) if line.startswith(BADGE) and line.endswith("/" + name)
    ]
    if places:
        lines[places[0]] = badge
    else:
        lines[1:1] = ["", badge]
    return "\n".join(lines)


def with_constant(source: str, name: str, value: str, cell: str) -> str:
    """The source with the text that is assigned to a name replaced; nothing else changes.

    Raises: SettingsError unless exactly one text is assigned to the name.
    """
    found = [node for target, node in _assigned(ast.parse(source)) if target == name]
    texts = [node for node in found if isinstance(node, ast.Constant) and type(node.value) is str]
    if len(texts) != 1 or texts[0].lineno != texts[0].end_lineno:
        raise SettingsError(
            f"Cell {cell} assigns {len(texts)} texts of one line to {name}, but the outline "
            f"wants one. Write {name} = {value!r} there."
        )
    node = texts[0]
    if node.value == value:
        return source
    lines = source.split("\n")
    line = lines[node.lineno - 1].encode()
    head, tail = line[: node.col_offset], line[node.end_col_offset :]
    lines[node.lineno - 1] = (head + f'"{value}"'.encode() + tail).decode()
    return "\n".join(lines)


def _assigned(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Names and what is assigned to them at the top level, tuples taken apart."""
    for statement in tree.body:
        if not isinstance(statement, ast.Assign):
            continue
        for target in statement.targets:
            value = statement.value
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=False))
            yield from ((node.id, to) for node, to in pairs if isinstance(node, ast.Name))


def _document_drift(
    settings: Settings,
    name: str,
    outline: Outline,
    document: Document,
    schema: dict[str, Any],
    found: list[Drift],
) -> list[Drift]:
    """The drift of a document; it goes on from what an earlier outline already wants of it."""
    path = settings.root / document.file
    earlier = [drift for drift in found if drift.path == path]
    found[:] = [drift for drift in found if drift.path != path]
    try:
        raw = path.read_bytes()
        old = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} cannot be read ({error}), but an outline names it. Correct the outline."
        ) from error
    new = earlier[0].new if earlier else old
    if document.badge:
        new = with_badge(new, badge(settings, name))
    if document.table == "parameters" and outline.parameters:
        table = parameters_table(outline.parameters, schema)
        new = with_table(new, f"parameters of {name}", table, path)
    elif document.table == "settings":
        new = with_table(new, "settings", settings_table(schema), path)
    elif document.table == "rules":
        new = with_table(new, "rules", rules_table(), path)
    if new == old:
        return []
    return [Drift(path, old, new, lambda: replace_file(path, raw, new.encode()))]


def with_table(text: str, what: str, table: str, path: Path) -> str:
    """The text with what stands between two marks replaced.

    Raises: SettingsError if the marks are not there.
    """
    opening, closing = f"<!-- {what}: written by sync -->", f"<!-- end of {what} -->"
    head, is_open, rest = text.partition(opening + "\n")
    _, is_closed, tail = rest.partition(closing)
    if not (is_open and is_closed):
        raise SettingsError(
            f"{os.fspath(path)} lacks the lines {opening!r} and {closing!r}, but the outline wants "
            "a table between them. Add both lines."
        )
    return f"{head}{opening}\n{table}\n{closing}{tail}"

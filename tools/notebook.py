"""A notebook as a file: read whole or refused, edited cell by cell, written back byte for byte."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.document.cell import (
    Cell,
    form_title,
    own_ids,
    source_key,
    source_text,
    split_lines,
    title_of_source,
)
from tools.document.json_layout import Layout, is_same
from tools.document.json_text import parse, rewrite
from tools.document.notebook_file import load, nodes_of, refusal
from tools.document.places import Places
from tools.document.replace import replace_file, shown
from tools.errors import NotebookError

__all__ = ["Cell", "Notebook", "form_title", "read", "split_lines", "title_of_source"]


@dataclass
class Notebook:
    """The content of a notebook file, with all that is needed to write it back faithfully."""

    path: Path
    raw: bytes = field(repr=False)
    """The file as it was read, or written last; empty if there is none yet."""
    content: dict[str, Any] = field(repr=False)
    """The parsed JSON, in the file's key order; edit it, then `write`."""
    _derived: dict[int, tuple[dict[str, Any], str]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _places: tuple[bytes, Places] | None = field(default=None, repr=False, compare=False)

    @property
    def cells(self) -> list[Cell]:
        """The cells in order, as views that edit `content`.

        A derived id stays with its cell while this object lives, whatever is edited.
        """
        nodes = self.nodes
        ids = own_ids(nodes)
        taken = {own for own in ids if own}
        for index, node in enumerate(nodes):
            known, derived = self._derived.get(id(node), (None, ""))
            if not ids[index] and known is node and derived not in taken:
                ids[index] = derived
                taken.add(derived)
        return [
            Cell(node, index, ids[index] or self._derive_id(node, taken))
            for index, node in enumerate(nodes)
        ]

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """The list of cells' JSON objects itself; insert into it and delete from it."""
        return nodes_of(self.content)

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor of nbformat; a minor above 5 is read as well, since minors only add."""
        return self.content["nbformat"], self.content.get("nbformat_minor", 0)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the notebook; what is changed in it is changed in the file."""
        return self.content.setdefault("metadata", {})

    @property
    def language(self) -> str:
        """The language in lower case; a notebook that does not say counts as Python."""
        metadata = self.content.get("metadata", {})
        for key, name in (("kernelspec", "language"), ("language_info", "name")):
            entry = metadata.get(key)
            language = entry.get(name) if isinstance(entry, dict) else None
            if isinstance(language, str) and language:
                return language.lower()
        return "python"

    def require_python(self) -> None:
        """Make sure that the cells are Python.

        Raises: NotebookError if they are another language's.
        """
        if self.language not in ("python", "ipython", "python3"):
            raise NotebookError(
                f"{shown(self.path)} is written in {shown(self.language)}, but only notebooks of "
                "Python are dealt with here. Give another one."
            )

    def cell(self, id: str) -> Cell:
        """The cell of this id.

        Raises: KeyError if there is none.
        """
        for cell in self.cells:
            if cell.id == id:
                return cell
        raise KeyError(id)

    def insert(self, index: int, kind: str, source: str, id: str = "") -> Cell:
        """Put a new cell before the one at `index`, with the fields that its nbformat wants."""
        forms = [other.get(source_key(other)) for other in self.nodes]
        is_text = bool(forms) and all(isinstance(form, str) for form in forms)
        node = _node(self.version, kind, source if is_text else split_lines(source))
        like = next((other for other in self.nodes if other.get("cell_type") == kind), {})
        node = {key: node[key] for key in sorted(node, key=[*like, *node].index)}
        if id and self.version < (4, 5):
            node["metadata"]["id"] = id
        self.nodes.insert(index, node)
        if self.version >= (4, 5):
            node["id"] = id or self.cells[index].id
        return self.cells[index]

    def remove(self, id: str) -> None:
        """Take the cell of this id out.

        Raises: KeyError if there is none.
        """
        del self.nodes[self.cell(id).index]

    def file_line(self, index: int, line: int = 1) -> int:
        """The line of the .ipynb file, from 1, where a line (from 1) of a cell's source stands.

        Meant is the file as it was read, without edits; a cell that it lacks gives its last line.
        """
        if self._places is None or self._places[0] is not self.raw:
            self._places = (self.raw, Places(self._text_read()))
        return self._places[1].line(index, line)

    def text(self) -> str:
        """The text of the file with all edits; equal to what was read if nothing was edited.

        Raises: NotebookError if the content cannot be said in JSON.
        """
        old = self._text_read()
        try:
            if not old:
                return Layout().dump(self.content) + "\n"
            return rewrite(old, json.loads(old), self.content)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._unwritable(str(error)) from error

    def write(self) -> None:
        """Replace the file atomically, and read it back.

        Raises: NotebookError, leaving the file as it is, if it was changed since it was read.
        """
        text = self.text()
        try:
            new = text.encode()
            is_faithful = is_same(parse(text), self.content)
        except ValueError as error:
            raise self._unwritable(str(error)) from error
        if not is_faithful:
            raise self._unwritable("what would be written says something else")
        if new != self.raw:
            replace_file(self.path, self.raw or None, new)
            self.raw = new

    def _text_read(self) -> str:
        return self.raw.decode()

    def _unwritable(self, reason: str) -> Exception:
        got = f"has edits that cannot be written ({reason})"
        return refusal(self.path, got, "Edit it with plain values of JSON only")

    def _derive_id(self, node: dict[str, Any], taken: set[str]) -> str:
        """An id made from kind and text; a second cell of the same content gets another."""
        content = f"{node.get('cell_type')}\n{source_text(node)}"
        count, derived = 0, ""
        while not derived or derived in taken:
            text = f"{count}\n{content}".encode(errors="surrogatepass")
            derived, count = hashlib.sha256(text).hexdigest()[:12], count + 1
        taken.add(derived)
        self._derived[id(node)] = (node, derived)
        return derived


def read(path: Path) -> Notebook:
    """Read a notebook file of nbformat 3 or 4.

    Raises: NotebookError in one line for anything else; the file is never touched.
    """
    raw, content = load(Path(path))
    return Notebook(Path(path), raw, content)


def _node(version: tuple[int, int], kind: str, source: str | list[str]) -> dict[str, Any]:
    """A new cell; its id, if it needs one, comes first."""
    node: dict[str, Any] = {"id": ""} if version >= (4, 5) else {}
    node |= {"cell_type": kind, "metadata": {}}
    if kind != "code":
        return node | {"source": source}
    if version[0] == 3:
        extra = {"language": "python", "collapsed": False, "outputs": []}
        return node | extra | {"input": source}
    return node | {"execution_count": None, "outputs": [], "source": source}

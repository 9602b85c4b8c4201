"""A notebook as a file: read whole or refused, edited cell by cell, written back byte for byte."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.errors import NotebookError


@dataclass
class Cell:
    """One cell: a view of its JSON object, by which it is read and edited."""

    node: dict[str, Any]
    index: int
    """Place among all cells of the file, from 0."""
    id: str
    """The file's own id, else one derived from the content."""

    @property
    def kind(self) -> str:
        """`code`, `markdown`, `raw` (or `heading` in nbformat 3)."""
        return self.node.get("cell_type", "")

    @property
    def source(self) -> str:
        """The text; setting it keeps the form that the file uses (list of lines, or one string)."""
        value = self.node.get(self._key, "")
        return "".join(value) if isinstance(value, list) else value

    @source.setter
    def source(self, text: str) -> None:
        is_list = isinstance(self.node.get(self._key, []), list)
        self.node[self._key] = text.splitlines(keepends=True) if is_list else text

    @property
    def metadata(self) -> dict[str, Any]:
        """The cell's metadata; what is changed in it is changed in the file."""
        return self.node.setdefault("metadata", {})

    @property
    def tags(self) -> list[str]:
        """The tags; empty if there are none."""
        return list(self.node.get("metadata", {}).get("tags", []))

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The outputs of a code cell; empty for any other."""
        return self.node.get("outputs", [])

    @property
    def _key(self) -> str:
        return "input" if "input" in self.node and "source" not in self.node else "source"


@dataclass
class Notebook:
    """The content of a notebook file, with all that is needed to write it back faithfully."""

    path: Path
    raw: bytes
    content: dict[str, Any] = field(repr=False)
    """The parsed JSON, in the file's key order; edit it, then `write`."""

    @property
    def cells(self) -> list[Cell]:
        """The cells in order, as views that edit `content`."""
        return [
            Cell(node, i, str(node.get("id") or _derived_id(node, i)))
            for i, node in enumerate(self.nodes)
        ]

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """The list of cells' JSON objects itself; insert into it and delete from it."""
        return self.content["cells"]

    def cell(self, id: str) -> Cell:
        """The cell of this id.

        Raises: KeyError if there is none.
        """
        for cell in self.cells:
            if cell.id == id:
                return cell
        raise KeyError(id)

    def file_line(self, index: int, line: int = 1) -> int:
        """The line of the .ipynb file, from 1, where a line (from 1) of a cell's source stands."""
        return 1

    def text(self) -> str:
        """The text of the file with all edits; equal to what was read if nothing was edited."""
        return json.dumps(self.content, indent=1, ensure_ascii=False) + "\n"

    def write(self) -> None:
        """Replace the file atomically, and read it back.

        Raises: NotebookError, leaving the file as it is, if it was changed since it was read.
        """
        self.path.write_text(self.text(), encoding="utf-8")


def read(path: Path) -> Notebook:
    """Read a notebook file of nbformat 3 or 4.

    Raises: NotebookError in one line for anything else; the file is never touched.
    """
    try:
        raw = path.read_bytes()
        content = json.loads(raw)
    except (OSError, ValueError) as error:
        raise NotebookError(f"{path} cannot be read ({error}).") from error
    return Notebook(path, raw, content)


def _derived_id(node: dict[str, Any], index: int) -> str:
    text = f"{index}:{node.get('cell_type')}:{''.join(node.get('source', []))}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]

"""One finding of `validate`: where, what, and what to do; and how paths and cells are named."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tools.document.cell import Cell
from tools.notebook import Notebook, form_title

Severity = Literal["error", "warning", "info"]
FIELDS = (
    "path", "code", "severity", "cell_id", "cell_index", "line", "file_line", "message", "cure",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What is wrong at one place of a notebook, or of a module that notebooks import."""

    path: Path
    code: str
    severity: Severity
    message: str
    """What was got and what was wanted."""
    cure: str
    """What to do, as an imperative sentence."""
    cell_id: str | None = None
    cell_index: int | None = None
    """Place among all cells of the file, from 0."""
    line: int | None = None
    """Line in the cell, from 1; of the file where there is no cell."""
    file_line: int | None = None
    """Line of the file itself, from 1."""
    column: int | None = None
    """Character in the line of the cell, from 1, if known."""
    title: str = ""
    """The cell's title."""
    excerpt: str = ""
    """The line of source."""
    origin: str = ""
    """The name that the checker behind it uses, such as F821; empty for our own rules."""

    def to_dict(self) -> dict[str, Any]:
        """The nine fields of the JSON report."""
        return {name: getattr(self, name) for name in FIELDS} | {"path": shown(self.path)}

    @property
    def place(self) -> str:
        """The cell and the line in words; empty for a finding about the file as a whole."""
        if self.cell_index is None:
            return f"line {self.line}" if self.line else ""
        title = f' "{self.title}"' if self.title else ""
        line = f", line {self.line}" if self.line else ""
        return f"cell {self.cell_index + 1} ({self.cell_id}){title}{line}"

    @property
    def fingerprint(self) -> str:
        """A name of the finding that survives moved lines and cells.

        It is made of the code, the cell's id and the text of the line; where there is no line,
        of the message.
        """
        text = self.excerpt.strip() if self.line else self.message
        return hashlib.sha256(
            f"{self.code}\n{self.cell_id}\n{text}".encode(errors="surrogatepass")
        ).hexdigest()[:16]

    @property
    def order(self) -> tuple:
        """By file, then from top to bottom."""
        cell = -1 if self.cell_index is None else self.cell_index
        return (str(self.path), cell, self.line or 0, self.column or 0, self.code)


def locate(notebook: Notebook, cells: list[Cell], cell: int | None, line: int | None) -> dict:
    """The fields of a finding that follow from its cell and its line."""
    if cell is None or not 0 <= cell < len(cells):
        return {"line": None, "file_line": None}
    lines = cells[cell].source.split("\n")
    inside = line if line and 1 <= line <= len(lines) else None
    return {
        "cell_id": cells[cell].id,
        "cell_index": cell,
        "line": inside,
        "file_line": notebook.file_line(cell, inside or 1),
        "title": _title(cells[cell]),
        "excerpt": lines[inside - 1].rstrip("\r") if inside else "",
    }


def _title(cell: Cell) -> str:
    """The title of a form or the heading of a text; empty for other cells."""
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    is_titled = form_title(first) if cell.kind == "code" else first.startswith("#")
    return cell.title.lstrip("# ") if is_titled else ""


def shown(path: Path) -> str:
    """The path as a reader of this folder writes it, with forward slashes."""
    resolved = Path(os.path.abspath(path))
    folder = Path.cwd()
    return (
        resolved.relative_to(folder) if resolved.is_relative_to(folder) else resolved
    ).as_posix()

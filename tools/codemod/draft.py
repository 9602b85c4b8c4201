"""A notebook while it is being migrated: cells with their syntax trees, and what is to be said."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import libcst as cst

from tools.document.magics import MARK, mask, unmask
from tools.notebook import Cell, Notebook, title_of_source
from tools.program import is_deep, parse_python

if TYPE_CHECKING:
    from tools.codemod.names import Names

Edit = Callable[[Any], Any]
"""From a node with its children already edited to what takes its place."""


@dataclass(frozen=True)
class Remark:
    """Something that a reader of the report must know about a cell."""

    kind: Literal["left", "changed", "dropped"]
    cell: "DraftCell"
    text: str
    line: int | None = None


@dataclass(eq=False)
class DraftCell:
    """One cell: its text before and now, and its tree if it is Python that parses."""

    id: str
    number: int
    kind: str
    old: str
    source: str
    module: cst.Module | None = None
    hidden: str = ""
    """The text that is not Python: magics, or all of a cell that does not parse."""
    is_removed: bool = False
    by: list[str] = field(default_factory=list)
    """Names of the migrations that changed it."""

    @property
    def title(self) -> str:
        """The form's title, the heading, or the first line that is not empty, cut short."""
        title = title_of_source(self.old)
        return title.lstrip("#").strip() if self.kind == "markdown" else title

    @property
    def is_changed(self) -> bool:
        """Whether a migration touched it."""
        return self.is_removed or self.source != self.old

    def take(self, source: str) -> None:
        """Set the text and read it anew."""
        self.source = source
        self.module, self.hidden = parse(source) if self.kind == "code" else (None, "")


class Draft:
    """A copy of a notebook's cells that migrations edit; the notebook itself stays as it is."""

    def __init__(
        self,
        cells: list[DraftCell],
        fields: Mapping[str, Mapping[str, Any]] | None = None,
        legacy: tuple[str, ...] = (),
        keep_unported: bool = False,
    ) -> None:
        self.cells, self.legacy, self.keep_unported = cells, legacy, keep_unported
        self.fields = dict(fields or {})
        """The settings of the package that is migrated to, as JSON schemas by name."""
        self.remarks: list[Remark] = []
        self.step = ""
        """The migration at work."""
        self.live_before: set[str] = set()
        """Old names that the code used before the first migration."""

    @classmethod
    def of(cls, notebook: Notebook, **options: Any) -> "Draft":
        """Read the cells of a notebook."""
        return cls([draft_cell(cell) for cell in notebook.cells], **options)

    @property
    def code(self) -> list[DraftCell]:
        """The code cells that are still there and that parse."""
        return [cell for cell in self.cells if cell.module is not None and not cell.is_removed]

    @cached_property
    def names(self) -> "Names":
        """Who binds and who reads each name; built anew after each edit."""
        from tools.codemod.names import Names

        return Names(self)

    def is_fixed(self, node: cst.CSTNode) -> bool:
        """Whether the line of a node is part of a magic, so that it must stay one line."""
        line = self.names.line_of(node)
        return isinstance(line, cst.SimpleStatementLine) and MARK in self.names.code(line)

    def say(self, kind: Any, cell: DraftCell, text: str) -> None:
        """Add a remark, once."""
        remark = Remark(kind, cell, text)
        if remark not in self.remarks:
            self.remarks.append(remark)

    def edit(self, edits: Mapping[cst.CSTNode, Edit]) -> bool:
        """Replace nodes of the cells' trees; return whether every cell could be written."""
        replacer = _Replacer(edits)
        cells = {self.names.cell_of(node): None for node in edits}
        written = [self.write(cell, cell.module.visit(replacer).code) for cell in cells]
        return all(written)

    def write(self, cell: DraftCell, python: str) -> bool:
        """Set the code of a cell, with magics as they were masked; leave it if they would break."""
        before = cell.source
        try:
            source = unmask(python) if cell.kind == "code" else python
            if cell.kind == "code" and parse(source)[0] is None:
                raise ValueError("the code would not parse")
        except ValueError as error:
            self.say("left", cell, f"The migration {self.step} is left out here: {error}.")
            return False
        if not cell.old.startswith("\n"):
            source = source.lstrip("\n")
        cell.take(source)
        if cell.source != before:
            self._touched(cell)
        return True

    def remove(self, cell: DraftCell) -> None:
        """Take a cell out."""
        cell.is_removed = True
        self._touched(cell)

    def _touched(self, cell: DraftCell) -> None:
        self.__dict__.pop("names", None)
        if self.step not in cell.by:
            cell.by.append(self.step)


class _Replacer(cst.CSTTransformer):
    """Apply edits to the nodes that they were made for."""

    def __init__(self, edits: Mapping[cst.CSTNode, Edit]) -> None:
        super().__init__()
        self.edits = edits

    def on_leave(self, original: Any, updated: Any) -> Any:
        """Apply the edit of a node that is left."""
        edit = self.edits.get(original)
        return updated if edit is None else edit(updated)


def draft_cell(cell: Cell) -> DraftCell:
    """The draft of one cell."""
    draft = DraftCell(cell.id, cell.index, cell.kind, cell.source, cell.source)
    draft.take(cell.source)
    return draft


def parse(source: str) -> tuple[cst.Module | None, str]:
    """The tree of a cell and what of it is not Python; no tree if it cannot be had faithfully."""
    try:
        python, magics = mask(source)
        # Python goes first: LibCST's parser ends the process on what is nested very deeply.
        if is_deep(parse_python(python)):
            return None, source
        module = cst.parse_module(python)
        if module.code != python:
            return None, source
    except (cst.ParserSyntaxError, SyntaxError, ValueError, RecursionError):
        return None, source
    return module, "\n".join(magic.text for magic in magics)

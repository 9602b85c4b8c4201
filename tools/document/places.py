"""Where the cells of a notebook and the lines of their sources stand in its file."""

import bisect

from tools.document.cell import source_key
from tools.document.json_text import member, members, root, value_at


class Places:
    """The lines of a file's text, found from cell and line of source."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._breaks = _breaks(text)
        self._cells = _cell_starts(text)

    def line(self, index: int, line: int) -> int:
        """The line of the file, from 1, of a line of a cell's source; its last for no cell."""
        at = len(self._text.rstrip())
        if 0 <= index < len(self._cells):
            at = self._source_line(self._cells[index], line)
        return bisect.bisect_left(self._breaks, at) + 1

    def _source_line(self, cell: int, line: int) -> int:
        found = {unit.key: unit for unit in members(self._text, cell)}
        source = found.get(source_key(found))
        if source is None:
            return cell
        at = source.value
        if self._text[at] == "[":
            items = list(members(self._text, at))
            lines = [value_at(self._text, unit.value) for unit in items]
            at = items[_item_of_line(lines, line)].value if items else at
        return at


def _item_of_line(items: list[str], line: int) -> int:
    """Index of the item in which a line (from 1) of the joined text begins; else the last."""
    before = line - 1
    for index, item in enumerate(items):
        parts = item.split("\n", max(before, 0))
        if before <= 0 or (len(parts) > before and parts[before]):
            return index
        before -= len(parts) - 1
    return len(items) - 1


def _cell_starts(text: str) -> list[int]:
    start = root(text)
    sheets = member(text, start, "worksheets")
    if sheets is not None and member(text, start, "cells") is None:
        start = next(members(text, sheets.value)).value
    cells = member(text, start, "cells")
    return [] if cells is None else [unit.value for unit in members(text, cells.value)]


def _breaks(text: str) -> list[int]:
    breaks, at = [], text.find("\n")
    while at >= 0:
        breaks.append(at)
        at = text.find("\n", at + 1)
    return breaks

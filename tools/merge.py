"""Take an author's changes from a notebook that Colab saved, cell by cell, and keep our own frame.

What Colab rewrites (ids, tags, metadata, outputs, nbformat's minor) is not a change; the text of
cells, their kind and their order are. Three versions are compared: the base that the author
opened, the author's, and ours, which may have moved on; a cell that both changed is a conflict.
"""

import difflib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.errors import NotebookError
from tools.notebook import Cell, Notebook, read

SIMILAR = 0.6
"""Ratio of difflib from which a cell counts as an edit of another; below, it is a new one."""
KEPT_OF_AUTHOR = ("cellView", "tags")


@dataclass(frozen=True)
class Content:
    """What an author writes of a cell."""

    kind: str
    source: str


@dataclass
class Merge:
    """What an import does, by ids of cells; nothing is written yet."""

    notebook: Notebook
    """Ours, with the author's changes."""
    changed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    is_moved: bool = False

    def lines(self) -> list[str]:
        """The merge in words, one line for each kind of change."""
        facts = {
            "changed": self.changed,
            "added": self.added,
            "removed": self.removed,
            "in conflict": self.conflicts,
        }
        lines = [f"{what}: {', '.join(ids)}" for what, ids in facts.items() if ids]
        return [*lines, *["moved: the order is the author's"] * self.is_moved] or ["no change"]


def merge_notebooks(ours: Path, theirs: Path, base: Notebook, prefer: str = "") -> Merge:
    """Merge the author's notebook into ours; `prefer` ("ours", "theirs") settles conflicts.

    Raises: NotebookError if a file is not a notebook.
    """
    notebook, author = read(ours), read(theirs)
    before = {cell.id: _content(cell) for cell in base.cells}
    now = {cell.id: cell for cell in notebook.cells}
    names = match_cells(base.cells, author.cells)
    taken = set(before) | set(now)
    merge = Merge(notebook)
    nodes = []
    for cell, known in zip(author.cells, names, strict=True):
        id = known or _new_id(cell, taken)
        taken.add(id)
        if known and known not in now:
            if _content(cell) != before[known]:
                merge.conflicts.append(known)
                if prefer == "theirs":
                    nodes.append(_node(cell, id, notebook))
            continue
        if not known:
            merge.added.append(id)
            nodes.append(_node(cell, id, notebook))
            continue
        nodes.append(_merged(merge, now[id], _content(cell), before[id], prefer))
    kept = {name for name in names if name}
    for id in before:
        if id in kept or id not in now:
            continue
        if _content(now[id]) != before[id]:
            merge.conflicts.append(id)
            if prefer != "theirs":
                nodes.append(now[id].node)
                continue
        merge.removed.append(id)
    _place(merge, nodes, list(before), list(now))
    return merge


def match_cells(base: Sequence[Cell], author: Sequence[Cell]) -> list[str | None]:
    """For each cell of the author the id of the base's cell it comes from; None for a new one.

    By id where the file kept it, then by equal text in order, then by the most similar text.
    """
    known = {cell.id: cell for cell in base}
    found: list[str | None] = [cell.id if cell.id in known else None for cell in author]
    free = [cell for cell in base if cell.id not in found]
    open_places = [i for i, id in enumerate(found) if id is None]
    equal = difflib.SequenceMatcher(
        None,
        [_content(cell) for cell in free],
        [_content(author[i]) for i in open_places],
        autojunk=False,
    )
    for block in equal.get_matching_blocks():
        for k in range(block.size):
            found[open_places[block.b + k]] = free[block.a + k].id
    for i in [i for i in open_places if found[i] is None]:
        candidates = [c for c in base if c.id not in found and c.kind == author[i].kind]
        scored = [(_similarity(c, author[i]), -c.index, c.id) for c in candidates]
        if scored and max(scored)[0] >= SIMILAR:
            found[i] = max(scored)[2]
    return found


def _similarity(one: Cell, other: Cell) -> float:
    return difflib.SequenceMatcher(None, one.source, other.source, autojunk=False).ratio()


def _content(cell: Cell) -> Content:
    return Content(cell.kind, cell.source.rstrip("\n"))


def _merged(
    merge: Merge, cell: Cell, theirs: Content, before: Content, prefer: str
) -> dict[str, Any]:
    """Our cell's node, with the author's text where only the author changed it."""
    current = _content(cell)
    if theirs in (before, current):
        return cell.node
    if current != before:
        merge.conflicts.append(cell.id)
        if prefer != "theirs":
            return cell.node
    merge.changed.append(cell.id)
    if theirs.kind != cell.kind:
        cell.node["cell_type"] = theirs.kind
        for key in ("outputs", "execution_count"):
            cell.node.pop(key, None)
        if theirs.kind == "code":
            cell.node.update(execution_count=None, outputs=[])
    cell.source = theirs.source
    return cell.node


def _node(cell: Cell, id: str, ours: Notebook) -> dict[str, Any]:
    """A new cell in our form: no outputs, no metadata but what an author sets on purpose."""
    metadata = {key: cell.metadata[key] for key in KEPT_OF_AUTHOR if key in cell.metadata}
    source: Any = cell.source.rstrip("\n")
    if ours.nodes and isinstance(ours.nodes[0].get("source"), list):
        lines = source.split("\n")
        source = [line + "\n" for line in lines[:-1]] + lines[-1:] * bool(lines[-1])
    node = {"id": id, "cell_type": cell.kind, "metadata": metadata, "source": source}
    if cell.kind == "code":
        node.update(execution_count=None, outputs=[])
    return node


def _new_id(cell: Cell, taken: set[str]) -> str:
    """A slug from the cell's first line, made unique by a number."""
    first = next((line for line in cell.source.split("\n") if line.strip()), cell.kind)
    words = "".join(c.lower() if c.isascii() and c.isalnum() else " " for c in first).split()
    slug = "-".join(words)[:40].strip("-") or cell.kind
    numbers = (f"{slug}-{n}" for n in range(2, len(taken) + 3))
    return slug if slug not in taken else next(id for id in numbers if id not in taken)


def _place(merge: Merge, nodes: list[dict[str, Any]], before: list[str], now: list[str]) -> None:
    """Put the cells in order: the author's, unless only ours moved; our new ones stay put."""
    common = [id for id in before if id in now]
    author = [node["id"] for node in nodes if node.get("id") in common]
    wanted = [id for id in common if id in author]
    is_author_order = author != wanted
    ours_order = [id for id in now if id in author]
    if is_author_order and ours_order != wanted and ours_order != author:
        merge.conflicts.append("the order of cells")
    merge.is_moved = is_author_order
    own = {cell.id: cell.node for cell in merge.notebook.cells}
    order = nodes if is_author_order or ours_order == wanted else _in_order(nodes, ours_order)
    present = {node.get("id") for node in order}
    for place, id in enumerate(now):
        if id in present or id in before:
            continue
        earlier = [j for j, node in enumerate(order) if place and node.get("id") == now[place - 1]]
        order.insert(earlier[0] + 1 if earlier else 0, own[id])
        present.add(id)
    merge.notebook.nodes[:] = order


def _in_order(nodes: list[dict[str, Any]], ids: list[str]) -> list[dict[str, Any]]:
    """The cells with those of `ids` in this order; the others keep their places."""
    by_id = {node["id"]: node for node in nodes}
    following = iter(ids)
    return [by_id[next(following)] if node["id"] in ids else node for node in nodes]


def base_of(path: Path, revision: str) -> Notebook:
    """The notebook as a revision of git holds it.

    Raises: NotebookError if git or the revision has no such file.
    """
    done = subprocess.run(
        ["git", "show", f"{revision}:./{path.name}"],
        cwd=path.absolute().parent,
        capture_output=True,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().split("\n")[-1]
        raise NotebookError(
            f"{path} as of {revision} cannot be read from git ({reason}), but the version that the "
            "author opened is wanted. Give it by --base: a revision, or a file."
        )
    return _parsed(path, done.stdout)


def _parsed(path: Path, raw: bytes) -> Notebook:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(raw)
        return read(copy)

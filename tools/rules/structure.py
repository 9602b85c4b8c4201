"""Rules on the form of the file: schema, ids, outputs, style, newlines, empty cells."""

from collections.abc import Iterator
from typing import Any

from tools.analysis.cell_kinds import code_cell, is_plain_code, is_plain_prose
from tools.analysis.file_style import style_faults
from tools.analysis.schema_faults import schema_faults
from tools.document.cell import Cell, is_valid_id, source_key
from tools.rules import Problem, Subject, fixes, rule

KEEP_TAG = "keep-output"
RUN_COUNTS = ("execution_count", "prompt_number")


@rule("NB001")
def schema(subject: Subject) -> Iterator[Problem]:
    """The file has the fields that its version of nbformat wants, and no others."""
    for fault in schema_faults(subject.notebook):
        yield Problem(fault.message, fault.cure, fault.cell)


@fixes("NB001")
def complete_fields(subject: Subject) -> None:
    """Add the empty fields that are missing; drop what only a code cell can have from others."""
    if subject.notebook.version[0] != 4:
        return
    for node in subject.notebook.nodes:
        node.setdefault("metadata", {})
        if node["cell_type"] == "code":
            node.setdefault("execution_count", None)
            node.setdefault("outputs", [])
        elif node["cell_type"] in ("markdown", "raw"):
            node.pop("execution_count", None)
            node.pop("outputs", None)


@rule("NB002")
def ids(subject: Subject) -> Iterator[Problem]:
    """Each cell has an id of its own where its version of nbformat wants one."""
    notebook = subject.notebook
    if "nbformat_minor" not in notebook.content or notebook.version[0] != 4:
        return
    faults = _faults_of_id if notebook.version >= (4, 5) else _faults_without_id
    seen: set[str] = set()
    for cell in notebook.cells:
        for message, cure in faults(cell, seen):
            yield Problem(message, cure, cell.index)


@fixes("NB002")
def give_ids(subject: Subject) -> None:
    """Keep each sound id; derive the others from the cell's text."""
    notebook = subject.notebook
    if "nbformat_minor" not in notebook.content or notebook.version[0] != 4:
        return
    for cell in notebook.cells:
        if notebook.version >= (4, 5):
            cell.node["id"] = cell.id
            if "id" in cell.node.get("metadata", {}):
                cell.metadata["id"] = cell.id
        elif "id" in cell.node or "id" in cell.node.get("metadata", {}):
            cell.node.pop("id", None)
            cell.metadata["id"] = cell.id


def _faults_of_id(cell: Cell, seen: set[str]) -> Iterator[tuple[str, str]]:
    own, other = cell.node.get("id"), cell.node.get("metadata", {}).get("id")
    if "id" not in cell.node:
        yield "The cell has no id, which nbformat 4.5 wants.", f'Give it one, say "{cell.id}".'
    elif not is_valid_id(own):
        yield (
            f"The id is {own!r}, but up to 64 letters, digits, hyphens and underscores are wanted.",
            "Give it another id.",
        )
    elif own in seen:
        yield f"An earlier cell has the id {own} as well.", "Give one of the two another id."
    elif other is not None and other != own:
        yield f"The id is {own}, but that in the metadata is {other!r}.", "Drop the second one."
    if isinstance(own, str):
        seen.add(own)


def _faults_without_id(cell: Cell, seen: set[str]) -> Iterator[tuple[str, str]]:
    other = cell.node.get("metadata", {}).get("id")
    if "id" in cell.node:
        yield (
            "The cell has an id, but nbformat below 4.5 knows none outside the metadata.",
            "Move it into the metadata, or write 5 as nbformat_minor.",
        )
    elif other is not None and not isinstance(other, str):
        yield f"The id in the metadata is {other!r}, but text is wanted.", "Give it another id."
    elif other is not None and other in seen:
        yield f"An earlier cell has the id {other} as well.", "Give one of the two another id."
    if isinstance(other, str):
        seen.add(other)


@rule("NB005")
def outputs(subject: Subject) -> Iterator[Problem]:
    """Outputs and execution counts are not committed, but for cells tagged keep-output."""
    for cell in subject.notebook.cells:
        kept = [*["outputs"] * bool(_outputs(cell)), *["execution count"] * _is_counted(cell)]
        if kept and KEEP_TAG not in cell.tags:
            yield Problem(
                f"The cell is committed with its {' and '.join(kept)}.",
                f"Clear it, or tag the cell {KEEP_TAG}.",
                cell.index,
            )


@fixes("NB005")
def clear_outputs(subject: Subject) -> None:
    """Clear the outputs and the execution count of each cell that is not tagged keep-output."""
    for cell in subject.notebook.cells:
        if cell.kind != "code" or KEEP_TAG in cell.tags:
            continue
        if _outputs(cell):
            cell.node["outputs"] = []
        for key in RUN_COUNTS:
            if cell.node.get(key) is not None:
                cell.node[key] = None


def _outputs(cell: Cell) -> list[Any]:
    return cell.outputs if cell.kind == "code" else []


def _is_counted(cell: Cell) -> bool:
    return cell.kind == "code" and any(cell.node.get(key) is not None for key in RUN_COUNTS)


@rule("NB009", "warning")
def file_style(subject: Subject) -> Iterator[Problem]:
    """The file is indented throughout, ends in a newline, and has line feeds as line ends."""
    for message, cure in style_faults(subject.notebook.raw.decode()):
        yield Problem(message, cure)


@rule("NB010")
def newlines(subject: Subject) -> Iterator[Problem]:
    """No line of a source runs into the next because its newline was lost."""
    for cell in subject.notebook.cells:
        lost = cell.lost_newlines()
        if lost:
            items = cell.node[source_key(cell.node)]
            first = lost[0]
            joined = items[first][-20:].split("\n")[-1] + items[first + 1][:20].split("\n")[0]
            count = f"{len(lost)} lines" if len(lost) > 1 else "One line"
            yield Problem(
                f"Without newline at its end in the source: {count}. It reads `{joined}`.",
                "End each item of the list but the last in a newline.",
                cell.index,
                "".join(items[: first + 1]).count("\n") + 1,
            )


@fixes("NB010")
def restore_newlines(subject: Subject) -> None:
    """Give the lines their newline back where that is certain."""
    for cell in subject.notebook.cells:
        lost = cell.lost_newlines()
        items = cell.node.get(source_key(cell.node))
        if lost and isinstance(items, list) and _is_certain(cell, lost, items):
            cell.node[source_key(cell.node)] = _mended(items, set(lost))


def _is_certain(cell: Cell, lost: list[int], items: list[str]) -> bool:
    """Whether all newlines were lost, or the code parses only with them."""
    is_all = len(lost) == len(items) - 1
    if cell.kind != "code":
        return is_all
    mended = code_cell("".join(_mended(items, set(lost))))
    return mended.error is None and (is_all or code_cell(cell.source).error is not None)


def _mended(items: list[str], lost: set[int]) -> list[str]:
    return [item + "\n" if index in lost else item for index, item in enumerate(items)]


@rule("NB011")
def code_as_markdown(subject: Subject) -> Iterator[Problem]:
    """No markdown cell holds code that was meant to run."""
    for cell in subject.notebook.cells:
        if cell.kind == "markdown" and is_plain_code(cell.source):
            yield Problem(
                "The cell is typed markdown, but it is Python, which is shown and never run.",
                "Make it a code cell, or put the code between lines of ```.",
                cell.index,
            )


@rule("NB012")
def markdown_as_code(subject: Subject) -> Iterator[Problem]:
    """No code cell holds text that was meant to be read."""
    for cell in subject.program.cells:
        if is_plain_prose(cell):
            yield Problem(
                "The cell is typed code, but it is text, which no kernel can run.",
                "Make it a markdown cell.",
                cell.index,
            )


@rule("NB013", "info")
def empty_cells(subject: Subject) -> Iterator[Problem]:
    """No cell is empty."""
    for cell in subject.notebook.cells:
        if not cell.source.strip():
            yield Problem("The cell is empty.", "Delete it.", cell.index)


@fixes("NB013")
def drop_empty_cells(subject: Subject) -> None:
    """Delete empty cells, unless a tag or an attachment says that they are wanted."""
    for cell in reversed(subject.notebook.cells):
        is_wanted = cell.tags or cell.node.get("attachments") or _outputs(cell)
        if not cell.source.strip() and not is_wanted:
            del subject.notebook.nodes[cell.index]

"""Rules on the cell of parameters: one, tagged, of literals only, and no value lost behind it."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

from tools.analysis.form_fields import COMPUTED, form_of, literal, spelling
from tools.analysis.parameter_cell import (
    assigned,
    losses,
    parameter_cell,
    parameter_lines,
    tagged_cells,
)
from tools.program import CodeCell
from tools.rules import Problem, Severity, Subject, rule

TAG_IT = "Tag the cell that holds the defaults: python -m tools sync does."
LITERALS_ONLY = "Move it to a later cell: a run puts its values behind this cell, too late for it."
PLAIN_ANNOTATION = frozenset("_[], ")


@rule("FM204")
def one_cell_of_literals(subject: Subject) -> Iterator[Problem]:
    """Exactly one cell is tagged parameters, and it holds nothing but `name = literal`."""
    tagged = tagged_cells(subject.program)
    for cell in tagged[1:]:
        message = "A second cell is tagged parameters; given values go behind the first one only."
        yield Problem(message, "Take the tag off one of the two.", cell.index)
    if not tagged:
        yield from _missing_tag(subject)
    elif tagged[0].kind != "code":
        message = f"The cell tagged parameters is of type {tagged[0].kind}, but code is wanted."
        yield Problem(message, TAG_IT, tagged[0].index)
    else:
        code = next(code for code in subject.program.cells if code.index == tagged[0].index)
        if code.error is None:
            yield from _impurities(code)


def _missing_tag(subject: Subject) -> Iterator[Problem]:
    """A form that no run can set: papermill puts its values at the top, and the form follows."""
    path = os.path.relpath(subject.notebook.path.resolve(), subject.settings.root)
    is_own = Path(path).as_posix() in subject.settings.paths
    first = next((cell for cell in subject.program.cells if form_of(cell.python).fields), None)
    if first is not None:
        message = "The cell has fields, but no cell is tagged parameters, so that no run sets them."
        yield Problem(message, TAG_IT, first.index, severity=None if is_own else "warning")
    elif is_own:
        yield Problem("No cell is tagged parameters, so that no run can set anything.", TAG_IT)


def _impurities(cell: CodeCell) -> Iterator[Problem]:
    """What is not `name = literal`, and what papermill or a form would read wrongly."""
    for magic in cell.magics:
        message = f"`{_short(magic.text)}` is a magic, but only literals may stand here."
        yield Problem(message, "Move it to another cell.", cell.index, magic.line)
    masked = {magic.line for magic in cell.magics}
    seen: set[str] = set()
    for node in cell.tree.body if cell.tree else []:
        if node.lineno not in masked:
            for message, cure, severity in _faults_of(node, seen):
                yield Problem(message, cure, cell.index, node.lineno, severity)


def _faults_of(node: ast.stmt, seen: set[str]) -> Iterator[tuple[str, str, Severity]]:
    name, value = assigned(node)
    if value is None:
        yield f"`{_short(_statement(node))}` is not `name = literal`.", LITERALS_ONLY, "error"
        return
    if literal(value) is COMPUTED:
        yield f"{name} is computed: `{_short(spelling(value))}`.", LITERALS_ONLY, "error"
    elif name in seen:
        yield f"{name} is set twice.", "Keep one of the two lines.", "error"
    elif any("#" in text for text in _texts(value)):
        message = f"{name} holds a #, where papermill ends the value when it lists parameters."
        yield message, "Leave the # out, or set this value in a later cell.", "warning"
    elif isinstance(node, ast.AnnAssign) and not _is_listed(node.annotation):
        message = f"papermill does not list {name}, since it cannot read "
        yield f"{message}`{spelling(node.annotation)}`.", "Drop the annotation.", "warning"
    seen.add(name)


def _statement(node: ast.stmt) -> str:
    try:
        return ast.unparse(node)
    except (ValueError, RecursionError):
        return type(node).__name__


def _texts(value: ast.expr) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _is_listed(annotation: ast.expr) -> bool:
    """Whether papermill's pattern takes the annotation: words, brackets and commas, or text."""
    text = spelling(annotation)
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        text = annotation.value
    return all(character.isalnum() or character in PLAIN_ANNOTATION for character in text)


def _short(code: str) -> str:
    line = code.split("\n", 1)[0]
    return line if len(line) <= 60 else line[:57] + "..."


@rule("FM205")
def kept_until_used(subject: Subject) -> Iterator[Problem]:
    """No later cell sets a parameter anew before anything has read what a run gave it."""
    cell = parameter_cell(subject.program)
    if cell is None:
        return
    names = {line.name for line in parameter_lines(cell)}
    for loss in losses(subject.program, cell.index, names):
        yield Problem(
            f"{loss.name} is a parameter, but it is set anew here before anything has read it.",
            "Give one of the two another name, or delete this line.",
            loss.cell,
            loss.line,
        )

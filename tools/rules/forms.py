"""Rules on Colab forms: how a cell is shown, the grammar of its fields, their defaults."""

import datetime
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from tools.analysis.form import SLIDER, FormFault
from tools.analysis.form_fields import COMPUTED, CellForm, Field, form_of, normal_spelling
from tools.program import CodeCell
from tools.rules import Problem, Severity, Subject, fixes, rule

Fault = tuple[str, str, Severity]
KINDS = {
    "string": ("text", (str,)),
    "date": ("text", (str,)),
    "number": ("a number", (int, float)),
    "slider": ("a number", (int, float)),
    "integer": ("a whole number", (int,)),
    "boolean": ("True or False", (bool,)),
}
"""What the default of a typed field must be."""


@rule("CO103", "warning")
def views(subject: Subject) -> Iterator[Problem]:
    """A cell with a title is shown as a form, and a cell shown as a form has a title or fields."""
    for cell, form in _forms(subject):
        if _is_view_missing(cell, form):
            yield Problem(
                "The cell has a title, but nothing says that its code is to be hidden.",
                'Write "cellView": "form" into its metadata, or make the title a plain comment.',
                cell.index,
                form.titles[0][0],
            )
        elif _is_view_idle(cell, form):
            yield Problem(
                "The cell is shown as a form, but it has neither title nor fields.",
                "Begin it with `# @title ...`, or drop cellView.",
                cell.index,
            )


@fixes("CO103")
def set_views(subject: Subject) -> None:
    """Show a cell with a title as a form; show the code of a cell that has no form."""
    for cell, form in _forms(subject):
        if _is_view_missing(cell, form):
            cell.cell.metadata["cellView"] = "form"
        elif _is_view_idle(cell, form):
            del cell.cell.metadata["cellView"]


def _forms(subject: Subject) -> Iterator[tuple[CodeCell, CellForm]]:
    for cell in subject.program.cells:
        if cell.tree is not None:
            yield cell, form_of(cell.python)


def _is_view_missing(cell: CodeCell, form: CellForm) -> bool:
    """Whether a title hides nothing. Above fields it does not have to: their code may be shown."""
    has_mode = any(
        "display-mode" in title.properties or "{display-mode}" in title.text
        for _, _, title in form.titles
    )
    has_view = "cellView" in cell.cell.node.get("metadata", {})
    return bool(form.titles) and not (form.fields or has_mode or has_view)


def _is_view_idle(cell: CodeCell, form: CellForm) -> bool:
    return form.is_empty and cell.cell.node.get("metadata", {}).get("cellView") == "form"


@rule("FM201")
def grammar(subject: Subject) -> Iterator[Problem]:
    """Every `@param` and every title is spelt as Colab reads it, behind an assignment."""
    for cell, form in _forms(subject):
        for line, column, title in form.titles:
            yield from _spelling_problems(cell, line, column, title.faults)
        for field in form.fields:
            yield from _spelling_problems(cell, field.line, field.column, field.param.faults)
            if field.is_annotated:
                message = f"Colab shows no field for {field.name}, since it has an annotation."
                yield Problem(message, "Drop it.", cell.index, field.line, "warning")
        for line, column, _ in form.stray:
            yield Problem(
                f"Column {column + 1}: this @param stands behind no `name = value` of one line, "
                "so that Colab shows no field.",
                "Put it behind the assignment, in the same line.",
                cell.index,
                line,
                "warning",
            )


def _spelling_problems(
    cell: CodeCell, line: int, column: int, faults: tuple[FormFault, ...]
) -> Iterator[Problem]:
    for fault in faults:
        message = f"Column {column + fault.column}: {fault.message}"
        yield Problem(message, fault.cure, cell.index, line, fault.severity)


@rule("FM202")
def defaults(subject: Subject) -> Iterator[Problem]:
    """The default of a field is a value that its form allows."""
    for cell, form in _forms(subject):
        for field in form.fields:
            for message, cure, severity in default_faults(field):
                yield Problem(message, cure, cell.index, field.line, severity)


def default_faults(field: Field) -> Iterator[Fault]:
    """What is wrong with the value of a field whose form is sound."""
    param = field.param
    if not param.is_sound:
        return
    if param.options is not None and param.type == "raw":
        yield from _raw_option_faults(field, param.options)
    elif param.options is not None:
        yield from _option_faults(field, param.options)
    elif param.type in KINDS:
        yield from _typed_faults(field)


def _raw_option_faults(field: Field, options: tuple[Any, ...]) -> Iterator[Fault]:
    known = [normal_spelling(str(option)) for option in options]
    if field.code not in known and not field.param.properties.get("allow-input"):
        yield _no_option(field, known)


def _option_faults(field: Field, options: tuple[Any, ...]) -> Iterator[Fault]:
    """Options that are not raw are text, even where they are written as numbers."""
    known = [str(option) for option in options]
    if field.value is COMPUTED:
        yield _computed(field)
    elif _text(field) not in known and not field.param.properties.get("allow-input"):
        yield _no_option(field, [repr(option) for option in known])
    elif not isinstance(field.value, str):
        yield (
            f"{field.name} is {field.code}, but whoever chooses an option makes it text.",
            'Write {type:"raw"} behind the options.',
            "warning",
        )


def _text(field: Field) -> str:
    return field.value if isinstance(field.value, str) else field.code


def _no_option(field: Field, known: list[str]) -> Fault:
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    return (
        f"{field.name} is {field.code}, but its options are {shown}.",
        "Choose one of them, add it, or write {allow-input: true}.",
        "error",
    )


def _typed_faults(field: Field) -> Iterator[Fault]:
    wanted, kinds = KINDS[field.param.type]
    value, name = field.value, field.name
    if value is COMPUTED:
        yield _computed(field)
    elif isinstance(value, bool) != (bool in kinds) or not isinstance(value, kinds):
        yield (
            f"{name} is {field.code}, but a field of type {field.param.type} wants {wanted}.",
            'Correct the default, or write {type:"raw"}.',
            "warning" if value is None else "error",
        )
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name} is not finite.", "Give it a number that a field can show.", "error"
    elif field.param.type == "slider":
        yield from _slider_faults(field)
    elif field.param.type == "date" and value and not _is_date(value):
        message = f"{name} is {value!r}, but a date is wanted."
        yield message, "Write it as year-month-day: 2026-01-31.", "error"


def _slider_faults(field: Field) -> Iterator[Fault]:
    limits = {name: field.param.properties.get(name, SLIDER[name]) for name in SLIDER}
    if not all(math.isfinite(limit) for limit in limits.values()):
        return
    low, high, step = (Fraction(str(limit)) for limit in limits.values())
    value = Fraction(str(field.value))
    if not low <= value <= high:
        message = f"{field.name} is {field.code}, but its slider goes from {limits['min']} to "
        yield f"{message}{limits['max']}.", "Correct the default or the range.", "error"
    elif (value - low) % step:
        nearest = low + round((value - low) / step) * step
        message = f"{field.name} is {field.code}, but its slider goes in steps of {limits['step']} "
        cure = f"Write {float(nearest):g}, or another step."
        yield f"{message}from {limits['min']}.", cure, "error"


def _computed(field: Field) -> Fault:
    return (
        f"{field.name} is computed, but a field of type {field.param.type} shows a plain value.",
        'Write a plain value, or {type:"raw"}.',
        "warning",
    )


def _is_date(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False

"""Rule on parameters and the schema of the settings: they name, offer and take the same."""

import difflib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tools.analysis.form import SLIDER
from tools.analysis.form_fields import COMPUTED, Field, literal, literal_of
from tools.analysis.parameter_cell import ParameterLine, parameter_cell, parameter_lines, unread
from tools.errors import ParameterError, SettingsError
from tools.rules import Problem, Severity, Subject, rule
from tools.settings import Settings

Fault = tuple[str, str, Severity]
FITTING_KINDS = {
    "string": {"string"},
    "date": {"string"},
    "boolean": {"boolean"},
    "integer": {"integer", "number"},
    "number": {"number"},
    "slider": {"integer", "number"},
}
"""The kinds of setting that each type of field gives values for."""


@rule("FM203")
def in_step(subject: Subject) -> Iterator[Problem]:
    """Each parameter is read by a later cell; the field of a setting takes what that takes."""
    cell = parameter_cell(subject.program)
    if cell is None or not subject.settings.schema:
        return
    try:
        schema = _schema(subject.settings.root, subject.settings.schema)
    except SettingsError as error:
        yield Problem(str(error), "Mend the module that [tool.notebooks] names as schema.")
        return
    lines = list(parameter_lines(cell))
    idle = unread(subject.program, cell.index, {line.name for line in lines})
    for line in lines:
        faults = _idle_faults(line, schema) if line.name in idle else _drift(line, schema)
        for message, cure, severity in faults:
            yield Problem(message, cure, cell.index, line.line, severity)


@lru_cache(maxsize=8)
def _schema(root: Path, name: str) -> dict[str, Any]:
    """The schema, loaded once in a process.

    Raises: SettingsError if it cannot be.
    """
    try:
        return Settings(root=root, schema=name).load_schema()
    except (SyntaxError, NameError, TypeError) as error:
        raise SettingsError(f"schema is {name!r}, but its module fails ({error}).") from error


def _idle_faults(line: ParameterLine, schema: Mapping[str, Any]) -> Iterator[Fault]:
    """A parameter that no cell reads is a misspelt setting, or changes nothing."""
    settings = schema.get("properties", {})
    if line.name in settings:
        message = f"{line.name} is a setting, but no later cell reads it: it changes nothing."
        yield message, "Pass it on to the settings, or drop it.", "warning"
        return
    near = difflib.get_close_matches(line.name, settings, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]}? " if near else ""
    message = f"{line.name} is no setting, and no later cell reads it."
    yield message, f"{hint}Correct the name, use it, or drop it.", "error"


def _drift(line: ParameterLine, schema: Mapping[str, Any]) -> Iterator[Fault]:
    """Where the line of a setting gives what the setting does not take."""
    default, entry = literal(line.value), schema.get("properties", {}).get(line.name)
    if entry is None or default is COMPUTED:
        return
    setting = _Setting(line.name, entry, schema)
    if refused := setting.refusal(default):
        yield refused, "Correct the default.", "error"
    field = line.field
    if field is not None and field.param.is_sound:
        if field.param.options is not None:
            yield from _option_faults(setting, field)
        elif field.param.type in FITTING_KINDS:
            yield from _type_faults(setting, field)


class _Setting:
    """A setting by its entry in the schema."""

    def __init__(self, name: str, entry: Mapping[str, Any], schema: Mapping[str, Any]):
        self.name, self.schema = name, schema
        choices = [entry, *entry.get("anyOf", [])]
        self.kinds = {str(choice["type"]) for choice in choices if "type" in choice} - {"null"}
        self.options: list[Any] = next((c["enum"] for c in choices if "enum" in c), [])

    def refusal(self, value: Any) -> str:
        """Why a run would refuse a value; empty if it takes it, as it always takes None."""
        from tools.running.literals import Assignment
        from tools.running.parameters import check_parameters, describe

        assignment = Assignment(self.name, value, "")
        if not describe(assignment, self.schema).kind:
            return ""
        try:
            check_parameters({self.name: value}, {self.name: assignment}, self.schema)
        except ParameterError as error:
            return str(error)
        return ""


def _option_faults(setting: _Setting, field: Field) -> Iterator[Fault]:
    is_raw = field.param.type == "raw"
    offered = [
        literal_of(str(option)) if is_raw else str(option) for option in field.param.options or ()
    ]
    alien = [value for value in offered if value is not COMPUTED and setting.refusal(value)]
    if alien:
        shown = ", ".join(map(repr, alien))
        message = f"The field offers {shown}, but the setting {field.name} refuses that. "
        yield message + setting.refusal(alien[0]), "Offer what the setting takes.", "error"
    missing = [value for value in setting.options if value not in offered]
    if missing and COMPUTED not in offered and not field.param.properties.get("allow-input"):
        shown = ", ".join(map(repr, missing))
        message = (
            f"The setting {field.name} takes {shown} as well, but the field does not offer it."
        )
        yield message, "Add it to the options.", "warning"


def _type_faults(setting: _Setting, field: Field) -> Iterator[Fault]:
    kind = field.param.type
    if setting.kinds and not setting.kinds & FITTING_KINDS[kind]:
        wanted = " or ".join(sorted(setting.kinds))
        message = f"The field is of type {kind}, but the setting {field.name} takes {wanted}."
        yield message, f'Write type:"{wanted}".', "error"
    elif kind == "slider":
        for name in ("min", "max"):
            limit = field.param.properties.get(name, SLIDER[name])
            if refused := setting.refusal(limit):
                message = f"The slider goes to {limit}, but that is refused. {refused}"
                yield message, f"Give the slider another {name}.", "error"

"""Write the cell of parameters from the schema of the settings: literals, widgets, help."""

import difflib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.errors import SettingsError
from tools.generation.outline import Form, FormField, FormSection

WIDGETS = {"integer": "integer", "number": "number", "boolean": "boolean", "string": "string"}


@dataclass(frozen=True)
class Line:
    """One parameter as the form shows it."""

    name: str
    default: Any
    comment: str
    help: str
    values: str
    """What it takes, in words."""

    @property
    def code(self) -> str:
        """The line of code."""
        return f"{self.name} = {literal(self.default)}  # @param {self.comment}"


def form_source(form: Form, schema: Mapping[str, Any]) -> str:
    """The source of the cell: a title, then each parameter under its help.

    Raises: SettingsError if a field is in neither the schema nor described by the outline.
    """
    rows = [f"# @title {form.title}"]
    for section in form.sections:
        rows += [f"# @markdown {section.text}"] * bool(section.text)
        for field in section.fields:
            line = form_line(field, section, schema)
            rows += [f"# @markdown {line.help}", line.code] if line.help else [line.code]
    return "\n".join(rows)


def form_lines(form: Form, schema: Mapping[str, Any]) -> Iterator[Line]:
    """Every parameter of the form, in order."""
    for section in form.sections:
        for field in section.fields:
            yield form_line(field, section, schema)


def form_line(field: FormField, section: FormSection, schema: Mapping[str, Any]) -> Line:
    """One parameter: the outline goes before the schema."""
    entry = schema.get("properties", {}).get(field.name)
    options = field.options if field.options is not None else _options(field)
    described = field.default is not None or field.widget or options is not None
    if entry is None and not described:
        raise SettingsError(_unknown(field.name, schema))
    entry = entry or {}
    if options is None and not field.widget:
        options = entry.get("enum")
    default = field.default if field.default is not None else entry.get("default")
    default = None if section.unset else default
    if not section.unset and options is not None and default not in options:
        raise SettingsError(
            f"The default of {field.name} is {default!r}, but its options are {options}. "
            "Correct the outline."
        )
    comment = _comment(field, entry, options, section.unset)
    return Line(
        field.name, default, comment, field.help or help_of(entry), values_of(entry, options)
    )


def _comment(
    field: FormField, entry: Mapping[str, Any], options: list[Any] | None, is_unset: bool
) -> str:
    """What stands behind `@param`; options that are no text, or None, are typed raw."""
    if options is not None:
        choices = ["None", *map(literal, options)] if is_unset else options
        is_text = not is_unset and all(isinstance(option, str) for option in options)
        shown = json.dumps(choices if is_text else [str(choice) for choice in choices])
        return shown if is_text else shown + ' {type:"raw"}'
    widget = "raw" if is_unset else field.widget or WIDGETS.get(entry.get("type", ""), "raw")
    if widget != "slider":
        return f'{{type:"{widget}"}}'
    step = entry.get("multipleOf", 1 if entry.get("type") == "integer" else 0.01)
    try:
        bounds = f"min:{entry['minimum']}, max:{entry['maximum']}"
    except KeyError as error:
        raise SettingsError(
            f"{field.name} is a slider in the outline, but the schema gives it no {error.args[0]}. "
            "Choose another widget."
        ) from error
    return f'{{type:"slider", {bounds}, step:{step}}}'


def _options(field: FormField) -> list[Any] | None:
    if not field.options_from:
        return None
    module, _, name = field.options_from.partition(":")
    try:
        return list(getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise SettingsError(
            f"options_from of {field.name} is {field.options_from!r}, but it cannot be loaded "
            f"({error}). Name a list or mapping as module:object."
        ) from error


def help_of(entry: Mapping[str, Any]) -> str:
    """The help with its unit: `Length of the run. Unit: steps.`"""
    help, unit = entry.get("description", ""), entry.get("unit", "")
    return f"{help} Unit: {unit}." if help and unit else help


def values_of(entry: Mapping[str, Any], options: Iterable[Any] | None = None) -> str:
    """What a field takes, in words: `whole number, at least 1, at most 256`."""
    options = options if options is not None else entry.get("enum")
    if options is not None:
        return ", ".join(f"`{literal(option)}`" for option in options)
    kinds = {
        "integer": "whole number",
        "number": "number",
        "boolean": "`True`, `False`",
        "string": "text",
    }
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    bounds = [f"{word} {_number(entry[key])}" for key, word in words.items() if key in entry]
    kind = kinds.get(entry.get("type", ""), "any value")
    return ", ".join([kind, *bounds])


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) or value.is_integer() else f"{value:g}"


def literal(value: Any) -> str:
    """A value as Python code with double quotes, as the house writes it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def _unknown(name: str, schema: Mapping[str, Any]) -> str:
    known = schema.get("properties", {})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return (
        f"The outline has a field {name}, but the schema has none of this name.{hint} "
        "Correct the outline, or give the field a default and a widget there."
    )

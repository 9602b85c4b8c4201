"""Type parameters and check them before a kernel starts; all faults are told at once."""

import ast
import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from tools.analysis.form import SLIDER, parse_param
from tools.errors import ParameterError
from tools.running.literals import Assignment

INTEGER = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
FORM_KINDS = {
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "string": "string",
    "date": "string",
}
KINDS = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
WORDS = {
    "boolean": "True or False",
    "integer": "a whole number",
    "number": "a finite number",
    "string": "text",
    "array": "a Python list of plain values",
    "object": "a Python dict of plain values with text as keys",
}
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "minLength": "of length at least",
    "maxLength": "of length at most",
    "pattern": "that matches",
}


class WrongValue(Exception):
    """A value is not what its parameter takes; turned into a sentence by `check_parameters`."""


@dataclass(frozen=True)
class Parameter:
    """What values a name takes."""

    name: str
    kind: str
    """A key of WORDS; empty if nothing tells the type."""
    is_optional: bool
    schema: Mapping[str, Any]
    """A JSON schema that a value which is not None must fulfil."""
    help: str = ""

    def wanted(self) -> str:
        """The values in words."""
        options = self.schema.get("enum")
        words = "one of " + ", ".join(map(repr, options)) if options else WORDS[self.kind]
        bounds = [
            f"{word} {self.schema[key]}" for key, word in BOUNDS.items() if key in self.schema
        ]
        optional = ", or None" if self.is_optional else ""
        return " ".join([words, " and ".join(bounds)]).rstrip() + optional


def check_parameters(
    given: Mapping[str, Any] | Iterable[tuple[str, str]],
    known: Mapping[str, Assignment],
    schema: Mapping[str, Any],
) -> dict[str, Any]:
    """Return typed values; pairs are text from a command line, a mapping holds values.

    Raises: ParameterError, naming all faults at once.
    """
    is_text = not isinstance(given, Mapping)
    values, faults = {}, []
    for name, value in list(given) if is_text else given.items():
        if name in values:
            faults.append(f"{name} was given twice, but one value is wanted. Leave one out.")
        elif name not in known:
            faults.append(_unknown(name, known))
        else:
            parameter = describe(known[name], schema)
            try:
                values[name] = _checked(parameter, _typed(parameter, value) if is_text else value)
            except WrongValue as fault:
                faults.append(f"{name} is {_shown(value)}, but {fault}")
    if faults:
        raise ParameterError("\n".join(faults))
    return values


def describe(assignment: Assignment, schema: Mapping[str, Any]) -> Parameter:
    """What values a line of the cell takes: the schema decides, else its form, else its default."""
    optional = assignment.default is None
    entry = schema.get("properties", {}).get(assignment.name)
    if entry is not None:
        entry, nullable = _without_null(entry)
        help = entry.get("description", "")
        entry = {**entry, "$defs": schema.get("$defs", {})}
        kind = entry.get("type") or _kind_of_options(entry.get("enum"))
        return Parameter(assignment.name, kind, optional or nullable, entry, help)
    options, form = read_form(assignment.comment)
    kind = FORM_KINDS.get(form.get("type", "")) or KINDS.get(type(assignment.default), "")
    if form.get("type") == "raw" and options is not None:
        options = [_literal(option) for option in options]
        optional = optional or None in options
        options = [option for option in options if option is not None]
    kind = kind or _kind_of_options(options)
    closed = options is not None and form.get("allow-input") != "true"
    limits = {"enum": options} if closed else _slider_limits(form)
    return Parameter(assignment.name, kind, optional, limits)


def _slider_limits(form: Mapping[str, str]) -> dict[str, Any]:
    """The range of a slider as a schema."""
    if form.get("type") != "slider":
        return {}
    limits = {name: _literal(form.get(name, str(SLIDER[name]))) for name in ("min", "max")}
    return {"minimum": limits["min"], "maximum": limits["max"]}


def read_form(comment: str) -> tuple[list[Any] | None, dict[str, str]]:
    """Options and properties of a `# @param` comment; a faulty one says nothing.

    >>> read_form('# @param ["a", "b"] {allow-input: true}')
    (['a', 'b'], {'allow-input': 'true'})
    """
    param = parse_param(comment)
    if param is None or not param.is_sound:
        return None, {}
    options = None if param.options is None else list(param.options)
    return options, {name: _spelt(value) for name, value in param.properties.items()}


def _spelt(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _typed(parameter: Parameter, text: str) -> Any:
    """The value that a text of the command line stands for."""
    kind = parameter.kind
    if text == "None" and parameter.is_optional:
        return None
    if kind == "boolean" and text in ("True", "False"):
        return text == "True"
    if kind == "integer" and INTEGER.fullmatch(text) and len(text) <= 1000:
        return int(text)
    if kind == "number" and NUMBER.fullmatch(text):
        return float(text)
    if kind in ("array", "object"):
        return _literal(text)
    return text


def _checked(parameter: Parameter, value: Any) -> Any:
    """The value, unless it is not one that the parameter takes."""
    if not parameter.kind:
        raise WrongValue(
            "nothing tells its type. Give its line a default or `# @param {type:...}`."
        )
    if value is None and parameter.is_optional:
        return None
    if parameter.kind == "number" and type(value) is int:
        value = _float(value)
    fits_kind = KINDS.get(type(value)) == parameter.kind and _is_plain(value)
    if not fits_kind or not Draft202012Validator(parameter.schema).is_valid(value):
        help = f" {parameter.help}" if parameter.help else f" Change {parameter.name}."
        raise WrongValue(f"{parameter.wanted()} is wanted.{help}")
    return value


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_plain(value: Any) -> bool:
    """Whether a value passes unchanged through the notebook's JSON and papermill's translation."""
    if isinstance(value, dict):
        return all(type(key) is str and _is_plain(key) for key in value) and all(
            map(_is_plain, value.values())
        )
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return value is None or isinstance(value, bool | int)


def _literal(text: str) -> Any:
    """The Python literal that a text spells, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def _without_null(entry: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Unfold `anyOf: [X, null]` into X."""
    choices = [choice for choice in entry.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) != 1:
        return dict(entry), False
    rest = {key: value for key, value in entry.items() if key != "anyOf"}
    return {**choices[0], **rest}, len(choices) < len(entry["anyOf"])


def _kind_of_options(options: list[Any] | None) -> str:
    kinds = {KINDS.get(type(option), "") for option in options or []}
    return kinds.pop() if len(kinds) == 1 else ""


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{_shown(name)} is not a parameter of this notebook.{hint} Known: {', '.join(known)}."


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True) if isinstance(value, str) else ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."

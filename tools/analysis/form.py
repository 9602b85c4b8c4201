"""Read the comments that make a form of a Colab cell, `@param` and `@title`, each fault in place.

    x = 1  # @param {type:"slider", min:0, max:9, step:1}
    y = "a"  # @param ["a", "b"] {allow-input: true}
    # @title Train { display-mode: "form", run: "auto" }

Colab reads JavaScript: keys bare or quoted, quotes single or double, lower-case `true`.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.analysis.form_grammar import Broken, FormFault, Reader

PARAM = re.compile(r"#+\s*@param(?![\w-])")
TITLE = re.compile(r"#+\s*@title(?![\w-])\s*")
MARKDOWN = re.compile(r"#+\s*@markdown(?![\w-])")
OBJECT_IN_TITLE = re.compile(r"""\{\s*["']?([\w-]+)["']?\s*[:=]""")

TYPES = ("string", "number", "integer", "slider", "boolean", "date", "raw")
PYTHON_TYPES = {"str": "string", "text": "string", "int": "integer", "float": "number",
                "double": "number", "bool": "boolean", "range": "slider", "dropdown": "string",
                "any": "raw"}  # fmt: skip
PROPERTIES: dict[str, type | tuple[type, ...]] = {
    "type": str,
    "allow-input": bool,
    "isTemplate": bool,
    "placeholder": str,
    "min": (int, float),
    "max": (int, float),
    "step": (int, float),
}
TITLE_PROPERTIES: dict[str, type | tuple[type, ...]] = {
    "display-mode": str,
    "run": str,
    "vertical-output": bool,
    "form-width": str,
    "output-height": (str, int, float),
}
KINDS = {str: "text in quotes", bool: "true or false", (int, float): "a number"}
CHOICES = {"type": TYPES, "display-mode": ("form", "both", "code"), "run": ("auto", "manual")}
SLIDER = {"min": 0, "max": 100, "step": 1}
"""What Colab takes for a property of a slider that is not given."""


@dataclass(frozen=True)
class Param:
    """What stands behind a value: `@param`, a list of options, properties."""

    options: tuple[Any, ...] | None = None
    """Quoted ones as text, bare ones as numbers, booleans or None."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[FormFault, ...] = ()

    @property
    def type(self) -> str:
        """The type of the field; a list of options is one of text, and nothing at all is raw."""
        default = "raw" if self.options is None else "string"
        return str(self.properties.get("type", default))

    @property
    def is_sound(self) -> bool:
        """Whether it says beyond doubt what its field takes."""
        return all(fault.severity != "error" for fault in self.faults)

    @property
    def is_said(self) -> bool:
        """Whether anything stands behind `@param`."""
        return self.options is not None or bool(self.properties) or bool(self.faults)


@dataclass(frozen=True)
class Title:
    """A title with the properties of the form."""

    text: str
    properties: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[FormFault, ...] = ()


def parse_param(comment: str) -> Param | None:
    """Read a comment; None if there is no `@param` in it. What is read before a fault counts.

    >>> parse_param("# @param ['a', 'b'] {'allow-input': true}").options
    ('a', 'b')
    """
    start = PARAM.search(comment)
    if start is None:
        return None
    reader = Reader(comment, start.end())
    options, properties = None, {}
    try:
        while reader.sees("[", "{"):
            if reader.sees("["):
                reader.once(options is None, "list of options")
                options = []
                reader.read_list(options)
            else:
                reader.once(not reader.has_object, "object of properties")
                reader.read_object(properties)
        reader.end(is_empty=options is None and not reader.has_object)
    except Broken as broken:
        return Param(_tuple(options), properties, (*reader.faults, broken.fault))
    faults = [*reader.faults, *_property_faults(properties, PROPERTIES, reader.columns)]
    faults += _slider_faults(properties, reader.columns)
    if options is not None and properties.get("type", "raw") not in ("string", "raw"):
        faults += _list_faults(properties, reader.columns)
    return Param(_tuple(options), properties, tuple(faults))


def parse_title(comment: str) -> Title | None:
    """Read a comment; None if it is not a `@title`. Braces without a known key belong to the text.

    >>> parse_title('# @title Train { display-mode: "form" }').text
    'Train'
    """
    start = TITLE.match(comment)
    if start is None:
        return None
    found = OBJECT_IN_TITLE.search(comment, start.end())
    if found is None or not _nearest(found.group(1), TITLE_PROPERTIES):
        return Title(comment[start.end() :].strip())
    text = comment[start.end() : found.start()].strip()
    reader = Reader(comment, found.start())
    properties: dict[str, Any] = {}
    try:
        reader.read_object(properties)
        faults = list(reader.faults)
    except Broken as broken:
        return Title(text, properties, (*reader.faults, broken.fault))
    faults += _property_faults(properties, TITLE_PROPERTIES, reader.columns)
    return Title(text, properties, tuple(faults))


def _property_faults(
    properties: Mapping[str, Any], known: Mapping[str, Any], columns: Mapping[str, int]
) -> Iterator[FormFault]:
    """What is wrong with names and values, whatever the type of the field."""
    for name, value in properties.items():
        choices, kind = CHOICES.get(name, ()), known.get(name)
        if kind is None:
            near = _nearest(name, known)
            yield FormFault(
                columns[name],
                f"`{name}` is not a property that Colab knows.",
                f"Write `{near}`." if near else f"Known are {', '.join(known)}.",
                "warning",
            )
        elif isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
            wanted = KINDS.get(kind, "text or a number")
            message = f"`{name}` is {value!r}, but {wanted} is wanted."
            yield FormFault(columns[name], message, f"Give it {wanted}.")
        elif choices and value not in choices:
            near = PYTHON_TYPES.get(value.lower()) or _nearest(value, choices)
            yield FormFault(
                columns[name],
                f"`{name}` is {value!r}, but one of {', '.join(choices)} is wanted.",
                f'Write {name}:"{near}".' if near else "Choose one of them.",
            )


def _slider_faults(
    properties: Mapping[str, Any], columns: Mapping[str, int]
) -> Iterator[FormFault]:
    given = [name for name in SLIDER if name in properties]
    if properties.get("type") != "slider":
        for name in given:
            message = f"`{name}` has no effect on a field that is not a slider."
            yield FormFault(columns[name], message, 'Write type:"slider", or drop it.', "warning")
        return
    limits = {name: properties.get(name, value) for name, value in SLIDER.items()}
    if not all(_is_number(value) for value in limits.values()):
        return
    if limits["min"] >= limits["max"]:
        column = columns[given[0]] if given else columns["type"]
        message = f"The slider goes from {limits['min']} to {limits['max']}."
        yield FormFault(column, message, "Give it a min below its max.")
    if limits["step"] <= 0:
        message = f"The step of the slider is {limits['step']}, but it must be above 0."
        yield FormFault(columns["step"], message, "Give it a step above 0.")


def _list_faults(properties: Mapping[str, Any], columns: Mapping[str, int]) -> Iterator[FormFault]:
    if properties["type"] in TYPES:
        yield FormFault(
            columns["type"],
            f"A list of options is of type string or raw, not {properties['type']}.",
            'Write type:"raw" where the options are not text.',
            "warning",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _nearest(name: str, known: Any) -> str:
    spelt = name.lower().replace("_", "-")
    exact = [entry for entry in known if entry.lower() == spelt]
    return next(iter(exact or difflib.get_close_matches(spelt, list(known), n=1, cutoff=0.7)), "")


def _tuple(options: list[Any] | None) -> tuple[Any, ...] | None:
    return None if options is None else tuple(options)

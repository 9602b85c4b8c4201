"""Compare a notebook with the schema of its own nbformat, and say each difference in a sentence.

One compiled check of the whole answers for a sound file; only a faulty one is looked at in detail.
"""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from tools.notebook import Notebook

if TYPE_CHECKING:
    from jsonschema import ValidationError

KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


class SchemaFault(NamedTuple):
    """What the schema does not allow."""

    cell: int | None
    message: str
    cure: str


def schema_faults(notebook: Notebook) -> Iterator[SchemaFault]:
    """Every fault, cell by cell; ids, kernel and language are left to the rules on them."""
    from nbformat.validator import ValidationError, get_validator

    major, minor = notebook.version
    # Of version 3 there is one schema; beyond 4.5 all minors are read alike.
    known = (major, 0 if major == 3 else min(minor, 6))
    quick = get_validator(*known, name="fastjsonschema")
    if quick is None:
        message = f"nbformat_minor is {minor}, but no such version exists."
        yield SchemaFault(None, message, "Write 5 for a file whose cells have ids, else 4.")
        return
    try:
        quick.validate(notebook.content)
    except ValidationError:
        reader = _Reader(get_validator(*known, name="jsonschema"), f"{major}.{minor}")
        yield from dict.fromkeys(reader.faults(notebook))


class _Reader:
    """Turns the errors of a validator into sentences."""

    def __init__(self, validator: Any, version: str):
        self.validator, self.version = validator, version

    def faults(self, notebook: Notebook) -> Iterator[SchemaFault]:
        """The faults of the frame, then of each cell."""
        content, nodes = notebook.content, notebook.nodes
        frame = {**content, "cells": []}
        if notebook.version[0] == 3:
            sheets = [{**sheet, "cells": []} for sheet in content["worksheets"]]
            frame = {**content, "worksheets": sheets}
        yield from self._told(None, "notebook", self.validator.iter_errors(frame))
        for index, node in enumerate(nodes):
            kind = node["cell_type"]
            if _is_known(kind, notebook.version):
                errors = self._errors(node, f"{kind}_cell")
                yield from self._told(index, f"{kind} cell", errors)
            elif notebook.version <= (4, 5):
                message = f"cell_type is {_shown(kind)}, but code, markdown or raw is wanted."
                yield SchemaFault(index, message, "Correct cell_type.")

    def _errors(self, value: Any, definition: str) -> "Iterable[ValidationError]":
        return self.validator.iter_errors(value, {"$ref": f"#/definitions/{definition}"})

    def _told(
        self, cell: int | None, what: str, errors: "Iterable[ValidationError]"
    ) -> Iterator[SchemaFault]:
        for error in errors:
            if error.validator == "oneOf" and "output_type" in _keys(error.instance):
                yield from self._output(cell, error)
            elif not _is_anothers(error):
                place = _path(error.absolute_path)
                yield from self._sentences(cell, f"`{place}`" if place else f"The {what}", error)

    def _output(self, cell: int | None, error: "ValidationError") -> Iterator[SchemaFault]:
        """An output is one of four kinds: say what is wrong with the one that it claims to be."""
        place, kind = _path(error.absolute_path), error.instance["output_type"]
        kinds = [choice["$ref"].rpartition("/")[2] for choice in error.validator_value]
        if kind not in kinds:
            wanted = ", ".join(name for name in kinds if name != "unrecognized_output")
            message = f"`{place}.output_type` is {_shown(kind)}, but one of {wanted} is wanted."
            yield SchemaFault(cell, message, "Run the cell again, or clear its outputs.")
            return
        for inner in self._errors(error.instance, kind):
            path = _path(inner.absolute_path)
            here = f"`{place}.{path}`" if path else f"`{place}`"
            yield from self._sentences(cell, here, inner)

    def _sentences(
        self, cell: int | None, place: str, error: "ValidationError"
    ) -> Iterator[SchemaFault]:
        if error.validator == "required":
            for name in error.validator_value:
                if name not in error.instance and name != "id":
                    message = f"{place} has no `{name}`, which nbformat {self.version} wants."
                    yield SchemaFault(cell, message, f"Add `{name}`.")
        elif error.validator == "additionalProperties":
            known = _keys(error.schema["properties"])
            for name in error.instance:
                if name not in known and name != "id":
                    message = f"{place} has a field `{name}` that nbformat {self.version} "
                    message += "does not allow there."
                    yield SchemaFault(cell, message, f"Delete `{name}`.")
        else:
            message = f"{place} is {_shown(error.instance)}, but {_wanted(error)} is wanted."
            yield SchemaFault(cell, message, "Correct it.")


def _is_known(kind: str, version: tuple[int, int]) -> bool:
    return kind in ("code", "markdown", "raw") or (kind == "heading" and version[0] == 3)


def _is_anothers(error: "ValidationError") -> bool:
    """Whether another rule speaks of it: of ids, of the kernel, of the language."""
    path = list(error.absolute_path)
    is_frame = path[:2] in (["metadata", "kernelspec"], ["metadata", "language_info"])
    return path == ["id"] or (is_frame and "codemirror_mode" not in path)


def _wanted(error: "ValidationError") -> str:
    value = error.validator_value
    match error.validator:
        case "type":
            kinds = value if isinstance(value, list) else [value]
            return " or ".join(KINDS.get(kind, kind) for kind in kinds)
        case "enum":
            return " or ".join(map(_shown, value))
        case "minimum":
            return f"a number of at least {value}"
        case "maximum":
            return f"a number of at most {value}"
        case "pattern":
            return f"text like {value}"
        case "uniqueItems":
            return "a list without repetition"
        case "oneOf":
            is_output = list(error.absolute_path)[-2:-1] == ["outputs"]
            return "an output with an output_type" if is_output else "text or a list of lines"
    return f"what the schema calls {error.validator}"


def _path(parts: Iterable[str | int]) -> str:
    """The place of a value: `metadata.tags[0]`."""
    steps = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts]
    return "".join(steps).lstrip(".")


def _keys(value: Any) -> Iterable[str]:
    return value if isinstance(value, dict) else ()


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."

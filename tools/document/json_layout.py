"""The layout of a JSON file: how its writer chose to indent, separate, escape and end lines."""

import json
import re
from dataclasses import dataclass
from typing import Any

OPENING = re.compile(r"[ \t\n\r]*[{\[]([ \t\n\r]*)")
KEY = re.compile(r'"(?:[^"\\]|\\.)*"([ \t\n\r]*:[ \t\n\r]*)')
COMMA = re.compile(r'["\]}0-9el](,[ \t]*)\r?\n')
ESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\u(?!00[0-7])[0-9a-fA-F]{4}")
# Writers made for web pages escape these, though JSON need not.
MARKUP = "<>&'=\x7f"
PLAIN = frozenset({str, int, float, bool, type(None)})


@dataclass(frozen=True)
class Layout:
    """How a file writes JSON."""

    indent: str | None = " "
    """One step of indentation; None if all stands in one line."""
    comma: str = ","
    """Without the line end that follows where lines are indented."""
    colon: str = ": "
    newline: str = "\n"
    is_ascii: bool = False
    """Whether letters beyond ASCII are escaped."""
    escaped: str = ""
    """Characters of ASCII that are escaped without need."""
    is_sorted: bool = False
    """Whether every object has its keys in order."""

    @classmethod
    def of(cls, text: str, value: Any) -> "Layout":
        """Read the layout from a text and the value it says."""
        blank = OPENING.match(text)
        first = blank.group(1) if blank else ""
        colon = KEY.search(text)
        indent = first.rpartition("\n")[2] if "\n" in first else None
        colon = colon.group(1) if colon else ": "
        comma = COMMA.search(text) if indent is not None else None
        spaced = "," if indent is not None or not colon.endswith(" ") else ", "
        return cls(
            indent=indent,
            comma=comma.group(1) if comma else spaced,
            colon=colon,
            newline="\r\n" if "\r\n" in text else "\n",
            is_ascii=text.isascii() and "\\u" in text and ESCAPED.search(text) is not None,
            escaped="".join(c for c in MARKUP if _code(c) in text and c not in text),
            is_sorted=_is_sorted(value),
        )

    def dump(self, value: Any, level: int = 0) -> str:
        """Write a value as it would stand `level` steps deep in the file.

        Raises: ValueError or TypeError if it cannot be written as JSON.
        """
        text = json.dumps(
            value,
            indent=self.indent,
            separators=(self.comma, self.colon),
            ensure_ascii=self.is_ascii,
            sort_keys=self.is_sorted,
            allow_nan=False,
        )
        if self.indent is not None:
            text = text.replace("\n", self.newline + self.indent * level)
        for character in self.escaped:
            text = text.replace(character, _code(character))
        return text


def is_same(a: Any, b: Any) -> bool:
    """Whether two values are written alike: 1, 1.0 and True differ, the order of keys does not."""
    if isinstance(a, dict) and isinstance(b, dict):
        return len(a) == len(b) and all(key in b and is_same(a[key], b[key]) for key in a)
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and _is_same_list(a, b)
    return repr(a) == repr(b) if isinstance(a, float) else a == b


def _is_same_list(a: list[Any], b: list[Any]) -> bool:
    """Compare long lists of plain values at C speed."""
    kinds = list(map(type, a))
    if not PLAIN.issuperset(kinds):
        return all(map(is_same, a, b))
    # Of plain values only 0.0 and -0.0 are equal, of one type, and written differently.
    is_equal = a == b and kinds == list(map(type, b))
    return is_equal and (float not in kinds or _zeros(a) == _zeros(b))


def _zeros(items: list[Any]) -> str:
    return repr([item for item in items if item == 0])


def _code(character: str) -> str:
    return f"\\u{ord(character):04x}"


def _is_sorted(value: Any) -> bool:
    if isinstance(value, dict):
        keys = list(value)
        return keys == sorted(keys) and all(map(_is_sorted, value.values()))
    return not isinstance(value, list) or all(map(_is_sorted, value))

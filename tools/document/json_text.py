"""JSON as text: read strictly, find where each value stands, and change as little as possible."""

import json
import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from tools.document.json_layout import Layout, is_same

MAX_DEPTH = 200
BLANK = re.compile(r"[ \t\n\r]*")
LONE = re.compile("[\ud800-\udfff]")
DECODER = json.JSONDecoder()
# Above this many pairs difflib, which is quadratic, gives way to pairing by place.
MAX_PAIRS = 100_000


class Member(NamedTuple):
    """Where one member of an object, or one item of an array, stands in the text."""

    key: str | int
    start: int
    """Of the key with its quotes; of the value in an array."""
    value: int
    end: int


def parse(text: str) -> Any:
    """Parse JSON, and refuse what two readers could read differently.

    Raises: ValueError in one line, for duplicate keys, NaN, half a surrogate pair, deep nesting
    and anything after the value too.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from error
    if _is_deep(value):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if ("\\ud" in text or "\\uD" in text) and LONE.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("half of a surrogate pair stands alone")
    return value


def members(text: str, start: int) -> Iterator[Member]:
    """The members of the object, or the items of the array, whose bracket is at `start`.

    What stands deeper is skipped by the C scanner, so that a walk costs little.
    """
    is_object = text[start] == "{"
    at, index = _skip(text, start + 1), 0
    while text[at] not in "}]":
        key, value = index, at
        if is_object:
            key, end = DECODER.raw_decode(text, at)
            value = _skip(text, _skip(text, end) + 1)
        end = DECODER.raw_decode(text, value)[1]
        yield Member(key, at, value, end)
        at, index = _skip(text, end), index + 1
        if text[at] == ",":
            at = _skip(text, at + 1)


def member(text: str, start: int, key: str | int) -> Member | None:
    """The member of this key or index; None if there is none."""
    if text[start] not in "{[":
        return None
    return next((found for found in members(text, start) if found.key == key), None)


def value_at(text: str, start: int) -> Any:
    """The value that begins at `start`."""
    return DECODER.raw_decode(text, start)[0]


def root(text: str) -> int:
    """Where the outermost value begins."""
    return _skip(text, 0)


def rewrite(text: str, old: Any, new: Any, layout: Layout | None = None) -> str:
    """The text with the least change that makes `old`, which it says, into `new`.

    What is equal keeps its bytes; what is not is written in the layout of the text.

    Raises: ValueError or TypeError if `new` cannot be written as JSON.
    """
    if is_same(old, new):
        return text
    start = root(text)
    end = DECODER.raw_decode(text, start)[1]
    layout = layout or Layout.of(text, old)
    return text[:start] + _Rewriter(text, layout).value(start, end, old, new, 0) + text[end:]


def align(old: Sequence[Any], new: Sequence[Any]) -> list[int | None]:
    """For each new item the index of the old one that it comes from.

    Items that are equal at both ends come first, then those of one id, then what difflib finds.
    """
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    found: list[int | None] = [*range(head), *[None] * (len(new) - head - tail)]
    found += range(len(old) - tail, len(old))
    left, wanted = range(head, len(old) - tail), range(head, len(new) - tail)
    places = _places(old, left)
    for place, index in _places(new, wanted).items():
        found[index] = places.get(place)
    taken = set(found)
    left = [index for index in left if index not in taken]
    wanted = [index for index in wanted if found[index] is None]
    for a, b in _pairs([old[i] for i in left], [new[i] for i in wanted]):
        found[wanted[b]] = left[a]
    return found


class _Rewriter:
    """Writes a value anew, with the old text of all in it that stayed."""

    def __init__(self, text: str, layout: Layout) -> None:
        self.text, self.layout = text, layout

    def value(self, start: int, end: int, old: Any, new: Any, level: int) -> str:
        if is_same(old, new):
            return self.text[start:end]
        if isinstance(old, dict) and isinstance(new, dict) and old and new:
            return self._object(start, end, old, new, level)
        if isinstance(old, list) and isinstance(new, list) and old and new:
            return self._array(start, end, old, new, level)
        return self.layout.dump(new, level)

    def _object(self, start: int, end: int, old: Any, new: Any, level: int) -> str:
        units = list(members(self.text, start))
        at = {unit.key: index for index, unit in enumerate(units)}
        parts = []
        for key in _order(old, new, self.layout.is_sorted):
            if key in at:
                unit = units[at[key]]
                value = self.value(unit.value, unit.end, old[key], new[key], level + 1)
                parts.append((at[key], self.text[unit.start : unit.value] + value))
            else:
                name = self.layout.dump(key, level + 1) + self.layout.colon
                parts.append((None, name + self.layout.dump(new[key], level + 1)))
        return self._joined(start, end, units, parts)

    def _array(self, start: int, end: int, old: Any, new: Any, level: int) -> str:
        units = list(members(self.text, start))
        parts = []
        for item, index in zip(new, align(old, new), strict=True):
            if index is None:
                parts.append((None, self.layout.dump(item, level + 1)))
            else:
                unit = units[index]
                value = self.value(unit.value, unit.end, old[index], item, level + 1)
                parts.append((index, value))
        return self._joined(start, end, units, parts)

    def _joined(
        self, start: int, end: int, units: list[Member], parts: list[tuple[int | None, str]]
    ) -> str:
        """The parts between the brackets; two that stood side by side keep what is between."""
        head, tail = self.text[start : units[0].start], self.text[units[-1].end : end]
        gap = self._gap(units, head)
        pieces, last = [head], None
        for number, (index, part) in enumerate(parts):
            if number and index is not None and last is not None and index == last + 1:
                pieces.append(self.text[units[last].end : units[index].start])
            elif number:
                pieces.append(gap)
            pieces.append(part)
            last = index
        return "".join([*pieces, tail])

    def _gap(self, units: list[Member], head: str) -> str:
        """What stands between two members here; the blanks before the first tell it too."""
        if len(units) > 1:
            return self.text[units[0].end : units[1].start]
        if "\n" in head:
            return self.layout.comma + head[1:]
        return ", " if self.layout.colon.endswith(" ") else ","


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {ascii(twice)[:60]} stands twice in one object")
    return content


def _refuse_constant(token: str) -> None:
    raise ValueError(f"{token} is not JSON")


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    return bool(level)


def _skip(text: str, at: int) -> int:
    return BLANK.match(text, at).end()


def _order(old: dict[str, Any], new: dict[str, Any], is_sorted: bool) -> list[str]:
    """Keys that stayed in the order of the file, and each new one behind the one it follows."""
    if is_sorted:
        return sorted(new)
    behind: dict[str | None, list[str]] = {None: []}
    last = None
    for key in new:
        if key in old:
            last = key
            behind.setdefault(key, [])
        else:
            behind[last].append(key)
    return behind[None] + [k for key in old if key in new for k in (key, *behind[key])]


def _common(old: Sequence[Any], new: Sequence[Any]) -> int:
    """How many items at the start are the same."""
    count = 0
    for a, b in zip(old, new, strict=False):
        if not is_same(a, b):
            break
        count += 1
    return count


def _places(items: Sequence[Any], among: range) -> dict[str, int]:
    """Where items that carry an id stand, for ids that only one of them has."""
    places: dict[str, list[int]] = {}
    for index in among:
        name = _name(items[index])
        if name:
            places.setdefault(name, []).append(index)
    return {name: found[0] for name, found in places.items() if len(found) == 1}


def _name(item: Any) -> str:
    if not isinstance(item, dict):
        return ""
    metadata = item.get("metadata")
    name = item.get("id") or (metadata.get("id") if isinstance(metadata, dict) else None)
    return name if isinstance(name, str) else ""


def _pairs(old: list[Any], new: list[Any]) -> Iterator[tuple[int, int]]:
    """Pairs of indices of items that are equal, or that stand between the same equal ones."""
    if len(old) * len(new) > MAX_PAIRS:
        yield from zip(range(len(old)), range(len(new)), strict=False)
        return
    keys = [[json.dumps(item, sort_keys=True) for item in items] for items in (old, new)]
    for _, i, i_end, j, j_end in SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        yield from zip(range(i, i_end), range(j, j_end), strict=False)

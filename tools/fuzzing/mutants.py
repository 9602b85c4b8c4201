"""Make odd notebooks: sound ones that are cut, mistyped, recoded, or filled with wild cells."""

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from tools.fuzzing.wild import SOURCES, wild_source

Bytes = Callable[[random.Random, bytes], bytes]
Value = Callable[[random.Random, dict[str, Any]], Any]
MAX_STEPS = 3
MAX_CELLS = 8
VALUES = (
    None, True, 0, -1, 10**30, 1.5, 1e308, "", "x", "\u2028", "a\x00b", [], {}, [None], [[]],
    {"": 0}, ["a", 1], {"tags": "x"}, "4", "code", "parameters", [{}], [{"cells": []}],
)  # fmt: skip


def seed_notebook(rng: random.Random) -> dict[str, Any]:
    """A sound notebook of some version, with outputs, metadata and ids as Colab or Jupyter make."""
    minor = rng.choice((0, 2, 4, 5, 5))
    cells = [_cell(rng, index, minor) for index in range(rng.randrange(1, 8))]
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "colab": {"provenance": [], "toc_visible": True},
    }
    if rng.random() < 0.15:
        for cell in cells:
            if cell["cell_type"] == "code":
                cell |= {"input": cell.pop("source"), "language": "python", "collapsed": False}
        return {
            "metadata": {"name": ""},
            "nbformat": 3,
            "nbformat_minor": 0,
            "worksheets": [{"cells": cells, "metadata": {}}],
        }
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": minor}


def _cell(rng: random.Random, index: int, minor: int) -> dict[str, Any]:
    kind = rng.choice(("code", "code", "markdown", "raw"))
    text = rng.choice(SOURCES) if rng.random() < 0.5 else "# Title\nx = 1\nprint('é <b>')"
    lines = [line + "\n" for line in text.split("\n")]
    cell = {"cell_type": kind, "metadata": {"tags": ["parameters"]} if index == 1 else {}}
    if minor == 5:
        cell["id"] = f"cell-{index}"
    elif rng.random() < 0.5:
        cell["metadata"]["id"] = f"c{index}"
    cell["source"] = text if rng.random() < 0.3 else lines
    if kind == "code":
        output = {"output_type": "stream", "name": "stdout", "text": ["é\n", "\x1b[0m"]}
        data = {"image/png": "aGVsbG8=", "text/plain": ["<Figure>"]}
        shown = {"output_type": "display_data", "data": data, "metadata": {}}
        cell |= {"execution_count": rng.choice((None, 1)), "outputs": [output, shown][: index % 3]}
    return cell


def mutant(rng: random.Random, given: Sequence[bytes] = ()) -> bytes:
    """One odd notebook file; `given` ones are mutated as well as generated ones."""
    raw = rng.choice(given) if given and rng.random() < 0.5 else b""
    try:
        content = json.loads(raw) if raw else seed_notebook(rng)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and (not raw or rng.random() < 0.98):
        raw = dumped(rng, _mutated(rng, _some_cells(rng, content)))
    for _ in range(rng.choice((0, 0, 0, 0, 1, 2))):
        raw = rng.choice(BYTE_MUTATIONS)(rng, raw)
    return raw


def _some_cells(rng: random.Random, content: dict[str, Any]) -> dict[str, Any]:
    """A notebook of a few of the cells, so that a case stays small."""
    cells = content.get("cells")
    if not isinstance(cells, list) or len(cells) <= MAX_CELLS:
        return content
    chosen = sorted(rng.sample(range(len(cells)), rng.randrange(1, MAX_CELLS + 1)))
    return content | {"cells": [cells[index] for index in chosen]}


def _mutated(rng: random.Random, content: dict[str, Any]) -> Any:
    for _ in range(rng.randrange(MAX_STEPS + 1)):
        content = rng.choice(VALUE_MUTATIONS)(rng, content)
        if not isinstance(content, dict):
            return content
    # Last, since Python's own copying and writing go no deeper.
    return _deepen(rng, content) if rng.random() < 0.03 else content


def dumped(rng: random.Random, content: Any) -> bytes:
    """The bytes of a file in one of the layouts that writers use."""
    text = json.dumps(
        content,
        indent=rng.choice((None, 0, 1, 1, 2, 4, "\t")),
        ensure_ascii=rng.random() < 0.4,
        separators=rng.choice((None, (",", ":"), (", ", ": "))),
        sort_keys=rng.random() < 0.3,
    )
    text = text.replace("<", "\\u003c") if rng.random() < 0.1 else text
    text = text.replace("\n", "\r\n") if rng.random() < 0.1 else text
    return (text + rng.choice(("\n", "\n", "", "\n\n", " "))).encode("utf-8", "surrogatepass")


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a value."""
    found, open_values = [], [value]
    while open_values:
        parent = open_values.pop()
        keys = list(parent) if isinstance(parent, dict) else range(len(parent))
        for key in keys:
            found.append((parent, key))
            if isinstance(parent[key], dict | list):
                open_values.append(parent[key])
    return found


def _retype(rng: random.Random, content: dict[str, Any]) -> Any:
    """Put another kind of value somewhere, at times in place of all."""
    places = _places(content)
    if not places or rng.random() < 0.02:
        return rng.choice(VALUES)
    parent, key = rng.choice(places)
    parent[key] = copy.deepcopy(rng.choice(VALUES))
    return content


def _delete(rng: random.Random, content: dict[str, Any]) -> Any:
    places = _places(content)
    if places:
        parent, key = rng.choice(places)
        del parent[key]
    return content


def _swap(rng: random.Random, content: dict[str, Any]) -> Any:
    """Exchange two values, wherever they stand, unless one holds the other."""
    places = _places(content)
    if len(places) > 1:
        (a, i), (b, j) = rng.sample(places, 2)
        first, second = copy.deepcopy(a[i]), copy.deepcopy(b[j])
        a[i], b[j] = second, first
    return content


def _repeat(rng: random.Random, content: dict[str, Any]) -> Any:
    lists = [parent for parent, _ in _places(content) if isinstance(parent, list)]
    if lists:
        chosen = rng.choice(lists)
        chosen.insert(rng.randrange(len(chosen) + 1), copy.deepcopy(rng.choice(chosen)))
    return content


def _rename(rng: random.Random, content: dict[str, Any]) -> Any:
    dicts = [(parent, key) for parent, key in _places(content) if isinstance(parent, dict)]
    if dicts:
        parent, key = rng.choice(dicts)
        parent[rng.choice(("id", "tags", "source", "input", "", "é", "metadata"))] = parent.pop(key)
    return content


def _wild(rng: random.Random, content: dict[str, Any]) -> Any:
    """Put wild text into a cell, as one string or as a list of lines, sound or not."""
    cells = content.get("cells")
    sound = [cell for cell in cells if isinstance(cell, dict)] if isinstance(cells, list) else []
    if sound:
        source = wild_source(rng)
        keepends = rng.random() < 0.8
        forms = (source, [line + "\n" * keepends for line in source.split("\n")], list(source))
        rng.choice(sound)["source"] = rng.choice(forms)
    return content


def _version(rng: random.Random, content: dict[str, Any]) -> Any:
    key = rng.choice(("nbformat", "nbformat_minor"))
    content[key] = rng.choice((0, 1, 2, 3, 4, 5, 6, 99, -1, 4.0, "4", True, None, 10**4000))
    return content


def _deepen(rng: random.Random, content: dict[str, Any]) -> Any:
    value: Any = 0
    for _ in range(rng.choice((150, 198, 199, 250))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    content["metadata"] = {"deep": value}
    return content


def _surrogate(rng: random.Random, content: dict[str, Any]) -> Any:
    content["metadata"] = {"name": rng.choice(("\ud800", "\udc00x", "\ud83d\ude00", "\udfff"))}
    return content


def _flip(rng: random.Random, raw: bytes) -> bytes:
    changed = bytearray(raw)
    for _ in range(rng.randrange(1, 9)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _truncate(rng: random.Random, raw: bytes) -> bytes:
    return raw[: rng.randrange(len(raw) + 1)]


def _cut(rng: random.Random, raw: bytes) -> bytes:
    start = rng.randrange(len(raw) + 1)
    return raw[:start] + raw[start + rng.randrange(40) :]


def _paste(rng: random.Random, raw: bytes) -> bytes:
    start, at = rng.randrange(len(raw) + 1), rng.randrange(len(raw) + 1)
    return raw[:at] + raw[start : start + rng.randrange(60)] + raw[at:]


def _insert(rng: random.Random, raw: bytes) -> bytes:
    pieces = (
        b"NaN", b"-Infinity", b"\xff", b"\x00", b"\\ud800", b"{", b"]", b'"', b",", b"1e999",
        b"0" * 5000, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"//x", b"<<<<<<< HEAD\n", b"\\u00",
    )  # fmt: skip
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + rng.choice(pieces) + raw[at:]


def _twice(rng: random.Random, raw: bytes) -> bytes:
    key = rng.choice((b"cells", b"metadata", b"source", b"nbformat", b"id", b"tags"))
    return raw.replace(b'"' + key + b'"', b'"' + key + b'": null, "' + key + b'"', 1)


def _recode(rng: random.Random, raw: bytes) -> bytes:
    text = raw.decode("utf-8", "replace")
    codec = rng.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "utf-8-sig"))
    return text.encode(codec, "replace")


def _trail(rng: random.Random, raw: bytes) -> bytes:
    return raw + rng.choice((b"{}", b"x", b"\x00", raw, b"\n\n\n", b"\x1a"))


VALUE_MUTATIONS: tuple[Value, ...] = (
    _retype, _delete, _swap, _repeat, _rename, _wild, _wild, _wild, _wild, _wild, _version,
    _surrogate,
)  # fmt: skip
BYTE_MUTATIONS: tuple[Bytes, ...] = (
    _flip, _flip, _truncate, _cut, _paste, _insert, _insert, _twice, _recode, _trail,
)  # fmt: skip

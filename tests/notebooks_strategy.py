"""Notebooks for hypothesis: every version, source form, kind of id and layout that writers use."""

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
LINES = st.sampled_from(
    ["x = 1", "", "print('é <b>')", "%time f()", "!ls -l", "if x:", "    y = x", "# Title", "a?"]
)
SOURCES = st.lists(LINES | TEXT, max_size=6).map("\n".join)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | NUMBERS | TEXT
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
IDS = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)


@dataclass(frozen=True)
class Written:
    """A notebook and the bytes that some writer made of it."""

    content: dict[str, Any]
    raw: bytes


@st.composite
def cells(draw: st.DrawFn, version: tuple[int, int]) -> dict[str, Any]:
    """A sound cell of a version of nbformat."""
    kind = draw(st.sampled_from(["code", "markdown", "raw"]))
    text = draw(SOURCES)
    lines = text.split("\n")
    form = draw(st.sampled_from(["list", "text"]))
    source = [line + "\n" for line in lines[:-1]] + lines[-1:] if form == "list" else text
    node: dict[str, Any] = {
        "cell_type": kind,
        "metadata": draw(st.dictionaries(TEXT, JSON, max_size=2)),
    }
    if version >= (4, 5):
        node["id"] = draw(IDS)
    elif draw(st.booleans()):
        node["metadata"]["id"] = draw(IDS)
    if kind == "code" and version[0] == 3:
        return node | {"input": source, "language": "python", "outputs": [], "collapsed": False}
    if kind == "code":
        shown = {
            "output_type": "stream",
            "name": "stdout",
            "text": draw(st.lists(TEXT, max_size=2)),
        }
        outputs = [shown] * draw(st.integers(0, 2))
        node |= {"execution_count": draw(st.none() | st.integers(1, 9)), "outputs": outputs}
    return node | {"source": source}


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """A sound notebook of nbformat 3 or 4.0 to 4.5."""
    version = draw(st.sampled_from([(3, 0), *((4, minor) for minor in range(6))]))
    nodes = draw(st.lists(cells(version), max_size=5))
    content = {"nbformat": version[0], "nbformat_minor": version[1]}
    metadata = draw(st.dictionaries(TEXT, JSON, max_size=3))
    if version[0] == 3:
        return content | {"metadata": metadata, "worksheets": [{"cells": nodes, "metadata": {}}]}
    return {"cells": nodes, "metadata": metadata} | content


@st.composite
def written(draw: st.DrawFn) -> Written:
    """A notebook as Jupyter, Colab, old Jupyters, web services or programs write it."""
    content = draw(contents())
    indent = draw(st.sampled_from([None, 0, 1, 2, 4, "\t"]))
    separators = draw(st.sampled_from([(",", ": "), (", ", ": "), (",", ":"), (" , ", " : ")]))
    text = json.dumps(
        content,
        indent=indent,
        separators=separators,
        ensure_ascii=draw(st.booleans()),
        sort_keys=draw(st.booleans()),
    )
    if draw(st.booleans()):
        text = text.replace("<", "\\u003c")
    text = text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))
    blank = st.sampled_from(["", "\n", " \n\n"])
    return Written(content, (draw(blank) + text + draw(blank)).encode())

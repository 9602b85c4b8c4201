"""Notebooks as files: read whole or refused, and written back with nothing else changed."""

import copy
import json
import os
import random
import re

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.notebooks_strategy import JSON, SOURCES, Written, written
from tools.document.json_layout import is_same
from tools.document.json_text import member, members, parse, rewrite, root
from tools.errors import NotebookError
from tools.notebook import Cell, Notebook, read, split_lines

VALID_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
SOUND = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def opened(notebook: Written) -> Notebook:
    return Notebook("a.ipynb", notebook.raw, json.loads(notebook.raw))


def spans(text: str) -> list[tuple[int, int]]:
    """Where the cells start and end."""
    at = root(text)
    sheets = member(text, at, "worksheets")
    at = next(members(text, sheets.value)).value if sheets else at
    cells = member(text, at, "cells")
    return [(cell.start, cell.end) for cell in members(text, cells.value)]


def with_cells(*nodes, minor=4, **more) -> bytes:
    return json.dumps(SOUND | {"cells": nodes, "nbformat_minor": minor} | more, indent=1).encode()


def code(source, **more) -> dict:
    return {"cell_type": "code", "metadata": {}, "outputs": [], "source": source} | more


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.ipynb"


@given(written())
def test_an_unedited_notebook_keeps_every_byte(notebook):
    assert opened(notebook).text().encode() == notebook.raw


@given(written(), st.data())
def test_an_edit_of_a_cell_leaves_the_bytes_of_the_others(notebook, data):
    content = opened(notebook)
    if not content.nodes:
        return
    index = data.draw(st.integers(0, len(content.nodes) - 1))
    before = content.text()
    content.cells[index].source += "\nz = 1"
    after = content.text()

    assert parse(after) == content.content
    (start, end), (same_start, new_end) = spans(before)[index], spans(after)[index]
    assert start == same_start
    assert (before[:start], before[end:]) == (after[:start], after[new_end:])


@given(written(), st.data())
def test_cells_that_stay_keep_their_bytes_when_others_come_and_go(notebook, data):
    content = opened(notebook)
    before = content.text()
    texts = [before[start:end] for start, end in spans(before)]
    for _ in range(data.draw(st.integers(1, 3))):
        if content.nodes and data.draw(st.booleans()):
            content.remove(data.draw(st.sampled_from([cell.id for cell in content.cells])))
        else:
            place = data.draw(st.integers(0, len(content.nodes)))
            content.insert(place, data.draw(st.sampled_from(["code", "markdown"])), "new = 'cell'")

    after = content.text()
    assert parse(after) == content.content
    for node, (start, end) in zip(content.nodes, spans(after), strict=True):
        assert after[start:end] in texts or "new = 'cell'" in "".join(
            node.get("source", node.get("input"))
        )


@given(written(), JSON)
def test_a_rewritten_text_says_the_new_value(notebook, value):
    old = json.loads(notebook.raw)
    new = copy.deepcopy(old)
    new["metadata"]["added"] = value
    new["metadata"] = dict(reversed(new["metadata"].items()))

    text = rewrite(notebook.raw.decode(), old, new)
    assert is_same(parse(text), new)
    assert rewrite(text, new, new) == text
    assert rewrite(text, parse(text), new) == text


@given(JSON, JSON)
def test_any_value_is_rewritten_into_any_other(old, new):
    text = rewrite(json.dumps(old, indent=2), old, new)

    assert is_same(parse(text), new)


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        pytest.param('{"a": 1}', {"a": True}, '{"a": true}', id="1 is not True"),
        pytest.param('{"a": 1}', {"a": 1.0}, '{"a": 1.0}', id="1 is not 1.0"),
        pytest.param("[0.0, 2.5]", [-0.0, 2.5], "[-0.0, 2.5]", id="0.0 is not -0.0"),
        pytest.param(
            '{"b": "\\u00e9\\/", "a": 1e2}', {"b": "é/", "a": 3},
            '{"b": "\\u00e9\\/", "a": 3}', id="odd escapes and numbers stay",
        ),
        pytest.param('{ "a":1 , "b":2}', {"b": 2}, '{ "b":2}', id="blanks stay"),
        pytest.param('{"a": 1, "c": 3}', {"a": 1, "b": 2, "c": 3}, '{"a": 1, "b": 2, "c": 3}',
                     id="sorted keys stay sorted"),
        pytest.param('{"c": 1, "a": 3}', {"c": 1, "b": 2, "a": 3}, '{"c": 1, "b": 2, "a": 3}',
                     id="a new key stands behind the one it follows"),
        pytest.param('{\r\n\t"a": [\r\n\t\t1\r\n\t]\r\n}', {"a": [1, {"b": 2}]},
                     '{\r\n\t"a": [\r\n\t\t1,\r\n\t\t{\r\n\t\t\t"b": 2\r\n\t\t}\r\n\t]\r\n}',
                     id="tabs and carriage returns"),
        pytest.param('{"a":"\\u003cb\\u003e"}', {"a": "<i>"}, '{"a":"\\u003ci\\u003e"}',
                     id="escaped markup"),
        pytest.param('{"a": "é"}', {"a": "è"}, '{"a": "è"}', id="letters"),
        pytest.param('{"a": "\\u00e9"}', {"a": "è"}, '{"a": "\\u00e8"}', id="escaped letters"),
        pytest.param('{"a": "\\\\u00e9"}', {"a": "è"}, '{"a": "è"}', id="a backslash and a u"),
        pytest.param('{\n "a": 1, \n "b": 2\n}', {"a": 1, "b": 2, "c": 3},
                     '{\n "a": 1, \n "b": 2, \n "c": 3\n}', id="blanks at the ends of lines"),
        pytest.param('[{"id": "a", "x": 1.50}, {"id": "b"}]', [{"id": "b"}, {"id": "a", "x": 1.5}],
                     '[{"id": "b"}, {"id": "a", "x": 1.50}]', id="items that move keep their text"),
    ],
)  # fmt: skip
def test_a_change_is_written_as_the_file_writes(old, new, wanted):
    assert rewrite(old, json.loads(old), new) == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param('{"a": 1, "a": 1}', "the key 'a' stands twice", id="duplicate keys"),
        pytest.param('{"a": NaN}', "NaN is not JSON", id="NaN"),
        pytest.param("[-Infinity]", "-Infinity is not JSON", id="infinity"),
        pytest.param("[" * 201 + "]" * 201, "nested more than 200 deep", id="deep"),
        pytest.param("[" * 100_000, "nested more than 200 deep", id="very deep"),
        pytest.param('["\\ud800"]', "surrogate", id="half a pair"),
        pytest.param("{} {}", "Extra data", id="two values"),
        pytest.param("1" * 5000, "4300", id="endless number"),
        pytest.param('{"a": 1', "delimiter", id="cut"),
    ],
)
def test_what_could_be_read_in_two_ways_is_no_json(text, reason):
    with pytest.raises(ValueError, match=reason) as info:
        parse(text)

    assert "\n" not in str(info.value)


def test_a_depth_of_200_and_whole_pairs_are_json():
    assert parse("[" * 200 + "]" * 200) is not None
    assert parse('["\\ud83d\\ude00"]') == ["\U0001f600"]


TEXT = json.dumps(SOUND)
REFUSALS = [
    pytest.param(b"", "is empty", id="empty"),
    pytest.param(b'{"cells": [', "is not sound JSON", id="truncated"),
    pytest.param(TEXT.encode("utf-16"), "is UTF-16", id="UTF-16"),
    pytest.param(TEXT.encode("utf-16-le"), "UTF-16", id="UTF-16 without a mark"),
    pytest.param(TEXT.encode("utf-32"), "is UTF-32", id="UTF-32"),
    pytest.param(TEXT.encode("utf-8-sig"), "byte order mark", id="BOM"),
    pytest.param(TEXT.replace("{}", '{"a": "é"}').encode("latin-1"), "0xe9", id="Latin-1"),
    pytest.param(TEXT.encode() + b"x", "Extra data", id="trailing garbage"),
    pytest.param(
        TEXT.encode().replace(b'"cells"', b'"cells": 1, "cells"'), "twice", id="duplicate"
    ),
    pytest.param(TEXT.encode().replace(b"{}", b'{"a": NaN}'), "NaN", id="NaN"),
    pytest.param(TEXT.encode().replace(b"{}", b"[" * 999 + b"]" * 999), "deep", id="deep nesting"),
    pytest.param(TEXT.encode().replace(b"{}", b'{"\\udc00": 1}'), "surrogate", id="surrogate"),
    pytest.param(TEXT.encode().replace(b"{}", b'{"a": ' + b"9" * 5000 + b"}"), "4300", id="digits"),
    pytest.param(b"[]", "holds an array", id="no object"),
    pytest.param(b'{"nbformat": 4, "nbformat_minor": 5}', "no list of cells", id="no cells"),
    pytest.param(b'{"nbformat": 4, "cells": {}}', "no list of cells", id="cells as object"),
    pytest.param(b'{"nbformat": 3, "worksheets": []}', "one worksheet", id="no worksheet"),
    pytest.param(b'{"cells": []}', "no whole number as nbformat", id="no version"),
    pytest.param(b'{"cells": [], "nbformat": 4.0}', "no whole number", id="version 4.0"),
    pytest.param(b'{"cells": [], "nbformat": 2}', "is of nbformat 2", id="version 2"),
    pytest.param(b'{"cells": [], "nbformat": 5}', "is of nbformat 5", id="version 5"),
    pytest.param(with_cells(1), "a number instead of an object in cell 1", id="cell as number"),
    pytest.param(with_cells({"source": ""}), "no cell_type", id="cell without a type"),
    pytest.param(with_cells(code(3)), "no source that is text", id="source as number"),
    pytest.param(with_cells(code("")), None, id="sound"),
    pytest.param(with_cells(code(""), code(["a", 3])), "in cell 2", id="line as number"),
    pytest.param(with_cells(code("", metadata=[])), "an array as metadata", id="metadata"),
    pytest.param(with_cells(code("", outputs=["a"])), "outputs", id="outputs"),
    pytest.param(with_cells(minor=9), None, id="a later minor is read"),
]


@pytest.mark.parametrize(("raw", "reason"), REFUSALS)
def test_what_is_no_notebook_is_refused_in_one_line_and_left_alone(path, raw, reason):
    path.write_bytes(raw)
    if reason is None:
        assert read(path).raw == raw
        return
    with pytest.raises(NotebookError, match=re.escape(reason)) as info:
        read(path)

    assert "\n" not in str(info.value)
    assert str(info.value).count(" is wanted. ") == 1
    assert path.read_bytes() == raw


def test_places_that_are_no_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    names = ["missing", ".", "a\0b", "pipe", "dangling", "x" * 300, "a\nb"]
    for name in names:
        with pytest.raises(NotebookError, match=r"^[^\n]+$"):
            read(tmp_path / name)


def test_a_notebook_is_read_through_a_symbolic_link(path, tmp_path):
    path.write_bytes(with_cells())
    link = tmp_path / "link.ipynb"
    link.symlink_to(path)

    assert read(link).cells == []


@given(st.integers(0, 2**32))
def test_no_bytes_break_the_reader(tmp_path_factory, seed):
    path = tmp_path_factory.getbasetemp() / "any.ipynb"
    rng = random.Random(seed)
    raw = bytearray(with_cells(code(["x\n", "y"]), code("é")))
    for _ in range(rng.randrange(4)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    path.write_bytes(raw[: rng.choice([len(raw), rng.randrange(len(raw))])])
    try:
        text, refusal = read(path).text(), ""
    except NotebookError as error:
        text, refusal = "", str(error)

    assert "\n" not in refusal
    assert refusal or text.encode() == path.read_bytes()


@given(written())
def test_ids_are_valid_unique_and_stable(notebook):
    content = opened(notebook)
    ids = [cell.id for cell in content.cells]
    for cell in content.cells:
        cell.source = "edited"

    assert all(VALID_ID.fullmatch(id) for id in ids)
    assert len(set(ids)) == len(ids)
    assert [cell.id for cell in content.cells] == ids
    assert [cell.id for cell in opened(notebook).cells] == ids
    assert all(content.cell(cell.id).index == cell.index for cell in content.cells)


def test_an_id_comes_from_the_file_then_colab_then_the_content():
    nodes = [
        code("a", id="own", metadata={"id": "colab"}), code("b", metadata={"id": "colab"}),
        code("c"), code("d", id="own"), code("e", id="not valid"), code("c"),
    ]  # fmt: skip
    notebook = opened(Written({}, with_cells(*nodes)))
    ids = [cell.id for cell in notebook.cells]
    moved = opened(Written({}, with_cells(nodes[2], nodes[4])))

    assert ids[:2] == ["own", "colab"]
    assert len(set(ids)) == 6
    assert [cell.id for cell in moved.cells] == [ids[2], ids[4]]


@given(written(), SOURCES)
def test_a_source_keeps_its_form_and_its_lines(notebook, text):
    for cell in opened(notebook).cells:
        key = "input" if "input" in cell.node else "source"
        is_list = isinstance(cell.node[key], list)
        cell.source = text

        assert cell.source == text
        assert isinstance(cell.node[key], list) == is_list
        assert cell.lost_newlines() == []
        assert not is_list or all(line.endswith("\n") for line in cell.node[key][:-1])


def test_lines_are_cut_at_line_feeds_alone():
    assert split_lines("a\x0cb\u2028c\r\nd\n") == ["a\x0cb\u2028c\r\n", "d\n"]
    assert split_lines("") == []


def test_an_equal_source_leaves_an_odd_list_alone():
    cell = Cell(code(["a\nb\n", "", "c"]), 0, "a")
    cell.source = "a\nb\nc"

    assert cell.node["source"] == ["a\nb\n", "", "c"]


@pytest.mark.parametrize(
    ("source", "lost"),
    [
        pytest.param(["a\n", "b"], [], id="sound"),
        pytest.param(["a", "b\n", "c", "d"], [0, 2], id="two lost"),
        pytest.param(["a", "", "b"], [0, 1], id="an empty line among them"),
        pytest.param(["a\n", "", "b"], [], id="an empty item joins nothing"),
        pytest.param(["a", "\n", "b"], [], id="newline in an item of its own"),
        pytest.param(["a", "\nb"], [], id="newline before the next"),
        pytest.param("a b", [], id="one string"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_lost_newlines_are_seen(source, lost):
    assert Cell(code(source), 0, "a").lost_newlines() == lost


@pytest.mark.parametrize("indent", [1, 4, None], ids=["Jupyter", "wide", "one line"])
@pytest.mark.parametrize("major", [3, 4])
def test_a_line_of_a_cell_is_found_in_the_file(indent, major):
    nodes = [
        code(["alpha\n", "beta\n", "gamma"]), code("delta\nepsilon"),
        code(["zeta\neta\n", "theta", " iota\n", "kappa"]), code([]),
    ]  # fmt: skip
    content = SOUND | {"cells": nodes}
    if major == 3:
        for node in nodes:
            node["input"] = node.pop("source")
        content = {"nbformat": 3, "nbformat_minor": 0, "worksheets": [{"cells": nodes}]}
    text = json.dumps(content, indent=indent)
    notebook = opened(Written({}, text.encode()))
    lines = text.split("\n")
    places = {
        "alpha": (0, 1), "beta": (0, 2), "gamma": (0, 3), "delta": (1, 1), "epsilon": (1, 2),
        "zeta": (2, 1), "eta": (2, 2), "theta": (2, 3), "kappa": (2, 4),
    }  # fmt: skip

    for word, (index, line) in places.items():
        assert word in lines[notebook.file_line(index, line) - 1]
    assert "gamma" in lines[notebook.file_line(0, 99) - 1]
    assert notebook.file_line(3) > notebook.file_line(2) or indent is None
    assert notebook.file_line(99) == len(lines)


@pytest.mark.parametrize("minor", [4, 5])
def test_a_new_cell_has_the_fields_of_its_version(path, minor):
    path.write_bytes(with_cells(code("a", execution_count=None), minor=4))
    notebook = read(path)
    notebook.content["nbformat_minor"] = minor
    if minor == 5:
        notebook.nodes[0]["id"] = "first"
    notebook.insert(1, "code", "b = 1\nc = 2", id="second")
    notebook.insert(0, "markdown", "# Title")
    notebook.write()

    nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))
    again = read(path)
    assert [cell.source for cell in again.cells] == ["# Title", "a", "b = 1\nc = 2"]
    assert again.cells[2].id == "second"
    assert again.cells[1].title == "a"


def test_only_a_caller_that_needs_python_minds_the_language(path):
    path.write_bytes(with_cells(metadata={"kernelspec": {"language": "R"}}))
    notebook = read(path)

    assert notebook.language == "r"
    with pytest.raises(NotebookError, match="is written in r"):
        notebook.require_python()


def test_content_that_json_cannot_say_is_not_written(path):
    raw = with_cells(code("a"))
    path.write_bytes(raw)
    for value in (float("nan"), {1: 2}, (1, 2), {"a"}, "\ud800", object()):
        notebook = read(path)
        notebook.metadata["odd"] = value
        with pytest.raises(NotebookError, match=r"^[^\n]*has edits that cannot be written[^\n]*$"):
            notebook.write()

    assert path.read_bytes() == raw

"""Rules on structure and metadata see each defect at its cell, leave the rest alone, and mend."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.notebooks_strategy import contents
from tools.analysis.cell_kinds import code_cell, is_plain_code, is_plain_prose
from tools.analysis.file_style import first_uneven_line
from tools.notebook import Notebook, read
from tools.rules import RULES, Subject, forms, metadata, parameters, schema_fields, structure
from tools.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
OWN = load_settings(ROOT)
MODULES = (forms, metadata, parameters, schema_fields, structure)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
STREAM = {"output_type": "stream", "name": "stdout", "text": ["1\n"]}
WIDGETS = "application/vnd.jupyter.widget-state+json"


def code(source="a = 1", **fields):
    """A code cell of nbformat 4.4; fields of None are left out."""
    node = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return {**node, "source": source, **fields}


def text(source="# T", **fields):
    """A markdown cell."""
    return {"cell_type": "markdown", "metadata": {}, "source": source, **fields}


def without(node, *keys):
    """The cell without some fields."""
    return {key: value for key, value in node.items() if key not in keys}


def content(*nodes, minor=5, **extra):
    """A notebook; of nbformat 4.5, each cell gets an id unless it names one (`...` means none)."""
    nodes = copy.deepcopy(nodes)
    for index, node in enumerate(nodes):
        if minor >= 5 and node.setdefault("id", f"cell-{index}") is ...:
            del node["id"]
    frame = {"cells": list(nodes), "metadata": copy.deepcopy(METADATA), "nbformat": 4}
    return {**frame, "nbformat_minor": minor, **extra}


def subject(tmp_path, value):
    """What a rule looks at, read from a file."""
    path = tmp_path / "n.ipynb"
    raw = value if isinstance(value, bytes) else (json.dumps(value, indent=1) + "\n").encode()
    path.write_bytes(raw)
    return Subject(read(path), Settings(root=tmp_path), tmp_path)


def found(code, subject):
    """The cells at which a rule finds something."""
    return [problem.cell for problem in RULES[code].check(subject)]


def with_metadata(**entries):
    return {**METADATA, **entries}


DEFECTS = [
    ("NB001", "no outputs", content(without(code(), "outputs")), [0]),
    ("NB001", "no execution count", content(code(), without(code(), "execution_count")), [1]),
    ("NB001", "outputs of a text", content(text(outputs=[STREAM])), [0]),
    ("NB001", "an unknown field", content(code(colour="red")), [0]),
    ("NB001", "two faults of a cell", content(without(code(), "outputs", "metadata")), [0, 0]),
    ("NB001", "a field of the file", content(code(), author="x"), [None]),
    ("NB001", "tags that are text", content(code(metadata={"tags": "a"})), [0]),
    ("NB001", "a tag with a comma", content(code(metadata={"tags": ["a,b"]})), [0]),
    ("NB001", "an unknown type of cell", content({**code(), "cell_type": "sql"}), [0]),
    ("NB001", "an unknown output", content(code(outputs=[{"output_type": "pyout"}])), [0]),
    ("NB001", "an output without name", content(code(outputs=[without(STREAM, "name")])), [0]),
    ("NB001", "an output without type", content(code(outputs=[{"text": ""}])), [0]),
    ("NB001", "a count that is text", content(code(execution_count="3")), [0]),
    ("NB001", "no minor version", without(content(text(), minor=4), "nbformat_minor"), [None]),
    ("NB001", "a version that never was", content(text(), minor=-1), [None]),
    ("NB002", "no id", content(code(), code(id=...)), [1]),
    ("NB002", "an id with a blank", content(code(id="a b")), [0]),
    ("NB002", "an id that is too long", content(code(id="a" * 65)), [0]),
    ("NB002", "an id that is a number", content(code(id=7)), [0]),
    ("NB002", "one id of two cells", content(code(id="a"), text(id="a")), [1]),
    ("NB002", "another id in the metadata", content(code(id="a", metadata={"id": "b"})), [0]),
    ("NB002", "an id before 4.5", content(code(id="a"), minor=4), [0]),
    (
        "NB002",
        "Colab's id twice",
        content(code(metadata={"id": "a"}), code(metadata={"id": "a"}), minor=0),
        [1],
    ),
    ("NB003", "a run's times", content(code(metadata={"ExecuteTime": {}, "tags": ["a"]})), [0]),
    ("NB003", "Colab's record of a run", content(code(metadata={"outputId": "x"})), [0]),
    ("NB003", "papermill's record", content(metadata=with_metadata(papermill={})), [None]),
    ("NB003", "in Colab's entry", content(metadata=with_metadata(colab={"views": {}})), [None]),
    ("NB003", "the kernel that ran", content(metadata=with_metadata(
        language_info={"name": "python", "version": "3.9"})), [None]),
    ("NB004", "no language", content(metadata=without(METADATA, "language_info")), [None]),
    ("NB004", "no kernel", content(metadata=without(METADATA, "kernelspec")), [None]),
    ("NB004", "neither", content(metadata={}), [None, None]),
    ("NB004", "a kernel of one machine", content(metadata=with_metadata(
        kernelspec={"name": "venv", "display_name": "venv"})), [None]),
    ("NB004", "a kernel without name to show", content(metadata=with_metadata(
        kernelspec={"name": "python3"})), [None]),
    ("NB004", "metadata that is a list", content(metadata=with_metadata(language_info=[])), [None]),
    ("NB005", "outputs", content(code(), code(outputs=[STREAM])), [1]),
    ("NB005", "a count", content(code(execution_count=3)), [0]),
    ("NB005", "both, told once", content(code(execution_count=0, outputs=[STREAM])), [0]),
    ("NB006", "no state", content(metadata=with_metadata(widgets={WIDGETS: {"a": {}}})), [None]),
    ("NB006", "nothing", content(metadata=with_metadata(widgets={})), [None]),
    ("NB006", "a list", content(metadata=with_metadata(widgets=[1])), [None]),
    ("NB010", "code", content(code(), code(["a = 1", "b = 2\n", "c = 3"])), [1]),
    ("NB010", "a comment that compiles", content(code(["# Load", "import os", "os"])), [0]),
    ("NB010", "markdown", content(text(["# T", "Text.\n", "More."])), [0]),
    ("NB010", "one of many", content(code(["a = 1\n", "b = 2", "c = 3\n", "d = 4"])), [0]),
    ("NB013", "code", content(code(), code("")), [1]),
    ("NB013", "blanks", content(text(" \n\n"), code()), [0]),
    ("NB013", "an empty list", content(text([])), [0]),
    ("CO104", "a device", content(code(), code("import torch\ntorch.cuda.is_available()")), [1]),
    ("CO104", "a text", content(code("device = 'cuda:0'")), [0]),
    ("CO104", "a method, told once", content(code("m.cuda()"), code("n.cuda()")), [0]),
]  # fmt: skip

SOUND = [
    ("NB001", "fields in another order", content(dict(reversed(code().items())))),
    ("NB001", "source as text or list", content(code("a\nb"), code(["a\n", "b"]))),
    ("NB001", "any metadata", content(code(metadata={"x": {"y": [1]}}))),
    ("NB001", "a later minor with more", content(code(new=1), minor=7)),
    ("NB001", "faults of ids, which NB002 tells", content(code(id=...), code(id="a b"))),
    ("NB001", "attachments", content(text(attachments={"a.png": {"image/png": "aGk="}}))),
    ("NB001", "all kinds of output", content(code(outputs=[
        STREAM, {"output_type": "display_data", "data": {"application/json": {"a": 1}},
                 "metadata": {}}]))),
    ("NB002", "sound ids", content(code(id="a-B_9"), text(id="b"))),
    ("NB002", "the same id twice in a cell", content(code(id="a", metadata={"id": "a"}))),
    ("NB002", "none before 4.5", content(code(), text(), minor=4)),
    ("NB002", "Colab's", content(code(metadata={"id": "x"}), minor=0)),
    ("NB003", "what Colab needs", content(
        code(metadata={"id": "a", "cellView": "form", "tags": ["x"]}),
        metadata=with_metadata(accelerator="GPU", colab={
            "provenance": [], "gpuType": "T4", "private_outputs": True, "toc_visible": True,
            "include_colab_link": True, "collapsed_sections": ["a"], "name": "n",
            "machine_shape": "hm", "cell_execution_strategy": "setup"}))),
    ("NB003", "what outputs need, where they are kept", content(
        code(metadata={"tags": ["keep-output"], "outputId": "a", "colab": {"height": 9}}))),
    ("NB003", "workflows", content(metadata=with_metadata(workflows={"a": []}))),
    ("NB004", "sound", content()),
    ("NB004", "with more", content(metadata=with_metadata(
        language_info={"name": "python", "version": "3.9"}))),
    ("NB004", "another language", content(metadata={
        "kernelspec": {"name": "ir", "language": "R", "display_name": "R"}})),
    ("NB005", "kept on purpose", content(code(
        execution_count=1, outputs=[STREAM], metadata={"tags": ["keep-output"]}))),
    ("NB005", "text", content(text())),
    ("NB005", "never run", content(code())),
    ("NB006", "no widgets", content()),
    ("NB006", "state", content(metadata=with_metadata(widgets={WIDGETS: {"state": {}}}))),
    ("NB006", "state in the old form", content(metadata=with_metadata(widgets={"state": {}}))),
    ("NB010", "one text", content(code("a = 1\nb = 2"))),
    ("NB010", "a list", content(code(["a = 1\n", "\n", "b = 2"]), text(["# T"]))),
    ("NB010", "newlines first", content(code(["a = 1", "\nb = 2"]))),
    ("NB010", "several lines in an item", content(code(["a = 1\nb = 2\n", "c"]))),
    ("NB013", "a comment", content(code("# later"), text("."))),
    ("NB013", "a magic", content(code("%pwd"))),
    ("NB013", "nothing at all", content()),
    ("CO104", "declared", content(code("m.cuda()"), metadata=with_metadata(accelerator="GPU"))),
    ("CO104", "in a comment", content(code("# m.cuda()"))),
    ("CO104", "in markdown", content(text("torch.cuda"))),
]  # fmt: skip


def named(rows):
    return [pytest.param(row[0], *row[2:], id=f"{row[0]} {row[1]}") for row in rows]


@pytest.mark.parametrize("rule, value, cells", named(DEFECTS))
def test_defect_is_seen_at_its_cell(tmp_path, rule, value, cells):
    assert found(rule, subject(tmp_path, value)) == cells


@pytest.mark.parametrize("rule, value", named(SOUND))
def test_what_is_sound_is_left_alone(tmp_path, rule, value):
    seen = subject(tmp_path, value)

    assert found(rule, seen) == []
    if fix := RULES[rule].fix:
        fix(seen)
        assert seen.notebook.content == value


INCURABLE = {
    "NB001 an unknown field", "NB001 a field of the file", "NB001 tags that are text",
    "NB001 a tag with a comma", "NB001 an unknown type of cell", "NB001 an unknown output",
    "NB001 an output without name", "NB001 an output without type", "NB001 a count that is text",
    "NB001 no minor version", "NB001 a version that never was", "NB010 markdown",
}  # fmt: skip
"""What has more than one cure; the fix must leave it."""


@pytest.mark.parametrize(
    "rule, value, is_curable",
    [
        pytest.param(row[0], row[2], name not in INCURABLE, id=name)
        for row in DEFECTS
        if RULES[row[0]].fix and (name := f"{row[0]} {row[1]}")
    ],
)
def test_a_fix_cures_and_a_second_one_changes_nothing(tmp_path, rule, value, is_curable):
    seen = subject(tmp_path, value)
    RULES[rule].fix(seen)
    once = copy.deepcopy(seen.notebook.content)

    again = Subject(seen.notebook, seen.settings, seen.root)
    assert (found(rule, again) == []) == is_curable
    RULES[rule].fix(again)
    assert seen.notebook.content == once


def test_ids_that_are_given_are_the_same_at_every_run(tmp_path):
    value = content(code(id=...), code(id=...), code(id="a b"), text(id="kept"))
    runs = []
    for _ in range(2):
        seen = subject(tmp_path, value)
        RULES["NB002"].fix(seen)
        runs.append([node["id"] for node in seen.notebook.nodes])

    assert runs[0] == runs[1] and len(set(runs[0])) == 4 and runs[0][3] == "kept"


@pytest.mark.parametrize(
    "node, source",
    [
        pytest.param(code(["a = 1", "b = 2"]), ["a = 1\n", "b = 2"], id="all were lost"),
        pytest.param(text(["# T", "", "Text"]), ["# T\n", "\n", "Text"], id="all of a text"),
        pytest.param(
            code(["a = 1\n", "b = 2", "c"]), ["a = 1\n", "b = 2\n", "c"], id="it parses only so"
        ),
        pytest.param(
            code(["# Load", "import os\n", "os"]),
            ["# Load", "import os\n", "os"],
            id="in doubt nothing is changed",
        ),
        pytest.param(code(["s = 'a", "b'"]), ["s = 'a", "b'"], id="it parses only without"),
        pytest.param(text(["# T", "a\n", "b"]), ["# T", "a\n", "b"], id="a text in doubt"),
    ],
)
def test_newlines_are_restored_where_that_is_certain(tmp_path, node, source):
    seen = subject(tmp_path, content(node))

    RULES["NB010"].fix(seen)

    assert seen.notebook.nodes[0]["source"] == source


def test_empty_cells_with_a_tag_are_not_deleted(tmp_path):
    seen = subject(tmp_path, content(code(""), code("", metadata={"tags": ["x"]}), text("T")))

    RULES["NB013"].fix(seen)

    assert [cell.id for cell in seen.notebook.cells] == ["cell-1", "cell-2"]


@pytest.mark.parametrize(
    "raw, said",
    [
        pytest.param(lambda s: s.rstrip("\n"), "does not end in a newline", id="no end"),
        pytest.param(lambda s: s.replace("\n", "\r\n"), "carriage returns", id="CRLF"),
        pytest.param(lambda s: json.dumps(json.loads(s)) + "\n", "one line", id="one line"),
        pytest.param(lambda s: s.replace('\n "nbformat"', '\n   "nbformat"'), "not indented",
                     id="an indent of its own"),
    ],
)  # fmt: skip
def test_style_of_the_file_is_seen(tmp_path, raw, said):
    whole = json.dumps(content(code()), indent=1) + "\n"

    problems = list(RULES["NB009"].check(subject(tmp_path, raw(whole).encode())))

    assert len(problems) == 1 and said in problems[0].message


@pytest.mark.parametrize("indent", [1, 2, 4, "\t"])
def test_every_even_indent_is_left_alone(tmp_path, indent):
    nodes = [code('print("}{", \'["\')', outputs=[STREAM]), text(["a\n", "b"])]
    whole = json.dumps(content(*nodes), indent=indent, ensure_ascii=False) + "\n"

    assert found("NB009", subject(tmp_path, whole.encode())) == []
    assert first_uneven_line(whole) == 0


CODE = {
    "imports": "import os\nx = os.getcwd()\nprint(x)",
    "a function": "def f(x):\n    y = x + 1\n    return y\n\nf(1)",
    "a comment first": "# Load\nimport pandas as pd\ndf = pd.read_csv('a')\ndf",
    "a magic first": "%pip install x\nimport y\ny.run()",
    "assignment and call": "model = build()\nmodel.fit()",
    "calls of methods": "a = x.cache().batch(2)\nb = y.cache()",
    "one function": "def f(x):\n    y = x + 1\n    return y",
    "a long literal": "rows = [\n    ('a', 1),\n    ('b', 2),\n]",
}
NO_CODE = {
    "a heading": "# T",
    "prose": "Train.\nThen look at the result.",
    "formulas": "a = b\nc = d",
    "a list": "- a\n- b",
    "code that is indented": "    import os\n    os.getcwd()",
    "code in a fence": "```python\nimport os\nx = 1\n```",
    "HTML": "<div>\n</div>",
    "one word": "word",
    "keys and values": "title: A\nauthor: B",
    "one statement": "import torch",
    "formulas with functions": "y = f(x)\nz = g(y)",
    "names of functions": "fit(x)\nplot(y)",
    "emphasis": "*a*\n*b*",
    "a formula in dollars": "$$\na = f(b)\nc = g(d)\n$$",
    "code in a sentence": "See `x = 1`.\n\nThen print(x)",
    "commented code": "# import os\n# x = 1",
}


@pytest.mark.parametrize("source", CODE.values(), ids=CODE)
def test_code_typed_as_markdown_is_seen(tmp_path, source):
    assert found("NB011", subject(tmp_path, content(text(), text(source)))) == [1]


@pytest.mark.parametrize("source", NO_CODE.values(), ids=NO_CODE)
def test_markdown_is_not_taken_for_code(source):
    assert not is_plain_code(source)


PROSE = {
    "a heading and a sentence": "## Train the model\n\nThis takes a while.",
    "a sentence": "This is what we do now.",
    "a list": "# T\n- Run the first cell\n- Look at the output",
    "a badge": "![badge](https://example.org/z.png)",
    "emphasis": "**Note** that this takes two minutes.",
    "HTML": '<table align="left">\n<td>a</td>\n</table>',
    "code in a sentence": "## T\n\n`fit` is run until the loss is `<= 1`, or for two minutes.",
    "two lines": "We train a model, which takes (about) ten minutes.\nThen we look at it.",
    "a link": "## T\n[the guide](https://example.org) explains how to use it.",
}
NO_PROSE = {
    "a command": "pip install einops",
    "SQL": "SELECT name FROM table",
    "a slip": "x = = 1",
    "an open bracket": "# A comment of many words\nx = (1",
    "Python 2": "print 'hello world again'",
    "a missing colon": "for x in range(3) print x",
    "a comment": "# This is only a comment",
    "text that lost its opening quotes": 'You are a tour guide.\nYou like cities.\n"""',
    "a call over two lines": "Run the model now\nfit(model",
    "another language": "%%bash\necho This is a sentence",
    "prose and code": "Train the model now\nx = 1",
    "names": "a b c",
    "a shell line": "!echo This is a sentence.",
    "nothing": "",
    "help": "print?",
}


@pytest.mark.parametrize("source", PROSE.values(), ids=PROSE)
def test_markdown_typed_as_code_is_seen(tmp_path, source):
    assert found("NB012", subject(tmp_path, content(code(), code(source)))) == [1]


@pytest.mark.parametrize("source", NO_PROSE.values(), ids=NO_PROSE)
def test_code_is_not_taken_for_prose(source):
    assert not is_plain_prose(code_cell(source))


def test_nbformat_3_is_compared_with_its_own_schema(tmp_path):
    cell = {"cell_type": "code", "input": "a", "language": "python", "outputs": []}
    sheets = [{"cells": [cell, without(cell, "language"), {"cell_type": "html", "source": ""}]}]
    value = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": "n"}, "worksheets": sheets}

    assert found("NB001", subject(tmp_path, value)) == [1, 2]
    assert [found(rule, subject(tmp_path, value)) for rule in ("NB002", "NB003", "NB004")] == [
        []
    ] * 3


@given(contents())
def test_a_sound_notebook_of_any_version_has_the_fields_of_its_schema(value):
    seen = Subject(Notebook(Path("n.ipynb"), b"{}", value), Settings(root=Path()), Path())

    assert found("NB001", seen) == []


PLAIN = st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False)
WILD = st.recursive(
    PLAIN | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["tags", "id", "cellView", "colab", "kernelspec", "language_info", "widgets", "papermill",
     "executionInfo", "accelerator", "outputId", WIDGETS, "name"]
)  # fmt: skip
WILD_METADATA = st.dictionaries(
    KEYS, WILD | st.dictionaries(KEYS, WILD, max_size=3) | st.just(["parameters"]), max_size=4
)
SOURCES = st.text(max_size=40) | st.lists(st.text(max_size=12), max_size=4) | st.sampled_from(
    ["# @title T\nx = 1", "x = 1  # @param {type:'slider', min:0", "a = 0x" + "f" * 9999,
     "x = 1e999  # @param {type:'slider'}", "# @title {display-mode: [", "steps = 8  # @param"]
)  # fmt: skip
OUTPUT_KEYS = st.sampled_from(["output_type", "text", "data", "metadata"])
WILD_NODES = st.fixed_dictionaries(
    {"cell_type": st.sampled_from(["code", "code", "markdown", "raw", "x"]), "source": SOURCES},
    optional={
        "metadata": WILD_METADATA,
        "id": WILD,
        "execution_count": WILD,
        "outputs": st.lists(st.dictionaries(OUTPUT_KEYS, WILD), max_size=2),
        "attachments": WILD,
    },
)  # fmt: skip


@given(st.lists(WILD_NODES, max_size=4), WILD_METADATA, st.sampled_from([-1, 0, 4, 5, 9]))
def test_no_rule_and_no_fix_stumbles_over_wild_content(nodes, top, minor):
    value = {"cells": nodes, "metadata": top, "nbformat": 4, "nbformat_minor": minor}

    def see():
        return Subject(Notebook(ROOT / OWN.paths[0], b"{}", value), OWN, ROOT)

    for entry in RULES.values():
        if entry.check.__module__ in {module.__name__ for module in MODULES}:
            before = list(entry.check(see()))
            if entry.fix:
                entry.fix(see())
                once = copy.deepcopy(value)
                entry.fix(see())
                assert value == once
                assert len(list(entry.check(see()))) <= len(before)


def test_our_own_notebooks_are_clean():
    modules = {module.__name__ for module in MODULES}
    codes = [code for code, entry in RULES.items() if entry.check.__module__ in modules]
    for name in OWN.paths:
        seen = Subject(read(ROOT / name), OWN, ROOT)
        assert {code: found(code, seen) for code in codes} == {code: [] for code in codes}

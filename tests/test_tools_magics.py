"""Magics are masked so that Python is left, line for line, and come back as they were."""

import ast
import warnings

import hypothesmith
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager
from jupytext.magics import comment_magic

from tools.document.cell import Cell
from tools.document.magics import MARK, mask, unmask
from tools.fuzzing.wild import SOURCES
from tools.notebook import Notebook
from tools.program import CodeCell, Program

LINES = st.sampled_from(
    [
        "x = 1", "", "if x:", "    y = x", "    !ls", "    %cd ..", "!pip install a \\", "  -q",
        "(", ")", "'''", "%b", "%time f()", "%time y = f()", "%%time", "%%bash", "z = !ls", "# !ls",
        "a, b = %sql 1", "x == !y", "x?", "?x", "x.y??", "# a?", "s = 'it?'", "x  # why?", "ls -la",
        "f(a=1,", "%timeit -n 3 f()", "%", "!", "?", "\t!ls", "x = '%s' % y", "x != y", "x %= 3",
        'd = {"a": 1}  # }', "f'{x!r}'", "%%capture o", "r'\\'", "!ls # (", "y = 1 + \\",
    ]
)  # fmt: skip
CELLS = st.lists(LINES, max_size=8).map("\n".join)


def code_cell(source: str) -> CodeCell:
    content = {"nbformat": 4, "cells": [{"cell_type": "code", "source": source}]}
    return Program(Notebook("a.ipynb", b"", content)).cells[0]


def transformed(source: str) -> str:
    """The cell as IPython hands it to Python; what Python refuses if IPython refuses it."""
    with warnings.catch_warnings(action="ignore"):
        try:
            return TransformerManager().transform_cell(source)
        except SyntaxError:
            return "("


def parses(python: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(python) is not None
    except (SyntaxError, ValueError):
        return False


@pytest.mark.parametrize(
    ("source", "python", "magics"),
    [
        pytest.param("x = 1", "x = 1", [], id="Python"),
        pytest.param("%matplotlib inline\nimport x", "# ipython-line: %matplotlib inline\nimport x",
                     [(1, "line", "matplotlib", "%matplotlib inline")], id="a line magic"),
        pytest.param("import x\n!pip install y", "import x\npass  # ipython-line: !pip install y",
                     [(2, "shell", "pip", "!pip install y")], id="behind code it is a statement"),
        pytest.param("if a:\n    !ls\nelse:\n\t%cd x",
                     "if a:\n    pass  # ipython-line: !ls\nelse:\n\tpass  # ipython-line: %cd x",
                     [(2, "shell", "ls", "!ls"), (4, "line", "cd", "%cd x")],
                     id="alone in a block"),
        pytest.param("x = !ls -l", "x = ...  # ipython-value: !ls -l",
                     [(1, "assigned", "ls", "!ls -l")], id="assigned from the shell"),
        pytest.param("a, b[0]=%sql x", "a, b[0]=...  # ipython-value: %sql x",
                     [(1, "assigned", "sql", "%sql x")], id="assigned from a magic"),
        pytest.param("%time x = f()", "x = f()  # ipython-timed: %time",
                     [(1, "line", "time", "%time x = f()")], id="Python behind a magic"),
        pytest.param("%timeit -n 3 f()", "# ipython-line: %timeit -n 3 f()",
                     [(1, "line", "timeit", "%timeit -n 3 f()")], id="options are no Python"),
        pytest.param("!a \\\n  b \\\n  c\nx", "# ipython-line: !a \\\n# ipython-more:   b \\\n"
                     "# ipython-more:   c\nx", [(1, "shell", "a", "!a \\\n  b \\\n  c")],
                     id="continued"),
        pytest.param("x = !a \\\n  b", "x = ...  # ipython-value: !a \\\npass  # ipython-more:   b",
                     [(1, "assigned", "a", "!a \\\n  b")], id="assigned and continued"),
        pytest.param("%%bash\nls\n", "# ipython-cell: %%bash\n# ipython-more: ls\n# ipython-more: ",
                     [(1, "cell", "bash", "%%bash\nls\n")], id="a cell of another language"),
        pytest.param("%%capture out --no-stderr\n!ls\nout.show()",
                     "out = ...  # ipython-cell: %%capture out --no-stderr\n# ipython-line: !ls\n"
                     "out.show()", [(1, "cell", "capture", "%%capture out --no-stderr"),
                     (2, "shell", "ls", "!ls")], id="capture binds its name"),
        pytest.param("\n%%time\n\n%%html\n<b>", "\n# ipython-cell: %%time\n\n"
                     "# ipython-cell: %%html\n# ipython-more: <b>", [(2, "cell", "time", "%%time"),
                     (4, "cell", "html", "%%html\n<b>")], id="a cell magic in a cell magic"),
        pytest.param("x\n%%time\ny", "x\npass  # ipython-line: %%time\ny",
                     [(2, "line", "%time", "%%time")], id="a cell magic that comes too late"),
        pytest.param("x.y?\n?z\nnp.*load*?", "# ipython-line: x.y?\n# ipython-line: ?z\n"
                     "# ipython-line: np.*load*?", [(1, "help", "x.y", "x.y?"),
                     (2, "help", "z", "?z"), (3, "help", "np.*load*", "np.*load*?")], id="help"),
        pytest.param("ls -la\ncd ..", "ls -la\ncd ..", [], id="automagics are Python"),
        pytest.param("x = (a\n  %b)\ny = [\n!c]", "x = (a\n  %b)\ny = [\n!c]", [],
                     id="in brackets"),
        pytest.param("'''\n!ls\n%x\ny?\n'''", "'''\n!ls\n%x\ny?\n'''", [], id="in a string"),
        pytest.param("x = 'a\\\n!b'", "x = 'a\\\n!b'", [], id="in a string with a backslash"),
        pytest.param("x = a \\\n%b", "x = a \\\n%b", [], id="behind a backslash"),
        pytest.param("# !ls\n# %x\n# x?", "# !ls\n# %x\n# x?", [], id="comments that look masked"),
        pytest.param("x  # why?\nf(a != b, c='%d' % 1)", "x  # why?\nf(a != b, c='%d' % 1)", [],
                     id="signs in Python"),
    ],
)  # fmt: skip
def test_a_cell_is_masked_line_for_line(source, python, magics):
    masked, found = mask(source)

    assert masked == python
    assert [(m.line, m.kind, m.name, m.text) for m in found] == magics
    assert unmask(masked) == source


@given(CELLS | st.text(max_size=60) | st.sampled_from(SOURCES))
def test_masking_loses_nothing_and_keeps_the_number_of_lines(source):
    python, magics = mask(source) if MARK not in source else (source, ())

    assert unmask(python) == source or MARK in source
    assert python.count("\n") == source.count("\n")
    assert all(magic.text.split("\n")[0] in source.split("\n")[magic.line - 1] for magic in magics)


@settings(max_examples=200)
@given(CELLS)
def test_what_is_left_parses_where_ipython_lets_it_run(source):
    cell = code_cell(source)
    # IPython looks into the body of a cell magic only when it runs, and answers `x?` even where
    # brackets are left open.
    is_cell_magic = any(magic.kind == "cell" for magic in cell.magics)
    has_help_left = any(line.endswith("?") for line in cell.python.split("\n") if MARK not in line)
    if not is_cell_magic and not has_help_left and parses(transformed(source)):
        assert cell.error is None


@given(
    st.lists(st.sampled_from(["x = 1", "%cd a", "!ls", "y = !ls", "x?", "?x", "%%b"]), min_size=1)
)
def test_jupytext_agrees_on_which_plain_lines_are_magics(lines):
    python = mask("x = 0\n" + "\n".join(lines))[0].split("\n")[1:]
    commented = comment_magic(list(lines), "python")

    assert [MARK in line for line in python] == [line.startswith("# ") for line in commented]


@pytest.mark.slow
@settings(max_examples=10)
@given(hypothesmith.from_grammar())
def test_python_has_no_magics(source):
    assert mask(source) == (source, ())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("fit(a)", "train(b)", id="Python beside magics"),
        pytest.param("%time fit(a)", "%time train(b)", id="Python behind a magic"),
        pytest.param("if x:\n    !ls\n    fit(a)", "if x:\n    !ls\n    train(b)", id="in a block"),
        pytest.param("%%time\nfit(a)", "%%time\ntrain(b)", id="in a timed cell"),
        pytest.param("x = !ls\nfit(a)", "x = !ls\ntrain(b)", id="behind an assigned one"),
    ],
)
def test_what_was_edited_while_masked_is_unmasked(before, after):
    assert unmask(mask(before)[0].replace("fit(a)", "train(b)")) == after


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        pytest.param(
            "import x\n# ipython-cell: %%time", "before a cell magic", id="late cell magic"
        ),
        pytest.param("# c\n# ipython-cell: %%time", "before a cell magic", id="a comment counts"),
        pytest.param("x\n# ipython-more: -q", "parted", id="continuation alone"),
        pytest.param(
            "f(\n  a)  # ipython-timed: %time", "inside a statement", id="broken over lines"
        ),
        pytest.param("x = y  # ipython-value: !ls", "placeholder", id="another value"),
        pytest.param("f()  # ipython-line: !ls", "placeholder", id="code in place of pass"),
        pytest.param("# ipython-other: !ls", "placeholder", id="unknown mark"),
    ],
)
def test_an_edit_that_breaks_a_magic_is_refused(python, reason):
    with pytest.raises(ValueError, match=reason):
        unmask(python)


def test_a_comment_that_cannot_be_told_from_a_masked_magic_is_refused():
    with pytest.raises(ValueError, match="looks like a masked magic"):
        mask("# ipython-line: !ls\nx = 1")
    assert code_cell("# ipython-line: !ls\nx = 1").tree is not None


@pytest.mark.parametrize(
    ("source", "is_tree", "is_error"),
    [
        pytest.param("x = 1", True, False, id="Python"),
        pytest.param("", True, False, id="nothing"),
        pytest.param("await f()\nasync with a: pass", True, False, id="await"),
        pytest.param("return 1", True, False, id="return, which ruff reports"),
        pytest.param("x = '\\d'", True, False, id="a warning is not an error"),
        pytest.param("    x = 1\n    !ls\n    y = 2", True, False, id="indented as a whole"),
        pytest.param("%%bash\nls |", False, False, id="another language"),
        pytest.param("%%time\nx = (", False, True, id="broken in a timed cell"),
        pytest.param("if x:\ny", False, True, id="not indented"),
        pytest.param("x = 1\0", False, True, id="null byte"),
        pytest.param("x = '\ud800'", False, True, id="half a surrogate pair"),
        pytest.param("(" * 5000, False, True, id="brackets"),
        pytest.param("-" * 100_000 + "1", False, True, id="nested operators"),
        pytest.param("9" * 5000, False, True, id="endless number"),
        pytest.param("x = " + "1 + " * 200 + "1", False, False, id="too deep for visitors"),
        pytest.param("\n".join(f"if x{i}: pass" for i in range(999)), True, False, id="long"),
    ],
)
def test_a_cell_is_parsed_or_says_why_not(source, is_tree, is_error, recwarn):
    cell = code_cell(source)

    assert (cell.tree is not None, cell.error is not None) == (is_tree, is_error)
    assert cell.error is None or (cell.error.lineno or 0) >= 1
    assert not recwarn.list


def test_lines_of_the_tree_are_those_of_the_cell():
    cell = code_cell("!pip install a \\\n  b\n\nfiles = !ls\n%time x = f(files)")

    assert [type(node).__name__ for node in cell.tree.body] == ["Assign", "Assign"]
    assert [node.lineno for node in cell.tree.body] == [4, 5]
    assert [magic.line for magic in cell.magics] == [1, 4, 5]


def test_names_of_broken_cells_are_known_though_nothing_else_is():
    sources = ["model = build(\ny = '''never closed", "z = 1", "%%bash\nshell=1", "def f(:\n  'a"]
    nodes = [{"cell_type": "code", "source": source} for source in sources]
    program = Program(Notebook("a.ipynb", b"", {"nbformat": 4, "cells": nodes}))

    names = program.names_in_broken_cells
    assert {"model", "build", "y", "f"} <= names
    assert names.isdisjoint({"z", "shell", "def"})


def test_cells_that_a_run_skips_are_marked():
    node = {"cell_type": "code", "source": "x", "metadata": {"tags": ["skip-execution"]}}

    assert CodeCell(Cell(node, 0, "a"), "x", (), None, None).is_skipped
    assert not code_cell("x").is_skipped

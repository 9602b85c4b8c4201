"""Headings are in order, and no text counts cells."""

import json

import pytest

from tools.notebook import read
from tools.rules import (
    RULES,
    Subject,
    prose,  # noqa: F401 (it enters the rules)
)
from tools.settings import Settings


def subject_of(folder, *sources, kind="markdown"):
    """A notebook of cells of one kind."""
    extra = {"outputs": [], "execution_count": None} if kind == "code" else {}
    cells = [
        {"cell_type": kind, "id": f"c{i}", "metadata": {}, "source": source} | extra
        for i, source in enumerate(sources)
    ]
    path = folder / "a.ipynb"
    content = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    path.write_text(json.dumps(content))
    return Subject(read(path), Settings(folder), folder)


def found(code, subject):
    """Cell, line and severity of each problem."""
    rule = RULES[code]
    return [(p.cell, p.line, p.severity or rule.severity) for p in rule.check(subject)]


@pytest.mark.parametrize(
    "sources, problem",
    [
        pytest.param(["# One", "text\n\n# Two"], (1, 3, "error"), id="two titles"),
        pytest.param(["# One", "Two\n==="], (1, 1, "error"), id="two titles, one underlined"),
        pytest.param(["# One\n<h1>Two</h1>"], (0, 2, "error"), id="two titles, one in HTML"),
        pytest.param(["## One", "# Two"], (0, 1, "error"), id="title comes later"),
        pytest.param(["text", "## One"], (1, 1, "error"), id="no title"),
        pytest.param(["# One", "### Three"], (1, 1, "error"), id="level skipped"),
        pytest.param(["# One\n## Two\n#### Four"], (0, 3, "error"), id="lower level skipped"),
        pytest.param(["# One", "## A", "## A", "## A"], (2, 1, "info"), id="same heading"),
        pytest.param(["text"], (None, None, "info"), id="no heading at all"),
    ],
)
def test_a_heading_out_of_order_is_found_once(tmp_path, sources, problem):
    assert found("CO102", subject_of(tmp_path, *sources)) == [problem]


@pytest.mark.parametrize(
    "sources",
    [
        pytest.param(["# One\n## A\n### B\n## C\n### D"], id="up by any number of levels"),
        pytest.param(["# One\n```\n# comment\n```\n    # code"], id="comments in code"),
        pytest.param(["# One", "$$\na\n=\nb\n---\n$$"], id="formula"),
        pytest.param(["Text first.\n\n# One", "####### seven"], id="text before the title"),
        pytest.param(["<h1 align=center>One</h1>", "## A"], id="title in HTML"),
        pytest.param(["#hashtag\n\n# One"], id="no space, no heading"),
    ],
)
def test_headings_in_order_are_left_alone(tmp_path, sources):
    assert found("CO102", subject_of(tmp_path, *sources)) == []


def test_heading_cells_of_the_old_format_count(tmp_path):
    cells = [
        {"cell_type": "heading", "level": level, "metadata": {}, "source": ["T"]}
        for level in (1, 3)
    ]
    content = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": cells}]}
    (tmp_path / "a.ipynb").write_text(json.dumps(content))
    subject = Subject(read(tmp_path / "a.ipynb"), Settings(tmp_path), tmp_path)

    assert [cell for cell, _, severity in found("CO102", subject) if severity == "error"] == [1]


@pytest.mark.parametrize(
    "kind, source, line",
    [
        pytest.param("markdown", "# T\n\nNow run cell 31 again.", 3, id="text"),
        pytest.param("markdown", "Cells 46-53 are gone.", 1, id="range"),
        pytest.param("markdown", "The cells 3, 4 and 5 do it.", 1, id="list"),
        pytest.param("markdown", "See **Cell #8**.", 1, id="bold, with a hash"),
        pytest.param("markdown", "| a |\n|---|\n| code cell 12 |", 3, id="table"),
        pytest.param("code", "x = 1\ny = 2  # as cell 5 says", 2, id="comment"),
        pytest.param("code", 'print("Run Cell 3 first")', 1, id="printed"),
        pytest.param("code", 'raise RuntimeError(f"{x}: run cell 8")', 1, id="raised"),
    ],
)
def test_a_cell_that_is_named_by_its_number_is_found(tmp_path, kind, source, line):
    assert found("CO107", subject_of(tmp_path, source, kind=kind)) == [(0, line, "warning")]


@pytest.mark.parametrize(
    "kind, source",
    [
        pytest.param("markdown", "Run this cell 5 times, each cell 2 s.", id="how often"),
        pytest.param("markdown", "Run the cells 3 times.", id="how often, many cells"),
        pytest.param("markdown", "One LSTM cell 4 wide; T cell 3; table cell 7.", id="other cells"),
        pytest.param("markdown", "`cell 31` and\n```\nrun cell 8\n```", id="in code"),
        pytest.param("markdown", "The training cell, and 31 more cells.", id="by name"),
        pytest.param("markdown", "Excel 2019, cellular 5G, cell 2.5 V", id="parts of words"),
        pytest.param("code", "grid = 'cell 3'\n# the next cell\ncell_3 = 1", id="not said"),
        pytest.param("code", "x = (  # cell 9", id="a cell that does not parse"),
    ],
)
def test_other_cells_and_numbers_are_left_alone(tmp_path, kind, source):
    assert found("CO107", subject_of(tmp_path, source, kind=kind)) == []

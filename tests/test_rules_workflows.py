"""Workflows: a declared subset of cells must stand on its own."""

import json
from pathlib import Path

import pytest

from tools.notebook import Notebook
from tools.rules import RULES, Subject
from tools.rules import workflows as _rules  # noqa: F401
from tools.settings import Settings
from tools.workflows import cells_of

RECOVER = {"recover": {"skip": ["train"]}}


def subject_of(sources, workflows, *, in_settings=True, tags=None) -> Subject:
    """A notebook of cells by id, with workflows declared in the settings or in its metadata."""
    cells = [
        {"cell_type": "code", "id": id, "metadata": {"tags": (tags or {}).get(id, [])},
         "source": text, "outputs": []}
        for id, text in sources.items()
    ]  # fmt: skip
    metadata = {} if in_settings else {"workflows": workflows}
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    declared = {"sub/a.ipynb": workflows} if in_settings else {}
    root = Path.cwd()
    notebook = Notebook(root / "sub" / "a.ipynb", json.dumps(content).encode(), content)
    return Subject(notebook, Settings(root=root, workflows=declared), root)


def found(code, sources, workflows, **options):
    subject = subject_of(sources, workflows, **options)
    ids = list(sources)
    return [(ids[p.cell], p.line, p.severity) for p in RULES[code].check(subject)]


MISSING = {
    "read by a cell": ({"train": "r = 1", "show": "r"}, ("show", 1, None)),
    "imported": ({"train": "import math", "show": "x = 1\nmath.pi"}, ("show", 2, None)),
    "through a function": (
        {"train": "r = 1", "show": "def f():\n    return r\nf()"},
        ("show", 3, None),
    ),
    "function itself": ({"train": "def f(): ...", "show": "f()"}, ("show", 1, None)),
    "in a branch": ({"train": "r = 1", "show": "if 1 > 0:\n    r"}, ("show", 2, "warning")),
    "bound again too late": ({"train": "r = 1", "show": "r", "more": "r = 2"}, ("show", 1, None)),
    "augmented": ({"train": "r = 1", "show": "r += 1"}, ("show", 1, None)),
}
PRESENT = {
    "bound by a kept cell": {"data": "r = 0", "train": "r = 1", "show": "r"},
    "guarded": {"train": "r = 1", "show": "if 'r' in globals():\n    r"},
    "tried": {"train": "r = 1", "show": "try:\n    r\nexcept NameError:\n    r = 0"},
    "only in a function": {"train": "r = 1", "show": "def f():\n    return r"},
    "read by the skipped cell only": {"train": "r = 1\nr", "show": "1"},
    "bound nowhere is another rule's": {"train": "r = 1", "show": "s"},
    "a builtin": {"train": "r = 1", "show": "print(_, display)"},
    "by a broken cell": {"data": "r = = 0", "train": "r = 1", "show": "r"},
    "by a magic": {"data": "%store -r r", "train": "r = 1", "show": "r"},
    "by a star import": {"data": "from os import *", "train": "r = 1", "show": "r"},
    "unbound in the whole run too": {"show": "r", "train": "r = 1"},
    "comprehension": {"train": "r = 1", "show": "[r for r in [1]]"},
}


@pytest.mark.parametrize("sources, place", MISSING.values(), ids=MISSING)
def test_name_that_only_a_skipped_cell_binds_is_found(sources, place):
    assert found("WF601", sources, RECOVER) == [place]


@pytest.mark.parametrize("sources", PRESENT.values(), ids=PRESENT)
def test_workflow_with_all_its_names_is_left_alone(sources):
    assert found("WF601", sources, RECOVER) == []


def test_each_workflow_is_checked_and_named():
    sources = {"a": "x = 1", "b": "y = x", "c": "y"}
    workflows = {"one": {"skip": ["a"]}, "two": {"only": ["a", "c"]}, "all": {"only": ["a", "b"]}}
    problems = list(RULES["WF601"].check(subject_of(sources, workflows)))

    assert [(p.cell, p.message.split('"')[1]) for p in problems] == [(1, "one"), (2, "two")]


def test_workflows_in_the_metadata_count_and_the_settings_win():
    sources = {"train": "r = 1", "show": "r"}

    assert found("WF601", sources, RECOVER, in_settings=False) == [("show", 1, None)]


@pytest.mark.parametrize("declaration, said", [
    pytest.param({"skip": ["gone"]}, "no cell has this id or tag", id="unknown id"),
    pytest.param({"only": ["train", "gone"]}, "`gone`", id="one of two"),
    pytest.param({}, "neither", id="empty"),
    pytest.param({"skip": []}, "neither", id="empty list"),
    pytest.param({"skip": ["train", "show"]}, "no code to run", id="nothing left"),
    pytest.param({"omit": ["train"]}, "omit", id="unknown key"),
    pytest.param(["train"], "a table is wanted", id="list"),
    pytest.param({"skip": ["train", 3]}, "list of ids and tags", id="number"),
    pytest.param({"skip": "train"}, "neither", id="text"),
])  # fmt: skip
def test_unsound_declaration_is_found(declaration, said):
    subject = subject_of({"train": "r = 1", "show": "1"}, {"w": declaration})

    (problem,) = RULES["WF602"].check(subject)
    assert said in problem.message
    assert problem.cell is None


@pytest.mark.parametrize("declaration", [
    pytest.param({"skip": ["train"]}, id="id"),
    pytest.param({"only": ["quick"]}, id="tag"),
    pytest.param({"only": ["train", "show"], "skip": ["quick"]}, id="both"),
])  # fmt: skip
def test_sound_declaration_is_left_alone(declaration):
    subject = subject_of({"train": "1", "show": "1"}, {"w": declaration}, tags={"show": ["quick"]})

    assert list(RULES["WF602"].check(subject)) == []


@pytest.mark.parametrize("declaration, ids", [
    pytest.param({"skip": ["b"]}, {"a", "c"}, id="skip by id"),
    pytest.param({"skip": ["slow"]}, {"a", "b"}, id="skip by tag"),
    pytest.param({"only": ["slow", "a"]}, {"a", "c"}, id="only"),
    pytest.param({"only": ["a", "b"], "skip": ["b"]}, {"a"}, id="skip wins"),
])  # fmt: skip
def test_cells_of_a_workflow_are_named_by_id_or_tag(declaration, ids):
    sources = {"a": "1", "b": "1", "c": "1"}
    subject = subject_of(sources, {"w": declaration}, tags={"c": ["slow"]})

    assert cells_of(subject.notebook, "w", subject.settings) == ids


def test_unknown_workflow_is_refused():
    subject = subject_of({"a": "1"}, {})

    with pytest.raises(KeyError, match="nothing"):
        cells_of(subject.notebook, "nothing", subject.settings)

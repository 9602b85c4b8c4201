"""Parameters are typed and checked before a kernel starts."""

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tools.errors import NotebookError, ParameterError, SettingsError
from tools.running.literals import assignments
from tools.running.parameters import check_parameters, read_form
from tools.running.runnable import read_notebook, title_of
from tools.settings import Settings, load_settings

SOURCE = """\
preset = "quick"  # @param ["smoke", "quick", "small"]
max_steps = None  # @param {type:"integer"}
learning_rate = None
use_amp = True  # @param {type:"boolean"}
note = "a#b"  # @param {type:"string"}
ratio = 0.5
count = 3
floor = 1  # @param {type:"number"}
sizes = [1, 2]
extra = {"a": 1}
host = "here"  # @param ["here", "there"] {allow-input: true}
flag = None  # @param ["True", "False", "None"] {type:"raw"}
untyped = None
optimizer = None
"""
SCHEMA = {
    "properties": {
        "max_steps": {"type": "integer", "minimum": 0, "description": "Length of the run."},
        "learning_rate": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "optimizer": {"enum": ["muon", "adamw"], "type": "string"},
        "limit": {"anyOf": [{"type": "integer", "maximum": 9}, {"type": "null"}]},
    }
}


def notebook(source, *tags):
    cell = new_code_cell(source)
    cell.metadata["tags"] = list(tags or ["parameters"])
    return new_notebook(cells=[cell])


KNOWN = assignments(notebook(SOURCE))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("preset", "small", "small"),
        ("max_steps", "20", 20),
        ("max_steps", "None", None),
        ("learning_rate", "3e-4", 3e-4),
        ("learning_rate", "1", 1.0),
        ("use_amp", "False", False),
        ("note", "", ""),
        ("note", "None", "None"),
        ("note", 'a "quoted"\n\\ line, ü', 'a "quoted"\n\\ line, ü'),
        ("ratio", "-.5", -0.5),
        ("count", "+7", 7),
        ("floor", "1.5", 1.5),
        ("sizes", "[3, -4]", [3, -4]),
        ("extra", "{'b': [1.5, None]}", {"b": [1.5, None]}),
        ("host", "elsewhere", "elsewhere"),
        ("flag", "False", False),
        ("flag", "None", None),
        ("optimizer", "adamw", "adamw"),
    ],
)
def test_text_of_the_right_type_is_accepted(name, text, value):
    values = check_parameters([(name, text)], KNOWN, SCHEMA)

    assert values == {name: value}
    assert type(values[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("max_stepz", "20", "Did you mean max_steps?"),
        ("lr = 1\nimport os", "1", "is not a parameter of this notebook"),
        ("preset", "huge", "one of 'smoke', 'quick', 'small' is wanted"),
        ("max_steps", "1_0", "a whole number at least 0, or None is wanted. Length of the run."),
        ("max_steps", "2.0", "a whole number"),
        ("max_steps", "-1", "at least 0"),
        ("max_steps", "", "a whole number"),
        ("max_steps", " 1", "a whole number"),
        ("max_steps", "٣", "a whole number"),
        ("max_steps", "9" * 5000, "a whole number"),
        ("learning_rate", "nan", "a finite number above 0 and at most 1"),
        ("learning_rate", "inf", "a finite number"),
        ("learning_rate", "1e999", "a finite number"),
        ("learning_rate", "2", "at most 1"),
        ("use_amp", "false", "True or False is wanted"),
        ("use_amp", "1", "True or False is wanted"),
        ("ratio", "None", "a finite number"),
        ("count", "1.5", "a whole number"),
        ("sizes", "{'a': 1}", "a Python list"),
        ("sizes", "[float('nan')]", "a Python list"),
        ("sizes", "[1e999]", "a Python list"),
        ("extra", "{1: 2}", "a Python dict of plain values with text as keys"),
        ("extra", "{'a': (1,)}", "a Python dict"),
        ("flag", "maybe", "one of True, False, or None"),
        ("note", "\udcff", "text is wanted"),
        ("untyped", "1", "nothing tells its type"),
        ("optimizer", "sgd", "one of 'muon', 'adamw', or None"),
    ],
)
def test_anything_else_is_refused(name, text, said):
    with pytest.raises(ParameterError) as caught:
        check_parameters([(name, text)], KNOWN, SCHEMA)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_steps", "20"), ("max_steps", True), ("use_amp", "False"), ("count", 1.0), ("note", 1)],
)
def test_values_from_python_are_not_converted(name, value):
    with pytest.raises(ParameterError):
        check_parameters({name: value}, KNOWN, SCHEMA)


def test_all_faults_are_told_at_once():
    given = [("max_stepz", "1"), ("use_amp", "yes"), ("count", "1"), ("count", "2")]

    with pytest.raises(ParameterError) as caught:
        check_parameters(given, KNOWN, SCHEMA)

    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == ['"max_stepz"', "use_amp", "count"]


def test_a_nullable_entry_of_the_schema_takes_none_and_keeps_its_bounds():
    known = assignments(notebook("limit = 5"))

    assert check_parameters([("limit", "None")], known, SCHEMA) == {"limit": None}
    with pytest.raises(ParameterError, match="at most 9"):
        check_parameters([("limit", "10")], known, SCHEMA)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a = 1\nb = a + 1", "Line 2 .* is not a literal: b = a"),
        ("a = 1\nimport os", "Line 2 .* is not `name = literal`: import os"),
        ("a = b = 1", "is not `name = literal`"),
        ("a, b = 1, 2", "is not `name = literal`"),
        ("a += 1", "is not `name = literal`"),
        ("a = 1\n%matplotlib inline", "Line 2 .* is not plain Python: %matplotlib"),
        ("a = f'{1}'", "is not a literal"),
    ],
)
def test_a_cell_of_parameters_with_code_is_refused_by_line(source, said):
    with pytest.raises(ParameterError, match=said):
        assignments(notebook(source))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([], "No cells are tagged"),
        (["a = 1", "a = 2"], "2 cells are tagged"),
    ],
)
def test_there_must_be_one_cell_of_parameters(cells, said):
    tagged = [notebook(source).cells[0] for source in cells]

    with pytest.raises(ParameterError, match=said):
        assignments(new_notebook(cells=tagged))


@pytest.mark.parametrize(
    ("comment", "form"),
    [
        ('#@param {type:"integer"}', (None, {"type": "integer"})),
        ("# @param ['a]', 'b'] {'allow-input':true}", (["a]", "b"], {"allow-input": "true"})),
        ('# @param {"type":"string"} ["a"]', (["a"], {"type": "string"})),
        ("# @param", (None, {})),
        ("# plain [1]", (None, {})),
    ],
)
def test_forms_are_read_in_every_spelling(comment, form):
    assert read_form(comment) == form


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("# @title Train { display-mode: 'form' }\nx = 1", "Train"),
        ("\n\n  x = 1\ny = 2", "x = 1"),
        ("x" * 70, "x" * 57 + "..."),
        ("", ""),
    ],
)
def test_a_cell_is_called_by_its_title_or_its_first_line(source, title):
    assert title_of(new_code_cell(source)) == title


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"cells": [1], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        b'{"cells": [], "nbformat": "x"}',
        b'{"cells": [], "nbformat": 4, "nbformat_minor": 5,'
        b' "metadata": {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}}}',
        b"[" * 100_000,
    ],
)
def test_what_is_not_a_python_notebook_is_refused(tmp_path, content):
    path = tmp_path / "n.ipynb"
    path.write_bytes(content)

    with pytest.raises(NotebookError, match=r"n\.ipynb"):
        read_notebook(path)


def test_settings_come_from_the_nearest_pyproject(tmp_path):
    text = '[tool.notebooks]\npaths = ["a.ipynb"]\n[tool.notebooks.smoke]\n"a.ipynb" = {n = 1}\n'
    (tmp_path / "pyproject.toml").write_text(text)
    (tmp_path / "deep").mkdir()

    settings = load_settings(tmp_path / "deep")

    assert settings.root == tmp_path
    assert settings.paths == ("a.ipynb",)
    assert settings.smoke_parameters(tmp_path / "a.ipynb") == {"n": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.notebooks]\npahts = []", "Did you mean paths?"),
        ("[tool.notebooks]\npaths = 'a'", "a list is wanted"),
        ("[tool", "is not TOML"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, text, said):
    (tmp_path / "pyproject.toml").write_text(text)

    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path)

    assert said in str(caught.value)


@pytest.mark.parametrize("schema", ["no_such_module:X", "json:Nothing", "json", "json:dumps"])
def test_a_schema_that_cannot_be_loaded_is_named(tmp_path, schema):
    with pytest.raises(SettingsError, match=schema):
        Settings(root=tmp_path, schema=schema).load_schema()

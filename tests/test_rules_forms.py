"""The grammar of forms, their defaults, the cell of parameters and its step with the schema."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.analysis.form import Param, parse_param, parse_title
from tools.analysis.form_fields import COMPUTED, form_of
from tools.errors import ParameterError
from tools.notebook import read
from tools.rules import RULES, Subject, forms, parameters, schema_fields  # noqa: F401
from tools.running.literals import Assignment
from tools.running.parameters import check_parameters
from tools.settings import Settings

KERNEL = {"language_info": {"name": "python"}}


def code(source, *tags, **metadata):
    """A code cell with tags and other metadata."""
    metadata |= {"tags": list(tags)} if tags else {}
    node = {"cell_type": "code", "execution_count": None, "metadata": metadata, "outputs": []}
    return {**node, "source": source}


def subject(tmp_path, *cells, **settings):
    """What a rule looks at; text is a code cell."""
    cells = [code(cell) if isinstance(cell, str) else cell for cell in cells]
    cells = [{"id": f"c{index}", **cell} for index, cell in enumerate(cells)]
    content = {"cells": cells, "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return Subject(read(path), Settings(root=tmp_path, **settings), tmp_path)


def problems(rule, subject):
    return list(RULES[rule].check(subject))


def places(rule, subject):
    return [(problem.cell, problem.line) for problem in problems(rule, subject)]


def listed(table):
    return [pytest.param(*row, id=name) for name, row in table.items()]


SPELLINGS = {
    "nothing": ("# @param", None, {}),
    "no blank": ('#@param {type:"integer"}', None, {"type": "integer"}),
    "nothing between": ('#@param{type:"date"}', None, {"type": "date"}),
    "quoted keys": ('# @param {"type": "string"}', None, {"type": "string"}),
    "single quotes": ("# @param {'type':'raw'}", None, {"type": "raw"}),
    "mixed keys": (
        '#@param ["a"] {"allow-input":true, isTemplate: true}',
        ("a",),
        {"allow-input": True, "isTemplate": True},
    ),
    "options": ("# @param ['a', \"b\"]", ("a", "b"), {}),
    "options that are no text": ("# @param [1, -2.5, True, None]", (1, -2.5, True, None), {}),
    "brackets in text": ("# @param ['a]', '{b'] {type:'raw'}", ("a]", "{b"), {"type": "raw"}),
    "options last": ('# @param {type:"string"} ["a"]', ("a",), {"type": "string"}),
    "a comma at the end": ("# @param ['a',] {type:'raw',}", ("a",), {"type": "raw"}),
    "a quote in quotes": (r"# @param ['it\'s', 'C:\Users']", ("it's", r"C:\Users"), {}),
    "a slider": (
        '# @param {type:"slider", min:-1, max:1e0, step:.1}',
        None,
        {"type": "slider", "min": -1, "max": 1.0, "step": 0.1},
    ),
    "a placeholder": (
        '# @param {type:"string", placeholder:"a } b"}',
        None,
        {"type": "string", "placeholder": "a } b"},
    ),
    "a remark behind": ('# @param {type:"raw"} # for experts', None, {"type": "raw"}),
    "a comma behind": ("# @param ['a'],", ("a",), {}),
    "a remark instead": ("# @param the learning rate", None, {}),
    "a remark before": ('# note #@param {type:"raw"}', None, {"type": "raw"}),
}  # fmt: skip


@pytest.mark.parametrize("comment, options, properties", listed(SPELLINGS))
def test_every_spelling_is_read(comment, options, properties):
    assert parse_param(comment) == Param(options, properties)


@pytest.mark.parametrize("comment", ["# plain [1]", "# @params {", "# @param-x", "# @markdown a"])
def test_other_comments_are_no_fields(comment):
    assert parse_param(comment) is None


FAULTS = {
    "an object that is not closed": ('# @param {type:"integer"', 10, "`{` is not closed"),
    "a list that is not closed": ('# @param ["a", "b"', 10, "`[` is not closed"),
    "a quote that is not closed": ('# @param {type:"raw}', 16, "A quote is not closed"),
    "no comma between options": ('# @param ["a" "b"]', 15, "comma"),
    "no comma between properties": ('# @param {type:"slider" min:0}', 25, "comma"),
    "an equals sign": ('# @param {type="raw"}', 15, "a colon behind `type`"),
    "an option without quotes": ("# @param [a]", 11, "without quotes"),
    "a type without quotes": ("# @param {type:integer}", 16, "without quotes"),
    "an unknown type": ('# @param {type:"int"}', 16, "'int'"),
    "a type that is a number": ("# @param {type:1}", 16, "text in quotes is wanted"),
    "an unknown property": ('# @param {typ:"raw"}', 15, "`typ`"),
    "a property of Python": ("# @param ['a'] {allow_input:true}", 29, "`allow_input`"),
    "a truth value of Python": ("# @param ['a'] {allow-input:True}", 29, "JavaScript"),
    "a truth value as text": ("# @param ['a'] {allow-input:'true'}", 29, "true or false is wanted"),
    "a property twice": ('# @param {type:"raw", type:"raw"}', 23, "given twice"),
    "two lists": ("# @param ['a'] ['b']", 16, "A second list"),
    "two objects": ("# @param {} {}", 13, "A second object"),
    "no options": ("# @param []", 10, "is empty"),
    "no braces": ('# @param type:"raw"', 10, "neither a list"),
    "round brackets": ('# @param (type:"raw")', 10, "neither a list"),
    "a brace too many": ('# @param {type:"raw"}}', 22, "no beginning"),
    "a list of numbers by type": ('# @param [1] {type:"integer"}', 20, "string or raw"),
    "a range without slider": ('# @param {type:"integer", min:0}', 31, "no effect"),
    "a range that is empty": ('# @param {type:"slider", min:9, max:1}', 30, "from 9 to 1"),
    "a step of nothing": ('# @param {type:"slider", step:0}', 31, "above 0"),
    "a limit as text": ('# @param {type:"slider", max:"9"}', 30, "a number is wanted"),
}  # fmt: skip


@pytest.mark.parametrize("comment, column, said", listed(FAULTS))
def test_every_fault_is_told_with_its_column(comment, column, said):
    [fault] = parse_param(comment).faults

    assert (fault.column, said in fault.message) == (column, True), fault
    assert fault.cure


@given(st.text(st.sampled_from("[]{}:,'\"\\ ab1.-TrueNone#@param type"), max_size=40))
def test_no_comment_breaks_the_reader(text):
    param = parse_param(f"# @param{text}")
    title = parse_title(f"# @title{text}")

    for form in filter(None, (param, title)):
        assert all(1 <= fault.column <= len(text) + 10 for fault in form.faults)


PRINTED = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=9)


@given(
    st.lists(PRINTED, min_size=1),
    st.dictionaries(st.sampled_from(["isTemplate", "allow-input"]), st.booleans()),
)
def test_what_json_writes_is_read_back(options, properties):
    comment = f"# @param {json.dumps(options)} {json.dumps(properties)}"

    assert parse_param(comment) == Param(tuple(options), properties)


TITLES = {
    "text": ("# @title Train", "Train", {}, 0),
    "display mode": (
        '#@title Train { display-mode: "form" }', "Train", {"display-mode": "form"}, 0),
    "more": (
        '# @title { run: "auto", vertical-output: true, form-width: "30%" }',
        "",
        {"run": "auto", "vertical-output": True, "form-width": "30%"},
        0,
    ),
    "braces that are text": ("# @title The set {a: 1}", "The set {a: 1}", {}, 0),
    "a key alone": ("# @title T {display-mode}", "T {display-mode}", {}, 0),
    "a mode that is none": ("# @title T {display-mode: 'x'}", "T", {"display-mode": "x"}, 1),
    "an underscore": ("# @title T {display_mode: 'form'}", "T", {"display_mode": "form"}, 1),
    "no closing brace": ("# @title T {display-mode: 'form'", "T", {"display-mode": "form"}, 1),
}  # fmt: skip


@pytest.mark.parametrize("comment, text, properties, n_faults", listed(TITLES))
def test_titles_are_read_with_their_properties(comment, text, properties, n_faults):
    title = parse_title(comment)

    assert (title.text, title.properties, len(title.faults)) == (text, properties, n_faults)


@pytest.mark.parametrize(
    "comment, value, is_taken",
    [
        pytest.param('{type:"slider", min:1, max:9}', "9", True, id="the end of a slider"),
        pytest.param('{type:"slider", min:1, max:9}', "10", False, id="beyond a slider"),
        pytest.param('{type:"slider"}', "100", True, id="a slider without range"),
        pytest.param("[3, 5] {type:'raw'}", "5", True, id="an option"),
        pytest.param("[3, 5] {type:'raw'}", "4", False, id="no option"),
        pytest.param("[3, 5 {type:'raw'}", "4", True, id="a faulty form says nothing"),
    ],
)
def test_a_run_takes_what_the_form_offers(comment, value, is_taken):
    known = {"a": Assignment("a", 3, f"# @param {comment}")}

    if is_taken:
        assert check_parameters([("a", value)], known, {}) == {"a": int(value)}
    else:
        with pytest.raises(ParameterError, match=f'a is "{value}"'):
            check_parameters([("a", value)], known, {})


def test_fields_are_read_from_comments_only():
    source = (
        "# @title T\n# @markdown M\na = 1  # @param\n"
        "if a:\n    b = f(2)  # @param {type:'raw'}\n"
        "c = '# @param {type:\"x\"}'\nd.e = 1  # @param {type:'raw'}\n# lr = 1  #@param"
    )
    form = form_of(source)

    assert [(field.name, field.value, field.line, field.column) for field in form.fields] == [
        ("a", 1, 3, 7),
        ("b", COMPUTED, 5, 14),
    ]
    assert len(form.titles) == 1 and form.has_markdown and not form.stray


GRAMMAR = {
    "a fault, with its column in the line": ("ab = 1  # @param {type:'int'}", 1, "Column 24:"),
    "in a title": ("# @title T {display-mode: 'x'}\na = 1", 1, "Column 27:"),
    "in a later line": ("a = 1\nb = 2  # @param [", 2, "Column 17:"),
    "on a line of its own": ("# @param {type:'raw'}\na = 1", 1, "stands behind no"),
    "in a value of several lines": ("a = [  # @param {type:'raw'}\n 1]", 1, "stands behind no"),
    "behind an annotation": ("a: int = 1  # @param {type:'integer'}", 1, "annotation"),
}
NO_GRAMMAR = {
    "sound": "a = 1  # @param {type:'integer'}",
    "a comment of documentation": "# @param x the learning rate\ndef f(x): ...",
    "behind a call": "f(1)  # @param {type:'int'}",
    "in a text": "a = '''\n# @param {type:'int'\n'''",
    "in a line that is commented": "# a = 1  # @param {type:'int'}",
    "in a cell that does not parse": "a = (  # @param {type:'int'}",
    "in another language": "%%bash\nA=1  # @param {type:'int'}",
    "below a magic": "%%capture\na = 1  # @param {type:'integer'}",
}


@pytest.mark.parametrize("source, line, said", listed(GRAMMAR))
def test_grammar_is_checked_in_place(tmp_path, source, line, said):
    [problem] = problems("FM201", subject(tmp_path, "x = 1", source))

    assert (problem.cell, problem.line) == (1, line) and said in problem.message


@pytest.mark.parametrize("source", NO_GRAMMAR.values(), ids=NO_GRAMMAR)
def test_what_is_no_field_is_left_alone(tmp_path, source):
    assert problems("FM201", subject(tmp_path, source)) == []


WRONG_DEFAULTS = {
    "no option": ("a = 'c'  # @param ['a', 'b']", "its options are 'a', 'b'"),
    "no option in raw": ("a = 3  # @param [1, 2] {type:'raw'}", "its options are 1, 2"),
    "None is no option": ("a = None  # @param ['a']", "its options"),
    "a number among texts": ("a = 1  # @param ['1', '2']", "makes it text"),
    "a number among bare numbers": ("a = 1  # @param [1, 2]", "makes it text"),
    "computed": ("a = f()  # @param {type:'string'}", "is computed"),
    "text for a number": ("a = '1'  # @param {type:'number'}", "wants a number"),
    "a fraction for a whole number": ("a = 1.5  # @param {type:'integer'}", "a whole number"),
    "a truth value for a number": ("a = True  # @param {type:'integer'}", "a whole number"),
    "a number for text": ("a = 1  # @param {type:'string'}", "wants text"),
    "a number for a truth value": ("a = 1  # @param {type:'boolean'}", "True or False"),
    "None where it cannot be typed": ("a = None  # @param {type:'integer'}", "is None"),
    "below a slider": ("a = -1  # @param {type:'slider', min:0, max:9}", "from 0 to 9"),
    "above the range of a plain slider": ("a = 101  # @param {type:'slider'}", "from 0 to 100"),
    "between steps": ("a = 0.25  # @param {type:'slider', min:0, max:1, step:0.1}", "steps of 0.1"),
    "between plain steps": ("a = 7.5  # @param {type:'slider', min:7, max:45}", "steps of 1"),
    "text on a slider": ("a = 'ten'  # @param {type:'slider'}", "a number"),
    "infinity": ("a = 1e999  # @param {type:'number'}", "not finite"),
    "a date of another form": ("a = '31.1.2026'  # @param {type:'date'}", "a date is wanted"),
    "a day that never was": ("a = '2026-02-30'  # @param {type:'date'}", "a date is wanted"),
}  # fmt: skip
RIGHT_DEFAULTS = {
    "an option": "a = 'a'  # @param ['a', 'b']",
    "other quotes": 'a = "it\'s"  # @param ["it\'s"]',
    "a raw text": r"a = r'C:\Users'  # @param ['C:\Users']",
    "any text": "a = 'c'  # @param ['a'] {allow-input: true}",
    "a raw option": "a = True  # @param ['False', 'True'] {type:'raw'}",
    "a raw option that is a name": "b = 1\na = b  # @param [1, 'b'] {type:'raw'}",
    "a raw text among options": "a = 'x'  # @param [\"'x'\", 'None'] {type:'raw'}",
    "text": "a = ''  # @param {type:'string'}",
    "a whole number for a number": "a = 1  # @param {type:'number'}",
    "a negative number": "a = -1  # @param {type:'integer'}",
    "on the grid": "a = 0.3  # @param {type:'slider', min:0, max:1, step:0.1}",
    "on a grid that begins elsewhere": "a = 7  # @param {type:'slider', min:1, max:9, step:3}",
    "the end of a range": "a = 1e-3  # @param {type:'slider', min:0.001, max:1, step:0.001}",
    "a truth value": "a = False  # @param {type:'boolean'}",
    "a date": "a = '2018-03-22'  # @param {type:'date'}",
    "no date": "a = ''  # @param {type:'date'}",
    "anything raw": "a = f(x)  # @param {type:'raw'}",
    "no type": "a = None  # @param",
    "what has a fault of grammar": "a = 1.5  # @param {type:'int'}",
}


@pytest.mark.parametrize("source, said", listed(WRONG_DEFAULTS))
def test_default_that_its_form_does_not_allow_is_seen(tmp_path, source, said):
    [problem] = problems("FM202", subject(tmp_path, "x = 1", source))

    assert (problem.cell, problem.line) == (1, 1) and said in problem.message


@pytest.mark.parametrize("source", RIGHT_DEFAULTS.values(), ids=RIGHT_DEFAULTS)
def test_default_that_its_form_allows_is_left_alone(tmp_path, source):
    assert problems("FM202", subject(tmp_path, source)) == []


VIEWS = {
    "a title without view": code("# @title Set up\na = 1"),
    "a title below a comment": code("# Licence\n\n#@title Set up\na = 1"),
    "a title below a cell magic": code("%%capture\n# @title Set up\na = 1"),
    "a view without form": code("a = 1", cellView="form"),
    "a view over a text about titles": code("a = '# @title'", cellView="form"),
}
NO_VIEWS = {
    "title and view": code("# @title Set up\na = 1", cellView="form"),
    "a mode": code('# @title Set up {display-mode: "form"}\na = 1'),
    "the key of a mode alone": code("# @title Set up {display-mode}\na = 1"),
    "code beside": code("# @title Set up\na = 1", cellView="both"),
    "fields whose code is shown": code("# @title Choose\na = 1  # @param {type:'raw'}"),
    "fields alone": code("a = 1  # @param {type:'raw'}", cellView="form"),
    "markdown alone": code("# @markdown Text\na = 1", cellView="form"),
    "a cell that does not parse": code("a = (", cellView="form"),
    "another language": code("%%bash\n# @title Set up", cellView="form"),
    "no form": code("a = 1"),
}


@pytest.mark.parametrize("cell", VIEWS.values(), ids=VIEWS)
def test_view_out_of_step_is_seen_and_mended(tmp_path, cell):
    seen = subject(tmp_path, "x = 1", cell)
    assert [cell for cell, _ in places("CO103", seen)] == [1]

    RULES["CO103"].fix(seen)
    once = json.dumps(seen.notebook.content)
    again = Subject(seen.notebook, seen.settings, seen.root)
    RULES["CO103"].fix(again)

    assert problems("CO103", again) == [] and json.dumps(seen.notebook.content) == once


@pytest.mark.parametrize("cell", NO_VIEWS.values(), ids=NO_VIEWS)
def test_view_in_step_is_left_alone(tmp_path, cell):
    seen = subject(tmp_path, cell)
    before = json.dumps(seen.notebook.content)
    RULES["CO103"].fix(seen)

    assert problems("CO103", seen) == [] and json.dumps(seen.notebook.content) == before


def parameters_cell(source):
    return code(source, "parameters")


CELLS_OF_PARAMETERS = {
    "fields but no tag": (["x = 1", "a = 1  # @param"], [(1, None)]),
    "two tags": ([parameters_cell("a = 1"), parameters_cell("b = 1")], [(1, None)]),
    "a tag on text": (
        [{"cell_type": "markdown", "metadata": {"tags": ["parameters"]}, "source": "# T"}],
        [(0, None)],
    ),
    "a value that is computed": (
        [parameters_cell("import os\na = 1\nb = a * 2\nc = os.cpu_count()")],
        [(0, 1), (0, 3), (0, 4)],
    ),
    "a call": ([parameters_cell("a = 1\nprint(a)")], [(0, 2)]),
    "two targets": ([parameters_cell("a = b = 1\nc, d = 1, 2\na += 1")], [(0, 1), (0, 2), (0, 3)]),
    "a branch": ([parameters_cell("if True:\n    a = 1")], [(0, 1)]),
    "a name twice": ([parameters_cell("a = 1\na = 2")], [(0, 2)]),
    "a magic": ([parameters_cell("a = 1\n%matplotlib inline")], [(0, 2)]),
    "a number sign in text": ([parameters_cell("tag = 'a#b'")], [(0, 1)]),
    "an annotation with a bar": ([parameters_cell("a: 'int | None' = 1")], [(0, 1)]),
    "an annotation with literals": ([parameters_cell("a: Literal['x'] = 'x'")], [(0, 1)]),
    "a name without value": ([parameters_cell("a: int")], [(0, 1)]),
}
NO_CELLS_OF_PARAMETERS = {
    "no parameters at all": ["a = 1"],
    "literals": [parameters_cell("# T\na = 1\nb = -2.5\nc = None\nd = [1, {'a': (2,)}]\ne = ''")],
    "fields": [parameters_cell("# @title T\na = 'x'  # @param ['x']")],
    "several lines": [parameters_cell("a = [\n    1,  # one\n    2,\n]")],
    "a plain annotation": [parameters_cell("a: int = 1\nb: dict[str, int] = {}")],
    "what papermill put in": [parameters_cell("a = 1"), code("a = 2", "injected-parameters")],
    "fields of other cells as well": [parameters_cell("a = 1"), "b = 2  # @param {type:'raw'}"],
    "a cell that does not parse": [parameters_cell("a = (")],
    "nothing yet": [parameters_cell("")],
}


@pytest.mark.parametrize("cells, wanted", listed(CELLS_OF_PARAMETERS))
def test_unsound_cell_of_parameters_is_seen(tmp_path, cells, wanted):
    assert places("FM204", subject(tmp_path, *cells)) == wanted


@pytest.mark.parametrize("cells", NO_CELLS_OF_PARAMETERS.values(), ids=NO_CELLS_OF_PARAMETERS)
def test_sound_cell_of_parameters_is_left_alone(tmp_path, cells):
    assert places("FM204", subject(tmp_path, *cells)) == []


def test_a_missing_tag_is_an_error_in_the_project_and_else_a_warning(tmp_path):
    [own] = problems("FM204", subject(tmp_path, "a = 1  # @param", paths=("n.ipynb",)))
    [other] = problems("FM204", subject(tmp_path, "a = 1  # @param"))
    [bare] = problems("FM204", subject(tmp_path, "a = 1", paths=("n.ipynb",)))

    assert (own.severity, other.severity, bare.cell) == (None, "warning", None)


STEPS = parameters_cell("steps = 8\nrate = 0.1")
LOST = {
    "in the next cell": ([STEPS, "steps = 16\nprint(steps, rate)"], [(1, 1)]),
    "in a later line": ([STEPS, "print(rate)\n\nsteps = 16"], [(1, 3)]),
    "by a tuple": ([STEPS, "steps, rate = 1, 2"], [(1, 1), (1, 1)]),
    "by a loop": ([STEPS, "for steps in range(3):\n    print(steps)"], [(1, 1)]),
    "by an import": ([STEPS, "from lab import rate"], [(1, 1)]),
    "by a function": ([STEPS, "def rate(x):\n    return rate(x)"], [(1, 1)]),
    "below a read of another name": ([STEPS, "print(rate)", "a = rate", "steps = 1"], [(3, 1)]),
}
NOT_LOST = {
    "used first": [STEPS, "print(steps)", "steps = 16"],
    "from itself": [STEPS, "steps = int(steps)\nrate *= 2"],
    "in a branch": [STEPS, "import os\nif os.name == 'nt':\n    steps = 2"],
    "in a function": [STEPS, "def f():\n    steps = 1\n    return steps"],
    "read in a function above": [STEPS, "def f():\n    return steps", "steps = 3\nf()"],
    "read by a shell line": [STEPS, "!train --steps {steps}", "steps = 2"],
    "read by name": [STEPS, "config = dict(globals())", "steps = 2"],
    "in a cell that is skipped": [STEPS, code("steps = 2", "skip-execution")],
    "by papermill": [STEPS, code("steps = 2", "injected-parameters")],
    "in a cell that does not parse": [STEPS, "f(steps", "steps = 2"],
    "no cell of parameters": ["steps = 8", "steps = 9"],
}


@pytest.mark.parametrize("cells, wanted", listed(LOST))
def test_parameter_that_is_lost_is_seen(tmp_path, cells, wanted):
    assert places("FM205", subject(tmp_path, *cells)) == wanted


@pytest.mark.parametrize("cells", NOT_LOST.values(), ids=NOT_LOST)
def test_parameter_that_is_used_is_left_alone(tmp_path, cells):
    assert places("FM205", subject(tmp_path, *cells)) == []


MODEL = """
from typing import Literal
from pydantic import BaseModel, Field

class Config(BaseModel):
    steps: int = Field(8, ge=1, le=64, description="How long.")
    rate: float = Field(0.1, gt=0, le=1)
    kind: Literal["x", "y"] = "x"
    flag: bool = False
    limit: int | None = None
    mixed: int | str = 1
"""


@pytest.fixture
def schema(tmp_path, monkeypatch):
    """Settings that name a model of their own."""
    name = f"settings_of_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODEL)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return f"{name}:Config"


USE = "print(steps, rate, kind, flag, limit, mixed)"
DRIFT = {
    "a misspelt setting": ("stepz = 1", "no setting"),
    "a default below the range": ("steps = 0", "at least 1"),
    "a default of another type": ("steps = 1.5", "a whole number"),
    "a default that is no choice": ("kind = 'z'", "one of 'x', 'y'"),
    "an option that is refused": ("kind = 'x'  # @param ['x', 'y', 'z']", "offers 'z'"),
    "a raw option that is refused": ("steps = 8  # @param [8, 99] {type:'raw'}", "offers 99"),
    "an option that is missing": ("kind = 'x'  # @param ['x']", "'y' as well"),
    "a field of another type": ("flag = False  # @param {type:'string'}", "takes boolean"),
    "a field of fractions": ("steps = 8  # @param {type:'number'}", "takes integer"),
    "a slider that goes too low": ("steps = 8  # @param {type:'slider', max:64}", "goes to 0"),
    "a slider that goes too far": ("rate = 1  # @param {type:'slider', min:1, max:2}", "goes to 2"),
}  # fmt: skip
NO_DRIFT = {
    "a sound default": "steps = 8\nrate = 1\nkind = 'y'\nflag = True\nlimit = 5",
    "None, which keeps the preset": "steps = None  # @param {type:'raw'}\nlimit = None",
    "all options": "kind = 'x'  # @param ['y', 'x']",
    "all options and None": "kind = None  # @param ['None', \"'x'\", \"'y'\"] {type:'raw'}",
    "other input": "kind = 'x'  # @param ['x'] {allow-input: true}",
    "a slider within": "steps = 8  # @param {type:'slider', min:1, max:64}",
    "a whole number for a fraction": "rate = 1  # @param {type:'integer'}",
    "what the schema leaves open": "mixed = 'a'  # @param {type:'string'}",
    "a name that only the notebook knows": "steps = 1\nextra = {}",
}


@pytest.mark.parametrize("source, said", listed(DRIFT))
def test_parameter_out_of_step_with_the_schema_is_seen(tmp_path, schema, source, said):
    seen = subject(tmp_path, "x = 1", parameters_cell(source), USE, schema=schema)
    found = problems("FM203", seen)

    assert any(said in problem.message for problem in found), found
    assert {(problem.cell, problem.line) for problem in found} == {(1, 1)}


@pytest.mark.parametrize("source", NO_DRIFT.values(), ids=NO_DRIFT)
def test_parameter_in_step_with_the_schema_is_left_alone(tmp_path, schema, source):
    seen = subject(tmp_path, parameters_cell(source), USE, "print(extra)", schema=schema)

    assert problems("FM203", seen) == []


def test_a_setting_that_no_cell_reads_is_a_warning(tmp_path, schema):
    cells = [parameters_cell("steps = 8\nrate = 0.1"), "print(steps)"]
    [problem] = problems("FM203", subject(tmp_path, *cells, schema=schema))
    whole = [cells[0], "config = Config(**{name: globals()[name] for name in NAMES})"]

    assert (problem.line, problem.severity) == (2, "warning")
    assert problems("FM203", subject(tmp_path, *whole, schema=schema)) == []


@pytest.mark.parametrize("text", ["def broken(:", "undefined_name", "x = 1"])
def test_a_schema_that_cannot_be_loaded_is_told_once(tmp_path, schema, text):
    (tmp_path / f"{schema.partition(':')[0]}.py").write_text(text)

    [problem] = problems("FM203", subject(tmp_path, parameters_cell("a = 1"), schema=schema))
    assert problem.cell is None and schema in problem.message


def test_without_a_schema_nothing_is_compared(tmp_path):
    assert problems("FM203", subject(tmp_path, parameters_cell("a = 1"))) == []

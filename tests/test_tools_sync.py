"""What is generated stays in step with the schema; drift is seen, and sync mends it."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.errors import SettingsError
from tools.generation.form_cell import form_line, form_source
from tools.generation.outline import Form, FormField, FormSection, read_outline
from tools.generation.tables import markdown_table, settings_table
from tools.notebook import read
from tools.settings import Settings, load_settings
from tools.sync import BADGE, badge, find_drift, with_badge, with_constant, with_table

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = {
    "properties": {
        "name": {"type": "string", "default": "a", "description": "Who."},
        "steps": {
            "type": "integer",
            "default": 8,
            "minimum": 1,
            "maximum": 64,
            "description": "How long.",
            "unit": "updates",
        },
        "rate": {
            "type": "number",
            "default": 0.5,
            "exclusiveMinimum": 0,
            "description": "How fast.",
        },
        "kind": {"type": "string", "enum": ["x", "y"], "default": "x", "description": "Which."},
        "flag": {"type": "boolean", "default": False, "description": "Whether."},
    }
}
OUTLINE = """
[metadata]
language_info = { name = "python" }

[cells.title]
starts = "# Title"
badge = true

[cells.setup]
starts = "REF"
repository = "URL"
ref = "REF"
cellView = "form"

[cells.form]
starts = "# @title Choose"
tags = ["parameters"]

[parameters]
cell = "form"
title = "Choose"
[[parameters.sections]]
fields = [{ name = "name" }, { name = "steps" }]

[[documents]]
file = "README.md"
table = "settings"
"""


def code(id: str, source: str, **metadata) -> dict:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": id,
        "metadata": metadata,
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }


@pytest.fixture
def project(tmp_path, monkeypatch) -> Settings:
    """A project with one notebook, an outline, a schema and a README, none of them in step."""
    cells = [
        {"cell_type": "markdown", "id": "title", "metadata": {}, "source": ["# Title\n", "Text."]},
        code("setup", 'REF, URL = "old", "https://example.org/x"\nprint(REF)'),
        code("form", "# @title Choose\nname = 'z'"),
        code("rest", "print(name)"),
    ]
    content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "nb.ipynb").write_text(json.dumps(content, indent=2))
    (tmp_path / "outline.toml").write_text(OUTLINE)
    (tmp_path / "README.md").write_text(
        "Before.\n<!-- settings: written by sync -->\n<!-- end of settings -->\nAfter.\n"
    )
    settings = Settings(
        root=tmp_path,
        ref="v1",
        repository="https://github.com/a/b",
        outlines={"nb.ipynb": "outline.toml"},
    )
    monkeypatch.setattr(Settings, "load_schema", lambda self: SCHEMA)
    return settings


def mend(settings: Settings) -> None:
    for drift in find_drift(settings):
        drift.write()


def test_sync_writes_form_tags_badge_ref_metadata_and_table(project):
    mend(project)

    notebook = read(project.root / "nb.ipynb")
    assert notebook.cell("title").source.split("\n")[2] == badge(project, "nb.ipynb")
    assert 'REF, URL = "v1", "https://github.com/a/b"\n' in notebook.cell("setup").source
    assert notebook.cell("setup").metadata["cellView"] == "form"
    assert notebook.cell("form").tags == ["parameters"]
    assert 'name = "a"  # @param {type:"string"}' in notebook.cell("form").source
    assert notebook.content["metadata"]["language_info"] == {"name": "python"}
    text = (project.root / "README.md").read_text()
    assert text.startswith("Before.\n") and text.endswith("-->\nAfter.\n")
    assert "| `steps` | `8` | whole number, at least 1, at most 64; updates | How long. |" in text


def test_sync_is_idempotent_and_leaves_other_cells_their_bytes(project):
    path = project.root / "nb.ipynb"
    before = path.read_bytes()
    mend(project)

    assert find_drift(project) == []
    tail = json.dumps(["print(name)"], indent=2).split("\n")[1].strip().encode()
    assert before.count(tail) == path.read_bytes().count(tail) == 1
    assert read(path).cells[3].source == "print(name)"


def test_ids_and_tags_that_colab_drops_come_back(project):
    mend(project)
    path = project.root / "nb.ipynb"
    content = json.loads(path.read_text())
    content["nbformat_minor"] = 0
    for i, cell in enumerate(content["cells"]):
        cell["metadata"] = {"id": f"random{i}"}
        del cell["id"]
    path.write_text(json.dumps(content))
    mend(project)

    notebook = read(path)
    assert [cell.id for cell in notebook.cells] == ["title", "setup", "form", "random3"]
    assert notebook.cell("form").tags == ["parameters"]
    assert notebook.content["nbformat_minor"] == 5


def test_two_outlines_may_write_one_document(project, tmp_path):
    settings = replace(project, outlines={"nb.ipynb": "outline.toml", "other.ipynb": "other.toml"})
    shutil.copy(tmp_path / "nb.ipynb", tmp_path / "other.ipynb")
    (tmp_path / "other.toml").write_text(
        OUTLINE.replace('table = "settings"', 'table = "parameters"')
    )
    (tmp_path / "README.md").write_text(
        "<!-- settings: written by sync -->\n<!-- end of settings -->\n"
        "<!-- parameters of other.ipynb: written by sync -->\n"
        "<!-- end of parameters of other.ipynb -->\n"
    )
    mend(settings)

    text = (tmp_path / "README.md").read_text()
    assert find_drift(settings) == []
    assert text.count("| `steps` |") == 2


FAULTS = {
    "a cell that is not there": (OUTLINE.replace("# Title", "# Nothing"), "No cells", "title"),
    "an unknown field": (OUTLINE.replace('"steps"', '"stepz"'), "Did you mean steps", None),
    "an unknown key": (OUTLINE.replace("badge = true", "badges = true"), "badges", None),
    "a form in no cell": (OUTLINE.replace('cell = "form"', 'cell = "from"'), "no such id", None),
    "marks that are not there": (OUTLINE.replace("README.md", "outline.toml"), "lacks", None),
    "no TOML": ("[", "is not TOML", None),
}


@pytest.mark.parametrize("outline, words, lost_id", FAULTS.values(), ids=FAULTS)
def test_an_outline_that_contradicts_is_refused_and_nothing_is_written(
    project, outline, words, lost_id
):
    path = project.root / "nb.ipynb"
    if lost_id:
        path.write_text(path.read_text().replace(f'"{lost_id}"', '"other"'))
    (project.root / "outline.toml").write_text(outline)
    before = path.read_bytes()

    with pytest.raises(SettingsError, match=words):
        find_drift(project)
    assert path.read_bytes() == before


WIDGETS = {
    "text": (FormField(name="name"), False, 'name = "a"  # @param {type:"string"}'),
    "integer": (FormField(name="steps"), False, 'steps = 8  # @param {type:"integer"}'),
    "number": (FormField(name="rate"), False, 'rate = 0.5  # @param {type:"number"}'),
    "boolean": (FormField(name="flag"), False, 'flag = False  # @param {type:"boolean"}'),
    "options": (FormField(name="kind"), False, 'kind = "x"  # @param ["x", "y"]'),
    "slider": (
        FormField(name="steps", widget="slider"),
        False,
        'steps = 8  # @param {type:"slider", min:1, max:64, step:1}',
    ),
    "unset": (FormField(name="steps"), True, 'steps = None  # @param {type:"raw"}'),
    "unset options": (
        FormField(name="kind"),
        True,
        'kind = None  # @param ["None", "\\"x\\"", "\\"y\\""] {type:"raw"}',
    ),
    "own options": (
        FormField(name="size", default=2, options=[1, 2]),
        False,
        'size = 2  # @param ["1", "2"] {type:"raw"}',
    ),
}


@pytest.mark.parametrize("field, unset, line", WIDGETS.values(), ids=WIDGETS)
def test_each_kind_of_field_gets_its_widget(field, unset, line):
    section = FormSection(fields=[field], unset=unset)

    assert form_line(field, section, SCHEMA).code == line


def test_a_slider_without_bounds_is_refused():
    field = FormField(name="rate", widget="slider")

    with pytest.raises(SettingsError, match="minimum"):
        form_line(field, FormSection(fields=[field]), SCHEMA)


def test_form_shows_help_above_each_field():
    form = Form(cell="c", title="T", sections=[FormSection(fields=[FormField(name="steps")])])

    assert form_source(form, SCHEMA).split("\n") == [
        "# @title T",
        "# @markdown How long. Unit: updates.",
        'steps = 8  # @param {type:"integer"}',
    ]


CONSTANTS = {
    "alone": ('A = "x"', 'A = "y"'),
    "in a tuple": ('B, A = 1, "x"  # why', 'B, A = 1, "y"  # why'),
    "behind a letter of two bytes": ('B, A = "é", "x"', 'B, A = "é", "y"'),
    "right already": ('A = "y"', 'A = "y"'),
}


@pytest.mark.parametrize("source, wanted", CONSTANTS.values(), ids=CONSTANTS)
def test_only_the_text_of_the_constant_is_replaced(source, wanted):
    assert with_constant(source, "A", "y", "cell") == wanted


@pytest.mark.parametrize("source", ["B = 1", 'A = f("x")', 'A = "x"\nA = "z"'])
def test_a_constant_that_is_not_plain_is_refused(source):
    with pytest.raises(SettingsError, match="wants one"):
        with_constant(source, "A", "y", "cell")


def test_badge_of_another_notebook_stays():
    other, own = f"{BADGE}(https://u/b.ipynb)", f"{BADGE}(https://u/a.ipynb)"

    assert with_badge(f"# T\n\n{other}", own) == f"# T\n\n{own}\n\n{other}"


def test_table_cells_stay_within_their_row():
    table = markdown_table(["a"], [["x | y\nz"]])

    assert table.split("\n")[2] == "| x \\| y z |"


def test_text_around_the_table_is_kept(tmp_path):
    text = "a\n<!-- t: written by sync -->\nold\n<!-- end of t -->\nb"

    assert with_table(text, "t", "new", tmp_path) == text.replace("old", "new")


@pytest.fixture
def clone(tmp_path) -> Path:
    """The project itself, in another folder."""
    for name in ("helpers", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("training.ipynb", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def sync(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools", "sync", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


CHANGES = {
    "another default": ('setting(42, "Seed of', 'setting(43, "Seed of'),
    "another help": ("Peak learning rate.", "Highest learning rate."),
    "another range": ("ge=1, le=256)", "ge=1, le=128)"),
    "another name": ("dropout: float", "drop_rate: float"),
}


@pytest.mark.parametrize("old, new", CHANGES.values(), ids=CHANGES)
def test_check_fails_after_a_setting_changed_and_sync_repairs_it(clone, old, new):
    path = clone / "helpers/config.py"
    text = path.read_text()
    assert text.count(old) == 1
    assert sync(clone, "--check").returncode == 0
    path.write_text(text.replace(old, new))
    check, written, again = sync(clone, "--check"), sync(clone), sync(clone, "--check")

    assert (check.returncode, written.returncode, again.returncode) == (1, 0, 0), check.stderr
    assert "have drifted" in check.stdout


def test_a_setting_of_the_form_that_is_gone_is_named(clone):
    path = clone / "helpers/config.py"
    path.write_text(path.read_text().replace("    d_model: int", "    d_models: int"))
    done = sync(clone, "--check")

    assert done.returncode == 2
    assert "d_model" in done.stderr and "Did you mean d_models?" in done.stderr


def test_the_project_is_in_step():
    assert [drift.path for drift in find_drift(load_settings(ROOT))] == []


def test_every_outline_names_a_notebook_of_the_project():
    settings = load_settings(ROOT)

    assert set(settings.outlines) <= set(settings.paths)
    assert all(read_outline(settings.root / name) for name in settings.outlines.values())


def test_settings_table_has_a_row_for_each_setting():
    table = settings_table(SCHEMA)

    assert all(f"| `{name}` |" in table for name in SCHEMA["properties"])

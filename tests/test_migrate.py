"""Plan, apply, verify, replace, report, and take back: on the notebook of 54 cells and others."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tools.__main__ import main
from tools.codemod.journal import Journal
from tools.errors import JournalError, MigrationError, NotebookError, SettingsError
from tools.migrate import Options, load_migrations, plan, replace
from tools.notebook import Notebook, read
from tools.settings import Settings, load_settings

ROOT = Path(__file__).parents[1]
LEGACY = ROOT / "tests" / "legacy" / "training_legacy.ipynb"
SETTINGS = load_settings(ROOT)
REWRITTEN = [8, 31, 43, 44]
HEADERS = [26, 29, 42]
REMOVED = list(range(46, 54))
SNIPPETS = [
    "from utils.tier3_training_utilities import test_fine_tuning",
    "import utils.tier3_training_utilities as t3",
    "from utils.tier3_training_utilities import *",
    "from utils.training.engine.trainer import Trainer",
    "from utils.training.training_config import TrainingConfig, TrainingConfigBuilder as B",
    "import utils.training.training_core as tc\ntc.TrainingCoordinator(model)",
    "from utils.training import run_training, run_grid_sweep\nrun = run_training(m, a, c, t, e)",
    "training_config = TrainingConfig(epochs=2, use_amp=True)\ntraining_config.checkpoint_dir",
    "results = test_fine_tuning(model, config, data, n_epochs=training_config.epochs)",
    "for i in range(2):\n    results = t3.test_fine_tuning(model, config)",
    "def f(results):\n    return test_fine_tuning(model, config, **results)['loss_history']",
    "results = Trainer(model, config).train(data)\nprint(f\"{results['best_val_loss']}\")",
    "print(results['loss_history'][-1], results.get('initial_loss'))",
    "results = run = None",
    "del results",
    "class Trainer:\n    pass",
    "hp = t3.test_hyperparameter_search(make, config, data, search_space={'lr': (1e-5, 1e-3)})",
    "hp['best_params'], run",
    "!pip install -q {results}",
    "%%time\nresults = test_fine_tuning(model, config, data)",
    "%time results = test_fine_tuning(model, config, data)",
    "files = !ls\n%matplotlib inline",
    "%%bash\necho test_fine_tuning",
    "results = test_fine_tuning(model",
    "try:\n    import utils.training.engine.trainer\nexcept ImportError:\n    pass",
    "# only a comment about test_fine_tuning",
    "",
    "\tx = 1",
    "a = 1; results = test_fine_tuning(model, config, data); b = 2",
    "if True: results = test_fine_tuning(model, config, data)",
    "lambda: test_fine_tuning(model, config, data)",
    "async def g():\n    return await test_fine_tuning(model, config, data)",
    "@test_fine_tuning\ndef h(): ...",
    "x: dict = test_fine_tuning(model, config, data)",
    "(results := test_fine_tuning(model, config, data))['amp_enabled']",
    '# @title Train {display-mode: "form"}\nresults = test_fine_tuning(model, config, data)',
]
TEXTS = ["# `test_fine_tuning()`", "```python\ntest_fine_tuning(m, c\n```", "run_training", ""]


@pytest.fixture
def legacy(tmp_path) -> Path:
    """A copy of the notebook of 54 cells, away from the project."""
    path = tmp_path / "training_legacy.ipynb"
    path.write_bytes(LEGACY.read_bytes())
    return path


@pytest.fixture(scope="module")
def legacy_plan():
    return plan(read(LEGACY), SETTINGS)


def migrate(*arguments):
    """Call the command, with the settings of this project."""
    arguments = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, ["migrate", *arguments, "--root", str(ROOT)])


def written(path: Path) -> str:
    """Replace a file by the migrated one, and return the journal's id."""
    return replace(plan(read(path), SETTINGS), Journal(path.parent / "journal")).id


def counts(notebook: Notebook) -> tuple[int, int, int]:
    kinds = [cell.kind for cell in notebook.cells]
    return len(kinds), kinds.count("code"), kinds.count("markdown")


def test_the_notebook_of_54_cells_is_what_its_script_writes():
    spec = importlib.util.spec_from_file_location("build", LEGACY.with_name("build.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert LEGACY.read_text(encoding="utf-8") == module.text()
    assert counts(read(LEGACY)) == (54, 40, 14)


def test_54_cells_become_46(legacy_plan):
    assert counts(legacy_plan.result) == (46, 32, 14)


def test_the_cells_of_the_old_api_are_touched_and_no_others(legacy_plan):
    found = {status: [] for status in ("rewritten", "header rewritten", "removed")}
    for change in legacy_plan.changes:
        found[change.status].append(change.number)

    assert list(found.values()) == [REWRITTEN, HEADERS, REMOVED]
    assert legacy_plan.of_kind("left") == ()


def test_cells_not_touched_keep_their_json(legacy_plan):
    before, after = legacy_plan.notebook.cells, {c.id: c for c in legacy_plan.result.cells}

    for cell in before:
        if cell.index not in REWRITTEN + HEADERS + REMOVED:
            assert after[cell.id].node == cell.node


def test_cells_without_a_counterpart_stay_when_asked():
    kept = plan(read(LEGACY), SETTINGS, Options(keep_unported=True))

    assert counts(kept.result) == (54, 40, 14)
    assert {note.number for note in kept.of_kind("left")} >= {47, 48, 49, 52, 53}
    assert "utils.training" in kept.result.text()


def test_the_migrated_notebook_validates_clean(legacy):
    written(legacy)

    result = CliRunner().invoke(main, ["validate", str(legacy), "--root", str(ROOT)])

    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_the_migrated_notebook_runs_to_its_end_with_a_falling_loss(legacy):
    import torch

    written(legacy)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tools", "run", legacy.name]
    ran = subprocess.run(
        command, cwd=legacy.parent, env=environment, capture_output=True, text=True, timeout=300
    )

    assert ran.returncode == 0, ran.stderr
    models = list(legacy.parent.glob("runs/run-*/final_model.pt"))
    content = [torch.load(path, weights_only=True) for path in models]
    assert all({"model_state_dict", "training_config", "results"} == c.keys() for c in content)
    losses = [row["val/loss"] for row in content[0]["results"]["metrics_summary"]]
    assert losses[-1] < losses[0]


def test_a_second_migration_changes_nothing(legacy):
    written(legacy)
    after = legacy.read_bytes()

    assert migrate(legacy, "--check").exit_code == 0
    assert "nothing to migrate" in migrate(legacy, "--write").output
    assert legacy.read_bytes() == after


@pytest.mark.parametrize("mode, code", [((), 0), (("--diff",), 0), (("--check",), 1)])
def test_looking_writes_nothing(legacy, mode, code):
    before = legacy.read_bytes()

    result = migrate(legacy, *mode)

    assert result.exit_code == code
    assert legacy.read_bytes() == before
    assert [path.name for path in legacy.parent.iterdir()] == [legacy.name]


def test_the_plan_has_number_status_id_and_title_of_each_cell(legacy):
    lines = migrate(legacy).output.splitlines()

    assert "15 of 54 cells change" in lines[0]
    assert lines[1].split() == ["8", "rewritten", "imports", "import", "torch"]


def test_the_diff_is_one_for_each_cell(legacy):
    output = migrate(legacy, "--diff").output

    assert output.count("+++ ") == 15
    assert "-from utils.tier3_training_utilities import test_fine_tuning" in output


def test_the_report_holds_every_cell_old_and_new_and_both_validations(legacy, tmp_path):
    report = tmp_path / "report.md"
    notebook = read(legacy)

    migrate(legacy, "--write", "--report", report, "--journal", tmp_path / "journal")

    text = report.read_text(encoding="utf-8")
    for number in REWRITTEN + HEADERS + REMOVED:
        cell = notebook.cells[number]
        assert f"### Cell {number} (`{cell.id}`)" in text
        assert cell.source in text
    assert "54 cells (40 code, 14 markdown)" in text
    assert "46 cells (32 code, 14 markdown)" in text
    assert "After: clean." in text and "Before: clean." not in text
    assert "--rollback" in text


def test_rollback_restores_the_bytes(legacy):
    before = legacy.read_bytes()
    id = written(legacy)
    assert legacy.read_bytes() != before

    result = migrate("--rollback", id, "--journal", legacy.parent / "journal")

    assert result.exit_code == 0, result.output
    assert legacy.read_bytes() == before


def test_rollback_is_refused_when_the_file_has_changed_since(legacy):
    id = written(legacy)
    legacy.write_bytes(legacy.read_bytes() + b"\n")
    changed = legacy.read_bytes()

    result = migrate("--rollback", id, "--journal", legacy.parent / "journal")

    assert result.exit_code == 2
    assert "has changed since" in result.output
    assert legacy.read_bytes() == changed


def test_rollback_twice_is_refused(legacy):
    id = written(legacy)
    Journal(legacy.parent / "journal").rollback(id)

    with pytest.raises(JournalError, match="is as it was before"):
        Journal(legacy.parent / "journal").rollback(id)


def test_rollback_of_a_damaged_copy_is_refused(legacy):
    id = written(legacy)
    after = legacy.read_bytes()
    (copy,) = (legacy.parent / "journal" / id).glob("*.ipynb")
    copy.write_bytes(b"{}")

    with pytest.raises(JournalError, match="is damaged"):
        Journal(legacy.parent / "journal").rollback(id)
    assert legacy.read_bytes() == after


def test_rollback_of_an_unknown_entry_names_those_there_are(legacy):
    id = written(legacy)

    with pytest.raises(JournalError, match=id):
        Journal(legacy.parent / "journal").rollback("20200101T000000-abcdef")


def test_a_journal_that_cannot_be_written_leaves_the_file_alone(legacy):
    before = legacy.read_bytes()
    (legacy.parent / "journal").write_text("a file where a folder is wanted")

    result = migrate(legacy, "--write", "--journal", legacy.parent / "journal")

    assert result.exit_code == 2
    assert legacy.read_bytes() == before


def test_a_file_that_changes_between_plan_and_writing_is_left_alone(legacy, tmp_path):
    found = plan(read(legacy), SETTINGS)
    legacy.write_bytes(legacy.read_bytes() + b"\n")
    changed = legacy.read_bytes()

    with pytest.raises(NotebookError):
        found.result.write()
    assert legacy.read_bytes() == changed


def test_our_own_notebook_needs_no_migration():
    found = plan(read(ROOT / "training.ipynb"), SETTINGS)

    assert found.changes == ()
    assert found.result.text().encode() == found.notebook.raw


@pytest.mark.parametrize("name", ["only", "skip"])
def test_an_unknown_migration_is_refused(legacy, name):
    result = migrate(legacy, f"--{name}", "nothing")

    assert result.exit_code == 2
    assert "fine_tuning" in result.output


def test_a_notebook_that_cannot_be_read_is_refused_in_one_line(tmp_path):
    path = tmp_path / "broken.ipynb"
    path.write_bytes(b'{"cells": [')

    result = migrate(path, "--write")

    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert path.read_bytes() == b'{"cells": ['


@pytest.mark.parametrize("name, word", [("", "names no migrations"), ("no.such", "imported")])
def test_settings_without_migrations_are_refused(name, word):
    with pytest.raises(SettingsError, match=word):
        load_migrations(Settings(root=ROOT, migrations=name))


def test_an_outcome_that_does_not_hold_is_not_handed_out(legacy_plan):
    import dataclasses

    change = dataclasses.replace(legacy_plan.touched[0], new="def broken(:")
    broken = dataclasses.replace(legacy_plan, changes=(change,))

    with pytest.raises(MigrationError, match="would not parse"):
        _ = broken.result


def test_outputs_and_metadata_of_a_rewritten_cell_stay(legacy):
    content = json.loads(legacy.read_text(encoding="utf-8"))
    content["cells"][31] |= {"metadata": {"tags": ["train"]}, "execution_count": 7}
    legacy.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    cell = plan(read(legacy), SETTINGS).result.cell("train")

    assert cell.tags == ["train"] and cell.node["execution_count"] == 7


@given(
    st.lists(
        st.one_of(st.sampled_from(SNIPPETS), st.sampled_from(TEXTS).map(lambda t: f"%md\n{t}")),
        max_size=7,
    )
)
def test_any_mixture_of_cells_is_migrated_soundly(cells):
    """The result is verified: it parses, untouched cells are equal, a second time does nothing."""
    found = plan(_notebook(cells), SETTINGS)

    assert found.result.text()
    if not found.touched:
        assert found.result.text().encode() == found.notebook.raw


def _notebook(sources: list[str]) -> Notebook:
    nodes = []
    for i, source in enumerate(sources):
        is_text = source.startswith("%md\n")
        lines = source.removeprefix("%md\n").splitlines(keepends=True)
        node = {"cell_type": "markdown" if is_text else "code", "id": f"c{i}", "metadata": {}}
        extra = {} if is_text else {"outputs": [], "execution_count": None}
        nodes.append({**node, **extra, "source": lines})
    content = {"cells": nodes, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return Notebook(Path("x.ipynb"), (json.dumps(content, indent=1) + "\n").encode(), content)

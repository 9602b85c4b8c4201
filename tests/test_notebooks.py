"""The notebooks as their readers and runners meet them."""

import ast
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import nbformat
import pytest

from helpers.config import PRESETS, TrainingConfig
from helpers.engine.checkpoint import CheckpointStore

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOTEBOOK = ROOT / "training.ipynb"
SUMMARY_KEYS = {
    "run_id", "status", "steps", "tokens", "elapsed_s", "first_loss_s", "tokens_per_s", "val_loss",
    "val_bits_per_byte", "baselines", "checkpoint_path", "html_path", "config", "environment",
}  # fmt: skip


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def cell(notebook, name: str):
    return next(c for c in notebook.cells if c.id == name)


def code_lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip()]


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )


def run_smoke(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return command(folder, "tools", "run", str(NOTEBOOK), "-p", "preset", "smoke", *arguments)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The notebook run once with the preset smoke: its folder and its summary."""
    folder = tmp_path_factory.mktemp("smoke")
    done = run_smoke(folder)
    assert done.returncode == 0, done.stderr
    (summary,) = folder.glob("runs/*/run_summary.json")
    return folder, json.loads(summary.read_text()), done


def test_notebook_is_valid_without_outputs_and_with_slugs_as_ids(notebook):
    nbformat.validate(notebook)
    code = [c for c in notebook.cells if c.cell_type == "code"]

    assert all(not c.outputs and c.execution_count is None for c in code)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", c.id) for c in notebook.cells)
    assert notebook.metadata.language_info.name == "python"


def test_notebook_reads_like_a_story(notebook):
    kinds = "".join("t" if c.cell_type == "markdown" else "c" for c in notebook.cells)
    visible = [c for c in notebook.cells if c.cell_type == "code" and c.id != "parameters"]
    lengths = sorted(len(code_lines(c.source)) for c in visible)

    assert kinds.startswith("t") and "ccc" not in kinds
    assert 0.5 <= kinds.count("t") / len(kinds) <= 0.65
    assert lengths[len(lengths) // 2] <= 5 and lengths[-1] <= 25


def test_first_training_call_comes_within_ninety_lines_and_alone(notebook):
    train = cell(notebook, "train-run")
    before = notebook.cells[: notebook.cells.index(train)]

    assert len(code_lines(train.source)) == 1
    assert sum(len(code_lines(c.source)) for c in before if c.cell_type == "code") <= 90


@pytest.mark.parametrize("word", ["simply", "just", "easily", "obviously", "!"])
def test_prose_has_no_word_that_belittles_or_shouts(notebook, word):
    prose = " ".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    prose = re.sub(r"!\[|`[^`]*`", "", prose)

    assert not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prose)


def test_one_cell_of_literals_is_the_interface(notebook):
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    (parameters,) = tagged
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(parameters.source).body
    }

    assert set(values) - {"preset", "overrides"} <= set(TrainingConfig.model_fields)
    for name, value in values.items():
        if name not in ("preset", "overrides"):
            assert value in (None, TrainingConfig.model_fields[name].default)
    assert "@param " + json.dumps(list(PRESETS)) in parameters.source


def test_set_up_cell_fetches_the_pinned_ref_and_installs_nothing(notebook):
    source = cell(notebook, "setup").source

    assert f'"{PROJECT["project"]["urls"]["Repository"]}"' in source
    assert f'"{PROJECT["tool"]["notebooks"]["ref"]}"' in source
    assert "pip" not in source


def test_summary_type_of_the_project_is_the_one_that_is_shown():
    from helpers.notebook.report import MIME

    assert PROJECT["tool"]["notebooks"]["summary_mime"] == MIME


def test_smoke_run_leaves_a_whole_record(smoke):
    folder, summary, done = smoke

    assert summary.keys() >= SUMMARY_KEYS
    assert summary["baselines"].keys() == {"gzip", "lzma", "trigram", "fivegram"}
    assert summary["status"] == "completed" and summary["steps"] == 20
    assert 0 < summary["first_loss_s"] < summary["elapsed_s"]
    assert (folder / summary["checkpoint_path"] / "MANIFEST.json").exists()
    assert (folder / summary["html_path"]).exists() and (folder / "runs/experiments.db").exists()
    assert len(done.stdout.strip().splitlines()) == 1 and summary["run_id"] in done.stdout


def test_executed_notebook_has_every_cell_shown_and_nothing_floods(smoke):
    folder, summary, _ = smoke
    executed = nbformat.read(folder / summary["notebook_path"], as_version=4)
    code = [c for c in executed.cells if c.cell_type == "code"]

    assert all(c.execution_count for c in code)
    assert not any(o.output_type == "error" for c in code for o in c.outputs)
    assert max(len(json.dumps(c.outputs)) for c in code) < 150_000
    assert cell(executed, "reload").outputs[0].data["text/plain"] == "True"


def test_run_again_shows_the_complete_run_and_keeps_its_record_and_page(smoke):
    folder, summary, _ = smoke

    again = run_smoke(folder)

    (path,) = folder.glob("runs/*/run_summary.json")
    after = json.loads(path.read_text())
    page = nbformat.read(folder / after["notebook_path"], as_version=4)
    pages = ("html_path", "notebook_path")
    assert again.returncode == 0
    assert {k: v for k, v in after.items() if k not in pages} == {
        k: v for k, v in summary.items() if k not in pages
    }
    assert "Nothing was trained now" in str(cell(page, "train-run").outputs)
    assert (folder / summary["html_path"]).exists() and after["html_path"] != summary["html_path"]


def test_command_line_gives_the_losses_of_the_notebook(smoke, tmp_path):
    folder, summary, _ = smoke
    config = next(folder.glob("runs/*/config.json"))

    done = command(
        tmp_path, "helpers", "train", "--config", str(config), "--set", "output_dir=runs"
    )

    assert done.returncode == 0, done.stderr
    (metrics,) = tmp_path.glob("runs/*/metrics.jsonl")
    assert losses(metrics) == losses(next(folder.glob("runs/*/metrics.jsonl")))
    assert f"{summary['val_loss']:.4f}" in done.stdout


def losses(path: Path) -> list[float]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row.get("train/loss", row.get("val/loss")) for row in rows]


def test_plain_papermill_runs_the_notebook_as_it_is(tmp_path):
    done = command(
        tmp_path, "papermill", str(NOTEBOOK), "out.ipynb", "-p", "preset", "smoke",
        "-p", "max_steps", "3", "--no-progress-bar",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads(next(tmp_path.glob("runs/*/run_summary.json")).read_text())["steps"] == 3


@pytest.mark.parametrize(
    "arguments, words",
    [
        pytest.param(["max_stepz", "20"], ["max_stepz", "max_steps"], id="unknown-name"),
        pytest.param(["max_steps", "many"], ["max_steps", "many"], id="not-a-number"),
        pytest.param(["max_steps", "-1"], ["max_steps", "-1"], id="out-of-range"),
        pytest.param(["learning_rate", "nan"], ["learning_rate", "nan"], id="nan"),
        pytest.param(["preset", "quik"], ["preset", "quick"], id="unknown-preset"),
    ],
)
def test_wrong_parameters_are_refused_before_a_kernel_starts(tmp_path, arguments, words):
    done = command(tmp_path, "tools", "run", str(NOTEBOOK), "-p", *arguments)

    assert done.returncode == 2
    assert all(word in done.stderr for word in words) and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_interrupted_run_started_again_ends_with_the_same_weights(smoke, tmp_path):
    folder, summary, _ = smoke
    start = [sys.executable, "-m", "tools", "run", str(NOTEBOOK), "-p", "preset", "smoke"]
    process = subprocess.Popen(
        start,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: any(tmp_path.glob("runs/run-*/metrics.jsonl")), process)
    process.send_signal(signal.SIGINT)
    interrupted = process.wait(timeout=120)
    steps = checkpoints(tmp_path).steps()

    again = run_smoke(tmp_path)

    assert interrupted == 130 and again.returncode == 0
    assert max(steps) < 20, "the run was over before it was interrupted"
    assert weights(tmp_path) == weights(folder)
    assert math.isclose(summary["val_loss"], final_loss(tmp_path), rel_tol=0)


def wait_for(condition, process, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.005)


def checkpoints(folder: Path) -> CheckpointStore:
    (path,) = folder.glob("runs/*/checkpoints")
    return CheckpointStore(path)


def weights(folder: Path) -> dict[str, str]:
    """Hash of every file with tensors in the last checkpoint, as its manifest says."""
    store = checkpoints(folder)
    manifest = json.loads((store.path(store.steps()[-1]) / "MANIFEST.json").read_text())
    return {n: f["sha256"] for n, f in manifest["files"].items() if n.endswith(".safetensors")}


def final_loss(folder: Path) -> float:
    (path,) = folder.glob("runs/*/run_summary.json")
    return json.loads(path.read_text())["val_loss"]

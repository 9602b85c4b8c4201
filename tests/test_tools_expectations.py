"""What a smoke run tells of itself is compared with what the settings expect."""

import json

import pytest
from click.testing import CliRunner

from tests.demo_notebooks import PARAMETERS, SUMMARIZE, make_project, write_demo
from tools.__main__ import main
from tools.errors import SettingsError
from tools.run import run_notebook
from tools.running.expectations import unmet
from tools.settings import load_settings

SUMMARY = {
    "status": "completed",
    "val_loss": 2.9,
    "steps": 20,
    "baselines": {"gzip": 2.1},
    "n": None,
}
LOSSES = [6.2, 6.1, 5.0, 4.0, 4.2, 3.9]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, ""),
        ({"status": "completed", "val_loss": {"max": 9}, "steps": {"min": 1}}, ""),
        ({"status": "paused"}, "status is 'completed', but 'paused' is expected"),
        ({"steps": {"equals": 21}}, "steps is 20, but 21 is expected"),
        ({"val_loss": {"max": 2}}, "val_loss is 2.9, but at most 2 is expected"),
        ({"val_loss": {"min": 3}}, "val_loss is 2.9, but at least 3 is expected"),
        ({"baselines.gzip": {"min": 1, "max": 3}}, ""),
        ({"baselines.zip": {"min": 1}}, "baselines.zip is not told"),
        ({"status.zip": {"min": 1}}, "status.zip is not told"),
        ({"n": {"min": 1}}, "n is None, but a number is expected"),
        ({"m.jsonl:loss": {"falls": True}}, ""),
        ({"m.jsonl:loss": {"falls": True, "max": 1}}, "m.jsonl:loss is [6.2, "),
        ({"m.jsonl:rise": {"falls": True}}, "m.jsonl:rise goes from 1.5 to 5.5, but is expected"),
        ({"m.jsonl:once": {"falls": True}}, "m.jsonl:once has fewer than two values"),
        ({"m.jsonl:other": {"falls": True}}, "m.jsonl:other is not told"),
        ({"none.jsonl:loss": {"falls": True}}, "none.jsonl:loss is not told"),
        ({"steps": 1, "val_loss": {"max": 2}}, "expected; val_loss is 2.9"),
    ],
)
def test_the_summary_is_held_against_what_is_expected(tmp_path, wanted, said):
    rows = [{"loss": loss, "rise": i} for i, loss in enumerate(LOSSES, 1)] + [{"once": 1.0}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    reason = unmet(wanted, SUMMARY, tmp_path)

    assert said in reason and bool(said) == bool(reason)


def test_a_run_that_tells_nothing_disappoints_whoever_expects_something():
    assert unmet({"steps": 1}, None, None) == "no summary is told, but one is expected"
    assert unmet({}, None, None) == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"a.ipynb" = 5', 'expect."a.ipynb" in [tool.notebooks] is 5, but a table'),
        ('"a.ipynb" = { loss = [1] }', 'expect."a.ipynb".loss in [tool.notebooks] is [1], but a'),
        ('"a.ipynb" = { loss = {} }', "is {}, but a value"),
        ('"a.ipynb" = { loss = { under = 1 } }', "is {'under': 1}, but a value"),
        ('"a.ipynb" = { loss = { max = "1" } }', "is {'max': '1'}, but a value"),
        ('"a.ipynb" = { loss = { falls = false } }', "is {'falls': False}, but a value"),
    ],
)
def test_faults_of_the_settings_are_named(tmp_path, line, said):
    (tmp_path / "pyproject.toml").write_text(f"[tool.notebooks.expect]\n{line}\n")

    with pytest.raises(SettingsError) as raised:
        load_settings(tmp_path)

    assert said in str(raised.value)


def test_a_smoke_run_that_disappoints_has_failed_at_the_cell_that_told(tmp_path, monkeypatch):
    expect = '[tool.notebooks.expect]\n"demo.ipynb" = { val_loss = { max = 2.5 } }\n'
    make_project(tmp_path, monkeypatch, expect)
    path = write_demo(
        tmp_path, SUMMARIZE.replace("STATUS", "'completed'"), "x = 1", parameters=PARAMETERS
    )

    smoke, run = run_notebook(path, smoke=True), run_notebook(path)

    assert (smoke.verdict.status, smoke.verdict.cause) == ("failed", "expectation")
    assert smoke.verdict.cell.id == "c1"
    assert "val_loss is 2.913, but at most 2.5 is expected" in str(smoke.verdict)
    assert "val_loss is 2.913, but at most 2.5" in smoke.html_path.read_text()
    assert run.verdict.status == "completed"


def test_an_expected_run_that_is_never_told_of_is_a_failure(tmp_path, monkeypatch):
    make_project(
        tmp_path, monkeypatch, '[tool.notebooks.expect]\n"demo.ipynb" = { status = "completed" }\n'
    )
    write_demo(tmp_path, "x = 1", parameters=PARAMETERS)

    result = CliRunner().invoke(main, ["smoke"])

    assert result.exit_code == 1
    assert "no summary is told, but one is expected" in result.stderr
    assert "expectation, cell 3 (c1: x = 1)" in result.stdout

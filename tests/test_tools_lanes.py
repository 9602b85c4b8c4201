"""Lanes: the kernel runs elsewhere, and what a notebook asks of Colab is on record."""

import json
import os
import subprocess
import sys
import tomllib

import pytest
from click.testing import CliRunner

from tests.demo_notebooks import ROOT, make_project, outputs_of, write_demo
from tools.__main__ import main
from tools.errors import SettingsError
from tools.run import run_notebook
from tools.running.lanes import STUB_FOLDER, find_lane
from tools.settings import load_settings

LANES = """
[tool.notebooks.lanes.other]
folder = ".other"
requirements = ["needs.txt"]
environment = { COLAB_RELEASE_TAG = "release-other", NUMBER = 5 }
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with a lane of its own; the working folder of the test."""
    (tmp_path / "needs.txt").write_text("# nothing\n")
    return make_project(tmp_path, monkeypatch, LANES)


def colab(folder, source, **environment):
    """Run code beside the stand-in: its outcome, and the calls on record."""
    log = folder / "calls.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", f"from google.colab import *\n{source}"],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(STUB_FOLDER),
            "COLAB_STUB_LOG": str(log),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = log.read_text().splitlines() if log.exists() else []
    return done, [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("source", "environment", "printed"),
    [
        ("print(userdata.get('TOKEN'))", {"TOKEN": "t"}, "t"),
        ("drive.mount('d'); import os; print(os.listdir('d'))", {}, "Mounted at d\n['MyDrive']"),
        ("drive.mount('d'); drive.mount('d')", {}, "Mounted at d\nDrive already mounted at d;"),
        ("drive.mount('d'); drive.mount('d', force_remount=True)", {}, "Mounted at d\nMounted at"),
        ("drive.flush_and_unmount()", {}, "Drive not mounted, so nothing to flush and unmount."),
        ("print(output.eval_js('1', timeout_sec=5))", {}, "None"),
        ("output.register_callback('f', print); output.unregister_callback('f')", {}, ""),
        ("output.enable_custom_widget_manager(); output.disable_custom_widget_manager()", {}, ""),
        ("open('a', 'w'); files.download('a')", {}, ""),
        ("auth.authenticate_user()", {"GOOGLE_APPLICATION_CREDENTIALS": "key.json"}, ""),
    ],
)
def test_colab_does_what_it_can_without_a_front_end(tmp_path, source, environment, printed):
    done, calls = colab(tmp_path, source, **environment)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().startswith(printed)
    assert len(calls) == source.count(".") - source.count("os.")


@pytest.mark.parametrize(
    ("source", "environment", "error"),
    [
        ("userdata.get('TOKEN')", {}, "TimeoutException: Requesting secret TOKEN timed out"),
        ("userdata.get('TOKEN')", {"TOKEN": ""}, "SecretNotFoundError: Secret TOKEN does not"),
        ("drive.mount('d')", {"COLAB_STUB_DRIVE": ""}, "ValueError: mount failed"),
        ("drive.mount('a b')", {}, "ValueError: Mountpoint must not contain a space"),
        ("open('f', 'w'); drive.mount('f')", {}, "ValueError: Mountpoint must either be a dir"),
        ("open('f', 'w'); drive.mount('.')", {}, "ValueError: Mountpoint must not already"),
        ("output.eval_js('1')", {}, "TimeoutError: output.eval_js() without timeout_sec"),
        ("output.register_callback('f', 5)", {}, "ValueError: callback must be callable"),
        ("output.enable_custom_widget_manager('6')", {}, "ValueError: Unknown widget version"),
        ("files.upload()", {}, "TimeoutError: files.upload() waits for a front end"),
        ("files.download('missing')", {}, "FileNotFoundError: Cannot find file: missing"),
        ("auth.authenticate_user()", {}, "TimeoutError: auth.authenticate_user() waits"),
        ("runtime.unassign()", {}, "RuntimeManagementError: No runtime is assigned"),
    ],
)
def test_colab_fails_at_once_where_it_would_wait(tmp_path, source, environment, error):
    done, calls = colab(tmp_path, source, **environment)

    assert done.returncode == 1
    assert error in done.stderr
    assert len(calls) == 1


def test_each_call_is_on_record_and_no_secret(tmp_path):
    source = "drive.mount('d', readonly=True); userdata.get('TOKEN')"

    _, calls = colab(tmp_path, source, TOKEN="hidden")

    mount = {"mountpoint": "d", "force_remount": False, "timeout_ms": 120000, "readonly": True}
    assert calls == [
        {"call": "drive.mount", "arguments": mount},
        {"call": "userdata.get", "arguments": {"key": "TOKEN"}},
    ]


def test_a_folder_stands_for_drive_and_keeps_what_is_written(tmp_path):
    source = """drive.mount('content/drive')
open('content/drive/MyDrive/a.txt', 'w').write('kept')
drive.flush_and_unmount()
import os; print(os.path.exists('content/drive'))"""

    done, _ = colab(tmp_path, source, COLAB_STUB_DRIVE="mine")

    assert done.stdout.splitlines()[-1] == "False"
    assert (tmp_path / "mine/MyDrive/a.txt").read_text() == "kept"


def test_a_folder_stands_for_uploads(tmp_path):
    (tmp_path / "up").mkdir()
    (tmp_path / "up/a.txt").write_bytes(b"here")

    done, _ = colab(tmp_path, "print(files.upload())", COLAB_STUB_UPLOADS="up")

    assert done.stdout.strip() == "{'a.txt': b'here'}"
    assert (tmp_path / "a.txt").read_bytes() == b"here"


def test_without_a_log_nothing_is_written(tmp_path):
    done, calls = colab(tmp_path, "output.clear()", COLAB_STUB_LOG="")

    assert (done.returncode, calls, list(tmp_path.iterdir())) == (0, [], [])


def test_a_notebook_in_the_stub_lane_meets_the_stand_in(project, monkeypatch):
    monkeypatch.setenv("COLAB_STUB_LOG", str(project / "calls.jsonl"))
    source = "import os\nfrom google.colab import drive\ndrive.mount('content/drive')"
    show = "print(os.environ['COLAB_RELEASE_TAG'], os.listdir('content/drive'))"

    report = run_notebook(write_demo(project, source, show), lanes=["colab-stub"])

    assert report.verdict.status == "completed"
    assert "release-colab-stub ['MyDrive']" in outputs_of(report)
    (line,) = (project / "calls.jsonl").read_text().splitlines()
    assert json.loads(line)["call"] == "drive.mount"
    assert "COLAB_RELEASE_TAG" not in os.environ


def test_the_kernel_runs_on_the_interpreter_that_is_given(project):
    other = project / "other python"
    other.write_text(f'#!/bin/sh\nNAME=other exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    show = "import os; print(os.environ['NAME'])"

    report = run_notebook(write_demo(project, show), kernel_python=str(other))

    assert outputs_of(report).strip() == "other"


@pytest.mark.parametrize(
    ("names", "python", "said"),
    [
        (["othr"], None, "othr is not a lane of [tool.notebooks.lanes]. Did you mean other?"),
        (["other"], None, "Run: python -m tools lane other --create"),
        ([], "nowhere/python", "nowhere/python is not there, but the interpreter"),
    ],
)
def test_what_is_not_there_is_refused(project, names, python, said):
    with pytest.raises(SettingsError) as raised:
        find_lane(names, python, load_settings())

    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x = 5", "lanes.x in [tool.notebooks] is 5, but a table with a folder"),
        ("x = { requirements = [] }", "but a table with a folder"),
        ("x = { folder = 'a', constraints = 5 }", "lanes.x.constraints in [tool.notebooks] is 5"),
        (
            "x = { folder = 'a', pins = 'b' }",
            "lanes.x.pins in [tool.notebooks] is not a key of a lane. Known: folder",
        ),
    ],
)
def test_faults_of_the_settings_are_named(tmp_path, line, said):
    (tmp_path / "pyproject.toml").write_text(f"[tool.notebooks.lanes]\n{line}\n")

    with pytest.raises(SettingsError) as raised:
        load_settings(tmp_path)

    assert said in str(raised.value)


def test_a_lane_is_created_once_and_none_is_left_that_could_not_be(project):
    create = ["lane", "other", "--create"]
    (project / "needs.txt").write_text("-r missing-file.txt\n")

    failed = CliRunner().invoke(main, create)
    (project / "needs.txt").write_text("# nothing\n")
    first = CliRunner().invoke(main, create)
    again = CliRunner().invoke(main, create)

    assert failed.exit_code == 2 and "missing-file.txt" in failed.stderr
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert first.stdout.strip() == str(project / ".other/bin/python")
    assert "Setting up" in first.stderr and again.stderr == ""
    lane = find_lane(["other", "colab-stub"], None, load_settings())
    assert lane.python == first.stdout.strip()
    assert lane.environment["NUMBER"] == "5"
    assert lane.environment["PYTHONPATH"].startswith(str(STUB_FOLDER))


def test_the_pins_of_the_lanes_here_are_exact():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["notebooks"]["lanes"]
    (constraints,) = {lane["constraints"] for lane in table.values()}

    lines = (ROOT / constraints).read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]

    assert len(pins) >= 10
    assert all(line.count("==") == 1 for line in pins)

"""Notebooks at the same time, and parts of notebooks: each is told apart, all are stopped."""

import signal
import time

import psutil
import pytest
from click.testing import CliRunner

from tests.demo_notebooks import (
    PARAMETERS,
    command_line,
    make_project,
    outputs_of,
    runs_of,
    write_demo,
)
from tools.__main__ import main
from tools.errors import SettingsError
from tools.run import run_notebook

WORKFLOWS = """
[tool.notebooks.workflows]
"demo.ipynb" = { "look only" = { skip = ["c2"] }, short = { only = ["parameters", "first"] } }
"""
MEET = """\
import time
from pathlib import Path
Path("{own}").touch()
end = time.monotonic() + 30
while not Path("{other}").exists() and time.monotonic() < end:
    time.sleep(0.05)
assert Path("{other}").exists()"""
WAIT = """\
import time
from pathlib import Path
Path("running-{name}").touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    Path("saved-{name}").touch()"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with two workflows; the working folder of the test."""
    return make_project(tmp_path, monkeypatch, WORKFLOWS)


def wait_for(*paths, seconds=30):
    """Wait until the files are there."""
    end = time.monotonic() + seconds
    while not all(path.exists() for path in paths) and time.monotonic() < end:
        time.sleep(0.05)
    assert all(path.exists() for path in paths)


def test_notebooks_run_at_the_same_time_and_each_line_names_its_own(project):
    write_demo(project, MEET.format(own="a", other="b"), name="a.ipynb")
    write_demo(project, MEET.format(own="b", other="a"), "1 / 0", name="longer.ipynb")
    arguments = ["a.ipynb", "longer.ipynb", "--workers", "2", "--json", "r.json"]
    process = command_line("run", *arguments, cwd=project)

    out, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "a.ipynb       [2/2] import time" in err.splitlines()
    assert "longer.ipynb  [3/3] 1 / 0" in err.splitlines()
    assert "failed: cell 3 (c2: 1 / 0) raised ZeroDivisionError: division by zero" in err
    lines = [line.split()[:2] for line in out.splitlines()]
    assert lines == [["a.ipynb", "completed"], ["longer.ipynb", "failed"]]
    assert [run["status"] for run in runs_of(project / "r.json")] == ["completed", "failed"]
    assert [path.name for path in (project / "out").iterdir()] == ["notebooks"]


def test_an_interrupt_stops_all_and_begins_no_other(project):
    names = ["a", "b", "c"]
    for name in names:
        write_demo(project, WAIT.format(name=name), name=f"{name}.ipynb")
    paths = [f"{name}.ipynb" for name in names]
    process = command_line("run", *paths, "--workers", "2", cwd=project, start_new_session=True)
    wait_for(project / "running-a", project / "running-b")
    family = psutil.Process(process.pid).children(recursive=True)
    time.sleep(0.3)

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert (project / "saved-a").exists() and (project / "saved-b").exists()
    assert not (project / "running-c").exists()
    assert [line.split()[1] for line in out.splitlines()] == ["interrupted", "interrupted", "not"]
    assert "Traceback" not in err
    assert len(family) >= 4
    assert psutil.wait_procs(family, timeout=5)[1] == []


@pytest.mark.parametrize("delay_s", [0.4, 0.7, 1.0])
def test_an_interrupt_while_all_is_still_starting_ends_it_quietly(project, delay_s):
    for name in ("a", "b"):
        write_demo(project, WAIT.format(name=name), name=f"{name}.ipynb")
    process = command_line("run", "a.ipynb", "b.ipynb", "--workers", "2", cwd=project)
    time.sleep(delay_s)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert process.returncode in (1, 130, -signal.SIGINT)  # 1: click had not begun to run it
    assert "Traceback" not in err or process.returncode == -signal.SIGINT


def is_kernel_of(process, name):
    """Whether a process writes to the log of a notebook's run."""
    return any(f".running-{name}-" in file.path for file in process.open_files())


def test_a_runner_that_is_killed_is_a_failure_and_the_others_go_on(project):
    write_demo(project, WAIT.format(name="a"), name="a.ipynb")
    write_demo(project, "import time; time.sleep(2)", name="b.ipynb")
    process = command_line("run", "a.ipynb", "b.ipynb", "--workers", "2", cwd=project)
    wait_for(project / "running-a")
    workers = psutil.Process(process.pid).children()
    (worker,) = [w for w in workers for kernel in w.children() if is_kernel_of(kernel, "a")]

    worker.kill()
    out, _ = process.communicate(timeout=30)

    assert process.returncode == 1
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["a.ipynb", "failed"],
        ["b.ipynb", "completed"],
    ]


def test_all_notebooks_are_checked_before_the_first_is_run(project):
    write_demo(project, "x = 1")

    result = CliRunner().invoke(main, ["run", "demo.ipynb", "missing.ipynb", "--workers", "2"])

    assert (result.exit_code, result.stdout) == (2, "")
    assert "missing.ipynb cannot be read" in result.stderr
    assert not (project / "out").exists()


SHOW = ["print('one', steps)", "print('two')", "print('three')"]


def write_parts(project):
    return write_demo(project, *SHOW, parameters=PARAMETERS, tags=[["first"], [], []])


@pytest.mark.parametrize(
    ("workflow", "printed"),
    [(None, "one 1\ntwo\nthree\n"), ("look only", "one 1\nthree\n"), ("short", "one 1\n")],
)
def test_a_workflow_runs_its_cells_only(project, workflow, printed):
    report = run_notebook(write_parts(project), smoke=True, workflow=workflow)

    assert report.verdict.status == "completed"
    assert outputs_of(report) == printed
    assert "skip-execution" not in report.notebook_path.read_text()
    name = f"demo-{workflow.replace(' ', '-')}" if workflow else "demo"
    assert report.notebook_path.stem == name


def test_an_unknown_workflow_is_refused(project):
    with pytest.raises(SettingsError, match="Did you mean short"):
        run_notebook(write_parts(project), workflow="shrt")


def test_smoke_runs_each_workflow_if_asked(project):
    write_parts(project)

    result = CliRunner().invoke(main, ["smoke", "--workflows", "--json", "r.json"])

    assert result.exit_code == 0
    assert [line.partition(" completed")[0].rstrip() for line in result.stdout.splitlines()] == [
        "demo.ipynb",
        "demo.ipynb (look only)",
        "demo.ipynb (short)",
    ]
    assert [run["workflow"] for run in runs_of("r.json")] == [None, "look only", "short"]

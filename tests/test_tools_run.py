"""A run's verdict is honest, names the guilty cell, and its files are where they belong."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell

from tests.demo_notebooks import (
    MIME,
    PARAMETERS,
    SUMMARIZE,
    command_line,
    make_project,
    outputs_of,
    write_demo,
)
from tools.__main__ import main
from tools.errors import ParameterError
from tools.run import run_notebook
from tools.running.output import is_hidden, write_whole
from tools.running.verdict import CellRecord, Ending, judge


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with settings and a schema; the working folder of the test."""
    return make_project(tmp_path, monkeypatch)


def test_a_kernel_that_dies_after_the_last_cell_is_a_failure(project):
    late = "import os, threading\nt = threading.Timer(0.2, lambda: os._exit(0))\nt.daemon = True\n"
    report = run_notebook(write_demo(project, late + "t.start()", "import time; time.sleep(0.8)"))

    assert report.verdict.cause == "dead kernel"


def test_a_cell_tagged_to_be_skipped_is_no_failure(project):
    path = write_demo(project, "1 / 0", "x = 1")
    nb = nbformat.read(path, as_version=4)
    nb.cells[1].metadata["tags"] = ["skip-execution"]
    nbformat.write(nb, path)

    report = run_notebook(path)

    assert report.verdict.status == "completed"
    assert report.cells[0].reply is None


def test_a_cell_that_never_ran_is_a_failure():
    ran = CellRecord(1, "a", "x = 1", started=0.0, reply={"status": "ok"})
    left = CellRecord(2, "b", "y = 1")

    verdict = judge([ran, left], Ending())

    assert (verdict.status, verdict.cause, verdict.cell) == ("failed", "not run", left)


def test_terminal_colours_and_escapes_do_not_reach_the_message(project):
    report = run_notebook(write_demo(project, r"raise ValueError('\x1b]0;title\x07red\x1b[31m')"))

    assert "ValueError: red" in str(report.verdict)
    assert "\x1b" not in str(report.verdict)


def test_the_kernel_is_this_interpreter_in_this_folder(project, monkeypatch):
    spec = project / "kernels" / "python3"
    spec.mkdir(parents=True)
    elsewhere = {"argv": ["/bin/false"], "display_name": "Other", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(elsewhere))
    monkeypatch.setenv("JUPYTER_PATH", str(project))
    (project / "deep").mkdir()
    source = (
        "import os, sys, time\nprint(sys.executable, os.getcwd(), os.environ['TRAINBOOK_HEADLESS'],"
        " time.time() - float(os.environ['TRAINBOOK_KERNEL_STARTED']) < 60)"
    )

    report = run_notebook(write_demo(project / "deep", source))

    assert outputs_of(report).strip() == f"{sys.executable} {project} 1 True"


SHOW = "print(repr((steps, name, sizes, later)))"


def test_parameters_reach_the_notebook_unchanged(project):
    path = write_demo(project, SHOW, parameters=PARAMETERS)
    values = {"steps": 7, "name": 'q"\n\\{x} ü', "sizes": [2, [None]], "later": None}

    report = run_notebook(path, values)

    assert outputs_of(report).strip() == repr(tuple(values.values()))
    assert [(cell.number, cell.id) for cell in report.cells] == [(2, "parameters"), (3, "c1")]


def test_smoke_parameters_give_way_to_given_ones(project):
    path = write_demo(project, SHOW, parameters=PARAMETERS)

    assert "(1, 'a'" in outputs_of(run_notebook(path, smoke=True))
    assert "(3, 'b'" in outputs_of(run_notebook(path, [("steps", "3"), ("name", "b")], smoke=True))


def test_a_wrong_parameter_is_refused_before_anything_is_written(project):
    path = write_demo(project, "1 / 0", parameters=PARAMETERS)

    with pytest.raises(ParameterError, match="Did you mean steps"):
        run_notebook(path, {"stepz": 1})

    assert not (project / "out").exists()


def test_a_folder_with_braces_and_blanks_is_no_template(project):
    folder = project / "a {b} {0.__class__}"
    folder.mkdir()

    report = run_notebook(write_demo(folder, "print('here')"), output_dir=folder)

    assert "here" in outputs_of(report)


@pytest.mark.parametrize("status", ["completed", "paused"])
def test_a_run_gets_its_notebook_and_its_paths(project, status):
    path = write_demo(project, SUMMARIZE.replace("STATUS", repr(status)))

    for _ in range(2):
        report = run_notebook(path)

    stored = json.loads((project / "out/demo-1/summary.json").read_text())
    html = "out/demo-1/notebook/demo-2.html"  # the page of the first run stays
    assert report.line() == (
        f"run demo-1: {status}, validation loss 2.913 nats/token, 1.532 bits/byte, 97 s, {html}"
    )
    assert (stored["html_path"], stored["steps"]) == (html, 3)
    assert Path(stored["notebook_path"]).is_file()
    assert sorted(os.listdir("out/demo-1/notebook")) == [
        "demo-2.html",
        "demo-2.ipynb",
        "demo.html",
        "demo.ipynb",
    ]
    assert os.listdir("out") == ["demo-1"]


def test_a_failed_notebook_does_not_replace_the_files_of_its_run(project):
    path = write_demo(project, SUMMARIZE.replace("STATUS", "'completed'"), "1 / 0")

    report = run_notebook(path)

    assert report.notebook_path.parent.parent == Path("out/notebooks")
    assert os.listdir("out/demo-1") == ["summary.json"]


def test_a_summary_that_lacks_everything_makes_a_shorter_line(project):
    path = write_demo(project, f'display({{"{MIME}": {{"run_id": "r\\n1"}}}}, raw=True)')

    report = run_notebook(path)

    assert report.line().startswith("run r 1: completed, ")
    assert report.notebook_path.parent.parent == Path("out/notebooks")


def test_the_written_notebook_names_no_folder_of_this_machine(project):
    report = run_notebook(write_demo(project, "1"))

    assert str(project) not in report.notebook_path.read_text()
    nbformat.validate(nbformat.read(report.notebook_path, as_version=4))


def test_the_written_notebook_calls_no_cell_completed_that_was_not(project):
    report = run_notebook(write_demo(project, "x = 1", "import os; os._exit(9)", "y = 1"))

    cells = nbformat.read(report.notebook_path, as_version=4).cells
    told = {cell.id: cell.metadata.papermill.status for cell in cells[1:]}
    assert told == {"c1": "completed", "c2": "failed", "c3": "pending"}


def test_a_kernel_that_cannot_start_is_a_failure(project, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    path = write_demo(project, "x = 1")
    nb = nbformat.read(path, as_version=4)
    nb.cells[1].outputs = [nbformat.v4.new_output("display_data", {MIME: {"run_id": "old"}})]
    nbformat.write(nb, path)

    report = run_notebook(path)

    assert (report.verdict.cause, report.summary) == ("dead kernel", None)
    assert "the kernel did not start" in str(report.verdict)


def test_html_is_escaped_and_hides_the_code_of_forms(project):
    path = write_demo(project, "print('<script>alert(1)</script>')", "# @title Form\nhidden = 1")
    nb = nbformat.read(path, as_version=4)
    nb.cells[2].metadata["cellView"] = "form"
    nbformat.write(nb, path)

    page = run_notebook(path).html_path.read_text()

    assert "&lt;script&gt;alert" in page
    assert "<script>alert" not in page
    assert "hidden" not in page.partition("<body")[2].replace("hidden=", "")


@pytest.mark.parametrize(
    ("source", "metadata", "hidden"),
    [
        ("# @title Form\nx = 1", {"cellView": "form"}, True),
        ("x = 1", {"cellView": "form"}, False),
        ("# @title Form\nx = 1", {}, False),
        ("x = 1", {"jupyter": {"source_hidden": True}}, True),
    ],
)
def test_code_is_hidden_where_the_front_ends_hide_it(source, metadata, hidden):
    assert is_hidden(new_code_cell(source, metadata=metadata)) is hidden


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \udcff")

    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "missing.ipynb"], "cannot be read"),
        (["run", "pyproject.toml"], "is not sound JSON"),
        (["run", "plain.ipynb", "-p", "steps", "1"], "No cells are tagged"),
        (["run", "demo.ipynb", "-p", "steps", "0"], "at least 1, or None is wanted. Length"),
        (["run", "demo.ipynb", "-p", "step", "1"], "Did you mean steps?"),
        (["run", "plain.ipynb", "--smoke"], "has no smoke parameters"),
        (["smoke", "plain.ipynb"], "has no smoke parameters"),
        (["run", "demo.ipynb", "--timeout", "0"], "--timeout"),
    ],
)
def test_faults_of_the_caller_exit_with_2_and_one_message(project, arguments, said):
    write_demo(project, "1 / 0", parameters=PARAMETERS)
    write_demo(project, "1 / 0", name="plain.ipynb")

    result = CliRunner().invoke(main, arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_run_prints_one_line_and_its_progress_elsewhere(project):
    write_demo(project, "import os; os.system('echo noise'); print(1)", "# @title Show it\n2")
    process = command_line("run", "demo.ipynb", cwd=project)

    out, err = process.communicate(timeout=60)

    assert process.returncode == 0
    assert out.startswith("notebook demo.ipynb: completed, ")
    assert len(out.splitlines()) == 1
    *lines, last = err.splitlines()
    assert lines == ["[2/3] import os; os.system('echo noise'); print(1)", "[3/3] Show it"]
    assert " MiB  in all; peak in cell " in last


def test_a_failed_run_exits_with_1_and_names_the_cell(project):
    write_demo(project, "1 / 0")

    result = CliRunner().invoke(main, ["run", "demo.ipynb"])

    assert (result.exit_code, result.stdout) == (1, "")
    assert "failed: cell 2 (c1: 1 / 0) raised ZeroDivisionError: division by zero" in result.stderr


def test_smoke_runs_the_notebooks_of_the_project(project):
    write_demo(project, "assert steps == 1", parameters=PARAMETERS)
    assert CliRunner().invoke(main, ["smoke"]).exit_code == 0
    write_demo(project, "assert steps == 2", parameters=PARAMETERS)

    result = CliRunner().invoke(main, ["smoke"])

    assert result.exit_code == 1
    assert result.stdout.split()[:2] == ["demo.ipynb", "failed"]
    assert "error, cell 3 (c1: assert steps == 2)" in result.stdout


SAVE = """\
import time
from pathlib import Path
try:
    Path("running").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.3)
    Path("saved").touch()
"""


def wait_for(path, seconds=30):
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_cell_may_save_and_the_rest_does_not_run(project, number):
    write_demo(project, SAVE, "from pathlib import Path\nPath('after').touch()")
    process = command_line("run", "demo.ipynb", cwd=project, start_new_session=True)
    wait_for(project / "running")
    time.sleep(0.3)

    process.send_signal(number)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "interrupted: cell 2 (c1: import time) was the last to run" in err
    assert "Traceback" not in err
    assert (project / "saved").exists()
    assert not (project / "after").exists()


def test_a_second_interrupt_ends_a_cell_that_will_not_stop(project):
    stubborn = SAVE.replace("time.sleep(0.3)", "Path('first').touch(); time.sleep(60)")
    write_demo(project, stubborn)
    process = command_line("run", "demo.ipynb", cwd=project, start_new_session=True)
    wait_for(project / "running")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    wait_for(project / "first")

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert "Traceback" not in err
    assert "pending" not in err


def test_a_run_outside_the_main_thread_works(project):
    path, reports = write_demo(project, "1"), []
    thread = threading.Thread(target=lambda: reports.append(run_notebook(path)))

    thread.start()
    thread.join(60)

    assert [report.verdict.status for report in reports] == ["completed"]

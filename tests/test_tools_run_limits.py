"""Limits of time and memory: whose limit holds, what is measured, and what a death is called."""

import signal

import nbformat
import pytest

from tests.demo_notebooks import make_project, write_demo
from tools.errors import SettingsError
from tools.run import run_notebook
from tools.running.limits import Limits
from tools.running.memory import is_out_of_memory, memory_kills
from tools.running.verdict import CellRecord, Ending, failing_line, judge
from tools.settings import load_settings

TABLE = {"cell_s": 60, "total_s": 600, "tags": {"long": 1800, "quick": 30}}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder whose settings allow cells tagged quick one second."""
    limits = "[tool.notebooks.limits]\ncell_s = 50\ntags = { quick = 1, long = 40 }\n"
    return make_project(tmp_path, monkeypatch, limits)


@pytest.mark.parametrize(
    ("given", "tags", "said"),
    [
        ({}, [], "60 s, the limit of each cell"),
        ({}, ["other"], "60 s, the limit of each cell"),
        ({}, ["quick"], "30 s, the limit of cells tagged quick"),
        ({}, ["quick", "long"], "1800 s, the limit of cells tagged long"),
        ({"cell_s": 5}, ["long"], "5 s, the limit of each cell"),
        ({"cell_s": None, "total_s": 7}, [], "60 s, the limit of each cell"),
    ],
)
def test_what_is_given_goes_before_tags_and_tags_before_each_cell(given, tags, said):
    assert str(Limits.of(TABLE, **given).of_cell(tags)) == said


def test_without_settings_nothing_is_limited():
    limits = Limits.of({})

    assert (limits.of_cell(["long"]), limits.of_all(), limits.memory_mib) == (None, None, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cell = 5", "limits.cell is not a limit. Did you mean cell_s?"),
        ("cell_s = 'ten'", "limits.cell_s in [tool.notebooks] is 'ten', but a number of seconds"),
        ("total_s = 0", "limits.total_s in [tool.notebooks] is 0, but a number"),
        ("total_s = inf", "limits.total_s in [tool.notebooks] is inf, but a number"),
        ("memory_mib = true", "limits.memory_mib in [tool.notebooks] is True, but a number of MiB"),
        ("tags = 5", "limits.tags in [tool.notebooks] is 5, but a table of tag to seconds"),
        ("tags = { long = -1 }", "limits.tags.long in [tool.notebooks] is -1, but a number"),
    ],
)
def test_faults_of_the_settings_are_named(tmp_path, line, said):
    (tmp_path / "pyproject.toml").write_text(f"[tool.notebooks.limits]\n{line}\n")

    with pytest.raises(SettingsError) as raised:
        load_settings(tmp_path)

    assert said in str(raised.value)


SAVE = """\
import time
from pathlib import Path
try:
    time.sleep(60)
except KeyboardInterrupt:
    Path("saved").touch()
    raise
"""


def test_a_cell_beyond_the_limit_of_its_tag_may_save_and_its_page_says_where_it_hung(project):
    path = write_demo(project, "x = 1", SAVE, "y = 1", tags=[["long"], ["quick"]])

    report = run_notebook(path)

    verdict = report.verdict
    assert (verdict.cause, verdict.cell.id) == ("timeout", "c2")
    assert verdict.line in (4, 7)  # where it slept, or where it raised anew
    assert verdict.reason == "did not end within 1 s, the limit of cells tagged quick"
    assert (project / "saved").exists()
    assert 1 <= verdict.cell.seconds < 5
    page = report.html_path.read_text()
    assert "KeyboardInterrupt" in page
    assert "did not end within 1 s, the limit of cells tagged quick" in page


def test_memory_is_that_of_each_cell_with_all_its_processes(project):
    grow = "x = b'x' * (200 * 2**20); import time; time.sleep(1)"
    child = f'import subprocess, sys\ngrow = "{grow}"'
    run = "subprocess.run([sys.executable, '-c', grow], check=True)"
    report = run_notebook(write_demo(project, child, run, "x = 1"))

    before, during, after = (cell.memory_mib for cell in report.cells)
    assert report.verdict.status == "completed"
    assert before < 150 and after < 150
    assert 200 < during < 400
    assert report.peak_cell.id == "c2"


def death(**ending):
    """The verdict on a kernel that was killed while its second cell ran."""
    ran = CellRecord(1, "a", "x = 1", started=0.0, reply={"status": "ok"})
    killed = CellRecord(2, "b", "y = 1", started=1.0)
    return judge([ran, killed], Ending("dead kernel", -signal.SIGKILL, size_mib=812.4, **ending))


@pytest.mark.parametrize(
    ("ending", "cause", "said"),
    [
        ({"memory_kills": 1}, "out of memory", "killed by the system, which was out of memory"),
        ({"memory_kills": None}, "dead kernel", "killed (SIGKILL), probably out of memory"),
        ({"memory_kills": 0}, "dead kernel", "not by the system for want of memory"),
        ({"overrun": "812 MiB of 800 MiB allowed"}, "out of memory", "812 MiB of 800 MiB allowed"),
    ],
)
def test_a_killed_kernel_is_out_of_memory_as_far_as_the_system_tells(ending, cause, said):
    verdict = death(**ending)

    assert (verdict.cause, verdict.cell.id) == (cause, "b")
    assert said in verdict.reason
    assert "overrun" in ending or verdict.reason.endswith("it held 812 MiB when last seen")


GROUPS_V2 = {"proc/self/cgroup": "0::/box\n"}
GROUPS_V1 = {"proc/self/cgroup": "5:cpuset:/\n4:memory:/box\n0::/\n"}
EVENTS = {"sys/fs/cgroup/box/memory.events": "low 0\noom 4\noom_kill 3\noom_group_kill 0\n"}
CONTROL = {"sys/fs/cgroup/memory/box/memory.oom_control": "oom_kill_disable 0\noom_kill 2\n"}
MACHINE = {"proc/vmstat": "nr_free_pages 5\noom_kill 7\n"}


@pytest.mark.parametrize(
    ("files", "count"),
    [
        pytest.param(GROUPS_V2 | EVENTS | MACHINE, 3, id="control group"),
        pytest.param(GROUPS_V1 | CONTROL | MACHINE, 2, id="control group of version 1"),
        pytest.param(GROUPS_V2 | MACHINE, 7, id="machine"),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_kills_for_memory_are_counted_in_the_nearest_group(tmp_path, files, count):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert memory_kills(tmp_path) == count


@pytest.mark.parametrize(
    ("name", "value", "is_memory"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("torch.OutOfMemoryError", "", True),
        ("RuntimeError", "CUDA error: out of memory", True),
        ("RuntimeError", "MPS backend out of memory (MPS allocated: 8 GB)", True),
        ("_ArrayMemoryError", "Unable to allocate 8.00 TiB", True),
        ("RuntimeError", "shape mismatch", False),
        ("ValueError", "this essay is about being out of memory", False),
    ],
)
def test_an_allocation_that_failed_is_told_from_other_errors(name, value, is_memory):
    assert is_out_of_memory(name, value) is is_memory


@pytest.mark.parametrize(
    ("traceback", "line"),
    [
        (["Traceback", "Cell In[3], line 7\n----> 7 f()", "File a.py:2\n----> 2 1/0"], 7),
        (["/tmp/ipykernel_1/2.py in <module>\n      1 x\n----> 2 1/0"], 2),
        (['  File "/tmp/ipykernel_1/2.py", line 4\n    def ('], 4),
        (["  Cell In[1], line 5\n    def broken(:"], 5),
        ([], 1),
    ],
    ids=["now", "IPython 7", "syntax in IPython 7", "syntax", "none"],
)
def test_the_line_to_blame_is_the_one_in_the_cell(traceback, line):
    assert failing_line({"traceback": traceback}) == line


def test_the_page_of_a_failure_marks_the_cell_and_the_notebook_stays_as_it_is(project):
    report = run_notebook(write_demo(project, "x = 1", "!false", "y = 1"))

    page = report.html_path.read_text()
    ids = [cell.id for cell in nbformat.read(report.notebook_path, as_version=4).cells]
    told = "ran a shell command that failed with exit code 1"
    assert page.count(told) == 2  # on top and at the cell
    assert page.index('href="#cell-to-blame"') < page.index('id="cell-to-blame"')
    assert page.index("cell-id=c1") < page.index('id="cell-to-blame"') < page.index("cell-id=c3")
    assert ids == ["heading", "c1", "c2", "c3"]

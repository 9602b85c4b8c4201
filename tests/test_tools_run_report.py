"""Reports of runs say the same to people, to programs, to a CI server and to GitHub."""

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from tests.demo_notebooks import PARAMETERS, make_project, runs_of, write_demo
from tools.__main__ import main
from tools.run import RunReport
from tools.running.run_report import annotations, slowest, table, to_junit, write_reports
from tools.running.verdict import CellRecord, Verdict

OK = {"status": "ok"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder; the working folder of the test."""
    return make_project(tmp_path, monkeypatch)


def record(number, seconds, memory_mib, **more):
    """A cell that ran, or that did not if it has no seconds."""
    reply = None if seconds is None else OK
    started = None if seconds is None else 0.0
    cell = CellRecord(number, f"c{number}", f"x = {number}", started=started, reply=reply, **more)
    return dataclasses.replace(cell, seconds=seconds, memory_mib=memory_mib)


CELLS = tuple(
    record(number, seconds, memory)
    for number, (seconds, memory) in enumerate(
        [(0.01, 50), (3.2, 80), (700, 1300), (0.5, 90), (1.5, 95), (0.2, 90), (0.3, 90)], 1
    )
)


def report_of(verdict, cells=CELLS, **more):
    """A report without files."""
    return RunReport(
        Path("some/demo.ipynb"), verdict, tuple(cells), 712.0, None, None, None, **more
    )


def test_the_five_slowest_cells_and_the_peak_are_shown_in_columns():
    assert slowest(report_of(Verdict("completed"))).splitlines() == [
        "  11.7 min    1300 MiB  cell 3 (c3: x = 3)",
        "     3.2 s      80 MiB  cell 2 (c2: x = 2)",
        "     1.5 s      95 MiB  cell 5 (c5: x = 5)",
        "     0.5 s      90 MiB  cell 4 (c4: x = 4)",
        "     0.3 s      90 MiB  cell 7 (c7: x = 7)",
        "  11.9 min    1300 MiB  in all; peak in cell 3 (c3)",
    ]


def test_gpu_memory_is_shown_where_there_is_some():
    cells = [record(1, 2.0, 900, gpu_mib=3000.4)]

    assert slowest(report_of(Verdict("completed"), cells)).endswith(", 3000 MiB of GPU memory")


def test_a_run_without_a_cell_has_no_times_and_a_line_of_the_table():
    report = report_of(Verdict("failed", "dead kernel", "the kernel did not start"), ())

    assert slowest(report) == ""
    assert table([report]).endswith(" dead kernel")


def test_programs_are_told_everything_and_only_valid_json(project):
    path = write_demo(project, "x = 1", "\n\n1 / 0", "y = float('nan')", parameters=PARAMETERS)
    arguments = ["run", str(path), "-p", "later", "2", "--timeout", "50", "--json", "new/r.json"]

    code = CliRunner().invoke(main, arguments).exit_code

    (run,) = runs_of("new/r.json")
    assert code == 1
    assert (run["status"], run["cause"]) == ("failed", "error")
    assert run["reason"] == "raised ZeroDivisionError: division by zero"
    assert run["cell"] | {"file_line": 0} == {
        "number": 4, "id": "c2", "title": "1 / 0", "line": 3, "file_line": 0,
    }  # fmt: skip
    assert "1 / 0" in path.read_text().splitlines()[run["cell"]["file_line"] - 1]
    assert [cell["id"] for cell in run["cells"]] == ["parameters", "c1", "c2", "c3"]
    assert [cell["seconds"] is None for cell in run["cells"]] == [False, False, False, True]
    assert run["cells"][1]["memory_mib"] > 10
    assert run["peak_memory_mib"] >= run["cells"][1]["memory_mib"]
    assert run["limits"]["cell_s"] == 50
    assert run["parameters"] == {"later": 2}
    assert run["versions"]["python"] and run["versions"]["ipykernel"]
    assert Path(run["html_path"]).is_file() and run["summary"] is None


def test_numbers_that_json_does_not_know_become_text(tmp_path):
    report = report_of(Verdict("completed"), parameters={"rate": float("nan"), 1: [float("inf")]})

    write_reports([report], None, tmp_path / "r.json")

    assert runs_of(tmp_path / "r.json")[0]["parameters"] == {"rate": "nan", "1": ["inf"]}


def test_junit_has_a_case_for_each_cell_and_the_fault_at_its_cell():
    cells = [record(1, 1.0, 50), record(2, 2.0, 60), record(3, None, None)]
    fault = Verdict("failed", "error", "raised E: <&\x0c>", cells[1], "trace\x00back")

    root = ElementTree.fromstring(to_junit([report_of(fault, cells, workflow="only data")]))

    (suite,) = root
    assert suite.get("name") == "some/demo.ipynb (only data)"
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["3", "1", "0", "1"]
    assert suite[0].get("name") == "cell 1 (c1: x = 1)"
    assert {case.get("classname") for case in suite} == {"some.demo"}
    assert suite[1].find("failure").get("message") == "raised E: <&>"
    assert suite[2].find("skipped") is not None


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (Verdict("failed", "dead kernel", "the kernel did not start"), "failure"),
        (Verdict("interrupted", "interrupted", "before a cell had run"), "error"),
    ],
)
def test_junit_blames_the_notebook_where_no_cell_is_to_blame(verdict, kind):
    root = ElementTree.fromstring(to_junit([report_of(verdict, ())]))

    assert root[0][0].find(kind).get("type") == verdict.cause


def test_github_is_told_the_line_of_the_file(project):
    path = write_demo(project, "x = 1\nif x:\n    raise ValueError('a: 100%, b')")

    result = CliRunner().invoke(main, ["run", "demo.ipynb", "--format", "github"])

    note = result.stdout.splitlines()[0]
    line = int(note.partition("line=")[2].partition(",")[0])
    assert note.startswith("::error file=demo.ipynb,line=")
    assert "title=demo.ipynb failed%3A error::failed: cell 2 (c1: x = 1) raised" in note
    assert "ValueError: a: 100%25, b%0A" in note
    assert "raise ValueError" in path.read_text().splitlines()[line - 1]


def test_sound_runs_are_not_annotated():
    assert annotations([report_of(Verdict("completed"))]) == []


def test_reports_of_several_notebooks_are_one_file(project):
    write_demo(project, "x = 1", parameters=PARAMETERS)
    write_demo(project, "1 / 0", name="other.ipynb")

    result = CliRunner().invoke(
        main, ["run", "demo.ipynb", "other.ipynb", "--json", "r.json", "--junit", "r.xml"]
    )

    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert [line.split()[:2] for line in lines] == [
        ["demo.ipynb", "completed"],
        ["other.ipynb", "failed"],
    ]
    assert [run["notebook"] for run in runs_of("r.json")] == ["demo.ipynb", "other.ipynb"]
    assert json.loads(Path("r.json").read_text())["schema"] == 1
    assert len(ElementTree.parse("r.xml").getroot()) == 2

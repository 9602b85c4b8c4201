"""The formats of validate's report: read back by their own rules, escaped, complete."""

import json
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from tools.checking.finding import Finding
from tools.checking.house import summaries
from tools.formats import FORMATS, render
from tools.validate import Report

ODD = "50%, a:b\nnext \x07line <&>"


def finding(path: Path, **changes) -> Finding:
    fields = {
        "code": "PY301",
        "severity": "error",
        "message": "`nam` is not bound.",
        "cure": "Bind it.",
        "cell_id": "data-load",
        "cell_index": 4,
        "line": 2,
        "file_line": 71,
        "column": 11,
        "title": "Load, then look",
        "excerpt": "    print(a, nam.x)",
    }
    return Finding(path, **{**fields, **changes})


@pytest.fixture
def report(tmp_path, monkeypatch) -> Report:
    """Two notebooks of three with findings of each severity and of each kind of place."""
    monkeypatch.chdir(tmp_path)
    first, second, clean = (tmp_path / name for name in ("a b.ipynb", "sub/c.ipynb", "d.ipynb"))
    whole = {"cell_id": None, "cell_index": None, "line": None, "file_line": None, "column": None}
    found = (
        finding(first, code="NB001", message=ODD, title="", excerpt="", **whole),
        finding(first),
        finding(second, code="PY306", severity="warning", line=None, excerpt="", column=None),
        finding(second, severity="info", message="Only said."),
    )
    return Report(found, (first, second, clean), n_known=2, n_accepted=1)


def test_text_shows_source_mark_place_and_counts(report):
    text = click.unstyle(render(report, "text"))

    assert 'error PY301  cell 5 (data-load) "Load, then look", line 2  a b.ipynb:71' in text
    lines = text.splitlines()
    mark = next(i for i, line in enumerate(lines) if "^" in line)
    start = lines[mark].index("^")
    assert lines[mark - 1][start : start + lines[mark].count("^")] == "a"
    assert lines[-1] == (
        "3 notebooks, 2 errors, 1 warning, 1 info, 2 in the baseline, 1 accepted in the notebooks"
    )


def test_text_of_a_clean_report_is_one_line():
    assert render(Report((), (Path("a"),)), "text") == "1 notebook, 0 errors, 0 warnings"


def test_text_marks_the_column_in_a_line_that_is_cut(report):
    line = "x = [" + "1, " * 80 + "nam]"
    wide = Report((finding(Path("a"), excerpt=line, column=line.index("nam") + 1),), ())

    lines = click.unstyle(render(wide, "text")).splitlines()
    mark = next(i for i, line in enumerate(lines) if "^" in line)

    assert lines[mark - 1][lines[mark].index("^") :].startswith("nam")
    assert max(map(len, lines)) <= 100


def test_sarif_has_what_its_schema_and_a_viewer_need(report):
    sarif = json.loads(render(report, "sarif"))

    (run,) = sarif["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert sarif["version"] == "2.1.0" and sarif["$schema"].endswith("sarif-2.1.0.json")
    assert [rule["id"] for rule in rules] == list(summaries())
    assert all(rule["help"]["text"] and rule["shortDescription"]["text"] for rule in rules)
    assert len(run["results"]) == len(report.findings)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note") and result["message"]["text"]
        assert result["partialFingerprints"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["region"]["startLine"] >= 1


def test_sarif_names_the_line_of_the_file_and_the_cell(report):
    result = json.loads(render(report, "sarif"))["runs"][0]["results"][1]

    (location,) = result["locations"]
    assert location["physicalLocation"]["artifactLocation"] == {
        "uri": "a%20b.ipynb",
        "uriBaseId": "SRCROOT",
    }
    assert location["physicalLocation"]["region"]["startLine"] == 71
    assert location["logicalLocations"][0]["name"] == "data-load"


def test_github_commands_are_one_line_each_and_escaped(report):
    lines = render(report, "github").split("\n")

    assert len(lines) == len(report.findings)
    assert lines[0] == (
        "::error file=a b.ipynb,line=1,title=NB001::50%25, a:b%0Anext \x07line <&> Bind it."
    )
    assert lines[1].startswith(
        '::error file=a b.ipynb,line=71,title=PY301 cell 5 (data-load) "Load%2C then look"'
    )
    assert [line.split(" ")[0] for line in lines[2:]] == ["::warning", "::notice"]


def test_junit_has_a_case_for_each_notebook_and_a_failure_for_each_with_faults(report):
    root = ElementTree.fromstring(render(report, "junit"))

    suite = root.find("testsuite")
    cases = {case.get("name"): case for case in suite}
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    assert list(cases) == ["a b.ipynb", "sub/c.ipynb", "d.ipynb"]
    assert cases["a b.ipynb"].find("failure").get("message") == "NB001, PY301"
    assert "a b.ipynb:71: error PY301" in cases["a b.ipynb"].find("failure").text
    assert "Only said." in cases["sub/c.ipynb"].find("system-out").text
    assert len(cases["d.ipynb"]) == 0


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_fails_on_odd_text(name):
    odd = "".join(map(chr, range(33))) + "\x85\u2028\ud800\uffff\U0001f600"

    text = render(Report((finding(Path("a"), message=odd, excerpt=odd, title=odd),), ()), name)

    assert text

"""RELIABILITY.md says what its data says, and its data what one run of the tests found."""

import ast
import json
import re
from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.promises import ALONE, LIMITS, LONG, PROMISES, Promise

ROOT = Path(__file__).parents[1]
RECORD = {
    "promise": "kills",
    "claim": "Nothing is lost.",
    "figures": {"kills": 1000, "by moment": {"step": 600, "save": 400}},
    "command": "python -m pytest",
    "seed": 7,
    "seconds": 12.0,
    "form": "full",
}


def functions_of(file: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def recorded_keys(path: Path) -> list[str]:
    """The keys that a file makes records of; parts that depend on a condition are left out."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "record"
    ]
    keys = [
        next(n for n in ast.walk(call.args[0]) if isinstance(n, ast.Constant)) for call in calls
    ]
    return [key.value for key in keys]


def data_of(**results) -> dict:
    machine = {"system": "Linux", "CPUs": 2}
    return {
        "form": "full",
        "date": "2026-01-01",
        "machine": machine,
        "seconds": 60,
        "results": results,
    }


def outcome_in(page: str, promise: Promise) -> str:
    """What the table says of a promise."""
    (row,) = [row for row in page.splitlines() if row.startswith(f"| {promise.title} | ")]
    return row.split(" | ")[1]


def test_the_page_is_what_its_data_says():
    data = json.loads((ROOT / "RELIABILITY.json").read_text(encoding="utf-8"))

    assert (ROOT / "RELIABILITY.md").read_text(encoding="utf-8") == report.page(data)
    assert data["form"] == "full"
    assert data["results"].keys() <= {promise.key for promise in PROMISES}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.key)
def test_every_promise_has_its_test_and_its_negative_controls(promise):
    assert (ROOT / promise.file).is_file()
    assert promise.key.removesuffix("_colab") in recorded_keys(ROOT / promise.file)
    for control in promise.controls:
        file, _, name = control.partition("::")
        assert name.startswith("test_") and name in functions_of(file)


def test_every_record_belongs_to_a_promise():
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    recorded = {
        key
        for path in files
        if "tests.faults.scale import" in path.read_text(encoding="utf-8")
        for key in recorded_keys(path)
    }

    assert recorded <= {promise.key for promise in PROMISES}


def test_links_of_the_page_lead_to_files():
    links = re.findall(r"\]\(([^)]+)\)", report.page(data_of(kills={"outcome": "failed"})))

    assert links and [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize(
    "record, code, outcome",
    [
        pytest.param(RECORD, 0, "held", id="figures of this run"),
        pytest.param(RECORD, 1, "failed", id="a test of the file failed"),
        pytest.param(None, 1, "failed", id="it failed before its figures"),
        pytest.param(None, 0, "not run", id="skipped"),
        pytest.param({**RECORD, "form": "quick"}, 0, "not run", id="figures of another form"),
    ],
)
def test_a_promise_has_figures_only_where_all_its_tests_passed(record, code, outcome):
    result = report.result_of(record, code, "full")
    page = report.page(data_of(kills=result))

    assert result["outcome"] == outcome
    assert outcome in outcome_in(page, PROMISES[0])
    assert ("| kills | 1,000 |" in page) == ("Nothing is lost." in page) == (outcome == "held")
    assert page.count("Failed:") == (outcome == "failed")


def test_what_is_run_again_is_marked_and_the_rest_stays(monkeypatch):
    held = report.result_of(RECORD, 0, "full")
    first = data_of(**{p.key: held for p in PROMISES}) | {"machine": report.machine()}
    first["results"] |= {"damage": {"outcome": "failed"}, "kills": {**held, "figures": {"a": 1}}}
    codes, asked = {"tests/faults/test_damage.py": 0}, []
    monkeypatch.setattr(report, "run_file", lambda name, *_: asked.append(name) or codes[name])
    data = report.again(first)

    assert asked == ["tests/faults/test_damage.py"]
    assert data["results"].keys() == first["results"].keys()
    assert data["results"]["kills"] == first["results"]["kills"]
    assert data["results"]["damage"]["again"]
    assert outcome_in(report.page(data), Promise("", "Checkpoints that are damaged", "")) == (
        "not run, run again"
    )


def test_nested_figures_are_shown_in_a_line():
    held = report.result_of(RECORD, 0, "full")

    assert "| by moment | step: 600; save: 400 |" in report.page(data_of(kills=held))


def test_a_promise_that_the_run_knows_nothing_of_is_shown_as_not_run():
    page = report.page(data_of())

    assert {outcome_in(page, promise) for promise in PROMISES} == {"not run"}
    assert page.count("\nNot run.") == len(PROMISES)


def test_the_limits_and_the_machine_are_on_the_page():
    page = report.page(data_of())

    assert all(f"- {limit}" in page for limit in LIMITS)
    assert "system Linux, CPUs 2" in page


def test_the_command_fails_unless_every_promise_held_that_this_machine_can_show():
    held = {p.key: {"outcome": "held"} for p in PROMISES if not p.is_optional}
    first = PROMISES[0].key

    assert report.is_whole({"results": held})
    assert not report.is_whole({"results": held | {first: {"outcome": "failed"}}})
    assert not report.is_whole({"results": {k: v for k, v in held.items() if k != first}})
    optional = next(p.key for p in PROMISES if p.is_optional)
    assert not report.is_whole({"results": held | {optional: {"outcome": "failed"}}})


@pytest.mark.parametrize("body", ["assert True", "assert False"], ids=["passes", "fails"])
def test_a_run_takes_figures_and_verdicts_from_real_processes(tmp_path, monkeypatch, body, capsys):
    path = tmp_path / "test_it.py"
    path.write_text(
        "from tests.faults.scale import record\n"
        "def test_it():\n"
        "    record('it', 'It holds.', {'n': 3}, command='c', seed=0, seconds=1)\n"
        f"    {body}\n"
    )
    monkeypatch.setenv("TRAINBOOK_RELIABILITY_DIR", str(tmp_path / "another"))
    data = report.run([Promise("it", "It", str(path))], "quick")
    is_well = body == "assert True"

    assert data["results"]["it"]["outcome"] == ("held" if is_well else "failed")
    assert ("figures" in data["results"]["it"]) == is_well
    assert not (tmp_path / "another").exists()
    assert is_well or "assert False" in capsys.readouterr().out


def test_what_runs_alone_or_first_is_promised():
    assert {*ALONE, *LONG} <= {promise.file for promise in PROMISES}

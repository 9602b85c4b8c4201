"""The fuzzer: equal seeds make equal cases, and it sees a tool that breaks down or harms a file."""

import random

import pytest
from click.testing import CliRunner

from tools.codemod.draft import parse as parse_cell
from tools.commands.fuzz import fuzz as command
from tools.document.json_text import parse
from tools.errors import NotebookError
from tools.fuzzing.fuzz import fuzz, operations
from tools.fuzzing.mutants import mutant
from tools.settings import Settings


def refuse(path, rng):
    raise NotebookError("no")


def break_down(path, rng):
    raise KeyError("cells")


def harm(path, rng):
    path.write_bytes(b"harmed")


def test_equal_seeds_make_equal_cases_of_many_kinds():
    cases = [mutant(random.Random(f"0:{n}")) for n in range(200)]
    again = [mutant(random.Random(f"0:{n}")) for n in range(200)]
    sound = 0
    for raw in cases:
        try:
            sound += isinstance(parse(raw.decode()), dict)
        except ValueError:
            continue

    assert cases == again
    assert len(set(cases)) > 190
    assert 60 < sound < 180


def test_notebooks_are_read_written_and_edited_without_a_traceback(tmp_path):
    known = operations(Settings(root=tmp_path))
    own = {name: known[name] for name in ("read", "text", "edit")}
    outcome = fuzz(300, 7, own, keep=tmp_path)

    assert outcome.failures == []
    assert outcome.is_sound
    for tally in outcome.tallies:
        assert tally.accepted + tally.refused == 300
        assert 60 < tally.accepted < 240


@pytest.mark.parametrize(
    ("operation", "counts"),
    [
        pytest.param(refuse, (0, 5, 0, 0), id="refused"),
        pytest.param(break_down, (0, 0, 5, 0), id="traceback"),
        pytest.param(harm, (5, 0, 0, 5), id="changed file"),
    ],
)
def test_what_a_tool_does_wrong_is_counted_and_kept(tmp_path, operation, counts):
    outcome = fuzz(5, 0, {"any": operation}, keep=tmp_path)
    tally = outcome.tallies[0]
    is_sound = operation is refuse

    assert (tally.accepted, tally.refused, tally.tracebacks, tally.changed) == counts
    assert outcome.is_sound == is_sound
    assert len(outcome.failures) == len(list(tmp_path.glob("any-0-*.ipynb"))) == (not is_sound) * 5


def test_the_command_prints_one_table_and_ends_with_0(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, ["--count", "20", "--seed", "3", "--operation", "text"])

    assert result.exit_code == 0, result.output
    assert "20 notebooks, seed 3" in result.output
    assert result.output.count("tracebacks") == 1


@pytest.mark.parametrize(
    "source", ["x = " + "(" * 5000, "[" * 99 + "]" * 99, "not " * 30_000 + "x"]
)
def test_a_cell_that_would_end_the_process_of_a_parser_is_left_alone(source):
    assert parse_cell(source) == (None, source)

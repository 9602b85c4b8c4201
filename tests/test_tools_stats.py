"""The measures of a notebook are those that a reader would count by hand."""

import json

import pytest
from click.testing import CliRunner

from tools.commands.stats import stats
from tools.notebook import read
from tools.stats import measure, table

CALLS = ("train", "fit", "run_search")


def notebook_of(folder, *sources, name="a.ipynb", outputs=()):
    """A notebook; sources that begin with `md:` are text."""
    cells = [
        {"cell_type": "markdown", "id": f"c{i}", "metadata": {}, "source": source[3:]}
        if source.startswith("md:")
        else {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": source}
        | {"outputs": list(outputs), "execution_count": None}
        for i, source in enumerate(sources)
    ]
    path = folder / name
    path.write_text(
        json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})
    )
    return read(path)


def test_cells_lines_and_words_are_counted(tmp_path):
    row = measure(
        notebook_of(
            tmp_path,
            "md:# Title\n\n| a | b c |\n|---|---|",
            "# @title Set up\n\n!pip install x\n",
            "x = 1",
            "",
            "md:## One two\n```\n# no heading\n```",
            "\n".join(f"x{i} = {i}" for i in range(10)),
            outputs=[{"output_type": "stream", "name": "stdout", "text": "ü" * 2048}],
        ),
        CALLS,
    )

    assert (row.cells, row.code_cells, row.text_percent) == (5, 3, 40.0)
    assert (row.headings, row.words, row.words_per_text_cell) == (2, 8, 4.0)
    assert (row.code_lines, row.code_lines_median, row.code_lines_max) == (13, 2, 10)
    assert (row.longest_code_run, row.forms) == (2, 1)
    assert row.words_per_code_line == 0.6
    assert 8 < row.outputs_kib < 9 and row.size_kib > row.outputs_kib


@pytest.mark.parametrize(
    "lengths, p90",
    [
        pytest.param([], 0, id="no code"),
        pytest.param([7], 7, id="one cell"),
        pytest.param(range(1, 12), 10, id="eleven cells"),
        pytest.param([1, 11], 10, id="between two"),
    ],
)
def test_ninety_percent_of_the_code_cells_are_no_longer_than_p90(tmp_path, lengths, p90):
    sources = ["\n".join(["x = 1"] * n) for n in lengths]

    assert measure(notebook_of(tmp_path, *sources), CALLS).code_lines_p90 == p90


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("result = trainer.train(data)", id="method"),
        pytest.param("trainer.train()", id="method without arguments"),
        pytest.param("best = run_search(space)", id="function"),
        pytest.param("for lr in [1]:\n    net.fit(x, y)", id="in a loop"),
        pytest.param("%%time\ntrainer.train()", id="below a magic"),
    ],
)
def test_lines_before_the_cell_that_trains_are_counted(tmp_path, source):
    row = measure(notebook_of(tmp_path, "md:# T", "a = 1\n\nb = 2", source, "c = 3"), CALLS)

    assert (row.code_lines_to_training, row.cells_to_training_percent) == (2, 50.0)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("model.train()", id="mode of a model"),
        pytest.param("self.model.train()", id="mode of an attribute"),
        pytest.param("def go():\n    trainer.train()", id="in a function"),
        pytest.param("# trainer.train()\ns = 'fit(x)'", id="comment and string"),
        pytest.param("trainer.train", id="not called"),
        pytest.param("x = (", id="does not parse"),
    ],
)
def test_what_does_not_train_is_no_training_call(tmp_path, source):
    row = measure(notebook_of(tmp_path, source), CALLS)

    assert (row.code_lines_to_training, row.cells_to_training_percent) == (None, None)


def test_names_of_training_calls_are_a_choice(tmp_path):
    notebook = notebook_of(tmp_path, "a = 1", "test_fine_tuning(model)")

    assert measure(notebook, ("test_fine_tuning",)).code_lines_to_training == 1
    assert measure(notebook, CALLS).code_lines_to_training is None


def test_an_empty_notebook_has_measures(tmp_path):
    row = measure(notebook_of(tmp_path), CALLS)

    assert (row.cells, row.text_percent, row.code_lines_max, row.longest_code_run) == (0, 0, 0, 0)
    assert "-" in table([row]).split("\n")[1].split()


def test_the_table_has_aligned_columns_and_a_legend(tmp_path):
    long = notebook_of(tmp_path, "x = 1", name="a-long-name.ipynb")
    rows = [measure(long, CALLS), measure(notebook_of(tmp_path, "x = 1"), CALLS)]

    head, *lines, empty = table(rows).split("\n")[:4]

    assert {len(head)} == {len(line) for line in lines} and empty == ""
    assert "first" in table(rows).split("\n\n")[1]


def test_the_command_measures_files_and_folders(tmp_path):
    notebook_of(tmp_path, "md:# T", "x = 1")
    (tmp_path / "deep" / ".ipynb_checkpoints").mkdir(parents=True)
    notebook_of(tmp_path / "deep", "x = 1", name="b.ipynb")
    notebook_of(tmp_path / "deep" / ".ipynb_checkpoints", "x = 1", name="b.ipynb")

    result = CliRunner().invoke(stats, [str(tmp_path), "--format", "json"])
    rows = json.loads(result.stdout)

    assert result.exit_code == 0
    assert [row["notebook"] for row in rows] == [
        str(tmp_path / "a.ipynb"),
        str(tmp_path / "deep" / "b.ipynb"),
    ]
    assert [row["code_lines"] for row in rows] == [1, 1]


def test_a_file_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    notebook_of(tmp_path, "x = 1")
    (tmp_path / "b.ipynb").write_text("{")

    result = CliRunner().invoke(stats, [str(tmp_path)])

    assert result.exit_code == 2
    assert "a.ipynb" in result.stdout and "b.ipynb" in result.stderr
    assert CliRunner().invoke(stats, [str(tmp_path / "none.ipynb")]).exit_code == 2

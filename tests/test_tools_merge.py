"""A notebook that Colab saved comes in with its author's text, and with nothing else."""

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tools.__main__ import main
from tools.merge import match_cells, merge_notebooks
from tools.notebook import Notebook, read

TEXT = "a text that is long enough to be known again when a few of its words change"


def node(id: str, source: str, kind: str = "code", **metadata) -> dict:
    cell = {"cell_type": kind, "id": id, "metadata": metadata, "source": source.splitlines(True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


BASE = [
    node("title", f"# Title\n\n{TEXT}", "markdown"),
    node("form", "# @title Choose\nsteps = 8  # @param {type:'integer'}", tags=["parameters"]),
    node("train", "trainer.train(data)\ntrainer.save('model')", cellView="form"),
    node("end", "print('the end of this notebook')"),
]


def write(path: Path, cells: list[dict], **content) -> Path:
    whole = {"cells": cells, "metadata": {"language_info": {"name": "python"}}} | content
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5} | whole, indent=1) + "\n")
    return path


def as_colab_saves(cells: list[dict], keeps_ids: bool = False) -> list[dict]:
    """What Colab makes of cells: ids of its own or ours in metadata, no tags, outputs, counts."""
    saved = []
    for i, cell in enumerate(cells):
        metadata = {"id": cell["id"] if keeps_ids else f"Xy{i}", "executionInfo": {"user": {}}}
        new = {key: value for key, value in cell.items() if key != "id"} | {"metadata": metadata}
        if cell["cell_type"] == "code":
            new |= {"execution_count": i, "outputs": [{"output_type": "stream"}]}
        saved.append(new)
    return saved


def edited(id: str, source: str, cells: list[dict] = BASE) -> list[dict]:
    return [
        cell | {"source": source.splitlines(True)} if cell["id"] == id else cell for cell in cells
    ]


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "base.ipynb", BASE)
    write(tmp_path / "nb.ipynb", BASE)
    return tmp_path


def merged(folder: Path, author: list[dict], keeps_ids: bool = False, prefer: str = ""):
    saved = write(
        folder / "saved.ipynb", as_colab_saves(author, keeps_ids), nbformat_minor=0, metadata={}
    )
    return merge_notebooks(folder / "nb.ipynb", saved, read(folder / "base.ipynb"), prefer)


def ids(notebook: Notebook) -> list[str]:
    return [cell.id for cell in notebook.cells]


@pytest.mark.parametrize("keeps_ids", [True, False], ids=["ids in metadata", "ids lost"])
def test_saving_without_a_change_changes_no_byte(folder, keeps_ids):
    merge = merged(folder, BASE, keeps_ids)

    assert merge.lines() == ["no change"]
    assert merge.notebook.text().encode() == (folder / "nb.ipynb").read_bytes()


@pytest.mark.parametrize("keeps_ids", [True, False], ids=["ids in metadata", "ids lost"])
def test_an_edit_comes_in_and_id_tags_and_metadata_stay(folder, keeps_ids):
    source = "# @title Choose\nsteps = 16  # @param {type:'integer'}"
    merge = merged(folder, edited("form", source), keeps_ids)

    cell = merge.notebook.cell("form")
    assert merge.changed == ["form"]
    assert (cell.source, cell.tags, cell.outputs) == (source, ["parameters"], [])
    assert ids(merge.notebook) == [cell["id"] for cell in BASE]


def test_a_new_cell_gets_a_slug_and_no_outputs(folder):
    new = node("whatever", "## Look at the weights", "markdown"), node("other", "weights = 1")
    merge = merged(folder, [*BASE[:2], *new, *BASE[2:]])

    assert ids(merge.notebook)[2:4] == ["look-at-the-weights", "weights-1"] == merge.added
    assert merge.notebook.cell("weights-1").outputs == []
    assert merge.notebook.cell("weights-1").node["execution_count"] is None


def test_two_new_cells_of_the_same_text_get_two_ids(folder):
    merge = merged(folder, [*BASE, node("x", "new = 1"), node("y", "new = 1")])

    assert ids(merge.notebook)[-2:] == ["new-1", "new-1-2"]


def test_a_removed_cell_is_removed_and_told(folder):
    merge = merged(folder, [BASE[0], *BASE[2:]])

    assert (merge.removed, ids(merge.notebook)) == (["form"], ["title", "train", "end"])


def test_the_authors_order_is_taken(folder):
    merge = merged(folder, [BASE[0], BASE[2], BASE[1], BASE[3]])

    assert ids(merge.notebook) == ["title", "train", "form", "end"]
    assert merge.is_moved and not merge.changed


def test_what_we_changed_meanwhile_stays(folder):
    ours = [*edited("end", "print('another end')"), node("ours", "ours = 1")]
    write(folder / "nb.ipynb", ours)
    merge = merged(folder, edited("train", "trainer.train(data)\ntrainer.save('other')"))

    assert merge.changed == ["train"] and not merge.conflicts
    assert merge.notebook.cell("end").source == "print('another end')"
    assert ids(merge.notebook) == ["title", "form", "train", "end", "ours"]


CONFLICTS = {
    "both changed a cell": (edited("end", "print('ours')"), edited("end", "print('the theirs')")),
    "we removed what the author changed": (BASE[:3], edited("end", "print('the end of it all')")),
    "the author removed what we changed": (edited("end", "print('ours')"), BASE[:3]),
}


@pytest.mark.parametrize("ours, theirs", CONFLICTS.values(), ids=CONFLICTS)
def test_conflicts_are_named(folder, ours, theirs):
    write(folder / "nb.ipynb", ours)

    assert merged(folder, theirs, keeps_ids=True).conflicts == ["end"]


@pytest.mark.parametrize("ours, theirs", CONFLICTS.values(), ids=CONFLICTS)
@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_preference_settles_conflicts(folder, ours, theirs, side):
    write(folder / "nb.ipynb", ours)
    merge = merged(folder, theirs, keeps_ids=True, prefer=side)
    wanted = {cell["id"]: "".join(cell["source"]) for cell in (ours, theirs)[side == "theirs"]}

    assert {cell.id: cell.source for cell in merge.notebook.cells} == wanted


def test_cells_are_known_again_by_similar_text(folder):
    author = as_colab_saves(edited("title", f"# Title\n\n{TEXT}, and more"))
    path = write(folder / "saved.ipynb", author)

    found = match_cells(read(folder / "base.ipynb").cells, read(path).cells)
    assert found == ["title", "form", "train", "end"]


def command(folder: Path, *options: str):
    return CliRunner().invoke(
        main, ["import", str(folder / "saved.ipynb"), "--into", str(folder / "nb.ipynb"), *options]
    )


def test_command_writes_unless_there_is_a_conflict(folder):
    write(folder / "saved.ipynb", as_colab_saves(edited("end", "print('theirs')"), True))
    base = str(folder / "base.ipynb")
    assert command(folder, "--base", base, "--check").exit_code == 0
    assert "theirs" not in (folder / "nb.ipynb").read_text()
    done = command(folder, "--base", base)
    assert (done.exit_code, "changed: end" in done.output) == (0, True)
    assert "theirs" in (folder / "nb.ipynb").read_text()
    write(folder / "nb.ipynb", edited("end", "print('ours')"))
    before = (folder / "nb.ipynb").read_bytes()

    refused = command(folder, "--base", base)
    assert (refused.exit_code, "in conflict: end" in refused.output) == (1, True)
    assert (folder / "nb.ipynb").read_bytes() == before


def test_base_is_read_from_git(folder):
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", "-C", str(folder)]
    subprocess.run([*git, "init", "-q"], check=True)
    write(folder / "saved.ipynb", as_colab_saves(edited("end", "print('theirs')"), True))
    refused = command(folder)
    assert refused.exit_code == 2 and "--base" in refused.output
    subprocess.run([*git, "add", "nb.ipynb"], check=True)
    subprocess.run([*git, "commit", "-qm", "m"], check=True)

    assert command(folder).exit_code == 0
    assert "theirs" in (folder / "nb.ipynb").read_text()

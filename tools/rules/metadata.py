"""Rules on metadata: what may be committed, language and kernel, widget state, accelerator."""

import ast
from collections.abc import Iterator
from typing import Any

from tools.document.cell import Cell
from tools.program import CodeCell
from tools.rules import Problem, Subject, fixes, rule

KEEP_TAG = "keep-output"
NOTEBOOK_KEYS = frozenset({
    "accelerator", "authors", "colab", "execution", "jupytext", "kernelspec", "language_info",
    "title", "widgets", "workflows",
})  # fmt: skip
COLAB_KEYS = frozenset({
    "cell_execution_strategy", "collapsed_sections", "gpuType", "include_colab_link",
    "machine_shape", "name", "private_outputs", "provenance", "toc_visible",
})  # fmt: skip
CELL_KEYS = frozenset({
    "cellView", "deletable", "editable", "execution", "format", "id", "jupyter", "name", "nbmake",
    "raw_mimetype", "slideshow", "tags",
})  # fmt: skip
OUTPUT_KEYS = frozenset(("colab", "collapsed", "outputId", "scrolled"))
"""What belongs to outputs; allowed where those are kept."""
LANGUAGE_KEYS = frozenset(("name",))
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


@rule("NB003", "warning")
def allowed_metadata(subject: Subject) -> Iterator[Problem]:
    """Metadata holds what the notebook needs, and nothing that a front end or a run left there."""
    if subject.notebook.version[0] != 4:
        return
    metadata = subject.notebook.content.get("metadata", {})
    if extra := [*_extra(metadata, NOTEBOOK_KEYS), *_extra_of_colab(metadata)]:
        yield _not_allowed("The notebook", extra)
    if extra := _extra(metadata.get("language_info"), LANGUAGE_KEYS):
        yield Problem(
            f"language_info tells of the kernel that ran last: {', '.join(extra)}.",
            "Keep its name only; papermill needs no more.",
            severity="info",
        )
    for cell in subject.notebook.cells:
        if extra := _extra(cell.node.get("metadata"), _keys_of(cell)):
            yield _not_allowed("The cell", extra, cell.index)


@fixes("NB003")
def drop_metadata(subject: Subject) -> None:
    """Drop what is not on the list; tags, ids and what Colab needs stay."""
    if subject.notebook.version[0] != 4:
        return
    metadata = subject.notebook.content.get("metadata", {})
    _drop(metadata, NOTEBOOK_KEYS)
    _drop(metadata.get("colab"), COLAB_KEYS)
    _drop(metadata.get("language_info"), LANGUAGE_KEYS)
    for cell in subject.notebook.cells:
        _drop(cell.node.get("metadata"), _keys_of(cell))


def _keys_of(cell: Cell) -> frozenset[str]:
    return CELL_KEYS | OUTPUT_KEYS if KEEP_TAG in cell.tags else CELL_KEYS


def _extra(metadata: Any, allowed: frozenset[str]) -> list[str]:
    return [key for key in metadata if key not in allowed] if isinstance(metadata, dict) else []


def _extra_of_colab(metadata: dict[str, Any]) -> list[str]:
    return [f"colab.{key}" for key in _extra(metadata.get("colab"), COLAB_KEYS)]


def _drop(metadata: Any, allowed: frozenset[str]) -> None:
    for key in _extra(metadata, allowed):
        del metadata[key]


def _not_allowed(what: str, keys: list[str], cell: int | None = None) -> Problem:
    return Problem(
        f"{what} has metadata that is not for a committed file: {', '.join(keys)}.",
        "Drop it.",
        cell,
    )


@rule("NB004")
def language_and_kernel(subject: Subject) -> Iterator[Problem]:
    """The metadata names Python as language and python3 as kernel, as papermill wants it."""
    if subject.notebook.version[0] != 4 or not _is_python(subject):
        return
    metadata = subject.notebook.content.get("metadata", {})
    name = _entry(metadata, "language_info").get("name")
    if name != "python":
        got = (
            f"language_info.name is {name!r}" if name else "The metadata has no language_info.name"
        )
        yield Problem(
            f"{got}, but papermill takes no parameters without a language it knows.",
            'Write "language_info": {"name": "python"} into the metadata.',
        )
    kernel = _entry(metadata, "kernelspec")
    faults = [key for key in ("name", "display_name") if not _is_text(kernel.get(key))]
    if faults:
        got = f"kernelspec has no {' and no '.join(faults)}" if kernel else "There is no kernelspec"
        yield Problem(f"{got}, so that a run must guess the kernel.", "Name the kernel python3.")
    elif kernel["name"] != KERNEL["name"]:
        yield Problem(
            f"The kernel is {kernel['name']!r}, which exists on one machine only.",
            "Name the kernel python3.",
        )


@fixes("NB004")
def name_language_and_kernel(subject: Subject) -> None:
    """Write language and kernel as they are wanted; what else is said of the language stays."""
    if subject.notebook.version[0] != 4 or not _is_python(subject):
        return
    metadata = subject.notebook.metadata
    kernel = _entry(metadata, "kernelspec")
    is_sound = _is_text(kernel.get("display_name")) and kernel.get("name") == KERNEL["name"]
    if not is_sound:
        metadata["kernelspec"] = dict(KERNEL)
    if _entry(metadata, "language_info").get("name") != "python":
        metadata["language_info"] = {**_entry(metadata, "language_info"), "name": "python"}


def _is_python(subject: Subject) -> bool:
    return subject.notebook.language in ("python", "ipython", "python3")


def _entry(metadata: dict[str, Any], key: str) -> dict[str, Any]:
    value = metadata.get(key)
    return value if isinstance(value, dict) else {}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


@rule("NB006")
def widget_state(subject: Subject) -> Iterator[Problem]:
    """Widget state is whole, or absent: GitHub shows no notebook whose state lacks `state`."""
    if _has_broken_widgets(subject):
        yield Problem(
            "metadata.widgets has no `state`; GitHub calls such a notebook invalid.",
            "Drop metadata.widgets.",
        )


@fixes("NB006")
def drop_widget_state(subject: Subject) -> None:
    """Drop the widgets' metadata, which no front end can show."""
    if _has_broken_widgets(subject):
        del subject.notebook.content["metadata"]["widgets"]


def _has_broken_widgets(subject: Subject) -> bool:
    metadata = subject.notebook.content.get("metadata", {})
    if "widgets" not in metadata:
        return False
    widgets = metadata["widgets"]
    state = widgets.get(WIDGET_STATE, widgets) if isinstance(widgets, dict) else None
    return not isinstance(state, dict) or not isinstance(state.get("state"), dict)


@rule("CO104", "info")
def accelerator(subject: Subject) -> Iterator[Problem]:
    """A notebook that uses CUDA says so in its metadata, so that Colab gives it a GPU."""
    if "accelerator" in subject.notebook.content.get("metadata", {}):
        return
    for cell in subject.program.cells:
        if line := _cuda_line(cell):
            yield Problem(
                "The code uses CUDA, but the metadata names no accelerator.",
                'Write "accelerator": "GPU" and "colab": {"gpuType": "T4"} into the metadata.',
                cell.index,
                line,
            )
            return


def _cuda_line(cell: CodeCell) -> int | None:
    """The first line that names `x.cuda`, or "cuda" as a text."""
    lines = [
        node.lineno
        for node in (ast.walk(cell.tree) if cell.tree else ())
        if (isinstance(node, ast.Attribute) and node.attr == "cuda")
        or (isinstance(node, ast.Constant) and _is_cuda(node.value))
    ]
    return min(lines, default=None)


def _is_cuda(value: Any) -> bool:
    return isinstance(value, str) and (value == "cuda" or value.startswith("cuda:"))

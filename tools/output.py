"""Put the executed notebook and its HTML where they belong, whole or not at all."""

import json
import os
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from tools.runnable import form_title

HIDDEN_TAG = "hide-input-in-html"


def find_summary(nb: NotebookNode, mime: str) -> dict[str, Any] | None:
    """What the notebook tells of its run: the last output of the given MIME type."""
    found = None
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            value = output.get("data", {}).get(mime) if mime else None
            found = value if isinstance(value, dict) else found
    return found


def run_folder(summary: Mapping[str, Any] | None) -> Path | None:
    """The folder that a summary names, if it exists."""
    named = (summary or {}).get("run_dir")
    return Path(named) if isinstance(named, str) and named and Path(named).is_dir() else None


def folder_without_run(output_dir: Path, name: str) -> Path:
    """A fresh folder for a notebook that failed or that told of no run."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return output_dir / "notebooks" / f"{name}-{stamp}"


def write_notebook(nb: NotebookNode, folder: Path, name: str) -> tuple[Path, Path]:
    """Write NAME.ipynb and NAME.html into a folder, beside those of earlier runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for key in ("input_path", "output_path"):
        nb.metadata.get("papermill", {}).pop(key, None)
    name = _free_name(folder, name)
    notebook_path, html_path = folder / f"{name}.ipynb", folder / f"{name}.html"
    write_whole(notebook_path, nbformat.writes(nb) + "\n")
    write_whole(html_path, to_html(nb, name))
    return notebook_path, html_path


def _free_name(folder: Path, name: str) -> str:
    """The name, or with the first number behind it that no earlier run has taken."""
    number, candidate = 1, name
    while (folder / f"{candidate}.ipynb").exists():
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def to_html(nb: NotebookNode, title: str) -> str:
    """The notebook as one HTML page; the code of hidden cells is left out."""
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import TagRemovePreprocessor

    page = nbformat.from_dict(nb)
    for cell in page.cells:
        if is_hidden(cell):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), HIDDEN_TAG]
    hide = TagRemovePreprocessor(remove_input_tags={HIDDEN_TAG}, enabled=True)
    exporter = HTMLExporter(preprocessors=[hide])
    with warnings.catch_warnings(action="ignore"):  # about outputs that have no picture
        return exporter.from_notebook_node(page, {"metadata": {"name": title}})[0]


def is_hidden(cell: NotebookNode) -> bool:
    """Whether Jupyter or Colab shows the cell without its code."""
    if cell.cell_type != "code":
        return False
    first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
    is_form = cell.metadata.get("cellView") == "form" and bool(form_title(first))
    return is_form or bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


def complete_summary(
    summary: Mapping[str, Any], notebook_path: Path, html_path: Path
) -> dict[str, Any]:
    """Add both paths to the summary file, and return all that is known of the run."""
    added = {"html_path": str(html_path), "notebook_path": str(notebook_path)}
    path = Path(str(summary.get("summary_path") or ""))
    if not path.is_file():
        return {**summary, **added}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return {**summary, **added}
    write_whole(path, json.dumps({**content, **added}, indent=2) + "\n")
    return {**summary, **content, **added}


def write_whole(path: Path, text: str) -> None:
    """Write a file so that at every moment it is the old one or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)

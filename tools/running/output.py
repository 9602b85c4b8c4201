"""Put the executed notebook and its HTML where they belong, whole or not at all."""

import html
import json
import os
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from tools.running.runnable import form_title
from tools.running.verdict import Verdict

HIDDEN_TAG = "hide-input-in-html"
MARKER_TAG = "papermill-error-cell-tag"
ANCHOR = "cell-to-blame"
BOX_STYLE = "border-left: 4px solid #c62828; background: #fdecea; color: #1b1b1b; padding: 8px 12px"


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


def write_notebook(
    nb: NotebookNode, folder: Path, name: str, verdict: Verdict, place: int | None = None
) -> tuple[Path, Path]:
    """Write NAME.ipynb and NAME.html into a folder, beside those of earlier runs.

    The page says the verdict if it is a bad one, and marks the cell to blame, at index `place`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for key in ("input_path", "output_path"):
        nb.metadata.get("papermill", {}).pop(key, None)
    text, page = nbformat.writes(nb) + "\n", to_html(marked(nb, verdict, place), name)
    name = _reserve(folder, name)
    notebook_path, html_path = folder / f"{name}.ipynb", folder / f"{name}.html"
    write_whole(notebook_path, text)
    write_whole(html_path, page)
    return notebook_path, html_path


def _reserve(folder: Path, name: str) -> str:
    """The name, or with the first number behind it that no other run has taken; it is ours now."""
    number, candidate = 1, name
    while True:
        try:
            (folder / f"{candidate}.ipynb").touch(exist_ok=False)
        except FileExistsError:
            number += 1
            candidate = f"{name}-{number}"
        else:
            return candidate


def marked(nb: NotebookNode, verdict: Verdict, place: int | None) -> NotebookNode:
    """A copy in which a bad verdict stands on top and above the cell to blame."""
    page = nbformat.from_dict(nb)
    if verdict.status == "completed":
        return page
    head, _, traceback = html.escape(str(verdict)).partition("\n")
    link = f' <a href="#{ANCHOR}">Go to the cell</a>' if place is not None else ""
    # A blank line would end the HTML for Markdown.
    details = f"<pre>{traceback}</pre>".replace("\n\n", "\n&#8203;\n") if traceback else ""
    cells = list(page.cells)
    if place is not None:
        cells.insert(place, _box(f'<a id="{ANCHOR}"></a><b>{head}</b>'))
    cells.insert(0, _box(f"<b>{head}</b>{link}{details}"))
    page.cells = [cell for cell in cells if MARKER_TAG not in cell.metadata.get("tags", [])]
    return page


def _box(text: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(f'<div style="{BOX_STYLE}">{text}</div>')


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


def whole_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of the run: what the notebook told, and the file that it names."""
    return {**summary, **(_content(summary) or {})}


def add_paths(summary: Mapping[str, Any], notebook_path: Path, html_path: Path) -> dict[str, Any]:
    """Add both paths to the summary and to its file, if there is one."""
    added = {"html_path": str(html_path), "notebook_path": str(notebook_path)}
    content = _content(summary)
    if content is not None:
        path = Path(summary["summary_path"])
        write_whole(path, json.dumps({**content, **added}, indent=2) + "\n")
    return {**summary, **added}


def _content(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content of the summary's file; None if it is none."""
    try:
        content = json.loads(Path(str(summary.get("summary_path") or "")).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


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

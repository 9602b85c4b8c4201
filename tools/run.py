"""Run a notebook with typed parameters, and return an honest report."""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from tools.errors import SettingsError
from tools.execution import Watcher
from tools.literals import assignments
from tools.output import (
    complete_summary,
    find_summary,
    folder_without_run,
    run_folder,
    write_notebook,
)
from tools.parameters import check_parameters
from tools.runnable import read_notebook
from tools.settings import Settings, load_settings
from tools.verdict import CellRecord, Verdict, judge, plain

EXIT_CODES = {"completed": 0, "failed": 1, "interrupted": 130}


@dataclass(frozen=True)
class RunReport:
    """What came of a run: the verdict, the cells with their times, and the files."""

    notebook: Path
    verdict: Verdict
    cells: tuple[CellRecord, ...]
    elapsed_s: float
    notebook_path: Path
    html_path: Path
    summary: dict[str, Any] | None

    @property
    def exit_code(self) -> int:
        """0 for a notebook that ran, 1 for a failure, 130 for an interrupt."""
        return EXIT_CODES[self.verdict.status]

    def line(self) -> str:
        """The run in one line; what the summary lacks is left out."""
        summary = self.summary or {}
        number = {k: v for k, v in summary.items() if type(v) in (int, float)}
        name = summary.get("run_id")
        elapsed_s = number.get("elapsed_s", self.elapsed_s)
        facts = [str(summary.get("status") or self.verdict.status)]
        if "val_loss" in number:
            facts.append(f"validation loss {number['val_loss']:.4g} nats/token")
        if "val_bits_per_byte" in number:
            facts.append(f"{number['val_bits_per_byte']:.4g} bits/byte")
        if math.isfinite(elapsed_s):
            facts.append(f"{elapsed_s:.0f} s" if elapsed_s >= 10 else f"{elapsed_s:.2g} s")
        facts.append(str(self.html_path))
        subject = f"run {name}" if name else f"notebook {self.notebook.name}"
        return plain(f"{subject}: {', '.join(facts)}").replace("\n", " ")


def run_notebook(
    path: str | Path,
    parameters: Mapping[str, Any] | Iterable[tuple[str, str]] | None = None,
    *,
    smoke: bool = False,
    timeout_s: float | None = None,
    total_timeout_s: float | None = None,
    output_dir: str | Path | None = None,
    settings: Settings | None = None,
    progress: Callable[[str], None] | None = None,
) -> RunReport:
    """Run a notebook in the working folder; pairs of parameters are text still to be typed.

    Units: `timeout_s` is for each cell, `total_timeout_s` for all of them.

    Raises: ToolsError, before a kernel starts, if the notebook or a parameter is wrong.
    """
    path = Path(path)
    settings = settings or load_settings(path.absolute().parent)
    nb = read_notebook(path)
    values = _values(nb, path, parameters or {}, smoke, settings)
    output_dir = Path(output_dir or settings.output_dir)
    draft = output_dir / f".running-{path.stem}-{os.getpid()}"
    try:
        draft.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"output_dir is {str(output_dir)!r}, but it cannot be written ({error.strerror}). "
            "Give --output-dir a folder that you may write."
        ) from error
    watcher = Watcher(nb, timeout_s, total_timeout_s, progress or (lambda line: None))
    started = time.monotonic()
    ending = watcher.execute(path, draft / path.name, values)
    verdict = judge(watcher.cells, ending)
    watcher.correct_metadata()
    summary = find_summary(watcher.notebook, settings.summary_mime)
    folder = run_folder(summary) if verdict.status == "completed" else None
    target = folder / "notebook" if folder else folder_without_run(output_dir, path.stem)
    notebook_path, html_path = write_notebook(watcher.notebook, target, path.stem)
    shutil.rmtree(draft)
    if folder:
        summary = complete_summary(summary, notebook_path, html_path)
    elapsed_s = time.monotonic() - started
    cells = tuple(watcher.cells)
    return RunReport(path, verdict, cells, elapsed_s, notebook_path, html_path, summary)


def _values(
    nb: NotebookNode,
    path: Path,
    given: Mapping[str, Any] | Iterable[tuple[str, str]],
    smoke: bool,
    settings: Settings,
) -> dict[str, Any]:
    """The typed parameters; what was given goes before the smoke run's."""
    preset = settings.smoke_parameters(path) if smoke else {}
    if not isinstance(given, Mapping):
        given = list(given)
    if not given and not preset:
        return {}
    known, schema = assignments(nb), settings.load_schema()
    return check_parameters(preset, known, schema) | check_parameters(given, known, schema)

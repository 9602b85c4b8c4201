"""Run a notebook with typed parameters, and return an honest report."""

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tools.errors import SettingsError
from tools.running.execution import Watcher
from tools.running.expectations import unmet
from tools.running.job import Job, prepare
from tools.running.limits import Limits
from tools.running.output import (
    add_paths,
    find_summary,
    folder_without_run,
    run_folder,
    whole_summary,
    write_notebook,
)
from tools.running.runnable import read_notebook
from tools.running.verdict import CellRecord, Verdict, judge, plain

EXIT_CODES = {"completed": 0, "failed": 1, "interrupted": 130}


@dataclass(frozen=True)
class RunReport:
    """What came of a run: the verdict, the cells with their times, and the files."""

    notebook: Path
    verdict: Verdict
    cells: tuple[CellRecord, ...]
    elapsed_s: float
    notebook_path: Path | None
    html_path: Path | None
    summary: dict[str, Any] | None
    workflow: str | None = None
    limits: Limits = field(default_factory=Limits)
    parameters: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    """Of the kernel and of packages in its environment."""

    @property
    def exit_code(self) -> int:
        """0 for a notebook that ran, 1 for a failure, 130 for an interrupt."""
        return EXIT_CODES[self.verdict.status]

    @property
    def label(self) -> str:
        """The name of the file, and of the workflow if it is one."""
        name = self.notebook.name
        return f"{name} ({self.workflow})" if self.workflow else name

    @property
    def peak_cell(self) -> CellRecord | None:
        """The cell during which the run held most memory."""
        cells = [cell for cell in self.cells if cell.memory_mib is not None]
        return max(cells, key=lambda cell: cell.memory_mib, default=None)

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
        subject = f"run {name}" if name else f"notebook {self.label}"
        return plain(f"{subject}: {', '.join(facts)}").replace("\n", " ")


def run_notebook(
    path: str | Path,
    parameters: Mapping[str, Any] | Iterable[tuple[str, str]] | None = None,
    *,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> RunReport:
    """Run a notebook in the working folder; `options` are those of `prepare`.

    Raises: ToolsError, before a kernel starts, if the notebook or a parameter is wrong.
    """
    return run_job(prepare(path, parameters, **options), progress)


def run_job(job: Job, progress: Callable[[str], None] | None = None) -> RunReport:
    """Run what was prepared.

    Raises: SettingsError if the folder of all output cannot be written.
    """
    started, draft = time.monotonic(), _draft_folder(job)
    watcher = Watcher(
        read_notebook(job.path),
        job.limits,
        progress or (lambda line: None),
        left_out=job.left_out,
        python=job.lane.python,
    )
    try:
        ending = watcher.execute(draft, job.values, job.lane.environment)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    watcher.correct_metadata()
    report = _written(job, watcher, judge(watcher.cells, ending))
    return replace(report, elapsed_s=time.monotonic() - started)


def _draft_folder(job: Job) -> Path:
    """A folder of this run alone, for what is written while it goes on."""
    try:
        job.output_dir.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".running-{job.path.stem}-", dir=job.output_dir))
    except OSError as error:
        raise SettingsError(
            f"output_dir is {str(job.output_dir)!r}, but it cannot be written ({error.strerror}). "
            "Give --output-dir a folder that you may write."
        ) from error


def _written(job: Job, watcher: Watcher, verdict: Verdict) -> RunReport:
    """Put the executed notebook where it belongs, and see whether the run is as expected."""
    summary = find_summary(watcher.notebook, job.settings.summary_mime)
    folder = run_folder(summary) if verdict.status == "completed" else None
    if folder:
        summary = whole_summary(summary)
    if verdict.status == "completed" and job.is_smoke:
        verdict = _disappointment(job, watcher, summary, folder) or verdict
    name = f"{job.path.stem}-{_slug(job.workflow)}" if job.workflow else job.path.stem
    target = folder / "notebook" if folder else folder_without_run(job.output_dir, name)
    place = watcher.place_of(verdict.cell)
    notebook_path, html_path = write_notebook(watcher.notebook, target, name, verdict, place)
    if folder:
        summary = add_paths(summary, notebook_path, html_path)
    return RunReport(
        job.path,
        verdict,
        tuple(watcher.cells),
        0.0,
        notebook_path,
        html_path,
        summary,
        job.workflow,
        job.limits,
        job.values,
        watcher.versions,
    )


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text).split())


def _disappointment(
    job: Job, watcher: Watcher, summary: dict[str, Any] | None, folder: Path | None
) -> Verdict | None:
    """What the settings expect of a smoke run and the run did not bring."""
    wanted = job.settings.expect.get(job.settings.name_of(job.path), {})
    if job.workflow:  # may leave out the cell that tells of the run
        wanted = {}
    reason = unmet(wanted, summary, folder)
    if not reason:
        return None
    cell = watcher.last_with(job.settings.summary_mime)
    return Verdict("failed", "expectation", f"told of a run in which {reason}", cell)

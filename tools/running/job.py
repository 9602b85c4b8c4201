"""Check all that a run needs before a kernel starts: notebook, parameters, limits, lane, cells."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from tools.errors import SettingsError
from tools.running.lanes import Lane, find_lane
from tools.running.limits import Limits
from tools.running.literals import assignments
from tools.running.parameters import check_parameters
from tools.running.runnable import read_notebook
from tools.settings import Settings, load_settings


@dataclass(frozen=True)
class Job:
    """A notebook that can be run: all that could be checked without a kernel is sound."""

    path: Path
    values: dict[str, Any]
    """Typed parameters."""
    limits: Limits
    lane: Lane
    output_dir: Path
    settings: Settings
    workflow: str | None = None
    left_out: frozenset[int] = frozenset()
    """Indices of the cells that do not belong to the workflow."""
    is_smoke: bool = False

    @property
    def label(self) -> str:
        """The name of the file, and of the workflow if it is one."""
        return f"{self.path.name} ({self.workflow})" if self.workflow else self.path.name


def prepare(
    path: str | Path,
    parameters: Mapping[str, Any] | Iterable[tuple[str, str]] | None = None,
    *,
    smoke: bool = False,
    workflow: str | None = None,
    timeout_s: float | None = None,
    total_timeout_s: float | None = None,
    memory_limit_mib: float | None = None,
    lanes: Sequence[str] = (),
    kernel_python: str | None = None,
    output_dir: str | Path | None = None,
    settings: Settings | None = None,
) -> Job:
    """Check all that a run needs; pairs of parameters are text still to be typed.

    Units: `timeout_s` is for each cell, `total_timeout_s` for all of them; `memory_limit_mib` for
    the kernel and all processes that it starts.

    Raises: ToolsError if something is wrong.
    """
    path = Path(path)
    settings = settings or load_settings(path.absolute().parent)
    nb = read_notebook(path)
    limits = Limits.of(
        settings.limits, cell_s=timeout_s, total_s=total_timeout_s, memory_mib=memory_limit_mib
    )
    return Job(
        path,
        _values(nb, path, parameters or {}, smoke, settings),
        limits,
        find_lane(lanes, kernel_python, settings),
        Path(output_dir or settings.output_dir),
        settings,
        workflow,
        _left_out(path, workflow, settings),
        smoke,
    )


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


def workflows_of(path: Path, settings: Settings) -> list[str]:
    """The names of the workflows that are declared for a notebook.

    Raises: NotebookError if it cannot be read.
    """
    from tools.notebook import read
    from tools.workflows import declared

    return list(declared(read(path), settings))


def _left_out(path: Path, workflow: str | None, settings: Settings) -> frozenset[int]:
    """Indices of the cells that a workflow does without."""
    if workflow is None:
        return frozenset()
    from tools.notebook import read
    from tools.workflows import cells_of

    notebook, known = read(path), workflows_of(path, settings)
    if workflow not in known:
        near = difflib.get_close_matches(workflow, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise SettingsError(
            f"{workflow} is not a workflow of {path.name}.{hint} "
            f"Known: {', '.join(known) or 'none'}. Declare it in [tool.notebooks.workflows]."
        )
    included = cells_of(notebook, workflow, settings)
    return frozenset(cell.index for cell in notebook.cells if cell.id not in included)

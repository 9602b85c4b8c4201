"""Execute a notebook through papermill, and write down what each cell really did."""

import asyncio
import contextlib
import logging
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from tools.running.guard import Guard
from tools.running.heartbeat import heartbeat
from tools.running.kernel import Kernel
from tools.running.limits import Limits
from tools.running.memory import memory_kills
from tools.running.output import MARKER_TAG
from tools.running.processes import MARK
from tools.running.runnable import has_tag, id_of, tags_of, title_of
from tools.running.verdict import CellRecord, Ending, judge_cell, plain

INJECTED_TAG = "injected-parameters"
INPUT = "input.ipynb"
SKIP_TAG = "skip-execution"
OUTPUT_TIMEOUT_S = 60
SETTLE_S = 0.5  # for what is about to end when the last cell does
LOG_LINES = 12


class Stopped(Exception):
    """Raised between cells to end an execution that is decided already."""


class Watcher:
    """Runs the notebook, and writes down what each cell really did."""

    def __init__(
        self,
        nb: NotebookNode,
        limits: Limits,
        progress: Callable[[str], None],
        *,
        left_out: Collection[int] = (),
        python: str = "",
    ) -> None:
        self.notebook = _without_outputs(nb)
        self.is_interrupted = self._is_started = False
        self.kernel = Kernel(python=python)
        self.versions: dict[str, str] = {}
        """Of the kernel and of packages in its environment."""
        self._limits, self._guard = limits, Guard(self.kernel, limits)
        self._progress = progress
        self._has_injected = any(has_tag(cell, INJECTED_TAG) for cell in nb.cells)
        self._n_cells = len(nb.cells)
        self._left_out = frozenset(left_out)
        self._records = [
            _record(number, cell, number - 1 in self._left_out)
            for number, cell in enumerate(nb.cells, 1)
            if not has_tag(cell, MARKER_TAG)
        ]
        self._last = next((r for r in reversed(self.cells) if not r.is_skipped), None)
        self._is_busy = False
        self._by_index: dict[int, CellRecord] = {}
        self._pairs: list[tuple[NotebookNode, CellRecord]] = []

    @property
    def cells(self) -> list[CellRecord]:
        """Code cells that are not empty, in order."""
        return [record for record in self._records if record is not None]

    def place_of(self, record: CellRecord | None) -> int | None:
        """The index, in the notebook that was run, of a record's cell."""
        nodes = [cell for cell, other in self._pairs if other is record]
        places = [i for i, cell in enumerate(self.notebook.cells) if nodes and cell is nodes[0]]
        return next(iter(places), None)

    def last_with(self, mime: str) -> CellRecord | None:
        """The last cell that showed an output of this MIME type; without one, the last that ran."""
        ran = [pair for pair in self._pairs if pair[1].reply is not None]
        showed = [p for p in ran if any(mime in o.get("data", {}) for o in p[0].outputs)]
        return (showed or ran or [(None, None)])[-1][1]

    def execute(
        self, draft: Path, parameters: dict[str, Any], environment: Mapping[str, str]
    ) -> Ending:
        """Run to the end, whatever it is; `draft` is a folder for what is written meanwhile."""
        log_path, mark = draft / "kernel.log", uuid.uuid4().hex
        nbformat.write(self.notebook, draft / INPUT)  # the file itself may change meanwhile
        environment = {
            "TRAINBOOK_HEADLESS": "1",
            "TRAINBOOK_KERNEL_STARTED": repr(time.time()),
            **environment,
            MARK: mark,
        }
        kills, kind = memory_kills(), "interrupted"
        with log_path.open("wb") as log, self._signals(), heartbeat(self._running, self._progress):
            try:
                self.kernel.start(Path.cwd(), environment, log)
                with self._guard.on_duty(mark):
                    kind = self._execute(draft, parameters)
                if kind == "through":
                    self.kernel.say_goodbye()
            except (KeyboardInterrupt, asyncio.InvalidStateError):
                if not self.is_interrupted:  # the second interrupt may fall into asyncio's own code
                    raise
            finally:
                exit_code = self.kernel.exit_code()
                with contextlib.suppress(KeyboardInterrupt):
                    self.kernel.stop(now=kind == "interrupted" or self._is_busy)
                self._guard.clear()
        kills_now, guard = memory_kills(), self._guard
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return Ending(
            "interrupted" if self.is_interrupted else kind,
            exit_code,
            self._limit_in_words(),
            guard.overrun,
            guard.size_mib,
            None if kills is None or kills_now is None else kills_now - kills,
            "\n".join(lines[-LOG_LINES:]),
        )

    def _execute(self, draft: Path, parameters: dict[str, Any]) -> str:
        try:
            with _quiet():
                papermill.execute_notebook(
                    _without_fields(draft / INPUT),
                    _without_fields(draft / "output.ipynb"),
                    parameters,
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    km=self.kernel,
                    iopub_timeout=OUTPUT_TIMEOUT_S,
                    on_notebook_start=self._on_start,
                    on_cell_start=self._on_cell_start,
                    on_cell_execute=self._on_cell_execute,
                    on_cell_executed=self._on_cell_executed,
                )
        except (PapermillExecutionError, Stopped):
            return "timeout" if self._guard.is_over else "through"
        except CellTimeoutError:
            return "timeout"
        except DeadKernelError:
            return "dead kernel"
        except RuntimeError:
            if self._is_started:
                raise
            return "dead kernel"
        return "through"

    def correct_metadata(self) -> None:
        """Undo what papermill tells of cells: it calls those completed that never ran."""
        for cell, record in self._pairs:
            told = cell.metadata.setdefault("papermill", {})
            is_wrong = record.started is not None and record.reply is None
            is_wrong = is_wrong or judge_cell(record) is not None
            told["exception"] = is_wrong
            if is_wrong or record.reply is None:
                told["status"] = "failed" if is_wrong else "pending"
            if record.number - 1 in self._left_out:
                cell.metadata["tags"].remove(SKIP_TAG)
                if not cell.metadata["tags"]:
                    del cell.metadata["tags"]

    async def _on_start(self, notebook: NotebookNode) -> None:
        self.notebook, self._is_started = notebook, True
        is_ours = [self._has_injected or not has_tag(c, INJECTED_TAG) for c in notebook.cells]
        places = [index for index, ours in enumerate(is_ours) if ours]
        pairs = zip(places, self._records, strict=True)
        self._by_index = {index: record for index, record in pairs if record is not None}
        self._pairs = [(notebook.cells[i], record) for i, record in self._by_index.items()]
        for cell, record in self._pairs:
            if record.number - 1 in self._left_out:
                cell.metadata["tags"] = [*tags_of(cell), SKIP_TAG]
        self.versions = await self.kernel.watch()

    def _on_cell_start(self, cell: NotebookNode, cell_index: int) -> None:
        if self.is_interrupted or self._guard.is_over:
            raise Stopped

    def _on_cell_execute(self, cell: NotebookNode, cell_index: int) -> None:
        record = self._by_index.get(cell_index)
        if record is not None:
            record.started = time.monotonic()
            self._guard.begin(record)
            self._progress(f"[{record.number}/{self._n_cells}] {plain(record.title)}")

    async def _on_cell_executed(
        self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]
    ) -> None:
        record = self._by_index.get(cell_index)
        if record is None:
            return
        self._guard.end()
        record.seconds = time.monotonic() - record.started
        record.reply = execute_reply["content"]
        record.errors = [o for o in cell.outputs if o.output_type == "error"]
        await self._observe(record)
        if record.running and record is self._last:
            await asyncio.sleep(SETTLE_S)
            await self._observe(record)
        self._is_busy = bool(record.running)
        is_error = record.reply["status"] != "ok"
        if self.is_interrupted or (judge_cell(record) and not is_error):
            raise Stopped

    async def _observe(self, record: CellRecord) -> None:
        observed = await self.kernel.observed()
        record.shell += observed["shell"]
        record.gpu_mib = observed["gpu_mib"]
        processes = self._guard.left(observed["children"])
        record.running = {**observed["running"], **processes}

    def _running(self) -> NotebookNode | None:
        """The cell that runs now."""
        pairs = list(self._pairs)
        return next((c for c, r in pairs if r.started is not None and r.reply is None), None)

    def _limit_in_words(self) -> str:
        if self._guard.is_over:
            return f"the time was up: {self._limits.of_all()}"
        return f"its output had not come within {OUTPUT_TIMEOUT_S} s"

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first interrupt lets the running cell save; the second ends everything."""

        def on_signal(number: int, frame: Any) -> None:
            if self.is_interrupted:
                raise KeyboardInterrupt
            self.is_interrupted = True
            if self._running() is not None:
                self._progress("Interrupted: waiting for the cell to end. Again to end it at once.")
                self.kernel.interrupt()

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _without_outputs(nb: NotebookNode) -> NotebookNode:
    """The notebook as it is before its first cell runs; outputs of an earlier run would lie."""
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nb


def _record(number: int, cell: NotebookNode, is_left_out: bool) -> CellRecord | None:
    if cell.cell_type != "code" or not cell.source.strip():
        return None
    n_blank = next(i for i, line in enumerate(cell.source.split("\n")) if line.strip())
    is_skipped = is_left_out or has_tag(cell, SKIP_TAG)
    names = (id_of(cell), title_of(cell), tuple(tags_of(cell)))
    return CellRecord(number, *names, n_blank, is_skipped)


def _without_fields(path: Path) -> str:
    """The path for papermill, which formats paths with the parameters."""
    return str(path.resolve()).replace("{", "{{").replace("}", "}}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence papermill's and nbformat's remarks: the verdict says it once and better."""
    logger = logging.getLogger("papermill")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)

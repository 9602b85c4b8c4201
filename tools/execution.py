"""Execute a notebook through papermill, and write down what each cell really did."""

import contextlib
import logging
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from tools.kernel import Kernel
from tools.runnable import has_tag, id_of, title_of
from tools.verdict import CellRecord, Ending, judge_cell, plain

INJECTED_TAG = "injected-parameters"
MARKER_TAG = "papermill-error-cell-tag"
SKIP_TAG = "skip-execution"
OUTPUT_TIMEOUT_S = 60
LOG_LINES = 12
HEARTBEAT_S, MAX_LINE = 5.0, 160


class Stopped(Exception):
    """Raised between cells to end an execution that is decided already."""


class Watcher:
    """Runs the notebook, and writes down what each cell really did."""

    def __init__(
        self,
        nb: NotebookNode,
        timeout_s: float | None,
        total_timeout_s: float | None,
        progress: Callable[[str], None],
    ) -> None:
        self.notebook = _without_outputs(nb)
        self.is_interrupted = self._is_started = False
        self.kernel = Kernel()
        self._timeout_s, self._total_timeout_s = timeout_s, total_timeout_s
        self._deadline = time.monotonic() + (total_timeout_s or math.inf)
        self._progress = progress
        self._has_injected = any(has_tag(cell, INJECTED_TAG) for cell in nb.cells)
        self._n_cells = len(nb.cells)
        self._records = [
            _record(number, cell)
            for number, cell in enumerate(nb.cells, 1)
            if not has_tag(cell, MARKER_TAG)
        ]
        self._by_index: dict[int, CellRecord] = {}
        self._pairs: list[tuple[NotebookNode, CellRecord]] = []

    @property
    def cells(self) -> list[CellRecord]:
        """Code cells that are not empty, in order."""
        return [record for record in self._records if record is not None]

    def execute(self, path: Path, output: Path, parameters: dict[str, Any]) -> Ending:
        """Run to the end, whatever it is."""
        log_path = output.with_name("kernel.log")
        environment = {
            "TRAINBOOK_HEADLESS": "1",
            "TRAINBOOK_KERNEL_STARTED": repr(time.time()),
        }
        with log_path.open("wb") as log, self._signals(), self._heartbeat():
            kind = "interrupted"
            try:
                self.kernel.start(Path.cwd(), environment, log)
                kind = self._execute(path, output, parameters)
            except KeyboardInterrupt:
                self.is_interrupted = True
            finally:
                exit_code = self.kernel.exit_code()
                with contextlib.suppress(KeyboardInterrupt):
                    self.kernel.stop(now=kind == "interrupted")
        lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        kind = "interrupted" if self.is_interrupted else kind
        return Ending(kind, exit_code, self._limit(), "\n".join(lines[-LOG_LINES:]))

    def _execute(self, path: Path, output: Path, parameters: dict[str, Any]) -> str:
        try:
            with _quiet():
                papermill.execute_notebook(
                    _without_fields(path),
                    _without_fields(output),
                    parameters,
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    km=self.kernel,
                    iopub_timeout=OUTPUT_TIMEOUT_S,
                    timeout_func=self._time_left,
                    on_notebook_start=self._on_start,
                    on_cell_start=self._on_cell_start,
                    on_cell_execute=self._on_cell_execute,
                    on_cell_executed=self._on_cell_executed,
                )
        except (PapermillExecutionError, Stopped):
            return "timeout" if time.monotonic() >= self._deadline else "through"
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

    async def _on_start(self, notebook: NotebookNode) -> None:
        self.notebook, self._is_started = notebook, True
        is_ours = [self._has_injected or not has_tag(c, INJECTED_TAG) for c in notebook.cells]
        places = [index for index, ours in enumerate(is_ours) if ours]
        pairs = zip(places, self._records, strict=True)
        self._by_index = {index: record for index, record in pairs if record is not None}
        self._pairs = [(notebook.cells[i], record) for i, record in self._by_index.items()]
        await self.kernel.watch()

    def _on_cell_start(self, cell: NotebookNode, cell_index: int) -> None:
        if self.is_interrupted or time.monotonic() >= self._deadline:
            raise Stopped

    def _on_cell_execute(self, cell: NotebookNode, cell_index: int) -> None:
        record = self._by_index.get(cell_index)
        if record is not None:
            record.started = time.monotonic()
            self._progress(f"[{record.number}/{self._n_cells}] {plain(record.title)}")

    async def _on_cell_executed(
        self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]
    ) -> None:
        record = self._by_index.get(cell_index)
        if record is None:
            return
        record.seconds = time.monotonic() - record.started
        record.reply = execute_reply["content"]
        record.errors = [o for o in cell.outputs if o.output_type == "error"]
        observed = await self.kernel.observed()
        record.shell, record.running = observed["shell"], observed["running"]
        is_error = record.reply["status"] != "ok"
        if self.is_interrupted or (judge_cell(record) and not is_error):
            raise Stopped

    def _time_left(self, cell: NotebookNode) -> float | None:
        """Seconds that a cell may take; nbclient reads 0 as no limit."""
        limit = min(self._timeout_s or math.inf, self._deadline - time.monotonic())
        return max(limit, 0.01) if math.isfinite(limit) else None

    def _limit(self) -> str:
        if time.monotonic() >= self._deadline:
            return f"the {self._total_timeout_s:g} s for the whole notebook"
        return f"{self._timeout_s or OUTPUT_TIMEOUT_S:g} s"

    @contextlib.contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """While a cell runs, repeat the line that it shows now, as of a progress panel."""
        is_over = threading.Event()

        def beat() -> None:
            shown = ""
            while not is_over.wait(HEARTBEAT_S):
                line = self._line_shown()
                if line and line != shown:
                    shown = line
                    self._progress(f"    {plain(line)}")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _line_shown(self) -> str:
        """The text of the running cell's last display, if it is one short line."""
        for cell, record in list(self._pairs):
            if record.started is not None and record.reply is None:
                outputs = [o for o in list(cell.outputs) if o.output_type == "display_data"]
                text = outputs[-1].data.get("text/plain", "") if outputs else ""
                return text if len(text) <= MAX_LINE and "\n" not in text else ""
        return ""

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first interrupt lets the running cell save; the second ends everything."""

        def on_signal(number: int, frame: Any) -> None:
            if self.is_interrupted or not self._is_started:
                raise KeyboardInterrupt
            self.is_interrupted = True
            self._progress("Interrupted: waiting for the cell to end. Once more to end it at once.")
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


def _record(number: int, cell: NotebookNode) -> CellRecord | None:
    if cell.cell_type != "code" or not cell.source.strip():
        return None
    return CellRecord(number, id_of(cell), title_of(cell), is_skipped=has_tag(cell, SKIP_TAG))


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

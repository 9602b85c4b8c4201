"""While a cell runs, repeat the line that it shows now, as of a progress panel."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from nbformat import NotebookNode

from tools.running.verdict import plain

INTERVAL_S, MAX_LINE = 5.0, 160


@contextlib.contextmanager
def heartbeat(
    running: Callable[[], NotebookNode | None], progress: Callable[[str], None]
) -> Iterator[None]:
    """Report the line shown by the cell that runs now, if it is a new one."""
    is_over = threading.Event()

    def beat() -> None:
        shown = ""
        while not is_over.wait(INTERVAL_S):
            cell = running()
            line = line_shown(cell) if cell is not None else ""
            if line and line != shown:
                shown = line
                progress(f"    {plain(line)}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def line_shown(cell: NotebookNode) -> str:
    """The text of the cell's last display, if it is one short line."""
    outputs = [o for o in list(cell.outputs) if o.output_type == "display_data"]
    text = outputs[-1].data.get("text/plain", "") if outputs else ""
    return text if len(text) <= MAX_LINE and "\n" not in text else ""

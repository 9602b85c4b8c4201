"""Say whether a notebook ran, and if not, which cell is to blame: from what was seen, not told.

papermill's exit code and metadata are no evidence: it calls all cells completed after the
kernel died, and a notebook that called `sys.exit(0)` or whose `!` command failed a success.
"""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["completed", "failed", "interrupted"]
Cause = Literal[
    "", "error", "exit", "shell", "timeout", "dead kernel", "left running", "not run", "interrupted"
]
TRACEBACK_LINES = 12
CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


@dataclass
class CellRecord:
    """What was seen of one code cell of the notebook's file."""

    number: int
    """Place among all cells of the file, from 1."""
    id: str
    title: str
    is_skipped: bool = False
    started: float | None = None
    seconds: float | None = None
    reply: dict[str, Any] | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    """Outputs of type error."""
    shell: list[int] = field(default_factory=list)
    """Exit codes of failed shell commands."""
    running: dict[str, int] = field(default_factory=dict)
    """Threads and processes that were there after this cell, by name."""

    def __str__(self) -> str:
        name = f"{self.id}: {self.title}" if self.id else self.title
        return f"cell {self.number} ({plain(name)})"


@dataclass(frozen=True)
class Ending:
    """How the execution as a whole came to its end."""

    kind: Literal["through", "timeout", "dead kernel", "interrupted"] = "through"
    exit_code: int | None = None
    """The kernel's, if it has one."""
    limit: str = ""
    """The limit that a timeout broke, in words."""
    log: str = ""
    """The end of what the kernel's process wrote past IPython."""


@dataclass(frozen=True)
class Verdict:
    """Whether the notebook ran, and the cell and the reason if not."""

    status: Status
    cause: Cause = ""
    reason: str = ""
    cell: CellRecord | None = None
    traceback: str = ""

    def __str__(self) -> str:
        place = f"{self.cell} " if self.cell else ""
        head = ": ".join(part for part in (self.status, place + self.reason) if part)
        return "\n".join(part for part in (head, self.traceback) if part)


def judge(cells: Sequence[CellRecord], ending: Ending) -> Verdict:
    """The first thing that went wrong, or completed.

    An interrupt comes first: what a cell says while it is stopped is not its fault.
    """
    started = [cell for cell in cells if cell.started is not None]
    last = started[-1] if started else None
    if ending.kind == "interrupted":
        return Verdict("interrupted", "interrupted", "was the last to run" if last else "", last)
    for cell in started:
        verdict = judge_cell(cell)
        if verdict:
            return verdict
    if ending.kind == "timeout":
        return Verdict("failed", "timeout", f"did not end within {ending.limit}", last)
    if ending.kind == "dead kernel" or ending.exit_code is not None:
        what = "ran when" if last and last.reply is None else "had run when"
        reason = (
            f"{what} the kernel {_death(ending.exit_code)}" if last else "the kernel did not start"
        )
        return Verdict("failed", "dead kernel", reason, last, plain(ending.log))
    for cell in cells:
        if not cell.is_skipped and cell.reply is None:
            return Verdict("failed", "not run", "was not run", cell)
    return _left_running(cells) or Verdict("completed")


def judge_cell(cell: CellRecord) -> Verdict | None:
    """What is wrong with a cell that ran to its end; None if nothing is, or if it did not end."""
    reply = cell.reply or {"status": "ok"}
    fault = reply if reply["status"] != "ok" else next(iter(cell.errors), None)
    if fault is not None:
        name = plain(fault.get("ename") or reply["status"])
        value = plain(str(fault.get("evalue", "")))
        if name == "SystemExit":
            reason = f"called sys.exit({value}), and the cells after it never ran"
            return Verdict("failed", "exit", reason, cell)
        lines = plain("\n".join(fault.get("traceback") or [])).splitlines()
        traceback = "\n".join(lines[-TRACEBACK_LINES:])
        reason = f"raised {name}: {value}" if value else f"raised {name}"
        return Verdict("failed", "error", reason, cell, traceback)
    if any(item.get("source") == "ask_exit" for item in reply.get("payload", [])):
        return Verdict("failed", "exit", "called quit(), which ends the kernel", cell)
    if cell.shell:
        reason = f"ran a shell command that failed with exit code {cell.shell[0]}"
        return Verdict("failed", "shell", reason, cell)
    return None


def _left_running(cells: Sequence[CellRecord]) -> Verdict | None:
    """Blame the cell that started what is still running after the last one."""
    ran = [cell for cell in cells if cell.reply is not None]
    for cell in ran:
        for name, identity in cell.running.items():
            if ran[-1].running.get(name) == identity:
                reason = f"left {plain(name)} running. Wait for its end in the notebook"
                return Verdict("failed", "left running", reason, cell)
    return None


def _death(exit_code: int | None) -> str:
    if exit_code is None:
        return "stopped answering"
    if exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "was killed (SIGKILL), probably out of memory"
    if exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended itself with exit code {exit_code}"


def plain(text: str) -> str:
    """The text without colours and other control characters, safe to print."""
    return CONTROL.sub("", text)

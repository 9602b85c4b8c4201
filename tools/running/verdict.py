"""Say whether a notebook ran, and if not, which cell is to blame: from what was seen, not told.

papermill's exit code and metadata are no evidence: it calls all cells completed after the
kernel died, and a notebook that called `sys.exit(0)` or whose `!` command failed a success.
"""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tools.running.limits import Limit
from tools.running.memory import is_out_of_memory

Status = Literal["completed", "failed", "interrupted"]
Cause = Literal[
    "",
    "error",
    "exit",
    "shell",
    "timeout",
    "out of memory",
    "dead kernel",
    "left running",
    "not run",
    "expectation",
    "interrupted",
]
TRACEBACK_LINES = 12
LEAVES_RUNNING_TAG = "leaves-running"
LINE = re.compile(r"^-+> (\d+)|(?:Cell In\[\d+\]|\.py\"), line (\d+)", re.MULTILINE)
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
    tags: tuple[str, ...] = ()
    n_blank: int = 0
    """Blank lines at the top, which IPython drops before it counts."""
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
    broke: Limit | None = None
    """The limit of time beyond which this cell was interrupted."""
    memory_mib: float | None = None
    """Most memory that the kernel and its processes held during this cell."""
    gpu_mib: float | None = None
    """Most GPU memory that torch had held when this cell ended, since the kernel started."""

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
    """The limit that was broken other than by a cell, in words."""
    overrun: str = ""
    """By what the limit of memory was exceeded, in words; the kernel was killed for it."""
    size_mib: float | None = None
    """Memory of the kernel and its processes when last seen."""
    memory_kills: int | None = None
    """Processes that the system killed for want of memory meanwhile; None if it does not tell."""
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
    line: int = 1
    """Of the cell, where it stood when it failed, from 1."""

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
        reason = f"{_place(last)} {ending.limit}" if last else ending.limit
        return Verdict("failed", "timeout", reason, last)
    if ending.overrun or ending.kind == "dead kernel" or ending.exit_code is not None:
        return _dead(last, ending)
    for cell in cells:
        if not cell.is_skipped and cell.reply is None:
            return Verdict("failed", "not run", "was not run", cell)
    return _left_running(cells) or Verdict("completed")


def judge_cell(cell: CellRecord) -> Verdict | None:
    """What is wrong with a cell that ran to its end; None if nothing is, or if it did not end."""
    reply = cell.reply or {"status": "ok"}
    fault = reply if reply["status"] != "ok" else next(iter(cell.errors), None)
    lines = plain("\n".join((fault or {}).get("traceback") or [])).splitlines()
    traceback, line = "\n".join(lines[-TRACEBACK_LINES:]), failing_line(fault) + cell.n_blank
    if cell.broke:
        stubborn = "" if cell.reply else ", nor when it was interrupted"
        reason = f"did not end within {cell.broke}{stubborn}"
        return Verdict("failed", "timeout", reason, cell, traceback, line)
    if fault is not None:
        return _judge_error(cell, fault, traceback, line)
    if any(item.get("source") == "ask_exit" for item in reply.get("payload", [])):
        return Verdict("failed", "exit", "called quit(), which ends the kernel", cell)
    if cell.shell:
        reason = f"ran a shell command that failed with {_exit(cell.shell[0])}"
        return Verdict("failed", "shell", reason, cell)
    return None


def _judge_error(cell: CellRecord, fault: dict[str, Any], traceback: str, line: int) -> Verdict:
    name, value = plain(fault.get("ename") or fault["status"]), plain(str(fault.get("evalue", "")))
    if name == "SystemExit":
        reason = f"called sys.exit({value}), and the cells after it never ran"
        return Verdict("failed", "exit", reason, cell, line=line)
    cause = "out of memory" if is_out_of_memory(name, value) else "error"
    reason = f"raised {name}: {value}" if value else f"raised {name}"
    return Verdict("failed", cause, reason, cell, traceback, line)


def failing_line(fault: dict[str, Any] | None) -> int:
    """The line of the cell at which its outermost frame stood; 1 if that is not told."""
    text = plain("\n".join((fault or {}).get("traceback") or []))
    found = LINE.search(text)
    return int(found[1] or found[2]) if found else 1


def _dead(last: CellRecord | None, ending: Ending) -> Verdict:
    """The kernel's death, at the cell that ran or had run last."""
    if last is None and not ending.overrun:
        log = plain(ending.log)
        return Verdict("failed", "dead kernel", "the kernel did not start", traceback=log)
    place = _place(last) if last else "before the first cell,"
    if ending.overrun:
        reason = f"{place} the kernel was killed for memory: {ending.overrun}"
        return Verdict("failed", "out of memory", reason, last)
    is_killed = ending.exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL)
    cause = "out of memory" if is_killed and ending.memory_kills else "dead kernel"
    reason = f"{place} the kernel {_death(ending, is_killed)}"
    return Verdict("failed", cause, reason, last, plain(ending.log))


def _place(last: CellRecord) -> str:
    return "ran when" if last.reply is None else "had run when"


def _death(ending: Ending, is_killed: bool) -> str:
    if ending.exit_code is None:
        return "stopped answering"
    if not is_killed:
        return f"ended with {_exit(ending.exit_code)}"
    size = f"; it held {ending.size_mib:.0f} MiB when last seen" if ending.size_mib else ""
    if ending.memory_kills is None:
        return f"was killed (SIGKILL), probably out of memory{size}"
    if ending.memory_kills:
        return f"was killed by the system, which was out of memory{size}"
    return f"was killed (SIGKILL), but not by the system for want of memory{size}"


def _exit(code: int) -> str:
    """An exit code in words; shells add 128 to the number of a signal."""
    number = -code if code < 0 else code - 128
    known = {s.value: s.name for s in signal.Signals}
    if number not in known:
        return f"exit code {code}"
    return f"signal {known[number]}" if code < 0 else f"exit code {code} ({known[number]})"


def _left_running(cells: Sequence[CellRecord]) -> Verdict | None:
    """Blame the cell that started what is still running after the last one."""
    ran = [cell for cell in cells if cell.reply is not None]
    seen: set[tuple[str, int]] = set()
    for cell in ran:
        for name, identity in cell.running.items() - seen:
            if LEAVES_RUNNING_TAG not in cell.tags and ran[-1].running.get(name) == identity:
                reason = f"left {plain(name)} running. Wait for its end in the notebook"
                return Verdict("failed", "left running", reason, cell)
        seen |= cell.running.items()
    return None


def plain(text: str) -> str:
    """The text without colours and other control characters, safe to print."""
    return CONTROL.sub("", text)

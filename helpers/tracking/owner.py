"""Which process a run belongs to, and whether that process is known to be dead."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROC = Path("/proc")


def this_process() -> dict[str, Any]:
    """Name this process so that no later one is taken for it, not even after a reboot."""
    return {**_machine(), "pid": os.getpid(), "process_start": _start_of(os.getpid())}


def is_dead(owner: Mapping[str, Any], *, is_file: bool) -> bool:
    """Whether the owner of a run cannot be alive; in doubt it is.

    A database that is a file of this machine (`is_file`) has no owner on another one, so another
    boot, or a row that names no process, is a dead one wherever it was.
    """
    here = _machine()
    if owner["pid"] is None:
        return is_file
    if owner["boot_id"] != here["boot_id"]:
        return is_file or owner["host"] == here["host"]
    if owner["host"] != here["host"]:  # a container beside this one, or another machine
        return False
    start = _start_of(owner["pid"])
    return start is None or start != owner["process_start"]


@functools.cache
def _machine() -> dict[str, str]:
    """The host, with the namespace that its process numbers belong to, and this boot of it."""
    try:
        space = os.readlink(PROC / "self" / "ns" / "pid")
    except OSError:
        space = ""
    boot = PROC / "sys" / "kernel" / "random" / "boot_id"
    return {
        "host": f"{platform.node()} {space}".strip(),
        "boot_id": boot.read_text().strip() if boot.exists() else "",
    }


def _start_of(pid: int) -> str | None:
    """When a process began, in ticks since boot; "" where that is not known, None if it is dead.

    Source: proc_pid_stat(5), fields 3 and 22; the name before them may hold blanks and brackets.
    """
    if not PROC.is_dir():
        return "" if _answers(pid) else None
    try:
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""Say whether something ended for want of memory: by the system's counters, or by its error."""

from pathlib import Path

RAISED = ("MemoryError", "OutOfMemoryError", "_ArrayMemoryError")
PHRASES = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "HIP out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "RESOURCE_EXHAUSTED: Out of memory",
)
"""An allocator's own words; libraries raise them as plain RuntimeError."""


def is_out_of_memory(name: str, value: str) -> bool:
    """Whether an exception of this name and text tells that an allocation failed."""
    return name.rpartition(".")[2] in RAISED or any(phrase in value for phrase in PHRASES)


def memory_kills(root: Path = Path("/")) -> int | None:
    """How many processes the system has killed for want of memory; None if it does not tell.

    The counter of our own control group goes before that of the machine, on which others live.
    """
    for path in _counters(root):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
        if counts:
            return int(counts[0])
    return None


def _counters(root: Path) -> list[Path]:
    """The files that may hold the counter, the nearest first."""
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            found.append(groups / "memory" / path.lstrip("/") / "memory.oom_control")
        elif not controllers:
            found.append(groups / path.lstrip("/") / "memory.events")
    return [*found, root / "proc/vmstat"]

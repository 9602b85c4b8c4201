"""Where a notebook runs: Colab, Jupyter or a runner, and on what machine."""

from __future__ import annotations

import os
import platform
import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "numpy", "pydantic", "safetensors", "tokenizers", "sqlalchemy", "pandas")
STARTED = "TRAINBOOK_KERNEL_STARTED"
HEADLESS = "TRAINBOOK_HEADLESS"
_IMPORTED_AT = time.time()


@dataclass(frozen=True)
class Runtime:
    """The machine and the software that a notebook got, one row each."""

    rows: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return "\n".join(f"{name:<12}{value}" for name, value in self.rows)

    def _repr_html_(self) -> str:
        cell = "<td style='text-align:left'>"
        rows = "".join(f"<tr>{cell}{name}</td>{cell}{value}</td></tr>" for name, value in self.rows)
        return f"<table>{rows}</table>"


def is_colab() -> bool:
    """Whether this is a Colab runtime; installing google.colab elsewhere does not make one."""
    return "COLAB_RELEASE_TAG" in os.environ


def is_headless() -> bool:
    """Whether nobody looks at the notebook while it runs."""
    return HEADLESS in os.environ


def describe_runtime() -> Runtime:
    """Say what this notebook runs on.

    Raises: ImportError, with the command that helps, if a package is missing.
    """
    missing = [name for name in PACKAGES if not _version(name)]
    if missing:
        raise ImportError(
            f"{', '.join(missing)} are not installed, but the suite needs them. "
            f"Run: pip install {' '.join(missing)}"
        )
    place = "Colab" if is_colab() else "a notebook runner" if is_headless() else "Jupyter"
    rows = [
        ("runs in", place),
        ("python", platform.python_version()),
        ("packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)),
        ("processor", f"{os.cpu_count()} cores, {_memory_gib():.0f} GiB of memory"),
        ("GPU", _gpu()),
        ("disk", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB free"),
    ]
    return Runtime(tuple(rows))


def seconds_since_start(moment: float | None = None) -> float:
    """Seconds from the start of the kernel to a moment in `time.time()`, or to now."""
    return (moment or time.time()) - _started_at()


def _started_at() -> float:
    """When the kernel was started: as the runner says, else as the system says."""
    if STARTED in os.environ:
        return float(os.environ[STARTED])
    stat, uptime = Path("/proc/self/stat"), Path("/proc/uptime")
    if not (stat.exists() and uptime.exists()):
        return _IMPORTED_AT
    ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    age = float(uptime.read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none; in Colab: Runtime, Change runtime type, T4 GPU"
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"

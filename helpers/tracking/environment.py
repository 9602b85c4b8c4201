"""What a run stood on: packages, machine, code version, and fingerprints of plain values.

Nothing here names a person, a home folder or a host, and of the environment variables only
those in `VARIABLES` are read: the rest may hold secrets.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "pydantic", "safetensors", "tokenizers", "sqlalchemy", "pandas")
VARIABLES = (
    "COLAB_RELEASE_TAG",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "KAGGLE_KERNEL_RUN_TYPE",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TOKENIZERS_PARALLELISM",
    "WORLD_SIZE",
)
_PACKAGE = Path(__file__).resolve().parents[1]
_LOCAL_FUSE = ("fuseblk", "fuse.fuse-overlayfs")  # local disks, in spite of their name
_REMOTE = (
    "fuse", "nfs", "cifs", "smb", "9p", "drvfs", "vboxsf", "vmhgfs", "prl_fs", "virtiofs", "afs",
    "ceph", "gluster", "lustre", "gpfs", "beegfs", "davfs",
)  # fmt: skip
MOUNTS = Path("/proc/mounts")


def environment() -> dict[str, Any]:
    """Describe the software and the machine as plain JSON types.

    Units: memory in GiB. GPUs are named only where torch is loaded already.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _package_versions(PACKAGES),
        "cpu": _cpu_name(),
        "cores": _cores(),
        "memory_gib": _memory_gib(),
        "gpus": _gpu_names(),
        "code_version": code_version(),
        "git": _git_state(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def code_version() -> str:
    """Name the code: its git commit, else its release, else a fingerprint of its source.

    A commit with changes on top is followed by a fingerprint of the source as it is.
    """
    git = _git_state()
    if git is None:
        return _release() or f"source-{_source_fingerprint()}"
    commit = git["commit"][:12]
    return f"{commit}-dirty-{_source_fingerprint()}" if git["dirty"] else commit


def fingerprint(*parts: bytes | str | Mapping[str, Any]) -> str:
    """Return 12 hex digits of SHA-256 over the parts; kind, length and order of each count.

    >>> fingerprint("ab", "c") == fingerprint("a", "bc")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            kind, content = b"b", part
        elif isinstance(part, str):
            kind, content = b"s", part.encode("utf-8", "surrogatepass")
        else:
            kind, content = b"j", json.dumps(part, sort_keys=True).encode()
        digest.update(kind + len(content).to_bytes(8) + content)
    return digest.hexdigest()[:12]


def network_file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the kind of file system if `path` is on a network or in user space, else ""."""
    if not mounts.exists():
        return ""
    kind = mounted_as(Path(os.path.realpath(path)), mounts.read_text(errors="surrogateescape"))
    return kind if kind.startswith(_REMOTE) and kind not in _LOCAL_FUSE else ""


def mounted_as(path: Path, mounts: str) -> str:
    """Return the kind of file system of the deepest mount above `path`; the last mount wins.

    Source: proc_mounts(5); blanks in a folder's name are written as octal numbers.
    """
    deepest, found = "", ""
    for line in mounts.splitlines():
        _, folder, kind, *_ = [*line.split(" "), "", "", ""]
        folder = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), folder)
        if folder and path.is_relative_to(folder) and len(folder) >= len(deepest):
            deepest, found = folder, kind
    return found


def _package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the installed ones, read without importing them."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gib() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _gpu_names() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it, or None where git does not track this package."""
    if not _git("ls-files", "--", "."):
        return None
    lines = _git("status", "--porcelain=v2", "--branch", "--", ".").splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid")), "")
    if not re.fullmatch("[0-9a-f]{40,64}", commit):
        return None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def _git(*arguments: str) -> str:
    """Output of a git command in this package's folder, or "" where there is no answer."""
    try:
        # fsmonitor is a program that a checkout's own settings may name; we start none.
        done = subprocess.run(
            ["git", "-C", str(_PACKAGE), "-c", "core.fsmonitor=false", *arguments],
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _release() -> str:
    return _package_versions(["trainbook"]).get("trainbook", "")


def _source_fingerprint() -> str:
    """Fingerprint of the names and contents of this package's modules."""
    parts: list[bytes | str] = []
    for path in sorted(_PACKAGE.rglob("*.py")):
        parts += [path.relative_to(_PACKAGE).as_posix(), path.read_bytes()]
    return fingerprint(*parts)

"""Google Drive: a local folder."""

import os
from pathlib import Path

from ._record import record

_mounted = {}


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    """Make MyDrive below the mount point, which must be empty, without blanks and no link.

    Raises: ValueError if it is not, or if there is no Drive.
    """
    record(
        "drive.mount",
        mountpoint=str(mountpoint),
        force_remount=force_remount,
        timeout_ms=timeout_ms,
        readonly=readonly,
    )
    point = Path(mountpoint)
    if str(point) in _mounted and not force_remount:
        print(f"Drive already mounted at {point}; force_remount=True mounts it again.")
        return
    flush_and_unmount(quiet=True)
    _check(point)
    source = os.environ.get("COLAB_STUB_DRIVE")
    if source == "":
        raise ValueError("mount failed: no Drive")
    try:
        _attach(point, Path(source) if source else None)
    except OSError as error:
        raise ValueError(f"mount failed: {error}") from error
    print(f"Mounted at {point}")


def flush_and_unmount(timeout_ms=24 * 60 * 60 * 1000, quiet=False):
    """Take the mounted folder away; what it holds stays in the folder that stands for Drive."""
    if not quiet:
        record("drive.flush_and_unmount", timeout_ms=timeout_ms)
        if not _mounted:
            print("Drive not mounted, so nothing to flush and unmount.")
    for point, source in list(_mounted.items()):
        if source is not None:
            Path(point).unlink(missing_ok=True)
        del _mounted[point]


def _check(point):
    if " " in str(point):
        raise ValueError("Mountpoint must not contain a space.")
    if point.is_symlink():
        raise ValueError("Mountpoint must not be a symlink")
    if point.exists() and not point.is_dir():
        raise ValueError("Mountpoint must either be a directory or not exist")
    if point.is_dir() and any(entry.name != "MyDrive" for entry in point.iterdir()):
        raise ValueError("Mountpoint must not already contain files")


def _attach(point, source):
    if source is None:
        (point / "MyDrive").mkdir(parents=True, exist_ok=True)
    else:
        (source / "MyDrive").mkdir(parents=True, exist_ok=True)
        point.parent.mkdir(parents=True, exist_ok=True)
        if point.is_dir():
            point.rmdir()
        point.symlink_to(source.resolve(), target_is_directory=True)
    _mounted[str(point)] = source

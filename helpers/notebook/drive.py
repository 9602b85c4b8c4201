"""Google Drive in Colab: is it there, mount it where somebody can allow it, flush it at the end.

The system's table of mounts decides, not the look of the folder: a plain folder of the same name
takes files too, and they are gone with the machine.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.engine.mirror_files import DRIVE, NotThereError, check_place
from helpers.notebook.panel import in_notebook
from helpers.notebook.runtime import is_colab, is_headless
from helpers.tracking.environment import MOUNTS

MY_DRIVE = DRIVE / "MyDrive"
ANSWER_S, FLUSH_S = 5, 600.0


def prepare_mirror(mirror_dir: str, mounts: Path = MOUNTS) -> str:
    """Mount Drive if a run is to be mirrored there, and say where its checkpoints will be."""
    if not mirror_dir:
        risk = "lost with this machine" if is_colab() else "lost with this disk"
        return (
            f"Checkpoints are on the local disk alone, and {risk}. Set mirror_dir to a folder on "
            "another disk, as one on Drive, to keep a second copy."
        )
    place = f"The newest and the best checkpoint are copied to {mirror_dir} while training goes on."
    if not Path(mirror_dir).is_relative_to(DRIVE):
        return place
    outcome = mount_drive(mounts)
    return f"{outcome}\n{place}" if is_drive_mounted(mounts) else outcome


def is_drive_mounted(mounts: Path = MOUNTS) -> bool:
    """Whether Google Drive is mounted, by the table of mounts."""
    try:
        check_place(DRIVE, mounts)
    except NotThereError:
        return False
    return mounts.exists()


def mount_drive(mounts: Path = MOUNTS) -> str:
    """Mount Google Drive if it can be done here, and say what came of it, in a sentence.

    Nothing is asked where nobody can answer: outside Colab, and in a notebook that a program runs.
    """
    if is_drive_mounted(mounts):
        return f"Google Drive is mounted at {DRIVE}."
    reason = _why_not()
    if reason:
        return f"Google Drive was not mounted: {reason} Everything stays on the local disk."
    from google.colab import drive

    trouble = ""
    try:
        drive.mount(str(DRIVE))
    except (ValueError, OSError, RuntimeError) as error:
        trouble = f": {error}"
    if is_drive_mounted(mounts):
        return f"Google Drive is mounted at {DRIVE}."
    return (
        f"Google Drive was not mounted{trouble or ', as it seems it was not allowed'}. Run the "
        "cell again to allow it; until then everything stays on the local disk."
    )


def flush_drive(limit_s: float = FLUSH_S, mounts: Path = MOUNTS) -> str:
    """Wait until Drive has uploaded what was written, and unmount it; at most for `limit_s`."""
    if not is_drive_mounted(mounts):
        return "Google Drive is not mounted, so there is nothing to flush."
    if not (is_colab() and "google.colab" in sys.modules):
        return f"{DRIVE} is mounted, but not by Colab, so it was not flushed."
    from google.colab import drive

    trouble: list[str] = []
    flush = _guarded(lambda: drive.flush_and_unmount(timeout_ms=int(1000 * limit_s)), trouble)
    thread = threading.Thread(target=flush, name="flush-drive", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        return (
            f"Google Drive had not uploaded everything after {limit_s:.0f} s. Keep this machine "
            "for now, and look into Drive before you give it back."
        )
    if trouble:
        return f"Google Drive was not flushed: {trouble[0]}. Run the cell again."
    return "Google Drive has uploaded everything and is unmounted."


def _why_not() -> str:
    """Why nobody can be asked for Drive here; "" if somebody can."""
    if not is_colab():
        return "this is not Colab."
    if is_headless() or not in_notebook():
        return "a program runs this notebook, and nobody can allow it."
    try:
        from google.colab import _message
    except ImportError:
        return "this kernel has no google.colab."
    # A program that runs a notebook on Colab's machine has the same kernel, but no page to answer.
    if _message.blocking_request("get_ipynb", request="", timeout_sec=ANSWER_S) is None:
        return "no page of Colab answers, so a program seems to run this notebook."
    return ""


def _guarded(call: Callable[[], Any], trouble: list[str]) -> Callable[[], None]:
    """A call whose error is kept for the thread that waits for it."""

    def guarded() -> None:
        try:
            call()
        except (ValueError, OSError, RuntimeError, NotImplementedError) as error:
            trouble.append(str(error) or type(error).__name__)

    return guarded

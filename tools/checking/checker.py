"""Run another checker in the background, and refuse in one sentence if it is not there or fails."""

import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tools.errors import ToolsError

LAST_CHARACTERS = 300


class Checker:
    """One run of a command line tool; what it prints goes to files, so that it never blocks.

    `codes` are those of the findings that hang on it.
    """

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, codes: Sequence[str]):
        self._name = name
        self._codes = codes
        self._folder = folder
        command = [executable(name), *arguments]
        with self._file("out").open("wb") as out, self._file("err").open("wb") as err:
            self._process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    def output(self) -> str:
        """What it printed, when it has ended.

        Raises: ToolsError unless it ended with 0 (clean) or 1 (findings).
        """
        code = self._process.wait()
        if code not in (0, 1):
            words = self._file("err").read_text(errors="replace").strip()[-LAST_CHARACTERS:]
            raise ToolsError(
                f"{self._name} ended with exit code {code}, but 0 or 1 was expected ({words}). "
                f"Install the version of {self._name} that requirements-dev.txt names, "
                f"or go on without it: --ignore {','.join(self._codes)}"
            )
        return self._file("out").read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _file(self, kind: str) -> Path:
        return self._folder / f"{self._name}.{kind}"


def executable(name: str) -> str:
    """The path of a command that pip installed beside this Python, or that is on the PATH.

    Raises: ToolsError with the pip command that installs it.
    """
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if path is None:
        raise ToolsError(
            f"{name} is not installed, but validate needs it. Run: python -m pip install {name}"
        )
    return path

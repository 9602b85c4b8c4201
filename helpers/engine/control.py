"""Files by which a run is told from outside what to do: touch STOP, PAUSE, SAVE or FINISH in it.

They work where no button does: from a terminal, from another tab, from Colab's file browser, and
while the training cell is busy. A command is removed when it is carried out; PAUSE lasts until the
file is removed.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

COMMANDS = ("STOP", "PAUSE", "SAVE", "FINISH")
LOOK_EVERY_S = 0.2


@dataclass
class ControlFiles:
    """The commands that lie in a run's folder; looked for at most five times a second."""

    folder: Path
    look_every_s: float = LOOK_EVERY_S
    _next_look: float = field(default=0.0, repr=False)

    def read(self) -> list[str]:
        """The commands given, in the order of COMMANDS; nothing between two looks."""
        now = time.monotonic()
        if now < self._next_look:
            return []
        self._next_look = now + self.look_every_s
        return [name for name in COMMANDS if os.path.exists(self.folder / name)]

    def is_given(self, name: str) -> bool:
        """Whether a command lies there right now."""
        return os.path.exists(self.folder / name)

    def done(self, name: str) -> None:
        """Remove a command that was carried out; one that cannot be removed is given again."""
        with contextlib.suppress(OSError):
            os.unlink(self.folder / name)

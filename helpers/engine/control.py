"""Files by which a run is told from outside what to do: touch STOP, PAUSE, SAVE or FINISH in it.

They work where no button does: from a terminal, from another tab, from Colab's file browser, and
while the training cell is busy; capitals or not, a file or an empty folder. A command is removed
when it is carried out; PAUSE lasts until it is removed. What lies there before a session was meant
for another one: it is removed and told.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.engine.run import Run

# In the order in which they are carried out, where several are given.
COMMANDS = ("FINISH", "SAVE", "STOP", "PAUSE")
LOOK_EVERY_S = 0.2


@dataclass
class ControlFiles:
    """The commands that lie in a run's folder; looked for at most five times a second."""

    folder: Path
    look_every_s: float = LOOK_EVERY_S
    notes: list[str] = field(default_factory=list)
    """What there is to tell of commands from before, and of those that cannot be removed."""
    _stuck: set[str] = field(default_factory=set, repr=False)
    _next_look: float = field(default=0.0, repr=False)

    @classmethod
    def from_now(cls, folder: Path) -> ControlFiles:
        """Look for commands that are given from now on; earlier ones are removed."""
        control = cls(folder)
        for command in control.given():
            control.notes.append(
                f"the file {command} was there before this session, and was not carried out; "
                "give it again if it is meant"
            )
            control.done(command)
        return control

    def read(self) -> list[str]:
        """The commands given, in the order of COMMANDS; nothing between two looks."""
        now = time.monotonic()
        if now < self._next_look:
            return []
        self._next_look = now + self.look_every_s
        return self.given()

    def given(self) -> list[str]:
        """The commands that lie there right now, but for those that could not be removed."""
        try:
            lying = {name.upper() for name in os.listdir(self.folder)}
        except OSError:  # somebody moved the folder; saving makes it anew
            return []
        self._stuck &= lying
        return [name for name in COMMANDS if name in lying and name not in self._stuck]

    def done(self, command: str) -> None:
        """Remove a command; one that cannot be removed counts no more until it is gone."""
        try:
            for name in os.listdir(self.folder):
                if name.upper() == command:
                    _remove(self.folder / name)
        except OSError as error:
            self._stuck.add(command)
            self.notes.append(
                f"{command} cannot be removed ({error.strerror}), and counts no more until it is "
                "gone; remove it"
            )

    def tell(self, run: Run) -> None:
        """Tell what there is to tell."""
        while self.notes:
            run.tell("control file", self.notes.pop(0))


def obey(run: Run, save: Callable[[], None]) -> None:
    """Carry out the commands that lie in the run's folder; `save` saves the run in between."""
    for command in run.control.read() if run.control is not None else ():
        if command == "PAUSE":
            _pause(run, save)
        else:
            _carry_out(command, run, save)


def _carry_out(command: str, run: Run, save: Callable[[], None]) -> None:
    """Do what a command says, and remove it when that is done."""
    if command == "FINISH":
        run.finish_soon()
        run.begin_decay()
        if run.saver.is_on_the_way:
            run.saver.wait(run)
            if run.is_on_disk():  # without what was just decided; the next step is saved with it
                return
            save()
            run.saver.wait(run)
    elif command == "SAVE":
        save()
        run.saver.wait(run)
    elif command == "STOP":
        run.tell("stopping", "the file STOP is there")
        run.stop.set("stopped by the file STOP")
    run.control.done(command)
    run.control.tell(run)


def _pause(run: Run, save: Callable[[], None]) -> None:
    """Wait as long as PAUSE is there, and carry out other commands meanwhile; a stop ends it."""
    if run.stop or run.is_over:
        return
    save()
    run.saver.wait(run)
    run.tracker.pause()
    with run.budget.held():
        run.tell("paused", "the file PAUSE is there; remove it to go on")
        while not (run.stop or run.is_over):
            given = run.control.given()
            if "PAUSE" not in given:
                break
            for command in given[:-1]:
                _carry_out(command, run, save)
                run.tracker.pause()
            time.sleep(LOOK_EVERY_S)
            run.note_time()
    run.tracker.resume()
    why = "its time is over" if run.is_over else "the file PAUSE is gone"
    run.tell("goes on", "asked to stop" if run.stop else why)


def _remove(path: Path) -> None:
    """Remove a file, a link or an empty folder."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()

"""Mirror: the newest and the best checkpoint on a second disk, copied beside the training.

Nothing that the other disk does reaches the training: its errors are told once and tried again, and
what hangs is left alone. A step is LOCAL_DURABLE, or MIRRORED: copied and read back. Read back
through a mount this may be the machine's own cache; whether Drive has uploaded it only Drive knows.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.engine.callbacks import Callback
from helpers.engine.copier import Copier, LostError, NotOursError
from helpers.engine.durable import write_json
from helpers.engine.mirror_files import BEGUN, BEST, ENDED, LAST, SourceError
from helpers.errors import CheckpointError, ConfigError, TrackingError

if TYPE_CHECKING:
    from helpers.engine.checkpoint import CheckpointInfo
    from helpers.engine.run import Run
    from helpers.engine.run_folder import RunFolder
    from helpers.tracking.db import ExperimentDB

RETRY_S, RETRY_AT_MOST_S = 10.0, 600.0
BEAT_S, WATCH_S = 60.0, 180.0
# At the end of a session: without a byte of progress, and in all.
STALL_S, END_WAIT_S = 60.0, 600.0
LOCAL, MIRRORED = "LOCAL_DURABLE", "MIRRORED"
MEANING = "MIRRORED is copied and read back; that Drive has uploaded it is not known from here"
CURES = {
    errno.ENOSPC: "free some space there, on Drive in its trash too",
    errno.EDQUOT: "free some space there, on Drive in its trash too",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.ENOTCONN: "mount it again",
}

_hanging: dict[Path, threading.Thread] = {}


class AbandonedError(Exception):
    """The session that this copying was for has ended."""


class Mirror(Callback):
    """Keep the mirror of a run up to date while it trains; `finish` at its end.

    Only the newest and the best checkpoint wait to be copied, so that a slow disk falls behind by
    steps and never by memory.

    Raises: ConfigError if the mirror would be the run's own folder.
    """

    def __init__(self, folder: RunFolder, mirror_dir: str | Path) -> None:
        home = Path(os.path.abspath(Path(mirror_dir).expanduser()))
        if (home / folder.run_id).is_relative_to(folder.path):
            raise ConfigError(
                f"mirror_dir is {home}, but the run itself is there. Set it to a folder on another "
                "disk, as one on Drive."
            )
        self.folder, self.home, self.trouble = folder, home, ""
        self.mirrored_step: int | None = None
        self._copier = Copier(folder, home, self._count, WATCH_S)
        self._changed = threading.Condition()
        self._wanted: dict[str, int] = {}
        self._pins: dict[int, contextlib.ExitStack] = {}
        self._news: deque[tuple[str, str]] = deque()
        self._told: set[str] = set()
        self._thread: threading.Thread | None = None
        self._is_ending = self._is_over = self._is_abandoned = False
        self._retry_at, self._retry_s, self._beat_at = 0.0, RETRY_S, 0.0
        self._work_done, self._progress = 0, 0
        self._work_asked = 0

    @property
    def note(self) -> str:
        """Where the mirror stands, in one line; empty before the first copy."""
        step, newest = self.mirrored_step, self._wanted.get(LAST)
        here = "" if step is None else f"step {step:,} is copied to {self.home} and read back"
        if newest in (step, None):
            return here
        behind = f"step {newest:,} is on the local disk only"
        return ", ".join(filter(None, [here, behind, self.trouble]))

    def on_checkpoint(self, run: Run, info: CheckpointInfo) -> None:
        self.offer(info.step, run.state.best_step)
        self.deliver(run)

    def on_log(self, run: Run, row: dict[str, object]) -> None:
        self.deliver(run)

    on_evaluate = on_log

    def offer(self, newest: int | None, best: int | None, *, is_last: bool = False) -> None:
        """Ask for the newest and the best local checkpoint to be copied; never waits.

        What is asked for last is copied with the results, and the worker ends.
        """
        steps = self._local_steps()
        wanted = {slot: s for slot, s in ((LAST, newest), (BEST, best)) if s in steps}
        self._pin(set(wanted.values()))
        with self._changed:
            # In one, for a worker that sees the end and no work goes home.
            self._is_ending |= is_last
            self._wanted, self._work_asked = wanted, self._work_asked + 1
            self._changed.notify()
        self._start()

    def deliver(self, run: Run) -> None:
        """Tell what became of the copies since the last call."""
        while self._news:
            run.tell(*self._news.popleft())

    def finish(self, run: Run, db: ExperimentDB | None = None) -> None:
        """Copy what is left, with the results and a backup of the database; waits a bounded time.

        A second interrupt ends the waiting.
        """
        backup = None if self._is_over else self._back_up(db)
        steps = self._local_steps()
        self.offer(steps[-1] if steps else None, run.state.best_step, is_last=True)
        try:
            self._wait(run)
        finally:
            self.let_go()
            if backup is not None:
                with contextlib.suppress(OSError):
                    backup.unlink(missing_ok=True)
            self._write_state()
            self.deliver(run)

    def let_go(self) -> None:
        """Leave the other disk alone from now on, whatever is under way there; never waits."""
        self._is_abandoned = True
        with self._changed:
            self._changed.notify()
        if self._thread is not None and self._thread.is_alive():
            _hanging[self._copier.root] = self._thread
            self._copier.claim.forget()
        self._pin(set())

    def _wait(self, run: Run) -> None:
        """Wait for the worker as long as bytes flow, and say so if that takes long."""
        thread, began = self._thread, time.monotonic()
        moved, moved_at, is_told = self._progress, began, False
        while thread is not None and thread.is_alive():
            thread.join(timeout=0.02)
            now = time.monotonic()
            if self._progress != moved:
                moved, moved_at = self._progress, now
            if not is_told and now - began > 2:
                run.tell("mirror", f"copying what is left to {self.home}; {END_WAIT_S:.0f} s "
                         "at most, an interrupt ends this")  # fmt: skip
                is_told = True
            if now - moved_at > STALL_S or now - began > END_WAIT_S:
                self._say("hangs", f"{self.home} does not answer; it is left alone")
                return

    def _back_up(self, db: ExperimentDB | None) -> Path | None:
        """Copy the database to the run's folder, for the worker to take it from there."""
        if db is None:
            return None
        path = self.folder.path / ENDED[-1]
        try:
            db.backup(path)
        except TrackingError as error:
            self._news.append(("mirror", f"the database is not copied: {error}"))
            return None
        return path

    def _local_steps(self) -> list[int]:
        try:
            return self.folder.checkpoints.steps()
        except OSError:  # the local disk fails; whoever saves there tells it
            return []

    def _start(self) -> None:
        """Start the worker, unless an earlier one of this kernel still hangs on the same disk."""
        if self._thread is not None or self._is_over:
            return
        earlier = _hanging.get(self._copier.root)
        if earlier is not None and earlier.is_alive():
            self._say("hangs", f"{self.home} does not answer since the last session")
            return
        _hanging.pop(self._copier.root, None)
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._thread.start()

    def _pin(self, steps: Iterable[int]) -> None:
        """Keep these checkpoints from being removed, and let the others go."""
        for step in self._pins.keys() - set(steps):
            self._pins.pop(step).close()
        for step in set(steps) - self._pins.keys():
            stack = contextlib.ExitStack()
            with contextlib.suppress(CheckpointError):
                stack.enter_context(self.folder.checkpoints.pin(step))
                self._pins[step] = stack

    # What follows runs on the worker's thread.

    def _work(self) -> None:
        is_done = False
        try:
            while self._await_work():
                self._turn()
            is_done = True
        except AbandonedError:
            is_done = True
        except LostError as error:
            is_done = self._is_over = True
            self._say("lost", f"{error}; mirroring has stopped, and the run goes on")
        finally:
            if not is_done:
                self._say("died", "the mirror's thread ended by an error of its own")
            self._release()

    def _await_work(self) -> bool:
        """Sleep until there is something to do; False at the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                has_work = self._work_done < self._work_asked
                if self._is_abandoned or (self._is_ending and not has_work):
                    return False
                if has_work and (now >= self._retry_at or self._is_ending):
                    return True
                if now >= self._beat_at:
                    return True
                until = min(self._beat_at, self._retry_at) if has_work else self._beat_at
                self._changed.wait(timeout=max(0.001, until - now))

    def _turn(self) -> None:
        """Do all that is asked for, or note why not and when to try again."""
        with self._changed:
            asked, wanted, is_last = self._work_asked, dict(self._wanted), self._is_ending
        self._beat_at = time.monotonic() + BEAT_S
        try:
            self._copier.open()
            self._copier.beat()
            if self._work_done < asked and (is_last or time.monotonic() >= self._retry_at):
                self._bring(wanted, is_last)
                self._work_done = asked
                self._succeeded()
        except OSError as error:
            self._copier.close()
            self._failed(error, asked, is_last)

    def _bring(self, wanted: dict[str, int], is_last: bool) -> None:
        # Also the files: a session that is behind the mirror has fewer rows than it.
        self._copier.check_ahead(wanted.get(LAST))
        self._copier.bring_files(BEGUN)
        best = wanted.get(BEST)
        for slot in (LAST, BEST):
            if slot in wanted:
                with self.folder.checkpoints.pin(wanted[slot]):
                    self._copier.bring(wanted[slot], slot, best)
                    if slot == LAST:
                        self.mirrored_step = wanted[LAST]
        if is_last:
            self._copier.bring_files(ENDED)

    def _succeeded(self) -> None:
        if self.trouble or not self._told:
            again = "works again: " if self.trouble else ""
            if self.mirrored_step is not None:
                self._news.append(
                    ("mirror", f"{again}step {self.mirrored_step:,} is copied to {self.home} and "
                     "read back")
                )  # fmt: skip
        for note in self._copier.notes:
            self._news.append(("mirror", note))
        self._copier.notes.clear()
        self.trouble, self._told = "", {"ok"}
        self._retry_at, self._retry_s = 0.0, RETRY_S
        self._write_state()

    def _failed(self, error: OSError, asked: int, is_last: bool) -> None:
        is_stale = isinstance(error, SourceError | CheckpointError) and asked < self._work_asked
        if is_stale:  # a newer checkpoint has taken the place of this one
            return
        cure = CURES.get(error.errno or 0)
        words = (error.strerror or str(error)) + (f"; {cure}" if cure else "")
        self._say(f"{type(error).__name__} {error.errno}", words)
        is_watching = isinstance(error, NotOursError) and error.errno == errno.EAGAIN
        pause = min(RETRY_S, WATCH_S / 20) if is_watching else self._retry_s
        self._retry_at = time.monotonic() + pause
        self._beat_at = max(self._beat_at, self._retry_at)
        self._retry_s = min(2 * self._retry_s, RETRY_AT_MOST_S)
        self._write_state()
        if is_last and is_watching:
            self._progress += 1
            time.sleep(pause)
        elif is_last:
            self._work_done = asked  # the end of a session does not wait for the other side

    def _release(self) -> None:
        if not self._is_abandoned:
            with contextlib.suppress(OSError):
                self._copier.claim.release()
        self._copier.claim.forget()

    def _count(self, n_bytes: int) -> None:
        """Note that bytes flow, and stay alive in the eyes of others while a long copy is made."""
        self._progress += 1
        if self._is_abandoned:
            raise AbandonedError
        if n_bytes and time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + BEAT_S
            self._copier.beat()

    def _say(self, kind: str, words: str) -> None:
        """Tell a trouble once; again only after it has passed, or if it is another one."""
        self.trouble = words
        if kind not in self._told:
            self._told.add(kind)
            held = "" if self.mirrored_step is None else (
                f" The mirror holds step {self.mirrored_step:,}."
            )  # fmt: skip
            self._news.append(
                ("not mirrored", f"{self.home}: {words}. Checkpoints are on the local disk only, "
                 f"and the run goes on.{held}")
            )  # fmt: skip

    def _write_state(self) -> None:
        """Keep in the run's folder which step is where."""
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        copies = self._copier.copied_steps()
        steps = {step: {"state": LOCAL} for step in self._local_steps()}
        steps |= {s: {"state": MIRRORED, "slot": slot} for slot, s in copies.items()}
        content = {
            "mirror": str(self._copier.root),
            "meaning": MEANING,
            "at": now,
            "trouble": self.trouble,
            "steps": {str(step): steps[step] for step in sorted(steps)},
        }
        with contextlib.suppress(OSError):
            write_json(self.folder.path / "MIRROR.json", content)

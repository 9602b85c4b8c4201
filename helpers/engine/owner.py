"""One run, one owner: who trains a run, and whether that process is still at it.

On a local disk the system's lock decides: it ends with its process. Where locks fail or do not
reach other machines, a file does, in which the owner counts up: whoever sees the count stand still
for long enough, by a clock that nobody can set, takes over.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import io
import json
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.errors import RunFolderError
from helpers.tracking.environment import MOUNTS, network_file_system
from helpers.tracking.owner import is_dead, this_process

WATCH_S, BEAT_S, SETTLE_S = 60.0, 10.0, 0.3
# flock on file systems that have no locks: Drive, some FUSE and network mounts.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM)
SIZE = 1024
_KEYS = {"host", "boot_id", "pid", "process_start", "token", "beats"}
# Of this process. They are forgotten with the objects, as where an interrupt broke off a release.
_claims: weakref.WeakValueDictionary[str, Claim] = weakref.WeakValueDictionary()
_files: weakref.WeakSet[io.FileIO] = weakref.WeakSet()


class Claim:
    """A file that says who owns a folder.

    `former` is the owner that was taken over from, `holder` the one that keeps us out.
    """

    def __init__(
        self, path: Path, watch_s: float = WATCH_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self.watch_s, self.clock = path, watch_s, clock
        self.token = secrets.token_hex(8)
        self.former: dict[str, Any] | None = None
        self.holder: dict[str, Any] | None = None
        self.is_holder_alive = False
        self._beats = 0
        self._started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        self._seen: tuple[str, int] | None = None
        self._seen_at = 0.0

    def take(self) -> bool:
        """Take the folder if nobody has it, or if its owner is dead or silent; else look again."""
        holder = self.read()
        if holder is not None and holder["token"] != self.token and not self._is_gone(holder):
            self.holder = holder
            return False
        self.seize(holder)
        return self.is_mine()

    def seize(self, holder: dict[str, Any] | None = None) -> None:
        """Take the folder whoever has it."""
        self.former = holder if holder and holder["token"] != self.token else self.former
        _claims[self.token] = self
        self._write()

    def is_mine(self) -> bool:
        """Whether the file still names us."""
        holder = self.read()
        self.holder = holder
        return holder is not None and holder["token"] == self.token

    def beat(self) -> bool:
        """Show that we are alive; False if another has taken over."""
        if not self.is_mine():
            return False
        self._write()
        return True

    def release(self) -> None:
        """Leave the folder to others; a file that names another stays."""
        _claims.pop(self.token, None)
        if self.is_mine():
            os.truncate(self.path, 0)

    def forget(self) -> None:
        """Be no owner any more without a word, as where the file cannot be reached."""
        _claims.pop(self.token, None)

    def read(self) -> dict[str, Any] | None:
        """Who the file names, or None."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            holder = json.loads(os.read(descriptor, SIZE) or b"null")
        except ValueError:
            return None
        finally:
            os.close(descriptor)
        return holder if isinstance(holder, dict) and holder.keys() >= _KEYS else None

    def _write(self) -> None:
        """Write in place and always as much, so that nobody reads half of it or an empty file."""
        self._beats += 1
        owner = {**this_process(), "token": self.token, "beats": self._beats}
        line = json.dumps({**owner, "since": self._started}).ljust(SIZE - 1) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def _is_gone(self, holder: dict[str, Any]) -> bool:
        here = this_process()
        if all(holder[key] == here[key] for key in ("host", "boot_id", "pid", "process_start")):
            self.is_holder_alive = holder["token"] in _claims
            return not self.is_holder_alive
        if is_dead(holder, is_file=False):
            return True
        now, seen = self.clock(), (holder["token"], holder["beats"])
        is_same_machine = (holder["host"], holder["boot_id"]) == (here["host"], here["boot_id"])
        if seen != self._seen:
            self.is_holder_alive = is_same_machine or self._is_next(seen)
            self._seen, self._seen_at = seen, now
        return not is_same_machine and now - self._seen_at >= self.watch_s

    def _is_next(self, seen: tuple[str, int]) -> bool:
        """Whether the owner that we saw before has counted up since."""
        return self._seen is not None and self._seen[0] == seen[0]


class RunLock:
    """The right to train one run; `notes` says what was taken over.

    `on_lost` is called, from a thread of the lock, with a sentence if another takes the run: where
    files decide, after a pause of the whole machine; where the system does, after somebody removed
    the file that is locked.
    """

    def __init__(self, path: Path, run_id: str, mounts: Path = MOUNTS) -> None:
        self.path, self.run_id, self.mounts = path, run_id, mounts
        self.notes: list[str] = []
        self.on_lost: Callable[[str], None] = lambda reason: None
        self._claim = Claim(path, WATCH_S)
        self._file: io.FileIO | None = None
        self._is_released = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Own the run.

        Raises: RunFolderError, saying who and where, if another process trains it.
        """
        try:
            self._file = io.FileIO(self.path, "a+")
        except OSError as error:
            raise self._no_lock(error) from error
        _files.add(self._file)
        try:
            self._decide(self._has_system_lock())
        except BaseException:
            self._close()
            raise
        former = self._claim.former
        if former is not None:
            self.notes.append(f"took the run over from {named(former)}, which ended without a word")

    def release(self) -> None:
        """Leave the run to others."""
        self._is_released.set()
        try:
            if self._thread is not None:
                self._thread.join(timeout=BEAT_S)
            # Where the folder is gone or cannot be written there is nothing to release.
            with contextlib.suppress(OSError):
                self._claim.release()
        finally:
            self._close()

    def _decide(self, is_locked: bool) -> None:
        if is_locked and not network_file_system(self.path, self.mounts):
            with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
                self._claim.seize(self._claim.read())
            self._look_after(self._holds_file)
            return
        while not self._claim.take():
            if self._claim.is_holder_alive:
                raise self._refusal()
            time.sleep(min(1.0, WATCH_S / 20))
        # Of two that found it free at once the later one stays.
        time.sleep(SETTLE_S)
        if not self._claim.is_mine():
            raise self._refusal()
        self._look_after(self._claim.beat)

    def _look_after(self, is_ours: Callable[[], bool]) -> None:
        """Ask from time to time whether the run is still ours."""
        self._thread = threading.Thread(
            target=self._beat, args=[is_ours], name="run-lock", daemon=True
        )
        self._thread.start()

    def _holds_file(self) -> bool:
        """Whether the file that we have locked is the one in its place; a lost one is made anew."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path)):
                return True
        file = io.FileIO(self.path, "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            self._claim.holder = self._claim.read()
            return False
        _files.add(file)
        self._file, before = file, self._file
        before.close()
        self._claim.seize()
        return True

    def _has_system_lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._claim.holder = self._claim.read()
            raise self._refusal() from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise self._no_lock(error) from error
            return False
        return True

    def _refusal(self) -> RunFolderError:
        holder = self._claim.holder
        return RunFolderError(
            f"The run {self.run_id} is being trained by "
            f"{named(holder) if holder else 'another process'}. "
            "Interrupt it there first, or choose another run_name."
        )

    def _no_lock(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"{self.path} cannot be locked ({error.strerror}), so that another process could train "
            "the same run. Set output_dir to a folder on a local disk."
        )

    def _beat(self, is_ours: Callable[[], bool]) -> None:
        while not self._is_released.wait(BEAT_S):
            try:
                is_kept = is_ours()
            except OSError:  # for now; the count of the next beat says that we were alive
                continue
            if not is_kept:
                holder = self._claim.holder
                who = named(holder) if holder else "somebody who removed the lock"
                self.on_lost(f"the run was taken over by {who}")
                return

    def _close(self) -> None:
        self._claim.forget()
        self._file.close()


def named(owner: dict[str, Any]) -> str:
    """An owner as a reader can find it."""
    host = str(owner["host"]).partition(" ")[0]
    return f"process {owner['pid']} on {host}, since {owner.get('since', 'an unknown time')}"


def _leave_to_parent() -> None:
    """Let no worker that was forked keep the lock of a process that was killed."""
    for file in _files:
        file.close()
    _files.clear()
    _claims.clear()


os.register_at_fork(after_in_child=_leave_to_parent)

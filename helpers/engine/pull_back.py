"""Pull a run back from its mirror: on a new machine, or where the local disk has less of it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from helpers.engine.checkpoint import verify
from helpers.engine.copier import is_same_run
from helpers.engine.durable import remove_folder, sync_folder
from helpers.engine.manifest import MANIFEST, read_manifest
from helpers.engine.mirror_files import (
    BEGUN,
    ENDED,
    FILES,
    SLOTS,
    Copy,
    check_place,
    copy_at,
    fetch_file,
    fresh_name,
    read_copies,
    read_json_there,
)
from helpers.engine.run_folder import RunFolder, read_json
from helpers.errors import CheckpointError, CheckpointFormatError

# Without a byte from the other side; the first one from Drive takes its time.
STALL_S = 120.0
# Rows of metrics are checked one by one when they are read, so that a copy torn in between will do.
CHECKED_LATER = "metrics.jsonl"

# The restore refuses it with its reason, so nothing is pulled over it.
ANOTHER_VERSION = (2**31, 0, 0)
LEFT = "it is of a course that the run has left"


class Pulled(NamedTuple):
    """What was done, a sentence each, and whether the checkpoints in the mirror could be read.

    Where they could not, the run may be further than it is here, and nobody knows.
    """

    notes: list[str]
    is_reached: bool


def pull_back(
    folder: RunFolder, mirror_dir: str | Path, *, is_stopped: Callable[[], bool] = lambda: False
) -> Pulled:
    """Bring the newest sound copy of a run here if it is ahead of what is here; say what was done.

    Every byte is compared with the manifest after it was written to the local disk. Whatever the
    other side does is a sentence, never an error, and it is waited for only while bytes come.
    """
    if not mirror_dir:
        return Pulled([], True)
    pull = _Pull(folder, Path(os.path.abspath(Path(mirror_dir).expanduser())))
    thread = threading.Thread(target=pull.run, name="pull-back", daemon=True)
    thread.start()
    moved, moved_at = pull.progress, time.monotonic()
    while thread.is_alive():
        thread.join(timeout=0.02)
        now = time.monotonic()
        if pull.progress != moved:
            moved, moved_at = pull.progress, now
        if is_stopped() or now - moved_at > STALL_S:
            why = "was asked to stop" if is_stopped() else f"nothing came for {STALL_S:.0f} s"
            pull.is_abandoned = True
            note = f"pulling back from {pull.root} was given up: {why}"
            return Pulled([*pull.notes, note], False)
    return Pulled(pull.notes, pull.is_reached)


def mirrored_names(mirror_dir: str | Path) -> set[str]:
    """The names of the runs that have a mirror there; none if it cannot be read or is silent."""
    names: set[str] = set()
    if not mirror_dir:
        return names

    def look() -> None:
        with contextlib.suppress(OSError):
            names.update(os.listdir(Path(mirror_dir).expanduser()))

    thread = threading.Thread(target=look, name="mirrored-names", daemon=True)
    thread.start()
    thread.join(timeout=STALL_S)
    return set(names)


class _AbandonedError(Exception):
    """Nobody waits for what is pulled any more."""


class _Pull:
    """One attempt, on a thread of its own that may be left to hang."""

    def __init__(self, folder: RunFolder, home: Path) -> None:
        self.folder, self.home = folder, home
        self.root = home / folder.run_id
        self.notes: list[str] = []
        self.progress, self.is_abandoned, self.is_reached = 0, False, True

    def run(self) -> None:
        """Pull what is newer, and put every trouble into words."""
        trouble = "pulling back ended by an error of its own"
        try:
            check_place(self.home)
            self._pull()
            trouble = ""
        except _AbandonedError:
            trouble = ""
        except OSError as error:
            trouble = error.strerror or str(error)
        finally:
            if trouble:
                self.is_reached = False
                self.notes.append(
                    f"the mirror {self.root} cannot be used ({trouble}); if it holds this run, "
                    "mend that and start again to continue from it"
                )

    def _pull(self) -> None:
        ours, theirs = read_json(self.folder.run_file), read_json_there(self.root / "run.json")
        if ours and theirs and not is_same_run(theirs, ours):
            self.notes.append(f"{self.root} holds a run with other settings or data; left alone")
            return
        copies = self._read_copies()
        self._tell_half_written(copies)
        own = self._own_rank() if copies else None
        for copy in sorted(copies.values(), key=lambda copy: copy.rank, reverse=True):
            if own is not None and copy.rank <= own:
                return
            if self._fetch(copy):
                self._leave_course(copy)
                self._fetch_files()
                self._fetch_best(copies)
                words = "was ahead of this disk" if own else "has the run, and this disk did not"
                self.notes.append(
                    f"step {copy.step:,} was pulled back from {self.root}, which {words}; every "
                    "byte was compared"
                )
                return

    def _read_copies(self) -> dict[str, Copy]:
        """The whole copies; without those that the connection, or the disk, does not give now."""
        try:
            return read_copies(self.root, is_patient=True)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        self.is_reached = False
        return read_copies(self.root)

    def _own_rank(self) -> tuple[int, int, int] | None:
        """The rank of the newest local checkpoint that verifies."""
        store = self.folder.checkpoints
        for step in reversed(store.steps()):
            self._beat(0)
            try:
                verify(store.path(step))
                return copy_at(store.path(step)).rank
            except CheckpointFormatError:
                return ANOTHER_VERSION
            except CheckpointError:
                continue
        return None

    def _fetch(self, copy: Copy) -> bool:
        """Bring one checkpoint here under its final name, or say why it is passed over."""
        store = self.folder.checkpoints
        store.folder.mkdir(parents=True, exist_ok=True)
        building = fresh_name(store.folder, ".tmp-pull-") / copy.path.name
        try:
            self._check_space(copy)
            building.mkdir(parents=True)
            for name in [*read_manifest(copy.path), MANIFEST]:
                fetch_file(copy.path / name, building / name, self._beat)
            verify(building)
            sync_folder(building)
            self._beat(0)
            if store.path(copy.step).exists():
                self._set_aside(copy.step, "; the copy in the mirror has its place")
            building.rename(store.path(copy.step))
            sync_folder(store.folder)
        except OSError as error:
            self.is_reached &= _is_damage(error)
            self.notes.append(
                f"the copy of step {copy.step:,} in the mirror was passed over: "
                f"{error.strerror or error}"
            )
            return False
        finally:
            remove_folder(building.parent)
        return True

    def _leave_course(self, copy: Copy) -> None:
        """Set aside what the run did after this step before it went back, or was extended."""
        for step in self.folder.checkpoints.steps():
            if step > copy.step:
                self._beat(0)
                self._set_aside(step)

    def _set_aside(self, step: int, more: str = "") -> None:
        """Move a local checkpoint that a copy is ahead of away, and say why."""
        store, reason = self.folder.checkpoints, LEFT
        try:
            verify(store.path(step))
        except CheckpointError as error:
            reason = str(error).rstrip(".")
        store.set_aside(step, reason + more)
        self.notes.append(store.notes.pop())

    def _check_space(self, copy: Copy) -> None:
        needed = sum(file["bytes"] for file in read_manifest(copy.path).values())
        free = shutil.disk_usage(self.folder.checkpoints.folder).free
        if free < 1.1 * needed:
            raise OSError(
                errno.ENOSPC,
                f"it has {needed / 2**20:,.0f} MiB, but {free / 2**20:,.0f} are free here",
            )

    def _fetch_best(self, copies: dict[str, Copy]) -> None:
        """Bring the best checkpoint too, which the results and a later export refer to."""
        steps = self.folder.checkpoints.steps()
        state = read_json(self.folder.checkpoints.path(steps[-1]) / "state.json") or {}
        best = state.get("run", {}).get("best_step")
        for copy in copies.values():
            if copy.step == best and not self._is_here(copy):
                self._fetch(copy)
                return

    def _is_here(self, copy: Copy) -> bool:
        """Whether the local checkpoint of this step is the same; it may be of a course left."""
        try:
            return copy_at(self.folder.checkpoints.path(copy.step)).seal == copy.seal
        except OSError:
            return False

    def _fetch_files(self) -> None:
        """Bring the run's other files: the record of what it is, and the newer ones of the rest."""
        listed = read_json_there(self.root / FILES)
        for name in (*BEGUN, *ENDED[:-1]):
            target, is_fixed = self.folder.path / name, name in ("run.json", "config.json")
            if name not in listed or (is_fixed and target.exists()):
                continue
            fresh = fresh_name(self.folder.path, f".{name}-")
            temporary = fresh.with_name(f"{fresh.name}.tmp")
            try:
                got = fetch_file(self.root / name, temporary, self._beat)
                is_same = got == (listed[name]["bytes"], listed[name]["sha256"])
                if not is_same and name != CHECKED_LATER:
                    raise OSError(0, "it is not as it was written")
                self._beat(0)
                temporary.replace(target)
            except OSError as error:
                self.notes.append(f"{name} was not pulled back: {error.strerror or error}")
            finally:
                temporary.unlink(missing_ok=True)

    def _tell_half_written(self, copies: dict[str, Copy]) -> None:
        """Say which slots hold something that is not a whole checkpoint."""
        for slot in SLOTS:
            if slot not in copies and os.path.isdir(self.root / slot):
                self.notes.append(f"the copy in {self.root / slot} is not whole, and passed over")

    def _beat(self, n_bytes: int) -> None:
        self.progress += 1
        if self.is_abandoned:
            raise _AbandonedError


def _is_damage(error: OSError) -> bool:
    """Whether a copy was read and is not what was written, as against one out of reach."""
    is_cut_off = getattr(error.__cause__, "errno", None) == errno.EIO
    return isinstance(error, CheckpointError) and not is_cut_off

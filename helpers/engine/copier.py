"""Copier: brings the mirror of one run up to date, one call at a time, on whatever thread.

Every call may raise OSError; after that the copier is opened again, looks at what there is, and
goes on from there. At no moment is a sound copy gone before another one is named.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.config import TrainingConfig, role_of
from helpers.engine.durable import sync_folder
from helpers.engine.identity import EXTENSIONS
from helpers.engine.manifest import check
from helpers.engine.mirror_files import (
    BEST,
    FILES,
    INCOMING,
    LAST,
    OWNER,
    PREVIOUS,
    Beat,
    Copy,
    NotThereError,
    SourceError,
    check_place,
    copy_at,
    copy_checkpoint,
    copy_file,
    move,
    raise_if_out_of_reach,
    read_copies,
    read_json_there,
    remove_tree,
    write_json_there,
)
from helpers.engine.owner import Claim, named
from helpers.engine.run_folder import RunFolder, read_json
from helpers.errors import CheckpointError

PATIENCE = 3


class NotOursError(OSError):
    """Another session has the mirror, for now."""


class LostError(Exception):
    """Another session has taken the mirror from us, or it is that of another run, for good."""


class Copier:
    """The slots and files of one run below `home`.

    `beat` is called with the bytes of each part that was read, and may raise to end a call.
    """

    def __init__(self, folder: RunFolder, home: Path, beat: Beat, watch_s: float) -> None:
        self.folder, self.home = folder, home
        self.root = home / folder.run_id
        self.held: dict[str, Copy] = {}
        self.claim = Claim(self.root / OWNER, watch_s)
        self.notes: list[str] = []
        self._beat = beat
        self._is_open = self._has_claim = False
        self._disk: int | None = None
        self._n_failures = 0
        self._sound: set[bytes] = set()
        self._ours: set[bytes] = set()
        self._files: dict[str, Any] = {}
        self._copied: dict[str, tuple[int, int]] = {}

    def open(self) -> None:
        """Make sure that the other disk is there, that the mirror is ours, and see what it holds.

        Raises: NotOursError as long as another session may be at it, LostError for good.
        """
        if self._is_open:
            self._check_owner()
            return
        check_place(self.home)
        self._make_root()
        if os.path.samefile(self.root, self.folder.path):
            raise NotThereError(
                errno.EXDEV, "it leads to the run's own folder; choose another disk"
            )
        self._check_run()
        self._claim()
        self.held = read_copies(self.root, is_patient=self._is_patient)
        for slot in (LAST, BEST):
            self._take_up(slot)
        self._files = read_json_there(self.root / FILES)
        self._copied = {n: stamp for n, stamp in self._copied.items() if n in self._files}
        self._is_open = True

    def close(self) -> None:
        """Forget what was seen, as after an error."""
        self._is_open = False
        self._n_failures += 1

    @property
    def _is_patient(self) -> bool:
        """Whether a copy that cannot be read may still be sound; after a few failures it is not."""
        return self._n_failures < PATIENCE

    def beat(self) -> None:
        """Show others that this session is alive."""
        if not self.claim.beat():
            self._lose()

    def copied_steps(self) -> dict[str, int]:
        """The step in each slot, where this session has read it back."""
        return {slot: copy.step for slot, copy in self.held.items() if copy.seal in self._sound}

    def check_ahead(self, step: int | None) -> None:
        """Keep what the mirror holds if it is ahead of this session, which is at a local step.

        Raises: NotOursError if it has a sound copy of later than that, or of any step where the
        session has no checkpoint at all, that this session did not make.
        """
        local = None if step is None else self._look(self.folder.checkpoints.path(step))
        for place, copy in list(self.held.items()):
            if copy.seal in self._ours or (local is not None and copy.rank <= local.rank):
                continue
            if not self._is_sound(copy):
                del self.held[place]
                continue
            here = "has no checkpoint" if local is None else f"is at step {local.step:,}"
            raise NotOursError(
                errno.EEXIST,
                f"the mirror holds step {copy.step:,} of this run, and this session {here}; stop "
                "and start again to continue from there",
            )

    def bring(self, step: int, slot: str, best: int | None = None) -> None:
        """Put a local checkpoint into a slot, unless the mirror has it.

        The one in `last` becomes the previous one, and a previous one that is the best stays.

        Raises: SourceError if the local one cannot be read; NotOursError if the mirror holds a
        later step of the run, which is never replaced by an earlier one.
        """
        if slot == LAST:
            self.check_ahead(step)
        source = self.folder.checkpoints.path(step)
        local = self._look(source)
        if any(copy.seal == local.seal and self._is_sound(copy) for copy in self.held.values()):
            self._ours.add(local.seal)
            return
        incoming = self.root / (INCOMING + slot)
        self._check_owner()
        self._drop(INCOMING + slot)
        copy_checkpoint(source, incoming / source.name, self._guarded)
        sync_folder(incoming)
        self._sound.add(local.seal)
        self._ours.add(local.seal)
        self.held[INCOMING + slot] = replace(local, path=incoming / source.name)
        self._settle(slot, best)
        self._n_failures = 0

    def bring_files(self, names: tuple[str, ...]) -> None:
        """Copy those of the run's files that are there and have changed, and list them."""
        before = dict(self._files)
        for name in names:
            stamp = self._stamp(name)
            if stamp is None or self._copied.get(name) == stamp:
                continue
            self._check_owner()
            n_bytes, sha256 = copy_file(self.folder.path / name, self.root / name, self._beat)
            self._files[name] = {"bytes": n_bytes, "sha256": sha256}
            self._copied[name] = stamp
        if self._files != before:
            self._check_owner()
            write_json_there(self.root / FILES, self._files)

    def _make_root(self) -> None:
        """Make the mirror's folder, but never on another disk than before."""
        if self._disk is not None:
            there = self.home
            while not os.path.lexists(there):
                there = there.parent
            if os.stat(there).st_dev != self._disk:
                raise NotThereError(errno.ENODEV, f"the disk of {self.home} is not mounted now")
        os.makedirs(self.root, exist_ok=True)
        self._disk = os.stat(self.home).st_dev

    def _check_run(self) -> None:
        theirs = read_json_there(self.root / "run.json")
        ours = read_json(self.folder.run_file) or {}
        if theirs and ours and not is_same_run(theirs, ours):
            raise LostError(
                f"{self.root} is the mirror of a run with other settings or data, and stays as it "
                "is. Choose another run_name or mirror_dir"
            )

    def _claim(self) -> None:
        if self._has_claim:
            if self.claim.is_mine():
                return
            if self.claim.holder is not None:
                self._lose()
        if not self.claim.take():
            raise self._waiting_for_owner()
        self._has_claim = True
        former = self.claim.former
        if former is not None:
            self.notes.append(f"took the mirror over from {named(former)}")

    def _waiting_for_owner(self) -> NotOursError:
        holder = self.claim.holder
        who = named(holder) if holder else "another session"
        if self.claim.is_holder_alive:
            return NotOursError(errno.EBUSY, f"{who} trains the same run and has the mirror")
        return NotOursError(
            errno.EAGAIN,
            f"{who} had the mirror; it is taken over when that one is silent for "
            f"{self.claim.watch_s:.0f} s",
        )

    def _check_owner(self) -> None:
        """Compare the owner before each writing; a file that is gone is no owner."""
        self._beat(0)
        if not self.claim.is_mine():
            if self.claim.holder is not None:
                self._lose()
            raise NotThereError(errno.ENOENT, f"{self.root} was removed")

    def _lose(self) -> None:
        holder = self.claim.holder
        who = named(holder) if holder else "somebody who removed its file"
        raise LostError(f"the mirror {self.root} was taken over by {who}")

    def _guarded(self, n_bytes: int) -> None:
        if n_bytes:
            self._beat(n_bytes)
        else:
            self._check_owner()

    def _is_sound(self, copy: Copy) -> bool:
        """Whether a copy can be read back; one that this session has read back can."""
        if copy.seal not in self._sound:
            try:
                check(copy.path)
            except CheckpointError as error:
                if self._is_patient:
                    raise_if_out_of_reach(error)
                return False
            self._sound.add(copy.seal)
        return True

    def _look(self, path: Path) -> Copy:
        try:
            return copy_at(path)
        except OSError as error:
            raise SourceError(errno.EIO, f"the local checkpoint cannot be read: {error}") from error

    def _take_up(self, slot: str) -> None:
        """Give a copy its name that was complete when an earlier session ended."""
        incoming, named_one = self.held.get(INCOMING + slot), self.held.get(slot)
        if incoming is None:
            return
        if (named_one is None or named_one.rank < incoming.rank) and self._is_sound(incoming):
            self._settle(slot, None)
        else:
            self._drop(INCOMING + slot)

    def _settle(self, slot: str, best: int | None) -> None:
        """Name a copy that was read back, after the older ones have moved on."""
        if slot == LAST and LAST in self.held:
            if PREVIOUS in self.held and self.held[PREVIOUS].step == best:
                self._rename(PREVIOUS, BEST)
            self._rename(LAST, PREVIOUS)
        self._rename(INCOMING + slot, slot)

    def _rename(self, place: str, target: str) -> None:
        self._check_owner()
        self._drop(target)
        move(self.root / place, self.root / target)
        copy = self.held.pop(place)
        self.held[target] = replace(copy, path=self.root / target / copy.path.name)

    def _drop(self, place: str) -> None:
        self._check_owner()
        remove_tree(self.root / place)
        self.held.pop(place, None)

    def _stamp(self, name: str) -> tuple[int, int] | None:
        try:
            status = os.stat(self.folder.path / name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SourceError(error.errno, f"{name} cannot be read: {error.strerror}") from error
        return status.st_mtime_ns, status.st_size


def is_same_run(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether two run.json are of one run, which may have been extended in between."""
    return _without_schedule(theirs) == _without_schedule(ours)


def _without_schedule(identity: dict[str, Any]) -> dict[str, Any]:
    settings = identity.get("settings", {})
    schedule = {n for n in TrainingConfig.model_fields if role_of(n) == "schedule"}
    kept = {n: v for n, v in settings.items() if n not in schedule}
    return {n: v for n, v in identity.items() if n != EXTENSIONS} | {"settings": kept}

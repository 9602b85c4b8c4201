"""The journal of migrations: what a file held before, so that it can be put back."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tools.document.replace import replace_file, shown
from tools.errors import JournalError

FOLDER = ".notebook-journal"
RECORD = "entry.json"


@dataclass(frozen=True)
class Saved:
    """One file of an entry."""

    path: str
    """Relative to the folder that holds the journal, where it lies below it."""
    copy: str
    """Name of the file with the original bytes, in the entry's folder."""
    before: str
    """SHA-256 of the original bytes."""
    after: str
    """SHA-256 of what took their place."""


@dataclass(frozen=True)
class Entry:
    """One run of `migrate --write`."""

    id: str
    time: str
    migrations: tuple[str, ...]
    files: tuple[Saved, ...]


class Journal:
    """A folder with an entry for each run: original bytes, hashes, time, names of migrations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(
        self, changes: Sequence[tuple[Path, bytes, bytes]], migrations: Sequence[str]
    ) -> Entry:
        """Keep the bytes of files that are about to be replaced: path, old bytes, new bytes.

        Raises: JournalError if the folder cannot be written.
        """
        now = datetime.now(UTC)
        digest = digest_of(b"".join(old for _, old, _ in changes))[:6]
        id = f"{now.strftime('%Y%m%dT%H%M%S%f')}-{digest}"
        files = tuple(
            Saved(self._name(path), f"{i}-{path.name}", digest_of(old), digest_of(new))
            for i, (path, old, new) in enumerate(changes)
        )
        entry = Entry(id, now.isoformat(timespec="seconds"), tuple(migrations), files)
        draft = self.folder / f".{id}.{os.getpid()}"
        try:
            draft.mkdir(parents=True)
            for saved, (_, old, _) in zip(files, changes, strict=True):
                _write(draft / saved.copy, old)
            _write(draft / RECORD, json.dumps(asdict(entry), indent=2).encode() + b"\n")
            draft.rename(self.folder / id)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise JournalError(
                f"The journal {shown(self.folder)} cannot be written ({error.strerror}), and "
                "nothing is changed without it. Choose another folder by --journal."
            ) from error
        return entry

    def forget(self, entry: Entry) -> None:
        """Take out an entry whose replacement did not come about."""
        shutil.rmtree(self.folder / entry.id, ignore_errors=True)

    def entry(self, id: str) -> Entry:
        """Read an entry.

        Raises: JournalError if there is none of this id, or it cannot be read.
        """
        known = self.ids()
        if id not in known:
            listed = ", ".join(known[-5:]) or "none"
            raise JournalError(
                f"{id} is not in the journal {shown(self.folder)}, which has {listed}. "
                "Give an id that `migrate --write` printed."
            )
        try:
            content = json.loads((self.folder / id / RECORD).read_text(encoding="utf-8"))
            files = tuple(Saved(**item) for item in content["files"])
            return Entry(content["id"], content["time"], tuple(content["migrations"]), files)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise JournalError(
                f"The entry {id} cannot be read ({error}). Restore it, or take the original bytes "
                f"from {shown(self.folder / id)} by hand."
            ) from error

    def ids(self) -> list[str]:
        """Ids of all entries, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if (p / RECORD).is_file())

    def rollback(self, id: str) -> list[Path]:
        """Put back the bytes of an entry's files, all or none, and return their paths.

        Raises: JournalError if a file has changed since, is gone, or a copy is damaged.
        """
        entry = self.entry(id)
        found = [(self._path(saved), *self._checked(entry, saved)) for saved in entry.files]
        for path, now, original in found:
            replace_file(path, now, original)
        return [path for path, _, _ in found]

    def _checked(self, entry: Entry, saved: Saved) -> tuple[bytes, bytes]:
        """The bytes that a file has now and had before, if both are as recorded."""
        path, copy = self._path(saved), self.folder / entry.id / saved.copy
        try:
            now, original = path.read_bytes(), copy.read_bytes()
        except OSError as error:
            raise JournalError(
                f"{shown(path)} cannot be rolled back ({error}), and no file was changed. "
                "Put the missing file back."
            ) from error
        if digest_of(now) != saved.after:
            state = "is as it was before" if digest_of(now) == saved.before else "has changed since"
            raise JournalError(
                f"{shown(path)} {state} entry {entry.id}, so it is left alone. "
                f"The bytes from before are in {shown(copy)}."
            )
        if digest_of(original) != saved.before:
            raise JournalError(
                f"{shown(copy)} is damaged: its hash is not the one on record. "
                "No file was changed. Restore the journal from a backup."
            )
        return now, original

    def _name(self, path: Path) -> str:
        path, home = path.absolute(), self.folder.absolute().parent
        return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)

    def _path(self, saved: Saved) -> Path:
        return self.folder.absolute().parent / saved.path


def digest_of(content: bytes) -> str:
    """SHA-256 in hex digits."""
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

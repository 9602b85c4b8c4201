"""RunWriter: rows of a run on their way to the database, which may be locked, full or gone.

A row is in the spool of the run folder when the call returns, where a kill cannot reach it. A
thread brings the spool into the database about once a second, in one short transaction.
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.errors import DatabaseUnavailableError, TrackingError
from helpers.tracking import spool
from helpers.tracking.entries import Entry

if TYPE_CHECKING:
    from helpers.tracking.db import ExperimentDB

BATCH_S = 1.0
BATCH_ROWS = 500
RETRY_S = (2.0, 60.0)  # after the first failure and at most, doubled from one to the next
# Not the common generator: the random state of a run is part of what it continues from.
_JITTER = random.Random()


class RunWriter:
    """Takes the entries of one run, and neither raises nor waits for the database."""

    def __init__(self, db: ExperimentDB, folder: Path) -> None:
        self.db, self.folder = db, folder
        self._spool = spool.LineFile(folder / spool.SPOOL)
        self._journal = spool.LineFile(folder / spool.JOURNAL)
        self._changed = threading.Condition()
        self._n_added = self._n_written = self._n_begun = self._n_failed = 0
        self._delay_s, self._is_hurried, self._is_closed = BATCH_S, False, False
        self._trouble, self._is_told = "", False
        self._thread: threading.Thread | None = None

    def add(self, entry: Entry) -> None:
        """Put an entry on its way."""
        if entry["kind"] in ("run", "event", "artifact", "checkpoint", "finish"):
            self._journal.add(entry)
        self._note(self._spool.add({**entry, "database": self.db.name}))
        with self._changed:
            self._n_added += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="run writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, limit_s: float = 0.0) -> bool:
        """Ask for all entries to be written now; return whether they are within the limit.

        One attempt is waited for: if it fails, they stay in the spool.
        """
        with self._changed:
            target, attempt = self._n_added, self._n_begun
            self._is_hurried = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._n_written >= target or self._n_failed > attempt, limit_s
            )
            return self._n_written >= target

    def close(self, limit_s: float) -> bool:
        """Write what waits, and end the thread; return whether all is in the database."""
        is_done = self.flush(limit_s)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if is_done and self._thread is not None:
            self._thread.join()
        return is_done

    def take_trouble(self) -> str:
        """What keeps rows from the database, once for each time that it lasts."""
        trouble, self._trouble = self._trouble, ""
        return trouble

    def _run(self) -> None:
        while (target := self._next_target()) is not None:
            try:
                self._write()
            except (TrackingError, OSError) as error:
                # Nothing is lost with the call: the spool has it all.
                is_down = isinstance(error, DatabaseUnavailableError)
                self._note(error.state if is_down else str(error))
                self._failed()
                continue
            with self._changed:
                self._n_written, self._is_told = target, False
                self._delay_s = BATCH_S
                self._changed.notify_all()

    def _next_target(self) -> int | None:
        """Wait for entries, and then a while for more; None if there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._n_added > self._n_written)
            end = time.monotonic() + self._delay_s
            while not self._is_closed and not self._is_hurried and time.monotonic() < end:
                if self._n_added - self._n_written >= BATCH_ROWS and self._delay_s == BATCH_S:
                    break
                self._changed.wait(end - time.monotonic())
            self._is_hurried = False
            self._n_begun += 1
            return None if self._is_closed else self._n_added

    def _failed(self) -> None:
        with self._changed:
            self._n_failed = self._n_begun
            first, last = RETRY_S
            wanted = first if self._delay_s == BATCH_S else 2 * self._delay_s
            self._delay_s = min(last, wanted) * _JITTER.uniform(0.8, 1.2)
            self._changed.notify_all()

    def _write(self) -> None:
        """Bring the spool into the database; where that fails, make it durable as it is."""
        self._note(self._journal.write_held() or self._journal.sync())
        self._spool.write_held()
        try:
            self.db.merge_spool(self.folder)
            held = list(self._spool.held)
            if held:  # no disk takes them, but the database may be on another one
                decoded = [spool.decode(line) for line in held]
                self.db.merge([entry for entry in decoded if entry is not None], self.folder)
                self._spool.release(held)
        except (TrackingError, OSError):
            self._note(self._spool.sync())
            raise

    def _note(self, trouble: str) -> None:
        if trouble and not self._is_told:
            self._trouble, self._is_told = trouble, True

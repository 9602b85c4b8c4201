"""Findings that are known and wait: a JSON file that survives moved lines and cells."""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from tools.checking.finding import Finding
from tools.document.replace import replace_file
from tools.errors import SettingsError

STALE = "SU702"
VERSION = 1


class Baseline:
    """The known findings of a file, each as often as it may occur."""

    def __init__(self, path: Path, entries: Iterable[dict[str, Any]] = ()):
        self._path = path
        self._folder = path.resolve().parent
        self._entries = Counter(_key(entry) for entry in entries)

    def split(
        self, findings: Iterable[Finding], checked: Collection[Path], codes: Collection[str]
    ) -> tuple[list[Finding], int]:
        """The findings that are new, stale entries among them as info; and the number of known.

        Only entries for files that were checked, and for rules that were run, can be stale.
        """
        left = self._entries.copy()
        new, known = [], 0
        for finding in findings:
            key = self._key_of(finding)
            if left[key] > 0:
                left[key] -= 1
                known += 1
            else:
                new.append(finding)
        names = {self._name(path): path for path in checked}
        for (name, code, cell_id, _), count in left.items():
            if count > 0 and name in names and code in codes:
                new.append(_stale(names[name], code, cell_id, self._path))
        return new, known

    def write(self, findings: Iterable[Finding]) -> int:
        """Write a new file that knows these findings; their number."""
        rows = sorted(self._key_of(finding) for finding in findings if finding.severity != "info")
        names = ("path", "code", "cell_id", "hash")
        content = {
            "version": VERSION,
            "findings": [dict(zip(names, row, strict=True)) for row in rows],
        }
        old = self._path.read_bytes() if self._path.is_file() else None
        replace_file(self._path, old, (json.dumps(content, indent=1) + "\n").encode())
        return len(rows)

    def _key_of(self, finding: Finding) -> tuple[str, str, str, str]:
        return self._name(finding.path), finding.code, finding.cell_id or "", finding.fingerprint

    def _name(self, path: Path) -> str:
        return Path(os.path.relpath(path.resolve(), self._folder)).as_posix()


def read_baseline(path: Path) -> Baseline:
    """Read a file that `write` made.

    Raises: SettingsError for any other.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Baseline(path, content["findings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{path} is not a baseline ({error}). "
            "Make one: python -m tools validate --baseline FILE --write-baseline"
        ) from error


def _key(entry: dict[str, Any]) -> tuple[str, str, str, str]:
    return entry["path"], entry["code"], entry["cell_id"], entry["hash"]


def _stale(path: Path, code: str, cell_id: str, baseline: Path) -> Finding:
    place = f" of cell {cell_id}" if cell_id else ""
    return Finding(
        path,
        STALE,
        "info",
        f"{baseline.name} lists a finding {code}{place} that is gone.",
        "Write the baseline again: python -m tools validate --write-baseline",
    )

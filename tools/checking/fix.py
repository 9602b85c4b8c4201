"""Mend what can be mended safely: each rule's fix, in memory first, then one atomic write."""

import copy
import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tools.checking.discovery import repository_of
from tools.checking.finding import shown
from tools.checking.house import load_rules, own_findings
from tools.checking.suppress import read_suppressions
from tools.errors import NotebookError, ToolsError
from tools.notebook import Notebook, read
from tools.rules import Rule, Subject
from tools.settings import Settings

ROUNDS = 5


@dataclass(frozen=True)
class Mended:
    """What the fixes of a notebook did."""

    path: Path
    codes: tuple[str, ...]
    """The rules whose fix changed something."""
    old: str
    new: str

    def line(self) -> str:
        """One line that says so."""
        return f"{shown(self.path)}: fixed {', '.join(self.codes)}"

    def diff(self) -> str:
        """A unified diff from the file as it is to the file as it would be."""
        name = shown(self.path)
        lines = difflib.unified_diff(
            self.old.splitlines(), self.new.splitlines(), name, f"{name} (fixed)", lineterm=""
        )
        return "\n".join(lines)


def mend(
    path: Path, settings: Settings, root: Path | None, codes: Collection[str], write: bool = True
) -> Mended | None:
    """Fix a notebook until nothing changes any more; None if it cannot be read or needs no fix.

    Raises: ToolsError if a fix fails; the file is then as it was.
    """
    try:
        notebook = read(path)
    except NotebookError:
        return None
    old = notebook.text()
    fixed: list[str] = []
    for _ in range(ROUNDS):
        changed = _round(notebook, settings, root or repository_of(path, settings), codes)
        if not changed:
            break
        fixed += changed
    new = notebook.text()
    if new == old:
        return None
    if write:
        notebook.write()
    return Mended(path, tuple(sorted(set(fixed))), old, new)


def _round(notebook: Notebook, settings: Settings, root: Path, codes: Collection[str]) -> list[str]:
    """Run each fix once whose rule finds something that is not accepted; those that changed it."""
    return [
        code
        for code, rule in load_rules().items()
        if rule.fix is not None
        and code in codes
        and _is_wanted(rule, Subject(notebook, settings, root))
        and _changes(rule, Subject(notebook, settings, root))
    ]


def _is_wanted(rule: Rule, subject: Subject) -> bool:
    accepted = [read_suppressions(cell) for cell in subject.notebook.cells]
    return any(
        finding.cell_index is None or not accepted[finding.cell_index].covers(finding)
        for finding in own_findings(subject, {rule.code})
    )


def _changes(rule: Rule, subject: Subject) -> bool:
    assert rule.fix is not None
    before = copy.deepcopy(subject.notebook.content)
    try:
        rule.fix(subject)
    except Exception as error:
        raise ToolsError(
            f"The fix of {rule.code} failed on {shown(subject.notebook.path)} "
            f"({type(error).__name__}: {error}). The file is as it was; "
            f"go on with --ignore {rule.code}."
        ) from error
    return subject.notebook.content != before or list(before) != list(subject.notebook.content)

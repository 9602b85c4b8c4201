"""The report of a migration, written by the machine: what changed, what remains, what holds."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.errors import MigrationError
from tools.migrate import Change, Note, Plan
from tools.notebook import Notebook


@dataclass(frozen=True)
class Validation:
    """What `validate` says of a notebook."""

    lines: tuple[str, ...]
    n_errors: int

    def __str__(self) -> str:
        if not self.lines:
            return "clean"
        return f"{len(self.lines)} findings, {self.n_errors} of them errors"


def validate_copy(plan: Plan, notebook: Notebook, root: Path | None) -> Validation:
    """Validate the notebook as it would stand in the file's place, without touching the file."""
    from tools.checking.discovery import repository_of
    from tools.validate import validate

    path = plan.notebook.path
    tree = root or repository_of(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(notebook.text().encode())
        report = validate([copy], plan.settings, tree)
    findings = [f for f in report.findings if f.severity != "info"]
    return Validation(
        tuple(_line(finding) for finding in findings),
        sum(finding.severity == "error" for finding in findings),
    )


def require_no_worse(plan: Plan, root: Path | None) -> None:
    """Make sure that a migration brings no error that was not there.

    Raises: MigrationError with what is wrong, if there are more errors after it.
    """
    after = validate_copy(plan, plan.result, root)
    if not after.n_errors:
        return
    before = validate_copy(plan, plan.notebook, root)
    if after.n_errors > before.n_errors:
        new = "\n".join(line for line in after.lines if line not in before.lines)
        raise MigrationError(
            f"{plan.notebook.path} would have {after.n_errors} errors instead of "
            f"{before.n_errors}, so it is left as it is. Leave out a migration by --skip:\n{new}"
        )


def _line(finding: Any) -> str:
    place = (
        "the file" if finding.cell_id is None else f"cell {finding.cell_index} ({finding.cell_id})"
    )
    line = f", line {finding.line}" if finding.line and finding.cell_id else ""
    return f"{finding.code} {finding.severity}, {place}{line}: {finding.message}"


def report_text(plan: Plan, before: Validation, after: Validation, journal_id: str = "") -> str:
    """The whole report as Markdown."""
    parts = [
        f"# Migration of {plan.notebook.path.name}\n",
        _summary(plan, journal_id),
        "## Cells\n",
        _table(plan.changes),
        "## What remains\n",
        _notes(plan.of_kind("left"), "Nothing."),
        "## What means something else\n",
        _notes(plan.of_kind("changed"), "Nothing."),
        "## What was dropped\n",
        _notes(plan.of_kind("dropped"), "Nothing."),
        "## Old names in comments, strings and texts\n",
        _notes(plan.of_kind("mention"), "None."),
        "## Validation\n",
        _validation("Before", before),
        _validation("After", after),
        "## Old and new\n",
        *(_old_and_new(change) for change in plan.touched),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _summary(plan: Plan, journal_id: str) -> str:
    lines = [
        f"- Before: {_count(plan.notebook)}",
        f"- After: {_count(plan.result)}",
        f"- Migrations: {', '.join(plan.names) or 'none had anything to do'}",
    ]
    if journal_id:
        lines.append(f"- Undo: `python -m tools migrate --rollback {journal_id}`")
    return "\n".join(lines) + "\n"


def _count(notebook: Notebook) -> str:
    kinds = [cell.kind for cell in notebook.cells]
    others = len(kinds) - kinds.count("code") - kinds.count("markdown")
    more = f", {others} other" if others else ""
    code, markdown = kinds.count("code"), kinds.count("markdown")
    return f"{len(kinds)} cells ({code} code, {markdown} markdown{more})"


def _table(changes: Iterable[Change]) -> str:
    """Numbers are those of the old notebook, from 0."""
    rows = [
        f"| {c.number} | `{c.id}` | {c.title.replace('|', chr(92) + '|')} | {c.status} |"
        for c in changes
    ]
    return "\n".join(["| cell | id | title | status |", "|---|---|---|---|", *rows]) + "\n"


def _notes(notes: Iterable[Note], nothing: str) -> str:
    lines = [f"- cell {note.number} (`{note.id}`): {' '.join(note.text.split())}" for note in notes]
    return ("\n".join(lines) or nothing) + "\n"


def _validation(title: str, validation: Validation) -> str:
    lines = [f"{title}: {validation}.", ""]
    lines += [f"- {line}" for line in validation.lines]
    return "\n".join(lines).rstrip() + "\n"


def _old_and_new(change: Change) -> str:
    language = "python" if change.kind == "code" else "markdown"
    head = f"### Cell {change.number} (`{change.id}`): {change.title}\n"
    parts = [head, f"Status: {change.status}, by {', '.join(change.by)}.\n", "Old:\n"]
    parts.append(_fenced(change.old, language))
    if change.status != "removed":
        parts += ["New:\n", _fenced(change.new, language)]
    return "\n".join(parts)


def _fenced(text: str, language: str) -> str:
    """A fence that is longer than any in the text."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    mark = "`" * max(3, longest + 1)
    return f"{mark}{language}\n{text}\n{mark}\n"

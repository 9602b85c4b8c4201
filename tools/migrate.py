"""Migrate a notebook: plan, apply to a copy, verify, replace."""

import ast
import copy
import difflib
import importlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tools.codemod.journal import Entry, Journal
from tools.document.magics import mask
from tools.errors import MigrationError, SettingsError
from tools.notebook import Notebook
from tools.settings import Settings

if TYPE_CHECKING:
    from tools.codemod.draft import Draft, DraftCell


@dataclass(frozen=True)
class Change:
    """What becomes of one cell."""

    number: int
    """Place in the old notebook, from 0."""
    id: str
    title: str
    kind: str
    status: str
    """`rewritten`, `header rewritten`, `text rewritten`, `removed` or `kept and reported`."""
    old: str
    new: str
    by: tuple[str, ...] = ()
    """Names of the migrations that touched it."""

    def __str__(self) -> str:
        return f"cell {self.number} ({self.id}) {self.title!r}: {self.status}"


@dataclass(frozen=True)
class Note:
    """Something to be told of a cell."""

    kind: str
    """`left`, `changed`, `dropped` or `mention`."""
    number: int
    id: str
    text: str

    def __str__(self) -> str:
        return f"cell {self.number} ({self.id}): {self.text}"


@dataclass(frozen=True)
class Options:
    """Which migrations are applied, and how."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    keep_unported: bool = False


@dataclass
class Plan:
    """All that migrating a notebook would do; nothing is done yet."""

    notebook: Notebook
    changes: tuple[Change, ...]
    notes: tuple[Note, ...]
    settings: Settings = field(repr=False)
    options: Options = field(repr=False)

    @property
    def touched(self) -> tuple[Change, ...]:
        """The cells whose text changes, or that go."""
        return tuple(c for c in self.changes if c.status != "kept and reported")

    @property
    def names(self) -> tuple[str, ...]:
        """The migrations that do something, in their order."""
        found = {name for change in self.touched for name in change.by}
        return tuple(name for name in load_migrations(self.settings).migrations() if name in found)

    def of_kind(self, kind: str) -> tuple[Note, ...]:
        """The notes of one kind."""
        return tuple(note for note in self.notes if note.kind == kind)

    @cached_property
    def result(self) -> Notebook:
        """The migrated notebook, as a copy that has been verified; the file stays as it is.

        Raises: MigrationError if it does not hold what was promised.
        """
        migrated = _applied(self)
        _verify(self, migrated)
        return migrated

    def diff(self) -> str:
        """A unified diff for each cell that changes."""
        return "".join(_diff_of(change) for change in self.touched)


def plan(notebook: Notebook, settings: Settings, options: Options = Options()) -> Plan:
    """Work out what the migrations of a project do to a notebook.

    Raises: NotebookError if it is not Python; MigrationError if a name is none of a migration's.
    """
    from tools.codemod.draft import Draft

    notebook.require_python()
    package = load_migrations(settings)
    fields = settings.load_schema().get("properties", {})
    draft = Draft.of(
        notebook, fields=fields, legacy=settings.legacy, keep_unported=options.keep_unported
    )
    package.begin(draft)
    for name, migration in chosen(package, options).items():
        draft.step = name
        migration.migrate(draft)
    package.finish(draft)
    notes = tuple(Note(r.kind, r.cell.number, r.cell.id, r.text) for r in draft.remarks)
    mentions = tuple(_mentions(draft, package.old_words()))
    ordered = tuple(sorted(notes + mentions, key=lambda note: note.number))
    return Plan(notebook, tuple(_changes(draft)), ordered, settings, options)


def load_migrations(settings: Settings) -> ModuleType:
    """The package of migrations that the settings name.

    Raises: SettingsError if they name none, or it cannot be imported.
    """
    if not settings.migrations:
        raise SettingsError(
            f"{settings.root} names no migrations. "
            'Add a line migrations = "package" to [tool.notebooks] in pyproject.toml.'
        )
    try:
        return importlib.import_module(settings.migrations)
    except ImportError as error:
        raise SettingsError(
            f"migrations is {settings.migrations!r}, but it cannot be imported ({error}). "
            "Name a package in [tool.notebooks]."
        ) from error


def chosen(package: ModuleType, options: Options) -> dict[str, ModuleType]:
    """The migrations that are to be applied, in their order."""
    known = package.migrations()
    unknown = [name for name in (*options.only, *options.skip) if name not in known]
    if unknown:
        raise MigrationError(
            f"{', '.join(unknown)} is no migration; there are {', '.join(known)}. Name one of them."
        )
    return {
        name: module
        for name, module in known.items()
        if (not options.only or name in options.only) and name not in options.skip
    }


def _changes(draft: "Draft") -> list[Change]:
    left = {remark.cell.id for remark in draft.remarks if remark.kind == "left"}
    return [
        Change(
            cell.number, cell.id, cell.title, cell.kind, _status(cell), cell.old,
            "" if cell.is_removed else cell.source, tuple(cell.by),
        )
        for cell in draft.cells
        if cell.is_changed or cell.id in left
    ]  # fmt: skip


def _status(cell: "DraftCell") -> str:
    if cell.is_removed:
        return "removed"
    if not cell.is_changed:
        return "kept and reported"
    if cell.kind == "code":
        return "rewritten"
    return "header rewritten" if cell.old.lstrip().startswith("#") else "text rewritten"


def _mentions(draft: "Draft", old: frozenset[str]) -> list[Note]:
    """Old names in comments, strings and texts, which are left alone."""
    from tools.codemod.words import comments_and_strings, words

    found = []
    for cell in draft.cells:
        if cell.is_removed:
            continue
        texts = [(0, cell.source)] if cell.kind != "code" else []
        texts += comments_and_strings(cell.module.code) if cell.module else []
        names = sorted({word for _, text in texts for word in words(text)} & old)
        if names:
            text = f"{', '.join(names)} in {'a comment or string' if cell.module else 'a text'}"
            found.append(Note("mention", cell.number, cell.id, text))
    return found


def _applied(plan: Plan) -> Notebook:
    """A copy of the notebook with all changes."""
    migrated = Notebook(plan.notebook.path, plan.notebook.raw, copy.deepcopy(plan.notebook.content))
    cells, nodes = migrated.cells, migrated.nodes
    for change in plan.touched:
        if change.status != "removed":
            cells[change.number].source = change.new
    for change in reversed(plan.touched):
        if change.status == "removed":
            del nodes[change.number]
    return migrated


def _verify(plan: Plan, migrated: Notebook) -> None:
    """Check a migrated copy against the original.

    Raises: MigrationError for a cell that no longer parses, a cell that was not to be touched and
    differs, a file that cannot be read back, or a second migration that would change something.
    """
    broken = [change for change in plan.touched if change.kind == "code" and _is_broken(change)]
    if broken:
        raise _distrust(plan, f"{broken[0]} would not parse")
    removed = {c.number for c in plan.touched if c.status == "removed"}
    touched = {c.number for c in plan.touched}
    kept = [(i, node) for i, node in enumerate(plan.notebook.nodes) if i not in removed]
    for (i, old), new in zip(kept, migrated.nodes, strict=True):
        if i not in touched and old != new:
            raise _distrust(plan, f"cell {i} would differ, though nothing touches it")
    again = _plan_again(plan, migrated)
    if again.touched:
        raise _distrust(plan, f"a second migration would change {again.touched[0]}")


def _plan_again(done: Plan, migrated: Notebook) -> Plan:
    return plan(migrated, done.settings, done.options)


def _is_broken(change: Change) -> bool:
    if change.status == "removed":
        return False
    try:
        ast.parse(mask(change.new)[0])
    except (SyntaxError, ValueError, RecursionError):
        return True
    return False


def _distrust(plan: Plan, what: str) -> MigrationError:
    return MigrationError(
        f"{plan.notebook.path} was not migrated: {what}. "
        f"Leave out a migration by --skip; used were {', '.join(plan.names)}."
    )


def _diff_of(change: Change) -> str:
    """The unified diff of one cell."""
    name = f"cell {change.number} ({change.id})"
    after = "/dev/null" if change.status == "removed" else name
    lines = difflib.unified_diff(
        change.old.splitlines(), change.new.splitlines(), name, after, lineterm=""
    )
    return "\n".join(lines) + "\n"


def replace(plan: Plan, journal: Journal) -> Entry:
    """Replace the file by the migrated notebook, after its bytes are in the journal.

    Raises: MigrationError, JournalError or NotebookError, leaving the file as it is.
    """
    notebook = plan.result
    change = (notebook.path, plan.notebook.raw, notebook.text().encode())
    entry = journal.record([change], plan.names)
    try:
        notebook.write()
    except BaseException:
        if plan.notebook.path.read_bytes() == plan.notebook.raw:
            journal.forget(entry)
        raise
    return entry


def settings_for(path: Path, root: Path | None) -> Settings:
    """The settings of the notebook's project; those of the working folder if it has no migrations.

    Raises: SettingsError if they are wrong.
    """
    from tools.settings import load_settings

    own = load_settings(root or path.absolute().parent)
    return own if own.migrations or root else load_settings()

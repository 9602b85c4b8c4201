"""Check notebooks with all rules: one report of ruff, the type checker and our own rules."""

import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tools.analysis.packages import modules_of
from tools.checking import lint, typecheck
from tools.checking.baseline import Baseline
from tools.checking.copies import Copy, write_copies
from tools.checking.discovery import repository_of
from tools.checking.finding import Finding
from tools.checking.house import UNREADABLE, chosen, own_findings, summaries, validate_notebook
from tools.checking.suppress import Suppressions, read_suppressions, unknown_codes
from tools.errors import NotebookError
from tools.notebook import read
from tools.rules import Subject
from tools.rules.legacy import legacy_symbols, names_legacy
from tools.settings import Settings, load_settings

__all__ = ["Report", "validate", "validate_notebook"]

# Which finding stays where several checkers speak of the same place.
FIRST = ("PY300", "PY303", "PY306", "PY301", "PY302")
UNBOUND = ("F821", "unresolved-reference")
PYTHON = ("python", "ipython", "python3")


@dataclass(frozen=True)
class Report:
    """What was checked, and what was found in it."""

    findings: tuple[Finding, ...]
    paths: tuple[Path, ...]
    """The notebooks."""
    n_known: int = 0
    """Findings that the baseline lists."""
    n_accepted: int = 0
    """Findings that the notebooks themselves say to leave out."""

    def count(self, severity: str) -> int:
        """The number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """1 if there is an error or a warning, else 0."""
        return int(any(finding.severity != "info" for finding in self.findings))


@dataclass
class _Run:
    """One run of `validate`: what was read, and what was found so far."""

    settings: Settings
    root: Path | None
    codes: frozenset[str]
    by_root: dict[Path, Settings] = field(default_factory=dict)
    subjects: list[Subject] = field(default_factory=list)
    suppressions: dict[Path, list[Suppressions]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def validate(
    paths: Sequence[Path],
    settings: Settings,
    root: Path | None = None,
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    baseline: Baseline | None = None,
) -> Report:
    """Check notebooks; a file that cannot be read is a finding, and the others are checked.

    `select` and `ignore` are codes or their beginnings. Imports and paths resolve against `root`,
    by default the repository of each notebook.

    Raises: ToolsError if ruff or ty is needed and is not there.
    """
    run = _Run(settings, root, chosen(select, [*ignore, *settings.ignore]))
    for path in paths:
        _read(run, path)
    _check(run)
    kept = merged(finding for finding in run.findings if finding.code in run.codes)
    told = [finding for finding in kept if not _is_accepted(run, finding)]
    new, n_known = baseline.split(told, paths, run.codes) if baseline else (told, 0)
    ordered = tuple(sorted(new, key=lambda finding: finding.order))
    return Report(ordered, tuple(paths), n_known, len(kept) - len(told))


def _read(run: _Run, path: Path) -> None:
    try:
        notebook = read(path)
    except NotebookError as error:
        message, cure = str(error), "Restore the file from version control, or save it again."
        run.findings.append(Finding(path, UNREADABLE, "error", message, cure))
        return
    root = (run.root or repository_of(path, run.settings)).resolve()
    if root not in run.by_root:
        is_own = run.root is not None or root == run.settings.root
        run.by_root[root] = run.settings if is_own else load_settings(root)
    run.subjects.append(Subject(notebook, run.by_root[root], root))
    cells = notebook.cells
    run.suppressions[path] = [read_suppressions(cell) for cell in cells]
    run.findings += unknown_codes(notebook, cells, run.suppressions[path], summaries())


def _check(run: _Run) -> None:
    """Let the other checkers work while our own rules do."""
    with tempfile.TemporaryDirectory(prefix="notebooks-") as folder, ExitStack() as stack:
        waiting = _start_checkers(run, Path(folder).resolve(), stack)
        for subject in run.subjects:
            run.findings += own_findings(subject, run.codes)
        for findings in waiting:
            run.findings += findings()


def _start_checkers(
    run: _Run, folder: Path, stack: ExitStack
) -> list[Callable[[], Iterable[Finding]]]:
    """Start ruff for all notebooks and ty for those of each root; how to get their findings."""
    subjects = [s for s in run.subjects if s.notebook.language in PYTHON]
    if not subjects or not run.codes & {*lint.CODES, *typecheck.CODES}:
        return []
    copies = write_copies([(s.notebook, s.program, s.root) for s in subjects], folder)
    trees = typecheck.trees(copies, run.by_root)
    waiting: list[Callable[[], Iterable[Finding]]] = []
    if run.codes & set(typecheck.CODES):
        for number, tree in enumerate(trees):
            own = folder / f"ty{number}"
            own.mkdir()
            checker = typecheck.start(tree, own)
            stack.callback(checker.stop)
            waiting.append(partial(_typed, checker, tree, own))
    if run.codes & set(lint.CODES):
        modules = {path: None for tree in trees for p in tree.packages for path in modules_of(p)}
        banned = _banned(run)
        checker = lint.start(copies, list(modules), banned, folder)
        stack.callback(checker.stop)
        waiting.append(partial(_linted, checker, copies, banned))
    return waiting


def _typed(checker, tree: typecheck.Tree, folder: Path) -> Iterable[Finding]:
    return typecheck.findings(checker.output(), tree, folder)


def _linted(checker, copies: dict[str, Copy], banned: dict[str, str]) -> Iterable[Finding]:
    return lint.findings(checker.output(), copies, banned)


def _banned(run: _Run) -> dict[str, str]:
    """The legacy symbols, if any notebook so much as contains the name of a legacy module."""
    found: dict[str, str] = {}
    for root, settings in run.by_root.items():
        own = [subject for subject in run.subjects if subject.root == root]
        if any(names_legacy(settings, subject.notebook.raw) for subject in own):
            found.update(legacy_symbols(settings))
    return found


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for each fault: checkers agree on many, and one undefined name is used often."""
    kept: list[Finding] = []
    seen: set[tuple] = set()
    legacy: set[tuple] = set()
    # A message with an @ is about a type parameter: the one beside it names the type.
    ranked = sorted(findings, key=lambda f: (_rank(f), "@" in f.message, f.order))
    for finding in ranked:
        line = (finding.path, finding.cell_index, finding.line)
        if finding.code == "PY303":
            legacy.add(line)
        elif finding.code == "PY302" and line in legacy and "import" in finding.origin:
            continue
        keys = _keys(finding)
        if not keys & seen:
            kept.append(finding)
        seen |= keys
    return kept


def _rank(finding: Finding) -> int:
    return FIRST.index(finding.code) if finding.code in FIRST else len(FIRST)


def _keys(finding: Finding) -> set[tuple]:
    """What two findings of one fault have in common."""
    cell = (finding.path, finding.cell_index)
    if finding.code not in FIRST:
        return {(*cell, finding)}
    keys: set[tuple] = {(*cell, finding.line, finding.code, finding.message)}
    if finding.column:
        keys.add((*cell, finding.line, finding.column))
    if finding.severity == "info":
        keys.add((finding.path, finding.message))
    if finding.origin in UNBOUND and finding.cell_index is not None:
        keys.add((*cell, finding.message))
    return keys


def _is_accepted(run: _Run, finding: Finding) -> bool:
    cells = run.suppressions.get(finding.path, [])
    index = finding.cell_index
    return index is not None and index < len(cells) and cells[index].covers(finding)

"""Run our own rules on a notebook: no subprocess, and no traceback, however odd it is."""

import difflib
import importlib
import pkgutil
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

import tools.rules
from tools.checking.baseline import STALE
from tools.checking.discovery import repository_of
from tools.checking.finding import Finding, locate
from tools.checking.suppress import UNKNOWN
from tools.document.cell import Cell
from tools.errors import ToolsError
from tools.notebook import Notebook
from tools.rules import RULES, Problem, Rule, Subject
from tools.settings import Settings

UNREADABLE = "NB001"
DRIVER = {
    UNREADABLE: "The file is a notebook that can be read.",
    UNKNOWN: "Every code in a suppression is that of a rule.",
    STALE: "Every entry of the baseline is still found.",
}
"""Codes of what the driver itself finds, with a summary."""


@cache
def load_rules() -> dict[str, Rule]:
    """Import every module of `tools.rules`; all rules by code, in the order of their codes."""
    for module in pkgutil.iter_modules(tools.rules.__path__, "tools.rules."):
        importlib.import_module(module.name)
    return dict(sorted(RULES.items()))


def summaries() -> dict[str, str]:
    """What each code stands for, as a claim about a sound notebook."""
    return dict(sorted({**DRIVER, **{c: r.summary for c, r in load_rules().items()}}.items()))


def chosen(select: Collection[str] = (), ignore: Collection[str] = ()) -> frozenset[str]:
    """The codes that are selected and not ignored; both may name beginnings of codes.

    Raises: ToolsError for what no code begins with.
    """
    known = summaries()
    for given in (*select, *ignore):
        if not given or not any(code.startswith(given) for code in known):
            near = difflib.get_close_matches(given, known, n=1, cutoff=0)
            raise ToolsError(
                f"{given!r} is not a code of a rule, nor the beginning of one. "
                f"Nearest: {near[0]}. All codes: python -m tools validate --rules"
            )
    return frozenset(
        code
        for code in known
        if (not select or code.startswith(tuple(select))) and not code.startswith(tuple(ignore))
    )


def validate_notebook(
    notebook: Notebook, settings: Settings, root: Path | None = None
) -> list[Finding]:
    """All that our own rules find in a notebook, from top to bottom."""
    subject = Subject(notebook, settings, root or repository_of(notebook.path, settings))
    codes = chosen(ignore=settings.ignore)
    return sorted(own_findings(subject, codes), key=lambda finding: finding.order)


def own_findings(subject: Subject, codes: Collection[str]) -> list[Finding]:
    """What the rules of these codes find."""
    cells = subject.notebook.cells
    found = [
        finding
        for code, entry in load_rules().items()
        if code in codes
        for finding in _checked(entry, subject, cells)
    ]
    return list(dict.fromkeys(found))


def _checked(entry: Rule, subject: Subject, cells: Sequence[Cell]) -> Iterator[Finding]:
    """What one rule finds; its own failure is told as a finding and stops no other rule."""
    notebook = subject.notebook
    try:
        problems = list(entry.check(subject))
    except ToolsError:
        raise
    except Exception as error:  # noqa: BLE001 - a notebook may be odd in ways no rule foresaw
        name = type(error).__name__
        problems = [
            Problem(
                f"The check itself failed on this notebook ({name}: {error}).",
                f"Report it as a defect of the rule, and go on with --ignore {entry.code}.",
            )
        ]
    for problem in problems:
        yield Finding(
            notebook.path,
            entry.code,
            problem.severity or entry.severity,
            problem.message,
            problem.cure,
            **locate(notebook, cells, problem.cell, problem.line),
        )

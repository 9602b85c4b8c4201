"""The rules of the house: each a generator of problems with a code, a severity and a cure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from tools.notebook import Notebook
from tools.program import Program
from tools.settings import Settings

Severity = Literal["error", "warning", "info"]
ORDER: dict[str, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Subject:
    """What a rule looks at."""

    notebook: Notebook
    settings: Settings
    root: Path
    """The tree against which imports and paths resolve."""

    @cached_property
    def program(self) -> Program:
        """The Python of the notebook."""
        return Program(self.notebook)


@dataclass(frozen=True)
class Problem:
    """What a rule found: where, what, and what to do."""

    message: str
    """What was got and what was wanted, in one or two sentences."""
    cure: str
    """What to do, as an imperative sentence."""
    cell: int | None = None
    """Index of the cell, from 0; None for the file as a whole."""
    line: int | None = None
    """Line in the cell, from 1; None for the cell as a whole."""
    severity: Severity | None = None
    """If other than the rule's own."""


Check = Callable[[Subject], Iterator[Problem]]
Fix = Callable[[Subject], None]


@dataclass
class Rule:
    """A check with its code; a fix, where one is safe, edits the notebook in place."""

    code: str
    severity: Severity
    check: Check
    fix: Fix | None = None

    @property
    def summary(self) -> str:
        """The first line of the check's docstring."""
        return (self.check.__doc__ or "").strip().split("\n", 1)[0]


RULES: dict[str, Rule] = {}


def rule(code: str, severity: Severity = "error") -> Callable[[Check], Check]:
    """Enter a check into the list of rules."""

    def enter(check: Check) -> Check:
        assert code not in RULES, f"two rules are called {code}"
        RULES[code] = Rule(code, severity, check)
        return check

    return enter


def fixes(code: str) -> Callable[[Fix], Fix]:
    """Enter the safe fix of a rule; it must be idempotent and cure every problem it can."""

    def enter(fix: Fix) -> Fix:
        RULES[code].fix = fix
        return fix

    return enter

"""Run a notebook on paper: which names its cells and the functions they call find unbound."""

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from tools.analysis.evaluation import guarded_names, is_transparent, runs_when_called
from tools.analysis.events import Event, events_of
from tools.analysis.scopes import DEFINITIONS, FUNCTIONS, KERNEL
from tools.document.magics import PYTHON_LINES
from tools.program import CodeCell

BLURRING = {"run", "load", "store", "pylab", "loadpy", "macro", "edit", "rerun", "recall"}
"""Magics that bind names which the notebook does not show."""
Place = tuple[int, int]
"""Index of a cell, and a line in it."""


@dataclass(frozen=True)
class Need:
    """A name that is read while nothing has bound it."""

    name: str
    cell: int
    """Key of the cell that runs."""
    line: int
    sure: bool
    via: tuple[str, ...] = ()
    """The functions that were called, outermost first; none if the cell itself reads."""


@dataclass(frozen=True)
class _Step:
    """Where a run stands: the line of a cell, and the functions it is in."""

    cell: int
    line: int
    sure: bool
    via: tuple[str, ...] = ()
    entered: set[ast.AST] = field(default_factory=set)
    owner: ast.AST | None = None


@dataclass
class Run:
    """A notebook's namespace while its cells run one after the other."""

    bound: dict[str, Place] = field(default_factory=dict)
    """The names bound so far, each with the place that was first."""
    needs: list[Need] = field(default_factory=list)
    blurred: bool = False
    """Whether any name may be bound, after a star import or `exec`."""
    _values: dict[str, ast.AST | None] = field(default_factory=dict)

    def cell(self, code: CodeCell) -> None:
        """Run one cell; what a broken one names counts as bound."""
        self._magics(code)
        if code.tree is None:
            self._bind(words(code.python) if code.error else (), (code.index, 1))
            return
        guarded = guarded_names(code.tree)
        before = len(self.needs)
        for event in events_of(code.tree):
            self._happen(event, _Step(code.index, event.line, event.sure))
        self.needs[before:] = [need for need in self.needs[before:] if need.name not in guarded]

    def _magics(self, code: CodeCell) -> None:
        for magic in code.magics:
            if magic.kind in ("line", "cell") and magic.name not in PYTHON_LINES:
                self._bind(words(magic.text.split("\n")[0]), (code.index, magic.line))
            self.blurred = self.blurred or (magic.kind == "line" and magic.name in BLURRING)

    def _bind(self, names: Iterable[str], place: Place) -> None:
        for name in names:
            self.bound.setdefault(name, place)
            self._values[name] = None

    def _happen(self, event: Event, step: "_Step") -> None:
        if event.kind == "blur":
            self.blurred = True
        elif event.kind == "bind":
            self.bound.setdefault(event.name, (step.cell, step.line))
            self._values[event.name] = event.node if event.sure else None
        elif event.kind == "call":
            self._call(event, step)
        elif not (self.blurred or event.name in self.bound or event.name in KERNEL):
            via = (*step.via, event.mode) if event.mode else step.via
            sure = step.sure and event.sure
            self.needs.append(Need(event.name, step.cell, step.line, sure, via))

    def _call(self, event: Event, step: "_Step") -> None:
        for function, home in self._bodies(event.name, step.owner):
            if function in step.entered or not runs_when_called(function, event.mode):
                continue
            step.entered.add(function)
            inside = replace(step, via=(*step.via, event.name), owner=home)
            for inner in events_of(function):
                if inner.sure or inner.kind in ("bind", "blur"):
                    self._happen(inner, inside)

    def _bodies(self, name: str, owner: ast.AST | None) -> Iterator[tuple[ast.AST, ast.AST | None]]:
        """The functions that a call of this name runs, each with the class it belongs to."""
        head, _, method = name.partition(".")
        if head == "self" and method:
            yield from self._method(owner, method)
            return
        value = self._values.get(head)
        if isinstance(value, FUNCTIONS) and not method:
            yield value, None
        elif isinstance(value, ast.ClassDef):
            for wanted in [method] if method else ["__init__", "__post_init__"]:
                yield from self._method(value, wanted)
        elif isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            cls = self._values.get(value.func.id)
            if isinstance(cls, ast.ClassDef):
                yield from self._method(cls, method or _called_as(cls))

    def _method(self, cls: ast.AST | None, name: str) -> Iterator[tuple[ast.AST, ast.AST | None]]:
        """A method by name, of a class or of the first base in the notebook that has it."""
        seen: set[ast.AST] = set()
        while isinstance(cls, ast.ClassDef) and cls not in seen:
            seen.add(cls)
            for node in cls.body:
                if isinstance(node, DEFINITIONS) and node.name == name:
                    if not isinstance(node, ast.ClassDef) and _is_plain(node):
                        yield node, cls
                    return
            bases = [base.id for base in cls.bases if isinstance(base, ast.Name)]
            cls = self._values.get(bases[0]) if bases else None


def _called_as(cls: ast.ClassDef) -> str:
    """The method that calling an instance runs: a module of torch runs `forward`."""
    names = {node.name for node in cls.body if isinstance(node, DEFINITIONS)}
    return "forward" if "__call__" not in names and "forward" in names else "__call__"


def _is_plain(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return all(map(is_transparent, function.decorator_list))


def words(text: str) -> set[str]:
    """The words in text that may be names, as far as it can be read."""
    found: set[str] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME:
                found.add(token.string)
    except (tokenize.TokenError, SyntaxError):
        found.update(word for word in text.split() if word.isidentifier())
    return found


def run(cells: Iterable[CodeCell]) -> Run:
    """Run cells in order in a fresh namespace."""
    state = Run()
    for code in cells:
        state.cell(code)
    return state

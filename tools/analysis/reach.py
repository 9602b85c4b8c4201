"""Say whether a run from the top comes to a call, and what stands guard over it."""

import ast
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from tools.analysis.scopes import (
    DEFINITIONS,
    FUNCTIONS,
    Names,
    dotted_path,
    last_name,
    local_names,
    names_of,
    parents,
)
from tools.program import Program

SIGNS = {"colab", "interactive", "headless", "papermill", "jupyter", "isatty", "ci", "smoke"}
"""Words in a name that tell where a notebook runs."""
OPERATORS: dict[type, Callable] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda value, values: value in values,
    ast.NotIn: lambda value, values: value not in values,
}
NAMES = (ast.Name, ast.Attribute)
TESTS_OF_PATHS = {"isdir", "exists", "ismount", "is_dir", "is_mount"}


class Part(NamedTuple):
    """A cell that parses."""

    index: int
    tree: ast.Module


@dataclass(frozen=True)
class Site:
    """A call, where it stands."""

    node: ast.Call
    function: str
    """The dotted name of what is called, as far as it is known; a local name as it is."""
    code: Part


class Reach:
    """The calls of a notebook, and the conditions under which they happen."""

    def __init__(self, cells: tuple[Part, ...]) -> None:
        self.cells = cells
        self._above: dict[ast.AST, ast.AST] = {}
        for code in cells:
            self._above.update(parents(code.tree))

    @cached_property
    def names(self) -> Names:
        """What the notebook's names stand for."""
        return names_of(tuple(code.tree for code in self.cells))

    @cached_property
    def sites(self) -> list[Site]:
        """Every call of the notebook."""
        return [
            Site(node, self.names.dotted(node.func), code)
            for code in self.cells
            for node in ast.walk(code.tree)
            if isinstance(node, ast.Call) and not self._is_hidden(node)
        ]

    def _is_hidden(self, call: ast.Call) -> bool:
        """Whether a function around the call has its own meaning for the name."""
        path = dotted_path(call.func)
        return bool(path) and any(
            path[0] in local_names(scope) and path[0] not in self.names.imports
            for scope in self.around(call)
            if isinstance(scope, FUNCTIONS)
        )

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes that a node stands in, innermost first."""
        while node in self._above:
            node = self._above[node]
            yield node

    def is_reached(self, node: ast.AST, guards: "Guards | None" = None) -> bool:
        """Whether a run from the top comes to a node: past guards, and through calls by name."""
        return self._is_reached(node, guards, frozenset())

    def _is_reached(self, node: ast.AST, guards, entered: frozenset[ast.AST]) -> bool:
        if self._is_dead(node) or (guards and guards.hold(node)):
            return False
        scope = next((outer for outer in self.around(node) if isinstance(outer, FUNCTIONS)), None)
        if scope is None:
            return True
        if scope in entered or isinstance(scope, ast.Lambda):
            return False
        return any(
            self._is_reached(call, guards, entered | {scope}) for call in self._calls_of(scope)
        )

    def _calls_of(self, function: ast.AST) -> list[ast.Call]:
        """The calls that run a function; a constructor's are those of its class."""
        owner = self._above.get(function)
        is_method = isinstance(owner, ast.ClassDef)
        if is_method and function.name.startswith("__"):
            return self._by_name.get(owner.name, [])
        calls = self._by_name.get(function.name, [])
        return [call for call in calls if isinstance(call.func, ast.Attribute) is is_method]

    @cached_property
    def _by_name(self) -> dict[str, list[ast.Call]]:
        found: dict[str, list[ast.Call]] = {}
        for code in self.cells:
            for node in ast.walk(code.tree):
                if isinstance(node, ast.Call):
                    found.setdefault(last_name(node.func), []).append(node)
        return found

    def _is_dead(self, node: ast.AST) -> bool:
        """Whether a node stands in a branch that the values in the notebook rule out."""
        for inner, outer in self.steps(node):
            if isinstance(outer, ast.If | ast.IfExp | ast.While):
                truth = self.truth(outer.test)
                if truth is False and _holds(outer.body, inner):
                    return True
                if truth is True and _holds(outer.orelse, inner):
                    return True
        return False

    def steps(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """Each node on the way up with its parent, within the function that the node is in."""
        while node in self._above and not isinstance(node, (*FUNCTIONS, *DEFINITIONS)):
            yield node, self._above[node]
            node = self._above[node]

    def truth(self, test: ast.expr) -> bool | None:
        """The truth of a test by the literal values in the notebook; None if it is open."""
        match test:
            case ast.Constant(value):
                return bool(value)
            case ast.UnaryOp(ast.Not(), operand):
                truth = self.truth(operand)
                return None if truth is None else not truth
            case ast.BoolOp(op, values):
                truths = [self.truth(value) for value in values]
                decisive = isinstance(op, ast.Or)
                if decisive in truths:
                    return decisive
                return None if None in truths else not decisive
            case ast.Compare(left, [op], [right]) if type(op) in OPERATORS:
                return self._compared(OPERATORS[type(op)], left, right)
            case ast.Call(ast.Attribute(text, "startswith" | "endswith" as name), [arg]):
                return self._compared(getattr(str, name), text, arg)
            case ast.Name():
                return self._compared(lambda value, _: bool(value), test, ast.Constant(None))
        return None

    def _compared(self, function: Callable, left: ast.expr, right: ast.expr) -> bool | None:
        """A function of two literal values; None if they are not literal or do not fit."""
        try:
            return bool(function(self._literal(left), self._literal(right)))
        except (ValueError, TypeError):
            return None

    def _literal(self, node: ast.expr) -> object:
        """The value of a literal, or of a name that is bound to one once.

        Raises: ValueError for anything else.
        """
        if isinstance(node, ast.Name):
            node = self.names.value(node.id) or node
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            return [self._literal(part) for part in node.elts]
        if isinstance(node, ast.Constant):
            return node.value
        raise ValueError("not a literal")


def reach_of(program: Program) -> Reach:
    """The calls of a notebook; rules that ask for the same notebook share the answer."""
    return _reach(tuple(Part(code.index, code.tree) for code in program.cells if code.tree))


@lru_cache(maxsize=2)
def _reach(cells: tuple[Part, ...]) -> Reach:
    return Reach(cells)


def _holds(body: list[ast.AST] | ast.AST, node: ast.AST) -> bool:
    return node in body if isinstance(body, list) else node is body


def _leaves(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Return | ast.Raise | ast.Continue | ast.Break)


def _names_colab(test: ast.expr) -> bool:
    """Whether a test asks for a variable that Colab sets, which is no secret."""
    texts = [node.value for node in ast.walk(test) if isinstance(node, ast.Constant)]
    return any(isinstance(text, str) and text.startswith("COLAB") for text in texts)


@dataclass(frozen=True)
class Guards:
    """What counts as a guard: a test of where the notebook runs, and optionally of a path."""

    reach: Reach
    paths: bool = False
    """Whether a test of a path counts, as it does for a mounted drive."""
    environment_only: bool = False
    """Whether only the environment counts, as it does for a secret."""

    def hold(self, node: ast.AST) -> bool:
        """Whether a guard stands over a node, around it or as a way out above it."""
        for inner, outer in self.reach.steps(node):
            is_branch = isinstance(outer, ast.If | ast.IfExp | ast.While)
            if is_branch and inner is not outer.test and self._is_guard(outer.test):
                return True
            if isinstance(outer, ast.BoolOp) and inner is not outer.values[0]:
                before = outer.values[: outer.values.index(inner)]
                if any(map(self._is_guard, before)):
                    return True
            if self._is_left_above(inner, outer):
                return True
        return False

    def _is_left_above(self, inner: ast.AST, outer: ast.AST) -> bool:
        """Whether `if guard: return` stands above a statement of the same block."""
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(outer, block, None)
            if isinstance(statements, list) and inner in statements:
                above = statements[: statements.index(inner)]
                tests = [s.test for s in above if isinstance(s, ast.If) and _leaves(s.body[-1])]
                return any(map(self._is_guard, tests))
        return False

    def _is_guard(self, test: ast.expr, depth: int = 3) -> bool:
        if self.environment_only and isinstance(test, ast.BoolOp):
            return any(self._is_guard(value, depth) for value in test.values)
        if self.environment_only and _names_colab(test):
            return False
        for node in ast.walk(test):
            if isinstance(node, ast.Name | ast.Attribute):
                if self._tells_place(node):
                    return True
                value = self.reach.names.value(node.id) if isinstance(node, ast.Name) else None
                value = value or self._local_value(node) or self._value_from_environment(node)
                if value is not None and depth and self._is_guard(value, depth - 1):
                    return True
        return False

    def _local_value(self, node: ast.AST) -> ast.expr | None:
        """What the function around a name assigns to it."""
        scopes = [s for s in self.reach.around(node) if isinstance(s, FUNCTIONS)]
        if not isinstance(node, ast.Name) or not scopes:
            return None
        for other in ast.walk(scopes[0]):
            if isinstance(other, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == node.id for target in other.targets
            ):
                return other.value
        return None

    def _value_from_environment(self, node: ast.AST) -> ast.expr | None:
        """What an assignment to a name takes from the environment, where there are several."""
        if not (self.environment_only and isinstance(node, ast.Name)):
            return None
        for part in self.reach.cells:
            for other in ast.walk(part.tree):
                if isinstance(other, ast.Assign) and any(
                    isinstance(target, ast.Name) and target.id == node.id
                    for target in other.targets
                ):
                    names = [n for n in ast.walk(other.value) if isinstance(n, NAMES)]
                    if any(last_name(name) in ("environ", "getenv") for name in names):
                        return other.value
        return None

    def _tells_place(self, node: ast.Name | ast.Attribute) -> bool:
        name = last_name(node)
        if name in ("environ", "getenv"):
            return True
        if self.environment_only:
            return False
        if self.paths and name in TESTS_OF_PATHS:
            return True
        return name == "modules" or not SIGNS.isdisjoint(name.lower().split("_"))

"""Tell what code reads, binds and calls, in the order in which it happens when it runs.

Only what surely happens counts as sure: the branch of an `if` is not, the body of a loop is. The
body of a function happens when something calls it by its name, not where it is handed on.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from tools.analysis.evaluation import (
    catches_names,
    comprehension_parts,
    constant_truth,
    guarded_names,
    is_namespace,
    is_transparent,
    may_bind_anything,
    may_leave,
    operands,
    runs_when_called,
    suppresses_names,
)
from tools.analysis.scopes import (
    COMPREHENSIONS,
    FUNCTIONS,
    bindings,
    dotted_path,
    last_name,
    local_names,
    outer_parts,
)

CALLS_ITS_KEY = {"sorted", "min", "max", "sort"}


@dataclass(frozen=True)
class Event:
    """A name is read, bound or called."""

    kind: str
    """`read`, `bind`, `call`, or `blur`: from here on any name may be bound."""
    name: str
    """`f`; for a call also `thing.method`."""
    line: int
    sure: bool = True
    node: ast.AST | None = None
    """The value of a binding, where it is plain."""
    mode: str = ""
    """Of a call how its result is used, `awaited` or `consumed`; of a read the inner function."""


@lru_cache(maxsize=512)
def events_of(scope: ast.AST) -> tuple[Event, ...]:
    """What happens when a cell or the body of a function runs."""
    try:
        if isinstance(scope, ast.Module):
            return tuple(_Reader(frozenset(), guarded_names(scope)).block(scope.body))
        own = local_names(scope)
        reader = _Reader(own, guarded_names(scope), _self_of(scope))
        if isinstance(scope, ast.Lambda):
            return tuple(reader.expression(scope.body))
        return tuple(reader.block(scope.body))
    except RecursionError:
        return (Event("blur", "", 1),)


def _self_of(scope: ast.AST) -> str:
    if "staticmethod" in map(last_name, getattr(scope, "decorator_list", [])):
        return ""
    listed = [*scope.args.posonlyargs, *scope.args.args] if isinstance(scope, FUNCTIONS) else []
    return listed[0].arg if listed else ""


@dataclass(frozen=True)
class _Reader:
    """Turns code of one scope into events."""

    own: frozenset[str]
    """Names that are not the notebook's."""
    exempt: frozenset[str]
    """Names whose absence the code itself looks after."""
    me: str = ""
    """The first parameter of a method."""
    inner: dict[str, ast.AST] = field(default_factory=dict)
    """Functions defined in this scope, by name."""
    entered: frozenset[ast.AST] = frozenset()

    def block(self, statements: Iterable[ast.stmt], sure: bool = True) -> Iterator[Event]:
        """Events of statements; after a conditional way out nothing is sure."""
        for statement in statements:
            yield from self.statement(statement, sure)
            if isinstance(statement, ast.Return | ast.Raise | ast.Continue | ast.Break):
                return
            sure = sure and not may_leave(statement)

    def statement(self, node: ast.stmt, sure: bool) -> Iterator[Event]:
        """Events of one statement, in the order of evaluation."""
        match node:
            case ast.If():
                yield from self.expression(node.test, sure)
                known = constant_truth(node.test)
                if known is not False:
                    yield from self.block(node.body, sure and known is True)
                if known is not True:
                    yield from self.block(node.orelse, sure and known is False)
            case ast.While():
                yield from self.expression(node.test, sure)
                yield from self.block([*node.body, *node.orelse], sure)
            case ast.For() | ast.AsyncFor():
                yield from self.expression(node.iter, sure, "consumed")
                yield from self.targets(node.target, sure)
                yield from self.block(node.body, sure)
                yield from self.block(node.orelse, sure=False)
            case ast.With() | ast.AsyncWith():
                yield from self.with_items(node, sure)
            case ast.Try() | ast.TryStar():
                yield from self.attempt(node, sure)
            case ast.Match():
                yield from self.expression(node.subject, sure)
                for case in node.cases:
                    yield from self.targets(case.pattern, sure=False)
                    yield from self.block(case.body, sure=False)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from self.definition(node, sure)
            case _:
                yield from self.simple(node, sure)

    def simple(self, node: ast.stmt, sure: bool) -> Iterator[Event]:
        """Events of a statement without a body: values first, then what they are bound to."""
        match node:
            case ast.Import() | ast.ImportFrom():
                if any(alias.name == "*" for alias in node.names):
                    yield Event("blur", "", node.lineno)
                yield from self.bound(bindings(node), node.lineno, sure)
            case ast.Assign():
                yield from self.expression(node.value, sure)
                for target in node.targets:
                    yield from self.targets(target, sure, node.value)
            case ast.AnnAssign():
                if node.value:
                    yield from self.expression(node.value, sure)
                    yield from self.targets(node.target, sure, node.value)
            case ast.AugAssign():
                if isinstance(node.target, ast.Name):
                    yield from self.read(node.target.id, node.lineno, sure)
                yield from self.expression(node.value, sure)
                yield from self.targets(node.target, sure)
            case ast.Assert():
                yield from self.expression(node.test, sure)
            case ast.Global() | ast.Nonlocal() | ast.Pass():
                return
            case _:
                for child in ast.iter_child_nodes(node):
                    yield from self.expression(child, sure)

    def with_items(self, node: ast.With | ast.AsyncWith, sure: bool) -> Iterator[Event]:
        """Events of a `with`; under `suppress(NameError)` only what is bound counts."""
        for item in node.items:
            yield from self.expression(item.context_expr, sure)
            if item.optional_vars:
                yield from self.targets(item.optional_vars, sure)
        events = self.block(node.body, sure)
        yield from _bound_only(events) if any(map(suppresses_names, node.items)) else events

    def attempt(self, node: ast.Try | ast.TryStar, sure: bool) -> Iterator[Event]:
        """Events of a `try`; where a handler catches NameError only what is bound counts."""
        events = self.block(node.body, sure)
        caught = any(catches_names(handler.type) for handler in node.handlers)
        yield from _bound_only(events) if caught else events
        for handler in node.handlers:
            if handler.name:
                yield from self.bound([handler.name], handler.lineno, sure=False)
            yield from self.block(handler.body, sure=False)
        yield from self.block(node.orelse, sure and not caught)
        yield from self.block(node.finalbody, sure)

    def definition(self, node: ast.AST, sure: bool) -> Iterator[Event]:
        """Events of a `def` or `class`: decorators and defaults, the body of a class, the name."""
        for part in outer_parts(node):
            yield from self.expression(part, sure)
        if isinstance(node, ast.ClassDef):
            within = _Reader(self.own | local_names(node), self.exempt)
            yield from within.block(node.body, sure)
        if node.name in self.own:
            self.inner[node.name] = node
        elif all(map(is_transparent, node.decorator_list)):
            yield Event("bind", node.name, node.lineno, sure, node)
        else:
            yield Event("bind", node.name, node.lineno, sure)

    def targets(self, node: ast.AST, sure: bool, value: ast.AST | None = None) -> Iterator[Event]:
        """Events of assigning to a target: what its parts read, then the names."""
        if isinstance(node, ast.Name):
            if node.id in self.own and isinstance(value, ast.Lambda):
                self.inner[node.id] = value
            yield from self.bound([node.id], node.lineno, sure, value)
            return
        if isinstance(node, ast.Subscript) and is_namespace(node.value):
            yield Event("blur", "", node.lineno)
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load):
                yield from self.read(part.id, part.lineno, sure)
        yield from self.bound(bindings(node), node.lineno, sure)

    def bound(
        self, names: Iterable[str], line: int, sure: bool, value: ast.AST | None = None
    ) -> Iterator[Event]:
        """A binding of each name that is the notebook's."""
        for name in names:
            if name not in self.own:
                yield Event("bind", name, line, sure, value)

    def read(self, name: str, line: int, sure: bool) -> Iterator[Event]:
        """A read, if the name is the notebook's and nobody looks after its absence."""
        if name not in self.own and name not in self.exempt:
            yield Event("read", name, line, sure)

    def expression(self, root: ast.AST, sure: bool = True, mode: str = "") -> Iterator[Event]:
        """Events of an expression, operands before operators; deep ones do not recurse."""
        done: set[ast.AST] = set()
        stack = [(root, sure, mode, self.own)]
        while stack:
            node, sure, mode, own = stack.pop()
            here = self if own is self.own else self.narrowed(own)
            if node in done:
                if isinstance(node, ast.NamedExpr):
                    yield from here.targets(node.target, sure, node.value)
                else:
                    yield from here.call(node, sure, mode)
            elif isinstance(node, ast.Name):
                if isinstance(node.ctx, ast.Load):
                    yield from here.read(node.id, node.lineno, sure)
            elif isinstance(node, ast.Call | ast.NamedExpr):
                done.add(node)
                stack.append((node, sure, mode, own))
                stack.extend(reversed([(*part, own) for part in operands(node, sure)]))
            elif isinstance(node, COMPREHENSIONS):
                stack.extend(reversed(list(comprehension_parts(node, sure, mode, own))))
            else:
                stack.extend(reversed([(*part, own) for part in operands(node, sure)]))

    def narrowed(self, own: frozenset[str]) -> "_Reader":
        """The same scope inside a comprehension, whose names hide the notebook's."""
        return _Reader(own, self.exempt, self.me, self.inner, self.entered)

    def call(self, node: ast.Call, sure: bool, mode: str) -> Iterator[Event]:
        """The call of something that has a name, and of a `key=` that is sure to be called."""
        yield from self.called(node.func, node.lineno, sure, mode)
        if last_name(node.func) in CALLS_ITS_KEY:
            for word in node.keywords:
                if word.arg == "key":
                    yield from self.called(word.value, node.lineno, sure, "")

    def called(self, function: ast.AST, line: int, sure: bool, mode: str) -> Iterator[Event]:
        """The call of one function: inline if it is defined in this scope."""
        path = dotted_path(function)
        local = function if isinstance(function, ast.Lambda) else None
        if len(path) == 1 and path[0] in self.own:
            local = self.inner.get(path[0])
        if isinstance(local, FUNCTIONS) and local not in self.entered:
            if runs_when_called(local, mode):
                yield from self.enter(local, sure)
        elif may_bind_anything(function):
            yield Event("blur", "", line)
        elif path and path[0] == self.me and len(path) == 2:
            yield Event("call", f"self.{path[1]}", line, sure, mode=mode)
        elif path and path[0] not in self.own and len(path) <= 2:
            yield Event("call", ".".join(path), line, sure, mode=mode)

    def enter(self, function: ast.AST, sure: bool) -> Iterator[Event]:
        """Events of a nested function's body, seen from here."""
        own = self.own | local_names(function)
        reader = _Reader(own, self.exempt, self.me, dict(self.inner), self.entered | {function})
        if isinstance(function, ast.Lambda):
            events = reader.expression(function.body, sure)
        else:
            events = reader.block(function.body, sure)
        name = getattr(function, "name", "lambda")
        for event in events:
            yield replace(event, mode=event.mode or name) if event.kind == "read" else event


def _bound_only(events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        if event.kind in ("bind", "blur"):
            yield Event(event.kind, event.name, event.line, False)

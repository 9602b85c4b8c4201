"""How single pieces of Python behave when they run: what is evaluated, caught, sure, or hidden."""

import ast
from collections.abc import Iterator
from functools import lru_cache

from tools.analysis.scopes import body_of, dotted_path, last_name, outer_parts, own_nodes

CATCHES_NAMES = {"NameError", "Exception", "BaseException", "UnboundLocalError"}
CONSUMERS = {
    "list",
    "tuple",
    "set",
    "dict",
    "sum",
    "sorted",
    "min",
    "max",
    "next",
    "any",
    "all",
    "join",
}
NAMESPACES = {"globals", "locals", "vars", "dir"}
BINDS_ANYTHING = {"exec", "eval", "run_line_magic", "run_cell_magic", "run_cell", "push", "setattr"}
TRANSPARENT = {"no_grad", "inference_mode", "enable_grad", "autocast", "cache", "lru_cache"} | {
    "wraps", "staticmethod", "classmethod", "dataclass", "torch", "functools", "dataclasses"
}  # fmt: skip
"""Decorators after which a call still runs the body."""
Part = tuple[ast.AST, bool, str]


@lru_cache(maxsize=512)
def guarded_names(scope: ast.AST) -> frozenset[str]:
    """Names that code looks up in `globals()` and its like, or declares `global`."""
    nodes = list(ast.walk(scope))
    declared = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    if not any(map(is_namespace, nodes)):
        return frozenset(declared)
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return frozenset(declared | {t for t in texts if isinstance(t, str) and t.isidentifier()})


def is_namespace(node: ast.AST) -> bool:
    """Whether an expression is the notebook's namespace: `globals()`, `dir()`, `user_ns`."""
    if isinstance(node, ast.Call) and not node.args:
        return isinstance(node.func, ast.Name) and node.func.id in NAMESPACES
    return isinstance(node, ast.Attribute) and node.attr == "user_ns"


def operands(node: ast.AST, sure: bool) -> list[Part]:
    """The parts of an expression that are evaluated, each with how sure and how it is used."""
    match node:
        case ast.Lambda():
            return [(part, sure, "") for part in outer_parts(node)]
        case ast.IfExp():
            return [(node.test, sure, ""), (node.body, False, ""), (node.orelse, False, "")]
        case ast.BoolOp():
            return [(part, sure and i == 0, "") for i, part in enumerate(node.values)]
        case ast.NamedExpr():
            return [(node.value, sure, "")]
        case ast.Await():
            return [(node.value, sure, "awaited")]
        case ast.Starred() | ast.YieldFrom():
            return [(node.value, sure, "consumed")]
        case ast.Call():
            mode = "consumed" if last_name(node.func) in CONSUMERS else ""
            words = [word.value for word in node.keywords]
            return [(node.func, sure, ""), *((arg, sure, mode) for arg in [*node.args, *words])]
    return [(part, sure, "") for part in ast.iter_child_nodes(node)]


def comprehension_parts(
    node: ast.AST, sure: bool, mode: str, own: frozenset[str]
) -> Iterator[tuple[ast.AST, bool, str, frozenset[str]]]:
    """The parts of a comprehension; of a generator that nobody exhausts, the first iterable."""
    first = node.generators[0]
    yield first.iter, sure, "consumed", own
    if isinstance(node, ast.GeneratorExp) and mode != "consumed":
        return
    for generator in node.generators:
        if generator is not first:
            yield generator.iter, sure, "consumed", own
        names = [part.id for part in ast.walk(generator.target) if isinstance(part, ast.Name)]
        own = own.union(names)
        for test in generator.ifs:
            yield test, sure, "", own
        sure = sure and not generator.ifs
    values = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    for value in values:
        yield value, sure, "", own


def may_leave(statement: ast.stmt) -> bool:
    """Whether a statement holds a `return`, `break` or `continue` under a condition."""
    if not isinstance(statement, ast.If | ast.Match | ast.Try | ast.With | ast.For | ast.While):
        return False
    leaves: tuple[type, ...] = (ast.Return, ast.Break, ast.Continue)
    if isinstance(statement, ast.For | ast.While):
        leaves = (ast.Return,)
    return any(isinstance(node, leaves) for node in own_nodes(statement))


def constant_truth(test: ast.expr) -> bool | None:
    """The truth of a test that is the same in every notebook; None for any other."""
    if isinstance(test, ast.Constant):
        return bool(test.value)
    match test:
        case ast.Compare(ast.Name("__name__"), [ast.Eq()], [ast.Constant("__main__")]):
            return True
    return None


def may_bind_anything(function: ast.AST) -> bool:
    """Whether a call of this function may bind names that the code does not show."""
    if isinstance(function, ast.Attribute):
        at_namespace = is_namespace(function.value) and function.attr in ("update", "setdefault")
        return at_namespace or function.attr in BINDS_ANYTHING
    return isinstance(function, ast.Name) and function.id in BINDS_ANYTHING


def catches_names(kind: ast.expr | None) -> bool:
    """Whether a handler of this kind catches a NameError."""
    if kind is None:
        return True
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(last_name(kind) in CATCHES_NAMES for kind in kinds)


def suppresses_names(item: ast.withitem) -> bool:
    """Whether an item of a `with` suppresses a NameError."""
    call = item.context_expr
    if not isinstance(call, ast.Call) or last_name(call.func) != "suppress":
        return False
    return any(map(catches_names, call.args))


def is_transparent(decorator: ast.expr) -> bool:
    """Whether a decorated function still runs its body when it is called."""
    path = dotted_path(decorator.func if isinstance(decorator, ast.Call) else decorator)
    return bool(path) and set(path) <= TRANSPARENT


def runs_when_called(function: ast.AST, mode: str) -> bool:
    """Whether a call runs the body: a generator's only if exhausted, a coroutine's if awaited."""
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own_nodes(*body_of(function))):
        return mode == "consumed" and not isinstance(function, ast.AsyncFunctionDef)
    return mode == "awaited" or not isinstance(function, ast.AsyncFunctionDef)

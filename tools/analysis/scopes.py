"""Say which names code binds, which it reads from the notebook, and what a name stands for.

The standard library's `symtable` knows the same without places, and refuses cells that a notebook
runs (`await` outside a function, for one); the tests hold the two against each other.
"""

import ast
import builtins
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
SCOPES = (*FUNCTIONS, ast.ClassDef)
Scope = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
SHOWN = 60
Trees = tuple[ast.Module, ...]

KERNEL = frozenset(dir(builtins)) | {
    "get_ipython", "display", "In", "Out", "exit", "quit", "_", "__", "___", "_i", "_ii", "_iii",
    "_dh", "_oh", "_ih", "_exit_code", "__file__", "__annotations__", "__session__",
}  # fmt: skip
"""Names that every cell finds bound."""


def own_nodes(*roots: ast.AST, comprehensions: bool = True) -> Iterator[ast.AST]:
    """Walk what runs in one scope, in source order, without the bodies of functions and classes.

    Without `comprehensions` these are yielded, and of their parts only the first iterable.
    """
    stack = list(reversed(roots))
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, SCOPES):
            parts = outer_parts(node)
        elif not comprehensions and isinstance(node, COMPREHENSIONS):
            parts = [node.generators[0].iter]
        else:
            parts = list(ast.iter_child_nodes(node))
        stack.extend(reversed(parts))


def outer_parts(scope: ast.AST) -> list[ast.AST]:
    """The parts of a definition that run where it stands: decorators, defaults, bases."""
    if isinstance(scope, ast.ClassDef):
        return [*scope.decorator_list, *scope.bases, *(word.value for word in scope.keywords)]
    defaults = [*scope.args.defaults, *(value for value in scope.args.kw_defaults if value)]
    return [*getattr(scope, "decorator_list", []), *defaults]


def body_of(scope: ast.AST) -> list[ast.AST]:
    """The statements of a scope; of a lambda, its expression."""
    return [scope.body] if isinstance(scope, ast.Lambda) else list(scope.body)


def bindings(*roots: ast.AST, deleted: bool = False) -> dict[str, ast.AST]:
    """Each name that code binds in its own scope, with the first node that does.

    With `deleted`, names of `del` count as well, as they do for the compiler.
    """
    found: dict[str, ast.AST] = {}
    hidden: set[ast.AST] = set()
    for node in own_nodes(*roots):
        if isinstance(node, ast.comprehension):
            hidden.update(ast.walk(node.target))
        elif node not in hidden:
            for name in _names_bound_by(node, deleted):
                found.setdefault(name, node)
    return found


def _names_bound_by(node: ast.AST, deleted: bool) -> Iterable[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            return (name,)
        case ast.Name(id=name, ctx=ast.Del()) if deleted:
            return (name,)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return (name,)
        case ast.Import() | ast.ImportFrom():
            return imported(node)
        case ast.MatchMapping(rest=str(name)):
            return (name,)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            return (name,)
        case ast.MatchStar(name=str(name)):
            return (name,)
    return ()


def imported(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Each name that an import binds, with the dotted name of what it stands for."""
    if isinstance(node, ast.ImportFrom):
        home = "." * node.level + (node.module or "")
        aliases = [alias for alias in node.names if alias.name != "*"]
        return {alias.asname or alias.name: f"{home}.{alias.name}" for alias in aliases}
    roots = [(alias, alias.name.split(".")[0]) for alias in node.names]
    return {alias.asname or root: alias.name if alias.asname else root for alias, root in roots}


def local_names(scope: ast.AST) -> frozenset[str]:
    """The names that are a function's or a class's own."""
    nodes = body_of(scope)
    declared = {
        name
        for node in own_nodes(*nodes)
        if isinstance(node, ast.Global | ast.Nonlocal)
        for name in node.names
    }
    return (parameters(scope) | frozenset(bindings(*nodes, deleted=True))) - declared


def parameters(scope: ast.AST) -> frozenset[str]:
    """The parameters of a function; none for a class."""
    if not isinstance(scope, FUNCTIONS):
        return frozenset()
    args = scope.args
    listed = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    return frozenset(arg.arg for arg in listed if arg)


def global_reads(scope: Scope) -> dict[str, int]:
    """Each name that code reads from the notebook's namespace, with its first line.

    Nested functions and builtins count; of a module, all names read, bound there or not.
    """
    found: dict[str, int] = {}
    work: list[tuple[ast.AST, frozenset[str]]] = [(scope, frozenset())]
    while work:
        inner, visible = work.pop()
        roots, own = _inside(inner)
        declared = _declared_global(roots)
        seen = (visible | own) - declared
        passed_on = visible - declared if isinstance(inner, ast.ClassDef) else seen
        for node in own_nodes(*roots, comprehensions=False):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                if node.id not in seen:
                    found.setdefault(node.id, node.lineno)
            elif isinstance(node, (*SCOPES, *COMPREHENSIONS)):
                work.append((node, passed_on))
    return found


def _inside(scope: ast.AST) -> tuple[list[ast.AST], frozenset[str]]:
    """What runs inside a scope, and the names that are its own."""
    if isinstance(scope, ast.Module):
        return list(scope.body), frozenset()
    if not isinstance(scope, COMPREHENSIONS):
        return body_of(scope), local_names(scope)
    first, *others = scope.generators
    values = [scope.key, scope.value] if isinstance(scope, ast.DictComp) else [scope.elt]
    own = {
        node.id
        for generator in scope.generators
        for node in ast.walk(generator.target)
        if isinstance(node, ast.Name)
    }
    return [first.target, *first.ifs, *others, *values], frozenset(own)


def _declared_global(roots: list[ast.AST]) -> frozenset[str]:
    nodes = (node for node in own_nodes(*roots) if isinstance(node, ast.Global))
    return frozenset(name for node in nodes for name in node.names)


@lru_cache(maxsize=256)
def parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """The parent of each node."""
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def dotted_path(node: ast.AST) -> list[str]:
    """`["a", "b"]` of `a.b`; empty if the expression is anything else."""
    path: list[str] = []
    while isinstance(node, ast.Attribute):
        path.append(node.attr)
        node = node.value
    return [node.id, *reversed(path)] if isinstance(node, ast.Name) else []


def last_name(node: ast.AST) -> str:
    """`c` of `a.b.c` and of `f().c`; empty if the expression is not a name or an attribute."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def root_name(node: ast.AST) -> str:
    """`a` of `a.b[0].c()`; empty if the expression does not begin with a name."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred | ast.Call | ast.Await):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def shown(node: ast.AST) -> str:
    """The text of code for a message, cut to one short line."""
    try:
        text = " ".join(ast.unparse(node).split())
    except RecursionError:
        return "..."
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


@dataclass(frozen=True)
class Names:
    """What the names of a notebook stand for, where that is beyond doubt."""

    imports: dict[str, str] = field(default_factory=dict)
    """The dotted origin of each name that is imported, and never bound to another thing."""
    values: dict[str, list[ast.expr]] = field(default_factory=dict)
    """The expressions assigned to each name in cells."""
    bound: frozenset[str] = frozenset()
    """Every name that any cell binds."""
    declared: frozenset[str] = frozenset()
    """Every name that a function declares `global`."""

    def dotted(self, node: ast.AST) -> str:
        """`ipywidgets.Tab` of `widgets.Tab`; a builtin by its name; empty if it is not known."""
        path = dotted_path(node)
        if not path:
            return ""
        head = self.imports.get(path[0], "" if path[0] in self.bound else path[0])
        return ".".join([head, *path[1:]]) if head else ""

    def value(self, name: str) -> ast.expr | None:
        """The expression of a name that is assigned exactly once."""
        values = self.values.get(name, [])
        return values[0] if len(values) == 1 else None


@lru_cache(maxsize=4)
def names_of(trees: Trees) -> Names:
    """Collect the names of a notebook from the trees of its cells."""
    imports: dict[str, str] = {}
    values: dict[str, list[ast.expr]] = {}
    declared: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports = imported(node) | imports
        elif isinstance(node, ast.Global):
            declared.update(node.names)
    for node in (node for tree in trees for node in own_nodes(tree)):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value:
            for name in _plain_targets(node):
                values.setdefault(name, []).append(node.value)
    first = [bindings(tree) for tree in trees]
    bound = frozenset(name for found in first for name in found)
    taken = {name for found in first for name in found if isinstance(found[name], DEFINITIONS)}
    taken |= {name for name in imports if any(map(_is_something, values.get(name, [])))}
    kept = {name: origin for name, origin in imports.items() if name not in taken}
    return Names(kept, values, bound, frozenset(declared))


def _plain_targets(node: ast.Assign | ast.AnnAssign | ast.NamedExpr) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return (target.id for target in targets if isinstance(target, ast.Name))


def _is_something(value: ast.expr) -> bool:
    """Whether a value is more than the `None` or `False` that stands in for a failed import."""
    return not (isinstance(value, ast.Constant) and not value.value)

"""Handlers that swallow: a call fails, and the cell goes on as if it had not."""

import ast
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from tools.analysis.scopes import Names, imported, last_name, names_of, own_nodes, root_name, shown
from tools.program import CodeCell, Program
from tools.rules import Problem, Subject, rule

BROAD = {"Exception", "BaseException"}
SAYS = {
    "print", "print_exc", "print_exception", "display", "warn", "warning", "error", "exception",
    "info", "debug", "critical", "log", "format_exc", "Markdown", "HTML", "echo", "secho", "flush",
}  # fmt: skip
TIDIES = {
    "close", "remove", "unlink", "rmtree", "rmdir", "kill", "terminate", "shutdown", "stop",
    "cancel", "empty_cache", "finish", "disconnect", "detach", "cleanup", "collect", "join",
    "get_ipython", "run_line_magic", "enable_custom_widget_manager", "find_spec", "import_module",
    "getLogger", "setLevel", "filterwarnings", "isinstance", "int", "float", "len", "str",
}  # fmt: skip
"""Calls whose failure leaves nothing undone."""


class FirstParty:
    """Which names of a notebook come from the packages beside it."""

    def __init__(self, program: Program, packages: Iterable[str]) -> None:
        self._trees = tuple(code.tree for code in program.cells if code.tree)
        self._packages = frozenset(packages)
        self._names = names_of(self._trees)

    @cached_property
    def roots(self) -> frozenset[str]:
        """Names imported from a package of the project, and what calls of them have given."""
        found = {
            name
            for tree in self._trees
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name, origin in imported(node).items()
            if origin.split(".")[0] in self._packages
        }
        while True:
            more = {
                name
                for name, values in self._names.values.items()
                if name not in found and any(root_name(value) in found for value in values)
            }
            if not more:
                return frozenset(found)
            found |= more


def packages_of(subject: Subject) -> frozenset[str]:
    """The top-level packages and modules beside the notebooks, and those that were there once."""
    roots = {subject.root, subject.settings.root}
    found = set(subject.settings.legacy)
    for root in roots:
        found.update(path.parent.name for path in Path(root).glob("*/__init__.py"))
        found.update(path.stem for path in Path(root).glob("*.py"))
    return frozenset(found)


@rule("EX409")
def swallowed(subject: Subject) -> Iterator[Problem]:
    """No handler hides that a call has failed."""
    program = subject.program
    ours = FirstParty(program, packages_of(subject))
    names = names_of(tuple(code.tree for code in program.cells if code.tree))
    for code in program.cells:
        for node in ast.walk(code.tree) if code.tree else []:
            if isinstance(node, ast.Try | ast.TryStar):
                for handler in node.handlers:
                    if _is_broad(handler.type) and _hides(handler.body, node):
                        yield from _judge(node.body, handler, code, ours)
            elif isinstance(node, ast.With) and _suppresses_all(node, names):
                yield from _judge(node.body, node, code, ours)


def _is_broad(kind: ast.expr | None) -> bool:
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(kind is None or last_name(kind) in BROAD for kind in kinds)


def _suppresses_all(node: ast.With, names: Names) -> bool:
    calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
    return any(
        names.dotted(call.func) == "contextlib.suppress" and any(map(_is_broad, call.args))
        for call in calls
    )


def _hides(body: list[ast.stmt], attempt: ast.Try) -> bool:
    """Whether a handler does no more than say what happened, and give an empty result."""
    bound = {target for statement in attempt.body for target in _targets(statement)}
    return all(_says_only(statement, bound) for statement in body)


def _says_only(statement: ast.stmt, bound: set[str]) -> bool:
    match statement:
        case ast.Pass() | ast.Continue() | ast.Break() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(ast.Constant()):
            return True
        case ast.Expr(ast.Call() as call):
            return last_name(call) in SAYS
        case ast.Assign():
            return _is_nothing(statement.value) and _targets(statement) <= bound
        case ast.If():
            return all(_says_only(inner, bound) for inner in [*statement.body, *statement.orelse])
    return False


def _is_nothing(value: ast.expr) -> bool:
    """Whether a value is None, empty or false: what a failed call leaves, not a replacement."""
    if isinstance(value, ast.Constant):
        return not value.value
    return not getattr(value, "elts", getattr(value, "keys", [0]))


def _targets(statement: ast.stmt) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _judge(
    body: list[ast.stmt], at: ast.AST, code: CodeCell, ours: FirstParty
) -> Iterator[Problem]:
    calls = [node for node in own_nodes(*body) if isinstance(node, ast.Call)]
    own = [call for call in calls if root_name(call.func) in ours.roots]
    imports = any(isinstance(node, ast.Import | ast.ImportFrom) for node in own_nodes(*body))
    others = [call for call in calls if last_name(call) not in SAYS | TIDIES]
    if not own and (imports or not others):
        return
    call = (own or others)[0]
    yield Problem(
        f"If `{shown(call.func)}()` fails, this handler hides it, and the cell counts as done.",
        "Let the error out, or catch the one kind that is expected.",
        code.index,
        at.lineno,
        None if own else "warning",
    )

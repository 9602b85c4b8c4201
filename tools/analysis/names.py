"""What a notebook binds that a checker of plain Python cannot see, and which names are guarded."""

import ast
from collections.abc import Iterable, Iterator
from functools import cached_property

from tools.program import CodeCell, Program, compile_fault

IPYTHON = {
    "_", "__", "___", "_i", "_ii", "_iii", "_ih", "_oh", "_dh", "In", "Out", "exit", "quit",
    "display", "get_ipython", "_exit_code", "__session__", "__IPYTHON__",
}  # fmt: skip
NAMESPACES = ("globals", "locals", "vars", "dir")
# Magics after which any name may be bound.
BINDING_MAGICS = {"run", "pylab", "store", "load", "logstart", "macro", "rerun", "recall"}
NAME_ERRORS = ("NameError", "UnboundLocalError")


class Everything:
    """A set that holds every name."""

    def __contains__(self, name: str) -> bool:
        return True


class Names:
    """The names of a notebook that count as bound although no statement binds them."""

    def __init__(self, program: Program):
        self._program = program

    def is_excused(self, name: str, cell: int, line: int) -> bool:
        """Whether a name that a checker calls undefined may well be there when the line runs."""
        return (
            name in IPYTHON
            or (name.startswith("_") and name.lstrip("_i").isdecimal())
            or name in self._elsewhere
            or (self._opaque_from is not None and (cell, line) > self._opaque_from)
            or any(
                name in names and start <= line <= end for names, start, end in self._guards(cell)
            )
        )

    def home(self, name: str) -> CodeCell | None:
        """The first cell that binds a name at its top level."""
        return next((cell for cell in self._sound if name in bindings(cell.tree)), None)

    @cached_property
    def attributes(self) -> frozenset[str]:
        """Attributes that some statement or `setattr` of the notebook sets."""
        found = set()
        for node in self._nodes():
            if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            elif _calls(node, "setattr") and len(node.args) > 1:
                found.update(strings(node.args[1]))
        return frozenset(found)

    @cached_property
    def _sound(self) -> list[CodeCell]:
        return [cell for cell in self._program.cells if cell.tree is not None]

    def _nodes(self) -> Iterator[ast.AST]:
        for cell in self._sound:
            yield from cell.nodes

    @cached_property
    def _elsewhere(self) -> frozenset[str]:
        """Names in magics, in cells that are left out of the copies, and in `globals()["x"] =`."""
        found = set(self._program.names_in_broken_cells)
        for cell in self._program.cells:
            for magic in cell.magics:
                found.update(word.strip("\"'$;,") for word in magic.text.split("\n")[0].split())
            if cell.tree is not None and is_left_out(cell):
                found.update(bindings(cell.tree))
        for node in self._nodes():
            if isinstance(node, ast.Subscript) and _calls(node.value, *NAMESPACES):
                found.update(strings(node.slice))
            elif _updates_namespace(node):
                found.update(keyword.arg for keyword in node.keywords if keyword.arg)
        return frozenset(found)

    @cached_property
    def _opaque_from(self) -> tuple[int, int] | None:
        """The first line, as cell and line, after which unknown names may have been bound."""
        places = [
            (cell.index, magic.line)
            for cell in self._program.cells
            for magic in cell.magics
            if magic.name in BINDING_MAGICS
        ]
        for cell in self._sound:
            places += [
                (cell.index, node.lineno)
                for node in cell.nodes
                if _calls(node, "exec") or (_updates_namespace(node) and node.args)
            ]
        return min(places, default=None)

    def _guards(self, index: int) -> list[tuple[set[str] | Everything, int, int]]:
        if index not in self._guards_by_cell:
            cell = next((cell for cell in self._sound if cell.index == index), None)
            self._guards_by_cell[index] = list(_guards(cell.nodes)) if cell else []
        return self._guards_by_cell[index]

    @cached_property
    def _guards_by_cell(self) -> dict[int, list]:
        return {}


def is_left_out(cell: CodeCell) -> bool:
    """Whether the other checkers get an empty cell instead of this one.

    A cell that is meant to raise would make all that follows unreachable to them.
    """
    return (
        compile_fault(cell) is not None or cell.tree is None or "raises-exception" in cell.cell.tags
    )


def bindings(tree: ast.AST) -> set[str]:
    """The names that a cell binds at its top level, in branches and loops too."""
    found: set[str] = set()
    todo = list(ast.iter_child_nodes(tree))
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            continue
        if isinstance(node, ast.Lambda):
            continue
        found.update(_bound_by(node))
        todo.extend(ast.iter_child_nodes(node))
    return found


def _bound_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest


def _guards(nodes: Iterable[ast.AST]) -> Iterator[tuple[set[str] | Everything, int, int]]:
    """Lines in which names are looked up only after a test that they are there."""
    for node in nodes:
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            test = node.test
        elif isinstance(node, ast.BoolOp):
            test = node.values[0]
        elif isinstance(node, ast.Try | ast.TryStar) and any(map(_catches, node.handlers)):
            yield Everything(), node.lineno, node.body[-1].end_lineno
            continue
        else:
            continue
        if asks_namespace(test):
            yield strings(test), node.lineno, node.end_lineno


def _catches(handler: ast.ExceptHandler) -> bool:
    kinds = [handler.type] if handler.type else []
    return any(
        isinstance(node, ast.Name) and node.id in NAME_ERRORS
        for kind in kinds
        for node in ast.walk(kind)
    )


def asks_namespace(test: ast.AST) -> bool:
    """Whether an expression looks into `globals()` or its like."""
    return any(_calls(node, *NAMESPACES) for node in ast.walk(test))


def strings(tree: ast.AST) -> set[str]:
    """All literal strings in an expression."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {node.value for node in nodes if isinstance(node.value, str)}


def _calls(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def _updates_namespace(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "update"
        and _calls(node.func.value, *NAMESPACES)
    )

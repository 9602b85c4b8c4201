"""Keys that a function reads from a dict argument, against the dict that a notebook passes.

Only what is beyond doubt counts: the function reads the key whatever happens, and the dict is a
display that nothing adds to.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.analysis.definitions import Home, find
from tools.program import CodeCell, Program

READING = ("get", "items", "keys", "values", "copy")
MAYBE = (ast.IfExp, ast.BoolOp, ast.Lambda, ast.comprehension, ast.FunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Lack:
    """A key that is read and not passed."""

    cell: int
    line: int
    function: str
    key: str
    argument: str


def lacks(program: Program, folders: tuple[Path, ...]) -> Iterator[Lack]:
    """All such keys of a notebook."""
    cells = [cell for cell in program.cells if cell.tree is not None]
    homes = _homes(cells, folders)
    dicts = _closed_dicts(cells) if homes else {}
    for cell in cells if homes else ():
        for call in cell.nodes:
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            home = homes.get(call.func.id)
            for parameter, value in _arguments(call, home.node) if home else ():
                keys = _keys(value, dicts)
                for key in sorted(_needed(home, parameter) - keys) if keys else ():
                    text = value.id if isinstance(value, ast.Name) else parameter
                    yield Lack(cell.index, value.lineno, call.func.id, key, text)


def _homes(cells: list[CodeCell], folders: tuple[Path, ...]) -> dict[str, Home]:
    """Functions that the notebook defines or imports from the tree, and binds only once."""
    found: dict[str, Home | None] = {}
    for cell in cells:
        for node in cell.nodes:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = None if node.name in found else Home(node, None)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    home = find(alias.name, node.module, folders)
                    is_function = home is not None and isinstance(home.node, ast.FunctionDef)
                    found[alias.asname or alias.name] = home if is_function else None
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found[node.id] = None
    return {name: home for name, home in found.items() if home is not None}


def _arguments(call: ast.Call, function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """Each argument with the name of its parameter, up to the first that is unpacked."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    for name, value in zip(names, call.args, strict=False):
        if isinstance(value, ast.Starred):
            break
        yield name, value
    known = {*names, *(argument.arg for argument in function.args.kwonlyargs)}
    yield from ((k.arg, k.value) for k in call.keywords if k.arg in known)


def _needed(home: Home, parameter: str) -> set[str]:
    """The keys that a function reads from a parameter before anything can branch."""
    found: set[str] = set()
    for statement in home.node.body:
        if isinstance(statement, ast.If | ast.Try | ast.For | ast.While | ast.Match | ast.With):
            break
        for node in _certain(statement):
            if isinstance(node, ast.Name) and node.id == parameter:
                if not isinstance(node.ctx, ast.Load):
                    return found
            elif _is_item(node, parameter):
                if not isinstance(node.ctx, ast.Load):
                    return found
                found.add(node.slice.value)
            elif _is_changed_by(node, parameter):
                return found
    return found


def _certain(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a statement that run in any case."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, MAYBE):
            yield from _certain(child)


def _is_item(node: ast.AST, name: str) -> bool:
    return (
        isinstance(node, ast.Subscript)
        and getattr(node.value, "id", "") == name
        and isinstance(getattr(node.slice, "value", None), str)
    )


def _is_changed_by(node: ast.AST, name: str) -> bool:
    """Whether a call may add to the dict: by a method of it, or by taking it."""
    if not isinstance(node, ast.Call):
        return False
    taken = [*node.args, *(keyword.value for keyword in node.keywords)]
    if any(getattr(value, "id", "") == name for value in taken):
        return True
    method = node.func
    is_own = isinstance(method, ast.Attribute) and getattr(method.value, "id", "") == name
    return is_own and method.attr not in READING


def _closed_dicts(cells: list[CodeCell]) -> dict[str, ast.Dict]:
    """Names bound once, to a display, and used only for reading and in one call."""
    bound: dict[str, list[ast.expr | None]] = {}
    uses: dict[str, int] = {}
    for cell in cells:
        parents = {c: p for p in cell.nodes for c in ast.iter_child_nodes(p)}
        for node in cell.nodes:
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                parent = parents[node]
                value = parent.value if isinstance(parent, ast.Assign) else None
                bound.setdefault(node.id, []).append(value)
            elif isinstance(node, ast.Name) and not _only_reads(node, parents):
                uses[node.id] = uses.get(node.id, 0) + 1
            elif isinstance(node, ast.arg):
                bound.setdefault(node.arg, []).append(None)
    return {
        name: values[0]
        for name, values in bound.items()
        if len(values) == 1 and isinstance(values[0], ast.Dict) and uses.get(name, 0) <= 1
    }


def _only_reads(node: ast.Name, parents: dict[ast.AST, ast.AST]) -> bool:
    parent = parents[node]
    if isinstance(parent, ast.Subscript):
        return isinstance(parent.ctx, ast.Load)
    return isinstance(parent, ast.Attribute) and parent.attr in READING


def _keys(value: ast.expr, dicts: dict[str, ast.Dict]) -> set[str]:
    """The keys of a dict that is a display with plain keys; empty for anything else."""
    display = dicts.get(value.id) if isinstance(value, ast.Name) else value
    if not isinstance(display, ast.Dict):
        return set()
    keys = [key.value if isinstance(key, ast.Constant) else None for key in display.keys]
    return set(keys) if all(isinstance(key, str) for key in keys) else set()

"""Which names and expressions of a notebook are plainly a DataFrame or a Series of pandas."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from tools.analysis.imports import imported_packages
from tools.analysis.packages import modules_of
from tools.program import Program

READERS = ("DataFrame", "Series", "concat", "merge", "json_normalize")
# Methods of a table that return a table.
SAME = {
    "head", "tail", "copy", "dropna", "fillna", "reset_index", "set_index", "merge", "sample",
    "sort_values", "filter", "round", "query", "assign", "rename", "drop", "drop_duplicates",
    "astype", "describe", "nlargest", "nsmallest", "isna", "notna", "isnull", "notnull",
}  # fmt: skip


class Frames:
    """The tables of a notebook, as far as its text shows them beyond doubt."""

    def __init__(self, program: Program, attributes: frozenset[str]):
        self._attributes = attributes
        cells = program.cells
        self._pandas = {name for cell in cells for name in _pandas_names(cell.nodes)}
        self._names: set[str] = set()
        bound = [binding for cell in cells for binding in _bindings(cell.nodes)]
        # A table can be made from another one, so look until nothing is added.
        for _ in bound:
            tables = {name for name, value in bound if value is not None and self.is_table(value)}
            others = {name for name, value in bound if value is None or not self.is_table(value)}
            if tables - others == self._names:
                break
            self._names = tables - others

    def is_table(self, node: ast.expr) -> bool:
        """Whether the expression is a DataFrame or a Series, whose truth value is an error."""
        match node:
            case ast.Name():
                return node.id in self._names
            case ast.Attribute():
                return node.attr in self._attributes
            case ast.Subscript():
                return self.is_table(node.value) and _is_column(node.slice)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name)):
                made = module in self._pandas and (name in READERS or name.startswith("read_"))
                return made or (module in self._names and name in SAME)
            case ast.Call(func=ast.Attribute(value=value, attr=name)):
                return name in SAME and self.is_table(value)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                is_test = isinstance(op, ast.Is | ast.IsNot | ast.In | ast.NotIn)
                return not is_test and (self.is_table(left) or self.is_table(right))
        return False


def _is_column(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    return isinstance(node, ast.List | ast.Slice)


def _pandas_names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (a.asname or a.name for a in node.names if a.name == "pandas")


def _bindings(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr | None]]:
    """Each name that is bound anywhere, with its value if a plain assignment binds it."""
    plain = set()
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    plain.add(target)
                    yield target.id, node.value
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            if node not in plain:
                yield node.id, None
        elif isinstance(node, ast.arg):
            yield node.arg, None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, None
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((a.asname or a.name.partition(".")[0], None) for a in node.names)


def frame_attributes(program: Program, folders: tuple[Path, ...]) -> frozenset[str]:
    """Attributes that the imported packages of the tree declare as a DataFrame, and only so."""
    tables: set[str] = set()
    others: set[str] = set()
    for package in imported_packages([program], list(folders)):
        for module in modules_of(package):
            for name, is_table in _declared(module, module.stat().st_mtime_ns):
                (tables if is_table else others).add(name)
    return frozenset(tables - others)


@cache
def _declared(module: Path, modified_at: int) -> tuple[tuple[str, bool], ...]:
    """Fields of the classes of a module, each with whether its annotation is a DataFrame."""
    raw = module.read_bytes()
    if b"DataFrame" not in raw:
        return ()
    try:
        tree = ast.parse(raw)
    except (SyntaxError, ValueError):
        return ()
    fields = [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
    return tuple(
        (node.target.id, _type_name(node.annotation) == "DataFrame")
        for node in fields
        if isinstance(node.target, ast.Name)
    )


def _type_name(annotation: ast.expr) -> str:
    return ast.unparse(annotation).strip("'\"").rpartition(".")[2]

"""Read the cell tagged `parameters`, and which of its names later cells read or lose."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tools.analysis.form_fields import Field, form_of
from tools.document.cell import PARAMETERS_TAG, Cell
from tools.program import CodeCell, Program

INJECTED_TAG = "injected-parameters"
NAMESPACES = ("globals", "locals", "vars", "eval", "exec", "get_ipython")
"""Calls after which any name may have been read."""
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class ParameterLine:
    """One assignment of the cell of parameters."""

    name: str
    value: ast.expr
    line: int
    field: Field | None


@dataclass(frozen=True)
class Loss:
    """A statement that binds a parameter anew before anything has read it."""

    name: str
    cell: int
    line: int


def tagged_cells(program: Program) -> list[Cell]:
    """The cells tagged `parameters`, of whatever kind."""
    return [cell for cell in program.notebook.cells if PARAMETERS_TAG in cell.tags]


def parameter_cell(program: Program) -> CodeCell | None:
    """The cell of parameters, unless there is none or it cannot be read as Python."""
    tagged = [cell.index for cell in tagged_cells(program)[:1]]
    found = (cell for cell in program.cells if cell.index in tagged and cell.tree is not None)
    return next(found, None)


def parameter_lines(cell: CodeCell) -> Iterator[ParameterLine]:
    """Every `name = value` of the cell, in order."""
    fields = {field.line: field for field in form_of(cell.python).fields}
    for node in cell.tree.body if cell.tree else []:
        name, value = assigned(node)
        if value is not None:
            yield ParameterLine(name, value, node.lineno, fields.get(node.lineno))


def assigned(node: ast.stmt) -> tuple[str, ast.expr | None]:
    """Name and value of `name = value`, annotated or not; of anything else, nothing."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    if len(targets) != 1 or not isinstance(targets[0], ast.Name):
        return "", None
    assert isinstance(node, ast.Assign | ast.AnnAssign)
    return targets[0].id, node.value


def unread(program: Program, after: int, names: set[str]) -> set[str]:
    """The names that no later cell reads; a cell that is not plain Python may read any."""
    left = set(names)
    for cell in _later(program, after):
        left -= _named_outside(cell, left)
        if cell.tree is not None:
            left -= _read(cell.tree, left)
    return left


def losses(program: Program, after: int, names: set[str]) -> Iterator[Loss]:
    """Every parameter that a later cell binds anew before it was read.

    What is bound in a branch only is left alone, since the branch may not be taken.
    """
    left = set(names)
    for cell in _later(program, after):
        left -= _named_outside(cell, left)
        for statement in cell.tree.body if cell.tree else []:
            for part in _parts_before_binding(statement):
                left -= _read(part, left)
            for name in sorted(_bound(statement) & left):
                yield Loss(name, cell.index, statement.lineno)
                left.discard(name)
            left -= _read(statement, left)


def _later(program: Program, after: int) -> Iterator[CodeCell]:
    for cell in program.cells:
        if cell.index > after and not cell.is_skipped and INJECTED_TAG not in cell.cell.tags:
            yield cell


def _named_outside(cell: CodeCell, names: set[str]) -> set[str]:
    """Names that occur in the magics of a cell, or anywhere in one that does not parse."""
    texts = [magic.text for magic in cell.magics]
    if cell.tree is None:
        texts.append(cell.cell.source)
    words = "".join(c if c.isidentifier() or c.isdigit() else " " for c in "\n".join(texts))
    return names.intersection(words.split())


def _read(tree: ast.AST, names: set[str]) -> set[str]:
    """The names that code reads, in functions too; all of them if it reads the namespace."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return set(names) if found.intersection(NAMESPACES) else found


def _parts_before_binding(statement: ast.stmt) -> list[ast.AST]:
    """What of a statement runs before it binds its names; a body runs after that."""
    match statement:
        case ast.For() | ast.AsyncFor():
            return [statement.iter]
        case ast.FunctionDef(args=args) | ast.AsyncFunctionDef(args=args):
            defaults = [*args.defaults, *filter(None, args.kw_defaults)]
            return [*statement.decorator_list, *defaults]
    return [statement]


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement binds whatever happens."""
    if isinstance(statement, DEFINITIONS):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.For | ast.AsyncFor) or (
        isinstance(statement, ast.AnnAssign) and statement.value is not None
    ):
        targets = [statement.target]
    nodes = (node for target in targets for node in ast.walk(target))
    return {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }

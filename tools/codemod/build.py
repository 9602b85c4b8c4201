"""Make new code: calls that fit the line, imports where they are missing, comments above a line."""

from collections.abc import Iterable, Sequence

import libcst as cst

from tools.codemod.draft import Draft, DraftCell
from tools.codemod.names import Imported, Names
from tools.document.magics import MARK

WIDTH = 88
Argument = tuple[str, str]
"""Keyword, empty for a positional argument, and code."""


def call_text(function: str, arguments: Sequence[Argument], before: int = 0) -> str:
    """A call on one line if it fits behind so many characters, else one argument a line."""
    parts = [f"{name}={code}" if name else code for name, code in arguments]
    line = f"{function}({', '.join(parts)})"
    if len(line) + before <= WIDTH and "\n" not in line:
        return line
    return "\n".join([f"{function}(", *(f"    {_deeper(part)}," for part in parts), ")"])


def _deeper(code: str) -> str:
    """Move the continuation lines of a call one level in; strings of many lines stay."""
    if '"""' in code or "'''" in code:
        return code
    return code.replace("\n", "\n    ")


def expression(code: str) -> cst.BaseExpression:
    """The tree of an expression."""
    return cst.parse_expression(code)


def statements(code: str) -> list[cst.BaseStatement]:
    """The trees of some lines."""
    return list(cst.parse_module(code).body)


def comment_lines(text: str) -> list[cst.EmptyLine]:
    """A comment, folded to the width."""
    import textwrap

    lines = textwrap.wrap(text, WIDTH - 2)
    return [cst.EmptyLine(comment=cst.Comment(f"# {line}")) for line in lines]


def with_comment(line: cst.BaseStatement, text: str) -> cst.BaseStatement:
    """The statement with a comment above."""
    return line.with_changes(leading_lines=[*line.leading_lines, *comment_lines(text)])


def quote(names: Names, node: cst.CSTNode) -> str:
    """The quotation mark for new code in place of a node: never that of an f-string around it."""
    around = names.around(node, cst.FormattedString)
    return "'" if around is not None and '"' in around.start else '"'


def is_noted(draft: Draft, node: cst.CSTNode, text: str) -> bool:
    """Whether the cell of a node has a comment already."""
    there = {line.strip() for line in draft.names.cell_of(node).source.splitlines()}
    return {empty.comment.value for empty in comment_lines(text)} <= there


def local_name(draft: Draft, package: str, name: str, at: cst.CSTNode) -> str:
    """What to write for a name of a package: as it is imported before, else as it will be."""
    names = draft.names
    for item in names.imports():
        if is_visible(names, item.statement, at) and brings(draft, item, package, name):
            return item.local
    return f"{package}.{name}" if _is_taken(names, package, name) else name


def brings(draft: Draft, item: Imported, package: str, name: str) -> bool:
    """Whether an import brings a name of a package, or its namesake of one that it replaces."""
    root, _, _ = item.qualified.partition(".")
    return root in (package, *draft.legacy) and item.qualified.endswith(f".{name}")


def _last_brought(draft: Draft, item: Imported, package: str) -> bool:
    return brings(draft, item, package, item.qualified.rpartition(".")[2])


def is_visible(names: Names, statement: cst.CSTNode, at: cst.CSTNode) -> bool:
    """Whether what a statement binds is bound for good where a node stands."""
    return not _is_conditional(names, statement) and names.order[statement] < names.order[at]


def _is_conditional(names: Names, statement: cst.CSTNode) -> bool:
    blocks = (cst.FunctionDef, cst.ClassDef, cst.If, cst.For, cst.While, cst.ExceptHandler)
    return names.around(statement, *blocks) is not None


def _is_taken(names: Names, package: str, name: str) -> bool:
    """Whether a cell binds the name by anything but an import of its namesake."""
    namesakes = [i for i in names.imports() if i.local == name and i.qualified.endswith(f".{name}")]
    if namesakes:
        return False
    assigned = {node.value for node in names.nodes(cst.Name) if not names.is_read(node)}
    defined = {node.name.value for node in names.nodes(cst.ClassDef, cst.FunctionDef)}
    return name in assigned | defined


def add_imports(draft: Draft, package: str, cell: DraftCell, wanted: Iterable[str]) -> None:
    """Import names of a package at the top of a cell, unless cells before it do."""
    wanted = sorted(set(wanted))
    modules = {package} if any("." in name for name in wanted) else set()
    wanted = [name for name in wanted if "." not in name]
    known = {
        item.local
        for item in draft.names.imports()
        if (
            item.qualified == package
            or brings(draft, item, package, item.qualified.rpartition(".")[2])
        )
        and draft.names.cell_of(item.statement).number <= cell.number
        and not _is_conditional(draft.names, item.statement)
    }
    lines = [f"import {module}" for module in sorted(modules - known)]
    missing = [name for name in wanted if name not in known]
    if missing:
        lines.append(import_text(package, missing))
    if lines:
        draft.write(cell, _inserted(cell.module, "\n".join(lines)))


def import_text(package: str, names: Iterable[str]) -> str:
    """`from package import a, b`, on several lines where one is too short."""
    names = sorted(set(names), key=lambda name: (name[:1].islower(), name))
    line = f"from {package} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"from {package} import (", *(f"    {name}," for name in names), ")"])


def _inserted(module: cst.Module, lines: str) -> str:
    """The code with import lines behind the imports that open it, or at its top."""
    place = 0
    for i, statement in enumerate(module.body):
        if not is_import(statement):
            break
        place = i + 1
    new = statements(lines)
    body = list(module.body)
    if not place and body:
        kept = _n_kept(module.header)
        below = [*module.header[kept:], *body[0].leading_lines]
        if not (below and below[0].comment is None):
            below = [cst.EmptyLine(indent=False), *below]
        body[0] = body[0].with_changes(leading_lines=below)
        module = module.with_changes(header=module.header[:kept])
    return module.with_changes(body=[*body[:place], *new, *body[place:]]).code


def _n_kept(header: Sequence[cst.EmptyLine]) -> int:
    """How many lines must stay above an import: form lines, and magics, which may install it."""
    kept = 0
    for i, line in enumerate(header):
        text = line.comment.value if line.comment else ""
        is_form = text.lstrip("#").lstrip().startswith("@")
        if is_form or MARK in text:
            kept = i + 1
    return kept


def is_import(statement: cst.BaseStatement) -> bool:
    """Whether a line imports and does nothing else."""
    return isinstance(statement, cst.SimpleStatementLine) and all(
        isinstance(part, cst.Import | cst.ImportFrom) for part in statement.body
    )

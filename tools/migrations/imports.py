"""Import from `helpers` what still exists, and drop an old import when no cell uses its name.

-from utils.training.engine.trainer import Trainer
-from utils.training.training_core import TrainingCoordinator
+from helpers import Trainer
"""

from dataclasses import dataclass, field

import libcst as cst

from tools.codemod.build import add_imports, import_text, local_name, statements
from tools.codemod.draft import Draft, DraftCell
from tools.codemod.names import Imported, Names, dotted, imported
from tools.migrations.legacy import (
    CURES,
    DATA_MODULE,
    KEPT,
    MODULES,
    TARGET,
    is_legacy_module,
    symbol_of,
)
from tools.migrations.symbols import uses

NEW_NAMES = {**{name: name for name in KEPT}, DATA_MODULE: "UniversalDataModule"}


@dataclass
class Sorted:
    """What becomes of the names of one statement."""

    ours: list[str] = field(default_factory=list)
    kept: list[cst.ImportAlias] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def migrate(draft: Draft) -> None:
    """Write members of old modules as plain names, then sort every import statement."""
    if any(_is_old(item) for item in draft.names.imports()):
        _inline_members(draft)
        _say_unknown(draft)
        _sort_statements(draft)
        _simplify_attempts(draft)
    for cell in draft.code:
        if cell.by:
            _merge(draft, cell)
        if draft.step in cell.by and not cell.source.strip():
            draft.say("dropped", cell, "The cell is taken out: nothing is left in it.")
            draft.remove(cell)


def _is_old(item: Imported) -> bool:
    """Whether a name is, or comes from, one of the old modules."""
    home = item.qualified.rpartition(".")[0]
    return any(map(is_legacy_module, (item.qualified, home))) or bool(symbol_of(item.qualified))


def _inline_members(draft: Draft) -> None:
    """`tc.Trainer` of an old module becomes `Trainer`."""
    while True:
        found = [
            use.node
            for use in uses(draft)
            if use.symbol.is_legacy
            and use.symbol.name in KEPT
            and isinstance(use.node, cst.Attribute)
            and not draft.is_fixed(use.node)
        ]
        if not found:
            return
        node = found[0]
        cell = draft.names.cell_of(node)
        name = local_name(draft, TARGET, node.attr.value, node)
        if not draft.edit({node: lambda _, name=name: cst.parse_expression(name)}):
            return
        add_imports(draft, TARGET, cell, [name])


def _say_unknown(draft: Draft) -> None:
    """List imports of old packages that no table knows."""
    for item in draft.names.imports():
        if item.qualified.split(".")[0] in draft.legacy and not _is_old(item):
            text = (
                f"{draft.names.code(item.statement)} is left: nothing is known of {item.qualified}."
            )
            draft.say("left", draft.names.cell_of(item.statement), text)


def _sort_statements(draft: Draft) -> None:
    names, edits = draft.names, {}
    for line in names.nodes(cst.SimpleStatementLine):
        new, is_changed = [], False
        for part in line.body:
            if not isinstance(part, cst.Import | cst.ImportFrom):
                new.append(names.code(part))
                continue
            lines = _lines(draft, names, part)
            is_changed |= lines is not None
            new += [names.code(part).rstrip(" ;")] if lines is None else lines
        if is_changed:
            edits[line] = lambda node, new=new: _spread(node, new)
    draft.edit(edits)


def _lines(draft: Draft, names: Names, part: cst.Import | cst.ImportFrom) -> list[str] | None:
    """The statements that replace one; None if it stays as it is."""
    items = [item for item in imported(part) if _is_old(item)]
    if not items:
        return None
    cell = names.cell_of(part)
    if items[0].alias is None:
        text = f"{names.code(part)} is left: which names it brings cannot be known."
        draft.say("left", cell, text)
        return None
    sorting = Sorted()
    for item in imported(part):
        _sort(draft, names, cell, item, sorting)
    if not sorting.ours and not sorting.dropped:
        return None
    for name in sorting.dropped:
        draft.say("dropped", cell, f"The import of {name} is taken out: no cell uses it.")
    lines = [import_text(TARGET, sorting.ours)] if sorting.ours else []
    if sorting.kept:
        kept = [alias.with_changes(comma=cst.MaybeSentinel.DEFAULT) for alias in sorting.kept]
        lines.append(names.code(part.with_changes(names=kept, **_bare(part))))
    return lines


def _bare(part: cst.Import | cst.ImportFrom) -> dict:
    return {"semicolon": cst.MaybeSentinel.DEFAULT} | (
        {"lpar": None, "rpar": None} if isinstance(part, cst.ImportFrom) else {}
    )


def _sort(draft: Draft, names: Names, cell: DraftCell, item: Imported, into: Sorted) -> None:
    """Decide on one name: ours, kept, or dropped."""
    if not _is_old(item):
        into.kept.append(item.alias)
        return
    ours = NEW_NAMES.get(symbol_of(item.qualified) or "")
    is_used = _is_used(names, item)
    if ours and (is_used or item.local != DATA_MODULE):
        renamed = "" if item.local == ours else f" as {item.local}"
        into.ours.append(ours + renamed)
    elif ours:
        into.ours.append(ours)
    elif is_used:
        into.kept.append(item.alias)
        text = f"The import of {item.local} is left: it is still used. {_cure(item)}"
        draft.say("left", cell, text.rstrip())
    else:
        into.dropped.append(item.local)


def _cure(item: Imported) -> str:
    """What to use instead of a name, from the table of names or else of modules."""
    found = symbol_of(item.qualified)
    if found:
        return f"{CURES[found]}."
    home = item.qualified
    while home and home not in MODULES:
        home = home.rpartition(".")[0]
    return f"{MODULES[home]}." if home else ""


def _is_used(names: Names, item: Imported) -> bool:
    """Whether anything reads what an import binds, or may."""
    scope = names.scope(item.statement) or names.globals
    reads = [access for a in scope[item.local] for access in a.references]
    return bool(reads) or item.local.split(".")[0] in names.hidden


def _spread(node: cst.SimpleStatementLine, lines: list[str]):
    """Put statements in the place of one line; its comments stay with what is left."""
    new = [statement for line in lines for statement in statements(line.rstrip(" ;"))]
    if not new:
        return cst.RemoveFromParent()
    new[0] = new[0].with_changes(leading_lines=node.leading_lines)
    if node.trailing_whitespace.comment:
        new[-1] = new[-1].with_changes(trailing_whitespace=node.trailing_whitespace)
    return cst.FlattenSentinel(new)


def _simplify_attempts(draft: Draft) -> None:
    """Open a `try` that has become pointless: nothing to try, or the same in each handler."""
    names, edits = draft.names, {}
    for node in names.nodes(cst.Try):
        if draft.step not in names.cell_of(node).by or node.orelse or node.finalbody:
            continue
        body = names.code(node.body).strip()
        handlers = [names.code(handler.body).strip() for handler in node.handlers]
        if body == "pass":
            if _catches_imports(node) and not _binds_what_is_read(names, node):
                edits[node] = lambda _: cst.RemoveFromParent()
        elif handlers and all(text == body for text in handlers):
            edits[node] = _opened
    draft.edit(edits)


def _opened(node: cst.Try):
    first, *rest = node.body.body
    leading = [*node.leading_lines, *first.leading_lines]
    return cst.FlattenSentinel([first.with_changes(leading_lines=leading), *rest])


def _catches_imports(node: cst.Try) -> bool:
    caught = {dotted(handler.type) if handler.type else "" for handler in node.handlers}
    return caught <= {"ImportError", "ModuleNotFoundError", "Exception"}


def _binds_what_is_read(names: Names, node: cst.Try) -> bool:
    """Whether a handler binds a name that a cell reads, so that it must be looked at."""
    return any(
        not names.is_read(name) and names.is_bound(name.value) and names.is_used(name.value)
        for name in names.nodes(cst.Name)
        if node in names.ancestors(name)
    )


def _merge(draft: Draft, cell: DraftCell) -> None:
    """Make one statement of all imports of ours at the top of a cell."""
    own = [i for i, line in enumerate(cell.module.body) if _is_ours(line)]
    if len(own) < 2:
        return
    body, aliases = list(cell.module.body), []
    for i in own:
        aliases += [cst.Module([]).code_for_node(a).rstrip(" ,\n") for a in body[i].body[0].names]
    first = statements(import_text(TARGET, aliases))[0]
    body[own[0]] = first.with_changes(
        leading_lines=body[own[0]].leading_lines,
        trailing_whitespace=body[own[0]].trailing_whitespace,
    )
    for i in reversed(own[1:]):
        comments = [empty for empty in body[i].leading_lines if empty.comment]
        if i + 1 < len(body) and comments:
            below = [*comments, *body[i + 1].leading_lines]
            body[i + 1] = body[i + 1].with_changes(leading_lines=below)
        del body[i]
    draft.write(cell, cell.module.with_changes(body=body).code)


def _is_ours(line: cst.BaseStatement) -> bool:
    if not isinstance(line, cst.SimpleStatementLine) or len(line.body) != 1:
        return False
    part = line.body[0]
    return (
        isinstance(part, cst.ImportFrom)
        and not isinstance(part.names, cst.ImportStar)
        and part.module is not None
        and not part.relative
        and dotted(part.module) == TARGET
    )

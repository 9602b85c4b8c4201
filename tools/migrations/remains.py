"""What old names a draft still uses, after everything that can be done has been done."""

from collections.abc import Iterator

import libcst as cst

from tools.codemod.draft import Draft, DraftCell
from tools.codemod.words import words
from tools.migrations.legacy import CURES, KEPT, is_legacy_module, symbol_of
from tools.migrations.symbols import uses

OLD = CURES.keys() - KEPT.keys()


def report(draft: Draft) -> None:
    """Say of every old name that is still used, where and what comes nearest."""
    told = {remark.cell.id for remark in draft.remarks if remark.kind == "left"}
    for cell, text in (*_used(draft), *_doubtful(draft), *_hidden(draft)):
        if cell.id not in told:
            draft.say("left", cell, text)


def _used(draft: Draft) -> Iterator[tuple[DraftCell, str]]:
    for use in uses(draft):
        if use.symbol.is_legacy:
            text = f"{use.symbol.name} is still used. {CURES[use.symbol.name]}."
            yield draft.names.cell_of(use.node), text


def _doubtful(draft: Draft) -> Iterator[tuple[DraftCell, str]]:
    """Names that are bound in several ways, or that a star may have brought."""
    names = draft.names
    imports = names.imports()
    locals_ = {i.local: symbol_of(i.qualified) for i in imports if symbol_of(i.qualified) in OLD}
    has_star = any(i.local == "*" and is_legacy_module(i.qualified) for i in imports)
    for node in names.nodes(cst.Name):
        scope = names.scope(node)
        if scope is None or not names.is_read(node):
            continue
        found = locals_.get(node.value)
        if not found and has_star and node.value in OLD and not names.bindings(node):
            found = node.value
        if found and names.around(node, cst.Import, cst.ImportFrom) is None:
            text = f"{node.value} may be the old {found}, which is not certain. {CURES[found]}."
            yield names.cell_of(node), text


def _hidden(draft: Draft) -> Iterator[tuple[DraftCell, str]]:
    """Magics, and cells that do not parse."""
    for cell in draft.cells:
        found = sorted(words(cell.hidden) & OLD)
        if cell.kind == "code" and not cell.is_removed and found:
            what = "The cell does not parse" if cell.module is None else "A magic stands there"
            yield cell, f"{what}, so {', '.join(found)} is left. {CURES[found[0]]}."

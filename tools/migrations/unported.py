"""Take out cells that live on functions without a counterpart, if no other cell needs them.

-sweep = run_grid_sweep(base_config, {"learning_rate": [1e-4, 1e-3]})
-sweep.head()
"""

import libcst as cst
from libcst.metadata import ImportAssignment

from tools.codemod.draft import Draft, DraftCell
from tools.codemod.names import Names
from tools.migrations.legacy import FINE_TUNING, SEARCH, UNPORTED, symbol_of
from tools.migrations.symbols import uses


def migrate(draft: Draft) -> None:
    """Remove what can be removed, and say of the rest why it stays."""
    names = draft.names
    reads, binds = _reads(draft), _binds(draft)
    wanted = _direct(draft)
    if not draft.keep_unported:
        candidates = wanted | _viewers(draft, names, wanted, reads, binds)
        removable = _closed(candidates, reads, binds, draft)
    else:
        removable = set()
    for cell in draft.code:
        if cell in wanted and cell not in removable:
            _say_kept(draft, cell, reads, binds, removable)
    for cell in draft.code:
        if cell in removable:
            what = "It uses" if cell in wanted else "All it reads comes from cells that use"
            found = ", ".join(sorted(_symbols(draft, cell) or {"functions without a counterpart"}))
            draft.say("dropped", cell, f"The cell is taken out. {what} {found}.")
    for cell in [cell for cell in draft.code if cell in removable]:
        draft.remove(cell)


def _direct(draft: Draft) -> set[DraftCell]:
    """Cells that use a function without a counterpart, or do nothing but import one."""
    names = draft.names
    found = {
        names.cell_of(use.node)
        for use in uses(draft)
        if use.symbol.is_legacy and use.symbol.name in UNPORTED
    }
    for item in names.imports():
        cell = names.cell_of(item.statement)
        if symbol_of(item.qualified) in UNPORTED and _only_imports(cell):
            found.add(cell)
    return found


def _only_imports(cell: DraftCell) -> bool:
    """Whether a cell imports and shows, and does nothing else."""
    return all(
        isinstance(line, cst.SimpleStatementLine)
        and all(
            isinstance(part, cst.Import | cst.ImportFrom) or _is_print(part) for part in line.body
        )
        for line in cell.module.body
    )


def _is_print(part: cst.BaseSmallStatement) -> bool:
    return (
        isinstance(part, cst.Expr)
        and isinstance(part.value, cst.Call)
        and isinstance(part.value.func, cst.Name)
        and part.value.func.value == "print"
    )


def _reads(draft: Draft) -> dict[DraftCell, set[str]]:
    """The global names that each cell reads."""
    names = draft.names
    found: dict[DraftCell, set[str]] = {cell: set() for cell in draft.code}
    for assignment in names.globals.assignments:
        for access in assignment.references:
            found[names.cell_of(access.node)].add(assignment.name)
    return found


def _binds(draft: Draft) -> dict[DraftCell, set[str]]:
    """The global names that each cell binds."""
    names = draft.names
    found: dict[DraftCell, set[str]] = {cell: set() for cell in draft.code}
    for assignment in names.globals.assignments:
        node = getattr(assignment, "node", None)
        if node in names.order:
            found[names.cell_of(node)].add(assignment.name)
    return found


def _viewers(draft: Draft, names: Names, wanted: set, reads: dict, binds: dict) -> set[DraftCell]:
    """Cells that bind nothing and, beside imports, read only what the wanted cells bind."""
    imports = {a.name for a in names.globals.assignments if isinstance(a, ImportAssignment)}
    inside = {name for cell in wanted for name in binds[cell]}
    outside = {n for cell in draft.code if cell not in wanted for n in binds[cell]}
    return {
        cell
        for cell in draft.code
        if cell not in wanted
        and not binds[cell] - imports
        and (own := reads[cell] - imports)
        and own <= inside - outside
    }


def _closed(candidates: set, reads: dict, binds: dict, draft: Draft) -> set[DraftCell]:
    """The candidates that no staying cell needs, that run no magic, and hold nothing else."""
    removable = {cell for cell in candidates if not cell.hidden}
    while True:
        staying = [cell for cell in draft.code if cell not in removable]
        bound = {name for cell in staying for name in binds[cell]}
        needed = {name for cell in staying for name in reads[cell]} | draft.names.hidden
        blocked = {
            cell
            for cell in removable
            if (binds[cell] - bound) & needed or _other_symbols(draft, cell)
        }
        if not blocked:
            return removable
        removable -= blocked


def _symbols(draft: Draft, cell: DraftCell) -> set[str]:
    names = draft.names
    found = {use.symbol.name for use in uses(draft) if names.cell_of(use.node) is cell}
    imports = [item for item in names.imports() if names.cell_of(item.statement) is cell]
    found |= {symbol_of(item.qualified) or "" for item in imports}
    return found & UNPORTED.keys()


def _other_symbols(draft: Draft, cell: DraftCell) -> bool:
    """Whether a cell calls something that has a counterpart, so that it can be rewritten."""
    names = draft.names
    return any(
        use.symbol.name in (FINE_TUNING, SEARCH)
        for use in uses(draft)
        if names.cell_of(use.node) is cell
    )


def _say_kept(draft: Draft, cell: DraftCell, reads: dict, binds: dict, removable: set) -> None:
    """Say why a cell that uses functions without a counterpart stays, and what comes nearest."""
    found = sorted(_symbols(draft, cell))
    cures = " ".join(f"{name}: {UNPORTED[name]}." for name in found)
    others = [other for other in draft.code if other is not cell and other not in removable]
    needed = sorted(binds[cell] & {name for other in others for name in reads[other]})
    if draft.keep_unported:
        why = "as asked"
    elif needed:
        why = f"other cells read {', '.join(needed)}"
    elif cell.hidden:
        why = "it runs magics or commands, whose effects are not known"
    else:
        why = "it belongs to cells that stay"
    draft.say("left", cell, f"The cell is kept, since {why}. {cures}".strip())

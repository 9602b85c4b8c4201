"""What an expression of a notebook stands for: an old name or one of ours, however it is called."""

from dataclasses import dataclass

import libcst as cst
from libcst.metadata import Assignment, ImportAssignment

from tools.codemod.draft import Draft
from tools.codemod.names import Names, dotted, imported
from tools.migrations.legacy import KEPT, TARGET, is_legacy_module, symbol_of

OURS = {*KEPT, "run_search", "SearchSpace", "Float", "Int", "Choice", "TrainingResult"}


@dataclass(frozen=True)
class Symbol:
    """A name that migrations know."""

    name: str
    is_legacy: bool


@dataclass(frozen=True)
class Use:
    """An expression that reads a known name."""

    node: cst.Name | cst.Attribute
    symbol: Symbol


def known(qualified: str) -> Symbol | None:
    """The symbol of a qualified name, old or ours."""
    old = symbol_of(qualified)
    if old is not None:
        return Symbol(old, True)
    home, _, name = qualified.rpartition(".")
    if name in OURS and home.split(".")[0] == TARGET:
        return Symbol(name, False)
    return None


def symbol(names: Names, node: cst.CSTNode) -> Symbol | None:
    """What a name or a dotted name stands for, if every binding agrees."""
    chain = dotted(node)
    if not chain:
        return None
    root = node
    while isinstance(root, cst.Attribute):
        root = root.value
    rest = chain[len(root.value) :]
    bindings = [b for b in names.reaching(root) if not _is_fallback(names, b)]
    found = {known(q + rest) if (q := _qualified(b, root.value)) else None for b in bindings}
    return found.pop() if len(found) == 1 else None


def uses(draft: Draft) -> list[Use]:
    """Every expression that reads a known name, in the order of the text."""
    names = draft.names
    roots = {item.local.split(".")[0] for item in names.imports() if _may_lead(item.qualified)}
    found = []
    for node in names.nodes(cst.Name):
        if node.value not in roots or names.scope(node) is None or not _is_root(names, node):
            continue
        chain: cst.CSTNode = node
        while True:
            what = symbol(names, chain)
            if what is not None:
                found.append(Use(chain, what))
                break
            parent = names.parents.get(chain)
            if not (isinstance(parent, cst.Attribute) and parent.value is chain):
                break
            chain = parent
    return found


def calls(draft: Draft, *wanted: str) -> list[tuple[cst.Call, Symbol]]:
    """Calls of known names, in the order of the text."""
    names = draft.names
    return [
        (parent, use.symbol)
        for use in uses(draft)
        if use.symbol.name in wanted
        and isinstance(parent := names.parents[use.node], cst.Call)
        and parent.func is use.node
    ]


def live(draft: Draft) -> set[str]:
    """Old names that cells import or read, modules too."""
    imports = draft.names.imports()
    found = {item.qualified.rpartition(".")[2] for item in imports if symbol_of(item.qualified)}
    for item in imports:
        home = item.qualified if item.local == "*" else item.qualified.rpartition(".")[0]
        if is_legacy_module(home) or is_legacy_module(item.qualified):
            found.add(home.rpartition(".")[2])
    return found | {use.symbol.name for use in uses(draft) if use.symbol.is_legacy}


def _may_lead(qualified: str) -> bool:
    roots = {name.split(".")[0] for name in (TARGET, "utils", "cli")}
    return qualified.split(".")[0] in roots


def _is_root(names: Names, node: cst.Name) -> bool:
    """Whether a name is a variable that is read, no attribute, keyword or part of an import."""
    parent = names.parents.get(node)
    if isinstance(parent, cst.Attribute) and parent.attr is node:
        return False
    if isinstance(parent, cst.Arg | cst.Param | cst.FunctionDef | cst.ClassDef | cst.AsName):
        return (isinstance(parent, cst.Arg) and parent.value is node) or (
            isinstance(parent, cst.Param) and parent.default is node
        )  # fmt: skip
    return names.is_read(node) and names.around(node, cst.Import, cst.ImportFrom) is None


def _qualified(binding: Assignment, local: str) -> str:
    """The full name of what an import binds to a name; empty for any other binding."""
    if not isinstance(binding, ImportAssignment):
        return ""
    for item in imported(binding.node):
        if item.local == local:
            return item.qualified
        if item.local.startswith(f"{local}."):
            return local
    return ""


def _is_fallback(names: Names, binding: Assignment) -> bool:
    """Whether a binding only stands in for an import that failed: in its `except`."""
    handler = names.around(binding.node, cst.ExceptHandler)
    if handler is None or isinstance(binding, ImportAssignment):
        return False
    attempt = names.parents[handler]
    inside = {s for s in names.nodes(cst.Import, cst.ImportFrom) if attempt in names.ancestors(s)}
    return any(item.local == binding.name for s in inside for item in imported(s))

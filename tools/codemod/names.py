"""The names of a notebook across its cells: where each is bound, read, and what it stands for."""

import builtins
from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst
from libcst.metadata import (
    Assignment,
    ExpressionContext,
    ExpressionContextProvider,
    GlobalScope,
    MetadataWrapper,
    Scope,
    ScopeProvider,
)

from tools.codemod.draft import Draft, DraftCell
from tools.codemod.words import words

FUNCTIONS = (cst.FunctionDef, cst.Lambda)
BLOCKS = (cst.Module, cst.IndentedBlock)


@dataclass(frozen=True)
class Imported:
    """One name of an import statement."""

    statement: cst.Import | cst.ImportFrom
    alias: cst.ImportAlias | None
    """None for a star."""
    qualified: str
    local: str
    """The name that it binds, dots included (`import a.b`); a star binds `*`."""


class Names:
    """All code cells as one program, in the order in which they run."""

    def __init__(self, draft: Draft) -> None:
        statements = [statement for cell in draft.code for statement in cell.module.body]
        self.module = cst.Module(body=statements)
        wrapper = MetadataWrapper(self.module, unsafe_skip_copy=True)
        found = wrapper.resolve_many([ScopeProvider, ExpressionContextProvider])
        self.scopes, self.contexts = found[ScopeProvider], found[ExpressionContextProvider]
        self.parents: dict[cst.CSTNode, cst.CSTNode] = {}
        self.order: dict[cst.CSTNode, int] = {self.module: 0}
        self.kinds: dict[cst.CSTNode, str | None] = {}
        """What expressions hold, as far as a migration has worked it out."""
        self._cells: dict[cst.CSTNode, DraftCell] = {}
        for cell in draft.code:
            for statement in cell.module.body:
                self._cells[statement] = cell
        self._walk()
        self.hidden = {word for cell in draft.cells if not cell.is_removed and cell.kind == "code"
                       for word in words(cell.hidden)}  # fmt: skip
        """Words of magics and of cells that do not parse: they may read any name."""

    def _walk(self) -> None:
        stack: list[cst.CSTNode] = [self.module]
        while stack:
            node = stack.pop()
            self.order[node] = len(self.order)
            children = list(node.children)
            for child in children:
                self.parents[child] = node
            stack.extend(reversed(children))

    def nodes(self, *kinds: type) -> list:
        """All nodes of some kinds, in the order of the text."""
        return [node for node in self.order if isinstance(node, kinds)]

    def cell_of(self, node: cst.CSTNode) -> DraftCell:
        """The cell that a node stands in."""
        for ancestor in (node, *self.ancestors(node)):
            if ancestor in self._cells:
                return self._cells[ancestor]
        raise KeyError(node)

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """The nodes around a node, from the inside out."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def around(self, node: cst.CSTNode, *kinds: type) -> cst.CSTNode | None:
        """The nearest node of some kinds around a node."""
        return next((a for a in self.ancestors(node) if isinstance(a, kinds)), None)

    def line_of(self, node: cst.CSTNode) -> cst.CSTNode:
        """The statement that a node stands in, as it stands in a block."""
        for inner in (node, *self.ancestors(node)):
            if isinstance(self.parents.get(inner), BLOCKS):
                return inner
        return node

    def is_top(self, node: cst.CSTNode) -> bool:
        """Whether a node's statement stands in no block."""
        return self.line_of(node) in self._cells

    def is_read(self, node: cst.CSTNode) -> bool:
        """Whether an expression is read, neither assigned nor deleted."""
        context = self.contexts.get(node)
        return context in (None, ExpressionContext.LOAD)

    def code(self, node: cst.CSTNode) -> str:
        """The text of a node."""
        return self.module.code_for_node(node)

    def scope(self, node: cst.CSTNode) -> Scope | None:
        """The scope of a node."""
        return self.scopes.get(node)

    @property
    def globals(self) -> GlobalScope:
        """The scope of all cells."""
        return self.scopes[self.module]

    def bindings(self, name: cst.Name) -> list[Assignment]:
        """All that a name read here may be bound by, in the order of the text."""
        scope = self.scope(name)
        found = [] if scope is None else [a for a in scope[name.value] if isinstance(a, Assignment)]
        return sorted(found, key=lambda a: self.order.get(a.node, 0))

    def reaching(self, name: cst.Name) -> list[Assignment]:
        """Of the bindings of a name, those that may hold where it is read.

        At the top of the notebook the last one before it that stands in no block, and all since;
        inside a function every one.
        """
        found = self.bindings(name)
        if not found or any(isinstance(a, FUNCTIONS) for a in self.ancestors(name)):
            return found
        place, outermost = self.order[name], self._outermost(name)
        reach: list[Assignment] = []
        for binding in reversed(found):
            node = binding.node
            is_before = self.order.get(node, 0) < place
            if not is_before and self._outermost(node) is not outermost:
                continue
            if is_before and self._is_within(name, self._whole(node)):
                continue
            reach.append(binding)
            if is_before and self.is_top(node):
                break
        return reach

    def _whole(self, target: cst.CSTNode) -> cst.CSTNode | None:
        """The small statement that binds a name."""
        statements = (cst.BaseSmallStatement, cst.BaseCompoundStatement)
        is_small = isinstance(target, cst.BaseSmallStatement)
        return target if is_small else self.around(target, *statements)

    def _is_within(self, name: cst.Name, statement: cst.CSTNode | None) -> bool:
        return isinstance(statement, cst.Assign | cst.AnnAssign | cst.AugAssign) and any(
            ancestor is statement for ancestor in self.ancestors(name)
        )

    def _outermost(self, node: cst.CSTNode) -> cst.CSTNode | None:
        return next((n for n in (node, *self.ancestors(node)) if n in self._cells), None)

    def value(self, binding: Assignment) -> cst.BaseExpression | None:
        """The expression that a binding assigns whole; None if it is anything else."""
        parent = self.parents.get(binding.node)
        if isinstance(parent, cst.AssignTarget):
            return self.parents[parent].value
        if isinstance(parent, cst.AnnAssign | cst.NamedExpr) and parent.target is binding.node:
            return parent.value
        return None

    def reads(self, local: str) -> list[cst.CSTNode]:
        """Where a global name is read, in any cell."""
        nodes = {access.node for a in self.globals[local] for access in a.references}
        return sorted(nodes, key=lambda node: self.order.get(node, 0))

    def is_bound(self, local: str) -> bool:
        """Whether any cell binds a global name."""
        return any(isinstance(a, Assignment) for a in self.globals[local])

    def is_used(self, local: str) -> bool:
        """Whether a global name is read by any cell, or may be by text that is not Python."""
        return bool(self.reads(local)) or local in self.hidden

    def free(self, wanted: str) -> str:
        """The name, or with a number behind it, such that no cell knows it."""
        number, name = 1, wanted
        known = {node.value for node in self.nodes(cst.Name)} | self.hidden | set(dir(builtins))
        while name in known:
            number, name = number + 1, f"{wanted}_{number + 1}"
        return name

    def imports(self) -> list[Imported]:
        """Every name of every import statement."""
        return [item for s in self.nodes(cst.Import, cst.ImportFrom) for item in imported(s)]


def imported(statement: cst.Import | cst.ImportFrom) -> Iterator[Imported]:
    """The names that a statement imports; none for a relative import."""
    if isinstance(statement, cst.Import):
        for alias in statement.names:
            name = dotted(alias.name)
            yield Imported(statement, alias, name, _local(alias) or name)
        return
    if statement.relative or statement.module is None:
        return
    module = dotted(statement.module)
    if isinstance(statement.names, cst.ImportStar):
        yield Imported(statement, None, module, "*")
        return
    for alias in statement.names:
        name = dotted(alias.name)
        yield Imported(statement, alias, f"{module}.{name}", _local(alias) or name)


def _local(alias: cst.ImportAlias) -> str:
    return alias.asname.name.value if alias.asname else ""


def dotted(node: cst.CSTNode) -> str:
    """`a.b.c` for names joined by dots; empty for any other expression."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        left = dotted(node.value)
        return left and f"{left}.{node.attr.value}"
    return ""

"""Order of a run: what a function needs before it is called, and guards that are never passed."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tools.analysis.evaluation import is_namespace
from tools.analysis.flow import Need, Place, Run, run
from tools.analysis.scopes import KERNEL, last_name, names_of, own_nodes
from tools.program import CodeCell, Program
from tools.rules import Problem, Subject, rule

ENDS = {"exit", "quit", "_exit"}


@rule("PY304")
def late_bindings(subject: Subject) -> Iterator[Problem]:
    """A function is called before a later cell binds what it reads."""
    program = subject.program
    state = run(program.cells)
    declared = names_of(trees_of(program)).declared
    seen: set[tuple[str, str]] = set()
    for need in state.needs:
        late = need.via and need.sure and need.name in state.bound and need.name not in declared
        if late and (need.via[-1], need.name) not in seen:
            seen.add((need.via[-1], need.name))
            yield _late(need, state.bound[need.name], program)


def _late(need: Need, place: Place, program: Program) -> Problem:
    where = f"cell {cell_id(program, place[0])}" if place[0] != need.cell else f"line {place[1]}"
    calls = " calls ".join(f"`{name}`" for name in need.via)
    return Problem(
        f"{calls}, which reads `{need.name}`, but only {where} further down binds it.",
        f"Bind `{need.name}` before this call, or pass it to the function.",
        need.cell,
        need.line,
    )


@rule("PY307")
def guards(subject: Subject) -> Iterator[Problem]:
    """A guard on a name always raises in run order, or never lets its branch run."""
    program = subject.program
    state = run(program.cells)
    if state.blurred:
        return
    known = _Known(state, names_of(trees_of(program)).declared)
    for code in program.cells:
        for statement in code.tree.body if code.tree else []:
            yield from _judge_guard(statement, code, known)


@dataclass(frozen=True)
class _Known:
    """Which names are bound where."""

    run: Run
    declared: frozenset[str]

    def before(self, name: str, cell: int, line: int) -> bool | None:
        """Whether a name is bound before a line of a cell; None if it may be or not."""
        if name in KERNEL or name in self.declared or name.startswith("_"):
            return None
        place = self.run.bound.get(name)
        return None if place and place < (cell, line) else False

    def ever(self, name: str) -> bool:
        """Whether anything in the notebook may bind a name."""
        return name in self.run.bound or name in KERNEL or name.startswith("_")


def _judge_guard(statement: ast.stmt, code: CodeCell, known: _Known) -> Iterator[Problem]:
    def bound(name: str) -> bool | None:
        return known.before(name, code.index, statement.lineno)

    failing = _raising_test(statement)
    if failing is not None:
        test, wanted = failing
        if _truth(test, bound) is wanted:
            yield _always_raises(test, statement, code, known)
        return
    yield from _never_runs(statement, code, known)


def _raising_test(statement: ast.stmt) -> tuple[ast.expr, bool] | None:
    """The test of a guard, and the truth by which it raises."""
    if isinstance(statement, ast.Assert):
        return statement.test, False
    if isinstance(statement, ast.If) and any(map(_raises, statement.body)):
        return statement.test, True
    if isinstance(statement, ast.If) and any(map(_raises, statement.orelse)):
        return statement.test, False
    if isinstance(statement, ast.For) and not statement.orelse and len(statement.body) == 1:
        return _unrolled(statement)
    return None


def _unrolled(loop: ast.For) -> tuple[ast.expr, bool] | None:
    """The guard in `for name in ("a", "b"): if name not in globals(): raise`, written out."""
    inner = loop.body[0]
    texts = loop.iter.elts if isinstance(loop.iter, ast.Tuple | ast.List | ast.Set) else []
    match loop.target, _raising_test(inner):
        case ast.Name(id=name), (ast.Compare(ast.Name(id=used), [op], [space]), wanted):
            if used == name and is_namespace(space) and not isinstance(inner, ast.For):
                tests = [ast.Compare(text, [op], [space]) for text in texts]
                return ast.BoolOp(ast.Or() if wanted else ast.And(), tests), wanted
    return None


def _raises(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return last_name(statement.value) in ENDS
    return isinstance(statement, ast.Raise)


def _truth(test: ast.expr, bound: Callable[[str], bool | None]) -> bool | None:
    """The truth of a test as far as it rests on which names are bound; None if that is open."""
    match test:
        case ast.UnaryOp(ast.Not(), operand):
            truth = _truth(operand, bound)
            return None if truth is None else not truth
        case ast.BoolOp(op, values):
            truths = {_truth(value, bound) for value in values}
            decisive = isinstance(op, ast.Or)
            if decisive in truths:
                return decisive
            return None if None in truths or not truths else not decisive
        case ast.Compare(ast.Constant(str(name)), [ast.In() | ast.NotIn() as op], [space]):
            if is_namespace(space):
                truth = bound(name)
                return truth if truth is None else truth is isinstance(op, ast.In)
    return None


def _named(test: ast.expr) -> list[str]:
    """The names that a test looks up in a namespace."""
    return [
        node.left.value
        for node in ast.walk(test)
        if isinstance(node, ast.Compare)
        and isinstance(node.left, ast.Constant)
        and isinstance(node.left.value, str)
        and any(map(is_namespace, node.comparators))
    ]


def _always_raises(test: ast.expr, node: ast.stmt, code: CodeCell, known: _Known) -> Problem:
    before = [name for name in _named(test) if known.before(name, code.index, node.lineno) is False]
    late = [name for name in before if known.ever(name)]
    name = (late or before)[0]
    when = "is bound only further down" if late else "is bound nowhere in the notebook"
    return Problem(
        f"This guard always raises in a run from the top: `{name}` {when}.",
        "Move the guard below the cell that binds the name, or delete it.",
        code.index,
        node.lineno,
    )


def _never_runs(statement: ast.stmt, code: CodeCell, known: _Known) -> Iterator[Problem]:
    """A branch that waits for a name which nothing binds."""
    nodes = own_nodes(statement)
    for node in nodes:
        if isinstance(node, ast.If | ast.IfExp):
            if _truth(node.test, lambda name: None if known.ever(name) else False) is not False:
                continue
            name = next(name for name in _named(node.test) if not known.ever(name))
            yield Problem(
                f"Nothing in the notebook binds `{name}`, so this branch never runs.",
                f"Correct the name, bind `{name}`, or delete the branch.",
                code.index,
                node.lineno,
                # A reader may bind it by hand, so it is no more than a remark.
                severity="info",
            )


def trees_of(program: Program) -> tuple[ast.Module, ...]:
    """The trees of all cells that parse."""
    return tuple(code.tree for code in program.cells if code.tree)


def cell_id(program: Program, index: int) -> str:
    """The id of the cell at an index."""
    return next(code.cell.id for code in program.cells if code.index == index)

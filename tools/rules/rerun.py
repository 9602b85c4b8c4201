"""Cells that cannot be run twice: what they take from earlier cells they use up or change."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from tools.analysis.scopes import (
    DEFINITIONS,
    Names,
    bindings,
    dotted_path,
    last_name,
    names_of,
    own_nodes,
    root_name,
    shown,
)
from tools.program import CodeCell
from tools.rules import Problem, Subject, rule
from tools.rules.rerun_files import makes_folders, moves_files, relative_cd

USED_UP = {"pop", "popleft", "drop", "set_index", "explode", "melt", "permute", "unsqueeze"}
OF_ANOTHER_TYPE = {"split", "splitlines", "encode", "decode", "tolist", "numpy", "item", "read"}
WRAPPERS = {
    "DataParallel", "DistributedDataParallel", "get_peft_model", "Sequential", "random_split",
    "train_test_split", "reversed", "expand_dims", "unsqueeze", "loads", "read_csv", "open",
}  # fmt: skip
JOINERS = {"concat", "cat", "concatenate", "append", "vstack", "hstack"}
GROWS = {"append", "extend", "insert", "appendleft"}
REMOVES = {"pop": 1, "popleft": 0, "remove": 1, "popitem": 0}
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Pow, ast.MatMult)
CONDITIONS = (ast.If, ast.Try, ast.Match, ast.While)


@dataclass(frozen=True)
class Ground:
    """What a statement finds: the notebook's names, and what its cell has bound so far."""

    code: CodeCell
    names: Names
    earlier: frozenset[str]
    """Names that earlier cells bind."""
    here: set[str] = field(default_factory=set)
    """Names that this cell has bound above the statement."""

    def is_from_earlier(self, name: str) -> bool:
        """Whether a name holds what another cell has bound, and is no module."""
        return name in self.earlier and name not in self.here and name not in self.names.imports

    def problem(self, node: ast.AST, message: str, cure: str) -> Problem:
        """A problem at a node of this cell."""
        return Problem(message, cure, self.code.index, node.lineno)


@rule("PY305", "warning")
def reruns(subject: Subject) -> Iterator[Problem]:
    """A cell can be run a second time with the same result."""
    program = subject.program
    names = names_of(tuple(code.tree for code in program.cells if code.tree))
    earlier: set[str] = set()
    for code in program.cells:
        yield from relative_cd(code)
        if code.tree is not None:
            yield from _statements(code.tree.body, Ground(code, names, frozenset(earlier)))
            earlier |= bindings(code.tree).keys()


def _statements(statements: list[ast.stmt], ground: Ground) -> Iterator[Problem]:
    """Judge statements that run each time; what stands under a condition or handler may not."""
    for statement in statements:
        if not isinstance(statement, (*CONDITIONS, *DEFINITIONS)):
            for judge in JUDGES:
                yield from judge(statement, ground)
            if isinstance(statement, ast.For | ast.With):
                inner = Ground(ground.code, ground.names, ground.earlier, set(ground.here))
                inner.here.update(bindings(_header(statement)))
                yield from _statements(statement.body, inner)
        ground.here.update(bindings(statement))


def _header(statement: ast.For | ast.With) -> ast.AST:
    """What a compound statement binds before its body runs, as an expression."""
    if isinstance(statement, ast.For):
        return statement.target
    return ast.Tuple([item.optional_vars for item in statement.items if item.optional_vars])


def _counts(statement: ast.stmt, ground: Ground) -> Iterator[Problem]:
    """`step += 1`, where another cell has set `step`; `|=` and `&=` do no harm."""
    if isinstance(statement, ast.AugAssign) and isinstance(statement.op, ARITHMETIC):
        name = root_name(statement.target)
        if ground.is_from_earlier(name):
            yield ground.problem(
                statement,
                f"Each run of this cell changes `{shown(statement.target)}` again, which an "
                "earlier cell has set.",
                f"Set `{name}` in this cell, or give the result another name.",
            )


def _rewrites(statement: ast.stmt, ground: Ground) -> Iterator[Problem]:
    """`df = df.drop(...)`, `x = x / 255`, `text = text.split()`: done twice it is not the same."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return
    target, value = statement.targets[0], statement.value
    parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
    for name in (part.id for part in parts if isinstance(part, ast.Name)):
        if not ground.is_from_earlier(name):
            continue
        is_plain = target is parts[0]
        if _wraps(value, name) or (is_plain and _is_changed(value, name, ground)):
            yield ground.problem(
                statement,
                f"A second run of this cell works on what the first made of `{name}`, not on what "
                "the earlier cell has set.",
                f"Give the result another name than `{name}`, or set `{name}` in this cell.",
            )


def _is_changed(value: ast.expr, name: str, ground: Ground) -> bool:
    """Whether an expression makes of a name something that it cannot make of the result."""
    if isinstance(value, ast.BinOp):
        return _is_arithmetic(value, name, ground)
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        if _uses_up(value) and root_name(value.func) == name:
            return True
        value = value.func.value
    is_own = isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name)
    return is_own and value.value.id == name and _cuts(value.slice)


def _uses_up(call: ast.Call) -> bool:
    """Whether a method gives what the method cannot be called on again with the same outcome."""
    words = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    if call.func.attr == "reset_index":
        return not words.get("drop")
    if call.func.attr == "drop" and words.get("errors") == "ignore":
        return False
    return call.func.attr in USED_UP | OF_ANOTHER_TYPE


def _cuts(index: ast.expr) -> bool:
    """Whether an index takes something away each time: `[1:]`, `[:-1]`, `[::2]`, `["train"]`."""
    if not isinstance(index, ast.Slice):
        return isinstance(index, ast.Constant)
    lower, upper, step = (_number(part) for part in (index.lower, index.upper, index.step))
    return bool(lower) or (upper or 0) < 0 or step not in (None, 1)


def _number(node: ast.expr | None) -> int | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _number(node.operand)
        return None if value is None else -value
    is_number = isinstance(node, ast.Constant) and isinstance(node.value, int)
    return node.value if is_number else None


def _is_arithmetic(value: ast.BinOp, name: str, ground: Ground) -> bool:
    """Whether an expression is arithmetic of a name with what other cells or nobody changes."""
    todo: list[ast.AST] = [value]
    has_name = False
    while todo:
        node = todo.pop()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ARITHMETIC):
            todo += [node.left, node.right]
        elif isinstance(node, ast.Name) and node.id == name:
            has_name = True
        elif not isinstance(node, ast.Constant) and not ground.is_from_earlier(_path_root(node)):
            return False
    return has_name


def _path_root(node: ast.AST) -> str:
    return (dotted_path(node) or [""])[0]


def _wraps(value: ast.expr, name: str) -> bool:
    """Whether a call puts the name's value into another of its kind, or splits or joins it."""
    if not isinstance(value, ast.Call):
        return False
    function = last_name(value)
    args = list(value.args)
    if function in JOINERS and args and isinstance(args[0], ast.List | ast.Tuple):
        args = args[0].elts
    elif function not in WRAPPERS and function != "append":
        return False
    return any(isinstance(arg, ast.Name) and arg.id == name for arg in args)


def _deletes(statement: ast.stmt, ground: Ground) -> Iterator[Problem]:
    """`del x`, where another cell has bound `x`; an entry of another cell's dict as well."""
    for target in statement.targets if isinstance(statement, ast.Delete) else []:
        name = root_name(target)
        if name in ground.earlier and name not in ground.here:
            yield ground.problem(
                statement,
                f"`del {shown(target)}` raises in a second run, because the first has deleted it.",
                "Delete it in the cell that makes it.",
            )


def _consumes(statement: ast.stmt, ground: Ground) -> Iterator[Problem]:
    """`x.pop("key")` and `x.remove(value)` on what another cell has made."""
    if not isinstance(statement, ast.Expr | ast.Assign):
        return
    for node in own_nodes(statement):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        path = dotted_path(node.func.value)
        is_whole = REMOVES.get(node.func.attr) == len(node.args) or (
            node.func.attr == "pop" and not node.args
        )
        is_theirs = bool(path) and ground.is_from_earlier(path[0])
        is_theirs = is_theirs or ground.names.dotted(node.func.value) == "os.environ"
        is_rebound = isinstance(statement, ast.Assign) and path in map(
            dotted_path, statement.targets
        )
        if is_whole and is_theirs and not node.keywords and not is_rebound:
            yield ground.problem(
                node,
                f"Each run of this cell takes something out of `{'.'.join(path)}`, which an "
                "earlier cell has made.",
                "Take it out where it is made; of a dict with pop(key, None).",
            )


def _grows(statement: ast.stmt, ground: Ground) -> Iterator[Problem]:
    """`results.append(...)` on a list that another cell has made."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
        return
    name = call.func.value.id if isinstance(call.func.value, ast.Name) else ""
    values = ground.names.values.get(name, [])
    if call.func.attr in GROWS and ground.is_from_earlier(name) and any(map(_is_list, values)):
        yield ground.problem(
            statement,
            f"Each run of this cell adds to the list `{name}` once more, which an earlier cell "
            "has made.",
            f"Begin `{name} = []` in this cell.",
        )


def _is_list(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in ("list", "deque")
    return isinstance(value, ast.List | ast.ListComp)


JUDGES = (
    _counts, _rewrites, _deletes, _consumes, _grows, moves_files, makes_folders,
)  # fmt: skip

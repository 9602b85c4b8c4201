"""Values that fail when they are used, and that neither ruff nor the type checker sees."""

import ast
from collections.abc import Iterator

from tools.analysis.dict_arguments import lacks
from tools.analysis.frames import Frames, frame_attributes
from tools.analysis.imports import search_folders
from tools.analysis.names import Names
from tools.program import Program
from tools.rules import Problem, Subject, rule

UNHASHABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


@rule("PY301")
def names(subject: Subject) -> Iterator[Problem]:
    """Every name is bound before it is used, once, and compared and formatted as it can be."""
    known = Names(subject.program)
    for cell in subject.program.cells:
        for node in cell.nodes:
            is_file = isinstance(node, ast.Name) and node.id == "__file__"
            if is_file and not known.is_excused("__file__", cell.index, node.lineno):
                yield Problem(
                    "`__file__` is not bound in a notebook.",
                    "Use pathlib.Path.cwd(), or the path of a module that you import.",
                    cell.index,
                    node.lineno,
                )


@rule("PY302")
def values(subject: Subject) -> Iterator[Problem]:
    """Every import, attribute, argument and key exists, and every value can be used so."""
    folders = tuple(search_folders(subject.root, [subject.notebook.path]))
    frames = Frames(subject.program, frame_attributes(subject.program, folders))
    dicts = _names_of_dicts(subject.program)
    for lack in lacks(subject.program, folders):
        yield Problem(
            f"`{lack.function}` reads the key {lack.key!r}, which `{lack.argument}` does not have.",
            "Add the key.",
            lack.cell,
            lack.line,
        )
    for cell in subject.program.cells:
        for node in cell.nodes:
            for key in _keys(node, dicts):
                yield Problem(
                    f"`{_short(key)}` cannot be hashed, so it can be no key and be in no set.",
                    "Use a tuple or a frozenset.",
                    cell.index,
                    key.lineno,
                )
            for test in filter(frames.is_table, _tests(node)):
                yield Problem(
                    f"`{_short(test)}` is a table of pandas, which is neither true nor false.",
                    "Ask for .empty, .any() or .all(), or compare with None.",
                    cell.index,
                    test.lineno,
                )


def _keys(node: ast.AST, dicts: set[str]) -> Iterator[ast.expr]:
    """The parts of an expression that must be hashed and cannot be."""
    candidates: list[ast.expr] = []
    if isinstance(node, ast.Dict):
        candidates = [key for key in node.keys if key is not None]
    elif isinstance(node, ast.Set):
        candidates = node.elts
    elif isinstance(node, ast.DictComp):
        candidates = [node.key]
    elif isinstance(node, ast.SetComp):
        candidates = [node.elt]
    elif isinstance(node, ast.Subscript):
        is_dict = isinstance(node.value, ast.Dict) or getattr(node.value, "id", "") in dicts
        candidates = [node.slice] if is_dict else []
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("set", "frozenset"):
        is_plain = len(node.args) == 1 and isinstance(node.args[0], ast.List | ast.Tuple)
        candidates = node.args[0].elts if is_plain else []
    yield from (key for key in candidates if _is_unhashable(key))


def _is_unhashable(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple):
        return any(map(_is_unhashable, node.elts))
    return isinstance(node, UNHASHABLE)


def _names_of_dicts(program: Program) -> set[str]:
    """Names that every binding in the notebook makes a dict, by a display."""
    dicts, others = set(), set()
    for cell in program.cells:
        targets: dict[ast.Name, ast.expr] = {}
        for node in cell.nodes:
            if isinstance(node, ast.Assign):
                targets |= {t: node.value for t in node.targets if isinstance(t, ast.Name)}
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                is_dict = isinstance(targets.get(node), ast.Dict | ast.DictComp)
                (dicts if is_dict else others).add(node.id)
            elif isinstance(node, ast.arg):
                others.add(node.arg)
    return dicts - others


def _tests(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions whose truth a node asks for."""
    if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert):
        yield node.test
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield from node.values[:-1]
    elif isinstance(node, ast.comprehension):
        yield from node.ifs
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "bool":
        yield from node.args


def _short(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 40 else f"{text[:37]}..."

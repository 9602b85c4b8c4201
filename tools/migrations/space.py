"""Turn the dict of an old search space into a `SearchSpace`, where its literal can be found."""

import math
from dataclasses import dataclass, field

import libcst as cst

from tools.codemod.build import call_text
from tools.codemod.draft import Draft
from tools.codemod.names import Names
from tools.migrations.fields import RENAMED
from tools.migrations.flow import text_of

LOGARITHMIC = {"learning_rate", "weight_decay"}
SHOWN_BY = {"print", "display", "len", "repr", "str"}


@dataclass
class Space:
    """The code of a space, the names that it needs, and the literal that it replaces."""

    code: str
    needs: list[str] = field(default_factory=list)
    at: cst.BaseExpression | None = None
    """The dict to be replaced where it stands; None if the code belongs into the call."""


def space_of(draft: Draft, node: cst.BaseExpression) -> Space:
    """The space for what a call was given: a dict, a name for one, or any expression."""
    names = draft.names
    if isinstance(node, cst.Dict):
        return _from_dict(names, node) or _unread(names, node)
    if isinstance(node, cst.Name):
        literal = _literal(names, node)
        space = _from_dict(names, literal) if literal is not None else None
        if space is not None and _is_only_searched(names, node.value):
            return Space(node.value, space.needs, literal) if space.code else _unread(names, node)
    return _unread(names, node)


def code_of(names: Names, literal: cst.Dict) -> str:
    """The code of the space that a literal becomes."""
    space = _from_dict(names, literal)
    return space.code if space else names.code(literal)


def _unread(names: Names, node: cst.BaseExpression) -> Space:
    return Space(f"SearchSpace.from_dict({names.code(node)})", ["SearchSpace"])


def _literal(names: Names, node: cst.Name) -> cst.Dict | None:
    values = [names.value(binding) for binding in names.reaching(node)]
    return values[0] if len(values) == 1 and isinstance(values[0], cst.Dict) else None


def _is_only_searched(names: Names, name: str) -> bool:
    """Whether all cells do with a name is to pass it on whole, or to show it."""
    for node in names.reads(name):
        parent = names.parents.get(node)
        if not isinstance(parent, cst.Arg):
            is_shown = isinstance(parent, cst.Expr)
            if not is_shown:
                return False
            continue
        call = names.parents[parent]
        is_search = parent.keyword is not None and parent.keyword.value == "search_space"
        is_show = isinstance(call.func, cst.Name) and call.func.value in SHOWN_BY
        if not (is_search or is_show or _is_fifth(call, parent)):
            return False
    return True


def _is_fifth(call: cst.CSTNode, arg: cst.Arg) -> bool:
    return isinstance(call, cst.Call) and arg.keyword is None and call.args.index(arg) == 4


def _from_dict(names: Names, literal: cst.Dict) -> Space | None:
    """`SearchSpace({...})` for a dict of tuples, lists and values; None if one is unclear."""
    parts, needs = [], ["SearchSpace"]
    for element in literal.elements:
        key = text_of(element.key) if isinstance(element, cst.DictElement) else ""
        if not key:
            return None
        name = RENAMED.get(key, key)
        found = _parameter(names, name, element.value)
        if found is None:
            return None
        kind, arguments = found
        needs.append(kind)
        parts.append(f'"{name}": {call_text(kind, [("", code) for code in arguments])}')
    if not parts:
        return None
    body = "".join(f"    {part},\n" for part in parts)
    return Space(f"SearchSpace({{\n{body}}})", sorted(set(needs)))


def _parameter(names: Names, name: str, value: cst.BaseExpression) -> tuple[str, list[str]] | None:
    """The kind of a parameter and its arguments: a tuple is a range, a list has choices."""
    if isinstance(value, cst.List):
        return "Choice", [names.code(value)]
    if not isinstance(value, cst.Tuple):
        return None
    bounds = [names.code(element.value) for element in value.elements]
    numbers = [_number(bound) for bound in bounds]
    if len(bounds) == 3 and bounds[2].strip("'\"") in ("log", "loguniform"):
        return "Float", [*bounds[:2], "log=True"]
    if len(bounds) != 2 or None in numbers:
        return None
    if all(isinstance(number, int) for number in numbers) and name not in LOGARITHMIC:
        return "Int", bounds
    is_log = name in LOGARITHMIC and numbers[0] > 0
    return "Float", [*bounds, "log=True"] if is_log else bounds


def _number(code: str) -> int | float | None:
    try:
        return int(code)
    except ValueError:
        pass
    try:
        number = float(code)
    except ValueError:
        return None
    return number if math.isfinite(number) else None

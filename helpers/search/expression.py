"""Formulas over the values of a trial, as text: data that can be saved, and that runs no code.

An expression has names, numbers, texts, + - * / // % **, comparisons, `in`, and, or, not, if-else,
and abs, int, float, log2, max, min, round, sqrt. A name with a dot, as `model.width`, is one name.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from helpers.errors import ConfigError

MAX_LENGTH = 300
MAX_BITS = 1024
BINARY: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
COMPARISONS: dict[type, Callable[..., Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, values: value in values,
    ast.NotIn: lambda value, values: value not in values,
}
UNARY: dict[type, Callable[..., Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "int": int,
    "float": float,
    "log2": math.log2,
    "max": max,
    "min": min,
    "round": lambda value: round(value),
    "sqrt": math.sqrt,
}


def names_in(text: str) -> frozenset[str]:
    """Names of the values that an expression reads.

    >>> sorted(names_in("d_model % n_heads == 0 and model.width > 8"))
    ['d_model', 'model.width', 'n_heads']

    Raises: ConfigError if the text is no expression.
    """
    return _parsed(text)[1]


def evaluate(text: str, values: Mapping[str, Any]) -> Any:
    """The value of an expression.

    >>> evaluate("max(8, batch_size // 2)", {"batch_size": 32})
    16

    Raises: ConfigError if it cannot be computed from these values.
    """
    tree, names = _parsed(text)
    try:
        return _value(tree, values)
    except (ArithmeticError, TypeError, ValueError) as error:
        given = ", ".join(f"{name} = {values[name]!r}" for name in sorted(names))
        raise ConfigError(
            f"{text!r} cannot be computed ({error}) with {given}. Change it, or keep such values "
            "out of the space."
        ) from error


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[ast.expr, frozenset[str]]:
    if not isinstance(text, str):
        raise ConfigError(
            f"{text!r} was given as an expression, but text is wanted, so that the space can be "
            "saved. Write it as 'batch_size // 2'."
        )
    if len(text) > MAX_LENGTH:
        raise ConfigError(
            f"An expression has {len(text)} characters, but at most {MAX_LENGTH} are wanted. "
            "Split it into several."
        )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{text!r} is not an expression ({error}). Correct it.") from None
    names: set[str] = set()
    _check(tree, text, names)
    return tree, frozenset(names)


def _check(node: ast.AST, text: str, names: set[str]) -> None:
    """Collect the names below a node, and refuse what an expression does not have."""
    name = _name(node)
    if name is not None:
        names.add(name)
        return
    if not _is_known(node):
        raise ConfigError(
            f"{ast.unparse(node)!r} stands in {text!r}, but an expression has names, numbers, "
            f"arithmetic, comparisons, and, or, not, if-else, and {', '.join(FUNCTIONS)}. "
            "Write it with these."
        )
    for child in _parts(node):
        _check(child, text, names)


def _is_known(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=bool() | int() | float() | str()):
            return True
        case ast.BinOp(op=op):
            return type(op) in BINARY or isinstance(op, ast.Pow)
        case ast.UnaryOp(op=op):
            return type(op) in UNARY or isinstance(op, ast.Not)
        case ast.Compare(ops=ops):
            return all(type(op) in COMPARISONS for op in ops)
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            return name in FUNCTIONS
        case _:
            return isinstance(node, ast.BoolOp | ast.IfExp | ast.List | ast.Tuple)


def _parts(node: ast.AST) -> list[ast.expr]:
    """The expressions right below a node; the function of a call is none."""
    children = node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
    return [child for child in children if isinstance(child, ast.expr)]


def _name(node: ast.AST) -> str | None:
    """The name that a node stands for, with its dot, or None."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=first), attr=second):
            return f"{first}.{second}"
        case _:
            return None


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    name = _name(node)
    if name is not None:
        return values[name]
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List() | ast.Tuple():
            return [_value(item, values) for item in node.elts]
        case ast.BinOp(left=left, op=op, right=right):
            return _arithmetic(op, _value(left, values), _value(right, values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, values)
        case ast.UnaryOp(op=op, operand=operand):
            return UNARY[type(op)](_value(operand, values))
        case ast.BoolOp(op=op, values=parts):
            found = (_value(part, values) for part in parts)
            return all(found) if isinstance(op, ast.And) else any(found)
        case ast.IfExp(test=test, body=body, orelse=other):
            return _value(body if _value(test, values) else other, values)
        case ast.Call(func=ast.Name(id=name), args=args):
            return FUNCTIONS[name](*(_value(item, values) for item in args))
        case _:
            return _comparison(node, values)


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    """Numbers only: a text times a number could fill the memory, and so could a power."""
    if not isinstance(left, int | float) or not isinstance(right, int | float):
        raise TypeError(f"{left!r} and {right!r} are not both numbers")
    if not isinstance(op, ast.Pow):
        return BINARY[type(op)](left, right)
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() * abs(right) > MAX_BITS:
            raise ValueError(f"{left} to the power of {right} is too large")
    elif left < 0:
        raise ValueError(f"{left} to the power of {right} is not a real number")
    return left**right


def _comparison(node: ast.expr, values: Mapping[str, Any]) -> bool:
    """A chain of comparisons, as `8 <= d_model <= 64`."""
    assert isinstance(node, ast.Compare)
    operands = [_value(part, values) for part in (node.left, *node.comparators)]
    return all(COMPARISONS[type(op)](operands[i], operands[i + 1]) for i, op in enumerate(node.ops))

"""Read the form of a code cell: titles, and fields with their values, each with its place."""

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tools.analysis.form import MARKDOWN, PARAM, Param, Title, parse_param, parse_title


class Computed:
    """The value of a field that is not a literal."""

    def __repr__(self) -> str:
        return "computed"


COMPUTED = Computed()


@dataclass(frozen=True)
class Field:
    """A line `name = value  # @param ...`."""

    name: str
    value: Any
    """The literal, or COMPUTED."""
    code: str
    """The value as Python, spelt as `ast.unparse` spells it."""
    param: Param
    line: int
    column: int
    """Where the comment begins in its line, from 0."""
    comment: str
    is_annotated: bool = False


@dataclass(frozen=True)
class CellForm:
    """What Colab makes a form of."""

    titles: tuple[tuple[int, int, Title], ...] = ()
    """Line and column of the comment of each title."""
    fields: tuple[Field, ...] = ()
    stray: tuple[tuple[int, int, Param], ...] = ()
    """Line and column of each `@param` that stands on a line of its own, or in the midst of one."""
    has_markdown: bool = False
    code_line: int = 0
    """The first line that is code; 0 if there is none."""

    @property
    def is_empty(self) -> bool:
        """Whether Colab shows no form at all."""
        return not (self.titles or self.fields or self.has_markdown)


@dataclass(frozen=True)
class _Comment:
    """A comment, and whether its line holds nothing else."""

    line: int
    column: int
    text: str
    is_alone: bool


@lru_cache(maxsize=1024)
def form_of(python: str) -> CellForm:
    """Read a cell whose magics are masked; of one that does not parse, nothing is read."""
    if not any(word in python for word in ("@param", "@title", "@markdown")):
        return CellForm()
    try:
        tree = _parse(python)
        comments = list(_comments(python))
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError):
        return CellForm()
    fields = list(_fields(tree, comments))
    return CellForm(
        titles=tuple(_titles(comments)),
        fields=tuple(fields),
        stray=tuple(_stray(tree, comments, {field.line for field in fields})),
        has_markdown=any(MARKDOWN.match(comment.text) for comment in comments),
        code_line=min((node.lineno for node in tree.body), default=0),
    )


def _parse(python: str) -> ast.Module:
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with warnings.catch_warnings(action="ignore"):
        return compile(python, "<cell>", "exec", flags, dont_inherit=True)


def _comments(python: str) -> Iterator[_Comment]:
    lines = python.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(python).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            is_alone = not lines[line - 1][:column].strip()
            yield _Comment(line, column, token.string, is_alone)


def _titles(comments: list[_Comment]) -> Iterator[tuple[int, int, Title]]:
    for comment in comments:
        title = parse_title(comment.text) if comment.is_alone else None
        if title is not None:
            yield comment.line, comment.column, title


def _fields(tree: ast.Module, comments: list[_Comment]) -> Iterator[Field]:
    """Every assignment of one line to one name with a `@param` behind it, in blocks too."""
    found = {
        node.lineno: (node, name)
        for node in _assignments(tree)
        if node.lineno == node.end_lineno and (name := _name(node))
    }
    for comment in comments:
        param = parse_param(comment.text) if not comment.is_alone else None
        if param is not None and comment.line in found:
            node, name = found[comment.line]
            yield Field(
                name,
                literal(node.value),
                spelling(node.value),
                param,
                comment.line,
                comment.column,
                comment.text,
                is_annotated=isinstance(node, ast.AnnAssign),
            )


def _assignments(tree: ast.Module) -> Iterator[ast.Assign | ast.AnnAssign]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            yield node


def _name(node: ast.Assign | ast.AnnAssign) -> str:
    """The name that is assigned to; empty if there are several, or it is not a plain name."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    target = targets[0]
    return target.id if len(targets) == 1 and isinstance(target, ast.Name) else ""


def _stray(
    tree: ast.Module, comments: list[_Comment], taken: set[int]
) -> Iterator[tuple[int, int, Param]]:
    """Each `@param` with a form behind it, where a field can only be meant but is not shown.

    One behind a call or an attribute is left alone: Colab may read it.
    """
    within = {
        line
        for node in _assignments(tree)
        if node.end_lineno and node.end_lineno > node.lineno
        for line in range(node.lineno, node.end_lineno + 1)
    }
    for comment in comments:
        is_meant = comment.is_alone or comment.line in within
        if comment.line in taken or not is_meant or not PARAM.match(comment.text):
            continue
        param = parse_param(comment.text)
        if param is not None and (param.options is not None or param.properties):
            yield comment.line, comment.column, param


def literal(node: ast.expr | None) -> Any:
    """The value of an expression, or COMPUTED if it is not a literal, or too large to be shown."""
    try:
        value = COMPUTED if node is None else ast.literal_eval(node)
        repr(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return COMPUTED
    return value


def literal_of(code: str) -> Any:
    """The value that a text stands for, or COMPUTED.

    >>> literal_of("[1, 2]"), literal_of("1 + 1")
    ([1, 2], computed)
    """
    return literal(_expression(code))


def spelling(node: ast.expr | None) -> str:
    """An expression as code, in one way of the many that mean the same."""
    try:
        return ast.unparse(node) if node else ""
    except (ValueError, RecursionError):
        return "..."


def normal_spelling(code: str) -> str:
    """The same of a text; of what is no expression, the text itself.

    >>> normal_spelling("'a'  ") == normal_spelling('"a"')
    True
    """
    node = _expression(code)
    return spelling(node) if node else code.strip()


def _expression(code: str) -> ast.expr | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(code.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None

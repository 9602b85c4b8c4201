"""Tell by its text whether a cell is code or prose, where there is no doubt."""

import ast
import keyword
import re
from pathlib import Path

from tools.notebook import Notebook
from tools.program import CodeCell, Program

STRONG = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
BLOCKS = (ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.Match)
MARKUP = re.compile(
    r"^(#{1,6}\s|[-*+]\s+\S|\d+[.)]\s|>\s|\||</?[a-z]|!\[|\[[^\]]+\]\([^)]*\)|\*\*\w)"
)
HTML = re.compile(r"^</?[a-z][^>]*>", re.IGNORECASE)
SPAN = re.compile(r"`[^`]*`|\[([^\]]+)\]\([^)]*\)|https?://\S+")
"""What stands in a sentence and is none of its words; of a link, the text is."""
IMAGE = re.compile(r"^!\[[^\]]*\]\(\S+\)")
NOT_CODE = ("<", "```", "~~~", "|", ">", "$")
"""Beginnings of HTML, fenced code, tables, quotations and formulas."""
PUNCTUATION = ".,;:!?\"'()*_`-"
CODE_MARKS = "=([{@\\"
WORDS_OF_A_SENTENCE, WORDS_OF_A_LONG_ONE = 3, 8


def code_cell(source: str) -> CodeCell:
    """A text read as the code of a cell."""
    node = {"cell_type": "code", "metadata": {}, "source": source}
    content = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [node]}
    return Program(Notebook(Path(), b"", content)).cells[0]


def is_plain_code(text: str) -> bool:
    """Whether the text of a markdown cell can only be Python: no line of it may be prose.

    >>> is_plain_code("import os\\nprint(os.name)"), is_plain_code("a = b\\nc = d")
    (True, False)
    """
    first = next((line for line in text.split("\n") if line.strip()), "")
    if first.startswith((" " * 4, "\t")) or first.lstrip().startswith(NOT_CODE):
        return False
    tree = code_cell(text).tree
    statements = tree.body if tree else []
    if not statements or not all(map(_is_telling, statements[:-1])):
        return False
    if not _is_telling(statements[-1]) and not isinstance(statements[-1], ast.Expr):
        return False
    return any(map(_is_long, statements)) or (
        len(statements) > 1 and (_is_mixed(statements) or _is_detailed(statements))
    )


def _is_long(node: ast.stmt) -> bool:
    """Whether a statement of three lines or more is none that prose can make by chance."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    return lines > 2 and (isinstance(node, (*STRONG, *BLOCKS)) or _assigns(node))


def _is_mixed(statements: list[ast.stmt]) -> bool:
    is_strong = any(isinstance(statement, STRONG) for statement in statements)
    return is_strong or (any(map(_assigns, statements)) and any(map(_calls, statements)))


def _is_detailed(statements: list[ast.stmt]) -> bool:
    """Whether two assignments call methods, which formulas do not."""
    detailed = [
        statement
        for statement in filter(_assigns, statements)
        if any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            for node in ast.walk(statement)
        )
    ]
    return len(detailed) > 1


def _is_telling(node: ast.stmt) -> bool:
    """Whether prose is never read as a statement like this."""
    return isinstance(node, (*STRONG, *BLOCKS, ast.Assert, ast.Raise)) or (
        _assigns(node) or _calls(node) or _is_text(node)
    )


def _assigns(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign | ast.AugAssign) or (
        isinstance(node, ast.AnnAssign) and node.value is not None
    )


def _calls(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and (
        isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def is_plain_prose(cell: CodeCell) -> bool:
    """Whether a code cell holds nothing but text: no line of it, comments aside, may be code."""
    lines = [line.strip() for line in cell.cell.source.split("\n") if line.strip()]
    if lines and all(IMAGE.match(line) or line.startswith("#") for line in lines):
        return any(map(IMAGE.match, lines))
    if cell.error is None or any(quotes in cell.python for quotes in ('"""', "'''")):
        return False
    said = [line for line in lines if not line.startswith("#")]
    if not said or not _begins_sentence(said[0]):
        return False
    if all(map(HTML.match, said)):
        return True
    sentences = [line for line in said if _is_sentence(line)]
    others = [line for line in said if line not in sentences and not MARKUP.match(line)]
    return bool(sentences) and 2 * len(others) <= len(said) and not any(map(_may_be_code, others))


def _may_be_code(line: str) -> bool:
    return any(mark in line for mark in CODE_MARKS) or code_cell(line).error is None


def _begins_sentence(line: str) -> bool:
    """Whether a line begins or ends as text does, and not as a command of a shell or of SQL."""
    word = line.split()[0]
    is_command = word.isupper() and len(word) > 2
    ends = line.endswith((".", ":", "!", "?"))
    return bool(MARKUP.match(line)) or ends or (word[0].isupper() and not is_command)


def _is_sentence(line: str) -> bool:
    """Whether a line is words and nothing that only code has.

    >>> _is_sentence("This takes a while."), _is_sentence("for x in range (3) :")
    (True, False)
    """
    text = SPAN.sub(r"\1", MARKUP.sub("", line))
    words = [word.strip(PUNCTUATION) for word in text.split()]
    plain = [word for word in words if word.replace("'", "").replace("-", "").isalpha()]
    if len(plain) < WORDS_OF_A_SENTENCE or len(plain) < 0.8 * len(words):
        return False
    if keyword.iskeyword(line.split()[0]):
        return False
    is_long = len(plain) >= WORDS_OF_A_LONG_ONE and line.endswith((".", ":", "!", "?"))
    return is_long or not any(mark in text for mark in ("==", " = ", "{", "()"))

"""Find the commands that a notebook hands to a shell, by magics and by `subprocess`."""

import ast
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from tools.analysis.scopes import Names, last_name, names_of, parents
from tools.document.magics import Magic
from tools.program import CodeCell, Program

SHELLS = {"bash", "sh", "shell", "script"}
SYSTEM = {"system", "popen", "getoutput"}
SUBPROCESS = {"run", "call", "check_call", "check_output", "Popen", "getoutput", "getstatusoutput"}
ENDS = set("();|&")
BRANCHES = (ast.If, ast.IfExp, ast.Try, ast.ExceptHandler, ast.While, ast.FunctionDef, ast.Lambda)
UNKNOWN = "{}"
"""Stands for a part of a word that only a run can know."""


@dataclass(frozen=True)
class Command:
    """One command of a shell line."""

    words: tuple[str, ...]
    cell: int
    line: int
    is_conditional: bool
    """Whether it stands in a branch, a handler or a function."""
    is_background: bool
    is_shell_line: bool
    """Whether it is a `!` line, which is the only form that cannot run in the background."""


def shell_commands(program: Program) -> list[Command]:
    """All commands of a notebook, in the order in which they run."""
    names = names_of(tuple(code.tree for code in program.cells if code.tree))
    found = [
        command
        for code in program.cells
        for command in (*_of_magics(code), *_of_calls(code, names))
    ]
    return sorted(found, key=lambda command: (command.cell, command.line))


def _of_magics(code: CodeCell) -> Iterator[Command]:
    lines = code.cell.source.split("\n")
    for magic in code.magics:
        source = lines[magic.line - 1] if magic.line <= len(lines) else ""
        is_conditional = source[:1].isspace()
        for offset, text in _shell_text(magic):
            for words, is_background in split(text):
                yield Command(
                    words,
                    code.index,
                    magic.line + offset,
                    is_conditional,
                    is_background,
                    magic.kind in ("shell", "assigned"),
                )


def _shell_text(magic: Magic) -> Iterator[tuple[int, str]]:
    """The shell lines of a magic, each with its distance from the first line."""
    text = magic.text.replace("\\\n", "  ")
    if magic.kind == "cell" and magic.name in SHELLS:
        yield from enumerate(text.split("\n")[1:], start=1)
    elif magic.kind in ("shell", "assigned") and text.startswith("!"):
        yield 0, text.lstrip("!")
    elif magic.kind in ("line", "assigned") and text.startswith("%"):
        yield 0, text.removeprefix("%")


def split(text: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The commands of a shell line, and whether the line goes to the background with it."""
    try:
        lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        tokens = list(lexer)
    except ValueError:
        tokens = text.split()
    words: list[str] = []
    is_redirect = False
    kept = list(takewhile(lambda token: not token.startswith("#"), tokens))
    for i, token in enumerate([*kept, ";"], start=1):
        if set(token) <= ENDS:
            if words:
                yield tuple(words), token == "&" and i == len(kept)
            words = []
        elif set(token) <= set("<>&|"):
            is_redirect = True
        elif is_redirect:
            is_redirect = False
        else:
            words.append(token)


def _of_calls(code: CodeCell, names: Names) -> Iterator[Command]:
    if code.tree is None:
        return
    above = parents(code.tree)
    for node in ast.walk(code.tree):
        if isinstance(node, ast.Call):
            for words, is_background in _call_words(node, names):
                is_conditional = _is_under(node, above, BRANCHES)
                yield Command(words, code.index, node.lineno, is_conditional, is_background, False)


def _call_words(call: ast.Call, names: Names) -> Iterable[tuple[tuple[str, ...], bool]]:
    function = names.dotted(call.func)
    name = last_name(call.func)
    if name == "run_line_magic":
        return split(" ".join(text_of(arg, names) for arg in call.args))
    is_system = function in ("os.system", "os.popen") or (not function and name in SYSTEM)
    is_subprocess = function.startswith("subprocess.") and name in SUBPROCESS
    if not call.args or not (is_system or is_subprocess):
        return ()
    words = list_of(call.args[0], names)
    if words is not None:
        return [(tuple(words), False)]
    return split(text_of(call.args[0], names))


def list_of(node: ast.AST, names: Names) -> list[str] | None:
    """The words of a literal list, names of such lists followed; None for anything else."""
    if isinstance(node, ast.Name):
        value = names.value(node.id)
        node = value if isinstance(value, ast.List | ast.Tuple) else node
    if not isinstance(node, ast.List | ast.Tuple):
        return None
    words: list[str] = []
    for part in node.elts:
        if isinstance(part, ast.Starred):
            inner = None if isinstance(part.value, ast.Starred) else list_of(part.value, names)
            words += inner if inner is not None else [UNKNOWN]
        else:
            words.append(text_of(part, names))
    return words


def text_of(node: ast.AST, names: Names, depth: int = 4) -> str:
    """The text of an expression as far as it is literal, `{}` for each part that is not."""
    if depth == 0:
        return UNKNOWN
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(values):
            return "".join(text_of(value, names, depth) for value in values)
        case ast.FormattedValue(value):
            return text_of(value, names, depth - 1)
        case ast.Name(id=name):
            value = names.value(name)
            return text_of(value, names, depth - 1) if value else UNKNOWN
        case ast.Attribute() if names.dotted(node) == "sys.executable":
            return "python"
        case ast.BinOp(left, ast.Add() | ast.Div() as op, right):
            joint = "/" if isinstance(op, ast.Div) else ""
            return joint.join(text_of(side, names, depth - 1) for side in (left, right))
        case ast.Call(args=args) if last_name(node) in ("Path", "join", "str", "joinpath"):
            return "/".join(text_of(arg, names, depth - 1) for arg in args)
    return UNKNOWN


def _is_under(node: ast.AST, above: dict[ast.AST, ast.AST], kinds: tuple[type, ...]) -> bool:
    while node in above:
        node = above[node]
        if isinstance(node, kinds):
            return True
    return False

"""Find the branch, tag or commit that the code of a cell fetches of a repository."""

import ast
import itertools
from collections.abc import Iterator

from tools.analysis.repository_urls import repository_urls
from tools.program import CodeCell

NAMES = ("REF", "REVISION", "TAG", "BRANCH")
OPTIONS = ("--branch", "-b")


def pinned_refs(cell: CodeCell, slug: str) -> Iterator[tuple[int, str]]:
    """Line and ref of each pin: `--branch X`, or a constant such as `REF`."""
    for magic in cell.magics:
        yield from ((magic.line, ref) for ref in _of_command(magic.text, slug))
    for node in ast.walk(cell.tree) if cell.tree else ():
        if isinstance(node, ast.Assign):
            yield from _of_assignment(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((node.lineno, ref) for ref in _of_command(node.value, slug))
        elif isinstance(node, ast.List | ast.Tuple):
            yield from _of_words(node.elts)
        elif isinstance(node, ast.Call):
            yield from _of_words(node.args)


def _of_command(text: str, slug: str) -> Iterator[str]:
    """The refs in a command line that names the repository."""
    if any(url.slug.casefold() == slug.casefold() for url in repository_urls(text)):
        words = text.replace("=", " ").split()
        for option, ref in itertools.pairwise(words):
            if option in OPTIONS and not ref.startswith(("{", "$", "%")):
                yield ref


def _of_words(nodes: list[ast.expr]) -> Iterator[tuple[int, str]]:
    """The refs in a command given as a list of words."""
    for option, ref in itertools.pairwise(nodes):
        if isinstance(option, ast.Constant) and option.value in OPTIONS:
            yield from _text(ref)


def _of_assignment(node: ast.Assign) -> Iterator[tuple[int, str]]:
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = zip(target.elts, node.value.elts, strict=False)
        else:
            pairs = [(target, node.value)]
        for name, value in pairs:
            if isinstance(name, ast.Name) and name.id.upper().rpartition("_")[2] in NAMES:
                yield from _text(value)


def _text(node: ast.expr) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value

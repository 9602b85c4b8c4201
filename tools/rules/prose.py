"""Rules on prose: the order of headings, and references to cells by number."""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator

from tools.document.markdown import Heading, outline, parse_markdown
from tools.program import CodeCell
from tools.rules import Problem, Subject, rule

NUMBERED = re.compile(
    r"""(?:(?P<before>[\w-]+)\s+)?
        \b[Cc](?:ell\s+(?:no\.?\s*|number\s+)?\#?\d+(?:\s*(?:-|–|to|and|or)\s*\#?\d+)?
            |ells\s+\#?\d+(?:\s*,\s*\d+)*\s*(?:-|–|,|to|and|or|through)\s*\#?\d+)
        (?![\w%.:]*\w)(?!\s*(?P<unit>times|more|seconds?|s\b|minutes?|min\b|hours?|days?|lines?
            |steps?|epochs?|µm|mm|x\b))""",
    re.VERBOSE,
)
# "this cell 5 times", "an LSTM cell 2": no cell of the notebook is meant.
OTHER_WORDS = frozenset(
    {"this", "that", "each", "every", "per", "one", "a", "an"}
    | {"lstm", "gru", "rnn", "recurrent", "memory", "grid", "table", "unit", "layer"}
    | {"spreadsheet", "excel", "fuel", "solar", "battery", "t", "b", "blood", "stem", "nerve"}
)
TELLING = ("print", "display", "Markdown", "HTML", "warn", "info", "warning", "error")


@rule("CO102")
def headings(subject: Subject) -> Iterator[Problem]:
    """A notebook has one H1, before all other headings, and no level is skipped."""
    found = list(outline(subject.notebook))
    if subject.notebook.nodes and not found:
        cure = "Open with one line `# Title`."
        yield Problem("The notebook has no heading.", cure, severity="info")
    titles, previous, seen = 0, 0, Counter()
    for cell, heading in found:
        titles += heading.level == 1
        if fault := _fault(heading, previous, titles):
            yield Problem(*fault, cell, heading.line)
        seen[heading.text] += 1
        if seen[heading.text] == 2:
            message = f"{heading.text!r} is a heading twice; a link to it finds only the first."
            yield Problem(message, "Say what is different here.", cell, heading.line, "info")
        previous = heading.level


def _fault(heading: Heading, previous: int, titles: int) -> tuple[str, str] | None:
    """What is wrong with the level of a heading, and the cure."""
    level = heading.level
    if not previous and level != 1:
        message = f"The first heading, {heading.text!r}, is an H{level}, but an H1 is wanted."
        return message, "Open with one line `# Title`."
    if level == 1 and titles > 1:
        return f"{heading.text!r} is H1 number {titles}, but one is wanted.", "Make it an H2."
    if previous and level > previous + 1:
        message = f"{heading.text!r} is an H{level} after an H{previous}; a level is skipped."
        return message, f"Make it an H{previous + 1}."
    return None


@rule("CO107", severity="warning")
def cell_numbers(subject: Subject) -> Iterator[Problem]:
    """Text, comments and messages name a cell by its heading, since numbers change."""
    for cell in subject.notebook.cells:
        if cell.kind == "markdown" and "ell" in cell.source:
            yield from _numbered(cell.index, parse_markdown(cell.source).prose)
    for code in subject.program.cells:
        if "ell" in code.cell.source and code.tree is not None:
            yield from _numbered(code.index, [*_comments(code), *_messages(code)])


def _numbered(cell: int, lines: list[tuple[int, str]]) -> Iterator[Problem]:
    for line, text in lines:
        for match in NUMBERED.finditer(text):
            if (match["before"] or "").lower() not in OTHER_WORDS:
                said = match[0].removeprefix(match["before"] or "").strip()
                message = f"{said!r} is a number that changes with every cell added."
                yield Problem(message, "Name the cell by its heading or title.", cell, line)


def _comments(code: CodeCell) -> Iterator[tuple[int, str]]:
    """The comments of a cell; magics, which are masked as comments, are left out."""
    magic_lines = {
        magic.line + i for magic in code.magics for i in range(magic.text.count("\n") + 1)
    }
    try:
        for token in tokenize.generate_tokens(io.StringIO(code.python).readline):
            if token.type == tokenize.COMMENT and token.start[0] not in magic_lines:
                yield token.start[0], token.string
    except (tokenize.TokenError, SyntaxError):
        # The parser takes a few things that the pure Python tokenizer does not.
        return


def _messages(code: CodeCell) -> Iterator[tuple[int, str]]:
    """Strings that a reader gets to see: printed, displayed or raised."""
    for node in ast.walk(code.tree) if code.tree else ():
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from _strings(node.exc)
        elif isinstance(node, ast.Call) and _name(node.func) in TELLING:
            yield from _strings(node)


def _strings(call: ast.Call) -> Iterator[tuple[int, str]]:
    for argument in call.args:
        for node in [argument, *(argument.values if isinstance(argument, ast.JoinedStr) else [])]:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.lineno, node.value


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")

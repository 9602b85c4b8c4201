"""Findings that the author of a notebook has seen and accepts, said in the notebook itself.

In code: `# noqa: PY301` (or bare `# noqa`, or a code of ruff) at the end of a line is for that
line; `# tools: ignore PY301, EX403` is for its line if code stands before it, and for the whole
cell if it stands alone. In markdown: `<!-- tools: ignore CO107 -->`, for the whole cell. On any
cell: a tag `ignore:PY301`.
"""

import io
import tokenize
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from tools.checking.finding import Finding, locate
from tools.document.cell import Cell
from tools.notebook import Notebook

UNKNOWN = "SU701"
ALL = "*"
TAG = "ignore:"
WORDS = "tools: ignore"
# What ruff calls that which the type checker may find in its place.
ALIASES = {"unresolved-reference": "F821"}


@dataclass
class Suppressions:
    """The codes that a cell accepts: everywhere, and by line."""

    codes: set[str] = field(default_factory=set)
    lines: dict[int, set[str]] = field(default_factory=dict)
    written: list[tuple[str, int | None]] = field(default_factory=list)
    """Each of our codes that was named, with its line."""

    def covers(self, finding: Finding) -> bool:
        """Whether a finding of this cell is accepted."""
        accepted = self.codes | self.lines.get(finding.line or 0, set())
        names = {finding.code, finding.origin, ALIASES.get(finding.origin, ""), ALL}
        return bool(accepted & names)


def read_suppressions(cell: Cell) -> Suppressions:
    """All that a cell says about findings to leave out."""
    found = Suppressions()
    for tag in cell.tags:
        if tag.startswith(TAG):
            _accept(found, tag.removeprefix(TAG), None, None)
    source = cell.source
    if cell.kind == "code":
        if "noqa" in source or "tools:" in source:
            for line, is_alone, comment in _comments(source):
                _read_comment(found, line, is_alone, comment)
    elif WORDS in source:
        for number, line in enumerate(source.splitlines(), 1):
            words = line.strip().removeprefix("<!--").removesuffix("-->").strip()
            if line.strip().startswith("<!--") and words.startswith(WORDS):
                _accept(found, words.removeprefix(WORDS), None, number)
    return found


def _read_comment(found: Suppressions, line: int, is_alone: bool, comment: str) -> None:
    for part in comment.split("#")[1:]:
        words = part.strip()
        if words.startswith(WORDS):
            _accept(found, words.removeprefix(WORDS), None if is_alone else line, line)
        elif words.lower().startswith("noqa"):
            codes = words[len("noqa") :].lstrip()
            _accept(found, codes[1:] if codes.startswith(":") else ALL, line, line)


def _accept(found: Suppressions, words: str, line: int | None, written_at: int | None) -> None:
    codes = [code for code in words.replace(",", " ").split() if code == ALL or _is_code(code)]
    target = found.codes if line is None else found.lines.setdefault(line, set())
    target.update(codes)
    found.written += [(code, written_at) for code in codes if code != ALL]


def _is_code(word: str) -> bool:
    letters = word.rstrip("0123456789")
    return letters.isalpha() and letters.isupper() and letters != word


def _comments(source: str) -> Iterator[tuple[int, bool, str]]:
    """Line, whether it stands alone, and text of each comment, as far as the cell is Python."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], not token.line[: token.start[1]].strip(), token.string
    except (tokenize.TokenError, SyntaxError):
        return


def unknown_codes(
    notebook: Notebook, cells: list[Cell], read: Iterable[Suppressions], known: Collection[str]
) -> Iterator[Finding]:
    """A finding for each of our codes in a suppression that no rule has."""
    families = {code[:2] for code in known}
    for cell, suppressions in zip(cells, read, strict=True):
        for code, line in suppressions.written:
            is_ours = code[:2] in families and len(code) == 5 and code[2:].isdecimal()
            if is_ours and code not in known:
                yield Finding(
                    notebook.path,
                    UNKNOWN,
                    "warning",
                    f"{code} is to be ignored here, but no rule has this code.",
                    "Correct the code, or delete the comment or tag.",
                    **locate(notebook, cells, cell.index, line),
                )

"""Cells that are not Python: the cause is reported once, with the parser's words and line."""

from collections.abc import Iterator

from tools.analysis.cell_kinds import is_plain_prose
from tools.program import CodeCell, compile_fault
from tools.rules import Problem, Subject, rule

# First words that IPython takes for a magic although the per cent sign is missing.
AUTOMAGICS = {
    "alias", "bookmark", "cat", "cd", "conda", "config", "cp", "debug", "dirs", "edit", "env",
    "history", "less", "load", "load_ext", "ls", "lsmagic", "magic", "man", "matplotlib",
    "mkdir", "more", "mv", "pdb", "pinfo", "pip", "popd", "prun", "psource", "pushd", "pwd",
    "pylab", "quickref", "recall", "reload_ext", "rerun", "reset", "rm", "rmdir", "run",
    "save", "store", "tensorboard", "time", "timeit", "uv", "who", "whos",
}  # fmt: skip


def automagic(cell: CodeCell, line: int | None) -> str:
    """The magic's name if the line looks like one without its sign; else empty."""
    lines = cell.python.splitlines()
    words = lines[line - 1].split() if line and line <= len(lines) else []
    return words[0] if words and words[0] in AUTOMAGICS else ""


@rule("PY300")
def parses(subject: Subject) -> Iterator[Problem]:
    """Every code cell is Python."""
    for cell in subject.program.cells:
        error = compile_fault(cell)
        if error is None or automagic(cell, error.lineno) or is_plain_prose(cell):
            continue
        line = min(error.lineno or 1, max(1, len(cell.cell.source.splitlines())))
        yield Problem(
            f"The cell does not parse: {error.msg}.",
            "Correct this line or the one above it; other checks wait for this cell.",
            cell.index,
            line,
        )


@rule("PY306", "warning")
def plain_lines(subject: Subject) -> Iterator[Problem]:
    """No star import hides names, and no magic is written without its per cent sign."""
    for cell in subject.program.cells:
        error = compile_fault(cell)
        name = automagic(cell, error.lineno) if error else ""
        if error and name:
            yield Problem(
                f"`{name}` is written without a per cent sign, which works only while no variable "
                "has this name; every other tool takes the cell for broken.",
                f"Write %{name}.",
                cell.index,
                error.lineno,
            )

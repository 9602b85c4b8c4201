"""Turn what only IPython understands into Python of as many lines, and back, without loss.

A masked magic is a placeholder and a comment that holds the magic:

    %matplotlib inline    # ipython-line: %matplotlib inline
    if colab:             if colab:
        !pip install x        pass  # ipython-line: !pip install x
    files = !ls           files = ...  # ipython-value: !ls
    %time fit(model)      fit(model)  # ipython-timed: %time

Before the first statement of a cell it is a comment alone, so that imports which an edit adds land
below it; later it is a statement, which an edit of its neighbours does not take along.
jupytext masks by single lines: it takes `%b` in a bracket and `ls` for magics, and leaves a block
whose only line is a magic empty. So what is a magic is decided here, as IPython does.
"""

import ast
import warnings
from dataclasses import dataclass

from tools.document.logical_lines import LineReader

MARK = "# ipython-"
CELL, LINE, MORE, VALUE, TIMED = (
    f"{MARK}{kind}:" for kind in ("cell", "line", "more", "value", "timed")
)
# Cell magics that run their cell as Python in the notebook's own namespace.
PYTHON_CELLS = frozenset(
    {"capture", "debug", "ipytest", "memit", "prun", "snakeviz", "time", "timeit", "wandb"}
)
PYTHON_LINES = frozenset({"memit", "prun", "time", "timeit"})
BLANKS = " \t\f"


@dataclass(frozen=True)
class Magic:
    """One line or cell that is not Python."""

    line: int
    """From 1, in the cell."""
    kind: str
    """`line` (%x), `cell` (%%x), `shell` (!x), `help` (x?) or `assigned` (y = !x)."""
    name: str
    """`pip`, `time`; for a shell line its first word."""
    text: str
    """The whole of it, continuation lines included; for a cell that is not Python all its lines.

    Of an assigned one it is what stands right of the equals sign.
    """

    @property
    def is_whole_cell(self) -> bool:
        """Whether it makes the rest of its cell something else than Python, as `%%bash` does."""
        return self.kind == "cell" and self.name not in PYTHON_CELLS


def mask(source: str) -> tuple[str, tuple[Magic, ...]]:
    """Python of the same number of lines, and what was masked in it.

    Raises: ValueError unless unmasking would give the source back.
    """
    lines = source.split("\n")
    if MARK not in source and not any(map(_may_be_magic, lines)):
        return source, ()
    masker = _Masker(lines)
    masker.run()
    python = "\n".join(masker.masked)
    if unmask(python) != source:
        raise ValueError("a comment of the cell looks like a masked magic")
    return python, tuple(masker.magics)


def unmask(python: str) -> str:
    """The source that was masked; between the two, the Python may have been edited.

    Raises: ValueError if an edit broke a masked magic apart or put code before a cell magic.
    """
    if MARK not in python:
        return python
    reader, source = LineReader(), []
    last = ""
    for line in python.split("\n"):
        was_fresh = reader.is_fresh
        reader.read(line)
        at = line.find(MARK, reader.comment) if reader.comment >= 0 else -1
        mark = line[at : line.find(":", at) + 1] if at >= 0 else ""
        if mark and not (was_fresh and reader.is_fresh):
            raise ValueError("an edit put a masked magic inside a statement")
        if mark == MORE and last in ("", "code"):
            raise ValueError("an edit parted a masked magic from its first line")
        if mark == CELL and last not in ("", CELL):
            raise ValueError("an edit put something before a cell magic")
        source.append(_unmasked(line[:at], mark, line[at + len(mark) :]) if mark else line)
        last = mark or ("code" if line.strip() else last)
    return "\n".join(source)


class _Masker:
    """Goes through the lines of a cell once."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.masked: list[str] = []
        self.magics: list[Magic] = []
        self._reader = LineReader()
        self._is_leading = True

    def run(self) -> None:
        self._cell_magics()
        while len(self.masked) < len(self.lines):
            line = self.lines[len(self.masked)]
            if not (self._reader.is_fresh and _may_be_magic(line) and self._masks(line)):
                self._reader.read(line)
                self.masked.append(line)
                code = line.strip()
                self._is_leading &= not code or code.startswith("#")

    def _cell_magics(self) -> None:
        """Mask the first line that is not empty if it is a cell magic, and again in its body."""
        while True:
            at = len(self.masked)
            start = next((i for i in range(at, len(self.lines)) if self.lines[i].strip()), None)
            if start is None or not _is_cell_magic(self.lines[start]):
                return
            self.masked += self.lines[at:start]
            line = self.lines[start].strip()
            name = line[2:].split(maxsplit=1)[0]
            if name not in PYTHON_CELLS:
                self._enter(start, "cell", name, "\n".join(self.lines[start:]))
                self._mask_lines(start, len(self.lines), "", CELL)
                return
            self._enter(start, "cell", name, line)
            bound = _captured(line) if name == "capture" else ""
            self._mask_lines(start, start + 1, f"{bound} = ...  " if bound else "", CELL)

    def _masks(self, line: str) -> bool:
        """Mask the magic that begins in this line, if one does."""
        code = line.strip()
        if code.startswith(("%", "!")) and not _is_help(code):
            kind = "line" if code.startswith("%") else "shell"
            self._line_magic(kind, line)
        elif _is_help(code):
            self._enter(len(self.masked), "help", code.strip("?"), code)
            self._mask_lines(len(self.masked), len(self.masked) + 1, self._placeholder())
        else:
            return self._masks_value(line)
        return True

    def _line_magic(self, kind: str, line: str) -> None:
        start = len(self.masked)
        end = self._end(start)
        text = "\n".join([line.lstrip(BLANKS), *self.lines[start + 1 : end]]).rstrip("\r")
        self._enter(start, kind, _first_word(text), text)
        timed = _timed(line) if end == start + 1 else None
        if timed:
            self.masked.append(timed)
            self._is_leading = False
        else:
            self._mask_lines(start, end, self._placeholder())

    def _masks_value(self, line: str) -> bool:
        """Mask `name = %magic` or `name = !command`."""
        reader = LineReader()
        reader.read(line)
        value = line[reader.assigns + 1 :].lstrip(BLANKS)
        is_magic = value.startswith("!") or (value[:1] == "%" and value[1:2].isidentifier())
        if reader.assigns < 0 or not is_magic:
            return False
        start, target = len(self.masked), line[: len(line) - len(value)]
        end = self._end(start)
        text = "\n".join([value, *self.lines[start + 1 : end]]).rstrip("\r")
        self._enter(start, "assigned", _first_word(text), text)
        self.masked.append(f"{target}...  {VALUE} {value}")
        indent = line[: len(line) - len(line.lstrip(BLANKS))]
        self.masked += [f"{indent}pass  {MORE} {more}" for more in self.lines[start + 1 : end]]
        self._is_leading = False
        return True

    def _end(self, start: int) -> int:
        """The line after a magic that begins at `start`."""
        end = start + 1
        while end < len(self.lines) and self.lines[end - 1].endswith(("\\", "\\\r")):
            end += 1
        return end

    def _placeholder(self) -> str:
        return "" if self._is_leading else "pass  "

    def _mask_lines(self, start: int, end: int, placeholder: str, mark: str = LINE) -> None:
        first = self.lines[start]
        text = first.lstrip(BLANKS)
        indent = first[: len(first) - len(text)]
        self.masked.append(f"{indent}{placeholder}{mark} {text}")
        more = self.lines[start + 1 : end]
        self.masked += [f"{indent}{placeholder}{MORE} {line}" for line in more]

    def _enter(self, index: int, kind: str, name: str, text: str) -> None:
        self.magics.append(Magic(index + 1, kind, name, text))


def _unmasked(code: str, mark: str, text: str) -> str:
    """The line that stood where now a placeholder and a comment stand."""
    text = text.removeprefix(" ")
    indent = code[: len(code) - len(code.lstrip(BLANKS))]
    rest = code.strip()
    if mark == VALUE and rest.endswith("..."):
        return code.removesuffix("  ").removesuffix("...") + text
    if mark == TIMED and rest:
        return f"{indent}{text} {code.removesuffix('  ')[len(indent) :]}"
    if mark == CELL and rest in ("", f"{_captured(text)} = ..."):
        return indent + text
    if mark in (LINE, MORE) and rest in ("", "pass"):
        return text if mark == MORE else indent + text
    raise ValueError("an edit changed the placeholder of a masked magic")


def _may_be_magic(line: str) -> bool:
    """Whether a line needs a closer look: cheap, and never wrong when it says no."""
    code = line.strip()
    if code.startswith(("%", "!", "?")) or code.endswith("?"):
        return True
    has_sign = "=" in code and ("%" in code or "!" in code)
    return has_sign and any(part.lstrip().startswith(("%", "!")) for part in code.split("=")[1:])


def _is_cell_magic(line: str) -> bool:
    code = line.strip()
    return code.startswith("%%") and bool(code[2:].strip()) and not _is_help(code)


def _is_help(code: str) -> bool:
    """Whether a line is `name?`, `?name` or `%magic?`."""
    if code.startswith("?"):
        return True
    name = code.rstrip("?")
    if not 1 <= len(code) - len(name) <= 2 or "#" in code:
        return False
    tree = _parsed(name.lstrip("%").replace("*", "_"))
    kinds = ast.Name | ast.Attribute | ast.Subscript
    return len(tree) == 1 and isinstance(tree[0], ast.Expr) and isinstance(tree[0].value, kinds)


def _parsed(code: str) -> list[ast.stmt]:
    """The statements of a piece of Python; none if it does not parse."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _first_word(text: str) -> str:
    """The name of a line magic, or the program that a shell line calls."""
    words = text.lstrip("!") if text.startswith("!") else text[1:]
    return next(iter(words.split(maxsplit=1)), "")


def _captured(line: str) -> str:
    """The name that `%%capture` binds; empty if it binds none."""
    words = [word for word in line.split()[1:] if not word.startswith("-")]
    is_name = line.startswith("%%capture") and words and words[0].isidentifier()
    return words[0] if is_name else ""


def _timed(line: str) -> str | None:
    """A line like `%time x = f()` as its Python, by which `x` is bound; None for any other."""
    text = line.lstrip(BLANKS)
    head, _, code = text.partition(" ")
    is_python = head[1:] in PYTHON_LINES and not code.startswith((*BLANKS, "-"))
    if not is_python or "\r" in line or MARK in line:
        return None
    indent = line[: len(line) - len(text)]
    return f"{indent}{code}  {TIMED} {head}" if _parsed(code) else None

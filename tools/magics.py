"""Turn the lines that only IPython understands into comments, and back, without loss."""

from dataclasses import dataclass


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
    """The whole of it, continuation lines included."""


def mask(source: str) -> tuple[str, tuple[Magic, ...]]:
    """Python of the same number of lines, and what was masked in it.

    Raises: ValueError unless unmasking would give the source back.
    """
    from jupytext.magics import comment_magic

    return "\n".join(comment_magic(source.splitlines(), "python")), ()


def unmask(python: str) -> str:
    """The source that was masked."""
    from jupytext.magics import uncomment_magic

    return "\n".join(uncomment_magic(python.splitlines(), "python"))

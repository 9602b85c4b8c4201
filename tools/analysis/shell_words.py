"""Read the shell and magic lines of a cell: which files they need, and which may come of them."""

import itertools
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tools.document.magics import Magic

if TYPE_CHECKING:
    from tools.analysis.path_literals import FileTraffic

UNPACKERS = {"unzip", "tar", "gdown", "kaggle", "gsutil", "aws", "rsync", "huggingface-cli", "hf"}
SCRIPTS = {"python": ".py", "python3": ".py", "bash": ".sh", "sh": ".sh"}
SHELLS = ("bash", "sh", "shell", "script")


def enter_magic(traffic: "FileTraffic", cell: int, magic: Magic) -> None:
    """Enter what the lines of a magic run and read, and every other word as a possible file."""
    for offset, line in enumerate(_lines(magic)):
        words = _words(line)
        needed = set(_needed(words, is_python=magic.kind == "line"))
        for i in needed:
            traffic.enter(words[i], cell, magic.line + offset, "read")
        traffic.moves |= words[:1] == ["cd"]
        traffic.unpacks |= bool(UNPACKERS & set(words))
        others = [word for i, word in enumerate(words) if i not in needed]
        traffic.touch(others)
        traffic.touch(
            word.rstrip("/").rpartition("/")[2].removesuffix(".git")
            for word in others
            if "://" in word
        )


def _lines(magic: Magic) -> list[str]:
    """Logical lines; the body of a cell magic counts only if a shell reads it."""
    if magic.kind == "cell" and magic.name not in SHELLS:
        return magic.text.split("\n")[:1]
    return magic.text.replace("\\\n", "  ").split("\n")


def _words(line: str) -> list[str]:
    plain = line.strip().lstrip("%!")
    try:
        return shlex.split(plain, comments=True)
    except ValueError:
        return plain.split()


def _needed(words: list[str], *, is_python: bool) -> Iterator[int]:
    """Places of the words that must be files: scripts, notebooks, lists of requirements."""
    for i, (word, following) in enumerate(itertools.pairwise(words), start=1):
        endings = SCRIPTS.get(word.rpartition("/")[2])
        if is_python and i == 1 and word in ("run", "load"):
            endings = (".py", ".ipynb")
        is_list = word in ("-r", "--requirement") and "pip" in words[:i]
        if is_list or (endings and following.endswith(endings)):
            yield i

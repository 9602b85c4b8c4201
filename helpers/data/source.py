"""Where text comes from: Python's own standard library, or the user's .txt files."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import sysconfig
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import DataError

EMBEDDED = "python-stdlib"
TEST_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True, slots=True)
class Document:
    """One text, read anew at each use when it comes from a file, so that memory stays small.

    Units: `n_bytes` counts UTF-8; `span` are characters of the file that belong to the document.
    """

    name: str
    digest: bytes
    n_bytes: int
    content: str | Path
    span: tuple[int, int | None] = (0, None)

    @property
    def text(self) -> str:
        """The text itself.

        Raises: DataError if the file is not what it was when it was read first.
        """
        if not isinstance(self.content, Path):
            return self.content[slice(*self.span)]
        text = _decoded(self.content)[slice(*self.span)]
        if _digest(text) != self.digest:
            raise DataError(
                f"{self.content} has changed since it was read. Build the data module again."
            )
        return text

    def cut(self, character: int) -> tuple[Document, Document]:
        """The parts before and after a character."""
        text = self.text
        start, stop = self.span
        halves = (start, start + character), (start + character, stop)
        return tuple(
            dataclasses.replace(self, digest=_digest(part), n_bytes=len(part.encode()), span=span)
            for part, span in zip((text[:character], text[character:]), halves, strict=True)
        )


def read_documents(source: str | Path | Sequence[str]) -> list[Document]:
    """Read `python-stdlib`, a .txt file, a folder of .txt files, or a list of strings.

    Raises: DataError if there is nothing to read, or a text is empty or is not UTF-8.
    """
    if source is None:
        raise DataError(
            f"source is None, but text is wanted. Give {EMBEDDED!r}, a path, or a list of strings."
        )
    if isinstance(source, str | Path):
        return _stdlib() if str(source) == EMBEDDED else _text_files(Path(source).expanduser())
    documents = [_document(f"text {i}", text, text) for i, text in enumerate(source)]
    if not documents:
        raise DataError("The list of texts is empty, but training needs text. Give some strings.")
    return documents


def split_documents(
    documents: Sequence[Document], val_fraction: float
) -> tuple[list[Document], list[Document]]:
    """Split into training and validation by a hash of each text.

    The split does not depend on the order of the documents, and equal texts stay together. Where
    hashes miss the wanted share by more than half (few or one document), the text, in the order of
    its hashes, is cut at a line end and what follows validates.
    """
    limit = int(val_fraction * 2**64)
    val = [d for d in documents if int.from_bytes(d.digest[:8], "big") < limit]
    train = [d for d in documents if int.from_bytes(d.digest[:8], "big") >= limit]
    total = sum(d.n_bytes for d in documents)
    share = sum(d.n_bytes for d in val) / total
    if train and 0.5 * val_fraction <= share <= 1.5 * val_fraction:
        return train, val
    return _split_by_position(documents, total * (1 - val_fraction))


def _split_by_position(
    documents: Sequence[Document], n_train_bytes: float
) -> tuple[list[Document], list[Document]]:
    train, val, done = [], [], 0
    ordered = sorted(documents, key=lambda d: d.digest)
    for _, group in itertools.groupby(ordered, key=lambda d: d.digest):
        copies = list(group)
        size = sum(d.n_bytes for d in copies)
        room = n_train_bytes - done
        done += size
        if room >= size:
            train += copies
        elif room <= 0:
            val += copies
        else:
            text = copies[0].text
            near = int(len(text) * room / size)
            cut = text.rfind("\n", 0, near) + 1 or text.rfind(" ", 0, near) + 1 or near
            for before, after in (document.cut(cut) for document in copies):
                train += [before] if before.n_bytes else []
                val += [after] if after.n_bytes else []
    return train, val


def _stdlib() -> list[Document]:
    """The sources of the running Python's standard library, without its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    documents = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if TEST_FOLDERS.isdisjoint(relative.parts):
            text = _decoded(path)
            if text.strip():
                documents.append(_document(relative.as_posix(), text, path))
    if not documents:
        raise DataError(
            f"The standard library at {root} has no .py files, but {EMBEDDED} needs them. "
            "Give the path of a .txt file as source."
        )
    return documents


def _text_files(path: Path) -> list[Document]:
    """One text file, or all .txt files below a folder."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*.txt") if p.is_file())
        if not files:
            raise DataError(
                f"The folder {path} has no .txt file, but training needs text. "
                "Put .txt files there, or give another path as source."
            )
        return [_document(str(file), _decoded(file), file) for file in files]
    if not path.exists():
        raise DataError(
            f"source is {str(path)!r}, but there is no such file. Give the path of a .txt file or "
            f"of a folder of them, or {EMBEDDED!r}."
        )
    if not path.is_file():
        raise DataError(f"source is {str(path)!r}, which is neither a file nor a folder.")
    return [_document(str(path), _decoded(path), path)]


def _decoded(path: Path) -> str:
    """The text of a file: UTF-8, or what a Python source declares."""
    try:
        if path.suffix == ".py":
            with tokenize.open(path) as file:
                return file.read()
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Check the path and its permissions."
        ) from error
    except (SyntaxError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not text in the encoding of a Python source ({error}). Save it as UTF-8."
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}. "
            "Save it as UTF-8, or export its text first."
        ) from error


def _document(name: str, text: str, content: str | Path) -> Document:
    """Check a text and describe it.

    Raises: DataError if it is not a string, is empty, or holds what text does not.
    """
    if not isinstance(text, str):
        raise DataError(
            f"{name} is of type {type(text).__name__}, but a string is wanted. Decode it first."
        )
    if not text.strip():
        raise DataError(f"{name} is empty, but training needs text. Fill it, or leave it out.")
    if "\0" in text:
        raise DataError(
            f"{name} is not text: it holds a NUL at position {text.index(chr(0))}. "
            "Export its text first, or remove the NUL."
        )
    try:
        return Document(name, _digest(text), len(text.encode()), content)
    except UnicodeEncodeError as error:
        raise DataError(
            f"{name} holds half a surrogate pair at position {error.start}, which UTF-8 cannot "
            "write. Remove it."
        ) from error


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()

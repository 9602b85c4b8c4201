"""Tokens on disk, memory-mapped, in a folder named after the content of source and tokenizer."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.data.document import Document
from helpers.data.tokenizer import (
    BPETokenizer,
    ByteTokenizer,
    Tokenizer,
    id_dtype,
    pieces_of,
    read_tokenizer,
    train_bpe,
)
from helpers.errors import ConfigError, DataError

FORMAT = 2
KINDS = ("bpe", "byte")
BATCH_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class TokenStore:
    """Token files of a training and a validation split, and the tokenizer that made them."""

    folder: Path
    tokenizer: ByteTokenizer | BPETokenizer
    key: str

    def path(self, split: str) -> Path:
        """The token file of a split."""
        return self.folder / f"{split}.bin"

    @property
    def dtype(self) -> type:
        """Type of the ids on disk."""
        return id_dtype(self.tokenizer.vocab_size)


def open_store(
    splits: dict[str, Sequence[Document]],
    *,
    kind: str,
    vocab_size: int,
    cache_dir: str | Path,
) -> TokenStore:
    """Open the store of these splits, and make it first where there is none.

    A file starts with an end token, and each document ends with one.

    Raises: ConfigError if the tokenizer is unknown; DataError if the cache folder cannot be
    written, or the text is too small.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"tokenizer is {kind!r}, but one of {', '.join(KINDS)} is wanted. Choose one of them."
        )
    key = _key(splits, kind, vocab_size)
    root = Path(cache_dir).expanduser()
    folder = root / key
    if not _is_complete(folder):
        try:
            root.mkdir(parents=True, exist_ok=True)
            building = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=root))
        except OSError as error:
            raise DataError(
                f"cache_dir is {str(root)!r}, but it cannot be written ({error.strerror}). "
                "Set cache_dir to a folder on a local disk."
            ) from error
        try:
            _build(building, splits, kind, vocab_size)
            _publish(building, folder)
        except OSError as error:
            raise DataError(
                f"The tokens cannot be written below {root} ({error.strerror}). Free some "
                "space, or set cache_dir to another folder."
            ) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return TokenStore(folder, read_tokenizer(folder / "tokenizer.json"), key)


def _build(folder: Path, splits: dict[str, Sequence[Document]], kind: str, vocab_size: int) -> None:
    tokenizer: Tokenizer = ByteTokenizer()
    if kind == "bpe":
        pieces = (piece for document in splits["train"] for piece in pieces_of(document.chunks()))
        tokenizer = train_bpe(pieces, vocab_size)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    for split, documents in splits.items():
        write_tokens(folder / f"{split}.bin", documents, tokenizer)
    meta = {"format": FORMAT, "sha256": {p.name: _sha256(p) for p in sorted(folder.iterdir())}}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def write_tokens(path: Path, documents: Iterable[Document], tokenizer: Tokenizer) -> None:
    """Write the tokens of documents, a few million characters at a time."""
    dtype = id_dtype(tokenizer.vocab_size)
    end = np.array([tokenizer.end_id], dtype)

    def flush(waiting: list[str | None]) -> None:
        encoded = iter(tokenizer.encode_batch([piece for piece in waiting if piece is not None]))
        for piece in waiting:
            ids = end if piece is None else next(encoded)
            file.write(ids.astype(dtype, copy=False).tobytes())

    with path.open("wb") as file:
        file.write(end.tobytes())
        waiting, size = [], 0
        for document in documents:
            for piece in pieces_of(document.chunks()):
                waiting.append(piece)
                size += len(piece)
                if size >= BATCH_CHARACTERS:
                    flush(waiting)
                    waiting, size = [], 0
            waiting.append(None)  # where the document ends
        flush(waiting)
        file.flush()
        os.fsync(file.fileno())


def _publish(building: Path, folder: Path) -> None:
    """Give the finished folder its name; another process that was faster has made the same."""
    try:
        building.rename(folder)
    except OSError:
        if _is_complete(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)


def _is_complete(folder: Path) -> bool:
    """Whether the files that the description names are there, as they were written."""
    meta = folder / "meta.json"
    if not meta.is_file():
        return False
    try:
        content = json.loads(meta.read_text(encoding="utf-8"))
    except ValueError:
        return False
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return False
    return all(
        (folder / name).is_file() and _sha256(folder / name) == digest
        for name, digest in content["sha256"].items()
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _key(splits: dict[str, Sequence[Document]], kind: str, vocab_size: int) -> str:
    digest = hashlib.sha256(f"{FORMAT} {kind} {vocab_size if kind == 'bpe' else 257}".encode())
    for split, documents in splits.items():
        digest.update(f"\n{split} {len(documents)}\n".encode())
        for document in documents:
            digest.update(document.digest)
    return digest.hexdigest()[:16]

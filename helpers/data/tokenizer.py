"""Text to integers and back: plain bytes, or byte-pair encoding trained on the text at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from helpers.errors import DataError

END_OF_TEXT = "<|end|>"
PIECE_CHARACTERS = 20_000


class Tokenizer(Protocol):
    """What the store, the data module and the samples need of a tokenizer."""

    vocab_size: int
    end_id: int

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def token_bytes(self) -> np.ndarray: ...
    def to_json(self) -> str: ...


class ByteTokenizer:
    """The 256 bytes of UTF-8, and one token that ends a document.

    >>> ByteTokenizer().encode("hé").tolist()
    [104, 195, 169]
    """

    vocab_size, end_id = 257, 256

    def encode(self, text: str) -> np.ndarray:
        """Bytes of a text: uint16, shape (n_bytes,)."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint16)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode several texts."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; bytes that are not UTF-8 become U+FFFD, the end token nothing."""
        return bytes(i for i in map(int, ids) if i < 256).decode("utf-8", errors="replace")

    def token_bytes(self) -> np.ndarray:
        """Bytes of text that each token stands for: int64, shape (vocab_size,)."""
        return np.append(np.ones(256, np.int64), 0)

    def to_json(self) -> str:
        """Everything needed to rebuild the tokenizer."""
        return json.dumps({"kind": "byte"})


class BPETokenizer:
    """Byte-level byte-pair encoding: every text can be encoded, and decoding gives it back.

    Source: Sennrich, Haddow & Birch 2016, arXiv:1508.07909; bytes as in GPT-2.
    """

    def __init__(self, tokenizer_json: str) -> None:
        from tokenizers import Tokenizer as Backend

        self._json, self._backend = tokenizer_json, Backend.from_str(tokenizer_json)
        self.vocab_size = self._backend.get_vocab_size()
        self.end_id = self._backend.token_to_id(END_OF_TEXT)
        self._backend.encode_special_tokens = True

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text: uint16 or uint32, shape (n_tokens,)."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode several texts, in parallel where there are cores."""
        pieces = [list(pieces_of(text)) for text in texts]
        flat = self._backend.encode_batch_fast(
            [piece for group in pieces for piece in group], add_special_tokens=False
        )
        dtype, start, encoded = id_dtype(self.vocab_size), 0, []
        for group in pieces:
            ids = [np.array(e.ids, dtype) for e in flat[start : start + len(group)]]
            encoded.append(np.concatenate(ids) if ids else np.empty(0, dtype))
            start += len(group)
        return encoded

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; the end token is left out."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def token_bytes(self) -> np.ndarray:
        """Bytes of text that each token stands for: int64, shape (vocab_size,)."""
        # A byte-level vocabulary writes each byte as one character.
        sizes = np.zeros(self.vocab_size, np.int64)
        for token, index in self._backend.get_vocab().items():
            sizes[index] = 0 if index == self.end_id else len(token)
        return sizes

    def to_json(self) -> str:
        """Everything needed to rebuild the tokenizer."""
        return json.dumps({"kind": "bpe", "tokenizer": json.loads(self._json)})


def train_bpe(texts: Iterable[str], vocab_size: int) -> BPETokenizer:
    """Train a byte-level BPE of `vocab_size` tokens, the end token included.

    Raises: DataError if the text is too small for so many tokens.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if vocab_size < ByteTokenizer.vocab_size:
        raise DataError(
            f"vocab_size is {vocab_size}, but 256 bytes and the end token are wanted at least. "
            f"Set it to {ByteTokenizer.vocab_size} or more."
        )
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if backend.get_vocab_size() < vocab_size:
        raise DataError(
            f"vocab_size is {vocab_size}, but the training text yields only "
            f"{backend.get_vocab_size()} tokens. Lower vocab_size, or load more text."
        )
    return BPETokenizer(backend.to_str())


def load_tokenizer(text: str) -> ByteTokenizer | BPETokenizer:
    """Rebuild a tokenizer from its `to_json`.

    Raises: DataError if the kind is unknown.
    """
    content = json.loads(text)
    if content.get("kind") == "byte":
        return ByteTokenizer()
    if content.get("kind") == "bpe":
        return BPETokenizer(json.dumps(content["tokenizer"]))
    raise DataError(
        f"The tokenizer file is of kind {content.get('kind')!r}, but 'byte' or 'bpe' is wanted. "
        "Train the tokenizer again."
    )


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Twelve hex digits of the tokenizer's content."""
    return hashlib.sha256(tokenizer.to_json().encode()).hexdigest()[:12]


def id_dtype(vocab_size: int) -> type:
    """The smallest of uint16 and uint32 that holds all ids."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32


def pieces_of(text: str | Iterable[str], size: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cut a long text, whole or in chunks, at line ends into pieces of about `size` characters.

    A cut may cost one merge where it falls; encoding stays reversible, and memory bounded.
    """
    held = ""
    for chunk in [text] if isinstance(text, str) else text:
        held, start = held + chunk, 0
        while len(held) - start > size:
            cut = held.rfind("\n", start, start + size) + 1
            cut = cut if cut > start else start + size
            yield held[start:cut]
            start = cut
        held = held[start:]
    if held:
        yield held


def read_tokenizer(path: Path) -> ByteTokenizer | BPETokenizer:
    """Load a tokenizer from a file that holds its `to_json`."""
    return load_tokenizer(path.read_text(encoding="utf-8"))

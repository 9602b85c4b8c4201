"""How many bits a byte of text costs without a neural network: n-grams and compressors."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Sequence

import numpy as np

from helpers.data.document import Document

# Count of bytes that a key of a context holds: seven bytes and the next fit into 64 bits.
MAX_ORDER = 8


def text_baselines(train: Sequence[Document], val: Sequence[Document]) -> dict[str, float]:
    """Score validation text with gzip, lzma, and byte models of three and five bytes.

    Units: bits per byte of text.
    """
    ngrams = ngram_baselines(train, val, (3, 5))
    return {**compression_baselines(val), "trigram": ngrams[3], "fivegram": ngrams[5]}


def compression_baselines(documents: Sequence[Document]) -> dict[str, float]:
    """Compress each document alone with gzip -9 and lzma.

    Units: bits per byte of text.
    """
    texts = [document.text.encode() for document in documents]
    n_bytes = sum(map(len, texts))
    return {
        "gzip": 8 * sum(len(gzip.compress(text, 9)) for text in texts) / n_bytes,
        "lzma": 8 * sum(len(lzma.compress(text)) for text in texts) / n_bytes,
    }


def ngram_baselines(
    train: Sequence[Document], val: Sequence[Document], orders: Sequence[int] = (3, 5)
) -> dict[int, float]:
    """Score validation text with byte n-gram models counted on the training text.

    An n-gram model predicts a byte from the n - 1 bytes before it, interpolated with all shorter
    contexts by Witten-Bell weights.

    Units: bits per byte of text.
    Source: Witten & Bell 1991, "The Zero-Frequency Problem", IEEE Trans. Inf. Theory 37(4).
    """
    if not orders or min(orders) < 1 or max(orders) > MAX_ORDER:
        raise ValueError(f"orders are {list(orders)}, but 1 to {MAX_ORDER} are wanted.")
    seen, text = _joined(train), _joined(val)
    probability = np.full(len(text), 1 / 256)
    bits = {}
    for order in range(1, max(orders) + 1):
        probability = _interpolate(seen, text, order, probability)
        if order in orders:
            bits[order] = float(-np.log2(probability).mean())
    return bits


def _interpolate(seen: np.ndarray, text: np.ndarray, order: int, shorter: np.ndarray) -> np.ndarray:
    """Mix the estimate of one order with that of the next shorter one, at each byte of text."""
    grams, counts = np.unique(_keys(seen, order), return_counts=True)
    contexts, first = np.unique(grams >> np.uint64(8), return_index=True)
    totals = np.add.reduceat(counts, first)
    distinct = np.diff(np.append(first, len(grams)))

    wanted = _keys(text, order)
    gram_count = _look_up(grams, counts, wanted)
    context = wanted >> np.uint64(8)
    total = _look_up(contexts, totals, context)
    kinds = _look_up(contexts, distinct, context)

    estimate = shorter.copy()
    known = total > 0
    estimate[known] = (gram_count[known] + kinds[known] * shorter[known]) / (
        total[known] + kinds[known]
    )
    return estimate


def _keys(text: np.ndarray, order: int) -> np.ndarray:
    """Each byte with the `order - 1` bytes before it, as one integer: uint64, shape (n_bytes,)."""
    key = np.zeros(len(text), np.uint64)
    for back in range(order - 1, -1, -1):
        shifted = np.zeros(len(text), np.uint64)
        shifted[back:] = text[: len(text) - back]
        key = (key << np.uint64(8)) | shifted
    return key


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Values of the wanted keys, 0 where a key is not there."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def _joined(documents: Sequence[Document]) -> np.ndarray:
    return np.frombuffer("".join(d.text for d in documents).encode(), np.uint8)

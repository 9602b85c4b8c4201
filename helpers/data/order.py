"""The order of samples as a keyed permutation: sample i of epoch e is computed, never stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

ROUNDS = 6
BLOCK = 4096


class SampleOrder:
    """Positions of an endless stream of epochs over `n_samples` samples, each epoch in a new order.

    Sample `i` of epoch `e` is a pure function of `(seed, e, i)`. The state of a run's data is
    therefore one integer, the number of samples consumed. Ranges of positions that are `left_out`
    are passed over as if the stream had never had them; they do not overlap.

    Source: cycle-walking Feistel permutation, Black & Rogaway 2002, "Ciphers with Arbitrary
    Finite Domains", sections 3 and 4.
    """

    def __init__(
        self,
        n_samples: int,
        seed: int,
        *,
        shuffled: bool = True,
        left_out: Iterable[tuple[int, int]] = (),
    ) -> None:
        if n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}, but an order needs at least one sample.")
        self.n_samples, self.seed, self.shuffled = n_samples, seed, shuffled
        self.left_out = sorted(left_out)
        self._half_bits = max(1, ((n_samples - 1).bit_length() + 1) // 2)
        self._mask = np.uint64((1 << self._half_bits) - 1)
        self._keys: tuple[int, np.ndarray] = (-1, np.empty(0, np.uint64))
        self._block_start, self._block = 0, np.empty(0, np.int64)

    def __call__(self, epoch: int, index: np.ndarray) -> np.ndarray:
        """Samples at positions `index` (int64, below n_samples) of an epoch."""
        if not self.shuffled:
            return index
        keys = self._keys_of(epoch)
        x = self._permute(index.astype(np.uint64), keys)
        while True:
            outside = np.flatnonzero(x >= np.uint64(self.n_samples))
            if not outside.size:
                return x.astype(np.int64)
            x[outside] = self._permute(x[outside], keys)

    def take(self, start: int, count: int) -> np.ndarray:
        """Samples `start` to `start + count` of the stream, across epochs: int64 (count,)."""
        if not self.left_out:
            return self._take(start, count)
        positions = self.positions(start, count)
        gaps = np.flatnonzero(np.diff(positions) != 1) + 1
        parts = [self._take(int(part[0]), len(part)) for part in np.split(positions, gaps)]
        return np.concatenate(parts)

    def positions(self, start: int, count: int) -> np.ndarray:
        """Where in the whole stream the samples `start` to `start + count` lie: int64 (count,)."""
        positions = np.arange(start, start + count)
        for first, end in self.left_out:
            positions[positions >= first] += end - first
        return positions

    def _take(self, start: int, count: int) -> np.ndarray:
        offset = start - self._block_start
        if offset < 0 or offset + count > len(self._block):
            self._block_start, offset = start, 0
            # Each epoch costs its keys: a block of 4,096 epochs of one sample took 0.8 s.
            self._block = self._compute(start, max(count, min(BLOCK, 16 * self.n_samples)))
        return self._block[offset : offset + count]

    def _compute(self, start: int, count: int) -> np.ndarray:
        parts, end = [], start + count
        while start < end:
            epoch, index = divmod(start, self.n_samples)
            n = min(end - start, self.n_samples - index)
            parts.append(self(epoch, np.arange(index, index + n)))
            start += n
        return np.concatenate(parts)

    def _keys_of(self, epoch: int) -> np.ndarray:
        if self._keys[0] != epoch:
            digest = hashlib.blake2b(f"order {self.seed} {epoch}".encode(), digest_size=8 * ROUNDS)
            self._keys = (epoch, np.frombuffer(digest.digest(), dtype="<u8"))
        return self._keys[1]

    def _permute(self, x: np.ndarray, keys: np.ndarray) -> np.ndarray:
        half = np.uint64(self._half_bits)
        left, right = x >> half, x & self._mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << half) | right


def _mix(x: np.ndarray) -> np.ndarray:
    """Scatter 64 bits; the finalizer of SplitMix64.

    Source: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators", fig. 19.
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

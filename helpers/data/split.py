"""Training and validation text: split by a hash of each document, or by position."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from helpers.data import files
from helpers.data.check import DataReport
from helpers.data.document import Document, cut_near


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
            cut = cut_near(copies[0], room, len(copies))
            for before, after in (document.cut(cut) for document in copies):
                train += [before] if before.n_bytes else []
                val += [after] if after.n_bytes else []
    return train, val


def note_leaks(train: Sequence[Document], val: Sequence[Document], report: DataReport) -> None:
    """Note texts for validation that training has too, but for white space around them.

    Equal texts are never in both; the halves of a text that was cut are not compared.
    """
    if len(train) == len(val) == 1:
        return
    names = {key: document.name for document in train for key in _keys(document)}
    for document in val:
        for key in _keys(document):
            if key in names:
                says = f"is the text of {names[key]} but for white space, which is in training"
                report.note("in both splits", document.name, says)


def _keys(document: Document) -> Sequence[int]:
    """A hash of a text without the white space around it, of one that is not huge."""
    return [hash(document.text.strip())] if document.n_bytes <= files.LONGEST_ROW else []

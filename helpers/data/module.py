"""UniversalDataModule: from a source to splits ready for training, with a look at both."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.config import TrainingConfig
from helpers.data.check import DataReport
from helpers.data.document import Document
from helpers.data.order import SampleOrder
from helpers.data.packing import PackedTokens
from helpers.data.source import read_source
from helpers.data.split import note_leaks, split_documents
from helpers.data.store import TokenStore, open_store
from helpers.data.tokenizer import Tokenizer, tokenizer_digest

if TYPE_CHECKING:
    import pandas as pd

    from helpers.data.source import Source


class DataSplit(PackedTokens):
    """One split: its sequences for the trainer, its documents for baselines, its tokenizer."""

    def __init__(
        self,
        name: str,
        store: TokenStore,
        documents: Sequence[Document],
        settings: dict[str, Any],
        report: DataReport | None = None,
    ) -> None:
        super().__init__(
            store.path(name),
            settings["sequence_length"],
            dtype=store.dtype,
            token_bytes=store.tokenizer.token_bytes(),
            keep_tail=name != "train",
            name=f"The {'training' if name == 'train' else 'validation'} text",
        )
        self.name, self.documents, self.tokenizer = name, documents, store.tokenizer
        self.settings, self.report = settings, report
        self.fingerprint = f"{store.key}-{tokenizer_digest(store.tokenizer)}-{name}"

    @property
    def n_bytes(self) -> int:
        """Size of the text as UTF-8."""
        return sum(document.n_bytes for document in self.documents)


class UniversalDataModule:
    """Text from a source, split, tokenized and packed into sequences.

    `source` is python-stdlib, a file or folder of text (.txt, .md, .py), a table (.csv, .tsv,
    .jsonl, .json, .parquet), each plain or .gz, a DataFrame, or a list of texts or of dicts.
    `text_column` names the column of a table that holds the text, where it is neither the only
    one nor called text; `delimiter` is that of a csv, found by itself where it is empty.
    Every row is read and checked; `report` tells what was found, and `bad_rows` decides whether
    bad rows stop it (fail) or are left out (skip).
    Tokens are cached under `cache_dir` by content, so a second start reads no tokenizer's work
    twice.

    Raises: ConfigError for a value out of range; DataError with all that is wrong with the data,
    or if it is too small.
    """

    def __init__(
        self,
        source: Source = "python-stdlib",
        *,
        tokenizer: str = "bpe",
        vocab_size: int = 2048,
        sequence_length: int = 128,
        val_fraction: float = 0.1,
        text_column: str = "",
        delimiter: str = "",
        bad_rows: str = "fail",
        cache_dir: str | Path = "~/.cache/trainbook",
    ) -> None:
        settings = {
            "val_fraction": val_fraction,
            "tokenizer": tokenizer,
            "sequence_length": sequence_length,
            "text_column": text_column,
            "bad_rows": bad_rows,
            **({"vocab_size": vocab_size} if tokenizer == "bpe" else {}),
        }
        TrainingConfig(**settings)
        documents, self.report = read_source(
            source,
            text_column=text_column,
            delimiter=delimiter,
            bad_rows=bad_rows,
            spool_dir=cache_dir,
        )
        train, val = split_documents(documents, val_fraction)
        if self.report.source != "python-stdlib":
            note_leaks(train, val, self.report)
        self._store = open_store(
            {"train": train, "val": val},
            kind=tokenizer,
            vocab_size=vocab_size,
            cache_dir=cache_dir,
        )
        self.source = source if isinstance(source, str | Path) else self.report.source
        settings["source"] = str(self.source)
        self.train = DataSplit("train", self._store, train, settings, self.report)
        self.val = DataSplit("val", self._store, val, settings, self.report)
        self.sequence_length = sequence_length

    @classmethod
    def from_config(cls, config: TrainingConfig) -> UniversalDataModule:
        """Build from the settings of the group data."""
        settings = config.group("data")
        del settings["num_workers"]  # how batches are read, not which
        return cls(**settings)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of both splits."""
        return self._store.tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the end token included."""
        return self._store.tokenizer.vocab_size

    @property
    def fingerprint(self) -> str:
        """Hex digits over the content of both splits and the tokenizer."""
        return self._store.key

    def summary(self) -> pd.DataFrame:
        """Documents, bytes, tokens and sequences of each split."""
        import pandas as pd

        splits = {"training": self.train, "validation": self.val}
        rows = {
            label: {
                "documents": len(split.documents),
                "bytes": split.n_bytes,
                "tokens": len(split.tokens),
                "bytes per token": round(split.n_bytes / len(split.tokens), 2),
                "sequences": len(split),
            }
            for label, split in splits.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def preview(self, n_sequences: int = 2, *, seed: int = 0) -> BatchPreview:
        """The first sequences of a batch, decoded, with the first inputs and labels."""
        index = SampleOrder(len(self.train), seed).take(0, n_sequences)
        batch = self.train.gather(np.asarray(index))
        shapes = {name: (tuple(t.shape), str(t.dtype)) for name, t in batch.fields.items()}
        ids, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
        decode = self.tokenizer.decode
        pairs = [
            (decode([x]) or "<|end|>", decode([y]) or "<|end|>")
            for x, y in zip(ids[0][:8], labels[0][:8], strict=True)
        ]
        return BatchPreview(shapes, [decode(row) for row in ids], pairs)


@dataclass(frozen=True)
class BatchPreview:
    """What a batch holds: shapes, texts, and which token predicts which."""

    shapes: dict[str, tuple[tuple[int, ...], str]]
    texts: list[str]
    pairs: list[tuple[str, str]]

    def __repr__(self) -> str:
        shapes = "\n".join(f"{n}: {shape} {dtype}" for n, (shape, dtype) in self.shapes.items())
        pairs = "\n".join(f"{x!r} -> {y!r}" for x, y in self.pairs)
        return f"{shapes}\n\n{pairs}\n\n" + "\n---\n".join(self.texts)

    def _repr_html_(self) -> str:
        shapes = "".join(
            f"<tr><td>{n}</td><td>{shape}</td><td>{dtype}</td></tr>"
            for n, (shape, dtype) in self.shapes.items()
        )
        pairs = "".join(
            f"<tr><td><code>{html.escape(repr(x))}</code></td>"
            f"<td><code>{html.escape(repr(y))}</code></td></tr>"
            for x, y in self.pairs
        )
        texts = "".join(
            "<pre style='font-family:monospace;padding:6px;background:#8881'>"
            f"{html.escape(t)}</pre>"
            for t in self.texts
        )
        return (
            f"<table><tr><th>field</th><th>shape</th><th>type</th></tr>{shapes}</table>"
            f"<table><tr><th>token</th><th>the one to predict</th></tr>{pairs}</table>{texts}"
        )

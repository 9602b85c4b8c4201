"""Text to batches: source, tokenizer, store, order, packing, joined by UniversalDataModule."""

from helpers.data.baselines import compression_baselines, ngram_baselines, text_baselines
from helpers.data.check import DataReport
from helpers.data.collate import Batch, collate
from helpers.data.document import Document
from helpers.data.module import DataSplit, UniversalDataModule
from helpers.data.order import SampleOrder
from helpers.data.packing import PackedTokens
from helpers.data.source import read_documents
from helpers.data.split import split_documents
from helpers.data.tokenizer import BPETokenizer, ByteTokenizer, load_tokenizer, train_bpe

__all__ = [
    "BPETokenizer",
    "Batch",
    "ByteTokenizer",
    "DataReport",
    "DataSplit",
    "Document",
    "PackedTokens",
    "SampleOrder",
    "UniversalDataModule",
    "collate",
    "compression_baselines",
    "load_tokenizer",
    "ngram_baselines",
    "read_documents",
    "split_documents",
    "text_baselines",
    "train_bpe",
]

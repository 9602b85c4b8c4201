"""Data that is bad is refused before the first step, by file, row and byte, or left out by count.

Each case of BAD is a broken data set with the words that its message must hold; cases with a count
are trained on with bad_rows="skip", and the run has the count on record. SOUND must pass.
"""

import gzip
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.data import UniversalDataModule
from helpers.data import files as files_of_data
from helpers.data import records as records_of_data
from helpers.data import source as source_of_data
from helpers.engine.callbacks import Callback
from helpers.errors import HelpersError
from tests.faults.scale import n, record

TEXTS = [f"row {i}: the quick brown fox jumps over the lazy dog {i * i} times" for i in range(60)]
PLAIN = "\n".join(TEXTS).encode() + b"\n"
CSV = ["id,text", *(f"{i},{text}" for i, text in enumerate(TEXTS))]
JSONL = [json.dumps({"id": i, "text": text}) for i, text in enumerate(TEXTS)]
IDS = [{"input_ids": torch.arange(i, i + 17) % 250} for i in range(24)]
LIMIT = n(64 * 1024, 2**24)


class Bad(NamedTuple):
    """A broken data set: how it is made, what its message says, and how many rows skip leaves."""

    name: str
    make: Callable[[Path], Any]
    words: list[str]
    n_skipped: int = 0
    options: tuple[tuple[str, str], ...] = ()


class Started(Callback):
    """Counts runs and steps that began."""

    def __init__(self) -> None:
        self.n_starts, self.events = 0, []

    def on_start(self, run) -> None:
        self.n_starts += 1

    def on_event(self, run, kind, message) -> None:
        self.events.append((kind, message))


class Raising(list):
    """Samples of which the sixth cannot be read."""

    def __getitem__(self, i):
        if i == 5:
            raise ValueError("no such picture")
        return super().__getitem__(i)


def put(name: str, content: bytes | str | list[str]) -> Callable[[Path], Path]:
    """Write a file into the folder of the test."""
    content = "\n".join(content) + "\n" if isinstance(content, list) else content
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content

    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return make


def folder_of(**contents: bytes) -> Callable[[Path], Path]:
    """Write several files, `__` for the dot of a name, and give the folder."""

    def make(folder: Path) -> Path:
        for name, data in contents.items():
            put(f"texts/{name.replace('__', '.')}", data)(folder)
        return folder / "texts"

    return make


def changed(lines: list[str], at: int, line: str) -> list[str]:
    return [*lines[:at], line, *lines[at + 1 :]]


def with_line(line: bytes, at: int = 3) -> bytes:
    lines = PLAIN.split(b"\n")
    return b"\n".join([*lines[:at], line, *lines[at:]])


def with_text(value: Any) -> list[str]:
    return changed(JSONL, 4, json.dumps({"id": 4, "text": value}))


def with_sample(**fields: Any) -> Callable[[Path], list[dict]]:
    return lambda _: [*IDS[:5], {"input_ids": torch.arange(17), **fields}, *IDS[6:]]


def with_labels(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], list[dict]]:
    """Samples with labels, of which the sixth are changed."""

    def make(_: Path) -> list[dict]:
        samples = [{"input_ids": s["input_ids"][:-1], "labels": s["input_ids"][1:]} for s in IDS]
        samples[5] = {**samples[5], "labels": change(samples[5]["labels"].clone())}
        return samples

    return make


def put_at(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(labels: torch.Tensor) -> torch.Tensor:
        labels = labels.float() if isinstance(value, float) else labels
        labels[2] = value
        return labels

    return change


UTF16 = PLAIN.decode().encode("utf-16")
BAD_CRC = bytearray(gzip.compress(PLAIN))
BAD_CRC[-6] ^= 0xFF
LATIN = "größe".encode("cp1252")
LATIN_AT = PLAIN.index(b"row 3:") + 2

# Text files
BAD = [
    Bad("missing file", lambda d: d / "none.txt", ["none.txt", "no such file", "Give the path"]),
    Bad("empty file", put("a.txt", b""), ["a.txt is empty", "Fill it"]),
    Bad("blank file", put("a.txt", b" \n\t \n"), ["a.txt is empty"]),
    Bad("nan alone", put("a.txt", b"nan\n"), ["a.txt stands for a missing value"]),
    Bad("utf-16", put("a.txt", UTF16), ["a.txt", "byte 0 is 0xff", "UTF-16", "Save it as UTF-8"]),
    Bad(
        "utf-16 without a mark",
        put("a.txt", PLAIN.decode().encode("utf-16-le")),
        ["a.txt", "NUL at position 1", "as UTF-16 without a mark does"],
    ),
    Bad("utf-32", put("a.txt", PLAIN.decode().encode("utf-32")), ["a.txt", "byte 0", "UTF-32"]),
    Bad(
        "one line of Windows-1252",
        put("a.txt", with_line(LATIN)),
        ["a.txt line 4", f"byte {LATIN_AT} is 0xf6", "'größe' in Windows-1252", "Save it as UTF-8"],
        1,
    ),
    Bad("cut in a character", put("a.txt", PLAIN + b"\xf0\x9f"), ["a.txt line 61", "is 0xf0"], 1),
    Bad("surrogates as bytes", put("a.txt", with_line(b"\xed\xa0\xbd")), ["line 4", "is 0xed"], 1),
    Bad("NUL", put("a.txt", with_line(b"ab\0c")), ["a.txt line 4", "NUL at position 2"], 1),
    Bad("picture", put("a.txt", b"\x89PNG\r\n\x1a\n\0\0"), ["a.txt", "looks like a PNG image"]),
    Bad("Excel sheet", put("a.txt", b"PK\x03\x04\x14\0\0\0" + PLAIN), ["zip archive or an Excel"]),
    Bad("gzip without its name", put("a.txt", gzip.compress(PLAIN)), ["a.txt", "like gzip"]),
    Bad("no gzip", put("a.txt.gz", PLAIN), ["a.txt.gz", "not gzip", "byte 0 is 0x72"]),
    Bad("empty gzip", put("a.txt.gz", b""), ["a.txt.gz", "not gzip", "it is empty"]),
    Bad(
        "truncated gzip",
        put("a.txt.gz", gzip.compress(PLAIN)[:-40]),
        ["a.txt.gz is cut short", f"ends at byte {len(gzip.compress(PLAIN)) - 40}"],
    ),
    Bad("gzip of another sum", put("a.txt.gz", bytes(BAD_CRC)), ["a.txt.gz is damaged", "CRC"]),
    Bad("folder of nothing", lambda d: d, ["no .txt file", "Put .txt files there"]),
    Bad(
        "folder of two kinds",
        folder_of(a__csv=b"text\nx\n", b__jsonl=b"{}"),
        ["1 .csv, 1 .jsonl", "one kind is wanted", "*.jsonl"],
    ),
    Bad(
        "two bad files of a folder",
        folder_of(a__txt=PLAIN, b__txt=with_line(LATIN), c__txt=with_line(b"\0")),
        ["2 faults", "b.txt line 4", "c.txt line 4", "not UTF-8", "NUL"],
        2,
    ),
    Bad("empty file of a folder", folder_of(a__txt=PLAIN, b__txt=b""), ["b.txt is empty"], 1),
    Bad("unknown coding", put("a.py", b"# coding: klingon\nx = 1\n"), ["a.py", "klingon"]),
    Bad("other coding", put("a.py", b"x = '\xf6'\n"), ["a.py", "encoding of a Python source"]),
]
# Tables of csv
BAD += [
    Bad("short row", put("a.csv", changed(CSV, 4, "4")), ["a.csv row 5 has 1 field,", "has 2"], 1),
    Bad(
        "long row",
        put("a.csv", changed(CSV, 4, "4,one, two")),
        ["a.csv row 5 has 3 fields, but the header has 2", "Quote texts"],
        1,
    ),
    Bad(
        "wrong delimiter",
        put("a.csv", CSV),
        ["a.csv is read with the delimiter ';'", "separated by ','"],
        options=(("delimiter", ";"),),
    ),
    Bad("commas in a tsv", put("a.tsv", CSV), ["a.tsv", "delimiter '\\t'", "separated by ','"]),
    Bad("column twice", put("a.csv", ["text,text", "a,b"]), ["a.csv", "column 'text' more than"]),
    Bad("open quote", put("a.csv", changed(CSV, 4, '4,"one')), ["line 5 opens a quote", "never"]),
    Bad("text after a quote", put("a.csv", changed(CSV, 4, '4,"a"b')), ["row 5", "expected"], 1),
    Bad("empty cell", put("a.csv", changed(CSV, 4, "4,")), ["a.csv row 5 is empty"], 1),
    Bad("blank cell", put("a.csv", changed(CSV, 4, "4, \t ")), ["a.csv row 5 is empty"], 1),
    Bad("NaN cell", put("a.csv", changed(CSV, 4, "4,NaN")), ["row 5 stands for a missing"], 1),
    Bad("NUL cell", put("a.csv", changed(CSV, 4, "4,a\0b")), ["row 5", "NUL at position 1"], 1),
    Bad(
        "cell of Windows-1252",
        put("a.csv", "\n".join(CSV[:5]).encode() + b"\n4,gr\xf6sse\n5,fine\n" + PLAIN[:0]),
        ["a.csv row 6", "is 0xf6", "größe"[:3]],
        1,
    ),
    Bad(
        "bad byte beside the text",
        put("a.csv", "\n".join(CSV).encode() + b"\n\xe9,a text as good as others\n"),
        ["a.csv row 62", "is 0xe9"],
        1,
    ),
    Bad(
        "row after texts of several lines",
        put("a.csv", [*CSV[:2], '8,"one\ntwo\nthree"', "9,", *CSV[2:]]),
        ["a.csv row 4 (line 6) is empty"],
        1,
    ),
    Bad("no column of text", put("a.csv", ["a,b", "1,2"]), ["columns a, b", "Set text_column"]),
    Bad("two columns of text", put("a.csv", ["a,b", "x,y"]), ["columns a, b", "2 of them hold"]),
    Bad(
        "column not there",
        put("a.csv", CSV),
        ["a.csv has the columns id, text", "'tekst'", "did you mean 'text'"],
        options=(("text_column", "tekst"),),
    ),
    Bad("header alone", put("a.csv", "id,text\n"), ["a.csv has no rows"]),
    Bad("empty csv", put("a.csv", b"\n\n"), ["a.csv is empty"]),
    Bad("ends of CR", put("a.csv", "\r".join(CSV)), ["a.csv", "CR alone"]),
    Bad("utf-16 csv", put("a.csv", "\n".join(CSV).encode("utf-16")), ["a.csv", "UTF-16"]),
    Bad(
        "endless row",
        put("a.csv", changed(CSV, 4, f"4,{'x' * (LIMIT + 1)}")),
        ["a.csv row 5", f"is {LIMIT + 4:,} bytes long", f"{LIMIT:,} are the most"],
        1,
    ),
    Bad(
        "truncated csv.gz",
        put("a.csv.gz", gzip.compress("\n".join(CSV).encode())[:-30]),
        ["a.csv.gz is cut short"],
    ),
]
# Tables of JSON
BAD += [
    Bad(
        "no JSON",
        put("a.jsonl", changed(JSONL, 4, '{"id": 4, text: 1}')),
        ["a.jsonl row 5", f"byte {sum(len(line) + 1 for line in JSONL[:4]) + 10}", "is not JSON"],
        1,
    ),
    Bad("torn last line", put("a.jsonl", "\n".join(JSONL)[:-9]), ["row 60", "is not JSON"], 1),
    Bad("None", put("a.jsonl", with_text(None)), ["a.jsonl row 5 is None"], 1),
    Bad("NaN", put("a.jsonl", with_text(math.nan)), ["a.jsonl row 5 is nan"], 1),
    Bad("number", put("a.jsonl", with_text(7)), ["row 5 is of type int", "string is wanted"], 1),
    Bad("list", put("a.jsonl", with_text(["a", None])), ["row 5 is of type list"], 1),
    Bad("nested null", put("a.jsonl", with_text({"a": None})), ["row 5 is of type dict"], 1),
    Bad("half a pair", put("a.jsonl", with_text("a\ud83d")), ["row 5", "surrogate pair at"], 1),
    Bad("blanks", put("a.jsonl", with_text("\u00a0\u2003 ")), ["a.jsonl row 5 is empty"], 1),
    Bad("no field", put("a.jsonl", changed(JSONL, 4, '{"id": 4}')), ["row 5 has no field"], 1),
    Bad(
        "field twice",
        put("a.jsonl", changed(JSONL, 4, '{"text": "a", "text": "b"}')),
        ["a.jsonl row 5 has the field 'text' more than once"],
        1,
    ),
    Bad("mixed rows", put("a.jsonl", changed(JSONL, 4, '"a"')), ["row 5 is of type str"], 1),
    Bad(
        "huge number",
        put("a.jsonl", changed(JSONL, 4, f'{{"id": {"9" * 5000}, "text": "a"}}')),
        ["a.jsonl row 5", "4300 digits"],
        1,
    ),
    Bad("deep", put("a.jsonl", changed(JSONL, 4, "[" * 40_000)), ["row 5", "too deep"], 1),
    Bad("utf-16 jsonl", put("a.jsonl", "\n".join(JSONL).encode("utf-16")), ["UTF-16"]),
    Bad("object in .json", put("a.json", '{"text": ["a"]}'), ["a.json holds an object", ".jsonl"]),
    Bad(
        "torn list",
        put("a.json", f"[{', '.join(JSONL)}"),
        ["a.json item 60", "is not JSON", "ends in"],
    ),
    Bad("no comma", put("a.json", '["a", "b" "c"]'), ["a.json item 2", "comma is missing"]),
    Bad("more after a list", put("a.json", '["a"] "b"'), ["more after the list"]),
    Bad("NUL in a list", put("a.json", json.dumps([*TEXTS, "a\0"])), ["a.json item 61", "NUL"], 1),
    Bad("bad byte in a list", put("a.json", b'["a", "\xff"]'), ["a.json is not", "byte 7 is 0xff"]),
]
# Parquet, lists and DataFrames
BAD += [
    Bad("torn parquet", put("a.parquet", b"PAR1" + bytes(400)), ["a.parquet", "byte 404"]),
    Bad("no parquet", put("a.parquet", PLAIN), ["a.parquet is not parquet", "b'row '"]),
    Bad("None in a list", lambda _: [*TEXTS, None], ["text 60 is None"], 1),
    Bad("NaN in a list", lambda _: [*TEXTS, np.float32("nan")], ["text 60 is nan"], 1),
    Bad("bytes in a list", lambda _: [b"a", *TEXTS], ["text 0 is of type bytes", "Decode"], 1),
    Bad("empty list", lambda _: [], ["list of texts is empty", "Give some strings"]),
    Bad("all rows bad", lambda _: ["", " ", None], ["3 faults", "text 0", "text 2"]),
    Bad("dict of columns", lambda _: {"text": TEXTS}, ["of type dict", "Make a list"]),
    Bad("NA in a DataFrame", lambda _: frame_with(pd.NA), ["iloc[4] is <NA>"], 1),
    Bad("NaT in a DataFrame", lambda _: frame_with(pd.NaT), ["iloc[4] is NaT"], 1),
    Bad("date in a DataFrame", lambda _: frame_with(pd.Timestamp(0)), ["type Timestamp"], 1),
    Bad("DataFrame without rows", lambda _: pd.DataFrame({"text": []}), ["no row"]),
    Bad("DataFrame of numbers", lambda _: pd.DataFrame({"a": [1], "b": [2]}), ["columns a, b"]),
    Bad(
        "DataFrame with a column twice",
        lambda _: pd.DataFrame([["a", "b"]], columns=["text", "text"]),
        ["DataFrame has the column 'text' more than once"],
    ),
]
# Too little
BAD += [
    Bad(
        "fewer than a batch",
        lambda _: ["one line of text that is short "],
        ["batch_size is 2, but"],
    ),
    Bad("one short row", lambda _: ["short"], ["tokens, but one sequence of 16 needs 17"]),
]
# Samples and labels
BAD += [
    Bad("label NaN", with_labels(put_at(math.nan)), ["train_data[5]", "label that is nan"], 1),
    Bad("label below 0", with_labels(put_at(-3)), ["train_data[5]", "is -3", "start at 0"], 1),
    Bad("label too large", with_labels(put_at(257)), ["train_data[5]", "is 257", "0 to 256"], 1),
    Bad("label of floats", with_labels(lambda x: x.float()), ["train_data[5]", "float32"], 1),
    Bad("label of texts", with_labels(lambda x: ["a"] * 16), ["train_data[5]", "no tensor"], 1),
    Bad("no label", with_labels(lambda x: x[:0]), ["train_data[5]", "without a value"], 1),
    Bad(
        "no label counts",
        lambda _: [{"input_ids": torch.arange(9), "labels": torch.full((9,), -100)}] * 8,
        ["train_data has no label that counts"],
    ),
    Bad("input below 0", with_sample(input_ids=[3, -1, 2]), ["train_data[5]", "is -1"], 1),
    Bad("input too large", with_sample(input_ids=[3, 999]), ["train_data[5]", "is 999"], 1),
    Bad("None within", with_sample(input_ids=[3, None]), ["train_data[5]", "is no tensor"], 1),
    Bad("ragged within", with_sample(input_ids=[[3], [4, 5]]), ["train_data[5]", "no tensor"], 1),
    Bad("other fields", with_sample(labels=[1]), ["train_data[5] has the fields"], 1),
    Bad("huge int", with_sample(input_ids=[10**30]), ["train_data[5]", "is no tensor"], 1),
    Bad(
        "no sample",
        lambda _: [*IDS[:5], None, *IDS[6:]],
        ["train_data[5] is of type NoneType", "mapping of fields", "Return one", "other 23"],
        1,
    ),
    Bad(
        "sample that raises",
        lambda _: Raising(IDS),
        ["train_data[5] could not be read (ValueError: no such picture)"],
        1,
    ),
    Bad(
        "other shape",
        with_sample(input_ids=torch.ones(2, 8, dtype=torch.int64)),
        ["train_data[5] has the shape (2, 8) in 'input_ids'", "others have one dimension"],
        1,
    ),
]


def frame_with(value: Any) -> pd.DataFrame:
    """A DataFrame whose fifth text is another value, under labels that are no positions."""
    texts = pd.Series([*TEXTS[:4], value, *TEXTS[5:]], dtype=object)
    return pd.DataFrame({"n": range(60), "text": texts}).set_index(np.arange(60) * 10)


@pytest.fixture
def attempt(make_trainer, tmp_path_factory, monkeypatch):
    """Build the data of a case and train two steps: the refusal, or none, and what was told."""
    monkeypatch.setattr(files_of_data, "LONGEST_ROW", LIMIT)

    def train(make, options, bad_rows, started):
        folder = tmp_path_factory.mktemp("data")
        source = make(folder)
        settings = {"bad_rows": bad_rows, "max_steps": 2, "batch_size": 2}
        if isinstance(source, list) and source and isinstance(source[0], dict):
            make_trainer(callbacks=[started], run_name=folder.name, **settings).train(source)
            return
        options = {"bad_rows": bad_rows, **dict(options)}
        data = UniversalDataModule(
            source, tokenizer="byte", sequence_length=16, cache_dir=folder / "cache", **options
        )
        trainer = make_trainer(
            callbacks=[started], sequence_length=16, run_name=folder.name, **settings
        )
        trainer.train(data.train, data.val)

    def attempt(make, options=(), bad_rows="fail"):
        started = Started()
        try:
            train(make, options, bad_rows, started)
        except HelpersError as error:
            return str(error), started
        return "", started

    return attempt


@pytest.mark.parametrize("case", BAD, ids=[case.name for case in BAD])
def test_bad_data_is_refused_before_the_first_step_and_named(case, attempt):
    message, started = attempt(case.make, case.options)

    assert [word for word in case.words if word not in message] == [], message
    assert started.n_starts == 0


@pytest.mark.parametrize("case", BAD, ids=[case.name for case in BAD])
def test_bad_rows_are_left_out_by_count_and_bad_files_are_refused_all_the_same(case, attempt):
    message, started = attempt(case.make, case.options, bad_rows="skip")

    if case.n_skipped:
        told = [text for kind, text in started.events if kind == "data"]
        assert message == ""
        assert [text for text in told if text.startswith(f"{case.n_skipped} of ")], told
    else:
        assert message
    assert started.n_starts == (case.n_skipped > 0)


def test_the_figures_of_all_cases_go_on_record(attempt):
    start = time.monotonic()
    messages = [attempt(case.make, case.options)[0] for case in BAD]
    n_named = sum(
        bool(message) and all(word in message for word in case.words)
        for case, message in zip(BAD, messages, strict=True)
    )
    n_trained = sum(attempt(c.make, c.options, "skip")[1].n_starts for c in BAD)
    n_passed = sum(attempt(make)[1].n_starts for make in SOUND.values())

    assert n_named == len(BAD) >= 60
    assert n_trained == sum(case.n_skipped > 0 for case in BAD)
    assert n_passed == len(SOUND) >= 15
    record(
        "bad_data",
        "Data that is bad is refused before the first step, named by file, row and byte.",
        {
            "broken data sets": len(BAD),
            "named before step 1": n_named,
            "trained on without their bad rows, by count": n_trained,
            "unusual but sound data sets": len(SOUND),
            "of these trained on": n_passed,
        },
        command="python -m pytest tests/faults/test_bad_data.py",
        seed=0,
        seconds=time.monotonic() - start,
    )


# What is unusual, but sound


ARABIC = "السلام عليكم ورحمة الله وبركاته " * 8
SOUND = {
    "CR LF": put("a.txt", PLAIN.replace(b"\n", b"\r\n")),
    "mark of UTF-8": put("a.txt", b"\xef\xbb\xbf" + PLAIN),
    "emoji": put("a.txt", "👩‍👩‍👧‍👦 family 🏳️‍🌈 flag\n" * 40),
    "right to left": put("a.txt", f"{ARABIC}\n\u202bשלום עולם\u202c\n" * 9),
    "very long words": put("a.txt", ("x" * 50_000 + " ") * 3),
    "one huge line": put("a.txt", b"word " * 400_000),
    "no line end": put("a.txt", PLAIN[:-1]),
    "empty last lines": put("a.txt", PLAIN + b"\n\n \n"),
    "other line ends": put("a.txt", "one\u2028two\u2029three\x85four\x0bfive\n" * 40),
    "combining characters": put("a.txt", "e\u0301 o\u0308 \u0e01\u0e33 क्षि\n" * 40),
    "nan within a text": lambda _: [*TEXTS, "nan is not a number, None is no text"],
    "quoted line ends": put("a.csv", [*CSV, '60,"one\ntwo\n\nthree"', '61,"he said ""no"""']),
    "quoted delimiters": put("a.csv", [*CSV, '60,"one, two, three"']),
    "semicolons": put("a.csv", [line.replace(",", ";", 1) for line in CSV]),
    "Excel": put("a.csv", "\ufeff" + "\r\n".join(CSV) + "\r\n"),
    "cell beyond 128 KiB": put("a.csv", ["text", f'"{"word " * n(9_000, 60_000)}"', *TEXTS]),
    "blank lines in a csv": put("a.csv", [*CSV[:9], "", *CSV[9:], "", ""]),
    "bars": put("a.csv", [line.replace(",", "|", 1) for line in CSV]),
    "tsv": put("a.tsv", [line.replace(",", "\t", 1) for line in CSV]),
    "blank lines in jsonl": put("a.jsonl", [*JSONL, "", ""]),
    "texts in jsonl": put("a.ndjson", [json.dumps(text) for text in TEXTS]),
    "indented json": put("a.json", json.dumps([json.loads(line) for line in JSONL], indent=4)),
    "escaped pairs": put("a.json", json.dumps(["👍 " + text for text in TEXTS])),
    "gzip of two members": put("a.txt.gz", gzip.compress(PLAIN) + gzip.compress(PLAIN)),
    "jsonl.gz": put("a.jsonl.gz", gzip.compress("\n".join(JSONL).encode())),
    "one row": put("a.csv", ["text", "one row of text that is long enough to train on " * 9]),
    "a Series": lambda _: pd.Series(TEXTS),
    "a generator": lambda _: (text for text in TEXTS),
    "equal texts": lambda _: [TEXTS[0]] * 9 + TEXTS,
    "other columns": lambda _: pd.DataFrame({"x": np.arange(60), "body": TEXTS, "when": pd.NaT}),
}


@pytest.mark.parametrize("name", SOUND)
def test_unusual_but_sound_data_passes(name, attempt):
    message, started = attempt(SOUND[name])

    assert message == ""
    assert started.n_starts == 1
    assert not [text for kind, text in started.events if "left out" in text]


# Without its protection the suite goes red


@pytest.mark.parametrize(
    ("module", "name", "case"),
    [
        pytest.param(source_of_data, "flaw_of", "NUL cell", id="no check of texts"),
        pytest.param(records_of_data, "_row_flaw", "long row", id="no check of rows"),
        pytest.param(records_of_data, "_check_header", "commas in a tsv", id="no check of headers"),
    ],
)
def test_without_its_check_bad_data_would_be_trained_on(module, name, case, attempt, monkeypatch):
    monkeypatch.setattr(module, name, lambda *_: None)
    (bad,) = [each for each in BAD if each.name == case]
    message, started = attempt(bad.make)

    assert message == ""
    assert started.n_starts == 1

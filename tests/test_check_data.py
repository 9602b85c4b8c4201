"""Every source gives the same texts, bad rows are told in full, and memory stays small."""

import csv
import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.data import UniversalDataModule, read_documents, split_documents
from helpers.data import files as files_of_data
from helpers.data.check import excerpt_of
from helpers.data.collate import collate
from helpers.data.document import Spool, cut_near
from helpers.data.labels import Limits, check_samples
from helpers.data.packing import MapSamples, as_samples
from helpers.data.records import sniff
from helpers.data.source import read_source
from helpers.data.tokenizer import pieces_of
from helpers.errors import ConfigError, DataError

ROOT = Path(__file__).parents[1]
ROWS = [f"row {i} says: {i * i}, é and 🙂\nin two lines" for i in range(30)]
WORDS = ("batch", "count", "error", "field", "group", "index", "label", "order", "path", "rate")


def put(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def open_data(source, folder: Path, **options) -> UniversalDataModule:
    return UniversalDataModule(
        source, tokenizer="byte", sequence_length=16, cache_dir=folder / "cache", **options
    )


# Clean data is read as it was before there was a check


def lines_of_code(seed: int) -> list[str]:
    rng = random.Random(seed)

    def function() -> str:
        name, a, b = rng.sample(WORDS, 3)
        head = f"def {name}_{a}({a}, {b}={rng.randrange(100)}):"
        return f"{head}\n    return {a} {rng.choice('+-*/')} {b}"

    return ["\n\n".join(function() for _ in range(14)) for _ in range(40)]


CLEAN = {
    "list": lambda d, t: t,
    "folder": lambda d, t: [put(d / f"{i:02}.txt", text) for i, text in enumerate(t)] and d,
    "one": lambda d, t: put(d / "one.txt", "\n\n".join(t)),
    "bom": lambda d, t: put(d / "bom.txt", "\ufeff" + "\r\n".join(t)),
    "noline": lambda d, t: put(d / "noline.txt", "x" * 50_000),
    "emoji": lambda d, t: put(d / "emoji.txt", "é🙂 " * 40_000),
    "big": lambda d, t: put(d / "big.txt", ("\n".join(t) + "\n") * 70),
    "py": lambda d, t: put(d / "a.py", b"# -*- coding: latin-1 -*-\nx = '\xf6'\r\n" * 200),
    "dup": lambda d, t: [put(d / f"{i}.txt", t[0]) for i in range(4)] and d,
}
# Fingerprint, and a digest over documents and bytes of both splits, their tokens and documents.
KNOWN = {
    "list": "00c4244d49851674 4d6043974f20eaa5",
    "folder": "00c4244d49851674 4d6043974f20eaa5",
    "one": "2b94c2e842952ede 1b73f3e8dfd25cfc",
    "bom": "9dc119c24061b8a1 5651dc5df85043dd",
    "noline": "beb4247faa28cc1d 03ba1e85fb6677d4",
    "emoji": "86fa6f2c47d86ced 48d162fd74b9cd5d",
    "big": "450e312ef54eeac6 4c28f2f83d00eb42",
    "py": "5c820ec231bb0429 838383fec7b3deed",
    "dup": "9062ba081e04a146 740815c8f39c041e",
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_data_keeps_its_fingerprint_split_and_tokens(name, tmp_path):
    """Runs and caches made before the check came stay valid."""
    (tmp_path / "data").mkdir()
    source = CLEAN[name](tmp_path / "data", lines_of_code(0))
    module = open_data(source, tmp_path)
    splits = module.train, module.val
    parts = [*(len(s.documents) for s in splits), *(s.n_bytes for s in splits)]
    parts += [hashlib.sha256(s.tokens.tobytes()).hexdigest()[:16] for s in splits]
    documents = b"".join(document.digest for document in module.train.documents)
    parts.append(hashlib.sha256(documents).hexdigest()[:16])

    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:16]
    assert f"{module.fingerprint} {digest}" == KNOWN[name]
    assert module.report.counts == {}


# All sources of the same rows are the same data


def write_csv(path: Path, delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([("id", "text"), *enumerate(ROWS)])
    return path


def objects() -> list[dict]:
    return [{"id": i, "text": text} for i, text in enumerate(ROWS)]


def zipped(path: Path) -> Path:
    return put(path.with_name(f"{path.name}.gz"), gzip.compress(path.read_bytes()))


def parquet(path: Path) -> Path:
    pytest.importorskip("pyarrow")
    pd.DataFrame(objects()).to_parquet(path)
    return path


SOURCES = {
    "csv": lambda d: write_csv(d / "a.csv"),
    "csv of semicolons": lambda d: write_csv(d / "a.csv", ";"),
    "tsv": lambda d: write_csv(d / "a.tsv", "\t"),
    "csv.gz": lambda d: zipped(write_csv(d / "a.csv")),
    "jsonl": lambda d: put(d / "a.jsonl", "\n".join(map(json.dumps, objects()))),
    "ndjson.gz": lambda d: zipped(put(d / "a.ndjson", "\n".join(map(json.dumps, objects())))),
    "json": lambda d: put(d / "a.json", json.dumps(objects(), ensure_ascii=False, indent=1)),
    "json of texts": lambda d: put(d / "a.json", json.dumps(ROWS)),
    "parquet": lambda d: parquet(d / "a.parquet"),
    "parquet.gz": lambda d: zipped(parquet(d / "a.parquet")),
    "DataFrame": lambda _: pd.DataFrame(objects()),
    "Series": lambda _: pd.Series(ROWS),
    "dicts": lambda _: objects(),
    "folder": lambda d: write_csv(d / "a.csv").parent,
    "pattern": lambda d: write_csv(d / "a.csv").with_name("*.csv"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_table_is_the_same_data_as_the_list_of_its_texts(name, tmp_path):
    documents, report = read_source(SOURCES[name](tmp_path))

    assert [d.text for d in documents] == ROWS
    assert [d.digest for d in documents] == [d.digest for d in read_documents(ROWS)]
    assert (report.n_rows, report.n_documents, report.n_skipped) == (30, 30, 0)


@pytest.mark.parametrize("rows_of_a_group", [7, 1000])
def test_a_broken_page_of_parquet_is_refused(rows_of_a_group, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    pd.DataFrame(objects()).to_parquet(path, row_group_size=rows_of_a_group)
    data = bytearray(path.read_bytes())
    data[40:400] = bytes(360)
    path.write_bytes(data)

    with pytest.raises(DataError, match=r"a\.parquet cannot be read as parquet"):
        read_source(path)


def test_parquet_that_is_cut_in_its_table_of_contents_is_refused(tmp_path):
    path = put(tmp_path / "a.parquet", b"PAR1" + bytes(40) + b"\xff\xff\0\0PAR1")
    pytest.importorskip("pyarrow")

    with pytest.raises(DataError, match=r"a\.parquet cannot be read as parquet"):
        read_source(path)


def test_a_null_in_parquet_is_named_by_its_row(tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame({"text": ["a", None, "b"]}).to_parquet(tmp_path / "a.parquet")

    with pytest.raises(DataError, match=r"a\.parquet row 2 is None"):
        read_source(tmp_path / "a.parquet")


def test_without_pyarrow_parquet_is_refused_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = put(tmp_path / "a.parquet", b"PAR1" + bytes(40) + b"PAR1")

    with pytest.raises(DataError, match=r"needs the package pyarrow.* Install it"):
        read_source(path)


@pytest.mark.parametrize("name", ["csv", "jsonl", "json", "DataFrame"])
def test_tables_are_cut_and_packed_as_texts_are(name, tmp_path):
    (tmp_path / "data").mkdir()
    table, texts = SOURCES[name](tmp_path / "data"), ROWS

    assert open_data(table, tmp_path).fingerprint == open_data(texts, tmp_path).fingerprint


@pytest.mark.parametrize(
    ("columns", "wanted", "found"),
    [
        pytest.param({"id": 1, "text": "a", "title": "b"}, "", "text", id="text"),
        pytest.param({"id": 1, "body": "a", "score": 2.5}, "", "body", id="the only text"),
        pytest.param({"body": "a"}, "", "body", id="the only column"),
        pytest.param({"text": "a", "title": "b"}, "title", "title", id="the one that is named"),
        pytest.param({"id": None, "body": "a"}, "", "body", id="an empty column"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "DataFrame", "dicts"])
def test_the_column_of_the_text_is_found(columns, wanted, found, kind, tmp_path):
    rows = [columns] * 4
    source = {
        "csv": lambda: pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False),
        "jsonl": lambda: put(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))),
        "DataFrame": lambda: pd.DataFrame(rows),
        "dicts": lambda: rows,
    }[kind]()
    source = tmp_path / "a.csv" if kind == "csv" else source
    documents, report = read_source(source, text_column=wanted)

    assert list(report.columns.values()) == [found]
    assert [d.text for d in documents] == [columns[found]] * 4


@pytest.mark.parametrize(
    ("head", "found"),
    [
        pytest.param("a,b\n1,2\n", ",", id="comma"),
        pytest.param("a;b\n1,5;2,5\n3,5;4,5\n", ";", id="decimal commas"),
        pytest.param('a,b\n1,"x; y; z"\n', ",", id="semicolons in quotes"),
        pytest.param("text\none, two\nthree\n", ",", id="one column"),
        pytest.param("a\tb\n1,2\t3\n", "\t", id="tab"),
        pytest.param('"a,b"|c\n1|2\n', "|", id="bar"),
    ],
)
def test_the_delimiter_is_found(head, found):
    assert sniff(head.encode()) == found


@pytest.mark.parametrize("suffix", [".md", ".py", ".txt.gz", ".log"])
def test_text_of_any_name_is_one_document(suffix, tmp_path):
    data = "one\ntwo\n" * 9
    path = put(
        tmp_path / f"a{suffix}", gzip.compress(data.encode()) if suffix[-2:] == "gz" else data
    )

    assert [d.text for d in read_documents(path)] == [data]


def test_a_folder_without_txt_is_read_if_it_holds_one_kind(tmp_path):
    for name in ("b.md", "a.md", "picture.png"):
        put(tmp_path / name, name)

    assert [d.text for d in read_documents(tmp_path)] == ["a.md", "b.md"]


def test_files_beside_those_that_are_read_are_told(tmp_path):
    for name in ("a.txt", "b.md", "c.csv.gz"):
        put(tmp_path / name, name)
    _, report = read_source(tmp_path)

    assert "1 .csv.gz, 1 .md beside .txt" in report.notes["files not read"].examples[0].says


# Pieces


@given(st.lists(st.text(st.sampled_from("ab \n"), max_size=30)), st.integers(1, 12))
def test_pieces_of_chunks_are_those_of_the_whole(chunks, size):
    assert list(pieces_of(chunks, size)) == list(pieces_of("".join(chunks), size))


@pytest.fixture
def small_chunks(monkeypatch):
    """Files are read in pieces of seven bytes, so that characters and lines fall between."""
    monkeypatch.setattr(files_of_data, "CHUNK", 7)
    monkeypatch.setattr("helpers.data.document.CHUNK", 7)


@pytest.mark.parametrize("name", ["csv", "csv.gz", "jsonl", "json", "json of texts"])
def test_a_table_read_in_small_pieces_is_the_same(name, tmp_path, small_chunks):
    assert [d.text for d in read_documents(SOURCES[name](tmp_path))] == ROWS


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_read_in_small_pieces_is_the_same(mark, tmp_path, small_chunks):
    text = "\r\n".join(ROWS)
    (document,) = read_documents(put(tmp_path / "a.txt", mark + text))
    (known,) = read_documents([text])

    assert (document.text, document.digest, document.n_bytes) == (
        known.text,
        known.digest,
        known.n_bytes,
    )
    assert [d.digest for split in split_documents([document], 0.3) for d in split] == [
        d.digest for split in split_documents([known], 0.3) for d in split
    ]


@given(st.text(st.sampled_from("aé🙂 \n"), min_size=2, max_size=60), st.floats(0.1, 0.9))
def test_a_cut_is_where_it_was_when_texts_were_whole(text, share):
    document = read_documents([f"x{text}"])[0]
    text, room = document.text, share * document.n_bytes
    near = int(len(text) * room / document.n_bytes)

    before = text.rfind("\n", 0, near) + 1 or text.rfind(" ", 0, near) + 1 or near
    assert cut_near(document, room, 1) == before


def test_a_spool_gives_back_what_it_took_also_in_a_fork():
    spool = Spool()
    spans = [spool.add(text.encode()) for text in ROWS]
    read, write = os.pipe()
    child = os.fork()
    if not child:
        texts = ["".join(spool.chunks(*span)) for span in spans]
        os.write(write, b"same" if texts == ROWS else b"other")
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(read, 9) == b"same"
    assert ["".join(spool.chunks(*span)) for span in spans] == ROWS


def test_text_in_a_bad_byte_across_pieces_is_named_by_its_byte(tmp_path, small_chunks):
    path = put(tmp_path / "a.txt", "ä".encode() * 40 + b"\xe4" + b"\n")

    with pytest.raises(DataError, match="byte 80 is 0xe4"):
        read_source(path)


def peak_mib(act) -> float:
    tracemalloc.start()
    act()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return peak


LONG_LINES = {
    "a.jsonl": (b'{"text": "a"}\n{"text": "', b'"}\n{"text": "b"}\n'),
    "a.csv": (b"id,text\n1,a\n2,", b"\n3,b\n"),
}


@pytest.mark.parametrize("name", LONG_LINES)
def test_a_line_of_100_mb_is_told_and_never_held(name, tmp_path):
    start, end = LONG_LINES[name]
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(start)
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(end)
    reports = []
    peak = peak_mib(lambda: reports.append(read_source(path, bad_rows="skip")[1]))

    assert reports[0].counts == {"too long": 1}
    assert "100,000,0" in reports[0].events()[0] or "100,000,0" in repr(reports[0])
    assert reports[0].n_documents == 2
    assert peak < 80


def test_a_text_of_64_mb_is_read_split_and_written_in_little_memory(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        for i in range(64):
            file.write(b"word " * 200_000 + b"\n" * (i % 2))

    def open_it():
        UniversalDataModule(path, tokenizer="byte", cache_dir=tmp_path / "cache")

    assert peak_mib(open_it) < 64


# The report


BAD_TABLE = ["id,text", "1,fine", "2,", "3,nan", "4,a,b", "5,\0", "1,fine", "7,<script>\ufffd"]


def bad_table(folder: Path) -> Path:
    return put(folder / "a.csv", "\n".join(BAD_TABLE))


def test_all_faults_come_in_one_table(tmp_path):
    with pytest.raises(DataError) as caught:
        read_source(bad_table(tmp_path))

    message = str(caught.value)
    assert message.startswith("4 faults were found in 7 rows of ")
    for place in ("row 3 ", "row 4 ", "row 5 ", "row 6 "):
        assert f"a.csv {place}" in message
    assert 'Or set bad_rows="skip" to train on the other 3.' in message
    assert all(
        ord(character) < 128 and character.isprintable() for character in message.replace("\n", "")
    )


def test_examples_are_few_and_counts_are_whole():
    with pytest.raises(DataError) as caught:
        read_source(["a text", *[""] * 10_000])

    assert "10,000" in str(caught.value)
    assert "... and 9,995 more" in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_the_report_tells_what_was_left_out_and_what_is_worth_a_look(tmp_path):
    _, report = read_source(bad_table(tmp_path), bad_rows="skip")

    assert report.counts == {
        "no text": 1, "missing value": 1, "other number of fields": 1, "NUL": 1
    }  # fmt: skip
    assert {kind: tally.count for kind, tally in report.notes.items()} == {
        "repeated ids": 1, "repeated texts": 1, "replaced characters": 1
    }  # fmt: skip
    assert report.events()[0].startswith("4 of 7 rows were left out: ")
    assert "7 rows read, 4 left out, 3 documents" in repr(report)
    assert "the text is in 'text'" in repr(report)
    assert "<script>" not in report._repr_html_()
    assert "<table>" in report._repr_html_()


def test_a_data_module_and_its_splits_carry_the_report(tmp_path):
    module = open_data([*ROWS, ""], tmp_path, bad_rows="skip")

    assert module.report is module.train.report is module.val.report
    assert module.report.n_skipped == 1


def test_what_is_left_out_is_on_the_record_of_the_run(make_trainer, tmp_path):
    module = open_data([*ROWS, "", None], tmp_path, bad_rows="skip")
    trainer = make_trainer(bad_rows="skip", sequence_length=16, max_steps=2)
    result = trainer.train(module.train, module.val)

    told = [message for _, kind, message in result.events if kind == "data"]
    assert told == ["2 of 32 rows were left out: no text 1 (text 30); missing value 1 (text 31)"]


@pytest.mark.parametrize(
    ("content", "kind", "count"),
    [
        pytest.param(b"a\r\nb\nc\n", "mixed line ends", 1, id="mixed line ends"),
        pytest.param(b"a\rb\rc\r", "mixed line ends", 1, id="CR alone"),
        pytest.param("a\ufffd\ufffd".encode(), "replaced characters", 2, id="replaced"),
        pytest.param("a\n\ufeffb\n".encode(), "marks within", 1, id="joined files"),
        pytest.param(b"x" * 2000 + b"\nshort\n" + b"y" * 2000, "long lines", 2, id="long lines"),
    ],
)
def test_what_may_surprise_is_noted(content, kind, count, tmp_path, monkeypatch):
    monkeypatch.setattr(files_of_data, "LONGEST_ROW", 1000)
    _, report = read_source(put(tmp_path / "a.txt", content))

    assert {name: tally.count for name, tally in report.notes.items()} == {kind: count}


def test_validation_texts_that_training_has_but_for_blanks_are_told(tmp_path):
    texts = [variant for text in ROWS for variant in (text, f"{text}\n", f" {text}")]
    module = open_data(texts, tmp_path, val_fraction=0.3)

    stripped = {d.text.strip() for d in module.train.documents}
    n_leaks = sum(d.text.strip() in stripped for d in module.val.documents)
    assert module.report.notes["in both splits"].count == n_leaks > 0
    assert any(line.startswith(f"in both splits {n_leaks}") for line in module.report.events())


def test_clean_data_has_nothing_to_tell(data):
    assert data.report.events() == []
    assert "none left out" in repr(data.report)


@given(st.one_of(st.text(), st.binary()), st.integers(0, 50))
def test_an_excerpt_is_short_plain_and_on_one_line(value, at):
    shown = excerpt_of(value, at)

    assert len(shown) <= 80
    assert all(32 <= ord(character) < 127 for character in shown)


# Rows of any kind never end in another error


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
    st.lists(st.none()), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)  # fmt: skip


@given(st.lists(ANYTHING), st.sampled_from(["fail", "skip"]))
def test_a_list_of_anything_is_read_or_refused(items, policy):
    try:
        documents, report = read_source(items, bad_rows=policy)
    except DataError:
        return

    assert len(documents) == report.n_documents == report.n_rows - report.n_skipped
    assert all(d.text.strip() and "\0" not in d.text for d in documents)


@given(
    st.sampled_from([".txt", ".csv", ".tsv", ".jsonl", ".json", ".txt.gz", ".csv.gz", ".parquet"]),
    st.one_of(
        st.binary(max_size=200),
        st.text(st.sampled_from('a,;"\t\n\r{}[]:1 \ufeff'), max_size=60).map(str.encode),
    ),
    st.booleans(),
)
def test_a_file_of_any_bytes_is_read_or_refused(tmp_path_factory, suffix, content, zipped_well):
    content = gzip.compress(content) if zipped_well and suffix.endswith(".gz") else content
    path = put(tmp_path_factory.mktemp("any") / f"a{suffix}", content)
    for policy in ("fail", "skip"):
        try:
            documents, _ = read_source(path, bad_rows=policy)
        except DataError:
            continue
        assert documents
        assert all(d.text.strip() and "\0" not in d.text for d in documents)


# Samples


def looked_at(train, val=None, bad_rows="fail", **limits):
    samples = [None if each is None else as_samples(each, "data") for each in (train, val)]
    return check_samples(*samples, Limits(**limits), bad_rows)


def test_bad_samples_are_left_out_and_the_others_keep_their_order():
    good = [{"input_ids": torch.tensor([i, i + 1])} for i in range(4)]
    bad = {"input_ids": torch.tensor([-1, 0])}
    train, _, report = looked_at([bad, *good[:2], bad, *good[2:]], bad_rows="skip", n_inputs=9)

    assert len(train) == 4
    assert train.gather(np.arange(4))["input_ids"][:, 0].tolist() == [0, 1, 2, 3]
    assert report.counts == {"wrong input": 2}


SAMPLES = [{"input_ids": torch.arange(i, i + 8)} for i in range(12)]


class Faulty(list):
    """Samples of which some are errors, which are raised."""

    def __getitem__(self, i):
        item = super().__getitem__(i)
        if isinstance(item, BaseException):
            raise item
        return item


def faulty():
    """Of twelve samples the first, the third, the sixth and the last cannot be trained on."""
    samples = Faulty(SAMPLES)
    samples[0], samples[5] = {"input_ids": torch.ones(2, 8)}, OSError("disk is\ngone")
    samples[2] = samples[11] = None
    return samples


def test_samples_that_cannot_be_had_or_batched_are_told_in_one_table():
    with pytest.raises(DataError) as caught:
        looked_at(faulty())

    message = str(caught.value)
    assert message.startswith("4 faults were found in 12 rows")
    assert "data[0]   has the shape (2, 8) in 'input_ids', but others have one dim" in message
    assert "data[2]   is of type NoneType, but a mapping of fields or a pair" in message
    assert "data[11]  is of type NoneType" in message
    assert "data[5]   could not be read (OSError: disk is), but every" in message
    assert 'Or set bad_rows="skip" to train on the other 8.' in message
    assert isinstance(caught.value.__cause__, OSError)


def test_samples_that_cannot_be_had_or_batched_are_left_out():
    train, _, report = looked_at(faulty(), bad_rows="skip")

    assert report.counts == {"no sample": 2, "unreadable sample": 1, "other shape": 1}
    assert train.gather(np.arange(8))["input_ids"][:, 0].tolist() == [1, 3, 4, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_no_fault_of_a_sample_passes(error):
    with pytest.raises(error):
        looked_at(Faulty([*SAMPLES, error()]), bad_rows="skip")


def test_where_every_sample_raises_the_error_is_the_cause():
    with pytest.raises(DataError, match="no sample left") as caught:
        looked_at(Faulty([KeyError("ids")] * 3), bad_rows="skip")

    assert isinstance(caught.value.__cause__, KeyError)


def test_samples_of_other_shapes_are_sound_where_their_own_function_collates_them():
    def flat(items):
        return collate([{"input_ids": item["input_ids"].reshape(-1)} for item in items])

    samples = [{"input_ids": torch.ones(2, i + 1)} for i in range(4)]
    train, _, report = check_samples(MapSamples(samples, flat), None, Limits())

    assert len(train) == 4 and not report.faults


def test_labels_that_validation_alone_has_and_samples_in_both_are_told():
    train = [{"input_ids": [i, i]} for i in (1, 2, 1)]
    val = [{"input_ids": [i, i]} for i in (2, 3, 4)]
    *_, report = looked_at(train, val)

    assert {kind: tally.count for kind, tally in report.notes.items()} == {
        "repeated samples": 1, "in both splits": 1, "new labels": 2
    }  # fmt: skip
    assert "3, 4" in report.events()[-1]


def test_a_single_label_is_told():
    *_, report = looked_at([([1, 2], [7, 7]), ([3, 4], [7, -100])])

    assert report.events() == ["one class 1: has the label 7 alone"]


def test_a_look_at_samples_leaves_the_random_states():
    class Noise(list):
        def __getitem__(self, i):
            random.random()
            np.random.rand()
            return {"input_ids": torch.randint(9, (4,))}

    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[2], random.getstate()
    looked_at(Noise(range(5)))

    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[2], random.getstate()) == before[1:]


def test_a_slow_data_set_is_looked_at_in_part_and_told(monkeypatch):
    monkeypatch.setattr("helpers.data.labels.LIMIT_S", -1.0)
    train, _, report = looked_at([{"input_ids": [1, 2]}] * 5)

    assert len(train) == 5
    assert report.notes["not all looked at"].count == 5


def test_samples_that_were_not_looked_at_take_no_memory_and_are_kept(monkeypatch):
    class Endless:
        def __len__(self):
            return 10**12

        def __getitem__(self, i):
            return {"input_ids": torch.tensor([1, 2] if i else [1.5, float("nan")])}

    monkeypatch.setattr("helpers.data.labels.LIMIT_S", 0.2)
    kept, _, _ = check_samples(as_samples(Endless(), "train_data"), None, Limits(), "skip")

    assert len(kept) == 10**12 - 1
    assert kept.gather(np.array([len(kept) - 1]))["input_ids"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        pytest.param({}, "no field 'input_ids'", id="without fields"),
        pytest.param({"input_ids": torch.tensor(3)}, "a sequence is wanted", id="one number"),
    ],
)
def test_samples_without_a_sequence_are_refused(sample, words):
    with pytest.raises(DataError, match=words):
        check_samples(as_samples([sample] * 4, "train_data"), None, Limits())


def test_floats_as_inputs_are_no_fault_but_nan_is():
    samples = [{"input_ids": torch.rand(3), "labels": torch.tensor([1])} for _ in range(3)]
    looked_at(samples)
    samples[1]["input_ids"][2] = torch.nan

    with pytest.raises(DataError, match=r"data\[1\] has nan in 'input_ids' at \[2\]"):
        looked_at(samples)


# Settings


@pytest.mark.parametrize(
    "options", [{"bad_rows": "repair"}, {"delimiter": ",,"}, {"delimiter": "\n"}], ids=str
)
def test_an_option_that_does_not_exist_is_refused(options):
    with pytest.raises(ConfigError, match=r"Choose one of them|Leave it out"):
        read_source(ROWS, **options)


@pytest.mark.parametrize("source", ["python-stdlib", ROWS, "a.txt"], ids=["stdlib", "list", "file"])
def test_a_column_of_what_has_none_is_refused(source, tmp_path):
    source = put(tmp_path / source, "some text") if source == "a.txt" else source

    with pytest.raises(DataError, match="has no columns, but text_column is 'body'"):
        read_source(source, text_column="body")


def test_data_needs_no_pandas_until_it_is_asked_for():
    code = "import helpers.data, sys\nprint(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()

    assert {"pandas", "pyarrow", "tokenizers"}.isdisjoint(loaded)

"""Text is read whole or refused aloud, and no text is both learned and judged by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.data import UniversalDataModule, read_documents, split_documents
from helpers.errors import ConfigError, DataError

A_TEXT = "a line of text\n" * 20


@pytest.fixture(scope="module")
def stdlib():
    return read_documents("python-stdlib")


def named(documents):
    return sorted(document.name for document in documents)


# Sources


def test_the_standard_library_has_text_and_no_tests(stdlib):
    folders = {part for document in stdlib for part in document.name.split("/")[:-1]}

    assert sum(document.n_bytes for document in stdlib) > 5_000_000
    assert {"argparse.py", "json/decoder.py"} <= {document.name for document in stdlib}
    assert folders.isdisjoint({"test", "tests", "idle_test", "site-packages", "dist-packages"})


def test_the_standard_library_is_read_in_a_fixed_order(stdlib):
    assert [document.digest for document in read_documents("python-stdlib")] == [
        document.digest for document in stdlib
    ]


def test_a_folder_is_read_with_its_subfolders_and_without_other_files(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "deep/a.txt", "notes.md"):
        (tmp_path / name).write_text(name)

    assert [document.text for document in read_documents(tmp_path)] == ["b.txt", "deep/a.txt"]


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["text", "path"])
def test_a_file_is_one_document(kind, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffgrüße\r\n🙂".encode())
    (document,) = read_documents(kind(path))

    assert document.text == "grüße\r\n🙂"
    assert document.n_bytes == len(document.text.encode())


def test_a_file_and_the_same_text_in_a_list_are_the_same(tmp_path):
    (tmp_path / "a.txt").write_text(A_TEXT)
    (from_file,), (from_list,) = read_documents(tmp_path), read_documents([A_TEXT])

    assert (from_file.digest, from_file.n_bytes) == (from_list.digest, from_list.n_bytes)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), st.data())
def test_a_cut_document_is_its_parts(text, data):
    if not text.strip():
        text += "x"
    (document,) = read_documents([text])
    before, after = document.cut(data.draw(st.integers(0, len(text))))

    assert before.text + after.text == text
    assert before.n_bytes + after.n_bytes == document.n_bytes


# The catalogue of bad input: what was got, what was wanted, what to do


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(
            lambda d: d / "none.txt", ["none.txt", "no such file", "Give the path"], id="no file"
        ),
        pytest.param(
            lambda d: write(d / "a.txt", b""),
            ["a.txt is empty", "needs text", "Fill it"],
            id="empty",
        ),
        pytest.param(
            lambda d: write(d / "a.txt", b" \n\t\n"), ["is empty", "needs text"], id="blanks"
        ),
        pytest.param(
            lambda d: d, ["no .txt file", "needs text", "Put .txt files"], id="folder without txt"
        ),
        pytest.param(
            lambda d: write(d / "a.txt", A_TEXT.encode("utf-16")),
            ["not UTF-8", "byte 0 is 0xff", "Save it as UTF-8"],
            id="utf-16",
        ),
        pytest.param(
            lambda d: write(d / "a.txt", A_TEXT.encode("utf-16-le")),
            ["holds a NUL at position 1", "Export its text"],
            id="utf-16 without a mark",
        ),
        pytest.param(
            lambda d: write(d / "a.txt", "größe".encode("latin-1")),
            ["not UTF-8", "byte 2 is 0xf6", "Save it as UTF-8"],
            id="latin-1",
        ),
        pytest.param(
            lambda d: write(d / "a.txt", b"\x89PNG\r\n\x1a\n\0\0"), ["not UTF-8"], id="binary"
        ),
        pytest.param(
            lambda d: write(d / "a.txt", b"a\0b" * 99), ["holds a NUL", "Export its text"], id="nul"
        ),
        pytest.param(
            lambda d: write(d / "a.txt", b"short"),
            ["tokens, but one sequence of 32 needs 33", "Lower sequence_length, or load more"],
            id="shorter than a sequence",
        ),
        pytest.param(lambda d: [], ["is empty", "needs text", "Give some strings"], id="no texts"),
        pytest.param(lambda d: [A_TEXT, ""], ["text 1 is empty", "leave it out"], id="empty text"),
        pytest.param(
            lambda d: [A_TEXT, 7], ["text 1 is of type int", "string is wanted"], id="number"
        ),
        pytest.param(
            lambda d: [A_TEXT.encode()], ["text 0 is of type bytes", "Decode"], id="bytes"
        ),
        pytest.param(lambda d: [A_TEXT + "\ud83d"], ["surrogate", "Remove it"], id="surrogate"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(make, words, tmp_path):
    with pytest.raises(DataError) as caught:
        UniversalDataModule(
            make(tmp_path), tokenizer="byte", sequence_length=32, cache_dir=tmp_path / "cache"
        )

    assert [word for word in words if word not in str(caught.value)] == []


# Splits


def test_no_text_is_in_both_splits_and_none_is_lost(texts):
    train, val = split_documents(read_documents(texts), 0.2)

    assert {d.digest for d in train}.isdisjoint(d.digest for d in val)
    assert named(train + val) == named(read_documents(texts))


def test_the_split_does_not_depend_on_the_order(texts):
    forward, back = (split_documents(read_documents(t), 0.2) for t in (texts, texts[::-1]))

    for one, other in zip(forward, back, strict=True):
        assert {d.digest for d in one} == {d.digest for d in other}


def test_a_text_that_is_added_moves_no_other(texts):
    before, after = (split_documents(read_documents(t), 0.2)[1] for t in (texts, [*texts, A_TEXT]))

    assert {d.digest for d in after} - {read_documents([A_TEXT])[0].digest} == {
        d.digest for d in before
    }


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3, 0.5])
def test_the_share_of_validation_is_near_what_was_asked_for(fraction, stdlib):
    train, val = split_documents(stdlib, fraction)
    n_val = sum(document.n_bytes for document in val)

    share = n_val / (n_val + sum(document.n_bytes for document in train))
    assert 0.5 * fraction <= share <= 1.5 * fraction


@pytest.mark.parametrize("fraction", [0.1, 0.5])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("".join(f"line {i}\n" for i in range(200)), id="lines"),
        pytest.param(" ".join(map(str, range(500))), id="one line"),
        pytest.param("x" * 1000, id="one word"),
        pytest.param("é🙂" * 500, id="wide characters"),
    ],
)
def test_one_document_is_split_by_position(text, fraction):
    (train,), (val,) = split_documents(read_documents([text]), fraction)

    assert train.text + val.text == text
    assert val.n_bytes / len(text.encode()) == pytest.approx(fraction, abs=0.03)


def test_one_document_is_cut_at_a_line_end():
    (train,), (val,) = split_documents(read_documents([A_TEXT]), 0.25)

    assert train.text.endswith("\n")
    assert val.text.startswith("a line")


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    fraction=st.sampled_from([0.1, 0.25, 0.5]),
)
def test_copies_of_a_text_stay_together(counts, fraction):
    """Else a text would be learned by heart and then judged by."""
    texts = [f"{i} {A_TEXT}" for i, count in enumerate(counts) for _ in range(count)]
    train, val = split_documents(read_documents(texts), fraction)

    assert {d.digest for d in train}.isdisjoint(d.digest for d in val)
    assert sum(d.n_bytes for d in train + val) == sum(len(text) for text in texts)
    assert train
    assert val


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"source": None}, "source is None", id="no source"),
        pytest.param({"sequence_length": 0}, "sequence_length is 0", id="no sequence"),
        pytest.param({"val_fraction": 0.9}, "val_fraction is 0.9", id="mostly validation"),
        pytest.param({"tokenizer": "chars"}, "tokenizer is 'chars'", id="unknown tokenizer"),
    ],
)
def test_a_data_module_refuses_what_cannot_work(changes, words, texts):
    with pytest.raises((ConfigError, DataError), match=words):
        UniversalDataModule(**{"source": texts, **changes})


def test_a_file_that_changes_after_it_was_read_is_told(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("first " * 50)
    (document,) = read_documents(file)
    file.write_text("other " * 50)

    with pytest.raises(DataError, match="has changed since it was read"):
        _ = document.text

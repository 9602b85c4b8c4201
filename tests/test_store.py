"""Tokens are written once for each content, whole or not at all, and found again."""

import json
import threading
from itertools import pairwise

import numpy as np
import pytest

from helpers.data import UniversalDataModule, read_documents, split_documents
from helpers.data.store import open_store
from helpers.errors import ConfigError, DataError


@pytest.fixture
def splits(texts):
    train, val = split_documents(read_documents(texts), 0.2)
    return {"train": train, "val": val}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def open_it(splits, cache):
    """Open the store of the texts, with some arguments changed."""

    def open_it(splits=splits, **changes):
        return open_store(
            splits, **({"kind": "byte", "vocab_size": 400, "cache_dir": cache} | changes)
        )

    return open_it


def state_of(folder):
    """Names, sizes and times of all files below a folder."""
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_a_file_holds_each_document_between_end_tokens(kind, open_it, splits):
    store = open_it(kind=kind)
    tokens = np.fromfile(store.path("val"), store.dtype)
    end = store.tokenizer.end_id

    ends = np.flatnonzero(tokens == end)
    assert (ends[0], ends[-1]) == (0, len(tokens) - 1)
    assert [store.tokenizer.decode(tokens[i + 1 : j]) for i, j in pairwise(ends)] == [
        document.text for document in splits["val"]
    ]


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_opening_again_writes_nothing(kind, open_it, cache):
    first = open_it(kind=kind)
    before = state_of(cache)
    second = open_it(kind=kind)

    assert state_of(cache) == before
    assert second.key == first.key
    assert second.tokenizer.to_json() == first.tokenizer.to_json()


def test_a_build_leaves_one_folder_and_nothing_half_done(open_it, cache):
    store = open_it()

    assert [path.name for path in cache.iterdir()] == [store.key]


def test_builds_at_the_same_time_end_with_one_store(open_it, cache):
    barrier, stores = threading.Barrier(4), []

    def build():
        barrier.wait()
        stores.append(open_it(kind="bpe"))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({store.key for store in stores}) == 1
    assert len(stores) == 4
    assert [path.name for path in cache.iterdir()] == [stores[0].key]


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


def overwrite(content):
    return lambda path: path.write_text(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("meta.json", lambda path: path.unlink(), id="no description"),
        pytest.param("meta.json", overwrite(""), id="empty description"),
        pytest.param("meta.json", overwrite('{"format": 1, "si'), id="torn description"),
        pytest.param("meta.json", overwrite("[]"), id="description of another kind"),
        pytest.param("meta.json", overwrite('{"format": 0, "sha256": {}}'), id="other format"),
        pytest.param("train.bin", lambda path: path.unlink(), id="no tokens"),
        pytest.param("val.bin", lambda p: p.write_bytes(p.read_bytes()[:-1]), id="short tokens"),
        pytest.param("val.bin", lambda p: p.write_bytes(flipped(p)), id="one bit of a token"),
        pytest.param("tokenizer.json", lambda path: path.unlink(), id="no tokenizer"),
        pytest.param("tokenizer.json", overwrite('{"kind":'), id="torn tokenizer"),
    ],
)
def test_a_damaged_store_is_built_anew(name, damage, open_it):
    store = open_it()
    sound = {path.name: path.read_bytes() for path in store.folder.iterdir()}
    damage(store.folder / name)
    open_it()

    assert {path.name: path.read_bytes() for path in store.folder.iterdir()} == sound


def test_the_key_follows_from_text_and_tokenizer(open_it, splits):
    other = read_documents(["another text"])
    stores = [
        open_it(),
        open_it({**splits, "val": other}),
        open_it({**splits, "train": splits["train"][1:]}),
        open_it(kind="bpe"),
        open_it(kind="bpe", vocab_size=300),
    ]

    assert len({store.key for store in stores}) == len(stores)


def test_the_key_does_not_depend_on_what_is_not_read(open_it, texts, tmp_path):
    """Bytes have no vocabulary to choose, and a file's name is not its text."""
    for i, text in enumerate(texts):
        (tmp_path / f"{i:02}.txt").write_text(text)
    train, val = split_documents(read_documents(tmp_path), 0.2)

    assert open_it({"train": train, "val": val}, vocab_size=999).key == open_it().key


@pytest.mark.parametrize("below", ["", "deeper"], ids=["a file", "below a file"])
def test_a_cache_that_cannot_be_written_is_refused(below, texts, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(DataError) as caught:
        UniversalDataModule(texts, tokenizer="byte", cache_dir=tmp_path / "cache" / below)

    assert "cache_dir is" in str(caught.value)
    assert "cannot be written" in str(caught.value)
    assert "Set cache_dir to a folder" in str(caught.value)


def test_a_failed_build_leaves_nothing(open_it, cache):
    with pytest.raises(DataError, match="Lower vocab_size"):
        open_it(kind="bpe", vocab_size=60_000)

    assert list(cache.iterdir()) == []


def test_an_unknown_tokenizer_is_refused(open_it):
    with pytest.raises(ConfigError, match=r"tokenizer is 'chars', but .*bpe.*byte"):
        open_it(kind="chars")


def test_the_description_names_every_file(open_it):
    folder = open_it().folder
    meta = json.loads((folder / "meta.json").read_text())

    assert {*meta["sha256"], "meta.json"} == {path.name for path in folder.iterdir()}

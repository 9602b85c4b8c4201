"""Windows over a stream of tokens, in which every token is predicted once."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.data import PackedTokens, UniversalDataModule, collate
from helpers.data.packing import as_samples
from helpers.errors import DataError


def all_of(samples):
    return samples.gather(np.arange(len(samples)))


@given(n=st.integers(2, 200), length=st.integers(1, 40))
def test_one_pass_predicts_every_token_once(n, length):
    tokens = np.arange(n, dtype=np.uint16)
    samples = PackedTokens(tokens, length, keep_tail=True)
    batch = all_of(samples)
    counted = batch["labels"] != -100

    assert batch["labels"][counted].tolist() == list(range(1, n))
    assert batch["input_ids"][counted].tolist() == list(range(n - 1))
    assert batch.n_targets == samples.n_targets == n - 1


@given(n=st.integers(2, 200), length=st.integers(1, 40))
def test_training_leaves_out_less_than_one_window(n, length):
    if n <= length:
        return
    samples = PackedTokens(np.arange(n, dtype=np.uint16), length)
    batch = all_of(samples)

    assert batch["labels"].flatten().tolist() == list(range(1, samples.n_targets + 1))
    assert 0 <= n - 1 - samples.n_targets < length
    assert batch.n_targets == samples.n_targets


def test_the_last_label_of_a_window_is_the_first_input_of_the_next(data):
    batch = data.train.gather(np.arange(9))

    assert torch.equal(batch["labels"][:, :-1], batch["input_ids"][:, 1:])
    assert torch.equal(batch["labels"][:-1, -1], batch["input_ids"][1:, 0])


def test_validation_predicts_every_token_of_its_text_once(data):
    labels = all_of(data.val)["labels"]

    assert labels[labels != -100].tolist() == data.val.tokens[1:].tolist()


@pytest.mark.parametrize("index", [[0, -1], [-1], [-1, 3, -1], [2, 1]], ids=str)
def test_a_batch_is_its_samples_whatever_their_order(index, data):
    index = np.array(index) % len(data.val)
    batch = data.val.gather(index)

    for row, i in enumerate(index):
        alone = data.val[int(i)]
        assert all(torch.equal(batch[name][row], alone[name]) for name in alone)
    assert batch.n_targets == int((batch["labels"] != -100).sum())


def test_fields_are_of_one_shape_and_type(data):
    batch = data.val.gather(np.arange(3))

    assert {name: (tuple(t.shape), t.dtype) for name, t in batch.fields.items()} == {
        "input_ids": ((3, 32), torch.int64),
        "labels": ((3, 32), torch.int64),
    }


@pytest.mark.parametrize(
    ("n", "keep_tail"),
    [(0, True), (1, True), (1, False), (8, False)],
    ids=["nothing", "one token", "one token to train", "one too few"],
)
def test_too_few_tokens_are_refused(n, keep_tail):
    with pytest.raises(DataError, match=f"has {n} tokens, but one sequence of 8 needs 9"):
        PackedTokens(np.zeros(n, np.uint16), 8, keep_tail=keep_tail)


# Batches


def test_unequal_samples_are_padded_with_what_no_loss_counts():
    batch = collate(
        [{"input_ids": [1, 2, 3], "labels": [2, 3, 4]}, {"input_ids": [5], "labels": [6]}]
    )

    assert batch["input_ids"].tolist() == [[1, 2, 3], [5, 0, 0]]
    assert batch["labels"].tolist() == [[2, 3, 4], [6, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_equal_samples_get_no_mask():
    assert set(collate([([1, 2], [2, 3])] * 2).fields) == {"input_ids", "labels"}


@given(n=st.integers(1, 9), size=st.integers(1, 12))
def test_micro_batches_join_to_the_batch(n, size):
    batch = collate([{"input_ids": [i, i]} for i in range(n)])
    parts = list(batch.split(size))

    assert torch.equal(torch.cat([part["input_ids"] for part in parts]), batch["input_ids"])
    assert sum(part.n_samples for part in parts) == n
    assert max(part.n_samples for part in parts) <= size


@pytest.mark.parametrize(
    ("items", "words"),
    [
        pytest.param([{"a": [1]}, {"b": [1]}], "Sample 1 .* has the fields .'b'.", id="fields"),
        pytest.param([{"a": [[1]]}, {"a": [[1, 2]]}], "field a has the shapes", id="shapes"),
        pytest.param([7], "of type int, but a mapping", id="number"),
        pytest.param([([1], [2], [3])], "of type tuple, but a mapping", id="triple"),
    ],
)
def test_samples_that_do_not_fit_together_are_refused(items, words):
    with pytest.raises(DataError, match=words):
        collate(items)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(None, "train is None", id="nothing"),
        pytest.param([], "train is empty", id="empty"),
        pytest.param((i for i in range(3)), "of type generator", id="stream"),
        pytest.param(7, "of type int", id="number"),
    ],
)
def test_what_is_no_data_set_is_refused(data, words):
    with pytest.raises(DataError, match=words):
        as_samples(data, "train")


def test_a_list_of_samples_is_a_data_set():
    samples = as_samples([{"input_ids": torch.tensor([i])} for i in range(3)], "train")

    assert samples.gather(np.array([2, 0]))["input_ids"].tolist() == [[2], [0]]


# The module


def test_the_summary_counts_what_there_is(data, texts):
    summary = data.summary()

    assert summary["bytes"].sum() == sum(len(text.encode()) for text in texts)
    # One end token after each document, and one before the first of each split.
    assert summary["tokens"].sum() == summary["bytes"].sum() + summary["documents"].sum() + 2
    assert summary["sequences"].tolist() == [len(data.train), len(data.val)]


def test_the_preview_shows_shapes_texts_and_what_predicts_what(data):
    preview = data.preview(2)

    assert preview.shapes["input_ids"] == ((2, 32), "torch.int64")
    assert all(y == x for (_, y), (x, _) in zip(preview.pairs, preview.pairs[1:], strict=False))
    assert preview.texts[0] in repr(preview)
    assert "<script" not in preview._repr_html_()


def test_a_fingerprint_follows_from_the_content(data, texts, tmp_path):
    def open_texts(texts):
        return UniversalDataModule(
            texts, tokenizer="byte", sequence_length=32, cache_dir=tmp_path / "cache"
        )

    assert open_texts(texts).fingerprint == data.fingerprint
    assert open_texts([*texts, "one more"]).fingerprint != data.fingerprint
    assert data.train.fingerprint != data.val.fingerprint

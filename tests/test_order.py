"""The order of samples: every epoch a permutation, and a pure function of seed and position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.data import SampleOrder

SIZES = [1, 2, 3, 4, 5, 7, 64, 1000, 4096, 4097]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("epoch", [0, 1, 99])
def test_each_epoch_is_a_permutation(n, epoch):
    order = SampleOrder(n, seed=3)

    assert sorted(order(epoch, np.arange(n))) == list(range(n))


@pytest.mark.parametrize("n", SIZES)
def test_the_stream_shows_every_sample_once_an_epoch(n):
    order = SampleOrder(n, seed=3)
    stream = np.concatenate([order.take(i, min(100, 3 * n - i)) for i in range(0, 3 * n, 100)])

    assert all(sorted(stream[e * n : (e + 1) * n]) == list(range(n)) for e in range(3))


@given(
    n=st.integers(1, 5000),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 10**6),
    data=st.data(),
)
def test_any_order_is_one_to_one(n, seed, epoch, data):
    index = np.array(data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=50)), np.int64)
    samples = SampleOrder(n, seed)(epoch, index)

    assert len(set(samples)) == len(index)
    assert all(0 <= sample < n for sample in samples)


@given(
    n=st.integers(1, 5000),
    calls=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 99)), min_size=1, max_size=5),
)
def test_what_is_taken_depends_on_no_earlier_call(n, calls):
    """Backwards, overlapping and across epochs: each call is answered as by a fresh order."""
    used = SampleOrder(n, seed=1)

    for start, count in calls:
        assert (
            used.take(start, count).tolist() == SampleOrder(n, seed=1).take(start, count).tolist()
        )


@given(n=st.integers(1, 5000), start=st.integers(0, 20_000), count=st.integers(0, 9))
def test_a_range_is_its_elements(n, start, count):
    order, one = SampleOrder(n, seed=1), SampleOrder(n, seed=1)
    elements = [int(one.take(i, 1)[0]) for i in range(start, start + count)]

    assert order.take(start, count).tolist() == elements
    assert elements == [int(one(i // n, np.array([i % n]))[0]) for i in range(start, start + count)]


def test_a_range_longer_than_a_block_is_its_parts():
    order = SampleOrder(3000, seed=1)
    whole = order.take(10, 20_000)

    assert (
        whole.tolist()
        == np.concatenate([order.take(10 + i, 5000) for i in range(0, 20_000, 5000)]).tolist()
    )


@pytest.mark.parametrize(
    ("seed", "epoch"), [pytest.param(4, 0, id="seed"), pytest.param(3, 1, id="epoch")]
)
def test_another_seed_or_epoch_has_another_order(seed, epoch):
    index = np.arange(1000)
    same = SampleOrder(1000, 3)(0, index) == SampleOrder(1000, seed)(epoch, index)

    # Two independent orders agree at one position on average.
    assert same.sum() < 10


def test_the_seed_of_one_epoch_is_not_that_of_the_next():
    """Seed 3 in epoch 1 must not be seed 4 in epoch 0."""
    index = np.arange(1000)

    assert (SampleOrder(1000, 3)(1, index) != SampleOrder(1000, 4)(0, index)).mean() > 0.9


def test_each_sample_comes_first_about_equally_often():
    """Over 2,000 epochs each of 8 samples leads 250 times, give or take 6 standard deviations."""
    order, start = SampleOrder(8, seed=0), np.array([0])
    first = [int(order(epoch, start)[0]) for epoch in range(2000)]

    assert all(abs(count - 250) < 90 for count in np.bincount(first, minlength=8))


def test_neighbours_are_torn_apart():
    samples = SampleOrder(4097, seed=0).take(0, 4097)

    assert (np.diff(samples) == 1).sum() < 12
    assert abs(np.corrcoef(np.arange(4097), samples)[0, 1]) < 0.1


def test_unshuffled_is_as_it_comes():
    order = SampleOrder(5, seed=3, shuffled=False)

    assert order.take(3, 4).tolist() == [3, 4, 0, 1]


def test_nothing_cannot_be_ordered():
    with pytest.raises(ValueError, match="n_samples is 0"):
        SampleOrder(0, seed=0)

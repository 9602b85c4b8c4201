"""Text is scored in bits a byte by models that need no training."""

import math
import random

import pytest

from helpers.data import compression_baselines, ngram_baselines, read_documents, text_baselines


@pytest.fixture(scope="module")
def noise():
    """Random characters of one byte each, all but equally likely."""
    rng = random.Random(0)
    return ["".join(chr(rng.randrange(1, 128)) for _ in range(60_000)) for _ in range(2)]


def documents(*texts):
    return read_documents(list(texts))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_random_characters_cost_their_entropy_and_no_less(order, noise):
    bits = ngram_baselines(documents(noise[0]), documents(noise[1]), (order,))[order]

    assert math.log2(127) - 0.01 < bits < math.log2(127) + 1.1


def test_unseen_bytes_cost_eight_bits_and_the_price_of_surprise():
    """One known byte of two uses: a new one has half of 1 in 256 at most."""
    bits = ngram_baselines(documents("a"), documents("zyxw"), (1,))[1]

    assert bits == pytest.approx(-math.log2(0.5 / 256))


def test_repeated_text_is_nearly_free_for_five_grams():
    text = "abcdefgh\n" * 500

    assert ngram_baselines(documents(text), documents(text), (5,))[5] < 0.05


def test_one_gram_by_hand():
    """aab: c(a) = 2, c(b) = 1, n = 3, two kinds; p = (c + 2/256) / (3 + 2)."""
    a, b = (2 + 2 / 256) / 5, (1 + 2 / 256) / 5
    bits = ngram_baselines(documents("aab"), documents("ab"), (1,))[1]

    assert bits == pytest.approx(-(math.log2(a) + math.log2(b)) / 2)


def test_two_grams_by_hand():
    """After a: one a and one b of two; after b nothing is known but the one-gram."""
    a, b = (2 + 2 / 256) / 5, (1 + 2 / 256) / 5
    b_after_a = (1 + 2 * b) / (2 + 2)
    # The first byte of a text follows on nothing, which was seen once, before an a.
    a_at_start = (1 + 1 * a) / (1 + 1)
    bits = ngram_baselines(documents("aab"), documents("abb"), (2,))[2]

    assert bits == pytest.approx(-sum(map(math.log2, (a_at_start, b_after_a, b))) / 3)


def test_one_gram_is_near_the_entropy_of_the_letters():
    text = "abbcccc" * 3000
    entropy = -sum(n / 7 * math.log2(n / 7) for n in (1, 2, 4))

    assert ngram_baselines(documents(text), documents(text), (1,))[1] == pytest.approx(
        entropy, abs=0.01
    )


def test_longer_contexts_score_real_text_better(texts):
    half = len(texts) // 2
    bits = ngram_baselines(documents(*texts[:half]), documents(*texts[half:]), (1, 2, 3, 5, 8))

    assert list(bits) == [1, 2, 3, 5, 8]
    assert sorted(bits.values(), reverse=True) == list(bits.values())


def test_an_order_is_scored_alike_alone_and_beside_others(texts):
    train, val = documents(*texts[:9]), documents(*texts[9:12])

    assert ngram_baselines(train, val, (3,))[3] == ngram_baselines(train, val, (2, 3, 5))[3]


@pytest.mark.parametrize("orders", [(), (0,), (-1, 3), (9,), (3, 99)], ids=str)
def test_an_order_beyond_what_is_counted_is_refused(orders):
    with pytest.raises(ValueError, match="1 to 8 are wanted"):
        ngram_baselines(documents("a"), documents("a"), orders)


def test_compressors_score_noise_near_its_entropy_and_repetition_near_nothing(noise):
    hard, easy = (compression_baselines(documents(t)) for t in (noise[0], "a" * 60_000))

    assert all(math.log2(127) - 0.1 < bits < 8 for bits in hard.values())
    assert all(bits < 0.05 for bits in easy.values())


def test_documents_are_compressed_alone(texts):
    once, twice = (compression_baselines(documents(*[texts[0]] * n)) for n in (1, 2))

    assert once == pytest.approx(twice)


def test_the_table_of_baselines_has_them_all(texts):
    table = text_baselines(documents(*texts[:9]), documents(*texts[9:12]))

    assert list(table) == ["gzip", "lzma", "trigram", "fivegram"]
    assert all(0 < bits < 8 for bits in table.values())

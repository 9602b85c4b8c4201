"""Every text can be encoded, and decoding gives it back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.data import ByteTokenizer, load_tokenizer, train_bpe
from helpers.data.tokenizer import id_dtype, pieces_of
from helpers.errors import DataError

NASTY = {
    "empty": "",
    "emoji": "🙂👩‍👩‍👧 🇩🇪",
    "crlf": "a\r\nb\rc\n\r",
    "combining marks": "e\u0301 vs é, Z̸̡͝",
    "end token as text": "a<|end|>b <|end|><|end|>",
    "part of the end token": "<|end|",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x85\u2028\ufeff",
    "spaces": "   \t  \n\n   x   ",
    "right to left": "שלום مرحبا",
    "han": "漢字かな交じり文",
    "byte alphabet": "ĠĊĀÿ¡",
    "highest": "\U0010ffff\ue000",
    "one long line": "ab" * 30_000,
}
KINDS = ["byte", "bpe"]
text_of_any_kind = st.text(st.characters(codec="utf-8"))


@pytest.fixture(scope="module")
def tokenizers(texts):
    return {"byte": ByteTokenizer(), "bpe": train_bpe(texts, 400)}


@pytest.fixture(params=KINDS)
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_decoding_gives_the_text_back(text, tokenizer):
    ids = tokenizer.encode(text)

    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())
    assert tokenizer.end_id not in ids


@pytest.mark.parametrize("kind", KINDS)
@given(text=text_of_any_kind)
def test_any_text_survives(kind, text, tokenizers):
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(text)

    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())


def test_a_batch_is_encoded_as_its_texts(tokenizer):
    encoded = tokenizer.encode_batch(list(NASTY.values()))

    assert [ids.tolist() for ids in encoded] == [
        tokenizer.encode(t).tolist() for t in NASTY.values()
    ]


def test_the_end_token_is_no_text(tokenizer):
    ids = [*tokenizer.encode("a"), tokenizer.end_id, *tokenizer.encode("b")]

    assert tokenizer.decode(ids) == "ab"
    assert tokenizer.token_bytes()[tokenizer.end_id] == 0


def test_ids_lie_below_the_size_of_the_vocabulary(tokenizer, texts):
    ids = tokenizer.encode(texts[0])

    assert ids.max() < tokenizer.vocab_size
    assert len(tokenizer.token_bytes()) == tokenizer.vocab_size


def test_a_tokenizer_comes_back_from_its_json(tokenizer, texts):
    again = load_tokenizer(tokenizer.to_json())

    assert again.encode(texts[0]).tolist() == tokenizer.encode(texts[0]).tolist()
    assert again.to_json() == tokenizer.to_json()


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_character_is_shown_as_a_replacement(kind, tokenizers):
    """Neither vocabulary has a token for the whole of a rare character."""
    tokenizer = tokenizers[kind]

    assert tokenizer.decode(tokenizer.encode("漢")[:1]) == "\ufffd"


def test_an_unknown_kind_is_refused():
    with pytest.raises(DataError, match="of kind 'chars', but 'byte' or 'bpe' is wanted"):
        load_tokenizer('{"kind": "chars"}')


# Byte-pair encoding


def test_training_twice_gives_the_same_tokenizer(texts):
    assert train_bpe(texts, 300).to_json() == train_bpe(list(texts), 300).to_json()


@pytest.mark.parametrize("size", [257, 300, 400])
def test_the_vocabulary_has_the_size_that_was_asked_for(size, texts):
    assert train_bpe(texts, size).vocab_size == size


def test_merges_make_text_shorter(texts, tokenizers):
    assert len(tokenizers["bpe"].encode(texts[0])) < 0.5 * len(tokenizers["byte"].encode(texts[0]))


@pytest.mark.parametrize("text", ["", "a", "the same words " * 1000], ids=["none", "one", "poor"])
def test_a_text_too_small_for_its_vocabulary_is_refused(text):
    with pytest.raises(
        DataError, match=r"vocab_size is 2048, but .* Lower vocab_size, or load more"
    ):
        train_bpe([text], 2048)


def test_a_vocabulary_that_does_not_hold_the_bytes_is_refused(texts):
    with pytest.raises(DataError, match="vocab_size is 100, but"):
        train_bpe(texts, 100)


# Pieces of long texts


@given(text=text_of_any_kind, size=st.integers(1, 9))
def test_pieces_join_to_the_text(text, size):
    pieces = list(pieces_of(text, size))

    assert "".join(pieces) == text
    assert all(0 < len(piece) <= size for piece in pieces)


def test_pieces_end_at_line_ends():
    assert list(pieces_of("one\ntwo\nthree\n", 9)) == ["one\ntwo\n", "three\n"]


@pytest.mark.parametrize(
    ("size", "dtype"), [(257, np.uint16), (65_536, np.uint16), (65_537, np.uint32)]
)
def test_ids_take_the_fewest_bytes_that_hold_them(size, dtype):
    assert id_dtype(size) == dtype
    assert np.iinfo(dtype).max >= size - 1

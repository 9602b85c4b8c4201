"""A model starts without an opinion, never looks ahead, and can learn a batch by heart."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.data import ByteTokenizer
from helpers.errors import ConfigError
from helpers.models import (
    Decoder,
    DecoderConfig,
    build_decoder,
    complete_text,
    count_parameters,
    generate,
    summarize,
)
from helpers.models.decoder import _rotation

V = 11


@pytest.fixture
def busy_model(tiny_model):
    """A decoder none of whose matrices is zero, as after training."""
    model = tiny_model(V, n_layers=2)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.fixture
def counter():
    """A model that says after each token the next one: after 3 comes 4, after 10 comes 0."""
    return nn.Embedding.from_pretrained(10 * torch.eye(V).roll(1, dims=1))


# The untrained model


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize(
    ("vocab_size", "d_model", "n_layers"),
    [(257, 16, 1), (300, 64, 2), (2048, 128, 4), (5000, 32, 8)],
)
def test_the_loss_of_an_untrained_model_is_near_ln_of_the_vocabulary(
    vocab_size, d_model, n_layers, tie, tiny_model
):
    model = tiny_model(vocab_size, d_model=d_model, n_layers=n_layers, tie_embeddings=tie)
    ids, labels = torch.randint(vocab_size, (2, 4, 32))
    loss = F.cross_entropy(model(ids).flatten(0, 1), labels.flatten())

    assert loss.item() == pytest.approx(math.log(vocab_size), rel=0.05)


def test_a_seed_gives_the_weights_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, same = (build_decoder(DecoderConfig(V), seed=3).state_dict() for _ in range(2))
    other = build_decoder(DecoderConfig(V), seed=4).state_dict()

    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize(("d_model", "n_heads"), [(30, 4), (12, 4)], ids=["uneven", "odd"])
def test_heads_that_do_not_fit_are_refused(d_model, n_heads):
    with pytest.raises(ConfigError, match=f"d_model is {d_model} and n_heads is {n_heads}"):
        DecoderConfig(V, d_model=d_model, n_heads=n_heads)


def test_a_shape_rebuilds_the_model():
    config = DecoderConfig(V, d_model=16, n_heads=2, tie_embeddings=True)
    again = Decoder(DecoderConfig(**config.to_dict()))

    again.load_state_dict(Decoder(config).state_dict())
    assert again.config == config


# Attention


@pytest.mark.parametrize("t", [0, 1, 5, 11])
def test_a_changed_token_changes_no_logits_before_it(t, busy_model):
    ids = torch.randint(V, (2, 12))
    changed = ids.clone()
    changed[:, t] = (ids[:, t] + 1) % V
    before, after = busy_model(ids), busy_model(changed)

    assert torch.equal(before[:, :t], after[:, :t])
    assert (before[:, t:] != after[:, t:]).any(-1).all()


def test_the_rows_of_a_batch_do_not_see_each_other(busy_model):
    ids = torch.randint(V, (3, 8))
    alone = torch.cat([busy_model(row[None]) for row in ids])

    assert torch.allclose(busy_model(ids), alone, atol=1e-5)


def test_only_the_distance_between_positions_matters(busy_model):
    """The same content anywhere in the text leaves a block the same."""
    x = torch.randn(2, 8, 16)
    cos, sin = _rotation(64, 8, 10_000.0, x.device)
    first, later = (busy_model.blocks[0](x, (cos[i : i + 8], sin[i : i + 8])) for i in (0, 50))

    assert torch.allclose(first, later, atol=1e-4)


def test_the_order_of_earlier_tokens_matters(busy_model):
    last = busy_model(torch.tensor([[1, 2, 3, 4], [2, 1, 3, 4]]))[:, -1]

    assert not torch.allclose(last[0], last[1], atol=1e-3)


def test_a_longer_text_after_a_shorter_one_is_read_as_if_alone(busy_model):
    ids = torch.randint(V, (1, 40))
    short = busy_model(ids[:, :5])
    long = busy_model(ids)

    assert torch.allclose(busy_model(ids[:, :5]), short)
    assert torch.allclose(long[:, :5], short, atol=1e-5)


def test_dropout_acts_in_training_only(tiny_model):
    model = tiny_model(V, dropout=0.5)
    nn.init.normal_(model.blocks[0].mlp.down.weight)
    ids = torch.randint(V, (1, 8))

    assert not torch.equal(model.train()(ids), model(ids))
    assert torch.equal(model.eval()(ids), model(ids))


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
def test_one_batch_is_learned_by_heart(tie, tiny_model):
    model = tiny_model(V, d_model=32, tie_embeddings=tie)
    ids = torch.randint(V, (4, 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(300):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1)[2:], ids[:, 1:].flatten()[2:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    # The second tokens of the sequences cannot all be told from the first ones.
    assert loss.item() < 0.1


# Size


def test_tied_weights_count_once(tiny_model):
    untied, tied = tiny_model(V), tiny_model(V, tie_embeddings=True)

    assert count_parameters(untied) - count_parameters(tied) == V * 16
    assert summarize(tied)["parameters"]["all"] == count_parameters(tied)


def test_the_size_of_a_decoder_by_hand(tiny_model):
    width, n_layers, ratio = 16, 3, 4
    block = 4 * width**2 + 2 * ratio * width**2 + 2 * width

    model = tiny_model(V, n_layers=n_layers)
    assert count_parameters(model) == 2 * V * width + n_layers * block + width


def test_frozen_parameters_are_left_out_on_demand(tiny_model):
    model = tiny_model(V)
    model.embedding.requires_grad_(False)

    assert count_parameters(model) - count_parameters(model, trainable_only=True) == V * 16


# Continuing a text


@pytest.mark.parametrize("n_tokens", [0, 1, 5])
def test_greedy_takes_the_likeliest_token_each_time(n_tokens, counter):
    assert generate(counter, [8], n_tokens, temperature=0) == [
        (8 + i) % V for i in range(n_tokens + 1)
    ]


def test_generation_ends_at_the_end_token(counter):
    assert generate(counter, [3, 4], 50, temperature=0, end_id=7) == [3, 4, 5, 6, 7]


def test_an_end_token_in_the_prompt_ends_nothing(counter):
    assert generate(counter, [7], 2, temperature=0, end_id=7) == [7, 8, 9]


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_a_continuation_is_a_function_of_its_seed(temperature, busy_model):
    first, same, other = (
        generate(busy_model, [1], 30, temperature=temperature, seed=seed) for seed in (0, 0, 1)
    )

    assert first == same
    assert (first == other) == (temperature == 0)


def test_one_candidate_is_the_likeliest(busy_model):
    assert generate(busy_model, [1], 9, top_k=1) == generate(busy_model, [1], 9, temperature=0)


def test_a_token_outside_the_best_k_is_never_drawn():
    """Tokens 0 to 2 are far ahead of the rest, which a high temperature makes likely."""
    model = nn.Embedding.from_pretrained(torch.tensor([[1.0] * 3 + [0.0] * (V - 3)] * V))

    assert set(generate(model, [0], 200, top_k=3, temperature=100.0)) == {0, 1, 2}


def test_generating_leaves_no_trace(busy_model):
    busy_model.train()
    before = torch.get_rng_state()
    generate(busy_model, [1, 2], 5)

    assert torch.equal(torch.get_rng_state(), before)
    assert busy_model.training
    assert all(p.grad is None for p in busy_model.parameters())


def test_a_model_that_fails_is_left_in_its_mode(busy_model):
    busy_model.train()
    with pytest.raises(IndexError):
        generate(busy_model, [V], 1)

    assert busy_model.training


def test_a_model_gets_no_more_than_its_context(busy_model):
    lengths = []
    busy_model.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    generate(busy_model, [1, 2], 5, context=4)

    assert lengths == [2, 3, 4, 4, 4]


class Wrapped(nn.Module):
    def __init__(self, model, wrap):
        super().__init__()
        self.model, self.wrap = model, wrap

    def forward(self, input_ids):
        return self.wrap(self.model(input_ids))


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda logits: (logits, "cache"), id="tuple"),
        pytest.param(lambda logits: {"logits": logits}, id="dict"),
        pytest.param(lambda logits: SimpleNamespace(logits=logits), id="object"),
    ],
)
def test_a_model_may_return_its_logits_in_any_way_that_training_takes(wrap, counter):
    assert generate(Wrapped(counter, wrap), [1], 2, temperature=0) == [1, 2, 3]


def test_an_empty_prompt_is_refused(counter):
    with pytest.raises(ValueError, match="prompt is empty"):
        generate(counter, [], 1)


def test_a_text_is_continued_without_its_end_token(tiny_model):
    text = complete_text(tiny_model(), ByteTokenizer(), "def ", 8, seed=1)

    assert text.startswith("def ")
    assert len(text) <= 12

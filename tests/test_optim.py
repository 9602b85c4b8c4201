"""Optimizers do what torch and the papers say, and each parameter gets its rule."""

import copy

import pytest
import torch
from torch import nn

from helpers.engine.muon import muon_step, orthogonalize
from helpers.engine.optim import (
    OptimizerFactory,
    check_same_tensors,
    clip_gradients,
    sort_parameters,
)
from helpers.errors import CheckpointError, ConfigError

SHAPES = [(64, 40), (96, 24), (24, 96), (2, 50)]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 4))


def fill_gradients(model: nn.Module, seed: int, scale: float = 1.0) -> None:
    rng = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=rng)


def equal_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def muon_update(weight: nn.Parameter, gradient: torch.Tensor, **changes) -> None:
    settings = {"lr": 1.0, "weight_decay": 0.0, "momentum": 0.95, "dtype": torch.float32}
    with torch.no_grad():
        muon_step([weight], [gradient], [torch.zeros_like(weight)], **settings | changes)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.lm_head = nn.Linear(4, 11)
        self.lm_head.weight = self.embedding.weight


class Untied(nn.Module):
    def __init__(self, head: str = "head", n_outputs: int = 11):
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.hidden = nn.Linear(4, 4, bias=False)
        self.add_module(head, nn.Linear(4, n_outputs, bias=False))


def frozen() -> nn.Module:
    model = small_net()
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_ten_adamw_updates_equal_those_of_torch(tiny_config, fused):
    ours, theirs = small_net(), small_net()
    config = tiny_config(optimizer="adamw", learning_rate=0.02, weight_decay=0.3, beta1=0.8)
    optimizer = OptimizerFactory.create(ours, config)
    matrices = [p for p in theirs.parameters() if p.dim() == 2]
    vectors = [p for p in theirs.parameters() if p.dim() != 2]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.02,
        betas=(0.8, 0.95),
        eps=1e-8,
        fused=fused,
    )
    for step in range(10):
        fill_gradients(ours, step)
        fill_gradients(theirs, step)
        optimizer.step()
        reference.step()

    assert not fused or equal_weights(ours, theirs)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


def test_the_factor_of_the_schedule_scales_the_learning_rate(tiny_config):
    ours, other = small_net(), small_net()
    fill_gradients(ours, 0)
    fill_gradients(other, 0)
    OptimizerFactory.create(ours, tiny_config(learning_rate=0.04)).step(0.25)
    OptimizerFactory.create(other, tiny_config(learning_rate=0.01)).step(1.0)

    assert equal_weights(ours, other)


@pytest.mark.parametrize("rule", ["adamw", "muon"])
def test_parameters_without_a_gradient_stay_as_they_are(tiny_config, rule):
    model = small_net()
    before = copy.deepcopy(model)
    optimizer = OptimizerFactory.create(model, tiny_config(optimizer=rule))
    fill_gradients(model, 0)
    model[3].weight.grad = model[3].bias.grad = None
    optimizer.step()

    assert equal_weights(model[3], before[3])
    assert not torch.equal(model[0].weight, before[0].weight)
    assert not torch.equal(model[0].bias, before[0].bias)


@pytest.mark.parametrize("rule", ["adamw", "muon"])
def test_restored_state_goes_on_as_if_never_stored(tiny_config, rule):
    model, config = small_net(), tiny_config(optimizer=rule)
    optimizer = OptimizerFactory.create(model, config)
    fill_gradients(model, 0)
    optimizer.step()
    other = copy.deepcopy(model)
    restored = OptimizerFactory.create(other, config)
    restored.load_state_tensors({k: t.clone() for k, t in optimizer.state_tensors().items()})
    for net, stepper in ((model, optimizer), (other, restored)):
        fill_gradients(net, 1)
        stepper.step()

    assert equal_weights(model, other)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(lambda t: t.pop("a"), "lacks ['a']", id="missing"),
        pytest.param(lambda t: t.update(c=torch.ones(1)), "['c'] too many", id="unknown"),
        pytest.param(lambda t: t.update(b=torch.ones(3)), "['b'] in another shape", id="shape"),
    ],
)
def test_state_that_does_not_fit_is_refused_by_name(change, named):
    own = {"a": torch.zeros(1), "b": torch.zeros(2)}
    loaded = dict(own)
    change(loaded)

    with pytest.raises(CheckpointError) as caught:
        check_same_tensors("optimizer", own, loaded)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        pytest.param(
            Tied(), [set(), {"embedding.weight"}, set(), {"lm_head.bias"}], id="tied head"
        ),
        pytest.param(
            Untied(),
            [{"hidden.weight"}, {"embedding.weight"}, {"head.weight"}, set()],
            id="head by name and size",
        ),
        pytest.param(
            Untied("score", 3),
            [{"hidden.weight"}, {"embedding.weight"}, {"score.weight"}, set()],
            id="head by name",
        ),
        pytest.param(
            Untied("unembed"),
            [{"hidden.weight"}, {"embedding.weight"}, {"unembed.weight"}, set()],
            id="head by size",
        ),
        pytest.param(
            Untied("second", 3),
            [{"hidden.weight", "second.weight"}, {"embedding.weight"}, set(), set()],
            id="no head",
        ),
        pytest.param(
            small_net(),
            [{"0.weight", "3.weight"}, set(), set(), {"0.bias", "2.weight", "2.bias", "3.bias"}],
            id="bias and norm",
        ),
        pytest.param(
            nn.Conv1d(2, 3, 3), [set(), set(), set(), {"weight", "bias"}], id="convolution"
        ),
        pytest.param(
            nn.Linear(4, 1), [set(), set(), set(), {"weight", "bias"}], id="one row is a vector"
        ),
        pytest.param(
            frozen(),
            [{"3.weight"}, set(), set(), {"2.weight", "2.bias", "3.bias"}],
            id="frozen ones are left out",
        ),
    ],
)
def test_every_parameter_is_sorted_by_its_role(model, wanted):
    assert [set(group) for group in sort_parameters(model)] == wanted


@pytest.mark.parametrize(
    ("rule", "rules"),
    [
        pytest.param("muon", ["muon", "adamw", "adamw"], id="muon"),
        pytest.param("adamw", ["adamw", "adamw", "adamw"], id="adamw"),
    ],
)
def test_muon_updates_hidden_matrices_only_and_only_they_decay(tiny_config, rule, rules):
    optimizer = OptimizerFactory.create(Untied(), tiny_config(optimizer=rule))

    assert [group.rule for group in optimizer.groups] == rules
    assert [group.weight_decay for group in optimizer.groups] == [0.1, 0.0, 0.0]
    assert [group.n_parameters for group in optimizer.groups] == [16, 44, 44]


def test_a_model_with_nothing_to_train_is_refused(tiny_config):
    with pytest.raises(ConfigError, match="no parameter with requires_grad"):
        OptimizerFactory.create(small_net().requires_grad_(False), tiny_config())


@pytest.mark.parametrize("max_norm", [0.5, 1e6], ids=["clipped", "below the limit"])
def test_clipping_equals_that_of_torch(max_norm):
    ours, theirs = small_net(), small_net()
    fill_gradients(ours, 0)
    fill_gradients(theirs, 0)
    norm = clip_gradients([p.grad for p in ours.parameters()], max_norm)
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)

    torch.testing.assert_close(norm, expected)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_limit_of_zero_leaves_gradients_as_they_are():
    gradients = [torch.full((3,), 100.0)]
    norm = clip_gradients(gradients, 0.0)

    assert torch.equal(gradients[0], torch.full((3,), 100.0))
    assert norm == pytest.approx(100 * 3**0.5)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_orthogonalized_matrices_have_singular_values_near_one(shape, dtype):
    values = torch.linalg.svdvals(orthogonalize(matrix(*shape)[None], dtype)[0].float())

    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e3, 1e12])
def test_orthogonalizing_does_not_depend_on_the_scale_of_gradients(scale, dtype):
    gradient = matrix(32, 48)[None]
    plain = orthogonalize(gradient, torch.float32)
    scaled = orthogonalize(scale * gradient, dtype).float()

    assert (scaled - plain).norm() / plain.norm() < (1e-4 if dtype == torch.float32 else 0.05)


def test_orthogonalizing_keeps_matrices_of_a_stack_apart():
    stack = torch.stack([matrix(8, 12, seed) for seed in range(3)])
    together = orthogonalize(stack, torch.float32)
    alone = torch.cat([orthogonalize(one[None], torch.float32) for one in stack])

    torch.testing.assert_close(together, alone)


def test_a_gradient_of_zero_updates_nothing():
    assert torch.equal(
        orthogonalize(torch.zeros(1, 4, 6), torch.float16), torch.zeros(1, 4, 6).half()
    )


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_an_update_of_muon_has_the_size_of_one_of_adamw(shape):
    weight = nn.Parameter(torch.zeros(shape))
    muon_update(weight, matrix(*shape))

    assert weight.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.35)


def test_weight_decay_of_muon_shrinks_weights_by_rate_times_decay():
    weight = nn.Parameter(matrix(4, 6))
    before = weight.detach().clone()
    muon_update(weight, torch.zeros(4, 6), lr=0.5, weight_decay=0.1)

    torch.testing.assert_close(weight.detach(), before * 0.95)

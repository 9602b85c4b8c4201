"""Losses add up over any cut of a batch, and any module can be judged, or is refused aloud."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.data import Batch, collate
from helpers.errors import ConfigError, TaskError
from helpers.objectives import Objective, perplexity, shifted_labels, token_loss_sum
from helpers.task import TaskSpec

V = 7


def random_batch(n=4, time=5, seed=0):
    """Tokens and labels, of which every third is ignored."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (n, time), generator=rng)
    labels = torch.randint(V, (n, time), generator=rng)
    labels.view(-1)[::3] = -100
    return Batch({"input_ids": ids, "labels": labels}, n)


@pytest.fixture
def table():
    """A model in double precision whose logits are looked up by token."""
    torch.manual_seed(0)
    return nn.Embedding(V, V, dtype=torch.float64)


# Losses


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 64)], ids=str)
def test_loss_sum_over_count_is_the_mean_cross_entropy(shape):
    torch.manual_seed(0)
    logits, labels = torch.randn(*shape, V), torch.randint(V, shape)

    mean = token_loss_sum(logits, labels) / labels.numel()
    assert torch.allclose(mean, F.cross_entropy(logits.flatten(0, 1), labels.flatten()))


@pytest.mark.parametrize("ignored", [-100, 0])
def test_an_ignored_label_adds_nothing(ignored):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 6, V), torch.randint(1, V, (2, 6))
    labels[:, ::2] = ignored

    kept = token_loss_sum(logits[:, 1::2], labels[:, 1::2])
    assert torch.allclose(token_loss_sum(logits, labels, ignored), kept)


def test_a_batch_without_labels_that_count_has_a_loss_of_zero():
    logits = torch.randn(2, 3, V, requires_grad=True)
    loss = token_loss_sum(logits, torch.full((2, 3), -100))
    loss.backward()

    assert loss == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_parts_of_a_batch_add_up_to_the_whole(size, table):
    batch, objective = random_batch(n=4), Objective(TaskSpec(), table)
    parts = list(batch.split(size))

    whole = objective.sums(batch)
    assert torch.allclose(sum(map(objective.sums, parts)), whole)
    assert torch.allclose(sum(map(objective.loss_sum, parts)), objective.loss_sum(batch))
    assert sum(int(objective.count(part)) for part in parts) == int(objective.count(batch))


def test_gradients_of_parts_add_up_to_that_of_the_whole(table):
    batch, objective = random_batch(n=4), Objective(TaskSpec(), table)
    whole = torch.autograd.grad(objective.loss_sum(batch), table.weight)[0]
    parts = [torch.autograd.grad(objective.loss_sum(p), table.weight)[0] for p in batch.split(1)]

    assert torch.allclose(sum(parts), whole)


def test_padding_changes_no_sum(table):
    rows = [torch.tensor(ids) for ids in ([1, 2, 3, 4, 5], [6, 1], [3, 0, 2])]
    objective = Objective(TaskSpec(), table)
    alone = [objective.sums(collate([{"input_ids": row}])) for row in rows]

    assert torch.allclose(objective.sums(collate([{"input_ids": r} for r in rows])), sum(alone))


def test_labels_follow_from_the_inputs_where_a_batch_has_none(table):
    ids = torch.tensor([[1, 2, 3]])
    objective = Objective(TaskSpec(), table)

    assert objective.labels(Batch({"input_ids": ids}, 1)).tolist() == [[2, 3, -100]]
    assert objective.count(Batch({"input_ids": ids}, 1)) == 2


@pytest.mark.parametrize("ignored", [-100, -1])
def test_labels_that_follow_from_the_inputs_end_with_an_ignored_one(ignored, table):
    objective = Objective(TaskSpec(ignore_index=ignored), table)
    batch = Batch({"input_ids": torch.tensor([[1, 2, 3]])}, 1)

    assert objective.count(batch) == 2
    assert objective.loss_sum(batch).isfinite()


def test_the_padding_of_the_last_window_is_ignored_under_any_index(data, tiny_model):
    last = data.val.gather(np.array([len(data.val) - 1]))
    usual, other = (
        Objective(TaskSpec(ignore_index=index), tiny_model()).sums(last) for index in (-100, -1)
    )

    assert (last["labels"] == -100).any()
    assert torch.equal(usual, other)


def test_shifting_twice_looks_two_tokens_ahead():
    ids = torch.arange(5).view(1, 5)

    assert shifted_labels(ids).tolist() == [[1, 2, 3, 4, -100]]
    assert shifted_labels(shifted_labels(ids)).tolist() == [[2, 3, 4, -100, -100]]


# Metrics


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        (0.0, 1.0),
        (math.log(257), 257.0),
        (701.0, math.inf),
        (1e308, math.inf),
        (math.inf, math.inf),
    ],
)
def test_perplexity_is_the_exponential_where_a_float_holds_it(loss, value):
    assert perplexity(loss) == pytest.approx(value)


def test_metrics_by_hand():
    """Two of four targets are hit; a loss of 4 ln 2 over two bytes is two bits a byte."""
    objective = Objective(TaskSpec(), nn.Embedding(2, 2))
    values = objective.metrics_from(torch.tensor([4 * math.log(2), 4, 2, 2]))

    assert values == pytest.approx(
        {"loss": math.log(2), "perplexity": 2.0, "accuracy": 0.5, "bits_per_byte": 2.0}
    )


def test_bits_per_byte_count_the_bytes_of_the_labels(table):
    batch, n_bytes = random_batch(), torch.arange(V) + 1
    objective, labels = Objective(TaskSpec(), table), batch["labels"][batch["labels"] != -100]
    loss_sum, targets, _, total = objective.sums(batch, n_bytes).tolist()

    assert total == n_bytes[labels].sum()
    assert targets == len(labels)
    assert loss_sum == pytest.approx(objective.loss_sum(batch).item())


def test_without_bytes_there_are_no_bits_per_byte(table):
    objective = Objective(TaskSpec(), table)

    assert "bits_per_byte" not in objective.metrics_from(objective.sums(random_batch()))


@pytest.mark.parametrize("names", [("loss",), ("accuracy", "loss")], ids=", ".join)
def test_only_the_metrics_of_the_task_are_returned(names, table):
    objective = Objective(TaskSpec(metrics=names), table)

    assert tuple(objective.metrics_from(objective.sums(random_batch()))) == names


def test_an_even_guess_costs_ln_of_the_vocabulary():
    model = nn.Embedding.from_pretrained(torch.zeros(V, V))
    objective = Objective(TaskSpec(), model)

    loss = objective.metrics_from(objective.sums(random_batch()))["loss"]
    assert loss == pytest.approx(math.log(V))


# Any module


class Net(nn.Module):
    """Looks logits up by token; subclasses differ in how they are called."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(V, V)


class Named(Net):
    def forward(self, input_ids):
        return self.table(input_ids)


class OtherName(Net):
    def forward(self, x, scale=1.0):
        return self.table(x) * scale


class PositionalOnly(Net):
    def forward(self, x, /):
        return self.table(x)


class KeywordOnly(Net):
    def forward(self, *, input_ids):
        return self.table(input_ids)


class Star(Net):
    def forward(self, *inputs):
        return self.table(inputs[0])


class StarStar(Net):
    def forward(self, **inputs):
        return self.table(inputs["input_ids"])


class PlaceAndStarStar(Net):
    def forward(self, x, **options):
        assert not options
        return self.table(x)


class TakesLabels(Net):
    def forward(self, input_ids, labels=None):
        assert labels is None
        return self.table(input_ids)


class InTuple(Net):
    def forward(self, input_ids):
        return self.table(input_ids), "cache"


class InDict(Net):
    def forward(self, input_ids):
        return {"cache": 1, "logits": self.table(input_ids)}


class InObject(Net):
    def forward(self, input_ids):
        return SimpleNamespace(cache=1, logits=self.table(input_ids))


@pytest.mark.parametrize(
    "kind",
    [
        *(Named, OtherName, PositionalOnly, KeywordOnly, Star, StarStar, PlaceAndStarStar),
        *(TakesLabels, InTuple, InDict, InObject),
    ],
)
def test_a_module_is_fed_whatever_its_signature_and_output(kind):
    batch, model = random_batch(), kind()

    assert torch.equal(Objective(TaskSpec(), model).logits(batch), model.table(batch["input_ids"]))


class TwoInputs(Net):
    def forward(self, image, text):
        return self.table(text) + image[..., None]


def test_a_module_with_two_inputs_gets_each_by_name():
    batch = random_batch()
    image = torch.rand(4, 5)
    two = Batch({"text": batch["input_ids"], "image": image, "labels": batch["labels"]}, 4)
    objective = Objective(TaskSpec(inputs=("text", "image")), TwoInputs())

    wanted = objective.logits(two) - image[..., None]
    assert torch.allclose(wanted, Named()(batch["input_ids"]), atol=1e-6)


class Masked(Net):
    def forward(self, input_ids, attention_mask=None):
        assert attention_mask is not None
        return self.table(input_ids)


@pytest.mark.parametrize("kind", [Masked, Named], ids=["taken", "not taken"])
def test_an_attention_mask_is_given_to_a_module_that_takes_it(kind):
    batch = collate([{"input_ids": [1, 2, 3]}, {"input_ids": [1]}])

    assert Objective(TaskSpec(), kind()).logits(batch).shape == (2, 3, V)


def test_another_forward_is_called_in_place_of_the_module():
    model = Named()
    objective = Objective(TaskSpec(), model, lambda **inputs: 2 * model(**inputs))

    batch = random_batch()
    assert torch.equal(objective.logits(batch), 2 * model(batch["input_ids"]))


# Errors


class Wants(Net):
    def forward(self, input_ids, images):
        return self.table(input_ids)


class WantsByPosition(Net):
    def forward(self, x, images):
        return self.table(x)


class WantsAfterPositionalOnly(Net):
    def forward(self, x, /, images):
        return self.table(x)


class WantsTwoPositionalOnly(Net):
    def forward(self, x, images, /):
        return self.table(x)


class WantsKeywordOnly(Net):
    def forward(self, input_ids, *, images):
        return self.table(input_ids)


class WantsBesideStar(Net):
    def forward(self, *inputs, images):
        return self.table(inputs[0])


class WantsAnotherKeyword(Net):
    def forward(self, *, images):
        return self.table(images)


class WantsNothing(Net):
    def forward(self):
        return self.table.weight


@pytest.mark.parametrize(
    "kind",
    [
        *(Wants, WantsByPosition, WantsAfterPositionalOnly, WantsTwoPositionalOnly),
        *(WantsKeywordOnly, WantsBesideStar, WantsAnotherKeyword),
    ],
)
def test_a_forward_that_needs_more_is_refused_before_the_first_batch(kind):
    with pytest.raises(TaskError, match="images"):
        Objective(TaskSpec(), kind())


def test_a_forward_without_inputs_is_refused():
    with pytest.raises(TaskError, match="input_ids"):
        Objective(TaskSpec(), WantsNothing())


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        pytest.param(("tokens", "image"), "takes .*input_ids.* and not", id="two unknown names"),
        pytest.param(("input_ids", "image"), "image", id="one unknown name"),
    ],
)
def test_inputs_that_forward_does_not_take_are_refused(inputs, words):
    with pytest.raises(TaskError, match=words):
        Objective(TaskSpec(inputs=inputs), Named())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"ids": [[1, 2]]}, "wants .'input_ids'.", id="missing field"),
        pytest.param(
            {"input_ids": [[1, 2]], "weights": [[1, 1]]}, "'weights'.*Leave them out", id="unused"
        ),
        pytest.param({"input_ids": [[1, 2]], "labels": [[1, V]]}, f"a label is {V}", id="label"),
        pytest.param({"input_ids": [[1, 2]], "labels": [[1]]}, "(1, 1, 'V')", id="label shape"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(fields, words):
    batch = Batch({name: torch.tensor(value) for name, value in fields.items()}, 1)

    with pytest.raises(TaskError, match=words.replace("(1, 1, 'V')", r"\(1, 1, 'V'\)")):
        Objective(TaskSpec(), Named()).logits(batch)


class Returns(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, input_ids):
        return self.output


@pytest.mark.parametrize(
    ("output", "got"),
    [
        pytest.param(torch.zeros(4, V), r"\(4, 7\)", id="one label a sequence"),
        pytest.param(torch.zeros(4, V, 5), r"\(4, 7, 5\)", id="vocabulary in the middle"),
        pytest.param(torch.zeros(4, 5, 2, V), r"\(4, 5, 2, 7\)", id="four dimensions"),
        pytest.param({"scores": torch.zeros(4, 5, V)}, "dict", id="dict without logits"),
        pytest.param(None, "NoneType", id="nothing"),
        pytest.param((), "tuple", id="empty tuple"),
    ],
)
def test_an_output_without_logits_of_the_right_shape_is_refused(output, got):
    with pytest.raises(TaskError, match=f"returned {got}.* wants logits of shape"):
        Objective(TaskSpec(), Returns(output)).logits(random_batch())


def test_a_task_error_is_a_type_error():
    with pytest.raises(TypeError):
        Objective(TaskSpec(), WantsNothing())


# The task


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"kind": "regression"}, "the tasks are causal_lm", id="kind"),
        pytest.param({"metrics": ("loss", "f1")}, "'f1'.*the metrics are loss", id="metric"),
        pytest.param({"inputs": ()}, "inputs is empty", id="no input"),
    ],
)
def test_a_wrong_task_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        TaskSpec(**changes)


def test_a_task_is_plain_data():
    task = TaskSpec.causal_lm(inputs=("tokens",))
    values = task.to_dict()

    assert values["inputs"] == ["tokens"]
    assert (
        TaskSpec(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}) == task
    )

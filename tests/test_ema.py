"""The average of weights: what it is, when it changes, and how exactly it is swapped in and out."""

import contextlib
import math

import numpy as np
import pytest
import torch
from torch import nn

from helpers.data.packing import MapSamples
from helpers.engine.callbacks import Callback
from helpers.engine.ema import WeightAverage
from helpers.engine.run_folder import RunFolder
from helpers.errors import CheckpointError
from helpers.export import load_export

DECAY = 0.9


class Call(Callback):
    """Call something with the run at one moment."""

    def __init__(self, method, act):
        setattr(self, method, lambda run, *details: act(run))


@pytest.fixture
def model() -> nn.Module:
    """Weights of two types, one of them frozen, and a buffer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2).double())
    model[0].bias.requires_grad_(False)
    return model


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


def same(a, b) -> bool:
    """Equal in every bit, so that NaN and the sign of zero count."""
    return a.keys() == b.keys() and all(
        torch.equal(a[n].reshape(-1).view(torch.uint8), b[n].reshape(-1).view(torch.uint8))
        for n in a
    )


def shake(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)


def sequences(n: int) -> list[dict]:
    ids = torch.randint(257, (n, 9), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row[:-1], "labels": row[1:]} for row in ids]


def test_the_average_is_the_formula(model):
    average, by_hand = WeightAverage(model, DECAY), model[2].weight.detach().clone()
    for n in range(1, 40):
        shake(model)
        average.update(n)
        decay = min(DECAY, (1 + n) / (10 + n))
        by_hand = decay * by_hand + (1 - decay) * model[2].weight.detach()

    torch.testing.assert_close(average.state_tensors()["2.weight"], by_hand, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.9999])
def test_the_decay_warms_up_to_its_value_and_no_further(model, decay):
    average = WeightAverage(model, decay)
    decays = [average.decay_after(n) for n in range(1, 200_000, 97)]

    assert decays[0] == 2 / 11
    assert decays == sorted(decays)
    assert decays[-1] == decay


def test_trainable_weights_alone_are_averaged(model):
    names = WeightAverage(model, DECAY).state_tensors().keys()

    assert names == {"0.weight", "1.weight", "1.bias", "2.weight", "2.bias"}


def test_a_shared_weight_is_averaged_once():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    average = WeightAverage(model, DECAY)
    shake(model)
    average.update(1)
    average.copy_to_model()

    assert list(average.state_tensors()) == ["0.weight"]
    assert model[1].weight is model[0].weight


def test_weights_of_bf16_are_averaged_in_fp32():
    model = nn.Linear(64, 64).bfloat16()
    average = WeightAverage(model, 0.9999)
    before = average.state_tensors()["weight"].clone()
    with torch.no_grad():
        model.weight += 1
    for n in range(100_000, 100_010):
        average.update(n)

    assert average.state_tensors()["weight"].dtype == torch.float32
    assert (average.state_tensors()["weight"] > before).all()


def test_a_step_that_is_held_back_on_the_device_leaves_the_average(model):
    average = WeightAverage(model, DECAY)
    shake(model)
    average.update(1)
    before = {name: t.clone() for name, t in average.state_tensors().items()}
    shake(model)
    average.update(2, held=torch.ones(()))

    assert same(average.state_tensors(), before)


def test_a_step_that_is_not_held_back_counts_as_without_a_guard(model):
    averages = [WeightAverage(model, DECAY) for _ in range(2)]
    for n in range(1, 20):
        shake(model)
        averages[0].update(n)
        averages[1].update(n, held=torch.zeros(()))

    assert same(*(average.state_tensors() for average in averages))


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_weights_come_back_bit_for_bit_whatever_happens(model, error):
    average = WeightAverage(model, DECAY)
    shake(model)
    with torch.no_grad():
        model[0].weight[0] = torch.tensor([math.nan, -0.0, 1e-42])
    before, inside = weights(model), {}
    addresses = [p.data_ptr() for p in model.parameters()]
    with contextlib.suppress(error or ()), average.swapped_in(), average.swapped_in():
        inside = weights(model)
        if error is not None:
            raise error

    assert same(weights(model), before)
    assert not same(inside, before)
    assert [p.data_ptr() for p in model.parameters()] == addresses


def test_nothing_is_saved_while_the_weights_are_swapped(model):
    average = WeightAverage(model, DECAY)

    with average.swapped_in(), pytest.raises(AssertionError, match="swapped"):
        average.state_tensors()


# Through the trainer


def test_a_run_without_an_average_has_no_trace_of_one(make_trainer, data):
    trainer = make_trainer(run_name="r", eval_every=4)
    result = trainer.train(data.train, data.val)
    snapshot = RunFolder(result.run_dir).checkpoints.load(12)

    assert "ema" not in snapshot.sections
    assert same(weights(trainer.model), snapshot.sections["model"])
    assert result.weights == "those of the last step"
    assert "weights" not in dict(result.rows())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_average_leaves_the_training_as_it_is(make_trainer, data, optimizer):
    settings = {"dropout": 0.1, "eval_every": 5, "optimizer": optimizer}
    without = make_trainer(run_name="without", **settings).train(data.train, data.val)
    averaged = make_trainer(run_name="with", ema_decay=DECAY, **settings)
    result = averaged.train(data.train, data.val)
    stores = [RunFolder(r.run_dir).checkpoints for r in (without, result)]

    assert same(*(store.load(12).sections["model"] for store in stores))
    assert result.history["train/loss"].tolist() == without.history["train/loss"].tolist()
    assert result.final_loss != without.final_loss


def test_validation_best_result_and_export_are_of_the_average(make_trainer, data):
    trainer = make_trainer(run_name="r", ema_decay=DECAY, eval_every=6, learning_rate=0.05)
    result = trainer.train(data.train, data.val)
    snapshot = RunFolder(result.run_dir).checkpoints.load(12)
    exported = load_export(RunFolder(result.run_dir).model_file)

    average = snapshot.sections["ema"]
    assert same(dict(trainer.model.named_parameters()), average)
    assert same({n: exported["model_state_dict"][n] for n in average}, average)
    assert not same(snapshot.sections["model"], average)
    assert trainer.evaluate(data.val)["loss"] == result.final_loss
    assert "moving average with decay 0.9" in exported["results"]["weights"]
    assert "moving average" in dict(result.rows())["weights"]


def test_callbacks_are_told_of_a_validation_while_the_model_is_what_was_validated(
    make_trainer, data
):
    losses, trainers = {}, []

    def evaluate(run):
        step = run.state.step
        losses[step] = trainers[0].evaluate(data.val, 256)["loss"], run.tracker.rows[-1]["val/loss"]

    settings = {"ema_decay": DECAY, "eval_every": 4, "eval_sequences": 256}
    trainers.append(make_trainer(callbacks=[Call("on_evaluate", evaluate)], **settings))
    result = trainers[0].train(data.train, data.val)

    assert [ours for ours, _ in losses.values()] == [told for _, told in losses.values()]
    assert result.best_loss == min(told for _, told in losses.values())


def test_a_callback_that_fails_in_a_validation_leaves_the_raw_weights(make_trainer, data):
    def fail(run):
        raise RuntimeError("no")

    call = [Call("on_evaluate", fail)]
    trainer = make_trainer(run_name="r", ema_decay=DECAY, eval_every=4, callbacks=call)
    with pytest.raises(RuntimeError, match="no"):
        trainer.train(data.train, data.val)
    snapshot = RunFolder(trainer.training_config.output_dir + "/r").checkpoints.load(4)

    assert same(weights(trainer.model), snapshot.sections["model"])


def test_an_overflow_in_fp16_leaves_the_average(make_trainer, data):
    def look(run):
        seen.append(run.state.updates)

    seen: list[int] = []
    call = [Call("on_log", look)]
    result = make_trainer(precision="fp16", ema_decay=DECAY, callbacks=call).train(data.train)
    average = RunFolder(result.run_dir).checkpoints.load(12)

    assert average.state["run"]["updates"] <= 12
    assert all(torch.isfinite(t).all() for t in average.sections["ema"].values())


@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_a_step_with_an_infinite_loss_never_enters_the_average(make_trainer, policy):
    samples = MapSamples(sequences(48))
    trainer = make_trainer(run_name="r", ema_decay=DECAY, on_nonfinite=policy, save_every=4)
    calls = []

    def spoil(module, inputs, output):
        calls.append(1)
        return output * math.nan if module.training and len(calls) == 7 else output

    trainer.model.register_forward_hook(spoil)
    result = trainer.train(samples)
    average = RunFolder(result.run_dir).checkpoints.load(12).sections["ema"]

    assert result.status == "completed"
    assert all(torch.isfinite(t).all() for t in average.values())


def test_a_run_with_another_decay_is_refused_by_name(make_trainer, data):
    make_trainer(run_name="r", ema_decay=DECAY).train(data.train)

    with pytest.raises(CheckpointError, match=r"ema_decay: was 0\.9, is 0\.0"):
        make_trainer(run_name="r").train(data.train)


def test_a_checkpoint_without_the_average_is_refused_where_one_is_wanted(make_trainer, data):
    """As of a run that an earlier version wrote, whose run.json did not know the setting."""
    result = make_trainer(run_name="r").train(data.train)
    folder = RunFolder(result.run_dir)
    folder.result_file.unlink()
    identity = folder.read_identity()
    del identity["settings"]["ema_decay"]
    folder.write_identity(identity)
    again = make_trainer(run_name="r").train(data.train)

    assert again.resumed_from == 12
    with pytest.raises(CheckpointError, match=r"ema_decay: was 0\.0, is 0\.9"):
        make_trainer(run_name="r", ema_decay=DECAY).train(data.train)


def test_the_plan_counts_the_average(make_trainer, data):
    plain, averaged = (make_trainer(ema_decay=d).plan(data.train) for d in (0.0, DECAY))

    extra = averaged.optimizer_mib - plain.optimizer_mib
    assert extra == pytest.approx(plain.gradients_mib)


def test_an_average_of_noisy_weights_is_nearer_to_their_mean():
    """What it is for: the noise of single updates falls by about (1 - decay) / (1 + decay)."""
    model, rng = nn.Linear(100, 100, bias=False), np.random.default_rng(0)
    with torch.no_grad():
        model.weight.zero_()
    average = WeightAverage(model, DECAY)
    for n in range(1, 300):
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(rng.normal(size=(100, 100))))
        average.update(n)

    variance = average.state_tensors()["weight"].var().item()
    assert variance == pytest.approx((1 - DECAY) / (1 + DECAY), rel=0.1)

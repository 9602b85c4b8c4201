"""A global batch gives one gradient however it is cut, and everything is counted."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.data.collate import IGNORED
from helpers.data.packing import MapSamples
from helpers.engine.callbacks import Callback
from helpers.engine.device import plan_device
from helpers.engine.inputs import samples_for
from helpers.engine.loop import TrainingLoop
from helpers.engine.optim import OptimizerFactory
from helpers.engine.run import Run
from helpers.engine.run_folder import RunFolder
from helpers.engine.schedule import SchedulerFactory
from helpers.engine.snapshot import restore_run, save_run
from helpers.errors import DivergedError
from helpers.objectives import Objective
from helpers.task import TaskSpec


class Averager(nn.Module):
    """Predict each token from the mean of those before it, in double precision."""

    def __init__(self, vocab_size: int = 23, width: int = 8):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(vocab_size, width)
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, vocab_size)
        self.double()

    def forward(self, input_ids):
        x = self.embedding(input_ids).cumsum(1)
        x = x / torch.arange(1, x.shape[1] + 1)[:, None]
        return self.head(torch.tanh(self.hidden(x)))


class Seen(MapSamples):
    """Samples that remember which of them were drawn, in order."""

    def __init__(self, dataset):
        super().__init__(dataset)
        self.drawn: list[int] = []
        self.fingerprint = f"{len(dataset)} seen"

    def gather(self, index):
        self.drawn += index.tolist()
        return super().gather(index)


def packed_sequences(n: int, length: int = 12) -> list[dict]:
    rng = torch.Generator().manual_seed(n)
    ids = torch.randint(23, (n, length + 1), generator=rng)
    ids[:, 0] = torch.arange(n)  # no two begin alike, so that all can be known by heart
    return [{"input_ids": row[:-1], "labels": row[1:]} for row in ids]


def ragged_sequences(n: int) -> list[dict]:
    """Sequences of unequal length, some with labels that do not count."""
    rng = random.Random(n)
    samples = []
    for _ in range(n):
        ids = torch.tensor([rng.randrange(1, 23) for _ in range(rng.randrange(3, 15))])
        labels = torch.where(torch.rand(len(ids)) < 0.3, IGNORED, ids.roll(-1))
        samples.append({"input_ids": ids, "labels": labels})
    return samples


def unlabelled_sequences(n: int) -> list[dict]:
    return [{"input_ids": sample["input_ids"]} for sample in ragged_sequences(n)]


DATA_SETS = pytest.mark.parametrize(
    "make_samples",
    [
        pytest.param(packed_sequences, id="packed"),
        pytest.param(ragged_sequences, id="ragged with ignored labels"),
        pytest.param(unlabelled_sequences, id="ragged without labels"),
    ],
)


@pytest.fixture
def make_loop(tiny_config):
    """Make the loop of a config, with the fp16 scale it starts from."""

    def make(model, *, total_steps=12, scale=None, **changes) -> TrainingLoop:
        config = tiny_config(**changes)
        loop = TrainingLoop(
            model,
            Objective(TaskSpec.causal_lm(), model),
            OptimizerFactory.create(model, config),
            SchedulerFactory.create(config, total_steps),
            plan_device(model, config),
            batch_size=config.batch_size,
            micro_batch_size=config.micro_batch_size,
            max_grad_norm=config.max_grad_norm,
        )
        if scale is not None:
            loop.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        return loop

    return make


@pytest.fixture
def make_run(tiny_config, tmp_path):
    """Make a run of so many steps in a folder of its own."""

    def make(model, n_samples, *, total_steps=12, callbacks=(), **changes) -> Run:
        return Run(
            folder=RunFolder(tmp_path / "run"),
            config=tiny_config(**changes),
            model=model,
            total_steps=total_steps,
            n_train_samples=n_samples,
            callbacks=callbacks,
        )

    return make


def gradient_of(loop: TrainingLoop, samples: list[dict]) -> tuple[torch.Tensor, float]:
    batch = MapSamples(samples).gather(np.arange(len(samples)))
    loss_sum, count = loop.accumulate(batch)
    gradient = torch.cat([p.grad.flatten() for p in loop.model.parameters()])
    loop.optimizer.zero_grad()
    return gradient, float(loss_sum / count)


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@DATA_SETS
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_the_gradient_is_the_same_for_every_way_to_cut_the_batch(make_loop, make_samples, size):
    samples, model = make_samples(7), Averager()
    whole, loss = gradient_of(make_loop(model, batch_size=7), samples)
    parts, loss_of_parts = gradient_of(
        make_loop(model, batch_size=7, micro_batch_size=size), samples
    )

    assert largest_difference(parts, whole) < 1e-9
    assert loss_of_parts == pytest.approx(loss, rel=1e-6)


@DATA_SETS
def test_the_gradient_of_a_padded_batch_is_that_of_its_tokens_alone(make_loop, make_samples):
    samples, model = make_samples(7), Averager()
    whole, _ = gradient_of(make_loop(model, batch_size=7), samples)
    loss, count = torch.zeros((), dtype=torch.double), 0
    for sample in samples:
        ids = sample["input_ids"][None]
        labels = sample["labels"] if "labels" in sample else F.pad(ids[0, 1:], (0, 1), value=-100)
        loss = loss + F.cross_entropy(model(ids)[0].float(), labels, reduction="sum")
        count += int((labels != IGNORED).sum())
    (loss / count).backward()

    by_hand = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert largest_difference(whole, by_hand) < 1e-6


def test_one_batch_is_learned_by_heart(make_loop, make_run, tiny_model):
    samples = MapSamples(packed_sequences(4))
    model = tiny_model(vocab_size=23, d_model=32)
    loop = make_loop(model, total_steps=150, learning_rate=0.02, weight_decay=0.0)
    run = make_run(model, 4, total_steps=150)
    loop.run(run, samples, None, lambda run: None)

    assert loop.evaluate(samples)["loss"] < 0.02
    assert loop.evaluate(samples)["accuracy"] == 1.0


def test_steps_updates_samples_and_tokens_are_counted(make_loop, make_run):
    samples, model = packed_sequences(10), Averager()
    run = make_run(model, 10, total_steps=6)
    status = make_loop(model).run(run, MapSamples(samples), None, lambda run: None)

    assert status == "completed"
    assert (run.state.step, run.state.updates) == (6, 6)
    assert (run.state.samples, run.state.tokens) == (24, 24 * 12)
    assert run.epoch == 2.4


@pytest.mark.parametrize(
    ("epochs", "n_samples", "batches"),
    [
        pytest.param(1.0, 8, 2, id="one epoch of whole batches"),
        pytest.param(1.0, 10, 3, id="a ragged last batch"),
        pytest.param(3.0, 7, 6, id="batches across epochs"),
        pytest.param(0.5, 10, 2, id="half an epoch"),
        pytest.param(1.0, 4, 1, id="one batch"),
        pytest.param(0.01, 10, 1, id="less than a sample"),
    ],
)
def test_epochs_draw_each_sample_exactly_that_often(make_trainer, epochs, n_samples, batches):
    samples = Seen(packed_sequences(n_samples))
    trainer = make_trainer(epochs=epochs, max_steps=0)
    result = trainer.train(samples)

    counts = np.bincount(samples.drawn, minlength=n_samples)
    assert counts.sum() == max(1, round(epochs * n_samples))
    assert counts.max() - counts.min() <= (epochs != int(epochs))
    assert result.steps == batches


def test_the_learning_rate_follows_applied_updates(make_loop, make_run):
    model = Averager()
    settings = {"scheduler": "linear", "warmup_fraction": 0.25, "learning_rate": 0.1}
    loop = make_loop(model, total_steps=8, **settings)
    run = make_run(model, 8, total_steps=8)
    loop.run(run, MapSamples(packed_sequences(8)), None, lambda run: None)

    rates = [row["learning_rate"] for row in run.tracker.rows]
    assert rates == pytest.approx([0.1 * loop.schedule(u) for u in range(8)])


def test_an_overflow_skips_the_update_and_the_schedule_waits(make_loop, make_run, tiny_model):
    model = tiny_model(vocab_size=23)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    loop = make_loop(model, precision="fp16", scale=2.0**60)
    run = make_run(model, 8)
    loop.step(MapSamples(packed_sequences(4)).gather(np.arange(4)), run)

    assert (run.state.step, run.state.updates, run.state.samples) == (1, 0, 4)
    assert loop.scaler.get_scale() == 2.0**59
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(not t.any() for t in loop.optimizer.state_tensors().values())


def test_the_first_update_after_an_overflow_is_that_of_a_run_without_one(
    make_loop, make_run, tiny_model
):
    batch, settings = MapSamples(packed_sequences(4)).gather(np.arange(4)), {"warmup_fraction": 0.4}
    models = [tiny_model(vocab_size=23) for _ in range(2)]
    loops = [make_loop(model, precision="fp16", scale=8.0, **settings) for model in models]
    run = make_run(models[0], 4)
    loops[0].scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    loops[0].step(batch, run)
    loops[0].scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    loops[0].step(batch, run)
    loops[1].step(batch, make_run(models[1], 4))

    assert (run.state.step, run.state.updates) == (2, 1)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(a, b)


def test_the_scale_of_fp16_is_taken_up_from_a_checkpoint(make_loop, make_run, tiny_model):
    model, samples = tiny_model(vocab_size=23), MapSamples(packed_sequences(8))
    loop, run = make_loop(model, precision="fp16", scale=2.0**40), make_run(model, 8)
    loop.run(run, samples, None, lambda run: None)
    save_run(run, loop)
    fresh = make_loop(model, precision="fp16")
    restore_run(make_run(model, 8), fresh)

    assert fresh.scaler.state_dict() == loop.scaler.state_dict()
    assert fresh.scaler.get_scale() < 2.0**40


def test_a_run_in_fp16_recovers_from_overflows_and_counts_them(make_loop, make_run, tiny_model):
    model = tiny_model(vocab_size=23)
    loop = make_loop(model, precision="fp16", scale=2.0**40, scheduler="linear")
    run = make_run(model, 8, total_steps=40)
    loop.run(run, MapSamples(packed_sequences(8)), None, lambda run: None)

    skipped = run.tracker.rows[-1]["skipped_steps"]
    assert 0 < skipped == 40 - run.state.updates < 40
    assert run.tracker.rows[0]["learning_rate"] == run.tracker.rows[1]["learning_rate"]
    assert run.tracker.rows[-1]["learning_rate"] == pytest.approx(
        loop.optimizer.learning_rate * loop.schedule(run.state.updates - 1)
    )
    assert all(t.isfinite().all() for t in model.state_dict().values())


@pytest.mark.parametrize("size", [0, 1, 3], ids=["whole batches", "one by one", "threes"])
def test_evaluating_equals_a_loop_by_hand(make_loop, tiny_model, data, size):
    model = tiny_model()
    values = make_loop(model, micro_batch_size=size).evaluate(data.val)
    loss, hits, targets, n_bytes = 0.0, 0, 0, 0
    for i in range(len(data.val)):
        ids, labels = data.val[i]["input_ids"], data.val[i]["labels"]
        counted = labels[labels != IGNORED]
        logits = model(ids[None])[0][labels != IGNORED]
        loss += F.cross_entropy(logits, counted, reduction="sum").item()
        hits += int((logits.argmax(-1) == counted).sum())
        targets += len(counted)
        n_bytes += int(data.tokenizer.token_bytes()[counted].sum())

    assert values["loss"] == pytest.approx(loss / targets, rel=1e-5)
    assert values["perplexity"] == pytest.approx(math.exp(loss / targets), rel=1e-4)
    assert values["accuracy"] == hits / targets
    assert values["bits_per_byte"] == pytest.approx(loss / math.log(2) / n_bytes, rel=1e-5)


@pytest.mark.parametrize("is_training", [True, False], ids=["training", "evaluating"])
def test_evaluating_draws_no_random_number_and_restores_the_mode(
    make_loop, tiny_model, data, is_training
):
    model = tiny_model(dropout=0.5).train(is_training)
    loop = make_loop(model)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    values = loop.evaluate(data.val, 16)

    assert model.training == is_training
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())
    assert loop.evaluate(data.val, 16) == values


def test_a_part_of_the_data_is_spread_over_all_of_it(make_loop):
    samples = Seen(packed_sequences(10))
    make_loop(Averager()).evaluate(samples, 4)

    assert samples.drawn == [0, 3, 6, 9]


def test_more_sequences_than_there_are_means_all(make_loop):
    samples = Seen(packed_sequences(5))
    make_loop(Averager()).evaluate(samples, 99)

    assert samples.drawn == [0, 1, 2, 3, 4]


class Poison(Callback):
    """Make the loss, or only the gradients, infinite from a step on."""

    def __init__(self, step: int, what: str):
        self.step, self.what = step, what

    def on_log(self, run, row):
        if row["step"] != self.step:
            return
        if self.what == "loss":
            run.model.head.register_forward_hook(lambda *call: call[-1] * math.nan)
        else:
            run.model.head.weight.register_hook(lambda gradient: gradient * math.inf)


@pytest.mark.parametrize("what", ["loss", "gradients"])
@pytest.mark.parametrize("log_every", [1, 3])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_diverges_raises_and_saves_nothing_infinite(
    make_trainer, data, what, log_every, optimizer
):
    trainer = make_trainer(
        optimizer=optimizer,
        callbacks=[Poison(3, what)],
        save_every=1,
        keep_checkpoints=99,
        log_every=log_every,
        eval_every=1,
        run_name="r",
    )
    with pytest.raises(DivergedError, match=r"up to step [4-6], but finite"):
        trainer.train(data.train, data.val)

    store = RunFolder(f"{trainer.training_config.output_dir}/r").checkpoints
    saved = [t for step in store.steps() for t in store.load(step).sections["model"].values()]
    assert store.steps()[-1] >= 3
    assert all(t.isfinite().all() for t in saved)


def test_gradients_left_behind_by_others_do_not_enter_the_first_update(make_trainer, data):
    clean, touched = make_trainer(run_name="a"), make_trainer(run_name="b")
    for parameter in touched.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    losses = [t.train(data.train).history["train/loss"].tolist() for t in (clean, touched)]

    assert losses[0] == losses[1]


def test_an_fp16_run_whose_updates_are_all_skipped_is_told(make_trainer, data):
    trainer = make_trainer(precision="fp16", max_steps=40, run_name="r")
    trainer.model.head.weight.register_hook(lambda gradient: gradient * math.nan)

    with pytest.raises(DivergedError, match="scale of fp16 losses fell"):
        trainer.train(data.train)


@pytest.mark.parametrize("order", [["train"], ["evaluate", "plan", "train"]], ids="-".join)
def test_a_compiled_model_trains_as_a_plain_one_whatever_was_called_before(
    make_trainer, data, order
):
    plain = make_trainer(run_name="plain").train(data.train)
    trainer = make_trainer(run_name="compiled", compile="on")
    shapes = []

    def backend(graph, inputs):
        shapes.append([tuple(x.shape) for x in inputs if x.dtype == torch.int64])
        return graph.forward

    trainer._compiled = torch.compile(trainer.model, dynamic=False, backend=backend)
    calls = {
        "train": lambda: trainer.train(data.train),
        "evaluate": lambda: trainer.evaluate(data.val),
        "plan": lambda: trainer.plan(data.train),
    }
    results = [calls[name]() for name in order]

    assert results[-1].final_loss == pytest.approx(plain.final_loss, abs=1e-5)
    assert all(isinstance(size, int) for shape in shapes for one in shape for size in one)


@pytest.mark.parametrize(
    "task, fields",
    [
        pytest.param({"inputs": ("tokens",)}, ("tokens", None), id="other-inputs"),
        pytest.param({"labels": "targets"}, ("input_ids", "targets"), id="other-labels"),
    ],
)
def test_padding_does_not_count_under_any_names(make_trainer, task, fields):
    inputs, labels = fields
    rows = [torch.arange(n) % 7 for n in (3, 8, 5, 6)]
    samples = [{inputs: row} | ({labels: (row + 1) % 7} if labels else {}) for row in rows]
    trainer = make_trainer(
        model=Named(inputs), task_spec=TaskSpec.causal_lm(**task), max_steps=1, batch_size=4
    )
    train = samples_for(trainer.task_spec, samples, "train")
    objective = trainer._objective(trainer._device())
    count = int(objective.count(train.gather(np.arange(4))))

    assert count == sum(len(row) - (labels is None) for row in rows)


class Named(nn.Module):
    """A model whose forward takes its ids under a name of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 8)
        self.name = name

    def forward(self, **fields):
        return self.table(fields[self.name])


class InfiniteOnce(Callback):
    """One gradient that is infinite, at one step."""

    def __init__(self, step):
        self.step = step

    def on_start(self, run):
        def spoil(gradient):
            is_now = run.model.training and run.state.step + 1 == self.step
            return gradient * math.inf if is_now else gradient

        run.model.head.weight.register_hook(spoil)


@pytest.mark.parametrize("step", [5, 6, 8])
def test_one_infinite_gradient_within_a_window_is_seen_before_a_save(make_trainer, data, step):
    callbacks = [InfiniteOnce(step)]
    trainer = make_trainer(callbacks=callbacks, log_every=4, save_every=8, run_name="r")

    with pytest.raises(DivergedError, match=r"is (inf|nan) up to step 8"):
        trainer.train(data.train)
    assert RunFolder(f"{trainer.training_config.output_dir}/r").checkpoints.steps() == [0, 4]

"""A step that cannot be right changes nothing: it is held back, told, and if need be undone."""

import hashlib
import itertools
import json
import math
import time

import numpy as np
import pytest
import torch
from torch import nn

from helpers.config import TrainingConfig
from helpers.data.order import SampleOrder
from helpers.data.packing import MapSamples
from helpers.engine.callbacks import Callback
from helpers.engine.device import plan_device
from helpers.engine.guard import IN_ROW, LEARN_EVERY, REWINDS, Guard
from helpers.engine.loop import TrainingLoop
from helpers.engine.mirror_files import copy_at
from helpers.engine.optim import OptimizerFactory
from helpers.engine.run import Run, RunState
from helpers.engine.run_folder import RunFolder
from helpers.engine.schedule import SchedulerFactory
from helpers.errors import DivergedError
from helpers.objectives import Objective
from helpers.task import TaskSpec
from tests.faults.scale import n, record

MARK = 250
SEED = TrainingConfig().seed
SITES = ["loss", "infinite loss", "gradient", "spike"]
OPTIMIZERS = pytest.mark.parametrize("optimizer", ["adamw", "muon"])


class Net(nn.Module):
    """A small model with every kind of state: a matrix, a table, dropout and moving buffers."""

    def __init__(self, dropout: float = 0.1):
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(257, 16)
        self.norm = nn.BatchNorm1d(16)
        self.hidden = nn.Linear(16, 16)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(16, 257)

    def forward(self, input_ids):
        x = self.norm(self.table(input_ids).mT).mT
        return self.head(self.drop(torch.tanh(self.hidden(x))))


class Fault(Callback):
    """Spoil what is computed of each micro-batch that holds the marked sample."""

    def __init__(self, site: str, model: nn.Module | None = None):
        self.site, self.is_now = site, False
        if model is not None:
            self.attach(model)

    def on_start(self, run):
        self.attach(run.model)

    def attach(self, model):
        def look(module, inputs, fields):
            self.is_now = module.training and bool((fields["input_ids"] == MARK).any())

        model.register_forward_pre_hook(look, with_kwargs=True)
        if self.site == "forward":
            model.table.register_forward_hook(lambda *call: self.spoilt(call[-1], math.nan))
        elif self.site == "loss":
            model.head.register_forward_hook(lambda *call: self.spoilt(call[-1], math.nan))
        elif self.site == "infinite loss":
            model.head.register_forward_hook(self.without_a_class)
        else:
            factor = math.inf if self.site == "gradient" else 1e7
            model.head.weight.register_hook(lambda gradient: self.spoilt(gradient, factor))

    def spoilt(self, tensor, factor):
        return tensor * factor if self.is_now else tensor

    def without_a_class(self, module, inputs, logits):
        """The loss of the mark is infinite, and all gradients are finite."""
        is_mark = torch.arange(logits.shape[-1]) == MARK
        return logits.masked_fill(is_mark, -math.inf) if self.is_now else logits


class Pause(Callback):
    """Ask to stop after some steps, once after each."""

    def __init__(self, steps):
        self.steps = set(steps)

    def on_start(self, run):
        def look(model, inputs):
            step = run.state.step + 1
            if model.training and step in self.steps and not run.stop:
                self.steps.remove(step)
                run.stop.set("test")

        run.model.register_forward_pre_hook(look)


class Watch(Callback):
    """Keep the run, to look at its state afterwards."""

    def on_start(self, run):
        self.run = run


def sequences(n: int, marked: int = -1, *, mark: int = MARK) -> list[dict]:
    ids = torch.randint(200, (n, 9), generator=torch.Generator().manual_seed(0))
    if marked >= 0:
        ids[marked, 3] = mark
    return [{"input_ids": row[:-1], "labels": row[1:]} for row in ids]


def sample_at(place: int, n_samples: int) -> int:
    """The number of the sample at a place in the order of a run."""
    return int(SampleOrder(n_samples, SEED).take(place, 1)[0])


def marked_at(step: int, n_samples: int = 400, batch_size: int = 4) -> list[dict]:
    """Samples of which the mark is met first at a step."""
    return sequences(n_samples, sample_at((step - 1) * batch_size + 1, n_samples))


def fingerprint(*tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in itertools.chain.from_iterable(t.items() for t in tensors):
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def kinds(result) -> list[str]:
    """What was told, but for settings that nothing reads."""
    return [kind for _, kind, _ in result.events if kind != "not read"]


def without_times(rows) -> str:
    frame = rows.drop(columns=["elapsed_s", "tokens_per_s"])
    return frame.to_json(orient="records", double_precision=15)


def states_of(trainer) -> list[dict[str, torch.Tensor]]:
    """All tensors of all checkpoints of a run."""
    config = trainer.training_config
    store = RunFolder(f"{config.output_dir}/{config.run_name}").checkpoints
    return [t for step in store.steps() for t in store.load(step).sections.values()]


@pytest.fixture
def make_loop(tiny_config):
    """Make a loop with or without a guard."""

    def make(model, *, has_guard=True, sigma=10.0, total_steps=60, **changes):
        config = tiny_config(**changes)
        plan = plan_device(model, config)
        return TrainingLoop(
            model,
            Objective(TaskSpec.causal_lm(), model),
            OptimizerFactory.create(model, config, muon_dtype=plan.muon_dtype),
            SchedulerFactory.create(config, total_steps),
            plan,
            batch_size=config.batch_size,
            micro_batch_size=config.micro_batch_size,
            guard=Guard(plan.device, sigma) if has_guard else None,
        )

    return make


@pytest.fixture
def make_run(tiny_config, tmp_path):
    """Make a run in a folder of its own."""
    numbers = itertools.count()

    def make(model, *, total_steps=60, **changes) -> Run:
        return Run(
            folder=RunFolder(tmp_path / f"run-{next(numbers)}"),
            config=tiny_config(**changes),
            model=model,
            total_steps=total_steps,
            n_train_samples=400,
        )

    return make


def everything(loop: TrainingLoop) -> str:
    return fingerprint(loop.model.state_dict(), loop.optimizer.state_tensors())


# On the device


@OPTIMIZERS
@pytest.mark.parametrize("micro", [0, 1], ids=["whole", "one of four parts"])
@pytest.mark.parametrize("site", [*SITES, "forward"])
def test_a_step_that_is_held_back_changes_no_weight_no_state_and_no_buffer(
    make_loop, make_run, site, micro, optimizer
):
    model, samples = Net(), MapSamples(sequences(400, 399))
    loop = make_loop(model, optimizer=optimizer, micro_batch_size=micro)
    run = make_run(model)
    for k in range(2 * LEARN_EVERY):
        loop.step(samples.gather(np.arange(4 * k, 4 * k + 4)), run)
    Fault(site, model)
    before = everything(loop)
    loop.step(samples.gather(np.arange(396, 400)), run)
    after = everything(loop)
    loop.step(samples.gather(np.arange(4)), run)

    assert before == after != everything(loop)
    assert [held.step for held in loop.guard.read(run.state)] == [2 * LEARN_EVERY + 1]
    assert (run.state.step, run.state.updates, run.state.held) == (34, 33, 1)


@OPTIMIZERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_an_optimizer_told_by_a_tensor_to_hold_back_does_so_for_every_gradient(
    tiny_config, optimizer, dtype
):
    """The way of a GPU, where the host does not know; between two such steps all bits are equal."""
    outcomes = []
    for is_disturbed in (False, True):
        model, rng = Net().to(dtype), torch.Generator().manual_seed(0)
        made = OptimizerFactory.create(model, tiny_config(optimizer=optimizer))
        for value in (math.nan, math.inf, 1e30, 0.0):
            for parameter in made.parameters:
                parameter.grad = torch.randn(parameter.shape, generator=rng).to(dtype)
            made.step(0.5, torch.tensor(0.0) if is_disturbed else None)
            if is_disturbed:
                for parameter in made.parameters:
                    parameter.grad = torch.full_like(parameter, value)
                made.step(0.5, torch.tensor(1.0))
        tensors = [*model.state_dict().values(), *made.state_tensors().values()]
        outcomes.append([t.double() for t in tensors])

    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


@OPTIMIZERS
@pytest.mark.parametrize("site", ["loss", "gradient"])
def test_without_the_verdict_one_bad_step_ruins_the_weights(
    make_loop, make_run, site, optimizer, monkeypatch
):
    """The law above would not hold by itself."""
    monkeypatch.setattr(Guard, "judge", lambda self, loss, norm: torch.zeros(()))
    model, samples = Net(), MapSamples(sequences(8, 3))
    loop = make_loop(model, optimizer=optimizer)
    Fault(site, model)
    loop.step(samples.gather(np.arange(4)), make_run(model))

    assert not all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="muon"),
        pytest.param({"optimizer": "adamw"}, id="adamw"),
        pytest.param({"optimizer": "adamw", "weight_decay": 0.0}, id="no weight decay"),
        pytest.param({"micro_batch_size": 3}, id="micro-batches"),
        pytest.param({"precision": "bf16"}, id="bf16"),
        pytest.param({"precision": "fp16"}, id="fp16"),
    ],
)
def test_where_nothing_is_wrong_a_guarded_run_is_the_same_in_every_bit(
    make_loop, make_run, settings
):
    samples, outcomes = MapSamples(sequences(400)), []
    for has_guard in (True, False):
        model = Net()
        loop, run = make_loop(model, has_guard=has_guard, **settings), make_run(model, **settings)
        torch.manual_seed(0)
        loop.run(run, samples, None, lambda run: None)
        losses = [(row["train/loss"], row["gradient_norm"]) for row in run.tracker.rows]
        outcomes.append((everything(loop), losses, run.state.held))

    assert outcomes[0] == outcomes[1]
    assert len(losses) == 60 and math.isfinite(sum(map(sum, losses)))


# Skip


@pytest.mark.parametrize("site", SITES[:3])
@pytest.mark.parametrize("log_every", [1, 4])
def test_skipping_tells_step_values_and_samples_and_goes_on(make_trainer, site, log_every):
    watch, samples = Watch(), marked_at(6)
    trainer = make_trainer(
        model=Net(),
        callbacks=[Fault(site), watch],
        on_nonfinite="skip",
        log_every=log_every,
        scheduler="linear",
        run_name="r",
    )
    result = trainer.train(samples)
    step, _, message = next(event for event in result.events if event[1] == "held back")
    index = SampleOrder(400, SEED).take(20, 4)
    rates = result.history["learning_rate"].tolist()
    schedule = trainer._loop(12, trainer._device()).schedule

    assert (result.status, step) == ("completed", 6 if log_every == 1 else 8)
    assert "step 6: loss" in message and f"the samples {', '.join(map(str, index))}" in message
    assert ("nan" in message) or ("inf" in message)
    assert (watch.run.state.updates, watch.run.state.held) == (11, 1)
    assert result.history["skipped_steps"].max() == 1
    assert rates[-1] == pytest.approx(trainer.training_config.learning_rate * schedule(11))
    assert all(t.isfinite().all() for t in trainer.model.state_dict().values())


@pytest.mark.parametrize("site", ["loss", "gradient"])
def test_the_row_of_a_step_that_was_held_back_shows_the_true_value(make_trainer, site):
    result = make_trainer(
        model=Net(), callbacks=[Fault(site)], on_nonfinite="skip", run_name="r"
    ).train(marked_at(6))
    values = result.history.set_index("step")

    assert (site == "loss") == (not math.isfinite(values.loc[6, "train/loss"]))
    assert not math.isfinite(values.loc[6, "gradient_norm"])
    assert values["train/loss"].isna().sum() == (site == "loss")


def test_too_many_updates_in_a_row_that_are_skipped_end_the_run_with_the_layer(make_trainer):
    trainer = make_trainer(
        model=Net(),
        callbacks=[Fault("gradient")],
        on_nonfinite="skip",
        save_every=3,
        max_steps=60,
        run_name="r",
    )
    samples = [*sequences(4), *(sequences(1, 0) * 396)]

    with pytest.raises(DivergedError, match=r"gradient_norm is (inf|nan)") as caught:
        trainer.train(samples)
    assert f"{IN_ROW + 1} updates in a row" in str(caught.value)
    assert "first gradient that is not finite is that of head.weight" in str(caught.value)
    assert all(t.isfinite().all() for state in states_of(trainer) for t in state.values())


# Stop


@pytest.mark.parametrize(
    ("site", "place"),
    [
        pytest.param("loss", "output that is not finite is that of head", id="loss"),
        pytest.param("forward", "output that is not finite is that of table", id="forward"),
        pytest.param("gradient", "gradient that is not finite is that of head.weight", id="grad"),
    ],
)
def test_stopping_names_step_samples_and_layer_and_leaves_sound_checkpoints(
    make_trainer, site, place
):
    trainer = make_trainer(
        model=Net(),
        callbacks=[Fault(site)],
        on_nonfinite="stop",
        log_every=4,
        save_every=3,
        run_name="r",
    )
    with pytest.raises(DivergedError) as caught:
        trainer.train(marked_at(6))
    message = str(caught.value)
    index = SampleOrder(400, SEED).take(20, 4)

    assert "up to step 6, but finite values are wanted" in message
    assert "began at step 6" in message and place in message
    assert ", ".join(map(str, index)) in message
    assert states_of(trainer)
    assert all(t.isfinite().all() for state in states_of(trainer) for t in state.values())


# Rewind


def rewound(make_trainer, samples, **settings):
    fault, watch = Fault("gradient"), Watch()
    settings = {"save_every": 4, "save_minutes": 0.0, "keep_checkpoints": 9} | settings
    callbacks = [fault, watch, *settings.pop("callbacks", ())]
    trainer = make_trainer(model=Net(), callbacks=callbacks, **settings)
    return trainer, trainer.train(samples), watch.run


@pytest.mark.parametrize("log_every", [1, 5, 100])
def test_a_run_that_went_back_equals_one_that_never_had_these_samples(make_trainer, log_every):
    class LeaveOut(Callback):
        def on_start(self, run):
            if run.resumed_from == 4:
                run.state.rewinds = [[4, 16, 24]]

    samples, settings = marked_at(6), {"log_every": log_every}
    trainer, result, run = rewound(make_trainer, samples, run_name="r", **settings)
    clean = {"save_every": 4, "save_minutes": 0.0, "run_name": "clean", **settings}
    make_trainer(model=Net(), callbacks=[Pause([4])], **clean).train(samples)
    other = make_trainer(model=Net(), callbacks=[LeaveOut()], **clean)
    expected = other.train(samples)

    assert (result.status, result.steps) == ("completed", 12)
    assert run.state.rewinds == [[4, 16, 24]]
    assert (run.state.samples, run.state.updates) == (48, 12)
    assert kinds(result) == ["held back", "went back"]
    assert fingerprint(trainer.model.state_dict()) == fingerprint(other.model.state_dict())
    assert without_times(result.history) == without_times(expected.history)


@pytest.mark.parametrize("steps", [[2], [5], [4, 5], [7], [1, 5, 6, 9], [10, 11]], ids=str)
def test_a_run_that_went_back_and_was_paused_equals_the_unbroken_one(make_trainer, steps):
    """Before the bad step, right at it, after it, and several times."""
    samples, settings = marked_at(6), {"log_every": 5}
    unbroken, expected, _ = rewound(make_trainer, samples, run_name="unbroken", **settings)
    pause = Pause(steps)
    for _ in range(len(steps) + 1):
        trainer, result, run = rewound(
            make_trainer, samples, callbacks=[pause], run_name="r", **settings
        )

    assert result.status == "completed" and not pause.steps
    assert run.state.rewinds == [[4, 16, 24]]
    assert fingerprint(trainer.model.state_dict()) == fingerprint(unbroken.model.state_dict())
    assert without_times(result.history) == without_times(expected.history)


@pytest.mark.parametrize("settings", [{"num_workers": 2}, {"ema_decay": 0.9}], ids=str)
def test_going_back_takes_readers_and_averages_along(make_trainer, settings):
    samples, plain = marked_at(6), {"ema_decay": settings.get("ema_decay", 0.0), "log_every": 5}
    expected = rewound(make_trainer, samples, run_name="plain", **plain)
    other = rewound(make_trainer, samples, run_name="other", **plain | settings)
    make_trainer(
        model=Net(), callbacks=[Fault("gradient"), Pause([9])], run_name="r", save_every=4,
        save_minutes=0.0, **plain | settings
    ).train(samples)  # fmt: skip
    again = rewound(make_trainer, samples, run_name="r", **plain | settings)
    states = [fingerprint(trainer.model.state_dict()) for trainer, _, _ in (expected, other, again)]

    assert len(set(states)) == 1
    assert again[2].resumed_from == 9 and again[2].state.rewinds == [[4, 16, 24]]


def test_a_run_goes_back_several_times_from_one_checkpoint_before_it_stops(make_trainer):
    samples = [*sequences(16), *(sequences(1, 0) * 384)]
    watch = Watch()
    trainer = make_trainer(
        model=Net(), callbacks=[Fault("loss"), watch], save_every=3, max_steps=60, run_name="r"
    )
    with pytest.raises(DivergedError, match=f"went back {REWINDS} times") as caught:
        trainer.train(samples)

    ranges = watch.run.state.left_out
    assert "train/loss is nan" in str(caught.value)
    assert len(ranges) == REWINDS
    assert all(end == first for (_, end), (first, _) in itertools.pairwise(ranges))


def test_going_back_further_counts_though_the_ranges_become_one(make_trainer):
    """A copy elsewhere is ranked by how often the run went back, so that must never fall."""

    class Damage(Callback):
        def on_event(self, run, kind, message):
            if kind == "went back" and run.state.step == 4:
                (run.folder.checkpoints.path(4) / "model.safetensors").write_bytes(b"damaged")

    samples = sequences(400)
    for place in (20, 24):
        samples[sample_at(place, 400)]["input_ids"][3] = MARK
    settings = {"callbacks": [Damage()], "save_every": 2, "run_name": "r"}
    _, result, run = rewound(make_trainer, samples, **settings)
    ranks = [copy_at(run.folder.checkpoints.path(step)).rank for step in (2, 12)]

    assert kinds(result).count("went back") == 2
    assert run.state.rewinds == [[2, 8, 28]]
    assert ranks == [(0, 0, 2), (0, 2, 12)]


def test_a_state_from_before_the_count_has_gone_back_as_often_as_it_knows():
    assert RunState(rewinds=[[4, 16, 24], [8, 40, 44]]).n_rewinds == 2
    assert RunState(rewinds=[[2, 8, 28]], n_rewinds=3).n_rewinds == 3


def test_going_back_passes_over_a_damaged_checkpoint(make_trainer):
    class Damage(Callback):
        def on_checkpoint(self, run, info):
            if info.step == 4:
                (info.path / "model.safetensors").write_bytes(b"damaged")

    settings = {"callbacks": [Damage()], "save_every": 2, "run_name": "r"}
    _, result, run = rewound(make_trainer, marked_at(6), **settings)

    assert result.status == "completed"
    assert [step for step, _, _ in run.state.rewinds] == [2]
    assert kinds(result) == ["held back", "damaged checkpoint", "went back"]


def test_epochs_still_end_where_they_should_after_samples_were_left_out(make_trainer):
    samples = marked_at(6, n_samples=40)
    settings = {"epochs": 2.0, "max_steps": 0, "run_name": "r", "log_every": 3}
    _, result, run = rewound(make_trainer, samples, **settings)

    assert (result.status, result.steps, run.state.samples) == ("completed", 20, 80)
    assert run.state.rewinds


# Spikes


def spiky(factor: float, steps: range):
    """Gradients that are so many times as large in some steps."""

    class Spiky(Callback):
        def on_start(self, run):
            def enlarge(gradient):
                return gradient * factor if run.state.step + 1 in steps else gradient

            run.model.head.weight.register_hook(enlarge)
            self.run = run

    return Spiky()


@pytest.mark.parametrize(
    ("factor", "sigma", "n_held"),
    [
        pytest.param(math.exp(30 * 0.2), 10.0, 1, id="30 deviations"),
        pytest.param(1.5, 10.0, 0, id="a few"),
        pytest.param(math.exp(30 * 0.2), 0.0, 0, id="spikes are ignored"),
    ],
)
def test_a_spike_is_held_back_and_told(make_trainer, factor, sigma, n_held):
    callback = spiky(factor, range(40, 41))
    trainer = make_trainer(
        model=Net(), callbacks=[callback], max_steps=60, spike_sigma=sigma, run_name="r"
    )
    result = trainer.train(sequences(400))

    assert callback.run.state.held == n_held
    assert kinds(result) == ["held back"] * n_held
    assert result.status == "completed"


def test_no_spike_is_seen_before_there_is_a_mean_to_judge_by(make_trainer):
    callback = spiky(1e6, range(10, 11))
    make_trainer(model=Net(), callbacks=[callback], max_steps=12, run_name="r").train(sequences(40))

    assert callback.run.state.held == 0


@pytest.mark.parametrize("policy", ["stop", "skip", "rewind"])
def test_norms_that_stay_high_become_the_new_mean_under_every_policy(make_trainer, policy):
    callback = spiky(1e4, range(40, 200))
    trainer = make_trainer(
        model=Net(), callbacks=[callback], max_steps=120, on_nonfinite=policy, run_name="r"
    )
    result = trainer.train(sequences(400))

    assert result.status == "completed"
    assert LEARN_EVERY // 2 < callback.run.state.held < 2 * LEARN_EVERY
    assert callback.run.state.updates == 120 - callback.run.state.held


@pytest.mark.parametrize("steps", [[33], [40], [41, 47, 48, 49]], ids=str)
def test_statistics_do_not_depend_on_when_one_looks_logs_saves_or_pauses(make_trainer, steps):
    settings = {"max_steps": 64, "save_minutes": 0.0, "spike_sigma": 3.0}
    spikes, samples = range(40, 43), sequences(400)
    first, second = (spiky(1e4, spikes) for _ in range(2))
    alone = make_trainer(model=Net(), callbacks=[first], run_name="a", log_every=50, **settings)
    alone.train(samples)
    pause = Pause(steps)
    for _ in range(len(steps) + 1):
        looked = make_trainer(
            model=Net(), callbacks=[second, pause], run_name="b", save_every=7, **settings
        )
        looked.train(samples)

    assert first.run.state.held == second.run.state.held == 3
    assert fingerprint(alone.model.state_dict()) == fingerprint(looked.model.state_dict())


def test_mean_and_deviation_are_those_of_the_logs_of_the_norms():
    guard, rng = Guard(torch.device("cpu"), 10.0), np.random.default_rng(0)
    logs = rng.normal(1.0, 0.5, 4 * LEARN_EVERY)
    guard._norms = [torch.tensor(math.exp(x)) for x in logs]
    guard._held = [torch.tensor(0.0) for _ in logs]
    guard._learn()
    count, mean, variance = guard._statistics.tolist()

    assert (count, mean) == (64, pytest.approx(logs.mean(), rel=1e-5))
    assert variance == pytest.approx(logs.var(), rel=1e-5)
    assert float(guard._limit) == pytest.approx(math.exp(logs.mean() + 10 * logs.std()), rel=1e-4)


def test_what_a_guard_remembers_survives_a_round_trip_through_json():
    guard, rng = Guard(torch.device("cpu"), 3.0), np.random.default_rng(0)
    other = Guard(torch.device("cpu"), 3.0)
    for one in (guard, other):
        one._norms = [torch.tensor(x, dtype=torch.float32) for x in rng.lognormal(size=21)]
        one._held = [torch.tensor(float(i == 5)) for i in range(21)]
    guard._norms[5] = torch.tensor(math.nan)
    state = json.loads(json.dumps(guard.state_dict(), allow_nan=False))
    other.load_state_dict(state)
    for one in (guard, other):
        one._learn()

    assert torch.equal(guard._statistics, other._statistics)
    assert torch.equal(guard._limit, other._limit)


# fp16


def test_an_overflow_of_fp16_is_left_to_the_scaler(make_trainer):
    watch = Watch()
    trainer = make_trainer(
        model=Net(), callbacks=[watch, Fault("gradient")], precision="fp16", run_name="r"
    )
    result = trainer.train(marked_at(6))

    assert result.status == "completed" and not watch.run.state.rewinds
    assert watch.run.state.held == 0 and watch.run.state.updates < 12
    assert kinds(result) == []


@pytest.mark.parametrize("policy", ["stop", "skip", "rewind"])
def test_a_scale_that_collapses_ends_an_fp16_run_with_numbers_and_advice(make_trainer, policy):
    samples = [*sequences(16), *(sequences(1, 0) * 384)]
    trainer = make_trainer(
        model=Net(),
        callbacks=[Fault("gradient")],
        precision="fp16",
        on_nonfinite=policy,
        max_steps=90,
        save_every=30,
        run_name="r",
    )
    with pytest.raises(DivergedError, match=r"fp16 losses fell to 9\.8e-04, below 1 for 10 "):
        trainer.train(samples)
    assert all(t.isfinite().all() for state in states_of(trainer) for t in state.values())


def test_a_scale_below_one_for_20_steps_is_a_collapse_and_shorter_is_not():
    guard, scales = Guard(torch.device("cpu")), iter([0.5] * 19 + [1.0] + [0.5] * 20)
    lost = []
    for _ in range(40):
        guard.note_scale(False, lambda: next(scales))
        lost.append(guard.is_scale_lost)

    assert lost == [False] * 39 + [True]


def test_an_fp16_run_whose_loss_is_not_finite_goes_back(make_trainer):
    watch = Watch()
    trainer = make_trainer(
        model=Net(),
        callbacks=[watch, Fault("loss")],
        precision="fp16",
        save_every=4,
        save_minutes=0.0,
        run_name="r",
    )
    result = trainer.train(marked_at(6))

    assert result.status == "completed"
    assert watch.run.state.rewinds == [[4, 16, 24]]


# The whole of it


def test_no_fault_at_any_site_reaches_a_checkpoint_under_any_policy(make_trainer):
    began, n_trials = time.monotonic(), n(24, 240)
    kinds = itertools.product(SITES, ["stop", "skip", "rewind"], ["adamw", "muon"])
    cases = list(itertools.islice(itertools.cycle(kinds), n_trials))
    rng = np.random.default_rng(0)
    for i, (site, policy, optimizer) in enumerate(cases):
        log_every, save_every, micro, step = (int(x) for x in rng.integers(1, 9, 4))
        step = step + 33 if site == "spike" else step + 2
        watch = Watch()
        trainer = make_trainer(
            model=Net(),
            callbacks=[Fault(site), watch],
            on_nonfinite=policy,
            optimizer=optimizer,
            log_every=log_every,
            save_every=save_every,
            micro_batch_size=min(4, micro),
            max_steps=step + 6,
            run_name=f"r{i}",
        )
        is_fatal = policy == "stop" and site != "spike"
        if is_fatal:
            with pytest.raises(DivergedError, match=f"began at step {step}:"):
                trainer.train(marked_at(step))
        else:
            assert trainer.train(marked_at(step)).status == "completed"
        assert any(f"step {step}: loss" in message for _, _, message in watch.run.events)
        assert all(t.isfinite().all() for state in states_of(trainer) for t in state.values())
    record(
        "guard",
        "A loss or gradient that is not finite, or a spike, is told with its step and samples, "
        "never reaches a checkpoint, and ends a run only where the settings say so.",
        {"faults": n_trials, "told": n_trials, "reached a checkpoint": 0, "wrong outcome": 0},
        command="TRAINBOOK_FAULTS=full python -m pytest tests/test_guard.py",
        seed=0,
        seconds=time.monotonic() - began,
    )

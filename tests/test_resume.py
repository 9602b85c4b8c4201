"""A run that was paused, killed or damaged equals one that was never disturbed, bit for bit."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.engine.callbacks import Callback
from helpers.engine.metrics import read_rows
from helpers.engine.random_state import capture_random_state, restore_random_state
from helpers.engine.run_folder import RunFolder
from helpers.errors import CheckpointError

ROOT = Path(__file__).parents[1]
TRAINING = """
import hashlib, sys, torch
from helpers.config import TrainingConfig
from helpers.models import Decoder, DecoderConfig
from helpers.trainer import Trainer
torch.manual_seed(0)
torch.set_num_threads(1)
ids = torch.randint(257, (40, 17), generator=torch.Generator().manual_seed(0))
samples = [{"input_ids": row[:-1], "labels": row[1:]} for row in ids]
model = Decoder(DecoderConfig(257, d_model=16, n_layers=1, n_heads=2, dropout=0.1))
config = TrainingConfig(
    d_model=16, n_layers=1, n_heads=2, dropout=0.1, batch_size=4, max_steps=60, save_every=1,
    log_every=1, eval_every=7, sample_tokens=0, panel="lines", database="auto", device="cpu",
    output_dir=sys.argv[1], run_name="r",
)
result = Trainer(model, model.config, config).train(samples, samples[:8])
weights = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
print(hashlib.sha256(weights).hexdigest(), result.final_loss, result.status)
"""


class Pause(Callback):
    """Ask to stop after some steps, as an interrupt does."""

    def __init__(self, steps):
        self.steps = set(steps)

    def on_start(self, run):
        def look(model, inputs):
            if model.training and run.state.step + 1 in self.steps:
                run.stop.set("test")

        run.model.register_forward_pre_hook(look)


class Crash(Callback):
    """Fail when it is told that a step was saved, which is between two steps after that one."""

    def __init__(self, step):
        self.step = step

    def on_checkpoint(self, run, info):
        if info.step == self.step:
            raise RuntimeError("killed")


class Sum(Callback):
    """Remember something from all logs."""

    def __init__(self):
        self.losses = {}

    def on_log(self, run, row):
        self.losses[str(row["step"])] = row["train/loss"]

    def state_dict(self):
        return dict(self.losses)

    def load_state_dict(self, state):
        self.losses = dict(state)


class Noisy(nn.Module):
    """A model with a buffer, a tied weight and randomness of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(257, 8)
        self.norm = nn.BatchNorm1d(8)
        self.out = nn.Linear(8, 257)
        self.out.weight = self.table.weight

    def forward(self, input_ids):
        x = self.norm(self.table(input_ids).mT).mT
        if self.training:
            x = x + 0.01 * random.random() * torch.randn_like(x)
        return self.out(x)


def fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def sequences(n: int) -> list[dict]:
    ids = torch.randint(257, (n, 9), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row[:-1], "labels": row[1:]} for row in ids]


def without_times(rows) -> list[dict]:
    return [
        {k: v for k, v in row.items() if v == v and k not in ("elapsed_s", "tokens_per_s")}
        for row in rows.to_dict("records")
    ]


def facts(result) -> dict:
    names = ("status", "steps", "tokens", "final_loss", "final_metrics", "samples")
    best = {name: result[name] for name in ("best_loss", "best_step", "best_epoch")}
    return {name: result[name] for name in names} | best


SETTINGS = {
    "muon": {},
    "adamw": {"optimizer": "adamw"},
    "two micro-batches": {"micro_batch_size": 2},
    "logs of ten steps": {"log_every": 10},
    "three uneven micro-batches": {"batch_size": 5, "micro_batch_size": 2, "optimizer": "adamw"},
    "validation and samples": {"eval_every": 2, "sample_tokens": 4},
    "early stopping": {
        "eval_every": 2,
        "early_stopping_patience": 4,
        "early_stopping_min_delta": 9.0,
    },
    "saving often": {"save_every": 1, "keep_checkpoints": 1},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "tied": {"tie_embeddings": True},
    "cosine": {"scheduler": "cosine", "warmup_fraction": 0.3},
}


def train_with_pauses(make_trainer, steps, train, val, **settings):
    """Train a fresh model in a new session after each pause; the last session ends the run."""
    for session in range(len(steps) + 1):
        trainer = make_trainer(callbacks=[Pause(steps)], run_name="paused", **settings)
        result = trainer.train(train, val)

        assert result.status == ("paused" if session < len(steps) else result.status)
    return trainer.model, result


@pytest.mark.parametrize("n_pauses", [1, 4])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_resumed_run_equals_the_unbroken_one(make_trainer, data, settings, n_pauses):
    settings = {"dropout": 0.1} | settings
    last = 9 if "early_stopping_patience" in settings else 11
    steps = random.Random(str(settings)).sample(range(1, last), n_pauses)
    unbroken = make_trainer(run_name="unbroken", **settings)
    expected = unbroken.train(data.train, data.val)
    model, result = train_with_pauses(make_trainer, steps, data.train, data.val, **settings)

    assert facts(result) == facts(expected)
    assert fingerprint(model) == fingerprint(unbroken.model)
    assert without_times(result.history) == without_times(expected.history)
    assert result.resumed_from == max(steps)


@pytest.mark.parametrize("steps", [[3], [2, 3, 5, 6], [7]], ids=str)
def test_a_run_resumed_at_and_around_the_end_of_an_epoch_equals_the_unbroken_one(
    make_trainer, steps
):
    samples, settings = sequences(10), {"epochs": 3.0, "max_steps": 0, "dropout": 0.1}
    unbroken = make_trainer(run_name="unbroken", **settings)
    expected = unbroken.train(samples)
    model, result = train_with_pauses(make_trainer, steps, samples, None, **settings)

    assert facts(result) == facts(expected)
    assert fingerprint(model) == fingerprint(unbroken.model)


@pytest.mark.parametrize("steps", [[5], [1, 4, 8]], ids=str)
def test_buffers_tied_weights_and_all_random_states_are_taken_up(make_trainer, steps):
    samples = sequences(20)
    unbroken = make_trainer(model=Noisy(), run_name="unbroken")
    expected = unbroken.train(samples)
    for _ in range(len(steps) + 1):
        trainer = make_trainer(model=Noisy(), callbacks=[Pause(steps)], run_name="paused")
        result = trainer.train(samples)

    assert facts(result) == facts(expected)
    assert fingerprint(trainer.model) == fingerprint(unbroken.model)
    assert trainer.model.out.weight is trainer.model.table.weight


def test_what_was_drawn_between_two_sessions_does_not_matter(make_trainer, data):
    unbroken = make_trainer(dropout=0.1, run_name="unbroken")
    unbroken.train(data.train)
    make_trainer(dropout=0.1, run_name="r", callbacks=[Pause([5])]).train(data.train)
    trainer = make_trainer(dropout=0.1, run_name="r")
    torch.rand(100), random.random()
    trainer.train(data.train)

    assert fingerprint(trainer.model) == fingerprint(unbroken.model)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"log_every": 5}, id="logging"),
        pytest.param({"eval_every": 3}, id="validating"),
        pytest.param({"save_every": 2, "keep_checkpoints": 5}, id="saving"),
        pytest.param({"database": "auto"}, id="recording"),
        pytest.param({"sample_tokens": 3, "eval_every": 4}, id="sampling"),
        pytest.param({"panel": "lines"}, id="showing"),
    ],
)
def test_a_run_goes_on_with_other_runtime_settings_to_the_same_weights(make_trainer, data, change):
    unbroken = make_trainer(dropout=0.1, run_name="unbroken")
    unbroken.train(data.train, data.val)
    pause = [Pause([5])]
    make_trainer(dropout=0.1, run_name="r", callbacks=pause).train(data.train, data.val)
    trainer = make_trainer(dropout=0.1, run_name="r", **change)
    result = trainer.train(data.train, data.val)

    assert (result.status, result.resumed_from) == ("completed", 5)
    assert fingerprint(trainer.model) == fingerprint(unbroken.model)


def test_a_run_goes_on_with_smaller_micro_batches_to_nearly_the_same_weights(make_trainer, data):
    unbroken = make_trainer(run_name="unbroken")
    unbroken.train(data.train)
    make_trainer(run_name="r", callbacks=[Pause([5])]).train(data.train)
    trainer = make_trainer(run_name="r", micro_batch_size=1)
    trainer.train(data.train)

    for a, b in zip(trainer.model.parameters(), unbroken.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_run_goes_on_in_its_own_number_format_only(make_trainer, data):
    """A machine on which auto means another format must not mix the two."""
    make_trainer(run_name="r", callbacks=[Pause([5])]).train(data.train)
    file = RunFolder(make_trainer(run_name="r").training_config.output_dir + "/r").run_file
    file.write_text(file.read_text().replace('"precision": "auto"', '"precision": "bf16"'))

    with pytest.raises(CheckpointError, match="precision: was 'auto', is 'bf16'"):
        make_trainer(run_name="r", precision="bf16").train(data.train)


# Callbacks


def test_callbacks_take_up_what_they_remembered(make_trainer, data):
    make_trainer(run_name="r", callbacks=[Sum(), Pause([5])]).train(data.train)
    summed = Sum()
    result = make_trainer(run_name="r", callbacks=[summed]).train(data.train)

    assert list(summed.losses.values()) == result.history["train/loss"].tolist()


def test_two_callbacks_of_one_class_keep_what_each_remembered(make_trainer, data):
    class Late(Sum):
        def on_log(self, run, row):
            if row["step"] > 3:
                super().on_log(run, row)

    Late.__name__ = "Sum"
    first = [Sum(), Late(), Pause([5])]
    make_trainer(run_name="r", callbacks=first).train(data.train)
    second = [Sum(), Late()]
    make_trainer(run_name="r", callbacks=second).train(data.train)

    assert [len(callback.losses) for callback in second] == [12, 9]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([Sum], [], id="one too few"),
        pytest.param([], [Sum], id="one too many"),
        pytest.param([Sum, Sum], [Sum], id="one of two"),
    ],
)
def test_other_callbacks_with_a_memory_are_refused(make_trainer, data, before, after):
    callbacks = [make() for make in before]
    make_trainer(run_name="r", callbacks=[*callbacks, Pause([5])]).train(data.train)

    with pytest.raises(CheckpointError, match="Give the same callbacks"):
        make_trainer(run_name="r", callbacks=[make() for make in after]).train(data.train)


# Crashes and damage


@pytest.mark.parametrize("step", [4, 8, 12], ids=["in between", "later", "at the end"])
def test_a_run_that_crashed_after_a_save_equals_the_unbroken_one(make_trainer, data, step):
    settings = {"save_every": 4, "eval_every": 3, "dropout": 0.1, "log_every": 5}
    unbroken = make_trainer(run_name="unbroken", **settings)
    expected = unbroken.train(data.train, data.val)
    with pytest.raises(RuntimeError, match="killed"):
        make_trainer(run_name="r", callbacks=[Crash(step)], **settings).train(data.train, data.val)
    trainer = make_trainer(run_name="r", **settings)
    result = trainer.train(data.train, data.val)

    assert result.resumed_from >= step
    assert facts(result) == facts(expected)
    assert fingerprint(trainer.model) == fingerprint(unbroken.model)


def test_a_run_that_crashed_while_it_stopped_early_stays_stopped(make_trainer, data):
    settings = {
        "eval_every": 2,
        "early_stopping_patience": 2,
        "early_stopping_min_delta": 9.0,
        "run_name": "r",
    }
    with pytest.raises(RuntimeError, match="killed"):
        make_trainer(callbacks=[Crash(6)], **settings).train(data.train, data.val)
    result = make_trainer(**settings).train(data.train, data.val)

    assert (result.status, result.steps) == ("stopped_early", 6)


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "MANIFEST.json"])
def test_a_damaged_checkpoint_is_told_and_the_run_goes_on_from_the_one_before(
    make_trainer, data, file
):
    unbroken = make_trainer(run_name="unbroken", dropout=0.1)
    expected = unbroken.train(data.train)
    settings = {"run_name": "r", "save_every": 2, "keep_checkpoints": 9, "dropout": 0.1}
    paused = make_trainer(callbacks=[Pause([7])], **settings).train(data.train)
    (Path(paused.checkpoint_path) / file).write_text("damaged")
    trainer = make_trainer(**settings)
    result = trainer.train(data.train)

    assert result.resumed_from == 6
    assert [kind for _, kind, _ in result.events] == ["damaged checkpoint"]
    assert facts(result) == facts(expected)
    assert fingerprint(trainer.model) == fingerprint(unbroken.model)


def test_what_a_crashed_session_measured_after_its_last_save_is_forgotten(make_trainer, data):
    class CrashLater(Pause):
        def on_log(self, run, row):
            if row["step"] in self.steps:
                raise SystemExit("killed")

    with pytest.raises(SystemExit, match="killed"):
        make_trainer(run_name="r", save_every=4, callbacks=[CrashLater([7])]).train(data.train)
    result = make_trainer(run_name="r", save_every=4).train(data.train)

    rows = read_rows(RunFolder(result.run_dir).metrics_file)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert result.resumed_from == 4


def test_a_metrics_file_that_was_torn_is_mended(make_trainer, data):
    settings = {"run_name": "r", "save_every": 4}
    paused = make_trainer(callbacks=[Pause([6])], **settings).train(data.train)
    with RunFolder(paused.run_dir).metrics_file.open("a") as file:
        file.write('{"step": 7, "epoch": 0.1, "tra')
    result = make_trainer(**settings).train(data.train)

    assert result.history["step"].tolist() == list(range(1, 13))


def train_in_a_process(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_that_was_killed_at_any_moment_equals_the_unbroken_one(tmp_path, seed):
    rng = random.Random(seed)
    expected = train_in_a_process(tmp_path / "unbroken").communicate()[0]
    for target in sorted(rng.sample(range(2, 55), 2)):
        process = train_in_a_process(tmp_path / "killed")
        store = RunFolder(tmp_path / "killed" / "r").checkpoints
        while process.poll() is None and max(store.steps(), default=0) < target:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    result = train_in_a_process(tmp_path / "killed").communicate()[0]

    assert expected.endswith("completed\n")
    assert result == expected
    assert not [p for p in store.folder.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("name", ["cuda", "cuda:x", "odd"])
def test_a_random_state_that_nobody_knows_is_refused(name):
    values, tensors = capture_random_state()

    with pytest.raises(CheckpointError, match="random states"):
        restore_random_state(values, {**tensors, name: tensors["cpu"]})

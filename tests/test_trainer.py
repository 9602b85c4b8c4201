"""The trainer: what it refuses, what it leaves alone, what it returns and what it records."""

import importlib.util
import inspect
import math
import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import event
from torch import nn

from helpers.config import TrainingConfig
from helpers.engine.callbacks import Callback, EarlyStopping
from helpers.engine.metrics import read_rows
from helpers.engine.run import Run
from helpers.engine.run_folder import RunFolder
from helpers.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    HelpersError,
    RunFolderError,
    TaskError,
)
from helpers.export import load_export
from helpers.task import TaskSpec
from helpers.tracking.db import ExperimentDB
from helpers.trainer import Trainer


class Bigram(nn.Module):
    """A model of a user: ten lines, nothing of ours."""

    def __init__(self, vocab_size: int = 257):
        super().__init__()
        self.table = nn.Embedding(vocab_size, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(16, vocab_size)

    def forward(self, tokens):
        x = self.norm(self.table(tokens).mT).mT
        return {"logits": self.out(self.drop(x))}


class Calls(Callback):
    """Remember which methods were called at which step."""

    def __init__(self):
        self.seen = []

    def on_start(self, run):
        self.seen.append(("start", run.state.step))

    def on_log(self, run, row):
        self.seen.append(("log", row["step"]))

    def on_evaluate(self, run, row):
        self.seen.append(("evaluate", row["step"]))

    def on_checkpoint(self, run, info):
        self.seen.append(("checkpoint", info.step))

    def on_end(self, run, status):
        self.seen.append((status, run.state.step))


class At(Callback):
    """Do something after a step was logged."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_log(self, run, row):
        if row["step"] == self.step:
            self.action(run)


def put_a_file_at(folder: Path) -> None:
    """Make a folder one that cannot be written, for root too."""
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def sequences(n: int) -> list[dict]:
    ids = torch.randint(257, (n, 9), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row[:-1], "labels": row[1:]} for row in ids]


def bigram(seed: int = 0) -> Bigram:
    torch.manual_seed(seed)
    return Bigram()


# What is refused


@pytest.mark.parametrize(
    ("settings", "train", "val", "error", "said"),
    [
        pytest.param({}, None, None, DataError, "train_data is None", id="no data"),
        pytest.param({}, [], None, DataError, "train_data is empty", id="empty"),
        pytest.param({}, iter([]), None, DataError, "type list_iterator", id="a stream"),
        pytest.param({}, sequences(8), [], DataError, "val_data is empty", id="empty validation"),
        pytest.param(
            {"batch_size": 9}, sequences(8), None, DataError, "8 sequences", id="batch over data"
        ),
        pytest.param(
            {"early_stopping_patience": 2, "eval_every": 1},
            sequences(8),
            None,
            ConfigError,
            "no val_data",
            id="early stopping without validation",
        ),
        pytest.param(
            {"resume": "must", "run_name": "r"},
            sequences(8),
            None,
            CheckpointError,
            "no checkpoint to continue",
            id="nothing to resume",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_folder_is_made(
    make_trainer, tmp_path, settings, train, val, error, said
):
    trainer = make_trainer(**settings)

    with pytest.raises(error, match=said):
        trainer.train(train, val)
    assert not (tmp_path / "runs").exists()


def test_settings_that_contradict_the_model_are_refused(tiny_config, tiny_model):
    model = tiny_model()

    with pytest.raises(ConfigError, match="d_model is 32"):
        Trainer(model, model.config, tiny_config(d_model=32)).train(sequences(8))


def test_a_field_that_nothing_reads_is_refused_by_name(make_trainer):
    samples = [{**sample, "weight": torch.ones(1)} for sample in sequences(8)]

    with pytest.raises(TaskError, match=r"\['weight'\]"):
        make_trainer().train(samples)


def test_a_label_beyond_the_vocabulary_is_refused(make_trainer):
    model = bigram()
    model.out = nn.Linear(16, 100)

    with pytest.raises(TaskError, match="predicts 100 tokens"):
        make_trainer(model=model).train(sequences(8))


def test_a_file_in_the_place_of_the_output_folder_is_refused(make_trainer, data, tmp_path):
    (tmp_path / "runs").write_text("not a folder")

    with pytest.raises(RunFolderError, match="cannot be written"):
        make_trainer().train(data.train)


def test_a_second_trainer_of_a_run_is_refused_with_the_process_that_has_it(make_trainer, data):
    errors = []

    def train_again(run):
        with pytest.raises(RunFolderError) as caught:
            make_trainer(run_name="r").train(data.train)
        errors.append(str(caught.value))

    result = make_trainer(run_name="r", callbacks=[At(3, train_again)]).train(data.train)
    assert f"by process {os.getpid()} on " in errors[0]
    assert result.status == "completed"


# What is left alone


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_planning_leaves_model_and_random_states_as_they_are(make_trainer, data, optimizer):
    trainer = make_trainer(model=bigram().eval(), optimizer=optimizer)
    before = weights_of(trainer.model)
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    plan = trainer.plan(data.train, data.val)

    assert same(weights_of(trainer.model), before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), str(np.random.get_state())) == states[1:]
    assert not trainer.model.training
    assert (plan.steps, plan.tokens) == (12, 12 * 4 * 32)


def test_planning_leaves_a_model_as_it_is_whose_gradient_is_infinite(make_trainer, data):
    trainer = make_trainer()
    before = weights_of(trainer.model)
    trainer.model.head.weight.register_hook(lambda gradient: gradient * math.inf)
    trainer.plan(data.train)

    assert same(weights_of(trainer.model), before)


def test_a_plan_is_of_the_run_that_is_trained_also_where_rows_are_left_out(make_trainer):
    samples = [{"tokens": torch.arange(i, i + 9) % 11} for i in range(40)]
    samples[3] = {"tokens": torch.full((9,), 999)}
    task = TaskSpec.causal_lm(inputs=("tokens",))

    def make():
        return make_trainer(model=Bigram(11), task_spec=task, bad_rows="skip", batch_size=4)

    assert make().plan(samples).run_id == make().train(samples).run_id


def test_a_plan_makes_no_folder_and_changes_no_result(make_trainer, data, tmp_path):
    planned, other = make_trainer(model=bigram()), make_trainer(model=bigram(), run_name="r")
    plan = planned.plan(data.train, data.val)
    is_untouched = not (tmp_path / "runs").exists()
    results = [trainer.train(data.train, data.val) for trainer in (planned, other)]

    assert is_untouched
    assert plan.run_id == results[0].run_id
    assert same(weights_of(planned.model), weights_of(other.model))
    assert results[0].final_loss == results[1].final_loss


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"eval_every": 1}, id="validating"),
        pytest.param({"eval_every": 2, "sample_tokens": 5}, id="sampling"),
        pytest.param({"save_every": 1}, id="saving"),
        pytest.param({"log_every": 100}, id="logging"),
        pytest.param({"database": "auto"}, id="recording"),
        pytest.param({"panel": "lines"}, id="showing"),
    ],
)
def test_looking_at_a_run_does_not_change_it(make_trainer, data, settings):
    watched = make_trainer(dropout=0.1, run_name="a", **settings)
    alone = make_trainer(dropout=0.1, run_name="b")
    losses = [t.train(data.train, data.val).final_loss for t in (watched, alone)]

    assert same(weights_of(watched.model), weights_of(alone.model))
    assert losses[0] == losses[1]


def test_equal_runs_have_equal_results_and_another_seed_has_not(make_trainer, data):
    trainers = [
        make_trainer(dropout=0.1, run_name=f"r{i}", seed=seed) for i, seed in enumerate((1, 1, 2))
    ]
    losses = [trainer.train(data.train).final_loss for trainer in trainers]

    assert losses[0] == losses[1] != losses[2]


# Interrupts


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, "interrupt"), (signal.SIGTERM, "terminate")]
)
def test_an_interrupt_pauses_and_training_again_completes(make_trainer, data, number, kind):
    before = signal.getsignal(number)
    send = At(5, lambda run: os.kill(os.getpid(), number))
    trainer = make_trainer(callbacks=[send], dropout=0.1)
    paused = trainer.train(data.train, data.val)
    handler = signal.getsignal(number)
    completed = trainer.train(data.train, data.val)
    alone = make_trainer(dropout=0.1, run_name="alone").train(data.train, data.val)

    assert (paused.status, paused.steps) == ("paused", 5)
    assert RunFolder(paused.run_dir).checkpoints.steps() == [5, 12]
    assert (completed.status, completed.steps, completed.resumed_from) == ("completed", 12, 5)
    assert completed.final_loss == alone.final_loss
    assert handler is before is signal.getsignal(number)


def test_a_run_whose_checkpoints_are_gone_says_so(make_trainer, data):
    first = make_trainer(run_name="r").train(data.train)
    shutil.rmtree(Path(first.run_dir) / "checkpoints")
    result = make_trainer(run_name="r").train(data.train)

    assert [kind for _, kind, _ in result.events if kind == "from step 0"] == ["from step 0"]


def test_a_device_file_that_says_something_else_is_as_good_as_none(make_trainer, data, tmp_path):
    path = tmp_path / "runs" / "r" / "device.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"a": 1}')

    assert make_trainer(run_name="r").train(data.train).status == "completed"


class FailsAtTheEnd(Callback):
    """A callback of a user with an error where the session ends."""

    def on_end(self, run, status):
        raise KeyError("mine")


def test_an_error_at_the_end_of_a_session_leaves_record_and_mirror_whole(
    make_trainer, data, tmp_path
):
    mirror = tmp_path / "mirror"
    trainer = make_trainer(
        callbacks=[FailsAtTheEnd()], run_name="r", database="auto", mirror_dir=str(mirror)
    )
    with pytest.raises(KeyError, match="mine"):
        trainer.train(data.train)

    assert (mirror / "r" / "final_model.pt").exists()
    with ExperimentDB(trainer.training_config.database_url()) as db:
        assert db.run("r")["status"] == "completed"
    assert not {"mirror", "run writer"} & {thread.name for thread in threading.enumerate()}


def test_a_second_interrupt_raises_at_once_and_the_run_goes_on_from_its_checkpoint(
    make_trainer, data
):
    def interrupt(module, inputs):
        if module.training:
            calls.append(1)
        if len(calls) == 10:  # amid step 5, of two micro-batches
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    settings = {"save_every": 1, "keep_checkpoints": 9, "micro_batch_size": 2}
    trainer, calls = make_trainer(run_name="r", **settings), []
    before = signal.getsignal(signal.SIGINT)
    trainer.model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(data.train)
    handler = signal.getsignal(signal.SIGINT)
    result = trainer.train(data.train)
    alone = make_trainer(run_name="alone", **settings)
    alone.train(data.train)

    assert handler is before
    assert (result.resumed_from, result.status) == (4, "completed")
    assert same(weights_of(trainer.model), weights_of(alone.model))


def test_a_stop_before_the_first_step_pauses_at_zero(make_trainer, data):
    class Stop(Callback):
        def on_start(self, run):
            run.stop.set("not yet")

    paused = make_trainer(callbacks=[Stop()]).train(data.train, data.val)
    completed = make_trainer().train(data.train, data.val)

    assert (paused.status, paused.steps, paused.final_loss) == ("paused", 0, None)
    assert (completed.status, completed.resumed_from) == ("completed", 0)


# Runs and their names


def test_training_a_completed_run_again_returns_its_result_and_weights(make_trainer, data):
    first, second = make_trainer(eval_every=4), make_trainer(eval_every=4, callbacks=[Calls()])
    done = first.train(data.train, data.val)
    with torch.no_grad():
        second.model.head.weight.zero_()
    again = second.train(data.train, data.val)

    assert second.callbacks[0].seen == []
    assert same(weights_of(first.model), weights_of(second.model))
    assert (again.status, again.steps, again.final_loss) == ("completed", 12, done.final_loss)
    assert again.final_metrics == done.final_metrics
    assert again.metrics_summary.equals(done.metrics_summary)


def test_equal_settings_and_data_find_their_run_and_others_do_not(make_trainer, data):
    names = [
        make_trainer(**settings).plan(split).run_id
        for settings, split in (
            ({}, data.train),
            ({"log_every": 7}, data.train),
            ({"learning_rate": 0.5}, data.train),
            ({}, data.val),
            ({"n_layers": 2}, data.train),
        )
    ]

    assert names[0] == names[1]
    assert len(set(names)) == 4


def test_never_resuming_makes_a_new_folder_each_time(make_trainer, data):
    results = [
        make_trainer(run_name="r", resume="never", max_steps=2).train(data.train) for _ in range(3)
    ]

    assert [result.run_id for result in results] == ["r", "r-2", "r-3"]
    assert [result.resumed_from for result in results] == [None, None, None]


def test_must_resume_goes_on_where_there_is_a_checkpoint(make_trainer, data):
    pause = At(5, lambda run: run.stop.set("test"))
    make_trainer(run_name="r", callbacks=[pause]).train(data.train)
    result = make_trainer(run_name="r", resume="must").train(data.train)

    assert (result.status, result.resumed_from) == ("completed", 5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"learning_rate": 0.5}, "learning_rate: was 0.01, is 0.5", id="setting"),
        pytest.param({"max_steps": 20}, "max_steps: was 12, is 20", id="length"),
        pytest.param({"seed": 1}, "seed: was 42, is 1", id="seed"),
        pytest.param({"n_layers": 2}, "model.config.n_layers: was 1, is 2", id="model"),
        pytest.param(
            {"task_spec": TaskSpec.causal_lm(metrics=("loss",))}, "task.metrics: was", id="task"
        ),
        pytest.param({"split": "val"}, "data: was", id="data"),
    ],
)
def test_continuing_with_something_else_is_refused_and_named(make_trainer, data, changes, said):
    pause = At(5, lambda run: run.stop.set("test"))
    make_trainer(run_name="r", callbacks=[pause]).train(data.train)
    changes = dict(changes)
    split = getattr(data, changes.pop("split", "train"))

    with pytest.raises(CheckpointError) as caught:
        make_trainer(run_name="r", **changes).train(split)
    assert said in str(caught.value)


# What happens, and when


def test_cadences_are_independent_and_the_best_so_far_is_saved_at_once(make_trainer, data):
    """A checkpoint is told when it is durable, which may be a step later."""
    calls = Calls()
    settings = {"max_steps": 6, "log_every": 2, "eval_every": 3, "save_every": 4}
    settings |= {"learning_rate": 1e-9, "scheduler": "cosine"}
    make_trainer(callbacks=[calls], **settings).train(data.train, data.val)

    assert [step for kind, step in calls.seen if kind == "checkpoint"] == [0, 3, 4, 6]
    assert [call for call in calls.seen if call[0] != "checkpoint"] == [
        ("start", 0),
        ("log", 1),
        ("log", 2),
        ("evaluate", 3),
        ("log", 4),
        ("log", 6),
        ("evaluate", 6),
        ("completed", 6),
    ]


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "stops_at"),
    [
        pytest.param([3, 2, 1], 1, 0.0, None, id="always better"),
        pytest.param([3, 3], 1, 0.0, 2, id="equal is not better"),
        pytest.param([3, 2, 2.5, 2.4], 2, 0.0, 4, id="after patience"),
        pytest.param([3, 4, 2, 4, 1, 4], 2, 0.0, None, id="better in between starts anew"),
        pytest.param([3, 2.9, 2.8], 2, 0.5, 3, id="too little better"),
        pytest.param([3, 2.8, 2.4, 2.2], 2, 0.5, None, id="better than the best by delta"),
        pytest.param([3, math.nan, math.nan], 2, 0.0, 3, id="not a number is not better"),
        pytest.param([math.nan, 3, 2, 1], 2, 0.0, None, id="better than not a number"),
        pytest.param([math.nan, math.nan], 2, 0.0, 2, id="never a number"),
    ],
)
def test_early_stopping_stops_after_so_many_validations_without_a_better_loss(
    tiny_config, tmp_path, losses, patience, min_delta, stops_at
):
    run = Run(RunFolder(tmp_path / "run"), tiny_config(), nn.Linear(1, 1), 9, 9)
    stopping = EarlyStopping(patience, min_delta)
    stopped = None
    for number, loss in enumerate(losses, start=1):
        stopping.on_evaluate(run, {"step": number, "val/loss": loss})
        stopped = stopped or (number if run.early_reason else None)

    assert stopped == stops_at


def test_a_run_stops_early_and_stays_so(make_trainer, data):
    settings = {
        "eval_every": 2,
        "early_stopping_patience": 2,
        "early_stopping_min_delta": 5.0,
        "database": "auto",
    }
    result = make_trainer(**settings).train(data.train, data.val)
    again = make_trainer(**settings).train(data.train, data.val)

    assert (result.status, result.steps) == ("stopped_early", 6)
    assert result.events[-1][:2] == (6, "early stopping")
    assert (again.status, again.steps) == ("stopped_early", 6)
    assert again.final_loss == result.final_loss


def test_a_save_that_fails_on_the_way_is_told_and_the_run_goes_on(make_trainer, data, tmp_path):
    place = tmp_path / "runs" / "r" / "checkpoints"
    block = At(2, lambda run: put_a_file_at(place))
    free = At(6, lambda run: place.unlink())
    settings = {"save_every": 3, "scheduler": "cosine", "run_name": "r"}
    result = make_trainer(callbacks=[block, free], **settings).train(data.train)

    assert result.status == "completed"
    assert [kind for _, kind, _ in result.events] == ["not saved"]
    assert "The checkpoint of step 3 could not be written" in result.events[0][2]
    assert RunFolder(result.run_dir).checkpoints.steps() == [9, 12]


def test_a_last_save_that_fails_makes_the_run_a_failed_one(make_trainer, data, tmp_path):
    place, calls = tmp_path / "runs" / "r" / "checkpoints", Calls()
    block = At(2, lambda run: put_a_file_at(place))
    trainer = make_trainer(run_name="r", callbacks=[block, calls], database="auto")
    with pytest.raises(CheckpointError, match="could not be written"):
        trainer.train(data.train)

    assert calls.seen[-1] == ("failed", 12)
    with ExperimentDB(tmp_path / "runs" / "experiments.db") as db:
        assert db.run("r")["status"] == "failed"


def test_a_run_that_failed_in_a_callback_keeps_the_steps_it_had_done(make_trainer, data):
    def fail(run):
        raise RuntimeError("a callback of the user")

    trainer = make_trainer(run_name="r", callbacks=[At(4, fail)])
    with pytest.raises(RuntimeError):
        trainer.train(data.train)
    trainer.callbacks = []
    result = trainer.train(data.train)

    assert result.resumed_from == 4
    assert result.final_loss == make_trainer(run_name="alone").train(data.train).final_loss


def test_an_export_that_failed_is_made_up_for_by_training_again(make_trainer, data, tmp_path):
    file = tmp_path / "runs" / "r" / "final_model.pt"
    block = At(2, lambda run: file.mkdir())
    with pytest.raises(CheckpointError, match="could not be written"):
        make_trainer(run_name="r", callbacks=[block]).train(data.train)
    file.rmdir()
    result = make_trainer(run_name="r").train(data.train)

    assert result.status == "completed"
    assert load_export(file)["results"]["final_loss"] == result.final_loss


# What is returned and recorded


def test_a_result_reads_as_attributes_and_as_items(make_trainer, data):
    result = make_trainer().train(data.train, data.val)

    assert dict(result).keys() == set(result.keys())
    assert all(value is getattr(result, name) for name, value in dict(result).items())
    with pytest.raises(KeyError, match="final_loss"):
        result["loss"]
    assert result.run_id in repr(result)
    assert "nats per token" in result._repr_html_()


def test_a_summary_has_a_row_for_each_validation_and_the_history_one_for_each_log(
    make_trainer, data
):
    result = make_trainer(eval_every=4, log_every=3).train(data.train, data.val)

    assert result.metrics_summary["step"].tolist() == [4, 8, 12]
    assert {
        "step",
        "epoch",
        "train/loss",
        "train/perplexity",
        "val/loss",
        "val/perplexity",
        "val/accuracy",
        "val/bits_per_byte",
        "learning_rate",
        "gradient_norm",
        "elapsed_s",
    } <= set(result.metrics_summary.columns)
    assert result.metrics_summary.notna().all(axis=None)
    assert {1, 3, 6, 9, 12} <= set(result.history["step"])


def test_without_validation_the_summary_is_the_history(make_trainer, data):
    result = make_trainer().train(data.train)

    assert result.metrics_summary.equals(result.history)
    assert result.history["step"].tolist() == list(range(1, 13))
    assert result.final_loss == result.history["train/loss"].iloc[-1]
    assert (result.best_loss, result.best_checkpoint_path) == (None, None)


def test_the_best_checkpoint_is_kept_and_is_the_one_of_the_least_loss(make_trainer, data):
    result = make_trainer(eval_every=2, save_every=1, keep_checkpoints=1).train(
        data.train, data.val
    )
    losses = result.metrics_summary.set_index("step")["val/loss"]

    assert (result.best_step, result.best_loss) == (losses.idxmin(), losses.min())
    kept = RunFolder(result.run_dir).checkpoints.steps()
    # At step 4 the learning rate begins its way down; there a longer run would go on.
    assert kept == sorted({4, result.best_step, 12})


def test_the_last_validation_takes_all_data(make_trainer, data):
    trainer = make_trainer(eval_sequences=4, eval_every=6)
    result = trainer.train(data.train, data.val)

    assert result.final_metrics == trainer.evaluate(data.val)
    assert result.final_loss == result.final_metrics["loss"]
    assert result.best_loss != result.final_loss


def test_an_untrained_model_is_as_good_as_a_guess(make_trainer, data):
    assert make_trainer().evaluate(data.val)["loss"] == pytest.approx(math.log(257), rel=0.02)


def test_a_task_may_leave_out_the_loss_among_its_metrics(make_trainer, data):
    task = TaskSpec.causal_lm(metrics=("accuracy",))
    result = make_trainer(task_spec=task, eval_every=6).train(data.train, data.val)

    assert result.status == "completed"


def test_the_database_has_the_run_its_metrics_checkpoints_and_model(make_trainer, data, tmp_path):
    settings = {"database": "auto", "save_every": 4, "eval_every": 6, "run_name": "r"}
    result = make_trainer(**settings).train(data.train, data.val)

    with ExperimentDB(tmp_path / "runs" / "experiments.db") as db:
        row, metrics = db.run("r"), db.metrics("r")
        assert (row["status"], row["seed"]) == ("completed", 42)
        assert row["data_fingerprint"] == data.train.fingerprint
        assert row["results"]["final_loss"] == result.final_loss
        assert metrics["train/loss"].tolist() == result.history["train/loss"].tolist()
        assert metrics["val/loss"].dropna().index.tolist() == [6, 12]
        assert {4, 8, 12} <= set(db.checkpoints("r").index)
        assert db.artifacts("r").index.tolist() == ["final_model.pt"]


def test_the_database_forgets_what_a_resumed_run_trains_again(make_trainer, data, tmp_path):
    class Crash(Exception):
        pass

    def crash(run):
        raise Crash

    settings = {"database": "auto", "save_every": 5, "run_name": "r"}
    with pytest.raises(Crash):
        make_trainer(**settings, callbacks=[At(8, crash)]).train(data.train)
    with ExperimentDB(tmp_path / "runs" / "experiments.db") as db:
        status_of_crash = db.run("r")["status"]
    result = make_trainer(**settings).train(data.train)

    assert status_of_crash == "failed"
    with ExperimentDB(tmp_path / "runs" / "experiments.db") as db:
        assert db.run("r")["status"] == "completed"
        assert db.metrics("r")["train/loss"].tolist() == result.history["train/loss"].tolist()


def test_a_database_that_is_given_is_used_and_stays_open(make_trainer, data, tmp_path):
    with ExperimentDB(tmp_path / "own.db") as db:
        result = make_trainer(db=db, database="auto").train(data.train)

        assert db.run(result.run_id)["status"] == "completed"
    assert not (tmp_path / "runs" / "experiments.db").exists()


def test_without_a_database_no_file_is_made(make_trainer, data, tmp_path):
    make_trainer(database="off").train(data.train)

    assert not list(tmp_path.rglob("*.db*"))


def test_a_run_that_diverges_is_recorded_as_failed_and_can_be_read(make_trainer, data, tmp_path):
    def poison(run):
        run.model.head.weight.register_hook(lambda gradient: gradient * math.nan)

    trainer = make_trainer(run_name="r", database="auto", callbacks=[At(3, poison)])
    with pytest.raises(DivergedError):
        trainer.train(data.train)

    with sqlite3.connect(tmp_path / "runs" / "experiments.db") as connection:
        assert connection.execute("select status from runs").fetchall() == [("failed",)]


# Models and data of users


def test_a_module_of_ten_lines_trains_on_a_list_of_dicts(make_trainer):
    samples = sequences(20)
    result = make_trainer(model=bigram(), max_steps=60).train(samples, samples)

    assert len(inspect.getsource(Bigram).splitlines()) <= 13
    assert result.final_loss < 0.8 * math.log(257)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"optimizer": "adamw"}, id="adamw"),
        pytest.param({"precision": "bf16"}, id="bf16"),
        pytest.param({"precision": "fp16"}, id="fp16"),
        pytest.param({"micro_batch_size": 3}, id="micro-batches"),
        pytest.param({"tie_embeddings": True}, id="tied"),
        pytest.param({"epochs": 0.1, "max_steps": 0}, id="epochs"),
        pytest.param({"scheduler": "cosine"}, id="cosine"),
        pytest.param({"max_grad_norm": 0.0}, id="no clipping"),
    ],
)
def test_settings_of_every_kind_lower_the_loss(make_trainer, data, settings):
    trainer = make_trainer(**{"max_steps": 25, **settings})
    before = trainer.evaluate(data.val)["loss"]
    result = trainer.train(data.train, data.val)

    assert result.final_loss < 0.95 * before


# What a second look at the same names must see


def other_samples(seed: int, n: int = 16) -> list[dict]:
    rng = torch.Generator().manual_seed(seed)
    return [{"input_ids": torch.randint(8, (6,), generator=rng)} for _ in range(n)]


def test_other_data_of_equal_length_makes_another_run(make_trainer):
    results = [make_trainer().train(other_samples(seed)) for seed in (0, 1, 0)]

    assert results[0].run_id == results[2].run_id != results[1].run_id
    assert results[1].resumed_from is None


def test_other_validation_data_makes_another_run(make_trainer):
    train = other_samples(0)
    ids = [make_trainer().train(train, other_samples(seed)).run_id for seed in (1, 2)]

    assert ids[0] != ids[1]


class Random(list):
    """Samples that change at each look."""

    def __getitem__(self, i):
        return {"input_ids": torch.randint(8, (6,))}


def test_data_drawn_at_random_finds_its_run_again(make_trainer):
    first = make_trainer(max_steps=3).train(Random(range(16)))
    again = make_trainer(max_steps=3).train(Random(range(16)))

    assert again.run_id == first.run_id
    assert again.final_loss == first.final_loss


def test_an_automatic_precision_stays_what_it_was_when_the_run_began(make_trainer, data):
    stop = At(4, lambda run: run.stop.set("test"))
    first = make_trainer(callbacks=[stop]).train(data.train)
    device = RunFolder(first.run_dir).path / "device.json"
    device.write_text(device.read_text().replace('"fp32"', '"bf16"'))
    plan = make_trainer().plan(data.train)

    assert plan.device.precision == "bf16"
    assert "the run began so" in plan.device.reasons["precision"]


def test_a_frozen_model_can_be_evaluated(make_trainer, tiny_model, data):
    model = tiny_model().requires_grad_(False)

    assert make_trainer(model=model).evaluate(data.val)["loss"] > 0


def test_the_database_lies_beside_the_runs_also_below_the_home_folder(
    make_trainer, data, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_trainer(output_dir="~/r", database="auto", max_steps=1).train(data.train)

    assert (tmp_path / "r" / "experiments.db").exists()


def test_a_model_too_small_for_the_tokens_is_refused_by_name(make_trainer, tiny_model, data):
    trainer = make_trainer(model=tiny_model(vocab_size=100))
    with pytest.raises(ConfigError, match="built for 100 tokens, but the data has 257"):
        trainer.train(data.train)
    trainer.config = None
    with pytest.raises(TaskError, match="embeds 100 tokens"):
        trainer.train(data.train)


def test_labels_that_equal_the_inputs_are_refused(make_trainer):
    samples = [{**s, "labels": s["input_ids"]} for s in other_samples(0)]

    with pytest.raises(TaskError, match="would learn to copy"):
        make_trainer().train(samples)


def test_a_damaged_checkpoint_is_told_also_to_a_database_that_is_new(make_trainer, data):
    stop = At(4, lambda run: run.stop.set("test"))
    first = make_trainer(callbacks=[stop], save_every=2).train(data.train)
    newest = RunFolder(first.run_dir).checkpoints
    (newest.path(newest.steps()[-1]) / "state.json").write_text("{}")
    result = make_trainer(save_every=2, database="auto").train(data.train)

    assert result.status == "completed"
    assert [kind for _, kind, _ in result.events] == ["damaged checkpoint"]


def test_a_database_that_fails_does_not_end_the_run_and_catches_up(make_trainer, data, tmp_path):
    file = tmp_path / "runs" / "experiments.db"
    held = []

    def hold(run):
        connection = sqlite3.connect(file, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        held.append(connection)

    callbacks = [At(3, hold), At(6, lambda run: held.pop().close())]
    with ExperimentDB(file) as db:
        event.listen(db._engine, "connect", lambda c, _: c.execute("PRAGMA busy_timeout = 10"))
        db._engine.dispose()
        trainer = make_trainer(run_name="r", callbacks=callbacks, db=db, log_every=1)
        result = trainer.train(data.train)
        metrics, status = db.metrics("r", ["train/loss"]), db.run("r")["status"]

    assert result.status == status == "completed"
    assert result.events == []
    assert metrics["train/loss"].tolist() == result.history["train/loss"].tolist()


# Models and data that play tricks


class Scribbler(nn.Module):
    """A model whose forward writes to its input."""

    def __init__(self, is_clean):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(257, 257)
        self.is_clean = is_clean

    def forward(self, input_ids):
        if self.is_clean:
            input_ids = input_ids.clone()
        return self.table(input_ids.masked_fill_(input_ids > 100, 5))


def test_a_forward_that_writes_to_its_input_leaves_the_labels_alone(make_trainer, data):
    losses = [
        make_trainer(model=Scribbler(is_clean), run_name=str(is_clean)).train(data.train).final_loss
        for is_clean in (True, False)
    ]

    assert losses[0] == losses[1]


def keyword_only(model):
    class Model(type(model)):
        def forward(self, *, input_ids):
            return super().forward(input_ids)

    model.__class__ = Model
    return model


def test_a_model_that_cannot_be_sampled_from_is_trained_all_the_same(
    make_trainer, tiny_model, data
):
    trainer = make_trainer(model=keyword_only(tiny_model()), sample_tokens=4, eval_every=4)
    result = trainer.train(data.train, data.val)

    assert result.status == "completed"
    assert [kind for _, kind, _ in result.events] == ["no samples"]


def test_never_resuming_trainer_goes_on_with_the_run_it_began(make_trainer, data):
    stop = At(4, lambda run: run.stop.set("test"))
    trainer = make_trainer(resume="never", run_name="r", callbacks=[stop])
    first, second = trainer.train(data.train), trainer.train(data.train)

    assert (first.status, second.status) == ("paused", "completed")
    assert second.run_id == first.run_id


def test_a_new_run_from_trained_weights_says_so(make_trainer, tiny_model, data):
    model = tiny_model()
    make_trainer(model=model, run_name="a").train(data.train)
    second = make_trainer(model=model, run_name="b").train(data.train)

    assert [message for *_, message in second.events] == ["the weights come from the run a"]


def test_the_code_of_a_users_model_is_part_of_its_run(make_trainer, tmp_path, data, monkeypatch):
    ids = []
    for number, factor in enumerate(("1", "1  # a comment", "0.5")):
        file = tmp_path / f"users_model_{number}.py"
        file.write_text(MODEL.replace("FACTOR", factor))
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, file.stem, module)
        spec.loader.exec_module(module)
        ids.append(make_trainer(model=module.Tiny(), max_steps=1).train(data.train).run_id)

    assert ids[0] == ids[1] != ids[2]


MODEL = """from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(257, 257)

    def forward(self, input_ids):
        return self.table(input_ids) * FACTOR
"""


@pytest.mark.parametrize(
    ("config", "word"),
    [
        pytest.param({"activation": nn.functional.relu}, "relu", id="a-function"),
        pytest.param({"names": {"b", "a"}}, "['a', 'b']", id="a-set"),
        pytest.param({"x": math.nan}, "nan", id="nan"),
        pytest.param([1, 2], "[1, 2]", id="a-list"),
        pytest.param({("a", 1): 2}, "('a', 1)", id="a-tuple-as-key"),
    ],
)
def test_a_models_config_of_any_kind_finds_its_run_again(make_trainer, data, config, word):
    trainers = [make_trainer(max_steps=1) for _ in range(2)]
    for trainer in trainers:
        trainer.config = config
    results = [trainer.train(data.train) for trainer in trainers]

    assert results[0].run_id == results[1].run_id
    assert word in str(RunFolder(results[0].run_dir).read_identity()["model"]["config"])


def test_an_object_whose_text_changes_in_each_process_is_refused(make_trainer, data):
    trainer = make_trainer()
    trainer.config = {"thing": object()}

    with pytest.raises(ConfigError, match="thing in the model's config"):
        trainer.train(data.train)


@pytest.mark.parametrize("damage", ["", "{}", "[]", '{"status": "comp'])
@pytest.mark.parametrize("name", ["result.json", "device.json", "run.json"])
def test_a_torn_side_file_costs_nothing(make_trainer, data, name, damage):
    stop = At(4, lambda run: run.stop.set("test"))
    first = make_trainer(callbacks=[stop]).train(data.train)
    (RunFolder(first.run_dir).path / name).write_text(damage)
    second = make_trainer().train(data.train)

    assert (second.resumed_from, second.status) == (4, "completed")


def test_checkpoints_know_what_run_they_are_of_without_run_json(make_trainer, data):
    stop = At(4, lambda run: run.stop.set("test"))
    first = make_trainer(run_name="r", callbacks=[stop]).train(data.train)
    RunFolder(first.run_dir).run_file.unlink()

    with pytest.raises(CheckpointError, match=r"learning_rate: was 0\.01, is 0\.5"):
        make_trainer(run_name="r", learning_rate=0.5).train(data.train)


def test_a_run_folder_that_vanishes_while_training_does_not_end_the_run(make_trainer, data):
    gone = At(3, lambda run: shutil.rmtree(run.folder.path))
    result = make_trainer(callbacks=[gone]).train(data.train)

    assert result.status == "completed"
    assert [row["step"] for row in read_rows(RunFolder(result.run_dir).metrics_file)] == list(
        range(1, 13)
    )


def test_a_run_found_complete_is_put_on_a_record_that_was_lost(make_trainer, data, tmp_path):
    trainer = make_trainer(run_name="r", database="auto")
    trainer.train(data.train)
    (tmp_path / "runs" / "experiments.db").unlink()
    result = trainer.train(data.train)
    trainer.export(result)

    with ExperimentDB(tmp_path / "runs" / "experiments.db") as db:
        assert db.run("r")["status"] == "completed"
        assert len(db.metrics("r", ["train/loss"])) == 12


@pytest.mark.parametrize(
    ("data_kind", "words"),
    [
        pytest.param(lambda: torch.ones(4, 4), "is a Tensor", id="a-tensor"),
        pytest.param(lambda: [{"input_ids": torch.tensor([-3, 1, 2])}] * 8, "is -3", id="below-0"),
        pytest.param(
            lambda: [{"input_ids": torch.arange(4), "labels": torch.full((4,), -100)}] * 8,
            "no label that counts",
            id="nothing-to-learn",
        ),
        pytest.param(
            lambda: [{"input_ids": torch.arange(4), "labels": torch.rand(4)}] * 8,
            "wants ids",
            id="labels-of-floats",
        ),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_with_a_sentence(make_trainer, data_kind, words):
    with pytest.raises(HelpersError, match=words):
        make_trainer().train(data_kind())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda m: m.half(), "fp32 is wanted", id="half-weights"),
        pytest.param(lambda m: setattr(m, "embedding", SPARSE), "sparse", id="sparse-gradients"),
        pytest.param(
            lambda m: setattr(m, "counter", Counter()),
            "counter._extra_state in the model's state_dict is of type dict",
            id="state-that-is-no-tensor",
        ),
        pytest.param(
            lambda m: m.register_buffer("shared", torch.zeros(1).expand(4)),
            "shared in the model's state_dict was expanded",
            id="buffer-without-memory-of-its-own",
        ),
        pytest.param(
            lambda m: setattr(m, "state_dict", lambda: {"other": torch.ones(1)}),
            "cannot load its own state_dict",
            id="state-under-other-names",
        ),
        pytest.param(
            lambda m: m.register_forward_pre_hook(
                lambda m, given: m.register_buffer("late", torch.ones(1))
            ),
            r"changed which names the model's state_dict has: \['late'\]",
            id="buffer-made-in-the-first-step",
        ),
        pytest.param(
            lambda m: (
                m.register_buffer("seen", torch.zeros(1)),
                m.register_forward_pre_hook(
                    lambda m, given: setattr(m, "seen", torch.cat([m.seen, torch.ones(1)]))
                ),
            ),
            "changed the buffer seen",
            id="buffer-that-grows",
        ),
    ],
)
def test_weights_that_cannot_be_trained_are_refused(make_trainer, tiny_model, data, change, words):
    model = tiny_model()
    change(model)

    with pytest.raises(TaskError, match=words):
        make_trainer(model=model).train(data.train)


class Counter(nn.Module):
    def get_extra_state(self):
        return {"count": 0}


SPARSE = nn.Embedding(257, 16, sparse=True)


def test_a_generator_of_the_model_is_told_as_what_no_checkpoint_holds(
    make_trainer, tiny_model, data
):
    model = tiny_model()
    model.dice = torch.Generator()

    result = make_trainer(model=model).train(data.train)

    assert ["dice" in words for _, kind, words in result.events if kind == "not exact"] == [True]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_where_gradients_are_switched_off_is_refused(make_trainer, data, mode):
    with mode(), pytest.raises(TaskError, match="Call it outside of that block"):
        make_trainer().train(data.train)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int16], ids=str)
def test_ids_of_any_whole_type_train_alike(dtype, tmp_path):
    def weights(kind):
        rows = [np.arange(i, i + 8 - i % 2).astype(kind) % 10 for i in range(16)]
        model = nn.Sequential(nn.Embedding(10, 10, _weight=torch.eye(10)), nn.Dropout(0.1))
        output_dir = str(tmp_path / np.dtype(kind).name)
        config = TrainingConfig(max_steps=4, batch_size=4, output_dir=output_dir)
        data = [{"input_ids": row, "labels": np.roll(row, -1)} for row in rows]
        Trainer(model, training_config=config.replace(panel="off")).train(data)
        return model[0].weight

    assert torch.equal(weights(dtype), weights(np.int64))

"""A search trains its trials one after another, keeps each, and goes on where it was left."""

import hashlib
import json
import math
import os
import signal
from pathlib import Path

import pandas
import pytest
import torch
from torch import nn

from helpers.config import TrainingConfigBuilder
from helpers.engine.callbacks import Callback
from helpers.errors import ConfigError, DataError, SearchError, TaskError
from helpers.models import Decoder, DecoderConfig
from helpers.search import Choice, Constraint, Float, Int, SearchSpace, When, run_search
from helpers.search.loop import run_trial
from helpers.search.study import Study
from helpers.search.trial import Trial
from helpers.tracking import ExperimentDB
from helpers.trainer import Trainer

SPACE = SearchSpace(
    {
        "learning_rate": Float(1e-3, 1e-1, log=True),
        "n_layers": Int(1, 2),
        "optimizer": Choice(["muon", "adamw"]),
        "muon_momentum": When("optimizer", "muon", Float(0.9, 0.99)),
    }
)
LAYERS = SearchSpace({"n_layers": Choice([1, 2, 3])})


def make_model(config):
    return Decoder(DecoderConfig(257, **config.group("model")))


class At(Callback):
    """Do something at a step of one trial; once."""

    def __init__(self, trial, step, act):
        self.trial, self.step, self.act = f"-{trial:04d}", step, act

    def on_log(self, run, row):
        if run.run_id.endswith(self.trial) and row["step"] == self.step:
            self.step = -1
            self.act(run)


def ask_to_stop(run):
    run.stop.set("test")


def interrupt(run):
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_twice(run):
    raise KeyboardInterrupt


def fail(run):
    raise ZeroDivisionError("one of mine")


class Bigram(nn.Module):
    """A table of logits; rows of `width` are drawn from torch's random state."""

    def __init__(self, width=4):
        super().__init__()
        self.table, self.out = nn.Embedding(257, width), nn.Linear(width, 257)

    def forward(self, input_ids):
        return self.out(self.table(input_ids))


class Explosive(Bigram):
    """A model whose loss is not finite when it is wide."""

    def forward(self, input_ids):
        return super().forward(input_ids) * (math.inf if self.table.embedding_dim > 4 else 1)


class Huge(Bigram):
    """A model that asks for more memory than there is when it is wide."""

    def forward(self, input_ids):
        if self.table.embedding_dim > 4:
            torch.empty(2**60)
        return super().forward(input_ids)


@pytest.fixture
def search(tiny_config, data):
    """Run a tiny search; arguments of `run_search` and settings may be changed."""

    def run(space=SPACE, factory=make_model, *, settings=None, **arguments):
        config = tiny_config(**{"max_steps": 4, "eval_every": 2, **(settings or {})})
        given = {"train_data": data.train, "val_data": data.val, "n_trials": 3} | arguments
        return run_search(factory, space, config, **given)

    return run


def weights(run_dir):
    """A digest of the exported weights of a run."""
    exported = torch.load(Path(run_dir) / "final_model.pt", weights_only=True)
    digest = hashlib.sha256()
    for name, tensor in exported["model_state_dict"].items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def facts(result):
    """All that must not depend on how often a search was interrupted."""
    return [(t.number, t.state, t.params, t.value, t.run_id) for t in result.trials]


# A search that runs through


def test_a_search_returns_its_trials_and_the_best(search):
    result = search()
    table = result.trial_results

    assert result.status == "completed" and result.n_trials == 3
    assert list(table["state"]) == ["completed"] * 3
    assert list(table.columns[:5]) == ["trial", "state", "value", "learning_rate", "n_layers"]
    assert list(table.columns[-3:]) == ["seconds", "run_id", "reason"]
    assert result.best_value == table["value"].min()
    best = table.loc[table["value"].idxmin()]
    assert result.best_params["learning_rate"] == best["learning_rate"]
    assert (table["seconds"] > 0).all()


def test_the_best_settings_are_those_given_with_the_best_values(search, tiny_config):
    result = search()
    expected = TrainingConfigBuilder.from_config(tiny_config(max_steps=4, eval_every=2))

    assert result.best_config == expected.with_settings(**result.best_params).build()
    assert result.best_config.run_name == ""


def test_a_trial_is_what_the_trainer_makes_of_its_settings(search, data):
    result = search()
    for trial in result.trials:
        changes = {"run_name": "alone", "output_dir": str(Path(trial.run_dir) / "again")}
        config = result.training_config.replace(**trial.params, **changes)
        torch.manual_seed(config.seed)
        model = make_model(config)
        alone = Trainer(model, model.config, config).train(data.train, data.val)

        assert alone.final_loss == trial.value
        assert weights(alone.run_dir) == weights(trial.run_dir)


def test_a_trial_alone_is_that_of_the_sequence_to_the_last_bit(search, tiny_config, data, tmp_path):
    inside = search().trials[2]
    config = tiny_config(max_steps=4, eval_every=2, output_dir=str(tmp_path / "elsewhere"))
    study = Study(make_model, SPACE, config, data.train, data.val, name="alone")
    torch.rand(7)
    alone = run_trial(study, 2, list(zip(range(3), study.suggestions(), strict=False))[2][1])

    assert alone.params == inside.params
    assert alone.value == inside.value
    assert weights(alone.run_dir) == weights(inside.run_dir)


@pytest.mark.parametrize("method", ["random", "quasi_random"])
def test_every_method_trains_what_it_suggests(search, method):
    result = search(method=method, n_trials=2, seed=5)
    again = search(method=method, n_trials=2, seed=6)

    assert result.trials[0].params != again.trials[0].params
    assert result.name != again.name


def test_a_grid_without_a_number_of_trials_is_tried_as_a_whole(search):
    space = {"n_layers": [1, 2], "learning_rate": (1e-3, 1e-2)}
    result = search(space, method="grid", points=2, n_trials=None)

    assert [list(t.params.values()) for t in result.trials] == [
        [1, 0.001], [1, 0.01], [2, 0.001], [2, 0.01]
    ]  # fmt: skip


def test_all_trials_train_with_the_seed_of_the_settings(search):
    result = search(seed=99, settings={"seed": 7})
    seeds = {
        json.loads((Path(t.run_dir) / "run.json").read_text())["settings"]["seed"]
        for t in result.trials
    }

    assert seeds == {7}


def test_trials_are_runs_in_one_database_under_names_of_their_own(search, tmp_path):
    result = search(settings={"database": "auto"})
    with ExperimentDB(tmp_path / "runs" / "experiments.db") as db:
        runs = db.runs()

    assert list(runs.index) == [trial.run_id for trial in result.trials]
    assert set(runs["status"]) == {"completed"}
    assert [p.name for p in tmp_path.rglob("experiments.db")] == ["experiments.db"]


@pytest.mark.parametrize(
    ("metric", "best"),
    [
        pytest.param("val_loss", min, id="loss"),
        pytest.param("best_val_loss", min, id="best loss"),
        pytest.param("val_accuracy", max, id="accuracy"),
        pytest.param("train_loss", min, id="training"),
    ],
)
def test_the_metric_decides_which_way_is_better(search, metric, best):
    result = search(metric=metric)

    assert result.best_value == best(trial.value for trial in result.trials)


def test_another_metric_judges_the_same_trials_without_training(search):
    first = search()
    again = search(metric="val_accuracy", factory=make_model)

    assert first.name == again.name
    assert [t.value for t in again.trials] == [t.metrics["val_accuracy"] for t in first.trials]


def test_without_validation_data_the_training_loss_can_judge(search):
    result = search(val_data=None, metric="train_loss")

    assert result.status == "completed" and result.best_value > 0


def test_every_trial_that_ended_is_told(search):
    told = []
    result = search(on_trial=told.append)

    assert told == list(result.trials)
    assert all(repr(t).startswith(f"trial {t.number} completed") for t in told)


# The model of a trial


def test_names_of_the_model_reach_its_factory(search):
    space = {"model.width": [4, 8], "learning_rate": [0.01]}
    result = search(space, lambda config, width: Bigram(width), method="grid", n_trials=None)
    sizes = [
        torch.load(Path(t.run_dir) / "final_model.pt", weights_only=True)["model_state_dict"][
            "table.weight"
        ].shape[1]
        for t in result.trials
    ]

    assert sizes == [4, 8]
    assert result.best_params.keys() == {"model.width", "learning_rate"}


def test_a_factory_without_arguments_is_called_without(search):
    result = search({"learning_rate": (1e-3, 1e-1)}, lambda: Bigram())

    assert result.status == "completed"


def test_a_factory_draws_the_same_weights_in_every_trial(search):
    drawn = []

    def factory(config):
        model = Bigram()
        drawn.append(model.table.weight.detach().clone())
        torch.rand(len(drawn))
        return model

    search({"weight_decay": [0.0, 0.1]}, factory, method="grid", n_trials=None)

    assert len(drawn) == 3 and all(torch.equal(drawn[0], other) for other in drawn)


def test_callbacks_are_made_anew_for_each_trial(search):
    made = []

    def callbacks():
        made.append(Callback())
        return made[-1:]

    search(callbacks=callbacks)

    assert len(made) == 3


SHARED = Bigram()


@pytest.mark.parametrize(
    ("factory", "error", "words"),
    [
        pytest.param(SHARED, ConfigError, "is a model, but a function", id="a model"),
        pytest.param("model", ConfigError, "of type str, but a function", id="a word"),
        pytest.param(lambda config: SHARED, ConfigError, "that of an earlier", id="one model"),
        pytest.param(lambda config: None, TaskError, "returned a NoneType", id="nothing"),
        pytest.param(lambda: Bigram(), ConfigError, "takes no settings", id="no argument"),
        pytest.param(lambda a, b: Bigram(), ConfigError, "does not fit", id="two arguments"),
    ],
)
def test_a_factory_that_cannot_make_fresh_models_is_refused(
    search, tmp_path, factory, error, words
):
    with pytest.raises(error, match=words):
        search(LAYERS, factory)

    assert not list(tmp_path.rglob("trial.json")) or "earlier" in words


# What goes wrong


def test_a_diverged_trial_is_recorded_and_replaced(search):
    space = {"model.width": Int(3, 5), "learning_rate": (1e-3, 1e-1)}
    result = search(space, lambda config, width: Explosive(width), n_trials=4)
    table = result.trial_results
    diverged = table[table["model.width"] == 5]

    assert result.status == "completed" and len(diverged) > 0
    assert set(diverged["state"]) == {"diverged"} and diverged["value"].isna().all()
    assert all("train/loss is" in reason for reason in diverged["reason"])
    assert (table["state"] == "completed").sum() == 4
    assert result.best_params["model.width"] < 5


def test_a_trial_out_of_memory_is_recorded_and_the_search_goes_on(search):
    space = {"model.width": [4, 5, 3]}
    result = search(space, lambda config, width: Huge(width), method="grid", n_trials=None)

    assert [t.state for t in result.trials] == ["completed", "out_of_memory", "completed"]
    assert "allocate" in result.trials[1].reason
    assert result.status == "exhausted"


def test_a_trial_whose_validation_is_not_finite_has_diverged(search, data):
    class OnlyTrains(Bigram):
        def forward(self, input_ids):
            return super().forward(input_ids) * (1 if self.training else math.nan)

    result = search({"learning_rate": [0.01]}, lambda c: OnlyTrains(), n_trials=1)

    assert result.trials[0].state == "diverged"
    assert "val_loss is nan" in result.trials[0].reason


def test_a_search_without_a_completed_trial_says_so(search):
    result = search({"model.width": [5, 6]}, lambda config, width: Explosive(width), n_trials=2)

    assert result.status == "exhausted" and result["n_trials"] == 2
    for name in ("best_params", "best_value", "best_trial", "best_config"):
        with pytest.raises(SearchError, match="has 2 diverged, but the best is one of those comp"):
            result[name]
    assert "2 diverged" in repr(result) and "2 diverged" in result._repr_html_()


def test_half_the_trials_and_more_failing_ends_the_search(search):
    space = {"model.width": Int(5, 9), "learning_rate": (1e-3, 1e-1)}
    result = search(space, lambda config, width: Explosive(width), n_trials=2)

    assert result.status == "exhausted" and result.n_trials == 4


def test_any_other_error_ends_the_search_with_the_trial_named_and_is_tried_again(search, tmp_path):
    broken = At(1, 3, fail)
    with pytest.raises(ZeroDivisionError, match="one of mine") as raised:
        search(callbacks=lambda: [broken])
    records = [Trial.load(path.parent) for path in sorted(tmp_path.rglob("trial.json"))]
    repaired = search(callbacks=lambda: [broken])

    assert any("This was trial 1 of the search" in note for note in raised.value.__notes__)
    assert [(t.number, t.state) for t in records] == [(0, "completed"), (1, "failed")]
    assert "ZeroDivisionError: one of mine" in records[1].reason
    assert facts(repaired) == facts(search(settings={"output_dir": str(tmp_path / "whole")}))


# Interrupts


@pytest.mark.parametrize(
    ("step", "act"),
    [
        pytest.param(1, ask_to_stop, id="the first step"),
        pytest.param(3, interrupt, id="a signal on the way"),
        pytest.param(4, ask_to_stop, id="the last step"),
    ],
)
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(search, tmp_path, step, act):
    pause = At(1, step, act)
    partial = search(callbacks=lambda: [pause], settings={"save_every": 1})
    whole = search(callbacks=lambda: [pause], settings={"save_every": 1})
    unbroken = search(settings={"output_dir": str(tmp_path / "unbroken")})

    if step < 4:
        assert partial.status == "paused" and "run the same cell again" in repr(partial)
        assert [t.state for t in partial.trials] == ["completed", "paused"]
    assert whole.status == "completed"
    assert facts(whole) == facts(unbroken)
    assert [weights(t.run_dir) for t in whole.trials] == [
        weights(t.run_dir) for t in unbroken.trials
    ]


def test_a_second_interrupt_returns_what_has_ended(search):
    broken = At(2, 2, interrupt_twice)
    partial = search(callbacks=lambda: [broken])
    told = []
    whole = search(callbacks=lambda: [broken], on_trial=told.append)

    assert partial.status == "paused" and partial.n_trials == 2
    assert whole.status == "completed" and len(told) == 3
    assert facts(whole)[:2] == facts(partial)


def test_what_has_ended_is_found_and_not_trained_again(search):
    first = search()
    built = []

    def factory(config):
        built.append(config)
        return make_model(config)

    again = search(factory=factory)

    assert facts(again) == facts(first)
    assert [t.seconds for t in again.trials] == [t.seconds for t in first.trials]
    assert len(built) == 1  # the one that the search is recognised by


def test_a_trial_whose_record_is_lost_is_found_by_its_run(search):
    first = search()
    (Path(first.trials[1].run_dir) / "trial.json").unlink()
    (Path(first.trials[2].run_dir) / "trial.json").write_text("{ torn")

    assert facts(search()) == facts(first)


def test_more_trials_may_be_asked_for_later(search):
    first, more = search(n_trials=2), search(n_trials=4)

    assert facts(more)[:2] == facts(first) and more.n_trials == 4


def test_a_diverged_trial_is_not_tried_again(search):
    space, made = {"model.width": [5, 4]}, []

    def factory(config, width):
        made.append(width)
        return Explosive(width)

    first = search(space, factory, method="grid", n_trials=None)
    again = search(space, factory, method="grid", n_trials=None)

    assert facts(first) == facts(again)
    assert made == [5, 5, 4, 5]


# One folder, one search


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"space": LAYERS}, "space", id="space"),
        pytest.param({"method": "random"}, "method: was 'quasi_random', is 'random'", id="method"),
        pytest.param({"seed": 1}, "search seed: was 42, is 1", id="seed"),
        pytest.param({"settings": {"max_steps": 5}}, "max_steps: was 4, is 5", id="settings"),
        pytest.param({"val_data": None, "metric": "train_loss"}, "validation data", id="data"),
        pytest.param({"factory": lambda config: Bigram()}, "takes|class: was", id="model"),
    ],
)
def test_a_name_that_belongs_to_another_search_is_refused(search, changes, words):
    search(name="mine", n_trials=1)
    with pytest.raises(SearchError, match=words) as raised:
        search(**{"name": "mine", "n_trials": 1, **changes})

    assert "The search mine was started as another one" in str(raised.value)
    assert "choose another name" in str(raised.value)


def test_the_order_of_the_space_is_part_of_the_search(search):
    first = {"n_layers": [1, 2], "batch_size": [4, 8]}
    search(first, name="mine", n_trials=1)
    with pytest.raises(SearchError, match="order"):
        search(dict(reversed(first.items())), name="mine", n_trials=1)


def test_resume_never_starts_a_new_folder_and_must_wants_one(search):
    with pytest.raises(SearchError, match="resume is 'must'"):
        search(settings={"resume": "must"}, n_trials=1)
    first = search(n_trials=1)
    anew = search(settings={"resume": "never"}, n_trials=1)
    again = search(settings={"resume": "must"}, n_trials=1)

    assert anew.name == f"{first.name}-2" and again.name == first.name
    assert anew.best_value == first.best_value


def test_the_folder_of_a_run_is_no_place_for_a_search(search, make_trainer, data):
    make_trainer(run_name="mine", max_steps=2).train(data.train)
    with pytest.raises(SearchError, match="the folder of a run"):
        search(name="mine")


# What is refused before the first trial


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        pytest.param(
            {"metric": "loss"}, ConfigError, "metric is 'loss', but val_loss", id="metric"
        ),
        pytest.param({"val_data": None}, ConfigError, "Pass val_data", id="no validation"),
        pytest.param({"n_trials": 0}, ConfigError, "n_trials is 0", id="no trials"),
        pytest.param({"n_trials": 2.5}, ConfigError, "n_trials is 2.5", id="half a trial"),
        pytest.param({"method": "tpe"}, ConfigError, "the methods are", id="method"),
        pytest.param({"points": 3}, ConfigError, "method='grid'", id="points"),
        pytest.param({"callbacks": [Callback()]}, ConfigError, "be shared", id="callbacks"),
        pytest.param({"name": "a/b"}, ConfigError, "name is 'a/b'", id="name"),
        pytest.param({"train_data": None}, DataError, "train_data is None", id="no data"),
        pytest.param({"space": {"lr": (1e-4, 1e-2)}}, ConfigError, "Use learning_rate", id="lr"),
        pytest.param({"space": LAYERS, "n_trials": 4}, ConfigError, "no more than 3", id="few"),
        pytest.param(
            {"space": LAYERS, "n_trials": 4, "method": "grid"},
            ConfigError,
            "has 3 points",
            id="grid",
        ),
        pytest.param(
            {"space": {"n_heads": [2, 3]}, "n_trials": 2}, ConfigError, "every head", id="settings"
        ),
        pytest.param(
            {"space": {"batch_size": [4, 9999]}, "n_trials": 2},
            ConfigError,
            "batch_size is 9999, but the training data",
            id="batch",
        ),
    ],
)
def test_what_would_stop_a_trial_is_refused_before_the_first(
    search, tmp_path, arguments, error, words
):
    with pytest.raises(error, match=words):
        search(**arguments)

    assert not list(tmp_path.rglob("trial.json"))


def test_a_value_that_no_setting_reads_is_refused_before_the_first_trial(search):
    space = {"optimizer": ["muon", "adamw"], "muon_momentum": (0.8, 0.9)}
    with pytest.raises(ConfigError, match="read only with optimizer"):
        search(space, n_trials=4)


def test_the_faults_of_many_trials_come_at_once(search):
    space = {"n_heads": [3, 5, 2], "batch_size": [9999], "weight_decay": (0.0, 0.2)}
    with pytest.raises(ConfigError) as raised:
        search(space, n_trials=16)

    faults = "\n".join(raised.value.faults)
    assert len(raised.value.faults) == 3
    assert "n_heads is 3" in faults and "n_heads is 5" in faults and "is 9999" in faults


def test_constraints_keep_refused_settings_out(search):
    space = SearchSpace({"n_heads": Choice([2, 3, 4])}, [Constraint("16 % (2 * n_heads) == 0")])
    result = search(space, n_trials=None)

    assert sorted(t.params["n_heads"] for t in result.trials) == [2, 4]


def test_the_models_config_in_the_place_of_the_settings_is_refused(tiny_model, data):
    with pytest.raises(ConfigError, match="the model's own goes to model_config"):
        run_search(make_model, SPACE, tiny_model().config, train_data=data.train)


# The result


def test_a_result_has_the_items_of_old_notebooks(search):
    result = search()

    assert result["best_params"] == result.best_params
    assert result["best_value"] == result.best_value
    assert result["n_trials"] == 3
    assert result["all_trials"][0].keys() == {"number", "value", "params"}
    assert "error" not in result and "best_value" in result
    assert isinstance(result["trial_results"], pandas.DataFrame)
    with pytest.raises(KeyError, match="which has best_params"):
        result["best_loss"]


def test_of_equal_trials_the_first_is_the_best_and_the_others_are_told(search):
    # How much is validated on the way does not change what is learned.
    result = search({"eval_sequences": [4, 8]}, n_trials=2)

    assert result.trials[0].value == result.trials[1].value
    assert result.best_trial.number == 0
    assert "in trial 0, as trial 1" in repr(result)


def test_a_result_is_shown_as_a_table(search):
    result = search()
    page = result._repr_html_()

    assert "learning_rate" in page and "completed" in page
    assert f"{result.best_value:.4g}" in page
    assert "best val_loss" in repr(result)

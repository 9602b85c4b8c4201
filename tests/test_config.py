"""One config: strict, immutable, traceable, and each of its settings matters."""

import argparse
import itertools
import json
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from helpers.config import (
    GROUPS,
    PRESETS,
    TrainingConfig,
    TrainingConfigBuilder,
    group_of,
    names_of,
    parse_setting,
    role_of,
    unit_of,
)
from helpers.data import UniversalDataModule
from helpers.data.packing import PackedTokens
from helpers.engine.device import plan_device
from helpers.engine.metrics import read_rows
from helpers.engine.result import TrainingResult
from helpers.errors import ConfigError, DataError, DivergedError, HelpersError

FIELDS = TrainingConfig.model_fields
RUNTIME = [name for name in FIELDS if role_of(name) == "runtime"]


def any_value(name):
    """Values of a setting's type within its bounds, as its schema says."""
    schema = TrainingConfig.model_json_schema()["properties"][name]
    low, high = schema.get("minimum", 0), schema.get("maximum", 10**9)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    return {
        "boolean": st.booleans(),
        "integer": st.integers(low, high),
        "number": st.floats(
            schema.get("exclusiveMinimum", low),
            schema.get("exclusiveMaximum", high),
            exclude_min="exclusiveMinimum" in schema,
            exclude_max="exclusiveMaximum" in schema,
        ),
        "string": st.text(st.characters(codec="utf-8"), min_size=1),
    }[schema["type"]]


# Round trips


def accepted(**settings):
    """The config of these settings, or None where they contradict the defaults."""
    try:
        return TrainingConfig(**settings)
    except ConfigError:
        return None


@given(st.sampled_from(list(FIELDS)), st.data())
def test_a_config_with_any_setting_changed_round_trips_through_json(name, draw):
    config = accepted(**{name: draw.draw(any_value(name))})
    assume(config is not None)
    again = TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict())))

    assert again == config
    assert again.fingerprint() == config.fingerprint()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_saved_config_comes_back_with_its_origins(preset, tmp_path):
    config = TrainingConfigBuilder.from_preset(preset).with_training(seed=7).build()

    loaded = TrainingConfig.load(config.save(tmp_path / "config.json"))

    assert loaded == config
    assert [loaded.origin(n) for n in FIELDS] == [config.origin(n) for n in FIELDS]


def test_a_dict_without_origins_counts_as_the_users():
    config = TrainingConfig.from_dict(TrainingConfig().to_dict())

    assert {config.origin(name) for name in FIELDS} == {"user"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "cannot be read", id="no file"),
        pytest.param("seed: 7", "not JSON", id="yaml"),
        pytest.param("[1, 2]", "JSON list", id="a list"),
        pytest.param('{"sede": 7}', "Did you mean seed", id="unknown name"),
        pytest.param('{"learning_rate": NaN}', "learning_rate is nan", id="nan"),
        pytest.param('{"learning_rate": 1e400}', "learning_rate is inf", id="overflow"),
    ],
)
def test_a_wrong_file_is_refused_with_its_reason(content, words, tmp_path):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigError, match=words):
        TrainingConfig.load(path)


# Strictness


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        pytest.param("max_steps", True, "a whole number", id="True for int"),
        pytest.param("max_steps", "16", "a whole number", id="text for int"),
        pytest.param("max_steps", 16.0, "a whole number", id="float for int"),
        pytest.param("max_steps", None, "a whole number", id="None for int"),
        pytest.param("max_steps", -1, "at least 0", id="below the range"),
        pytest.param("batch_size", 0, "at least 1", id="zero"),
        pytest.param("learning_rate", "0.1", "a finite number", id="text for float"),
        pytest.param("learning_rate", False, "a finite number", id="False for float"),
        pytest.param("learning_rate", float("nan"), "a finite number", id="nan"),
        pytest.param("learning_rate", 1e400, "a finite number", id="1e400"),
        pytest.param("learning_rate", 0.0, "above 0 and at most 1", id="open bound"),
        pytest.param("dropout", 1.0, "below 1", id="upper open bound"),
        pytest.param("seed", 2**32, f"below {2**32}", id="seed of 33 bits"),
        pytest.param("optimizer", "sgd", "'muon', 'adamw'", id="wrong word"),
        pytest.param("optimizer", "Adamw", "'muon', 'adamw'", id="wrong case"),
        pytest.param("compile", True, "'auto', 'on', 'off'", id="bool for word"),
        pytest.param("tie_embeddings", 1, "True or False", id="int for bool"),
        pytest.param("tie_embeddings", "True", "True or False", id="text for bool"),
        pytest.param("device", "cuda:x", "must match", id="pattern"),
        pytest.param("run_name", "../elsewhere", "must match", id="path in a name"),
        pytest.param("run_name", "a\n", "must match", id="newline in a name"),
        pytest.param("source", "", "text", id="empty text"),
        pytest.param("source", 5, "text", id="int for text"),
    ],
)
def test_a_wrong_value_is_refused_with_got_and_wanted(name, value, wanted):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(**{name: value})

    message = str(caught.value)
    assert f"{name} is {value!r}" in message
    assert wanted in message


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("learning_rte", "learning_rate"),
        ("lerning_rate", "learning_rate"),
        ("batchsize", "batch_size"),
        ("n_head", "n_heads"),
        ("warmup", "warmup_fraction"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest(typed, meant):
    with pytest.raises(ConfigError, match=f"{typed} is not a setting. Did you mean {meant}"):
        TrainingConfig(**{typed: 1})


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(xyzzy=1)

    assert "Did you mean" not in str(caught.value)


def test_all_faults_are_named_in_one_message():
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(
            batch_size=0, optimizer="sgd", sede=1, d_model=30, n_heads=4, muon_momentum=0.5
        )

    message = str(caught.value)
    assert message.startswith("4 settings are wrong")
    for words in ("batch_size is 0", "optimizer is 'sgd'", "sede is not", "d_model is 30"):
        assert words in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({"max_steps": 5, "epochs": 1.0}, "Set the other to 0", id="two lengths"),
        pytest.param({"max_steps": 0}, "both 0", id="no length"),
        pytest.param({"d_model": 100, "n_heads": 3}, "Try n_heads = 2", id="heads do not divide"),
        pytest.param({"d_model": 12, "n_heads": 4}, "Try n_heads = 1", id="odd heads"),
        pytest.param({"warmup_fraction": 0.5}, "at most 1", id="warmup and decay overlap"),
        pytest.param({"micro_batch_size": 17}, "part of batch_size", id="micro above global"),
        pytest.param(
            {"early_stopping_patience": 1, "eval_every": 0}, "Set eval_every", id="nothing to judge"
        ),
        pytest.param(
            {"early_stopping_min_delta": 0.1}, "Set early_stopping_patience", id="nothing stops"
        ),
        pytest.param(
            {"tokenizer": "byte", "vocab_size": 512}, "read only with tokenizer", id="bytes"
        ),
        pytest.param(
            {"optimizer": "adamw", "muon_momentum": 0.5}, "read only with optimizer", id="adamw"
        ),
        pytest.param(
            {"scheduler": "cosine", "decay_fraction": 0.5}, "read only with scheduler", id="cosine"
        ),
        pytest.param(
            {"scheduler": "constant", "min_lr_ratio": 0.5}, "'wsd' or 'cosine'", id="constant"
        ),
        pytest.param({"database": "OFF"}, "auto, off, a file", id="a file by mistake"),
        pytest.param({"budget": "0min"}, "some time is wanted", id="no time"),
        pytest.param({"budget": "1h", "finish_by": "21:30"}, "Empty the other", id="two ends"),
    ],
)
def test_settings_that_contradict_are_refused(settings, words):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(**settings)

    assert words in str(caught.value)


@pytest.mark.parametrize("width", [8, 12, 30, 96, 128, 768, 1000])
def test_the_suggested_heads_are_accepted(width):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(d_model=width, n_heads=7)
    suggested = int(str(caught.value).rstrip(".").rpartition(" ")[2])

    assert TrainingConfig(d_model=width, n_heads=suggested).n_heads == suggested


def test_our_errors_are_the_builtin_ones_too():
    with pytest.raises(ValueError, match="seed") as caught:
        TrainingConfig(seed=-1)

    assert isinstance(caught.value, HelpersError)


# Changes


def test_a_config_cannot_be_assigned_to():
    config = TrainingConfig()

    with pytest.raises(ConfigError, match=r"Use config.replace\(seed=1\)"):
        config.seed = 1
    assert config.seed == 42


def test_replace_returns_a_new_config_and_diff_names_the_change():
    config = TrainingConfig()
    changed = config.replace(seed=1, batch_size=8)

    assert (config.seed, changed.seed) == (42, 1)
    assert config.diff(changed) == {"batch_size": (16, 8), "seed": (42, 1)}
    assert config.diff(config) == {}


@pytest.mark.parametrize("name", FIELDS)
def test_the_fingerprint_is_over_all_but_runtime_settings(name, tiny_config):
    value, _, base = EFFECTS[name]
    before, after = tiny_config(**base), tiny_config(**{**base, name: value})

    assert (before.fingerprint() == after.fingerprint()) == (name in RUNTIME)


def test_a_builder_does_not_change():
    start = TrainingConfigBuilder()
    start.with_training(seed=1)
    start.with_settings(d_model=64)

    assert start.build() == TrainingConfig()


def test_every_group_has_its_method_and_every_field_its_group():
    assert {name for group in GROUPS for name in names_of(group)} == set(FIELDS)
    assert all(hasattr(TrainingConfigBuilder, f"with_{group}") for group in GROUPS)


@pytest.mark.parametrize("name", FIELDS)
def test_a_method_of_the_builder_takes_its_own_group_only(name):
    builder = TrainingConfigBuilder()
    other = next(group for group in GROUPS if group != group_of(name))
    value = FIELDS[name].default

    getattr(builder, f"with_{group_of(name)}")(**{name: value})
    with pytest.raises(ConfigError, match=rf"Use with_{group_of(name)}\({name}=...\)"):
        getattr(builder, f"with_{other}")(**{name: value})


def test_a_builder_names_all_wrong_settings_at_once():
    with pytest.raises(ConfigError) as caught:
        TrainingConfigBuilder().with_model(sede=1, learning_rate=0.1)

    assert "Did you mean seed" in str(caught.value)
    assert "Use with_optimizer" in str(caught.value)


def test_none_leaves_a_setting_of_any_group_as_it_is():
    config = TrainingConfigBuilder().with_settings(seed=None, d_model=64).build()

    assert (config.seed, config.origin("seed")) == (42, "default")
    assert (config.d_model, config.origin("d_model")) == (64, "user")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_builds_what_it_says(preset):
    config = TrainingConfigBuilder.from_preset(preset).build()

    assert {name: getattr(config, name) for name in PRESETS[preset]} == PRESETS[preset]


def test_an_unknown_preset_comes_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean small"):
        TrainingConfigBuilder.from_preset("smal")


# Where a value came from


def test_each_value_knows_where_it_came_from():
    config = TrainingConfigBuilder.from_preset("smoke").with_training(epochs=2.0).build()

    assert config.origin("d_model") == "preset smoke"
    assert config.origin("learning_rate") == "default"
    assert config.origin("epochs") == "user"
    assert config.origin("max_steps") == "automatic"
    assert config.max_steps == 0


@pytest.mark.parametrize(
    ("given", "automatic"),
    [
        pytest.param({"epochs": 2.0}, {"max_steps": 0}, id="epochs"),
        pytest.param({"max_steps": 7}, {"epochs": 0.0}, id="max_steps"),
    ],
)
def test_a_users_length_replaces_that_of_a_preset(given, automatic):
    config = TrainingConfigBuilder.from_preset("smoke").with_training(**given).build()

    assert {name: getattr(config, name) for name in automatic} == automatic
    assert {config.origin(name) for name in automatic} == {"automatic"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda b: b.with_training(max_steps=5, epochs=2.0), id="at once"),
        pytest.param(lambda b: b.with_training(max_steps=5).with_training(epochs=2.0), id="twice"),
        pytest.param(lambda b: b.with_settings(max_steps=800, epochs=2.0), id="a default"),
    ],
)
def test_two_lengths_of_the_user_are_refused(change):
    with pytest.raises(ConfigError, match="Set the other to 0"):
        change(TrainingConfigBuilder()).build()


def test_a_users_choice_drops_what_the_preset_set_for_another():
    config = TrainingConfigBuilder.from_preset("smoke").with_data(tokenizer="byte").build()

    assert config.tokenizer == "byte"
    assert config.vocab_size == FIELDS["vocab_size"].default


def test_a_change_leaves_the_other_origins_alone():
    config = TrainingConfigBuilder.from_preset("smoke").build().replace(seed=1)

    assert config.origin("seed") == "user"
    assert config.origin("learning_rate") == "default"
    assert config.origin("d_model") == "preset smoke"


def test_a_form_that_repeats_a_value_leaves_its_origin_alone():
    config = TrainingConfigBuilder.from_preset("smoke").with_settings(d_model=64, seed=42).build()

    assert config.origin("d_model") == "preset smoke"
    assert config.origin("seed") == "default"


def test_the_origin_of_an_unknown_setting_is_refused():
    with pytest.raises(ConfigError, match="Did you mean seed"):
        TrainingConfig().origin("sede")


def test_the_table_shows_every_setting_and_escapes_text():
    shown = TrainingConfig(sample_prompt="<i>")._repr_html_()

    assert all(f">{name}</td>" in shown for name in FIELDS)
    assert "<i>" not in shown


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_help_and_every_size_a_unit(name):
    is_size = name.endswith(("_every", "_steps", "_size", "_sequences", "_tokens", "_length"))

    assert FIELDS[name].description.endswith(".")
    assert not is_size or unit_of(name)


# Command line


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        ("learning_rate=3e-4", "learning_rate", 3e-4),
        ("learning_rate=1", "learning_rate", 1.0),
        ("max_steps=20", "max_steps", 20),
        ("tie_embeddings=true", "tie_embeddings", True),
        ("tie_embeddings=False", "tie_embeddings", False),
        ("optimizer=adamw", "optimizer", "adamw"),
        ("sample_prompt=", "sample_prompt", ""),
        ("sample_prompt=a = b", "sample_prompt", "a = b"),
        ("run_name=7", "run_name", "7"),
    ],
)
def test_an_assignment_is_read_as_its_type(typed, name, value):
    parsed = parse_setting(typed)

    assert parsed == (name, value)
    assert type(parsed[1]) is type(value)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("learning_rate", "NAME=VALUE is wanted"),
        ("=3", "is not a setting"),
        ("lerning_rate=3", "Did you mean learning_rate"),
        ("max_steps=", "a whole number"),
        ("max_steps=1.5", "a whole number at least 0"),
        ("max_steps=many", "a whole number"),
        ("learning_rate=fast", "a finite number"),
        ("tie_embeddings=yes", "True or False"),
        ("tie_embeddings=1", "True or False"),
    ],
)
def test_an_assignment_of_another_type_is_refused(typed, words):
    with pytest.raises(ConfigError) as caught:
        parse_setting(typed)

    assert words in str(caught.value)


@given(st.sampled_from(list(FIELDS)), st.data())
def test_what_is_typed_back_is_what_was_meant(name, draw):
    value = draw.draw(any_value(name))

    assert parse_setting(f"{name}={value}") == (name, value)


# Each setting changes behaviour


@dataclass
class Lab:
    """Acts on settings in a fresh working folder, and keeps what is to be looked at."""

    make_trainer: Callable
    tiny_config: Callable
    tiny_model: Callable
    data: UniversalDataModule
    root: Path
    capsys: pytest.CaptureFixture
    home: Path = Path()
    result: TrainingResult | None = None

    def train(self, *, in_new_folder=True, **settings):
        """Train three steps."""
        if in_new_folder:
            self._enter_new_folder()
        defaults = {"output_dir": "runs", "cache_dir": "cache", "max_steps": 3}
        trainer = self.make_trainer(**{**defaults, **settings})
        self.result = trainer.train(self.data.train, self.data.val)
        return trainer

    def load(self, **settings):
        """Build the data module."""
        self._enter_new_folder()
        shutil.copy(argparse.__file__, "one.txt")
        shutil.copy(shutil.__file__, "other.txt")
        rows = [f"{i} one text,{i} other text" for i in range(40)]
        Path("table.csv").write_text("\n".join(["one,other", *rows, ","]))
        defaults = {"cache_dir": "cache", "source": "one.txt"}
        return UniversalDataModule.from_config(self.tiny_config(**{**defaults, **settings}))

    def _enter_new_folder(self):
        self.home = Path(tempfile.mkdtemp(dir=self.root))
        os.chdir(self.home)


@pytest.fixture
def lab(make_trainer, tiny_config, tiny_model, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    n_threads = torch.get_num_threads()
    yield Lab(make_trainer, tiny_config, tiny_model, data, tmp_path, capsys)
    torch.set_num_threads(n_threads)
    torch.use_deterministic_algorithms(False)


def first_batch(lab, **settings):
    return lab.load(**settings).train.gather(np.arange(2))["input_ids"].tolist()


def left_out(lab, **settings):
    """Rows that were left out, or none where the data was refused."""
    try:
        return lab.load(**settings).report.n_skipped
    except DataError:
        return None


def split_sizes(lab, **settings):
    module = lab.load(**settings)
    return len(module.train), len(module.val)


def vocabulary(lab, **settings):
    return lab.load(**settings).vocab_size


def cached_files(lab, **settings):
    lab.load(**settings)
    return sorted(str(path.relative_to(lab.home)) for path in lab.home.rglob("*.bin"))


def weights(lab, **settings):
    """Weights after three steps, to five digits, so that rounding errors are no effect."""
    model = lab.train(**settings).model
    return {name: tensor.round(decimals=5).tolist() for name, tensor in model.named_parameters()}


def readers(lab, **settings):
    """The threads that read the batches of training."""
    names, gather = set(), PackedTokens.gather
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            PackedTokens,
            "gather",
            lambda self, i: names.add(threading.current_thread().name) or gather(self, i),
        )
        lab.train(**settings)
    return names


def length(lab, **settings):
    lab.train(**settings)
    return lab.result.status, lab.result.steps


def logged_steps(lab, **settings):
    lab.train(**settings)
    return [row["step"] for row in read_rows(Path(lab.result.run_dir) / "metrics.jsonl")]


def validation_losses(lab, **settings):
    lab.train(**settings)
    return lab.result.metrics_summary["val/loss"].tolist()


def samples(lab, **settings):
    lab.train(**settings)
    return lab.result.samples


def output(lab, **settings):
    """Everything that is shown, but for the folder and the time."""
    lab.train(**settings)
    return [line.split()[0] for line in "".join(lab.capsys.readouterr()).splitlines()]


def run_files(lab, **settings):
    lab.train(**settings)
    names = {p.relative_to(lab.home).as_posix() for p in lab.home.rglob("*") if p.is_file()}
    return sorted(name for name in names if "LOCK" not in name)


def run_files_of_two_sessions(lab, **settings):
    lab.train(**settings)
    lab.train(in_new_folder=False, **settings)
    return sorted(path.name for path in lab.home.glob("runs/*"))


def checkpoints(lab, **settings):
    lab.train(**settings)
    return sorted(path.name for path in Path(lab.result.run_dir).glob("checkpoints/*"))


def sizes_of_forward_passes(lab, **settings):
    sizes, model = [], lab.tiny_model()
    model.embedding.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    lab.train(model=model, **settings)
    return sizes


def place(lab, **settings):
    """The device of the weights, or why there is none."""
    try:
        return str(next(lab.train(**settings).model.parameters()).device)
    except ConfigError as error:
        return str(error)


def forward_class(lab, **settings):
    """What would be called, without the minute that compiling takes."""
    trainer = lab.make_trainer(**settings)
    return type(trainer._forward(plan_device(trainer.model, trainer.training_config)))


def threads(lab, **settings):
    lab.train(**settings)
    return torch.get_num_threads()


def determinism(lab, **settings):
    lab.train(**settings)
    return torch.are_deterministic_algorithms_enabled()


def planned_steps(lab, **settings):
    return lab.make_trainer(**settings).plan(lab.data.train, lab.data.val).steps


def told_of_a_spoilt_step(lab, *, step, factor, **settings):
    """What is told of a run in which one step has a gradient that is a multiple of its own."""
    model, n_passes = lab.tiny_model(), itertools.count(1)

    def spoil(gradient):
        return gradient * factor if next(n_passes) == step else gradient

    model.head.weight.register_hook(spoil)
    try:
        lab.train(model=model, **settings)
    except DivergedError:
        return "diverged"
    return [kind for _, kind, _ in lab.result.events]


def told_of_infinity(lab, **settings):
    return told_of_a_spoilt_step(lab, step=2, factor=math.inf, **settings)


def told_of_a_spike(lab, **settings):
    return told_of_a_spoilt_step(lab, step=48, factor=1e7, **settings)


# By setting: another value, where its effect is seen, and what else must be set for that.
TABLE = {"source": "table.csv"}
EFFECTS = {
    "source": ("other.txt", first_batch, {}),
    "text_column": ("other", first_batch, {**TABLE, "text_column": "one", "bad_rows": "skip"}),
    "bad_rows": ("skip", left_out, {**TABLE, "text_column": "one"}),
    "val_fraction": (0.4, split_sizes, {}),
    "tokenizer": ("bpe", vocabulary, {}),
    "vocab_size": (400, vocabulary, {"tokenizer": "bpe", "vocab_size": 500}),
    "sequence_length": (16, first_batch, {}),
    "num_workers": (2, readers, {}),
    "cache_dir": ("elsewhere", cached_files, {}),
    "d_model": (32, weights, {}),
    "n_layers": (2, weights, {}),
    "n_heads": (4, weights, {}),
    "mlp_ratio": (2, weights, {}),
    "dropout": (0.5, weights, {}),
    "tie_embeddings": (True, weights, {}),
    "batch_size": (8, weights, {}),
    "max_steps": (4, length, {}),
    "epochs": (0.02, length, {"max_steps": 0, "epochs": 0.01}),
    "budget": ("1s", planned_steps, {"max_steps": 10**7}),
    "finish_by": ("12:00", planned_steps, {"max_steps": 10**11}),
    "seed": (1, weights, {}),
    "eval_every": (1, validation_losses, {}),
    "eval_sequences": (8, validation_losses, {"eval_every": 1}),
    "early_stopping_patience": (1, length, {"eval_every": 1, "learning_rate": 1e-12}),
    "early_stopping_min_delta": (9.0, length, {"eval_every": 1, "early_stopping_patience": 1}),
    "optimizer": ("adamw", weights, {}),
    "learning_rate": (0.02, weights, {}),
    "embedding_lr_scale": (1.0, weights, {}),
    "weight_decay": (0.5, weights, {}),
    "beta1": (0.5, weights, {}),
    "beta2": (0.5, weights, {}),
    "epsilon": (1e-2, weights, {}),
    "muon_momentum": (0.5, weights, {}),
    "max_grad_norm": (1e-3, weights, {"epsilon": 1e-2}),
    "ema_decay": (0.9, weights, {}),
    "on_nonfinite": ("skip", told_of_infinity, {}),
    "spike_sigma": (0.0, told_of_a_spike, {"max_steps": 60}),
    "scheduler": ("cosine", weights, {"max_steps": 6}),
    "warmup_fraction": (0.5, weights, {"decay_fraction": 0.4}),
    "decay_fraction": (0.3, weights, {}),
    "min_lr_ratio": (0.5, weights, {}),
    "device": ("cuda", place, {}),
    "precision": ("bf16", weights, {"precision": "fp32"}),
    "micro_batch_size": (1, sizes_of_forward_passes, {}),
    "compile": ("on", forward_class, {}),
    "threads": (2, threads, {}),
    "deterministic": (True, determinism, {}),
    "output_dir": ("elsewhere", run_files, {}),
    "run_name": ("mine", run_files, {}),
    "resume": ("never", run_files_of_two_sessions, {}),
    "save_every": (1, checkpoints, {"keep_checkpoints": 9}),
    "save_minutes": (1e-9, checkpoints, {"keep_checkpoints": 9}),
    "mirror_dir": ("elsewhere", run_files, {}),
    "keep_checkpoints": (1, checkpoints, {"save_every": 1, "keep_checkpoints": 3}),
    "log_every": (2, logged_steps, {"max_steps": 6}),
    "panel": ("lines", output, {}),
    "database": ("auto", run_files, {}),
    "sample_prompt": ("class ", samples, {"sample_tokens": 4}),
    "sample_tokens": (4, samples, {}),
}


@pytest.mark.parametrize("name", FIELDS)
def test_each_setting_changes_behaviour(name, lab):
    """A setting without an entry in EFFECTS fails: add what it does."""
    value, observe, base = EFFECTS[name]
    before, same = observe(lab, **base), observe(lab, **base)
    after = observe(lab, **{**base, name: value})

    assert before == same
    assert before != after


def test_a_truth_value_is_a_change_of_a_number_and_is_refused():
    with pytest.raises(ConfigError, match="n_layers is True"):
        TrainingConfigBuilder({"n_layers": 1}).with_settings(n_layers=True).build()


def test_origins_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"seed": 1, "_origins": 5}')

    with pytest.raises(ConfigError, match="_origins = 5"):
        TrainingConfig.load(path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({"sample_prompt": "\ud800"}, "no text has", id="half-a-surrogate-pair"),
        pytest.param({"output_dir": "a\0b"}, "no text has", id="nul"),
        pytest.param({"output_dir": "~nobody-here/x"}, "no such user", id="unknown-user"),
        pytest.param({"cache_dir": "x" * 300}, "255 bytes", id="long-name"),
        pytest.param({"mirror_dir": "~nobody-here/x"}, "no such user", id="unknown-user-of-a-copy"),
        pytest.param({"mirror_dir": "a\0b"}, "no text has", id="nul-in-a-copy"),
        pytest.param({"database": "off "}, "ends with a blank", id="blank-at-the-end"),
        pytest.param({"run_name": "experiments.db"}, "is taken", id="name-of-the-database"),
        pytest.param({"run_name": "experiments.db-wal"}, "is taken", id="name-beside-the-database"),
        pytest.param({"budget": "1" + 400 * "0" + "h"}, "must match", id="a-time-without-end"),
        pytest.param({"database": "postgresql://bob:secret@db/x"}, "set PGPASSWORD", id="password"),
    ],
)
def test_texts_that_something_would_stumble_over_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words) as refused:
        TrainingConfig(**settings)
    assert "secret" not in str(refused.value)


def test_faults_are_listed_one_by_one_also_beside_an_unknown_name():
    builder = TrainingConfigBuilder()
    with pytest.raises(ConfigError) as refused:
        builder.with_settings(lerning_rate=0.1, learning_rate=-1.0, d_model=33)

    assert len(refused.value.faults) == 3
    assert all(fault in str(refused.value) for fault in refused.value.faults)

"""Tiny real things that tests share: text, data, settings, a model and a trainer."""

import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import settings

from helpers.config import TrainingConfig
from helpers.data import UniversalDataModule
from helpers.models import Decoder, DecoderConfig
from helpers.trainer import Trainer

settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("suite")

WORDS = ("batch", "count", "error", "field", "group", "index", "label", "order", "path", "rate")
DEFAULTS = {
    "tokenizer": "byte",
    "sequence_length": 32,
    "d_model": 16,
    "n_layers": 1,
    "n_heads": 2,
    "batch_size": 4,
    "max_steps": 12,
    "eval_every": 0,
    "save_every": 0,
    "log_every": 1,
    "sample_tokens": 0,
    "panel": "off",
    "database": "off",
    "device": "cpu",
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """About 60 kB of text that looks like Python, in 40 documents."""
    rng = random.Random(0)
    return ["\n\n".join(_function(rng) for _ in range(14)) for _ in range(40)]


@pytest.fixture(scope="session")
def data(texts, tmp_path_factory) -> UniversalDataModule:
    """The texts as bytes, in sequences of 32."""
    return UniversalDataModule(
        texts, tokenizer="byte", sequence_length=32, cache_dir=tmp_path_factory.mktemp("cache")
    )


@pytest.fixture
def tiny_config(tmp_path) -> Callable[..., TrainingConfig]:
    """Make a config of 12 steps in `tmp_path`, with some settings changed."""

    def make(**changes) -> TrainingConfig:
        folders = {"output_dir": str(tmp_path / "runs"), "cache_dir": str(tmp_path / "cache")}
        return TrainingConfig(**{**DEFAULTS, **folders, **changes})

    return make


@pytest.fixture
def tiny_model() -> Callable[..., Decoder]:
    """Make a decoder of one layer 16 wide; equal arguments give equal weights."""

    def make(vocab_size: int = 257, *, seed: int = 0, **changes) -> Decoder:
        shape = {"d_model": 16, "n_layers": 1, "n_heads": 2} | changes
        torch.manual_seed(seed)
        return Decoder(DecoderConfig(vocab_size, **shape))

    return make


@pytest.fixture
def make_trainer(tiny_config, tiny_model) -> Callable[..., Trainer]:
    """Make a trainer of a tiny run; `model`, `task_spec`, `callbacks` and `db` may be given."""

    def make(*, model=None, task_spec=None, callbacks=(), db=None, **changes) -> Trainer:
        config = tiny_config(**changes)
        model = model or tiny_model(seed=config.seed, **config.group("model"))
        shape = getattr(model, "config", None)
        return Trainer(model, shape, config, task_spec, callbacks=callbacks, db=db)

    return make


def _function(rng: random.Random) -> str:
    """A function of two lines with names and numbers drawn at random."""
    name, first, second = rng.sample(WORDS, 3)
    return (
        f"def {name}_{first}({first}, {second}={rng.randrange(100)}):\n"
        f'    """Return the {name} of a {second}."""\n'
        f"    return {first} {rng.choice('+-*/')} {second}"
    )

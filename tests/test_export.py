"""An exported model is one file of tensors and plain values, whole or not there."""

import json
import math
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.config import TrainingConfig
from helpers.errors import CheckpointError
from helpers.export import export_model, load_export, plain
from helpers.models import Decoder, DecoderConfig

ROOT = Path(__file__).parents[1]
KEYS = {"model_state_dict", "training_config", "results"}
SMALL_DISK = """
import resource, signal, sys, torch
from helpers.config import TrainingConfig
from helpers.errors import CheckpointError
from helpers.export import export_model
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    export_model(sys.argv[1], torch.nn.Linear(200, 200), TrainingConfig(), {})
except CheckpointError as error:
    print(error)
"""


def types_in(value) -> set[type]:
    if isinstance(value, dict):
        return {dict, *map(type, value)}.union(*map(types_in, value.values()))
    if isinstance(value, list):
        return {list}.union(*map(types_in, value))
    return {type(value)}


@pytest.fixture
def exported(make_trainer, data):
    """The trainer, result and file of a run."""
    trainer = make_trainer(eval_every=6, sample_tokens=4)
    result = trainer.train(data.train, data.val)
    return trainer, result, Path(result.run_dir) / "final_model.pt"


def test_the_export_of_a_run_loads_without_trust_and_has_its_keys(exported):
    _, result, path = exported
    content = torch.load(path, weights_only=True)

    assert set(content) == KEYS
    assert content["results"]["final_loss"] == result.final_loss
    assert content["results"]["status"] == "completed"
    assert len(content["results"]["metrics_summary"]) == 2


def test_weights_come_back_bit_for_bit_into_a_new_model(exported):
    trainer, _, path = exported
    other = Decoder(DecoderConfig(257, d_model=16, n_layers=1, n_heads=2))
    other.load_state_dict(load_export(path)["model_state_dict"])

    for a, b in zip(trainer.model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_settings_come_back_as_the_config_they_were(exported):
    trainer, _, path = exported

    assert TrainingConfig.from_dict(load_export(path)["training_config"]).to_dict() == (
        trainer.training_config.to_dict()
    )


def test_settings_and_results_are_plain_types_that_json_knows(exported):
    content = load_export(exported[2])
    found = types_in(content["training_config"]) | types_in(content["results"])

    assert found <= {dict, list, str, int, float, bool, type(None)}
    assert json.loads(json.dumps(content["results"])) == content["results"]


def test_tied_weights_are_stored_once(tmp_path, tiny_model, tiny_config):
    paths = [
        export_model(tmp_path / f"{tied}.pt", tiny_model(tie_embeddings=tied), tiny_config(), {})
        for tied in (True, False)
    ]

    assert paths[1].stat().st_size - paths[0].stat().st_size > 0.9 * 257 * 16 * 4
    assert "head.weight" in load_export(paths[0])["model_state_dict"]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        pytest.param(np.float64(1.5), 1.5, id="NumPy's double, which is a float"),
        pytest.param(np.float32(1.5), 1.5, id="NumPy's float"),
        pytest.param(np.int64(3), 3, id="NumPy's integer"),
        pytest.param(np.bool_(True), True, id="NumPy's truth"),
        pytest.param(np.str_("a"), "a", id="NumPy's text, which is a text"),
        pytest.param(torch.tensor(2.0), 2.0, id="a tensor of one number"),
        pytest.param((1, [2, (3,)]), [1, [2, [3]]], id="tuples"),
        pytest.param({1: {"a": None}}, {"1": {"a": None}}, id="keys"),
        pytest.param(Path("a/b"), "a/b", id="a path"),
        pytest.param(math.inf, math.inf, id="infinity"),
    ],
)
def test_values_become_plain_and_load_without_trust(
    tmp_path, tiny_model, tiny_config, value, wanted
):
    path = export_model(tmp_path / "m.pt", tiny_model(), tiny_config(), {"value": value})
    loaded = load_export(path)["results"]["value"]

    assert (loaded, types_in(loaded)) == (wanted, types_in(wanted))


def test_what_has_no_plain_form_is_refused_before_anything_is_written(
    tmp_path, tiny_model, tiny_config
):
    with pytest.raises(TypeError, match="object has no plain form"):
        export_model(tmp_path / "m.pt", tiny_model(), tiny_config(), {"value": object()})
    assert not list(tmp_path.glob("*m.pt*"))


def test_plain_is_idempotent():
    once = plain({"a": (np.float64(1), [None, True]), "b": Path("x")})

    assert plain(once) == once


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda path: None, id="no such folder"),
        pytest.param(lambda path: path.parent.write_text(""), id="a file for the folder"),
        pytest.param(lambda path: path.mkdir(parents=True), id="a folder of this name"),
    ],
)
def test_a_place_that_cannot_be_written_is_an_error_of_ours(
    tmp_path, tiny_model, tiny_config, prepare
):
    path = tmp_path / "folder" / "m.pt"
    prepare(path)

    with pytest.raises(CheckpointError, match="could not be written"):
        export_model(path, tiny_model(), tiny_config(), {})
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".tmp")]


def test_a_full_disk_leaves_the_old_file_and_no_trace(tmp_path, tiny_model, tiny_config):
    path = export_model(tmp_path / "m.pt", tiny_model(), tiny_config(), {"number": 1})
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DISK, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "could not be written" in done.stdout
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.unlink(), id="missing"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"not a model"), id="text"),
        pytest.param(lambda path: os.truncate(path, 3000), id="truncated"),
        pytest.param(
            lambda path: path.write_bytes(pickle.dumps({1, 2}, protocol=2)), id="a pickle"
        ),
        pytest.param(lambda path: torch.save({"a": torch.ones(1)}, path), id="other keys"),
        pytest.param(lambda path: torch.save([1, 2], path), id="a list"),
        pytest.param(lambda path: torch.save({"a": Path("x")}, path), id="an object"),
        pytest.param(lambda path: zipfile.ZipFile(path, "w").close(), id="an empty archive"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path, tiny_model, tiny_config, damage):
    path = export_model(tmp_path / "m.pt", tiny_model(), tiny_config(), {})
    damage(path)

    with pytest.raises(CheckpointError, match=r"Give the path of a final_model\.pt"):
        load_export(path)

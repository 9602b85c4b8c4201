"""A checkpoint is whole and sound, or it is not used."""

import json
import os
import pickletools
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.engine.checkpoint import (
    MANIFEST,
    CheckpointStore,
    Snapshot,
    load_model_tensors,
    model_tensors,
    verify,
)
from helpers.engine.durable import write_json
from helpers.errors import CheckpointError, CheckpointFormatError

ROOT = Path(__file__).parents[1]
FILES = ["MANIFEST.json", "model.safetensors", "optimizer.safetensors", "state.json"]
SMALL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from helpers.engine.checkpoint import CheckpointStore, Snapshot
from helpers.errors import CheckpointError, CheckpointFormatError
store = CheckpointStore(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    store.save(Snapshot(2, {"model": {"w": torch.ones(5000)}}, {"long": "x" * 50_000}), keep=1)
except CheckpointError as error:
    print(error)
"""


def snapshot_of(step: int) -> Snapshot:
    rng = torch.Generator().manual_seed(step)
    sections = {
        "model": {"weight": torch.randn(40, 30, generator=rng), "empty": torch.empty(0, 3)},
        "optimizer": {"momentum": torch.randn(40, 30, generator=rng)},
    }
    return Snapshot(step, sections, {"run": {"step": step}, "note": "é", "none": None})


def same(a: Snapshot, b: Snapshot) -> bool:
    def bits(snapshot):
        return {
            (section, name): (t.dtype, t.shape, t.contiguous().view(-1).view(torch.uint8).tolist())
            for section, tensors in snapshot.sections.items()
            for name, t in tensors.items()
        }

    return (a.step, a.state) == (b.step, b.state) and bits(a) == bits(b)


@pytest.fixture
def store(tmp_path) -> CheckpointStore:
    """A store that holds the steps 1, 2 and 3."""
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    for step in (1, 2, 3):
        store.save(snapshot_of(step), keep=9)
    return store


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path, position: float) -> None:
    """Change one bit at a share of the file's length."""
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def zero_page(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(b"\0" * min(4096, len(content)) + content[4096:])


def swap(a: Path, b: Path) -> None:
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def edit_manifest(folder: Path, change) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def rename(folder: Path) -> None:
    """Put an older checkpoint under the name of the newest."""
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-000000001"), folder)


DAMAGE = {
    **{
        f"flip {name} at {p}": lambda f, n=name, p=p: flip(f / n, p)
        for name in FILES
        for p in (0.0, 0.3, 0.6, 1.0)
    },
    **{f"truncate {n}": lambda f, n=n: os.truncate(f / n, 20) for n in FILES},
    **{f"empty {n}": lambda f, n=n: os.truncate(f / n, 0) for n in FILES},
    **{f"zero page in {n}": lambda f, n=n: zero_page(f / n) for n in FILES},
    **{f"missing {n}": lambda f, n=n: (f / n).unlink() for n in FILES},
    **{f"dangling {n}": lambda f, n=n: dangle(f / n) for n in FILES},
    **{f"folder for {n}": lambda f, n=n: put_folder(f / n) for n in FILES},
    "swapped files": lambda f: swap(f / "model.safetensors", f / "optimizer.safetensors"),
    "swapped steps": lambda f: swap(
        f / "model.safetensors", f.with_name("step-000000002") / "model.safetensors"
    ),
    "extra file": lambda f: (f / "extra").write_text("x"),
    "manifest says another hash": lambda f: edit_manifest(
        f, lambda m: m["files"]["state.json"].update(sha256="0" * 64)
    ),
    "manifest forgets a file": lambda f: edit_manifest(f, lambda m: m["files"].pop("state.json")),
    "manifest of another format": lambda f: edit_manifest(f, lambda m: m.update(format=99)),
    "manifest is a list": lambda f: (f / MANIFEST).write_text("[]"),
    "manifest is not UTF-8": lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe{}"),
    "another step under this name": rename,
    "everything gone": lambda f: [path.unlink() for path in list(f.iterdir())],
}


def test_a_snapshot_comes_back_bit_for_bit(store):
    assert same(store.load(2), snapshot_of(2))
    assert same(store.load_latest(), snapshot_of(3))


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]), id="odd floats"),
        pytest.param(torch.empty(0), id="no element"),
        pytest.param(torch.empty(3, 0, 2), id="no element in three dimensions"),
        pytest.param(torch.tensor(7.0), id="a number"),
        pytest.param(torch.arange(12.0).reshape(3, 4).t(), id="transposed"),
        pytest.param(torch.arange(12.0)[::3], id="strided"),
        pytest.param(torch.ones(1).expand(5), id="expanded"),
        pytest.param(torch.ones(3, requires_grad=True), id="with gradient"),
        pytest.param(torch.ones(3, dtype=torch.bfloat16), id="bf16"),
        pytest.param(torch.ones(3, dtype=torch.float16), id="fp16"),
        pytest.param(torch.tensor([True, False]), id="bool"),
        pytest.param(torch.tensor([2**62, -1]), id="int64"),
    ],
)
def test_every_kind_of_tensor_comes_back(tmp_path, tensor):
    store = CheckpointStore(tmp_path)
    store.save(Snapshot(0, {"model": {"a": tensor, "b.c/d": tensor.clone()}}, {}), keep=1)
    loaded = store.load(0).sections["model"]["a"]

    assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape)
    torch.testing.assert_close(loaded, tensor.detach(), rtol=0, atol=0, equal_nan=True)


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path, tiny_model):
    model, other = (tiny_model(tie_embeddings=True, seed=seed) for seed in (1, 2))
    tensors, aliases = model_tensors(model)
    store = CheckpointStore(tmp_path)
    store.save(Snapshot(1, {"model": tensors}, {"aliases": aliases}), keep=1)
    snapshot = store.load(1)
    load_model_tensors(other, snapshot.sections["model"], snapshot.state["aliases"])

    assert aliases == {"head.weight": "embedding.weight"}
    assert "head.weight" not in snapshot.sections["model"]
    assert other.head.weight is other.embedding.weight
    assert torch.equal(other.head.weight, model.head.weight)


def test_weights_of_one_matrix_turned_are_not_taken_for_tied():
    model = nn.Module()
    model.register_buffer("a", torch.arange(4.0).reshape(2, 2))
    model.register_buffer("b", model.a.t())
    tensors, aliases = model_tensors(model)

    assert aliases == {}
    assert torch.equal(tensors["b"], tensors["a"].t())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(lambda t: t.pop("norm.weight"), "lack ['norm.weight']", id="missing"),
        pytest.param(lambda t: t.update(x=torch.ones(1)), "['x'] too many", id="unknown"),
        pytest.param(
            lambda t: t.update({"norm.weight": torch.ones(3)}),
            "['norm.weight'] in another shape",
            id="shape",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tiny_model, change, named):
    model = tiny_model()
    tensors = dict(model.state_dict())
    change(tensors)

    with pytest.raises(CheckpointError) as caught:
        load_model_tensors(model, tensors, {})
    assert named in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_found_set_aside_and_said_and_the_previous_one_is_used(store, damage):
    damage(store.path(3))
    loaded = store.load_latest()

    assert loaded.step < 3
    assert same(loaded, snapshot_of(loaded.step))
    assert 3 not in store.steps()
    assert names_in(store.folder.parent / "quarantine")[-1].startswith("step-000000003")
    assert store.notes[0].startswith("step 3 was set aside: ")
    assert str(store.path(3)) in store.notes[0]


def test_if_all_are_damaged_it_is_said_and_all_are_kept_aside(store):
    for step in store.steps():
        flip(store.path(step) / "state.json", 0.5)

    for _ in range(2):  # and the next start does not begin anew without a word
        with pytest.raises(CheckpointError, match=r"No checkpoint in .* is sound"):
            store.load_latest()
    assert len(names_in(store.folder.parent / "quarantine")) == 3


def test_a_step_that_was_set_aside_can_be_written_and_set_aside_again(store):
    for _ in range(2):
        flip(store.path(3) / "state.json", 0.5)
        store.load_latest()
        store.save(snapshot_of(3), keep=9)

    assert same(store.load_latest(), snapshot_of(3))
    assert len(names_in(store.folder.parent / "quarantine")) == 2


@pytest.mark.parametrize(
    ("keep", "protected", "kept"),
    [
        pytest.param(1, [], [7], id="the newest"),
        pytest.param(3, [], [5, 6, 7], id="the newest three"),
        pytest.param(2, [2], [2, 6, 7], id="and the best"),
        pytest.param(2, [6], [6, 7], id="the best is among the newest"),
        pytest.param(1, [2, 4, 99], [2, 4, 7], id="and all protected ones"),
        pytest.param(99, [], [1, 2, 3, 4, 5, 6, 7], id="all"),
    ],
)
def test_the_newest_and_the_protected_ones_are_kept(tmp_path, keep, protected, kept):
    store = CheckpointStore(tmp_path)
    for step in range(1, 8):
        store.save(snapshot_of(step), keep=99 if step < 7 else keep, protected=protected)

    assert store.steps() == kept
    assert all(same(store.load(step), snapshot_of(step)) for step in kept)


def test_saving_a_step_again_changes_nothing(store):
    before = {path.name: path.stat().st_mtime_ns for path in store.path(3).iterdir()}
    info = store.save(Snapshot(3, {"model": {}}, {}), keep=9)

    assert {path.name: path.stat().st_mtime_ns for path in store.path(3).iterdir()} == before
    assert info.n_bytes == sum(path.stat().st_size for path in store.path(3).iterdir())


@pytest.mark.parametrize("limit", [0, 10_000, 30_000], ids=["at once", "weights", "state"])
def test_a_full_disk_leaves_older_checkpoints_and_no_trace(store, limit):
    for step in (2, 3):
        shutil.rmtree(store.path(step))
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DISK, str(store.folder), str(limit)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "The checkpoint of step 2 could not be written" in done.stdout
    assert names_in(store.folder) == ["step-000000001"]
    assert same(store.load_latest(), snapshot_of(1))


def test_a_file_in_the_place_of_the_folder_is_an_error_of_ours(tmp_path):
    (tmp_path / "checkpoints").write_text("not a folder")
    store = CheckpointStore(tmp_path / "checkpoints")

    assert store.load_latest() is None
    with pytest.raises(CheckpointError, match="could not be written"):
        store.save(snapshot_of(1), keep=1)


def test_tensors_that_overlap_in_memory_are_stored_apart(tmp_path):
    whole = torch.arange(6.0)
    store = CheckpointStore(tmp_path)
    store.save(Snapshot(1, {"model": {"a": whole[:4], "b": whole[2:]}}, {}), keep=1)

    assert store.load(1).sections["model"]["b"].tolist() == [2, 3, 4, 5]


def test_what_a_kill_left_behind_is_no_checkpoint_and_is_swept(store):
    for name in (".tmp-4-123", ".del-1"):
        shutil.copytree(store.path(3), store.folder / name)

    assert store.steps() == [1, 2, 3]
    store.sweep()
    assert names_in(store.folder) == ["step-000000001", "step-000000002", "step-000000003"]


def test_a_removal_that_was_cut_short_does_not_stop_the_next_one(store):
    shutil.copytree(store.path(1), store.folder / ".del-1")
    store.save(snapshot_of(4), keep=1)

    assert store.steps() == [4]


def test_nothing_in_a_checkpoint_is_pickled(store):
    for path in store.path(3).iterdir():
        assert path.suffix in (".json", ".safetensors")
        assert not zipfile.is_zipfile(path)
        with pytest.raises(ValueError, match="opcode"):
            list(pickletools.genops(path.read_bytes()))


def test_a_sound_checkpoint_verifies_wherever_its_run_is_moved(store, tmp_path):
    moved = store.folder.rename(tmp_path / "elsewhere")

    verify(moved / "step-000000003")
    assert CheckpointStore(moved).load_latest().step == 3


def test_a_json_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})

    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("state", [{0: 1}, {"a": [{"b": {None: 1}}]}, {"a": ({1.5: 1},)}])
def test_keys_that_would_come_back_as_text_are_refused(state):
    with pytest.raises(CheckpointError, match=r"is of type .* and not a text"):
        Snapshot(1, {}, {"callbacks": state}).state_text()


@pytest.mark.parametrize("name", ["step-²", "step-", "step-12x", "step--1"])
def test_a_folder_of_another_name_is_no_checkpoint(store, name):
    steps = store.steps()
    (store.folder / name).mkdir()

    assert store.steps() == steps


def test_another_format_is_told_and_nothing_is_set_aside(store, monkeypatch):
    steps = store.steps()
    monkeypatch.setattr("helpers.engine.manifest.FORMAT", 99)

    with pytest.raises(CheckpointFormatError, match="has format 1, but 99 is wanted"):
        store.load_latest()
    assert store.steps() == steps

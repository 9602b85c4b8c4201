"""Any byte of a checkpoint that is not as it was written is found, and the one before is used."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.engine import manifest
from helpers.engine.callbacks import Callback
from helpers.engine.checkpoint import CheckpointStore
from helpers.errors import CheckpointError
from tests.faults.checkpoints import is_as_saved, snapshot_of
from tests.faults.scale import n, record

SEED = 7
PAGE = 4096
WIDTH = 120
"""Wide enough that the files have several pages."""


def flip_bit(rng: random.Random, folder: Path) -> None:
    path, content = drawn(rng, folder)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def change_byte(rng: random.Random, folder: Path) -> None:
    path, content = drawn(rng, folder)
    content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def zero_page(rng: random.Random, folder: Path) -> None:
    path, content = drawn(rng, folder)
    start = PAGE * rng.randrange((len(content) - 1) // PAGE + 1)
    size = len(content[start : start + PAGE])
    content[start : start + PAGE] = bytes(size)
    path.write_bytes(content)


def truncate(rng: random.Random, folder: Path) -> None:
    path, content = drawn(rng, folder)
    path.write_bytes(content[: rng.randrange(len(content))])


def append(rng: random.Random, folder: Path) -> None:
    path, content = drawn(rng, folder)
    path.write_bytes(content + rng.randbytes(rng.randrange(1, 99)))


def repeat_page(rng: random.Random, folder: Path) -> None:
    """One part of a file stands in the place of another."""
    path, content = drawn(rng, folder)
    size = min(PAGE, len(content) // 2)
    start = rng.randrange(len(content) - size)
    content[start : start + size] = content[:size]
    path.write_bytes(content)


def swap_files(rng: random.Random, folder: Path) -> None:
    a, b = rng.sample(sorted(folder.iterdir()), 2)
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def take_from_another_step(rng: random.Random, folder: Path) -> None:
    path, _ = drawn(rng, folder)
    path.write_bytes((other_of(folder) / path.name).read_bytes())


def take_folder_of_another_step(rng: random.Random, folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(other_of(folder), folder)


def remove(rng: random.Random, folder: Path) -> None:
    drawn(rng, folder)[0].unlink()


def rename(rng: random.Random, folder: Path) -> None:
    path, _ = drawn(rng, folder)
    path.rename(path.with_name(rng.choice(["a", ".hidden", path.name.upper() + "x"])))


def add(rng: random.Random, folder: Path) -> None:
    (folder / rng.choice(["extra", ".extra", "model2.safetensors"])).write_bytes(b"")


FAULTS: dict[str, tuple[Callable, int]] = {
    "one bit": (flip_bit, 6),
    "one byte": (change_byte, 4),
    "zero page": (zero_page, 4),
    "truncation": (truncate, 4),
    "bytes at the end": (append, 1),
    "page of another place": (repeat_page, 1),
    "swapped files": (swap_files, 2),
    "file of another step": (take_from_another_step, 1),
    "another step under this name": (take_folder_of_another_step, 1),
    "missing file": (remove, 2),
    "renamed file": (rename, 1),
    "file too many": (add, 1),
}


def drawn(rng: random.Random, folder: Path) -> tuple[Path, bytearray]:
    """A file of a checkpoint, each as likely, and its content."""
    path = rng.choice(sorted(folder.iterdir()))
    return path, bytearray(path.read_bytes())


def other_of(folder: Path) -> Path:
    return folder.with_name("step-000000001")


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A folder with sound checkpoints of the steps 1 and 2."""
    folder = tmp_path_factory.mktemp("begun") / "checkpoints"
    for step in (1, 2):
        CheckpointStore(folder).save(snapshot_of(step, WIDTH), keep=9)
    return folder


def damaged(rng: random.Random, begun: Path, place: Path, kind: str = "") -> tuple[str, Path]:
    """A copy whose step 2 has one fault, which changes something."""
    names, weights = list(FAULTS), [weight for _, weight in FAULTS.values()]
    kind = kind or rng.choices(names, weights)[0]
    while True:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(begun, place / "checkpoints")
        folder = place / "checkpoints" / "step-000000002"
        FAULTS[kind][0](rng, folder)
        if content_of(folder) != content_of(begun / folder.name):
            return kind, place / "checkpoints"


def fault_of(folder: Path) -> str:
    """What is wrong with a start on a damaged copy, or nothing."""
    before, store = content_of(folder / "step-000000002"), CheckpointStore(folder)
    snapshot = store.load_latest()
    if snapshot.step != 1 or not is_as_saved(snapshot, WIDTH):
        return f"step {snapshot.step} was used"
    if len(store.notes) != 1 or not store.notes[0].startswith("step 2 was set aside: "):
        return f"it was told as {store.notes}"
    aside = [content_of(path) for path in store.quarantine.iterdir()]
    if len(aside) != 1 or not before.items() <= aside[0].items():
        return "it was not kept aside as it is"
    return ""


def test_every_damage_is_found_and_told_and_the_checkpoint_before_is_used(tmp_path, begun):
    rng, started, counts, faults = random.Random(SEED), time.perf_counter(), {}, []
    n_trials = n(150, 2000)
    for _ in range(n_trials):
        kind, folder = damaged(rng, begun, tmp_path / "run")
        counts[kind] = counts.get(kind, 0) + 1
        fault = fault_of(folder)
        if fault:
            faults.append((kind, fault))

    assert faults == []
    assert counts.keys() == FAULTS.keys()
    record(
        "damage",
        "A checkpoint with any byte changed, missing or too many is found, set aside and told, and "
        "the one before is used.",
        {"faults": n_trials, "detected": n_trials, "fell back": n_trials, "kinds": counts},
        command="TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_damage.py",
        seed=SEED,
        seconds=time.perf_counter() - started,
    )


def test_without_the_hashes_most_flipped_bits_are_loaded_in_silence(tmp_path, begun, monkeypatch):
    """The control: the same faults pass when the protection is gone."""
    monkeypatch.setattr(manifest, "_is_same", lambda got, wanted: True)
    rng, silent = random.Random(SEED), 0
    for _ in range(40):
        _, folder = damaged(rng, begun, tmp_path / "run", "one bit")
        try:
            silent += bool(fault_of(folder))
        except CheckpointError:
            continue

    assert silent >= 10


class Pause(Callback):
    """Stop after a step was logged."""

    def on_log(self, run, row):
        if row["step"] == 10:
            run.stop.set("test")


@pytest.mark.parametrize("seed", range(n(2, 20)))
def test_a_run_with_a_damaged_checkpoint_ends_as_the_unbroken_one(make_trainer, data, seed):
    """Through the public trainer: the step is told, and the result has the same bits."""
    settings = {"save_every": 4, "dropout": 0.1, "keep_checkpoints": 9, "scheduler": "cosine"}
    unbroken = make_trainer(run_name="unbroken", **settings)
    expected = unbroken.train(data.train)
    paused = make_trainer(run_name="r", callbacks=[Pause()], **settings).train(data.train)
    flip_bit(random.Random(seed), Path(paused.checkpoint_path))
    trainer = make_trainer(run_name="r", **settings)
    result = trainer.train(data.train)

    assert (result.resumed_from, result.final_loss) == (8, expected.final_loss)
    assert [kind for _, kind, _ in result.events] == ["damaged checkpoint"]
    for name, tensor in unbroken.model.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], tensor)

"""A run on a disk that is too small, or that fills up on the way: what is lost, and what is told.

    python -m tests.faults.small_disk '{"disk": "counted", "folder": "x", "trials": [...]}'

A trial is [kind, KiB, what is removed, has a database]. A disk is a tmpfs of that size, for which
the process must be allowed to mount, or a folder of which the written bytes are counted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.config import TrainingConfig
from helpers.data.packing import PackedTokens
from helpers.engine import checkpoint
from helpers.engine.callbacks import Callback
from helpers.engine.checkpoint import SPARE_BYTES, CheckpointStore
from helpers.engine.run import Run
from helpers.errors import CheckpointError, HelpersError
from helpers.models import Decoder, DecoderConfig
from helpers.tracking import writer
from helpers.trainer import Trainer

LARGE_KIB, SPARE_KIB, FILLS_AT, N_STEPS = 200 * 1024, SPARE_BYTES // 1024, 5, 12
NAMES = ("disk full", "No space left on device", "disk is full")
"""How a full disk is called, of which one must stand in a message."""
TROUBLE = ("not saved", "not removed", "not written", "not recorded")
# Clocks, owners and the database's own pages: no two runs have the same.
UNEQUAL = ("LOCK", "experiments.db-shm", "experiments.db-wal", "experiments.db.lock")
EQUAL = ("run.json", "config.json", "device.json", "result.json")


class Mounted:
    """A tmpfs."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __enter__(self) -> Mounted:
        command = ["mount", "-t", "tmpfs", "-o", f"size={LARGE_KIB}k", "none", str(self.place)]
        subprocess.run(command, check=True)
        return self

    def resize(self, kib: int) -> None:
        """Have so much room, or if more is in use already, none that is free."""
        for _ in range(9):
            size = f"remount,size={max(kib, self.used_kib(), 4)}k"
            done = subprocess.run(["mount", "-o", size, "none", str(self.place)], check=False)
            if not done.returncode:
                return
            time.sleep(0.01)  # what is written meanwhile would not fit
        raise RuntimeError(f"{self.place} could not be made {kib} KiB large")

    def used_kib(self) -> int:
        disk = os.statvfs(self.place)
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024

    def __exit__(self, *error: Any) -> None:
        subprocess.run(["umount", "-l", str(self.place)], check=True)


class Counted:
    """A folder whose checkpoints and settings fail to be written beyond a number of bytes."""

    def __init__(self, place: Path) -> None:
        self.place, self.kib, self.write = place, LARGE_KIB, os.write

    def __enter__(self) -> Counted:
        os.write, self.asked = self._write, checkpoint.free_bytes
        checkpoint.free_bytes = self._free_bytes
        return self

    def resize(self, kib: int) -> None:
        self.kib = kib

    def used_kib(self) -> int:
        sizes = (p.stat().st_size for p in self.place.rglob("*") if p.is_file())
        return sum(-(-size // 4096) * 4 for size in sizes)

    def _free_bytes(self, path: Path) -> int:
        if not str(path).startswith(str(self.place)):
            return self.asked(path)
        return max(0, self.kib - self.used_kib()) * 1024

    def _write(self, descriptor: int, content: Any) -> int:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.startswith(str(self.place)):
            room = 1024 * (self.kib - self.used_kib())
            if len(content) > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.write(descriptor, content)

    def __exit__(self, *error: Any) -> None:
        os.write, checkpoint.free_bytes = self.write, self.asked
        for path in self.place.iterdir():
            shutil.rmtree(path)


class Watch(Callback):
    """Note what became durable, and let the disk fill up."""

    def __init__(self, fill: Any = None) -> None:
        self.fill, self.acknowledged, self.events, self.n_steps = fill, [], [], 0

    def on_checkpoint(self, run, info):
        self.acknowledged.append(info.step)

    def on_event(self, run, kind, message):
        self.events.append([kind, message])

    def on_log(self, run, row):
        self.n_steps += 1
        if self.fill is not None and row["step"] == FILLS_AT:
            run.saver.wait(run)
            self.fill()


def samples() -> PackedTokens:
    """Tokens drawn at random; what is learned does not matter."""
    return PackedTokens(np.random.default_rng(0).integers(0, 64, 4000).astype(np.uint16), 16)


def session(place: Path, watch: Watch, *, has_database: bool) -> tuple[Any, str]:
    """One call of the public trainer; its result, and the digest of the weights after it."""
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(64, d_model=16, n_layers=1, n_heads=2, dropout=0.1))
    config = TrainingConfig(
        max_steps=N_STEPS,
        batch_size=4,
        dropout=0.1,
        log_every=1,
        eval_every=4,
        save_every=2,
        save_minutes=0,
        keep_checkpoints=2,
        sample_tokens=0,
        panel="off",
        device="cpu",
        database="auto" if has_database else "off",
        output_dir=str(place / "runs"),
        cache_dir=str(place.parent / "cache"),
        run_name="r",
    )
    result = Trainer(model, model.config, config, callbacks=[watch]).train(samples(), samples())
    tensors = (t.contiguous().numpy().tobytes() for t in model.state_dict().values())
    return result, hashlib.sha256(b"".join(tensors)).hexdigest()


def facts_of(result: Any, digest: str) -> dict[str, Any]:
    """What must be equal between a run that met a full disk and one that did not."""
    rows = [{k: v for k, v in row.items() if v == v} for row in result.history.to_dict("records")]
    for row in rows:
        row.pop("elapsed_s"), row.pop("tokens_per_s", None)
    return {
        "status": result.status,
        "weights": digest,
        "rows": rows,
        "best": [result.best_step, result.best_loss, Path(result.best_checkpoint_path).is_dir()],
        "last": Path(result.checkpoint_path).name,
        "final": [result.final_loss, result.final_metrics],
    }


def files_of(place: Path) -> dict[str, str]:
    """All files, with the content of those that must be equal."""
    files = (p for p in place.rglob("*") if p.is_file() and p.name not in UNEQUAL)
    return {
        str(p.relative_to(place)): p.read_text() if p.name in EQUAL else "" for p in sorted(files)
    }


def first_session(disk: Any, kind: str, kib: int, has_database: bool) -> tuple[Watch, str, str]:
    """Train while the disk is too small, or fills up; what was seen, the status, and the error."""
    if kind == "small":
        disk.resize(kib)
    fill = (lambda: disk.resize(disk.used_kib() + kib)) if kind == "fills" else None
    watch = Watch(fill)
    try:
        return watch, session(disk.place, watch, has_database=has_database)[0].status, ""
    except HelpersError as error:
        return watch, "raised", str(error)
    except OSError as error:
        return watch, "raised", f"{type(error).__name__}, which is no error of ours: {error}"


def second_session(
    place: Path, has_database: bool, whole: dict[str, Any], acknowledged: list[int]
) -> Iterator[str]:
    """Go on with room again; complaints about what is not as if there had been room always."""
    watch = Watch()
    result, digest = session(place, watch, has_database=has_database)
    facts = facts_of(result, digest)
    yield from (f"{name} is another one afterwards" for name in whole if facts[name] != whole[name])
    if result.resumed_from != max(acknowledged, default=None):
        yield f"continued from {result.resumed_from}, but had {acknowledged}"
    if any(name == "damaged checkpoint" for name, _ in watch.events):
        yield "a checkpoint was left half written"


def moved_back(place: Path) -> list[int]:
    """Move the checkpoint that was saved elsewhere to where it belongs, as the user is told."""
    saved = list(Path(tempfile.gettempdir()).glob("*/step-*"))
    for path in saved:
        shutil.move(path, place / "runs" / "r" / "checkpoints")
    return [int(path.name.removeprefix("step-")) for path in saved]


def ending_of(watch: Watch, status: str) -> str:
    """What became of a run on a disk that is full."""
    if status != "raised":
        return "trained on to the end"
    return "trained on, last save refused" if watch.n_steps else "refused before step 1"


def told(watch: Watch, error: str) -> Iterator[str]:
    """Complaints about what the user was told."""
    messages = [m for kind, m in watch.events if kind in TROUBLE] + [error] * bool(error)
    for message in messages:
        if "no error of ours" in message or not any(name in message for name in NAMES):
            yield f"the cause is not named: {message}"
    n_told = sum(kind == "not saved" for kind, _ in watch.events) + bool(error)
    missing = set(range(0, N_STEPS + 1, 2)) - set(watch.acknowledged)
    if len(missing) > n_told and (watch.n_steps or not error):
        yield f"{sorted(missing)} were not saved, and nobody said so"
    if error and watch.n_steps not in (0, N_STEPS):
        yield f"the run ended after {watch.n_steps} steps: {error}"
    is_rescued = any(kind == "saved elsewhere" for kind, _ in watch.events)
    if error and watch.n_steps and N_STEPS not in watch.acknowledged and not is_rescued:
        yield "the last steps were not saved elsewhere"


def held(place: Path, acknowledged: list[int]) -> Iterator[str]:
    """Complaints about what is on the disk while it is full."""
    store = CheckpointStore(place / "runs" / "r" / "checkpoints")
    sound = []
    for step in store.steps():
        try:
            sound.append(store.load(step).step)
        except CheckpointError:
            yield f"step {step} is half written under its name"
    if acknowledged and max(acknowledged) not in sound:
        yield f"step {max(acknowledged)} was acknowledged and is lost"


def in_place(self: CheckpointStore, snapshot: Any, text: str) -> int:
    """Write under the final name at once, as one does who does not write aside."""
    return checkpoint._write(self.path(snapshot.step), snapshot, text)


def say_nothing(self: Run, kind: str, message: str) -> None:
    """Keep from the user what went wrong."""


REMOVED = {
    "": (),
    "room is not asked for": ((CheckpointStore, "_make_room", lambda *ignored: None),),
    "nothing is written aside": (
        (CheckpointStore, "_make_room", lambda *ignored: None),
        (CheckpointStore, "_build", in_place),
    ),
    "nothing is told": ((Run, "tell", say_nothing),),
}
"""Protections that a trial may go without."""


@contextlib.contextmanager
def without(what: str) -> Iterator[None]:
    """Take a protection away while the block runs."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in REMOVED[what]]
    for owner, name, replacement in REMOVED[what]:
        setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, real in before:
            setattr(owner, name, real)


def main(order: dict[str, Any]) -> list[dict[str, Any]]:
    """Carry out all trials, each on a disk of its own."""
    torch.set_num_threads(1)
    writer.BATCH_S, writer.RETRY_S = 0.05, (0.05, 0.2)
    folder, disk_of = Path(order["folder"]), {"tmpfs": Mounted, "counted": Counted}[order["disk"]]
    place, outcomes, wholes, ended = folder / "disk", [], {}, []
    place.mkdir()
    threading.excepthook = lambda error: ended.append(f"a thread ended by {error.exc_value!r}")
    for has_database in (False, True):
        with disk_of(place) as disk:
            facts = facts_of(*session(place, Watch(), has_database=has_database))
            wholes[has_database] = facts, files_of(place)
    for number, (kind, kib, removed, has_database) in enumerate(order["trials"]):
        tempfile.tempdir, ended[:] = tempfile.mkdtemp(dir=folder), []
        spare_kib = 0 if any(name == "_make_room" for _, name, _ in REMOVED[removed]) else SPARE_KIB
        with disk_of(place) as disk:
            whole, files = wholes[has_database]
            with without(removed):
                watch, status, error = first_session(disk, kind, kib + spare_kib, has_database)
                faults = [*told(watch, error), *held(place, watch.acknowledged)]
            disk.resize(LARGE_KIB)
            moved = number % 2 and moved_back(place)
            faults += second_session(place, has_database, whole, moved or watch.acknowledged)
            odd = {name for name, _ in files_of(place).items() ^ files.items()}
            # Which older ones are kept depends on which could be saved.
            odd = {name for name in odd if "/checkpoints/step-" not in name}
        outcomes.append(
            {
                "trial": [kind, kib, removed, has_database],
                "ended": ending_of(watch, status),
                "not saved": sum(name == "not saved" for name, _ in watch.events) + bool(error),
                "faults": faults
                + [f"left behind, missing or torn: {sorted(odd)}"] * bool(odd)
                + ended,
            }
        )
    return outcomes


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))

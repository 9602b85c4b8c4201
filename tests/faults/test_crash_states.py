"""Whatever a power loss leaves of a save and a retention, the run goes on and nothing is lost."""

import os
import random
import shutil
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.engine.checkpoint import CheckpointStore
from helpers.errors import CheckpointError
from tests.faults.checkpoints import is_as_saved, snapshot_of
from tests.faults.disk import Disk, Event, key_of, recording, traced, write_tree
from tests.faults.scale import n, record

ROOT = Path(__file__).parents[2]
PLACE = Path("runs") / "r" / "checkpoints"
BEST = 1
IN_A_PROCESS = """
import os, sys
from pathlib import Path
from tests.faults.test_crash_states import PLACE, save_steps
root = Path(sys.argv[1])
save_steps(root / PLACE, map(int, sys.argv[2:]), lambda step: os.mkdir(root / f"ack-{step}"))
"""
# What lies there durably, and what is saved then; each save but the first removes one.
TRACES = {
    "first save": ([], [1]),
    "save and retention": ([1, 2], [3]),
    "three saves": ([1, 2], [3, 4, 5]),
}


def save_steps(folder: Path, steps, acknowledge: Callable[[int], None]) -> None:
    """Save steps one after the other, keeping the newest and the best."""
    store = CheckpointStore(folder)
    for step in steps:
        snapshot = snapshot_of(step)
        store.write(snapshot, snapshot.state_text(), {BEST})
        acknowledge(step)
        store.retain(1, {BEST})


def trace(root: Path, before, steps, recorder: str) -> tuple[Disk, list[Event]]:
    """The disk before some saves, and what they did to it."""
    save_steps(root / PLACE, before, lambda step: None) if before else root.mkdir()
    disk = Disk(root)
    if recorder == "strace":
        command = [sys.executable, "-c", IN_A_PROCESS, str(root), *map(str, steps)]
        return disk, traced(command, root, root.with_suffix(".strace"), cwd=ROOT)
    with recording(root) as events:
        save_steps(root / PLACE, steps, lambda step: events.append(("ack", step)))
    return disk, events


def fault_of(tree, acknowledged: list[int], place: Path) -> str:
    """What is wrong with a state after a restart, or nothing."""
    shutil.rmtree(place, ignore_errors=True)
    write_tree(tree, place)
    store = CheckpointStore(place / PLACE)
    store.sweep()
    try:
        snapshot = store.load_latest()
    except CheckpointError as error:
        return f"cannot be resumed: {error}"
    if acknowledged and (snapshot is None or snapshot.step < max(acknowledged)):
        return f"step {max(acknowledged)} was acknowledged and is lost"
    if snapshot is not None and not is_as_saved(snapshot):
        return f"step {snapshot.step} is not as it was saved"
    if BEST in acknowledged and BEST not in store.steps():
        return "the best one is lost"
    left = [path.name for path in store.folder.glob("*") if not path.name.startswith("step-")]
    return f"left behind: {left}" if left else ""


def crash_states(disk: Disk, events: list[Event], before: list[int], *, per_point: int = 0):
    """Each distinct state after each event, with the steps acknowledged by then.

    With `per_point` only so many, drawn at random, are taken of each point.
    """
    rng, seen, acknowledged = random.Random(0), set(), list(before)
    for event in [None, *events]:
        if event is not None:
            disk.replay(event)
        if event is not None and event[0] == "ack":
            acknowledged.append(event[1])
        draws = (disk.root.any_state(rng) for _ in range(per_point))
        for tree in draws if per_point else disk.root.states():
            key = (key_of(tree), max(acknowledged, default=None))
            if key not in seen:
                seen.add(key)
                yield tree, list(acknowledged)


def count_bad(disk, events, before, place: Path, *, per_point: int = 0) -> tuple[int, list[str]]:
    faults = [
        fault_of(tree, acknowledged, place)
        for tree, acknowledged in crash_states(disk, events, before, per_point=per_point)
    ]
    return len(faults), [fault for fault in faults if fault]


def test_no_power_loss_during_a_save_or_a_retention_loses_anything(tmp_path, capsys):
    """All states of all points, at the functions of `os`; and where strace is, at the kernel."""
    started, figures = time.perf_counter(), {}
    for recorder in ["layer", *(["strace"] if shutil.which("strace") else [])]:
        for name, (before, steps) in list(TRACES.items())[: n(2, 3)]:
            disk, events = trace(tmp_path / f"{recorder} {name}", before, steps, recorder)
            n_states, bad = count_bad(disk, events, before, tmp_path / "restored")

            assert bad == []
            assert sum(event[0] == "ack" for event in events) == len(steps)
            figures[f"{name}, {recorder}"] = n_states
    with capsys.disabled():
        print(f"\ncrash states, 0 bad: {figures}")
    record(
        "crash_states",
        "After a power loss at any point of a save or a retention the run goes on, and no "
        "acknowledged checkpoint is lost.",
        {"states": sum(v for name, v in figures.items() if "layer" in name), "bad": 0, **figures},
        command="TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_crash_states.py",
        seed=0,
        seconds=time.perf_counter() - started,
    )


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_the_kernel_sees_what_the_recording_sees(tmp_path):
    """Nothing that a save does to the disk passes the recorded functions by."""
    traces = [
        trace(tmp_path / recorder, [1, 2], [3], recorder)[1] for recorder in ("layer", "strace")
    ]
    plain = [[(e[0], *map(without_random, e[1:])) for e in events] for events in traces]

    assert plain[0] == plain[1]


def without_random(detail):
    """A path without the part of a temporary name that differs from save to save."""
    if isinstance(detail, str) and ".tmp-" in detail:
        head, _, tail = detail.partition(".tmp-")
        return head + ".tmp" + tail[tail.find("/") :] if "/" in tail else head + ".tmp"
    return detail


@pytest.mark.parametrize(
    "left_out",
    [
        pytest.param("files", id="without fsync of files"),
        pytest.param("folders", id="without fsync of folders"),
        pytest.param("all", id="without any fsync"),
    ],
)
def test_without_fsync_there_are_states_that_lose_a_checkpoint(tmp_path, monkeypatch, left_out):
    """The control: the same search finds the fault when the protection is gone."""
    before, steps = TRACES["save and retention"]

    def fsync(descriptor):
        kind = "folders" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "files"
        if left_out not in ("all", kind):
            recorded(descriptor)

    root = tmp_path / "root"
    save_steps(root / PLACE, before, lambda step: None)
    disk = Disk(root)
    with recording(root) as events, monkeypatch.context() as patch:
        recorded = os.fsync
        patch.setattr(os, "fsync", fsync)
        save_steps(root / PLACE, steps, lambda step: events.append(("ack", step)))
    _, bad = count_bad(disk, events, before, tmp_path / "restored", per_point=8)

    assert bad

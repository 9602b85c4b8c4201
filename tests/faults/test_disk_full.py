"""A full disk, through the public trainer: nothing is lost, and the cause is named each time."""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from helpers.tracking import ExperimentDB, entries, spool
from helpers.tracking.writer import RunWriter
from tests.faults.records import RUN, metrics_of, no_space
from tests.faults.scale import n, record

ROOT = Path(__file__).parents[2]
# From no room for a file to room for all, in KiB; where room is asked for, so much beyond the
# 64 MiB that are to stay free.
SIZES = [*range(4, 124, 4), *range(124, 484, 12)]
KINDS = ("small", "fills")
CHECKS = ("", "room is not asked for")


def can_mount() -> bool:
    """Whether this user may mount a small disk in a namespace of its own."""
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def carried_out(folder: Path, disk: str, trials: list[list]) -> list[dict]:
    """What became of each trial, in a process that may mount."""
    order = {"disk": disk, "folder": str(folder), "trials": trials}
    done = subprocess.run(
        [
            *(["unshare", "-Urm"] if disk == "tmpfs" else []),
            *(sys.executable, "-m", "tests.faults.small_disk", json.dumps(order)),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_at_any_size_a_run_goes_on_or_is_refused_and_loses_nothing(tmp_path):
    """A disk that is too small, or that fills up after step 5: foreseen by asking for room, or met.

    With a database of runs on the same disk and without. Where no disk can be mounted, the bytes
    that are written are counted instead.
    """
    began, disk = time.monotonic(), "tmpfs" if can_mount() else "counted"
    sizes = SIZES[:: len(SIZES) // n(8, 60)][: n(8, 60)]
    kinds = [(kind, removed) for removed in CHECKS for kind in KINDS]
    trials = [
        [kind, kib, removed, bool((i // 2 + k) % 2)]
        for i, kib in enumerate(sizes)
        for k, (kind, removed) in enumerate(kinds)
        if n(i % 2 == k % 2, True)
    ]
    outcomes = carried_out(tmp_path, disk, trials)
    faults = [(outcome["trial"], fault) for outcome in outcomes for fault in outcome["faults"]]
    endings = Counter(outcome["ended"] for outcome in outcomes)

    assert faults == []
    assert len(outcomes) == len(trials)
    assert len(endings) == 3
    record(
        "disk_full",
        "On a disk that is too small or fills up, a run trains on or is refused before its first "
        "step, the cause is named each time, no checkpoint is lost, and with room again the run "
        "ends in the same bits.",
        {
            "disk sizes": len(sizes),
            "runs": len(trials),
            "checkpoints lost": 0,
            "causes not named": 0,
            "saves refused": sum(outcome["not saved"] for outcome in outcomes),
            **dict(sorted(endings.items())),
            "disk": {"tmpfs": "tmpfs", "counted": "bytes counted"}[disk],
        },
        command="TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_disk_full.py",
        seed=0,
        seconds=time.monotonic() - began,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, list[dict]]:
    """What became of trials where no disk can be mounted, by the protection that they lack."""
    trials = [
        ["small", 4, "", False],
        ["fills", 40, "", True],
        ["small", 480, "", False],
        ["fills", 40, "nothing is written aside", False],
        ["fills", 40, "nothing is told", False],
    ]
    outcomes: dict[str, list[dict]] = {}
    for outcome in carried_out(tmp_path_factory.mktemp("counted"), "counted", trials):
        outcomes.setdefault(outcome["trial"][2], []).append(outcome)
    return outcomes


def test_where_no_disk_can_be_mounted_the_same_is_found(found):
    """So that the way for machines that may not mount is tried on those that may."""
    assert [outcome["faults"] for outcome in found[""]] == [[], [], []]
    assert len({outcome["ended"] for outcome in found[""]}) == 3


@pytest.mark.parametrize(
    "removed, fault",
    [
        ("nothing is written aside", "half written under its name"),
        ("nothing is told", "nobody said so"),
    ],
)
def test_without_its_protections_a_full_disk_does_harm(found, removed, fault):
    """The control: the same check finds what a run without a protection does."""
    assert any(fault in words for words in found[removed][0]["faults"])


@pytest.mark.usefixtures("impatient")
def test_what_the_run_folder_has_no_room_for_reaches_a_database_elsewhere(path, monkeypatch):
    """Entries of every kind, also the one by which a resumed run makes its metrics agree."""
    monkeypatch.setattr(spool, "_append", no_space)
    run_writer = RunWriter(ExperimentDB(path), path.parent / "a")
    run_writer.add(entries.run("a", **RUN))
    run_writer.add(entries.forget("a", 0))
    run_writer.add(entries.history("a"))
    run_writer.add(entries.metrics("a", [(1, {"loss": 1.0})]))

    assert run_writer.close(10.0)
    assert metrics_of(path, "a") == {(1, "loss"): 1.0}

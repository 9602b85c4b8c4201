"""Killed at any moment of its life, a run goes on with what it had said is durable."""

import random
import shutil
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import pytest

from helpers.engine.checkpoint import CheckpointInfo, CheckpointStore
from helpers.engine.saver import Saver
from tests.faults import forked
from tests.faults.forked import SCENES, Acknowledged, Child, Tell, Unbroken, said_in, train
from tests.faults.scale import n, record

SEED = 11
MOMENTS = ("any time", "at the start", "at the end", "after a save")
# A share of kills comes with the loss of the local disk, where there is a mirror.
DISK_LOST = 0.4


# In the warm process


@dataclass
class Chain:
    """One run, killed again and again until it ends."""

    scene: str
    folder: Path
    unbroken: Unbroken
    rng: random.Random
    control: str = ""
    counts: Counter = field(default_factory=Counter)

    def run(self) -> str:
        """What went wrong, or nothing."""
        acknowledged = Acknowledged(self.unbroken.best_steps)
        for _ in range(self.rng.randint(2, 7)):
            messages, is_killed = self.session(acknowledged, is_last=False)
            fault = self.fault(messages, acknowledged)
            if fault or not is_killed:
                return fault
            self.count(messages)
            if self.scene == "mirror" and self.rng.random() < DISK_LOST:
                self.counts["disks lost"] += 1
                acknowledged.lose_disk(self.folder)
        messages, _ = self.session(acknowledged, is_last=True)
        return self.fault(messages, acknowledged)

    def session(self, acknowledged: Acknowledged, *, is_last: bool) -> tuple[list, bool]:
        """Train in a child; return what it told, and whether it was killed before it was done."""
        self.owed = acknowledged.owed
        child = Child(self.act, self.folder.with_suffix(".log"))
        messages = [] if is_last else self.kill(child)
        messages += child.hear_all()
        if acknowledged.owed < 0 and "left" in said_in(messages):
            # The machine may be busier or less so than it was.
            self.unbroken.life_s = (self.unbroken.life_s + time.monotonic() - child.began) / 2
        for message in messages:
            acknowledged.hear(*message)
        return messages, "left" not in said_in(messages)

    def kill(self, child: Child) -> list:
        """Wait for a moment and kill; return what the child had told until then."""
        moment, life, rng = self.rng.choice(MOMENTS), self.unbroken.life_s, self.rng
        if moment == "after a save":
            messages, nth = [], rng.randint(1, 4)
            until = child.began + 2 * life
            while nth and (message := child.hear(until)) is not None:
                messages.append(message)
                nth -= message[0] == "durable"
            time.sleep(rng.uniform(0, 0.01))
            child.send(signal.SIGKILL)
            return messages
        first, last = {"any time": (0, 1), "at the start": (0, 0.4), "at the end": (0.7, 1)}[moment]
        time.sleep(rng.uniform(first, last) * life)
        child.send(signal.SIGKILL)
        return []

    def act(self, tell: Tell) -> None:
        with CONTROLS.get(self.control, unchanged)():
            train(tell, self.scene, self.folder)

    def fault(self, messages: list, acknowledged: Acknowledged) -> str:
        said = said_in(messages)
        if "error" in said:
            return f"it did not go on:\n{said['error'][0]}"
        begun = (said.get("start") or [None])[0]
        if "start" in said and (-1 if begun is None else begun) < self.owed:
            return f"it went on from {begun}, but step {self.owed} was durable"
        if "left" not in said:
            return acknowledged.fault(self.folder)
        if said["status"][0] != "completed":
            return f"it ended as {said['status'][0]}"
        names = self.unbroken.digests.items() ^ said["digests"][0].items()
        if names:
            return f"it differs from the unbroken run in {sorted({name for name, _ in names})[:8]}"
        if said["left"][0]:
            return f"left behind: {said['left'][0]}"
        return acknowledged.fault(self.folder)

    def count(self, messages: list) -> None:
        """Note where a kill hit."""
        said, left = said_in(messages), forked.temporary(self.folder)
        self.counts["kills"] += 1
        if "start" not in said:
            self.counts["while it started or resumed"] += 1
        self.counts["while it ended"] += "end" in said
        self.counts["amid writing a checkpoint"] += any("/.tmp-" in name for name in left)
        self.counts["amid removing a checkpoint"] += any("/.del-" in name for name in left)
        self.counts["temporary files left, then swept"] += len(left)


def campaign(place: str, n_kills: int, seed: int, control: str = "", scenes: str = "") -> dict:
    """Chains of kills until there were so many, or until something is wrong."""
    root, rng, counts = Path(place), random.Random(seed), Counter()
    names = scenes.split() or list(SCENES)
    forked.warm_up(root / "warm", names)
    unbroken = {name: Unbroken.of(name, root / f"unbroken {name}") for name in names}
    while counts["kills"] < n_kills:
        scene, folder = names[counts["chains"] % len(names)], root / f"chain {counts['chains']}"
        chain = Chain(scene, folder, unbroken[scene], rng, control, counts)
        counts["chains"] += 1
        counts[f"chains of {scene}"] += 1
        fault = chain.run()
        if fault:
            return {"fault": f"chain {counts['chains']} of seed {seed}, {scene}: {fault}", **counts}
        shutil.rmtree(folder)
    return {"fault": "", **counts}


# Stores that do not keep the promise


def hang(place: str) -> str:
    """What a child is said to do that does not end."""

    def stay_forever(tell):
        threading.Event().wait()

    with patch.object(forked, "HANG_S", 0.5):
        try:
            Child(stay_forever, Path(place) / "log").hear_all()
        except forked.HungError as error:
            return str(error)
    return "nothing"


def unchanged():
    return patch.dict({})


def written_in_place():
    """Under its final name from the first byte on."""

    def build(self, snapshot, text):
        from helpers.engine import checkpoint

        return checkpoint._write(self.path(snapshot.step), snapshot, text)

    return patch.object(CheckpointStore, "_build", build)


def acknowledged_early():
    """Told before it is written."""
    real = Saver._write

    def write(self, snapshot, text, keep, best):
        path = self.store.path(snapshot.step)
        self._durable.append(CheckpointInfo(snapshot.step, path, 0))
        time.sleep(0.005)
        trouble = real(self, snapshot, text, keep, best)
        self._durable.pop()
        return trouble

    return patch.object(Saver, "_write", write)


def removed_early():
    """The older ones go before the new one is there."""
    real = CheckpointStore.write

    def write(self, snapshot, text, protected=()):
        for step in self.steps():
            if step not in {*protected, *self.protect}:
                self._remove(step)
        return real(self, snapshot, text, protected)

    return patch.object(CheckpointStore, "write", write)


def not_swept():
    """What a kill left behind stays."""
    return patch.object(CheckpointStore, "sweep", lambda self: None)


CONTROLS = {
    "written in place": written_in_place,
    "acknowledged before it is durable": acknowledged_early,
    "older ones removed first": removed_early,
    "not swept": not_swept,
}
SIGNS = {
    "written in place": "is damaged",
    "acknowledged before it is durable": "was durable, but",
    "older ones removed first": "was durable, but",
    "not swept": "left behind",
}


# In the test


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    with forked.warm("tests.faults.test_kills", tmp_path_factory.mktemp("kills")) as process:
        yield process


def test_killed_at_any_moment_a_run_loses_nothing_it_said_is_durable(process, tmp_path):
    began, n_kills = time.monotonic(), n(40, 1000)
    figures = process.call(
        "campaign", limit_s=60 + n_kills, place=str(tmp_path), n_kills=n_kills, seed=SEED
    )

    assert not figures.pop("fault")
    assert figures["kills"] >= n_kills
    assert figures["while it started or resumed"] and figures["amid writing a checkpoint"]
    record(
        "kills",
        "Killed by SIGKILL at any moment, from its start to the export at its end and while it "
        "resumes, a run goes on from the newest checkpoint that it had said is durable or from a "
        "later one, keeps the best one, and ends in the bits of the unbroken run. Where the local "
        "disk goes with it, the same holds for what the mirror had said it holds.",
        {**figures, "checkpoints lost": 0, "runs that did not resume": 0, "runs that differ": 0},
        command="TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_kills.py",
        seed=SEED,
        seconds=time.monotonic() - began,
    )


@pytest.mark.parametrize("control", CONTROLS)
def test_a_store_that_does_not_keep_the_promise_goes_red(process, tmp_path, control):
    outcome = process.call(
        "campaign",
        limit_s=300,
        place=str(tmp_path),
        n_kills=100,
        seed=SEED,
        control=control,
        scenes="plain",
    )

    assert SIGNS[control] in outcome["fault"]


def test_a_child_that_hangs_says_where_and_is_ended(process, tmp_path):
    fault = process.call("hang", limit_s=30, place=str(tmp_path))

    assert "A child hangs" in fault and "in stay_forever" in fault

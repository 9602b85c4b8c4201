"""Cells that are run again and again in one kernel leave nothing behind.

A real kernel runs them, with the panel, the database of runs and the data workers that a notebook
has, and is asked what it holds between two of them.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from tests.faults.scale import n, record

ROOT = Path(__file__).parents[2]
COLAB_PYTHON = os.environ.get("TRAINBOOK_COLAB_PYTHON", "")
needs_colab = pytest.mark.skipif(
    not COLAB_PYTHON, reason="TRAINBOOK_COLAB_PYTHON names no Python with Colab's IPython"
)
LIMIT_MIB, NOISE_MIB = 0.1, 1.0
"""What the process may grow by in one cell, on average, and in all; a trainer here takes 3."""
LIMIT_OBJECTS = 20
"""What the collector may have to look at more after a cell, beyond an empty one."""
HELD_MIB, N_WARM = 64, 2
"""What a callback holds when it raises, and the cells after which a kernel counts as warm."""

PREPARE = """
import ctypes, gc, json, os, sys, tempfile, threading
sys.path.insert(0, {root!r})
import numpy as np, torch
from helpers.config import TrainingConfig
from helpers.data.packing import PackedTokens
from helpers.engine.callbacks import Callback
from helpers.models import Decoder, DecoderConfig
from helpers.trainer import Trainer

torch.set_num_threads(1)
tempfile.tempdir = tempfile.mkdtemp(dir={folder!r})
tokens = np.random.default_rng(0).integers(0, 64, 3000).astype(np.uint16)
data = PackedTokens(tokens, 16)

class PauseSoon(Callback):
    n_steps = 0

    def on_log(self, run, row):
        self.n_steps += 1
        if self.n_steps == 2:
            run.stop.set("enough for this cell")

class Fail(Callback):
    def on_log(self, run, row):
        held = torch.ones({held_mib} * 2**18)
        raise ValueError(f"an error of somebody's code, with {{held.numel()}} numbers at hand")

def make(callbacks=(), **settings):
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(64, d_model=128, n_layers=2, n_heads=2))
    common = dict(max_steps=2, batch_size=2, log_every=1, eval_every=2, device="cpu",
                  sample_tokens=0, output_dir={folder!r} + "/runs", cache_dir={folder!r} + "/cache")
    config = TrainingConfig(**{{**common, **settings}})
    return Trainer(model, model.config, config, callbacks=list(callbacks))

def measured():
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        pass
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return dict(
        mib=resident,
        objects=len(gc.get_objects()),
        files=len(os.listdir("/proc/self/fd")),
        threads=len(os.listdir("/proc/self/task")),
        temporary=sum(len(names) for *_, names in os.walk(tempfile.gettempdir())),
    )

ended = make(run_name="ended")
"""
CELLS = {
    "a run that has ended": "result = ended.train(data, data)\nresult.status",
    "a run in pieces": (
        "trainer = make([PauseSoon()], run_name='pieces', max_steps=10_000)\n"
        "result = trainer.train(data, data)\n"
    ),
    "a run in pieces, with workers": (
        "trainer = make([PauseSoon()], run_name='workers', max_steps=10_000, num_workers=2)\n"
        "result = trainer.train(data, data)\n"
    ),
    "a new run": "trainer = make(resume='never', run_name='new')\nresult = trainer.train(data)",
    "a cell that raises": (
        "trainer = make([Fail()], run_name='fails', max_steps=10_000)\ntrainer.train(data, data)"
    ),
}
"""What a user runs again, by what it is."""
COUNTED = {"files": "open files", "threads": "threads", "temporary": "temporary files"}
LEAKS = {
    "mib": "kept = [*globals().get('kept', []), make()]",
    "objects": "listed = [*globals().get('listed', []), [[] for _ in range(99)]]",
    "files": "opened = [*globals().get('opened', []), open(os.devnull)]",
    "threads": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "temporary": "tempfile.mkstemp()",
}
"""What must be seen, by what it makes grow."""


class Notebook:
    """A kernel that runs cells one after another, and what is asked of it between them."""

    def __init__(self, client) -> None:
        self.client = client

    def run(self, cell: str, *, fails: bool = False) -> str:
        """Run a cell as a user does, and return what it printed."""
        printed = []

        def keep(message):
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])

        status = "aborted"
        while status == "aborted":  # as older kernels do for a moment after an error
            reply = self.client.execute_interactive(
                cell, output_hook=keep, allow_stdin=False, timeout=120
            )["content"]
            status = reply["status"]
        assert (reply["status"] == "error") == fails, "\n".join(reply.get("traceback", ()))
        assert not fails or reply["ename"] == "ValueError"
        return "".join(printed)

    def measured(self) -> dict[str, float]:
        """What the process holds."""
        return json.loads(self.run("print('\\n' + json.dumps(measured()))").splitlines()[-1])


@contextmanager
def notebook(folder: Path, python: str = sys.executable) -> Iterator[Notebook]:
    """A kernel of its own, in which the training is set up."""
    manager = KernelManager()
    launcher = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager._kernel_spec = KernelSpec(argv=launcher, display_name="Python 3", language="python")
    environment = os.environ | {"IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": "1"}
    manager.start_kernel(cwd=str(folder), env=environment)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        here = Notebook(client)
        here.run(PREPARE.format(root=str(ROOT), folder=str(folder), held_mib=HELD_MIB))
        # What is imported by then stays, and need not be looked at each time.
        here.run(CELLS["a new run"] + "\ndel trainer, result; gc.collect(); gc.freeze()")
        yield here
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def growth(here: Notebook, cell: str, n_cells: int, *, fails: bool = False) -> dict[str, float]:
    """By how much the kernel grows in one cell of a kind, on average, and from before the first.

    Some are run to get warm; then the medians of the first and last quarter of all measurements
    are compared.
    """
    before = here.measured()
    for _ in range(N_WARM):
        here.run(cell, fails=fails)
    found, every = [here.measured()], max(1, n_cells // 16)
    for _ in range(n_cells // every):
        for _ in range(every):
            here.run(cell, fails=fails)
        found.append(here.measured())
    part = max(1, len(found) // 4)
    between = every * (len(found) - part)
    grown = {
        name: statistics.median(f[name] for f in found[-part:])
        - statistics.median(f[name] for f in found[:part])
        for name in before
    }
    return {**{k: v / between for k, v in grown.items()}, "held": found[-1]["mib"] - before["mib"]}


def faults_of(grown: dict[str, float], empty: dict[str, float], n_cells: int) -> list[str]:
    """What is not flat, beyond what an empty cell adds to the notebook's own history."""
    limits = {"mib": LIMIT_MIB + NOISE_MIB / n_cells, "objects": LIMIT_OBJECTS}
    limits |= dict.fromkeys(("threads", "temporary"), 1.5 / n_cells)
    # The kernel's own sockets come and go, one or two at a time.
    limits["files"] = 2.5 / n_cells
    limits["held"] = HELD_MIB / 2
    # What went away beside the empty cells is no allowance for the others to be less than flat.
    return [name for name, limit in limits.items() if grown[name] - max(0, empty[name]) > limit]


@pytest.mark.parametrize(
    "python",
    [
        pytest.param(sys.executable, id="the kernel at hand"),
        pytest.param(COLAB_PYTHON, id="the kernel of Colab", marks=needs_colab),
    ],
)
def test_a_train_cell_that_is_run_again_leaves_nothing_behind(tmp_path, python):
    began, n_cells = time.monotonic(), n(5, 200)
    with notebook(tmp_path, python) as here:
        shell = here.run("import IPython; print(IPython.__version__)").strip()
        empty = growth(here, "pass", 16)
        grown = {
            kind: growth(here, cell, n_cells, fails="raises" in kind)
            for kind, cell in CELLS.items()
        }
    faults = {kind: faults_of(found, empty, n_cells) for kind, found in grown.items()}

    assert not any(faults.values()), (faults, grown, empty)
    record(
        "reruns" + ("_colab" if python == COLAB_PYTHON else ""),
        "Run again and again in one kernel, a train cell leaves nothing behind: not if its run had "
        "ended, not if it goes on piece by piece, not if it begins anew, and not if it fails.",
        {
            "cells of each kind": n_cells,
            "kinds of cells": list(grown),
            "most MiB a cell": round(max(found["mib"] for found in grown.values()), 3),
            "most objects a cell, beyond an empty one": round(
                max(0, *(found["objects"] - empty["objects"] for found in grown.values())), 1
            ),
            **{
                f"more {name} in all cells of a kind": round(
                    max(n_cells * found[key] for found in grown.values())
                )
                for key, name in COUNTED.items()
            },
            "IPython": shell,
        },
        command="TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_reruns.py",
        seed=0,
        seconds=time.monotonic() - began,
    )


def test_what_a_cell_leaves_behind_is_seen(tmp_path):
    """The control: what is kept, or not cleared away, makes the same check go red."""
    with notebook(tmp_path) as here:
        empty = growth(here, "pass", 4)
        kept = {name: growth(here, cell, 4) for name, cell in LEAKS.items()}
        here.run("from helpers.engine import memory; memory.let_go = lambda error: None")
        failed = growth(here, CELLS["a cell that raises"], 2, fails=True)

    for name, found in kept.items():
        assert name in faults_of(found, empty, 4), (name, found)
    assert "held" in faults_of(failed, empty, 2), failed

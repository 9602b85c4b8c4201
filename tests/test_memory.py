"""Memory that runs out costs a second try and no run; an error in a cell costs no memory."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from helpers.data.packing import MapSamples
from helpers.engine.callbacks import Callback
from helpers.engine.memory import MEMORY_FILE, StepStart, is_out_of_memory, let_go
from helpers.errors import DataError, HelpersError, MemoryLimitError, TaskError
from tests.faults.scale import record

ROOT = Path(__file__).parents[1]


class Net(nn.Module):
    """A small model with dropout and moving buffers that needs more memory than there is.

    Where more than `room` samples come at once, memory runs out: at once, after the buffers have
    moved, or in the backward pass.
    """

    def __init__(self, room: int = 99, place: str = "start", dropout: float = 0.2):
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(257, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(16, 257)
        self.room, self.place, self.sizes, self.held = room, place, [], []

    def forward(self, input_ids):
        big = torch.zeros(len(input_ids), 1000)
        self.sizes.append(len(input_ids))
        is_too_much = len(input_ids) > self.room
        self.held = [ref for ref in self.held if ref() is not None]
        if is_too_much:
            self.held.append(weakref.ref(big))
        self.look(is_too_much, "start")
        x = self.drop(self.norm(self.table(input_ids).mT).mT)
        self.look(is_too_much, "end")
        if is_too_much and self.place == "backward":
            x.register_hook(lambda gradient: self.look(True, "backward"))
        return self.head(x)

    def look(self, is_too_much: bool, place: str) -> None:
        if is_too_much and self.place == place:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore.")


class Shrink(Callback):
    """Take room away from a model at a step."""

    def __init__(self, step, room):
        self.step, self.room = step, room

    def on_start(self, run):
        self.run = run

    def on_log(self, run, row):
        if row["step"] == self.step - 1:
            run.model.room = self.room


class Pause(Callback):
    """Ask to stop after a step."""

    def __init__(self, step):
        self.step = step

    def on_log(self, run, row):
        if row["step"] == self.step:
            run.stop.set("test")


def sequences(n: int, length: int = 8) -> list[dict]:
    ids = torch.randint(257, (n, length + 1), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row[:-1], "labels": row[1:]} for row in ids]


def fingerprint(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def told(result, kind: str) -> list[str]:
    return [message for _, what, message in result.events if what == kind]


# In training


@pytest.mark.parametrize("place", ["start", "end", "backward"])
@pytest.mark.parametrize("room", [1, 2, 3, 5])
def test_a_run_that_ran_out_of_memory_equals_one_of_smaller_parts(make_trainer, room, place):
    samples, size = sequences(40), {1: 1, 2: 2, 3: 2, 5: 4}[room]
    trainer = make_trainer(model=Net(room, place), batch_size=8, run_name="r")
    result = trainer.train(samples)
    small = make_trainer(model=Net(), batch_size=8, micro_batch_size=size, run_name="small")
    expected = small.train(samples)

    assert trainer.model.sizes[:3] == ([8, 4, 4] if room > 3 else [8, 4, 2])
    assert set(trainer.model.sizes[4:]) == {size}
    assert fingerprint(trainer.model) == fingerprint(small.model)
    assert result.final_loss == expected.final_loss
    assert len(told(result, "out of memory")) == 1
    assert f"done again in parts of {size}" in told(result, "out of memory")[0]


def test_memory_that_runs_out_later_counts_from_that_step_on(make_trainer):
    """As if the run had been paused before the step and continued with smaller parts."""
    samples, settings = sequences(40), {"batch_size": 8}
    make_trainer(model=Net(), callbacks=[Pause(5)], run_name="r", **settings).train(samples)
    other = make_trainer(model=Net(), micro_batch_size=2, run_name="r", **settings)
    expected = other.train(samples)
    late = make_trainer(model=Net(), callbacks=[Shrink(6, 2)], run_name="late", **settings)
    result = late.train(samples)

    assert fingerprint(late.model) == fingerprint(other.model)
    assert result.history["train/loss"].tolist() == expected.history["train/loss"].tolist()


def test_a_resumed_run_goes_on_with_the_parts_that_fit(make_trainer):
    samples, settings = sequences(40), {"batch_size": 8}
    unbroken = make_trainer(model=Net(2), run_name="unbroken", **settings)
    unbroken.train(samples)
    make_trainer(model=Net(2), callbacks=[Pause(5)], run_name="r", **settings).train(samples)
    resumed = make_trainer(model=Net(2), run_name="r", **settings)
    result = resumed.train(samples)

    assert set(resumed.model.sizes) == {2}
    assert not told(result, "out of memory")
    assert fingerprint(resumed.model) == fingerprint(unbroken.model)


def test_nothing_of_the_failed_try_is_held_in_the_next(make_trainer):
    model = Net(2)
    make_trainer(model=model, batch_size=8, max_steps=2, run_name="r").train(sequences(16))

    assert model.sizes[:3] == [8, 4, 2]
    assert model.held == []


def test_one_sample_that_does_not_fit_is_said_and_the_steps_before_are_kept(make_trainer):
    settings = {"run_name": "r", "batch_size": 8}
    trainer = make_trainer(model=Net(), callbacks=[Shrink(6, 0)], **settings)
    with pytest.raises(MemoryLimitError, match="One sample alone does not fit") as caught:
        trainer.train(sequences(40))
    again = make_trainer(model=Net(), **settings)
    result = again.train(sequences(40))

    assert isinstance(caught.value, MemoryError | HelpersError)
    assert "CUDA out of memory. Tried to allocate 2 GiB;" in str(caught.value)
    assert "Lower sequence_length" in str(caught.value)
    assert result.resumed_from == 5


def test_other_errors_are_passed_on_at_once(make_trainer):
    model = Net()
    model.head.register_forward_hook(lambda *call: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_trainer(model=model, run_name="r").train(sequences(8))

    assert model.sizes == [4]


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        pytest.param(torch.OutOfMemoryError("CUDA out of memory"), True, id="a GPU"),
        pytest.param(MemoryError(), True, id="Python"),
        pytest.param(
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate "
                "memory: you tried to allocate 8 bytes"
            ),
            True,
            id="torch on a CPU",
        ),
        pytest.param(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), True, id="cuBLAS"),
        pytest.param(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, id="shapes"),
        pytest.param(ValueError("out of memory"), False, id="another class"),
    ],
)
def test_a_lack_of_memory_is_known_by_its_class_or_its_words(error, is_it):
    assert is_out_of_memory(error) == is_it


# What is remembered


def test_a_later_run_begins_with_what_fitted_and_says_so(make_trainer, tmp_path):
    settings = {"batch_size": 8, "max_steps": 3}
    make_trainer(model=Net(2), run_name="a", **settings).train(sequences(16))
    later = make_trainer(model=Net(2), run_name="b", **settings)
    result = later.train(sequences(16))

    assert set(later.model.sizes) == {2}
    assert "parts of 2" in told(result, "smaller parts")[0]
    assert MEMORY_FILE in told(result, "smaller parts")[0]
    assert len(json.loads((tmp_path / "cache" / MEMORY_FILE).read_text())) == 1


@pytest.mark.parametrize(
    ("other", "sizes"),
    [
        pytest.param({"length": 6}, {8}, id="another length"),
        pytest.param({"width": 258}, {8}, id="another model"),
        pytest.param({"precision": "bf16"}, {8}, id="another precision"),
        pytest.param({"micro_batch_size": 1}, {1}, id="less is asked for"),
    ],
)
def test_what_fitted_elsewhere_does_not_count(make_trainer, other, sizes):
    length, width = other.pop("length", 8), other.pop("width", 257)
    make_trainer(model=Net(2), batch_size=8, max_steps=1, run_name="a").train(sequences(16))
    model = Net()
    model.head = nn.Linear(16, width)
    trainer = make_trainer(model=model, batch_size=8, max_steps=1, run_name="b", **other)
    result = trainer.train(sequences(16, length))

    assert set(model.sizes) == sizes
    assert not told(result, "smaller parts")


@pytest.mark.parametrize("content", ["", "[]", '{"torn', '{"x": "y"}', "a folder"])
def test_a_record_that_cannot_be_read_costs_nothing(make_trainer, tmp_path, content):
    path = tmp_path / "cache" / MEMORY_FILE
    path.parent.mkdir()
    path.mkdir() if content == "a folder" else path.write_text(content)
    trainer = make_trainer(model=Net(2), batch_size=8, max_steps=2, run_name="r")
    result = trainer.train(sequences(16))

    assert result.status == "completed"
    assert ("could not be noted" in told(result, "out of memory")[0]) == path.is_dir()


# Beside training


@pytest.mark.parametrize("room", [1, 3, 7])
def test_evaluating_in_smaller_parts_gives_the_same_metrics(make_trainer, room):
    samples = sequences(21)
    whole = make_trainer(model=Net(), batch_size=8).evaluate(samples)
    parts = make_trainer(model=Net(room), batch_size=8).evaluate(samples)

    assert parts == pytest.approx(whole, rel=1e-6)


def test_one_sample_that_cannot_be_evaluated_is_said(make_trainer):
    with pytest.raises(MemoryLimitError, match="One sample alone"):
        make_trainer(model=Net(0)).evaluate(sequences(4))


def test_a_plan_is_made_with_the_parts_that_fit(make_trainer):
    model = Net(2)
    plan = make_trainer(model=model, batch_size=8).plan(sequences(16))

    assert plan.steps == 12 and set(model.sizes[3:]) == {2}


class Drawing(Net):
    """A model that draws from all generators, and has a buffer that never moves."""

    def __init__(self, *, is_drawing: bool = True):
        super().__init__()
        self.register_buffer("angles", torch.arange(3.0), persistent=False)
        self.is_drawing, self.drawn = is_drawing, []

    def forward(self, input_ids):
        logits = super().forward(input_ids)
        if self.is_drawing:
            self.drawn = [
                random.random(),
                np.random.rand(),
                np.random.randn(),
                torch.rand(1).item(),
            ]
        return logits


def test_random_states_and_buffers_are_put_back_as_they_were():
    model, ids = Drawing(), torch.arange(8)[None]
    start, outcomes = StepStart(model, torch.device("cpu")), []
    for _ in range(3):
        start.keep()
        for _ in range(2):
            start.put_back()
            total = model(ids).sum().item()
            outcomes.append((total, *model.drawn, model.norm.running_mean.sum().item()))
        start.put_back_buffers_where(torch.tensor(0.0))

    assert outcomes[0::2] == outcomes[1::2]
    assert len(set(outcomes)) == 3
    assert len(start._kept) == 3  # those of the norm, and not the angles


def test_a_model_that_draws_on_no_host_pays_for_no_copy_of_its_states():
    model = Drawing(is_drawing=False)
    start = StepStart(model, torch.device("cpu"))
    start.keep()
    model(torch.arange(8)[None])
    start.put_back_buffers_where(torch.tensor(0.0))
    start.keep()

    assert start._host is None


LIMITED = """
import json, resource, sys, torch
sys.path.insert(0, sys.argv[1])
from torch import nn
from helpers.config import TrainingConfig
from helpers.trainer import Trainer
torch.set_num_threads(1)

class Hungry(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(64, 32), nn.Linear(32, 64)

    def forward(self, input_ids):
        x = self.table(input_ids)
        noise = torch.zeros(len(input_ids), 4 * 2**20)  # 16 MiB a sample
        return self.head(x) + noise[:, :1, None]

def losses(**settings):
    config = TrainingConfig(batch_size=16, max_steps=3, eval_every=2, log_every=1, panel="off",
                            sample_tokens=0, database="off", device="cpu", cache_dir=sys.argv[2],
                            output_dir=sys.argv[2], **settings)
    result = Trainer(Hungry(), None, config).train(samples, samples[:16])
    told = [message for _, kind, message in result.events if kind == "out of memory"]
    return result.history["train/loss"].tolist(), told

ids = torch.randint(64, (32, 17), generator=torch.Generator().manual_seed(0))
samples = [{"input_ids": row[:-1], "labels": row[1:]} for row in ids]
small = losses(micro_batch_size=4, run_name="small")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 110 * 2**20,) * 2)
print(json.dumps([small, losses(run_name="limited")]))
"""


def test_a_real_lack_of_memory_is_survived(tmp_path):
    """The address space of the process is limited, so that torch's allocator itself fails."""
    output = subprocess.run(
        [sys.executable, "-c", LIMITED, str(ROOT), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},  # else a thread reserves 64 MiB
    ).stdout
    (small, nothing), (limited, told) = json.loads(output)

    assert limited == small and not nothing
    assert "parts of 16 samples did not fit" in told[0] and "again in parts of 4" in told[0]


# Errors in a cell


CELLS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.user_ns.update(folder=sys.argv[2], is_cleared=sys.argv[3] == "True")
shell.run_cell('''
import gc, os, torch
from torch import nn
from helpers.config import TrainingConfig
from helpers.engine import memory
from helpers.trainer import Trainer

class Broken(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.table, self.head = nn.Embedding(64, 32), nn.Linear(32, 64)
        self.calls, self.error = 0, error

    def forward(self, input_ids):
        self.calls += 1
        x = self.head(self.table(input_ids))
        if self.calls > 2:
            big = torch.ones(50 * 2**20)  # 200 MiB
            raise self.error()
        return x

def rss_mib():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

def train(name, error):
    config = TrainingConfig(max_steps=5, batch_size=4, sample_tokens=0, panel="off", database="off",
                            device="cpu", save_every=0, output_dir=folder, run_name=name)
    Trainer(Broken(error), None, config).train(samples)

samples = [{"input_ids": torch.arange(9), "labels": torch.arange(1, 10)} for _ in range(32)]
if not is_cleared:
    memory.let_go = lambda error: None
try:
    train("warm-up", ValueError)
except ValueError:
    pass
''')
found = []
for error in ("ValueError", "KeyboardInterrupt"):
    shell.run_cell("before = rss_mib()")
    outcome = shell.run_cell(f"train({error!r}, {error})")
    shell.run_cell("after = rss_mib()")
    found.append([type(outcome.error_in_exec).__name__,
                  shell.user_ns["after"] - shell.user_ns["before"]])
print(json.dumps(found))
"""
COLAB_PYTHON = os.environ.get("TRAINBOOK_COLAB_PYTHON", "")
needs_colab = pytest.mark.skipif(
    not COLAB_PYTHON, reason="TRAINBOOK_COLAB_PYTHON names no Python with Colab's IPython"
)


def growth_of_failing_cells(python: str, folder: Path, *, is_cleared: bool) -> dict[str, float]:
    """MiB by which a notebook grows in cells whose training fails, by the error."""
    folder.mkdir()
    output = subprocess.run(
        [python, "-c", CELLS, str(ROOT), str(folder), str(is_cleared)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": "1"},
    ).stdout
    return dict(json.loads(output.splitlines()[-1]))


@pytest.mark.parametrize(
    "python",
    [
        pytest.param(sys.executable, id="the IPython at hand"),
        pytest.param(COLAB_PYTHON, id="the IPython of Colab", marks=needs_colab),
    ],
)
def test_memory_returns_to_where_it_was_after_an_error_in_a_cell(tmp_path, python):
    began = time.monotonic()
    kept = growth_of_failing_cells(python, tmp_path / "kept", is_cleared=False)
    cleared = growth_of_failing_cells(python, tmp_path / "cleared", is_cleared=True)

    assert list(cleared) == ["ValueError", "KeyboardInterrupt"]
    assert max(cleared.values()) < 40
    assert kept["ValueError"] > 180
    record(
        "memory_after_errors" + ("_colab" if python == COLAB_PYTHON else ""),
        "After an error in a train cell the memory of the notebook is where it was before.",
        {
            "MiB kept": round(max(cleared.values())),
            "MiB kept without clearing frames": round(kept["ValueError"]),
        },
        command="python -m pytest tests/test_memory.py",
        seed=0,
        seconds=time.monotonic() - began,
    )


def test_all_causes_of_an_error_are_let_go():
    refs = []

    def fail(inner):
        big = torch.zeros(3)
        refs.append(weakref.ref(big))
        if inner:
            raise KeyError("inner")
        try:
            fail(True)
        except KeyError as error:
            raise ValueError("outer") from error

    with pytest.raises(ValueError, match="outer") as caught:
        fail(False)
    assert all(ref() is not None for ref in refs)
    let_go(caught.value)
    assert all(ref() is None for ref in refs)


# Ids that no table has


class Drawn:
    """Samples that are known only when they are drawn."""

    def __init__(self, samples):
        self.samples = MapSamples(samples)

    def __len__(self):
        return len(self.samples)

    def gather(self, index):
        return self.samples.gather(index)


def spoilt(n: int, place: int, field: str, value: int) -> Drawn:
    samples = [{name: row.clone() for name, row in sample.items()} for sample in sequences(n)]
    samples[place][field][2] = value
    return Drawn(samples)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        pytest.param("input_ids", 257, "an input of 257, but the model embeds", id="input above"),
        pytest.param("input_ids", -1, "an input of -1, but the model embeds", id="input below"),
        pytest.param("labels", 300, "a label of 300, but the model predicts", id="label above"),
        pytest.param("labels", -3, "a label of -3, but the model predicts", id="label below"),
    ],
)
def test_an_id_beyond_the_model_in_a_later_batch_is_named_with_its_sample(
    make_trainer, field, value, said
):
    later = int(order_of(40)[22])
    with pytest.raises(DataError, match=f"Sample {later} of the training data has {said}"):
        make_trainer(model=Net(), run_name="r").train(spoilt(40, later, field, value))


def test_labels_that_do_not_count_may_have_any_value(make_trainer):
    later = int(order_of(40)[22])
    samples = spoilt(40, later, "labels", -100)

    assert make_trainer(model=Net(), run_name="r").train(samples).status == "completed"


def test_an_id_beyond_another_table_of_the_model_is_named(make_trainer):
    class Two(Net):
        def __init__(self):
            super().__init__()
            self.second = nn.Embedding(200, 16)

        def forward(self, input_ids):
            return super().forward(input_ids) + self.head(self.second(input_ids))

    later = int(order_of(40)[22])
    samples = [{name: row % 190 for name, row in sample.items()} for sample in sequences(40)]
    samples[later]["input_ids"][0] = 230
    with pytest.raises(DataError, match=f"Sample {later} .* id 230, but a table .* 200 rows"):
        make_trainer(model=Two(), run_name="r").train(samples)


def test_an_index_error_of_the_model_itself_is_passed_on(make_trainer):
    model = Net()
    model.head.register_forward_hook(lambda *call: [][1])
    with pytest.raises(IndexError, match="list index"):
        make_trainer(model=model, run_name="r").train(sequences(8))


def test_an_assertion_on_a_device_says_that_the_runtime_must_be_restarted(make_trainer):
    def fail(*call):
        raise RuntimeError("CUDA error: device-side assert triggered")

    model = Net()
    model.head.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="device-side assert") as caught:
        make_trainer(model=model, run_name="r").train(sequences(8))

    assert "Restart the runtime" in caught.value.__notes__[0]


@pytest.mark.parametrize("place", [5, 60_000, -1])
def test_packed_tokens_are_all_looked_at_before_the_first_step(make_trainer, data, place):
    from helpers.data.packing import PackedTokens

    tokens = np.array(data.train.tokens)
    tokens[min(place, len(tokens) - 1)] = 999
    model = Net()
    with pytest.raises(TaskError, match=r"embeds 257 tokens, but token [\d,]+ of the .* is 999"):
        make_trainer(model=model, run_name="r").train(PackedTokens(tokens, 32))

    assert model.sizes == []


def order_of(n: int) -> np.ndarray:
    from helpers.config import TrainingConfig
    from helpers.data.order import SampleOrder

    return SampleOrder(n, TrainingConfig().seed).take(0, n)


def test_samples_without_whole_numbers_are_left_alone(make_trainer):
    class Numbers(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(1, 7)

        def forward(self, input_ids):
            return self.out(input_ids[..., None])

    rows = [{"input_ids": torch.rand(4), "labels": torch.arange(4)} for _ in range(12)]
    result = make_trainer(model=Numbers(), run_name="r").train(MapSamples(rows))

    assert result.status == "completed"


def test_a_norm_that_is_used_later_is_put_back_from_its_first_step_on():
    norm = torch.nn.BatchNorm1d(2)
    start = StepStart(norm, torch.device("cpu"))
    one, fine = torch.ones(()), torch.zeros(())
    start.keep()
    start.put_back_buffers_where(fine)
    for held, value, wanted in ((fine, 1.0, True), (one, float("nan"), True)):
        start.keep()
        norm(torch.full((4, 2), value))
        start.put_back_buffers_where(held)

        assert bool(norm.running_mean.isfinite().all()) == wanted

"""Batches that threads read ahead are those that would have been read without them."""

import contextlib
import ctypes
import math
import random
import sys
import threading
import time

import numpy as np
import pytest
import torch

from helpers.data import prefetch
from helpers.data.order import SampleOrder
from helpers.data.packing import MapSamples, PackedTokens
from helpers.data.prefetch import Prefetch, why_not_ahead
from helpers.engine.run_folder import RunFolder
from helpers.errors import DataError

N, BATCH = 23, 4


class Rows:
    """Rows whose reading can be slowed down, counted, made to fail or to wait."""

    def __init__(self, n=N, length=6):
        self.n, self.length = n, length
        self.read: list[int] = []
        self.act = lambda i: None

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.read.append(i)
        self.act(i)
        ids = torch.arange(i, i + self.length + 1)
        return {"input_ids": ids[:-1], "labels": ids[1:]}


class Failing(Exception):
    """An error of the user's own."""


def followed(samples, n_workers=0, end=3 * N, seed=0) -> Prefetch:
    reader = Prefetch(samples, n_workers)
    reader.follow(SampleOrder(len(samples), seed), BATCH, end)
    return reader


def batches(reader, start=0, end=3 * N):
    while start < end:
        index, batch = reader.take(start)
        start += len(index)
        yield index.tolist(), {name: t.tolist() for name, t in batch.fields.items()}


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "data"]


@pytest.mark.parametrize("n_workers", [0, 1, 2, 3, 7])
def test_any_number_of_workers_reads_the_same_batches(n_workers):
    rng = random.Random(n_workers)
    rows = Rows()
    expected = list(batches(followed(MapSamples(Rows()))))
    rows.act = lambda i: time.sleep(rng.random() / 500)
    with followed(MapSamples(rows), n_workers) as reader:
        read = list(batches(reader))

    assert read == expected
    assert threads() == []


def test_packed_tokens_are_read_ahead_too():
    tokens = PackedTokens(np.arange(200, dtype=np.uint16), 8)
    expected = list(batches(followed(tokens, end=50), end=50))
    with followed(tokens, 2, end=50) as reader:
        read = list(batches(reader, end=50))

    assert read == expected


def test_no_more_than_two_batches_for_each_worker_are_in_memory():
    rows = Rows(n=400)
    with followed(MapSamples(rows), 3, end=400) as reader:
        rows.read.clear()
        reader.take(0)
        time.sleep(0.3)
        n_read = len(rows.read)

    assert n_read == BATCH * (1 + 2 * 3)


def test_nothing_is_read_beyond_the_end():
    rows = Rows(n=400)
    with followed(MapSamples(rows), 4, end=10) as reader:
        rows.read.clear()
        read = list(batches(reader, end=10))

    assert [len(index) for index, _ in read] == [4, 4, 2]
    assert len(rows.read) == 10


def test_a_jump_to_another_place_drops_what_was_read_ahead():
    """As after a rewind, which leaves samples out."""
    samples, order = MapSamples(Rows()), SampleOrder(N, 0, left_out=[(4, 12)])
    plain = followed(samples)
    with followed(samples, 2) as reader:
        reader.take(0)
        there = reader.take(24)[0].tolist()
        back = reader.take(8)[0].tolist()
        reader.follow(order, BATCH, 3 * N)
        left_out = reader.take(4)[0].tolist()

    assert there == plain.take(24)[0].tolist()
    assert back == plain.take(8)[0].tolist()
    assert left_out == order.take(4, 4).tolist()


# Errors, stops and threads


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("error", [KeyError, Failing, OSError, StopIteration])
def test_an_error_names_its_sample_and_comes_when_its_batch_is_due(n_workers, error):
    rows = Rows()
    order = SampleOrder(N, 0).take(0, N).tolist()
    with followed(MapSamples(rows), n_workers) as reader:

        def fail(i):
            if i == order[9]:
                raise error("broken")

        rows.act = fail
        for start in (0, 4):
            reader.take(start)
        with pytest.raises(DataError, match=rf"Sample {order[9]} .*{error.__name__}") as caught:
            reader.take(8)

    assert isinstance(caught.value.__cause__, error)
    assert threads() == []


def test_a_worker_that_is_told_to_exit_is_heard():
    rows = Rows()
    with followed(MapSamples(rows), 1) as reader:
        rows.act = lambda i: sys.exit(3)
        with pytest.raises(SystemExit):
            reader.take(0)

    assert threads() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("n_workers", [1, 2])
def test_batches_of_workers_that_died_are_read_all_the_same(n_workers):
    expected = list(batches(followed(MapSamples(Rows()))))
    with followed(MapSamples(Rows()), n_workers) as reader:
        read = [next(batches(reader))]
        time.sleep(0.1)
        for worker in reader._workers:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(worker.ident), ctypes.py_object(KeyboardInterrupt)
            )
        read += batches(reader, start=len(read[0][0]))
        alive = [worker.is_alive() for worker in reader._workers]

    assert read == expected
    assert not any(alive)


def test_a_worker_that_hangs_is_told_given_up_and_left_alone(monkeypatch):
    for name, value in (("TELL_S", 0.1), ("GIVE_UP_S", 0.3), ("CLOSE_S", 0.1)):
        monkeypatch.setattr(prefetch, name, value)
    rows, told, free = Rows(), [], threading.Event()
    first = SampleOrder(N, 0).take(0, 4).tolist()
    with followed(MapSamples(rows), 1) as reader:
        rows.act = lambda i: free.wait()
        with pytest.raises(DataError, match="have not come for 0 s") as caught:
            reader.take(0, False, lambda kind, message: told.append(kind))

    free.set()
    assert ", ".join(map(str, first)) in str(caught.value)
    assert told == ["waiting for data"]


def test_a_stop_does_not_wait_for_data():
    rows, free = Rows(), threading.Event()
    with followed(MapSamples(rows), 2) as reader:
        rows.act = lambda i: free.wait()
        began = time.monotonic()
        taken = reader.take(0, is_stopped=True)
        seconds = time.monotonic() - began
        free.set()

    assert taken is None
    assert seconds < 1
    assert threads() == []


# Data that cannot be read ahead


class Drawn(Rows):
    """Rows with something drawn at random in each."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def __getitem__(self, i):
        sample = super().__getitem__(i)
        return {**sample, "input_ids": sample["input_ids"] + self.draw()}


own = np.random.default_rng(0)
DRAWS = {
    "python": lambda: random.randrange(3),
    "numpy": lambda: int(np.random.randint(3)),
    "torch": lambda: torch.randint(3, (1,)),
    "a generator of its own": lambda: int(own.integers(1000)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_data_drawn_at_random_is_not_read_ahead_and_draws_as_before(draw):
    reader = Prefetch(MapSamples(Drawn(draw)), 2)
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    Prefetch(MapSamples(Drawn(draw)), 2)

    assert "num_workers is 2, but" in reader.refusal
    assert states[:2] == (random.getstate(), str(np.random.get_state()))
    assert torch.equal(states[2], torch.get_rng_state())
    assert threads() == []


def test_data_with_nan_is_read_ahead():
    rows = [{"x": torch.tensor([math.nan, 1.0])} for _ in range(9)]

    assert why_not_ahead(MapSamples(rows)) == ""


@pytest.mark.parametrize("draw", list(DRAWS.values())[:3], ids=list(DRAWS)[:3])
def test_a_run_on_data_drawn_at_random_is_the_same_with_workers(make_trainer, draw):
    results = [
        make_trainer(run_name=f"r{n}", num_workers=n, dropout=0.1).train(Drawn(draw))
        for n in (0, 2)
    ]
    losses = [result.history["train/loss"].tolist() for result in results]

    assert losses[0] == losses[1]
    assert "no workers" in [kind for _, kind, _ in results[1].events]


# Through the trainer


@pytest.mark.parametrize("n_workers", [1, 2, 5])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_is_the_same_bits_with_any_number_of_workers(
    make_trainer, data, n_workers, optimizer
):
    settings = {"dropout": 0.1, "eval_every": 5, "optimizer": optimizer, "micro_batch_size": 2}
    trainers = [make_trainer(run_name=f"r{n}", num_workers=n, **settings) for n in (0, n_workers)]
    results = [trainer.train(data.train, data.val) for trainer in trainers]
    sections = [RunFolder(r.run_dir).checkpoints.load(12).sections for r in results]

    for name in ("model", "optimizer", "random"):
        for key in sections[0][name]:
            assert torch.equal(sections[0][name][key], sections[1][name][key])
    assert results[0].history["train/loss"].equals(results[1].history["train/loss"])


def endings(trainer, rows, kind):
    """Make a run end in one of the ways that there are."""
    if kind == "an error of the data":
        rows.act = lambda i: 1 / 0 if len(rows.read) > 120 else None
        return pytest.raises(DataError)
    if kind == "an error of the model":
        calls = []

        def fail(module, inputs):
            calls.append(1)
            if len(calls) == 5:
                raise Failing

        trainer.model.register_forward_pre_hook(fail)
        return pytest.raises(Failing)
    return contextlib.nullcontext()


@pytest.mark.parametrize("kind", ["the end", "an error of the data", "an error of the model"])
def test_no_thread_is_left_however_a_run_ends(make_trainer, kind):
    rows = Rows(n=40)
    trainer = make_trainer(num_workers=3)
    with endings(trainer, rows, kind):
        trainer.train(rows)

    assert threads() == []


def test_reading_ahead_takes_the_waiting_off_the_loop():
    """A batch that takes as long to read as to use is there when it is wanted."""
    rows = Rows(n=400)

    def seconds(n_workers: int) -> float:
        with followed(MapSamples(rows), n_workers, end=60) as reader:
            rows.act = lambda i: time.sleep(0.005)
            began = time.perf_counter()
            for start in range(0, 60, BATCH):
                reader.take(start)
                time.sleep(0.02)
            rows.act = lambda i: None
            return time.perf_counter() - began

    assert seconds(2) < 0.8 * seconds(0)

"""Out of memory: what failed is let go, the step is put back to its start, and done in halves.

A traceback keeps every tensor of the frames it went through, so these are cleared first; else
there would be no more room for the second try than for the first.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from helpers.engine.durable import write_json
from helpers.engine.run_folder import read_json, shown
from helpers.errors import MemoryLimitError, TaskError

if TYPE_CHECKING:
    from helpers.data.collate import Batch
    from helpers.engine.loop import TrainingLoop
    from helpers.engine.run import Run

Outcome = TypeVar("Outcome")
MEMORY_FILE = "micro_batches.json"
# How allocators say it that raise a plain RuntimeError.
SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def let_go(error: BaseException) -> None:
    """Clear the local variables of all frames that an error and its causes went through."""
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        traceback.clear_frames(link.__traceback__)
        chain += [link.__cause__, link.__context__]


@contextlib.contextmanager
def frames_cleared() -> Iterator[None]:
    """Let an error pass without the memory that its frames hold; lines and message stay.

    A notebook keeps the last traceback: IPython 7 until two more cells have failed, IPython 9 for
    good. A debugger finds no local variables below this block.
    """
    try:
        yield
    except BaseException as error:
        let_go(error)
        gc.collect()
        raise


def free_memory() -> None:
    """Give back to the device what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class StepStart:
    """What a forward pass changes beside gradients: random states and moving buffers.

    Modules whose buffers never change, as tables of angles, are found out in the first step, and
    copied no more until one of their buffers counts a write; batch norm, which counts none for its
    statistics, always is. Nor are the states of Python and NumPy for a model that does not draw
    from them, which take longer to copy (4 % of a step of 2 ms; torch 2.13, 2 cores, 2026-11).
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._owners = [(module, name) for module in model.modules() for name in module._buffers]
        self._moving, self._is_new = set(range(len(self._owners))), True
        self._draws_on_host = True
        self._cuda = device if device.type == "cuda" else None
        self._kept: dict[int, Tensor] = {}

    def keep(self) -> None:
        """Remember how things are now."""
        self._random = torch.get_rng_state()
        self._host = _host_states() if self._draws_on_host else None
        if self._cuda is not None:
            self._cuda_random = torch.cuda.get_rng_state(self._cuda)
        self._mark()
        buffers = self._buffers()
        self._kept = {i: buffers[i].clone() for i in self._moving if buffers[i] is not None}

    @torch.no_grad()
    def put_back(self) -> None:
        """Make everything as it was when `keep` was called."""
        torch.set_rng_state(self._random)
        if self._host is not None:
            random.setstate(self._host[0])
            np.random.set_state(self._host[1])
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda_random, self._cuda)
        buffers = self._buffers()
        for i, kept in self._kept.items():
            buffers[i].copy_(kept)
        self._mark()

    @torch.no_grad()
    def put_back_buffers_where(self, held: Tensor) -> None:
        """Make the buffers as they were where `held` is 1, without asking the device."""
        if self._is_new:
            self._find_out()
        buffers, moving = self._buffers(), self._moving
        for i in moving & self._kept.keys():
            self._check_shape(i, buffers[i])
            buffers[i].copy_(torch.where(held > 0, self._kept[i], buffers[i]))
        self._moving = moving | self._with_neighbours(self._written())

    def _find_out(self) -> None:
        """See in the first step what moves at all."""
        self._is_new, buffers = False, self._buffers()
        # Batch norm writes without counting it as a version, so the values are compared.
        moving = {i for i, kept in self._kept.items() if not torch.equal(kept, buffers[i])}
        norms = {i for i, (_, name) in enumerate(self._owners) if name.startswith("running_")}
        self._moving = self._with_neighbours(moving | norms)
        (python, numpy), (python_now, numpy_now) = self._host, _host_states()
        is_same = np.array_equal(numpy[1], numpy_now[1]) and numpy[2:] == numpy_now[2:]
        self._draws_on_host = python != python_now or not is_same

    def _with_neighbours(self, indexes: set[int]) -> set[int]:
        """Some buffers, and all others of their modules."""
        modules = {self._owners[i][0] for i in indexes}
        return {i for i, (module, _) in enumerate(self._owners) if module in modules}

    def _check_shape(self, i: int, now: Tensor | None) -> None:
        """Raise TaskError for a buffer that no checkpoint could put back."""
        got = None if now is None else tuple(now.shape)
        if got != self._kept[i].shape:
            raise TaskError(
                f"A step changed the buffer {self._owners[i][1]} of "
                f"{type(self._owners[i][0]).__name__} from the shape {tuple(self._kept[i].shape)} "
                f"to {got}, but a run that is continued needs the same one. Give it its full size "
                "in __init__, or keep it as a plain attribute."
            )

    def _mark(self) -> None:
        self._marks = [(b, 0 if b is None else b._version) for b in self._buffers()]

    def _written(self) -> set[int]:
        """Buffers that were replaced since `keep`, or counted a write."""
        return {
            i
            for i, (now, (then, version)) in enumerate(
                zip(self._buffers(), self._marks, strict=True)
            )
            if now is not None and (now is not then or now._version != version)
        }

    def _buffers(self) -> list[Tensor | None]:
        return [module._buffers[name] for module, name in self._owners]


def _host_states() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """States of Python's and of NumPy's generator."""
    return random.getstate(), np.random.get_state()


@dataclass
class MicroBatch:
    """How many samples go through the model at once: as many as wanted, or as were found to fit."""

    wanted: int
    size: int = 0

    def __post_init__(self) -> None:
        self.size = self.size or self.wanted

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return {"wanted": self.wanted, "size": self.size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the size of before, unless another one is wanted now."""
        if state["wanted"] == self.wanted:
            self.size = state["size"]

    def halve(self, n_samples: int, device: torch.device, reason: str) -> None:
        """Try half as many of `n_samples`.

        Raises: MemoryLimitError if it was one.
        """
        if min(self.size, n_samples) == 1:
            raise MemoryLimitError(
                f"One sample alone does not fit into memory ({reason}; {_room(device)}), but the "
                "model must hold one at a time. Lower sequence_length, d_model or n_layers, close "
                "what else uses this memory, or take a larger device."
            ) from None
        self.size = min(self.size, n_samples) // 2


@dataclass
class KnownSizes:
    """The micro-batches that were found to fit, in a file for all runs of a machine."""

    path: Path

    @classmethod
    def of(cls, cache_dir: str) -> KnownSizes:
        """Those in a cache folder."""
        return cls(Path(cache_dir).expanduser() / MEMORY_FILE)

    def find(self, key: str) -> int | None:
        """The size that fitted last time, if one did not."""
        size = (read_json(self.path) or {}).get(key)
        return size if isinstance(size, int) and size > 0 else None

    def remember(self, key: str, size: int) -> str:
        """Keep a size; return what kept it from being written, or nothing."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {**(read_json(self.path) or {}), key: size})
        except OSError as error:
            return f"; it could not be noted in {shown(self.path)} ({error.strerror})"
        return f"; noted in {shown(self.path)} for later runs"


def first_line(error: BaseException) -> str:
    """An error in one short line."""
    return (str(error).partition("\n")[0] or type(error).__name__)[:160].rstrip(". ")


def redo_in_halves(
    loop: TrainingLoop, batch: Batch, run: Run | None, act: Callable[[], Outcome]
) -> Outcome:
    """Do something with a batch; where memory runs out, once more from the start in smaller parts.

    The outcome is that of a run which had these parts from this step on: random states and buffers
    are put back. As dropout draws a mask for each part, other parts are other masks; without
    dropout the gradient is the same but for rounding.

    Raises: MemoryLimitError if not even one sample fits.
    """
    before, reason = loop.micro_batch.size, ""
    while True:
        try:
            outcome = act()
            break
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
            let_go(error)
        loop.optimizer.zero_grad()
        free_memory()
        loop.start.put_back()
        loop.is_between_steps = True
        loop.micro_batch.halve(batch.n_samples, loop.plan.device, reason)
        loop.is_between_steps = False
    if run is not None and reason:
        size = loop.micro_batch.size
        noted = ""
        if run.identity:
            noted = KnownSizes.of(run.config.cache_dir).remember(_key(loop, batch, run), size)
        run.tell(
            "out of memory",
            f"parts of {min(before, batch.n_samples)} samples did not fit ({reason}); the update "
            f"was done again in parts of {size}{noted}",
        )
    return outcome


def use_known_size(loop: TrainingLoop, batch: Batch, run: Run) -> None:
    """Begin a run with the parts that fitted in an earlier one, and tell where that is known."""
    known = KnownSizes.of(run.config.cache_dir)
    size = known.find(_key(loop, batch, run)) if run.identity else None
    if size is not None and size < min(loop.micro_batch.size, batch.n_samples):
        loop.micro_batch.size = size
        run.tell(
            "smaller parts",
            f"batches go through the model in parts of {size}, as more did not fit last time; "
            f"remove {shown(known.path)} to try again",
        )


def _key(loop: TrainingLoop, batch: Batch, run: Run) -> str:
    """What the size depends on: model, device, number format and sequence length."""
    device, length = loop.plan.device, batch[loop.objective.task.inputs[0]].shape[1]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return f"model {run.identity['parameters']}, {name}, {loop.plan.precision}, {length} tokens"


def _room(device: torch.device) -> str:
    """How much memory there is and how much of it is free."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
    else:
        page = os.sysconf("SC_PAGE_SIZE")
        free, total = (page * os.sysconf(name) for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    return f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free"

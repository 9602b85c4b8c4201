"""Guard: a step that cannot be right changes nothing, and what is done about it is decided later.

Every step is judged on the device: its loss and gradient must be finite, and the norm of its
gradient no spike. One that is not is held back there, so that the host neither waits nor copies;
the host looks before it logs, validates or saves.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from helpers.engine.diagnosis import first_not_finite
from helpers.engine.snapshot import go_back
from helpers.errors import DivergedError

if TYPE_CHECKING:
    from helpers.data.order import SampleOrder
    from helpers.data.packing import Samples
    from helpers.engine.loop import TrainingLoop
    from helpers.engine.run import Run, RunState

LEARN_EVERY = 16
"""Steps after which the statistics of the norm take in those since the last time."""
WARM_UP = 20
"""Updates before the first spike is seen."""
MEMORY = 128
"""Updates that the statistics reach back, roughly."""
LEAST_DEVIATION = 0.2
"""Deviation of the log of the norm below which no run is taken to be quiet."""
IN_ROW = 10
"""Updates in a row that may be held back for not being finite before the run stops."""
REWINDS = 3
"""Times that a run goes back to one and the same checkpoint before it stops."""
LOW_SCALE_STEPS = 20
"""Steps for which the scale of fp16 losses may stay below 1."""
LEAST_SCALE = 2.0**-10
"""Scale of fp16 losses at which the run stops at once."""
SCALE_CURE = (
    "fp16 cannot hold these gradients: set precision to 'bf16' where the GPU has it, else to "
    "'fp32', or lower learning_rate, and start under another run_name."
)
HUGE = 1e300
SHOWN = 8


@dataclass(frozen=True)
class Held:
    """A step that was held back: its true values, and its samples as places in the stream."""

    step: int
    what: str
    loss: float
    norm: float
    first: int
    count: int

    @property
    def is_spike(self) -> bool:
        """Whether all numbers are finite."""
        return self.what == "spike"

    @property
    def value(self) -> str:
        """The number that is not finite, by its name in the rows of a run."""
        if self.what == "loss":
            return f"train/loss is {self.loss}"
        return f"gradient_norm is {self.norm}"

    def __str__(self) -> str:
        return f"step {self.step}: loss {self.loss:.4g}, gradient norm {self.norm:.4g}"


@dataclass
class _Note:
    """What the host remembers of a step until it looks."""

    step: int
    first: int
    n_samples: int
    is_applied: bool
    loss_sum: Tensor
    count: int | Tensor
    norm: Tensor
    held: Tensor


class Guard:
    """Judge steps on a device, by statistics of the norm that live there too.

    The statistics are mean and variance of the log of the norm over about `MEMORY` updates. They
    change after every 16th step and not when somebody looks, so that logging and saving more or
    less often changes no run. If most of 16 steps were spikes, that is how it is now: the
    statistics begin anew.
    """

    def __init__(self, device: torch.device, spike_sigma: float = 10.0) -> None:
        self.spike_sigma = spike_sigma
        self.in_row, self.low_steps, self.scale = 0, 0, math.inf
        self._notes: list[_Note] = []
        self._norms: list[Tensor] = []
        self._held: list[Tensor] = []
        # Count, mean and variance.
        self._statistics = torch.zeros(3, dtype=torch.float64, device=device)
        self._limit = torch.full((), HUGE, dtype=torch.float64, device=device)

    def judge(self, loss_sum: Tensor, norm: Tensor) -> Tensor:
        """1 where a step must be held back, else 0: a scalar of fp32 on the device."""
        # The product is 0 or NaN. A loss may be infinite and its gradient finite.
        return torch.where(norm + loss_sum * 0 <= self._limit, 0.0, 1.0)

    def note(
        self, state: RunState, n_samples: int, is_applied: bool, values: tuple[Any, ...]
    ) -> None:
        """Remember a step that was just counted: loss, count, norm and verdict, on the device."""
        loss_sum, count, norm, held = values
        first = state.samples - n_samples
        self._notes.append(
            _Note(state.step, first, n_samples, is_applied, loss_sum, count, norm, held)
        )
        self._norms.append(norm)
        self._held.append(held)
        if state.step % LEARN_EVERY == 0:
            self._learn()

    def note_scale(self, is_applied: bool, scale: Callable[[], float]) -> None:
        """Follow the scale of fp16 losses, which falls where an update was not applied."""
        if is_applied and not self.low_steps:
            return
        self.scale = scale()
        self.low_steps = self.low_steps + 1 if self.scale < 1 else 0

    @property
    def is_scale_lost(self) -> bool:
        """Whether fp16 cannot hold the gradients of this run any more."""
        return self.low_steps >= LOW_SCALE_STEPS or self.scale <= LEAST_SCALE

    def read(self, state: RunState) -> list[Held]:
        """The steps since the last look that were held back; this waits for the device.

        An fp16 step that only overflowed is none of them: its scaler took care of it.
        """
        notes, self._notes = self._notes, []
        flags = torch.stack([note.held for note in notes]).tolist() if notes else []
        found = []
        for note, is_held in zip(notes, flags, strict=True):
            held = _held(note) if is_held else None
            if held is None or (not note.is_applied and math.isfinite(held.loss)):
                self.in_row = 0 if note.is_applied else self.in_row
                continue
            state.updates -= note.is_applied
            state.held += note.is_applied
            self.in_row += not held.is_spike
            found.append(held)
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain JSON types; this waits for the device."""
        norms, held = _numbers(self._norms), _numbers(self._held)
        return {
            "statistics": self._statistics.tolist(),
            # Nothing is learned from a norm that is not finite, so 0 may stand for it.
            "norms": [norm if math.isfinite(norm) else 0.0 for norm in norms],
            "held": held,
            "in_row": self.in_row,
            "low_steps": self.low_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._notes, self.scale = [], math.inf
        self._norms, self._held = self._tensors(state["norms"]), self._tensors(state["held"])
        self._statistics = torch.stack(self._tensors(state["statistics"]))
        self._set_limit()
        self.in_row, self.low_steps = state["in_row"], state["low_steps"]

    def _tensors(self, numbers: list[float]) -> list[Tensor]:
        return list(torch.tensor(numbers, dtype=torch.float64, device=self._limit.device).unbind())

    def _learn(self) -> None:
        """Take the steps since the last time into the statistics, all on the device.

        Source: Chan, Golub & LeVeque 1983, "Algorithms for Computing the Sample Variance", eq. 2.1.
        """
        norms = torch.stack([norm.double() for norm in self._norms])
        is_held = torch.stack([held.double() for held in self._held]) > 0
        self._norms, self._held = [], []
        count, mean, variance = self._statistics
        is_counted = ~is_held & (norms > 0)
        n = is_counted.sum()
        logs = torch.where(is_counted, norms.log(), 0.0)
        own_mean = logs.sum() / n.clamp(min=1)
        own_sum = torch.where(is_counted, (logs - own_mean) ** 2, 0.0).sum()
        total, apart = count + n, own_mean - mean
        safe = total.clamp(min=1)
        merged = variance * count + own_sum + apart**2 * count * n / safe
        is_spike = is_held & (norms > 0) & norms.isfinite()
        is_new_level = is_spike.sum() > LEARN_EVERY // 2
        self._statistics = torch.stack(
            [
                total.clamp(max=MEMORY).masked_fill(is_new_level, 0.0),
                mean + apart * n / safe,
                merged / safe,
            ]
        )
        self._set_limit()

    def _set_limit(self) -> None:
        if not self.spike_sigma:
            return
        count, mean, variance = self._statistics
        width = self.spike_sigma * variance.sqrt().clamp(min=LEAST_DEVIATION)
        self._limit = torch.where(count >= WARM_UP, (mean + width).exp().clamp(max=HUGE), HUGE)


def look(run: Run, loop: TrainingLoop, train: Samples, order: SampleOrder) -> bool:
    """Look at the steps since the last time, and do what the settings say; whether it went back.

    Spikes are held back and told, whatever the settings. After this a run may be saved: no weight
    has seen a step that was held back.

    Raises: DivergedError if the run has to stop.
    """
    guard, policy = loop.guard, run.config.on_nonfinite
    found = guard.read(run.state)
    wrong = [held for held in found if not held.is_spike]
    if found:
        run.tell("held back", _told(found, order))
    if guard.is_scale_lost:
        _stop(run, loop, _scale_words(guard), SCALE_CURE)
    if not wrong or (policy == "skip" and guard.in_row <= IN_ROW):
        return False
    if policy == "rewind" and _go_back(run, loop, wrong[0], order):
        return True
    first = wrong[0]
    where = first_not_finite(loop, train.gather(order.take(first.first, first.count)))
    begin = f"It began at {first}, on {_samples(first, order)}; {where}."
    _stop(run, loop, first.value, f"{begin} {_tried(run, guard)}")


def _go_back(run: Run, loop: TrainingLoop, held: Held, order: SampleOrder) -> bool:
    """Continue from a checkpoint before a step, leaving out the samples in between, if it helps."""
    before, state = list(run.state.rewinds), run.state
    n_rewinds = state.n_rewinds
    cooldown = state.cooldown_start, state.cooldown_updates, state.cooldown_from
    times = Counter(step for step, _, _ in before)
    spent = {step for step, n in times.items() if n >= REWINDS}
    if not go_back(run, loop, before_step=held.step, spent=spent):
        return False
    state = run.state
    end = int(order.positions(held.first + held.count - 1, 1)[0]) + 1
    first = int(order.positions(state.samples, 1)[0])
    kept = [r for r in before if not (first <= r[1] and r[2] <= end)]
    state.rewinds, state.n_rewinds = [*kept, [state.step, first, end]], n_rewinds + 1
    state.cooldown_start, state.cooldown_updates, state.cooldown_from = cooldown
    run.tell(
        "went back",
        f"{held}; the run goes on from step {state.step} and leaves out the {end - first:,} "
        "samples up to there",
    )
    return True


def _stop(run: Run, loop: TrainingLoop, what: str, detail: str) -> NoReturn:
    """Raise DivergedError; the row with the true values is written before."""
    if run.tracker.has_pending:
        loop.log(run)
    raise DivergedError(
        f"{what} up to step {run.state.step}, but finite values are wanted. {detail} The last "
        "checkpoint is sound."
    )


def _held(note: _Note) -> Held:
    loss, norm = float(note.loss_sum) / int(note.count), float(note.norm)
    what = "spike" if math.isfinite(norm) else "gradient"
    what = what if math.isfinite(loss) else "loss"
    return Held(note.step, what, loss, norm, note.first, note.n_samples)


def _told(found: list[Held], order: SampleOrder) -> str:
    """What was held back, in one sentence; the first few with their samples."""
    listed = "; ".join(f"{held} ({held.what}), on {_samples(held, order)}" for held in found[:3])
    more = f"; and {len(found) - 3:,} more steps" if len(found) > 3 else ""
    return f"no update at {listed}{more}"


def _samples(held: Held, order: SampleOrder) -> str:
    """The samples of a batch by their numbers in the data."""
    index = order.take(held.first, held.count)
    listed = ", ".join(map(str, index[:SHOWN]))
    return f"the samples {listed}" + (f" and {held.count - SHOWN:,} more" * (held.count > SHOWN))


def _tried(run: Run, guard: Guard) -> str:
    """What was done before the run stopped, and what may help."""
    policy, n_rewinds = run.config.on_nonfinite, run.state.n_rewinds
    cure = "Lower learning_rate or look at these samples, and start under another run_name."
    if policy == "skip":
        return f"{guard.in_row} updates in a row were held back. {cure}"
    if policy == "rewind":
        return f"The run went back {n_rewinds} times and met it again. {cure}"
    return f"{cure} on_nonfinite='skip' or 'rewind' would go on."


def _scale_words(guard: Guard) -> str:
    return (
        f"the scale of fp16 losses fell to {guard.scale:.1e}, below 1 for {guard.low_steps} steps,"
    )


def _numbers(values: list[Tensor]) -> list[float]:
    return torch.stack([value.double() for value in values]).tolist() if values else []

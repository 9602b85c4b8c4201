"""A run while it runs: where it stands, and what callbacks may look at and ask for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from helpers.engine.budget import UNLIMITED, Budget
from helpers.engine.control import ControlFiles
from helpers.engine.metrics import MetricsTracker
from helpers.engine.saver import Saver
from helpers.engine.stop import StopSignal

if TYPE_CHECKING:
    from helpers.config import TrainingConfig
    from helpers.engine.callbacks import Callback
    from helpers.engine.mirror import Mirror
    from helpers.engine.run_folder import RunFolder


@dataclass
class RunState:
    """How far a run is: everything that counts, as plain numbers.

    `samples` is the whole state of the data: the order of samples is computed from it.
    `updates` are applied ones; an fp16 step that overflows is a step without an update. Those that
    the guard `held` back are known only when the device is asked, so they count for the schedule:
    the learning rate is a function of both together, whenever one looks.
    `rewinds` are the times that the run went back: the step of the checkpoint, and from where to
    where the stream of samples is left out since, where a range may stand for several of them;
    `n_rewinds` counts them all. `samples` counts those that are not left out.
    `wall_s` is the time spent in all sessions, validation and saving included, and `time_share` the
    share of the schedule that it has taken a run through whose time is limited. A run that was
    asked to finish cools down over `cooldown_updates` from `cooldown_start` on, from a factor of at
    most `cooldown_from` on the learning rate. At `decay_step` the learning rate began its final way
    down; the checkpoint of that step is what a run goes on from that is extended, and `extensions`
    is how often it was.
    """

    step: int = 0
    updates: int = 0
    samples: int = 0
    tokens: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    wall_s: float = 0.0
    time_share: float = 0.0
    cooldown_start: int | None = None
    cooldown_updates: int = 0
    cooldown_from: float = 1.0
    held: int = 0
    rewinds: list[list[int]] = field(default_factory=list)
    n_rewinds: int = 0
    decay_step: int | None = None
    extensions: int = 0

    def __post_init__(self) -> None:
        # Checkpoints from before there was this count lack it.
        self.n_rewinds = max(self.n_rewinds, len(self.rewinds))

    @property
    def scheduled(self) -> int:
        """Updates that count for the schedule: applied or held back."""
        return self.updates + self.held

    @property
    def left_out(self) -> list[tuple[int, int]]:
        """Ranges of the stream of samples that are not trained on."""
        return [(first, end) for _, first, end in self.rewinds]

    def to_dict(self) -> dict[str, Any]:
        """All values as plain JSON types."""
        return dataclasses.asdict(self)


@dataclass
class Run:
    """One session of training a run.

    Callbacks may ask for its end, after the step it is in: `run.stop.set(reason)` pauses it, to be
    continued by another call of `train`; `run.finish_soon()` lets it cool down and complete;
    `run.stop_early(reason)` ends it for good as it is. From another thread the same calls do.
    """

    folder: RunFolder
    config: TrainingConfig
    model: nn.Module
    total_steps: int
    n_train_samples: int
    state: RunState = field(default_factory=RunState)
    tracker: MetricsTracker = field(default_factory=MetricsTracker)
    stop: StopSignal = field(default_factory=StopSignal)
    budget: Budget = field(default_factory=Budget)
    control: ControlFiles | None = None
    mirror: Mirror | None = None
    callbacks: Sequence[Callback] = ()
    samples: list[tuple[int, str]] = field(default_factory=list)
    events: list[tuple[int, str, str]] = field(default_factory=list)
    resumed_from: int | None = None
    early_reason: str = ""
    identity: dict[str, Any] = field(default_factory=dict)
    extension: str = ""
    random_state: tuple[dict[str, Any], dict[str, Tensor]] | None = None
    factor: float = 1.0
    saver: Saver = field(init=False, repr=False)

    def __post_init__(self) -> None:
        config = self.config
        self.saver = Saver(self.folder.checkpoints, config.save_every, config.save_minutes)

    @property
    def run_id(self) -> str:
        """The name of the run."""
        return self.folder.run_id

    @property
    def epoch(self) -> float:
        """Passes over the training data so far."""
        return self.state.samples / self.n_train_samples

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to train."""
        state = self.state
        is_cooled = state.cooldown_start is not None and (
            state.scheduled >= state.cooldown_start + state.cooldown_updates
        )
        is_late = self.budget.limit_s is not None and state.time_share >= 1.0
        return state.step >= self.total_steps or is_cooled or is_late

    @property
    def last_sample(self) -> int:
        """Where the last batch ends: epochs end with their last sample, steps with a full batch."""
        if self.config.epochs:
            return max(1, round(self.config.epochs * self.n_train_samples))
        return self.total_steps * self.config.batch_size

    @property
    def expected_steps(self) -> int:
        """The step at which the run will end, estimated where time or a cool-down decides.

        The step it is at where nothing is known yet.
        """
        state, ends = self.state, [self.total_steps] if self.total_steps < UNLIMITED else []
        if state.cooldown_start is not None:
            left = state.cooldown_start + state.cooldown_updates - state.scheduled
            ends.append(state.step + left)
        if self.budget.limit_s is not None:
            done = state.step - (self.resumed_from or 0)
            passed = state.time_share - self.budget.begun_at
            if done > 0 and passed > 0:
                ends.append(state.step + math.ceil(done * (1 - state.time_share) / passed))
        return max(state.step, min(ends, default=0))

    def finish_soon(self, share: float = 0.1) -> None:
        """Cool down from here, over a share of the steps done, and end as completed.

        The first call decides; steps and time of the run stay its limits.
        """
        state = self.state
        if state.cooldown_start is not None or self.is_over:
            return
        left = self.total_steps - state.step
        state.cooldown_updates = max(1, min(left, math.ceil(share * state.step)))
        state.cooldown_from = self.factor
        # The last, for the loop may look at it from another thread.
        state.cooldown_start = state.scheduled
        self.tell("finishing", f"cooling down over {state.cooldown_updates:,} updates")

    def begin_decay(self) -> bool:
        """Note that the learning rate begins its final way down; return whether to save there."""
        if self.state.decay_step is not None:
            return False
        self.state.decay_step = self.state.step
        self.folder.checkpoints.protect = {self.state.step}
        return self.config.save_every > 0

    def is_on_disk(self) -> bool:
        """Whether there is a checkpoint of this step."""
        try:
            return self.state.step in self.folder.checkpoints.steps()
        except OSError:  # a folder that cannot be read holds nothing to rely on
            return False

    def note_time(self) -> None:
        """Take the schedule as far as the time used does; it never goes back."""
        if self.budget.limit_s is not None:
            self.budget.saving_s = self.saver.write_s
            self.state.time_share = max(self.state.time_share, self.budget.share)

    def tell_if_late(self) -> None:
        """Say so if the run has taken longer than it had."""
        budget = self.budget
        if budget.limit_s is not None and budget.elapsed_s > budget.limit_s:
            over = budget.elapsed_s - budget.limit_s
            self.tell("time", f"the run took {over:.1f} s longer than it had")

    def stop_early(self, reason: str) -> None:
        """End the run after this step, for good."""
        self.early_reason = reason
        self.tell("early stopping", reason)

    def tell(self, kind: str, message: str) -> None:
        """Record an event and tell the callbacks."""
        self.events.append((self.state.step, kind, message))
        self.emit("on_event", kind, message)

    def emit(self, method: str, *details: Any) -> None:
        """Call one method of every callback; the error of one is raised when all were called."""
        later = Later()
        for callback in self.callbacks:
            with later:
                getattr(callback, method)(self, *details)
        later.settle()


class Later:
    """Keep the first error of several acts until all were tried.

    What is to happen at a step happens whole, so that a run that is saved after somebody's error
    goes on as if there had been none. An interrupt is no error, and passes at once.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        self.error = self.error or error
        return True

    def settle(self) -> None:
        """Raise the first error, if there was one."""
        if self.error is not None:
            raise self.error

"""The learning rate as a pure function of how far a run is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.config import TrainingConfig
    from helpers.engine.run import RunState


@dataclass(frozen=True)
class Schedule:
    """Factor on the peak learning rate for the update that follows `update` applied ones.

    >>> [round(Schedule("linear", 4, 1)(u), 2) for u in range(4)]
    [1.0, 1.0, 0.67, 0.33]

    Units: all counts are applied optimizer updates, neither micro-batches nor skipped steps.
    Source: cosine: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5; wsd: Hu et al. 2024,
    arXiv:2404.06395, section 4.
    """

    kind: str
    total_updates: int
    warmup_updates: int = 0
    decay_updates: int = 0
    min_ratio: float = 0.0

    def __call__(self, update: float) -> float:
        if update < self.warmup_updates:
            return min(1.0, (update + 1) / self.warmup_updates)
        if self.kind == "constant":
            return 1.0
        decay = self.decay_updates or max(1, self.total_updates - self.warmup_updates)
        left = min(1.0, max(0, self.total_updates - update) / decay)
        shape = 0.5 * (1 - math.cos(math.pi * left)) if self.kind == "cosine" else left
        return self.min_ratio + (1 - self.min_ratio) * shape

    @property
    def decay_start(self) -> int | None:
        """The update at which a plateau ends and the way down begins; None without a plateau."""
        return self.total_updates - self.decay_updates if self.kind == "wsd" else None

    def update_of(self, state: RunState) -> float:
        """Where a run is: by its updates, or by the share of its time, whichever is further."""
        return max(float(state.scheduled), state.time_share * self.total_updates)

    def factor_of(self, state: RunState) -> float:
        """The factor for the next update of a run; it follows from the state of the run alone."""
        factor = self(self.update_of(state))
        if state.cooldown_start is None:
            return factor
        start, updates = state.cooldown_start, state.cooldown_updates
        return Cooldown(start, updates, self.min_ratio, state.cooldown_from)(
            state.scheduled, factor
        )

    def is_going_down(self, state: RunState) -> bool:
        """Whether the learning rate of a run is on its final way down."""
        if state.cooldown_start is not None:
            return True
        return self.decay_start is not None and self.update_of(state) >= self.decay_start


@dataclass(frozen=True)
class Cooldown:
    """A way down from where a schedule stands, for a run that is asked to finish now.

    It begins at `ceiling` at most, so that a schedule that would still rise does not.

    >>> [round(Cooldown(start=4, updates=2)(u, 0.5), 2) for u in (4, 5, 6)]
    [0.5, 0.25, 0.0]

    Units: applied optimizer updates.
    """

    start: int
    updates: int
    min_ratio: float = 0.0
    ceiling: float = 1.0

    def __call__(self, update: float, factor: float) -> float:
        """The factor after `update` updates, where the schedule alone would say `factor`."""
        factor = min(factor, self.ceiling)
        left = min(1.0, max(0.0, (self.start + self.updates - update) / self.updates))
        return min(factor, self.min_ratio + max(0.0, factor - self.min_ratio) * left)


class SchedulerFactory:
    """Make the schedule that a config asks for."""

    @staticmethod
    def create(config: TrainingConfig, total_updates: int) -> Schedule:
        """Build the schedule for a run of so many updates."""
        warmup = math.ceil(config.warmup_fraction * total_updates)
        decay = math.ceil(config.decay_fraction * total_updates)
        return Schedule(
            kind=config.scheduler,
            total_updates=total_updates,
            warmup_updates=warmup,
            decay_updates=decay if config.scheduler == "wsd" else 0,
            min_ratio=config.min_lr_ratio,
        )

"""Time as a limit: how much of it a run has used, and when it must come to its end."""

from __future__ import annotations

import datetime
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from helpers.errors import ConfigError

if TYPE_CHECKING:
    from helpers.config import TrainingConfig
    from helpers.engine.run import Run

UNLIMITED = 10**9
"""Steps of a run that time ends."""
RESERVE = 0.03
"""Share of the time that is kept for the last saving until a saving was measured."""
SLACK_S = 1.0
"""Kept for all that nobody measures; a tenth of the time where that is less."""
SAVINGS = 2
"""What is written at the end, in checkpoints: the last one, and the model or one on its way."""
FORGET = 0.95
"""What is left after a step of the longest one that is remembered."""
UNITS = {"h": 3600, "min": 60, "s": 1}


def seconds(text: str) -> float:
    """The seconds that a text like `1h30min` names.

    >>> seconds("1h30min"), seconds("45s")
    (5400.0, 45.0)
    """
    return float(sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)(h|min|s)", text)))


def seconds_until(clock_time: str, now: datetime.datetime | None = None) -> float:
    """Seconds until the next time that a local clock shows `HH:MM`.

    >>> seconds_until("21:30", datetime.datetime(2026, 1, 1, 21, 0))
    1800.0
    """
    now = now or datetime.datetime.now()
    hour, minute = map(int, clock_time.split(":"))
    target = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if target <= now:
        target += datetime.timedelta(days=1)
    # By timestamps, so that the hour which a night may lack or have twice counts.
    return target.timestamp() - now.timestamp()


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(75), duration(2700), duration(27000)
    ('75 s', '45 min', '7.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass
class Budget:
    """The time that a session of a run has, from its start on; a limit of None is no limit.

    Only a monotonic clock is read, so that setting the machine's clock changes nothing. From the
    limit is kept what the end of the run takes as far as that was measured: one more step, the last
    validation, and saving.
    """

    limit_s: float | None = None
    used_before_s: float = 0.0
    is_time_of_day: bool = False
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    begun_at: float = 0.0
    """Share of the schedule that was behind when the session began."""
    step_s: float = 0.0
    validation_s: float = 0.0
    saving_s: float | None = None
    _rates: list[float] = field(default_factory=list, repr=False)
    _started: float = field(default=0.0, repr=False)
    _held_since: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    @classmethod
    def of(cls, config: TrainingConfig) -> Budget:
        """The budget that a config sets for a run that has used none of it."""
        if config.finish_by:
            return cls(seconds_until(config.finish_by), is_time_of_day=True)
        return cls(seconds(config.budget) if config.budget else None)

    @property
    def share_before(self) -> float:
        """Share of a budget that was used before this session; 0 where there is none."""
        if self.limit_s is None or self.is_time_of_day:
            return 0.0
        return self.used_before_s / max(1e-9, self.used_before_s + self.limit_s)

    def resume(self, used_s: float) -> None:
        """Count what earlier sessions used; a time of day stays where it is."""
        self.used_before_s = used_s
        if self.limit_s is not None and not self.is_time_of_day:
            self.limit_s = max(0.0, self.limit_s - used_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the session began."""
        now = self.clock() if self._held_since is None else self._held_since
        return now - self._started

    @property
    def used_s(self) -> float:
        """Seconds used, in this session and before."""
        return self.used_before_s + self.elapsed_s

    @property
    def closing_s(self) -> float:
        """Seconds that the end of the run takes, as far as one knows."""
        limit = self.limit_s or 0.0
        saving = RESERVE * limit if self.saving_s is None else SAVINGS * self.saving_s
        return self.step_s + 1.2 * self.validation_s + saving + min(SLACK_S, 0.1 * limit)

    @property
    def share(self) -> float:
        """Share of the schedule that is behind by the time used; 1 where training must end."""
        if self.limit_s is None:
            return 0.0
        room = self.limit_s - self.closing_s
        if room <= 0:
            return 1.0
        return min(1.0, self.begun_at + (1 - self.begun_at) * self.elapsed_s / room)

    def note_step(self, seconds: float) -> None:
        """Learn how long a step may take; what was long once is forgotten over some 50 steps."""
        self.step_s = max(seconds, FORGET * self.step_s)

    def note_validation(self, rate: float, n_sequences: int, one_s: float) -> None:
        """Learn how long the last validation over all sequences takes, after `one_s` for another.

        Of the last rates the middle one counts: one that has compiled something says little.

        Units: seconds per sequence.
        """
        self._rates = [*self._rates[-4:], rate]
        self.validation_s = n_sequences * statistics.median_low(self._rates) + one_s

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block that a budget does not count; a time of day does not wait for it."""
        if not self.is_time_of_day:
            self._held_since = self.clock()
        try:
            yield
        finally:
            if self._held_since is not None:
                self._started += self.clock() - self._held_since
                self._held_since = None


def begin(run: Run) -> None:
    """Put the schedule of a run on the clock of this session, from where it stands.

    A run that has used up its budget is over. One that cannot end in time any more is refused.

    Raises: ConfigError if the last validation and saving alone take longer than there is time.
    """
    budget, state, config = run.budget, run.state, run.config
    if budget.limit_s is None:
        state.time_share = 0.0
        return
    budget.begun_at = min(1.0, max(state.time_share, state.scheduled / run.total_steps))
    budget.saving_s = run.saver.write_s
    left = max(0.0, budget.limit_s - budget.elapsed_s)
    wanted = f"budget is {config.budget!r}" if config.budget else f"finish_by is {config.finish_by}"
    if budget.share >= 1.0 > budget.begun_at and (budget.is_time_of_day or not state.step):
        raise ConfigError(
            f"{wanted}, which leaves {left:.1f} s, but the last validation and saving alone take "
            f"about {budget.closing_s:.1f} s. Give more time, or less validation data."
        )
    run.note_time()
    if state.time_share >= 1.0:
        end = "the run is at its end; extend with a longer budget goes on"
    else:
        end = f"the run ends in {duration(left)} at the latest"
    run.tell("time", f"{wanted}: {end}")

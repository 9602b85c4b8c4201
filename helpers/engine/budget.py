"""Time as a limit: how much of it a run has used, and when it must come to its end."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.config import TrainingConfig

RESERVE = 0.03
"""Share of a budget kept for the last validation and saving until those were measured."""
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
    return (target - now).total_seconds()


@dataclass
class Budget:
    """The time of a run over all its sessions; a limit of None is no limit.

    Only a monotonic clock is read, so that setting the machine's clock changes nothing.
    """

    limit_s: float | None = None
    used_before_s: float = 0.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    closing_s: float | None = None
    """Measured time of the last validation and saving; None until it is known."""
    _started: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    @classmethod
    def of(cls, config: TrainingConfig, used_s: float = 0.0) -> Budget:
        """The budget that a config sets, for a run that has used some of it already.

        A time of day counts from now: what was used before is not taken off it.
        """
        if config.finish_by:
            return cls(used_s + seconds_until(config.finish_by), used_s)
        return cls(seconds(config.budget) if config.budget else None, used_s)

    @property
    def used_s(self) -> float:
        """Seconds used, in this session and before."""
        return self.used_before_s + self.clock() - self._started

    @property
    def fraction(self) -> float:
        """Share of the time for training that is used; 0 without a limit, 1 and more at its end."""
        if self.limit_s is None:
            return 0.0
        reserve = RESERVE * self.limit_s if self.closing_s is None else self.closing_s
        return self.used_s / max(1e-9, self.limit_s - min(reserve, 0.5 * self.limit_s))

    @property
    def is_used_up(self) -> bool:
        """Whether training must end now, so that the run ends within its limit."""
        return self.fraction >= 1.0

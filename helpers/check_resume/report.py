"""What a check found, as a text to read: the verdict, what differs, and what resuming cost."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from helpers.check_resume.compare import Comparison
from helpers.check_resume.process import Session

SHOWN = 3
WIDTH = 96
NO_BREAK = "\u00a0"
CAUSE = (
    "A second unbroken run is the same as the first, so it is resuming that changes this run: it "
    "depends on something that is in no checkpoint. Keep that in a buffer of the model or in the "
    "state_dict of a callback, or draw it from the generators of Python, NumPy or torch."
)
NOT_REPRODUCIBLE = (
    "A second unbroken run differs from the first as well{first}, so this run is never the same "
    "twice, and no resume can make it so. On a GPU try --set deterministic=True; else look for a "
    "clock, a generator with no seed, or an order that changes, as of a set or of files."
)


@dataclass(frozen=True)
class Kill:
    """One kill: what it hit, where the run went on, and what that cost.

    `restoring_s` is all between the start of `Trainer.train` and its first step.
    """

    hit: str
    went_on_from: str
    steps_again: int
    startup_s: float
    restoring_s: float
    again_s: float

    @property
    def lost_s(self) -> float:
        """Seconds until the run was where it had been."""
        return self.startup_s + self.restoring_s + self.again_s


@dataclass(frozen=True)
class ResumeCheck:
    """The outcome of `check_resume`; its `repr` is the report."""

    target: str
    kills_wanted: int
    seed: int
    plan: dict[str, Any]
    unbroken: Session
    sessions: list[Session]
    kills: list[Kill]
    comparison: Comparison
    control: Comparison | None
    trouble: str
    kept: str

    @property
    def is_same(self) -> bool:
        """Whether the killed run ended, and ended in every bit as the unbroken one."""
        return not self.trouble and self.comparison.is_same

    @property
    def first_step(self) -> int | None:
        """The first step whose logged metrics differ."""
        return self.comparison.first_step

    @property
    def lost_s(self) -> float:
        """Seconds that the killed run took longer than the unbroken one."""
        return sum(session.seconds for session in self.sessions) - self.unbroken.seconds

    def __repr__(self) -> str:
        parts = [self._verdict(), self._run()]
        parts += [self._state()] if self.comparison.parts else []
        parts += [self._differences()] if self.comparison.differences else []
        parts += [self._cost()] if self.kills and not self.trouble else []
        parts += [f"Both runs are kept in {self.kept}."] if self.kept else []
        return "\n\n".join(parts)

    def _verdict(self) -> str:
        times = _times(len(self.kills))
        if self.trouble:
            trouble = textwrap.indent(self.trouble, "    ")
            return f"NOT RESUMED: killed {times}, the run could not go on.\n{trouble}"
        n, differ = self.comparison.n_values, len(self.comparison.differences)
        if differ:
            verdict = f"NOT THE SAME: killed {times}, the run ended unlike the unbroken one in"
            return f"{verdict} {differ:,} of {n:,} values."
        verdict = f"THE SAME: killed {times}, the run ended with every bit of the unbroken one,"
        verdict += f" {n:,} values."
        missed = self.kills_wanted - len(self.kills)
        return verdict + (f" It ended before {missed} more could hit it." if missed else "")

    def _run(self) -> str:
        plan, start = self.plan, self.unbroken.find("start")
        compiled = ", compiled" if plan["compile"] else ""
        changed = self.unbroken.find("settings")["changed"].items()
        settings = [f"{name} {was} -> {now}".replace(" ", NO_BREAK) for name, (was, now) in changed]
        rows = [
            ("built by", self.target),
            ("run", f"{self.unbroken.reached:,} steps of {start['parameters']:,} parameters"),
            ("device", f"{plan['device']} in {plan['precision']}{compiled}"),
            ("for the check", ", ".join(settings) or "no setting was changed"),
        ]
        indent = " " * 15
        return "\n".join(
            textwrap.fill(f"{name:<15}{value}", WIDTH, subsequent_indent=indent).replace(
                NO_BREAK, " "
            )
            for name, value in rows
        )

    def _state(self) -> str:
        rows = [
            (p.name, f"{p.n_values:,}", p.unbroken[:10], p.killed[:10], _same(p.is_same))
            for p in self.comparison.parts
        ]
        return _table(("state at the end", "values", "unbroken", "killed", ""), rows, right={1})

    def _differences(self) -> str:
        found, rows = self.comparison.differences, []
        for part in dict.fromkeys(d.name.part for d in found):
            own = [d for d in found if d.name.part == part]
            rows.append((part, "", "", ""))
            rows += [(f"  {d.where}", d.unbroken, d.killed, d.extent) for d in own[:SHOWN]]
            more = f"  and {len(own) - SHOWN:,} more"
            rows += [(more, "", "", "")] if len(own) > SHOWN else []
        table = _table(("first that differ", "unbroken", "killed", ""), rows)
        head = "The logged metrics are the same in every row."
        if self.first_step is not None:
            until = self.comparison.same_until
            before = "" if until is None else f"are the same up to step {until} and "
            head = f"The logged metrics {before}differ from step {self.first_step} on."
        return f"{head}\n\n{table}\n\n{textwrap.fill(self._cause(), WIDTH)}"

    def _cause(self) -> str:
        if self.control is None or self.control.is_same:
            return CAUSE
        step = self.control.first_step
        first = "" if step is None else f", from step {step} on"
        return NOT_REPRODUCIBLE.format(first=first)

    def _cost(self) -> str:
        rows = [_cost_row(number, kill) for number, kill in enumerate(self.kills, 1)]
        total = [sum(column) for column in zip(*map(_costs, self.kills), strict=True)]
        rows.append(("all", "", "", str(int(total[0])), *(f"{s:.2f}" for s in total[1:])))
        titles = ("kill", "hit", "went on from", "steps twice", "start-up s", "restoring s")
        table = _table((*titles, "redoing s", "lost s"), rows, right={3, 4, 5, 6, 7})
        seconds = sum(session.seconds for session in self.sessions)
        unbroken, n = self.unbroken.seconds, len(self.kills)
        return (
            f"{table}\n\nUnbroken the run took {unbroken:.1f} s, killed {seconds:.1f} s: a kill "
            f"cost {self.lost_s / n:.1f} s,\nof which start-up {total[1] / n:.1f} s and restoring "
            f"{total[2] / n:.1f} s."
        )


def kills_of(sessions: Sequence[Session], labels: Sequence[str]) -> list[Kill]:
    """What each kill cost, by the session after it."""
    kills, reached = [], 0
    for (before, after), label in zip(pairwise(sessions), labels, strict=False):
        reached = max(reached, before.reached or 0)
        kills.append(_kill(after, label, reached))
    return kills


def _kill(after: Session, label: str, reached: int) -> Kill:
    ready, start = after.find("ready"), after.find("start")
    began = ready["t"] if ready else after.ended
    on_its_way = start["t"] if start else after.ended
    startup_s, restoring_s = began - after.launched, on_its_way - began
    if start is None:
        return Kill(label, "-", 0, startup_s, restoring_s, 0.0)
    source = "the start" if start["resumed_from"] is None else f"step {start['resumed_from']}"
    if start["step"] >= reached:
        return Kill(label, source, 0, startup_s, restoring_s, 0.0)
    regained = [t for step, t in after.times("step").items() if step >= reached]
    again = min(reached, after.reached) - start["step"]
    again_s = min(regained, default=after.ended) - on_its_way
    return Kill(label, source, again, startup_s, restoring_s, again_s)


def _costs(kill: Kill) -> tuple[float, ...]:
    return kill.steps_again, kill.startup_s, kill.restoring_s, kill.again_s, kill.lost_s


def _cost_row(number: int, kill: Kill) -> tuple[str, ...]:
    steps, *seconds = _costs(kill)
    return str(number), kill.hit, kill.went_on_from, str(steps), *(f"{s:.2f}" for s in seconds)


def _table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> str:
    """Columns as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = []
    for row in (titles, *rows):
        cells = [
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _same(is_same: bool) -> str:
    return "same" if is_same else "DIFFERS"

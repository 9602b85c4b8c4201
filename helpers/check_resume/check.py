"""The check itself: an unbroken run, a killed one, and all that the two left behind compared."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.check_resume.compare import Comparison, compare
from helpers.check_resume.process import Session, Timeline, draw_moments, run_session
from helpers.check_resume.report import ResumeCheck, kills_of
from helpers.check_resume.settings import LEAST_STEPS, RUN_NAME, Spec, in_scratch, refuse_clock
from helpers.check_resume.target import name_of
from helpers.config import TrainingConfig
from helpers.engine.run_folder import RunFolder
from helpers.errors import ConfigError


def check_resume(
    make_trainer: Callable[[TrainingConfig], tuple[Any, Any, Any]] | str | None = None,
    config: TrainingConfig | None = None,
    *,
    kills: int = 3,
    seed: int = 0,
    steps: int = 40,
    keep: str | Path | None = None,
    on_progress: Callable[[str], None] = lambda line: None,
) -> ResumeCheck:
    """Train a run unbroken, and again killed at random moments, and compare all that is left.

    `make_trainer(config)` returns (trainer, train_data, val_data); it is a function of a module, or
    its name, as package.module:function or path/file.py:function. Without one, model and data are
    those of training.ipynb. The run is `steps` long at most. Everything is written to a folder
    that is removed at the end, or to `keep`; a database, a mirror and an output_dir are left alone.

    Raises: ConfigError for wrong settings, for a run that a clock ends, or if the unbroken run
    cannot be trained to its end.
    """
    config = config or TrainingConfig()
    _check_arguments(kills, steps)
    refuse_clock(config)
    target = name_of(make_trainer)
    with _scratch(keep) as folder:
        runs = _Runs(folder, target, config, steps, kills)
        unbroken = runs.train("unbroken")
        on_progress(f"unbroken: {unbroken.reached} steps in {unbroken.seconds:.1f} s")
        timeline = Timeline(unbroken, RunFolder(folder / "unbroken" / RUN_NAME))
        sessions, labels = runs.kill(timeline, draw_moments(timeline, kills, seed), on_progress)
        is_over = sessions[-1].is_done
        comparison = runs.compare("killed") if is_over else Comparison([], [], [])
        control = None
        if comparison.differences:
            on_progress("something differs; training unbroken once more, to know whether it is us")
            runs.train("unbroken again")
            control = runs.compare("unbroken again")
        plan = _plan(folder / "unbroken")
        return ResumeCheck(
            target=target,
            kills_wanted=kills,
            seed=seed,
            plan=plan,
            unbroken=unbroken,
            sessions=sessions,
            kills=kills_of(sessions, labels),
            comparison=comparison,
            control=control,
            trouble="" if is_over else sessions[-1].trouble,
            kept="" if keep is None else str(folder),
        )


class _Runs:
    """Runs of one spec in folders of their own."""

    def __init__(
        self, folder: Path, target: str, config: TrainingConfig, steps: int, kills: int
    ) -> None:
        self.folder, self.target, self.config = folder, target, config
        self.steps, self.n_kills = steps, kills

    def train(self, name: str) -> Session:
        """Train a run in one session.

        Raises: ConfigError if it does not end.
        """
        session = run_session(self._spec(name), self.folder / f"{name}.log")
        if not session.is_done:
            is_told = session.find("refused") or session.is_paused
            said = "" if is_told else "The run fails even if nothing kills it:\n"
            raise ConfigError(f"{said}{session.trouble}")
        return session

    def kill(
        self, timeline: Timeline, moments: list, on_progress: Callable[[str], None]
    ) -> tuple[list[Session], list[str]]:
        """Train a run that is killed at each moment; return its sessions and what was hit."""
        spec, log = self._spec("killed"), self.folder / "killed.log"
        run = RunFolder(self.folder / "killed" / RUN_NAME)
        sessions, labels = [], []
        for moment in [*moments, None]:
            sessions.append(run_session(spec, log, moment))
            if not sessions[-1].is_killed:
                break
            labels.append(what_was_hit(timeline, sessions, run))
            on_progress(f"kill {len(labels)} of {len(moments)}: {labels[-1]}")
        return sessions, labels

    def compare(self, name: str) -> Comparison:
        """Compare a run with the unbroken one."""
        return compare(self.folder / "unbroken", self.folder / name)

    def _spec(self, name: str) -> Path:
        output_dir = self.folder / name
        output_dir.mkdir()
        given = in_scratch(self.config, output_dir).save(self.folder / f"{name}.settings.json")
        spec = Spec(self.target, str(given), self.steps, self.n_kills)
        return spec.save(self.folder / f"{name}.spec.json")


def what_was_hit(timeline: Timeline, sessions: list[Session], run: RunFolder) -> str:
    """What a session was at when it was killed, by its last words and what lies on its disk."""
    session = sessions[-1]
    step, start = session.reached, session.find("start")
    if start is None:
        return "start-up" if session.find("ready") is None else "restoring"
    if step == timeline.last_step:
        return f"step {step}, ending"
    on_disk = run.checkpoints.steps()
    is_torn = any(run.checkpoints.folder.glob(".tmp-*"))
    owed = [
        s
        for s in timeline.saved
        if start["step"] < s <= step and s not in session.times("checkpoint")
    ]
    if step in timeline.evaluated - session.times("evaluate").keys() and step != start["step"]:
        return f"step {step}, validating"
    if is_torn or any(s not in on_disk for s in owed):
        return f"step {step}, saving" + (", half written" if is_torn else "")
    return f"step {step}, training"


@contextmanager
def _scratch(keep: str | Path | None) -> Iterator[Path]:
    """A folder for all that the check writes."""
    if keep is None:
        folder = Path(tempfile.mkdtemp(prefix="check-resume-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    folder = Path(keep).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise ConfigError(
            f"keep is {keep}, but no folder can be made there ({error.strerror}). Name another."
        ) from error
    if not is_empty:
        raise ConfigError(f"keep is {keep}, but an empty or new folder is wanted. Name another.")
    yield folder


def _plan(output_dir: Path) -> dict[str, Any]:
    """Device and precision that the run was computed in, as its checkpoint knows them."""
    return RunFolder(output_dir / RUN_NAME).checkpoints.load_latest().state["plan"]


def _check_arguments(kills: int, steps: int) -> None:
    for name, value, least in (("kills", kills, 1), ("steps", steps, LEAST_STEPS)):
        if value < least:
            raise ConfigError(f"{name} is {value}, but at least {least} is wanted. Raise it.")

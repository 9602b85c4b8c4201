"""Rescue: keep the steps that were done when a session ends by an error, if need be elsewhere."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.engine.checkpoint import CheckpointStore
from helpers.engine.snapshot import save_run, take_snapshot
from helpers.errors import CheckpointError, DivergedError

if TYPE_CHECKING:
    from helpers.engine.loop import TrainingLoop
    from helpers.engine.run import Run


def rescue(run: Run, loop: TrainingLoop) -> None:
    """Save the run as it stands, unless the step itself failed or its numbers are not finite.

    Where its folder cannot be written any more, the checkpoint goes to a temporary one.
    """
    run.saver.wait(run)
    if not loop.is_between_steps or run.is_on_disk():
        return
    try:
        loop.look(run)
        save_run(run, loop)
    except DivergedError:
        return
    except CheckpointError:
        _save_elsewhere(run, loop)


def _save_elsewhere(run: Run, loop: TrainingLoop) -> None:
    """Write the checkpoint to a temporary folder, and say how the run is continued from there."""
    try:
        place = Path(tempfile.mkdtemp(prefix=f"{run.run_id}-"))
        info = CheckpointStore(place).save(take_snapshot(run, loop), keep=1)
    except OSError as error:
        run.tell("not saved", f"nor can a temporary folder be written ({error})")
        return
    run.tell(
        "saved elsewhere",
        f"step {run.state.step:,} is in {info.path}, as {run.folder.path} cannot be written. Move "
        f"it to {run.folder.checkpoints.folder} when that can be, and run the same again",
    )

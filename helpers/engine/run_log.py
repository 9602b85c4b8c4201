"""RunLog: the run in the database of runs, which may fail without ending the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from helpers.engine.callbacks import Callback
from helpers.errors import TrackingError

if TYPE_CHECKING:
    from helpers.config import TrainingConfig
    from helpers.engine.checkpoint import CheckpointInfo
    from helpers.engine.run import Run
    from helpers.tracking.db import ExperimentDB
    from helpers.tracking.writer import RunWriter

END_WAIT_S = 30.0


class RunLog(Callback):
    """Keep metrics, events, checkpoints and the end of a run in the database.

    Nothing here waits for the database, and nothing raises: what it cannot take for now waits in
    `spool.jsonl` of the run folder and is merged later. That it waits is told once.
    """

    def __init__(self, db: ExperimentDB) -> None:
        self.db = db
        self._told: set[str] = set()
        self._is_wait_told = False
        self._n_rewinds = 0
        self._writer: RunWriter | None = None

    def start(self, run: Run, config: TrainingConfig, identity: dict[str, Any]) -> None:
        """Put the run on record with the rows it has, and drop those beyond its checkpoint."""
        from helpers.tracking import entries
        from helpers.tracking.environment import code_version, environment
        from helpers.tracking.writer import RunWriter

        self._entries, self._writer = entries, RunWriter(self.db, run.folder.path)
        self._add(
            run,
            entries.run,
            name=run.run_id,
            config=config.to_dict(),
            task=identity["task"],
            data_fingerprint=identity["data"],
            code_version=code_version(),
            environment=environment(),
            seed=config.seed,
            run_dir=str(run.folder.path),
        )
        self.rewound(run)
        for step in run.folder.checkpoints.steps():
            path = run.folder.checkpoints.path(step)
            # A kill may have come between the checkpoint and its row.
            self._add_checkpoint(run, step, path, sum(f.stat().st_size for f in path.iterdir()))
        self._tell(run)

    def rewound(self, run: Run) -> None:
        """Make the metrics on record those of the run, which stands at an earlier step again."""
        self._n_rewinds = run.state.n_rewinds
        self._add(run, self._entries.forget, run.state.step)
        self._add(run, self._entries.history)

    def on_log(self, run: Run, row: dict[str, Any]) -> None:
        if run.state.n_rewinds != self._n_rewinds:
            self.rewound(run)
        self._add(run, self._entries.metrics, [(row["step"], self._entries.numbers(row))])
        self._tell(run)

    def on_evaluate(self, run: Run, row: dict[str, Any]) -> None:
        # As it is in the file, with its time.
        self.on_log(run, {**run.tracker.rows[-1], **row})

    def on_checkpoint(self, run: Run, info: CheckpointInfo) -> None:
        self._add_checkpoint(run, info.step, info.path, info.n_bytes)
        self._writer.flush()
        self._tell(run)

    def on_event(self, run: Run, kind: str, message: str) -> None:
        self._add(run, self._entries.event, kind, message, run.state.step, {})

    def finish(self, run: Run, status: str, final: dict[str, float]) -> None:
        """Write how the session ended, and all that still waits."""
        results = {**run.state.to_dict(), "training_s": run.tracker.elapsed_s}
        results |= {f"final_{name}": value for name, value in final.items()}
        if status in ("completed", "stopped_early") and run.folder.model_file.is_file():
            self._add(run, self._entries.artifact, run.folder.model_file, "model")
        self._add(run, self._entries.finish, status, results)
        is_done = self._writer.flush(END_WAIT_S)
        self._tell(run)
        if not (is_done or self._is_wait_told):
            self._tell_wait(run, f"the database has not answered for {END_WAIT_S:.0f} s")
        self._writer.close(END_WAIT_S if is_done else 0.0)

    def close(self) -> None:
        """End the writing at once, also where an interrupt came before the end; the spool stays."""
        if self._writer is not None:
            self._writer.close(0.0)

    def _add_checkpoint(self, run: Run, step: int, path: Any, n_bytes: int) -> None:
        is_best, metrics = step == run.state.best_step, {"best_loss": run.state.best_loss}
        self._add(run, self._entries.checkpoint, step, str(path), n_bytes, is_best, metrics)

    def _add(self, run: Run, make: Callable[..., Any], *values: Any, **named: Any) -> None:
        """Put an entry on its way; one that cannot be made is told and left out."""
        try:
            entry = make(run.run_id, *values, **named)
        except TrackingError as error:
            self._tell_once(run, str(error))
            return
        self._writer.add(entry)

    def _tell(self, run: Run) -> None:
        """Tell what became of the database, and what keeps rows from it."""
        while self.db.notes:
            self._tell_once(run, self.db.notes.pop(0))
        trouble = self._writer.take_trouble()
        if trouble:
            self._tell_wait(run, trouble.rstrip("."))

    def _tell_wait(self, run: Run, why: str) -> None:
        """Tell that rows wait for the database, and why."""
        self._is_wait_told = True
        self._tell_once(
            run,
            f"{why}. The run goes on; rows wait in {run.folder.path} where they can be written, "
            "and are merged later.",
        )

    def _tell_once(self, run: Run, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            run.tell("not recorded", message)

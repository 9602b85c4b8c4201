"""RunLog: the run in the database of runs, which may fail without ending the run."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from helpers.engine.callbacks import Callback
from helpers.errors import TrackingError

if TYPE_CHECKING:
    from helpers.config import TrainingConfig
    from helpers.engine.checkpoint import CheckpointInfo
    from helpers.engine.run import Run
    from helpers.tracking.db import ExperimentDB

RETRY_S = 60.0


class RunLog(Callback):
    """Keep metrics, events, checkpoints and the end of a run in the database.

    What cannot be written waits in memory and is tried again after a minute and at the end; that it
    waits is told once. The rows are in `metrics.jsonl` all the same.
    """

    def __init__(self, db: ExperimentDB) -> None:
        self.db = db
        self._waiting: list[Callable[[], None]] = []
        self._retry_at = 0.0

    def start(self, run: Run, config: TrainingConfig, identity: dict[str, Any]) -> None:
        """Put the run on record with the rows it has, and drop those beyond its checkpoint.

        Raises: TrackingError if the database cannot be written: nothing is lost yet.
        """
        from helpers.tracking.environment import code_version, environment

        self.db.start_run(
            run.run_id,
            name=run.run_id,
            config=config.to_dict(),
            task=identity["task"],
            data_fingerprint=identity["data"],
            code_version=code_version(),
            environment=environment(),
            seed=config.seed,
            run_dir=str(run.folder.path),
        )
        self.db.forget_after(run.run_id, run.state.step)
        self.db.log_metrics(run.run_id, [(r["step"], _numbers(r)) for r in run.tracker.rows])

    def on_log(self, run: Run, row: dict[str, Any]) -> None:
        self._send(run, self.db.log_metrics, run.run_id, [(row["step"], _numbers(row))])

    on_evaluate = on_log

    def on_checkpoint(self, run: Run, info: CheckpointInfo) -> None:
        self._send(
            run,
            self.db.log_checkpoint,
            run.run_id,
            info.step,
            str(info.path),
            bytes=info.n_bytes,
            is_best=info.step == run.state.best_step,
            metrics={"best_loss": run.state.best_loss},
        )

    def on_event(self, run: Run, kind: str, message: str) -> None:
        self._send(run, self.db.log_event, run.run_id, kind, message, step=run.state.step)

    def finish(self, run: Run, status: str, final: dict[str, float]) -> None:
        """Write how the session ended, and all that still waits."""
        results = {**run.state.to_dict(), "training_s": run.tracker.elapsed_s}
        results |= {f"final_{name}": value for name, value in final.items()}
        self._retry_at = 0.0
        if status in ("completed", "stopped_early") and run.folder.model_file.is_file():
            self._send(run, self.db.log_artifact, run.run_id, run.folder.model_file, "model")
        self._send(run, self.db.finish_run, run.run_id, status, results)

    def _send(self, run: Run, method: Callable[..., None], *values: Any, **named: Any) -> None:
        self._waiting.append(functools.partial(method, *values, **named))
        if time.monotonic() < self._retry_at:
            return
        is_told = self._retry_at > 0
        try:
            while self._waiting:
                self._waiting[0]()
                self._waiting.pop(0)
        except TrackingError as error:
            self._retry_at = time.monotonic() + RETRY_S
            if not is_told:
                run.tell("not recorded", f"{error} The run goes on without it.")
            return
        self._retry_at = 0.0


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if name != "step"}

"""TrainingLoop: from a global batch to updated weights, and around it the cadence of a run.

Legend: a step is one global batch, an update is a step whose gradients were applied.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from helpers.data.collate import Batch
from helpers.data.order import SampleOrder
from helpers.data.packing import Samples
from helpers.engine.device import DevicePlan
from helpers.engine.evaluate import evaluate
from helpers.engine.optim import Optimizer, clip_gradients
from helpers.engine.run import Run
from helpers.engine.schedule import Cooldown, Schedule
from helpers.errors import CheckpointError, DivergedError
from helpers.objectives import Objective

WAIT_S = 0.2


class TrainingLoop:
    """Train a model on global batches, whatever their parts.

    `micro_batch_size` sequences go through the model at once; the gradient of the global batch does
    not depend on it, because losses are summed and divided once by the count of all targets.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        schedule: Schedule,
        plan: DevicePlan,
        *,
        batch_size: int,
        micro_batch_size: int = 0,
        max_grad_norm: float = 1.0,
    ) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.schedule, self.plan, self.scaler = schedule, plan, plan.grad_scaler()
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size or batch_size
        self.max_grad_norm = max_grad_norm
        self.is_between_steps = True
        self.factor = 0.0

    def run(
        self, run: Run, train: Samples, val: Samples | None, save: Callable[[Run], None]
    ) -> str:
        """Train until the last step or a stop; return completed, stopped_early or paused.

        Logging, validating and saving have cadences of their own and happen in this order.

        Raises: DivergedError if a logged loss or gradient is not finite.
        """
        config, state, tracker = run.config, run.state, run.tracker
        order = SampleOrder(len(train), config.seed)
        end = _last_sample(run, self.batch_size)
        self.model.train()
        self.optimizer.zero_grad()
        tracker.resume()
        while not (run.is_over or run.early_reason or run.stop):
            count = min(self.batch_size, end - state.samples)
            self.step(train.gather(order.take(state.samples, count)), run)
            is_last = run.is_over
            if state.step == 1 or is_last or state.step % config.log_every == 0:
                self._log(run)
            is_best = False
            if val is not None and (is_last or _is_due(state.step, config.eval_every)):
                is_best = self._validate(run, val)
            if not is_last and (is_best or _is_due(state.step, config.save_every)):
                self._save(run, save)
            self._obey(run, save)
        if (run.early_reason or run.is_over) and tracker.has_pending:
            self._log(run)
        tracker.pause()
        self.check_pending(run)
        if run.is_over:
            return "completed"
        return "stopped_early" if run.early_reason else "paused"

    def step(self, batch: Batch, run: Run) -> None:
        """Update the weights once on a global batch."""
        state, self.is_between_steps = run.state, False
        loss_sum, count = self.accumulate(batch)
        self.factor = self.factor_of(run)
        norm, is_applied = self.update(self.factor)
        run.tracker.add(loss_sum, count, norm)
        state.step += 1
        state.updates += is_applied
        state.samples += batch.n_samples
        state.tokens += batch.n_samples * batch[self.objective.task.inputs[0]].shape[1]
        self.is_between_steps = True

    def factor_of(self, run: Run) -> float:
        """The factor on the peak learning rate for the next update.

        It follows from the updates so far; under a budget also from the share of time that is used,
        whichever is further.
        """
        state, update = run.state, float(run.state.updates)
        if run.budget.limit_s is not None:
            update = max(update, run.budget.fraction * self.schedule.total_updates)
        factor = self.schedule(update)
        if state.cooldown_start is None:
            return factor
        ratio = self.schedule.min_ratio
        return Cooldown(state.cooldown_start, state.cooldown_updates, ratio)(state.updates, factor)

    def accumulate(self, batch: Batch) -> tuple[torch.Tensor, int | torch.Tensor]:
        """Add up the gradient of a global batch; return its summed loss and count of targets."""
        count = self.objective.count(batch)
        batch = batch.to(self.plan.device)
        loss_sum = None
        for micro in batch.split(self.micro_batch_size):
            with self.plan.autocast():
                part = self.objective.loss_sum(micro)
            loss = part / count
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            part = part.detach()
            loss_sum = part if loss_sum is None else loss_sum + part
        return loss_sum, count

    def update(self, factor: float) -> tuple[torch.Tensor, bool]:
        """Clip and apply the gradients; an fp16 overflow applies nothing."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.optimizer.parameters if p.grad is not None]
        norm = clip_gradients(gradients, self.max_grad_norm)
        if self.scaler is None:
            is_applied = self.optimizer.step(factor)
        else:
            is_applied = bool(self.scaler.step(self.optimizer, factor))
            self.scaler.update()
        self.optimizer.zero_grad()
        return norm, is_applied

    def evaluate(self, data: Samples, n_sequences: int = 0) -> dict[str, float]:
        """Metrics over `n_sequences` evenly spread samples; 0 takes all."""
        # Without gradients twice the micro-batch fits into the same memory.
        size = 2 * self.micro_batch_size
        return evaluate(self.model, self.objective, self.plan, data, n_sequences, size)

    def _log(self, run: Run) -> None:
        pending = run.tracker.pending()
        row = run.tracker.flush(
            run.state.step,
            epoch=run.epoch,
            learning_rate=self.optimizer.learning_rate * self.factor,
            **self._scale(run),
        )
        # Step by step, for a mean can hide one; the row with the true values is written before.
        self._check_finite(run, pending["losses"], pending["norms"])
        trouble = run.tracker.take_trouble()
        if trouble:
            run.tell("not written", trouble)
        run.emit("on_log", row)

    def check_pending(self, run: Run) -> None:
        """Look at the steps that are not logged yet, before anything is saved."""
        pending = run.tracker.pending()
        self._check_finite(run, pending["losses"], pending["norms"])

    def _check_finite(self, run: Run, losses: list[float], norms: list[float]) -> None:
        """Raise DivergedError for a loss or gradient that is not finite.

        A loss is of the weights before its update, so the gradient tells first. In fp16 the scaler
        skips what overflows; there a scale below 1 says that nothing is applied any more.
        """
        names = {"train/loss": losses, "gradient_norm": norms if self.scaler is None else []}
        wrong = [
            f"{name} is {value}"
            for name, values in names.items()
            for value in values
            if not math.isfinite(value)
        ]
        if self.scaler is not None and self.scaler.get_scale() < 1:
            wrong.append(f"the scale of fp16 losses fell to {self.scaler.get_scale():.1e}")
        if wrong:
            raise DivergedError(
                f"{wrong[0]} up to step {run.state.step}, but finite values are wanted. Build the "
                "model again, lower learning_rate or look at the data of these steps, and start "
                "under another run_name; the last checkpoint is sound."
            )

    def _validate(self, run: Run, val: Samples) -> bool:
        """Validate, and return whether this is the best so far."""
        run.tracker.pause()
        started = time.perf_counter()
        values = self.evaluate(val, run.config.eval_sequences)
        self._measure_closing(run, val, time.perf_counter() - started)
        row: dict[str, Any] = {"step": run.state.step, "epoch": run.epoch}
        row |= {f"val/{name}": value for name, value in values.items()}
        run.tracker.add_row(row)
        best = math.inf if run.state.best_loss is None else run.state.best_loss
        if not math.isfinite(values["loss"]):
            run.tell("validation", f"the validation loss is {values['loss']}, not a finite number")
        is_best = values["loss"] < best
        if is_best:
            run.state.best_loss, run.state.best_step = values["loss"], run.state.step
        run.emit("on_evaluate", row)
        run.tracker.resume()
        return is_best

    def _measure_closing(self, run: Run, val: Samples, seconds: float) -> None:
        """Learn from a validation how long the last one, over all data, and saving will take."""
        looked_at = min(run.config.eval_sequences or len(val), len(val))
        whole = seconds * len(val) / looked_at
        run.budget.closing_s = 1.2 * (whole + seconds) + 1.0

    def _save(self, run: Run, save: Callable[[Run], None]) -> None:
        """Save on the way; a full disk is told and does not end the run."""
        run.tracker.pause()
        self.check_pending(run)
        try:
            save(run)
        except CheckpointError as error:
            run.tell("not saved", str(error))
        run.tracker.resume()

    def _obey(self, run: Run, save: Callable[[Run], None]) -> None:
        """Carry out the commands that lie in the run's folder."""
        control = run.control
        for command in control.read() if control is not None else ():
            if command == "PAUSE":
                self._save(run, save)
                self._wait(run)
                continue
            if command == "SAVE":
                self._save(run, save)
            elif command == "FINISH":
                run.finish_soon()
            else:
                run.stop.set("stopped by the file STOP")
            control.done(command)

    def _wait(self, run: Run) -> None:
        """Do nothing as long as the file PAUSE is there; a stop ends the waiting too."""
        run.tracker.pause()
        run.tell("paused", "the file PAUSE is there; remove it to go on")
        while run.control.is_given("PAUSE") and not run.control.is_given("STOP") and not run.stop:
            time.sleep(WAIT_S)
        run.tell("goes on", "the file PAUSE is gone" if not run.stop else "asked to stop")
        run.tracker.resume()

    def _scale(self, run: Run) -> dict[str, float]:
        """The scale of fp16 losses and the steps that overflowed; nothing in other formats."""
        if self.scaler is None:
            return {}
        skipped = run.state.step - run.state.updates
        return {"loss_scale": self.scaler.get_scale(), "skipped_steps": skipped}


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _last_sample(run: Run, batch_size: int) -> int:
    """Where the last batch ends: epochs end with their last sample, steps with a full batch."""
    if run.config.epochs:
        return max(1, round(run.config.epochs * run.n_train_samples))
    return run.total_steps * batch_size

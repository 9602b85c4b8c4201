"""TrainingLoop: from a global batch to updated weights, and around it the cadence of a run.

Legend: a step is one global batch, an update is a step whose gradients were applied.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from helpers.data.collate import Batch
from helpers.data.order import SampleOrder
from helpers.data.packing import Samples
from helpers.data.prefetch import Prefetch
from helpers.engine.agreement import check_names
from helpers.engine.budget import begin as begin_time
from helpers.engine.control import obey
from helpers.engine.device import DevicePlan
from helpers.engine.ema import WeightAverage
from helpers.engine.evaluate import evaluate
from helpers.engine.guard import Guard, look
from helpers.engine.ids import (
    check_batch,
    check_tokens,
    explain_device_assert,
    explain_index_error,
)
from helpers.engine.memory import MicroBatch, StepStart, redo_in_halves, use_known_size
from helpers.engine.optim import Optimizer, clip_gradients
from helpers.engine.random_state import restore_random_state
from helpers.engine.run import Later, Run
from helpers.engine.schedule import Schedule
from helpers.errors import CheckpointError
from helpers.objectives import Objective


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
        guard: Guard | None = None,
        average: WeightAverage | None = None,
    ) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.schedule, self.plan, self.scaler = schedule, plan, plan.grad_scaler()
        self.batch_size, self.micro_batch = batch_size, MicroBatch(micro_batch_size or batch_size)
        self.max_grad_norm, self.guard, self.average = max_grad_norm, guard, average
        self.start = StepStart(model, plan.device)
        self.is_between_steps = True
        self.factor = 0.0
        self._train: Samples | None = None
        self._order: SampleOrder | None = None
        self._reader: Prefetch | None = None
        self._names: Collection[str] = ()

    def run(
        self, run: Run, train: Samples, val: Samples | None, save: Callable[[Run], None]
    ) -> str:
        """Train until the last step or a stop; return completed, stopped_early or paused.

        Logging, validating and saving have cadences of their own and happen in this order; before
        each of them the guard looks, and may take the run back to an earlier step.

        Raises: DivergedError if a loss or gradient is not finite and the settings say stop;
        DataError if an id has no row in the model; MemoryLimitError if one sample does not fit;
        TaskError if the first step changes which state the model has.
        """
        with Prefetch(train, run.config.num_workers) as self._reader:
            self._begin(run, train, val)
            self._names = self.model.state_dict().keys()
            return self._go_on(run, val, lambda: self._save(run, save))

    def _go_on(self, run: Run, val: Samples | None, save: Callable[[], None]) -> str:
        config, clock = run.config, run.budget.clock
        while not (run.is_over or run.early_reason or run.stop):
            started = clock()
            if not self._step_on_next(run):
                break
            run.note_time()
            later = Later()
            with later:
                run.saver.deliver(run)
            step, is_last = run.state.step, run.is_over
            is_log = step == 1 or is_last or _is_due(step, config.log_every)
            is_eval = val is not None and (is_last or _is_due(step, config.eval_every))
            is_decay = self.schedule.is_going_down(run.state) and run.begin_decay()
            is_save = not is_last and (is_decay or run.saver.is_due(run))
            if (is_log or is_eval or is_save) and self.look(run):
                later.settle()
                continue
            is_best = False
            with later:
                if is_log:
                    self.log(run)
            run.budget.note_step(clock() - started)
            with later:
                is_best = is_eval and self._validate(run, val)
            with later:
                if run.early_reason and run.tracker.has_pending:
                    self.log(run)
            later.settle()
            if not is_last and (is_best or is_save):
                save()
            obey(run, save)
            run.note_time()
        self.look(run)
        if run.is_over and run.tracker.has_pending:
            self.log(run)
        run.tracker.pause()
        if run.is_over:
            return "completed"
        return "stopped_early" if run.early_reason else "paused"

    def _begin(self, run: Run, train: Samples, val: Samples | None) -> None:
        self._train, self._is_whole = train, check_tokens(self.objective, train, "training data")
        if val is not None:
            check_tokens(self.objective, val, "validation data")
        if self._reader.refusal:
            run.tell("no workers", self._reader.refusal)
        if run.control is not None:
            run.control.tell(run)
        self._begin_time(run, val)
        self._draw_in_order(run)
        self.model.train()
        self.optimizer.zero_grad()
        if run.random_state is not None:
            # The last thing before the first step, for callbacks and data may have drawn since.
            restore_random_state(*run.random_state)
            run.random_state = None
        run.tracker.resume()

    def _begin_time(self, run: Run, val: Samples | None) -> None:
        """Begin with the limit of time, if there is one, and with what the end will take."""
        if run.budget.limit_s is not None and val is not None:
            n = min(len(val), 2 * self.micro_batch.size)
            # The fastest of three: what is done once, like compiling, is no part of the last one.
            rate = min(self._timed_evaluation(run, val, n) for _ in range(3)) / n
            run.budget.note_validation(rate, len(val), rate * _looked_at(run, val))
        begin_time(run)

    def _timed_evaluation(self, run: Run, val: Samples, n: int) -> float:
        started = run.budget.clock()
        self.evaluate(val, n)
        return run.budget.clock() - started

    def _draw_in_order(self, run: Run) -> None:
        """Draw samples from here on in the order of the run; again after it went back."""
        config = run.config
        self._order = SampleOrder(len(self._train), config.seed, left_out=run.state.left_out)
        self._reader.follow(self._order, self.batch_size, run.last_sample)

    def _step_on_next(self, run: Run) -> bool:
        """Make a step on the next samples, whose ids are looked at on the host.

        Returns False where the run was asked to stop before they were there.
        """
        taken = self._reader.take(run.state.samples, run.stop, run.tell)
        if taken is None:
            return False
        index, batch = taken
        if not self._is_whole:
            check_batch(self.objective, batch, index, "training data")
        if run.state.step == 0:
            use_known_size(self, batch, run)
        try:
            self.step(batch, run)
        except IndexError as error:
            raise explain_index_error(self.objective, batch, index, error) from error
        except RuntimeError as error:
            explain_device_assert(error, run.state.step)
            raise
        if self._names:
            check_names(self.model, self._names)
            self._names = ()
        return True

    def step(self, batch: Batch, run: Run) -> None:
        """Update the weights once on a global batch, unless the guard holds the update back."""
        state, self.is_between_steps = run.state, False
        self.start.keep()
        loss_sum, count = redo_in_halves(self, batch, run, lambda: self.accumulate(batch))
        self.factor = run.factor = self.schedule.factor_of(state)
        norm = self.clip()
        held = None if self.guard is None else self.guard.judge(loss_sum, norm)
        is_applied = self.apply(self.factor, held)
        run.tracker.add(loss_sum, count, norm)
        state.step += 1
        state.updates += is_applied
        state.samples += batch.n_samples
        state.tokens += batch.n_samples * batch[self.objective.task.inputs[0]].shape[1]
        if self.guard is not None:
            self.start.put_back_buffers_where(held)
            self.guard.note(state, batch.n_samples, is_applied, (loss_sum, count, norm, held))
            if self.scaler is not None:
                self.guard.note_scale(is_applied, self.scaler.get_scale)
        if self.average is not None and is_applied:
            self.average.update(state.scheduled, held)
        self.is_between_steps = True

    def accumulate(self, batch: Batch) -> tuple[torch.Tensor, int | torch.Tensor]:
        """Add up the gradient of a global batch; return its summed loss and count of targets."""
        count = self.objective.count(batch)
        batch = batch.to(self.plan.device)
        loss_sum = None
        for micro in batch.split(self.micro_batch.size):
            with self.plan.autocast():
                part = self.objective.loss_sum(micro)
            loss = part / count
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            part = part.detach()
            loss_sum = part if loss_sum is None else loss_sum + part
        return loss_sum, count

    def clip(self) -> torch.Tensor:
        """Limit the norm of the gradient; return what it was, on the device."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.optimizer.parameters if p.grad is not None]
        return clip_gradients(gradients, self.max_grad_norm)

    def apply(self, factor: float, held: torch.Tensor | None = None) -> bool:
        """Apply the gradients and drop them; an fp16 overflow applies nothing, and is told at once.

        What is `held` back is told by the guard later.
        """
        if self.scaler is None and held is not None and held.device.type == "cpu":
            # Here asking costs nothing, and a condition in every kernel would.
            is_applied = bool(held) or self.optimizer.step(factor)
        elif self.scaler is None:
            is_applied = self.optimizer.step(factor, held)
        else:
            is_applied = bool(self.scaler.step(self.optimizer, factor, held))
            self.scaler.update()
        self.optimizer.zero_grad()
        return is_applied

    def evaluate(self, data: Samples, n_sequences: int = 0) -> dict[str, float]:
        """Metrics over `n_sequences` evenly spread samples; 0 takes all."""
        # Without gradients twice the micro-batch fits into the same memory.
        size = 2 * self.micro_batch.size
        with self.averaged():
            return evaluate(self.model, self.objective, self.plan, data, n_sequences, size)

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """A block in which the model has the averaged weights, where an average is kept."""
        return contextlib.nullcontext() if self.average is None else self.average.swapped_in()

    def log(self, run: Run) -> None:
        """Turn the steps since the last row into a row, and tell it."""
        row = run.tracker.flush(
            run.state.step,
            epoch=run.epoch,
            learning_rate=self.optimizer.learning_rate * self.factor,
            **self._scale(run),
        )
        trouble = run.tracker.take_trouble()
        if trouble:
            run.tell("not written", trouble)
        run.emit("on_log", row)

    def look(self, run: Run) -> bool:
        """Let the guard look at the steps since it last did; return whether the run went back."""
        if self.guard is None or not look(run, self, self._train, self._order):
            return False
        self._draw_in_order(run)
        self.model.train()
        run.note_time()
        return True

    def _validate(self, run: Run, val: Samples) -> bool:
        """Validate, and return whether this is the best so far."""
        run.tracker.pause()
        started = run.budget.clock()
        values = self.evaluate(val, run.config.eval_sequences)
        rate = (run.budget.clock() - started) / _looked_at(run, val)
        row: dict[str, Any] = {"step": run.state.step, "epoch": run.epoch}
        row |= {f"val/{name}": value for name, value in values.items()}
        run.tracker.add_row(row)
        best = math.inf if run.state.best_loss is None else run.state.best_loss
        if not math.isfinite(values["loss"]):
            run.tell("validation", f"the validation loss is {values['loss']}, not a finite number")
        is_best = values["loss"] < best
        if is_best:
            run.state.best_loss, run.state.best_step = values["loss"], run.state.step
        with self.averaged():
            run.emit("on_evaluate", row)
        run.budget.note_validation(rate, len(val), run.budget.clock() - started)
        run.tracker.resume()
        return is_best

    def _save(self, run: Run, save: Callable[[Run], None]) -> None:
        """Save on the way; a full disk is told and does not end the run."""
        run.tracker.pause()
        self.look(run)
        try:
            save(run)
        except CheckpointError as error:
            run.tell("not saved", str(error))
        run.tracker.resume()

    def _scale(self, run: Run) -> dict[str, float]:
        """The scale of fp16 losses, and the steps without an update where there are some."""
        skipped = run.state.step - run.state.updates
        if self.scaler is None:
            return {"skipped_steps": skipped} if skipped else {}
        return {"loss_scale": self.scaler.get_scale(), "skipped_steps": skipped}


def _looked_at(run: Run, val: Samples) -> int:
    """Sequences of a validation on the way."""
    return min(run.config.eval_sequences or len(val), len(val))


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0

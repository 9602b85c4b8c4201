"""A run as a checkpoint, and back: every part is saved, and every part is wanted back."""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from helpers.engine.callbacks import Callback
from helpers.engine.checkpoint import Snapshot, load_model_tensors, model_tensors
from helpers.engine.extend import told
from helpers.engine.identity import EXTENSIONS, as_extended, check_same_run
from helpers.engine.metrics import read_rows
from helpers.engine.optim import copy_same_tensors
from helpers.engine.random_state import capture_random_state, restore_random_state
from helpers.engine.run import Run, RunState
from helpers.errors import CheckpointError

if TYPE_CHECKING:
    from helpers.engine.loop import TrainingLoop

SECTIONS = {"model", "optimizer", "random", "buffers"}
AVERAGE = "ema"
"""The section of a run that keeps an average of its weights."""
VALUES = {
    "run",
    "early_reason",
    "identity",
    "aliases",
    "random",
    "scaler",
    "callbacks",
    "elapsed_s",
    "pending",
    "samples",
    "plan",
    "guard",
    "micro_batch",
}
LATER = {"guard": None, "micro_batch": None}
"""Values that checkpoints of version 0.1 may lack, and what stands for them."""


def save_run(run: Run, loop: TrainingLoop, *, is_background: bool = False) -> None:
    """Write a checkpoint of the run as it stands between two steps.

    In the background this waits for a copy in memory alone; what becomes of it is told between two
    later steps.

    Raises: CheckpointError if it cannot be written.
    """
    _mend_folder(run)
    run.saver.save(run, lambda: take_snapshot(run, loop), is_background=is_background)


def take_snapshot(run: Run, loop: TrainingLoop) -> Snapshot:
    """Everything that the run continues from."""
    run.state.wall_s = run.budget.used_s
    weights, aliases = model_tensors(run.model)
    random_values, random_tensors = capture_random_state()
    average = {} if loop.average is None else {AVERAGE: loop.average.state_tensors()}
    return Snapshot(
        step=run.state.step,
        sections={
            "model": weights,
            "optimizer": loop.optimizer.state_tensors(),
            "random": random_tensors,
            "buffers": _hidden_buffers(run.model),
            **average,
        },
        state={
            "run": run.state.to_dict(),
            "early_reason": run.early_reason,
            "identity": run.identity,
            "aliases": aliases,
            "random": random_values,
            "scaler": None if loop.scaler is None else loop.scaler.state_dict(),
            "callbacks": {name: c.state_dict() for name, c in _with_memory(run).items()},
            "elapsed_s": run.tracker.elapsed_s,
            "pending": run.tracker.pending(),
            "samples": run.samples,
            "plan": loop.plan.to_dict(),
            "guard": None if loop.guard is None else loop.guard.state_dict(),
            "micro_batch": loop.micro_batch.state_dict(),
        },
    )


def restore_run(run: Run, loop: TrainingLoop) -> list[str]:
    """Take up the newest sound checkpoint of the run, if it has one.

    Returns what was found damaged and set aside, a sentence each.

    Raises: CheckpointError if none is sound, if a part is missing or unknown, or if the run was
    computed in another number format.
    """
    store = run.folder.checkpoints
    store.sweep()
    snapshot = store.load_latest()
    if snapshot is None:
        run.tracker.restore(0, 0.0)
        return store.notes
    run.budget.resume(snapshot.state.get("run", {}).get("wall_s", 0.0) + _lost_s(run, snapshot))
    _take_up(run, loop, snapshot)
    run.resumed_from = snapshot.step
    run.random_state = snapshot.state["random"], snapshot.sections["random"]
    return store.notes


def _lost_s(run: Run, snapshot: Snapshot) -> float:
    """Seconds of training after the checkpoint, by the rows that a killed session left."""
    if run.budget.limit_s is None or not run.folder.metrics_file.is_file():
        return 0.0
    if len(run.identity.get(EXTENSIONS, ())) > snapshot.state["run"].get(EXTENSIONS, 0):
        return 0.0
    known_s = [row.get("elapsed_s", 0.0) for row in read_rows(run.folder.metrics_file)]
    return max(0.0, max(known_s, default=0.0) - snapshot.state.get("elapsed_s", 0.0))


def go_back(run: Run, loop: TrainingLoop, *, before_step: int, spent: set[int]) -> bool:
    """Take up an earlier checkpoint of this session's run, and remove those after it.

    The newest before a step is taken whose step follows from the settings, so that a run that was
    paused in between goes back as far as one that was not; else the newest of all. Time that was
    used stays used. Returns whether there is one, and it is not one of those that are `spent`.
    """
    run.saver.wait(run)
    store, every = run.folder.checkpoints, run.config.save_every
    marked = {run.state.best_step, run.state.decay_step}
    steps = [step for step in reversed(store.steps()) if step < before_step]
    steps.sort(key=lambda step: step in marked or bool(every and step % every == 0), reverse=True)
    for step in steps:
        if step in spent:
            return False
        try:
            snapshot = store.load(step)
        except CheckpointError as error:
            run.tell("damaged checkpoint", str(error))
            continue
        _take_up(run, loop, snapshot)
        store.discard_after(step)
        run.saver.owe_nothing()
        return True
    return False


def _take_up(run: Run, loop: TrainingLoop, snapshot: Snapshot) -> None:
    """Put a run where a checkpoint says; only the time that it has used is left as it is."""
    state = snapshot.state = {**LATER, **snapshot.state}
    _check_parts(snapshot, SECTIONS if loop.average is None else SECTIONS | {AVERAGE})
    check_same_run(as_extended(state["identity"], run.identity), run.identity, run.run_id)
    if state["plan"]["precision"] != loop.plan.precision:
        raise CheckpointError(
            f"The run was computed in {state['plan']['precision']}, but would go on in "
            f"{loop.plan.precision}. Start anew under another run_name."
        )
    load_model_tensors(run.model, snapshot.sections["model"], state["aliases"])
    loop.optimizer.load_state_tensors(snapshot.sections["optimizer"])
    if loop.average is not None:
        loop.average.load_state_tensors(snapshot.sections[AVERAGE])
    if loop.scaler is not None:
        loop.scaler.load_state_dict(state["scaler"])
    if loop.guard is not None and state["guard"] is not None:
        loop.guard.load_state_dict(state["guard"])
    if state["micro_batch"] is not None:
        loop.micro_batch.load_state_dict(state["micro_batch"])
    copy_same_tensors("buffers", _hidden_buffers(run.model), snapshot.sections["buffers"])
    _restore_callbacks(run, state["callbacks"])
    run.state, run.early_reason = RunState(**state["run"]), state["early_reason"]
    _extend(run, loop)
    run.folder.checkpoints.protect = {run.state.decay_step} - {None}
    run.samples[:] = [tuple(sample) for sample in state["samples"]]
    run.saver.best_on_disk = run.state.best_step
    run.tracker.restore(snapshot.step, state["elapsed_s"], state["pending"])
    restore_random_state(state["random"], snapshot.sections["random"])


def _extend(run: Run, loop: TrainingLoop) -> None:
    """Put a run that was extended since its checkpoint on the new schedule."""
    state, number = run.state, len(run.identity.get(EXTENSIONS, ()))
    if state.extensions < number:
        run.early_reason, state.decay_step, state.extensions = "", None, number
        state.cooldown_start, state.cooldown_updates = None, 0
        state.time_share = run.budget.share_before
        run.extension = told(run.identity, loop.schedule.factor_of(state))
    if run.config.epochs:
        # The last batch of an epoch that was the end may have been a part of one.
        left = run.last_sample - state.samples
        run.total_steps = state.step + math.ceil(left / run.config.batch_size)


def _mend_folder(run: Run) -> None:
    """Make the folder of a run anew if somebody deleted it; what cannot be made, the save tells."""
    folder = run.folder
    if run.identity and not os.path.exists(folder.run_file):
        with contextlib.suppress(OSError):
            folder.path.mkdir(parents=True, exist_ok=True)
            run.config.save(folder.config_file)
            folder.write_identity(run.identity)


def _hidden_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that a model leaves out of its state_dict, and that may change all the same."""
    known = model.state_dict().keys()
    return {name: b.detach() for name, b in model.named_buffers() if name not in known}


def _check_parts(snapshot: Snapshot, sections: set[str]) -> None:
    """Refuse a checkpoint with a part too few or too many."""
    # A count that is missing had its first value when the checkpoint was written.
    counts = set(RunState().to_dict())
    for wanted, got in (
        (sections, set(snapshot.sections)),
        (VALUES, set(snapshot.state)),
        (counts, counts | set(snapshot.state.get("run", ()))),
    ):
        if wanted != got:
            raise CheckpointError(
                f"The checkpoint of step {snapshot.step} has the parts {sorted(got)}, but "
                f"{sorted(wanted)} are wanted. Use the version of the suite that wrote it."
            )


def _with_memory(run: Run) -> dict[str, Callback]:
    """Callbacks that have a state, by class; a second one of a class is numbered."""
    named: dict[str, Callback] = {}
    for callback in run.callbacks:
        if type(callback).state_dict is not Callback.state_dict:
            name = type(callback).__name__
            n_before = sum(key.partition(" ")[0] == name for key in named)
            named[f"{name} {n_before + 1}" if n_before else name] = callback
    return named


def _restore_callbacks(run: Run, states: dict[str, Any]) -> None:
    own = _with_memory(run)
    if own.keys() != states.keys():
        raise CheckpointError(
            f"The checkpoint holds the state of the callbacks {sorted(states)}, but the trainer "
            f"has {sorted(own)}. Give the same callbacks as before."
        )
    for name, callback in own.items():
        callback.load_state_dict(states[name])

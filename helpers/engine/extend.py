"""A longer or another schedule for a run that exists, on record and safe against a crash.

One write of run.json is the decision. What came after the step that the run goes on from is then
set aside, and whoever opens the run next does that as well if it was not done to the end.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from helpers.config import TrainingConfig, role_of
from helpers.engine.budget import duration, seconds
from helpers.engine.checkpoint import STATE, CheckpointStore, Snapshot
from helpers.engine.durable import remove_folder, replace_file, sync_folder
from helpers.engine.identity import EXTENSIONS, check_same_run, recorded_identity
from helpers.engine.mirror_files import LAST
from helpers.engine.plan import UNLIMITED, run_length
from helpers.engine.run_folder import RunFolder, read_json, shown
from helpers.engine.schedule import SchedulerFactory
from helpers.errors import CheckpointError, ConfigError

SCHEDULE = tuple(name for name in TrainingConfig.model_fields if role_of(name) == "schedule")


def find_run(path: Path, mirror_dir: str) -> RunFolder:
    """The folder of a run that exists, here or in its mirror.

    Raises: CheckpointError if there is none.
    """
    places = [path, *([Path(mirror_dir).expanduser() / path.name] if mirror_dir else [])]
    parts = ("run.json", "checkpoints", LAST)
    if not any((place / part).exists() for place in places for part in parts):
        raise CheckpointError(
            f"There is no run {path.name} in {shown(path.parent)}, but one is wanted to extend. "
            "Check output_dir and run_id, or start the run with train."
        )
    return RunFolder(path)


def extended_config(
    config: TrainingConfig, folder: RunFolder, changes: dict[str, Any], n_samples: int
) -> TrainingConfig:
    """The settings that a run goes on with after a change of its schedule.

    They start from the schedule that the run has on record, so that asking for the same twice
    changes nothing the second time. The warm-up keeps its length, unless it is changed too.

    Raises: ConfigError for a setting of no schedule; CheckpointError if there is no such run.
    """
    wrong = sorted(set(changes) - set(SCHEDULE))
    if wrong or not changes:
        raise ConfigError(
            f"{', '.join(wrong) or 'nothing'} was to be changed, but a run is extended by "
            f"{', '.join(SCHEDULE[:-1])} and {SCHEDULE[-1]} alone. Start another run for the rest."
        )
    identity = recorded_identity(folder)
    if identity is None:
        raise CheckpointError(
            f"The run {folder.run_id} has no run.json that says what it is. Call train with its "
            "settings as they were, which writes it again."
        )
    recorded, changes = schedule_of(identity), dict(changes)
    for chosen, other, nothing in (
        ("max_steps", "epochs", 0.0),
        ("epochs", "max_steps", 0),
        ("budget", "finish_by", ""),
    ):
        if changes.get(chosen):
            changes.setdefault(other, nothing)
    after = config.replace(**{**recorded, **changes}, run_name=folder.run_id, resume="auto")
    if "warmup_fraction" not in changes:
        before = _with_schedule(after, recorded)
        after = after.replace(warmup_fraction=_kept_warmup(before, after, n_samples))
    return after


def schedule_of(identity: dict[str, Any]) -> dict[str, Any]:
    """The schedule that a run is on record with; what did not exist then had its default."""
    fields = TrainingConfig.model_fields
    return {name: identity["settings"].get(name, fields[name].default) for name in SCHEDULE}


def record_extension(
    folder: RunFolder, config: TrainingConfig, now: dict[str, Any], n_samples: int
) -> None:
    """Decide where a run goes on from with a new schedule, and write that into its run.json.

    That is the newest checkpoint from before the learning rate began its final way down, if there
    is one, as a run that never was shorter would have it; else the last one.

    Raises: CheckpointError if the run has gone further already than it would, or if `now`, what it
    would be, differs in more than its schedule.
    """
    identity = recorded_identity(folder)
    recorded, store = schedule_of(identity), folder.checkpoints
    changed = {
        name: [was, getattr(config, name)]
        for name, was in recorded.items()
        if was != getattr(config, name)
    }
    identity["settings"] = {
        **identity["settings"],
        **{name: value for name, (_, value) in changed.items()},
    }
    check_same_run(identity, now, folder.run_id)
    if not changed:
        return
    store.sweep()
    last = store.load_latest()
    if last is None:
        raise CheckpointError(
            f"The run {folder.run_id} has no checkpoint to go on from. Start it with train."
        )
    length = run_length(config, n_samples)
    before = _with_schedule(config, recorded)
    step = _step_before_decay(store, last, before, n_samples)
    if length < last.step or length <= step:
        raise CheckpointError(
            f"The run {folder.run_id} has done {last.step:,} steps, but would end at {length:,}. "
            "Choose more steps than that, or a budget and max_steps=0."
        )
    used_s = (read_json(store.path(step) / STATE) or last.state)["run"].get("wall_s", 0.0)
    if config.budget and seconds(config.budget) <= used_s:
        raise CheckpointError(
            f"The run {folder.run_id} has used {duration(used_s)} up to step {step:,}, but its "
            f"budget would be {config.budget}. Choose more time than that, or budget=''."
        )
    entry = {"from_step": step, "last_step": last.step, "settings": changed}
    identity[EXTENSIONS] = [*identity.get(EXTENSIONS, ()), entry]
    with folder.writing():
        config.save(folder.config_file)
        folder.write_identity(identity)


def settle_extension(folder: RunFolder, identity: dict[str, Any]) -> None:
    """Set aside what a run left behind that came after the step it goes on from since.

    Nothing is deleted: checkpoints, results and metrics are in `before-extension-<number>`.
    """
    number = len(identity.get(EXTENSIONS, ()))
    if not number:
        return
    start, store = identity[EXTENSIONS][-1]["from_step"], folder.checkpoints
    late = [s for s in store.steps() if s > start and _is_older(store.path(s), number)]
    result = read_json(folder.result_file)
    is_over = result is not None and result.get("status") != "paused"
    has_result = is_over and result.get(EXTENSIONS, 0) < number
    if not late and not has_result:
        return
    place = aside(folder, number)
    place.mkdir(exist_ok=True)
    if folder.metrics_file.exists() and not (place / folder.metrics_file.name).exists():
        replace_file(place / folder.metrics_file.name, folder.metrics_file.read_bytes())
    # The newest first: whatever is left is then a run that can go on.
    for step in reversed(late):
        _move(store.path(step), place / store.path(step).name)
    if has_result:
        for path in (folder.model_file, folder.result_file):
            if path.exists():
                _move(path, place / path.name)
    for path in (place, store.folder, folder.path):
        sync_folder(path)


def aside(folder: RunFolder, number: int) -> Path:
    """Where a run keeps what an extension left behind, counted from 1."""
    return folder.path / f"before-extension-{number}"


def told(identity: dict[str, Any], factor: float) -> str:
    """The last extension in one sentence; `factor` is the learning rate over its peak now."""
    entry, number = identity[EXTENSIONS][-1], len(identity[EXTENSIONS])
    changes = ", ".join(f"{name} {was} -> {now}" for name, (was, now) in entry["settings"].items())
    step = entry["from_step"]
    if step < entry["last_step"]:
        return (
            f"{changes}; the run goes on from step {step:,}, before the learning rate began its "
            f"way down, with {factor:.3g} of its peak; what came after is in "
            f"before-extension-{number}"
        )
    return (
        f"{changes}; the run goes on from its last step {step:,}, with {factor:.3g} of the peak "
        "learning rate"
    )


def _step_before_decay(
    store: CheckpointStore, last: Snapshot, before: TrainingConfig, n_samples: int
) -> int:
    """The newest step whose checkpoint is from before the way down, or the last one.

    One that lies in the first half of the way there is passed over: too much would be lost.
    """
    total = run_length(before, n_samples)
    limit = last.state["run"].get("decay_step")
    if limit is None and total != UNLIMITED:
        limit = SchedulerFactory.create(before, total).decay_start
    if limit is None or last.step <= limit:
        return last.step
    for step in reversed(store.steps()):
        if math.ceil(limit / 2) <= step <= limit and step:
            try:
                return store.load(step).step
            except CheckpointError:
                continue
    return last.step


def _with_schedule(config: TrainingConfig, schedule: dict[str, Any]) -> TrainingConfig:
    """The settings with another schedule, where a time of day may be all that limited it."""
    is_limited = schedule["budget"] or schedule["max_steps"] or schedule["epochs"]
    finish_by = config.finish_by if is_limited else config.finish_by or "00:00"
    return config.replace(**schedule, finish_by="" if schedule["budget"] else finish_by)


def _kept_warmup(before: TrainingConfig, after: TrainingConfig, n_samples: int) -> float:
    """The share of warm-up that keeps its length in updates, or in time; none from one to another.

    A run that has its warm-up behind would warm up once more else.
    """
    total, longer = (run_length(c, n_samples) for c in (before, after))
    if total == longer and (total != UNLIMITED or before.budget == after.budget):
        return after.warmup_fraction
    if UNLIMITED not in (total, longer):
        warmup = SchedulerFactory.create(before, total).warmup_updates
        return min(0.5, 1 - after.decay_fraction, max(0.0, warmup - 0.5) / longer)
    if total == longer and before.budget and after.budget:
        ratio = seconds(before.budget) / seconds(after.budget)
        return min(0.5, 1 - after.decay_fraction, before.warmup_fraction * ratio)
    return 0.0


def _is_older(checkpoint: Path, number: int) -> bool:
    """Whether a checkpoint was written before an extension; a damaged one is judged elsewhere."""
    state = read_json(checkpoint / STATE)
    return state is not None and len(state["identity"].get(EXTENSIONS, ())) < number


def _move(source: Path, target: Path) -> None:
    """Move a file or folder; one that was moved before and came back, as from a mirror, goes."""
    if target.is_dir():
        remove_folder(source)
        return
    os.replace(source, target)

"""run_search: train one trial after another, keep each on record, and go on where it was left."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from helpers.config import TrainingConfig
from helpers.engine.callbacks import Callback
from helpers.engine.memory import is_out_of_memory
from helpers.errors import ConfigError, DivergedError, SearchError
from helpers.search.result import SearchResult
from helpers.search.space import SearchSpace
from helpers.search.study import Study
from helpers.search.suggest import Points
from helpers.search.trial import FINAL_STATES, Trial, metrics_of, words
from helpers.task import TaskSpec

if TYPE_CHECKING:
    from torch import nn

    from helpers.tracking.db import ExperimentDB


def run_search(
    model_factory: Callable[..., nn.Module],
    space: SearchSpace | Mapping[str, Any],
    training_config: TrainingConfig,
    *,
    train_data: Any,
    val_data: Any = None,
    n_trials: int | None = None,
    method: str = "quasi_random",
    points: Points = None,
    metric: str = "val_loss",
    seed: int | None = None,
    task_spec: TaskSpec | None = None,
    model_config: Any = None,
    callbacks: Callable[[], Sequence[Callback]] | None = None,
    db: ExperimentDB | None = None,
    name: str = "",
    on_trial: Callable[[Trial], Any] | None = None,
) -> SearchResult:
    """Train until `n_trials` have completed (10; all of a grid), or until an interrupt.

    `model_factory(config)` makes the model of a trial from its settings; values named
    `model.<name>` reach it as keywords. A trial that diverges or runs out of memory is recorded and
    replaced by a further one, up to twice as many in all. Calling again with the same arguments
    goes on: what had ended is found again, a trial that was interrupted continues from its
    checkpoint. All trials train with the seed of `training_config`; `seed` is that of the
    suggestions. `on_trial` is called with each trial that has ended, and with `print` shows them.

    Raises: ConfigError or DataError with all that would stop a trial, before the first;
    SearchError if the folder belongs to another search; any other error of a trial, which is
    recorded as failed and tried again by the next call.
    """
    study = Study(
        model_factory,
        space if isinstance(space, SearchSpace) else SearchSpace.from_dict(space),
        training_config,
        train_data,
        val_data,
        method=method,
        points=points,
        metric=metric,
        seed=seed,
        task_spec=task_spec or TaskSpec.causal_lm(),
        model_config=model_config,
        callbacks=callbacks,
        db=db,
        name=name,
    )
    n_wanted, planned = study.plan(n_trials)
    folder = study.open(next(study.suggestions()))
    with folder.lock():
        trials, status = _run_all(study, n_wanted, planned, on_trial or (lambda trial: None))
    return SearchResult(
        name=study.name,
        folder=str(folder.path),
        status=status,
        metric=metric,
        n_wanted=n_wanted,
        trials=tuple(trials),
        space=study.space,
        training_config=training_config,
    )


def run_trial(study: Study, number: int, params: Mapping[str, Any]) -> Trial:
    """Train one trial, or find what is left of it; the outcome is on record before it is returned.

    Raises: whatever stops it except divergence and a lack of memory, with the trial named.
    """
    config, started = study.settings(number, params), time.perf_counter()
    path = Path(config.output_dir).expanduser() / config.run_name
    before = Trial.load(path)
    if before is not None and before.params != params:
        raise SearchError(
            f"Trial {number} is on record with {words(before.params)}, but its values would be "
            f"{words(params)}: another version of torch drew them. Choose another name."
        )
    if before is not None and before.state in FINAL_STATES:
        return before.judged_by(study.metric)

    def record(state: str, reason: str = "", metrics: dict[str, float] | None = None) -> Trial:
        seconds = time.perf_counter() - started + (before.seconds if before else 0.0)
        trial = Trial(
            number, state, dict(params), config.run_name, str(path), seconds, metrics or {}, reason
        )
        trial.save(path)
        return trial.judged_by(study.metric)

    try:
        trial = record(*_train(study, config, params))
    except Exception as error:
        record("failed", f"{type(error).__name__}: {error}")
        error.add_note(
            f"This was trial {number} of the search {study.name} ({words(params)}). Mend the cause "
            "and call run_search again: the trials before it are kept, and this one is tried again."
        )
        raise
    if trial.state == "out_of_memory":
        gc.collect()
        torch.cuda.empty_cache()
    return trial


def _train(
    study: Study, config: TrainingConfig, params: Mapping[str, Any]
) -> tuple[str, str, dict[str, float]]:
    """How a trial ends: its state, the reason for it, and its metrics."""
    try:
        result = study.trainer(config, params).train(study.train_data, study.val_data)
    except DivergedError as error:
        return "diverged", str(error), {}
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return "out_of_memory", str(error).partition("\n")[0] or type(error).__name__, {}
    if result.status == "paused":
        return "paused", "", {}
    metrics = metrics_of(result)
    loss = "train_loss" if study.val_data is None else "val_loss"
    if loss not in metrics:
        return "diverged", f"{loss} is {result.final_loss}, not a finite number.", metrics
    return "completed", "", metrics


def _run_all(
    study: Study,
    n_wanted: int,
    planned: Iterator[dict[str, Any]],
    on_trial: Callable[[Trial], Any],
) -> tuple[list[Trial], str]:
    """Trials in order until enough have completed; an interrupt ends them early."""
    trials: list[Trial] = []
    n_completed = 0
    try:
        for number, params in enumerate(planned):
            trial = run_trial(study, number, params)
            trials.append(trial)
            if trial.state == "paused":
                return trials, "paused"
            if trial.state == "completed":
                n_completed += 1
                _check_value(trial, study.metric)
            on_trial(trial)
            if n_completed == n_wanted:
                return trials, "completed"
    except KeyboardInterrupt:
        return trials, "paused"
    return trials, "exhausted"


def _check_value(trial: Trial, metric: str) -> None:
    if trial.value is None:
        raise ConfigError(
            f"metric is {metric!r}, but trial {trial.number} has only {', '.join(trial.metrics)}. "
            "Call again with one of these: the trial is kept."
        )

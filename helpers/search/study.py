"""What a search is, apart from running it: which trials there are, and what each of them trains.

A search is a folder `<output_dir>/<name>/` with `search.json`, which says what the search is, and a
run folder for each trial with its record in `trial.json`. All records together are the search.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.config import TrainingConfig, TrainingConfigBuilder
from helpers.data.packing import as_samples
from helpers.engine.callbacks import Callback
from helpers.engine.durable import write_json
from helpers.engine.identity import check_same_run, run_identity
from helpers.engine.plan import run_length
from helpers.engine.run_folder import RunFolder, free_name, read_json
from helpers.errors import CheckpointError, ConfigError, DataError, SearchError
from helpers.search.factory import ModelFactory
from helpers.search.names import model_values, setting_values
from helpers.search.space import SearchSpace, refusal
from helpers.search.suggest import Points, suggestions
from helpers.search.trial import known_metrics
from helpers.task import TaskSpec
from helpers.tracking import fingerprint
from helpers.trainer import Trainer

if TYPE_CHECKING:
    from torch import nn

    from helpers.tracking.db import ExperimentDB

SEARCH_FILE = "search.json"
DEFAULT_TRIALS = 10
MAX_GRID = 100_000
FAULTS_SHOWN = 5


@dataclass
class Study:
    """A search as it is defined; values, settings and weights of a trial follow from its number.

    Raises: ConfigError or DataError with what would stop the first trial.
    """

    model_factory: Callable[..., nn.Module]
    space: SearchSpace
    training_config: TrainingConfig
    train_data: Any
    val_data: Any = None
    method: str = "quasi_random"
    points: Points = None
    metric: str = "val_loss"
    seed: int | None = None
    task_spec: TaskSpec = field(default_factory=TaskSpec.causal_lm)
    model_config: Any = None
    callbacks: Callable[[], Sequence[Callback]] | None = None
    db: ExperimentDB | None = None
    name: str = ""

    def __post_init__(self) -> None:
        faults = list(self._faults_of_arguments())
        if faults:
            raise refusal("search", faults)
        self._seed = self.training_config.seed if self.seed is None else self.seed
        self._factory = ModelFactory(self.model_factory)
        names = {"inputs": self.task_spec.inputs[0], "labels": self.task_spec.labels}
        self.train_data = as_samples(self.train_data, "train_data", **names)
        if self.val_data is not None:
            self.val_data = as_samples(self.val_data, "val_data", **names)

    def suggestions(self) -> Iterator[dict[str, Any]]:
        """Values of trial 0, 1, 2 and so on."""
        return suggestions(self.space, self.method, seed=self._seed, points=self.points)

    def plan(self, n_trials: int | None) -> tuple[int, Iterator[dict[str, Any]]]:
        """How many trials are to complete, and the values of those and of some to replace others.

        Raises: ConfigError if there are too few points, or if the settings of one are refused.
        """
        if n_trials is not None and (not isinstance(n_trials, int) or n_trials < 1):
            raise ConfigError(f"n_trials is {n_trials!r}, but one or more are wanted.")
        most = n_trials or (MAX_GRID if self.method == "grid" else DEFAULT_TRIALS)
        suggested = self.suggestions() if n_trials else _until_used_up(self.suggestions())
        first = list(itertools.islice(suggested, most))
        if not first or len(first) < (n_trials or 0) or (not n_trials and len(first) == MAX_GRID):
            raise ConfigError(
                f"n_trials is {n_trials}, but the space has {len(first):,} points "
                f"{'and more' if len(first) == MAX_GRID else 'that can be used'}. Ask for at most "
                "so many, or change the space, its constraints or the points of the grid."
            )
        self._check(first)
        further = itertools.islice(_until_used_up(suggested), len(first))
        return len(first), itertools.chain(first, further)

    def open(self, params: Mapping[str, Any]) -> RunFolder:
        """The folder of the search; `params` are the values of trial 0.

        Raises: SearchError if it belongs to another search, or if there has to be one already.
        """
        identity = self._identity(params)
        resume, root = self.training_config.resume, self.training_config.output_dir
        self.name = self.name or f"search-{fingerprint(identity)}"
        if resume == "never":
            self.name = free_name(root, self.name)
        path = Path(root).expanduser() / self.name
        before = read_json(path / SEARCH_FILE)
        if before is None and resume == "must":
            raise SearchError(
                f"resume is 'must', but {path} has no search to continue. Check output_dir and "
                "name, or set resume='auto'."
            )
        if before is None and (path / "run.json").exists():
            raise SearchError(
                f"{path} is the folder of a run, not of a search. Choose another name."
            )
        if before is not None:
            _check_same_search(before, identity, self.name)
        folder = RunFolder(path)
        if before is None:
            write_json(path / SEARCH_FILE, identity)
        return folder

    def settings(self, number: int, params: Mapping[str, Any]) -> TrainingConfig:
        """The settings of a trial, whose run lies below the folder of the search."""
        config = self.training_config
        return (
            self._builder(params)
            .with_settings(
                output_dir=str(Path(config.output_dir) / self.name),
                run_name=f"{self.name}-{number:04d}",
                resume="auto",
                database=config.database_url() or "off",
                panel="off" if config.panel == "auto" else config.panel,
            )
            .build()
        )

    def trainer(self, config: TrainingConfig, params: Mapping[str, Any]) -> Trainer:
        """A trainer with a model and callbacks of its own."""
        model = self._factory.build(config, params)
        callbacks = [] if self.callbacks is None else list(self.callbacks())
        shape = self._shape(model, params)
        return Trainer(model, shape, config, self.task_spec, callbacks=callbacks, db=self.db)

    def _builder(self, params: Mapping[str, Any]) -> TrainingConfigBuilder:
        changes = setting_values(params)
        return TrainingConfigBuilder.from_config(self.training_config).with_settings(**changes)

    def _shape(self, model: nn.Module, params: Mapping[str, Any]) -> Any:
        """The model's config: as given, as the model has it, or what the factory was given."""
        own = getattr(model, "config", None) if self.model_config is None else self.model_config
        return own if own is not None else model_values(params) or None

    def _identity(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """What makes this search this search, as plain JSON."""
        config = self._builder(params).build()
        model = self._factory.build(config, params)
        first = run_identity(
            config,
            self.task_spec,
            model,
            self._shape(model, params),
            self.train_data,
            self.val_data,
        )
        del first["run_id"]
        own = {
            "space": self.space.to_dict(),
            "order": list(self.space.parameters),
            "method": self.method,
            "points": self.points,
            "search seed": self._seed,
        }
        return json.loads(json.dumps({**own, **first}))

    def _check(self, first: Sequence[Mapping[str, Any]]) -> None:
        """Raise ConfigError with all that would stop one of these trials, before any is trained."""
        numbers: dict[str, list[int]] = {}
        for number, params in enumerate(first):
            for fault in self._faults_of_trial(params):
                numbers.setdefault(fault, []).append(number)
        faults = [f"Trial {where[0]}: {fault}" for fault, where in numbers.items()]
        if len(faults) > FAULTS_SHOWN:
            faults = [*faults[:FAULTS_SHOWN], f"{len(faults) - FAULTS_SHOWN} more of the kind."]
        if faults:
            raise refusal("trials: rule them out by Constraint or When", faults)

    def _faults_of_trial(self, params: Mapping[str, Any]) -> list[str]:
        fault = self._factory.fault(params)
        faults = [fault] if fault else []
        try:
            run_length(self._builder(params).build(), len(self.train_data))
        except ConfigError as error:
            faults += error.faults
        except DataError as error:
            faults.append(str(error))
        return faults

    def _faults_of_arguments(self) -> Iterator[str]:
        config = self.training_config
        if not isinstance(config, TrainingConfig):
            yield (
                f"training_config is of type {type(config).__name__}, but the settings of all "
                "trials are wanted. Pass a TrainingConfig; the model's own goes to model_config."
            )
        if self.callbacks is not None and not callable(self.callbacks):
            yield (
                "callbacks is a list, but its members would be shared between trials and carry "
                "what they remember from one to the next. Pass a function, as lambda: [...]."
            )
        if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]{0,89})?", self.name):
            yield (
                f"name is {self.name!r}, but up to 90 letters, digits, dots, hyphens and "
                "underscores are wanted. Choose another."
            )
        known = known_metrics(self.task_spec.metrics, self.val_data is not None)
        if self.metric not in known:
            has_val = "" if self.val_data is not None else " Pass val_data for those of validation."
            yield f"metric is {self.metric!r}, but {', '.join(known)} are known.{has_val}"


def _until_used_up(suggested: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Suggestions until the space has no more; that is the end, and no fault."""
    with contextlib.suppress(ConfigError):
        yield from suggested


def _check_same_search(before: dict[str, Any], identity: dict[str, Any], name: str) -> None:
    try:
        check_same_run(before, identity, name)
    except CheckpointError as error:
        lines = "\n".join(str(error).splitlines()[1:-1])
        raise SearchError(
            f"The search {name} was started as another one:\n{lines}\n"
            "Put it back to go on with it, or choose another name."
        ) from None

"""Trainer: wires data, model, task and settings into a run, and owns nothing else."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from helpers.config import TrainingConfig
from helpers.data.packing import Samples
from helpers.engine.agreement import check_agreement, check_model, own_generators
from helpers.engine.budget import Budget
from helpers.engine.build import build_loop, settle_device
from helpers.engine.callbacks import Callback, EarlyStopping, TextSamples
from helpers.engine.checkpoint import CheckpointStore
from helpers.engine.control import ControlFiles
from helpers.engine.device import DevicePlan
from helpers.engine.evaluate import evaluate
from helpers.engine.extend import (
    extended_config,
    find_run,
    record_extension,
    settle_extension,
)
from helpers.engine.identity import check_identity, run_identity
from helpers.engine.inputs import both_samples, samples_for, sound_samples
from helpers.engine.loop import TrainingLoop
from helpers.engine.memory import frames_cleared
from helpers.engine.metrics import MetricsTracker
from helpers.engine.mirror import Mirror
from helpers.engine.plan import RunPlan, measure_plan, run_length
from helpers.engine.pull_back import mirrored_names, pull_back
from helpers.engine.random_state import set_seed
from helpers.engine.rescue import rescue
from helpers.engine.result import (
    TrainingResult,
    make_result,
    read_result,
    with_mirror,
    write_result,
)
from helpers.engine.run import Run
from helpers.engine.run_folder import RunFolder, free_name
from helpers.engine.run_log import RunLog
from helpers.engine.snapshot import restore_run, save_run
from helpers.engine.stop import StopSignal, stop_on_signals
from helpers.errors import CheckpointError, DivergedError
from helpers.export import export_model
from helpers.notebook.panel import progress_callbacks
from helpers.objectives import Objective
from helpers.task import TaskSpec

if TYPE_CHECKING:
    from helpers.tracking.db import ExperimentDB

# Models that were trained in this process, so that a new run from their weights can say so.
_TRAINED: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


@dataclass
class Trainer:
    """Train a model; `train` starts a run or continues it where it stands.

    `config` is the model's own configuration, kept with the run. A run lives in the folder
    `<output_dir>/<run_name>`; without a run_name its name comes from all that identifies it, so
    that the same settings on the same data find their run again.

    Raises: nothing by itself; `plan` and `train` check model, data and settings together.
    """

    model: nn.Module
    config: Any = None
    training_config: TrainingConfig | None = None
    task_spec: TaskSpec | None = None
    callbacks: Sequence[Callback] = ()
    db: ExperimentDB | None = None

    def __post_init__(self) -> None:
        self.training_config = self.training_config or TrainingConfig()
        self.task_spec = self.task_spec or TaskSpec.causal_lm()
        self._compiled: nn.Module | None = None
        self._begun = ""

    @frames_cleared()
    def plan(self, train_data: Any, val_data: Any = None) -> RunPlan:
        """Show steps, tokens, memory, disk and time of the run, measured on one batch.

        Raises: DataError, ConfigError or TaskError for what would stop the run.
        """
        train, val, _ = self._samples(train_data, val_data)
        check_agreement(self.training_config, self.config, train)
        total_steps = run_length(self.training_config, len(train))
        identity = self._identity(train, val)
        loop = self._loop(total_steps, self._device(self._path(identity["run_id"])))
        return measure_plan(loop, train, val, self.training_config, identity["run_id"], total_steps)

    def train(self, train_data: Any, val_data: Any = None) -> TrainingResult:
        """Train until the run is complete, stops early, or is interrupted.

        An interrupt finishes the step, saves, and returns a result with the status paused; calling
        again continues. A run that had ended returns its result, with the weights loaded, and says
        so; `resume="never"` trains it again.

        Raises: DataError, ConfigError, TaskError or RunFolderError before the first step, also if
        settings contradict what model and data were built with;
        CheckpointError if the run exists with other settings; DivergedError if the loss does.
        """
        with frames_cleared():
            return self._train(train_data, val_data)

    def extend(
        self, train_data: Any, val_data: Any = None, *, run_id: str = "", **schedule: Any
    ) -> TrainingResult:
        """Go on with a run that exists, under another max_steps, epochs, budget or schedule.

        `run_id` is its folder below output_dir; empty takes the one of these settings. Where wsd
        has lowered the learning rate at the end, the run goes on from the checkpoint before that,
        if one was saved, and sets aside what came after; else from its last. The trainer keeps the
        new schedule, and extending to the same once more continues.

        Raises: as `train`; ConfigError for a setting of no schedule; CheckpointError if there is no
        such run, if it has gone further already, or if other settings differ.
        """
        with frames_cleared():
            return self._train(train_data, val_data, (run_id, schedule))

    def _train(
        self, train_data: Any, val_data: Any, extension: tuple[str, dict[str, Any]] | None = None
    ) -> TrainingResult:
        train, val, seen = self._samples(train_data, val_data)
        if extension is not None:
            seen = self._extend(train, val, *extension) + seen
        config = self.training_config
        unread = check_agreement(config, self.config, train)
        total_steps = run_length(config, len(train))
        identity = self._identity(train, val)
        folder = self._folder(identity)
        identity["run_id"] = folder.run_id
        with stop_on_signals() as stop, folder.lock() as lock, self._log() as log:
            lock.on_lost = stop.set
            notes = [("owner", note) for note in lock.notes]
            notes += self._pull_back(folder, stop)[0] + seen
            if folder.read_identity() is not None and not folder.checkpoints.steps():
                notes.append(("from step 0", "the run is on record, but has no checkpoint"))
            check_identity(folder, identity, config)
            settle_extension(folder, identity)
            set_seed(config.seed)
            plan = self._device(folder.path)
            loop = self._loop(total_steps, plan)
            run = self._run(folder, total_steps, train, stop, log)
            run.identity = identity
            damaged = restore_run(run, loop)
            known = read_result(run)
            if log is not None:
                log.start(run, config, identity)
            for kind, note in notes:
                run.tell(kind, note)
            if known is not None:
                if loop.average is not None:
                    loop.average.copy_to_model()
                return self._found(run, known, log)
            self._tell_start(run, damaged, unread)
            return self._finish(run, loop, train, val, log)

    def _extend(
        self, train: Samples, val: Samples | None, run_id: str, schedule: dict[str, Any]
    ) -> list[tuple[str, str]]:
        """Put the new schedule of a run on record, and go on with it."""
        if run_id:  # of the form of a run_name, so that it leads nowhere else
            self.training_config.replace(run_name=run_id)
        run_id = run_id or self._identity(train, val)["run_id"]
        mirror_dir = self.training_config.mirror_dir
        folder = find_run(self._path(run_id), mirror_dir)
        with stop_on_signals() as stop, folder.lock() as lock:
            lock.on_lost = stop.set
            notes, is_pulled = self._pull_back(folder, stop)
            if not (is_pulled or stop):
                why = "; ".join(note for _, note in notes)
                raise CheckpointError(
                    f"The mirror {mirror_dir} could not be read as a whole ({why}), but it may be "
                    "ahead of what is here. Try again, or set mirror_dir='' to extend what is here."
                )
            if not stop:
                config = extended_config(self.training_config, folder, schedule, len(train))
                now = self._identity(train, val, config)
                record_extension(folder, config, now, len(train))
                self.training_config = config
        if stop:  # what is on record stays, and the same call goes on from it
            raise KeyboardInterrupt
        damaged = [("damaged checkpoint", note) for note in folder.checkpoints.notes]
        return [*[("owner", note) for note in lock.notes], *notes, *damaged]

    @frames_cleared()
    def evaluate(self, data: Any, n_sequences: int = 0) -> dict[str, float]:
        """Metrics of the model as it is over a data set; 0 sequences takes all."""
        plan, size = self._device(), self.training_config.micro_batch_size
        samples = samples_for(self.task_spec, data, "data")
        size = 2 * (size or self.training_config.batch_size)
        return evaluate(self.model, self._objective(plan), plan, samples, n_sequences, size)

    def export(self, result: TrainingResult) -> Path:
        """Write the model with its settings and results as `final_model.pt` into the run folder.

        A run that ends does so by itself; a paused one may be exported as it stands.

        Raises: CheckpointError if the file cannot be written.
        """
        path = self._write_model(result)
        with self._database() as db:
            if db is not None:
                db.log_artifact(result.run_id, path, "model")
        return path

    def _write_model(self, result: TrainingResult) -> Path:
        path = RunFolder(result.run_dir).model_file
        return export_model(path, self.model, self.training_config, result.to_dict())

    def _found(self, run: Run, known: TrainingResult, log: RunLog | None) -> TrainingResult:
        """Say that a run had ended before, and make up for a file or record that is missing."""
        if not run.folder.model_file.exists():
            self._write_model(known)
        if log is not None:
            log.finish(run, known.status, known.final_metrics)
        run.emit("on_found_complete", known.status)
        run.control.tell(run)
        _end_mirror(run, log)
        return with_mirror(known, run)

    def _tell_start(self, run: Run, damaged: Sequence[str], unread: Sequence[str]) -> None:
        """Tell what the user should know before the first step of a session."""
        for note in damaged:
            run.tell("damaged checkpoint", note)
        trained_in = _TRAINED.get(self.model)
        if run.resumed_from is None and trained_in is not None:
            run.tell("not from scratch", f"the weights come from the run {trained_in}")
        _TRAINED[self.model] = run.run_id
        if run.extension:
            run.tell("extended", run.extension)
        if generators := own_generators(self.model):
            run.tell(
                "not exact",
                f"the model draws from random generators of its own ({', '.join(generators)}), "
                "whose states no checkpoint has; use those of torch, NumPy or Python, or a resumed "
                "run differs from an unbroken one",
            )
        if unread:
            run.tell("not read", f"neither model nor data reads {', '.join(unread)}")

    def _finish(
        self,
        run: Run,
        loop: TrainingLoop,
        train: Samples,
        val: Samples | None,
        log: RunLog | None,
    ) -> TrainingResult:
        """Train what is left, validate on all data, save, and put the outcome on record."""
        status, final, is_cut = "failed", {}, False
        try:
            run.emit("on_start")
            if run.resumed_from is None:
                save_run(run, loop)
            outcome = loop.run(run, train, val, lambda r: save_run(r, loop, is_background=True))
            save_run(run, loop)
            if val is not None and outcome != "paused":
                final = loop.evaluate(val)
            run.tell_if_late()
            result = make_result(run, outcome, final)
            write_result(run, result)
            status = outcome
            if loop.average is not None:
                loop.average.copy_to_model()
            if status != "paused":
                run.control.done("FINISH")  # the end is on disk, so that no kill forgets it
                self._write_model(result)
        except DivergedError:
            raise
        except Exception:
            rescue(run, loop)
            raise
        except BaseException:
            is_cut = True
            raise
        finally:
            # Whatever fails here, what comes after it is done all the same.
            with contextlib.ExitStack() as ending:
                ending.callback(lambda: _end_mirror(run, log, is_cut=is_cut))
                if log is not None:
                    ending.callback(lambda: log.finish(run, status, final))
                ending.callback(lambda: run.emit("on_end", status))
                loop.optimizer.zero_grad()
                run.saver.close(run)
        return with_mirror(result, run)

    def _samples(
        self, train_data: Any, val_data: Any
    ) -> tuple[Samples, Samples | None, list[tuple[str, str]]]:
        task, config = self.task_spec, self.training_config
        train, val = both_samples(task, config, train_data, val_data)
        check_model(self.model)
        return sound_samples(task, self.model, self.config, config, train, val)

    def _identity(
        self, train: Samples, val: Samples | None, config: TrainingConfig | None = None
    ) -> dict[str, Any]:
        config = config or self.training_config
        return run_identity(config, self.task_spec, self.model, self.config, train, val)

    def _folder(self, identity: dict[str, Any]) -> RunFolder:
        config, name = self.training_config, identity["run_id"]
        if config.resume == "never":
            # The same trainer goes on with the run that it began.
            self._begun = self._begun or free_name(
                config.output_dir, name, mirrored_names(config.mirror_dir)
            )
            name = self._begun
        path = self._path(name)
        if config.resume == "must" and not config.mirror_dir:
            _check_begun(path)
        return RunFolder(path)

    def _pull_back(self, folder: RunFolder, stop: StopSignal) -> tuple[list[tuple[str, str]], bool]:
        """Take from the mirror what this disk lacks; return what to tell, and whether it was read.

        A run that must exist has to by now.
        """
        config = self.training_config
        if not config.mirror_dir or config.resume == "never":
            return [], True
        notes, is_read = pull_back(folder, config.mirror_dir, is_stopped=lambda: bool(stop))
        if config.resume == "must":
            _check_begun(folder.path)
        return [("mirror", note) for note in notes], is_read

    def _path(self, run_id: str) -> Path:
        return Path(self.training_config.output_dir).expanduser() / run_id

    def _device(self, run_path: Path | None = None) -> DevicePlan:
        return settle_device(self.model, self.training_config, run_path)

    def _objective(self, plan: DevicePlan) -> Objective:
        return Objective(self.task_spec, self.model, self._forward(plan))

    def _loop(self, total_steps: int, plan: DevicePlan) -> TrainingLoop:
        config = self.training_config
        return build_loop(self.model, self._objective(plan), config, total_steps, plan)

    def _forward(self, plan: DevicePlan) -> nn.Module:
        """The model as it is called: compiled where the plan says so."""
        if plan.compile and self._compiled is None:
            # Static shapes: else an evaluation before training would change the training graph.
            self._compiled = torch.compile(self.model, dynamic=False)
        return self._compiled if plan.compile else self.model

    def _run(
        self,
        folder: RunFolder,
        total_steps: int,
        train: Samples,
        stop: StopSignal,
        log: RunLog | None,
    ) -> Run:
        config = self.training_config
        mirror = Mirror(folder, config.mirror_dir) if config.mirror_dir else None
        return Run(
            folder=folder,
            config=config,
            model=self.model,
            total_steps=total_steps,
            n_train_samples=len(train),
            tracker=MetricsTracker(folder.metrics_file),
            stop=stop,
            budget=Budget.of(config),
            control=ControlFiles.from_now(folder.path),
            mirror=mirror,
            callbacks=[*self._callbacks(train, log), *([mirror] if mirror is not None else [])],
        )

    def _callbacks(self, train: Samples, log: RunLog | None) -> list[Callback]:
        """The user's callbacks, those the settings ask for, and last those that show and record."""
        config, callbacks = self.training_config, list(self.callbacks)
        if config.early_stopping_patience:
            patience, min_delta = config.early_stopping_patience, config.early_stopping_min_delta
            callbacks.append(EarlyStopping(patience, min_delta))
        tokenizer = getattr(train, "tokenizer", None)
        if config.sample_tokens and tokenizer is not None:
            context = getattr(train, "sequence_length", 1024)
            callbacks.append(
                TextSamples(
                    tokenizer, config.sample_prompt, config.sample_tokens, context, config.seed
                )
            )
        callbacks += [log] if log is not None else []
        return callbacks + progress_callbacks(config.panel)

    @contextlib.contextmanager
    def _log(self) -> Iterator[RunLog | None]:
        """The run on record, where there is a database; nothing of it outlives the session."""
        with self._database() as db:
            log = None if db is None else RunLog(db)
            try:
                yield log
            finally:
                if log is not None:
                    log.close()

    @contextlib.contextmanager
    def _database(self) -> Iterator[ExperimentDB | None]:
        """The database given, or the one that the settings name; that one is closed again."""
        url = self.training_config.database_url()
        if self.db is not None or url is None:
            yield self.db
            return
        from helpers.tracking.db import ExperimentDB

        with ExperimentDB(url) as db:
            yield db


def _check_begun(path: Path) -> None:
    """Raise CheckpointError if there is nothing to continue from."""
    if not CheckpointStore(path / "checkpoints").steps():
        raise CheckpointError(
            f"resume is 'must', but {path} has no checkpoint to continue from. "
            "Check output_dir and run_name, or set resume='auto'."
        )


def _end_mirror(run: Run, log: RunLog | None, *, is_cut: bool = False) -> None:
    """Bring the mirror up to date, results and records of runs included; not after a cut."""
    if run.mirror is None:
        return
    if is_cut:
        run.mirror.let_go()
    else:
        run.mirror.finish(run, None if log is None else log.db)

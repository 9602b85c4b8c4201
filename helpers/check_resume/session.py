"""One session of the checked run, in a process of its own that may be killed at any moment.

`python -m helpers.check_resume.session SPEC.json FD` trains as any program does, through Trainer,
and tells through the pipe FD what it has come to.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from helpers.check_resume.progress import Progress, Reporter
from helpers.check_resume.settings import Spec, bounded, check_obeyed, in_scratch
from helpers.check_resume.target import build
from helpers.config import TrainingConfig
from helpers.data.packing import as_samples
from helpers.errors import HelpersError


def main(spec_file: str, descriptor: str) -> int:
    """Train one session; 0 if it ended, 2 if it was refused."""
    reporter = Reporter(int(descriptor))
    try:
        trainer, train, val = _prepare(Spec.load(Path(spec_file)), reporter)
        reporter.say("ready")
        result = trainer.train(train, val)
    except HelpersError as error:
        reporter.say("refused", message=str(error))
        return 2
    reporter.say("done", status=result.status)
    return 0


def _prepare(spec: Spec, reporter: Reporter) -> tuple[Any, Any, Any]:
    """Build trainer and data, and put the trainer on the settings of the check."""
    given = TrainingConfig.load(spec.config_file)
    trainer, train, val = build(spec.target, given)
    own, task = trainer.training_config, trainer.task_spec
    check_obeyed(given, own, spec.target)
    n_samples = len(as_samples(train, "train_data", inputs=task.inputs[0], labels=task.labels))
    config = bounded(own, n_samples, has_val=val is not None, steps=spec.steps, kills=spec.kills)
    trainer.training_config = in_scratch(config, Path(given.output_dir))
    trainer.db = None
    trainer.callbacks = [*trainer.callbacks, Progress(reporter)]
    reporter.say("settings", changed=own.diff(config))
    return trainer, train, val


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

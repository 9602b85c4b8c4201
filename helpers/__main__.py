"""The engine without a notebook: `python -m helpers train`, `runs` and `check-resume`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from helpers.errors import HelpersError


class Refused(click.ClickException):
    """A fault of the caller, told in one message."""

    exit_code = 2


@click.group()
def main() -> None:
    """Train transformers, and look at what was trained."""


@main.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="JSON of settings.")
@click.option("--preset", help="Settings to start from: smoke, quick, small or base.")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Change a setting.")
def train(config_file: Path | None, preset: str | None, assignments: tuple[str, ...]) -> None:
    """Train as training.ipynb does, or continue where the run stands.

    Exit status: 0 completed, 2 wrong settings or data, 130 interrupted and saved.
    """
    try:
        summary = _train(config_file, preset, assignments)
    except HelpersError as error:
        raise Refused(str(error)) from error
    click.echo(summary.line())
    sys.exit(130 if summary.values["status"] == "paused" else 0)


@main.command()
@click.option("--output-dir", default="runs", type=click.Path(path_type=Path), show_default=True)
def runs(output_dir: Path) -> None:
    """List the runs on record, oldest first."""
    from helpers.config import TrainingConfig
    from helpers.notebook.report import runs_on_record

    config = TrainingConfig(output_dir=str(output_dir))
    if not Path(config.database_url()).exists():
        raise Refused(f"{output_dir} has no database of runs: nothing was trained there yet.")
    try:
        click.echo(runs_on_record(config, n=1_000_000).to_string())
    except HelpersError as error:
        raise Refused(str(error)) from error


@main.command("check-resume")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="JSON of settings.")
@click.option("--preset", help="Settings to start from: smoke, quick, small or base.")
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Change a setting.")
@click.option(
    "--kills", default=3, show_default=True, type=click.IntRange(1), help="How often it is killed."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the moments of the kills.")
@click.option("--steps", default=40, show_default=True, type=click.IntRange(4), help="Longest run.")
@click.option(
    "--target",
    metavar="MODULE:FUNCTION",
    help="Builds (trainer, train_data, val_data) from a config; also path/file.py:function.",
)
@click.option("--keep", type=click.Path(path_type=Path), help="Leave both runs in this new folder.")
def check_resume(
    config_file: Path | None,
    preset: str | None,
    assignments: tuple[str, ...],
    kills: int,
    seed: int,
    steps: int,
    target: str | None,
    keep: Path | None,
) -> None:
    """Prove that a killed run resumes exactly, on your own model, data and settings.

    Trains unbroken, and again killed at random moments, in a folder that is removed afterwards.
    Exit status: 0 every bit is the same, 1 something differs, 2 wrong settings or data.
    """
    from helpers.check_resume import check_resume, ending_on_signals

    try:
        with ending_on_signals():
            found = check_resume(
                target,
                _settings(config_file, preset, assignments),
                kills=kills,
                seed=seed,
                steps=steps,
                keep=keep,
                on_progress=lambda line: click.echo(line, err=True),
            )
    except HelpersError as error:
        raise Refused(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(130)
    click.echo(found)
    sys.exit(0 if found.is_same else 1)


def _settings(config_file: Path | None, preset: str | None, assignments: tuple[str, ...]):
    from helpers.config import TrainingConfig, TrainingConfigBuilder, parse_settings
    from helpers.errors import ConfigError

    if config_file and preset:
        raise ConfigError(
            f"--config {config_file} and --preset {preset} were given, but one is the start. "
            "Leave one of them out."
        )
    if config_file:
        builder = TrainingConfigBuilder.from_config(TrainingConfig.load(config_file))
    else:
        builder = TrainingConfigBuilder.from_preset(preset or "quick")
    return builder.with_settings(**parse_settings(assignments)).build()


def _train(config_file: Path | None, preset: str | None, assignments: tuple[str, ...]):
    from helpers.data import UniversalDataModule, text_baselines
    from helpers.models import DecoderConfig, build_decoder
    from helpers.notebook.report import record_run
    from helpers.task import TaskSpec
    from helpers.trainer import Trainer

    config = _settings(config_file, preset, assignments)
    data = UniversalDataModule.from_config(config)
    model_config = DecoderConfig(data.vocab_size, **config.group("model"))
    model = build_decoder(model_config, seed=config.seed)
    trainer = Trainer(model, model_config, config, TaskSpec.causal_lm())
    result = trainer.train(data.train, data.val)
    summary = record_run(result, config)
    if result.status == "paused" or summary.values["baselines"]:
        return summary
    baselines = text_baselines(data.train.documents, data.val.documents)
    return record_run(result, config, baselines=baselines)


if __name__ == "__main__":
    main(prog_name="python -m helpers")

"""The commands `run` and `smoke`."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tools.commands.refusal import checked
from tools.settings import load_settings

if TYPE_CHECKING:
    from tools.run import RunReport
    from tools.running.job import Job

POSITIVE = click.FloatRange(min=0, min_open=True)
FILE = click.Path(dir_okay=False, path_type=Path)
OPTIONS = (
    click.option(
        "--timeout", "timeout_s", type=POSITIVE, help="Seconds of each cell, whatever its tags."
    ),
    click.option(
        "--total-timeout", "total_timeout_s", type=POSITIVE, help="Seconds of a whole notebook."
    ),
    click.option(
        "--memory-limit-mib",
        type=POSITIVE,
        help="Memory of the kernel with all that it starts; it is killed beyond.",
    ),
    click.option(
        "--output-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of all output.",
    ),
    click.option(
        "--lane",
        "lanes",
        multiple=True,
        metavar="NAME",
        help="Run there: colab-stub, or a lane of the settings.",
    ),
    click.option("--kernel-python", metavar="PYTHON", help="Interpreter of the kernel."),
    click.option(
        "--workers", type=click.IntRange(min=1), default=1, help="Notebooks that run at a time."
    ),
    click.option("--json", "json_path", type=FILE, help="Write a report for programs."),
    click.option("--junit", type=FILE, help="Write a report of all cells for a CI server."),
    click.option(
        "--format",
        "format_",
        type=click.Choice(["text", "github"]),
        default="text",
        help="github: annotate failures at their line of the file.",
    ),
)


def common(command: Callable) -> Callable:
    """Add the options that both commands have."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("notebooks", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-p", "parameters", type=(str, str), multiple=True, metavar="NAME VALUE")
@click.option("--smoke", is_flag=True, help="Start from the notebook's smoke parameters.")
@click.option("--workflow", metavar="NAME", help="Run only the cells of this workflow.")
@common
def run(notebooks: tuple[Path, ...], **options: Any) -> None:
    """Run notebooks: exit 0 if they ran, 1 if one failed, 2 if one could not be started."""
    options, output = _split(options)
    _run([(path, options) for path in notebooks], **output)


@click.command()
@click.argument("notebooks", nargs=-1, type=click.Path(path_type=Path))
@click.option("--workflows", is_flag=True, help="Run each declared workflow too.")
@common
def smoke(notebooks: tuple[Path, ...], workflows: bool, **options: Any) -> None:
    """Run notebooks with their smoke parameters; all of the project without an argument."""
    settings = checked(load_settings)
    options, output = _split(options)
    planned = []
    own = [Path(os.path.relpath(settings.root / name)) for name in settings.paths]
    for path in notebooks or own:
        names = checked(_workflows, path) if workflows else []
        for name in [None, *names]:
            planned.append((path, {**options, "smoke": True, "workflow": name}))
    _run(planned, is_table=True, **output)


def _workflows(path: Path) -> list[str]:
    from tools.running.job import workflows_of

    return workflows_of(path, load_settings(path.absolute().parent))


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a run, and those of its reports."""
    names = ("workers", "json_path", "junit", "format_")
    return {k: v for k, v in options.items() if k not in names}, {n: options[n] for n in names}


def _run(
    planned: Sequence[tuple[Path, dict[str, Any]]],
    *,
    workers: int,
    json_path: Path | None,
    junit: Path | None,
    format_: str,
    is_table: bool = False,
) -> None:
    """Run all that is planned, say what came of it, and exit."""
    from tools.running.job import prepare
    from tools.running.run_report import annotations, table, write_reports

    jobs = [checked(prepare, path, **options) for path, options in planned]
    reports = checked(_reports, jobs, workers)
    order = {(job.path, job.workflow): i for i, job in enumerate(jobs)}
    reports.sort(key=lambda report: order[report.notebook, report.workflow])
    if format_ == "github":
        for line in annotations(reports):
            click.echo(line)
    if is_table or len(jobs) > 1:
        click.echo(table(reports))
        begun = {(report.notebook, report.workflow) for report in reports}
        for job in jobs:
            if (job.path, job.workflow) not in begun:
                click.echo(f"{job.label}  not begun")
    elif reports[0].exit_code == 0:
        click.echo(reports[0].line())
    checked(write_reports, reports, junit, json_path)
    sys.exit(max((report.exit_code for report in reports), default=0))


def _reports(jobs: "Sequence[Job]", workers: int) -> "list[RunReport]":
    """Run the jobs, and tell of each as it goes on and when it has ended."""
    from tools.running.parallel import run_jobs
    from tools.running.run_report import failure, slowest

    is_parallel = workers > 1 and len(jobs) > 1
    width = max(len(job.label) for job in jobs)
    begun: list[Job] = []

    def progress(job: "Job", line: str) -> None:
        if is_parallel:
            line = f"{job.label:<{width}}  {line}"
        elif len(jobs) > 1 and job not in begun:
            begun.append(job)
            click.echo(job.label, err=True)
        click.echo(line, err=True)

    reports = []
    for report in run_jobs(jobs, workers, progress):
        if is_parallel:
            click.echo(f"{report.label}  {report.verdict.status}", err=True)
        times = slowest(report)
        if times:
            click.echo(times, err=True)
        if report.exit_code:
            click.echo(failure(report), err=True)
        reports.append(report)
    return reports

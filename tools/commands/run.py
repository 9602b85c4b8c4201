"""The commands `run` and `smoke`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tools.commands.refusal import checked
from tools.settings import load_settings

if TYPE_CHECKING:
    from tools.run import RunReport

SECONDS = click.FloatRange(min=0, min_open=True)
timeout = click.option("--timeout", type=SECONDS, help="Seconds that each cell may take.")
total_timeout = click.option(
    "--total-timeout", type=SECONDS, help="Seconds that the whole notebook may take."
)
output_dir = click.option(
    "--output-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder of all output."
)


@click.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.option("-p", "parameters", type=(str, str), multiple=True, metavar="NAME VALUE")
@click.option("--smoke", is_flag=True, help="Start from the notebook's smoke parameters.")
@timeout
@total_timeout
@output_dir
def run(notebook: Path, parameters: tuple[tuple[str, str], ...], **options: Any) -> None:
    """Run a notebook: exit 0 if it ran, 1 if it failed, 2 if it could not be started."""
    report = _run(notebook, parameters, **options)
    if report.exit_code:
        click.echo(_failure(report), err=True)
    else:
        click.echo(report.line())
    sys.exit(report.exit_code)


@click.command()
@click.argument("notebooks", nargs=-1, type=click.Path(path_type=Path))
@timeout
@total_timeout
@output_dir
def smoke(notebooks: tuple[Path, ...], **options: Any) -> None:
    """Run notebooks with their smoke parameters; all of the project without an argument."""
    settings = checked(load_settings)
    paths = notebooks or tuple(settings.root / name for name in settings.paths)
    reports = []
    for path in paths:
        click.echo(path.name, err=True)
        report = _run(path, (), smoke=True, **options)
        reports.append(report)
        if report.exit_code:
            click.echo(_failure(report), err=True)
        if report.verdict.status == "interrupted":
            break
    click.echo(_table(reports))
    sys.exit(max((report.exit_code for report in reports), default=0))


def _run(
    path: Path, parameters: tuple[tuple[str, str], ...], timeout, total_timeout, **options
) -> "RunReport":
    from tools.run import run_notebook

    return checked(
        run_notebook,
        path,
        parameters,
        timeout_s=timeout,
        total_timeout_s=total_timeout,
        progress=lambda line: click.echo(line, err=True),
        **options,
    )


def _table(reports: "list[RunReport]") -> str:
    """One line for each notebook: verdict, time, and the page or the cell to blame."""
    width = max((len(report.notebook.name) for report in reports), default=0)
    lines = []
    for report in reports:
        verdict = report.verdict
        note = f"{verdict.cause}, {verdict.cell}" if verdict.cell else str(report.html_path)
        head = f"{report.notebook.name:<{width}}  {verdict.status:<11}"
        lines.append(f"{head}  {report.elapsed_s:>6.1f} s  {note}")
    return "\n".join(lines)


def _failure(report: "RunReport") -> str:
    return f"{report.verdict}\nThe notebook as far as it ran: {report.html_path}"

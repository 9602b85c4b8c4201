"""The command `lane`."""

import sys
from pathlib import Path

import click

from tools.commands.refusal import checked
from tools.running.lanes import create_lane, find_lane
from tools.settings import load_settings


@click.command()
@click.argument("name")
@click.option("--create", is_flag=True, help="Create its environment, unless it is up to date.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Create it there, not in the folder of the settings.",
)
@click.option("--python", default=sys.executable, help="Interpreter that the environment is of.")
def lane(name: str, create: bool, folder: Path | None, python: str) -> None:
    """Print the interpreter of a lane of the settings; with --create, make its environment."""
    settings = checked(load_settings)
    if create:
        click.echo(
            checked(
                create_lane,
                name,
                settings,
                python=python,
                folder=folder,
                progress=lambda line: click.echo(line, err=True),
            )
        )
        return
    click.echo(checked(find_lane, [name], None, settings).python or sys.executable)

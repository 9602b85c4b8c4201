"""The command `sync`."""

import sys

import click

from tools.commands.refusal import checked
from tools.settings import load_settings


@click.command()
@click.argument("notebooks", nargs=-1)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 and show the drift, if any.")
@click.option("--diff", is_flag=True, help="Show what changes.")
def sync(notebooks: tuple[str, ...], check: bool, diff: bool) -> None:
    """Write forms, tags, badges, pinned refs and tables from the schema and the outlines.

    NOTEBOOKS are names in [tool.notebooks.outlines]; without one, all. Exit 0 if all is in step,
    1 with --check if something is not, 2 if an outline contradicts the schema or a file.
    """
    from tools.sync import find_drift

    settings = checked(load_settings)
    found = checked(find_drift, settings, notebooks)
    for drift in found:
        if check or diff:
            click.echo(drift.diff())
        if not check:
            checked(drift.write)
            click.echo(f"{drift.path}: written")
    if not found:
        click.echo("All is in step.")
    elif check:
        click.echo(f"{len(found)} files have drifted. Run: python -m tools sync")
        sys.exit(1)

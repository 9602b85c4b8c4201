"""The command `stats`."""

import dataclasses
import json
from pathlib import Path

import click

from tools.commands.refusal import Refused, checked
from tools.errors import NotebookError
from tools.notebook import read
from tools.settings import load_settings
from tools.stats import measure, table


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--format", "style", type=click.Choice(["text", "json"]), default="text")
def stats(paths: tuple[Path, ...], style: str) -> None:
    """Measure notebooks and folders of them; all of the project without an argument.

    Exit 2 if a notebook cannot be read; the others are measured all the same.
    """
    settings = checked(load_settings, *(_folder(path) for path in paths[:1]))
    chosen = paths or tuple(settings.root / name for name in settings.paths)
    rows, refusals = [], []
    for path in _notebooks(chosen):
        try:
            notebook = read(path)
        except NotebookError as error:
            refusals.append(str(error))
            continue
        rows.append(measure(notebook, settings.training_calls, str(path) if paths else path.name))
    if style == "json":
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    elif rows:
        click.echo(table(rows))
    if refusals:
        raise Refused("\n".join(refusals))


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _notebooks(paths: tuple[Path, ...]) -> list[Path]:
    """The files named, and those below the folders named; hidden folders hold copies."""
    found = []
    for path in paths:
        below = path.rglob("*.ipynb") if path.is_dir() else [path]
        found += sorted(
            file
            for file in below
            if not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
    return found

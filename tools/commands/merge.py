"""The command `import`."""

import sys
from pathlib import Path

import click

from tools.commands.refusal import checked
from tools.settings import load_settings

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("import")
@click.argument("file", type=FILE)
@click.option("--into", type=FILE, help="Our notebook; default: the one of the same name.")
@click.option("--base", default="HEAD", help="What the author opened: a git revision, or a file.")
@click.option("--prefer", type=click.Choice(["ours", "theirs"]), default=None, help="In conflict.")
@click.option("--check", is_flag=True, help="Say what would change, and write nothing.")
def merge(file: Path, into: Path | None, base: str, prefer: str | None, check: bool) -> None:
    """Merge a notebook saved by Colab: its text comes in, our ids, tags and metadata stay.

    Exit 0 if merged, 1 if cells are in conflict (then nothing is written), 2 if a file is wrong.
    """
    from tools.merge import base_of, merge_notebooks
    from tools.notebook import read

    settings = checked(load_settings)
    ours = into or settings.root / file.name
    opened = checked(read, Path(base)) if Path(base).is_file() else checked(base_of, ours, base)
    merged = checked(merge_notebooks, ours, file, opened, prefer or "")
    click.echo("\n".join(merged.lines()))
    if merged.conflicts and not prefer:
        click.echo("Nothing is written. Give --prefer ours or --prefer theirs.", err=True)
        sys.exit(1)
    if not check:
        checked(merged.notebook.write)
        click.echo(f"{ours}: written")

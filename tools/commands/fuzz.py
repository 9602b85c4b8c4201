"""The command `fuzz`."""

import faulthandler
import sys
from pathlib import Path

import click

from tools.commands.refusal import Refused, checked
from tools.settings import load_settings

NAMES = ("all", "read", "text", "edit", "validate", "migrate")
SHOWN = 10


@click.command()
@click.argument("seeds", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--count", default=10_000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True, help="Equal seeds make equal cases.")
@click.option("--operation", default="all", show_default=True, type=click.Choice(NAMES))
@click.option(
    "--keep",
    default=Path("runs/fuzz"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for failing cases.",
)
def fuzz(seeds: tuple[Path, ...], count: int, seed: int, operation: str, keep: Path) -> None:
    """Run the tools on odd notebooks: generated ones, and SEEDS (the project's own by default).

    Exit 0 if nothing broke down and no file was changed, 1 otherwise.
    """
    from tools.fuzzing.fuzz import fuzz as run
    from tools.fuzzing.fuzz import operations

    if not faulthandler.is_enabled():
        # A library may end the process; then this at least says where.
        faulthandler.enable(sys.__stderr__)
    settings = checked(load_settings)
    known = operations(settings)
    chosen = {name: known[name] for name in known if operation in ("all", name)}
    if not chosen:
        raise Refused(f"{operation} was chosen, but only {', '.join(known)} are there. Choose one.")
    own = [settings.root / name for name in settings.paths]

    def progress(done: int) -> None:
        if done % 1000 == 0:
            click.echo(f"{done} of {count}", err=True)

    outcome = run(count, seed, chosen, seeds or own, keep, progress)
    click.echo(f"{count} notebooks, seed {seed}")
    click.echo(outcome.table())
    for line in outcome.failures[:SHOWN]:
        click.echo(line)
    if len(outcome.failures) > SHOWN:
        click.echo(f"and {len(outcome.failures) - SHOWN} more in {keep}")
    sys.exit(0 if outcome.is_sound else 1)

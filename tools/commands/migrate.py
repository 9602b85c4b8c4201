"""The command `migrate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tools.commands.refusal import checked

if TYPE_CHECKING:
    from tools.migrate import Options, Plan

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--root", type=FOLDER, help="The tree whose settings and package are used.")
@click.option("--diff", "mode", flag_value="diff", help="Show a diff of each cell; write nothing.")
@click.option("--check", "mode", flag_value="check", help="Exit 1 if anything would change.")
@click.option("--write", "mode", flag_value="write", help="Replace the files, and keep a journal.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Markdown file.")
@click.option("--only", multiple=True, metavar="NAMES", help="Apply these, separated by commas.")
@click.option("--skip", multiple=True, metavar="NAMES", help="Leave these out.")
@click.option("--keep-unported", is_flag=True, help="Keep cells that have no counterpart.")
@click.option("--journal", type=FOLDER, help="Folder of the journal.")
@click.option("--rollback", metavar="ID", help="Put back what an entry of the journal replaced.")
def migrate(
    paths: tuple[Path, ...],
    root: Path | None,
    mode: str | None,
    report: Path | None,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    keep_unported: bool,
    journal: Path | None,
    rollback: str | None,
) -> None:
    """Bring notebooks from an old API to today's; without an option, show the plan."""
    if rollback:
        _rollback(rollback, paths, root, journal)
        return
    if not paths:
        raise click.UsageError("No notebook was given, but one is wanted. Give a path.")
    from tools.migrate import Options

    options = Options(_names(only), _names(skip), keep_unported)
    plans = [checked(_plan, path, root, options) for path in paths]
    for plan in plans:
        checked(lambda plan=plan: plan.result)
        click.echo(plan.diff() if mode == "diff" else _shown(plan), nl=mode != "diff")
    ids = checked(_write, plans, root, journal) if mode == "write" else {}
    if report:
        checked(_report, plans, report, root, ids)
    sys.exit(int(mode == "check" and any(plan.touched for plan in plans)))


def _names(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def _plan(path: Path, root: Path | None, options: "Options") -> "Plan":
    from tools.migrate import plan, settings_for
    from tools.notebook import read

    return plan(read(path), settings_for(path, root), options)


def _shown(plan: "Plan") -> str:
    """The plan: a line for each cell, then what remains."""
    path = plan.notebook.path
    if not plan.changes:
        return f"{path}: nothing to migrate"
    lines = [f"{path}: {len(plan.touched)} of {len(plan.notebook.cells)} cells change"]
    width = max(len(change.status) for change in plan.changes)
    lines += [
        f"  {change.number:>4}  {change.status:<{width}}  {change.id}  {change.title}"
        for change in plan.changes
    ]
    lines += [f"  left: {note}" for note in plan.of_kind("left")]
    return "\n".join(lines)


def _write(plans: Sequence["Plan"], root: Path | None, folder: Path | None) -> dict[Path, str]:
    """Replace each file that changes, and return the journal's id for each."""
    from tools.codemod.journal import FOLDER as NAME
    from tools.codemod.journal import Journal
    from tools.codemod.migration_report import require_no_worse
    from tools.migrate import replace

    ids = {}
    changing = [plan for plan in plans if plan.touched]
    for plan in changing:
        require_no_worse(plan, root)
    for plan in changing:
        entry = replace(plan, Journal(folder or plan.settings.root / NAME))
        ids[plan.notebook.path] = entry.id
        click.echo(f"{plan.notebook.path}: written; undo by --rollback {entry.id}")
    return ids


def _report(plans: Sequence["Plan"], path: Path, root: Path | None, ids: dict[Path, str]) -> None:
    from tools.codemod.migration_report import report_text, validate_copy

    texts = []
    for plan in plans:
        before = validate_copy(plan, plan.notebook, root)
        after = validate_copy(plan, plan.result, root)
        texts.append(report_text(plan, before, after, ids.get(plan.notebook.path, "")))
    path.write_text("\n".join(texts), encoding="utf-8")
    click.echo(f"report: {path}")


def _rollback(id: str, paths: tuple[Path, ...], root: Path | None, folder: Path | None) -> None:
    """Put the bytes back, and say of which files."""
    from tools.codemod.journal import FOLDER as NAME
    from tools.codemod.journal import Journal
    from tools.migrate import settings_for

    if not folder:
        start = paths[0] if paths else Path.cwd() / "notebook.ipynb"
        folder = checked(settings_for, start, root).root / NAME
    for path in checked(Journal(folder).rollback, id):
        click.echo(f"{path}: as before {id}")

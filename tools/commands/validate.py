"""The command `validate`."""

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from tools.commands.refusal import Refused, checked
from tools.formats import FORMATS, render
from tools.settings import Settings, load_settings


def _codes(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> list[str]:
    return [code for text in given for code in text.replace(",", " ").split()]


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Tree against which imports and paths resolve; by default the notebook's repository.",
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option(
    "--select", multiple=True, callback=_codes, help="Only these codes, or beginnings of codes."
)
@click.option(
    "--ignore", multiple=True, callback=_codes, help="Leave out these codes, or beginnings."
)
@click.option(
    "--baseline",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of known findings, which are not told; by default the one of the settings.",
)
@click.option("--write-baseline", is_flag=True, help="Make all that is found now known.")
@click.option("--fix", is_flag=True, help="Mend what can be mended safely, then check.")
@click.option("--diff", is_flag=True, help="Show what --fix would change, and write nothing.")
@click.option("--rules", is_flag=True, help="List all codes, and end.")
def validate(paths: tuple[Path, ...], root: Path | None, form: str, rules: bool, **options) -> None:
    """Check notebooks, or all below a folder; those of the project without PATHS.

    Exit 0 if there is no error and no warning (an info does not fail), 1 if there is one, and 2
    if the check could not be made.
    """
    if rules:
        _list_rules()
        return
    settings = checked(_settings, root)
    sys.exit(checked(_validate, paths, settings, root, form, **options))


def _settings(root: Path | None) -> Settings:
    """The settings of the tree that is named, else of the working folder."""
    here = load_settings()
    there = load_settings(root) if root else here
    return there if (there.root / "pyproject.toml").is_file() else here


def _validate(
    paths: tuple[Path, ...],
    settings: Settings,
    root: Path | None,
    form: str,
    select: list[str],
    ignore: list[str],
    baseline: Path | None,
    write_baseline: bool,
    fix: bool,
    diff: bool,
) -> int:
    from tools.checking.baseline import Baseline
    from tools.checking.discovery import find_notebooks
    from tools.validate import validate

    notebooks = find_notebooks(paths, settings)
    if fix or diff:
        _mend(notebooks, settings, root, select, ignore, is_real=not diff)
    file = _baseline_file(baseline, settings)
    if write_baseline:
        if file is None:
            raise Refused("No file for the baseline is given. Add --baseline FILE.")
        report = validate(notebooks, settings, root, select, ignore)
        known = Baseline(file).write(report.findings)
        click.echo(f"{file}: {known} findings are known now")
        return 0
    report = validate(notebooks, settings, root, select, ignore, _read(file, baseline))
    text = render(report, form)
    if text:
        click.echo(text)
    return report.exit_code


def _mend(
    notebooks: Iterable[Path],
    settings: Settings,
    root: Path | None,
    select: list[str],
    ignore: list[str],
    is_real: bool,
) -> None:
    from tools.checking.fix import mend
    from tools.checking.house import chosen

    codes = chosen(select, [*ignore, *settings.ignore])
    for path in notebooks:
        mended = mend(path, settings, root, codes, write=is_real)
        if mended is not None:
            click.echo(mended.line() if is_real else mended.diff(), err=is_real)


def _baseline_file(given: Path | None, settings: Settings) -> Path | None:
    return given or (settings.root / settings.baseline if settings.baseline else None)


def _read(file: Path | None, given: Path | None):
    """The baseline; one that only the settings name need not be there yet."""
    from tools.checking.baseline import read_baseline

    if file is None or (given is None and not file.is_file()):
        return None
    return read_baseline(file)


def _list_rules() -> None:
    from tools.checking.house import load_rules, summaries

    for code, summary in summaries().items():
        rule = load_rules().get(code)
        mark = "  (--fix)" if rule and rule.fix else ""
        click.echo(f"{code}  {summary}{mark}")

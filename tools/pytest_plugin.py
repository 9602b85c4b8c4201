"""A pytest plugin: an item for each notebook, and on request one for each smoke run.

Load it with `-p tools.pytest_plugin`, then ask with `--notebooks` or `--notebooks-smoke`. The
notebooks are those of `[tool.notebooks]`; each declared workflow of a notebook is a run.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.errors import ToolsError
from tools.settings import Settings, load_settings


class NotFit(Exception):
    """What is wrong with a notebook, as text for people."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    group = parser.getgroup("notebooks", "the notebooks of [tool.notebooks]")
    group.addoption("--notebooks", action="store_true", help="validate each notebook")
    group.addoption("--notebooks-smoke", action="store_true", help="run each notebook, small")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Put the items of the notebooks before all others; a worker of xdist does the same."""
    wanted = config.getoption("notebooks"), config.getoption("notebooks_smoke")
    if any(wanted):
        settings = load_settings(config.rootpath)
        items[:0] = list(_items(session, settings, *wanted))


def _items(
    session: pytest.Session, settings: Settings, validates: bool, runs: bool
) -> Iterator["NotebookItem"]:
    for name in settings.paths if validates else ():
        yield ValidateItem.of(session, settings, name)
    for name in settings.paths if runs else ():
        for workflow in ("", *settings.workflows.get(name, {})):
            yield SmokeItem.of(session, settings, name, workflow)


class NotebookItem(pytest.Item):
    """One thing to find out about one notebook."""

    action = ""

    @classmethod
    def of(
        cls, session: pytest.Session, settings: Settings, name: str, workflow: str = ""
    ) -> "NotebookItem":
        """The item of a notebook, named after it and its workflow."""
        path = settings.root / name
        label = f"{name}[{workflow}]" if workflow else name
        item = cls.from_parent(
            session, name=f"{cls.action} {label}", nodeid=f"{name}::{cls.action}"
        )
        item.path, item.settings, item.workflow = path, settings, workflow
        return item

    path: Path
    settings: Settings
    workflow: str

    def repr_failure(self, excinfo, style=None) -> str:
        """Show the findings or the verdict; a traceback only for a fault of the tools."""
        if isinstance(excinfo.value, NotFit | ToolsError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The file and the name of the item."""
        return self.path, None, self.name


class ValidateItem(NotebookItem):
    """A notebook in which validate finds nothing."""

    action = "validate"

    def runtest(self) -> None:
        """Check the notebook.

        Raises: NotFit with all findings.
        """
        from tools.checking.baseline import read_baseline
        from tools.formats.text import render
        from tools.validate import validate

        file = self.settings.root / self.settings.baseline
        known = read_baseline(file) if self.settings.baseline and file.is_file() else None
        report = validate([self.path], self.settings, baseline=known)
        if report.exit_code:
            raise NotFit(render(report))


class SmokeItem(NotebookItem):
    """A notebook, or one workflow of it, that runs to its end with its smoke parameters."""

    action = "run"

    def runtest(self) -> None:
        """Run the notebook.

        Raises: NotFit with the verdict.
        """
        from tools.run import run_notebook

        options = {"workflow": self.workflow} if self.workflow else {}
        report = run_notebook(self.path, smoke=True, settings=self.settings, **options)
        if report.exit_code:
            raise NotFit(f"{report.verdict}\nThe notebook as far as it ran: {report.html_path}")

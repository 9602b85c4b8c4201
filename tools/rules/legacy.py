"""Live uses of symbols that a migration replaces; which these are, the migrations say."""

import ast
import importlib
import sys
from collections.abc import Iterator

from tools.errors import SettingsError
from tools.rules import Problem, Subject, rule
from tools.settings import Settings

LOADERS = ("import_module", "__import__")


def legacy_symbols(settings: Settings) -> dict[str, str]:
    """What to do about each legacy symbol, by qualified name; empty without migrations.

    Raises: SettingsError if the package of migrations cannot be imported.
    """
    if not settings.migrations:
        return {}
    if str(settings.root) not in sys.path:
        sys.path.append(str(settings.root))
    try:
        return dict(importlib.import_module(settings.migrations).legacy_symbols())
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"migrations is {settings.migrations!r}, but its legacy_symbols() cannot be called "
            f"({error}). Correct [tool.notebooks] in pyproject.toml."
        ) from error


def names_legacy(settings: Settings, raw: bytes) -> bool:
    """Whether a file so much as contains the name of a legacy module."""
    return any(name.encode() in raw for name in settings.legacy)


@rule("PY303")
def legacy(subject: Subject) -> Iterator[Problem]:
    """No symbol of a legacy API is used; ruff sees imports and uses, this sees names in loaders."""
    if not names_legacy(subject.settings, subject.notebook.raw):
        return
    symbols = legacy_symbols(subject.settings)
    for cell in subject.program.cells:
        for node in cell.nodes:
            name = _loaded(node)
            cure = next((symbols[part] for part in _parts(name) if part in symbols), None)
            if cure is not None:
                yield Problem(f"`{name}` is of a legacy API.", cure, cell.index, node.lineno)


def _loaded(node: ast.AST) -> str:
    """The module that a call such as `import_module("name")` loads; empty for any other node."""
    if not isinstance(node, ast.Call) or not node.args:
        return ""
    name = ast.unparse(node.func).rpartition(".")[2]
    value = getattr(node.args[0], "value", None)
    return value if name in LOADERS and isinstance(value, str) else ""


def _parts(name: str) -> list[str]:
    """The name, then its parents, down to the top."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(len(parts), 0, -1)]

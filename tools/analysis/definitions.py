"""Find where a name of a first-party package is defined, through the imports of its modules."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.analysis.packages import lazy_table

HOPS = 6
Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Home:
    """A definition, and the module in which its own names are looked up."""

    node: Definition
    module: Path | None
    """None for the notebook itself."""


def find(name: str, module: str, folders: tuple[Path, ...]) -> Home | None:
    """The function or class that `from module import name` would bind, if it is in the folders."""
    for _ in range(HOPS):
        path = _path(module, folders)
        tree = _tree(path, path.stat().st_mtime_ns) if path else None
        if path is None or tree is None:
            return None
        for node in tree.body:
            if isinstance(node, Definition) and node.name == name:
                return Home(node, path)
        source = next(_sources(tree, name, module, path.name == "__init__.py"), None)
        if source is None:
            return None
        module, name = source
    return None


def _path(module: str, folders: tuple[Path, ...]) -> Path | None:
    for folder in folders:
        base = folder.joinpath(*module.split("."))
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if path.is_file():
                return path
    return None


@cache
def _tree(path: Path, modified_at: int) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None


def _sources(
    tree: ast.Module, name: str, module: str, is_package: bool
) -> Iterator[tuple[str, str]]:
    """Where a module has a name from: the module and its name there."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    yield absolute(node.module, node.level, module, is_package), alias.name
        targets = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        home = lazy_table(node, targets).get(name)
        if home is not None:
            level = len(home) - len(home.lstrip("."))
            yield absolute(home.lstrip("."), level, module, is_package), name


def absolute(name: str | None, level: int, module: str, is_package: bool) -> str:
    """The full name of a module that another module imports, perhaps relatively.

    >>> absolute("loop", 1, "engine.trainer", False), absolute("loop", 1, "engine", True)
    ('engine.loop', 'engine.loop')
    """
    if not level:
        return name or ""
    parts = module.split(".")
    kept = parts[: len(parts) - level + is_package]
    return ".".join([*kept, *filter(None, [name])])

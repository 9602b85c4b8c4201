"""The modules of a first-party package, and the names that it loads lazily."""

import ast
import os
from pathlib import Path

SKIPPED = ("__pycache__", ".git", "node_modules")


def modules_of(package: Path) -> list[Path]:
    """All Python files of a package, or the one file of a module."""
    if package.is_file():
        return [package]
    found = []
    for folder, folders, names in os.walk(package):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in SKIPPED)
        found += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
    return found


def lazy_table(node: ast.stmt, read: set[str]) -> dict[str, str]:
    """The literal dict of names to modules that an assignment binds; empty for any other."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict):
        return {}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if not any(isinstance(target, ast.Name) and target.id in read for target in targets):
        return {}
    try:
        table = ast.literal_eval(node.value)
    except ValueError:
        return {}
    are_names = all(isinstance(name, str) and name.isidentifier() for name in table)
    return table if are_names and all(isinstance(home, str) for home in table.values()) else {}

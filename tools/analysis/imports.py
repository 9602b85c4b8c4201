"""What a module's name means here: a part of the tree, a package that is installed, or neither."""

import ast
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

from tools.program import Program

ENVIRONMENT = ("google.colab",)
"""Modules that a notebook's own environment brings."""
IMPORT_ERRORS = ("ImportError", "ModuleNotFoundError", "Exception", "BaseException")


def search_folders(root: Path, notebooks: list[Path]) -> list[Path]:
    """The folders from which notebooks of a root import: the root, its `src`, and their own."""
    folders = [root, root / "src", *sorted({path.resolve().parent for path in notebooks})]
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def first_party(name: str, folders: list[Path]) -> Path | None:
    """The package or the module of this top-level name in the tree."""
    for folder in folders:
        package, module = folder / name, folder / f"{name}.py"
        if module.is_file():
            return module
        if package.is_dir() and any(package.glob("**/*.py")):
            return package
    return None


def first_party_names(folders: list[Path]) -> list[str]:
    """The top-level names that can be imported from the folders."""
    found = set()
    for entry in (entry for folder in folders for entry in folder.iterdir()):
        is_package = entry.is_dir() and (entry / "__init__.py").is_file()
        if (is_package or entry.suffix == ".py") and entry.stem.isidentifier():
            found.add(entry.stem)
    return sorted(found)


def imported_packages(programs: list[Program], folders: list[Path]) -> list[Path]:
    """The packages and modules of the tree that notebooks import, each once."""
    tops = sorted({top for program in programs for top in _top_names(program)})
    found = (first_party(top, folders) for top in tops)
    return list(dict.fromkeys(path for path in found if path is not None))


def _top_names(program: Program) -> set[str]:
    names = set()
    for cell in program.cells:
        for node in cell.nodes:
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names


@lru_cache(maxsize=4096)
def is_installed(name: str) -> bool:
    """Whether a module is in the environment, without importing anything."""
    path: Sequence[str] | None = [entry for entry in sys.path if entry not in ("", os.getcwd())]
    for i in range(name.count(".") + 1):
        part = ".".join(name.split(".")[: i + 1])
        if i == 0 and part in sys.builtin_module_names:
            return name == part
        try:
            spec = PathFinder.find_spec(part, path)
        except (ImportError, ValueError, OSError):
            return False
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return True


def is_optional(tree: ast.AST, line: int) -> bool:
    """Whether an import stands in a `try` whose handler takes its failure."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            last, is_taken = node.body[-1], any(map(_takes_import_error, node.handlers))
        elif isinstance(node, ast.With):
            last, is_taken = node, "suppress" in ast.unparse(node.items[0])
        else:
            continue
        if is_taken and node.lineno <= line <= last.end_lineno:
            return True
    return False


def _takes_import_error(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(names & set(IMPORT_ERRORS))

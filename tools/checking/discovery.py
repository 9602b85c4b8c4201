"""Which notebooks are meant by paths on the command line, and which tree each belongs to."""

import os
from collections.abc import Sequence
from pathlib import Path

from tools.checking.finding import shown
from tools.errors import ToolsError
from tools.settings import Settings

MARKS = ("pyproject.toml", ".git")
SKIPPED = ("__pycache__", "node_modules")


def find_notebooks(paths: Sequence[Path], settings: Settings) -> list[Path]:
    """The notebooks at or below the paths, each once; without a path, those of the settings.

    Raises: ToolsError if a path does not exist, or if there is no notebook.
    """
    wanted = list(paths) or [settings.root / name for name in settings.paths]
    missing = [shown(path) for path in wanted if not path.exists()]
    if missing:
        raise ToolsError(f"{', '.join(missing)} does not exist. Name a notebook or a folder.")
    found: dict[Path, Path] = {}
    for path in wanted:
        for notebook in _below(path, settings) if path.is_dir() else [path]:
            found.setdefault(notebook.resolve(), notebook)
    if not found:
        where = ", ".join(map(shown, wanted)) or "[tool.notebooks] of pyproject.toml"
        raise ToolsError(f"No notebook is in {where}. Name a notebook or a folder with some.")
    return list(found.values())


def _below(folder: Path, settings: Settings) -> list[Path]:
    """All notebooks below a folder, but for hidden folders, environments and executed copies."""
    executed = [Path.cwd() / settings.output_dir, settings.root / settings.output_dir]
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED
            and not Path(parent, name, "pyvenv.cfg").exists()
            and Path(parent, name).absolute() not in executed
        )
        found += [Path(parent, name) for name in sorted(names) if name.endswith(".ipynb")]
    return [path for path in found if not path.name.startswith(".")]


def repository_of(notebook: Path, settings: Settings) -> Path:
    """The nearest folder above with a pyproject.toml or a .git; else the root of the settings."""
    for folder in notebook.resolve().parents:
        if any((folder / mark).exists() for mark in MARKS):
            return folder
    return settings.root
